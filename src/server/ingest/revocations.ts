import { chownSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type AgentId, agentId } from '../../model/agent-id.ts';
import { readIfThere } from '../../runtime/files.ts';
import { UsageError } from '../../runtime/options.ts';
import { reasonOf } from '../../runtime/words.ts';

/** Up to which generation each name's keys are refused: all that is stored of keys. */
export type Revocations = ReadonlyMap<AgentId, number>;

/** The revocations in the state folder; none without a folder or a file. */
export function readRevocations(stateDir: string | undefined): Revocations {
  if (stateDir === undefined) return new Map<AgentId, number>();
  const path = revocationsPath(stateDir);
  const text = readIfThere(path);
  if (text === undefined) return new Map<AgentId, number>();
  try {
    return parseRevocations(text);
  } catch (error) {
    // Without it revoked keys would be accepted.
    throw new UsageError(
      `'${path}' is damaged (${reasonOf(error)}): restore it from a backup; without it revoked keys are accepted again`,
    );
  }
}

export function writeRevocations(stateDir: string, revoked: Revocations): void {
  const path = revocationsPath(stateDir);
  writeFileSync(`${path}.new`, encodeRevocations(revoked), { mode: 0o640, flush: true });
  // The server must be able to read what root writes: the file gets the owner of the folder.
  const { uid, gid } = statSync(stateDir);
  if (process.getuid?.() === 0) chownSync(`${path}.new`, uid, gid);
  renameSync(`${path}.new`, path);
}

const revocationsPath = (stateDir: string): string => join(stateDir, 'revoked.json');

/** The file of revocations: `{"version":1,"revoked":{"web-1":2}}`. */
export function encodeRevocations(revoked: Revocations): string {
  return `${JSON.stringify({ version: 1, revoked: Object.fromEntries(revoked) }, undefined, 2)}\n`;
}

/** Throws an Error that says what is wrong with the text. */
export function parseRevocations(text: string): Map<AgentId, number> {
  const root: unknown = JSON.parse(text);
  if (!isRecord(root) || root['version'] !== 1 || !isRecord(root['revoked'])) {
    throw new Error(`expected {"version":1,"revoked":{…}}`);
  }
  const revoked = new Map<AgentId, number>();
  for (const [name, generation] of Object.entries(root['revoked'])) {
    const id = agentId(name);
    if (id === undefined || typeof generation !== 'number' || !Number.isInteger(generation) || generation < 1) {
      throw new Error(`'${name}': expected an agent's name and a generation from 1`);
    }
    revoked.set(id, generation);
  }
  return revoked;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
