import type { AgentId } from '../../model/agent-id.ts';
import { agentId } from '../../model/agent-id.ts';
import { parseStreamId, type StreamId } from '../../model/source.ts';
import type { Begin, EpochSeq } from '../../protocol/messages.ts';
import type { Clock, HostBoot } from '../../runtime/clock.ts';
import { mebibytesText, plural } from '../../runtime/words.ts';
import { Acks } from './acks.ts';
import { type AgentRecord, awaitedMs, type StreamRecord } from './agent-record.ts';
import { type CursorChange, Cursors, type Database, type OpenedCursor } from './cursors.ts';
import type { Gives } from './probe.ts';
import { type ReceiptEvent, Receipts, type ScraperDatabase, type StoredAnswers } from './receipts.ts';
import { type AnswerPlan, planAnswer, readAnswer } from './scrape.ts';
import {
  type ConnectionEvent,
  type Positions,
  type Scrape,
  type ScrapeConnection,
  type ScrapeRequest,
  type ScraperName,
  scraperText,
} from './scraper.ts';
import {
  parseState,
  type SavedAgent,
  type SavedClock,
  type SavedState,
  type StateDisk,
  StateFile,
  stateByClock,
  stepBetween,
} from './state-file.ts';
import { type EvictionReason, Store, type StoreOptions } from './store.ts';

/**
 * The promise of the whole program in one place: a report is acknowledged when every known scraper has it and the
 * cursors on disk say so, or when it was evicted, or if nobody scrapes. So a server that is killed loses nothing:
 * agents send again what was not scraped.
 *
 *     report ─▶ window ─▶ scrape ─▶ cursors ─▶ file ─▶ ack
 *
 * Cursors and acks return what an event has changed; this class acts on it.
 */
export class Delivery {
  readonly store: Store;
  readonly #cursors: Cursors;
  readonly #acks: Acks;
  readonly #receipts: Receipts;
  readonly #options: DeliveryOptions;
  readonly #file: StateFile | undefined;
  readonly #live = new Map<AgentId, Acknowledge>();
  /** Streams forgotten so far. */
  #forgottenCount = 0;
  /** This server among those that one Prometheus scrapes: random, and kept with the state. */
  #serverId: string;
  /** By how much the wall clock was set between the last run's last write and this start; 0 also if nobody can tell. */
  readonly steppedBeforeMs: number;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    const { clock, random, windowMs, disk } = options;
    this.#serverId = newServerId(random);
    this.#receipts = new Receipts({
      clock,
      serverId: () => this.#serverId,
      databases: options.databases ?? new Map(),
      oldestUnknownMs: (name) => this.#cursors.oldestUnknownMs(name),
      hasProbe: (name) => this.#cursors.hasProbe(name),
      onStored: (name, stored, askedAtMs) => this.#stored(name, stored, askedAtMs),
      onEvent: (name, event) => options.onReceiptEvent?.(name, event),
    });
    this.#cursors = new Cursors({
      ...{ windowMs, nowMs: clock.monotonicMs(), numberBefore: newNumberBefore(random) },
      agentCount: () => this.store.agents.size,
      confirmedBy: (name) => (this.#receipts.has(name) ? 'receipt' : 'connection'),
    });
    this.#acks = new Acks({ clock, hasDisk: disk !== undefined });
    this.store = new Store({
      ...options.store,
      clock,
      windowMs,
      unscrapedAfterMs: (stream, reason) => this.#unscrapedAfterMs(stream, reason),
      scrapersWithout: (stream, reason, timeMs) => this.#scrapersWithout(stream, reason, timeMs),
      onReceived: (agent) => this.#acknowledge(agent),
    });
    if (disk !== undefined) {
      this.#file = new StateFile({
        disk,
        compose: () => this.#compose(),
        onError: (error) => options.onStateError(error),
      });
    }
    this.steppedBeforeMs = this.#restore();
    // Of the last run's answers, before the first of this one.
    for (const { name } of this.#cursors.scrapers) this.#receipts.of(name)?.sent();
  }

  get serverId(): string {
    return this.#serverId;
  }

  get windowMs(): number {
    return this.#options.windowMs;
  }

  /** An agent is connected: `acknowledge` is called whenever there is more to acknowledge. Returns what undoes it. */
  connect(agent: AgentRecord, acknowledge: Acknowledge): () => void {
    this.#live.set(agent.id, acknowledge);
    return () => {
      if (this.#live.get(agent.id) === acknowledge) this.#live.delete(agent.id);
    };
  }

  /**
   * A source of a connected agent is begun. Where the epoch's offset shows that the clock of this host was set back before
   * this start, perhaps by a boot, no position may be ahead of what comes: the agent sends it with times by the new clock.
   * Throws a BudgetError if the agent has begun too many sources of late.
   */
  begin(agent: AgentRecord, message: Omit<Begin, 'kind'>): StreamRecord {
    const stepMs = agent.stepBeforeStart(message);
    if (stepMs < 0) this.#movePositions(agent, positionsShiftMs(stepMs));
    const { stream, forgotten } = this.store.begin(agent, message);
    if (forgotten.length > 0) this.#forgotten(forgotten);
    return stream;
  }

  /** Of all streams of which nothing has come since the start. */
  #movePositions(agent: AgentRecord, byMs: number): void {
    for (const stream of agent.streams) {
      if (stream.reportAtMonotonicMs !== undefined) continue;
      stream.steppedBeforeStart(byMs);
      this.#acks.move(stream.id, byMs);
      this.#cursors.move(stream.id, byMs);
    }
    this.#file?.changed();
  }

  /** What may be acknowledged to this agent now. */
  ack(agent: AgentRecord): EpochSeq | undefined {
    const ackableMs = new Map<StreamRecord, number>();
    for (const stream of agent.streams) {
      ackableMs.set(stream, this.#acks.ackableMs(stream.id, this.confirmedMs(stream)));
    }
    const { ack, first } = agent.acknowledgeable((stream) => ackableMs.get(stream)!);
    if (ack === undefined) return undefined;
    for (const [stream, ms] of ackableMs) {
      const { window } = stream;
      const untilMs = Math.min(ms, stream.newestMs);
      // A stream may be confirmed beyond the report at which the ack stops.
      const lastMs = first === undefined ? untilMs : (window.receiptBefore(first, untilMs)?.timeMs ?? -Infinity);
      this.#acks.acknowledged(stream.id, Math.min(untilMs, (window.timeAfter(lastMs) ?? Infinity) - 1));
    }
    return ack;
  }

  /** Up to which time every known scraper has this stream's reports; Infinity if no known scraper selects them. */
  confirmedMs({ id, agent }: StreamRecord): number {
    return this.#cursors.confirmedMs(id, agent.id, this.#options.clock.monotonicMs());
  }

  /** How many reports in this stream's window each known scraper that selects it has not had. */
  unscrapedReports({ id, agent, window }: StreamRecord): Map<string, number> {
    const confirmed = this.#cursors.confirmedMsByScraper(id, agent.id, this.#options.clock.monotonicMs());
    return new Map([...confirmed].map(([{ name }, ms]) => [scraperText(name), window.countAfter(ms)]));
  }

  /**
   * Begins a scrape, and reads what this scraper has not had. Undefined if there are too many scrapers: this one gets
   * the newest values instead.
   */
  async openScrape(request: ScrapeRequest): Promise<Scrape | undefined> {
    const { clock, windowMs, turn } = this.#options;
    const selection = [...request.selection].sort().join(',');
    const database = await this.#askBeforeAnswer(request, selection);
    this.#options.lookAtClock();
    const nowMs = clock.nowMs();
    const monotonicMs = clock.monotonicMs();
    const { opened, changes } = this.#cursors.open({ ...request, selection, database }, monotonicMs);
    this.#changed(changes);
    if (opened === undefined) return undefined;
    const { cursor, isNew, scraper } = opened;
    const inquiry = this.#receipts.of(request.name);
    const gives: Gives =
      inquiry === undefined
        ? 'reports'
        : scraper.probe.gives({
            isKnown: cursor.isKnown,
            isFailing: inquiry.health.kind === 'fails',
            nowMs: monotonicMs,
          });
    const agents = [...this.store.agents.values()].filter(({ id }) => cursor.selects(id));
    for (const agent of agents) this.store.evictByAge(agent, nowMs);
    const records = agents.flatMap(({ streams }) => [...streams]);
    if (isNew) this.#start(opened, records);
    // With an out-of-order window, Prometheus refuses a whole scrape for one sample that is too old when it gets there.
    const notBeforeMs = nowMs - windowMs + Math.min(request.timeoutMs + arrivalMarginMs, windowMs / 10);
    const bounds = {
      // Never more, even if the request asks for it: it bounds the memory of an answer.
      samplesMax: Math.min(request.samplesMax ?? Infinity, cursor.pace.samplesMax),
      firstSamplesMax: request.samplesMax ?? Infinity,
      bytesMax: Math.min(request.bytesMax ?? Infinity, cursor.pace.bytesMax),
      decodedBytesMax: cursor.pace.decodedBytesMax,
      reportsMax: gives === 'one report' ? 1 : (request.reportsMax ?? Infinity),
    };
    const lastScrapeMs = nowMs - (cursor.intervalsMs[0] ?? 0);
    const given = gives === 'reports' || gives === 'one report' ? records : [];
    const plan = planAnswer(given, cursor, bounds, { nowMs, monotonicMs, notBeforeMs, lastScrapeMs });
    this.#noteShares(plan, request.name, nowMs);
    const forgottenBefore = this.#forgottenCount;
    const { batches, from, until: untilMs } = await readAnswer(plan, notBeforeMs, turn);
    const until = this.#stillKnown(untilMs, forgottenBefore);
    const forgottenSince = this.#forgottenCount;
    const { given: streams, samples, reports } = plan;
    const receipt =
      inquiry === undefined
        ? undefined
        : this.#cursors.number(
            opened,
            { from, until, given: streams, samples, reports },
            { nowMs: monotonicMs, wallMs: nowMs },
          );
    return {
      ...plan,
      ...{ scraper: request.name, gives, batches, until },
      ...{ number: receipt?.number, probeTimesMs: receipt?.probeTimesMs },
      intervalMs: cursor.intervalMs,
      mayEnd: receipt === undefined ? Promise.resolve() : this.#written(request.timeoutMs / 4),
      finish: () => {
        cursor.pace.arrived(plan.arrived);
        const sent = { until: this.#stillKnown(until, forgottenSince), samples: plan.samples };
        this.#changed(this.#cursors.finish(opened, sent, clock.monotonicMs()));
        this.#file?.changed();
        inquiry?.sent();
      },
      abort: () => {
        const text = `most of an answer of ${mebibytesText(plan.bytes)} that was not sent completely was its own`;
        plan.dominant?.excesses.add('answer', text, nowMs);
        this.#changed(this.#cursors.abort(opened, clock.monotonicMs()));
        // What this request has confirmed is not on disk yet.
        this.#file?.changed();
      },
    };
  }

  /** What the scraper's database has of the answers before; undefined where receipts do not confirm. */
  async #askBeforeAnswer(
    { name, timeoutMs, takesAnyOrder = false }: ScrapeRequest,
    selection: string,
  ): Promise<Database | undefined> {
    const inquiry = this.#receipts.of(name);
    if (inquiry === undefined) return undefined;
    const requestedAtMs = this.#options.clock.monotonicMs();
    const { lastError } = await inquiry.beforeAnswer(selection, Math.min(askMsMax, timeoutMs / 4));
    const { isFailing, last } = inquiry;
    return { requestedAtMs, lastError, takesAnyOrder, isFailing, showsAfterMs: last?.showsAfterMs ?? 0 };
  }

  /** The database of a scraper has these of its answers. */
  #stored(name: ScraperName, stored: StoredAnswers, askedAtMs: number): void {
    const changes = this.#cursors.stored(name, stored, { askedAtMs, nowMs: this.#options.clock.monotonicMs() });
    this.#changed(changes);
    if (changes.length > 0) this.#file?.changed();
  }

  /** Resolves when the state is on disk, or could not be written; after `waitMs` at most. */
  async #written(waitMs: number): Promise<void> {
    if (this.#file === undefined) return;
    this.#file.changed();
    const written = this.#file.flush();
    await new Promise<void>((resolve) => {
      const deadline = this.#options.clock.after(waitMs, resolve);
      void written.then(() => {
        deadline.cancel();
        resolve();
      });
    });
  }

  /** Which agents wait for room in the answers to a scraper, although others do not. */
  #noteShares({ beyondShare }: AnswerPlan, { text }: ScraperName, nowMs: number): void {
    for (const { agent, reports, given } of beyondShare) {
      const memory = mebibytesText(given.decodedBytes);
      const samples = `${given.samples} of its samples (${mebibytesText(given.bytes)}, in memory ${memory})`;
      const waits = `${plural(reports, 'report')} ${reports === 1 ? 'waits' : 'wait'} for the next scrapes of '${text}'`;
      agent.excesses.add('answer', `an answer has room for ${samples} beside others, ${waits}`, nowMs);
    }
  }

  /** A connection over which scrapes came has ended. Whichever event comes first counts. */
  connectionEvent(connection: ScrapeConnection, event: ConnectionEvent): void {
    const changes = this.#cursors.ended(connection, event, this.#options.clock.monotonicMs());
    this.#changed(changes);
    if (changes.length > 0) this.#file?.changed();
  }

  /** All scrapers with their cursors. */
  get scrapers(): Cursors['scrapers'] {
    return this.#cursors.scrapers;
  }

  /**
   * Forgets a scraper, so that acks no longer wait for it. Returns how many cursors it had, and how many reports that only
   * it had not confirmed can be acknowledged now, or soon: when the state is on disk. Undefined if there is none of this name.
   */
  forgetScraper(name: ScraperName): { readonly cursors: number; readonly freedReports: number } | undefined {
    const scraper = [...this.#cursors.scrapers].find((each) => scraperText(each.name) === scraperText(name));
    if (scraper === undefined) return undefined;
    const cursors = [...scraper.all()].length;
    const streams = [...this.store.agents.values()].flatMap(({ streams }) => [...streams]);
    const heldMs = new Map(streams.map((stream) => [stream, this.confirmedMs(stream)]));
    this.#changed(this.#cursors.forget(name));
    let freedReports = 0;
    for (const [stream, beforeMs] of heldMs) {
      const afterMs = this.confirmedMs(stream);
      freedReports += stream.window.countAfter(beforeMs, Math.min(afterMs, stream.newestMs));
    }
    this.#file?.changed();
    this.#acknowledgeAll();
    return { cursors, freedReports };
  }

  /**
   * The wall clock was set by so much, forwards or backwards. Agents send again what is not acknowledged, with times by
   * the new clock: no position may be ahead of these.
   */
  clockStepped(deltaMs: number): void {
    const { clock } = this.#options;
    const shiftMs = positionsShiftMs(deltaMs);
    this.store.clockStepped(deltaMs, (agent) => ({
      ack: this.ack(agent),
      untilMsOf: ({ id }) => this.#acks.acknowledgedMs(id) + shiftMs,
    }));
    this.#acks.clockStepped(shiftMs);
    this.#changed(this.#cursors.clockStepped(shiftMs, clock.monotonicMs()));
    this.#file?.changed();
  }

  /** Evicts old reports, and forgets unused cursors and agents long gone. Called every few seconds. */
  tidy(): void {
    this.#options.lookAtClock();
    const forgotten = this.store.tidy();
    this.#forgotten(forgotten);
    // There is no event when a cursor stops delaying acks, or when the wait after the start is over.
    this.#acknowledgeAll();
  }

  /** Forgets an agent at once: its reports, and the cursors' positions of it. */
  forget(id: AgentId): void {
    this.#forgotten(this.store.forget(id));
  }

  /** The databases of scrapers, and how they answer. */
  get receipts(): Receipts {
    return this.#receipts;
  }

  /** Asks no database any more. */
  stop(): void {
    this.#receipts.stop();
  }

  /** Resolves when the state is on disk. */
  async flush(): Promise<void> {
    this.#file?.changed();
    await this.#file?.flush();
  }

  #changed(changes: readonly CursorChange[]): void {
    for (const change of changes) {
      // With a file, all acks wait until it has what was confirmed.
      if (change.kind === 'confirmed' && this.#file === undefined) {
        for (const stream of change.streams) this.#acknowledgeStream(stream);
      }
      this.#options.onCursorChange(change);
    }
  }

  #forgotten(streams: readonly StreamId[]): void {
    this.#changed(this.#cursors.tidy(streams, this.#options.clock.monotonicMs()));
    for (const stream of streams) this.#acks.forget(stream);
    this.#forgottenCount += streams.length;
    if (streams.length > 0) this.#file?.changed();
  }

  /** Without those that were forgotten since `forgottenBefore` had been: nothing may bring them back. */
  #stillKnown(times: Positions, forgottenBefore: number): Positions {
    if (this.#forgottenCount === forgottenBefore) return times;
    const known = [...times].filter(([stream]) => {
      const { agent, sourceName } = parseStreamId(stream)!;
      return this.store.agents.get(agent)?.has(sourceName) === true;
    });
    return new Map(known);
  }

  /**
   * Where a scraper starts that was never seen before: with everything that is not acknowledged, and with the last five
   * minutes of the rest. It gets everything of an agent that comes later, after an outage.
   */
  #start({ cursor }: OpenedCursor, streams: readonly StreamRecord[]): void {
    const fromMs = this.#options.clock.nowMs() - neverSeenBackMs;
    for (const { id, window } of streams) {
      const acknowledgedMs = this.#acks.acknowledgedMs(id);
      if (window.reportCount > 0 && acknowledgedMs !== -Infinity) cursor.pass(id, Math.min(fromMs, acknowledgedMs));
    }
  }

  /** A scraper that is gone counts no more. What was sent in an answer is no loss when it is evicted by age. */
  #unscrapedAfterMs({ id: stream, agent: { id } }: StreamRecord, reason: EvictionReason): number {
    const monotonicMs = this.#options.clock.monotonicMs();
    if (reason === 'age') return this.#cursors.sentMs(stream, id, monotonicMs);
    return this.#cursors.confirmedMs(stream, id, monotonicMs);
  }

  #scrapersWithout({ id: stream, agent: { id } }: StreamRecord, reason: EvictionReason, timeMs: number): string[] {
    const options = { timeMs, sent: reason === 'age', nowMs: this.#options.clock.monotonicMs() };
    return this.#cursors.scrapersWithout(stream, id, options).map(scraperText);
  }

  #acknowledgeStream(stream: StreamId): void {
    const agent = this.store.agents.get(parseStreamId(stream)!.agent);
    if (agent !== undefined) this.#acknowledge(agent);
  }

  #acknowledgeAll(): void {
    for (const agent of this.store.agents.values()) this.#acknowledge(agent);
  }

  #acknowledge(agent: AgentRecord): void {
    const acknowledge = this.#live.get(agent.id);
    if (acknowledge === undefined) return;
    const ack = this.ack(agent);
    if (ack !== undefined) acknowledge(ack);
  }

  #compose(): { state: SavedState; onSaved: () => void } {
    const { clock } = this.#options;
    // All times in the file are of one clock.
    this.#options.lookAtClock();
    const confirmedMs = new Map<StreamId, number>();
    const agents: SavedAgent[] = [];
    for (const agent of this.store.agents.values()) {
      for (const stream of agent.streams) confirmedMs.set(stream.id, this.#acks.afterHoldMs(this.confirmedMs(stream)));
      agents.push(savedAgent(agent, ({ id }) => confirmedMs.get(id)!));
    }
    const nowMs = clock.nowMs();
    const cursors = this.#cursors.save(clock.monotonicMs(), nowMs);
    const savedClock = this.#clockByBoot();
    const forgottenBefore = this.#forgottenCount;
    return {
      state: {
        ...{ savedAtMs: nowMs, serverId: this.#serverId, ...(savedClock && { clock: savedClock }) },
        ...{ cursors, agents },
      },
      onSaved: () => {
        this.#options.onStateWritten();
        this.#acks.saved(this.#stillKnown(confirmedMs, forgottenBefore));
        this.#acknowledgeAll();
      },
    };
  }

  #clockByBoot(): SavedClock | undefined {
    const { clock, hostBoot } = this.#options;
    return hostBoot && { bootId: hostBoot.id, aheadOfUptimeMs: Math.round(clock.nowMs() - hostBoot.uptimeMs()) };
  }

  /**
   * From the file of the last run. A damaged one is reported, and counts as none. Returns by how much the wall clock was
   * set since it was written.
   */
  #restore(): number {
    let state: SavedState;
    let stepMs: number;
    try {
      const text = this.#options.disk?.read();
      if (text === undefined) return 0;
      const saved = parseState(text);
      stepMs = stepBetween(saved.clock, this.#clockByBoot());
      state = stepMs === 0 ? saved : stateByClock(saved, { stepMs, positionsMs: positionsShiftMs(stepMs) });
    } catch (error) {
      this.#options.onStateError(error);
      return 0;
    }
    const { clock } = this.#options;
    const nowMs = clock.nowMs();
    this.#serverId = state.serverId;
    this.#changed(this.#cursors.restore(state.cursors, clock.monotonicMs(), nowMs));
    for (const saved of state.agents) {
      const id = agentId(saved.name);
      if (id === undefined) continue;
      const agent = this.store.agent(id);
      agent.reportAtMs = Math.min(saved.reportAtMs, nowMs);
      if (state.savedAtMs - saved.reportAtMs < awaitedMs) {
        agent.awaitedUntilMonotonicMs = clock.monotonicMs() + awaitedMs;
      }
      agent.restore(saved);
      for (const [sourceName, committedMs] of saved.committedMs) {
        // A time of the future is of a clock that was wrong: every report until then would be refused.
        if (committedMs > nowMs) continue;
        const stream = agent.stream(sourceName);
        stream.newestMs = committedMs;
        stream.evictedMs = committedMs;
        this.#acks.restored(stream.id, committedMs);
      }
    }
    return stepMs;
  }
}

export type Acknowledge = (ack: EpochSeq) => void;

export interface DeliveryOptions {
  readonly clock: Clock;
  /** 0 ≤ random() < 1. */
  readonly random: () => number;
  /** Undefined where the host does not tell one boot from another: a step of its clock during a restart goes unnoticed. */
  readonly hostBoot: HostBoot | undefined;
  readonly windowMs: number;
  /** Where cursors are kept; undefined: in memory only. */
  readonly disk: StateDisk | undefined;
  readonly store: Pick<StoreOptions, 'memoryBytesMax' | 'forgetAfterMs' | 'onReport' | 'onEvict'>;
  /** Those whose receipts confirm, by the text of their scraper's name. */
  readonly databases?: ReadonlyMap<string, ScraperDatabase>;
  /** A question for receipts was answered, or not. */
  readonly onReceiptEvent?: (name: ScraperName, event: ReceiptEvent) => void;
  /** Checks whether the wall clock was set, before any age is computed by it; it may call `clockStepped`. */
  lookAtClock(): void;
  /** Lets the event loop turn, so that agents are heard while a large scrape is put together. */
  turn(): Promise<void>;
  /** An event of an answer or a scraper, to be counted, and logged if a person should act on it. */
  onCursorChange(change: CursorChange): void;
  onStateWritten(): void;
  /** The file could not be read, or not be written: acks wait until it can. */
  onStateError(error: unknown): void;
}

function newServerId(random: () => number): string {
  const part = () =>
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  return part() + part();
}

/**
 * Before the number of the first answer. Each run begins somewhere else, so that no two have a number in common: not after the
 * clock was set, nor two servers with copies of one state. With 15 digits each is exact in any database.
 */
const newNumberBefore = (random: () => number): number => 1e14 + Math.floor(random() * 8e14);

/** What positions are moved by when the wall clock is set, so that none is ahead of what agents send again. */
const positionsShiftMs = (stepMs: number): number => Math.min(0, stepMs - stepMarginMs);

// An agent's measurement of the clock may be wrong by half a second, and an offset of up to 2 s is none.
const stepMarginMs = 3000;
// Prometheus has what is older, or has lost it for good; with an out-of-order window, too much of the past fails a
// scrape.
const neverSeenBackMs = 5 * 60_000;
// A database that is not asked in time is asked again after the answer.
const askMsMax = 2000;
// From the answer's first byte to the moment in which Prometheus appends its samples: within the scrape's timeout, and
// ten seconds for two clocks that are not the same.
const arrivalMarginMs = 10_000;

/** What every known scraper has of this agent, of each stream up to a time. */
function savedAgent(agent: AgentRecord, confirmedMsOf: (stream: StreamRecord) => number): SavedAgent {
  const { ack } = agent.acknowledgeable(confirmedMsOf);
  const epochs: [number, number][] = [];
  if (ack !== undefined) {
    for (const [epoch, seq] of agent.epochs) {
      if (epoch === ack.epoch) break;
      // Begun before it, so the scrapers have all of it.
      if (agent.epochs.has(ack.epoch)) epochs.push([epoch, seq]);
    }
    epochs.push([ack.epoch, ack.seq]);
  }
  const committedMs = [...agent.streams]
    .map((stream) => [stream.sourceName, committedMsOf(stream, confirmedMsOf(stream))] as const)
    .filter(([, ms]) => Number.isFinite(ms));
  return { name: agent.id, reportAtMs: agent.reportAtMs, committedMs, epochs, offsetsMs: [...agent.offsetsMs] };
}

/** The time of the newest report of a stream that every known scraper has. */
function committedMsOf({ window, newestMs, evictedMs }: StreamRecord, confirmedMs: number): number {
  if (window.reportCount === 0) return newestMs;
  return window.receipt(confirmedMs)?.timeMs ?? evictedMs;
}
