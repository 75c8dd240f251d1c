import { accessSync, chownSync, constants, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { AgentId } from '../../model/agent-id.ts';
import { UsageError } from '../../runtime/options.ts';
import { encodeRevocations, parseRevocations, type Revocations } from '../ingest/key-ring.ts';
import type { StateDisk } from './state-file.ts';

/** The cursors' file in the state folder. Written beside and renamed, both synced, so that a power cut leaves one whole. */
export function cursorsDisk(stateDir: string): StateDisk {
  const path = join(stateDir, 'cursors.json');
  return {
    read: () => readIfThere(path),
    async write(text) {
      const temporary = `${path}.new`;
      const file = await open(temporary, 'w', 0o600);
      try {
        await file.writeFile(text);
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
      const folder = await open(dirname(path), 'r');
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    },
  };
}

/** Which generations are refused; none where there is no state folder or no file yet. */
export function readRevocations(stateDir: string | undefined): Revocations {
  if (stateDir === undefined) return new Map<AgentId, number>();
  const path = revocationsPath(stateDir);
  const text = readIfThere(path);
  if (text === undefined) return new Map<AgentId, number>();
  try {
    return parseRevocations(text);
  } catch (error) {
    // Going on without it would let revoked agents in.
    throw new UsageError(`'${path}' cannot be understood: ${(error as Error).message}`);
  }
}

export function writeRevocations(stateDir: string, revoked: Revocations): void {
  const path = revocationsPath(stateDir);
  writeFileSync(`${path}.new`, encodeRevocations(revoked), { mode: 0o640, flush: true });
  // Run by root, it must leave a file that the server may read: it belongs to whom the folder belongs.
  const { uid, gid } = statSync(stateDir);
  if (process.getuid?.() === 0) chownSync(`${path}.new`, uid, gid);
  renameSync(`${path}.new`, path);
}

/** Throws a UsageError where the folder is not there or may not be written. */
export function checkStateDir(stateDir: string): void {
  try {
    if (!statSync(stateDir).isDirectory()) throw new Error('it is no folder');
    accessSync(stateDir, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new UsageError(
      `--state-dir '${stateDir}': expected a folder that may be written: ${(error as Error).message}`,
    );
  }
}

const revocationsPath = (stateDir: string): string => join(stateDir, 'revoked.json');

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
