import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { Refusals } from '../../../src/agent/uplink/refusals.ts';

test('refusals add up by reason; the words are those of the last one, and an unknown reason is another', () => {
  const { reportsRefused } = newAgentCounters();
  const refusals = new Refusals(reportsRefused);
  refusals.add({ reason: 'too_old', count: 3, firstMs: 10, lastMs: 30, text: 'older than the window of 30m' });
  refusals.add({ reason: 'too_old', count: 1, firstMs: 5, lastMs: 5, text: 'older than the window of 1h' });
  refusals.add({ reason: 'toString', count: 2, firstMs: 1, lastMs: 2, text: 'of a later version' });
  assert.deepEqual(refusals.all, [
    { reason: 'too_old', text: 'older than the window of 1h', count: 4, firstMs: 5, lastMs: 30 },
    { reason: 'other', text: 'of a later version', count: 2, firstMs: 1, lastMs: 2 },
  ]);
  assert.deepEqual(reportsRefused, { too_old: 4, not_newer: 0, server_bug: 0, server_clock: 0, other: 2 });
});
