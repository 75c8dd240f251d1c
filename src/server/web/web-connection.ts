import type { Clock, Timer } from '../../runtime/clock.ts';
import type { ConnectionEvent, ScrapeConnection } from '../delivery/scraper.ts';
import { type ConnectionPast, nothingPast } from './identify.ts';

/** The TCP connection below. */
export interface Transport {
  /** Half-closes, after what was written. */
  end(): void;
  /** Destroys it. */
  destroy(): void;
  /** Whether the peer's kernel has acknowledged all that was sent, the close of our end included. */
  isAcknowledged(): boolean;
}

export interface WebConnectionOptions {
  readonly clock: Clock;
  /** Of the client, without its port. */
  readonly address: string;
  /** The client's address, or its /64. */
  readonly owner: string;
  /** The connection has ended. Called once. */
  onEnd(connection: ScrapeConnection, how: ConnectionEvent): void;
}

type State =
  /** No request is under way. */
  | { readonly kind: 'resting'; readonly sinceMs: number }
  /** `isLast`: our end is closed after them. */
  | { readonly kind: 'answering'; readonly requests: number; readonly isLast: boolean }
  /** Our end is closed. */
  | { readonly kind: 'half-closed' }
  | { readonly kind: 'ended' };

/** A connection, its requests one after another, and how it ends, which shows whether the last answer was read. */
export class WebConnection {
  readonly address: string;
  readonly owner: string;
  readonly scraper: ScrapeConnection;
  /** Its earlier requests. */
  past: ConnectionPast = nothingPast;
  hasScraped = false;
  /** What its client certificate has proved. */
  san: string | undefined;
  readonly #transport: Transport;
  readonly #options: WebConnectionOptions;
  #state: State;
  #tail: Promise<void> = Promise.resolve();
  readonly #onEnded: (() => void)[] = [];
  /** Of a client that does not close its end after ours. */
  #deadline: Timer | undefined;

  constructor(transport: Transport, options: WebConnectionOptions) {
    this.address = options.address;
    this.owner = options.owner;
    this.scraper = { address: options.address };
    this.#transport = transport;
    this.#options = options;
    this.#state = { kind: 'resting', sinceMs: options.clock.monotonicMs() };
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

  /** Answers after the requests before: a client may send its next request early. False if too many wait. */
  answer(respond: () => Promise<void>): boolean {
    const state = this.#state;
    // Our end was closed while the request was on its way: the client repeats it on another connection.
    if (state.kind === 'half-closed' || state.kind === 'ended') return true;
    // Node reads on while answers wait: each waiting request costs a hundred times its bytes.
    if (state.kind === 'answering' && state.requests >= pipelinedMax) return false;
    this.#state =
      state.kind === 'answering'
        ? { ...state, requests: state.requests + 1 }
        : { kind: 'answering', requests: 1, isLast: false };
    this.#tail = this.#tail.then(respond).finally(() => this.#answered());
    return true;
  }

  /** Half-closes after the requests under way; a client that does not close its end is cut off. Resolves at the end. */
  async halfClose(): Promise<void> {
    const state = this.#state;
    if (state.kind === 'ended') return;
    if (state.kind === 'answering') this.#state = { ...state, isLast: true };
    if (state.kind === 'resting') {
      this.#deadline = this.#options.clock.after(halfCloseMs, () => this.destroy());
      this.#state = { kind: 'half-closed' };
      this.#transport.end();
    }
    await new Promise<void>((resolve) => this.#onEnded.push(resolve));
  }

  destroy(): void {
    this.#transport.destroy();
  }

  /** The client has closed its end: after ours, or by itself. */
  clientClosed(): void {
    // The kernel takes milliseconds to say it. Anyone may open and close connections, and without a scrape it matters to nobody.
    const isAcknowledged = !this.hasScraped || this.#transport.isAcknowledged();
    if (this.#state.kind !== 'half-closed') this.#ended({ kind: 'fin', isAcknowledged });
    else this.#ended(isAcknowledged ? { kind: 'half-closed' } : { kind: 'reset' });
  }

  /** The connection has ended. */
  closed(): void {
    this.#deadline?.cancel();
    this.#ended({ kind: 'reset' });
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

  /** The first sign of its end counts. */
  #ended(how: ConnectionEvent): void {
    if (this.#state.kind === 'ended') return;
    this.#state = { kind: 'ended' };
    this.#options.onEnd(this.scraper, how);
    for (const resolve of this.#onEnded.splice(0)) resolve();
  }
}

const pipelinedMax = 32;
const halfCloseMs = 1000;
