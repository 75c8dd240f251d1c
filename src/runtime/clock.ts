/** A timer that was set and can be taken back. Cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void;
}

/** Time as everything here sees it. Tests and the simulation pass a virtual one; only `main.ts` names the real one. */
export interface Clock {
  /** Wall clock, milliseconds since 1970; may step. */
  nowMs(): number;
  /** Milliseconds since some start; never steps, never goes back. Fractions included. */
  monotonicMs(): number;
  /** Calls once after `ms` of monotonic time. */
  after(ms: number, callback: () => void): Timer;
  /** Resolves after `ms`, or at once when the signal aborts: it never rejects. Look at the signal afterwards. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

// setTimeout fires at once for anything longer than this: 2^31 - 1 ms, 24.8 days.
const timeoutMsMax = 2_147_483_647;

export const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
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
