import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from './virtual-clock.ts';

test('timers fire in the order of time, then of being set, each with what follows from it', async () => {
  const clock = new VirtualClock(1000);
  const seen: string[] = [];
  const note = (what: string) => seen.push(`${what} at ${clock.monotonicMs()}`);
  clock.after(20, () => note('b'));
  clock.after(10, async () => {
    note('a');
    await null;
    clock.after(5, () => note('set by a'));
  });
  clock.after(20, () => note('c'));
  clock.after(31, () => note('too late'));
  clock.after(1, () => note('cancelled')).cancel();
  await clock.advance(30);
  assert.deepEqual(seen, ['a at 10', 'set by a at 15', 'b at 20', 'c at 20']);
  assert.equal(clock.monotonicMs(), 30);
  assert.equal(clock.nowMs(), 1030);
  assert.equal(clock.timers, 1);
  assert.equal(clock.nextMs, 1);
});

test('a sleep ends with its time or its signal and leaves no timer', async () => {
  const clock = new VirtualClock();
  const abort = new AbortController();
  let ended = 0;
  void clock.sleep(10).then(() => ended++);
  void clock.sleep(10_000, abort.signal).then(() => ended++);
  void clock.sleep(10_000, AbortSignal.abort()).then(() => ended++);
  await clock.advance(0);
  assert.equal(ended, 1);
  await clock.advance(10);
  assert.equal(ended, 2);
  abort.abort();
  await clock.advance(0);
  assert.equal(ended, 3);
  assert.equal(clock.timers, 0);
});

test('a step moves the wall clock alone', async () => {
  const clock = new VirtualClock(5000);
  clock.step(-3000);
  assert.equal(clock.nowMs(), 2000);
  assert.equal(clock.monotonicMs(), 0);
});
