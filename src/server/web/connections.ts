import type { Socket } from 'node:net';
import type { Clock } from '../../runtime/clock.ts';
import { countedAddress } from '../../runtime/listen.ts';
import { plainAddress } from '../../runtime/socket.ts';
import type { ConnectionEvent, ScrapeConnection } from '../delivery/scraper.ts';
import { type ConnectionPast, nothingPast } from './identify.ts';

export interface ConnectionsOptions {
  readonly clock: Clock;
  readonly connectionsMax: number;
  /** Of one address; of one /64 where it is IPv6. */
  readonly connectionsPerAddressMax: number;
  /** Whether the peer's kernel has acknowledged all that was sent. */
  isAcknowledged(socket: Socket): boolean;
  /** The connection has ended. Called once or more; the first time counts. */
  onEnd(connection: ScrapeConnection, how: ConnectionEvent): void;
  onRefused(address: string, reason: 'full' | 'full-address'): void;
}

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

  /** Takes in a new connection, or breaks it off. Where there are too many, one that rests is ended for it. */
  admit(socket: Socket): void {
    const { connectionsMax, connectionsPerAddressMax, onRefused } = this.#options;
    // A peer may have gone before it was accepted; then it has no address.
    if (this.#isClosing || socket.remoteAddress === undefined) return void socket.destroy();
    const address = plainAddress(socket.remoteAddress);
    const owner = countedAddress(address);
    const all = [...this.#open.values()].filter(({ isHalfClosed }) => !isHalfClosed);
    const own = all.filter((each) => each.owner === owner);
    const isCrowded = own.length >= connectionsPerAddressMax || all.length >= connectionsMax;
    if (isCrowded && !this.#makeRoom(own.length >= connectionsPerAddressMax ? own : all)) {
      socket.destroy();
      return onRefused(address, own.length >= connectionsPerAddressMax ? 'full-address' : 'full');
    }
    this.#open.set(socket, new WebConnection(socket, { ...this.#options, address, owner }));
    socket.once('close', () => this.#open.delete(socket));
  }

  /** Takes no more, and lets those under way end, for `graceMs` at the most. */
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

  /** Ends the one that has rested longest, of those that have never scraped if there are any. */
  #makeRoom(crowd: readonly WebConnection[]): boolean {
    const resting = crowd.filter(({ restingSinceMs }) => restingSinceMs !== undefined);
    const [first] = resting.sort(
      (a, b) => Number(a.hasScraped) - Number(b.hasScraped) || a.restingSinceMs! - b.restingSinceMs!,
    );
    if (first === undefined) return false;
    const halfClosed = [...this.#open.values()].filter(({ isHalfClosed }) => isHalfClosed);
    // Each takes a second to go where its client does not answer.
    if (halfClosed.length >= halfClosedMax) first.socket.destroy();
    else void first.halfClose();
    return true;
  }
}

type State =
  /** No request is under way. */
  | { readonly kind: 'resting'; readonly sinceMs: number }
  /** `isLast`: it is ended after them. */
  | { readonly kind: 'answering'; readonly requests: number; readonly isLast: boolean }
  /** Our end is closed. */
  | { readonly kind: 'half-closed' };

/** A connection, its requests one after another, and how it ends: that tells whether the last answer was read. */
export class WebConnection {
  readonly socket: Socket;
  /** Without its port. */
  readonly address: string;
  /** Whose it counts as: its address, or its /64. */
  readonly owner: string;
  readonly scraper: ScrapeConnection;
  /** What its requests said. */
  past: ConnectionPast = nothingPast;
  hasScraped = false;
  readonly #options: ConnectionsOptions;
  #state: State;
  #tail: Promise<void> = Promise.resolve();

  constructor(socket: Socket, options: ConnectionsOptions & { readonly address: string; readonly owner: string }) {
    this.socket = socket;
    this.address = options.address;
    this.owner = options.owner;
    this.scraper = { address: options.address };
    this.#options = options;
    this.#state = { kind: 'resting', sinceMs: options.clock.monotonicMs() };
    // Node calls this after an answer that is the connection's last ("Connection: close", or HTTP/1.0). Its own closes both
    // ends at once, so that nothing would show whether the client has read that answer. A server has no other say in it.
    socket.destroySoon = () => void this.halfClose();
    // Whichever comes first: with 'close' alone, a FIN and the next connection's request could be seen in one turn.
    socket.once('end', () => options.onEnd(this.scraper, this.#clientClosed()));
    for (const event of ['error', 'close']) socket.once(event, () => options.onEnd(this.scraper, { kind: 'reset' }));
  }

  /** Undefined where a request is under way, or our end is closed. */
  get restingSinceMs(): number | undefined {
    return this.#state.kind === 'resting' ? this.#state.sinceMs : undefined;
  }

  get isHalfClosed(): boolean {
    return this.#state.kind === 'half-closed';
  }

  get isAnswering(): boolean {
    return this.#state.kind === 'answering';
  }

  /** Answers after what came before: a client may send its next request early. False where too many wait. */
  answer(respond: () => Promise<void>): boolean {
    const state = this.#state;
    // Our end was closed while the request was on its way: its client asks again on another connection.
    if (state.kind === 'half-closed') return true;
    // Node reads on while answers wait: each waiting request costs a hundred times its bytes.
    if (state.kind === 'answering' && state.requests >= pipelinedMax) return false;
    this.#state =
      state.kind === 'answering'
        ? { ...state, requests: state.requests + 1 }
        : { kind: 'answering', requests: 1, isLast: false };
    this.#tail = this.#tail.then(respond).finally(() => this.#answered());
    return true;
  }

  /** Closes our end, after what is under way, and breaks off where the client does not close its own. Resolves at the end. */
  halfClose(): Promise<void> {
    const { socket } = this;
    const closed = new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())));
    if (this.#state.kind === 'answering') this.#state = { ...this.#state, isLast: true };
    if (this.#state.kind !== 'resting') return closed;
    this.#state = { kind: 'half-closed' };
    const overdue = this.#options.clock.after(halfCloseMs, () => socket.destroy());
    socket.once('close', () => overdue.cancel());
    socket.end();
    return closed;
  }

  #answered(): void {
    const state = this.#state;
    if (state.kind !== 'answering') return;
    if (state.requests > 1) {
      this.#state = { ...state, requests: state.requests - 1 };
      return;
    }
    this.#state = { kind: 'resting', sinceMs: this.#options.clock.monotonicMs() };
    if (state.isLast) void this.halfClose();
  }

  /** The client has closed its end: after ours, or by itself. */
  #clientClosed(): ConnectionEvent {
    const isAcknowledged = this.#options.isAcknowledged(this.socket);
    if (this.#state.kind !== 'half-closed') return { kind: 'fin', isAcknowledged };
    return isAcknowledged ? { kind: 'half-closed' } : { kind: 'reset' };
  }
}

const pipelinedMax = 32;
const halfCloseMs = 1000;
const halfClosedMax = 64;
