import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** The port of a server that listens. */
export function portOf(server: Server): number {
  const address = server.address();
  assert.ok(address !== null && typeof address !== 'string');
  return (address satisfies AddressInfo).port;
}

/** A server on a free port of 127.0.0.1 that ends with the test, and with it its connections. */
export async function serveLoopback(context: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => {}); // the test looks at the other end
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return portOf(server);
}

/** Both ends of a TCP connection over 127.0.0.1. */
export async function socketPair(context: TestContext): Promise<[near: Socket, far: Socket]> {
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const port = await serveLoopback(context, server);
  const near = connect(port, '127.0.0.1');
  near.on('error', () => {}); // the test looks at what our code makes of it
  context.after(() => near.destroy());
  const [far] = await Promise.all([accepted, new Promise<void>((resolve) => near.once('connect', resolve))]);
  return [near, far];
}

/** Looks again and again until it holds; the test's own deadline ends what never does. */
export async function until(holds: () => boolean): Promise<void> {
  // A millisecond, not a turn: whoever is waited for may need this core.
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}
