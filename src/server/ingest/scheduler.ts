import type { Clock } from '../../runtime/clock.ts';

/**
 * Limits the time that the frames of agents may take: 5 ms in each turn of the event loop for all connections together,
 * the rest is for scrapes, new connections and timers. A connection processes frames for 1 ms, then the next in the queue
 * is served, those first that have used little time of late. Ten pongs cost a peer a hundred bytes, and anyone with a key
 * can ask for them without end: an agent that reports does not wait for agents that keep the processor busy.
 *
 *     enter ─▶ frame frame frame ─▶ isOver? ─no─▶ frame … ─▶ leave
 *       ▲                             │yes
 *       └──────── in the queue ◀──────┘
 */
export class FrameScheduler {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #nextTurn: (callback: () => void) => void;
  readonly #light: Waiting[] = [];
  readonly #heavy: Waiting[] = [];
  /** In this turn of the event loop. */
  #spentMs = 0;
  #isTurnAwaited = false;
  /** Connections in the queue are served one after the other: the next when the last one leaves. */
  #isServing = false;

  constructor(options: {
    readonly clock: Pick<Clock, 'monotonicMs'>;
    /** Calls back in the next turn of the event loop. */
    readonly nextTurn: (callback: () => void) => void;
  }) {
    this.#clock = options.clock;
    this.#nextTurn = options.nextTurn;
  }

  /** The quota of one more connection. */
  join(): Quota {
    return new Quota(this);
  }

  get nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /** Whether the time of this turn is used up, counting what a connection has just used. */
  isSpent(nowSpentMs = 0): boolean {
    return this.#spentMs + nowSpentMs >= turnMsMax;
  }

  get hasWaiting(): boolean {
    return this.#light.length + this.#heavy.length > 0;
  }

  wait(isHeavy: boolean): Promise<void> {
    this.#awaitTurn();
    return new Promise((resume) => (isHeavy ? this.#heavy : this.#light).push({ resume }));
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
    const next = this.isSpent() ? undefined : (this.#light.shift() ?? this.#heavy.shift());
    this.#isServing = next !== undefined;
    if (next !== undefined) next.resume();
    else if (this.hasWaiting) this.#awaitTurn();
  }
}

interface Waiting {
  resume(): void;
}

/** The time that one connection uses. */
export class Quota {
  readonly #all: FrameScheduler;
  #startMs = 0;
  /** The time used since `#usedFromMs`. */
  #usedFromMs = -Infinity;
  #usedMs = 0;
  /** Since {@link takeUsedMs}. */
  #untakenMs = 0;

  constructor(all: FrameScheduler) {
    this.#all = all;
  }

  /** Before the first frame of a chunk. Undefined: there is time at once. */
  enter(): Promise<void> | undefined {
    if (this.#all.isSpent() || this.#all.hasWaiting) return this.#wait();
    this.#start();
    return undefined;
  }

  /** After a frame: whether others are to be served first. */
  isOver(): boolean {
    const ms = this.#all.nowMs - this.#startMs;
    return ms >= goMsMax && (this.#all.hasWaiting || this.#all.isSpent(ms));
  }

  /** Back into the queue. */
  again(): Promise<void> {
    const ms = this.#use();
    // Into the queue before the next is served, or one that has used more would be.
    const turn = this.#wait();
    this.#all.spent(ms);
    return turn;
  }

  /** After the last frame of a chunk, also if it failed. */
  leave(): void {
    this.#all.spent(this.#use());
  }

  #use(): number {
    const ms = this.#all.nowMs - this.#startMs;
    this.#usedMs += ms;
    this.#untakenMs += ms;
    return ms;
  }

  /** The time used since the last call. */
  takeUsedMs(): number {
    const ms = this.#untakenMs;
    this.#untakenMs = 0;
    return ms;
  }

  async #wait(): Promise<void> {
    await this.#all.wait(this.#isHeavy());
    this.#start();
  }

  #start(): void {
    this.#startMs = this.#all.nowMs;
    if (this.#startMs - this.#usedFromMs < usedSpanMs) return;
    this.#usedFromMs = this.#startMs;
    this.#usedMs = 0;
  }

  #isHeavy(): boolean {
    return this.#all.nowMs - this.#usedFromMs < usedSpanMs && this.#usedMs >= lightMsMax;
  }
}

// A slice of a scrape takes two or three milliseconds: ingest leaves it a third of the time at least.
const turnMsMax = 5;
// Sixty reports of a host of 500 series.
const goMsMax = 1;
// A report a second of such a host is a hundredth of that.
const usedSpanMs = 1000;
const lightMsMax = 10;
