import type { StreamId } from '../../model/source.ts';
import type { Clock } from '../../runtime/clock.ts';

/**
 * What may be acknowledged of a stream: what every known scraper has, where the disk knows so; or all of it, where nobody
 * scrapes.
 */
export class Acks {
  readonly #clock: Clock;
  readonly #hasDisk: boolean;
  /** Up to when the file says that the scrapers had a stream. */
  readonly #durableMs = new Map<StreamId, number>();
  /** Up to when a stream was acknowledged. */
  readonly #acknowledgedMs = new Map<StreamId, number>();
  readonly #sureFromMonotonicMs: number;

  constructor({ clock, hasDisk }: { readonly clock: Clock; readonly hasDisk: boolean }) {
    this.#clock = clock;
    this.#hasDisk = hasDisk;
    this.#sureFromMonotonicMs = clock.monotonicMs() + holdMs;
  }

  /** Up to when; -Infinity: nothing, Infinity: all. `confirmedMs`: what every known scraper has, Infinity where there is none. */
  ackableMs(stream: StreamId, confirmedMs: number): number {
    const sureMs = this.sureMs(confirmedMs);
    if (!this.#hasDisk || !Number.isFinite(sureMs)) return sureMs;
    return Math.min(sureMs, this.#durableMs.get(stream) ?? -Infinity);
  }

  /** Infinity says that nobody scrapes, as far as is known: for a while after the start, that is no knowledge. */
  sureMs(confirmedMs: number): number {
    const isSure = confirmedMs !== Infinity || this.#clock.monotonicMs() >= this.#sureFromMonotonicMs;
    return isSure ? confirmedMs : -Infinity;
  }

  /** The file says so now. Of a scraper that has come since, a file in which nobody scrapes says nothing. */
  saved(confirmedMs: ReadonlyMap<StreamId, number>): void {
    for (const [stream, ms] of confirmedMs) {
      if (Number.isFinite(ms)) this.#durableMs.set(stream, ms);
      else this.#durableMs.delete(stream);
    }
  }

  /** From the file of the server before: the scrapers had it, and it was, or may have been, acknowledged. */
  restored(stream: StreamId, ms: number): void {
    this.#durableMs.set(stream, ms);
    this.#acknowledgedMs.set(stream, ms);
  }

  acknowledged(stream: StreamId, ms: number): void {
    this.#acknowledgedMs.set(stream, Math.max(ms, this.acknowledgedMs(stream)));
  }

  /** What is newer its agent still has; -Infinity where it has all. */
  acknowledgedMs(stream: StreamId): number {
    return this.#acknowledgedMs.get(stream) ?? -Infinity;
  }

  /** The wall clock was set: times that were earlier than now must not be later than now. */
  clockStepped(deltaMs: number): void {
    const back = Math.min(0, deltaMs);
    for (const times of [this.#durableMs, this.#acknowledgedMs]) {
      for (const [stream, ms] of times) times.set(stream, ms + back);
    }
  }

  forget(stream: StreamId): void {
    this.#durableMs.delete(stream);
    this.#acknowledgedMs.delete(stream);
  }
}

// A scraper that was there may not have come yet, without a file from before or after a long rest: three scrapes at 15 s.
const holdMs = 45_000;
