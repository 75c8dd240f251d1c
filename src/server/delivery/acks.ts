import type { StreamId } from '../../model/source.ts';
import type { Clock } from '../../runtime/clock.ts';

/**
 * What may be acknowledged of a stream: what every known scraper has, and the file of cursors says so; or everything,
 * if nobody scrapes.
 */
export class Acks {
  readonly #clock: Clock;
  readonly #hasDisk: boolean;
  /** Up to when the scrapers have a stream according to the file. */
  readonly #durableMs = new Map<StreamId, number>();
  /** Up to when a stream was acknowledged. */
  readonly #acknowledgedMs = new Map<StreamId, number>();
  readonly #holdUntilMonotonicMs: number;

  constructor({ clock, hasDisk }: { readonly clock: Clock; readonly hasDisk: boolean }) {
    this.#clock = clock;
    this.#hasDisk = hasDisk;
    this.#holdUntilMonotonicMs = clock.monotonicMs() + holdMs;
  }

  /** Up to when; -Infinity: nothing, Infinity: all. `confirmedMs`: what every known scraper has, Infinity without one. */
  ackableMs(stream: StreamId, confirmedMs: number): number {
    const ackableMs = this.afterHoldMs(confirmedMs);
    if (!this.#hasDisk || !Number.isFinite(ackableMs)) return ackableMs;
    return Math.min(ackableMs, this.#durableMs.get(stream) ?? -Infinity);
  }

  /** Infinity means that no scraper is known. For a while after the start nothing follows from that: -Infinity. */
  afterHoldMs(confirmedMs: number): number {
    const isSure = confirmedMs !== Infinity || this.#clock.monotonicMs() >= this.#holdUntilMonotonicMs;
    return isSure ? confirmedMs : -Infinity;
  }

  /** The file has this now. A file without scrapers says nothing about one that has come since. */
  saved(confirmedMs: ReadonlyMap<StreamId, number>): void {
    for (const [stream, ms] of confirmedMs) {
      if (Number.isFinite(ms)) this.#durableMs.set(stream, ms);
      else this.#durableMs.delete(stream);
    }
  }

  /** From the file of the last run: the scrapers have it, and it may have been acknowledged. */
  restored(stream: StreamId, ms: number): void {
    this.#durableMs.set(stream, ms);
    this.#acknowledgedMs.set(stream, ms);
  }

  acknowledged(stream: StreamId, ms: number): void {
    this.#acknowledgedMs.set(stream, Math.max(ms, this.acknowledgedMs(stream)));
  }

  /** The agent still has what is newer; -Infinity: it has all. */
  acknowledgedMs(stream: StreamId): number {
    return this.#acknowledgedMs.get(stream) ?? -Infinity;
  }

  /** The wall clock was set: times that were earlier than now must not be later than now. */
  clockStepped(deltaMs: number): void {
    const back = Math.min(0, deltaMs);
    for (const stream of new Set([...this.#durableMs.keys(), ...this.#acknowledgedMs.keys()])) this.move(stream, back);
  }

  /** The times of one stream alone. */
  move(stream: StreamId, byMs: number): void {
    for (const times of [this.#durableMs, this.#acknowledgedMs]) {
      const ms = times.get(stream);
      if (ms !== undefined) times.set(stream, ms + byMs);
    }
  }

  forget(stream: StreamId): void {
    this.#durableMs.delete(stream);
    this.#acknowledgedMs.delete(stream);
  }
}

// A scraper may not have come back yet, if there is no file, or after a long stop: three scrapes at 15 s.
const holdMs = 45_000;
