import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ConnectionError } from '../../src/runtime/connection.ts';
import { type DialOptions, dial, tryingOrder } from '../../src/runtime/dial.ts';
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

test('a name is resolved within the time for all of it, and the signal ends the query too', async () => {
  const resolve = () => new Promise<never>(() => {});
  await assert.rejects(
    dial(to(1, { host: 'a.example', timeoutMs: 20, resolve })),
    withCode('name', /^the name of a\.example:1 was not resolved within 0\.0 s$/),
  );
  const abort = new AbortController();
  const dialling = dial(to(1, { host: 'a.example', signal: abort.signal, resolve }));
  abort.abort();
  await assert.rejects(dialling, withCode('closed', /^connecting to a\.example:1 was stopped$/));
});

test('addresses in the order of the system, families in turn, the last good one first', () => {
  const addresses = ['fd00::1', 'fd00::2', '192.0.2.1', 'fd00::1', '192.0.2.2', '192.0.2.3'];
  const inTurn = ['fd00::1', '192.0.2.1', 'fd00::2', '192.0.2.2', '192.0.2.3'];
  assert.deepEqual(tryingOrder(addresses), inTurn);
  assert.deepEqual(tryingOrder(addresses, '192.0.2.2'), ['192.0.2.2', 'fd00::1', '192.0.2.1', 'fd00::2', '192.0.2.3']);
  assert.deepEqual(tryingOrder(addresses, '192.0.2.9'), inTurn, 'an address that the name no longer has');
});

test('an address that fails is not the end, whether it refuses or says nothing; the good one is first the next time', async (context) => {
  const peers: string[] = [];
  const silent = await serveAt(context, '127.0.0.3', () => peers.push('silent'));
  const port = await serveAt(
    context,
    '127.0.0.4',
    (socket) => {
      peers.push('good');
      socket.end('hello');
    },
    silent,
  );
  // Nothing listens at the first. TLS, so that the second one's silence is noticed.
  const resolve = async () => ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
  const options = to(port, { host: 'a.example', resolve, addressTimeoutMs: 100 });
  await assert.rejects(
    dial({ ...options, psk }),
    withCode(
      'not-tls',
      /^127\.0\.0\.2:\d+ refused the connection: nothing listens there; 127\.0\.0\.3:\d+ did not answer within 0\.1 s; 127\.0\.0\.4:\d+ does not speak TLS: /,
    ),
  );
  assert.deepEqual(peers.splice(0), ['silent', 'good']);
  const connection = await dial({ ...options, firstAddress: '127.0.0.4' });
  assert.equal(connection.peer, `127.0.0.4:${port}`);
  assert.deepEqual(peers, ['good']);
  connection.destroy();
});

test('all addresses fit into the time for all of it: each has its share of what is left', async (context) => {
  const port = await serveAt(context, '127.0.0.3', () => {});
  await serveAt(context, '127.0.0.4', () => {}, port);
  const resolve = async () => ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
  const startMs = performance.now();
  const failed = dial(to(port, { host: 'a.example', resolve, timeoutMs: 600, psk }));
  const error = await failed.then(
    () => assert.fail('connected'),
    (reason: Error) => reason,
  );
  assert.ok(performance.now() - startMs < 3000);
  const shares = [...error.message.matchAll(/did not answer within ([\d.]+) s/g)].map(([, seconds]) => Number(seconds));
  // The first one is refused at once, so that two share the time.
  assert.equal(shares.length, 2, error.message);
  assert.ok(
    shares.every((seconds) => seconds >= 0.2 && seconds <= 0.3),
    error.message,
  );
});

async function serveAt(
  context: TestContext,
  host: string,
  onSocket: (socket: Socket) => void,
  port = 0,
): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.resume();
    socket.on('error', () => {}); // the client turns away
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('a peer that takes the connection and then says nothing: the deadline holds for TLS too', async (context) => {
  let accepted = 0;
  const port = await serveLoopback(
    context,
    createServer(() => accepted++),
  );
  await assert.rejects(dial(to(port, { psk, timeoutMs: 120 })), withCode('timeout', /did not answer within 0\.1 s/));
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
  await assert.rejects(dial(to(closing, { psk })), withCode('reset', /reset the connection/));
  const plain = await serveLoopback(
    context,
    createServer((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))),
  );
  await assert.rejects(
    dial(to(plain, { psk })),
    withCode('not-tls', /^127\.0\.0\.1:\d+ does not speak TLS: agents connect to another port, usually 9732$/),
  );
});
