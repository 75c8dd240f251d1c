import { lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';

// sun_path has 108 bytes and an end: https://man7.org/linux/man-pages/man7/unix.7.html
export const socketPathBytesMax = 107;

/** Makes room for a socket at the path: one that a killed program left behind is removed, anything else stays. */
export async function removeStaleSocket(path: string): Promise<'free' | 'no-socket' | 'in-use'> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return 'free';
  if (!found.isSocket()) return 'no-socket';
  const isAlive = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
  if (isAlive) return 'in-use';
  unlinkSync(path);
  return 'free';
}

/** Listens at the path with mode 0660: for its owner and group. The server removes the socket when it closes. */
export function listenAtPath(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // bind() is done when listen() returns, so that there is no moment in which others could connect.
    const before = process.umask(0o117);
    try {
      server.listen(path, () => {
        server.removeListener('error', reject);
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}
