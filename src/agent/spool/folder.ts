import { accessSync, constants, statSync, write as writeFile } from 'node:fs';
import { type FileHandle, mkdir, open as openFile, readdir, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Clock } from '../../runtime/clock.ts';
import { CodedError } from '../../runtime/coded-error.ts';
import { type Lock, takeLock } from '../../runtime/lock.ts';
import { codeOf, durationText, reasonOf } from '../../runtime/words.ts';
import { type SpoolDisk, unless } from './mirror.ts';

/** A folder that cannot hold a spool. The message names the folder and what to do. */
export class SpoolFolderError extends CodedError<'access' | 'locked' | 'timeout'> {
  override readonly name = 'SpoolFolderError';
}

export interface SpoolFolder {
  readonly disk: SpoolDisk;
  /** Releases the folder. */
  close(): Promise<void>;
}

/**
 * Opens a folder for the spool of this process alone. Throws a SpoolFolderError; with code `timeout` if the disk does
 * not answer: the agent then starts with a spool in memory only.
 */
export async function openSpoolFolder(path: string, clock: Clock): Promise<SpoolFolder> {
  const opening = open(path);
  const late = new AbortController();
  const timer = clock.after(openMsMax, () => late.abort());
  const folder = await unless(late.signal, opening).finally(() => timer.cancel());
  if (folder !== undefined) return folder;
  // If it answers after all, the folder is released again.
  opening.then(
    (each) => each.close(),
    () => {},
  );
  throw new SpoolFolderError('timeout', `--spool-dir: '${path}' did not answer within ${durationText(openMsMax)}`);
}

const openMsMax = 10_000;

async function open(path: string): Promise<SpoolFolder> {
  await prepareFolder(path);
  const folder = await openFile(path, 'r');
  try {
    const lock = await lockFolder(path);
    const disk = new FolderDisk(path, folder);
    return {
      disk,
      async close() {
        await disk.close();
        await lock.release();
        await folder.close();
      },
    };
  } catch (error) {
    await folder.close();
    throw error;
  }
}

/** Makes the folder and a file in it. */
async function prepareFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    const probe = join(path, `.probe-${process.pid}`);
    await (await openFile(probe, 'wx', 0o600)).close();
    await unlink(probe);
  } catch (error) {
    // With a full disk the agent starts too: the spool is in memory only until there is room.
    if (codeOf(error) !== 'ENOSPC' && codeOf(error) !== 'EDQUOT') throw noAccess(path, error);
  }
}

/** Throws a SpoolFolderError if the folder cannot hold a spool. Creates nothing. */
export function checkSpoolAccess(path: string): void {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      if (!statSync(folder).isDirectory()) throw new Error(`'${folder}' is no folder`);
      return accessSync(folder, constants.W_OK | constants.X_OK);
    } catch (error) {
      // It would be created in the nearest folder above it that exists.
      if (codeOf(error) !== 'ENOENT') throw noAccess(path, error);
    }
  }
}

function noAccess(path: string, error: unknown): SpoolFolderError {
  const words = `--spool-dir: '${path}' cannot be written: ${reasonOf(error)}`;
  return new SpoolFolderError('access', words, { cause: error });
}

/** The real folder. One file is kept open: the one that was written last. The mirror makes one call at a time. */
class FolderDisk implements SpoolDisk {
  readonly path: string;
  readonly #folder: FileHandle;
  #open: OpenFile | undefined;
  #madeFiles = false;

  constructor(path: string, folder: FileHandle) {
    this.path = path;
    this.#folder = folder;
  }

  /** Folders are of others, such as that of text files, and stay out of it. */
  async list(): Promise<readonly string[]> {
    const entries = await readdir(this.path, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  }

  read(name: string): Promise<Uint8Array> {
    return readFile(join(this.path, name));
  }

  write(name: string, position: number, bytes: Uint8Array): Promise<void> {
    const file = this.#opened(name);
    if (file !== undefined) return writeAll(file.fd, position, bytes);
    return this.#file(name).then(({ fd }) => writeAll(fd, position, bytes));
  }

  async writeSynced(name: string, position: number, bytes: Uint8Array): Promise<void> {
    // First, because it creates the file.
    if (this.#opened(name) === undefined) await this.#file(name);
    const opened = this.#open!;
    opened.synced ??= await openFile(join(this.path, name), constants.O_WRONLY | constants.O_DSYNC);
    await writeAll(opened.synced.fd, position, bytes);
    if (this.#madeFiles) await this.#syncFolder();
  }

  async truncate(name: string, bytes: number): Promise<void> {
    await (await this.#file(name)).truncate(bytes);
  }

  async sync(name: string): Promise<void> {
    await (this.#opened(name) ?? (await this.#file(name))).datasync();
    if (this.#madeFiles) await this.#syncFolder();
  }

  /** A new file is in its folder only once the folder is synced too. */
  async #syncFolder(): Promise<void> {
    await this.#folder.sync();
    this.#madeFiles = false;
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    const made = join(this.path, `${name}.new`);
    const file = await openFile(made, 'w', 0o600);
    try {
      await file.writeFile(bytes);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(made, join(this.path, name));
    await this.#folder.sync();
  }

  async remove(name: string): Promise<void> {
    if (this.#open?.name === name) await this.close();
    await rm(join(this.path, name), { force: true });
  }

  async close(): Promise<void> {
    const opened = this.#open;
    this.#open = undefined;
    await opened?.file.close();
    await opened?.synced?.close();
  }

  #opened(name: string): FileHandle | undefined {
    return this.#open?.name === name ? this.#open.file : undefined;
  }

  async #file(name: string): Promise<FileHandle> {
    const opened = this.#opened(name);
    if (opened !== undefined) return opened;
    await this.close();
    const path = join(this.path, name);
    let file: FileHandle;
    try {
      file = await openFile(path, 'r+');
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      file = await openFile(path, 'wx+', 0o600);
      this.#madeFiles = true;
    }
    this.#open = { name, file, synced: undefined };
    return file;
  }
}

interface OpenFile {
  readonly name: string;
  readonly file: FileHandle;
  /** The same file; each write to it is synced (O_DSYNC). */
  synced: FileHandle | undefined;
}

/** With a callback, not by a FileHandle: without the optimizer a method of that costs 0.3 ms of CPU. */
function writeAll(fd: number, position: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const writeFrom = (from: number) => {
      writeFile(fd, bytes, from, bytes.length - from, position + from, (error, written) => {
        if (error !== null) reject(error);
        else if (from + written === bytes.length) resolve();
        // Linux fails with ENOSPC if it writes nothing; a file system that returns 0 for ever must not cause a loop.
        else if (written === 0) reject(new Error(`the file system took ${from} bytes of ${bytes.length}`));
        else writeFrom(from + written);
      });
    };
    writeFrom(0);
  });
}

/** Throws a SpoolFolderError if another process has it. */
async function lockFolder(path: string): Promise<Lock> {
  let lock: Lock | undefined;
  try {
    lock = await takeLock(path, 'lock');
  } catch (error) {
    throw new SpoolFolderError('access', `--spool-dir: '${path}' cannot be locked: ${reasonOf(error)}`, {
      cause: error,
    });
  }
  if (lock !== undefined) return lock;
  throw new SpoolFolderError(
    'locked',
    `--spool-dir: '${path}' is in use by another sysmon-agent: give each its own folder`,
  );
}
