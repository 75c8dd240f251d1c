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
  /** Those that had not fetched one of them; none where they were refused. */
  readonly scrapers: ReadonlySet<string>;
}

/** Dropped reports of one agent, by reason: for the agent's status, for the log, and since the start. */
export class Drops {
  readonly #all = new Map<DropReason, Drop>();
  readonly #refused = new Map<DropReason, Drop>();
  readonly #unlogged = new Map<DropReason, Drop>();
  readonly #loggedAtMs = new Map<DropReason, number>();

  /** A report of this time is dropped now. `scrapers`: those that had not fetched it. */
  add(reason: DropReason, timeMs: number, nowMs: number, scrapers: readonly string[] = []): void {
    const isRefused = refusedReasons.some((each) => each === reason);
    for (const drops of [this.#all, this.#unlogged, ...(isRefused ? [this.#refused] : [])]) {
      const before = drops.get(reason);
      drops.set(reason, {
        reason,
        count: (before?.count ?? 0) + 1,
        firstMs: Math.min(before?.firstMs ?? timeMs, timeMs),
        lastMs: Math.max(before?.lastMs ?? timeMs, timeMs),
        droppedMs: nowMs,
        scrapers: withNames(before?.scrapers, scrapers),
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

/** The same set as long as nothing is new, as with one report after another. */
function withNames(known: ReadonlySet<string> = new Set(), names: readonly string[]): ReadonlySet<string> {
  return names.every((name) => known.has(name)) ? known : new Set([...known, ...names]);
}

/** `scraper 'a'`, or `scrapers 'a' and 'b'`, or `scrapers 'a', 'b', 'c' and 2 more` */
function scrapersText(scrapers: ReadonlySet<string>): string {
  const names = [...scrapers].sort().map((name) => `'${name}'`);
  const shown = names.slice(0, namesMax);
  const last = names.length > namesMax ? `${names.length - namesMax} more` : shown.pop();
  return `${names.length === 1 ? 'scraper' : 'scrapers'} ${[...(shown.length > 0 ? [shown.join(', ')] : []), last].join(' and ')}`;
}

const namesMax = 3;

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
  { reason, count, firstMs, lastMs, scrapers }: Omit<Drop, 'droppedMs'>,
  { windowMs, memoryBytesMax }: { readonly windowMs: number; readonly memoryBytesMax: number },
): string {
  const times = count === 1 ? `of ${isoTime(firstMs)}` : `of ${isoTime(firstMs)} to ${isoTime(lastMs)}`;
  const reports = `${plural(count, 'report')} of '${name}' ${times}`;
  const window = `older than --window ${durationText(windowMs)}`;
  const unfetched = `${reports} that ${scrapersText(scrapers)} had not fetched: `;
  switch (reason) {
    case 'too_old':
      return `refused ${reports}: ${window}; raise --window to take a longer backlog`;
    case 'not_newer':
      return `refused ${reports}: not newer than what is stored; check whether two hosts run under this name, and its clock`;
    case 'too_many':
      return `refused ${reports}: more than ${reportsASecondMax} a second, by their own times; set its --schedule to 100ms or more`;
    case 'age':
      return `dropped ${unfetched}${window}; raise --window or scrape more often`;
    case 'memory':
      return `dropped ${unfetched}the windows fill --memory-max ${bytesText(memoryBytesMax)}; raise it or scrape more often`;
  }
}
