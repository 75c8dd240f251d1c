import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertFuzzed } from './fuzzed.ts';
import { fuzzWire } from './wire.ts';

const count = 25_000;

test(`${count} spoilt connections are read or refused, and nothing else happens`, (context) => {
  assertFuzzed(context, count);
});

test('the same seed gives the same inputs', () => {
  const once = fuzzWire({ seed: 'same', first: 5, count: 200 }).outcomes;
  assert.deepEqual(fuzzWire({ seed: 'same', first: 5, count: 200 }).outcomes, once);
});
