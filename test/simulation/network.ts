import type { Timer } from '../../src/runtime/clock.ts';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import type { Random } from '../support/random.ts';
import type { Host, Process } from './machine.ts';
import type { Timeline } from './timeline.ts';

/**
 * TCP between two hosts, as a program sees it: what one side's kernel has taken is kept and sent again until the other's
 * has it, so a line that was cut and heals loses nothing, and a connection ends only when one side gives up. What is lost
 * is what a kernel held when its host lost power, what a reset overtakes, and every word to a host that is not there.
 */
export class Line {
  readonly name: string;
  readonly #timeline: Timeline;
  readonly #random: Random;
  readonly #flows = new Set<Flow>();
  #isUp = true;
  #cutAtMs = 0;
  #ports = 0;
  /** One way; each piece of data takes a time between these. */
  latencyMs = latencyMsUsual;
  /** What one side's kernel and the other's hold together. */
  bufferBytes = bufferBytesUsual;
  /** Open connections over it. */
  readonly sockets = new Set<VirtualSocket>();

  constructor(name: string, timeline: Timeline, random: Random) {
    this.name = name;
    this.#timeline = timeline;
    this.#random = random;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Of the next connection: of the line's own, so that a history does not depend on the one before it. */
  takePort(): number {
    this.#ports = (this.#ports + 1) % 50_000;
    return 10_000 + this.#ports;
  }

  get timeline(): Timeline {
    return this.#timeline;
  }

  get random(): Random {
    return this.#random;
  }

  get isCut(): boolean {
    return !this.#isUp;
  }

  /** Nothing passes, and nobody is told. */
  cut(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#cutAtMs = this.#timeline.nowMs;
  }

  /** What was held up goes out with its next retransmission: TCP waits twice as long each time. */
  heal(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    const longestMs = Math.min(Math.max(1000, this.#timeline.nowMs - this.#cutAtMs), 60_000);
    for (const flow of this.#flows) flow.retry(this.#random.between(200, longestMs));
    this.#flows.clear();
  }

  /** Neither slow nor narrow. */
  restore(): void {
    this.latencyMs = latencyMsUsual;
    this.bufferBytes = bufferBytesUsual;
  }

  /** A firewall forgets its connections: both ends learn that it broke, after some part of what was on its way. */
  reset(): void {
    for (const socket of [...this.sockets]) socket.breakOff();
  }

  /** The next transmission comes after the line has healed. */
  hold(flow: Flow): void {
    this.#flows.add(flow);
  }

  /** Those that wait for a host that is back. */
  retryAll(): void {
    if (!this.#isUp) return;
    for (const flow of this.#flows) flow.retry(this.#random.between(200, 10_000));
    this.#flows.clear();
  }

  drawLatencyMs(): number {
    return this.#random.between(...this.latencyMs);
  }
}

const latencyMsUsual: readonly [least: number, most: number] = [0.2, 5];
const bufferBytesUsual = 64 * 1024;

type Item = { readonly kind: 'data'; readonly bytes: Uint8Array } | { readonly kind: 'fin' } | { readonly kind: 'rst' };

/** One direction of a connection: what the sender's kernel has and the receiver's has not. */
class Flow {
  readonly #line: Line;
  readonly #to: VirtualSocket;
  #items: { readonly item: Item; readonly dueMs: number }[] = [];
  #bytes = 0;
  #lastDueMs = 0;
  #timer: Timer | undefined;

  constructor(line: Line, to: VirtualSocket) {
    this.#line = line;
    this.#to = to;
  }

  /** Data that the receiver's kernel has not confirmed. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a FIN is still on its way. */
  get hasFin(): boolean {
    return this.#items.some(({ item }) => item.kind === 'fin');
  }

  send(item: Item): void {
    const { timeline } = this.#line;
    this.#lastDueMs = Math.max(this.#lastDueMs, timeline.nowMs + this.#line.drawLatencyMs());
    this.#items.push({ item, dueMs: this.#lastDueMs });
    if (item.kind === 'data') this.#bytes += item.bytes.length;
    this.#schedule();
  }

  retry(ms: number): void {
    this.#timer?.cancel();
    this.#timer = this.#line.timeline.after(ms, () => this.#arrive());
  }

  clear(): void {
    this.#items = [];
    this.#bytes = 0;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Some part of what is on its way arrives, and no more. */
  truncate(random: Random): void {
    let left = random.whole(0, this.#bytes);
    for (const { item } of this.#items) {
      if (item.kind !== 'data' || left === 0) break;
      const bytes = item.bytes.subarray(0, left);
      left -= bytes.length;
      this.#to.arrived({ kind: 'data', bytes });
    }
    this.clear();
  }

  #schedule(): void {
    const next = this.#items[0];
    if (this.#timer !== undefined || next === undefined) return;
    this.#timer = this.#line.timeline.at(next.dueMs, () => this.#arrive());
  }

  #arrive(): void {
    this.#timer = undefined;
    const next = this.#items[0];
    if (next === undefined) return;
    if (!this.#line.isUp || !this.#to.host.isUp) {
      // A reset is said once; everything else until it is heard.
      if (next.item.kind === 'rst') this.#items.shift();
      else this.#line.hold(this);
      return;
    }
    this.#items.shift();
    // What comes to a socket that is gone is never confirmed.
    if (this.#to.arrived(next.item) && next.item.kind === 'data') this.#bytes -= next.item.bytes.length;
    this.#schedule();
  }
}

/** One end of a connection: a kernel's socket, and what a program does with it. */
export class VirtualSocket implements Connection {
  readonly peer: string;
  readonly peerAddress: string;
  readonly identity = undefined;
  readonly host: Host;
  readonly process: Process;
  readonly #boot: number;
  readonly #line: Line;
  #other: VirtualSocket | undefined;
  #out: Flow | undefined;
  #received: Uint8Array[] = [];
  #receivedBytes = 0;
  /** Written, and not taken by the kernel yet. */
  #unsent: { readonly bytes: Uint8Array; resolve(): void; reject(error: Error): void }[] = [];
  #unsentBytes = 0;
  #wake: (() => void) | undefined;
  #finReceived = false;
  /** The kernel knows it, the program may not yet. */
  #wasReset = false;
  #ending = false;
  #finSent = false;
  #failure: ConnectionError | undefined;
  #isClosed = false;
  readonly #onClosed: (() => void)[] = [];

  constructor(line: Line, process: Process, peer: { readonly address: string; readonly port: number }) {
    this.#line = line;
    this.process = process;
    this.host = process.host;
    this.#boot = process.host.boot;
    this.peerAddress = peer.address;
    this.peer = `${peer.address}:${peer.port}`;
    line.sockets.add(this);
    process.onEnd(() => this.#kernelCloses());
  }

  static pair(client: VirtualSocket, server: VirtualSocket): void {
    client.#other = server;
    server.#other = client;
    client.#out = new Flow(client.#line, server);
    server.#out = new Flow(client.#line, client);
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** Whether the peer's kernel has all that was written, and the FIN if there was one. */
  get isDelivered(): boolean {
    return this.areBytesDelivered && !this.#out!.hasFin;
  }

  /** The same without the FIN. */
  get areBytesDelivered(): boolean {
    return !this.#wasReset && this.#unsentBytes === 0 && this.#out!.bytes === 0;
  }

  /** The peer has closed its end. */
  get hasPeerEnded(): boolean {
    return this.#finReceived && this.#failure === undefined;
  }

  /** Nothing more goes in or out of it. */
  get isOver(): boolean {
    return this.#isClosed || this.#failure !== undefined;
  }

  /** Calls when {@link isOver} becomes true. */
  onOver(callback: () => void): void {
    if (this.isOver) callback();
    else this.#onClosed.push(callback);
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ending || this.#finReceived) {
      return Promise.reject(new ConnectionError('closed', `${this.peer}: the connection is being closed`));
    }
    return new Promise((resolve, reject) => {
      // The caller may write into its array again.
      this.#unsent.push({ bytes: bytes.slice(), resolve, reject });
      this.#unsentBytes += bytes.length;
      this.#pump(true);
    });
  }

  end(timeoutMs = 2000): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#ending = true;
    this.#received = [];
    this.#receivedBytes = 0;
    this.#wakeReader();
    this.#pump(true);
    if (this.#finReceived || this.#failure !== undefined) this.#close();
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      const overdue = this.process.clock.after(timeoutMs, () => this.destroy());
      this.#onClosed.push(() => {
        overdue.cancel();
        resolve();
      });
    });
  }

  destroy(reason?: Error): void {
    this.#fail(reason instanceof ConnectionError ? reason : new ConnectionError('closed', `${this.peer}: ended here`));
    this.#close();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return { next: () => this.#next() };
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    for (;;) {
      if (this.#received.length > 0) return { done: false, value: this.#take() };
      if (this.#ending) return { done: true, value: undefined };
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#finReceived) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Whatever the kernel likes to give: a piece, several, a part of one. */
  #take(): Uint8Array {
    const { random } = this.#line;
    let chunk = this.#received.shift()!;
    if (this.#received.length > 0 && random.chance(0.5)) {
      chunk = Buffer.concat([chunk, ...this.#received]);
      this.#received = [];
    } else if (chunk.length > 1 && random.chance(0.1)) {
      const length = random.whole(1, chunk.length - 1);
      this.#received.unshift(chunk.subarray(length));
      chunk = chunk.subarray(0, length);
    }
    this.#receivedBytes -= chunk.length;
    this.#other!.#pump(false);
    return chunk;
  }

  /** The kernel takes what it has room for. A program that was killed gives it nothing more. */
  #pump(isOwnCall: boolean): void {
    if (this.#isClosed || this.#failure !== undefined) return;
    const out = this.#out!;
    while (this.#unsent.length > 0 && out.bytes + this.#other!.#receivedBytes < this.#line.bufferBytes) {
      const { bytes, resolve } = this.#unsent.shift()!;
      this.#unsentBytes -= bytes.length;
      out.send({ kind: 'data', bytes });
      if (isOwnCall) resolve();
      else this.process.deliver(this, resolve);
    }
    if (this.#ending && !this.#finSent && this.#unsent.length === 0) {
      this.#finSent = true;
      out.send({ kind: 'fin' });
    }
  }

  /** Something from the other end has come to this end's kernel. Returns whether there was a socket to take it. */
  arrived(item: Item): boolean {
    if (item.kind === 'rst') {
      this.#broken();
      return true;
    }
    const isGone = this.#isClosed || this.host.boot !== this.#boot;
    if (isGone) {
      // No such socket here: so says the kernel, if it can make itself heard.
      if (item.kind === 'data') this.#answerReset();
      return false;
    }
    if (item.kind === 'data') {
      if (this.#ending) return true;
      this.#received.push(item.bytes);
      this.#receivedBytes += item.bytes.length;
      this.process.deliver(this, () => this.#wakeReader());
    } else {
      this.process.deliver(this, () => this.#peerEnded());
    }
    return true;
  }

  /** Both ends learn that it broke. */
  breakOff(): void {
    const other = this.#other!;
    this.#out!.truncate(this.#line.random);
    other.#out!.truncate(this.#line.random);
    this.#broken();
    other.#broken();
  }

  /** The host has lost its power: nobody is told. */
  vanish(): void {
    this.#out!.clear();
    this.#isClosed = true;
    this.#line.sockets.delete(this);
  }

  #answerReset(): void {
    const line = this.#line;
    const other = this.#other!;
    line.timeline.after(line.drawLatencyMs(), () => {
      if (line.isUp && other.host.isUp) other.#broken();
    });
  }

  #broken(): void {
    if (this.host.boot !== this.#boot) return;
    this.#wasReset = true;
    if (this.#isClosed) return;
    this.#out!.clear();
    const error = new ConnectionError('reset', `${this.peer} reset the connection`);
    this.process.deliver(this, () => {
      this.#fail(error);
      this.#close();
    });
  }

  #peerEnded(): void {
    this.#finReceived = true;
    this.#rejectWriters(new ConnectionError('closed', `${this.peer} closed the connection`));
    this.#wakeReader();
    // As Node's sockets without allowHalfOpen: the peer's FIN is answered with ours. What came before can be read.
    if (!this.#finSent) this.#out!.send({ kind: 'fin' });
    this.#finSent = true;
    this.#isClosed = true;
    this.#line.sockets.delete(this);
    for (const callback of this.#onClosed) callback();
  }

  #fail(error: ConnectionError): void {
    this.#failure ??= error;
    this.#rejectWriters(this.#failure);
    this.#wakeReader();
  }

  #rejectWriters(error: Error): void {
    const unsent = this.#unsent;
    this.#unsent = [];
    this.#unsentBytes = 0;
    for (const { reject } of unsent) reject(error);
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#kernelCloses();
    for (const callback of this.#onClosed) callback();
  }

  /** The program has let go of it, or is dead. What it has not read makes the FIN a reset. */
  #kernelCloses(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#line.sockets.delete(this);
    if (this.host.boot !== this.#boot || this.#failure?.code === 'reset') return;
    if (this.#receivedBytes > 0 && !this.#finSent) {
      this.#out!.truncate(this.#line.random);
      this.#out!.send({ kind: 'rst' });
    } else if (!this.#finSent) {
      this.#out!.send({ kind: 'fin' });
    }
    this.#received = [];
    this.#receivedBytes = 0;
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

interface Listener {
  readonly process: Process;
  readonly onConnection: (socket: VirtualSocket) => void;
}

/** The ports of one host. */
export class Ports {
  readonly #listeners = new Map<string, Listener>();

  /** Until the process ends or `close` is called. */
  listen(name: string, process: Process, onConnection: (socket: VirtualSocket) => void): { close(): void } {
    const listener = { process, onConnection };
    this.#listeners.set(name, listener);
    const close = () => {
      if (this.#listeners.get(name) === listener) this.#listeners.delete(name);
    };
    process.onEnd(close);
    return { close };
  }

  find(name: string): Listener | undefined {
    return this.#listeners.get(name);
  }
}

export interface VirtualDial {
  readonly from: Process;
  readonly line: Line;
  readonly to: Host;
  readonly ports: Ports;
  readonly port: string;
  /** Which address of the host was dialled; its name where that makes no difference. */
  readonly address?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** A connection, or a ConnectionError, as `dial` of the real world gives it. */
export function dialVirtual(dial: VirtualDial): Promise<VirtualSocket> {
  const { from, line, to, ports, port, timeoutMs, signal, address = to.name } = dial;
  const { timeline } = line;
  return new Promise((resolve, reject) => {
    let isSettled = false;
    let attempt = 0;
    let client: VirtualSocket | undefined;
    const settle = (outcome: () => void) => {
      if (isSettled) return;
      isSettled = true;
      deadline.cancel();
      signal?.removeEventListener('abort', abort);
      outcome();
    };
    const fail = (code: 'refused' | 'timeout' | 'closed', words: string) =>
      settle(() => {
        client?.destroy();
        reject(new ConnectionError(code, `${to.name}: ${words}`));
      });
    const deadline = from.clock.after(timeoutMs, () => fail('timeout', 'did not answer in time'));
    const abort = () => fail('closed', 'dialling was stopped');
    signal?.addEventListener('abort', abort, { once: true });
    /** Nothing came back: TCP asks again after 1, 3, 7 … s. */
    const again = () => {
      if (!isSettled && from.isAlive) timeline.after(1000 * 2 ** attempt++, ask);
    };
    const ask = () => {
      if (isSettled || !from.isAlive) return;
      timeline.after(line.drawLatencyMs(), () => {
        if (!line.isUp || !to.isUp) return again();
        const listener = ports.find(port);
        if (listener !== undefined && client === undefined && from.isAlive && !isSettled) {
          client = connect(line, from, address, listener, port);
        }
        timeline.after(line.drawLatencyMs(), () => {
          if (!line.isUp) return again();
          const connected = client;
          from.deliver(dial, () => {
            if (connected === undefined) fail('refused', 'nothing listens there');
            else settle(() => resolve(connected));
          });
        });
      });
    };
    ask();
    if (signal?.aborted) abort();
  });
}

/** The kernel takes the connection at once; the program hears of it when it gets there. */
function connect(line: Line, from: Process, address: string, listener: Listener, port: string): VirtualSocket {
  const client = new VirtualSocket(line, from, { address, port: port === 'frames' ? 9732 : 9733 });
  const server = new VirtualSocket(line, listener.process, { address: from.host.address, port: line.takePort() });
  VirtualSocket.pair(client, server);
  listener.process.deliver(listener, () => listener.onConnection(server));
  return client;
}
