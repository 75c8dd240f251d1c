import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Scope } from './programs.ts';
import { portOf } from './sockets.ts';

export interface TapOptions {
  /** Where connections go on to. */
  readonly to: number;
  /** Called for each connection: what is to be told of the bytes that the client sends on it. */
  readonly watch?: () => (chunk: Uint8Array) => void;
  /** How long it takes each way. */
  readonly delayMs?: number;
}

/**
 * A line between a client and a server, both on 127.0.0.1: it hands every byte on, and can be broken in the ways in which
 * lines break.
 */
export class Tap {
  readonly #server: Server;
  readonly #options: TapOptions;
  port = 0;
  readonly #pairs = new Set<Pair>();
  #isDown = false;
  #isSwallowing = false;
  #isStalled = false;
  /** Connections that came in, also those that were turned away. */
  connections = 0;
  /** Answers that the server has sent as a whole, and that went no further. */
  swallowed = 0;

  private constructor(options: TapOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#accept(client));
  }

  static async open(scope: Scope, options: TapOptions): Promise<Tap> {
    const tap = new Tap(options);
    await new Promise<void>((resolve, reject) => {
      tap.#server.once('error', reject);
      tap.#server.listen(0, '127.0.0.1', resolve);
    });
    tap.port = portOf(tap.#server);
    scope.after(() => {
      tap.#server.close();
      tap.cut();
    });
    return tap;
  }

  /** Every connection ends at once, with what is under way on it. */
  cut(): void {
    for (const pair of this.#pairs) pair.destroy();
  }

  /** Cut, and no new connection until `up`. */
  down(): void {
    this.#isDown = true;
    this.cut();
  }

  /** As if a cable were pulled: nothing arrives, nobody is told, and no new connection comes through until `up`. */
  stall(): void {
    this.#isDown = true;
    this.#isStalled = true;
    for (const pair of this.#pairs) pair.stall();
  }

  up(): void {
    this.#isDown = false;
    this.#isStalled = false;
    for (const pair of this.#pairs) pair.resume();
  }

  /**
   * From now on what the server answers to HTTP requests is read, and goes no further. When an answer has come whole, the
   * connection ends: at once, or when the client has lost patience.
   */
  swallow(end: 'at once' | 'by the client'): void {
    this.#isSwallowing = true;
    for (const pair of this.#pairs) pair.swallow(end);
    this.#swallowEnd = end;
  }
  #swallowEnd: 'at once' | 'by the client' = 'at once';

  /** From now on a new connection that rests for so long ends, as idle ones do at proxies and balancers. */
  endAtRest(ms: number, by: 'close' | 'reset'): void {
    this.#rest = { ms, by };
  }
  #rest: Rest | undefined;

  stopSwallowing(): void {
    this.#isSwallowing = false;
    for (const pair of this.#pairs) pair.swallow(undefined);
  }

  #accept(client: Socket): void {
    this.connections++;
    if (this.#isDown) {
      client.on('error', () => {}); // it is turned away, and that is all there is to it
      client.resetAndDestroy();
      return;
    }
    const pair = new Pair(client, this.#options, {
      onSwallowed: () => this.swallowed++,
      onEnd: () => this.#pairs.delete(pair),
    });
    this.#pairs.add(pair);
    if (this.#isSwallowing) pair.swallow(this.#swallowEnd);
    if (this.#isStalled) pair.stall();
    if (this.#rest !== undefined) pair.endAtRest(this.#rest);
  }
}

interface Rest {
  readonly ms: number;
  readonly by: 'close' | 'reset';
}

/** One connection that came in, and the one that goes on. */
class Pair {
  readonly #client: Socket;
  readonly #upstream: Socket;
  readonly #onEnd: () => void;
  readonly #onSwallowed: () => void;
  #swallowing: 'at once' | 'by the client' | undefined;
  /** Something of an answer has been swallowed: the rest of it must be too. */
  isAnswerSwallowed = false;
  #isStalled = false;
  readonly #delayMs: number;

  constructor(client: Socket, options: TapOptions, on: { onEnd: () => void; onSwallowed: () => void }) {
    this.#client = client;
    this.#onEnd = on.onEnd;
    this.#onSwallowed = on.onSwallowed;
    this.#upstream = connect({ port: options.to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    client.setNoDelay(true);
    this.#delayMs = options.delayMs ?? 0;
    const watch = options.watch?.();
    this.#carry(client, this.#upstream, (chunk) => {
      watch?.(chunk);
      return true;
    });
    this.#carry(this.#upstream, client, (chunk) => this.#passes(chunk));
  }

  destroy(): void {
    for (const socket of [this.#client, this.#upstream]) reset(socket);
    this.#onEnd();
  }

  stall(): void {
    this.#isStalled = true;
    for (const socket of [this.#client, this.#upstream]) socket.pause();
  }

  resume(): void {
    if (!this.#isStalled) return;
    this.#isStalled = false;
    for (const socket of [this.#client, this.#upstream]) socket.resume();
  }

  swallow(end: 'at once' | 'by the client' | undefined): void {
    this.#swallowing = end;
  }

  endAtRest({ ms, by }: Rest): void {
    const end = () => {
      if (by === 'reset') return this.destroy();
      for (const socket of [this.#client, this.#upstream]) socket.end();
    };
    let timer = setTimeout(end, ms);
    for (const socket of [this.#client, this.#upstream]) {
      socket.on('data', () => {
        clearTimeout(timer);
        timer = setTimeout(end, ms);
      });
      socket.on('close', () => clearTimeout(timer));
    }
  }

  /** Whether a part of an answer goes on to the client. */
  #passes(chunk: Uint8Array): boolean {
    if (this.#swallowing === undefined && !this.isAnswerSwallowed) return true;
    this.isAnswerSwallowed = true;
    // The last chunk of HTTP's chunked coding, behind which nothing comes before the next request.
    if (Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).subarray(-5).toString('latin1') === '0\r\n\r\n') {
      this.#onSwallowed();
      if (this.#swallowing !== 'by the client') {
        this.#client.end();
        this.#upstream.end();
      }
    }
    return false;
  }

  #carry(from: Socket, to: Socket, passes: (chunk: Uint8Array) => boolean): void {
    from.on('data', (chunk: Uint8Array) => {
      if (!passes(chunk)) return;
      this.#arrive(() => {
        if (!to.writable || to.write(chunk)) return;
        from.pause();
        to.once('drain', () => {
          if (!this.#isStalled) from.resume();
        });
      });
    });
    from.on('end', () => this.#arrive(() => to.end()));
    // Nobody is told how a connection ended but the two ends of it.
    from.on('error', () => {});
    from.on('close', (hadError) => {
      this.#arrive(() => {
        if (hadError) reset(to);
        else to.destroy();
      });
      this.#onEnd();
    });
  }

  #arrive(what: () => void): void {
    if (this.#delayMs === 0) what();
    else setTimeout(what, this.#delayMs);
  }
}

/**
 * Ends a connection as a kernel does whose program has gone. libuv refuses to reset a connection of which an end is
 * already on its way (UV_EINVAL of uv_tcp_close_reset); Node then never closes the handle, and spins for ever at its exit.
 */
function reset(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
