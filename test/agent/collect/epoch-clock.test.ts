import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EpochClock } from '../../../src/agent/collect/epoch-clock.ts';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { Spool } from '../../../src/agent/spool/spool.ts';
import { bootClock } from '../../../src/runtime/clock.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { hostSource } from '../../support/recordings.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

function newTimes(random = () => 0.5, suspendedMs = () => 0) {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const counters = newAgentCounters();
  const bounds = { bytesMax: 1024 ** 2, ageMsMax: 86_400_000 };
  const spool = new Spool({ clock, counters, bounds, source: hostSource, servers: [] });
  const boot = bootClock(clock, () => clock.monotonicMs() + suspendedMs());
  return { clock, log, counters, spool, times: new EpochClock({ clock, boot, spool, counters, log, random }) };
}

test('times are those of the wall clock at the start, carried on by the monotonic clock, up to 2 s apart', async () => {
  const { clock, times, counters, spool } = newTimes();
  const start = clock.nowMs();
  assert.equal(times.stamp(), start);
  const first = spool.epoch;
  for (const step of [500, 1500, -2000, -2000]) {
    clock.step(step);
    await clock.advance(1000);
    assert.equal(times.stamp(), start + clock.monotonicMs());
  }
  assert.equal(spool.epoch, first);
  assert.equal(counters.clockSteps, 0);
});

test('a step of more than 2 s either way begins an epoch with the wall clock as it is', async () => {
  for (const step of [2001, -2001, 86_400_000, -86_400_000]) {
    const { clock, times, counters, spool, log } = newTimes();
    times.stamp();
    const first = spool.epoch;
    await clock.advance(1000);
    clock.step(step);
    assert.equal(times.stamp(), clock.nowMs());
    assert.notEqual(spool.epoch, first);
    assert.equal(counters.clockSteps, 1);
    assert.equal(log.lines.length, 1);
    assert.match(
      log.lines[0]!,
      /^warn: the clock of this host was set (forwards|back) by \d+\.\d s; beginning a new epoch with it$/,
    );
  }
});

test('a suspend begins an epoch too, but nobody has set the clock', async () => {
  let asleepMs = 0;
  const { clock, times, counters, spool, log } = newTimes(undefined, () => asleepMs);
  times.stamp();
  const first = spool.epoch!;
  await clock.advance(1000);
  asleepMs = 3_600_000;
  clock.step(asleepMs);
  assert.equal(times.stamp(), clock.nowMs());
  assert.notEqual(spool.epoch, first);
  assert.equal(spool.epoch!.baseMs, first.baseMs, 'against boot time the clock has not moved');
  assert.equal(counters.clockSteps, 0);
  assert.deepEqual(log.lines, []);
});

test('a new epoch can be asked for: the next report begins it', async () => {
  const { clock, times, spool, counters } = newTimes();
  times.stamp();
  const first = spool.epoch;
  times.renew();
  assert.equal(spool.epoch, first);
  await clock.advance(1000);
  assert.equal(times.stamp(), clock.nowMs());
  assert.notEqual(spool.epoch, first);
  assert.equal(counters.clockSteps, 0);
});

test('an epoch is named by 53 random bits', () => {
  const names = [0, 2 ** -53, 0.25, 1 - 2 ** -53].map((random) => {
    const { times, spool } = newTimes(() => random);
    times.stamp();
    return spool.epoch!.id;
  });
  assert.deepEqual(names, [0, 1, 2 ** 51, 2 ** 53 - 1]);
  assert.ok(names.every(Number.isSafeInteger));
});
