import { encodeMessage } from '../../src/protocol/codec.ts';
import { encodeFrame } from '../../src/protocol/frame.ts';
import type { AgentMessage, EpochSeq, Hello, ServerMessage } from '../../src/protocol/messages.ts';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import { Receiver } from './recordings.ts';
import type { VirtualClock } from './virtual-clock.ts';

/** A server on a virtual clock that does what the wire asks for, and every kind of harm besides. */
export class ScriptedServer {
  readonly #clock: VirtualClock;
  readonly receiver = new Receiver();
  readonly hellos: Hello[] = [];
  readonly connections: ScriptedConnection[] = [];
  pings = 0;
  /** Of all agents' connections: each wakes the server. */
  writeCount = 0;
  /** Dials that found nobody. */
  refusals = 0;
  /** Nobody listens. */
  isAway = false;
  /** Takes the connection and then neither reads nor says anything. */
  isMute = false;
  /** Reads, and answers no ping. */
  isSilent = false;
  /** One way, for bytes in either direction. */
  latencyMs = 0;
  /** Its clock against that of the agent's host. */
  aheadMs = 0;
  /** Each connection breaks when so many bytes of the agent have come. */
  cutAfterBytes = Number.POSITIVE_INFINITY;
  /** What the welcome says was received; what was, where undefined. */
  known: readonly EpochSeq[] | undefined;
  /** A ping has come; what is changed here its answer has not. */
  onPing: (() => void) | undefined;
  /** In place of the welcome. */
  answerToHello: ((connection: ScriptedConnection) => void) | undefined;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  /** The connection that was made last. */
  get connection(): ScriptedConnection {
    return this.connections.at(-1)!;
  }

  readonly dial = async (): Promise<Connection> => {
    if (this.isAway) {
      this.refusals++;
      throw new ConnectionError('refused', 'server:9732 refused the connection');
    }
    const connection = new ScriptedConnection(this.#clock, this.latencyMs, (bytes) => this.#read(connection, bytes));
    this.connections.push(connection);
    this.receiver.reconnect();
    return connection;
  };

  /** The process is gone: connections are reset, and what it knew is what `keep` says. */
  restart(keep: readonly EpochSeq[] = []): void {
    for (const connection of this.connections) connection.break(new ConnectionError('reset', 'server:9732 reset it'));
    this.receiver.last.clear();
    for (const { epoch, seq } of keep) this.receiver.last.set(epoch, seq);
  }

  acknowledgeAll(): void {
    for (const [epoch, seq] of this.receiver.last) this.connection.send({ kind: 'ack', epoch, seq });
  }

  #read(connection: ScriptedConnection, bytes: Uint8Array): void {
    this.writeCount++;
    if (this.isMute) return;
    const left = this.cutAfterBytes - connection.readBytes;
    connection.readBytes += bytes.length;
    try {
      for (const message of this.receiver.push(bytes.subarray(0, Math.max(0, left)))) this.#answer(connection, message);
    } catch (error) {
      // As the server does with whatever is no refusal of its own.
      connection.send({ kind: 'error', code: 'internal', text: String(error) });
      connection.close();
    }
    if (bytes.length >= left) connection.break(new ConnectionError('reset', 'server:9732 reset it'));
  }

  #answer(connection: ScriptedConnection, message: AgentMessage): void {
    const nowMs = this.#clock.nowMs() + this.aheadMs;
    if (message.kind === 'hello') {
      this.hellos.push(message);
      if (this.answerToHello !== undefined) return this.answerToHello(connection);
      connection.send({ kind: 'welcome', version: 1, epochs: this.known ?? this.receiver.known, nowMs });
    } else if (message.kind === 'ping') {
      this.pings++;
      this.onPing?.();
      if (this.isSilent) return;
      connection.send({ kind: 'pong', nonce: message.nonce, nowMs });
    }
  }
}

/** The agent's end, and what the server does with its own. */
export class ScriptedConnection implements Connection {
  readonly peer = 'server:9732';
  readonly peerAddress = 'server';
  readonly identity = undefined;
  readonly unsentBytes = 0;
  readBytes = 0;
  /** Writes do not end any more: the peer reads nothing. */
  isStalled = false;
  isClosed = false;
  readonly #clock: VirtualClock;
  latencyMs: number;
  readonly #onBytes: (bytes: Uint8Array) => void;
  readonly #chunks: Uint8Array[] = [];
  #isEnded = false;
  #failure: ConnectionError | undefined;
  #wake: () => void = () => {};
  readonly #writers = new Set<(error: ConnectionError) => void>();

  constructor(clock: VirtualClock, latencyMs: number, onBytes: (bytes: Uint8Array) => void) {
    this.#clock = clock;
    this.latencyMs = latencyMs;
    this.#onBytes = onBytes;
  }

  /** The server says something. */
  send(message: ServerMessage): void {
    this.sendBytes(encodeFrame(encodeMessage(message)));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#later(() => {
      this.#chunks.push(bytes);
      this.#wake();
    });
  }

  /** The server closes in good order, after what it has sent. */
  close(): void {
    this.#later(() => {
      this.#isEnded = true;
      this.#wake();
    });
  }

  /** It breaks, whoever is to blame. */
  break(error: ConnectionError): void {
    this.#failure ??= error;
    this.isClosed = true;
    for (const reject of this.#writers) reject(this.#failure);
    this.#wake();
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.isStalled) {
      return new Promise((_, reject) => {
        this.#writers.add(reject);
      });
    }
    this.#later(() => this.#failure ?? this.#onBytes(bytes));
    return Promise.resolve();
  }

  async end(): Promise<void> {
    this.break(new ConnectionError('closed', 'the connection to server:9732 has ended'));
  }

  destroy(reason?: Error): void {
    this.break(reason instanceof ConnectionError ? reason : new ConnectionError('closed', `ended here: ${reason}`));
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) yield chunk;
      else if (this.#failure !== undefined) throw this.#failure;
      else if (this.#isEnded) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #later(what: () => void): void {
    if (this.latencyMs === 0) what();
    else this.#clock.after(this.latencyMs, what);
  }
}
