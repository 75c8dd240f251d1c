import type { Clock } from '../../runtime/clock.ts';

/**
 * Shares out the time that goes into what agents send. A hundred bytes can ask for ten pongs, and whoever has a key can
 * send them without end: so connections together have some milliseconds in a turn of the event loop, after which the rest of
 * the program (scrapes, new connections, timers) has its own, and each has one before the next comes. Who has had little
 * of late comes first: an honest agent, or any that reports, waits for none of those that keep the processor busy.
 *
 *     enter ─▶ frame frame frame ─▶ isOver? ─no─▶ frame … ─▶ leave
 *       ▲                             │yes
 *       └──────── in the queue ◀──────┘
 */
export class FairShare {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #nextTurn: (callback: () => void) => void;
  readonly #modest: Waiting[] = [];
  readonly #greedy: Waiting[] = [];
  /** Of this turn of the event loop. */
  #spentMs = 0;
  #isTurnAwaited = false;
  /** Those who wait are called one after the other: the next when the last one leaves. */
  #isServing = false;

  constructor(options: {
    readonly clock: Pick<Clock, 'monotonicMs'>;
    /** Calls back when the event loop has turned. */
    readonly nextTurn: (callback: () => void) => void;
  }) {
    this.#clock = options.clock;
    this.#nextTurn = options.nextTurn;
  }

  /** One more who shares. */
  join(): Share {
    return new Share(this);
  }

  get nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /** Whether nobody has more time in this turn, when somebody has just spent so much. */
  isSpent(nowSpentMs = 0): boolean {
    return this.#spentMs + nowSpentMs >= turnMsMax;
  }

  get hasWaiting(): boolean {
    return this.#modest.length + this.#greedy.length > 0;
  }

  wait(isGreedy: boolean): Promise<void> {
    this.#awaitTurn();
    return new Promise((resume) => (isGreedy ? this.#greedy : this.#modest).push({ resume }));
  }

  spent(ms: number): void {
    if (ms > 0) {
      this.#spentMs += ms;
      this.#awaitTurn();
    }
    if (this.#isServing) this.#serve();
  }

  #awaitTurn(): void {
    if (this.#isTurnAwaited) return;
    this.#isTurnAwaited = true;
    this.#nextTurn(() => {
      this.#isTurnAwaited = false;
      this.#spentMs = 0;
      this.#serve();
    });
  }

  #serve(): void {
    const next = this.isSpent() ? undefined : (this.#modest.shift() ?? this.#greedy.shift());
    this.#isServing = next !== undefined;
    if (next !== undefined) next.resume();
    else if (this.hasWaiting) this.#awaitTurn();
  }
}

interface Waiting {
  resume(): void;
}

/** What one connection has of it. */
export class Share {
  readonly #all: FairShare;
  #startMs = 0;
  /** Since then, so much. */
  #usedFromMs = -Infinity;
  #usedMs = 0;

  constructor(all: FairShare) {
    this.#all = all;
  }

  /** Before the first frame: undefined where it can go on at once. */
  enter(): Promise<void> | undefined {
    if (this.#all.isSpent() || this.#all.hasWaiting) return this.#wait();
    this.#start();
    return undefined;
  }

  /** After a frame: it is time for others. */
  isOver(): boolean {
    const ms = this.#all.nowMs - this.#startMs;
    return ms >= goMsMax && (this.#all.hasWaiting || this.#all.isSpent(ms));
  }

  /** Lets the others go before. */
  again(): Promise<void> {
    const ms = this.#use();
    // In the queue before the next one is called, or one who has had more would be.
    const turn = this.#wait();
    this.#all.spent(ms);
    return turn;
  }

  /** After the last frame, whatever has become of it. */
  leave(): void {
    this.#all.spent(this.#use());
  }

  #use(): number {
    const ms = this.#all.nowMs - this.#startMs;
    this.#usedMs += ms;
    return ms;
  }

  async #wait(): Promise<void> {
    await this.#all.wait(this.#isGreedy());
    this.#start();
  }

  #start(): void {
    this.#startMs = this.#all.nowMs;
    if (this.#startMs - this.#usedFromMs < usedSpanMs) return;
    this.#usedFromMs = this.#startMs;
    this.#usedMs = 0;
  }

  #isGreedy(): boolean {
    return this.#all.nowMs - this.#usedFromMs < usedSpanMs && this.#usedMs >= modestMsMax;
  }
}

// A slice of a scrape takes two or three milliseconds: so ingest leaves it a third of the time at the least.
const turnMsMax = 5;
// Sixty reports of a host of 500 series.
const goMsMax = 1;
// A report a second of such a host is a hundredth of that.
const usedSpanMs = 1000;
const modestMsMax = 10;
