import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceId, type StreamId } from '../../model/source.ts';
import { encodeMessage } from '../../protocol/codec.ts';
import { encodeKey } from '../../protocol/delta.ts';
import { limits } from '../../protocol/limits.ts';
import type { Begin } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import { mebibytesText } from '../../runtime/words.ts';
import { type Acknowledged, AgentRecord, type Outcome, type StreamRecord } from './agent-record.ts';
import { BudgetError, MemoryShares, reportsASecondMax } from './budget.ts';
import { SchemasInUse } from './schemas.ts';
import type { AppendedAs, AppendedReport } from './window.ts';

export type EvictionReason = 'age' | 'memory';

export interface StoreOptions {
  readonly clock: Clock;
  readonly windowMs: number;
  /** Bytes of all windows and schemas together. */
  readonly memoryBytesMax: number;
  /** An agent without a report for so long is forgotten. */
  readonly forgetAfterMs: number;
  /** Some scraper has not had what is newer of this stream; Infinity if nobody scrapes. */
  unscrapedAfterMs(stream: StreamRecord, reason: EvictionReason): number;
  /** The names of the scrapers that have not had a report of this time, which is evicted. */
  scrapersWithout(stream: StreamRecord, reason: EvictionReason, timeMs: number): readonly string[];
  onReport(outcome: Outcome): void;
  /** `unscraped`: some known scraper has not had the report, which is a loss. */
  onEvict(reason: EvictionReason, unscraped: boolean): void;
  /** What may be acknowledged to this agent may have changed. */
  onReceived(agent: AgentRecord): void;
}

/** A report as its connection has decoded it. */
export interface ReceivedReport extends AppendedReport, Pick<AppendedAs, 'key' | 'payload'> {
  /** The report before it in the same stream is the newest one that is stored, so that a delta can follow it. */
  readonly follows: boolean;
}

/** All agents by name, the bounds on their memory, and eviction. */
export class Store {
  readonly #options: StoreOptions;
  readonly #agents = new Map<AgentId, AgentRecord>();
  readonly #evictions: { [reason in EvictionReason]: (stream: StreamRecord) => (timeMs: number) => void };
  readonly schemas = new SchemasInUse();
  readonly #startedAtMonotonicMs: number;
  readonly #shares: MemoryShares;
  #windowBytes = 0;
  /** Reports stored so far. */
  #arrivals = 0;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#startedAtMonotonicMs = options.clock.monotonicMs();
    this.#shares = new MemoryShares(options.memoryBytesMax);
    const counting = (reason: EvictionReason) => (stream: StreamRecord) => {
      const unscrapedAfterMs = options.unscrapedAfterMs(stream, reason);
      return (timeMs: number) => {
        const isUnscraped = timeMs > unscrapedAfterMs;
        if (isUnscraped) {
          const scrapers = options.scrapersWithout(stream, reason, timeMs);
          stream.agent.drops.add(reason, timeMs, options.clock.nowMs(), scrapers);
        }
        options.onEvict(reason, isUnscraped);
      };
    };
    this.#evictions = { age: counting('age'), memory: counting('memory') };
  }

  get agents(): ReadonlyMap<AgentId, AgentRecord> {
    return this.#agents;
  }

  /** Memory of all windows, their schemas, and the schemas of open connections, which `--memory-max` bounds. */
  get windowBytes(): number {
    return this.#windowBytes + this.schemas.bytes;
  }

  /** How much of `--memory-max` an agent may take when others need it. */
  get shareBytes(): number {
    return this.#shares.shareBytes(this.#agents.size);
  }

  /** The agent of this name, a new one if there is none. */
  agent(id: AgentId): AgentRecord {
    let agent = this.#agents.get(id);
    if (agent === undefined) {
      agent = new AgentRecord(id, this.#options.clock.nowMs(), this.schemas);
      this.#agents.set(id, agent);
    }
    return agent;
  }

  /**
   * A source of the agent is begun. Returns it, and the streams that are forgotten for it. Throws a BudgetError if the agent
   * has had too many new names of late.
   */
  begin(agent: AgentRecord, message: Omit<Begin, 'kind'>): Begun {
    if (!agent.has(message.name)) agent.churn.takeSource(this.#options.clock.monotonicMs());
    const stream = agent.begin(message);
    const forgotten: StreamId[] = [];
    while (agent.streamCount > limits.sourcesMax + 1) {
      const oldest = streamToForget(agent, stream);
      this.#forgetStream(oldest);
      forgotten.push(oldest.id);
    }
    return { stream, forgotten };
  }

  /**
   * Stores a report, or returns why not. `recorded`: the schema object that the window is to have for that of the report,
   * which is asked for only where the report is stored, and may throw a BudgetError.
   */
  receive(stream: StreamRecord, report: ReceivedReport, recorded: (declared: Schema) => Schema = same): Outcome {
    const { clock, onReport, onReceived } = this.#options;
    const { agent } = stream;
    const now = { nowMs: clock.nowMs(), monotonicMs: clock.monotonicMs() };
    this.schemas.giveBack();
    const outcome = this.#judge(stream, report, now.nowMs);
    if (outcome === 'stored') this.#append(stream, { ...report, schema: recorded(report.schema) }, now.nowMs);
    if (outcome === 'too_old' || outcome === 'not_newer') agent.drops.add(outcome, report.timeMs, now.nowMs);
    if (outcome === 'too_many') {
      agent.drops.add(outcome, report.timeMs, now.nowMs);
      agent.excesses.count('reports', `more than ${reportsASecondMax} reports a second`, now.nowMs);
    }
    agent.reported(report, outcome, now);
    stream.reported(report.timeMs, outcome, now);
    this.#evictForReports();
    onReport(outcome);
    onReceived(agent);
    return outcome;
  }

  #judge({ agent, newestMs, pace }: StreamRecord, { epoch, seq, timeMs }: ReceivedReport, nowMs: number): Outcome {
    if (seq <= (agent.epochs.get(epoch) ?? 0)) return 'duplicate';
    if (timeMs > nowMs + limits.futureMsMax) return 'too_far_ahead';
    if (timeMs <= newestMs) return 'not_newer';
    if (timeMs < nowMs - this.#options.windowMs) return 'too_old';
    return pace.take(timeMs) ? 'stored' : 'too_many';
  }

  #append(stream: StreamRecord, report: ReceivedReport, nowMs: number): void {
    const { window } = stream;
    const before = window.bytes;
    const isKey = report.key || !report.follows || window.needsKey(report);
    const payload = isKey && !report.key ? keyPayload(report) : report.payload;
    window.append(report, { arrival: this.#arrivals++, nowMs, key: isKey, payload });
    stream.newestMs = report.timeMs;
    stream.schema = report.schema;
    this.#windowBytes += window.bytes - before;
  }

  /** The wall clock was set by so much. */
  clockStepped(deltaMs: number, ackOf: (agent: AgentRecord) => Acknowledged): void {
    for (const agent of this.#agents.values()) {
      const before = bytesOf(agent);
      agent.clockStepped(deltaMs, ackOf(agent));
      this.#windowBytes += bytesOf(agent) - before;
      for (const stream of agent.streams) this.#letSchemaGo(stream);
    }
  }

  /**
   * An open connection of the agent has `schema` instead of `before`; the same if it has grown, undefined if there is none.
   * Throws a BudgetError if there is no room for it: reports make room only if they are its own, or of an agent beyond its
   * share.
   */
  holdSchema(agent: AgentRecord, schema: Schema | undefined, before: Schema | undefined): void {
    const { schemas } = agent;
    if (schema !== undefined) schemas.hold(schema);
    if (before !== undefined) schemas.release(before);
    if (schema === undefined) return;
    const { schemaBytesMax } = this.#shares;
    // Its reports hold schemas of their own, older ones.
    const isLargeAlone = schemas.sizeOf(schema) > schemaBytesMax;
    while (schemas.bytes > schemaBytesMax && !isLargeAlone && this.#evictOldestOf(agent));
    if (schemas.bytes > schemaBytesMax) {
      const [is, most] = [mebibytesText(schemas.bytes), mebibytesText(schemaBytesMax)];
      throw new BudgetError('limit', 'schemas', `its schemas take ${is}, at most ${most} of --memory-max are allowed`);
    }
    while (this.windowBytes > this.#options.memoryBytesMax) {
      if (this.#evictBeyondShare() || this.#evictOldestOf(agent)) continue;
      throw new BudgetError('busy', 'schemas', "the schemas of all agents fill the server's --memory-max");
    }
  }

  /** Evicts the agent's reports that are too old. Called before a scrape reads them, and every few seconds. */
  evictByAge(agent: AgentRecord, nowMs = this.#options.clock.nowMs()): void {
    const beforeMs = nowMs - this.#options.windowMs;
    let hasEvicted = false;
    for (const stream of agent.streams) {
      const { window } = stream;
      if ((window.oldestAgedMs ?? Infinity) >= beforeMs) continue;
      const before = window.bytes;
      agent.evicted(stream, window.evictBefore(beforeMs, this.#evictions.age(stream)));
      this.#windowBytes += window.bytes - before;
      this.#letSchemaGo(stream);
      hasEvicted = true;
    }
    if (hasEvicted) this.#options.onReceived(agent);
  }

  /** An agent without connection and reports needs no schema. */
  #letSchemaGo(stream: StreamRecord): void {
    if (stream.agent.peer === undefined && stream.window.reportCount === 0) stream.schema = undefined;
  }

  /** Evicts chunks until the windows are within their bound: of agents beyond their share, then the oldest of all. */
  #evictForReports(): void {
    while (this.windowBytes > this.#shares.reportsBytesMax(this.schemas.bytes)) {
      if (!this.#evictBeyondShare() && !this.#evictOldestOf(...this.#agents.values())) return;
    }
  }

  /** Evicts the oldest chunk of these agents. False if there is none. */
  #evictOldestOf(...agents: readonly AgentRecord[]): boolean {
    const oldest = oldestStream(agents);
    if (oldest === undefined) return false;
    this.#evictOldestChunk(oldest);
    this.#options.onReceived(oldest.agent);
    return true;
  }

  /** Evicts the oldest chunk of the agent that is most beyond its share. False if there is none. */
  #evictBeyondShare(): boolean {
    const { shareBytes } = this;
    let most: AgentRecord | undefined;
    let mostBytes = shareBytes;
    for (const agent of this.#agents.values()) {
      const { bytes } = agent;
      if (bytes <= mostBytes || !agent.hasReports) continue;
      most = agent;
      mostBytes = bytes;
    }
    if (most === undefined) return false;
    this.#evictOldestOf(most);
    // Of a fleet of equal hosts, each is a little beyond it in turn.
    if (mostBytes > 2 * shareBytes) {
      const [is, share] = [mebibytesText(mostBytes), mebibytesText(shareBytes)];
      const text = `it takes ${is} of --memory-max, its share is ${share}: its oldest reports are evicted`;
      most.excesses.add('memory', text, this.#options.clock.nowMs());
    }
    return true;
  }

  #evictOldestChunk(stream: StreamRecord): void {
    const { window } = stream;
    const before = window.bytes;
    stream.agent.evicted(stream, window.evictOldestChunk(this.#evictions.memory(stream)));
    this.#windowBytes += window.bytes - before;
    this.#letSchemaGo(stream);
  }

  /**
   * Evicts what is too old, and forgets agents and sources that sent nothing for a day. Returns the forgotten streams.
   */
  tidy(): StreamId[] {
    const nowMs = this.#options.clock.nowMs();
    const forgotten: StreamId[] = [];
    for (const agent of this.#agents.values()) {
      this.evictByAge(agent, nowMs);
      if (agent.peer === undefined && nowMs - agent.reportAtMs > this.#options.forgetAfterMs) {
        forgotten.push(...this.forget(agent.id));
        continue;
      }
      for (const stream of [...agent.streams].filter((each) => this.#isGone(each))) {
        this.#forgetStream(stream);
        forgotten.push(stream.id);
      }
    }
    return forgotten;
  }

  /** Returns its streams. */
  forget(id: AgentId): StreamId[] {
    const agent = this.#agents.get(id);
    if (agent === undefined) return [];
    this.#windowBytes -= bytesOf(agent);
    const streams: StreamId[] = [];
    for (const stream of agent.streams) {
      stream.window.clear();
      stream.schema = undefined;
      streams.push(stream.id);
    }
    this.#agents.delete(id);
    return streams;
  }

  /** Its agent no longer forwards it. */
  #isGone(stream: StreamRecord): boolean {
    if (stream === stream.agent.host || stream.window.reportCount > 0) return false;
    const atMs = stream.reportAtMonotonicMs ?? this.#startedAtMonotonicMs;
    return this.#options.clock.monotonicMs() - atMs > this.#options.forgetAfterMs;
  }

  /** Reports in its window that a scraper has not had are lost, and counted so. */
  #forgetStream(stream: StreamRecord): void {
    while (stream.window.reportCount > 0) this.#evictOldestChunk(stream);
    stream.schema = undefined;
    stream.agent.forgetStream(stream);
  }
}

/** A source that has been begun. */
export interface Begun {
  readonly stream: StreamRecord;
  /** Those that made room for it. */
  readonly forgotten: readonly StreamId[];
}

const same = (schema: Schema): Schema => schema;

/** The one whose oldest report is oldest. */
function oldestStream(agents: Iterable<AgentRecord>): StreamRecord | undefined {
  let oldest: StreamRecord | undefined;
  for (const agent of agents) {
    for (const stream of agent.streams) {
      if ((stream.window.oldestMs ?? Infinity) < (oldest?.window.oldestMs ?? Infinity)) oldest = stream;
    }
  }
  return oldest;
}

/** Of more sources than a connection may have, the one begun longest ago; never the host, nor the one begun now. */
function streamToForget(agent: AgentRecord, begun: StreamRecord): StreamRecord {
  for (const stream of agent.streams) if (stream !== agent.host && stream !== begun) return stream;
  return begun;
}

function bytesOf(agent: AgentRecord): number {
  let bytes = 0;
  for (const { window } of agent.streams) bytes += window.bytes;
  return bytes;
}

/** The same report as a key, which a window needs when the agent's chain of deltas is broken. */
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
