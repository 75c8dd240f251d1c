import type { Clock, Timer } from '../../src/runtime/clock.ts';
import type { ScrapeConnection } from '../../src/server/delivery/scraper.ts';
import { identify, withRequest } from '../../src/server/web/identify.ts';
import type { WebOptions, WebServer } from '../../src/server/web/listener.ts';
import { type AnswerSink, ScrapeEndpoint } from '../../src/server/web/scrape-endpoint.ts';
import { WebConnection } from '../../src/server/web/web-connection.ts';
import type { Process } from './machine.ts';
import type { Ports, VirtualSocket } from './network.ts';

/** A scrape's request as it travels: a line of JSON. */
export interface Request {
  /** Which Prometheus asks: for the simulation's eyes only. */
  readonly from: string;
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What the simulation wants to know, and says. */
export interface WebEyes {
  opened(socket: VirtualSocket): void;
  /** A request is about to be answered. */
  asked(connection: ScrapeConnection, asked: { readonly socket: VirtualSocket; readonly request: Request }): void;
  /** The number of the answer that is being given over it. */
  answerId(connection: ScrapeConnection): number;
  crashed(error: unknown): void;
}

/**
 * The HTTP port of a server over virtual connections. Of HTTP there is a line for a request, and for an answer a line, a body
 * and a zero byte. Who asks, what is given, and what a connection's end means is what ships.
 */
export function openVirtualWeb(process: Process, ports: Ports, options: WebOptions, eyes: WebEyes): WebServer {
  const endpoint = new ScrapeEndpoint(options);
  const open = new Set<LineConnection>();
  const { close } = ports.listen('http', process, (socket) => {
    eyes.opened(socket);
    const connection = new LineConnection(socket, options, endpoint, eyes);
    open.add(connection);
    connection.run().then(() => open.delete(connection), eyes.crashed);
  });
  return {
    ports: [0],
    async close(graceMs) {
      close();
      const ended = Promise.all([...open].map(({ connection }) => connection.halfClose()));
      await Promise.race([ended, options.clock.sleep(graceMs)]);
      for (const { connection } of open) connection.destroy();
    },
  };
}

class LineConnection {
  readonly connection: WebConnection;
  readonly #socket: VirtualSocket;
  readonly #endpoint: ScrapeEndpoint;
  readonly #eyes: WebEyes;
  readonly #clock: Clock;
  #resting: Timer | undefined;
  /** Our end is closed; resolves when the other one is, too. */
  #ended: Promise<void> | undefined;

  constructor(socket: VirtualSocket, { clock, delivery }: WebOptions, endpoint: ScrapeEndpoint, eyes: WebEyes) {
    this.#socket = socket;
    this.#endpoint = endpoint;
    this.#eyes = eyes;
    const transport = {
      end: () => {
        this.#ended = socket.end(longMs);
      },
      destroy: () => socket.destroy(),
      isAcknowledged: () => (this.#ended === undefined ? socket.areBytesDelivered : socket.isDelivered),
    };
    this.connection = new WebConnection(transport, {
      ...{ clock, address: socket.peerAddress, owner: socket.peerAddress },
      onEnd: (connection, how) => delivery.connectionEvent(connection, how),
    });
    this.#clock = clock;
    this.#rest();
  }

  async run(): Promise<void> {
    const { connection } = this;
    let text = '';
    try {
      for await (const chunk of this.#socket) {
        text += Buffer.from(chunk).toString('latin1');
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          const request = JSON.parse(text.slice(0, end)) as Request;
          text = text.slice(end + 1);
          this.#resting?.cancel();
          if (!connection.answer(() => this.#answer(request))) connection.destroy();
        }
      }
    } catch {
      // It broke: the end of the connection says so.
    }
    await this.#ended;
    if (this.#socket.hasPeerEnded) connection.clientClosed();
    this.#socket.destroy();
    connection.closed();
    this.#resting?.cancel();
  }

  /** As Node's server does between two requests. */
  #rest(): void {
    this.#resting?.cancel();
    this.#resting = this.#clock.after(keepAliveMs, () => void this.connection.halfClose());
  }

  async #answer(request: Request): Promise<void> {
    const { connection } = this;
    const facts = { ...request, method: 'GET', address: connection.address, httpVersion: '1.1' };
    const identified = identify(facts);
    if ('wrong' in identified) throw new Error(identified.wrong);
    this.#eyes.asked(connection.scraper, { socket: this.#socket, request });
    const { address, owner, scraper } = connection;
    const nowMs = this.#clock.monotonicMs();
    const { past, proxy } = withRequest(connection.past, { request: facts, headerNames: [], identified, nowMs });
    connection.past = past;
    const from = { address, owner, connection: scraper, proxy };
    const sink = new LineSink(this.#socket, () => this.#eyes.answerId(scraper));
    await this.#endpoint.answer(identified, from, sink).catch(this.#eyes.crashed);
    this.#rest();
  }
}

/** An answer over a virtual connection. */
class LineSink implements AnswerSink {
  readonly ended: Promise<'sent' | 'lost'>;
  readonly #socket: VirtualSocket;
  readonly #answerId: () => number;
  #writtenBytes = 0;
  #writes: Promise<unknown> = Promise.resolve();
  #end: (how: 'sent' | 'lost') => void = () => {};

  constructor(socket: VirtualSocket, answerId: () => number) {
    this.#socket = socket;
    this.#answerId = answerId;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    socket.onOver(() => this.#end('lost'));
  }

  get isLost(): boolean {
    return this.#socket.isOver;
  }

  get sentBytes(): number {
    return this.#writtenBytes - this.#socket.unsentBytes;
  }

  refuse(code: number): void {
    void this.#write(Buffer.from(`${JSON.stringify({ status: code, id: -1 })}\n\0`)).then(this.#end);
  }

  begin(): void {
    void this.#write(Buffer.from(`${JSON.stringify({ status: 200, id: this.#answerId() })}\n`));
  }

  write(slice: Uint8Array, onFree: () => void): boolean {
    void this.#write(slice).then(onFree);
    return false;
  }

  async drained(): Promise<void> {
    await this.#writes;
  }

  finish(text: string): void {
    void this.#write(Buffer.from(`${text}\0`)).then(this.#end);
  }

  cut(): void {
    this.#socket.destroy();
  }

  /** Resolves to whether the kernel has taken it. */
  #write(bytes: Uint8Array): Promise<'sent' | 'lost'> {
    this.#writtenBytes += bytes.length;
    const written = this.#socket.write(bytes).then(
      () => 'sent' as const,
      () => 'lost' as const,
    );
    this.#writes = written;
    return written;
  }
}

// Longer than a client is waited for.
const longMs = 3_600_000;
// Of listener.ts.
const keepAliveMs = 310_000;
