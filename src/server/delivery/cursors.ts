import type { AgentId } from '../../model/agent-id.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { EvictionReason } from './store.ts';

/**
 * How far each scraper has read, so that each is given every report once.
 *
 * A cursor's position is a time per agent: what is newer has not been given. It moves in two steps, because a response
 * that was sent may never have been read. Only a scraper that asks again, on the same connection, proves that it was:
 * neither time nor the peer's kernel does.
 *
 *     open ──▶ taken ──finish──▶ pending ──the next request on its connection, or a goodbye that is answered──▶ committed
 *                │                  │
 *                └──── abort ───────┴──the connection closes, the server ends──▶ rolled back: the position stays
 *
 * What was rolled back after it had been sent as a whole may be with the scraper all the same. It is given again; Prometheus
 * refuses in silence, or with a warning, what it has.
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

  /**
   * A connection over which scrapes came has ended. Whatever is pending on it may not have arrived, but where the peer has
   * read all of it: it answered our goodbye, which had come after.
   */
  closed(connection: ScrapeConnection, { isAllRead = false } = {}): void {
    if (connection.closed) return;
    connection.closed = true;
    const settle = isAllRead ? commitPending : rollBackPending;
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.cursors) {
        if (cursor.connection !== connection || cursor.pending === undefined) continue;
        settle(this.#options, scraper, cursor);
        this.#options.onChanged();
      }
    }
  }

  /** Up to which time every known scraper has this agent's reports; Infinity where no known scraper wants them. */
  committedMs(agent: AgentId): number {
    return this.#least(agent, committedKnown, (cursor) => cursor.positionMs(agent));
  }

  /** The same as {@link save} writes it to disk: a scraper counts as known from the end of its first scrape. */
  savedMs(agent: AgentId): number {
    return this.#least(agent, offeredKnown, (cursor) => cursor.positionMs(agent));
  }

  /** What is newer is still wanted, also by scrapers that have been away for so long that acks no longer wait for them. */
  wantedAfterMs(agent: AgentId, reason: EvictionReason): number {
    const nowMs = this.#options.clock.nowMs();
    let least = Infinity;
    for (const scraper of this.#scrapers.values()) {
      if (scraper.selection !== '' && scraper.selection !== agent) continue;
      const known = scraper.cursors.filter(committedKnown);
      const inUse = known.filter((cursor) => nowMs - cursor.seenAtMs <= this.#holdsAcksMs(scraper, cursor));
      for (const cursor of inUse.length > 0 ? inUse : known) {
        // What an answer passed over as too old was counted then: it is not to be counted again when it leaves the window
        // before the answer is confirmed. What an answer has given is too young for that.
        const offeredMs = reason === 'age' ? cursor.pending?.get(agent) : undefined;
        least = Math.min(least, offeredMs ?? cursor.positionMs(agent));
      }
    }
    return least;
  }

  /** Forgets cursors that nobody has used for long, and the agents that were forgotten. */
  tidy(forgotten: readonly AgentId[]): void {
    const nowMs = this.#options.clock.nowMs();
    for (const [key, scraper] of this.#scrapers) {
      for (const agent of forgotten) for (const cursor of scraper.cursors) cursor.forget(agent);
      scraper.cursors = this.#worthKeeping(scraper, nowMs);
      if (scraper.cursors.length === 1) {
        scraper.isShared = false;
        scraper.cursors[0]!.trust();
      }
      if (scraper.cursors.length === 0) this.#forget(key, scraper);
    }
  }

  /** Cursors as they go to disk. Of what is pending nobody will know, after a restart, whether it has arrived. */
  save(): SavedCursor[] {
    const saved: SavedCursor[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.cursors) {
        saved.push({
          scraper: scraper.name,
          selection: scraper.selection,
          seenAtMs: cursor.seenAtMs,
          known: offeredKnown(cursor),
          ...(cursor.inDoubt ? { inDoubt: true } : {}),
          ...(scraper.isShared ? { shared: true } : {}),
          positions: Object.fromEntries(cursor.positions),
          offered: Object.fromEntries(cursor.offeredBeyond()),
        });
      }
    }
    return saved;
  }

  /** What {@link save} gave, after a restart: cursors without a connection, which the next scrape of the name takes. */
  restore(saved: readonly SavedCursor[]): void {
    for (const { scraper: name, selection, seenAtMs, known, inDoubt, shared, positions, offered } of saved) {
      const key = JSON.stringify([name, selection]);
      const scraper = this.#scrapers.get(key) ?? new Scraper(name, selection);
      this.#scrapers.set(key, scraper);
      const cursor = new Cursor(undefined, seenAtMs);
      cursor.known = known;
      cursor.inDoubt = inDoubt === true;
      // Names in the file were AgentIds when they were written.
      for (const [agent, ms] of Object.entries(positions)) cursor.positions.set(agent as AgentId, ms);
      for (const [agent, ms] of Object.entries(offered ?? {})) cursor.offered.set(agent as AgentId, ms);
      if (cursor.offered.size > 0) this.#options.onRollBack(scraper, 'restart');
      scraper.cursors.push(cursor);
      scraper.isShared ||= shared === true;
    }
  }

  /**
   * Beside a sibling that reads, an abandoned cursor is only a name's past: it goes when it stops to hold acks. Where all
   * are abandoned, one stays, at the oldest of their positions, for the scraper to come back to.
   */
  #worthKeeping(scraper: Scraper, nowMs: number): Cursor[] {
    const { cursors } = scraper;
    const inUse = cursors.filter(
      (cursor) => isOpen(cursor) || nowMs - cursor.seenAtMs <= this.#holdsAcksMs(scraper, cursor),
    );
    if (inUse.length > 0) return inUse;
    const past = cursors.filter((cursor) => nowMs - cursor.seenAtMs <= cursorKeptMs);
    const last = past.reduce<Cursor | undefined>(
      (a, b) => (a !== undefined && a.seenAtMs >= b.seenAtMs ? a : b),
      undefined,
    );
    if (last === undefined) return [];
    last.takeOldestOf(past);
    last.known = past.some((cursor) => cursor.known);
    return [last];
  }

  /** How long after its last scrape a cursor is waited for: one whose connection was dead all the time, not for long. */
  #holdsAcksMs({ cursors, isShared }: Scraper, cursor: Cursor): number {
    if (!cursor.inDoubt || isShared || isOpen(cursor)) return this.#options.windowMs;
    const isLast = cursors.every(({ seenAtMs }) => seenAtMs <= cursor.seenAtMs);
    return isLast ? this.#options.windowMs : inDoubtKeptMs;
  }

  /** Whether there is room for one more of this name. A name that has stopped to hold acks makes room, the oldest first. */
  #nameFits(name: string): boolean {
    const seenAtMs = new Map<string, number>();
    for (const scraper of this.#scrapers.values()) {
      const ms = Math.max(...scraper.cursors.map((cursor) => (isOpen(cursor) ? Infinity : cursor.seenAtMs)));
      seenAtMs.set(scraper.name, Math.max(ms, seenAtMs.get(scraper.name) ?? -Infinity));
    }
    if (seenAtMs.has(name)) return this.#scrapers.size < scrapersMax * selectionsPerNameMax;
    if (seenAtMs.size < scrapersMax) return true;
    const [oldest, ms] = [...seenAtMs].reduce((a, b) => (b[1] < a[1] ? b : a));
    if (ms >= this.#options.clock.nowMs() - this.#options.windowMs) return false;
    for (const [key, scraper] of this.#scrapers) if (scraper.name === oldest) this.#forget(key, scraper);
    return true;
  }

  #forget(key: string, scraper: Scraper): void {
    this.#scrapers.delete(key);
    this.#options.onForgotten(scraper);
  }

  /** The cursor of this connection. Another connection's is taken over when that one has ended, and shared never. */
  async #cursorFor(scraper: Scraper, connection: ScrapeConnection): Promise<Cursor> {
    const own = scraper.cursors.find((cursor) => cursor.connection === connection);
    if (own !== undefined) {
      if (own.answeredInDoubt) this.#isAlive(scraper, own);
      commitPending(this.#options, scraper, own);
      return own;
    }
    if (scraper.cursors.length > 0) {
      await this.#options.turn();
      // Only now: a close that had already arrived has been seen.
      for (const cursor of scraper.cursors) this.#leaveDead(scraper, cursor);
    }
    return this.#adopt(scraper, connection);
  }

  #adopt(scraper: Scraper, connection: ScrapeConnection): Cursor {
    const { clock, newAgents } = this.#options;
    // The last one used is the likeliest to be this scraper's, and one in doubt rather nobody's.
    const [orphan] = scraper.cursors
      .filter((cursor) => !isOpen(cursor))
      .sort((a, b) => Number(a.inDoubt) - Number(b.inDoubt) || b.seenAtMs - a.seenAtMs);
    if (scraper.cursors.length === 1 && orphan !== undefined) {
      orphan.connection = connection;
      orphan.trust();
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
    cursor.known = siblings.some((sibling) => sibling.known);
    cursor.takeOldestOf(siblings);
    // Its connection has ended while it waited for its turn: what it reads is for nobody, and holds nothing up.
    if (connection.closed) return cursor;
    if (orphan !== undefined) {
      // Which of the abandoned ones this connection's scraper had cannot be known: the others stay, at the oldest.
      const open = siblings.filter(isOpen);
      // Nor whether one of two that are open has been dead for a while, and it is its scraper who comes.
      if (scraper.isShared && open.length > 0) orphan.rivals = new Set(open);
      else scraper.cursors = siblings.filter((sibling) => sibling !== orphan);
      for (const sibling of scraper.cursors) {
        if (!isOpen(sibling)) sibling.takeOldestOf([cursor]);
      }
    }
    // A second scraper; or the only one, whose goodbye on its old connection was lost, or who is gone by now.
    for (const sibling of scraper.cursors) if (isOpen(sibling)) sibling.doubt();
    cursor.doubt();
    scraper.cursors.push(cursor);
    return cursor;
  }

  /**
   * Somebody has read an answer on a connection in doubt, and asks again. A single request proves nothing: it may have
   * been on its way since before the line was cut. Where this has been seen of two, two scrapers have one name.
   */
  #isAlive(scraper: Scraper, cursor: Cursor): void {
    cursor.trust();
    for (const { rivals } of scraper.cursors) rivals?.delete(cursor);
    // All who were there are alive: so the one who came took the place of the one who was not.
    scraper.cursors = scraper.cursors.filter(({ rivals }) => rivals?.size !== 0);
    if (scraper.cursors.filter(({ inDoubt, rivals }) => !inDoubt && rivals === undefined).length < 2) return;
    scraper.isShared = true;
    scraper.conflicts++;
    this.#options.onConflict(scraper);
  }

  /**
   * Another connection asks in this one's name. Where this one's peer has not even a kernel that confirms what was sent, it
   * is gone without a goodbye (a cable, a power cut). Should it be alive all the same, and only slow, its next scrape makes
   * it a connection like any other.
   */
  #leaveDead(scraper: Scraper, cursor: Cursor): void {
    const { pending, connection } = cursor;
    if (pending === undefined || connection === undefined || this.#options.delivered(connection)) return;
    rollBackPending(this.#options, scraper, cursor);
    cursor.connection = undefined;
  }

  #least(agent: AgentId, isKnown: (cursor: Cursor) => boolean, positionOf: (cursor: Cursor) => number): number {
    const nowMs = this.#options.clock.nowMs();
    let least = Infinity;
    for (const scraper of this.#scrapers.values()) {
      if (scraper.selection !== '' && scraper.selection !== agent) continue;
      for (const cursor of scraper.cursors) {
        if (!isKnown(cursor) || nowMs - cursor.seenAtMs > this.#holdsAcksMs(scraper, cursor)) continue;
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
  /** A response has gone out or has failed, a connection has ended: the file is out of date. */
  onChanged(): void;
  /** Positions have been committed: acks may follow, once these are on disk. */
  onCommitted(scraper: Scraper, taken: ReadonlyMap<AgentId, number>): void;
  onRollBack(scraper: Scraper, kind: RollBack): void;
  onConflict(scraper: Scraper): void;
  /** Nothing is known of it any more. */
  onForgotten(scraper: Scraper): void;
}

/** A response that was not sent as a whole; that was, and its connection closed; that was, and the server ended. */
export const rollBacks = ['aborted', 'unconfirmed', 'restart'] as const;
export type RollBack = (typeof rollBacks)[number];

/** One TCP connection of a scraper. Compared by identity. */
export interface ScrapeConnection {
  closed: boolean;
  /** The ports, where it is a real one: what the kernel's table of connections is asked by. */
  readonly socket?: { readonly localPort?: number | undefined; readonly remotePort?: number | undefined };
}

export interface ScrapeRequest {
  /** `scraper=NAME`, or the scraper's address. */
  readonly name: string;
  /** The agent that `agent=NAME` selects, or "" for all. */
  readonly selection: string;
  readonly connection: ScrapeConnection;
  /** What the scraper says in X-Prometheus-Scrape-Timeout-Seconds. */
  readonly timeoutMs: number;
}

/** One scrape under way. Exactly one of `finish` and `abort` ends it. */
export interface Scrape {
  readonly scraper: string;
  readonly timeoutMs: number;
  /** At most so many samples, where the scraper has not said otherwise. */
  readonly samplesMax: number;
  /** Since this scraper's last scrape; undefined for the first. */
  readonly sinceLastMs: number | undefined;
  /** How often it comes: the shorter of the last two intervals, as one may have been missed. Undefined while unknown. */
  readonly intervalMs: number | undefined;
  /** What is newer than this has not been given to this scraper. */
  afterMs(agent: AgentId): number;
  /** Up to this it may have been given, in a response of which nobody knows whether it was read; -Infinity: nothing. */
  offeredMs(agent: AgentId): number;
  /** The response is with the operating system. */
  finish(given: Given): void;
  /** The response was not sent as a whole. */
  abort(): void;
}

/** What a whole response has given. */
export interface Given {
  /** The newest report given, by agent. */
  readonly taken: ReadonlyMap<AgentId, number>;
  /** Samples of the reports made since this scraper's last scrape, whether they were given or have to wait. */
  readonly arrivedSamples: number;
}

export interface SavedCursor {
  readonly scraper: string;
  readonly selection: string;
  readonly seenAtMs: number;
  readonly known: boolean;
  /** Absent: no. */
  readonly inDoubt?: boolean;
  /** Two of its name have been seen at work. Absent: no. */
  readonly shared?: boolean;
  readonly positions: Readonly<Record<string, number>>;
  /** Given beyond the position, and not confirmed: up to when. Absent: nothing. */
  readonly offered?: Readonly<Record<string, number>>;
}

/** All cursors of one name and selection. */
export class Scraper {
  readonly name: string;
  readonly selection: string;
  cursors: Cursor[] = [];
  /** How often a second open connection was seen at work. */
  conflicts = 0;
  /** Two of them have been seen at work, and none of their cursors has been given up since. */
  isShared = false;

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
  /** There is another connection of the name, and this one may be dead without a goodbye. */
  inDoubt = false;
  answeredInDoubt = false;
  /** Of an abandoned one: who was open when another came. Each that proves to be alive goes; with the last, this goes too. */
  rivals: Set<Cursor> | undefined;
  positions = new Map<AgentId, number>();
  /** Of the last whole response, unconfirmed yet: the newest report given, by agent. */
  pending: Map<AgentId, number> | undefined;
  /** Given in a whole response that was taken back: up to when, by agent. */
  offered = new Map<AgentId, number>();
  /** Pacing: halved by an abort, doubled back by a commit up to `samplesMaxMost`, three times what comes in steadily. */
  samplesMax = samplesMaxDefault;
  samplesMaxMost = samplesMaxDefault;
  /** Whether `seenAtMs` is of a scrape: then the time since is an interval. */
  scraped = false;
  /** Between the last two scrapes. */
  intervalMs: number | undefined;

  constructor(connection: ScrapeConnection | undefined, seenAtMs: number) {
    this.connection = connection;
    this.seenAtMs = seenAtMs;
  }

  doubt(): void {
    this.inDoubt = true;
    this.answeredInDoubt = false;
  }

  trust(): void {
    this.inDoubt = false;
    this.answeredInDoubt = false;
  }

  /** -Infinity for an agent of which this scraper has had nothing. */
  positionMs(agent: AgentId): number {
    return this.positions.get(agent) ?? -Infinity;
  }

  /** What may be with the scraper beyond the positions. */
  offeredBeyond(): Map<AgentId, number> {
    const offered = new Map<AgentId, number>();
    for (const [agent, ms] of [...this.offered, ...(this.pending ?? [])]) {
      if (ms > this.positionMs(agent)) raise(offered, agent, ms);
    }
    return offered;
  }

  /** Of each agent that all of these have read, how far the slowest has; what others of them have may be had already. */
  takeOldestOf(cursors: readonly Cursor[]): void {
    const positions = new Map<AgentId, number>();
    const offered = new Map<AgentId, number>();
    for (const cursor of cursors) {
      for (const [agent, ms] of [...cursor.positions, ...cursor.offeredBeyond()]) raise(offered, agent, ms);
    }
    for (const agent of offered.keys()) {
      const ms = Math.min(...cursors.map((cursor) => cursor.positionMs(agent)));
      if (ms !== -Infinity) positions.set(agent, ms);
    }
    this.positions = positions;
    this.offered = offered;
  }

  forget(agent: AgentId): void {
    this.positions.delete(agent);
    this.offered.delete(agent);
    this.pending?.delete(agent);
  }
}

// 32 names, each with a job for the whole fleet and jobs for single agents: more is a mistake or an attack.
export const scrapersMax = 32;
const selectionsPerNameMax = 128;
// Prometheus has what is older, or has lost it for good; with an out-of-order window, too much of the past fails a scrape.
const neverSeenBackMs = 5 * 60_000;
// How long a cursor is worth coming back to. It stops to hold acks after the window.
const cursorKeptMs = 24 * 3_600_000;
// A scraper that restarts just when a second one appears is back within that time; nobody ever is on a dead connection.
// Until then whoever connects is sent again what has come since.
const inDoubtKeptMs = 60_000;
/** Samples of one scrape at the least: 29 MB of text, about a second. */
export const samplesMaxDefault = 300_000;
const samplesMaxLeast = 10_000;

const committedKnown = (cursor: Cursor): boolean => cursor.known;
const offeredKnown = (cursor: Cursor): boolean => cursor.known || cursor.pending !== undefined;
const isOpen = (cursor: Cursor): boolean => cursor.connection !== undefined && !cursor.connection.closed;

class CursorScrape implements Scrape {
  readonly timeoutMs: number;
  readonly samplesMax: number;
  readonly sinceLastMs: number | undefined;
  readonly intervalMs: number | undefined;
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
    const before = cursor.intervalMs;
    cursor.intervalMs = this.sinceLastMs;
    if (before !== undefined && this.sinceLastMs !== undefined) this.intervalMs = Math.min(before, this.sinceLastMs);
    cursor.seenAtMs = nowMs;
    cursor.scraped = true;
  }

  get scraper(): string {
    return this.#scraper.name;
  }

  afterMs(agent: AgentId): number {
    return this.#cursor.positionMs(agent);
  }

  offeredMs(agent: AgentId): number {
    return this.#cursor.offered.get(agent) ?? -Infinity;
  }

  finish(given: Given): void {
    const cursor = this.#cursor;
    const { connection } = this.#request;
    cursor.samplesMaxMost = Math.max(samplesMaxDefault, 3 * given.arrivedSamples);
    if (cursor.connection !== connection) {
      // Its connection has ended, and another has taken the cursor over: what that one has pending is not to be touched.
      for (const [agent, ms] of given.taken) raise(cursor.offered, agent, ms);
      return this.#options.onRollBack(this.#scraper, 'unconfirmed');
    }
    cursor.answeredInDoubt = cursor.inDoubt;
    cursor.pending = new Map(given.taken);
    if (connection.closed) rollBackPending(this.#options, this.#scraper, cursor);
    this.#options.onChanged();
  }

  abort(): void {
    const cursor = this.#cursor;
    cursor.samplesMax = Math.max(samplesMaxLeast, Math.floor(cursor.samplesMax / 2));
    this.#options.onRollBack(this.#scraper, 'aborted');
    // What this request has confirmed is not on disk yet.
    this.#options.onChanged();
  }
}

function commitPending(options: CursorsOptions, scraper: Scraper, cursor: Cursor): void {
  const { pending } = cursor;
  if (pending === undefined) return;
  cursor.pending = undefined;
  cursor.known = true;
  for (const [agent, ms] of pending) raise(cursor.positions, agent, ms);
  for (const [agent, ms] of cursor.offered) if (ms <= cursor.positionMs(agent)) cursor.offered.delete(agent);
  cursor.samplesMax = Math.min(cursor.samplesMaxMost, cursor.samplesMax * 2);
  options.onCommitted(scraper, pending);
}

function rollBackPending(options: CursorsOptions, scraper: Scraper, cursor: Cursor): void {
  const { pending } = cursor;
  if (pending === undefined) return;
  cursor.pending = undefined;
  for (const [agent, ms] of pending) raise(cursor.offered, agent, ms);
  options.onRollBack(scraper, 'unconfirmed');
}

function raise(times: Map<AgentId, number>, agent: AgentId, ms: number): void {
  times.set(agent, Math.max(ms, times.get(agent) ?? -Infinity));
}
