import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Sums } from '../../src/model/report.ts';
import { decodeAgentMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { applyPairs, encodeDelta, encodeKey } from '../../src/protocol/delta.ts';
import { ProtocolError } from '../../src/protocol/errors.ts';
import type { Pairs } from '../../src/protocol/messages.ts';

/** A value for each series, null where it is absent. */
type Values = readonly (number | null)[];

function sumsOf(values: Values): Sums {
  return {
    sums: Float64Array.from(values, (value) => value ?? 0),
    present: Uint8Array.from(values, (value) => (value === null ? 0 : 1)),
  };
}

function valuesOf({ sums, present }: Sums, count = sums.length): Values {
  return Array.from({ length: count }, (_, i) => (present[i] === 0 ? null : sums[i]!));
}

/** -0 may become 0. */
function withoutMinusZero(values: Values): Values {
  return values.map((value) => (value === null ? null : value + 0));
}

/** Over the wire and back, bytes and all. */
function sent(key: boolean, pairs: Pairs): Pairs {
  const message = decodeAgentMessage(encodeMessage({ kind: 'report', key, source: 0, seq: 1, timeMs: 0, pairs }));
  assert.ok(message.kind === 'report' && message.key === key);
  return message.pairs;
}

function assertTravels(reports: readonly Values[]): void {
  const count = reports[0]?.length ?? 0;
  // A few more than there are series: they must not be touched.
  const state: Sums = { sums: new Float64Array(count + 2).fill(9), present: new Uint8Array(count + 2).fill(9) };
  let before: Sums | undefined;
  for (const values of reports) {
    const next = sumsOf(values);
    const pairs = before === undefined ? encodeKey(next) : encodeDelta(before, next);
    applyPairs(state, count, before === undefined, sent(before === undefined, pairs));
    assert.deepEqual(withoutMinusZero(valuesOf(state, count)), withoutMinusZero(values));
    assert.deepEqual([...state.sums.slice(count), ...state.present.slice(count)], [9, 9, 9, 9]);
    // The sums of absent series are 0 on both sides, or the next difference would be wrong.
    for (let i = 0; i < count; i++) if (state.present[i] === 0) assert.equal(state.sums[i], 0);
    before = next;
  }
}

const odd = [0, -0, 1, -1, 0.1, 1 / 3, 1e-320, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 53 + 2, 2 ** 64, 1.7e308];
const oddValues: Values = [...odd, ...odd.map((value) => -value), Number.NaN, Infinity, -Infinity, null, 4e-10, 12.34];

test('each odd value travels after each other', () => {
  assertTravels([oddValues, ...oddValues.map((value) => oddValues.map(() => value))]);
  for (let by = 1; by < oddValues.length; by++) {
    const turned = oddValues.map((_, i) => oddValues[(i + by) % oddValues.length]!);
    assertTravels([oddValues, turned, oddValues]);
  }
});

test('property: what is applied is what was sampled', () => {
  const value = fc.oneof(
    { weight: 3, arbitrary: fc.maxSafeNat() },
    { weight: 2, arbitrary: fc.double() },
    { weight: 2, arbitrary: fc.constantFrom(...oddValues) },
    { weight: 2, arbitrary: fc.nat(1000) },
  );
  const history = fc.nat(40).chain((count) => {
    const report = fc.array(value, { minLength: count, maxLength: count });
    return fc.array(report, { minLength: 1, maxLength: 6 });
  });
  fc.assert(fc.property(history, assertTravels), { numRuns: 500 });
});

test('property: counters that rise, stand still and reset', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.constant(0) },
    { weight: 5, arbitrary: fc.nat(100_000) },
    { weight: 1, arbitrary: fc.constant(-1) }, // a reset
    { weight: 1, arbitrary: fc.constant(-2) }, // gone for a while
  );
  const history = fc.tuple(fc.integer({ min: 1, max: 30 }), fc.array(fc.array(step, { minLength: 30, maxLength: 30 })));
  fc.assert(
    fc.property(history, ([count, steps]) => {
      let values: Values = Array.from({ length: count }, (_, i) => i * 1e6);
      const reports = [values];
      for (const by of steps) {
        values = values.map((value, i) => (by[i] === -2 ? null : by[i] === -1 ? 0 : (value ?? 0) + by[i]!));
        reports.push(values);
      }
      assertTravels(reports);
    }),
  );
});

test('nothing changed is no pair; a key of zeros is none either', () => {
  const values: Values = [1, null, Number.NaN, 0, -0, Infinity];
  assert.deepEqual(encodeDelta(sumsOf(values), sumsOf(values)), []);
  assert.deepEqual(encodeDelta(sumsOf([0]), sumsOf([-0])), []);
  assert.deepEqual(encodeKey(sumsOf([0, 0, -0])), []);
});

test('pairs as they stand', () => {
  // Two that stay, one up by 5, one down by 7, one absent, one set because no difference gives it, one back at 0.
  const before = sumsOf([1, 2, 3, 10, 4, 0.1, null]);
  const next = sumsOf([1, 2, 8, 3, null, 0.3, 0]);
  assert.deepEqual(encodeDelta(before, next), [2, 5, 0, -7, -1, null, -1, 0.3, 0, 0]);
  assert.deepEqual(encodeKey(sumsOf([0, 0, null, 2 ** 64, 7, null])), [-3, null, -1, 2 ** 64, 0, 7, -1, null]);
});

test('a difference that the receiver would not add up exactly is sent as a sum', () => {
  // 2^53 + 2 less 1 is 2^53 + 1, which no double is: rounded to even the difference is 2^53, and 1 + 2^53 is 2^53.
  assert.deepEqual(encodeDelta(sumsOf([1]), sumsOf([2 ** 53 + 2])), [-1, 2 ** 53 + 2]);
  assert.deepEqual(encodeDelta(sumsOf([0.1]), sumsOf([0.3])), [-1, 0.3]);
  assert.deepEqual(encodeDelta(sumsOf([0.5]), sumsOf([1.5])), [0, 1]);
});

test('sums of another number of series are a mistake of the caller', () => {
  assert.throws(() => encodeDelta(sumsOf([1]), sumsOf([1, 2])), RangeError);
});

test('a key makes every series present with sum 0 first', () => {
  const state = sumsOf([5, null, 7]);
  applyPairs(state, 3, true, [1, 4]);
  assert.deepEqual(valuesOf(state), [0, 4, 0]);
});

test('any pair makes a series present, also one that adds nothing', () => {
  const state = sumsOf([null, null]);
  applyPairs(state, 2, false, [0, 0, -1, 0]);
  assert.deepEqual(valuesOf(state), [0, 0]);
});

const refusals: [what: string, pairs: unknown[]][] = [
  ['an odd number of elements', [0]],
  ['past the last series', [3, 1]],
  ['past the last series, absolute', [-4, 1]],
  ['past the last series by the second pair', [2, 1, 0, 1]],
  ['far past', [Number.MAX_SAFE_INTEGER, 1]],
  ['far past, absolute', [Number.MIN_SAFE_INTEGER, 1]],
  ['nil behind a skip of 0', [0, null]],
  ['nil as skip', [null, 1]],
  ['half a skip', [0.5, 1]],
  ['half a negative skip', [-1.5, 1]],
  ['NaN as skip', [Number.NaN, 1]],
  ['an infinite skip', [-Infinity, 1]],
  ['half a delta', [0, 0.5]],
  ['a delta of 2^53', [0, 2 ** 53]],
  ['NaN as delta', [0, Number.NaN]],
  ['a boolean', [0, true]],
];
for (const [what, pairs] of refusals) {
  test(`pairs are refused: ${what}`, () => {
    assert.throws(() => applyPairs(sumsOf([1, 2, 3]), 3, false, pairs as Pairs), isBadMessage);
  });
}

test('the last series is within reach', () => {
  for (const pairs of [
    [2, 1],
    [-3, 1],
    [-3, null],
  ]) {
    applyPairs(sumsOf([1, 2, 3]), 3, false, pairs);
  }
});

function isBadMessage(error: unknown): boolean {
  return error instanceof ProtocolError && error.code === 'bad-message';
}
