import { limits } from '../../protocol/limits.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';

export interface KeepAliveOptions {
  readonly clock: Pick<Clock, 'monotonicMs' | 'after'>;
  /** Sends a ping on its own. */
  readonly ping: () => void;
  /** A ping was not answered: the connection is dead. */
  readonly onSilence: (silentMs: number) => void;
}

/**
 * When a connection pings, and when it ends for silence. It is called for each frame that is sent or received.
 *
 *     nothing heard, or nothing sent, for 10 s ──▶ ping ──nothing heard for 10 s──▶ silent
 *                                                    └──────anything heard──────▶ quiet again
 *
 * A wake-up of the process costs as much as a report. So a ping that is nearly due is sent with a report, and the timer
 * allows for reports that are late: an agent that reports every 5 s is never woken for a ping alone.
 */
export class KeepAlive {
  readonly #options: KeepAliveOptions;
  #heardAtMs: number;
  #sentAtMs: number;
  #reportAtMs = -Infinity;
  /** Between the last two reports. */
  #reportsApartMs = Infinity;
  #state: State = { kind: 'quiet' };
  #timer: Timer | undefined;
  #timerAtMs = Number.NaN;
  #isRunning = false;

  constructor(options: KeepAliveOptions) {
    this.#options = options;
    this.#heardAtMs = this.#sentAtMs = options.clock.monotonicMs();
  }

  start(): void {
    this.#isRunning = true;
    this.#setTimer();
  }

  stop(): void {
    this.#isRunning = false;
    this.#timer?.cancel();
  }

  heard(): void {
    this.#heardAtMs = this.#nowMs;
    this.#state = { kind: 'quiet' };
    // Node wakes up also for a timer that is put off while it is the next to fire: so that is done one report before.
    if (this.#timerAtMs > this.#reportAtMs + 2 * this.#reportsApartMs) return;
    this.#setTimer();
  }

  sent(what: 'report' | 'ping' | 'other'): void {
    const nowMs = this.#nowMs;
    this.#sentAtMs = nowMs;
    if (what === 'report') {
      this.#reportsApartMs = nowMs - this.#reportAtMs;
      this.#reportAtMs = nowMs;
    }
    if (what === 'ping' && this.#state.kind === 'quiet') this.#state = { kind: 'pinged', atMs: nowMs };
    const dueMs = this.#dueMs;
    const nextMs = this.#reportAtMs + this.#reportsApartMs;
    // The answer puts it off.
    const isPutOff = this.#state.kind === 'quiet' && this.#timerAtMs <= nextMs && dueMs > nextMs;
    if (isPutOff || !(this.#timerAtMs <= dueMs)) this.#setTimer();
  }

  /** Whether a report that goes out now takes a ping along. */
  get takesPing(): boolean {
    return this.#state.kind === 'quiet' && this.#nowMs - this.#heardAtMs >= pingWithReportMs;
  }

  /** A timer costs more than the rest of a ping, so one that is a little early is left as it is: it looks again. */
  #setTimer(): void {
    if (!this.#isRunning) return;
    this.#timer?.cancel();
    this.#timerAtMs = this.#dueMs;
    this.#timer = this.#options.clock.after(this.#timerAtMs - this.#nowMs, () => this.#due());
  }

  /** When the timer has something to do, if nothing is sent or heard before. */
  get #dueMs(): number {
    if (this.#state.kind === 'pinged') return this.#state.atMs + limits.pongTimeoutMs;
    const dueMs = Math.min(this.#heardAtMs, this.#sentAtMs) + limits.pingAfterMs;
    // The next report takes the ping along; where they are frequent, the one after it may.
    if (dueMs - this.#reportAtMs > reportsApartMs) return dueMs;
    const nextMs = this.#reportsApartMs <= reportsApartMs / 2 ? this.#reportsApartMs : 0;
    return dueMs + nextMs + reportGraceMs;
  }

  #due(): void {
    const isEarly = this.#timerAtMs < this.#dueMs;
    this.#timerAtMs = Number.NaN;
    if (isEarly) this.#setTimer();
    else if (this.#state.kind === 'pinged') this.#options.onSilence(this.#nowMs - this.#heardAtMs);
    else this.#options.ping();
  }

  get #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }
}

type State =
  /** No ping is unanswered. */
  | { readonly kind: 'quiet' }
  /** The first ping since something was heard went out then. */
  | { readonly kind: 'pinged'; readonly atMs: number };

// Of the 10 s after which a ping is due: at an interval of 5 s it goes with every other report.
const pingWithReportMs = 0.75 * limits.pingAfterMs;
// Reports that came so short a time before a ping is due: the next is expected.
const reportsApartMs = 1.1 * limits.pingAfterMs;
// Longer than a report waits for its time to go out.
const reportGraceMs = 1250;
