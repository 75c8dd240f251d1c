import { open as openFile, readdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { asUser, foreignOwner } from './foreign-owner.ts';
import { codeOf } from './words.ts';

export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes the lock of this name in a folder; undefined where somebody else has it. Throws as node:fs and node:net do.
 *
 * The lock is a socket in the folder on which its holder listens: the kernel releases it with the process, however that
 * ends, and it works between containers that share the folder, where process ids mean nothing. Its file outlives a
 * process that is killed, and must not be removed by a process that only believes that nobody listens. So each attempt
 * creates a new file, numbered above all others, listens, and only then checks who else listens. Of two that start at
 * once, the one that checks later sees the other; both may give up, never both stay.
 */
export async function takeLock(folder: string, name: string): Promise<Lock | undefined> {
  const opened = await openFile(folder, 'r');
  try {
    const server = await listenFirst(`/proc/self/fd/${opened.fd}`, { folder, name });
    if (server !== undefined) {
      return {
        async release() {
          // Node removes the socket's file when its server closes.
          await new Promise((resolve) => server.close(resolve));
          await opened.close();
        },
      };
    }
  } catch (error) {
    await opened.close();
    throw error;
  }
  await opened.close();
  return undefined;
}

/** `at`: the open folder, because the path of a socket is at most 107 bytes long. */
async function listenFirst(
  at: string,
  { folder, name }: { readonly folder: string; readonly name: string },
): Promise<Server | undefined> {
  const pathOf = (number: number) => `${at}/${name}.${number}`;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const found = await lockNumbers(at, name);
    if (await anyAnswers(found.map(pathOf))) return undefined;
    const own = Math.max(0, ...found) + 1;
    const server = await listenOn(pathOf(own), folder);
    if (server === undefined) continue;
    const others = (await lockNumbers(at, name)).filter((number) => number !== own);
    if (!(await anyAnswers(others.map(pathOf)))) {
      for (const number of others) await rm(pathOf(number), { force: true });
      return server;
    }
    await new Promise((resolve) => server.close(resolve));
  }
  return undefined;
}

// An attempt fails only because another process starts at the same moment.
const attemptsMax = 3;

async function lockNumbers(folder: string, name: string): Promise<number[]> {
  return (await readdir(folder)).flatMap((each) => {
    const [, number] = each.startsWith(`${name}.`) ? (/^(\d{1,9})$/.exec(each.slice(name.length + 1)) ?? []) : [];
    return number === undefined ? [] : [Number(number)];
  });
}

async function anyAnswers(paths: readonly string[]): Promise<boolean> {
  return (await Promise.all(paths.map(answers))).includes(true);
}

/** Undefined where the file is there already. */
async function listenOn(path: string, folder: string): Promise<Server | undefined> {
  const owner = foreignOwner(folder);
  const server = createServer((socket) => socket.destroy());
  const listening = new Promise<Server | undefined>((resolve, reject) => {
    server.on('error', (error) => (codeOf(error) === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.on('listening', () => {
      server.unref();
      resolve(server);
    });
  });
  // The file is made before `listen` returns.
  asUser(owner, () => server.listen(path));
  return listening;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error) => resolve(codeOf(error) !== 'ECONNREFUSED' && codeOf(error) !== 'ENOENT'));
  });
}
