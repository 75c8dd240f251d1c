import type { Clock, Timer } from '../../src/runtime/clock.ts';

/** Time that a test moves, of a process whose timers never fire. */
export class HandClock implements Clock {
  #monotonicMs = 0;

  pass(ms: number): void {
    this.#monotonicMs += ms;
  }

  nowMs(): number {
    return Date.UTC(2026, 0, 1) + this.#monotonicMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(): Timer {
    return { cancel() {} };
  }

  sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) resolve();
      else signal?.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}
