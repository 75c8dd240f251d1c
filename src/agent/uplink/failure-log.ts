import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';

/**
 * Failures of a connection can come every few seconds, for days, and for reasons that take turns: of an outage, the first
 * for a reason is logged, then one after 10 min, then one an hour, each with the number of those that were not; at most one
 * a minute for all reasons. A person who asks for a try gets its answer at once.
 */
export class FailureLog {
  readonly #log: Pick<Log, 'warn'>;
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Of the present outage, by reason. */
  readonly #lines = new Map<string, Lines>();
  #loggedAtMs = -Infinity;
  #isAsked = false;
  #omitted = 0;

  constructor(options: { readonly log: Pick<Log, 'warn'>; readonly clock: Pick<Clock, 'monotonicMs'> }) {
    this.#log = options.log;
    this.#clock = options.clock;
  }

  /** The last line in the log is a failure. */
  get isFailureLogged(): boolean {
    return this.#lines.size > 0;
  }

  failed(reason: string, text: string): void {
    const nowMs = this.#clock.monotonicMs();
    const { count, lastMs } = this.#lines.get(reason) ?? noLines;
    const isQuiet = nowMs - this.#loggedAtMs < minuteMs || nowMs - lastMs < quietMs(count);
    if (isQuiet && !this.#isAsked) {
      this.#omitted++;
      return;
    }
    this.#log.warn(this.#omitted === 0 ? text : `${text} (${this.#omitted} more since the last line)`);
    this.#isAsked = false;
    this.#omitted = 0;
    this.#loggedAtMs = nowMs;
    this.#lines.set(reason, { count: count + 1, lastMs: nowMs });
  }

  /** A person wants to know what comes of the next try: if it fails, that is logged. */
  asked(): void {
    this.#isAsked = true;
  }

  /** The connection works again: the next failure is the first of another outage. */
  succeeded(): void {
    this.#lines.clear();
    this.#isAsked = false;
  }
}

/** How many there were, and when the last was. */
interface Lines {
  readonly count: number;
  readonly lastMs: number;
}

const noLines: Lines = { count: 0, lastMs: -Infinity };

/** How long after the last line for a reason the next one may come. */
function quietMs(count: number): number {
  return count < 2 ? 10 * minuteMs : 60 * minuteMs;
}

const minuteMs = 60_000;
