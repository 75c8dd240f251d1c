import type { Clock, Timer } from '../../runtime/clock.ts';

export interface ReaderWatchOptions {
  readonly clock: Clock;
  /** Bytes that the reader has been sent so far. */
  sentBytes(): number;
  /** The reader was slow for a second. */
  onSlow(): void;
  /** The reader was too slow for too long. */
  onStalled(): void;
}

/**
 * The least speed of an answer's reader: 64 KiB a second on average, after 15 s of patience. Only seconds count in
 * which the server waits for the reader.
 */
export class ReaderWatch {
  readonly #options: ReaderWatchOptions;
  /** Whether the server waits for the reader. */
  isWaitedFor = false;
  #allowedBytes = patienceSeconds * bytesPerSecondMin;
  #sentBytes = 0;
  #tick: Timer;

  constructor(options: ReaderWatchOptions) {
    this.#options = options;
    this.#tick = this.#nextTick();
  }

  stop(): void {
    this.#tick.cancel();
  }

  #nextTick(): Timer {
    return this.#options.clock.after(1000, () => {
      const sentBytes = this.#options.sentBytes();
      const taken = sentBytes - this.#sentBytes;
      this.#sentBytes = sentBytes;
      if (this.isWaitedFor && taken < bytesPerSecondMin) this.#options.onSlow();
      const due = this.isWaitedFor ? bytesPerSecondMin : 0;
      this.#allowedBytes = Math.min(patienceSeconds * bytesPerSecondMin, this.#allowedBytes + taken - due);
      if (this.#allowedBytes < 0) return this.#options.onStalled();
      this.#tick = this.#nextTick();
    });
  }
}

export const bytesPerSecondMin = 64 * 1024;
const patienceSeconds = 15;
