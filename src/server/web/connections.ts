import type { Socket } from 'node:net';
import { countedAddress } from '../../runtime/listen.ts';
import { plainAddress } from '../../runtime/socket.ts';
import { WebConnection, type WebConnectionOptions } from './web-connection.ts';

export interface ConnectionsOptions extends Pick<WebConnectionOptions, 'clock' | 'onEnd'> {
  readonly connectionsMax: number;
  /** Of one address; of one /64 where it is IPv6. */
  readonly connectionsPerAddressMax: number;
  /** Whether the peer's kernel has acknowledged all that was sent. */
  isAcknowledged(socket: Socket): boolean;
  onRefused(address: string, reason: Crowd): void;
  /** There are too many, and an idle one was ended to make room. */
  onCrowded(address: string, reason: Crowd): void;
}

/** Which bound was reached: connections of one address, or of all. */
export type Crowd = 'address' | 'all';

/** The open HTTP connections, within their bounds. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #open = new Map<Socket, WebConnection>();
  #isClosing = false;

  constructor(options: ConnectionsOptions) {
    this.#options = options;
  }

  of(socket: Socket): WebConnection | undefined {
    return this.#open.get(socket);
  }

  /** Accepts a new connection, or destroys it. If there are too many, an idle one is ended for it. */
  admit(socket: Socket): void {
    const { connectionsMax, connectionsPerAddressMax, onRefused, onCrowded } = this.#options;
    // A peer that disconnected before it was accepted has no address.
    if (this.#isClosing || socket.remoteAddress === undefined) return void socket.destroy();
    const address = plainAddress(socket.remoteAddress);
    const owner = countedAddress(address);
    const all = [...this.#open.values()].filter(({ isHalfClosed }) => !isHalfClosed);
    const own = all.filter((each) => each.owner === owner);
    const crowd: Crowd | undefined =
      own.length >= connectionsPerAddressMax ? 'address' : all.length >= connectionsMax ? 'all' : undefined;
    if (crowd !== undefined) {
      if (!this.#makeRoom(crowd === 'address' ? own : all)) {
        socket.destroy();
        return onRefused(address, crowd);
      }
      onCrowded(address, crowd);
    }
    const { clock, onEnd, isAcknowledged } = this.#options;
    const transport = {
      end: () => void socket.end(),
      destroy: () => void socket.destroy(),
      isAcknowledged: () => isAcknowledged(socket),
    };
    const connection = new WebConnection(transport, { clock, onEnd, address, owner });
    this.#open.set(socket, connection);
    // Node calls this after an answer that is the connection's last ("Connection: close", or HTTP/1.0). Its own method
    // closes both ends at once, so that nothing would show whether the client has read that answer. There is no other
    // way to change it.
    socket.destroySoon = () => void connection.halfClose();
    // Before Node's own listener, which closes our end: the client has not acknowledged that yet.
    socket.prependOnceListener('end', () => connection.clientClosed());
    // Whichever comes first: with 'close' alone, a FIN and the next connection's request could be seen in one turn.
    socket.once('error', () => connection.closed());
    socket.once('close', () => {
      connection.closed();
      this.#open.delete(socket);
    });
  }

  /** Accepts no more, and lets requests under way end, for `graceMs` at most. */
  close(graceMs: number): Promise<void> {
    this.#isClosing = true;
    const ended = Promise.all([...this.#open.values()].map((connection) => connection.halfClose()));
    return new Promise((resolve) => {
      const grace = this.#options.clock.after(graceMs, resolve);
      void ended.then(() => {
        grace.cancel();
        resolve();
      });
    });
  }

  /** Ends the connection that was idle longest, first of those that have never scraped. */
  #makeRoom(crowd: readonly WebConnection[]): boolean {
    const resting = crowd.filter(({ restingSinceMs }) => restingSinceMs !== undefined);
    const [first] = resting.sort(
      (a, b) => Number(a.hasScraped) - Number(b.hasScraped) || a.restingSinceMs! - b.restingSinceMs!,
    );
    if (first === undefined) return false;
    const halfClosed = [...this.#open.values()].filter(({ isHalfClosed }) => isHalfClosed);
    // Each takes a second to end if its client does not answer.
    if (halfClosed.length >= halfClosedMax) first.destroy();
    else void first.halfClose();
    return true;
  }
}

const halfClosedMax = 64;
