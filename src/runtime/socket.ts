import type { Socket } from 'node:net';
import { type Connection, ConnectionError, type ConnectionErrorCode } from './connection.ts';
import { codeOf } from './words.ts';

const endTimeoutMs = 2000;

/**
 * A connected socket, plain or TLS, as a Connection. Only one chunk and the socket's own buffer are read ahead: a slow
 * reader makes the peer wait instead of filling memory. `identity` is what TLS has proved.
 */
export function socketConnection(socket: Socket, identity?: string): Connection {
  return new SocketConnection(socket, identity);
}

/** A reader or a writer that waits. */
interface Waiting {
  resolve(): void;
  reject(error: ConnectionError): void;
}

class SocketConnection implements Connection {
  readonly peer: string;
  readonly peerAddress: string;
  readonly identity: string | undefined;
  readonly #socket: Socket;
  readonly #chunks: Uint8Array[] = [];
  #reading = false;
  #reader: Waiting | undefined;
  #writers: Waiting[] = [];
  /** The peer has half-closed: there is nothing more to read. */
  #ended = false;
  /** This side has half-closed: what still arrives is discarded. */
  #ending = false;
  /** Why nothing can be read or written any more. */
  #failure: ConnectionError | undefined;
  #closed = false;

  constructor(socket: Socket, identity: string | undefined) {
    this.#socket = socket;
    this.peerAddress = plainAddress(socket.remoteAddress ?? 'unknown');
    this.peer = peerText(socket);
    this.identity = identity;
    socket.setNoDelay(true); // a report is one small write, which should not wait for the acknowledgement of the last
    socket.on('data', (chunk: Uint8Array) => this.#take(chunk));
    socket.on('end', () => this.#peerEnded());
    socket.on('drain', () => this.#drained());
    socket.on('finish', () => this.#drained()); // after end() there is no drain any more
    socket.on('error', (error) => this.#fail(connectionErrorOf(error, this.peer)));
    socket.on('close', () => {
      this.#closed = true;
      this.#fail(new ConnectionError('closed', `the connection to ${this.peer} has ended`));
    });
    if (socket.destroyed) this.#fail(new ConnectionError('closed', `the connection to ${this.peer} has ended`));
  }

  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#ending) {
      return Promise.reject(new ConnectionError('closed', `the connection to ${this.peer} is being closed`));
    }
    // A write would fail too, with another error: allowHalfOpen is off, so the socket is closing itself.
    if (this.#ended) return Promise.reject(new ConnectionError('closed', `${this.peer} closed the connection`));
    if (this.#socket.write(bytes)) return Promise.resolve();
    return new Promise((resolve, reject) => this.#writers.push({ resolve, reject }));
  }

  end(timeoutMs = endTimeoutMs): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#ending = true;
    // Unread bytes would turn the half-close into a reset, which discards what the peer has not read.
    this.#chunks.length = 0;
    this.#socket.resume();
    this.#wakeReader();
    this.#socket.end();
    return new Promise((resolve) => {
      const overdue = setTimeout(() => this.destroy(), timeoutMs);
      this.#socket.once('close', () => {
        clearTimeout(overdue);
        resolve();
      });
    });
  }

  destroy(reason?: Error): void {
    this.#chunks.length = 0;
    if (reason instanceof ConnectionError) this.#fail(reason);
    else {
      const why = reason === undefined ? '' : `: ${reason.message}`;
      const options = reason === undefined ? undefined : { cause: reason };
      this.#fail(new ConnectionError('closed', `the connection to ${this.peer} was ended here${why}`, options));
    }
    this.#socket.destroy();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    if (this.#reading) throw new Error(`the connection to ${this.peer} has a reader already`);
    this.#reading = true;
    return { next: () => this.#next() };
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        if (this.#chunks.length === 0) this.#socket.resume();
        return { done: false, value: chunk };
      }
      if (this.#ended || this.#ending) return { done: true, value: undefined };
      // Only now: what arrived before the failure may be the peer's reason for it.
      if (this.#failure) throw this.#failure;
      await new Promise<void>((resolve, reject) => {
        this.#reader = { resolve, reject };
      });
    }
  }

  #take(chunk: Uint8Array): void {
    if (this.#ending) return;
    this.#chunks.push(chunk);
    if (this.#reader) this.#wakeReader();
    else this.#socket.pause(); // one chunk ahead is enough
  }

  #wakeReader(): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.resolve();
  }

  #peerEnded(): void {
    this.#ended = true;
    this.#wakeReader();
    this.#rejectWriters(new ConnectionError('closed', `${this.peer} closed the connection`));
  }

  #drained(): void {
    const writers = this.#writers;
    this.#writers = [];
    for (const writer of writers) writer.resolve();
  }

  #rejectWriters(error: ConnectionError): void {
    const writers = this.#writers;
    this.#writers = [];
    for (const writer of writers) writer.reject(error);
  }

  #fail(error: ConnectionError): void {
    if (this.#failure) return;
    this.#failure = error;
    const reader = this.#reader;
    this.#reader = undefined;
    if (this.#ending) reader?.resolve();
    else reader?.reject(error);
    this.#rejectWriters(error);
  }
}

/** The peer of a socket for log lines: `192.0.2.7:51234`, `[2001:db8::7]:51234`. */
export function peerText(socket: Socket): string {
  if (socket.remoteAddress === undefined) return 'a peer that has disconnected';
  const address = plainAddress(socket.remoteAddress);
  return `${address.includes(':') ? `[${address}]` : address}:${socket.remotePort}`;
}

/** A socket that listens on `::` sees IPv4 peers as `::ffff:192.0.2.7`. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address;
}

/** An error of a socket as a ConnectionError. `peer` is a name for the other end. */
export function connectionErrorOf(error: Error, peer: string): ConnectionError {
  if (error instanceof ConnectionError) return error;
  const systemCode = codeOf(error);
  const reason = socketReasonOf(error);
  const code = codes[systemCode] ?? (isTls(systemCode) ? tlsCode(reason) : 'network');
  return new ConnectionError(code, messages[code](peer, reason), { cause: error });
}

const codes: Readonly<Record<string, ConnectionErrorCode>> = {
  ECONNREFUSED: 'refused',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EHOSTDOWN: 'unreachable',
  ENETDOWN: 'unreachable',
  ETIMEDOUT: 'timeout',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  ECONNABORTED: 'reset',
  ENOTFOUND: 'name',
  EAI_AGAIN: 'name',
  EAI_FAIL: 'name',
};

// What OpenSSL reports (ERR_SSL_…, EPROTO), Node's own (ERR_TLS_…), and the verdicts on a certificate.
function isTls(code: string): boolean {
  return /^(?:ERR_SSL_|ERR_TLS_|EPROTO$|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/.test(code);
}

/** OpenSSL finds a wrong version or length in the first bytes of HTTP and other protocols. */
function tlsCode(reason: string): ConnectionErrorCode {
  return /^(?:wrong version number|packet length too long|http request)$/.test(reason) ? 'not-tls' : 'tls';
}

const messages: Readonly<Record<ConnectionErrorCode, (peer: string, reason: string) => string>> = {
  refused: (peer) => `${peer} refused the connection: nothing listens there`,
  unreachable: (peer, reason) => `${peer} cannot be reached: ${reason}`,
  timeout: (peer) => `${peer} did not answer in time`,
  reset: (peer) => `${peer} reset the connection`,
  closed: (peer) => `${peer} closed the connection`,
  name: (peer, reason) => `the name of ${peer} cannot be resolved: ${reason}`,
  tls: (peer, reason) => `no TLS with ${peer}: ${reason}`,
  'not-tls': (peer) => `${peer} does not speak TLS: agents connect to another port, usually 9732`,
  network: (peer, reason) => `the connection to ${peer} failed: ${reason}`,
};

function socketReasonOf(error: Error): string {
  // OpenSSL's messages end with the names of its source files; the reason is in a field of its own.
  const { reason } = error as { reason?: unknown };
  return typeof reason === 'string' && reason !== '' ? reason : error.message;
}
