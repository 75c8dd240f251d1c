// Who gets in, and who is let in by the agent: every way round the key that TLS offers.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { connect as connectPlain, createServer as createProxy } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect, createServer, type Server, type TLSSocket, type TlsOptions } from 'node:tls';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import { dial } from '../../src/runtime/dial.ts';
import { type Listener, listen } from '../../src/runtime/listen.ts';
import { tlsParameters } from '../../src/runtime/tls.ts';
import { certificate } from '../support/certificates.ts';
import { serveLoopback, until } from '../support/sockets.ts';

const keys = new Map([
  ['web.1', Buffer.alloc(32, 1)],
  ['db.1', Buffer.alloc(32, 2)],
]);
const web = { identity: 'web.1', key: Buffer.alloc(32, 1) };

interface World {
  readonly listener: Listener;
  readonly connections: Connection[];
  /** reason, identity claimed, words */
  readonly refused: { reason: string; identity: string | undefined; words: string }[];
}

async function open(context: TestContext): Promise<World> {
  const connections: Connection[] = [];
  const refused: World['refused'] = [];
  const listener = await listen({
    address: '127.0.0.1',
    port: 0,
    onConnection: (connection) => void connections.push(connection),
    psk: { keyOf: (identity) => keys.get(identity) },
    connectionsMax: 100,
    connectionsPerAddressMax: 100,
    handshakeTimeoutMs: 30_000,
    onRefused: (reason, _peer, error, identity) => refused.push({ reason, identity, words: error?.message ?? '' }),
  });
  context.after(() => listener.close());
  return { listener, connections, refused };
}

function dialPort(port: number, psk = web): Promise<Connection> {
  return dial({ host: '127.0.0.1', port, timeoutMs: 30_000, psk, signal: new AbortController().signal });
}

/** A client that goes its own way; resolves with its socket, connected or failed. */
function client(context: TestContext, port: number, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve) => {
    const socket = connect({
      host: '127.0.0.1',
      port,
      ...tlsParameters,
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      ...options,
    });
    context.after(() => socket.destroy());
    socket.resume();
    // In TLS 1.3 a client is content before the server has looked at what it sent: only a byte back says it is in.
    socket.once('data', () => resolve(socket));
    socket.once('error', () => {});
    socket.once('close', () => resolve(socket));
  });
}

/** The others keep working: a new connection with the right key gets in, both ways. */
async function rightKeyGetsIn({ listener, connections }: World): Promise<void> {
  const before = connections.length;
  const connection = await dialPort(listener.port);
  await until(() => connections.length === before + 1);
  const accepted = connections[before];
  assert.equal(accepted?.identity, 'web.1');
  assert.equal(connection.identity, 'web.1');
  await connection.write(Buffer.from('ping'));
  for await (const chunk of accepted ?? []) {
    assert.equal(Buffer.from(chunk).toString(), 'ping');
    break;
  }
  await connection.end();
}

async function refusedOnce(world: World, expected: { identity: string | undefined; words: RegExp }): Promise<void> {
  await until(() => world.refused.length > 0);
  await until(() => world.listener.connections === 0);
  assert.equal(world.connections.length, 0);
  assert.equal(world.refused.length, 1);
  const [{ reason, identity, words } = { reason: '', identity: '', words: '' }] = world.refused;
  assert.equal(reason, 'tls');
  assert.equal(identity, expected.identity);
  assert.match(words, expected.words);
  await rightKeyGetsIn(world);
}

test('the key gets in, and the name of the connection is its identity', async (context) => {
  const world = await open(context);
  await rightKeyGetsIn(world);
  assert.deepEqual(world.refused, []);
});

test('a hello that comes byte by byte gets in', async (context) => {
  const { listener, connections, refused } = await open(context);
  const proxy = createProxy((near) => {
    const far = connectPlain({ port: listener.port, host: '127.0.0.1', noDelay: true });
    context.after(() => far.destroy());
    near.on('data', (chunk) => {
      for (const byte of chunk) far.write(Buffer.of(byte));
    });
    far.pipe(near);
  });
  const connection = await dialPort(await serveLoopback(context, proxy));
  await until(() => connections.length === 1);
  assert.equal(connections[0]?.identity, 'web.1');
  assert.deepEqual(refused, []);
  connection.destroy();
});

test("refused: another agent's key, an identity that nobody has", async (context) => {
  const attempts = [
    { identity: 'web.1', key: Buffer.alloc(32, 2), words: /binder does not verify/ },
    { identity: 'nobody.1', key: Buffer.alloc(32, 1), words: /no suitable signature algorithm|no shared/ },
  ];
  for (const { identity, key, words } of attempts) {
    const world = await open(context);
    await assert.rejects(dialPort(world.listener.port, { identity, key }), (error) => {
      assert.ok(error instanceof ConnectionError);
      assert.equal(error.code, 'tls');
      return true;
    });
    await refusedOnce(world, { identity, words });
  }
});

test('refused: TLS 1.2, also with the key', async (context) => {
  const world = await open(context);
  const old = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'PSK-AES128-GCM-SHA256' } as const;
  await client(context, world.listener.port, { ...old, pskCallback: () => ({ identity: web.identity, psk: web.key }) });
  await refusedOnce(world, { identity: undefined, words: /unsupported protocol/ });
});

test('refused: a certificate instead of a key', async (context) => {
  const made = certificate(context);
  if (!made) return;
  const world = await open(context);
  await client(context, world.listener.port, { cert: made.cert, key: made.key });
  await refusedOnce(world, { identity: undefined, words: /no suitable signature algorithm|no shared/ });
});

/** A client with the key that saves whatever session the server hands out, and then comes with that alone. */
async function comeAgain(context: TestContext, port: number, greet: () => void): Promise<TLSSocket> {
  const first = connect({
    host: '127.0.0.1',
    port,
    ...tlsParameters,
    secureOptions: 0,
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ identity: web.identity, psk: web.key }),
  });
  context.after(() => first.destroy());
  first.once('secureConnect', greet);
  first.resume();
  // Any bytes at all are called a session here; what matters is whether they get in.
  const session = await new Promise<Buffer>((resolve) => first.once('session', resolve));
  return client(context, port, { session, secureOptions: 0 });
}

test('refused: a saved session without the key', async (context) => {
  const world = await open(context);
  const greeting = async () => {
    await until(() => world.connections.length === 1);
    await world.connections[0]?.write(Buffer.from('welcome'));
  };
  const again = await comeAgain(context, world.listener.port, greeting);
  await until(() => again.closed);
  assert.equal(world.connections.length, 1);
  assert.equal(world.refused.length, 1);
  assert.equal(world.refused[0]?.reason, 'tls');
  // The session is offered under a random name, which now and then happens to be text.
  assert.notEqual(world.refused[0]?.identity, web.identity);
  // In the handshake, by SSL_OP_NO_TICKET, and not only by the look at the identity after it.
  assert.match(world.refused[0]?.words ?? '', /no suitable signature algorithm|no shared/);
  await rightKeyGetsIn(world);
});

test('the saved session would get in without SSL_OP_NO_TICKET', async (context) => {
  let asked = 0;
  const server = createServer({
    ...tlsParameters,
    secureOptions: 0,
    pskCallback: () => {
      asked++;
      return web.key;
    },
  });
  server.on('secureConnection', (socket) => socket.write('welcome'));
  const port = await serveLoopback(context, server);
  // OpenSSL turns a session down whose age does not look right, as on a machine that is held up: one is enough.
  for (let attempt = 1; attempt <= 5; attempt++) {
    asked = 0;
    const again = await comeAgain(context, port, () => {});
    if (!again.isSessionReused()) continue;
    assert.equal(again.closed, false);
    assert.equal(asked, 1);
    return;
  }
  assert.fail('no saved session has got in');
});

test('the agent refuses a server that shows a certificate, even one that its system trusts', async (context) => {
  const made = certificate(context);
  if (!made) return;
  const port = await serveLoopback(context, certificateServer(made));
  // NODE_EXTRA_CA_CERTS is read once, when a process starts.
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: made.authorityFile };
  const [ours, careless] = await Promise.all([runScript(dialScript(port), env), runScript(carelessScript(port), env)]);
  assert.match(ours, /^refused tls .*no TLS with 127\.0\.0\.1:\d+: /);
  assert.equal(careless, 'accepted'); // so the trap is there, and what refuses is our doing
});

/** A server with any key agreement and a certificate. */
function certificateServer(options: TlsOptions): Server {
  const server = createServer({ ...options, minVersion: 'TLSv1.3' });
  server.on('secureConnection', (socket) => socket.write('welcome'));
  server.on('tlsClientError', () => {}); // the client turning away
  return server;
}

function dialScript(port: number): string {
  const url = JSON.stringify(new URL('../../src/runtime/dial.js', import.meta.url).href);
  return `
    const { dial } = await import(${url});
    const psk = { identity: 'web.1', key: Buffer.alloc(32, 1) };
    const signal = new AbortController().signal;
    await dial({ host: 'localhost', port: ${port}, timeoutMs: 30_000, psk, signal }).then(
      (connection) => { console.log('accepted'); connection.destroy(); },
      (error) => console.log('refused', error.code, error.message));`;
}

function carelessScript(port: number): string {
  return `
    const { connect } = await import('node:tls');
    const pskCallback = () => ({ identity: 'web.1', psk: Buffer.alloc(32, 1) });
    const socket = connect({ host: 'localhost', port: ${port}, minVersion: 'TLSv1.3', pskCallback });
    socket.on('secureConnect', () => { console.log('accepted'); socket.destroy(); });
    socket.on('error', (error) => console.log('refused', error.message));`;
}

function runScript(script: string, env: NodeJS.ProcessEnv): Promise<string> {
  return new Promise((resolve) => {
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { env, stdio: [...stdio] });
    let text = '';
    child.stdout?.on('data', (chunk) => {
      text += chunk;
    });
    child.on('close', () => resolve(text.trim()));
  });
}

test('the agent refuses a server without the key that offers to resume', async (context) => {
  const made = certificate(context);
  if (!made) return;
  // One with the key hands out tickets; then another, which has only those tickets' keys, takes its place.
  const ticketKeys = Buffer.alloc(48, 7);
  const honest = createServer({ ...tlsParameters, secureOptions: 0, ticketKeys, pskCallback: () => web.key });
  honest.on('secureConnection', (socket) => socket.write('welcome'));
  const first = await dialPort(await serveLoopback(context, honest));
  for await (const chunk of first) {
    assert.equal(Buffer.from(chunk).toString(), 'welcome');
    break;
  }
  const thief = certificateServer({ ...made, ticketKeys });
  const resumed: boolean[] = [];
  thief.on('secureConnection', (socket) => resumed.push(socket.isSessionReused()));
  const port = await serveLoopback(context, thief);
  for (const _ of [1, 2]) {
    await assert.rejects(dialPort(port), (error) => {
      assert.ok(error instanceof ConnectionError);
      assert.equal(error.code, 'tls');
      return true;
    });
  }
  assert.ok(!resumed.includes(true));
  first.destroy();
});
