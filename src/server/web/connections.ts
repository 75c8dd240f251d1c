import type { Socket } from 'node:net';
import { countedAddress } from '../../runtime/places.ts';
import { plainAddress } from '../../runtime/socket.ts';
import type { Ports, TcpQueues } from './tcp-queue.ts';
import { WebConnection, type WebConnectionOptions } from './web-connection.ts';

export interface ConnectionsOptions extends Pick<WebConnectionOptions, 'clock' | 'onEnd'> {
  readonly connectionsMax: number;
  /** Of one address; of one /64 where it is IPv6. */
  readonly connectionsPerAddressMax: number;
  readonly queues: Pick<TcpQueues, 'isAcknowledged' | 'peerClose'>;
  onRefused(address: string, reason: Crowd): void;
  /** There are too many, and an idle one was ended to make room. */
  onCrowded(address: string, reason: Crowd): void;
}

/** Which bound was reached: connections of one address, or of all. */
export type Crowd = 'address' | 'all';

/** The open HTTP connections, within their bounds. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #open = new Map<Socket, Open>();
  /** By the socket that HTTP sees, which is another one with TLS. */
  readonly #bySocket = new WeakMap<Socket, WebConnection>();
  #isClosing = false;

  constructor(options: ConnectionsOptions) {
    this.#options = options;
  }

  /** Of the socket of a request. */
  of(socket: Socket): WebConnection | undefined {
    return this.#bySocket.get(socket);
  }

  /**
   * Accepts a new connection, or destroys it. If there are too many, an idle one is ended for it. Returns
   * whether it was accepted; {@link serve} follows at once, or behind a handshake.
   */
  admit(raw: Socket, { isUnix }: { readonly isUnix: boolean }): boolean {
    const { connectionsMax, connectionsPerAddressMax, onRefused, onCrowded } = this.#options;
    // A peer that disconnected before it was accepted has no address.
    if (this.#isClosing || (raw.remoteAddress === undefined && !isUnix)) {
      raw.destroy();
      return false;
    }
    const address = isUnix ? 'unix' : plainAddress(raw.remoteAddress ?? '');
    const owner = countedAddress(address);
    const all = this.#all().filter(({ isHalfClosed }) => !isHalfClosed);
    const own = all.filter((each) => each.owner === owner);
    const crowd: Crowd | undefined =
      own.length >= connectionsPerAddressMax ? 'address' : all.length >= connectionsMax ? 'all' : undefined;
    if (crowd !== undefined) {
      if (!this.#makeRoom(crowd === 'address' ? own : all)) {
        raw.destroy();
        onRefused(address, crowd);
        return false;
      }
      onCrowded(address, crowd);
    }
    const { clock, onEnd, queues } = this.#options;
    // Kept, because a socket that is closed has forgotten them.
    const ports = { localPort: raw.localPort, remotePort: raw.remotePort };
    const transport = {
      end: () => void open.socket.end(),
      destroy: () => void open.socket.destroy(),
      isAcknowledged: () => queues.isAcknowledged(ports),
    };
    const connection = new WebConnection(transport, { clock, onEnd, address, owner });
    const open: Open = { connection, ports, socket: raw, isClosing: false };
    this.#open.set(raw, open);
    follow(raw, open);
    raw.once('close', () => this.#open.delete(raw));
    return true;
  }

  /** HTTP begins: on the connection itself, or on the TLS above it. Undefined where it has ended meanwhile. */
  serve(raw: Socket, socket: Socket): WebConnection | undefined {
    const open = this.#open.get(raw);
    if (open === undefined) return undefined;
    const { connection } = open;
    this.#bySocket.set(socket, connection);
    // Node calls this after an answer that is the connection's last ("Connection: close", or HTTP/1.0). Its own method
    // closes both ends at once, so that nothing would show whether the client has read that answer. There is no other
    // way to change it.
    socket.destroySoon = () => void connection.halfClose();
    // Before Node's own listener, which closes our end: the client has not acknowledged that yet.
    if (socket === raw) socket.prependOnceListener('end', () => connection.clientClosed());
    else {
      open.socket = socket;
      follow(socket, open);
      socket.prependOnceListener('end', () => this.#secureEnd(open));
    }
    return connection;
  }

  /**
   * TLS has ended. A client says so before its FIN, and also before the reset of one that has not read all: only a FIN
   * counts. It is there already, as a rule.
   */
  #secureEnd(open: Open): void {
    const { clock, queues } = this.#options;
    const { connection, ports, socket } = open;
    let looks = 0;
    open.isClosing = true;
    // Our own close, which is Node's next step, would hide what the client does.
    socket.end = () => socket;
    const look = () => {
      const how = connection.hasScraped ? queues.peerClose(ports) : 'fin';
      if (how === 'not-yet' && ++looks < looksMax) return void clock.after(lookEveryMs, look);
      open.isClosing = false;
      Reflect.deleteProperty(socket, 'end');
      if (how === 'fin') connection.clientClosed();
      else connection.closed();
      if (looks > 0) socket.end();
    };
    look();
  }

  /** Accepts no more, and lets requests under way end, for `graceMs` at most. */
  close(graceMs: number): Promise<void> {
    this.#isClosing = true;
    const ended = Promise.all(this.#all().map((connection) => connection.halfClose()));
    return new Promise((resolve) => {
      const grace = this.#options.clock.after(graceMs, resolve);
      void ended.then(() => {
        grace.cancel();
        resolve();
      });
    });
  }

  #all(): WebConnection[] {
    return [...this.#open.values()].map(({ connection }) => connection);
  }

  /** Ends the connection that was idle longest, first of those that have never scraped. */
  #makeRoom(crowd: readonly WebConnection[]): boolean {
    const resting = crowd.filter(({ restingSinceMs }) => restingSinceMs !== undefined);
    const [first] = resting.sort(
      (a, b) => Number(a.hasScraped) - Number(b.hasScraped) || a.restingSinceMs! - b.restingSinceMs!,
    );
    if (first === undefined) return false;
    const halfClosed = this.#all().filter(({ isHalfClosed }) => isHalfClosed);
    // Each takes a second to end if its client does not answer.
    if (halfClosed.length >= halfClosedMax) first.destroy();
    else void first.halfClose();
    return true;
  }
}

/** A connection, and what carries it. */
interface Open {
  readonly connection: WebConnection;
  readonly ports: Ports;
  /** The one that HTTP writes to. */
  socket: Socket;
  /** How it has ended is being looked at. */
  isClosing: boolean;
}

function follow(socket: Socket, open: Open): void {
  const closed = () => {
    if (!open.isClosing) open.connection.closed();
  };
  // Whichever comes first: with 'close' alone, a FIN and the next connection's request could be seen in one turn.
  socket.once('error', closed);
  socket.once('close', closed);
}

const halfClosedMax = 64;
// A FIN that is behind the end of TLS comes within milliseconds.
const lookEveryMs = 20;
const looksMax = 25;
