import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Family, seriesValue } from '../../src/model/family.ts';
import type { SeriesGroup } from '../../src/model/series.ts';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, ServerMessage } from '../../src/protocol/messages.ts';
import { SchemaTable } from '../../src/protocol/schema-table.ts';
import { beginOf } from '../support/groups.ts';
import { bytes, join } from '../support/messagepack.ts';
import { parseWireFixture, type RecordedFrame, wireFixtureText } from '../support/wire-fixture.ts';

const load: Family = { name: 'node_load1', type: 'gauge', help: '1m load average.', divisor: 100 };
const cpu: Family = { name: 'node_cpu_seconds_total', type: 'counter', help: 'Seconds by mode.', divisor: 100 };
const redis: Family = { name: 'redis_seconds', type: 'histogram', help: 'Time of a command.', divisor: 1 };

const loadGroup: SeriesGroup = { family: load, suffix: '', labelNames: [], seriesCount: 1, labelValues: [] };
const cpuGroup = (seriesCount: number, ...labelValues: string[]): SeriesGroup => {
  return { family: cpu, suffix: '', labelNames: ['cpu', 'mode'], seriesCount, labelValues };
};
const redisGroup = (suffix: string, ...le: string[]): SeriesGroup => {
  const labelNames = le.length === 0 ? [] : ['le'];
  return { family: redis, suffix, labelNames, seriesCount: Math.max(1, le.length), labelValues: le };
};

const [epochBefore, epoch] = [3_300_000_000_000_001, 5_124_095_576_030_431];
const hourMs = 3_600_000;
const startMs = 1_764_000_000_000;
const beforeMs = startMs - hourMs - 60_000;

function report(key: boolean, source: number, seq: number, timeMs: number, ...pairs: (number | null)[]): AgentMessage {
  return { kind: 'report', key, source, seq, timeMs, pairs };
}

/** What the recorded connection says, frame by frame. */
const conversation: (AgentMessage | ServerMessage)[] = [
  { kind: 'hello', version: 1, agentName: 'web-1', hostId: '8f3c21', software: 'sysmon-agent 0.1.0' },
  { kind: 'welcome', version: 1, epochs: [{ epoch: epochBefore, seq: 3 }], nowMs: startMs + 400 },
  beginOf({ epoch: epochBefore, labels: [['rack', 'a1']], offsetMs: hourMs }),
  { kind: 'schema', source: 0, groups: [loadGroup] },
  report(true, 0, 2, beforeMs, 0, 50),
  report(false, 0, 3, beforeMs + 5000),
  report(false, 0, 4, beforeMs + 10_000, 0, -2),
  beginOf({ epoch, labels: [['rack', 'b7']] }),
  { kind: 'schema', source: 0, groups: [loadGroup, cpuGroup(2, '0', 'idle', '0', 'user')] },
  report(true, 0, 1, startMs + 5000, 0, 12, 0, 12_345_678, 0, 4500),
  beginOf({ epoch, source: 1, name: 'redis', intervalMs: 15_000 }),
  {
    kind: 'schema',
    source: 1,
    groups: [redisGroup('_bucket', '0.1', '+Inf'), redisGroup('_sum'), redisGroup('_count')],
  },
  report(true, 1, 2, startMs + 6000, 0, 7, 0, 9, -1, 1.25, 0, 9),
  report(false, 0, 3, startMs + 10_000, 1, 498, 0, 2),
  report(false, 0, 4, startMs + 15_000, -1, null, 0, 499, 0, -4495),
  { kind: 'ack', epoch, seq: 3 },
  report(false, 0, 5, startMs + 20_000, -1, Number.NaN),
  { kind: 'schema', source: 0, groups: [cpuGroup(1, '1', 'idle')] },
  report(true, 0, 6, startMs + 25_000, 1, 12_347_174, -1, null, 0, 9_876_543),
  report(false, 1, 7, startMs + 21_000, 0, 1, 0, 1, -1, 1.5, 0, 1),
  { kind: 'ping', nonce: 1, spoolReports: 5, droppedReports: 300 },
  { kind: 'pong', nonce: 1, nowMs: startMs + 35_100 },
  {
    ...{ kind: 'refused', reason: 'too_old', count: 1, firstMs: startMs - 50_000, lastMs: startMs - 50_000 },
    text: 'older than the window of 30m',
  },
  { kind: 'ack', epoch, seq: 7 },
  { kind: 'error', code: 'replaced', text: 'web-1 has dialled again' },
];

/** The values behind each report, in the order of the series. */
const values: (number | null)[][] = [
  [0.5],
  [0.5],
  [0.48],
  [0.12, 123_456.78, 45],
  [7, 9, 1.25, 9],
  [0.12, 123_461.76, 45.02],
  [null, 123_466.75, 0.07],
  [Number.NaN, 123_466.75, 0.07],
  [0, 123_471.74, null, 98_765.43],
  [8, 10, 1.5, 10],
];

const frames = parseWireFixture(wireFixtureText);

function decode({ from }: RecordedFrame, payload: Uint8Array): AgentMessage | ServerMessage {
  return from === 'agent' ? decodeAgentMessage(payload) : decodeServerMessage(payload);
}

function payloadsOf(chunks: Iterable<Uint8Array>, payloadBytesMax: number): Uint8Array[] {
  const decoder = new FrameDecoder({ payloadBytesMax });
  const payloads: Uint8Array[] = [];
  for (const chunk of chunks) for (const payload of decoder.push(chunk)) payloads.push(payload.slice());
  decoder.end();
  return payloads;
}

test('the recorded connection is what our encoder sends, byte for byte', () => {
  assert.equal(frames.length, conversation.length);
  for (const [i, { title, frame }] of frames.entries()) {
    assert.deepEqual([...encodeFrame(encodeMessage(conversation[i]!))], [...frame], title);
  }
});

test('the recorded connection is decoded to what it says', () => {
  for (const [i, recorded] of frames.entries()) {
    const [payload] = payloadsOf([recorded.frame], limits.reportFrameBytesMax);
    assert.deepEqual(decode(recorded, payload!), conversation[i], recorded.title);
  }
});

test('its reports carry the values that their titles name', () => {
  const table = new SchemaTable();
  const seen: (number | null)[][] = [];
  for (const recorded of frames) {
    const payload = recorded.frame.subarray(4);
    const message = decode(recorded, payload);
    if (message.kind === 'begin') table.begin(message);
    if (message.kind === 'schema') table.declare(message, payload.length);
    if (message.kind !== 'report') continue;
    const source = table.apply(message);
    const { sums, present } = source.state;
    const now: (number | null)[] = [];
    for (const { family, firstSeries, seriesCount } of source.schema.blocks) {
      for (let i = firstSeries; i < firstSeries + seriesCount; i++) {
        now.push(present[i] === 0 ? null : seriesValue(sums[i]!, family.divisor));
      }
    }
    seen.push(now);
  }
  assert.deepEqual(seen, values);
});

for (const from of ['agent', 'server'] as const) {
  const sent = frames.filter((frame) => frame.from === from);
  const stream = join(...sent.map(({ frame }) => frame));
  const payloads = sent.map(({ frame }) => frame.slice(4));
  const bytesMax = from === 'agent' ? limits.reportFrameBytesMax : limits.agentBoundFrameBytesMax;

  test(`what the ${from} sends, cut at each byte and byte by byte`, () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      assert.deepEqual(payloadsOf([stream.slice(0, cut), stream.slice(cut)], bytesMax), payloads);
    }
    assert.deepEqual(
      payloadsOf(
        Array.from(stream, (byte) => bytes(byte)),
        bytesMax,
      ),
      payloads,
    );
  });
}

test('the specification shows this very connection', () => {
  const readme = readFileSync(new URL('../../../src/protocol/README.md', import.meta.url), 'utf8');
  const shown = /^```wire\n([\s\S]*?)^```$/m.exec(readme)?.[1];
  assert.equal(shown, wireFixtureText);
});

test('the specification has each limit as the program has it', () => {
  const readme = readFileSync(new URL('../../../src/protocol/README.md', import.meta.url), 'utf8');
  const rows = new Map<string, number>();
  for (const [, name, number] of readme.matchAll(/^\| `(\w+)` +\| ([\d ]+?) +\|/gm))
    rows.set(name!, Number(number!.replaceAll(' ', '')));
  assert.deepEqual(Object.fromEntries(rows), limits);
});
