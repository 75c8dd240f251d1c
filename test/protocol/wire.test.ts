import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Family, seriesValue } from '../../src/model/family.ts';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, ServerMessage } from '../../src/protocol/message.ts';
import { SchemaTable } from '../../src/protocol/schema-table.ts';
import { bytes, join } from '../support/messagepack.ts';
import { parseWireFixture, type RecordedFrame, wireFixtureText } from '../support/wire-fixture.ts';

const load: Family = {
  name: 'node_load1',
  type: 'gauge',
  help: '1m load average.',
  unit: '',
  divisor: 100,
  labelNames: [],
};
const cpu: Family = {
  name: 'node_cpu_seconds_total',
  type: 'counter',
  help: 'Seconds by mode.',
  unit: 'seconds',
  divisor: 100,
  labelNames: ['cpu', 'mode'],
};
const epoch = 5_124_095_576_030_431;

/** What the recorded connection says, frame by frame. */
const conversation: (AgentMessage | ServerMessage)[] = [
  { kind: 'hello', version: 1, agentName: 'web-1', hostId: '8f3c21', labels: [['rack', 'b7']], intervalMs: 5000 },
  { kind: 'welcome', version: 1, epochs: [], nowMs: 1_764_000_000_400 },
  { kind: 'begin', epoch, offsetMs: 0 },
  {
    kind: 'schema',
    families: [
      { family: load, seriesCount: 1, labelValues: [] },
      { family: cpu, seriesCount: 2, labelValues: ['0', 'idle', '0', 'user'] },
    ],
  },
  { kind: 'report', key: true, seq: 1, timeMs: 1_764_000_005_000, pairs: [0, 12, 0, 12_345_678, 0, 4500] },
  { kind: 'report', key: false, seq: 2, timeMs: 1_764_000_010_000, pairs: [1, 498, 0, 2] },
  { kind: 'report', key: false, seq: 3, timeMs: 1_764_000_015_000, pairs: [-1, null, 0, 499, 0, -4495] },
  { kind: 'ack', epoch, seq: 2 },
  { kind: 'report', key: false, seq: 4, timeMs: 1_764_000_020_000, pairs: [-1, Number.NaN] },
  { kind: 'schema', families: [{ family: cpu, seriesCount: 1, labelValues: ['1', 'idle'] }] },
  { kind: 'report', key: true, seq: 5, timeMs: 1_764_000_025_000, pairs: [1, 12_347_174, -1, null, 0, 9_876_543] },
  { kind: 'ping', nonce: 1 },
  { kind: 'pong', nonce: 1, nowMs: 1_764_000_035_100 },
  { kind: 'ack', epoch, seq: 5 },
  { kind: 'error', code: 'replaced', text: 'web-1 has dialled again' },
];

/** The values behind each report, in the order of the series. */
const values: (number | null)[][] = [
  [0.12, 123_456.78, 45],
  [0.12, 123_461.76, 45.02],
  [null, 123_466.75, 0.07],
  [Number.NaN, 123_466.75, 0.07],
  [0, 123_471.74, null, 98_765.43],
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
    table.apply(message);
    const { sums, present } = table.state;
    const now: (number | null)[] = [];
    for (const { family, firstSeries, seriesCount } of table.schema.blocks) {
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
