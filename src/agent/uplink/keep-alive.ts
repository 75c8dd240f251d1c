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
    this.#setTimer();
  }

  sent(what: 'report' | 'ping' | 'other'): void {
    const nowMs = this.#nowMs;
    this.#sentAtMs = nowMs;
    if (what === 'report') this.#reportAtMs = nowMs;
    if (what === 'ping' && this.#state.kind === 'quiet') this.#state = { kind: 'pinged', atMs: nowMs };
    this.#setTimer();
  }

  /** Whether a report that goes out now takes a ping along. */
  get takesPing(): boolean {
    return this.#state.kind === 'quiet' && this.#nowMs - this.#heardAtMs >= pingWithReportMs;
  }

  #setTimer(): void {
    if (!this.#isRunning) return;
    const dueMs = this.#dueMs;
    // A timer costs more than the rest of a ping. The answer, which comes soon, sets it anyway.
    if (dueMs === this.#timerAtMs || (this.#state.kind === 'pinged' && dueMs > this.#timerAtMs)) return;
    this.#timer?.cancel();
    this.#timerAtMs = dueMs;
    this.#timer = this.#options.clock.after(dueMs - this.#nowMs, () => this.#due());
  }

  get #dueMs(): number {
    if (this.#state.kind === 'pinged') return this.#state.atMs + limits.pongTimeoutMs;
    const dueMs = Math.min(this.#heardAtMs, this.#sentAtMs) + limits.pingAfterMs;
    return dueMs - this.#reportAtMs <= reportsApartMs ? dueMs + reportGraceMs : dueMs;
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
