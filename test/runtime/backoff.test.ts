import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffMs } from '../../src/runtime/backoff.ts';

const options = { baseMs: 500, maxMs: 30_000 };

test('the ceiling doubles with each failure up to its maximum', () => {
  const ceilings = [0, 1, 2, 5, 6, 7, 50, 5000].map((failures) => backoffMs(failures, options, () => 1));
  assert.deepEqual(ceilings, [500, 1000, 2000, 16_000, 30_000, 30_000, 30_000, 30_000]);
});

test('full jitter: from nothing to the ceiling', () => {
  assert.equal(
    backoffMs(3, options, () => 0),
    0,
  );
  assert.equal(
    backoffMs(3, options, () => 0.25),
    1000,
  );
});
