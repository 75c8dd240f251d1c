import type { StreamId } from '../../model/source.ts';
import {
  type Answer,
  type AnswerEvent,
  type Assumed,
  type ConfirmedBy,
  Cursor,
  type Loss,
  never,
  type Receipt,
  restMs,
  restMsOf,
} from './cursor.ts';
import { type Keeps, Probe } from './probe.ts';
import type { StoredAnswers } from './receipts.ts';
import type { ConnectionEvent, Positions, ScrapeConnection, ScraperName } from './scraper.ts';

/**
 * All scrapers by name, and for each the cursors by selection. Usually one cursor; several if several Prometheus
 * servers use one name:
 *
 * - A request over the connection of a cursor continues with that cursor. A scraper with several selections is one
 *   Prometheus with several targets, whose pool uses any free connection: there the address counts, not the connection.
 * - A request over a new connection continues with a cursor whose connection has ended: the one of its address, or one
 *   that has been silent for a while. If several have ended, it is unknown which is whose, so all start at the oldest
 *   position.
 * - A request while another connection is open gets a cursor of its own, from the oldest position on, so that nothing
 *   is lost if there are two scrapers. If the other connection ends without another request, it was the same scraper.
 *
 * Where receipts confirm, a name and a selection have one cursor, whatever connections they come over.
 *
 * Methods return what has changed, for the log, the metrics and the acks.
 */
export class Cursors {
  readonly #windowMs: number;
  readonly #confirmedBy: (name: ScraperName) => ConfirmedBy;
  readonly #agentCount: () => number;
  readonly #startedMs: number;
  readonly #scrapers = new Map<string, Scraper>();
  /** The open connections, by the scraper that used each last. */
  readonly #connections = new Map<ScrapeConnection, Scraper>();
  readonly #ended = new WeakSet<ScrapeConnection>();
  #requests = 0;
  /** Of the last answer with a receipt, over all scrapers. */
  #number: number;

  /** A scraper that has been away for `windowMs` delays no acks. Times are of the monotonic clock unless noted. */
  constructor({ windowMs, nowMs, numberBefore = 0, agentCount, confirmedBy = () => 'connection' }: CursorsOptions) {
    this.#windowMs = windowMs;
    this.#agentCount = agentCount;
    this.#startedMs = nowMs;
    this.#number = numberBefore;
    this.#confirmedBy = confirmedBy;
  }

  get scrapers(): Iterable<Scraper> {
    return this.#scrapers.values();
  }

  /**
   * A request of a scraper, which confirms what was pending on its connection. Returns the cursor to read from, or none
   * if there are too many names.
   */
  open(
    { name, selection, connection, timeoutMs, database }: CursorRequest,
    nowMs: number,
  ): { readonly opened: OpenedCursor | undefined; readonly changes: readonly CursorChange[] } {
    const changes: CursorChange[] = [];
    const scraper = this.#scraper(name, connection, nowMs, changes);
    if (scraper === undefined) return { opened: undefined, changes };
    const request = this.#requests++;
    if (!this.#ended.has(connection)) this.#connections.set(connection, scraper);
    for (const cursor of scraper.all()) {
      for (const answer of [...cursor.answers]) {
        if (answer.connection === connection) this.#happened(scraper, cursor, answer, 'asked again', nowMs, changes);
      }
    }
    const chosen = this.#choose(scraper, selection, connection, { nowMs, request, changes });
    if (chosen === undefined) return { opened: undefined, changes };
    const { cursor, isNew } = chosen;
    if (database !== undefined) this.#judge(scraper, cursor, database, { nowMs, changes });
    cursor.asked(connection, nowMs);
    const assumed = cursor.moveOn(nowMs);
    if (assumed.length > 0) {
      scraper.assumedAnswers = again(scraper.assumedAnswers, nowMs);
      changes.push({ kind: 'assumed', scraper, cursor, assumed });
    }
    return {
      opened: { scraper, cursor, answer: cursor.begin(connection, request, { nowMs, timeoutMs }), isNew },
      changes,
    };
  }

  /** What an answer will give, before it is sent, and the number by which its receipt is known. */
  number(
    { scraper, answer }: OpenedCursor,
    content: Pick<Receipt, 'from' | 'given' | 'samples' | 'reports'> & { readonly until: Positions },
    times: { readonly nowMs: number; readonly wallMs: number },
  ): { readonly number: number; readonly probeTimesMs: readonly number[] | undefined } {
    const { until, from, given, samples, reports } = content;
    const number = ++this.#number;
    answer.until = until;
    answer.receipt = { unseen: new Set([number]), number, from, given, samples, reports, missedAtMs: -Infinity };
    return { number, probeTimesMs: scraper.probe.due(number, times) };
  }

  /** All of an answer has been sent. */
  finish(
    { scraper, cursor, answer }: OpenedCursor,
    { until, samples }: { readonly until: Positions; readonly samples: number },
    nowMs: number,
  ): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    // If its connection had ended before, it was not read completely.
    const isSent = answer.connection !== undefined && !this.#ended.has(answer.connection);
    if (isSent && answer.state.kind === 'being sent' && answer.receipt === undefined) answer.until = until;
    answer.samples = samples;
    this.#happened(scraper, cursor, answer, isSent ? 'sent' : 'aborted', nowMs, changes);
    return changes;
  }

  abort({ scraper, cursor, answer }: OpenedCursor, nowMs: number): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    this.#happened(scraper, cursor, answer, 'aborted', nowMs, changes);
    return changes;
  }

  /** A connection has ended. The first event of it counts. */
  ended(connection: ScrapeConnection, event: ConnectionEvent, nowMs: number): readonly CursorChange[] {
    if (this.#ended.has(connection)) return [];
    this.#ended.add(connection);
    this.#connections.delete(connection);
    const changes: CursorChange[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.all()) {
        for (const answer of [...cursor.answers]) {
          if (answer.connection !== connection || answer.state.kind !== 'unconfirmed') continue;
          this.#happened(scraper, cursor, answer, answerEvent(event, answer, nowMs), nowMs, changes);
        }
        if (cursor.connection === connection) this.#left(scraper, cursor, nowMs);
      }
    }
    return changes;
  }

  /** The database of a scraper has answered the question for numbers that was begun at `askedAtMs`. */
  stored(
    name: ScraperName,
    { numbers, probes, showsAfterMs }: StoredAnswers,
    { askedAtMs, nowMs }: { readonly askedAtMs: number; readonly nowMs: number },
  ): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    const scraper = this.#scrapers.get(keyOf(name));
    if (scraper === undefined) return changes;
    const keeps = scraper.probe.stored(numbers, probes, { nowMs, showsAfterMs });
    if (keeps !== undefined) changes.push({ kind: 'probed', scraper, keeps });
    for (const cursor of scraper.all()) {
      for (const answer of cursor.askable) {
        const { receipt } = answer;
        for (const number of receipt.unseen) if (numbers.has(number)) receipt.unseen.delete(number);
        if (receipt.unseen.size > 0) receipt.missedAtMs = askedAtMs;
        else {
          scraper.storedOne(answer.connection, nowMs);
          this.#happened(scraper, cursor, answer, 'stored', nowMs, changes);
        }
      }
    }
    return changes;
  }

  /** When the oldest answer of a scraper was sent of which its database may still say something; undefined: none. */
  oldestUnknownMs(name: ScraperName): number | undefined {
    const scraper = this.#scrapers.get(keyOf(name));
    const sent = [...(scraper?.all() ?? [])].flatMap((cursor) =>
      cursor.askable.map(({ sentAtMs, givesUpMs: [fromMs] }) => (sentAtMs === -Infinity ? fromMs : sentAtMs)),
    );
    const probedAtMs = scraper?.probe.sentAtMs;
    if (probedAtMs !== undefined) sent.push(probedAtMs);
    return sent.length === 0 ? undefined : Math.min(...sent);
  }

  /** Whether the database of a scraper may still say something of a probe. */
  hasProbe(name: ScraperName): boolean {
    return this.#scrapers.get(keyOf(name))?.probe.sentAtMs !== undefined;
  }

  /** Up to which time every known scraper has this stream; Infinity if no known scraper selects it. */
  confirmedMs(stream: StreamId, agent: string, nowMs: number): number {
    let least = Infinity;
    for (const cursor of this.#holding(agent, nowMs)) least = Math.min(least, cursor.positionMs(stream));
    return least;
  }

  /** The same for each of these scrapers. */
  confirmedMsByScraper(stream: StreamId, agent: string, nowMs: number): Map<Scraper, number> {
    const found = new Map<Scraper, number>();
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of this.#holdingOf(scraper, agent, nowMs)) {
        found.set(scraper, Math.min(found.get(scraper) ?? Infinity, cursor.positionMs(stream)));
      }
    }
    return found;
  }

  /** As confirmedMs, counting what was sent and is not confirmed yet. */
  sentMs(stream: StreamId, agent: string, nowMs: number): number {
    let least = Infinity;
    for (const cursor of this.#holding(agent, nowMs)) {
      least = Math.min(least, Math.max(cursor.positionMs(stream), cursor.sentMs(stream)));
    }
    return least;
  }

  /** The known scrapers that lack a report of this time; with `sent`, those to which it was not even sent. */
  scrapersWithout(
    stream: StreamId,
    agent: string,
    { timeMs, sent, nowMs }: { readonly timeMs: number; readonly sent: boolean; readonly nowMs: number },
  ): readonly ScraperName[] {
    const lacks = (scraper: Scraper) => {
      for (const cursor of this.#holdingOf(scraper, agent, nowMs)) {
        const hasMs = Math.max(cursor.positionMs(stream), sent ? cursor.sentMs(stream) : -Infinity);
        if (hasMs < timeMs) return true;
      }
      return false;
    };
    return [...this.#scrapers.values()].filter(lacks).map(({ name }) => name);
  }

  /** Forgets cursors that were not used for long, and streams that are gone. */
  tidy(forgotten: readonly StreamId[], nowMs: number): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.all()) for (const stream of forgotten) cursor.forget(stream);
      for (const [selection, group] of scraper.groups) {
        group.cursors = this.#worthKeeping(group.cursors, nowMs);
        group.mostAtWork = Math.min(group.mostAtWork, group.cursors.length);
        if (group.cursors.length > 0) continue;
        scraper.groups.delete(selection);
        changes.push({ kind: 'forgotten', scraper, selection, isLast: scraper.groups.size === 0 });
      }
      if (scraper.groups.size === 0) this.#scrapers.delete(scraper.key);
    }
    return changes;
  }

  /** Forgets a scraper, also with unread reports. Returns whether there was one. */
  forget(name: ScraperName): readonly CursorChange[] {
    const scraper = this.#scrapers.get(keyOf(name));
    return scraper === undefined ? [] : this.#drop(scraper);
  }

  /** The server's wall clock was set. Pending answers have times of the clock before, and are sent again. */
  clockStepped(deltaMs: number, nowMs: number): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const cursor of scraper.all()) {
        for (const answer of [...cursor.answers]) {
          this.#happened(scraper, cursor, answer, 'clock stepped', nowMs, changes);
        }
        cursor.clockStepped(deltaMs);
      }
    }
    return changes;
  }

  /** The times of one stream are others than was known. */
  move(stream: StreamId, byMs: number): void {
    for (const scraper of this.#scrapers.values()) for (const cursor of scraper.all()) cursor.move(stream, byMs);
  }

  /** As they are written to disk. `wallMs`: the present time of the wall clock. */
  save(nowMs: number, wallMs: number): SavedCursor[] {
    const saved: SavedCursor[] = [];
    for (const scraper of this.#scrapers.values()) {
      for (const { selection, address, seenAtMs, isKnown, positions, answers } of scraper.all()) {
        const unconfirmed = answers.filter(({ until }) => until.size > 0);
        saved.push({
          ...{ scraper: scraper.name, selection, address, seenAtMs: wallMs - (nowMs - seenAtMs), isKnown, positions },
          unconfirmed: unconfirmed.map((answer) => savedAnswer(answer, nowMs, wallMs)),
        });
      }
    }
    return saved;
  }

  /** Restores what {@link save} returned. Times of the future are of a clock that was wrong, and are forgotten. */
  restore(saved: readonly SavedCursor[], nowMs: number, wallMs: number): readonly CursorChange[] {
    const changes: CursorChange[] = [];
    const past = (times: Positions) => new Map([...times].filter(([, ms]) => ms <= wallMs));
    for (const { scraper: name, selection, address, seenAtMs, isKnown, positions, unconfirmed } of saved) {
      const key = keyOf(name);
      const scraper = this.#scrapers.get(key) ?? new Scraper(name);
      this.#scrapers.set(key, scraper);
      const seenMs = nowMs - Math.max(0, wallMs - seenAtMs);
      const confirmedBy = this.#confirmedBy(name);
      const cursor = new Cursor(selection, address, seenMs, past(positions), confirmedBy);
      cursor.isKnown = isKnown;
      cursor.isRestored = true;
      scraper.add(cursor);
      if (confirmedBy === 'receipt' && isKnown && positions.size > 0) scraper.restored(nowMs);
      for (const [at, { until, receipt }] of unconfirmed.entries()) {
        const latestMs = nowMs - restMs * (unconfirmed.length - at);
        if (receipt === undefined || confirmedBy === 'connection') {
          const answer: Answer = { ...beforeRestart, sentAtMs: latestMs, until: past(until), receipt: undefined };
          cursor.answers.push(answer);
          this.#happened(scraper, cursor, answer, 'restarted', nowMs, changes);
          continue;
        }
        const answer: Answer = {
          ...{ ...beforeRestart, state: { kind: receipt.isStored ? 'confirmed' : 'unconfirmed' } },
          sentAtMs: Math.min(latestMs, nowMs - (wallMs - receipt.sentAtMs)),
          until: past(until),
          receipt: {
            ...{ unseen: new Set(receipt.numbers), number: Math.max(0, ...receipt.numbers) },
            ...{
              from: past(receipt.from),
              given: [...until.keys()],
              samples: receipt.samples,
              reports: receipt.reports,
              missedAtMs: -Infinity,
            },
          },
        };
        cursor.answers.push(answer);
        this.#happened(scraper, cursor, answer, 'restarted', nowMs, changes);
      }
    }
    return changes;
  }

  /** The cursors that acks of this agent wait for. */
  *#holding(agent: string, nowMs: number): Generator<Cursor> {
    for (const scraper of this.#scrapers.values()) yield* this.#holdingOf(scraper, agent, nowMs);
  }

  *#holdingOf(scraper: Scraper, agent: string, nowMs: number): Generator<Cursor> {
    // It is given no reports.
    if (scraper.probe.keeps === 'none') return;
    for (const { cursors } of scraper.groups.values()) {
      if (cursors[0]?.selects(agent) !== true) continue;
      for (const cursor of cursors) if (cursor.holdsAcks(nowMs, this.#windowMs)) yield cursor;
    }
  }

  /** The scraper of this name, a new one if there is none and there is room. */
  #scraper(
    name: ScraperName,
    { address }: ScrapeConnection,
    nowMs: number,
    changes: CursorChange[],
  ): Scraper | undefined {
    const key = keyOf(name);
    const known = this.#scrapers.get(key);
    if (known !== undefined) return known;
    if (name.space === 'addr') {
      const [only, ...others] = [...this.#scrapers.values()].filter(
        (each) => each.name.space === 'addr' && [...each.all()].every((cursor) => this.#isSilent(each, cursor, nowMs)),
      );
      if (only !== undefined && others.length === 0) {
        this.#scrapers.delete(only.key);
        const moved = new Scraper(name);
        moved.groups = only.groups;
        for (const cursor of moved.all()) cursor.address = address;
        this.#scrapers.set(key, moved);
        changes.push(...forgotten(only));
        changes.push({ kind: 'address taken over', scraper: moved, from: only.name.text });
        return moved;
      }
    }
    if (this.#scrapers.size >= scrapersMax) {
      const away = [...this.#scrapers.values()].filter((each) => this.#isAway(each, nowMs));
      const oldest = away.reduce<Scraper | undefined>(
        (a, b) => (a !== undefined && a.seenAtMs <= b.seenAtMs ? a : b),
        undefined,
      );
      if (oldest === undefined) return undefined;
      changes.push(...this.#drop(oldest));
    }
    const scraper = new Scraper(name);
    this.#scrapers.set(key, scraper);
    return scraper;
  }

  /** What the database has not stored, by now, of the answers before this request. */
  #judge(
    scraper: Scraper,
    cursor: Cursor,
    { requestedAtMs, showsAfterMs, lastError, takesAnyOrder, isFailing }: Database,
    { nowMs, changes }: { readonly nowMs: number; readonly changes: CursorChange[] },
  ): void {
    cursor.takesAnyOrder = takesAnyOrder;
    const last = cursor.askable.findLast(({ state }) => state.kind === 'unconfirmed');
    for (const answer of cursor.askable) {
      const { receipt, state } = answer;
      const { missedAtMs } = receipt;
      const failed = answer === last ? lastError : undefined;
      // A scraper appends an answer before it requests the next one. Another database may show it later.
      const isMissed = missedAtMs >= requestedAtMs && (failed !== undefined || showsAfterMs === 0);
      if (!isMissed && missedAtMs < readByMs(answer) + showsAfterMs) continue;
      if (state.kind === 'lost') this.#happened(scraper, cursor, answer, 'refused', nowMs, changes);
      else if (failed !== undefined || scraper.mayRefuse(nowMs)) {
        this.#refused(scraper, cursor, answer, failed, { nowMs, changes });
      }
    }
    const isKnownToCome = scraper.receipts.kind === 'come' || scraper.receipts.kind === 'missing';
    const unconfirmed = cursor.askable.filter(({ state }) => state.kind === 'unconfirmed');
    const heldSinceMs = Math.min(...unconfirmed.map(({ sentAtMs }) => sentAtMs));
    cursor.isHeld =
      !takesAnyOrder && !isFailing && isKnownToCome && scraper.mayRefuse(nowMs) && nowMs - heldSinceMs < holdMs;
  }

  #refused(
    scraper: Scraper,
    cursor: Cursor,
    answer: Answer & { readonly receipt: Receipt },
    why: string | undefined,
    { nowMs, changes }: { readonly nowMs: number; readonly changes: CursorChange[] },
  ): void {
    // One that was under way when the last was found to be missing shows nothing new.
    const isNew = answer.sentAtMs >= (scraper.lastRefusal?.atMs ?? -Infinity);
    const isOfOther = why === undefined && scraper.isOfOther(answer.connection, nowMs);
    if (why === undefined && isNew && !isOfOther) scraper.receipts = missingAgain(scraper.receipts);
    this.#happened(scraper, cursor, answer, 'refused', nowMs, changes);
    const { receipts } = scraper;
    const isRepeated = isNew && receipts.kind === 'missing' && receipts.answers > 1;
    // Too many in a row are not of the size, nor of one agent.
    const isBeyond = receipts.kind === 'missing' && receipts.answers > missingMax;
    const isShown = why !== undefined || !(isOfOther || isBeyond);
    const blocked = isShown ? cursor.refuse(answer, { why, isRepeated, nowMs }) : undefined;
    if (why === undefined && scraper.areReceiptsMissing) cursor.pace.reset();
    const { number, samples } = answer.receipt;
    scraper.lastRefusal = { atMs: nowMs, number, why };
    const nextSamplesMax = cursor.pace.samplesMax;
    changes.push({ kind: 'refused', scraper, number, samples, nextSamplesMax, why, blocked });
  }

  /**
   * Whether a name may have this selection beside its others. Each position is memory, a line of the state file and work
   * for each ack: together they are no more than those of as many cursors for all agents as a name may have.
   */
  #hasRoom(scraper: Scraper, selection: string): boolean {
    if (scraper.groups.size >= selectionsMax) return false;
    if (selection === '') return true;
    let groups = 0;
    for (const each of this.#scrapers.values()) groups += each.groups.size;
    if (groups >= allSelectionsMax) return false;
    let selected = selection.split(',').length;
    for (const cursor of scraper.all()) selected += cursor.selectedAgents;
    return selected <= Math.max(selectionsMax, cursorsMax * this.#agentCount());
  }

  /** The cursor that this request continues with; none if there are too many. */
  #choose(
    scraper: Scraper,
    selection: string,
    connection: ScrapeConnection,
    { nowMs, request, changes }: { nowMs: number; request: number; changes: CursorChange[] },
  ): { readonly cursor: Cursor; readonly isNew: boolean } | undefined {
    const { address } = connection;
    const cursors = scraper.groups.get(selection)?.cursors ?? [];
    if (cursors.length === 0) {
      if (!this.#hasRoom(scraper, selection)) return undefined;
      const cursor = new Cursor(selection, address, nowMs, undefined, this.#confirmedBy(scraper.name));
      scraper.add(cursor);
      return { cursor, isNew: true };
    }
    if (cursors[0]!.confirmedBy === 'receipt') return { cursor: cursors[0]!, isNew: false };
    const near = cursors.filter((cursor) => cursor.address === address);
    const isPool = scraper.groups.size > 1;
    const own = near.find((cursor) => isPool || cursor.connection === connection);
    if (own !== undefined) return { cursor: own, isNew: false };
    const isAnyOpen = (near.length > 0 ? near : cursors).some((cursor) => this.#isOpen(scraper, cursor.connection));
    const left = near.length > 0 ? near : cursors.filter((cursor) => this.#isSilent(scraper, cursor, nowMs));
    const [last] = [...left].sort((a, b) => b.seenAtMs - a.seenAtMs);
    if (near.length === 0) {
      changes.push({ kind: 'another address', scraper, address, before: (last ?? cursors.at(-1)!).address });
    }
    if (isAnyOpen || last === undefined) return this.#beside(scraper, selection, connection, { nowMs, request });
    const before = left.map((cursor) => cursor.copy());
    if (left.length > 1) for (const cursor of left) cursor.startAtOldestOf(before, cursor.copy());
    return { cursor: last, isNew: false };
  }

  /** A cursor beside others, from the oldest of them on. */
  #beside(
    scraper: Scraper,
    selection: string,
    connection: ScrapeConnection,
    { nowMs, request }: { nowMs: number; request: number },
  ): { readonly cursor: Cursor; readonly isNew: boolean } | undefined {
    const { cursors } = scraper.groups.get(selection)!;
    const cursor = new Cursor(selection, connection.address, nowMs);
    // The last one to request is the likeliest to come over a new connection.
    cursor.startAtOldestOf(
      cursors,
      cursors.reduce((a, b) => (b.seenAtMs >= a.seenAtMs ? b : a)),
    );
    cursor.isKnown = cursors.some(({ isKnown }) => isKnown);
    cursor.origin = { kind: 'beside', sinceRequest: request };
    if (cursors.length >= cursorsMax) {
      // First those that have not shown that they are needed, but for the last one at work: two that take each other's
      // cursor would never get on.
      const unproven = cursors.filter(({ origin }) => origin.kind === 'beside');
      const lastAtMs = Math.max(...unproven.map(({ seenAtMs }) => seenAtMs));
      const ended = cursors.filter((each) => !this.#isOpen(scraper, each.connection));
      const dispensable = [
        unproven.filter((each) => ended.includes(each)),
        unproven.filter(({ seenAtMs }) => seenAtMs < lastAtMs),
        ended,
        unproven,
      ].find(({ length }) => length > 0);
      if (dispensable === undefined) return undefined;
      const oldest = dispensable.reduce((a, b) => (b.seenAtMs < a.seenAtMs ? b : a));
      cursors.splice(cursors.indexOf(oldest), 1);
    }
    // Its connection has ended while it waited: its answer is read by nobody, and must not delay acks.
    if (!this.#ended.has(connection)) cursors.push(cursor);
    return { cursor, isNew: false };
  }

  /** An event of an answer. */
  #happened(
    scraper: Scraper,
    cursor: Cursor,
    answer: Answer,
    event: AnswerEvent,
    nowMs: number,
    changes: CursorChange[],
  ): void {
    const { until } = answer;
    for (const effect of cursor.apply(answer, event, nowMs)) {
      if (effect === 'advance') {
        changes.push({ kind: 'confirmed', scraper, by: cursor.confirmedBy, streams: [...until.keys()] });
        cursor.provenRequest = Math.max(cursor.provenRequest, answer.request);
        if (cursor.confirmedBy === 'connection') this.#proven(scraper, cursor, nowMs, changes);
      } else if (effect === 'count' && answer.state.kind === 'lost') {
        changes.push({ kind: 'lost', scraper, how: answer.state.how });
      }
    }
  }

  /**
   * A scraper has read an answer. If another has as well, since the younger of the two came, there are two of one name.
   */
  #proven(scraper: Scraper, proven: Cursor, nowMs: number, changes: CursorChange[]): void {
    const group = scraper.groups.get(proven.selection);
    if (group === undefined) return;
    const { cursors } = group;
    for (const [at, cursor] of cursors.entries()) {
      const { origin } = cursor;
      if (origin.kind === 'own' || cursor.provenRequest < origin.sinceRequest) continue;
      // Those before it are older.
      if (!cursors.slice(0, at).some((each) => each.provenRequest > origin.sinceRequest)) continue;
      cursor.origin = { kind: 'own' };
      scraper.conflicts = again(scraper.conflicts, nowMs);
      changes.push({ kind: 'conflict', scraper });
    }
    const atWork = cursors.filter(
      ({ origin, connection }) => origin.kind === 'own' && this.#isOpen(scraper, connection),
    );
    if (atWork.length < group.mostAtWork) return;
    group.mostAtWork = atWork.length;
    // As many as there ever were: none is missing, to which a cursor that was left could belong.
    group.cursors = cursors.filter(({ connection }) => this.#isOpen(scraper, connection));
  }

  /** The connection of a cursor has ended: is its scraper connected over another one? */
  #left(scraper: Scraper, cursor: Cursor, nowMs: number): void {
    const cursors = scraper.groups.get(cursor.selection)?.cursors ?? [];
    if (scraper.groups.size > 1) {
      // Any other connection of a pool will do.
      for (const [other, user] of this.#connections) {
        if (user === scraper && other.address === cursor.address) {
          cursor.connection = other;
          return;
        }
      }
    }
    const { origin } = cursor;
    const wasNobody =
      origin.kind === 'beside' && cursor.provenRequest < origin.sinceRequest && !cursor.hasRested(nowMs);
    if (wasNobody && cursors.length > 1) cursors.splice(cursors.indexOf(cursor), 1);
    while (this.#succeed(scraper, cursors));
  }

  /** Finds a cursor whose scraper came back over another connection, and removes it. */
  #succeed(scraper: Scraper, cursors: Cursor[]): boolean {
    for (const [at, left] of cursors.entries()) {
      if (this.#isOpen(scraper, left.connection)) continue;
      const { origin, provenRequest } = left;
      const seenRequest = Math.max(provenRequest, origin.kind === 'beside' ? origin.sinceRequest : -1);
      for (const [place, successor] of cursors.entries()) {
        const next = successor.origin;
        if (next.kind === 'own' || next.sinceRequest <= seenRequest) continue;
        // It may be any of those that were there and have sent no request since: then all stay.
        const isOnlyOne = cursors.every(
          (each, index) => index === at || index >= place || each.provenRequest >= next.sinceRequest,
        );
        if (!isOnlyOne) break;
        successor.origin = origin;
        cursors.splice(at, 1);
        return true;
      }
    }
    return false;
  }

  /**
   * If a sibling is in use, one that has been away for the window is obsolete. If all are away, one stays for a day, at
   * the oldest of their positions, for the scraper to come back to.
   */
  #worthKeeping(cursors: readonly Cursor[], nowMs: number): Cursor[] {
    const inUse = cursors.filter((cursor) => nowMs - cursor.seenAtMs <= this.#windowMs);
    if (inUse.length > 0) {
      // If it is alone, it is no second connection.
      if (inUse.length === 1) inUse[0]!.origin = { kind: 'own' };
      return inUse;
    }
    const past = cursors.filter((cursor) => {
      return nowMs - cursor.seenAtMs <= (cursor.isAskedOnce ? Math.max(this.#windowMs, askedOnceKeptMs) : cursorKeptMs);
    });
    if (past.length < 2) return past;
    const last = past.reduce((a, b) => (b.seenAtMs > a.seenAtMs ? b : a));
    last.isKnown = past.some(({ isKnown }) => isKnown);
    last.startAtOldestOf(
      past.map((each) => each.copy()),
      last.copy(),
    );
    last.origin = { kind: 'own' };
    return [last];
  }

  #isOpen(scraper: Scraper, connection: ScrapeConnection | undefined): boolean {
    return connection !== undefined && this.#connections.get(connection) === scraper;
  }

  /** It has missed several of its scrapes, and keeps no connection. */
  #isSilent(scraper: Scraper, cursor: Cursor, nowMs: number): boolean {
    // No request can have come while the server was down.
    const sinceMs = Math.max(cursor.seenAtMs, this.#startedMs);
    const missedMs = Math.max(silentMsMin, 3 * (cursor.intervalMs ?? intervalMsMost));
    return !this.#isOpen(scraper, cursor.connection) && nowMs - sinceMs > missedMs;
  }

  #isAway(scraper: Scraper, nowMs: number): boolean {
    return [...scraper.all()].every(
      (cursor) => !this.#isOpen(scraper, cursor.connection) && nowMs - cursor.seenAtMs > this.#windowMs,
    );
  }

  #drop(scraper: Scraper): CursorChange[] {
    this.#scrapers.delete(scraper.key);
    for (const [connection, user] of this.#connections) if (user === scraper) this.#connections.delete(connection);
    return forgotten(scraper);
  }
}

export interface CursorsOptions {
  readonly windowMs: number;
  readonly nowMs: number;
  /** Numbers of answers begin after this one; no other run, and no other server, has them. */
  readonly numberBefore?: number;
  /** How many agents are known. */
  readonly agentCount: () => number;
  /** By its connections where it is not said. */
  readonly confirmedBy?: (name: ScraperName) => ConfirmedBy;
}

export interface CursorRequest {
  readonly name: ScraperName;
  /** Names of agents, sorted, with commas between them; "" for all. */
  readonly selection: string;
  readonly connection: ScrapeConnection;
  readonly timeoutMs: number;
  /** Where receipts confirm. */
  readonly database?: Database | undefined;
}

/** What is known of a scraper's database when it requests. */
export interface Database {
  /** When the request came. */
  readonly requestedAtMs: number;
  /** How long after it was sent a stored answer may be missing still; 0: it is there before the next request. */
  readonly showsAfterMs: number;
  /** Why the last scrape of this selection failed; undefined: it did not, or it is not known. */
  readonly lastError: string | undefined;
  /** It takes the samples of a series in any order. */
  readonly takesAnyOrder: boolean;
  /** It has not answered a question for a while. */
  readonly isFailing: boolean;
}

/** Whether the database of a scraper shows the numbers of answers at all. */
export type ReceiptsComing =
  | { readonly kind: 'none yet' }
  | { readonly kind: 'come' }
  /** So many answers in a row were not stored, and no scrape is known to have failed. */
  | { readonly kind: 'missing'; readonly answers: number };

/** A request that is being answered. */
export interface OpenedCursor {
  readonly scraper: Scraper;
  readonly cursor: Cursor;
  readonly answer: Answer;
  /** Never seen before: its start is not decided yet. */
  readonly isNew: boolean;
}

export type CursorChange =
  | {
      readonly kind: 'confirmed';
      readonly scraper: Scraper;
      readonly by: ConfirmedBy;
      readonly streams: readonly StreamId[];
    }
  | { readonly kind: 'lost'; readonly scraper: Scraper; readonly how: Loss }
  /** Its database has shown what it keeps of an answer. */
  | { readonly kind: 'probed'; readonly scraper: Scraper; readonly keeps: Keeps }
  /** It was read, as far as its connection says, and is not stored. `why`: what the scraper's last scrape failed with. */
  | {
      readonly kind: 'refused';
      readonly scraper: Scraper;
      readonly number: number;
      readonly samples: number;
      readonly nextSamplesMax: number;
      readonly why: string | undefined;
      /** It gave of this one alone, whose reports wait from now on. */
      readonly blocked: StreamId | undefined;
    }
  /** Sent twice and never confirmed: the position has moved behind it. */
  | {
      readonly kind: 'assumed';
      readonly scraper: Scraper;
      readonly cursor: Cursor;
      readonly assumed: readonly Assumed[];
    }
  /** Two scrapers read under one name. */
  | { readonly kind: 'conflict'; readonly scraper: Scraper }
  /** A name was used from another address than before. */
  | { readonly kind: 'another address'; readonly scraper: Scraper; readonly address: string; readonly before: string }
  /** A scraper that is named by its address continues with the cursor of one that has gone silent. */
  | { readonly kind: 'address taken over'; readonly scraper: Scraper; readonly from: string }
  /** It is forgotten; of the last of its selections, the scraper is. */
  | { readonly kind: 'forgotten'; readonly scraper: Scraper; readonly selection: string; readonly isLast: boolean };

export interface SavedCursor {
  readonly scraper: ScraperName;
  readonly selection: string;
  readonly address: string;
  /** On the wall clock. */
  readonly seenAtMs: number;
  readonly isKnown: boolean;
  readonly positions: Positions;
  /** Answers that were sent whole, or are being sent with a receipt to come, oldest first. */
  readonly unconfirmed: readonly SavedAnswer[];
}

export interface SavedAnswer {
  readonly until: Positions;
  readonly receipt: SavedReceipt | undefined;
}

export interface SavedReceipt {
  /** Those that have not been seen in the database. */
  readonly numbers: readonly number[];
  readonly from: Positions;
  readonly samples: number;
  readonly reports: number;
  /** On the wall clock. */
  readonly sentAtMs: number;
  /** It is there, and something before it is not. */
  readonly isStored: boolean;
}

function savedAnswer({ state, until, receipt, sentAtMs }: Answer, nowMs: number, wallMs: number): SavedAnswer {
  if (receipt === undefined) return { until, receipt: undefined };
  const { unseen, from, samples, reports } = receipt;
  return {
    until,
    receipt: {
      ...{ numbers: [...unseen], from, samples, reports, isStored: state.kind === 'confirmed' },
      // One that is being sent is sent now.
      sentAtMs: Math.round(sentAtMs === -Infinity ? wallMs : wallMs - (nowMs - sentAtMs)),
    },
  };
}

/** The cursors of one name and selection, in the order in which they were made. */
export interface CursorGroup {
  cursors: Cursor[];
  /** The most scrapers that had a connection open at once. */
  mostAtWork: number;
}

/** How often something has happened, and when it last did, on the monotonic clock. */
export interface Times {
  readonly count: number;
  readonly lastMs: number;
}

const noTimes: Times = { count: 0, lastMs: -Infinity };
const again = ({ count }: Times, nowMs: number): Times => ({ count: count + 1, lastMs: nowMs });

/** All cursors of one name, by selection. */
export class Scraper {
  readonly name: ScraperName;
  readonly key: string;
  groups = new Map<string, CursorGroup>();
  /** A second scraper read under the name. */
  conflicts = noTimes;
  receipts: ReceiptsComing = { kind: 'none yet' };
  readonly probe = new Probe();
  /** Of its answers, the last that its database did not store. On the monotonic clock. */
  lastRefusal: { readonly atMs: number; readonly number: number; readonly why: string | undefined } | undefined;
  /** What was sent twice and never confirmed was assumed to have been read. */
  assumedAnswers = noTimes;
  /** When an answer was last found to be stored, on the monotonic clock, and from which address it was asked for. */
  #storedAtMs = -Infinity;
  #storedFrom: string | undefined;

  constructor(name: ScraperName) {
    this.name = name;
    this.key = keyOf(name);
  }

  /** Its database answers, and shows none of the last answers, though no scrape is known to have failed. */
  get areReceiptsMissing(): boolean {
    return this.receipts.kind === 'missing' && this.receipts.answers >= missingMax;
  }

  /** An answer over this connection is stored; undefined: it was given before a restart. */
  storedOne(connection: ScrapeConnection | undefined, nowMs: number): void {
    this.receipts = { kind: 'come' };
    this.#storedAtMs = nowMs;
    this.#storedFrom = connection?.address ?? this.#storedFrom;
  }

  /** Before a restart, numbers came. */
  restored(nowMs: number): void {
    this.receipts = { kind: 'come' };
    this.#storedAtMs = nowMs;
  }

  /**
   * Whether an answer that is missing in the database counts as refused, where no scrape is known to have failed. Others may
   * ask under this name, however often between two requests of the scraper itself: what they are given is missing, and must
   * not be passed, as a database that takes only what is in order would never take it. If nothing has been stored for long,
   * the numbers are probably dropped on their way.
   */
  mayRefuse(nowMs: number): boolean {
    if (this.receipts.kind === 'none yet') return false;
    return !this.areReceiptsMissing || nowMs - this.#storedAtMs < missingMsMax;
  }

  /** Whether this connection is probably another program's: what is missing of it says nothing of the scraper's database. */
  isOfOther(connection: ScrapeConnection | undefined, nowMs: number): boolean {
    if (connection === undefined || this.#storedFrom === undefined) return false;
    return connection.address !== this.#storedFrom && nowMs - this.#storedAtMs < missingMsMax;
  }

  *all(): Generator<Cursor> {
    for (const { cursors } of this.groups.values()) yield* [...cursors];
  }

  get seenAtMs(): number {
    return Math.max(...[...this.all()].map(({ seenAtMs }) => seenAtMs));
  }

  /** Each that is added may be another scraper's. */
  add(cursor: Cursor): void {
    const group = this.groups.get(cursor.selection) ?? { cursors: [], mostAtWork: 0 };
    this.groups.set(cursor.selection, group);
    group.cursors.push(cursor);
    group.mostAtWork++;
  }
}

const forgotten = (scraper: Scraper): CursorChange[] =>
  [...scraper.groups.keys()].map((selection, at) => ({
    ...{ kind: 'forgotten', scraper, selection },
    isLast: at === scraper.groups.size - 1,
  }));

const keyOf = ({ space, text }: ScraperName): string => `${space}:${text}`;

/** When an answer was read at the latest, if at all. */
function readByMs({ sentAtMs, givesUpMs: [, toMs] }: Answer): number {
  return Math.max(sentAtMs + bufferedMsMax, toMs === Infinity ? -Infinity : toMs);
}

const missingAgain = (receipts: ReceiptsComing): ReceiptsComing => ({
  kind: 'missing',
  answers: receipts.kind === 'missing' ? receipts.answers + 1 : 1,
});

function answerEvent(event: ConnectionEvent, answer: Answer, nowMs: number): AnswerEvent {
  if (event.kind === 'half-closed') return 'half-closed';
  const restedMs = nowMs - answer.sentAtMs;
  const [fromMs, toMs] = answer.givesUpMs;
  const isTimeOut = fromMs <= nowMs && nowMs <= toMs;
  if (event.kind === 'reset') {
    if (restedMs < restMs) return 'reset at once';
    return isTimeOut ? 'timed out' : 'ended at rest';
  }
  if (!event.isAcknowledged) return 'closed too early';
  // One that is killed while it stores an answer closes its connection as well.
  if (restedMs < restMsOf(answer)) return 'closed at once';
  // A proxy may have read an answer for which its client no longer waits.
  return isTimeOut ? 'ended at rest' : 'closed at rest';
}

const beforeRestart = {
  ...{ state: { kind: 'unconfirmed' }, connection: undefined, request: -1, givesUpMs: never, samples: 0 },
} as const satisfies Partial<Answer>;

// What is newer waits so long for a receipt.
const holdMs = 30_000;
// An answer may wait in the buffers of a slow line.
const bufferedMsMax = 15_000;
// Beyond both, the numbers are probably dropped on their way into the database.
const missingMax = 4;
const missingMsMax = 5 * 60_000;
// More than 32 names are a mistake or an attack; a name may have a job for each of some agents.
export const scrapersMax = 32;
const selectionsMax = 128;
// Of all names: each has two series in every answer.
const allSelectionsMax = 1024;
const cursorsMax = 4;
// How long a position is kept. It delays acks only for the window.
const cursorKeptMs = 24 * 3_600_000;
// Of some agents, and asked for once: a person's, or a mistake. Nothing that scrapes is as rare.
const askedOnceKeptMs = 2 * 3_600_000;
const silentMsMin = 60_000;
// Of a scraper whose interval is not known: Prometheus looks back no further for a value.
const intervalMsMost = 5 * 60_000;
