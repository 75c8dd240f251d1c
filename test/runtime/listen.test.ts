import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Connection } from '../../src/runtime/connection.ts';
import { dial } from '../../src/runtime/dial.ts';
import { ListenError, type Listener, type ListenOptions, listen } from '../../src/runtime/listen.ts';
import { countedAddress } from '../../src/runtime/places.ts';
import { serveLoopback, until } from '../support/sockets.ts';

interface World {
  readonly listener: Listener;
  readonly connections: Connection[];
  readonly refused: string[];
  client(): Socket;
}

async function open(context: TestContext, options: Partial<ListenOptions> = {}): Promise<World> {
  const connections: Connection[] = [];
  const refused: string[] = [];
  const listener = await listen({
    address: '127.0.0.1',
    port: 0,
    onConnection: (connection) => void connections.push(connection),
    connectionsMax: 100,
    connectionsPerAddressMax: 100,
    handshakeTimeoutMs: 30_000,
    onRefused: (reason, peer) => {
      assert.match(peer, /^127\.0\.0\.\d+:\d+$/);
      refused.push(reason);
    },
    ...options,
  });
  const clients: Socket[] = [];
  context.after(async () => {
    for (const client of clients) client.destroy();
    await listener.close();
  });
  const client = () => {
    const socket = connect(listener.port, '127.0.0.1');
    socket.on('error', () => {}); // being refused is part of the test
    socket.resume();
    clients.push(socket);
    return socket;
  };
  return { listener, connections, refused, client };
}

const psk = { keyOf: () => Buffer.alloc(32, 1) };

test('connections are handed over, counted, and forgotten when they end', async (context) => {
  const { listener, connections, refused, client } = await open(context);
  client();
  const second = client();
  await until(() => connections.length === 2);
  assert.equal(listener.connections, 2);
  assert.equal(connections[0]?.peerAddress, '127.0.0.1');
  second.destroy();
  await until(() => listener.connections === 1);
  connections[0]?.destroy();
  connections[1]?.destroy();
  await until(() => listener.connections === 0);
  assert.deepEqual(refused, []);
});

test('a limit for all: the next is refused at once, until one ends', async (context) => {
  const { listener, refused, client } = await open(context, { connectionsMax: 2 });
  const first = client();
  client();
  await until(() => listener.connections === 2);
  const third = client();
  await until(() => third.closed);
  assert.deepEqual(refused, ['full']);
  assert.equal(listener.connections, 2);
  first.destroy();
  await until(() => listener.connections === 1);
  client();
  await until(() => listener.connections === 2);
  assert.deepEqual(refused, ['full']);
});

test('who has not said who it is gives way: the oldest of the address that has most of them', async (context) => {
  for (const isTls of [false, true]) {
    const known: (() => void)[] = [];
    const { listener, refused } = await open(context, {
      ...{ connectionsMax: 5, connectionsPerAddressMax: 4, ...(isTls && { psk }) },
      onConnection: () => new Promise<void>((resolve) => known.push(resolve)),
    });
    const closed: string[] = [];
    const client = async (name: string, localAddress: string) => {
      const before = listener.connections;
      const socket = connect({ port: listener.port, host: '127.0.0.1', localAddress });
      context.after(() => socket.destroy());
      socket.resume();
      socket.on('error', () => {});
      socket.once('close', () => closed.push(name));
      await until(() => listener.connections > before || closed.length + listener.connections > before);
    };
    for (const name of ['a1', 'a2', 'a3']) await client(name, '127.0.0.1');
    await client('b1', '127.0.0.2');
    if (!isTls) {
      await until(() => known.length === 4);
      known[0]!();
      await new Promise(setImmediate);
    }
    await client('b2', '127.0.0.2');
    await client('c1', '127.0.0.3');
    const firstOut = isTls ? 'a1' : 'a2';
    await until(() => closed.length === 1);
    assert.deepEqual(closed, [firstOut]);
    assert.deepEqual(refused.splice(0), ['crowded-out']);
    // Full for its own address: one of its own gives way.
    for (const name of ['c2', 'c3', 'c4', 'c5']) await client(name, '127.0.0.3');
    await until(() => listener.connections === 5 && closed.length === 5);
    assert.equal(closed.includes('c1'), true);
    assert.equal(closed.includes('a1'), isTls, 'its peer has said who it is');
    await listener.close();
  }
});

test('silent connections from four addresses that dial again and again keep no agent out', async (context) => {
  const { listener } = await open(context, {
    ...{ psk, connectionsMax: 40, connectionsPerAddressMax: 20 },
    // A peer is known by its first bytes.
    onConnection: async (connection) => {
      for await (const _ of connection) return;
    },
  });
  const { port } = listener;
  const silent = new Set<Socket>();
  let isOver = false;
  let dials = 0;
  const flood = (localAddress: string): void => {
    if (isOver || dials >= floodDialsMax) return;
    dials++;
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    silent.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => {
      silent.delete(socket);
      setImmediate(flood, localAddress);
    });
  };
  // Also where an assertion fails: it would go on for ever.
  context.after(() => {
    isOver = true;
    for (const socket of silent) socket.destroy();
  });
  for (let at = 0; at < 80; at++) flood(`127.0.0.${10 + (at % 4)}`);
  await until(() => dials > 200);
  for (let time = 0; time < 20; time++) {
    const { signal } = new AbortController();
    const connection = await dial({
      ...{ host: '127.0.0.1', port, timeoutMs: 2000, signal },
      psk: { identity: 'honest', key: psk.keyOf() },
    });
    await connection.write(Buffer.from('hello'));
    connection.destroy();
  }
  assert.ok(dials > 400, `the flood went on meanwhile: ${dials} dials`);
});

const floodDialsMax = 10_000;

test('a limit for an address: another address still gets in', async (context) => {
  const { listener, connections, refused, client } = await open(context, { connectionsPerAddressMax: 1 });
  client();
  await until(() => listener.connections === 1);
  const second = client();
  await until(() => second.closed);
  const other = connect({ port: listener.port, host: '127.0.0.1', localAddress: '127.0.0.2' });
  context.after(() => other.destroy());
  await until(() => connections.length === 2);
  assert.deepEqual(refused, ['full-address']);
});

test('the deadline of a handshake does not begin anew with each byte', async (context) => {
  const { listener, refused, connections, client } = await open(context, { psk, handshakeTimeoutMs: 60 });
  const silent = client();
  const slow = client();
  // The head of a TLS record of 512 bytes, which then come one by one.
  slow.write(Buffer.from([22, 3, 1, 2, 0]));
  const dripping = setInterval(() => slow.write(Buffer.from([0])), 5);
  context.after(() => clearInterval(dripping));
  await until(() => silent.closed && slow.closed);
  await until(() => listener.connections === 0);
  assert.deepEqual(refused, ['handshake-timeout', 'handshake-timeout']);
  assert.equal(connections.length, 0);
});

test('plain bytes and HTTP on a TLS port are refused; a port check is no event', async (context) => {
  const { listener, refused, connections, client } = await open(context, { psk });
  const check = client();
  await until(() => listener.connections === 1);
  check.destroy();
  await until(() => listener.connections === 0);
  assert.deepEqual(refused, []);
  const http = client();
  http.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n');
  const frame = client();
  frame.write(Buffer.from([0, 0, 0, 3, 0x92, 6, 1]));
  frame.write(Buffer.alloc(100));
  await until(() => http.closed && frame.closed);
  await until(() => listener.connections === 0);
  assert.deepEqual(refused, ['tls', 'tls']);
  assert.equal(connections.length, 0);
});

test('TLS begins with the first byte: a peer that says nothing costs a socket', async (context) => {
  let begun = 0;
  const hook = createHook({
    init(_id, type) {
      if (type === 'TLSWRAP') begun++;
    },
  }).enable();
  context.after(() => hook.disable());
  const { listener, client } = await open(context, { psk });
  const first = client();
  client();
  await until(() => listener.connections === 2);
  assert.equal(begun, 0);
  first.write(Buffer.from([22]));
  await until(() => begun > 0);
  assert.equal(begun, 1);
});

test('close ends every connection, handshakes too, and frees the port', async (context) => {
  for (const options of [{}, { psk }]) {
    const { listener, client } = await open(context, options);
    const first = client();
    const second = client();
    await until(() => listener.connections === 2);
    await listener.close();
    await until(() => first.closed && second.closed);
    assert.equal(listener.connections, 0);
    const again = await listen({ ...refusing, port: listener.port });
    await again.close();
  }
});

const refusing: ListenOptions = {
  address: '127.0.0.1',
  port: 0,
  onConnection: (connection) => void connection.destroy(),
  connectionsMax: 1,
  connectionsPerAddressMax: 1,
  handshakeTimeoutMs: 1000,
  onRefused: () => {},
};

test('a port that is taken is named, and so is an address that is not ours', async (context) => {
  const port = await serveLoopback(context, createServer());
  await assert.rejects(listen({ ...refusing, port }), (error) => {
    assert.ok(error instanceof ListenError);
    assert.equal(error.code, 'EADDRINUSE');
    assert.equal(error.message, `cannot listen on 127.0.0.1:${port}: another program uses the port`);
    return true;
  });
  await assert.rejects(listen({ ...refusing, address: '192.0.2.1' }), (error) => {
    assert.ok(error instanceof ListenError);
    assert.equal(error.message, 'cannot listen on 192.0.2.1:0: this host does not have the address');
    return true;
  });
});

test('all addresses', async (context) => {
  const { listener, connections, client } = await open(context, { address: '' });
  client();
  await until(() => connections.length === 1);
  assert.equal(listener.connections, 1);
  assert.equal(connections[0]?.peerAddress, '127.0.0.1');
});

test('a peer is counted by its IPv4 address or its IPv6 /64', () => {
  assert.equal(countedAddress('192.0.2.7'), '192.0.2.7');
  assert.equal(countedAddress('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
  assert.equal(countedAddress('2001:db8:1:2::6'), '2001:db8:1:2::/64');
  assert.equal(countedAddress('2001:db8::6'), '2001:db8:0:0::/64');
  assert.equal(countedAddress('fe80::1%eth0'), 'fe80:0:0:0::/64');
  assert.equal(countedAddress('::1'), '0:0:0:0::/64');
});
