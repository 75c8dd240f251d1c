import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReaderWatch } from '../../../src/server/web/reader-watch.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const kib = 1024;

/** Passes the time second by second while a reader takes so much each. Gives the second in which it was given up. */
async function stalledAfter(
  takenASecond: (second: number) => number,
  { seconds = 300, isWaitedFor = true } = {},
): Promise<number | undefined> {
  const clock = new VirtualClock();
  let sentBytes = 0;
  let stalled: number | undefined;
  let second = 0;
  const watch = new ReaderWatch({
    clock,
    sentBytes: () => sentBytes,
    onSlow: () => {},
    onStalled: () => {
      stalled = second;
    },
  });
  watch.isWaitedFor = isWaitedFor;
  for (second = 1; second <= seconds && stalled === undefined; second++) {
    sentBytes += takenASecond(second);
    await clock.advance(1000);
  }
  watch.stop();
  assert.equal(clock.timers, 0);
  return stalled;
}

test('a reader takes 64 KiB a second on average, after 15 s of patience', async () => {
  assert.equal(await stalledAfter(() => 0), 16);
  assert.equal(await stalledAfter(() => 32 * kib), 31);
  assert.equal(await stalledAfter(() => 64 * kib), undefined);
  assert.equal(await stalledAfter((second) => (second % 10 === 0 ? 640 * kib : 0)), undefined, 'in spurts');
  assert.equal(await stalledAfter((second) => (second < 100 ? 1024 * kib : 0)), 115, 'haste earns no more patience');
});

test('what we have not made yet is not the fault of the reader', async () => {
  assert.equal(await stalledAfter(() => 0, { isWaitedFor: false }), undefined);
});

test('a second in which little was taken is slow, where the reader is waited for', async () => {
  const clock = new VirtualClock();
  let sentBytes = 0;
  let slow = 0;
  const watch = new ReaderWatch({ clock, sentBytes: () => sentBytes, onSlow: () => slow++, onStalled: () => {} });
  await clock.advance(2000);
  assert.equal(slow, 0);
  watch.isWaitedFor = true;
  sentBytes += 64 * kib;
  await clock.advance(1000);
  assert.equal(slow, 0);
  await clock.advance(1000);
  assert.equal(slow, 1);
  watch.stop();
});
