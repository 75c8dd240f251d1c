import type { AgentId } from '../model/agent-id.ts';
import type { Clock, Timer } from '../runtime/clock.ts';

/**
 * How far each scraper has read, so that each is given every report once.
 *
 * A cursor's position is a time per agent: what is newer has not been given. It moves in two steps, because a response
 * that was sent may never have been read:
 *
 *     open ──▶ taken ──finish──▶ pending ──the next request, or the timeout──▶ committed
 *                │                  │
 *                └──── abort ───────┴──the connection closes──▶ rolled back: the position stays where it was
 *
 * Several cursors share a name when several Prometheus servers do (two behind one address): each connection then has
 * its own, and nothing is lost, though some samples come twice.
 */
export class Cursors {
  readonly #options: CursorsOptions;
  readonly #scrapers = new Map<string, Scraper>();

  constructor(options: CursorsOptions) {
    this.#options = options;
  }

  get scrapers(): Iterable<Scraper> {
    return this.#scrapers.values();
  }

  /**
   * Begins a scrape: settles what this scraper's last one left pending and gives the cursor to read from. Undefined when
   * there are as many names as there may be: that one gets the newest values instead.
   */
  async open(request: ScrapeRequest): Promise<Scrape | undefined> {
    const { name, selection, connection } = request;
    const key = JSON.stringify([name, selection]);
    let scraper = this.#scrapers.get(key);
    if (scraper === undefined) {
      if (!this.#nameFits(name)) return undefined;
      scraper = new Scraper(name, selection);
      this.#scrapers.set(key, scraper);
    }
    const cursor = await this.#cursorFor(scraper, connection);
    return new CursorScrape(this.#options, scraper, cursor, request);
  }

  /** A connection over which scrapes came has ended. Whatever is pending on it may not have arrived. */
  closed(connection: ScrapeConnection): void {
    if (connection.closed) return;
    connection.closed = true;
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.cursors) {
        if (cursor.connection === connection) rollBackPending(this.#options, scraper, cursor);
      }
    }
  }

  /** Up to which time every known scraper has this agent's reports; Infinity where no known scraper wants them. */
  committedMs(agent: AgentId): number {
    return this.#least(agent, (cursor) => cursor.positionMs(agent));
  }

  /** The same, with what is pending counted as committed: what is written to disk. */
  offeredMs(agent: AgentId): number {
    return this.#least(agent, (cursor) => cursor.pending?.taken.get(agent) ?? cursor.positionMs(agent));
  }

  /** Forgets cursors that nobody has used for long, and the agents that were forgotten. */
  tidy(forgotten: readonly AgentId[]): void {
    const nowMs = this.#options.clock.nowMs();
    for (const [key, scraper] of this.#scrapers) {
      for (const agent of forgotten) for (const cursor of scraper.cursors) cursor.forget(agent);
      scraper.cursors = scraper.cursors.filter((cursor) => {
        const idleMs = nowMs - cursor.seenAtMs;
        // Beside a sibling that reads, an abandoned cursor is only a name's past: it goes when it stops to hold acks.
        const keepMs = scraper.cursors.length > 1 ? this.#options.windowMs : cursorKeptMs;
        return idleMs <= keepMs || isOpen(cursor);
      });
      if (scraper.cursors.length === 0) this.#scrapers.delete(key);
    }
  }

  /** Cursors as they go to disk: what is pending counts as committed. */
  save(): SavedCursor[] {
    const saved: SavedCursor[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.cursors) {
        const positions: Record<string, number> = {};
        for (const [agent, ms] of cursor.positions) positions[agent] = ms;
        for (const [agent, ms] of cursor.pending?.taken ?? []) positions[agent] = ms;
        saved.push({
          scraper: scraper.name,
          selection: scraper.selection,
          seenAtMs: cursor.seenAtMs,
          known: cursor.known || cursor.pending !== undefined,
          positions,
        });
      }
    }
    return saved;
  }

  /** What {@link save} gave, after a restart: cursors without a connection, which the next scrape of the name takes. */
  restore(saved: readonly SavedCursor[]): void {
    for (const { scraper: name, selection, seenAtMs, known, positions } of saved) {
      const key = JSON.stringify([name, selection]);
      const scraper = this.#scrapers.get(key) ?? new Scraper(name, selection);
      this.#scrapers.set(key, scraper);
      const cursor = new Cursor(undefined, seenAtMs);
      cursor.known = known;
      // Names in the file were AgentIds when they were written.
      for (const [agent, ms] of Object.entries(positions)) cursor.positions.set(agent as AgentId, ms);
      scraper.cursors.push(cursor);
    }
  }

  #nameFits(name: string): boolean {
    const names = new Set<string>();
    for (const scraper of this.#scrapers.values()) names.add(scraper.name);
    return names.has(name) ? this.#scrapers.size < scrapersMax * selectionsPerNameMax : names.size < scrapersMax;
  }

  /** The cursor of this connection. Another connection's is taken over when that one has ended, and shared never. */
  async #cursorFor(scraper: Scraper, connection: ScrapeConnection): Promise<Cursor> {
    const own = scraper.cursors.find((cursor) => cursor.connection === connection);
    if (own !== undefined) {
      commitPending(this.#options, scraper, own);
      return own;
    }
    if (scraper.cursors.length > 0) {
      await this.#options.turn();
      // Only now: a close that had already arrived has been seen.
      for (const cursor of scraper.cursors) if (isOpen(cursor)) this.#settleSibling(scraper, cursor);
    }
    return this.#adopt(scraper, connection);
  }

  #adopt(scraper: Scraper, connection: ScrapeConnection): Cursor {
    const { clock, newAgents } = this.#options;
    const orphan = scraper.cursors.find((cursor) => !isOpen(cursor));
    if (scraper.cursors.length === 1 && orphan !== undefined) {
      orphan.connection = connection;
      return orphan;
    }
    const cursor = new Cursor(connection, clock.nowMs());
    if (scraper.cursors.length === 0) {
      // Only what is held now: an agent that comes later, after an outage, is new to this scraper as a whole.
      const fromMs = clock.nowMs() - neverSeenBackMs;
      for (const agent of newAgents(scraper.selection)) cursor.positions.set(agent, fromMs);
      scraper.cursors.push(cursor);
      return cursor;
    }
    const siblings = scraper.cursors;
    for (const sibling of siblings) {
      cursor.known ||= sibling.known;
      for (const agent of sibling.positions.keys()) {
        const ms = Math.min(...siblings.map((other) => other.positionMs(agent)));
        if (ms !== -Infinity) cursor.positions.set(agent, ms);
      }
    }
    if (orphan !== undefined) {
      // Which of the abandoned ones this connection's scraper had cannot be known: the others stay, at the oldest.
      scraper.cursors = siblings.filter((sibling) => sibling !== orphan);
      for (const sibling of scraper.cursors) {
        if (!isOpen(sibling)) sibling.positions = new Map(cursor.positions);
      }
    } else {
      scraper.conflicts++;
      this.#options.onConflict(scraper);
    }
    scraper.cursors.push(cursor);
    return cursor;
  }

  /**
   * Another connection asks in this one's name. What was pending here has arrived if the peer's kernel has confirmed
   * it; if not, the peer is gone without a goodbye (a cable, a power cut), and this connection with it.
   */
  #settleSibling(scraper: Scraper, cursor: Cursor): void {
    if (cursor.pending === undefined || cursor.connection === undefined) return;
    if (this.#options.delivered(cursor.connection)) commitPending(this.#options, scraper, cursor);
    else this.closed(cursor.connection);
  }

  #least(agent: AgentId, positionOf: (cursor: Cursor) => number): number {
    const staleBeforeMs = this.#options.clock.nowMs() - this.#options.windowMs;
    let least = Infinity;
    for (const scraper of this.#scrapers.values()) {
      if (scraper.selection !== '' && scraper.selection !== agent) continue;
      for (const cursor of scraper.cursors) {
        if (!cursor.known || cursor.seenAtMs < staleBeforeMs) continue;
        least = Math.min(least, positionOf(cursor));
      }
    }
    return least;
  }
}

export interface CursorsOptions {
  readonly clock: Clock;
  /** Cursors that nobody has used for so long no longer hold acks. */
  readonly windowMs: number;
  /** Resolves after a whole turn of the event loop, in which a close that had arrived has been reported. */
  turn(): Promise<void>;
  /** Whether the peer's kernel has confirmed all that was sent on this connection; true where that cannot be told. */
  delivered(connection: ScrapeConnection): boolean;
  /** The agents that a scraper never seen before starts in the past of. */
  newAgents(selection: string): Iterable<AgentId>;
  /** Positions have been offered (a response has gone out) or taken back: the file is out of date. */
  onChanged(): void;
  /** Positions have been committed: acks may follow. */
  onCommitted(scraper: Scraper, taken: ReadonlyMap<AgentId, number>): void;
  onRollBack(scraper: Scraper, kind: 'aborted' | 'unconfirmed'): void;
  onConflict(scraper: Scraper): void;
  /** A response that may never have been read was counted as read, because it is too old to be sent again. */
  onAssumed(scraper: Scraper, agent: AgentId): void;
}

/** One TCP connection of a scraper. Compared by identity. */
export interface ScrapeConnection {
  closed: boolean;
}

export interface ScrapeRequest {
  /** `scraper=NAME`, or the scraper's address. */
  readonly name: string;
  /** The agent that `agent=NAME` selects, or "" for all. */
  readonly selection: string;
  readonly connection: ScrapeConnection;
  /** What the scraper says in X-Prometheus-Scrape-Timeout-Seconds. */
  readonly timeoutMs: number;
  /** The connection ends with this response: there will be no next request to confirm it. */
  readonly last: boolean;
}

/** One scrape under way. Exactly one of `finish` and `abort` ends it. */
export interface Scrape {
  readonly scraper: string;
  readonly timeoutMs: number;
  /** At most so many samples, where the scraper has not said otherwise. */
  readonly samplesMax: number;
  /** Since this scraper's last scrape; undefined for the first. */
  readonly sinceLastMs: number | undefined;
  /** What is newer than this has not been given to this scraper. */
  afterMs(agent: AgentId): number;
  /** The response is with the operating system. `taken`: the newest report given, by agent. */
  finish(given: {
    readonly taken: ReadonlyMap<AgentId, number>;
    readonly samples: number;
    readonly caughtUp: boolean;
  }): void;
  /** The response was not sent as a whole. */
  abort(): void;
}

export interface SavedCursor {
  readonly scraper: string;
  readonly selection: string;
  readonly seenAtMs: number;
  readonly known: boolean;
  readonly positions: Readonly<Record<string, number>>;
}

/** All cursors of one name and selection. */
export class Scraper {
  readonly name: string;
  readonly selection: string;
  cursors: Cursor[] = [];
  /** How often a second open connection was seen. */
  conflicts = 0;

  constructor(name: string, selection: string) {
    this.name = name;
    this.selection = selection;
  }
}

export class Cursor {
  connection: ScrapeConnection | undefined;
  seenAtMs: number;
  /** A scrape has been committed: acks wait for this cursor. */
  known = false;
  positions = new Map<AgentId, number>();
  pending: Pending | undefined;
  /** Offered in a whole response that was taken back: up to when, by agent. */
  rolledBack = new Map<AgentId, number>();
  /** Pacing: halved by an abort, doubled back by a commit up to `samplesMaxMost`. */
  samplesMax = samplesMaxDefault;
  samplesMaxMost = samplesMaxDefault;
  /** Whether `seenAtMs` is of a scrape: then the time since is an interval. */
  scraped = false;

  constructor(connection: ScrapeConnection | undefined, seenAtMs: number) {
    this.connection = connection;
    this.seenAtMs = seenAtMs;
  }

  /** -Infinity for an agent of which this scraper has had nothing. */
  positionMs(agent: AgentId): number {
    return this.positions.get(agent) ?? -Infinity;
  }

  forget(agent: AgentId): void {
    this.positions.delete(agent);
    this.rolledBack.delete(agent);
    this.pending?.taken.delete(agent);
  }
}

interface Pending {
  readonly taken: Map<AgentId, number>;
  timer: Timer;
}

// 32 names, each with a job for the whole fleet and jobs for single agents: more is a mistake or an attack.
export const scrapersMax = 32;
const selectionsPerNameMax = 128;
// Prometheus has what is older, or has lost it for good; with an out-of-order window, too much of the past fails a scrape.
const neverSeenBackMs = 5 * 60_000;
// A response that may not have arrived is not sent again after this: a duplicate too old fails the scrape of all agents.
const resentWithinMs = 5 * 60_000;
// How long a cursor is worth coming back to. It stops to hold acks after the window.
const cursorKeptMs = 24 * 3_600_000;
// A Prometheus that has timed out needs a moment to close; then the response has been read.
const commitAfterTimeoutMs = 2000;
const undeliveredCheckMs = 5000;
/** Samples of one scrape at the least: 29 MB of text, about a second. */
export const samplesMaxDefault = 300_000;
const samplesMaxLeast = 10_000;

const isOpen = (cursor: Cursor): boolean => cursor.connection !== undefined && !cursor.connection.closed;

class CursorScrape implements Scrape {
  readonly timeoutMs: number;
  readonly samplesMax: number;
  readonly sinceLastMs: number | undefined;
  readonly #options: CursorsOptions;
  readonly #scraper: Scraper;
  readonly #cursor: Cursor;
  readonly #request: ScrapeRequest;

  constructor(options: CursorsOptions, scraper: Scraper, cursor: Cursor, request: ScrapeRequest) {
    this.#options = options;
    this.#scraper = scraper;
    this.#cursor = cursor;
    this.#request = request;
    this.timeoutMs = request.timeoutMs;
    this.samplesMax = cursor.samplesMax;
    const nowMs = options.clock.nowMs();
    this.sinceLastMs = cursor.scraped ? nowMs - cursor.seenAtMs : undefined;
    cursor.seenAtMs = nowMs;
    cursor.scraped = true;
    this.#dropWhatIsTooOld();
  }

  get scraper(): string {
    return this.#scraper.name;
  }

  afterMs(agent: AgentId): number {
    return this.#cursor.positionMs(agent);
  }

  finish(given: {
    readonly taken: ReadonlyMap<AgentId, number>;
    readonly samples: number;
    readonly caughtUp: boolean;
  }): void {
    const cursor = this.#cursor;
    if (given.caughtUp) cursor.samplesMaxMost = Math.max(samplesMaxDefault, 3 * given.samples);
    for (const agent of given.taken.keys()) cursor.rolledBack.delete(agent);
    cursor.pending = { taken: new Map(given.taken), timer: this.#commitLater(this.timeoutMs + commitAfterTimeoutMs) };
    if (this.#request.last) commitPending(this.#options, this.#scraper, cursor);
    else if (this.#request.connection.closed) rollBackPending(this.#options, this.#scraper, cursor);
    this.#options.onChanged();
  }

  abort(): void {
    const cursor = this.#cursor;
    cursor.samplesMax = Math.max(samplesMaxLeast, Math.floor(cursor.samplesMax / 2));
    this.#options.onRollBack(this.#scraper, 'aborted');
  }

  /** The scraper has had its time, and has not hung up: it has read the response, unless the line is cut. */
  #commitLater(ms: number): Timer {
    const { clock, turn, delivered } = this.#options;
    const cursor = this.#cursor;
    const timer = clock.after(ms, async () => {
      await turn();
      if (cursor.pending?.timer !== timer) return;
      if (delivered(this.#request.connection)) commitPending(this.#options, this.#scraper, cursor);
      else cursor.pending.timer = this.#commitLater(undeliveredCheckMs);
    });
    return timer;
  }

  /** What was sent once in a whole response, may have arrived, and has grown too old to be sent again. */
  #dropWhatIsTooOld(): void {
    const cursor = this.#cursor;
    const beforeMs = this.#options.clock.nowMs() - resentWithinMs;
    for (const [agent, ms] of cursor.rolledBack) {
      if (ms >= beforeMs) continue;
      cursor.rolledBack.delete(agent);
      if (ms <= cursor.positionMs(agent)) continue;
      cursor.positions.set(agent, ms);
      this.#options.onAssumed(this.#scraper, agent);
    }
  }
}

function commitPending(options: CursorsOptions, scraper: Scraper, cursor: Cursor): void {
  const { pending } = cursor;
  if (pending === undefined) return;
  pending.timer.cancel();
  cursor.pending = undefined;
  cursor.known = true;
  for (const [agent, ms] of pending.taken) cursor.positions.set(agent, Math.max(ms, cursor.positionMs(agent)));
  cursor.samplesMax = Math.min(cursor.samplesMaxMost, cursor.samplesMax * 2);
  options.onCommitted(scraper, pending.taken);
}

function rollBackPending(options: CursorsOptions, scraper: Scraper, cursor: Cursor): void {
  const { pending } = cursor;
  if (pending === undefined) return;
  pending.timer.cancel();
  cursor.pending = undefined;
  for (const [agent, ms] of pending.taken) cursor.rolledBack.set(agent, ms);
  options.onRollBack(scraper, 'unconfirmed');
  options.onChanged();
}
