import { type Clock, sleepOn, type Timer } from '../../src/runtime/clock.ts';

interface Entry {
  readonly dueMs: number;
  readonly order: number;
  readonly callback: () => void;
}

/** Time that stands still until a test moves it. */
export class VirtualClock implements Clock {
  #monotonicMs = 0;
  #wallAheadMs: number;
  /** How often a timer has fired: each wakes a real process. */
  firedCount = 0;
  /** How often a timer was set: each costs some CPU, also where it never fires. */
  setCount = 0;
  readonly #entries = new Set<Entry>();
  #order = 0;

  /** 2026-01-01T00:00:00Z by default; the monotonic clock starts at 0. */
  constructor(nowMs = Date.UTC(2026, 0, 1)) {
    this.#wallAheadMs = nowMs;
  }

  nowMs(): number {
    return Math.floor(this.#wallAheadMs + this.#monotonicMs);
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(ms: number, callback: () => void): Timer {
    const entry = { dueMs: this.#monotonicMs + Math.max(0, ms), order: this.#order++, callback };
    this.#entries.add(entry);
    this.setCount++;
    return { cancel: () => this.#entries.delete(entry) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  /** How many timers are set: none is left behind by what cleans up after itself. */
  get timers(): number {
    return this.#entries.size;
  }

  /** Time until the next timer, undefined where none is set. */
  get nextMs(): number | undefined {
    const next = this.#next();
    return next && next.dueMs - this.#monotonicMs;
  }

  /** Moves the wall clock alone, as an administrator, NTP or a resume from suspend does. */
  step(ms: number): void {
    this.#wallAheadMs += ms;
  }

  /** Passes the time, firing timers in order; after each, all that follows from it has happened before the next. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#monotonicMs + ms;
    await settle();
    for (let next = this.#next(); next !== undefined && next.dueMs <= endMs; next = this.#next()) {
      this.#entries.delete(next);
      this.#monotonicMs = Math.max(this.#monotonicMs, next.dueMs);
      this.firedCount++;
      next.callback();
      await settle();
    }
    this.#monotonicMs = endMs;
  }

  #next(): Entry | undefined {
    let next: Entry | undefined;
    for (const entry of this.#entries) {
      if (next === undefined || entry.dueMs < next.dueMs || (entry.dueMs === next.dueMs && entry.order < next.order)) {
        next = entry;
      }
    }
    return next;
  }
}

// One turn of the event loop runs all promises that are ready, and those that they make ready. Code under test that
// itself waits for a turn needs as many; three leave room.
const turns = 3;

/** Lets everything happen that waits for no timer and no real socket. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}
