import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import { connectionErrorOf, plainAddress, socketConnection } from '../../src/runtime/socket.ts';
import { socketPair, until } from '../support/sockets.ts';

async function readAll(connection: Connection): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of connection) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const withCode = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ConnectionError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, words);
  return true;
};

test('bytes go both ways, and end in good order', async (context) => {
  const [near, far] = await socketPair(context);
  const connection = socketConnection(near);
  assert.match(connection.peer, /^127\.0\.0\.1:\d+$/);
  assert.equal(connection.peerAddress, '127.0.0.1');
  assert.equal(connection.identity, undefined);
  await connection.write(Buffer.from('hello'));
  const [received] = await once(far, 'data');
  assert.equal(String(received), 'hello');
  far.write('wel');
  far.end('come');
  assert.equal(String(await readAll(connection)), 'welcome');
  await assert.rejects(connection.write(Buffer.from('x')), withCode('closed', /closed the connection/));
  await connection.end();
  assert.equal(near.destroyed, true);
});

test('a reader that waits is told of a reset, and so is every later call', async (context) => {
  const [near, far] = await socketPair(context);
  const connection = socketConnection(near);
  const reading = readAll(connection);
  far.resetAndDestroy();
  await assert.rejects(reading, withCode('reset', /^127\.0\.0\.1:\d+ reset the connection$/));
  await assert.rejects(connection.write(Buffer.from('x')), withCode('reset', /reset the connection/));
  await connection.end();
});

test('what arrived before a break is read before the break is told', async (context) => {
  const [near, far] = await socketPair(context);
  const connection = socketConnection(near);
  far.write('the reason');
  await until(() => near.bytesRead === 10);
  far.resetAndDestroy();
  await until(() => near.closed);
  const iterator = connection[Symbol.asyncIterator]();
  assert.equal(String((await iterator.next()).value), 'the reason');
  await assert.rejects(iterator.next(), withCode('reset', /reset the connection/));
});

test('destroy gives its reason to whoever waits', async (context) => {
  const [near] = await socketPair(context);
  const connection = socketConnection(near);
  const reading = readAll(connection);
  const reason = new Error('too slow');
  connection.destroy(reason);
  connection.destroy(new Error('second'));
  await assert.rejects(reading, (error: Error) => {
    assert.equal(error.cause, reason);
    return withCode('closed', /was ended here: too slow$/)(error);
  });
  await assert.rejects(connection.write(Buffer.from('x')), withCode('closed', /too slow/));
});

test('a slow reader makes the peer wait', async (context) => {
  const [near, far] = await socketPair(context);
  const connection = socketConnection(near);
  const total = 64 * 1024 * 1024;
  const piece = Buffer.alloc(256 * 1024, 7);
  let written = 0;
  const writing = (async () => {
    for (; written < total; written += piece.length) if (!far.write(piece)) await once(far, 'drain');
    far.end();
  })();
  const iterator = connection[Symbol.asyncIterator]();
  let read = (await iterator.next()).value.length;
  // Whatever the kernel holds, it is far from all of it; many turns, so that reading on would have been seen.
  for (let turn = 0; turn < 2000; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(near.bytesRead < 1024 * 1024, `${near.bytesRead} bytes were read ahead`);
  assert.ok(written < total);
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) read += next.value.length;
  assert.equal(read, total);
  await writing;
});

test('a peer that does not read: write waits, unsent bytes are known, an end does not wait for ever', async (context) => {
  const [near, far] = await socketPair(context);
  far.pause();
  const connection = socketConnection(near);
  const piece = Buffer.alloc(1024 * 1024);
  let pending: Promise<void> | undefined;
  while (pending === undefined) {
    const write = connection.write(piece);
    const done = await Promise.race([write.then(() => true), nextTurns(50)]);
    if (!done) pending = write;
  }
  assert.ok(connection.unsentBytes > 0 && connection.unsentBytes <= piece.length);
  const rejected = assert.rejects(pending, withCode('closed', /was ended here/));
  await connection.end(10);
  await rejected;
  assert.equal(near.destroyed, true);
});

async function nextTurns(count: number): Promise<false> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
  return false;
}

test('a write waits for the drain and goes on after it', async (context) => {
  const [near, far] = await socketPair(context);
  far.pause();
  const connection = socketConnection(near);
  let sent = 0;
  const piece = Buffer.alloc(1024 * 1024);
  while (near.writableLength === 0) {
    void connection.write(piece);
    sent += piece.length;
    await nextTurns(5);
  }
  const last = connection.write(Buffer.from('end'));
  let received = 0;
  far.on('data', (chunk) => {
    received += chunk.length;
  });
  far.resume();
  await last;
  await until(() => received === sent + 3);
  assert.equal(connection.unsentBytes, 0);
});

test('the end sends everything, also to a peer that is still sending', async (context) => {
  const [near, far] = await socketPair(context);
  const connection = socketConnection(near);
  // Unread bytes at the moment of a close make the kernel send a reset, and the peer lose our last words.
  far.write(Buffer.alloc(300_000));
  await until(() => near.bytesRead > 0);
  const received: Buffer[] = [];
  far.on('data', (chunk) => received.push(chunk));
  const ended = once(far, 'end');
  const words = Buffer.alloc(500_000, 'last words ');
  const written = connection.write(words);
  const ending = connection.end();
  assert.equal((await readAll(connection)).length, 0);
  await Promise.all([ending, written, ended]);
  assert.deepEqual(Buffer.concat(received), words);
  await assert.rejects(connection.write(words), withCode('closed', /ended|closed/));
  await connection.end();
});

test('one reader only', async (context) => {
  const [near] = await socketPair(context);
  const connection = socketConnection(near);
  connection[Symbol.asyncIterator]();
  assert.throws(() => connection[Symbol.asyncIterator](), /has a reader already/);
});

test('a socket that was gone before', async (context) => {
  const [near] = await socketPair(context);
  near.destroy();
  await until(() => near.closed);
  const connection = socketConnection(near);
  await assert.rejects(readAll(connection), withCode('closed', /has ended/));
  await assert.rejects(connection.write(Buffer.alloc(1)), withCode('closed', /has ended/));
});

test('addresses', () => {
  assert.equal(plainAddress('::ffff:192.0.2.7'), '192.0.2.7');
  assert.equal(plainAddress('2001:db8::7'), '2001:db8::7');
  assert.equal(plainAddress('::ffff:0:1'), '::ffff:0:1');
});

test('errors have one of our codes and name the peer', () => {
  const cases: readonly [string, string][] = [
    ['ECONNREFUSED', 'refused'],
    ['EHOSTUNREACH', 'unreachable'],
    ['ETIMEDOUT', 'timeout'],
    ['EPIPE', 'reset'],
    ['ENOTFOUND', 'name'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'tls'],
    ['EPROTO', 'tls'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'tls'],
    ['EWHATEVER', 'network'],
  ];
  for (const [systemCode, code] of cases) {
    const cause = Object.assign(new Error('why'), { code: systemCode });
    const error = connectionErrorOf(cause, 'relay:1');
    assert.equal(error.code, code);
    assert.match(error.message, /relay:1/);
    assert.equal(error.cause, cause);
  }
  const openssl = Object.assign(new Error('C0DE:error:0A:SSL:x.c:1\n'), { code: 'ERR_SSL_X', reason: 'bad record' });
  assert.equal(connectionErrorOf(openssl, 'relay:1').message, 'no TLS with relay:1: bad record');
});
