import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';

/**
 * Failures of a connection can come every few seconds, for days: the first of an outage is logged, then one after 10
 * min, then one an hour, each with the number of those that were not. One with another reason is logged after a minute.
 * A person who asks for a try gets its answer at once.
 */
export class FailureLog {
  readonly #log: Pick<Log, 'warn'>;
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  #state: State = { kind: 'well', loggedAtMs: -Infinity };
  #omitted = 0;

  constructor(options: { readonly log: Pick<Log, 'warn'>; readonly clock: Pick<Clock, 'monotonicMs'> }) {
    this.#log = options.log;
    this.#clock = options.clock;
  }

  /** The last line in the log is a failure. */
  get isFailureLogged(): boolean {
    return this.#state.kind === 'failing';
  }

  failed(reason: string, text: string): void {
    const nowMs = this.#clock.monotonicMs();
    const state = this.#state;
    if (nowMs - state.loggedAtMs < quietMs(state, reason)) {
      this.#omitted++;
      return;
    }
    const { length } = state.kind === 'failing' && state.reason === reason ? state : { length: 0 };
    this.#log.warn(this.#omitted === 0 ? text : `${text} (${this.#omitted} more since the last line)`);
    this.#omitted = 0;
    this.#state = { kind: 'failing', reason, length: length + 1, loggedAtMs: nowMs };
  }

  /** A person wants to know what comes of the next try: if it fails, that is logged. */
  asked(): void {
    this.#state = { ...this.#state, loggedAtMs: -Infinity };
  }

  /** The connection works again: the next failure is the first of another outage. */
  succeeded(): void {
    this.#state = { kind: 'well', loggedAtMs: this.#state.loggedAtMs };
  }
}

type State =
  | { readonly kind: 'well'; readonly loggedAtMs: number }
  /** `length`: lines with this reason so far. */
  | { readonly kind: 'failing'; readonly reason: string; readonly length: number; readonly loggedAtMs: number };

/** How long after the last line the next one may come. */
function quietMs(state: State, reason: string): number {
  if (state.kind === 'well' || state.reason !== reason) return minuteMs;
  return state.length === 1 ? 10 * minuteMs : 60 * minuteMs;
}

const minuteMs = 60_000;
