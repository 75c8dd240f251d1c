import assert from 'node:assert/strict';
import type { Clock } from '../../src/runtime/clock.ts';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';

export interface LinkOptions {
  readonly clock: Clock;
  /** How long bytes are on their way, each direction. */
  readonly delayMs?: number;
  /** How many bytes fit into one direction before a write waits: what kernels and sockets hold. */
  readonly windowBytes?: number;
  /** The identity that the far end (a server's) sees. */
  readonly identity?: string | undefined;
  /** The address that the far end sees. */
  readonly peerAddress?: string;
}

/** Two connections that are the two ends of one line, in memory, with what goes wrong on lines. */
export class Link {
  readonly near: Connection;
  readonly far: Connection;
  /** From near to far, and back. */
  readonly out: Direction;
  readonly back: Direction;

  constructor(options: LinkOptions) {
    this.out = new Direction(options);
    this.back = new Direction(options);
    this.out.onReset = this.back.onReset = () => this.cut();
    // Whoever waits for room is told of a goodbye, too.
    this.out.onFinished = () => this.back.wake();
    this.back.onFinished = () => this.out.wake();
    const { identity, peerAddress = '192.0.2.1' } = options;
    this.near = new End({
      link: this,
      clock: options.clock,
      sending: this.out,
      receiving: this.back,
      peerAddress: '198.51.100.1',
      peerPort: 9732,
      identity,
    });
    this.far = new End({
      link: this,
      clock: options.clock,
      sending: this.back,
      receiving: this.out,
      peerAddress,
      peerPort: 40_000,
      identity,
    });
  }

  /** Both ends see a reset; what is on its way is lost. */
  cut(): void {
    this.out.break();
    this.back.break();
  }

  /** The cable is pulled: nothing arrives any more, nobody is told. Writes succeed until the window is full. */
  silence(): void {
    this.out.silent = true;
    this.back.silent = true;
  }
}

/** Two connections joined: what the one writes the other reads. */
export function linkedConnections(options: LinkOptions): [near: Connection, far: Connection] {
  const { near, far } = new Link(options);
  return [near, far];
}

/** One direction of a line: bytes in order, a delay, a bound. */
export class Direction {
  delayMs: number;
  /** Bytes vanish, as on a line that is down. */
  silent = false;
  /** How a write is cut before it is delivered; whole by default. */
  split: (bytes: Uint8Array) => readonly Uint8Array[] = (bytes) => [bytes];
  /** Bytes that were handed to the reader's end, over all. */
  deliveredBytes = 0;
  /** Called before each piece is delivered, with the number of bytes delivered before it. */
  onDeliver: ((piece: Uint8Array, deliveredBytes: number) => void) | undefined;

  readonly #clock: Clock;
  readonly #windowBytes: number;
  /** On the way and not read. */
  #heldBytes = 0;
  readonly #arrived: Uint8Array[] = [];
  /** On the way, in order: none overtakes another, whatever becomes of the delay. */
  readonly #onTheWay: { readonly atMs: number; readonly arrive: () => void }[] = [];
  #cutAfterBytes: number | undefined;
  #onCut: (() => void) | undefined;
  #finishing = false;
  /** A goodbye has come, after all bytes. */
  finished = false;
  broken = false;
  /** Nobody will read any more: what still comes is answered with a reset. */
  abandoned = false;
  onReset: () => void = () => {};
  onFinished: () => void = () => {};
  #readers: (() => void)[] = [];
  #writers: (() => void)[] = [];

  constructor({ clock, delayMs = 0, windowBytes = 64 * 1024 }: LinkOptions) {
    this.#clock = clock;
    this.delayMs = delayMs;
    this.#windowBytes = windowBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get full(): boolean {
    return this.#heldBytes >= this.#windowBytes;
  }

  /** After so many bytes of this direction, from its start, `onCut` is called and nothing more passes. */
  cutAfter(bytes: number, onCut: () => void): void {
    this.#cutAfterBytes = bytes;
    this.#onCut = onCut;
  }

  send(bytes: Uint8Array): void {
    // No copy, as a socket makes none: a buffer that is used again arrives with its new content.
    for (const piece of this.split(bytes)) {
      this.#heldBytes += piece.length;
      this.#depart(() => this.#deliver(piece));
    }
  }

  finish(): void {
    if (this.#finishing) return;
    this.#finishing = true;
    this.#depart(() => {
      this.finished = true;
      this.#wakeReaders();
      this.onFinished();
    });
  }

  break(): void {
    this.broken = true;
    this.#arrived.length = 0;
    this.#onTheWay.length = 0;
    this.#heldBytes = 0;
    this.#wakeReaders();
    this.#wakeWriters();
  }

  /** The next bytes that have arrived. */
  take(): Uint8Array | undefined {
    const piece = this.#arrived.shift();
    if (piece !== undefined) {
      this.#heldBytes -= piece.length;
      this.#wakeWriters();
    }
    return piece;
  }

  arrival(): Promise<void> {
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  room(): Promise<void> {
    return new Promise((resolve) => this.#writers.push(resolve));
  }

  /** Wakes whoever waits, to look again at what has changed. */
  wake(): void {
    this.#wakeReaders();
    this.#wakeWriters();
  }

  #depart(arrive: () => void): void {
    const nowMs = this.#clock.monotonicMs();
    const atMs = Math.max(nowMs + this.delayMs, this.#onTheWay.at(-1)?.atMs ?? 0);
    this.#onTheWay.push({ atMs, arrive });
    if (atMs > nowMs) this.#clock.after(atMs - nowMs, () => this.#land());
    else queueMicrotask(() => this.#land());
  }

  #land(): void {
    const nowMs = this.#clock.monotonicMs();
    while (this.#onTheWay[0] !== undefined && this.#onTheWay[0].atMs <= nowMs) {
      const { arrive } = this.#onTheWay.shift() ?? assert.fail();
      if (!this.silent) arrive();
    }
  }

  #deliver(piece: Uint8Array): void {
    if (this.abandoned) return this.onReset();
    const left = this.#cutAfterBytes === undefined ? piece.length : this.#cutAfterBytes - this.deliveredBytes;
    const passing = left < piece.length ? piece.subarray(0, left) : piece;
    this.onDeliver?.(passing, this.deliveredBytes);
    this.deliveredBytes += passing.length;
    if (passing.length > 0) this.#arrived.push(passing);
    this.#wakeReaders();
    if (this.#cutAfterBytes !== undefined && this.deliveredBytes >= this.#cutAfterBytes) {
      this.silent = true;
      const onCut = this.#onCut;
      this.#onCut = undefined;
      onCut?.();
    }
  }

  #wakeReaders(): void {
    const readers = this.#readers;
    this.#readers = [];
    for (const wake of readers) wake();
  }

  #wakeWriters(): void {
    const writers = this.#writers;
    this.#writers = [];
    for (const wake of writers) wake();
  }
}

interface EndOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly sending: Direction;
  readonly receiving: Direction;
  readonly peerAddress: string;
  readonly peerPort: number;
  readonly identity: string | undefined;
}

/** The same behaviour as a socket's Connection: test/runtime/connection-contract.test.ts holds both to it. */
class End implements Connection {
  readonly peer: string;
  readonly peerAddress: string;
  readonly identity: string | undefined;
  readonly #options: EndOptions;
  #reading = false;
  #ending = false;
  #failure: ConnectionError | undefined;

  constructor(options: EndOptions) {
    this.#options = options;
    this.peerAddress = options.peerAddress;
    this.peer = `${options.peerAddress}:${options.peerPort}`;
    this.identity = options.identity;
  }

  get unsentBytes(): number {
    return this.#options.sending.heldBytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#ending) throw new ConnectionError('closed', `the connection to ${this.peer} is being closed`);
    const { sending } = this.#options;
    this.#refuseWrite();
    sending.send(bytes);
    while (sending.full) {
      await sending.room();
      this.#refuseWrite();
    }
  }

  #refuseWrite(): void {
    const { sending, receiving } = this.#options;
    if (this.#failure) throw this.#failure;
    if (sending.broken) throw new ConnectionError('reset', `${this.peer} reset the connection`);
    if (receiving.finished) throw new ConnectionError('closed', `${this.peer} closed the connection`);
  }

  async end(timeoutMs = 2000): Promise<void> {
    const { sending, receiving, clock } = this.#options;
    if (this.#failure || sending.broken) return;
    this.#ending = true;
    sending.finish();
    receiving.wake(); // our own reader is done
    let overdue = false;
    const timer = clock.after(timeoutMs, () => {
      overdue = true;
      receiving.wake();
    });
    while (!receiving.finished && !receiving.broken && !overdue && !this.#failure) {
      while (receiving.take() !== undefined);
      await receiving.arrival();
    }
    timer.cancel();
    if (overdue) this.destroy();
    this.#failure ??= new ConnectionError('closed', `the connection to ${this.peer} has ended`);
  }

  destroy(reason?: Error): void {
    if (this.#failure) return;
    const why = reason === undefined ? '' : `: ${reason.message}`;
    const options = reason === undefined ? undefined : { cause: reason };
    this.#failure =
      reason instanceof ConnectionError
        ? reason
        : new ConnectionError('closed', `the connection to ${this.peer} was ended here${why}`, options);
    const { sending, receiving, link } = this.#options;
    // The kernel answers a close with bytes unread by a reset, and whatever comes after a close, too.
    if (receiving.take() !== undefined) link.cut();
    receiving.abandoned = true;
    sending.finish();
    sending.wake();
    receiving.wake();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    if (this.#reading) throw new Error(`the connection to ${this.peer} has a reader already`);
    this.#reading = true;
    return { next: () => this.#next() };
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    const { receiving } = this.#options;
    for (;;) {
      if (this.#ending) return { done: true, value: undefined };
      if (this.#failure) throw this.#failure;
      const piece = receiving.take();
      if (piece !== undefined) return { done: false, value: piece };
      if (receiving.broken) throw new ConnectionError('reset', `${this.peer} reset the connection`);
      if (receiving.finished) {
        this.#options.sending.finish(); // as a socket that is not half open: the answer to a goodbye is a goodbye
        return { done: true, value: undefined };
      }
      await receiving.arrival();
    }
  }
}
