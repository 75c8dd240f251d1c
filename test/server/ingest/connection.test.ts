import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { encodeSchema } from '../../../src/protocol/codec.ts';
import { ProtocolError } from '../../../src/protocol/errors.ts';
import { encodeFrame } from '../../../src/protocol/frame.ts';
import { limits } from '../../../src/protocol/limits.ts';
import type { AgentMessage } from '../../../src/protocol/messages.ts';
import { wireLabelBounds } from '../../../src/protocol/schema-table.ts';
import { groupOf, pingOf } from '../../support/groups.ts';
import { pack } from '../../support/messagepack.ts';
import { settle } from '../../support/virtual-clock.ts';
import { minuteMs } from '../delivery/cursors-harness.ts';
import { memoryBytesMax } from '../delivery/delivery-harness.ts';
import { testFamily, testSchema, valuesOf } from '../delivery/report-maker.ts';
import { type Client, ConnectionHarness } from './connection-harness.ts';

const record = (world: ConnectionHarness, name = 'a') => world.delivery.store.agents.get(agentId(name)!)!;

/** What the window holds: times and values. */
function held(world: ConnectionHarness, name = 'a'): unknown[] {
  const runs = record(world, name).host.window.read(0, Infinity, 999);
  return runs.flatMap(({ reports }) => reports.map((report) => [report.timeMs, ...valuesOf(report)]));
}

test('a hello is answered by a welcome: version, time, what is known of the epochs', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  assert.deepEqual(client.received, [{ kind: 'welcome', version: 1, epochs: [], nowMs: world.clock.nowMs() }]);
  const agent = record(world);
  assert.equal(agent.peer, '192.0.2.1:40000');
  assert.equal(agent.connectedAtMs, world.clock.nowMs());
  assert.equal(agent.software, 'test 1');
  client.link.near.destroy();
  await settle();
  assert.equal(agent.peer, undefined);
  assert.equal(agent.connectedAtMs, undefined);
  assert.equal(world.running, 0);
  assert.equal(world.clock.timers, 0);
  assert.deepEqual(world.ended, []);
});

test('a hello of a later version gets version 1 as well', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed({ version: 2 });
  assert.equal(client.ofKind('welcome')[0]?.version, 1);
});

test('a name that is longer than values of labels may be is refused', async () => {
  const world = new ConnectionHarness();
  world.labelBounds = { ...wireLabelBounds, valueBytes: 64 };
  const client = await world.welcomed({ agentName: 'a'.repeat(65) });
  assert.equal(client.error, 'limit');
  assert.match(client.ofKind('error')[0]!.text, /^hello: its name, .*, has 65 bytes, at most 64 are allowed here/);
  assert.equal((await world.welcomed({ agentName: 'a'.repeat(64) })).error, undefined);
});

test('without a hello the connection ends after 5 s, however busy it is', async () => {
  const world = new ConnectionHarness();
  const client = world.dial();
  client.bytes(Uint8Array.of(0, 0));
  await world.clock.advance(limits.helloTimeoutMs - 1);
  client.bytes(Uint8Array.of(0));
  assert.equal(client.closed, 'no');
  await world.clock.advance(1);
  assert.equal(client.error, 'hello-timeout');
  assert.equal(client.closed, 'ended');
  assert.equal(world.running, 0);
});

test('an agent is cut off 30 s after its last whole frame', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  await world.clock.advance(20_000);
  client.send(pingOf(7));
  await world.clock.advance(limits.silenceMs - 1);
  client.bytes(Uint8Array.of(0, 0, 0, 99));
  await settle();
  assert.equal(client.error, undefined);
  await world.clock.advance(1);
  assert.equal(client.error, 'silent');
  assert.equal(world.running, 0);
});

test('a ping is answered at once', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.send(pingOf(2 ** 53 - 1));
  await settle();
  assert.deepEqual(client.received.at(-1), { kind: 'pong', nonce: 2 ** 53 - 1, nowMs: world.clock.nowMs() });
});

test('a frame of a later version is skipped and counted', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.bytes(encodeFrame(pack([9, 'what', [1, null]])));
  await settle();
  assert.deepEqual(world.unknown, [9]);
  assert.equal(client.closed, 'no');
});

test('each thing that is wrong has its code, ends that connection, is counted and warned of', async () => {
  const ping: AgentMessage = pingOf(1);
  const hello = (client: Client) => client.hello();
  const cases: readonly [code: string, what: string, send: (client: Client, world: ConnectionHarness) => void][] = [
    ['bad-frame', 'no array', (client) => client.bytes(encodeFrame(pack(7)))],
    ['bad-frame', 'a map', (client) => client.bytes(encodeFrame(Uint8Array.of(0x80)))],
    ['limit', 'a frame beyond a hello', (client) => client.bytes(Uint8Array.of(0, 0, 0x04, 1))],
    ['bad-message', 'no hello first', (client) => client.send(ping)],
    ['bad-message', 'a begin before the hello', (client) => client.begin()],
    ['version', 'version 0', (client) => client.hello({ version: 0 })],
    [
      'bad-label',
      'a label agent',
      (client) => {
        hello(client);
        client.begin(1, 0, { labels: [['agent', 'x']] });
      },
    ],
    [
      'bad-message',
      'a second hello',
      (client) => {
        hello(client);
        client.hello();
      },
    ],
    [
      'order',
      'a schema before a begin',
      (client) => {
        hello(client);
        client.schema(['a']);
      },
    ],
    [
      'order',
      'a report before a begin',
      (client) => {
        hello(client);
        client.key(1, 1, 1);
      },
    ],
    [
      'order',
      'a delta first',
      (client, world) => {
        hello(client);
        client.begin();
        client.schema(['a']);
        client.delta(1, world.clock.nowMs(), 0, 1);
      },
    ],
    [
      'schema',
      'a family of the server',
      (client) => {
        hello(client);
        client.begin();
        client.schema(['a'], 'sysmon_server_reports_total');
      },
    ],
    [
      'bad-message',
      'a pair past the last series',
      (client, world) => {
        hello(client);
        client.begin();
        client.schema(['a']);
        client.key(1, world.clock.nowMs(), 1, 2);
      },
    ],
    [
      'limit',
      'a frame beyond 1 MiB',
      (client) => {
        hello(client);
        client.bytes(Uint8Array.of(0, 0x10, 0, 1));
      },
    ],
  ];
  for (const [code, what, send] of cases) {
    const world = new ConnectionHarness();
    const other = await world.welcomed({ agentName: 'other' });
    const client = world.dial({ peerAddress: '192.0.2.9' });
    send(client, world);
    await settle();
    assert.equal(client.error, code, what);
    assert.equal(client.closed, 'ended', what);
    assert.deepEqual(world.ended, [code], what);
    assert.equal(world.warnings.length, 1, what);
    const who = world.delivery.store.agents.has(agentId('a')!) ? 'a' : '192.0.2.9';
    assert.equal(world.warnings[0]?.[0], `${code} ${who}`);
    assert.match(world.warnings[0]?.[1] ?? '', new RegExp(`is cut off \\(${code}\\): .{5,}`));
    assert.equal(world.running, 1, what);
    other.send(ping);
    await settle();
    assert.equal(other.received.at(-1)?.kind, 'pong', what);
  }
});

test('an error is said also to a peer that goes on sending, and what it sends is not taken', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed({}, { delayMs: 50 });
  await world.clock.advance(200);
  client.begin();
  client.schema(['a']);
  client.key(1, world.clock.nowMs(), 1);
  client.hello();
  client.key(2, world.clock.nowMs(), 2);
  await world.clock.advance(60);
  client.key(3, world.clock.nowMs(), 3);
  await world.clock.advance(200);
  assert.equal(client.error, 'bad-message');
  assert.equal(client.closed, 'ended');
  assert.equal(record(world).host.window.reportCount, 1);
});

test('what is logged: a connection without a word is a health check, a torn frame is told', async () => {
  const world = new ConnectionHarness();
  for (const bytes of [Uint8Array.of(), Uint8Array.of(0, 0, 0)]) {
    const client = world.dial();
    client.bytes(bytes);
    await settle();
    client.link.near.destroy();
    await settle();
  }
  const client = await world.welcomed();
  client.bytes(Uint8Array.of(0, 0, 0));
  await settle();
  client.link.near.destroy();
  await settle();
  const broken = await world.welcomed();
  broken.link.cut();
  await settle();
  assert.deepEqual(world.log.lines, [
    'debug: peer 192.0.2.1:40000 closed the connection',
    'debug: peer 192.0.2.1:40000: the stream ended inside a frame: 3 bytes of it came, of its header',
    "info: agent 'a' (192.0.2.1:40000) is connected: test 1",
    "info: agent 'a' (192.0.2.1:40000): the stream ended inside a frame: 3 bytes of it came, of its header",
    "info: agent 'a' (192.0.2.1:40000) is connected: test 1",
    "info: agent 'a' (192.0.2.1:40000): 192.0.2.1:40000 reset the connection",
  ]);
  assert.deepEqual(world.ended, []);
});

test('reports are stored with the offset of their epoch, whatever the bytes are cut into', async () => {
  const world = new ConnectionHarness();
  const client = world.dial();
  client.link.out.split = (bytes) => Array.from(bytes, (byte) => Uint8Array.of(byte));
  client.hello();
  await settle();
  const nowMs = world.clock.nowMs();
  client.begin(1, -60_000);
  client.schema(['a', 'b']);
  client.key(1, nowMs + 59_000, 1, 2);
  client.delta(2, nowMs + 59_500, -1, null, 0, 5);
  await settle();
  assert.deepEqual(held(world), [
    [nowMs - 1000, 1, 2],
    [nowMs - 500, undefined, 7],
  ]);
  assert.equal(record(world).host.offsetMs, -60_000);
  assert.equal(record(world).host.window.newestMs, nowMs - 500);
});

test('a replay: duplicates are read and dropped, and what follows them is stored with the right values', async () => {
  const world = new ConnectionHarness();
  const nowMs = world.clock.nowMs();
  const first = await world.welcomed();
  const replay = (client: Client, from: number, to: number) => {
    client.begin();
    client.schema(['a', 'b']);
    client.key(1, nowMs + 1, 10, 20);
    for (let seq = Math.max(2, from); seq <= to; seq++) client.delta(seq, nowMs + seq, 0, 1, 0, 2);
  };
  replay(first, 2, 3);
  await settle();
  first.link.cut();
  await settle();
  const second = await world.welcomed();
  assert.deepEqual(second.ofKind('welcome')[0]?.epochs, [{ epoch: 1, seq: 3 }]);
  replay(second, 2, 6);
  await settle();
  assert.equal(world.count('duplicate'), 3);
  assert.equal(world.count('stored'), 6);
  const rows = [1, 2, 3, 4, 5, 6].map((seq) => [nowMs + seq, 9 + seq, 18 + 2 * seq]);
  assert.deepEqual(held(world), rows);
});

test('what follows a report that was dropped is stored with the right values', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  const nowMs = world.clock.nowMs();
  client.begin();
  client.schema(['a']);
  client.key(1, nowMs, 10);
  await settle();
  world.clock.step(2 * 3_600_000); // the server's clock is wrong for a moment
  client.delta(2, nowMs + 1, 0, 5);
  await settle();
  world.clock.step(-2 * 3_600_000);
  for (let seq = 3; seq <= 9; seq++) client.delta(seq, nowMs + seq, 0, 1);
  await settle();
  assert.equal(world.count('too_old'), 1);
  assert.deepEqual(held(world).slice(0, 3), [
    [nowMs, 10],
    [nowMs + 3, 16],
    [nowMs + 4, 17],
  ]);
});

test('after a reconnect an equal schema is the same object, and a window grows without keeping copies', async () => {
  const world = new ConnectionHarness();
  const labels = Array.from({ length: 500 }, (_, series) => `series-${series}`);
  const schemas = new Set<unknown>();
  let bytes = 0;
  for (let connection = 1; connection <= 50; connection++) {
    const client = await world.welcomed();
    client.begin();
    client.schema(labels);
    client.key(connection, world.clock.nowMs(), 1);
    await settle();
    schemas.add(record(world).host.schema);
    if (connection === 10) bytes = world.delivery.store.windowBytes;
    client.link.cut();
    await world.clock.advance(1000);
  }
  assert.equal(schemas.size, 1);
  const schemaBytes = world.delivery.store.schemas.bytes;
  assert.ok(world.delivery.store.windowBytes < bytes + 40 * 2000, `${world.delivery.store.windowBytes} after ${bytes}`);
  assert.ok(schemaBytes > 10_000);
});

test('a schema that begins like the one before, then differs, is another; the reports keep their own', async () => {
  const world = new ConnectionHarness();
  const nowMs = world.clock.nowMs();
  const first = await world.welcomed();
  first.begin();
  first.schema(['a', 'b']);
  first.key(1, nowMs + 1, 1, 2);
  await settle();
  const before = record(world).host.schema;
  first.link.cut();
  await settle();

  const second = await world.welcomed();
  second.begin();
  second.schema(['a']);
  second.key(2, nowMs + 2, 3);
  await settle();
  assert.equal(record(world).host.schema, before);
  second.schema(['b']);
  second.key(3, nowMs + 3, 4, 5);
  await settle();
  assert.equal(record(world).host.schema, before);
  second.schema(['c']);
  second.key(4, nowMs + 4, 6, 7, 8);
  await settle();
  assert.equal(record(world).host.schema, before, 'grown by what the second has beyond the first');
  second.begin();
  second.schema(['a', 'x']);
  second.key(5, nowMs + 5, 9, 10);
  await settle();
  const after = record(world).host.schema;
  assert.notEqual(after, before);
  assert.deepEqual(
    record(world)
      .host.window.read(0, Infinity, 99)
      .map(({ schema, reports }) => [
        schema.blocks.flatMap(({ labelValues }) => labelValues),
        ...reports.map(valuesOf),
      ]),
    [
      [['a', 'b', 'c'], [1, 2], [3], [4, 5], [6, 7, 8]],
      [
        ['a', 'x'],
        [9, 10],
      ],
    ],
  );
});

test('other labels in the begin mean another schema object, and stay with their reports', async () => {
  const world = new ConnectionHarness();
  const schemas: unknown[] = [];
  for (const labels of [[], [], [['site', 'x']], [['site', 'y']], [['site', 'y']]] as [string, string][][]) {
    const client = await world.welcomed();
    client.begin(schemas.length + 1, 0, { labels });
    client.schema(['a']);
    client.key(1, world.clock.nowMs(), 1);
    await settle();
    assert.deepEqual(record(world).host.labels, labels);
    schemas.push(record(world).host.schema);
    client.link.cut();
    await world.clock.advance(1000);
  }
  assert.deepEqual(
    schemas.map((schema) => schemas.indexOf(schema)),
    [0, 0, 2, 3, 3],
  );
  const runs = record(world).host.window.read(0, Infinity, 99);
  assert.deepEqual(
    runs.map(({ labels, reports }) => [labels, reports.length]),
    [
      [[], 2],
      [[['site', 'x']], 1],
      [[['site', 'y']], 2],
    ],
  );
});

test('acks: the newest word, at most five a second', async () => {
  const world = new ConnectionHarness();
  await world.clock.advance(45_000);
  const client = await world.welcomed();
  client.begin();
  client.schema(['a']);
  for (let seq = 1; seq <= 100; seq++) {
    client.key(seq, world.clock.nowMs(), seq);
    await world.clock.advance(10);
  }
  await world.clock.advance(1000);
  const acks = client.ofKind('ack').map(({ seq }) => seq);
  assert.deepEqual(acks, [1, 20, 40, 60, 80, 100]);
  world.delivery.tidy();
  await world.clock.advance(5000);
  assert.equal(client.ofKind('ack').length, 6);
});

test('an ack after a scrape; again after a reconnect, and after a begin of another epoch', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin(5);
  client.schema(['a']);
  client.key(1, world.clock.nowMs(), 1);
  await settle();
  assert.deepEqual(client.ofKind('ack'), []);
  await world.scrapeAll();
  assert.deepEqual(client.ofKind('ack'), [{ kind: 'ack', epoch: 5, seq: 1 }]);
  client.link.cut();
  await settle();
  const again = await world.welcomed();
  assert.deepEqual(again.ofKind('ack'), [{ kind: 'ack', epoch: 5, seq: 1 }]);
  again.begin(6);
  await world.clock.advance(1000);
  again.schema(['a']);
  again.key(1, world.clock.nowMs(), 1);
  await settle();
  await world.scrapeAll();
  await world.clock.advance(1000);
  assert.deepEqual(again.ofKind('ack').at(-1), { kind: 'ack', epoch: 6, seq: 1 });
});

test('an ack that waits goes with its connection', async () => {
  const world = new ConnectionHarness();
  await world.clock.advance(45_000);
  const client = await world.welcomed();
  client.begin();
  client.schema(['a']);
  client.key(1, world.clock.nowMs(), 1);
  await world.clock.advance(10);
  client.key(2, world.clock.nowMs(), 1);
  await settle();
  client.link.cut();
  await settle();
  assert.equal(world.clock.timers, 0);
});

test('a peer that asks and does not read is cut off', async () => {
  const world = new ConnectionHarness();
  const client = world.dial({ windowBytes: 1024 * 1024 });
  client.hello();
  await settle();
  client.link.back.delayMs = 60_000; // nothing gets through to it
  for (let nonce = 0; nonce < 10_000 && world.ended.length === 0; nonce++) {
    client.send(pingOf(nonce));
    if (nonce % 500 === 0) await settle();
  }
  await settle();
  assert.deepEqual(world.ended, ['slow']);
  assert.equal(world.warnings[0]?.[0], 'slow 192.0.2.1');
  assert.match(world.warnings[0]?.[1] ?? '', /agent 'a' .* is cut off: 65\d{3} bytes wait for it to read/);
  assert.equal(world.running, 0);
  assert.equal(record(world).peer, undefined);
});

test('an error to a peer that does not read ends with the deadline of the goodbye', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.link.silence();
  await world.clock.advance(limits.silenceMs);
  assert.deepEqual(world.ended, ['silent']);
  assert.equal(record(world).peer, undefined, 'its name is free already');
  assert.equal(world.running, 1);
  await world.clock.advance(2000);
  assert.equal(world.running, 0);
});

test('schemas of live connections are bounded by the memory of the server; the peer is told to come again', async () => {
  const world = new ConnectionHarness();
  const { store } = world.delivery;
  for (let filler = 0; filler < 17; filler++) {
    const bytes = Math.min(memoryBytesMax / 16 - 2000, memoryBytesMax - store.windowBytes - 5000);
    // A name that no agent could give it.
    store.holdSchema(store.agent(agentId(`filler-${filler}`)!), testSchema(1, 'x'.repeat(bytes)), undefined);
  }
  const before = store.windowBytes;
  assert.ok(before > memoryBytesMax - 5000 && before < memoryBytesMax - 2000, `${before} bytes`);
  const client = await world.welcomed();
  client.begin();
  client.schema(['a']);
  await settle();
  assert.equal(client.error, undefined);
  client.schema(
    ['v', 'w', 'x', 'y'].map((value) => value.repeat(500)),
    'other_value',
  );
  await settle();
  assert.equal(client.error, 'busy');
  assert.equal(store.windowBytes, before, 'given back');
});

test('a begin gives back what the schema before took', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin();
  await settle();
  const emptyBytes = world.delivery.store.windowBytes;
  client.schema(['a']);
  await settle();
  assert.ok(world.delivery.store.windowBytes > emptyBytes);
  client.begin();
  await settle();
  assert.equal(world.delivery.store.windowBytes, emptyBytes);
  client.link.cut();
  await settle();
  assert.equal(world.delivery.store.windowBytes, 0);
});

test('an agent that says nothing for long is down, and up again with its next report', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin();
  client.schema(['a']);
  client.key(1, world.clock.nowMs(), 1);
  for (let ping = 0; ping < 6; ping++) {
    await world.clock.advance(10_000);
    client.send(pingOf(ping));
  }
  assert.equal(record(world).host.up(world.clock.monotonicMs()), false);
  client.key(2, world.clock.nowMs(), 1);
  await world.clock.advance(minuteMs / 6);
  assert.equal(record(world).host.up(world.clock.monotonicMs()), true);
});

test('a bug that one agent meets ends its connection alone: it is told, and the others go on', async () => {
  const world = new ConnectionHarness();
  const unlucky = await world.welcomed({ agentName: 'a' });
  const other = await world.welcomed({ agentName: 'b' });
  const bug = new TypeError('undefined is not a function');
  const { store } = world.delivery;
  const { receive } = store;
  store.receive = (agent, report) => {
    if (agent.id === 'a') throw bug;
    return receive.call(store, agent, report);
  };
  for (const client of [unlucky, other]) {
    client.begin();
    client.schema(['s0']);
    client.key(1, world.clock.nowMs(), 1);
  }
  await settle();
  assert.equal(unlucky.error, 'internal');
  assert.doesNotMatch(unlucky.ofKind('error')[0]!.text, /function/, 'a peer is not told where');
  assert.equal(unlucky.closed, 'ended');
  assert.deepEqual(world.bugs, [["agent 'a' (192.0.2.1:40000)", bug]]);
  assert.deepEqual(world.ended, ['internal']);
  assert.deepEqual(world.warnings, [], 'it is logged with its stack, elsewhere');
  assert.equal(other.closed, 'no');
  assert.equal(world.running, 1);
  await world.clock.advance(5000);
  other.delta(2, world.clock.nowMs(), 0, 1);
  await settle();
  assert.equal(held(world, 'b').length, 2);
  // The name is free: the agent comes again, and does no better.
  assert.equal((await world.welcomed({ agentName: 'a' })).error, undefined);
});

test('a bug in the hello ends the connection too', async () => {
  const world = new ConnectionHarness();
  world.admission.admit = () => {
    throw new RangeError('out of range');
  };
  const client = await world.welcomed();
  assert.equal(client.error, 'internal');
  assert.equal(world.bugs.length, 1);
  assert.equal(world.running, 0);
});

test('the clock is looked at before a report; one that was set ends the connection before the report counts', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin();
  client.schema(['s0']);
  client.key(1, world.clock.nowMs(), 1);
  await settle();
  world.lookAtClock = () => world.admission.refuseAll(new ProtocolError('clock', 'the clock was set'));
  client.key(2, world.clock.nowMs() + 1, 1);
  client.key(3, world.clock.nowMs() + 2, 1);
  await settle();
  assert.equal(client.error, 'clock');
  assert.equal(held(world).length, 1);
  assert.equal(record(world).received?.seq, 1);
  assert.deepEqual(world.ended, ['clock']);
  assert.deepEqual(world.warnings, [], 'the step itself is logged, once for all');
});

test('a report that is too far ahead ends the connection: the agent measures again, and it is not received', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin();
  client.schema(['s0']);
  const nowMs = world.clock.nowMs();
  client.key(1, nowMs, 1);
  client.key(2, nowMs + limits.futureMsMax + 5000, 1);
  client.key(3, nowMs + 1, 1);
  await settle();
  assert.equal(client.error, 'clock');
  assert.match(client.ofKind('error')[0]!.text, /^a report is 15\.0 s ahead of the server's clock$/);
  assert.equal(held(world).length, 1);
  assert.deepEqual(record(world).received, { epoch: 1, seq: 1 });
  assert.equal(world.count('too_far_ahead'), 1);
  assert.deepEqual(world.warnings, [
    [
      'clock a',
      "agent 'a': a report is 15.0 s ahead of the server's clock; its connection was ended, so that it measures the " +
        'clock again; is NTP on? (timedatectl)',
    ],
  ]);
  const again = await world.welcomed();
  assert.deepEqual(again.ofKind('welcome')[0]?.epochs, [{ epoch: 1, seq: 1 }]);
});

test('what is refused is said to the agent: once for many, and on the next connection at the latest', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  client.begin();
  client.schema(['s0']);
  const oldMs = world.clock.nowMs() - 40 * minuteMs;
  for (let seq = 1; seq <= 100; seq++) client.key(seq, oldMs + seq * 1000, 1);
  await settle();
  assert.deepEqual(client.ofKind('refused'), []);
  await world.clock.advance(1000);
  const text = 'older than the window of 30m';
  const times = { firstMs: oldMs + 1000, lastMs: oldMs + 100_000 };
  const refused = { kind: 'refused', reason: 'too_old', count: 100, ...times, text };
  assert.deepEqual(client.ofKind('refused'), [refused]);
  client.key(101, oldMs + 101_000, 1);
  await settle();
  client.link.cut();
  await settle();
  const next = await world.welcomed();
  assert.deepEqual(next.ofKind('refused'), [
    { ...refused, count: 1, firstMs: oldMs + 101_000, lastMs: oldMs + 101_000 },
  ]);
  assert.equal(next.received[0]?.kind, 'welcome', 'after the welcome');
  assert.deepEqual(record(world).drops.all[0], {
    reason: 'too_old',
    count: 101,
    firstMs: oldMs + 1000,
    lastMs: oldMs + 101_000,
    droppedMs: world.clock.nowMs(),
    scrapers: new Set(),
  });
});

test('several sources: each has its schema and window, and one connection has one row of numbers', async () => {
  const world = new ConnectionHarness();
  const nowMs = world.clock.nowMs();
  const client = await world.welcomed();
  const family = { name: 'redis_seconds', type: 'histogram', help: '', divisor: 1 } as const;
  const groups = [
    { family, suffix: '_bucket', labelNames: ['le'], seriesCount: 2, labelValues: ['1', '+Inf'] },
    { family, suffix: '_sum', labelNames: [], seriesCount: 1, labelValues: [] },
  ];
  client.begin();
  client.schema(['a', 'b']);
  client.key(1, nowMs, 1, 2);
  client.begin(1, 0, { source: 3, name: 'redis', intervalMs: 15_000, labels: [['tier', 'db']] });
  client.send({ kind: 'schema', source: 3, groups });
  client.send({ kind: 'report', key: true, source: 3, seq: 2, timeMs: nowMs - 500, pairs: [0, 5, 0, 6, 0, 7] });
  client.delta(3, nowMs + 1000, 0, 1);
  client.send({ kind: 'report', key: false, source: 3, seq: 4, timeMs: nowMs, pairs: [0, 1] });
  await settle();
  assert.equal(client.error, undefined);
  const agent = record(world);
  assert.deepEqual(held(world), [
    [nowMs, 1, 2],
    [nowMs + 1000, 2, 2],
  ]);
  const redis = [...agent.streams].find(({ sourceName }) => sourceName === 'redis')!;
  const runs = redis.window.read(0, Infinity, 9);
  assert.deepEqual(
    runs.map(({ labels, reports }) => [labels, ...reports.map(valuesOf)]),
    [[[['tier', 'db']], [5, 6, 7], [6, 6, 7]]],
  );
  assert.deepEqual([...agent.epochs], [[1, 4]]);
  const bytes = world.delivery.store.windowBytes;
  // A begin of one source gives back what that one had declared; one of another epoch what all had.
  client.begin(1, 0, { source: 3, name: 'redis', intervalMs: 15_000, labels: [['tier', 'db']] });
  client.send({ kind: 'report', key: true, source: 3, seq: 5, timeMs: nowMs + 1, pairs: [0, 1] });
  await settle();
  assert.equal(client.error, 'bad-message');
  assert.ok(world.delivery.store.windowBytes <= bytes);
  assert.equal(world.running, 0);
});

test('an ack waits for the slowest source', async () => {
  const world = new ConnectionHarness();
  await world.clock.advance(45_000);
  const client = await world.welcomed();
  client.begin();
  client.schema(['a']);
  client.begin(1, 0, { source: 1, name: 'redis' });
  client.send({ kind: 'schema', source: 1, groups: [groupOf(testFamily('redis_up'), ['a'])] });
  const redis = (seq: number, timeMs: number) =>
    client.send({ kind: 'report', key: true, source: 1, seq, timeMs, pairs: [0, seq] });
  client.key(1, world.clock.nowMs(), 1);
  await settle();
  await world.scrapeAll();
  redis(2, world.clock.nowMs() + 1);
  client.key(3, world.clock.nowMs() + 2, 3);
  await world.clock.advance(1000);
  assert.deepEqual(await world.scrapeAll({ samplesMax: 1 }), { a: [world.clock.nowMs() - 998] });
  await world.delivery.flush();
  await world.clock.advance(1000);
  assert.equal(client.ofKind('ack').at(-1)?.seq, 1, '3 of the host is delivered, 2 of the other is not');
  await world.scrapeAll();
  await world.delivery.flush();
  await world.clock.advance(1000);
  assert.equal(client.ofKind('ack').at(-1)?.seq, 3);
});

/** In as many frames as it takes. */
function declareMany(client: Client, source: number, labelValues: readonly string[]): void {
  for (const payload of encodeSchema(source, [groupOf(testFamily(), labelValues)])) client.bytes(encodeFrame(payload));
}

test('new series in half an hour are bounded, whichever way they come; the same again are not new', async () => {
  const labelsOf = (round: number) => Array.from({ length: 20_000 }, (_, at) => `${round}-${at}`);
  const ways: Readonly<Record<string, (client: Client, round: number) => void>> = {
    'values of a label': (client, round) => {
      client.begin(round);
      declareMany(client, 0, labelsOf(round));
    },
    'labels of the host': (client, round) => {
      client.begin(round, 0, { labels: [['site', `${round}`]] });
      declareMany(client, 0, labelsOf(0));
    },
    'names of a source': (client, round) => {
      client.begin(round);
      client.begin(round, 0, { source: 1, name: `source-${round}` });
      declareMany(client, 1, labelsOf(0));
    },
  };
  for (const [way, declare] of Object.entries(ways)) {
    const world = new ConnectionHarness();
    const other = await world.welcomed({ agentName: 'other' });
    const client = await world.welcomed();
    let round = 1;
    for (; client.error === undefined; round++) {
      declare(client, round);
      const source = way === 'names of a source' ? 1 : 0;
      client.send({
        ...{ kind: 'report', key: true, source, seq: round, timeMs: world.clock.nowMs() + round },
        pairs: [0, 1],
      });
      await settle();
      assert.ok(round < 9, way);
    }
    assert.equal(client.error, 'limit', way);
    const { excesses } = record(world);
    assert.equal(excesses.all.length, 1);
    const { budget, text: line } = excesses.all[0]!;
    // Each source keeps its last schema, and those of so many are more memory than one agent may have here.
    assert.deepEqual([round, budget], way === 'names of a source' ? [7, 'schemas'] : [8, 'series'], way);
    if (budget === 'series') assert.match(line, /^140000 new series within half an hour until .*, at most 131072 are/);
    assert.deepEqual(
      world.warnings.map(([key]) => key),
      ['limit a'],
    );
    assert.ok(world.warnings[0]![1].endsWith(line), world.warnings[0]![1]);
    other.send(pingOf(1));
    await settle();
    assert.equal(other.received.at(-1)?.kind, 'pong');
  }
  // A line that breaks all the time: the same series each time, once more of them.
  const world = new ConnectionHarness();
  for (let round = 1; round < 30; round++) {
    const client = await world.welcomed();
    client.begin(1);
    declareMany(client, 0, labelsOf(0));
    if (round > 15) client.schema(['one more']);
    client.key(round, world.clock.nowMs() + round, 1);
    await settle();
    assert.equal(client.error, undefined);
    assert.equal(record(world).churn.series, round > 15 ? 20_001 : 20_000);
    client.link.cut();
    await settle();
  }
});

test('a backlog in which series came and went is taken at once: what counts is when', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  const nowMs = world.clock.nowMs();
  for (let round = 1; round <= 12; round++) {
    client.begin(round);
    declareMany(
      client,
      0,
      Array.from({ length: 30_000 }, (_, at) => `${round}-${at}`),
    );
    // In a window of half an hour a part of it is too old, and counts for nothing.
    client.key(round, nowMs - (13 - round) * 10 * minuteMs, 1);
    await settle();
    assert.equal(client.error, undefined, `${round}`);
  }
});

test('what is not stored takes nothing of the budget of new series, and its time gives nothing back', async () => {
  const world = new ConnectionHarness();
  const client = await world.welcomed();
  let [round, seq, oldMs] = [1, 0, 1000];
  for (; client.error === undefined && round < 20; round++) {
    client.begin(1);
    declareMany(
      client,
      0,
      Array.from({ length: 40_000 }, (_, at) => `${round}-${at}`),
    );
    // Half an hour later by its own times, which are made up.
    oldMs += 32 * minuteMs;
    client.key(++seq, oldMs, 1);
    client.key(++seq, world.clock.nowMs() + round, 1);
    await settle();
  }
  assert.deepEqual([client.error, round], ['limit', 5]);
  assert.deepEqual(
    record(world).excesses.all.map(({ budget }) => budget),
    ['series'],
  );
  assert.equal(record(world).churn.series, 120_000);
  const honest = await world.welcomed({ agentName: 'other' });
  honest.begin(1);
  declareMany(
    honest,
    0,
    Array.from({ length: 40_000 }, (_, at) => `${at}`),
  );
  for (const minutes of [50, 40]) honest.key(61 - minutes, world.clock.nowMs() - minutes * minuteMs, 1);
  await settle();
  assert.equal(record(world, 'other').churn.series, 0, 'too old');
  honest.key(60, world.clock.nowMs() - 20 * minuteMs, 1);
  await settle();
  assert.equal(record(world, 'other').churn.series, 40_000, 'of a backlog, by its own time');
});

test('new names of sources in half an hour are bounded; the same again are not new', async () => {
  const world = new ConnectionHarness();
  /** The error of a connection that begins sources of these names. */
  const errorOf = async (from: number, to: number, times = 1) => {
    const client = await world.welcomed();
    client.begin();
    for (let time = 0; time < times; time++) {
      for (let name = from; name < to; name++) {
        client.begin(1, 0, { source: 1 + (name % 60), name: `source-${name}` });
      }
    }
    await settle();
    const { error } = client;
    client.link.cut();
    await settle();
    return error;
  };
  assert.equal(await errorOf(0, 64, 10), undefined);
  await world.clock.advance(29 * minuteMs);
  assert.equal(await errorOf(64, 128), undefined);
  const other = await world.welcomed({ agentName: 'other' });
  assert.equal(await errorOf(128, 129), 'limit');
  const [excess, ...more] = record(world).excesses.all;
  assert.deepEqual([excess?.budget, more.length], ['schemas', 0]);
  assert.equal(excess?.text, '129 new names of sources within half an hour, at most 128 are allowed');
  other.send(pingOf(1));
  await settle();
  assert.equal(other.received.at(-1)?.kind, 'pong');
  await world.clock.advance(3 * minuteMs);
  assert.equal(await errorOf(129, 130), undefined);
});

test('an agent whose frames take a tenth of the processor is named; one with little to say is not', async () => {
  const world = new ConnectionHarness();
  const other = await world.welcomed({ agentName: 'other' });
  const client = await world.welcomed();
  // Each frame of it takes 30 ms of a clock that stands still otherwise.
  let frames = 0;
  world.lookAtClock = () => {
    frames++;
  };
  const { monotonicMs } = world.clock;
  world.clock.monotonicMs = () => monotonicMs.call(world.clock) + frames * 30;
  client.begin();
  client.schema(['a']);
  for (let seq = 1; seq <= 50; seq++) client.key(seq, world.clock.nowMs() + seq, 1);
  await world.clock.advance(1000);
  other.send(pingOf(1));
  await settle();
  const [excess, ...more] = record(world).excesses.all;
  assert.deepEqual([excess?.budget, excess?.count, more.length], ['processor', 1, 0]);
  assert.match(excess!.text, /^its frames have taken 1\.\d s within 10\.0 s: others are served before it$/);
  assert.ok(record(world).frames.totalMs >= 1500);
  assert.deepEqual(record(world, 'other').excesses.all, []);
});
