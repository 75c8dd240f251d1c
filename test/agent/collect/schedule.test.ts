import assert from 'node:assert/strict';
import { test } from 'node:test';
import { every, loadSchedule, runSchedule, type Schedule } from '../../../src/agent/collect/schedule.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const start = Date.UTC(2026, 0, 1, 0, 0, 2);

interface Run {
  readonly clock: VirtualClock;
  readonly counters: { ticksSkipped: number; ticksLate: number };
  /** Seconds since the start of 2026. */
  readonly ticks: number[];
  stop(): void;
}

function run(schedule: Schedule, tick: () => void | Promise<void> = () => {}, nowMs = start): Run {
  const clock = new VirtualClock(nowMs);
  const counters = { ticksSkipped: 0, ticksLate: 0 };
  const ticks: number[] = [];
  const { stop } = runSchedule({
    schedule,
    clock,
    counters,
    tick() {
      ticks.push((clock.nowMs() - Date.UTC(2026, 0, 1)) / 1000);
      return tick();
    },
  });
  return { clock, counters, ticks, stop };
}

test('a duration ticks at its multiples of the wall clock', async () => {
  const { clock, ticks, stop } = run(await loadSchedule('5s'));
  await clock.advance(13_000);
  assert.deepEqual(ticks, [5, 10, 15]);
  stop();
  assert.equal(clock.timers, 0);
  await clock.advance(60_000);
  assert.equal(ticks.length, 3);
});

test('a timer that fires early is one tick all the same', async () => {
  const { clock, ticks } = run(every(5000));
  const { after } = VirtualClock.prototype;
  clock.after = (ms, callback) => after.call(clock, Math.max(0, ms - 3), callback);
  await clock.advance(30_000);
  assert.deepEqual(ticks.map(Math.round), [5, 10, 15, 20, 25, 30]);
});

test('a tick that finds the last one running is skipped and counted', async () => {
  let finish = () => {};
  const { clock, counters, ticks } = run(every(5000), () => new Promise((resolve) => (finish = resolve)));
  await clock.advance(14_000);
  assert.deepEqual(ticks, [5]);
  assert.equal(counters.ticksSkipped, 2);
  finish();
  await clock.advance(5000);
  assert.deepEqual(ticks, [5, 20]);
  assert.equal(counters.ticksSkipped, 2);
});

test('a tick that is late by more than half an interval or a second is counted, and comes once', async () => {
  for (const [intervalMs, lateMs, count] of [
    [5000, 1000, 0],
    [5000, 1001, 1],
    [500, 250, 0],
    [500, 251, 1],
  ] as const) {
    const { clock, counters, ticks } = run(every(intervalMs), () => {}, 0);
    // A process that was stopped, or had no CPU: its timers fire when it runs again.
    const { after } = VirtualClock.prototype;
    clock.after = (ms, callback) => after.call(clock, ms + (ticks.length === 1 ? lateMs : 0), callback);
    await clock.advance(intervalMs * 4 + lateMs);
    assert.equal(ticks.length, 4);
    assert.equal(counters.ticksLate, count, `${lateMs} ms late at ${intervalMs} ms`);
    assert.equal(counters.ticksSkipped, 0);
  }
});

for (const text of ['5s', '*/5 * * * * *']) {
  test(`after a suspend there is one tick, and not one for each that was missed: ${text}`, async () => {
    const { clock, ticks, counters } = run(await loadSchedule(text));
    await clock.advance(4000);
    clock.step(3_600_000 + 1500);
    await clock.advance(8000);
    // The timer of second 10 fires when the clock is already an hour further.
    assert.deepEqual(ticks, [5, 3611.5, 3615]);
    assert.equal(counters.ticksSkipped, 0);
    assert.equal(counters.ticksLate, 1);
  });

  test(`a clock that is set back by hours is followed within a minute: ${text}`, async () => {
    const { clock, ticks } = run(await loadSchedule(text));
    await clock.advance(4000);
    clock.step(-86_400_000);
    await clock.advance(60_000);
    const after = ticks.slice(1).map((second) => second + 86_400);
    assert.equal(ticks[0], 5);
    assert.deepEqual(after.slice(0, 3), [15, 20, 25]);
  });

  test(`a clock of 1970 that is set to the present is followed at once: ${text}`, async () => {
    const { clock, ticks } = run(await loadSchedule(text), () => {}, 1000);
    await clock.advance(5000);
    clock.step(start);
    await clock.advance(10_000);
    assert.equal(ticks.length, 3);
  });
}

test('a clock that is set back while an instant is far away is noticed within a minute', async () => {
  const { clock, ticks } = run(await loadSchedule('0 0 * * * *'));
  await clock.advance(60_000);
  clock.step(-1_800_000 - 3_600_000);
  await clock.advance(3_600_000);
  assert.deepEqual(ticks, [-3600]);
});

/** The next instants after the start of 2026, as ISO without year and milliseconds. */
async function nextTimes(expression: string, count: number): Promise<string[]> {
  const schedule = await loadSchedule(expression);
  const times: string[] = [];
  let nowMs = Date.UTC(2026, 0, 1);
  for (let at = 0; at < count; at++) {
    nowMs = schedule.nextAfter(nowMs);
    times.push(new Date(nowMs).toISOString().slice(2, 19));
  }
  return times;
}

for (const [expression, times] of [
  ['*/20 * * * * *', ['26-01-01T00:00:20', '26-01-01T00:00:40', '26-01-01T00:01:00']],
  [
    '5,10-12 30 23 * * *',
    ['26-01-01T23:30:05', '26-01-01T23:30:10', '26-01-01T23:30:11', '26-01-01T23:30:12', '26-01-02T23:30:05'],
  ],
  ['*/15 * * * *', ['26-01-01T00:15:00', '26-01-01T00:30:00']],
  ['@hourly', ['26-01-01T01:00:00', '26-01-01T02:00:00']],
  ['0 0 12 * * mon', ['26-01-05T12:00:00', '26-01-12T12:00:00']],
  ['0 0 0 29 2 *', ['28-02-29T00:00:00', '32-02-29T00:00:00']],
  ['0 0 0 L * *', ['26-01-31T00:00:00', '26-02-28T00:00:00']],
  ['59 59 23 31 12 *', ['26-12-31T23:59:59', '27-12-31T23:59:59']],
] as const) {
  test(`cron: ${expression}`, async () => {
    assert.deepEqual(await nextTimes(expression, times.length), [...times]);
  });
}

const hour = 3_600_000;
for (const [text, intervalMs] of [
  ['100ms', 100],
  ['5s', 5000],
  ['1m30s', 90_000],
  ['24h', 24 * hour],
  ['*/5 * * * * *', 5000],
  ['*/7 * * * * *', 7000],
  ['0,50 * * * * *', 50_000],
  ['0 * * * *', hour],
  ['0 0 8-18 * * *', 14 * hour],
  ['0 0 12 * * mon-fri', 3 * 24 * hour],
  ['0 0 0 1 * *', 31 * 24 * hour],
  ['0 0 0 29 2 *', (4 * 365 + 1) * 24 * hour],
] as const) {
  test(`the longest gap of '${text}'`, async () => {
    assert.equal((await loadSchedule(text)).intervalMs, intervalMs);
  });
}

for (const [text, message] of [
  ['', /^expected a duration such as .*, or a cron expression/],
  ['5', /^expected a duration/],
  ['soon', /^expected a duration/],
  ['99ms', /^expected a duration of at least 100ms, or a cron/],
  ['25h', /^expected a duration of at most 1d, or a cron/],
  ['* * *', /^expected a cron expression.*: expected 5 or 6 fields but got 3/],
  ['61 * * * * *', /^expected a cron expression.*61 is a invalid expression for second/],
  ['*/0 * * * * *', /^expected a cron expression/],
  ['0 0 0 31 2 *', /^expected a cron expression.*impossible day of month/],
  ['0 0 0 29 2 1#1', /^expected a cron expression that comes at least every four years/],
  ['@reboot', /^expected a cron expression/],
  ['nonsense of a kind', /^expected a cron expression/],
] as const) {
  test(`refused: '${text}'`, async () => {
    await assert.rejects(loadSchedule(text), { message });
  });
}
