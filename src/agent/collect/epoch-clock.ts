import { limits } from '../../protocol/limits.ts';
import { type BootClock, type Clock, ClockWatch } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { secondsText } from '../../runtime/words.ts';
import type { Spool } from '../spool/spool.ts';

export interface EpochClockOptions {
  readonly clock: Clock;
  readonly boot: BootClock;
  /** 0 ≤ random() < 1, for the numbers of epochs. */
  readonly random: () => number;
  readonly spool: Spool;
  readonly counters: { clockSteps: number };
  readonly log: Log;
}

/**
 * The timestamps of reports. An epoch's clock is the wall clock at its start, continued by the monotonic clock, so the
 * time between two reports of an epoch is exact. When the wall clock deviates from it (it was set by hand or by NTP, or
 * the host was suspended), a new epoch begins.
 */
export class EpochClock {
  readonly #options: EpochClockOptions;
  readonly #watch: ClockWatch;
  #state: State = { kind: 'due' };

  constructor(options: EpochClockOptions) {
    this.#options = options;
    this.#watch = new ClockWatch({ ...options, stepMsMin: limits.clockOffsetIgnoredMs });
  }

  /** The next report begins a new epoch: the server's clock was set, so the offset of the present one is wrong. */
  renew(): void {
    this.#state = { kind: 'due' };
  }

  /** The timestamp of a report that is made now. Begins an epoch in the spool if necessary. */
  stamp(): number {
    const { clock } = this.#options;
    this.#follow(this.#watch.look());
    const wallMs = clock.nowMs();
    const monotonicMs = clock.monotonicMs();
    if (this.#state.kind === 'running') {
      const timeMs = monotonicMs + this.#state.aheadMs;
      if (Math.abs(wallMs - timeMs) <= limits.clockOffsetIgnoredMs) return Math.floor(timeMs);
    }
    this.#begin(wallMs, monotonicMs);
    return Math.floor(wallMs);
  }

  #follow(stepMs: number): void {
    if (stepMs === 0) return;
    const { counters, log } = this.#options;
    this.#state = { kind: 'due' };
    counters.clockSteps++;
    const way = stepMs > 0 ? 'forwards' : 'back';
    log.warn(
      `the clock of this host was set ${way} by ${secondsText(Math.abs(stepMs))}; beginning a new epoch with it`,
    );
  }

  #begin(wallMs: number, monotonicMs: number): void {
    const { spool, boot, random } = this.#options;
    this.#state = { kind: 'running', aheadMs: wallMs - monotonicMs };
    spool.begin({ epoch: Math.floor(random() * 2 ** 53), baseMs: wallMs - boot.bootMs() });
  }
}

type State =
  /** The next report begins an epoch. */
  | { readonly kind: 'due' }
  /** The epoch's clock minus the monotonic clock. */
  | { readonly kind: 'running'; readonly aheadMs: number };
