import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decimalsOf, numberBytesMax, writeNumber, writeQuotient } from '../../../src/server/exposition/numbers.ts';

const bytes = Buffer.alloc(64);
const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** What a function writes. The place before and the place behind it must stay as they were. */
function written(write: (at: number) => number): string {
  bytes.fill(0xee);
  const end = write(3);
  assert.ok(end - 3 <= numberBytesMax, `${end - 3} bytes were written`);
  assert.ok(bytes.subarray(0, 3).every((byte) => byte === 0xee));
  assert.ok(bytes.subarray(end).every((byte) => byte === 0xee));
  return bytes.toString('latin1', 3, end);
}

const textOfNumber = (value: number) => written((at) => writeNumber(view, at, value));
const textOfQuotient = (sum: number, divisor: number) =>
  written((at) => writeQuotient(view, at, sum, divisor, decimalsOf(divisor)));

function assertShortest(text: string, value: number): void {
  assert.equal(text, String(value));
  // -0 is printed as 0: the wire does not keep the sign either.
  assert.ok(Object.is(Number(text), value === 0 ? 0 : value));
}

test('a number is printed as String() prints it, and reads back as the same double', () => {
  const doubles = fc.double({ noNaN: true, noDefaultInfinity: true });
  fc.assert(
    fc.property(doubles, (value) => assertShortest(textOfNumber(value), value)),
    { numRuns: 20_000 },
  );
});

test('so is one with any bits', () => {
  const bits = new DataView(new ArrayBuffer(8));
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (pattern) => {
      bits.setBigUint64(0, pattern);
      const value = bits.getFloat64(0);
      fc.pre(Number.isFinite(value));
      assertShortest(textOfNumber(value), value);
    }),
    { numRuns: 20_000 },
  );
});

test('so are whole numbers beside every power of ten and of two', () => {
  const edges = [
    ...Array.from({ length: 23 }, (_, exponent) => 10 ** exponent),
    ...Array.from({ length: 80 }, (_, exponent) => 2 ** exponent),
    ...Array.from({ length: 40 }, (_, step) => (9_007_180 + step) * 1e9),
    ...Array.from({ length: 40 }, (_, step) => (8_388_590 + step) * 1e9),
  ];
  for (const edge of edges) {
    for (const value of [edge - 2, edge - 1, edge, edge + 1, edge + 2]) {
      assertShortest(textOfNumber(value), value);
      assertShortest(textOfNumber(-value), -value);
    }
  }
  assert.equal(textOfNumber(-0), '0');
});

test('so are decimals of every length, and those a little beside them', () => {
  const decimals = fc.record({
    scaled: fc.oneof(fc.maxSafeInteger(), fc.integer(), fc.integer({ min: -1000, max: 1000 })),
    decimals: fc.integer({ min: 1, max: 17 }),
    ulps: fc.integer({ min: -2, max: 2 }),
  });
  fc.assert(
    fc.property(decimals, ({ scaled, decimals, ulps }) => {
      const value = besides(scaled / 10 ** decimals, ulps);
      assertShortest(textOfNumber(value), value);
    }),
    { numRuns: 20_000 },
  );
});

test('a sum over a divisor is printed as the double that the division gives', () => {
  const sums = fc.oneof(
    fc.maxSafeInteger(),
    fc.integer({ min: -20_000, max: 20_000 }),
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    // Around the most digits for which the decimal fraction is taken as it is.
    fc.integer({ min: -50, max: 50 }).map((step) => 1e15 + step),
  );
  const powers = fc.integer({ min: 0, max: 9 }).map((exponent) => 10 ** exponent);
  const divisors = fc.oneof(powers, fc.constantFrom(2, 3, 128, 1024, 2 ** 31), fc.integer({ min: 1, max: 2 ** 31 }));
  fc.assert(
    fc.property(sums, divisors, (sum, divisor) => assertShortest(textOfQuotient(sum, divisor), sum / divisor)),
    { numRuns: 40_000 },
  );
});

test('small decimals go over to an exponent where String() does', () => {
  for (let sum = -1100; sum <= 1100; sum++) {
    for (const divisor of [1e6, 1e7, 1e8, 1e9]) assertShortest(textOfQuotient(sum, divisor), sum / divisor);
  }
  assert.equal(textOfQuotient(1, 1e6), '0.000001');
  assert.equal(textOfQuotient(999, 1e9), '9.99e-7');
});

test('what is no number is printed as Prometheus writes it', () => {
  assert.equal(textOfNumber(Number.NaN), 'NaN');
  assert.equal(textOfNumber(Infinity), '+Inf');
  assert.equal(textOfNumber(-Infinity), '-Inf');
  assert.equal(textOfQuotient(Number.NaN, 100), 'NaN');
  assert.equal(textOfQuotient(Infinity, 100), '+Inf');
  assert.equal(textOfQuotient(-Infinity, 1000), '-Inf');
  assert.equal(textOfQuotient(-Infinity, 3), '-Inf');
});

test('the longest texts fit', () => {
  for (const value of [-Number.MIN_VALUE, -Number.MAX_VALUE, -2.2250738585072014e-308, -1.1234567890123457e-7]) {
    assertShortest(textOfNumber(value), value);
  }
  // The longest without an exponent.
  assertShortest(textOfNumber(-(2 ** 69)), -(2 ** 69));
  const longest = besides(-0.000001, 3);
  assert.equal(String(longest).length, numberBytesMax);
  assertShortest(textOfNumber(longest), longest);
});

test('the powers of ten are the divisors whose decimals are known', () => {
  assert.deepEqual([1, 10, 100, 1e9].map(decimalsOf), [0, 1, 2, 9]);
  assert.deepEqual([2, 20, 1024, 1e10, 2 ** 31].map(decimalsOf), [-1, -1, -1, -1, -1]);
});

/** The double that is so many steps away from this one. */
function besides(value: number, ulps: number): number {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  bits.setBigInt64(0, bits.getBigInt64(0) + BigInt(ulps));
  const moved = bits.getFloat64(0);
  return Number.isFinite(moved) ? moved : value;
}
