import type { ScheduledTask } from 'node-cron';
import { limits } from '../../protocol/limits.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { duration } from '../../runtime/options.ts';
import { reasonOf } from '../../runtime/words.ts';

/** Instants of the wall clock, the same on all hosts. */
export interface Schedule {
  /** The longest time from one instant to the next: what a server may expect. */
  readonly intervalMs: number;
  /** The first instant after this one. */
  nextAfter(nowMs: number): number;
}

/**
 * Reads the value of `--schedule`: a duration, or a cron expression. Only the latter loads node-cron, which costs 8 to
 * 13 MiB. Throws an Error for what is neither, whose message begins with `expected`.
 */
export async function loadSchedule(text: string): Promise<Schedule> {
  return isCron(text) ? await loadCron(text) : every(parseInterval(text));
}

/** An expression has fields, or one of the nicknames, as `@hourly`. */
function isCron(text: string): boolean {
  return /\s/.test(text.trim()) || text.startsWith('@');
}

const dayMs = 86_400_000;

function parseInterval(text: string): number {
  try {
    return duration({ minMs: limits.intervalMsMin, maxMs: dayMs })(text);
  } catch (error) {
    const reason = reasonOf(error);
    throw new Error(`${reason}, or a cron expression with seconds such as '*/5 * * * * *'`, { cause: error });
  }
}

/** The multiples of an interval since 1970: with 5 s, the instants :00, :05, :10. */
export function every(intervalMs: number): Schedule {
  return { intervalMs, nextAfter: (nowMs) => (Math.floor(nowMs / intervalMs) + 1) * intervalMs };
}

async function loadCron(expression: string): Promise<Schedule> {
  const cron = await import('node-cron');
  const { fields, errors } = cron.validateDetailed(expression);
  if (fields === undefined) {
    const reasons = errors.map(({ message }) => message).join('; ');
    throw new Error(`expected a cron expression with seconds such as '*/5 * * * * *', or a duration: ${reasons}`);
  }
  // In a zone with summer time one hour a year is missing, and one is ambiguous.
  const task = cron.createTask(expression, () => {}, { timezone: 'UTC' });
  const isEveryDay = [fields.dayOfMonth.length === 31, fields.month.length === 12, fields.dayOfWeek.length === 7];
  const times = new TimesOfDay(fields.hour, fields.minute, fields.second);
  return new CronSchedule(times, isEveryDay.every(Boolean) ? undefined : task);
}

/**
 * node-cron parses the expression. It does not run the timer: its own skips an instant that is a second late, and after
 * a suspend, or when a clock that started in 1970 is set, it goes through every instant in between, for hours.
 */
class CronSchedule implements Schedule {
  readonly intervalMs: number;
  readonly #times: TimesOfDay;
  /** Undefined where each day is like the others. */
  readonly #task: ScheduledTask | undefined;
  #lastDay = Number.NaN;
  #lastDayMatches = false;

  constructor(times: TimesOfDay, task: ScheduledTask | undefined) {
    this.#times = times;
    this.#task = task;
    this.intervalMs = this.#longestGap();
  }

  nextAfter(nowMs: number): number {
    let day = Math.floor(nowMs / dayMs);
    if (this.#isOn(day)) {
      const time = this.#times.after(nowMs - day * dayMs);
      if (time !== undefined) return day * dayMs + time;
    }
    const last = day + daysSearched;
    do day++;
    while (!this.#isOn(day) && day < last);
    return day * dayMs + this.#times.first;
  }

  #isOn(day: number): boolean {
    if (this.#task === undefined) return true;
    // Matching a day costs a call of ICU, and every tick matches the same day.
    if (day !== this.#lastDay) {
      this.#lastDay = day;
      this.#lastDayMatches = this.#task.match(new Date(day * dayMs + this.#times.first));
    }
    return this.#lastDayMatches;
  }

  #longestGap(): number {
    const overnight = dayMs - this.#times.last + this.#times.first;
    if (this.#task === undefined) return Math.max(this.#times.longestGap, overnight);
    let daysApart = 0;
    let before: number | undefined;
    for (let day = firstDaySearched; day < firstDaySearched + daysSearched; day++) {
      if (!this.#isOn(day)) continue;
      if (before !== undefined) daysApart = Math.max(daysApart, day - before);
      before = day;
    }
    if (daysApart === 0) throw new Error('expected a cron expression that comes at least every four years');
    return Math.max(this.#times.longestGap, overnight + (daysApart - 1) * dayMs);
  }
}

// 1 January 2000. Nine years have two gaps between leap days, so that a 29 February is seen at both ends.
const firstDaySearched = Date.UTC(2000, 0, 1) / dayMs;
const daysSearched = 9 * 366;

/** Milliseconds of a day, each combination of an hour, a minute and a second. */
class TimesOfDay {
  readonly first: number;
  readonly last: number;
  readonly longestGap: number;
  /** Seconds of the day, ascending. */
  readonly #seconds: Uint32Array;

  constructor(hours: readonly number[], minutes: readonly number[], seconds: readonly number[]) {
    const all = hours.flatMap((hour) => minutes.flatMap((minute) => seconds.map((s) => (hour * 60 + minute) * 60 + s)));
    this.#seconds = Uint32Array.from(new Set(all)).sort();
    this.first = this.#seconds[0]! * 1000;
    this.last = this.#seconds.at(-1)! * 1000;
    let longest = 0;
    for (let at = 1; at < this.#seconds.length; at++) {
      longest = Math.max(longest, this.#seconds[at]! - this.#seconds[at - 1]!);
    }
    this.longestGap = longest * 1000;
  }

  after(ms: number): number | undefined {
    let low = 0;
    let high = this.#seconds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#seconds[middle]! * 1000 <= ms) low = middle + 1;
      else high = middle;
    }
    const second = this.#seconds[low];
    return second === undefined ? undefined : second * 1000;
  }
}

export interface RunScheduleOptions {
  readonly schedule: Schedule;
  readonly clock: Clock;
  readonly counters: { ticksSkipped: number; ticksLate: number };
  /** A tick that is due before the promise resolves is skipped and counted. */
  readonly tick: () => void | Promise<void>;
}

/**
 * Calls `tick` at the instants of the schedule until it is stopped. After a suspend, a stopped process or a step of the
 * clock there is one tick for all that were missed; it is counted as late.
 */
export function runSchedule({ schedule, clock, counters, tick }: RunScheduleOptions): { stop(): void } {
  const lateMsMin = Math.min(schedule.intervalMs / 2, lateMsMax);
  let timer: Timer;
  let isRunning = false;
  let targetMs = schedule.nextAfter(clock.nowMs());
  const wait = () => {
    timer = clock.after(Math.min(Math.max(0, targetMs - clock.nowMs()), wakeMsMax), wake);
  };
  const wake = () => {
    const nowMs = clock.nowMs();
    if (nowMs + earlyMsMax >= targetMs) {
      if (nowMs - targetMs > lateMsMin) counters.ticksLate++;
      run();
      targetMs = schedule.nextAfter(Math.max(nowMs, targetMs));
    } else {
      // The timer was shortened, or the clock was set back: the next instant is earlier than the one waited for.
      targetMs = Math.min(targetMs, schedule.nextAfter(nowMs));
    }
    wait();
  };
  const run = () => {
    if (isRunning) {
      counters.ticksSkipped++;
      return;
    }
    const running = tick();
    if (running === undefined) return;
    isRunning = true;
    // A tick that fails is a bug: it ends the program as an unhandled rejection.
    void running.finally(() => {
      isRunning = false;
    });
  };
  wait();
  return { stop: () => timer.cancel() };
}

// A timer counts monotonic time, and may fire a little before that instant of the wall clock.
const earlyMsMax = 20;
// A tick that is later than this, or than half an interval, is counted as late.
const lateMsMax = 1000;
// How long it can take to notice that the clock was set.
const wakeMsMax = 60_000;
