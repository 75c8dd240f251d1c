import type { Clock, Timer } from '../../runtime/clock.ts';
import { type Log, onceAMinute, type SeldomLog } from '../../runtime/log.ts';
import { durationText, isoTime, plural, reasonOf, secondsText } from '../../runtime/words.ts';

/** How the disk is. `sinceMs` is by the wall clock. */
export type DiskState =
  | { readonly kind: 'ok' }
  /** An operation has taken more than two seconds, and no round of syncs was quick since then. */
  | { readonly kind: 'slow'; readonly sinceMs: number }
  /** An operation has failed, and not everything has succeeded since then. */
  | { readonly kind: 'failing'; readonly sinceMs: number; readonly reason: string };

export type Outcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'failed'; readonly error: unknown };

export interface DiskHealthOptions {
  /** For messages. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: { spoolDiskErrors: number; spoolDiskState: DiskState['kind'] };
  /** Another state has begun. */
  readonly onChanged: () => void;
}

/**
 * Whether the disk of the spool is slow, failing or in order, by what its operations come to. A state is logged at its
 * beginning and at its end.
 *
 *     ok ──▶ slow ──▶ failing
 *      ◀──────┴──────────┘   a round of syncs in which nothing was slow and nothing failed
 */
export class DiskHealth {
  readonly #options: DiskHealthOptions;
  readonly #seldom: SeldomLog;
  #state: DiskState = { kind: 'ok' };
  /** When the disk was ok for the last time, on the monotonic clock, and the most reports in memory alone since then. */
  #okUntilMs = 0;
  #unwrittenMax = 0;
  #underWay: UnderWay | undefined;
  /** What the operations since the last round of syncs have shown. */
  #evidence: 'none' | 'quick' | 'slow' = 'none';

  constructor(options: DiskHealthOptions) {
    this.#options = options;
    this.#seldom = onceAMinute(options.log, options.clock);
  }

  get state(): DiskState {
    this.look();
    return this.#state;
  }

  /**
   * Calls the disk, and watches how long it takes. It never rejects. One call at a time.
   * `isRoutine`: it is called with the reports. A timer costs as much CPU as such a call, so `look` watches it instead.
   */
  operate<T>(what: string, call: () => Promise<T>, isRoutine = false): Promise<Outcome<T>> {
    this.#underWay = { what, sinceMs: this.#options.clock.monotonicMs(), isSlow: false };
    const timer = isRoutine ? undefined : this.lookLater();
    const ended = (outcome: Outcome<T>) => {
      timer?.cancel();
      this.look();
      this.#underWay = undefined;
      return outcome;
    };
    return call().then(
      (value) => ended({ kind: 'done', value }),
      (error: unknown) => ended({ kind: 'failed', error }),
    );
  }

  /** Looks whether the call under way is slow by now. */
  look(): void {
    const underWay = this.#underWay;
    if (underWay === undefined || underWay.isSlow) return;
    if (this.#options.clock.monotonicMs() - underWay.sinceMs < slowMsMin - timerEarlyMsMax) return;
    underWay.isSlow = true;
    this.#isSlow(underWay);
  }

  /** Looks when a call that begins now, or has begun, is slow. */
  lookLater(): Timer {
    return this.#options.clock.after(slowMsMin, () => this.look());
  }

  failed(error: unknown): void {
    const { clock, counters, log, path } = this.#options;
    counters.spoolDiskErrors++;
    if (this.#state.kind === 'failing') return;
    const reason = reasonOf(error);
    if (this.#state.kind === 'ok') this.#okUntilMs = clock.monotonicMs();
    const sinceMs = this.#state.kind === 'ok' ? clock.nowMs() : this.#state.sinceMs;
    this.#become({ kind: 'failing', sinceMs, reason });
    log.warn(
      `spool in '${path}': ${reason}: keeping reports in memory only, retrying every ${durationText(diskRetryMs)}`,
    );
  }

  /** A file was synced. */
  synced(): void {
    if (this.#evidence === 'none') this.#evidence = 'quick';
  }

  /**
   * All that could be synced is. `isWhole`: nothing waits for a retry. Without a sync nothing is proved: a disk that takes
   * writes and cannot sync them would come and go in the log.
   */
  endRound({ isWhole }: { readonly isWhole: boolean }): void {
    const evidence = this.#evidence;
    this.#evidence = 'none';
    if (this.#state.kind === 'ok' || !isWhole) return;
    if (evidence === 'quick' || this.#state.kind === 'failing') this.#recover(this.#state.kind);
  }

  /** How many reports are in memory alone at present. */
  unwritten(count: number): void {
    this.#unwrittenMax = Math.max(this.#unwrittenMax, count);
  }

  #isSlow({ what, sinceMs: monotonicMs }: UnderWay): void {
    const { clock, path } = this.#options;
    this.#evidence = 'slow';
    if (this.#state.kind !== 'ok') return;
    this.#okUntilMs = monotonicMs;
    const sinceMs = Math.round(clock.nowMs() - (clock.monotonicMs() - monotonicMs));
    this.#become({ kind: 'slow', sinceMs });
    this.#seldom.warn(
      'slow',
      `spool in '${path}': disk slow since ${isoTime(sinceMs)} (${what}); ` +
        'sampling and sending go on, new reports are in memory only until it answers',
    );
  }

  #recover(from: 'slow' | 'failing'): void {
    const { clock, path } = this.#options;
    const lasted = secondsText(clock.monotonicMs() - this.#okUntilMs);
    const kept = this.#unwrittenMax === 0 ? 'no report was' : `up to ${plural(this.#unwrittenMax, 'report')} were`;
    this.#seldom.info(
      `ok after ${from}`,
      `spool in '${path}': disk ok after ${lasted} of ${from === 'slow' ? 'slowness' : 'failures'}; ` +
        `${kept} in memory only, all are on disk now`,
    );
    this.#become({ kind: 'ok' });
  }

  #become(state: DiskState): void {
    if (this.#state.kind === 'ok') this.#unwrittenMax = 0;
    this.#state = state;
    this.#options.counters.spoolDiskState = state.kind;
    this.#options.onChanged();
  }
}

/** What has failed is tried again after this. */
export const diskRetryMs = 10_000;
const slowMsMin = 2000;
// Timers count whole milliseconds, and may be a little early.
const timerEarlyMsMax = 5;

interface UnderWay {
  readonly what: string;
  /** On the monotonic clock. */
  readonly sinceMs: number;
  /** It is known to be slow. */
  isSlow: boolean;
}
