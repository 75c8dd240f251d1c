import type { Timer } from '../../src/runtime/clock.ts';

interface Entry {
  readonly dueMs: number;
  readonly order: number;
  callback: (() => void) | undefined;
}

/**
 * True time, and everything that is going to happen, in order. After each event all that follows from it has happened
 * before the next: nothing here may wait for anything but promises and this timeline.
 */
export class Timeline {
  #nowMs = 0;
  #order = 0;
  #standing = 0;
  readonly #heap: Entry[] = [];
  /** How many events there were: the work that one history took. */
  events = 0;

  /** Since the beginning of the history. */
  get nowMs(): number {
    return this.#nowMs;
  }

  at(dueMs: number, callback: () => void): Timer {
    // Never before its time by a rounding error, which would make a timer set itself again and again.
    const exactMs = Math.ceil(Math.max(dueMs, this.#nowMs) * ticksPerMs) / ticksPerMs;
    const entry: Entry = { dueMs: exactMs, order: this.#order++, callback };
    this.#push(entry);
    return {
      cancel() {
        entry.callback = undefined;
      },
    };
  }

  after(ms: number, callback: () => void): Timer {
    return this.at(this.#nowMs + Math.max(0, ms), callback);
  }

  /** Until this time, or until `isOver` says so; what is due later stays. */
  async run(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    await turn();
    while (!isOver()) {
      const entry = this.#heap[0];
      if (entry === undefined || entry.dueMs > untilMs) break;
      this.#pop();
      const { callback } = entry;
      if (callback === undefined) continue;
      this.#countStandstill(entry.dueMs);
      this.#nowMs = entry.dueMs;
      this.events++;
      callback();
      await turn();
    }
    if (!isOver()) this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  #countStandstill(dueMs: number): void {
    this.#standing = dueMs === this.#nowMs ? this.#standing + 1 : 0;
    if (this.#standing > standingMax) throw new Error(`${standingMax} events at ${dueMs} ms: somebody spins`);
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

// A power of two, so that times are added and subtracted exactly.
const ticksPerMs = 64;
const standingMax = 100_000;

const isBefore = (a: Entry, b: Entry): boolean => a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);

/** All promises that are ready run, and those that they make ready. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
