import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootClock, ClockWatch } from '../../src/runtime/clock.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

test('boot time is the monotonic clock and the suspends; an uptime of whole seconds does not disturb it', async () => {
  const clock = new VirtualClock();
  let asleepMs = 0;
  let reads = 0;
  const boot = bootClock(clock, () => {
    reads++;
    return Math.floor((clock.monotonicMs() + 777_300 + asleepMs) / 1000) * 1000;
  });
  const start = boot.bootMs();
  for (let step = 0; step < 50; step++) {
    await clock.advance(137);
    assert.equal(boot.bootMs() - start, clock.monotonicMs());
  }
  assert.equal(reads, 1, 'the uptime is not read where no time is missing');
  for (const stepMs of [7_200_000, -86_400_000, 700, -400]) {
    clock.step(stepMs);
    assert.equal(boot.bootMs() - start, clock.monotonicMs(), 'a clock that was set is no suspend');
  }
  for (const [sleepMs, stepMs] of [
    [3_600_000, 0],
    [60_000, -7_200_000],
    [1000, 0],
    [2000, 0],
  ] as const) {
    asleepMs += sleepMs;
    clock.step(sleepMs + stepMs);
    await clock.advance(137);
    const gained = boot.bootMs() - start - clock.monotonicMs();
    assert.ok(Math.abs(gained - asleepMs) <= 1000, `${gained} of ${asleepMs}`);
  }
});

test('a watch tells by how much the clock was set, once, and not that time has passed', async () => {
  const clock = new VirtualClock();
  const watch = new ClockWatch({ clock, boot: bootClock(clock, () => clock.monotonicMs()), stepMsMin: 2000 });
  await clock.advance(86_400_000);
  assert.equal(watch.look(), 0);
  for (const stepMs of [-7_200_000, 2001, 3_600_000, -2001]) {
    clock.step(stepMs);
    assert.equal(watch.look(), stepMs);
    await clock.advance(1000);
    assert.equal(watch.look(), 0);
  }
});

test('small steps count together, as far as they have the same direction', () => {
  const clock = new VirtualClock();
  const watch = new ClockWatch({ clock, boot: bootClock(clock, () => clock.monotonicMs()), stepMsMin: 2000 });
  const steps = [1500, -1500, 1500, 500, 500].map((stepMs) => {
    clock.step(stepMs);
    return watch.look();
  });
  assert.deepEqual(steps, [0, 0, 0, 0, 2500]);
});

test('a suspend is no step, and a clock that was set in one is', () => {
  const clock = new VirtualClock();
  let asleepMs = 0;
  const boot = bootClock(clock, () => clock.monotonicMs() + asleepMs);
  const watch = new ClockWatch({ clock, boot, stepMsMin: 2000 });
  asleepMs += 3_600_000;
  clock.step(3_600_000);
  assert.equal(watch.look(), 0);
  asleepMs += 3_600_000;
  clock.step(3_600_000 + 60_000);
  assert.equal(watch.look(), 60_000);
  assert.equal(watch.look(), 0);
});
