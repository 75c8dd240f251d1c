import { limits } from '../../protocol/limits.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { secondsText } from '../../runtime/words.ts';
import type { Spool } from '../spool/spool.ts';

/** Time since the host's boot, suspends included: what neither a step of the clock nor a suspend disturbs. */
export interface BootClock {
  bootMs(): number;
}

/**
 * Boot time of the real host. The monotonic clock stands still in a suspend, so those are added: they are what the
 * uptime has gained on it. `uptimeMs` need not be exact: a suspend shorter than a second and a half does not count.
 */
export function bootClock(clock: Pick<Clock, 'monotonicMs'>, uptimeMs: () => number): BootClock {
  const aheadMs = uptimeMs() - clock.monotonicMs();
  return {
    bootMs() {
      const monotonicMs = clock.monotonicMs();
      const suspendedMs = uptimeMs() - monotonicMs - aheadMs;
      return monotonicMs + (suspendedMs < suspendMsMin ? 0 : suspendedMs);
    },
  };
}

// Where /proc/uptime cannot be read, Node counts whole seconds.
const suspendMsMin = 1500;

export interface EpochClockOptions {
  readonly clock: Clock;
  readonly boot: BootClock;
  /** 0 ≤ random() < 1; each epoch is named by one. */
  readonly random: () => number;
  readonly spool: Spool;
  readonly counters: { clockSteps: number };
  readonly log: Log;
}

/**
 * The times of reports. An epoch's clock is the wall clock at its start, carried on by the monotonic clock: between two
 * reports of an epoch exactly so much time has passed as their times say. When the wall clock has moved against it
 * (set by hand or by NTP, or the host was suspended), a new epoch begins.
 */
export class EpochClock {
  readonly #options: EpochClockOptions;
  /** Wall clock minus monotonic clock at the start of the epoch; undefined before the first. */
  #aheadMs: number | undefined;

  constructor(options: EpochClockOptions) {
    this.#options = options;
  }

  /** The time of a report that is made now. Begins an epoch in the spool where that is due. */
  stamp(): number {
    const { clock, counters, log } = this.#options;
    const wallMs = clock.nowMs();
    const monotonicMs = clock.monotonicMs();
    const movedMs = wallMs - monotonicMs - (this.#aheadMs ?? Number.NaN);
    if (Math.abs(movedMs) <= limits.clockOffsetIgnoredMs) return Math.floor(monotonicMs + this.#aheadMs!);
    if (this.#aheadMs !== undefined) {
      counters.clockSteps++;
      log.warn(`the clock of this host has moved by ${secondsText(movedMs)}: beginning a new epoch with it`);
    }
    this.#begin(wallMs, monotonicMs);
    return Math.floor(wallMs);
  }

  #begin(wallMs: number, monotonicMs: number): void {
    const { spool, boot, random } = this.#options;
    this.#aheadMs = wallMs - monotonicMs;
    spool.begin({ epoch: Math.floor(random() * 2 ** 53), baseMs: wallMs - boot.bootMs() });
  }
}
