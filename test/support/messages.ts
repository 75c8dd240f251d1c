import fc from 'fast-check';
import { metricTypes } from '../../src/model/family.ts';
import { type SeriesGroup, suffixesOf } from '../../src/model/series.ts';
import type { AgentMessage, ServerMessage } from '../../src/protocol/messages.ts';

const safeInteger = fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -40, max: 300 }));
const count = fc.oneof(fc.maxSafeNat(), fc.nat(70_000));
const positive = count.map((value) => Math.max(1, value));
const sum = fc.oneof(safeInteger, fc.double(), fc.constantFrom(2 ** 53, 2 ** 64, Infinity, -Infinity, Number.NaN));

/** Plain objects: a prototype of null is not what a decoder makes. */
function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

/** Any text that has a UTF-8: no half of a surrogate pair. */
export function text(maxLength: number): fc.Arbitrary<string> {
  return fc.oneof(fc.string({ maxLength }), fc.string({ unit: 'binary', maxLength }));
}

const labelName = fc
  .stringMatching(/^[a-zA-Z][a-zA-Z0-9_]{0,10}$/)
  .filter((name) => name !== 'agent' && name !== 'source');

const group: fc.Arbitrary<SeriesGroup> = record({
  family: record({
    name: fc.stringMatching(/^[a-z_]{1,40}$/),
    type: fc.constantFrom(...metricTypes),
    help: text(200),
    divisor: fc.constantFrom(1, 2, 100, 1000, 1024, 2 ** 31),
  }),
  suffixAt: fc.nat(2),
  labelNames: fc.uniqueArray(labelName, { maxLength: 3 }),
  seriesCount: fc.integer({ min: 1, max: 5 }),
}).chain(({ suffixAt, ...start }) => {
  const suffixes = suffixesOf(start.family.type);
  const { suffix } = suffixes[suffixAt % suffixes.length]!;
  const length = start.seriesCount * start.labelNames.length;
  const labelValues = fc.array(text(40), { minLength: length, maxLength: length });
  return labelValues.map((values) => ({ ...start, suffix, labelValues: values }));
});

const pair = fc.oneof(fc.tuple(safeInteger, safeInteger), fc.tuple(safeInteger, fc.option(sum)));

/** Each as its kind may be; what it says need not make sense. */
export const agentMessages: fc.Arbitrary<AgentMessage> = fc.oneof(
  record({
    kind: fc.constant('hello' as const),
    version: positive,
    agentName: fc.stringMatching(/^[A-Za-z0-9._-]{1,128}$/),
    hostId: text(16).filter((id) => id !== ''),
    software: text(16).filter((software) => software !== ''),
  }),
  fc
    .oneof(
      fc.constant({ source: 0, name: 'host' }),
      record({
        source: positive,
        name: fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/).filter((name) => name !== 'host'),
      }),
    )
    .chain((source) =>
      record({
        kind: fc.constant('begin' as const),
        epoch: count,
        source: fc.constant(source.source),
        name: fc.constant(source.name),
        intervalMs: fc.oneof(fc.integer({ min: 100, max: 2 ** 33 }), fc.constant(100)),
        labels: fc.uniqueArray(fc.tuple(labelName, text(5)), { maxLength: 32, selector: ([name]) => name }),
        offsetMs: safeInteger,
      }),
    ),
  record({
    kind: fc.constant('schema' as const),
    source: count,
    groups: fc.array(group, { maxLength: 5 }),
  }),
  record({
    kind: fc.constant('report' as const),
    key: fc.boolean(),
    source: count,
    seq: positive,
    timeMs: count,
    pairs: fc.array(pair, { maxLength: 50 }).map((pairs) => pairs.flat()),
  }),
  record({ kind: fc.constant('ping' as const), nonce: safeInteger, spoolReports: count, droppedReports: count }),
  record({ kind: fc.constant('unknown' as const), number: fc.integer({ min: 7, max: 1e9 }) }),
);

export const serverMessages: fc.Arbitrary<ServerMessage> = fc.oneof(
  record({
    kind: fc.constant('welcome' as const),
    version: positive,
    epochs: fc.array(record({ epoch: count, seq: count }), { maxLength: 20 }),
    nowMs: count,
  }),
  record({ kind: fc.constant('ack' as const), epoch: count, seq: count }),
  record({ kind: fc.constant('error' as const), code: text(20), text: text(200) }),
  record({ kind: fc.constant('pong' as const), nonce: safeInteger, nowMs: count }),
  record({
    kind: fc.constant('refused' as const),
    reason: text(20),
    count: positive,
    firstMs: safeInteger,
    lastMs: safeInteger,
    text: text(200),
  }),
  record({ kind: fc.constant('unknown' as const), number: fc.integer({ min: 6, max: 1e9 }) }),
);
