import { type Clock, sleepOn, type Timer } from '../../src/runtime/clock.ts';
import type { Random } from '../support/random.ts';
import type { Timeline } from './timeline.ts';

/** A computer: a wall clock that may be wrong, and power that may go. */
export class Host {
  readonly name: string;
  /** As others see it. Two may have one, through a network that hides them. */
  readonly address: string;
  /** What its wall clock is ahead of the truth, from when on; the last is now. */
  readonly #ahead: { readonly fromMs: number; readonly ms: number }[];
  isUp = true;
  /** Changes with each boot: what was connected before is not any more. */
  boot = 1;

  constructor(name: string, { wallAheadMs = 0, address = name } = {}) {
    this.name = name;
    this.address = address;
    this.#ahead = [{ fromMs: Number.NEGATIVE_INFINITY, ms: wallAheadMs }];
  }

  get wallAheadMs(): number {
    return this.#ahead.at(-1)!.ms;
  }

  /** The wall clock is set by so much. */
  setClock(nowMs: number, byMs: number): void {
    this.#ahead.push({ fromMs: nowMs, ms: this.wallAheadMs + byMs });
  }

  /** By how much it was ahead at some time in between, both ends included. */
  wallAheadBetween(fromMs: number, untilMs: number): number[] {
    return this.#ahead
      .filter(({ fromMs: since }, at) => since <= untilMs && (this.#ahead[at + 1]?.fromMs ?? Infinity) >= fromMs)
      .map(({ ms }) => ms);
  }
}

/** True time at the beginning of each history: 2026-01-01T00:00:00Z. */
export const epochMs = Date.UTC(2026, 0, 1);

/**
 * One run of a program, from its start until it is killed. It can be stopped for a while (SIGSTOP, a machine that swaps);
 * what comes meanwhile waits, and timers that are due fire first when it goes on, as they do in Node's event loop.
 *
 * A killed process is a promise that nobody keeps: its timers never fire and nothing that it waits for ever comes.
 */
export class Process {
  readonly name: string;
  readonly host: Host;
  readonly clock: Clock;
  readonly timeline: Timeline;
  readonly #random: Random;
  readonly startedMs: number;
  #isAlive = true;
  #isStopped = false;
  #runningSinceMs: number;
  #inbox: News[] = [];
  #lateTimers: (() => void)[] = [];
  #isDraining = false;
  /** Called when it ends, however: the kernel closes what it had open. */
  readonly #onEnd: (() => void)[] = [];

  constructor(name: string, host: Host, timeline: Timeline, random: Random) {
    this.name = name;
    this.host = host;
    this.timeline = timeline;
    this.#random = random;
    this.startedMs = this.#runningSinceMs = timeline.nowMs;
    this.clock = {
      nowMs: () => Math.floor(epochMs + timeline.nowMs + host.wallAheadMs),
      monotonicMs: () => timeline.nowMs - this.startedMs,
      after: (ms, callback) => this.#timer(ms, callback),
      sleep: (ms, signal) => sleepOn(this.clock, ms, signal),
    };
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Since when it has run without having been stopped. */
  get runningSinceMs(): number {
    return this.#runningSinceMs;
  }

  /** Something outside has happened that this process learns of through its event loop. `from`: order is kept by it. */
  deliver(from: object, callback: () => void): void {
    if (!this.#isAlive) return;
    if (this.#isStopped || this.#inbox.length > 0 || this.#isDraining) this.#inbox.push({ from, callback });
    else callback();
  }

  /** Resolves when all that had happened outside by now has been learnt. */
  turn(): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#isAlive) return;
      this.#inbox.push({ from: {}, callback: resolve });
      this.#drain();
    });
  }

  onEnd(callback: () => void): void {
    this.#onEnd.push(callback);
  }

  kill(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    this.#inbox = [];
    this.#lateTimers = [];
    for (const callback of this.#onEnd) callback();
  }

  stop(): void {
    this.#isStopped = true;
  }

  resume(): void {
    if (!this.#isAlive || !this.#isStopped) return;
    this.#isStopped = false;
    this.#runningSinceMs = this.timeline.nowMs;
    const late = this.#lateTimers;
    this.#lateTimers = [];
    this.#inbox = [...late.map((callback) => ({ from: {}, callback })), ...this.#shuffledByOrigin(this.#inbox)];
    this.#drain();
  }

  #timer(ms: number, callback: () => void): Timer {
    let isCancelled = false;
    const fire = () => {
      if (!isCancelled) callback();
    };
    const timer = this.timeline.after(ms, () => {
      if (!this.#isAlive) return;
      if (this.#isStopped) this.#lateTimers.push(fire);
      else fire();
    });
    return {
      cancel() {
        isCancelled = true;
        timer.cancel();
      },
    };
  }

  /** One piece of news at a time, so that what follows from it has happened before the next. */
  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.timeline.after(0, () => {
      this.#isDraining = false;
      if (!this.#isAlive || this.#isStopped) return;
      this.#inbox.shift()?.callback();
      if (this.#inbox.length > 0) this.#drain();
    });
  }

  /** Which connection's news the kernel tells first is its own affair; each connection's come in order. */
  #shuffledByOrigin(inbox: readonly News[]): News[] {
    const order = new Map<object, number>();
    for (const origin of this.#random.shuffled([...new Set(inbox.map(({ from }) => from))])) {
      order.set(origin, order.size);
    }
    return inbox.toSorted((a, b) => order.get(a.from)! - order.get(b.from)!);
  }
}

interface News {
  readonly from: object;
  readonly callback: () => void;
}
