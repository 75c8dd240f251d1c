import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceName, type Labels, type StreamId, sameLabels, streamId } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import type { Begin, EpochSeq } from '../../protocol/messages.ts';
import { Drops } from './drops.ts';
import type { SchemasInUse } from './schemas.ts';
import { isBefore, type Receipt, Window } from './window.ts';

/**
 * What became of a report. Only `stored` reaches a scraper. The others are acknowledged too, or they would come for ever;
 * all but `too_far_ahead`, which says that one of the two clocks is wrong, and nothing of the report.
 */
export const outcomes = ['stored', 'duplicate', 'not_newer', 'too_old', 'too_far_ahead'] as const;
export type Outcome = (typeof outcomes)[number];

export interface Now {
  readonly nowMs: number;
  readonly monotonicMs: number;
}

/** All that is known of one agent, connected or not. Its reports are with its streams: the host, and what it forwards. */
export class AgentRecord {
  readonly id: AgentId;
  readonly host: StreamRecord;
  readonly #schemas: SchemasInUse;
  /** By the name of the source, in the order in which they were last begun. */
  readonly #streams = new Map<string, StreamRecord>();
  /** The last report received of each epoch, in the order in which they were last begun; at most 8. */
  readonly epochs = new Map<number, number>();
  hostId = '';
  software = '';
  /** What its last ping said: reports in its spool, and those that it has dropped since its start. */
  spoolReports: number | undefined;
  droppedReports: number | undefined;
  /** The address of the live connection, undefined while there is none. */
  peer: string | undefined;
  connectedAtMs: number | undefined;
  /** What TLS proved of the last connection, undefined where there are no keys. */
  identity: string | undefined;
  /** What was refused when it came, or left the window before every scraper had it. */
  readonly drops = new Drops();
  /** When a report last came in, whatever became of it: on the wall clock, for people and for the file. */
  reportAtMs: number;
  /** Reports that were stored since this server started. */
  storedCount = 0;
  /** The last report received, for acks. */
  received: EpochSeq | undefined;
  /** The last one that left a window, or that was acknowledged before a restart. */
  #evicted: Receipt | undefined;

  constructor(id: AgentId, nowMs: number, schemas: SchemasInUse) {
    this.id = id;
    this.#schemas = schemas;
    this.reportAtMs = nowMs;
    this.host = new StreamRecord(this, hostSourceName, schemas);
    this.#streams.set(hostSourceName, this.host);
  }

  get streams(): Iterable<StreamRecord> {
    return this.#streams.values();
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** The stream of this source, made if there was none. */
  stream(sourceName: string): StreamRecord {
    const stream = this.#streams.get(sourceName) ?? new StreamRecord(this, sourceName, this.#schemas);
    this.#streams.set(sourceName, stream);
    return stream;
  }

  /** A source is begun in an epoch, perhaps again. The epoch begun longest ago is forgotten when there are more than 8. */
  begin({ epoch, name, labels, intervalMs, offsetMs }: Omit<Begin, 'kind'>): StreamRecord {
    const stream = this.stream(name);
    this.#streams.delete(name);
    this.#streams.set(name, stream);
    if (!sameLabels(stream.labels, labels)) {
      // What is printed before a value is kept by schema: another one for other labels.
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
    return stream;
  }

  forgetStream(stream: StreamRecord): void {
    this.#streams.delete(stream.sourceName);
  }

  /**
   * What is to be acknowledged when of each stream everything up to a time is where it belongs: in the order in which
   * reports came, all before the first that is not.
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

  /** This one of a stream has left its window. */
  evicted(stream: StreamRecord, receipt: Receipt | undefined): void {
    if (receipt === undefined) return;
    stream.evictedMs = receipt.timeMs;
    if (this.#evicted === undefined || isBefore(this.#evicted, receipt)) this.#evicted = receipt;
  }

  /** What the server before knew: all of this was acknowledged, or may have been. */
  restore(epochs: readonly (readonly [epoch: number, seq: number])[]): void {
    for (const [epoch, seq] of epochs) {
      this.epochs.set(epoch, seq);
      this.#evicted = { epoch, seq, timeMs: -Infinity, arrival: -1 };
    }
  }

  /** A report has come, now. */
  reported({ epoch, seq }: EpochSeq, outcome: Outcome, { nowMs }: Now): void {
    this.reportAtMs = nowMs;
    if (outcome === 'stored') this.storedCount++;
    // Received is what has met no bug on its way.
    if (outcome === 'duplicate' || outcome === 'too_far_ahead') return;
    this.epochs.set(epoch, seq);
    this.received = { epoch, seq };
  }

  /** The wall clock was set. What is not acknowledged is forgotten, for the agent sends it again with right times. */
  clockStepped(deltaMs: number, { ack, untilMsOf }: Acknowledged): void {
    for (const stream of this.#streams.values()) stream.clockStepped(deltaMs, untilMsOf(stream));
    this.received = ack;
    this.#evicted = ack && { ...ack, timeMs: -Infinity, arrival: -1 };
    let isAcked = ack !== undefined && this.epochs.has(ack.epoch);
    for (const epoch of this.epochs.keys()) {
      if (epoch === ack?.epoch) {
        this.epochs.set(epoch, ack.seq);
        isAcked = false;
      } else if (!isAcked) this.epochs.delete(epoch);
    }
    this.reportAtMs += deltaMs;
    if (this.connectedAtMs !== undefined) this.connectedAtMs += deltaMs;
  }
}

export interface Acknowledgeable {
  readonly ack: EpochSeq | undefined;
  /** The first report that the ack does not cover; undefined where it covers all. */
  readonly first: Receipt | undefined;
}

/** What an agent is acknowledged, and of each stream the time before all of the rest, by the clock as it is set now. */
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
  readonly #schemas: SchemasInUse;
  #schema: Schema | undefined;
  /** Those of its last begin. */
  labels: Labels = [];
  intervalMs = 0;
  offsetMs = 0;
  /** Newest time stored so far, also before a restart: nothing at or before it is stored again. */
  newestMs = -Infinity;
  /** The time of the last report that left the window. */
  evictedMs = -Infinity;
  /** The last report since this server started: when it came, on the monotonic clock, and what became of it. */
  #last: { readonly atMonotonicMs: number; readonly outcome: Outcome } | undefined;

  constructor(agent: AgentRecord, sourceName: string, schemas: SchemasInUse) {
    this.id = streamId(agent.id, sourceName);
    this.agent = agent;
    this.sourceName = sourceName;
    this.#schemas = schemas;
    this.window = new Window(schemas);
  }

  /** That of its newest report, for an agent that dials again and declares the same. */
  get schema(): Schema | undefined {
    return this.#schema;
  }

  set schema(schema: Schema | undefined) {
    if (schema === this.#schema) return;
    if (schema !== undefined) this.#schemas.hold(schema);
    if (this.#schema !== undefined) this.#schemas.release(this.#schema);
    this.#schema = schema;
  }

  /** A report has come, now. */
  reported(outcome: Outcome, { monotonicMs }: Now): void {
    this.#last = { atMonotonicMs: monotonicMs, outcome };
  }

  /** When the last report came, on the monotonic clock; undefined before the first since this server started. */
  get reportAtMonotonicMs(): number | undefined {
    return this.#last?.atMonotonicMs;
  }

  /** Its newest report came within three intervals and 5 s, whatever became of it. */
  isReporting(monotonicMs: number): boolean {
    return this.#last !== undefined && monotonicMs - this.#last.atMonotonicMs <= 3 * this.intervalMs + 5000;
  }

  /** It reports, and its newest report is stored: one that is refused shows nobody anything. */
  up(monotonicMs: number): boolean {
    const outcome = this.#last?.outcome;
    return (outcome === 'stored' || outcome === 'duplicate') && this.isReporting(monotonicMs);
  }

  /**
   * The wall clock was set. What is newer than `untilMs` is forgotten: after a step backwards, what was acknowledged may be
   * ahead of what comes next, and every scraper has it.
   */
  clockStepped(deltaMs: number, untilMs: number): void {
    this.window.forgetAfter(untilMs);
    this.window.clockStepped(deltaMs);
    this.newestMs = Math.min(this.newestMs, untilMs);
    this.evictedMs = this.newestMs;
  }
}
