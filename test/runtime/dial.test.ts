import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { ConnectionError } from '../../src/runtime/connection.ts';
import { type DialOptions, dial } from '../../src/runtime/dial.ts';
import { serveLoopback, until } from '../support/sockets.ts';

const psk = { identity: 'web.1', key: Buffer.alloc(32, 1) };

function to(port: number, options: Partial<DialOptions> = {}): DialOptions {
  return { host: '127.0.0.1', port, timeoutMs: 30_000, signal: new AbortController().signal, ...options };
}

const withCode = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ConnectionError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, words);
  return true;
};

test('a connection, with what arrives at once', async (context) => {
  const port = await serveLoopback(
    context,
    createServer((socket) => socket.end('hello')),
  );
  const connection = await dial(to(port));
  assert.equal(connection.peer, `127.0.0.1:${port}`);
  let text = '';
  for await (const chunk of connection) text += Buffer.from(chunk).toString();
  assert.equal(text, 'hello');
  await connection.end();
});

test('nobody listens', async () => {
  const free = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
  for (const options of [{}, { psk }]) {
    await assert.rejects(
      dial(to(free, options)),
      withCode('refused', /^127\.0\.0\.1:\d+ refused the connection: nothing listens there$/),
    );
  }
});

test('a name that does not exist', async () => {
  await assert.rejects(dial(to(1, { host: 'no-such-host.invalid' })), withCode('name', /no-such-host\.invalid:1/));
});

test('a peer that takes the connection and then says nothing: the deadline holds for TLS too', async (context) => {
  let accepted = 0;
  const port = await serveLoopback(
    context,
    createServer(() => accepted++),
  );
  await assert.rejects(dial(to(port, { psk, timeoutMs: 50 })), withCode('timeout', /did not answer within 50 ms/));
  assert.equal(accepted, 1);
});

test('the signal ends it at once', async (context) => {
  let accepted = 0;
  let closed = 0;
  const port = await serveLoopback(
    context,
    createServer((socket) => {
      accepted++;
      socket.resume();
      socket.on('close', () => closed++);
    }),
  );
  const abort = new AbortController();
  const dialling = dial(to(port, { psk, signal: abort.signal }));
  await until(() => accepted === 1);
  abort.abort();
  await assert.rejects(dialling, withCode('closed', /was stopped/));
  await until(() => closed === 1); // no socket stays behind
  await assert.rejects(dial(to(port, { signal: abort.signal })), withCode('closed', /was stopped/));
  assert.equal(accepted, 1);
});

test('a peer that closes or answers in plain text in the handshake', async (context) => {
  const closing = await serveLoopback(
    context,
    createServer((socket) => socket.once('data', () => socket.destroy())),
  );
  await assert.rejects(dial(to(closing, { psk })), withCode('reset', /broke the connection off/));
  const plain = await serveLoopback(
    context,
    createServer((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))),
  );
  await assert.rejects(
    dial(to(plain, { psk })),
    withCode('tls', /^no TLS with 127\.0\.0\.1:\d+: wrong version number$/),
  );
});
