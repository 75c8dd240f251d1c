import { accessSync, constants, statSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readIfThere } from '../../runtime/files.ts';
import { UsageError } from '../../runtime/options.ts';
import { reasonOf } from '../../runtime/words.ts';
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

/** Throws a UsageError where the folder is not there or may not be written. */
export function checkStateDir(stateDir: string): void {
  try {
    if (!statSync(stateDir).isDirectory()) throw new Error('it is no folder');
    accessSync(stateDir, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new UsageError(`--state-dir '${stateDir}': expected a folder that may be written: ${reasonOf(error)}`);
  }
}
