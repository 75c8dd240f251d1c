import { test } from 'node:test';
import { assertFuzzed } from './fuzzed.ts';

const count = 300_000;

test(`${count} spoilt connections are read or refused, and nothing else happens`, { timeout: 600_000 }, (context) => {
  assertFuzzed(context, count);
});
