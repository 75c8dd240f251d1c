import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceId, type Labels, sameLabels } from '../../model/source.ts';
import { encodeMessage } from '../../protocol/codec.ts';
import { encodeKey } from '../../protocol/delta.ts';
import { limits } from '../../protocol/limits.ts';
import type { Begin, EpochSeq } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import { Drops } from './drops.ts';
import { SchemasInUse } from './schemas.ts';
import { type AppendedReport, type Receipt, Window } from './window.ts';

/**
 * What became of a report. Only `stored` reaches a scraper. The others are acknowledged too, or they would come for ever;
 * all but `too_far_ahead`, which says that one of the two clocks is wrong, and nothing of the report.
 */
export const outcomes = ['stored', 'duplicate', 'not_newer', 'too_old', 'too_far_ahead'] as const;
export type Outcome = (typeof outcomes)[number];

export type EvictionReason = 'age' | 'memory';

export interface StoreOptions {
  readonly clock: Clock;
  readonly windowMs: number;
  /** Bytes of all windows and schemas together. */
  readonly memoryBytesMax: number;
  /** An agent without a report for so long is forgotten. */
  readonly forgetAfterMs: number;
  /** What is newer some scraper still wants of this agent; Infinity where nobody scrapes. */
  wantedAfterMs(agent: AgentId, reason: EvictionReason): number;
  onReport(outcome: Outcome): void;
  /** `unscraped`: some known scraper had not had the report. That is what is lost. */
  onEvict(reason: EvictionReason, unscraped: boolean): void;
  /** What an ack may say for this agent has changed, or may have. */
  onReceived(agent: AgentRecord): void;
}

/** All that is known of one agent, connected or not. */
export class AgentRecord {
  readonly id: AgentId;
  readonly window: Window;
  readonly #schemas: SchemasInUse;
  #schema: Schema | undefined;
  /** The last report received of each epoch, in the order in which they were last begun; at most 8. */
  readonly epochs = new Map<number, number>();
  hostId = '';
  software = '';
  labels: Labels = [];
  intervalMs = 0;
  offsetMs = 0;
  /** What its last ping said: reports in its spool, and those that it has dropped since its start. */
  spoolReports: number | undefined;
  droppedReports: number | undefined;
  /** The address of the live connection, undefined while there is none. */
  peer: string | undefined;
  connectedAtMs: number | undefined;
  /** What TLS proved of the last connection, undefined where there are no keys. */
  identity: string | undefined;
  /** Newest time stored so far, also before a restart: nothing at or before it is stored again. */
  newestMs = -Infinity;
  /** What was refused when it came, or left the window before every scraper had it. */
  readonly drops = new Drops();
  /** When a report last came in, whatever became of it: on the wall clock, for people and for the file. */
  reportAtMs: number;
  /** The last report since this server started: when it came, on the monotonic clock, and what became of it. */
  #last: { readonly atMonotonicMs: number; readonly outcome: Outcome } | undefined;
  /** Reports that were stored since this server started. */
  storedCount = 0;
  /** The last report received, and the last one evicted, for acks. */
  received: EpochSeq | undefined;
  evicted: Receipt | undefined;

  constructor(id: AgentId, nowMs: number, schemas: SchemasInUse) {
    this.id = id;
    this.#schemas = schemas;
    this.window = new Window(schemas);
    this.reportAtMs = nowMs;
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

  /** What is to be acknowledged when everything up to `committedMs` is where it belongs. */
  ack(committedMs: number): EpochSeq | undefined {
    const newestMs = this.window.newestMs;
    if (newestMs === undefined || newestMs <= committedMs) return this.received ?? this.evicted;
    return this.window.receipt(committedMs) ?? this.evicted;
  }

  /** A report has come, now. */
  reported(outcome: Outcome, { nowMs, monotonicMs }: { readonly nowMs: number; readonly monotonicMs: number }): void {
    this.reportAtMs = nowMs;
    this.#last = { atMonotonicMs: monotonicMs, outcome };
    if (outcome === 'stored') this.storedCount++;
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
   * The wall clock was set. What is not acknowledged is forgotten, for its agent sends it again with right times. So is
   * what is newer than `untilMs`: after a step backwards, what was acknowledged may be ahead of what comes next, and every
   * scraper has it.
   */
  clockStepped(deltaMs: number, { ack, untilMs }: Acknowledged): void {
    this.window.forgetAfter(untilMs);
    this.window.clockStepped(deltaMs);
    this.newestMs = Math.min(this.newestMs, untilMs);
    this.received = ack;
    this.evicted = ack && { ...ack, timeMs: this.newestMs };
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

/** A report as its connection has decoded it. */
export interface ReceivedReport extends AppendedReport {
  /** The report before it in the same stream is the newest one that is stored, so that a delta can follow it. */
  readonly follows: boolean;
}

/** What an agent is acknowledged, and the time before all of the rest, by the clock as it is set now. */
export interface Acknowledged {
  readonly ack: EpochSeq | undefined;
  readonly untilMs: number;
}

/** AgentId → what is known of it; bounds over the fleet; forgetting. */
export class Store {
  readonly #options: StoreOptions;
  readonly #agents = new Map<AgentId, AgentRecord>();
  readonly #evictions: { [reason in EvictionReason]: (agent: AgentRecord) => (timeMs: number) => void };
  readonly schemas = new SchemasInUse();
  #windowBytes = 0;

  constructor(options: StoreOptions) {
    this.#options = options;
    const counting = (reason: EvictionReason) => (agent: AgentRecord) => {
      const wantedAfterMs = options.wantedAfterMs(agent.id, reason);
      return (timeMs: number) => {
        const isUnscraped = timeMs > wantedAfterMs;
        if (isUnscraped) agent.drops.add(reason, timeMs);
        options.onEvict(reason, isUnscraped);
      };
    };
    this.#evictions = { age: counting('age'), memory: counting('memory') };
  }

  get agents(): ReadonlyMap<AgentId, AgentRecord> {
    return this.#agents;
  }

  /** Bytes of all windows, their schemas, and what live connections have declared: what `--memory-max` bounds. */
  get windowBytes(): number {
    return this.#windowBytes + this.schemas.bytes;
  }

  /** The agent of this name, made if there was none. */
  agent(id: AgentId): AgentRecord {
    let agent = this.#agents.get(id);
    if (agent === undefined) {
      agent = new AgentRecord(id, this.#options.clock.nowMs(), this.schemas);
      this.#agents.set(id, agent);
    }
    return agent;
  }

  /** An epoch is begun, perhaps again. The one begun longest ago is forgotten when there are more than 8. */
  begin(agent: AgentRecord, { epoch, labels, intervalMs, offsetMs }: Omit<Begin, 'kind'>): void {
    if (!sameLabels(agent.labels, labels)) {
      // What is printed before a value is kept by schema: another one for other labels.
      agent.schema = undefined;
      agent.labels = labels;
    }
    agent.intervalMs = intervalMs;
    const seq = agent.epochs.get(epoch) ?? 0;
    agent.epochs.delete(epoch);
    agent.epochs.set(epoch, seq);
    agent.offsetMs = offsetMs;
    if (agent.epochs.size > limits.epochsRememberedMax) {
      const oldest = agent.epochs.keys().next();
      if (oldest.done !== true) agent.epochs.delete(oldest.value);
    }
  }

  /** Stores a report, or says why not. */
  receive(agent: AgentRecord, report: ReceivedReport): Outcome {
    const { clock, onReport, onReceived } = this.#options;
    const nowMs = clock.nowMs();
    const outcome = this.#judge(agent, report, nowMs);
    if (outcome === 'stored') this.#append(agent, report);
    // Received is what has met no bug on its way.
    if (outcome !== 'duplicate' && outcome !== 'too_far_ahead') {
      agent.epochs.set(report.epoch, report.seq);
      agent.received = { epoch: report.epoch, seq: report.seq };
    }
    if (outcome === 'too_old' || outcome === 'not_newer') agent.drops.add(outcome, report.timeMs);
    agent.reported(outcome, { nowMs, monotonicMs: clock.monotonicMs() });
    if (this.windowBytes > this.#options.memoryBytesMax) this.#evictForMemory();
    onReport(outcome);
    onReceived(agent);
    return outcome;
  }

  #judge(agent: AgentRecord, { epoch, seq, timeMs }: ReceivedReport, nowMs: number): Outcome {
    if (seq <= (agent.epochs.get(epoch) ?? 0)) return 'duplicate';
    if (timeMs > nowMs + limits.futureMsMax) return 'too_far_ahead';
    if (timeMs <= agent.newestMs) return 'not_newer';
    return timeMs < nowMs - this.#options.windowMs ? 'too_old' : 'stored';
  }

  #append(agent: AgentRecord, report: ReceivedReport): void {
    const { window } = agent;
    const before = window.bytes;
    const isKey = report.key || !report.follows || window.needsKey(report);
    window.append({
      ...report,
      key: isKey,
      payload: isKey && !report.key ? keyPayload(report) : report.payload,
    });
    agent.newestMs = report.timeMs;
    agent.schema = report.schema;
    this.#windowBytes += window.bytes - before;
  }

  /** The wall clock was set by so much. */
  clockStepped(deltaMs: number, ackOf: (agent: AgentRecord) => Acknowledged): void {
    for (const agent of this.#agents.values()) {
      const before = agent.window.bytes;
      agent.clockStepped(deltaMs, ackOf(agent));
      this.#windowBytes += agent.window.bytes - before;
      this.#letSchemaGo(agent);
    }
  }

  /**
   * A live connection has `schema` instead of `before`; the same where it has grown, undefined where there is none. False
   * where that does not fit beside all other schemas, with every window empty: the connection has to go.
   */
  holdSchema(schema: Schema | undefined, before: Schema | undefined): boolean {
    if (schema !== undefined) this.schemas.hold(schema);
    if (before !== undefined) this.schemas.release(before);
    if (this.windowBytes <= this.#options.memoryBytesMax) return true;
    this.#evictForMemory();
    return this.windowBytes <= this.#options.memoryBytesMax;
  }

  /** Forgets the agent's reports that have left the window. Called before a scrape reads it, and by housekeeping. */
  evictByAge(agent: AgentRecord, nowMs = this.#options.clock.nowMs()): void {
    const { window } = agent;
    const beforeMs = nowMs - this.#options.windowMs;
    if ((window.oldestAgedMs ?? Infinity) >= beforeMs) return;
    const before = window.bytes;
    agent.evicted = window.evictBefore(beforeMs, this.#evictions.age(agent)) ?? agent.evicted;
    this.#windowBytes += window.bytes - before;
    this.#letSchemaGo(agent);
    this.#options.onReceived(agent);
  }

  /** Who is gone and has nothing left in the window needs no schema any more. */
  #letSchemaGo(agent: AgentRecord): void {
    if (agent.peer === undefined && agent.window.reportCount === 0) agent.schema = undefined;
  }

  /** Gives back the oldest chunks of the whole fleet until the windows are within their bound again. */
  #evictForMemory(): void {
    while (this.windowBytes > this.#options.memoryBytesMax) {
      let oldest: AgentRecord | undefined;
      for (const agent of this.#agents.values()) {
        if ((agent.window.oldestMs ?? Infinity) < (oldest?.window.oldestMs ?? Infinity)) oldest = agent;
      }
      if (oldest === undefined) return;
      const before = oldest.window.bytes;
      oldest.evicted = oldest.window.evictOldestChunk(this.#evictions.memory(oldest)) ?? oldest.evicted;
      this.#windowBytes += oldest.window.bytes - before;
      this.#letSchemaGo(oldest);
      this.#options.onReceived(oldest);
    }
  }

  /** What has left the windows, and the agents of which nothing was heard for a day. Returns the forgotten. */
  tidy(): AgentId[] {
    const nowMs = this.#options.clock.nowMs();
    const forgotten: AgentId[] = [];
    for (const agent of this.#agents.values()) {
      this.evictByAge(agent, nowMs);
      if (agent.peer === undefined && nowMs - agent.reportAtMs > this.#options.forgetAfterMs) forgotten.push(agent.id);
    }
    for (const id of forgotten) this.forget(id);
    return forgotten;
  }

  forget(id: AgentId): void {
    const agent = this.#agents.get(id);
    if (agent === undefined) return;
    this.#windowBytes -= agent.window.bytes;
    agent.window.clear();
    agent.schema = undefined;
    this.#agents.delete(id);
  }
}

/** The same report as a key, which a window needs where the agent's own chain of deltas is broken. */
function keyPayload(report: ReceivedReport): Uint8Array {
  const pairs = encodeKey({ sums: report.sums, present: report.present });
  return encodeMessage({
    kind: 'report',
    key: true,
    source: hostSourceId,
    seq: report.seq,
    timeMs: report.timeMs,
    pairs,
  });
}
