import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { SeriesGroup } from '../../src/model/series.ts';
import { decodeServerMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import { type AgentMessage, protocolVersion, type ServerMessage } from '../../src/protocol/messages.ts';
import { beginOf, groupOf } from '../support/groups.ts';
import { eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';

// One that speaks the protocol for its host and for a program on it: to the server as it is shipped, and a Prometheus.

const agent = 'web-1';
const load: SeriesGroup = groupOf({ ...family('node_load1', 'gauge'), labelNames: [] });
const seconds = family('redis_seconds', 'histogram');
const latency = family('redis_latency_seconds', 'summary');
const programs: SeriesGroup[] = [
  groupOf({ ...seconds, labelNames: ['le'] }, ['0.1', '+Inf'], '_bucket'),
  groupOf({ ...seconds, labelNames: [] }, [], '_sum'),
  groupOf({ ...seconds, labelNames: [] }, [], '_count'),
  groupOf({ ...latency, labelNames: ['quantile'] }, ['0.5']),
  groupOf({ ...latency, labelNames: [] }, [], '_sum'),
  groupOf({ ...latency, labelNames: [] }, [], '_count'),
];

test('two sources of one agent come to Prometheus', { skip: prometheusSkip, timeout: 120_000 }, async (context) => {
  const server = await ServerProgram.start(context);
  const prometheus = await Prometheus.start(context, { target: server.webPort, scrapeInterval: '1s' });
  const connection = open(context, server.port);
  connection.send(
    { kind: 'hello', version: protocolVersion, agentName: agent, hostId: 'a', software: 'test 1' },
    ...[beginOf({ epoch: 7, intervalMs: 1000 }), { kind: 'schema', source: 0, groups: [load] } as const],
    beginOf({ epoch: 7, source: 1, name: 'redis', intervalMs: 2000, labels: [['tier', 'db']] }),
  );
  for (const payload of encodeSchema(1, programs)) connection.write(payload);
  const timeMs = Date.now();
  connection.send(
    { kind: 'report', key: true, source: 0, seq: 1, timeMs, pairs: [0, 150] },
    {
      kind: 'report',
      key: true,
      source: 1,
      seq: 2,
      timeMs: timeMs + 1,
      pairs: [0, 3, 0, 4, -1, 0.5, 0, 4, -1, 0.25, -1, 1.5, 0, 4],
    },
    { kind: 'report', key: false, source: 1, seq: 3, timeMs: timeMs + 2, pairs: [1, 1, -1, 2.5, 0, 1] },
    { kind: 'report', key: false, source: 0, seq: 4, timeMs: timeMs + 3, pairs: [0, -50] },
  );
  const last = { kind: 'ack', epoch: 7, seq: 4 };
  await eventually(30_000, () => {
    const shown = JSON.stringify(connection.received);
    assert.deepEqual(connection.received.filter(({ kind }) => kind === 'ack').at(-1), last, shown);
  });
  assert.ok(connection.received.every(({ kind }) => kind === 'welcome' || kind === 'ack'));

  const points = (atMs: readonly number[], ...values: number[]) => new Map(atMs.map((ms, at) => [ms, values[at]!]));
  const times = [timeMs + 1, timeMs + 2];
  const series = (name: string, labels = '') => `${name}{agent="${agent}",${labels}source="redis",tier="db"}`;
  const expected = new Map([
    [`node_load1{agent="${agent}"}`, points([timeMs, timeMs + 3], 150, 100)],
    [series('redis_seconds_bucket', 'le="0.1",'), points(times, 3, 3)],
    [series('redis_seconds_bucket', 'le="+Inf",'), points(times, 4, 5)],
    [series('redis_seconds_sum'), points(times, 0.5, 2.5)],
    [series('redis_seconds_count'), points(times, 4, 5)],
    [series('redis_latency_seconds', 'quantile="0.5",'), points(times, 0.25, 0.25)],
    [series('redis_latency_seconds_sum'), points(times, 1.5, 1.5)],
    [series('redis_latency_seconds_count'), points(times, 4, 4)],
  ]);
  const stored = await prometheus.agentSamples();
  for (const [name, each] of expected) assert.deepEqual(stored.get(name), each, `${name} in ${[...stored.keys()]}`);
  assert.equal(stored.size, expected.size);

  const metadata = await prometheus.api<Record<string, readonly { type: string }[]>>('metadata');
  const types = ['redis_seconds', 'redis_latency_seconds'].map((name) => metadata[name]?.[0]?.type);
  assert.deepEqual(types, ['histogram', 'summary']);
  const up = [...(await prometheus.raw('sysmon_agent_up')).keys()].sort();
  assert.deepEqual(up, [`sysmon_agent_up{agent="${agent}"}`, series('sysmon_agent_up')].sort());
  assert.deepEqual(prometheus.warnings, []);
});

function family(name: string, type: SeriesGroup['family']['type']): SeriesGroup['family'] {
  return { name, type, help: `Help of ${name}.`, divisor: 1 };
}

function open(context: TestContext, port: number) {
  const received: ServerMessage[] = [];
  const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
  const socket = connect(port, '127.0.0.1');
  context.after(() => socket.destroy());
  socket.on('data', (chunk) => {
    for (const payload of decoder.push(chunk)) received.push(decodeServerMessage(payload));
  });
  const write = (payload: Uint8Array) => void socket.write(encodeFrame(payload));
  const send = (...messages: readonly AgentMessage[]) => messages.map(encodeMessage).forEach(write);
  return { received, write, send };
}
