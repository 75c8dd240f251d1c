import { ProtocolError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { isoTime, plural, secondsText } from '../../runtime/words.ts';

/**
 * What one agent may cost. Beyond a budget only that agent suffers: it is refused, its own oldest reports are evicted, or
 * it waits. Whatever is held against it is counted by agent and budget, logged with its name, and shown.
 *
 *     frames ─▶ messages ─▶ schemas, series ─▶ reports ─▶ memory ─▶ answer
 *     processor   limits.ts   new ones in 30 min   a second   share    share
 */
export type Budget =
  /** What a frame, a begin or a schema may hold: the limits of the protocol, and those of the scrape job. */
  | 'messages'
  /** Memory of its schemas; new ones, and new names of sources, in half an hour. */
  | 'schemas'
  /** New series in half an hour. */
  | 'series'
  /** Reports a second, by their own times. */
  | 'reports'
  /** Its share of --memory-max. */
  | 'memory'
  /** Its share of a scraper's answer. */
  | 'answer'
  /** The time that its frames take. */
  | 'processor';

/** An agent is beyond a budget, and its connection ends. */
export class BudgetError extends ProtocolError {
  readonly budget: Budget;
  constructor(code: 'limit' | 'busy', budget: Budget, message: string) {
    super(code, message);
    this.budget = budget;
  }
}

/** How often something was held against an agent, and what it was the last time. */
export interface Excess {
  readonly budget: Budget;
  readonly count: number;
  readonly lastMs: number;
  readonly text: string;
}

/** What was held against one agent since the server's start, by budget. */
export class Excesses {
  readonly #all = new Map<Budget, Excess>();
  readonly #unlogged = new Map<Budget, number>();
  readonly #loggedAtMs = new Map<Budget, number>();

  /** Has to be logged: {@link takeUnlogged}. */
  add(budget: Budget, text: string, nowMs: number): void {
    this.count(budget, text, nowMs);
    this.#unlogged.set(budget, (this.#unlogged.get(budget) ?? 0) + 1);
  }

  /** Has been logged elsewhere. */
  count(budget: Budget, text: string, nowMs: number): void {
    const count = (this.#all.get(budget)?.count ?? 0) + 1;
    this.#all.set(budget, { budget, count, lastMs: nowMs, text });
  }

  get all(): readonly Excess[] {
    return [...this.#all.values()];
  }

  /** What has to be logged now, a line a minute for each budget. */
  takeUnlogged(monotonicMs: number): { readonly budget: Budget; readonly times: number; readonly text: string }[] {
    const due = [...this.#unlogged].filter(
      ([budget]) => monotonicMs - (this.#loggedAtMs.get(budget) ?? -Infinity) >= logEveryMs,
    );
    return due.map(([budget, times]) => {
      this.#unlogged.delete(budget);
      this.#loggedAtMs.set(budget, monotonicMs);
      return { budget, times, text: this.#all.get(budget)!.text };
    });
  }
}

const logEveryMs = 60_000;

/** A line for the log. */
export function excessText(
  name: string,
  { budget, times, text }: { readonly budget: Budget; readonly times: number; readonly text: string },
): string {
  const often = times === 1 ? '' : ` (${plural(times, 'time')} since the last such line)`;
  return `agent '${name}' is over its budget of ${budget}: ${text}${often}`;
}

/**
 * New series and schemas of one agent in half an hour of its own time, so that a backlog with its changes is taken at
 * once: what counts is how often they changed when they were made. A database keeps each new series for hours. And new
 * names of sources in half an hour of the server's time: each has a window, positions and a pace of its own.
 */
export class ChurnBudget {
  readonly #series = new RecentSum();
  readonly #schemas = new RecentSum();
  readonly #sources = new RecentSum();

  /** Series in the last half hour. */
  get series(): number {
    return this.#series.sum;
  }

  /**
   * A report of this time, which will be stored, is the first with a new schema, or with so many new series. Throws a
   * BudgetError. The times of other reports count for nothing: with made-up ones the half hour would be over at once.
   */
  take({ series, isNewSchema, timeMs }: NewSeries): void {
    const seriesSum = this.#series.sumAt(timeMs) + series;
    if (seriesSum > recentSeriesMax) {
      throw new BudgetError(
        'limit',
        'series',
        `${seriesSum} new series within half an hour until ${isoTime(timeMs)}, at most ${recentSeriesMax} are allowed: ` +
          'disable the collector whose label values change all the time',
      );
    }
    const schemasSum = this.#schemas.sumAt(timeMs) + (isNewSchema ? 1 : 0);
    if (schemasSum > recentSchemasMax) {
      throw new BudgetError(
        'limit',
        'schemas',
        `${schemasSum} new schemas within half an hour until ${isoTime(timeMs)}, at most ${recentSchemasMax} are allowed`,
      );
    }
    this.#series.add(timeMs, series);
    this.#schemas.add(timeMs, isNewSchema ? 1 : 0);
  }

  /** A source of a name that is not known is begun, now on the monotonic clock. Throws a BudgetError. */
  takeSource(monotonicMs: number): void {
    const sourcesSum = this.#sources.sumAt(monotonicMs) + 1;
    if (sourcesSum > recentSourcesMax) {
      throw new BudgetError(
        'limit',
        'schemas',
        `${sourcesSum} new names of sources within half an hour, at most ${recentSourcesMax} are allowed`,
      );
    }
    this.#sources.add(monotonicMs, 1);
  }

  /** The wall clock was set: times before and after cannot be compared. */
  clear(): void {
    this.#series.clear();
    this.#schemas.clear();
  }
}

export interface NewSeries {
  readonly series: number;
  readonly isNewSchema: boolean;
  /** Of the report. */
  readonly timeMs: number;
}

const recentMs = 30 * 60_000;
const recentSeriesMax = 2 * limits.seriesMax;
// After the server's start each of 64 sources has a new one, and a new name.
const recentSchemasMax = 2 * limits.sourcesMax;
const recentSourcesMax = 2 * limits.sourcesMax;

/** The sum of what was added of late, by minutes. */
class RecentSum {
  readonly #slices: { readonly fromMs: number; sum: number }[] = [];
  sum = 0;

  sumAt(timeMs: number): number {
    for (let first = this.#slices[0]; first !== undefined && first.fromMs + sliceMs <= timeMs - recentMs; ) {
      this.sum -= first.sum;
      this.#slices.shift();
      first = this.#slices[0];
    }
    return this.sum;
  }

  add(timeMs: number, count: number): void {
    if (count === 0) return;
    this.sum += count;
    const last = this.#slices.at(-1);
    // What comes late, of another source, counts as of now.
    if (last !== undefined && timeMs < last.fromMs + sliceMs) last.sum += count;
    else this.#slices.push({ fromMs: timeMs, sum: count });
  }

  clear(): void {
    this.#slices.length = 0;
    this.sum = 0;
  }
}

const sliceMs = 60_000;

/**
 * Reports of one source a second, by their own times: a backlog comes as fast as the line allows, and an agent that makes
 * more reports than any schedule may has those refused. Not by the interval of the source, which for a cron expression is
 * its longest pause.
 */
export class ReportPace {
  #left = burstReports;
  #lastMs = -Infinity;

  /** Whether a report of this time is within the budget. Times rise. */
  take(timeMs: number): boolean {
    const sinceMs = this.#lastMs === -Infinity ? Infinity : Math.max(0, timeMs - this.#lastMs);
    this.#left = Math.min(burstReports, this.#left + sinceMs / limits.intervalMsMin);
    this.#lastMs = timeMs;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }

  /** The wall clock was set. */
  clear(): void {
    this.#lastMs = -Infinity;
  }
}

/**
 * The time that the frames of one agent take. The scheduler serves others first in any case; whoever takes a tenth of the
 * processor for ten seconds is named.
 */
export class FramesTime {
  totalMs = 0;
  #spanFromMs = -Infinity;
  #spanMs = 0;
  #isNamed = false;

  /** So much was taken, up to now on the monotonic clock. Returns what to say of it where that is too much, once. */
  add(ms: number, monotonicMs: number): string | undefined {
    this.totalMs += ms;
    if (monotonicMs - this.#spanFromMs >= framesSpanMs) {
      this.#spanFromMs = monotonicMs;
      this.#spanMs = 0;
      this.#isNamed = false;
    }
    this.#spanMs += ms;
    if (this.#spanMs < framesMsMax || this.#isNamed) return undefined;
    this.#isNamed = true;
    return `its frames have taken ${secondsText(this.#spanMs)} within ${secondsText(framesSpanMs)}: others are served before it`;
  }
}

const framesSpanMs = 10_000;
// As much as 50 000 reports of 500 series.
const framesMsMax = framesSpanMs / 10;

export const reportsASecondMax = 1000 / limits.intervalMsMin;
// Timestamps are put right once an epoch, and a clock may be slewed.
const burstReports = 60;

/**
 * How `--memory-max` is divided. Windows leave an eighth to schemas, so that an agent that connects evicts nobody's reports.
 */
export class MemoryShares {
  readonly #bytesMax: number;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** What windows and schemas may take together when a report has come. */
  reportsBytesMax(schemaBytes: number): number {
    return this.#bytesMax - Math.max(0, this.#bytesMax / 8 - schemaBytes);
  }

  /** Beyond it an agent's own oldest reports are evicted first. */
  shareBytes(agentCount: number): number {
    return Math.max(this.#bytesMax / Math.max(1, agentCount), Math.min(shareBytesLeast, this.#bytesMax / 4));
  }

  /** Of the schemas of one agent: half of the eighth, or what a host of 36 000 series needs. */
  get schemaBytesMax(): number {
    return Math.max(this.#bytesMax / 16, shareBytesLeast);
  }
}

// Two hours of a host of 500 series at 5 s, or the schema of the largest host.
const shareBytesLeast = 4 * 1024 * 1024;
