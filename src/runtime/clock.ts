import { hrtime } from 'node:process';

/** A timer that can be cancelled. Cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void;
}

/** Tests and the simulation pass a virtual clock; only `main.ts` names the real one. */
export interface Clock {
  /** Wall clock, milliseconds since 1970; may step. */
  nowMs(): number;
  /** Milliseconds since some start, with fractions; never steps, never goes back. */
  monotonicMs(): number;
  /** Calls once after `ms` of monotonic time. */
  after(ms: number, callback: () => void): Timer;
  /** Resolves after `ms`, or at once when the signal aborts; never rejects. The caller checks the signal afterwards. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

// setTimeout fires at once for anything longer than this: 2^31 - 1 ms, 24.8 days.
const timeoutMsMax = 2_147_483_647;

// An agent looks at the clock some 25 times a collection. Without the optimizer performance.now() takes twice as long.
export const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => Number(hrtime.bigint()) / 1e6,
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(0, ms), timeoutMsMax));
    return { cancel: () => clearTimeout(timer) };
  },
  sleep(ms, signal) {
    return sleepOn(realClock, ms, signal);
  },
};

/** `sleep` for any clock that has `after`. */
export function sleepOn(clock: Pick<Clock, 'after'>, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const wake = () => {
      timer.cancel();
      signal?.removeEventListener('abort', wake);
      resolve();
    };
    const timer = clock.after(ms, wake);
    signal?.addEventListener('abort', wake, { once: true });
  });
}

/** Calls again and again, `ms` after the last call has returned, until it is stopped. What the task throws is a bug. */
export function runEvery(clock: Pick<Clock, 'after'>, ms: number, task: () => void): { stop(): void } {
  const run = () => {
    task();
    timer = clock.after(ms, run);
  };
  let timer = clock.after(ms, run);
  return { stop: () => timer.cancel() };
}

/** Time since the host's boot, suspends included: what neither a step of the clock nor a suspend disturbs. */
export interface BootClock {
  bootMs(): number;
}

/**
 * Boot time of the real host. The monotonic clock stands still in a suspend, so those are added: they are what the
 * uptime has gained on it. `uptimeMs` need not be exact: a suspend shorter than a second and a half does not count.
 */
export function bootClock(clock: Pick<Clock, 'nowMs' | 'monotonicMs'>, uptimeMs: () => number): BootClock {
  const aheadMs = uptimeMs() - clock.monotonicMs();
  let suspendedMs = 0;
  /** Wall clock minus monotonic clock, when the uptime was read. */
  let wallAheadMs = clock.nowMs() - clock.monotonicMs();
  return {
    bootMs() {
      const monotonicMs = clock.monotonicMs();
      const wallNowAheadMs = clock.nowMs() - monotonicMs;
      // The kernel's file of the uptime costs 80 µs, as much as to send a report; and a suspend moves the wall clock on.
      if (Math.abs(wallNowAheadMs - wallAheadMs) > wallMovedMsMin) {
        wallAheadMs = wallNowAheadMs;
        const gainedMs = uptimeMs() - monotonicMs - aheadMs;
        suspendedMs = gainedMs < suspendMsMin ? 0 : gainedMs;
      }
      return monotonicMs + suspendedMs;
    },
  };
}

// Where /proc/uptime cannot be read, Node counts whole seconds.
const suspendMsMin = 1500;
const wallMovedMsMin = 500;

/** The boot that this host is in: what a program has in common with its last run, whatever the wall clock showed since. */
export interface HostBoot {
  /** Another one after each boot. */
  readonly id: string;
  uptimeMs(): number;
}

/** Notices when the wall clock of this host was set: it has moved by another span than time has passed. */
export class ClockWatch {
  readonly #clock: Pick<Clock, 'nowMs' | 'monotonicMs'>;
  readonly #boot: BootClock;
  readonly #stepMsMin: number;
  /** Wall clock minus monotonic clock, and minus boot time, at the last step or suspend. */
  #aheadOfMonotonicMs: number;
  #aheadOfBootMs: number;

  /** A step of at most `stepMsMin` is not reported until further ones add up to more. */
  constructor(options: {
    readonly clock: Pick<Clock, 'nowMs' | 'monotonicMs'>;
    readonly boot: BootClock;
    readonly stepMsMin: number;
  }) {
    this.#clock = options.clock;
    this.#boot = options.boot;
    this.#stepMsMin = options.stepMsMin;
    this.#aheadOfMonotonicMs = this.#clock.nowMs() - this.#clock.monotonicMs();
    this.#aheadOfBootMs = this.#clock.nowMs() - this.#boot.bootMs();
  }

  /** By how much the wall clock was set since the last look: 0 where it was not, also after a suspend. */
  look(): number {
    const nowMs = this.#clock.nowMs();
    const aheadOfMonotonicMs = nowMs - this.#clock.monotonicMs();
    // Boot time costs a system call, and this is called often.
    if (Math.abs(aheadOfMonotonicMs - this.#aheadOfMonotonicMs) <= this.#stepMsMin) return 0;
    const aheadOfBootMs = nowMs - this.#boot.bootMs();
    const stepMs = aheadOfBootMs - this.#aheadOfBootMs;
    this.#aheadOfMonotonicMs = aheadOfMonotonicMs;
    if (Math.abs(stepMs) <= this.#stepMsMin) return 0;
    this.#aheadOfBootMs = aheadOfBootMs;
    return Math.round(stepMs);
  }
}
