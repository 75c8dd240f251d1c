import { close, open, readdir, read as readFile, realpath, statfs } from 'node:fs';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { ageText, durationText } from '../../runtime/words.ts';
import { areInDoubt, nameOf, pathOf, shownOf } from './proc/names.ts';
import type { FileSystemSize } from './proc/system.ts';

/** System calls that may take long, or never return: each calls back once, a test's at once. Paths are real ones. */
export interface SlowCalls {
  open(path: string, done: Done<number>): void;
  /** From the start of the file, as much as there is room for. */
  read(fd: number, into: Uint8Array, done: Done<number>): void;
  close(fd: number, done: Done<void>): void;
  names(path: string, done: Done<string[]>): void;
  resolved(path: string, done: Done<string>): void;
  size(path: string, done: Done<FileSystemSize>): void;
}

export type Done<T> = (error: Error | null, value: T) => void;

/** In libuv's thread pool. */
export const poolCalls: SlowCalls = {
  open: (path, done) => open(pathOf(path), 'r', done),
  read: (fd, into, done) => readFile(fd, into, 0, into.length, 0, done),
  close: (fd, done) => close(fd, (error) => done(error ?? null)),
  names(path, done) {
    const real = pathOf(path);
    readdir(real, (error, names) => {
      if (error !== null || !areInDoubt(names)) return done(error, names?.sort());
      readdir(real, 'buffer', (error, names) => done(error, names?.map(nameOf).sort()));
    });
  },
  resolved: (path, done) => realpath.native(pathOf(path), done),
  size: (path, done) => statfs(pathOf(path), done),
};

/** Something that the kernel is asked in the slow lane, again and again. */
export abstract class Question {
  /** Of the collector that asks. */
  readonly asker: Asker;
  readonly path: string;
  /**
   * idle: it has its last answer, or was never asked. waiting: in the queue. asked: a thread is on it. late: it was asked,
   * and has not answered by a deadline.
   */
  state: 'idle' | 'waiting' | 'asked' | 'late' = 'idle';
  /** The instant at which it was put into the queue the last time. */
  instant = 0;
  /** While it is late: since when, on the monotonic clock; whether that was logged; who waits for it otherwise. */
  lateSinceMs = 0;
  isLogged = false;
  wait: Wait | undefined;
  /** Whether its last answer was late: then nobody waits for the next one. */
  wasLate = false;

  constructor(asker: Asker, path: string) {
    this.asker = asker;
    this.path = path;
  }

  /** Makes its system calls, one after another, and tells the lane when the last has returned. */
  abstract ask(lane: SlowLane): void;
}

/** A collector in the slow lane. */
export interface Asker {
  readonly collector: string;
  /** Its questions that are late. */
  late: number;
}

interface Wait {
  count: number;
  resolve(): void;
}

export interface SlowLaneOptions {
  readonly clock: Pick<Clock, 'monotonicMs' | 'after'>;
  readonly log: Pick<Log, 'warn' | 'info'>;
  readonly calls?: SlowCalls;
  /** Attributes that stay open at the most; beyond, one is opened for each read. */
  readonly filesKeptMax?: number;
  /** Of those that are read rarely: only while no more than so many are open in all. */
  readonly rareFilesKeptMax?: number;
}

/**
 * Reads of what can block: attributes of devices (a sensor behind a slow bus, an attribute behind a lock that somebody
 * holds) and file systems (one whose server is gone). They are made in libuv's thread pool, a few at a time, while the main
 * thread waits for them until a deadline. So a report is late by that at most, and nothing else waits for a device.
 *
 *     ask ─▶ waiting ─▶ asked ─▶ idle
 *                         └─▶ late ─▶ idle     a thread is lost to it until it answers; it is not asked again before
 *
 * Threads are few: some are left for the disk of the spool and for looking up names, and what is late has only some of the
 * rest, so many for one collector and so many for all. A collector that has none left is not asked anything until one of
 * its questions has answered.
 *
 * Why the pool and not one worker thread: a read costs 25 to 30 µs of CPU so, against 12 in a worker that has them all in a
 * row, but a worker takes 10 MiB (6 of them anonymous), sixteen threads of the pool 1.4 (1.3); and a worker that is stuck
 * at one device reads no other.
 */
export class SlowLane {
  readonly calls: SlowCalls;
  readonly filesKeptMax: number;
  readonly rareFilesKeptMax: number;
  readonly #clock: SlowLaneOptions['clock'];
  readonly #log: SlowLaneOptions['log'];
  #instant = 0;
  #instantMs = Number.NaN;
  #deadlineMs = deadlineMsMax;
  /** Whether the deadline of this instant has passed. */
  #isOver = false;
  #deadline: Timer | undefined;
  #queue: Question[] = [];
  #queueAt = 0;
  #isStarting = false;
  /** Not asked because too many are late. */
  #held: Question[] = [];
  readonly #asked = new Set<Question>();
  readonly #late = new Set<Question>();
  readonly #waits = new Set<Wait>();
  readonly #loggedPaths = new Set<string>();
  readonly #buffers: Uint8Array[] = [];
  /** How many files are kept open. */
  openCount = 0;

  constructor(options: SlowLaneOptions) {
    const { clock, log, calls = poolCalls, filesKeptMax = filesKeptMin } = options;
    this.calls = calls;
    this.filesKeptMax = filesKeptMax;
    this.rareFilesKeptMax = Math.min(filesKeptMax, options.rareFilesKeptMax ?? rareFilesKept);
    this.#clock = clock;
    this.#log = log;
  }

  /** What was asked and has not answered: `process.exit()` waits for it. */
  get pending(): readonly string[] {
    return [...this.#late, ...this.#asked].map(({ path }) => shownOf(path));
  }

  /** The present instant. */
  get instant(): number {
    return this.#instant;
  }

  /** When it began, on the monotonic clock. */
  get nowMs(): number {
    return this.#instantMs;
  }

  /** Whether its deadline has passed: what is asked now will be read for the next one. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether it was asked so long ago that it is taken for one that will not answer. */
  isStuck({ state, lateSinceMs }: Question): boolean {
    return state === 'late' && this.#instantMs - lateSinceMs >= stuckMs - 2 * deadlineMsMax;
  }

  /** Starts an instant, unless it has begun. */
  begin(instant: number): void {
    if (instant === this.#instant) return;
    if (this.#deadline !== undefined) this.#deadlineIsOver();
    const nowMs = this.#clock.monotonicMs();
    const sinceLastMs = nowMs - this.#instantMs;
    if (sinceLastMs < deadlineMsMax / deadlineShare) this.#deadlineMs = sinceLastMs * deadlineShare;
    this.#instant = instant;
    this.#instantMs = nowMs;
    this.#isOver = false;
    if (this.#late.size > 0) this.#logStuck(nowMs);
  }

  /**
   * Asks all of these, which are idle. Resolves when all have answered that are expected to, or at the deadline; undefined
   * where they have answered already.
   */
  ask(questions: readonly Question[]): Promise<void> | undefined {
    const wait: Wait = { count: 0, resolve() {} };
    for (const question of questions) {
      question.state = 'waiting';
      question.instant = this.#instant;
      if (!question.wasLate && !this.#isOver) {
        question.wait = wait;
        wait.count++;
      }
      this.#queue.push(question);
    }
    this.#start();
    if (wait.count === 0) return undefined;
    this.#waits.add(wait);
    return new Promise((resolve) => {
      wait.resolve = resolve;
    });
  }

  /** A question has its answer. */
  answered(question: Question): void {
    const isLate = question.state === 'late';
    question.state = 'idle';
    question.wasLate = isLate;
    if (isLate) {
      this.#late.delete(question);
      question.asker.late--;
      this.#logAnswer(question);
      this.#queue.push(...this.#held);
      this.#held = [];
    } else {
      this.#asked.delete(question);
    }
    waitedFor(question, this.#waits);
    this.#start();
  }

  /** A buffer to read into. */
  takeBuffer(): Uint8Array {
    return this.#buffers.pop() ?? new Uint8Array(bufferBytes);
  }

  giveBuffer(buffer: Uint8Array): void {
    if (buffer.length === bufferBytes && this.#buffers.length < askedMax) this.#buffers.push(buffer);
  }

  #start(): void {
    // A call that returns at once comes back here.
    if (this.#isStarting) return;
    this.#isStarting = true;
    while (this.#asked.size < askedMax) {
      const question = this.#next();
      if (question === undefined) break;
      question.state = 'asked';
      this.#asked.add(question);
      question.ask(this);
    }
    this.#isStarting = false;
    if (this.#asked.size === 0) {
      this.#deadline?.cancel();
      this.#deadline = undefined;
    } else {
      this.#deadline ??= this.#clock.after(this.#deadlineMs, () => this.#deadlineIsOver());
    }
  }

  #next(): Question | undefined {
    while (this.#queueAt < this.#queue.length) {
      const question = this.#queue[this.#queueAt++]!;
      if (question.asker.late < lateMaxOfOne && this.#late.size < lateMax) return question;
      this.#held.push(question);
      waitedFor(question, this.#waits);
    }
    this.#queue = [];
    this.#queueAt = 0;
    return undefined;
  }

  #deadlineIsOver(): void {
    this.#deadline?.cancel();
    this.#deadline = undefined;
    this.#isOver = true;
    const nowMs = this.#clock.monotonicMs();
    for (const question of this.#asked) {
      question.state = 'late';
      question.lateSinceMs = Math.round(nowMs);
      question.asker.late++;
      this.#late.add(question);
    }
    this.#asked.clear();
    for (const question of this.#queue) question.wait = undefined;
    for (const question of this.#late) question.wait = undefined;
    for (const wait of this.#waits) wait.resolve();
    this.#waits.clear();
    this.#start();
  }

  #logStuck(nowMs: number): void {
    for (const question of this.#late) {
      const { path, asker, isLogged, lateSinceMs } = question;
      if (isLogged || nowMs - lateSinceMs < stuckMs || this.#loggedPaths.size >= loggedMax) continue;
      if (this.#loggedPaths.has(path)) continue;
      this.#loggedPaths.add(path);
      question.isLogged = true;
      const text = `'${shownOf(path)}' has not answered for ${durationText(stuckMs)}: its series are absent until it does`;
      const isFull = asker.late >= lateMaxOfOne || this.#late.size >= lateMax;
      this.#log.warn(
        `collector '${asker.collector}': ${text}${isFull ? ', as are others: too many reads do not return' : ''}`,
      );
    }
  }

  #logAnswer(question: Question): void {
    if (!question.isLogged) return;
    question.isLogged = false;
    const ms = this.#clock.monotonicMs() - question.lateSinceMs;
    this.#log.info(
      `collector '${question.asker.collector}': '${shownOf(question.path)}' has answered after ${ageText(ms)}`,
    );
  }
}

function waitedFor(question: Question, waits: Set<Wait>): void {
  const { wait } = question;
  if (wait === undefined) return;
  question.wait = undefined;
  if (--wait.count > 0) return;
  waits.delete(wait);
  wait.resolve();
}

/**
 * Threads for libuv's pool: what this lane may have, and four for the disk of the spool (one call at a time) and for looking
 * up names (which gets half of all at the most). Before the first use of the pool it goes into UV_THREADPOOL_SIZE.
 */
export const poolThreads = 16;
/** Calls at a time that are in time, late ones of a collector, and late ones of all: at most 12 threads. */
const askedMax = 4;
const lateMaxOfOne = 4;
const lateMax = 8;
const deadlineMsMax = 500;
/** Of the interval, where that is short. */
const deadlineShare = 1 / 2;
// After as long node_exporter gives up on a file system.
const stuckMs = 5000;
const loggedMax = 100;
// Beside those of the other collectors. Every system allows it (proc/kept-files.ts).
const filesKeptMin = 1024;
// One that is kept costs one call in place of three, and a page of the kernel's memory: for a few devices that is little.
const rareFilesKept = 256;
// An attribute of sysfs has a page at most.
export const bufferBytes = 4096;
