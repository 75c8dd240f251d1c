import { accessSync, constants } from 'node:fs';
import { dirname } from 'node:path';
import { type AgentId, agentId } from '../../model/agent-id.ts';
import { CodedError } from '../../runtime/coded-error.ts';
import { FileLockError, type LockedFile, lockFile, readIfThere } from '../../runtime/files.ts';
import { UsageError } from '../../runtime/options.ts';
import { codeOf, reasonOf } from '../../runtime/words.ts';

/** Up to which generation each name's keys are refused: all that is stored of keys. */
export type Revocations = ReadonlyMap<AgentId, number>;

export const noRevocations: Revocations = new Map();

/** The revocations could not be written; the message names the file. */
export class RevocationsError extends CodedError<'unwritten'> {
  override readonly name = 'RevocationsError';
}

/** What either of them refuses. */
export function mergeRevocations(a: Revocations, b: Revocations): Revocations {
  const merged = new Map(a);
  for (const [id, generation] of b) merged.set(id, Math.max(generation, merged.get(id) ?? 0));
  return merged;
}

/** The revocations in the file, undefined where there is none. Throws a UsageError where it is unreadable or damaged. */
export function readRevocations(path: string): Revocations | undefined {
  const text = textOf(path);
  if (text === undefined) return undefined;
  try {
    return parseRevocations(text);
  } catch (error) {
    // Without it revoked keys would be accepted.
    throw new UsageError(
      `'${path}' is damaged (${reasonOf(error)}): restore it from a backup; without it revoked keys are accepted again`,
    );
  }
}

function textOf(path: string): string | undefined {
  try {
    return readIfThere(path);
  } catch (error) {
    throw new UsageError(`the revocations in '${path}' cannot be read (${reasonOf(error)}): run 'chmod 0644 ${path}'`);
  }
}

/** Throws a RevocationsError where the file cannot be written by this user; nothing is changed. */
export function checkWritable(path: string): void {
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw unwritten(path, error);
  }
}

/** For a command that reads it and then writes it. Throws a RevocationsError, or a FileLockError if another one does so. */
export async function lockRevocations(path: string): Promise<LockedFile> {
  try {
    return await lockFile(path);
  } catch (error) {
    if (error instanceof FileLockError) throw error;
    throw unwritten(path, error);
  }
}

/** It holds no secret, and the server reads it as another user. Throws a RevocationsError. */
export function writeRevocations(file: LockedFile, revoked: Revocations): void {
  try {
    file.replace(encodeRevocations(revoked), { mode: 0o644 });
  } catch (error) {
    throw unwritten(file.path, error);
  }
}

function unwritten(path: string, cause: unknown): RevocationsError {
  const remedy = codeOf(cause) === 'EACCES' ? '; run this as root' : '';
  return new RevocationsError(
    'unwritten',
    `the revocations in '${path}' cannot be written: ${reasonOf(cause)}${remedy}`,
    {
      cause,
    },
  );
}

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
    if (id === undefined || typeof generation !== 'number' || !isGeneration(generation)) {
      throw new Error(`'${name}': expected an agent's name and a generation from 1`);
    }
    revoked.set(id, generation);
  }
  return revoked;
}

/** As an identity has it: from 1, of at most 9 digits. */
export function isGeneration(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 999_999_999;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
