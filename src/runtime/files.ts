import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { realClock } from './clock.ts';
import { CodedError } from './coded-error.ts';
import { becomeUser, foreignOwner } from './foreign-owner.ts';
import { takeLock } from './lock.ts';
import { codeOf } from './words.ts';

/** The text of a file, undefined where there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A file could not be locked, because another command changes it; the message names it. */
export class FileLockError extends CodedError<'held'> {
  override readonly name = 'FileLockError';
}

/** A file that no other command changes meanwhile: who reads it, and writes what it made of that, holds it all the time. */
export interface LockedFile {
  readonly path: string;
  /**
   * Writes it for a command that ends afterwards: beside it and renamed, both synced, so that a power cut leaves one whole.
   * In a folder that another user could change, root becomes that user for good (`foreignOwner`). Throws as node:fs does.
   */
  replace(text: string, attributes: Attributes): void;
  release(): Promise<void>;
}

export interface Attributes {
  readonly mode: number;
  /** That of the writer where it is not given. */
  readonly gid?: number;
}

/** Waits for another command, up to `waitMs`. Throws a FileLockError, and what `takeLock` throws. */
export async function lockFile(path: string, waitMs = 20_000): Promise<LockedFile> {
  const whole = resolve(path);
  const untilMs = realClock.monotonicMs() + waitMs;
  do {
    const lock = await takeLock(dirname(whole), `${basename(whole)}.lock`);
    if (lock !== undefined) {
      return {
        path,
        replace: (text, attributes) => replaceFile(path, text, attributes),
        release: () => lock.release(),
      };
    }
    // Of many that wait, two seldom try at the same moment.
    await realClock.sleep(20 + Math.random() * 80);
  } while (realClock.monotonicMs() < untilMs);
  throw new FileLockError(
    'held',
    `'${path}' has been locked by another command for ${waitMs / 1000} s: nothing is changed; try again when it has ended`,
  );
}

function replaceFile(path: string, text: string, { mode, gid }: Attributes): void {
  const folder = dirname(resolve(path));
  const owner = foreignOwner(folder);
  if (owner !== undefined) becomeUser(owner);
  const part = `${path}.new`;
  rmSync(part, { force: true });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const file = openSync(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  try {
    if (gid !== undefined && fstatSync(file).gid !== gid) fchownSync(file, -1, gid);
    fchmodSync(file, mode); // whatever the umask
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(part, path);
  const opened = openSync(folder, 'r');
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}
