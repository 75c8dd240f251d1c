import {
  accessSync,
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { CodedError } from '../../runtime/coded-error.ts';
import { codeOf, reasonOf } from '../../runtime/words.ts';
import { isLockName, type SpoolDisk } from './mirror.ts';

/** A folder that cannot hold a spool. The words name the folder and what to do. */
export class SpoolFolderError extends CodedError<'access' | 'locked'> {
  override readonly name = 'SpoolFolderError';
}

export interface SpoolFolder {
  readonly disk: SpoolDisk;
  /** Gives the folder back. */
  close(): Promise<void>;
}

/** Opens a folder for the spool of this process alone. Throws a SpoolFolderError. */
export async function openSpoolFolder(path: string): Promise<SpoolFolder> {
  prepareFolder(path);
  const folder = openSync(path, 'r');
  try {
    const lock = await lockFolder(path, folder);
    const disk = new FolderDisk(path, folder);
    return {
      disk,
      async close() {
        disk.close();
        // Node removes the socket's file when its server closes.
        await new Promise((resolve) => lock.close(resolve));
        closeSync(folder);
      },
    };
  } catch (error) {
    closeSync(folder);
    throw error;
  }
}

/** Makes the folder and a file in it. */
function prepareFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const probe = join(path, `.probe-${process.pid}`);
    closeSync(openSync(probe, 'wx', 0o600));
    unlinkSync(probe);
  } catch (error) {
    // A full disk is no reason not to start: the spool keeps to memory until there is room.
    if (codeOf(error) !== 'ENOSPC' && codeOf(error) !== 'EDQUOT') throw noAccess(path, error);
  }
}

/** Throws a SpoolFolderError where a spool could not live there. It makes nothing. */
export function checkSpoolAccess(path: string): void {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      if (!statSync(folder).isDirectory()) throw new Error(`'${folder}' is no folder`);
      return accessSync(folder, constants.W_OK | constants.X_OK);
    } catch (error) {
      // What is missing would be made, in the nearest folder above it that is there.
      if (codeOf(error) !== 'ENOENT') throw noAccess(path, error);
    }
  }
}

function noAccess(path: string, error: unknown): SpoolFolderError {
  const words = `--spool-dir: '${path}' cannot be written: ${reasonOf(error)}`;
  return new SpoolFolderError('access', words, { cause: error });
}

/** The real folder. One file is kept open: the one that was written last. */
class FolderDisk implements SpoolDisk {
  readonly path: string;
  readonly #folder: number;
  #open: { readonly name: string; readonly fd: number } | undefined;
  #madeFiles = false;

  constructor(path: string, folder: number) {
    this.path = path;
    this.#folder = folder;
  }

  list(): readonly string[] {
    return readdirSync(this.path);
  }

  read(name: string): Uint8Array {
    return readFileSync(join(this.path, name));
  }

  write(name: string, position: number, bytes: Uint8Array): void {
    const fd = this.#fd(name);
    let written = 0;
    while (written < bytes.length) {
      const taken = writeSync(fd, bytes, written, bytes.length - written, position + written);
      // Linux says ENOSPC where it takes nothing; a file system that says 0 for ever must not hold us here.
      if (taken === 0) throw new Error(`'${name}': the file system took ${written} bytes of ${bytes.length}`);
      written += taken;
    }
  }

  truncate(name: string, bytes: number): void {
    ftruncateSync(this.#fd(name), bytes);
  }

  sync(name: string): void {
    fdatasyncSync(this.#fd(name));
    // A file that was made is in its folder only once the folder is synced too.
    if (this.#madeFiles) fsyncSync(this.#folder);
    this.#madeFiles = false;
  }

  remove(name: string): void {
    if (this.#open?.name === name) this.close();
    try {
      unlinkSync(join(this.path, name));
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }

  #fd(name: string): number {
    if (this.#open?.name === name) return this.#open.fd;
    this.close();
    const path = join(this.path, name);
    let fd: number;
    try {
      fd = openSync(path, 'r+');
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      fd = openSync(path, 'wx+', 0o600);
      this.#madeFiles = true;
    }
    this.#open = { name, fd };
    return fd;
  }
}

/**
 * The lock is a socket in the folder that its holder listens on: the kernel lets go of it with the process, however that
 * ends, and it is seen from other containers that share the folder, where process ids mean nothing. Its file outlives a
 * process that is killed, and must not be removed by who only thinks that nobody listens. So each start makes a new file,
 * numbered above all that are there, listens, and only then looks who else does. Of two that start at once, the one that
 * looks later sees the other; both may give way, never both stay.
 */
async function lockFolder(path: string, folder: number): Promise<Server> {
  // By way of the open folder, since the path of a socket is at most 107 bytes long.
  const at = (number: number) => `/proc/self/fd/${folder}/${lockName(number)}`;
  for (let attempt = 0; attempt < lockAttemptsMax; attempt++) {
    const found = lockNumbers(path);
    if (await anyAnswers(found.map(at))) break;
    const own = Math.max(0, ...found) + 1;
    const server = await listenOn(at(own), path);
    if (server === undefined) continue;
    const others = lockNumbers(path).filter((number) => number !== own);
    if (!(await anyAnswers(others.map(at)))) {
      for (const number of others) rmSync(join(path, lockName(number)), { force: true });
      return server;
    }
    await new Promise((resolve) => server.close(resolve));
  }
  throw new SpoolFolderError(
    'locked',
    `--spool-dir: '${path}' is in use by another sysmon-agent: give each its own folder`,
  );
}

// Each attempt that fails has met another process that starts at the same moment.
const lockAttemptsMax = 3;

function lockName(number: number): string {
  return `lock.${number}`;
}

function lockNumbers(path: string): number[] {
  return readdirSync(path).flatMap((name) =>
    isLockName(name) ? [Number.parseInt(name.slice('lock.'.length), 10)] : [],
  );
}

async function anyAnswers(lockPaths: readonly string[]): Promise<boolean> {
  return (await Promise.all(lockPaths.map(answers))).includes(true);
}

/** Undefined where the file is there already. */
function listenOn(lockPath: string, path: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.on('error', (error) => {
      if (codeOf(error) === 'EADDRINUSE') return resolve(undefined);
      const words = `--spool-dir: '${path}' cannot be locked: ${reasonOf(error)}`;
      reject(new SpoolFolderError('access', words, { cause: error }));
    });
    server.listen(lockPath, () => {
      server.unref();
      resolve(server);
    });
  });
}

function answers(lockPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(lockPath);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error) => resolve(codeOf(error) !== 'ECONNREFUSED' && codeOf(error) !== 'ENOENT'));
  });
}
