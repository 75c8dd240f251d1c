import { bytesText, durationText, isoTime, plural } from '../../runtime/words.ts';
import { reportsASecondMax } from './budget.ts';

/** Refused: not newer than the newest that is stored, older than the window, or more than its agent may make. */
export const refusedReasons = ['not_newer', 'too_old', 'too_many'] as const;
export type RefusedReason = (typeof refusedReasons)[number];
/** Why a report reaches no scraper, or not all: it was refused, or evicted before every scraper had it. */
export const dropReasons = [...refusedReasons, 'age', 'memory'] as const;
export type DropReason = (typeof dropReasons)[number];

export interface Drop {
  readonly reason: DropReason;
  readonly count: number;
  /** The times of the oldest and the newest of them. */
  readonly firstMs: number;
  readonly lastMs: number;
  /** When the last of them was refused or evicted. */
  readonly droppedMs: number;
}

/** Dropped reports of one agent, by reason: for the agent's status, for the log, and since the start. */
export class Drops {
  readonly #all = new Map<DropReason, Drop>();
  readonly #refused = new Map<DropReason, Drop>();
  readonly #unlogged = new Map<DropReason, Drop>();
  readonly #loggedAtMs = new Map<DropReason, number>();

  /** A report of this time is dropped now. */
  add(reason: DropReason, timeMs: number, nowMs: number): void {
    const isRefused = refusedReasons.some((each) => each === reason);
    for (const drops of [this.#all, this.#unlogged, ...(isRefused ? [this.#refused] : [])]) {
      const { count, firstMs, lastMs } = drops.get(reason) ?? { count: 0, firstMs: timeMs, lastMs: timeMs };
      drops.set(reason, {
        reason,
        count: count + 1,
        firstMs: Math.min(firstMs, timeMs),
        lastMs: Math.max(lastMs, timeMs),
        droppedMs: nowMs,
      });
    }
  }

  /** Since the server's start. */
  get all(): readonly Drop[] {
    return [...this.#all.values()];
  }

  /** What was refused since the last call, to be sent to the agent. */
  takeRefused(): Drop[] {
    const drops = [...this.#refused.values()];
    this.#refused.clear();
    return drops;
  }

  /** What has to be logged now: a line a minute for each reason. */
  takeUnlogged(monotonicMs: number): Drop[] {
    const due = [...this.#unlogged.values()].filter(
      ({ reason }) => monotonicMs - (this.#loggedAtMs.get(reason) ?? -Infinity) >= logEveryMs,
    );
    for (const { reason } of due) {
      this.#unlogged.delete(reason);
      this.#loggedAtMs.set(reason, monotonicMs);
    }
    return due;
  }
}

const logEveryMs = 60_000;

/** The reason, for the agent's own administrator. */
export function refusedText(reason: DropReason, windowMs: number): string {
  switch (reason) {
    case 'too_old':
      return `older than the window of ${durationText(windowMs)}`;
    case 'too_many':
      return `more than ${reportsASecondMax} reports a second`;
    default:
      return 'not newer than what the server has';
  }
}

/** A line for the log: the agent, the number, the times, the reason, the remedy. */
export function dropText(
  name: string,
  { reason, count, firstMs, lastMs }: Omit<Drop, 'droppedMs'>,
  { windowMs, memoryBytesMax }: { readonly windowMs: number; readonly memoryBytesMax: number },
): string {
  const times = count === 1 ? `of ${isoTime(firstMs)}` : `of ${isoTime(firstMs)} to ${isoTime(lastMs)}`;
  const reports = `${plural(count, 'report')} of '${name}' ${times}`;
  const window = `older than --window ${durationText(windowMs)}`;
  switch (reason) {
    case 'too_old':
      return `refused ${reports}: ${window}; raise --window to take a longer backlog`;
    case 'not_newer':
      return `refused ${reports}: not newer than what is stored; check whether two hosts run under this name, and its clock`;
    case 'too_many':
      return `refused ${reports}: more than ${reportsASecondMax} a second, by their own times; set its --schedule to 100ms or more`;
    case 'age':
      return `dropped ${reports} that not every scraper had fetched: ${window}; raise --window or scrape more often`;
    case 'memory':
      return `dropped ${reports} that not every scraper had fetched: the windows fill --memory-max ${bytesText(memoryBytesMax)}; raise it or scrape more often`;
  }
}
