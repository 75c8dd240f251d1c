import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Family } from '../../src/model/family.ts';
import type { SeriesGroup } from '../../src/model/series.ts';
import {
  decodeAgentMessage,
  decodeServerMessage,
  encodeMessage,
  encodeSchema,
  writeBareReport,
} from '../../src/protocol/codec.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, ServerMessage } from '../../src/protocol/messages.ts';
import { beginOf, groupOf, pingOf } from '../support/groups.ts';
import { bytes, float64, integerForms, join, pack, uint64 } from '../support/messagepack.ts';
import { agentMessages, serverMessages, text } from '../support/messages.ts';

test('property: an agent message is decoded as it was encoded', () => {
  fc.assert(
    fc.property(agentMessages, (message) => {
      assert.deepEqual(decodeAgentMessage(encodeMessage(message)), withoutMinusZero(message));
    }),
    { numRuns: 1000 },
  );
});

test('property: a server message is decoded as it was encoded', () => {
  fc.assert(
    fc.property(serverMessages, (message) => {
      assert.deepEqual(decodeServerMessage(encodeMessage(message)), message);
    }),
    { numRuns: 500 },
  );
});

/** The sign of zero is not kept. */
function withoutMinusZero(message: AgentMessage): AgentMessage {
  if (message.kind !== 'report') return message;
  return { ...message, pairs: message.pairs.map((element) => (element === null ? null : element + 0)) };
}

test('property: strings of all lengths and scripts', () => {
  const long = fc.tuple(text(12), fc.constantFrom('', '\ufeff', '\ufeff\ufeff', '🙂'), fc.nat(120), text(12));
  fc.assert(
    fc.property(fc.array(long, { maxLength: 4 }), (parts) => {
      const values = parts.map(([a, b, count, c]) => b + a + 'x'.repeat(count) + c).concat('\ufeff'.repeat(30));
      const message = schemaOf(values);
      assert.deepEqual(decodeAgentMessage(encodeMessage(message)), message);
    }),
    { numRuns: 1000 },
  );
});

test('a byte order mark stays in front of strings of each length and form', () => {
  for (const length of [0, 1, 30, 60, 61, 62, 63, 64, 65, 200, 249, 250, 252, 253, 256, 500]) {
    const message = schemaOf([`\ufeff${'x'.repeat(length)}`, 'y', `\ufeff\ufeff${'z'.repeat(length)}`]);
    assert.deepEqual(decodeAgentMessage(encodeMessage(message)), message);
  }
});

test('half a surrogate pair becomes U+FFFD', () => {
  for (const count of [0, 100]) {
    const decoded = decodeAgentMessage(encodeMessage(schemaOf([`${'x'.repeat(count)}\ud800`])));
    assert.deepEqual(decoded, schemaOf([`${'x'.repeat(count)}\ufffd`]));
  }
});

function schemaOf(labelValues: readonly string[]): AgentMessage {
  return { kind: 'schema', source: 0, groups: [group('a', ['x'], labelValues)] };
}

function group(name: string, labelNames: readonly string[], labelValues: readonly string[]): SeriesGroup {
  return groupOf({ name, type: 'gauge', help: 'Help.', divisor: 1, labelNames }, labelValues);
}

test('each integer in each of its forms, and each double', () => {
  const integers = [0, 1, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];
  for (const value of [...integers, ...integers.map((integer) => -integer - 1)].filter(Number.isSafeInteger)) {
    for (const form of integerForms(value)) {
      const decoded = decodeAgentMessage(join(bytes(0x94, 6), form, bytes(0, 0)));
      assert.deepEqual(decoded, pingOf(value));
      const report = decodeAgentMessage(join(bytes(0x96, 5, 0, 1, 1), form, form));
      assert.deepEqual(report, { kind: 'report', key: true, source: 0, seq: 1, timeMs: 1, pairs: [value, value] });
    }
  }
});

test('-0 in a field is 0', () => {
  // Found by the fuzzer: deepEqual tells them apart, and so would a key made of an epoch and a number.
  const decoded = decodeAgentMessage(join(bytes(0x96, 5, 0, 1), float64(-0), bytes(0, 0)));
  assert.ok(decoded.kind === 'report' && Object.is(decoded.timeMs, 0));
});

test('a sum beyond 2^53 in the form of an integer is the nearest double', () => {
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n + 1025n, 2n ** 64n - 1n]) {
    const decoded = decodeAgentMessage(join(bytes(0x96, 5, 0, 1, 1, 0xff), uint64(value)));
    assert.deepEqual(decoded, { kind: 'report', key: true, source: 0, seq: 1, timeMs: 1, pairs: [-1, Number(value)] });
  }
});

test('a message is written in the shortest forms, as another writer has it', () => {
  const family: Family = { name: 'a', type: 'histogram', help: 'Help.', divisor: 1 };
  const message: AgentMessage = {
    kind: 'schema',
    source: 1,
    groups: [
      { family, suffix: '_bucket', labelNames: ['le'], seriesCount: 2, labelValues: ['1', '+Inf'] },
      { family, suffix: '_sum', labelNames: [], seriesCount: 1, labelValues: [] },
      ...[group('b', ['x'], ['1'])],
    ],
  };
  const families = [
    ['a', 'histogram', 'Help.', 1, ['_bucket', ['le'], 2, ['1', '+Inf']], ['_sum', [], 1, []]],
    ['b', 'gauge', 'Help.', 1, ['', ['x'], 1, ['1']]],
  ] as const;
  assert.deepEqual([...encodeMessage(message)], [...pack([3, 1, ...families])]);
  const report: AgentMessage = {
    kind: 'report',
    key: false,
    source: 2,
    seq: 300,
    timeMs: 1.7e12,
    pairs: [0, 5, -1, null, -1, 0.5],
  };
  assert.deepEqual([...encodeMessage(report)], [...pack([4, 2, 300, 1.7e12, 0, 5, -1, null, -1, 0.5])]);
  assert.deepEqual([...encodeMessage(pingOf(2 ** 40))], [...join(bytes(0x94, 6), float64(2 ** 40), bytes(0, 0))]);
});

test('what is encoded is in an array of its own', () => {
  const first = encodeMessage(pingOf(1));
  const copy = first.slice();
  for (let i = 0; i < 5000; i++) encodeMessage(pingOf(i));
  assert.deepEqual(first, copy);
  assert.equal(first.buffer.byteLength, first.length);
});

test('fields that a later version added are passed over', () => {
  const messages: [AgentMessage | ServerMessage, Uint8Array][] = [
    [beginOf({ epoch: 7, offsetMs: -3 }), pack([2, 7, 0, 'host', 5000, [], -3, 'more', [1]])],
    [pingOf(7), pack([6, 7, 0, 0, null])],
    [
      { kind: 'hello', version: 2, agentName: 'a', hostId: 'h', software: 's' },
      pack([1, 2, 'a', 'h', 's', ['x', true]]),
    ],
  ];
  for (const [message, payload] of messages) assert.deepEqual(decodeAgentMessage(payload), message);
  const toAgent: [ServerMessage, Uint8Array][] = [
    [{ kind: 'welcome', version: 1, epochs: [{ epoch: 7, seq: 0 }], nowMs: 5 }, pack([1, 1, [7, 0], 5, 'more'])],
    [{ kind: 'ack', epoch: 7, seq: 3 }, pack([2, 7, 3, 'more'])],
    [{ kind: 'error', code: 'new', text: 'x' }, pack([3, 'new', 'x', [[]]])],
    [{ kind: 'pong', nonce: 7, nowMs: 3 }, pack([4, 7, 3, 1.5])],
    [{ kind: 'refused', reason: 'x', count: 1, firstMs: 2, lastMs: 2, text: 'y' }, pack([5, 'x', 1, 2, 2, 'y', 0])],
  ];
  for (const [message, payload] of toAgent) assert.deepEqual(decodeServerMessage(payload), message);
});

test('the text of an error is cut, so that its frame keeps within the bound', () => {
  const payload = encodeMessage({ kind: 'error', code: 'bad-message', text: '€'.repeat(5000) });
  assert.ok(payload.length <= limits.agentBoundFrameBytesMax);
  const decoded = decodeServerMessage(payload);
  assert.ok(decoded.kind === 'error' && decoded.text === '€'.repeat(1000));
});

test('a big schema goes over several frames, and is the same behind them', () => {
  const texts = (count: number, bytesEach: number) =>
    Array.from({ length: count }, (_, i) => `${i}`.padEnd(bytesEach, '-'));
  const buckets: Family = { name: 'buckets', type: 'histogram', help: 'Help.', divisor: 1 };
  const groups: SeriesGroup[] = [
    group('none', [], []),
    group('few', ['x'], texts(3, 5)),
    group('long', ['x', 'y'], texts(1200, limits.stringBytesMax)),
    group('many', ['x'], texts(40_000, 6)),
    { family: buckets, suffix: '_bucket', labelNames: ['le'], seriesCount: 40_000, labelValues: texts(40_000, 6) },
    { family: buckets, suffix: '_sum', labelNames: [], seriesCount: 1, labelValues: [] },
    group('last', ['x'], texts(2, 31)),
  ];
  const payloads = encodeSchema(1, groups);
  assert.ok(payloads.length > 5);
  const joined = new Map<string, { seriesCount: number; labelValues: string[] }>();
  for (const payload of payloads) {
    const message = decodeAgentMessage(payload);
    assert.ok(message.kind === 'schema' && message.source === 1);
    for (const { family, suffix, seriesCount, labelValues } of message.groups) {
      const so = joined.get(family.name + suffix) ?? { seriesCount: 0, labelValues: [] };
      joined.set(family.name + suffix, {
        seriesCount: so.seriesCount + seriesCount,
        labelValues: so.labelValues.concat(labelValues),
      });
    }
  }
  const expected = groups.map(({ family, suffix, seriesCount, labelValues }) => {
    return [family.name + suffix, { seriesCount, labelValues }];
  });
  assert.deepEqual([...joined], expected);
  // All but the last are nearly full: a series of this schema is 2050 bytes at most.
  for (const payload of payloads.slice(0, -1)) assert.ok(payload.length > limits.schemaFrameBytesMax - 2200);
});

test('a schema of many empty values', () => {
  const wide = group(
    'wide',
    Array.from({ length: 30 }, (_, i) => `l${i}`),
    Array(30 * 10_000).fill(''),
  );
  const payloads = encodeSchema(0, [wide]);
  assert.equal(payloads.length, 19);
  for (const payload of payloads) assert.equal(decodeAgentMessage(payload).kind, 'schema');
});

test('what no schema frame can hold is the caller’s mistake', () => {
  const long = 'x'.repeat(limits.stringBytesMax + 1);
  assert.throws(() => encodeSchema(0, [group('a', ['x'], [long])]), RangeError);
  const wide = Array.from({ length: 300 }, (_, i) => `l${i}`);
  const values = wide.map(() => 'x'.repeat(limits.stringBytesMax));
  assert.throws(() => encodeSchema(0, [group('a', wide, values)]), /one series is more than a frame holds/);
});

test('property: a report without its place is decoded to the same pairs', () => {
  fc.assert(
    fc.property(agentMessages, (message) => {
      if (message.kind !== 'report') return;
      const bare = decodeAgentMessage(bareReport(encodeMessage(message)));
      assert.deepEqual(bare, withoutMinusZero({ ...message, source: 0, seq: 1, timeMs: 0 }));
    }),
    { numRuns: 2000 },
  );
  const long = { kind: 'report', key: true, source: 7, seq: 2 ** 40, timeMs: 1.7e12, pairs: [] } as const;
  for (const count of [0, 12, 14, 16, 65_536, 70_000]) {
    const message: AgentMessage = { ...long, pairs: Array<number>(count).fill(0) };
    const payload = encodeMessage(message);
    const bare = bareReport(payload);
    assert.equal(payload.length - bare.length, 16);
    assert.deepEqual(decodeAgentMessage(bare), { ...message, source: 0, seq: 1, timeMs: 0 });
  }
});

function bareReport(payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(payload.length + 7);
  return bytes.slice(7, writeBareReport(bytes, 7, payload));
}
