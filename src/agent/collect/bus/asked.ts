import type { Clock } from '../../../runtime/clock.ts';
import { BusError } from './message.ts';

export interface AskedOptions {
  readonly clock: Pick<Clock, 'monotonicMs'>;
  /** It is asked at most so often. */
  readonly everyMs: number;
  /** An answer is given for so long, whatever comes after it. */
  readonly validMs: number;
}

type Last<T> = { readonly kind: 'nothing' } | { readonly kind: 'answer'; readonly answer: T; readonly atMs: number };

/** A collection waits so long, and then takes the last answer; the first one waits longer. */
const waitMs = 250;
const firstWaitMs = 2000;

/** What another program is asked, at most so often, without that a collection waits for it. */
export class Asked<T> {
  readonly #options: AskedOptions;
  #last: Last<T> = { kind: 'nothing' };
  /** Why the last question had no answer. */
  #error: BusError | undefined;
  #asking: Promise<void> | undefined;
  #askAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: AskedOptions) {
    this.#options = options;
  }

  /** Asks where it is time to. `ask` may throw a BusError; what it throws before its promise comes out of this. */
  async update(ask: () => Promise<T>): Promise<void> {
    const { clock, everyMs } = this.#options;
    const nowMs = clock.monotonicMs();
    if (this.#asking === undefined && nowMs >= this.#askAtMs) {
      const answer = ask();
      this.#askAtMs = nowMs + everyMs;
      this.#asking = this.#take(answer).finally(() => {
        this.#asking = undefined;
      });
    }
    if (this.#asking !== undefined) await within(this.#asking, this.#last.kind === 'nothing' ? firstWaitMs : waitMs);
  }

  /** The last answer, while it is valid. */
  get answer(): T | undefined {
    const last = this.#last;
    const { clock, validMs } = this.#options;
    return last.kind === 'answer' && clock.monotonicMs() - last.atMs <= validMs ? last.answer : undefined;
  }

  get reason(): string {
    return this.#error?.message ?? `no answer in ${firstWaitMs} ms`;
  }

  async #take(answer: Promise<T>): Promise<void> {
    try {
      this.#last = { kind: 'answer', answer: await answer, atMs: this.#options.clock.monotonicMs() };
      this.#error = undefined;
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      this.#error = error;
    }
  }
}

async function within(promise: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
