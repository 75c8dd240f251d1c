import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceName, type Labels, type StreamId, sameLabels, streamId } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import type { Begin, EpochSeq, Ping } from '../../protocol/messages.ts';
import { ChurnBudget, Excesses, FramesTime, ReportPace } from './budget.ts';
import { Drops } from './drops.ts';
import { HeldSchemas, type SchemasInUse } from './schemas.ts';
import { isBefore, type Receipt, Window } from './window.ts';

/**
 * The outcome of a report. Only `stored` reaches a scraper. The others are acknowledged too, or they would be sent for
 * ever; except `too_far_ahead`, which shows that one of the two clocks is wrong.
 */
export const outcomes = ['stored', 'duplicate', 'not_newer', 'too_old', 'too_many', 'too_far_ahead'] as const;
export type Outcome = (typeof outcomes)[number];

export interface Now {
  readonly nowMs: number;
  readonly monotonicMs: number;
}

/** An agent tries again within 30 s, and then reports within a minute at the usual intervals. */
export const awaitedMs = 60_000;

/** One agent, connected or not. Its reports are in its streams: the host, and the exporters that it forwards. */
export class AgentRecord {
  readonly id: AgentId;
  readonly host: StreamRecord;
  /** Those that it holds. */
  readonly schemas: HeldSchemas;
  /** By the name of the source, in the order in which they were last begun. */
  readonly #streams = new Map<string, StreamRecord>();
  /** The last report received of each epoch, in the order in which they were last begun; at most 8. */
  readonly epochs = new Map<number, number>();
  /** What was added to the times of each epoch when it was last begun, in that order; at most 8. */
  readonly #offsetsMs = new Map<number, number>();
  /** The same as the last run of this server had it, until it was compared. */
  #offsetsBeforeMs: ReadonlyMap<number, number> | undefined;
  hostId = '';
  software = '';
  /** By its last ping: reports in its spool, and those that it has dropped since its start. */
  spoolReports: number | undefined;
  /** When that ping came, on the wall clock. */
  spoolReportsAtMs: number | undefined;
  droppedReports: number | undefined;
  /** When that number was last seen to have grown, on the wall clock. */
  droppedReportsAtMs: number | undefined;
  /** The address of the open connection, undefined without one. */
  peer: string | undefined;
  connectedAtMs: number | undefined;
  /** The identity that TLS proved on the last connection, undefined without keys. */
  identity: string | undefined;
  /** Reports that were refused, or evicted before every scraper had them. */
  readonly drops = new Drops();
  /** What went beyond its budgets. */
  readonly excesses = new Excesses();
  readonly churn = new ChurnBudget();
  readonly frames = new FramesTime();
  /** When the last report came, of any outcome: on the wall clock, for people and for the file. */
  reportAtMs: number;
  /**
   * It reported until the end of the last run of this server: until then, on the monotonic clock, it is given time to
   * come back, and nobody knows whether it is up.
   */
  awaitedUntilMonotonicMs = -Infinity;
  /** Reports that were stored since this server started. */
  storedCount = 0;
  /** The last report received, for acks. */
  received: EpochSeq | undefined;
  /** The last one that was evicted, or that was acknowledged before a restart. */
  #evicted: Receipt | undefined;

  constructor(id: AgentId, nowMs: number, schemas: SchemasInUse) {
    this.id = id;
    this.schemas = new HeldSchemas(schemas);
    this.reportAtMs = nowMs;
    this.host = new StreamRecord(this, hostSourceName, this.schemas);
    this.#streams.set(hostSourceName, this.host);
  }

  get streams(): Iterable<StreamRecord> {
    return this.#streams.values();
  }

  /** Memory of its windows and schemas. */
  get bytes(): number {
    let { bytes } = this.schemas;
    for (const { window } of this.#streams.values()) bytes += window.bytes;
    return bytes;
  }

  get hasReports(): boolean {
    for (const { window } of this.#streams.values()) if (window.reportCount > 0) return true;
    return false;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Whether a source of this name is known. */
  has(sourceName: string): boolean {
    return this.#streams.has(sourceName);
  }

  /** The stream of this source, a new one if there is none. */
  stream(sourceName: string): StreamRecord {
    const stream = this.#streams.get(sourceName) ?? new StreamRecord(this, sourceName, this.schemas);
    this.#streams.set(sourceName, stream);
    return stream;
  }

  /**
   * A source is begun in an epoch, perhaps again. The epoch begun longest ago is forgotten when there are more than 8.
   */
  begin({ epoch, name, labels, intervalMs, offsetMs }: Omit<Begin, 'kind'>): StreamRecord {
    const stream = this.stream(name);
    this.#streams.delete(name);
    this.#streams.set(name, stream);
    if (!sameLabels(stream.labels, labels)) {
      // The text before a value is cached by schema: other labels need another one.
      stream.schema = undefined;
      stream.labels = labels;
    }
    stream.intervalMs = intervalMs;
    stream.offsetMs = offsetMs;
    const seq = this.epochs.get(epoch) ?? 0;
    this.epochs.delete(epoch);
    this.epochs.set(epoch, seq);
    if (this.epochs.size > limits.epochsRememberedMax) {
      const oldest = this.epochs.keys().next();
      if (oldest.done !== true) this.epochs.delete(oldest.value);
    }
    this.#offsetsMs.delete(epoch);
    this.#offsetsMs.set(epoch, offsetMs);
    if (this.#offsetsMs.size > limits.epochsRememberedMax) {
      const oldest = this.#offsetsMs.keys().next();
      if (oldest.done !== true) this.#offsetsMs.delete(oldest.value);
    }
    return stream;
  }

  get offsetsMs(): ReadonlyMap<number, number> {
    return this.#offsetsMs;
  }

  /**
   * By how much the wall clock of this host was set since the last run of this server, as a beginning epoch shows: its
   * agent has measured it anew. 0 where it was not set, where the epoch is not known from then, and after the first that is.
   */
  stepBeforeStart({ epoch, offsetMs }: Pick<Begin, 'epoch' | 'offsetMs'>): number {
    const beforeMs = this.#offsetsBeforeMs?.get(epoch);
    if (beforeMs === undefined) return 0;
    this.#offsetsBeforeMs = undefined;
    const stepMs = offsetMs - beforeMs;
    return Math.abs(stepMs) > limits.clockOffsetIgnoredMs ? stepMs : 0;
  }

  forgetStream(stream: StreamRecord): void {
    this.#streams.delete(stream.sourceName);
  }

  /**
   * What may be acknowledged when each stream is confirmed up to a time: in the order in which reports came, all before
   * the first that is not confirmed.
   */
  acknowledgeable(untilMsOf: (stream: StreamRecord) => number): Acknowledgeable {
    let first: Receipt | undefined;
    for (const stream of this.#streams.values()) {
      const next = stream.window.receiptAfter(untilMsOf(stream));
      if (next !== undefined && (first === undefined || isBefore(next, first))) first = next;
    }
    if (first === undefined) return { ack: this.received ?? this.#evicted, first };
    let last = this.#evicted !== undefined && isBefore(this.#evicted, first) ? this.#evicted : undefined;
    for (const stream of this.#streams.values()) {
      const before = stream.window.receiptBefore(first, untilMsOf(stream));
      if (before !== undefined && (last === undefined || isBefore(last, before))) last = before;
    }
    return { ack: last, first };
  }

  /** A report of a stream was evicted. */
  evicted(stream: StreamRecord, receipt: Receipt | undefined): void {
    if (receipt === undefined) return;
    stream.evictedMs = receipt.timeMs;
    if (this.#evicted === undefined || isBefore(this.#evicted, receipt)) this.#evicted = receipt;
  }

  /** From the last run of the server: this was acknowledged, or may have been; and these offsets were in use. */
  restore({ epochs, offsetsMs }: Restored): void {
    this.#offsetsBeforeMs = new Map(offsetsMs);
    for (const [epoch, offsetMs] of offsetsMs) this.#offsetsMs.set(epoch, offsetMs);
    for (const [epoch, seq] of epochs) {
      this.epochs.set(epoch, seq);
      this.#evicted = { epoch, seq, timeMs: -Infinity, arrival: -1 };
    }
  }

  /** A ping has come, at this time. */
  pinged({ spoolReports, droppedReports }: Pick<Ping, 'spoolReports' | 'droppedReports'>, nowMs: number): void {
    this.spoolReports = spoolReports;
    this.spoolReportsAtMs = nowMs;
    // An agent that was restarted counts from 0.
    if (droppedReports > (this.droppedReports ?? 0)) this.droppedReportsAtMs = nowMs;
    this.droppedReports = droppedReports;
  }

  /** A report has come, now. */
  reported({ epoch, seq }: EpochSeq, outcome: Outcome, { nowMs }: Now): void {
    this.reportAtMs = nowMs;
    if (outcome === 'stored') this.storedCount++;
    // Only now: a report that meets a bug is not received.
    if (outcome === 'duplicate' || outcome === 'too_far_ahead') return;
    this.epochs.set(epoch, seq);
    this.received = { epoch, seq };
  }

  /**
   * The wall clock was set. What is not acknowledged is forgotten, for the agent sends it again with corrected times.
   */
  clockStepped(deltaMs: number, { ack, untilMsOf }: Acknowledged): void {
    for (const stream of this.#streams.values()) stream.clockStepped(deltaMs, untilMsOf(stream));
    this.churn.clear();
    this.received = ack;
    this.#evicted = ack && { ...ack, timeMs: -Infinity, arrival: -1 };
    let isAcked = ack !== undefined && this.epochs.has(ack.epoch);
    for (const epoch of this.epochs.keys()) {
      if (epoch === ack?.epoch) {
        this.epochs.set(epoch, ack.seq);
        isAcked = false;
      } else if (!isAcked) this.epochs.delete(epoch);
    }
    for (const [epoch, offsetMs] of this.#offsetsMs) this.#offsetsMs.set(epoch, offsetMs + deltaMs);
    this.reportAtMs += deltaMs;
    if (this.connectedAtMs !== undefined) this.connectedAtMs += deltaMs;
  }
}

/** What the last run of the server knew, by epoch. */
export interface Restored {
  readonly epochs: readonly (readonly [epoch: number, seq: number])[];
  readonly offsetsMs: readonly (readonly [epoch: number, offsetMs: number])[];
}

export interface Acknowledgeable {
  readonly ack: EpochSeq | undefined;
  /** The first report that the ack does not cover; undefined where it covers all. */
  readonly first: Receipt | undefined;
}

/**
 * The position that is acknowledged to an agent, and of each stream the time before all later reports, by the present
 * clock.
 */
export interface Acknowledged {
  readonly ack: EpochSeq | undefined;
  untilMsOf(stream: StreamRecord): number;
}

/** One source of an agent. */
export class StreamRecord {
  readonly id: StreamId;
  readonly agent: AgentRecord;
  readonly sourceName: string;
  readonly window: Window;
  readonly #schemas: HeldSchemas;
  readonly pace = new ReportPace();
  #schema: Schema | undefined;
  /** The labels of its last begin. */
  labels: Labels = [];
  intervalMs = 0;
  offsetMs = 0;
  /** Newest time stored so far, also before a restart: nothing at or before it is stored again. */
  newestMs = -Infinity;
  /** The time of the last report that was evicted. */
  evictedMs = -Infinity;
  /** How long before it came the newest report was made that was stored since this server started. */
  lagMs: number | undefined;
  /** The last report since this server started: when it came, on the monotonic clock, and its outcome. */
  #last: { readonly atMonotonicMs: number; readonly outcome: Outcome } | undefined;

  constructor(agent: AgentRecord, sourceName: string, schemas: HeldSchemas) {
    this.id = streamId(agent.id, sourceName);
    this.agent = agent;
    this.sourceName = sourceName;
    this.#schemas = schemas;
    this.window = new Window(schemas);
  }

  /** The schema of its newest report, for an agent that reconnects and declares the same. */
  get schema(): Schema | undefined {
    return this.#schema;
  }

  set schema(schema: Schema | undefined) {
    if (schema === this.#schema) return;
    if (schema !== undefined) this.#schemas.hold(schema);
    if (this.#schema !== undefined) this.#schemas.release(this.#schema);
    this.#schema = schema;
  }

  /** A report of this time has come, now. */
  reported(timeMs: number, outcome: Outcome, { nowMs, monotonicMs }: Now): void {
    if (outcome === 'stored') this.lagMs = Math.max(0, nowMs - timeMs);
    this.#last = { atMonotonicMs: monotonicMs, outcome };
  }

  /** When the last report came, on the monotonic clock; undefined before the first since this server started. */
  get reportAtMonotonicMs(): number | undefined {
    return this.#last?.atMonotonicMs;
  }

  /** Its newest report, of any outcome, came within three intervals and 5 s. */
  isReporting(monotonicMs: number): boolean {
    return this.#last !== undefined && monotonicMs - this.#last.atMonotonicMs <= 3 * this.intervalMs + 5000;
  }

  /** There was no report since this server's start, which was only just now. */
  isAwaited(monotonicMs: number): boolean {
    return this.#last === undefined && monotonicMs < this.agent.awaitedUntilMonotonicMs;
  }

  /** It reports, and its newest report was stored or is a duplicate. */
  up(monotonicMs: number): boolean {
    const outcome = this.#last?.outcome;
    return (outcome === 'stored' || outcome === 'duplicate') && this.isReporting(monotonicMs);
  }

  /**
   * The wall clock was set. What is newer than `untilMs` is forgotten: after a step backwards, what was acknowledged
   * may be ahead of what comes next, and every scraper has it.
   */
  clockStepped(deltaMs: number, untilMs: number): void {
    this.window.forgetAfter(untilMs);
    this.window.clockStepped(deltaMs);
    this.newestMs = Math.min(this.newestMs, untilMs);
    this.evictedMs = this.newestMs;
    this.pace.clear();
  }

  /** The wall clock was set back before this server started: what is known from then moves back with it. */
  steppedBeforeStart(shiftMs: number): void {
    this.newestMs += shiftMs;
    this.evictedMs += shiftMs;
  }
}
