// A connection to a D-Bus daemon by its unix socket, as the user that the process runs as.
// https://dbus.freedesktop.org/doc/dbus-specification.html#auth-mechanisms-external
//
//     → \0AUTH EXTERNAL 31303030\r\n      ← OK 1234deadbeef\r\n      → BEGIN\r\n      then messages in both directions
import { createConnection, type Socket } from 'node:net';
import { BusError, type BusMessage, type BusValue, encodeCall, MessageDecoder, type MethodCall } from './message.ts';

export interface BusClientOptions {
  /** Of the socket. */
  readonly path: string;
  readonly uid: number;
  /** A whole answer to a call, or the connection, takes no longer. */
  readonly timeoutMs: number;
  readonly onSignal?: (message: BusMessage) => void;
}

export type Call = Omit<MethodCall, 'serial'>;

interface Pending {
  resolve(body: readonly BusValue[]): void;
  reject(error: BusError): void;
  readonly timer: NodeJS.Timeout;
  readonly member: string;
}

type State =
  | { readonly kind: 'greeting'; line: string; resolve(): void; reject(error: BusError): void }
  | { readonly kind: 'open'; readonly decoder: MessageDecoder }
  | { readonly kind: 'closed'; readonly error: BusError };

const greetingBytesMax = 1024;
const pendingMax = 4096;

/** Calls are answered in any order. After an error of the connection every call is refused with it. */
export class BusClient {
  readonly #socket: Socket;
  readonly #options: BusClientOptions;
  readonly #pending = new Map<number, Pending>();
  #state: State;
  #serial = 0;

  private constructor(socket: Socket, options: BusClientOptions, state: State) {
    this.#socket = socket;
    this.#options = options;
    this.#state = state;
  }

  /** Connects, proves who it is, and takes a name. Throws a BusError. */
  static async connect(options: BusClientOptions): Promise<BusClient> {
    const socket = createConnection(options.path);
    const timer = setTimeout(() => socket.destroy(new Error('it does not answer')), options.timeoutMs);
    try {
      const client = await new Promise<BusClient>((resolve, reject) => {
        const state: State = { kind: 'greeting', line: '', resolve: () => resolve(client), reject };
        const client = new BusClient(socket, options, state);
        client.#listen();
      });
      await client.call({
        ...{ destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus', interface: 'org.freedesktop.DBus' },
        member: 'Hello',
      });
      return client;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get isOpen(): boolean {
    return this.#state.kind === 'open';
  }

  /** The values that the method returns. Rejects with a BusError, `refused` where the other side answered with an error. */
  call(call: Call): Promise<readonly BusValue[]> {
    const state = this.#state;
    if (state.kind === 'closed') return Promise.reject(state.error);
    if (this.#pending.size >= pendingMax) {
      return Promise.reject(new BusError('limit', `more than ${pendingMax} calls are waiting`));
    }
    this.#serial = (this.#serial % 0xffff_ffff) + 1;
    const serial = this.#serial;
    return new Promise((resolve, reject) => {
      const { timeoutMs } = this.#options;
      const late = () => this.#end(new BusError('timeout', `no answer to ${call.member} in ${timeoutMs} ms`));
      const timer = setTimeout(late, timeoutMs);
      this.#pending.set(serial, { resolve, reject, timer, member: call.member });
      this.#socket.ref();
      this.#socket.write(encodeCall({ ...call, serial }));
    });
  }

  close(): void {
    this.#end(new BusError('closed', 'the connection was closed'));
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on('connect', () => {
      const identity = Buffer.from(String(this.#options.uid)).toString('hex');
      socket.write(`\0AUTH EXTERNAL ${identity}\r\n`);
    });
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#receive(chunk);
      } catch (error) {
        if (!(error instanceof BusError)) throw error;
        this.#end(error);
      }
    });
    socket.on('error', (error) => this.#end(new BusError('closed', error.message, { cause: error })));
    socket.on('close', () => this.#end(new BusError('closed', 'the other side has closed the connection')));
  }

  #receive(chunk: Buffer): void {
    const state = this.#state;
    if (state.kind === 'closed') return;
    if (state.kind === 'open') {
      for (const message of state.decoder.push(chunk)) this.#take(message);
      return;
    }
    state.line += chunk.toString('latin1');
    const end = state.line.indexOf('\r\n');
    if (end < 0) {
      if (state.line.length > greetingBytesMax) throw new BusError('limit', 'the answer to AUTH does not end');
      return;
    }
    const line = state.line.slice(0, end);
    // Nothing may follow before BEGIN.
    if (!line.startsWith('OK ') || state.line.length > end + 2) {
      throw new BusError('refused', `the answer to AUTH is ${JSON.stringify(line.slice(0, 80))}`);
    }
    this.#state = { kind: 'open', decoder: new MessageDecoder() };
    this.#socket.write('BEGIN\r\n');
    state.resolve();
  }

  #take(message: BusMessage): void {
    if (message.type === 'signal') return this.#options.onSignal?.(message);
    if (message.type !== 'return' && message.type !== 'error') return;
    const serial = message.replySerial ?? 0;
    const pending = this.#pending.get(serial);
    if (pending === undefined) return;
    this.#pending.delete(serial);
    clearTimeout(pending.timer);
    // An idle connection does not keep the program alive.
    if (this.#pending.size === 0) this.#socket.unref();
    if (message.type === 'return') return pending.resolve(message.body);
    const [text = ''] = message.body;
    pending.reject(new BusError('refused', `${pending.member}: ${message.errorName}: ${String(text).slice(0, 200)}`));
  }

  #end(error: BusError): void {
    const state = this.#state;
    if (state.kind === 'closed') return;
    this.#state = { kind: 'closed', error };
    this.#socket.destroy();
    if (state.kind === 'greeting') state.reject(error);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
  }
}
