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
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
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

/**
 * Writes a file for a command that ends afterwards: beside it and renamed, both synced, so that a power cut leaves one whole.
 * In a folder that another user could change, root becomes that user for good: a link that lies there leads no further
 * than that user can go. Throws as node:fs does.
 */
export function replaceFile(
  path: string,
  text: string,
  { mode, gid }: { readonly mode: number /** That of the writer where it is not given. */; readonly gid?: number },
): void {
  const folder = dirname(resolve(path));
  becomeOwner(folder);
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

/** Root gives up its rights where a part of the path belongs to somebody else. */
function becomeOwner(folder: string): void {
  if (process.getuid?.() !== 0) return;
  const parts = folder.split('/');
  const ancestors = parts.map((_, at) => parts.slice(0, at + 1).join('/') || '/');
  const foreign = ancestors.map((path) => statSync(path)).find(({ uid }) => uid !== 0);
  if (foreign === undefined) return;
  process.setgroups!([]);
  process.setgid!(foreign.gid);
  process.setuid!(foreign.uid);
}
