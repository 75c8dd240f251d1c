import type { Clock, Timer } from './clock.ts';

/**
 * Work that peers can ask for as often as they like, at a rate: the rest waits, and the addresses that ask take turns. So
 * a peer that asks a thousand times a second delays its own work, and that of another by one turn.
 */
export class Turns {
  readonly #clock: Pick<Clock, 'monotonicMs' | 'after'>;
  readonly #everyMs: number;
  readonly #burstMs: number;
  /** In the order of their turns. */
  readonly #waiting = new Map<string, (() => void)[]>();
  /** Up to when the rate is used up. */
  #usedUntilMs = -Infinity;
  #timer: Timer | undefined;

  /** So many each second, and `burst` of them at once after a rest. */
  constructor(options: {
    readonly clock: Pick<Clock, 'monotonicMs' | 'after'>;
    readonly perSecond: number;
    readonly burst: number;
  }) {
    this.#clock = options.clock;
    this.#everyMs = 1000 / options.perSecond;
    this.#burstMs = options.burst * this.#everyMs;
  }

  /** Does the work now, or when it is this address's turn. */
  take(address: string, work: () => void): void {
    if (this.#waiting.size === 0 && this.#hasRoom()) return work();
    const own = this.#waiting.get(address);
    if (own === undefined) this.#waiting.set(address, [work]);
    else own.push(work);
    this.#wait();
  }

  #hasRoom(): boolean {
    const nowMs = this.#clock.monotonicMs();
    const usedUntilMs = Math.max(this.#usedUntilMs, nowMs - this.#burstMs);
    if (usedUntilMs + this.#everyMs > nowMs) return false;
    this.#usedUntilMs = usedUntilMs + this.#everyMs;
    return true;
  }

  #wait(): void {
    if (this.#timer !== undefined || this.#waiting.size === 0) return;
    // Several at a time: a timer a millisecond would cost more than some of the work.
    this.#timer = this.#clock.after(Math.max(this.#everyMs, 10), () => {
      this.#timer = undefined;
      for (const [address, own] of this.#waiting) {
        if (!this.#hasRoom()) break;
        this.#waiting.delete(address);
        const [work, ...rest] = own;
        if (rest.length > 0) this.#waiting.set(address, rest);
        work!();
      }
      this.#wait();
    });
  }
}
