import type { Schema } from '../../model/schema.ts';
import { decodeAgentMessage, encodeMessage } from '../../protocol/codec.ts';
import { FrameError, ProtocolError, permanent, wireCode } from '../../protocol/errors.ts';
import { encodeFrame, FrameDecoder } from '../../protocol/frame.ts';
import { limits } from '../../protocol/limits.ts';
import type { AgentMessage, EpochSeq, Handlers, Hello, ReportMessage, ServerMessage } from '../../protocol/messages.ts';
import { handle, protocolVersion } from '../../protocol/messages.ts';
import { type LabelBounds, SchemaTable } from '../../protocol/schema-table.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Connection } from '../../runtime/connection.ts';
import { ConnectionError } from '../../runtime/connection.ts';
import type { Log } from '../../runtime/log.ts';
import { countedAddress } from '../../runtime/places.ts';
import { printable, secondsText } from '../../runtime/words.ts';
import type { AgentRecord, StreamRecord } from '../delivery/agent-record.ts';
import { BudgetError } from '../delivery/budget.ts';
import type { Delivery } from '../delivery/delivery.ts';
import { refusedText } from '../delivery/drops.ts';
import type { Admission } from './admission.ts';
import type { FrameScheduler, Quota } from './scheduler.ts';

/**
 * One agent's connection: hello in time, then schemas and reports in, acks out; silence ends it.
 *
 *     connected ──hello──▶ welcomed ──begin, schema, report…──▶ ended: by the agent, an error, silence, a newer connection
 */
export class AgentConnection {
  readonly #options: AgentConnectionOptions;
  readonly #connection: Connection;
  readonly #decoder = new FrameDecoder({ payloadBytesMax: limits.helloBytesMax });
  readonly #table: SchemaTable;
  readonly #startedMs: number;
  readonly #quota: Quota;
  #agent: AgentRecord | undefined;
  /** Frames so far: none means a port scan or a health check. */
  #frames = 0;
  #heardMs: number;
  #ending = false;
  /** The name in the hello, also if it was refused. */
  #claimedName = '';
  /** Tells the admission that a report of an epoch was stored. */
  #stored = (_epoch: number): void => {};
  #storedEpoch: number | undefined;
  /** Resolves when the agent is admitted; never for others. */
  readonly welcomed: Promise<void>;
  #resolveWelcomed = (): void => {};
  /** Undoes the admission. */
  #leave = (): void => {};
  /** Resolves when an error was sent and the peer has closed its end, or has had time to. */
  #halfClosed: Promise<void> | undefined;
  /** By number; those of the table. */
  readonly #sources = new Map<number, ConnectedSource>();
  #acked: EpochSeq | undefined;
  #ackWaiting: EpochSeq | undefined;
  #ackTimer: Timer | undefined;
  #ackSentMs = -Infinity;
  #refusedTimer: Timer | undefined;

  constructor(connection: Connection, options: AgentConnectionOptions) {
    this.#connection = connection;
    this.#options = options;
    this.welcomed = new Promise((resolve) => {
      this.#resolveWelcomed = resolve;
    });
    const { schemas } = options.delivery.store;
    this.#table = new SchemaTable((declaration) => schemas.share(declaration), options.labelBounds);
    this.#startedMs = options.clock.monotonicMs();
    this.#quota = options.scheduler.join();
    this.#heardMs = this.#startedMs;
  }

  get peer(): string {
    return this.#connection.peer;
  }

  /** Resolves when the connection has ended. Never rejects: a peer's error ends only its connection. */
  async run(): Promise<void> {
    const deadline = this.#watch();
    try {
      for await (const chunk of this.#connection) {
        if (!this.#ending) await this.#take(chunk);
      }
      this.#decoder.end();
      if (!this.#ending) this.#log('ended', `${this.#who()} closed the connection`);
    } catch (error) {
      this.#fail(error);
    } finally {
      deadline.cancel();
      this.#ackTimer?.cancel();
      this.#refusedTimer?.cancel();
      this.#leaveSources();
      this.#leave();
      await this.#halfClosed;
      this.#connection.destroy();
    }
  }

  /** Ends it with an error message to the agent. */
  refuse(error: ProtocolError): void {
    this.#fail(error);
  }

  /** Acknowledges reports: the newest position, at most five times a second. */
  acknowledge(ack: EpochSeq): void {
    if (ack.epoch === this.#acked?.epoch && ack.seq <= this.#acked.seq) return;
    this.#ackWaiting = ack;
    if (this.#ackTimer !== undefined) return;
    const { clock } = this.#options;
    const waitMs = this.#ackSentMs + 1000 / limits.acksPerSecondMax - clock.monotonicMs();
    if (waitMs <= 0) return this.#sendAck();
    this.#ackTimer = clock.after(waitMs, () => {
      this.#ackTimer = undefined;
      this.#sendAck();
    });
  }

  #sendAck(): void {
    const ack = this.#ackWaiting;
    if (ack === undefined || this.#ending) return;
    this.#ackWaiting = undefined;
    this.#acked = ack;
    this.#ackSentMs = this.#options.clock.monotonicMs();
    this.#send({ kind: 'ack', epoch: ack.epoch, seq: ack.seq });
  }

  async #take(chunk: Uint8Array): Promise<void> {
    const share = this.#quota;
    const turn = share.enter();
    if (turn !== undefined) await turn;
    try {
      for (const payload of this.#decoder.push(chunk)) {
        if (this.#ending) return;
        const message = decodeAgentMessage(payload);
        this.#frames++;
        this.#heardMs = this.#options.clock.monotonicMs();
        handle(this.#handlers, message, payload);
        if (share.isOver()) await share.again();
      }
    } finally {
      share.leave();
      this.#used(share.takeUsedMs());
    }
  }

  /** Its frames have taken so long. */
  #used(ms: number): void {
    const excess = this.#agent?.frames.add(ms, this.#heardMs);
    if (excess !== undefined) this.#agent?.excesses.add('processor', excess, this.#options.clock.nowMs());
  }

  #hello(hello: Hello): void {
    if (this.#agent !== undefined) throw new ProtocolError('bad-message', 'hello: a second one');
    const { admission, delivery, clock } = this.#options;
    this.#claimedName = hello.agentName;
    const { valueBytes } = this.#options.labelBounds;
    if (hello.agentName.length > valueBytes) {
      const bytes = `its name, the value of agent, has ${hello.agentName.length} bytes`;
      throw new ProtocolError('limit', `hello: ${bytes}, at most ${valueBytes} are allowed here`);
    }
    const admittance = admission.admit(hello, this, this.#connection);
    const agent = delivery.store.agent(admittance.id);
    this.#stored = admittance.stored;
    this.#resolveWelcomed();
    this.#agent = agent;
    agent.hostId = hello.hostId;
    agent.software = hello.software;
    agent.peer = this.#connection.peer;
    agent.identity = this.#connection.identity;
    agent.connectedAtMs = clock.nowMs();
    this.#decoder.payloadBytesMax = limits.reportFrameBytesMax;
    const epochs = [...agent.epochs].map(([epoch, seq]) => ({ epoch, seq }));
    this.#send({ kind: 'welcome', version: protocolVersion, epochs, nowMs: clock.nowMs() });
    this.#log('connected', `${this.#who()} is connected: ${printable(hello.software)}`);
    const disconnect = delivery.connect(agent, (ack) => this.acknowledge(ack));
    this.#leave = () => {
      this.#leave = () => {};
      disconnect();
      admittance.undo();
      agent.peer = undefined;
      agent.connectedAtMs = undefined;
    };
    this.#acknowledgeNow(agent);
    // From a connection that ended before it was sent.
    this.#sendRefused(agent);
  }

  readonly #handlers: Handlers<AgentMessage, [payload: Uint8Array]> = {
    hello: (message) => this.#hello(message),
    begin: (message) => {
      const agent = this.#known(message);
      if (message.epoch !== this.#table.epoch) this.#leaveSources();
      const declared = this.#table.begin(message);
      this.#hold(this.#sources.get(message.source), undefined);
      const source: ConnectedSource = {
        ...{ stream: this.#options.delivery.begin(agent, message), held: undefined, follows: false },
        ...{ schema: undefined, schemaSeries: 0 },
      };
      this.#sources.set(message.source, source);
      this.#hold(source, declared.schema);
      this.#acknowledgeNow(agent);
    },
    schema: (message, payload) => {
      this.#known(message);
      const { schema } = this.#table.declare(message, payload.length);
      this.#hold(this.#sources.get(message.source), schema);
    },
    report: (message, payload) => this.#report(this.#known(message), message, payload),
    ping: (message) => {
      const agent = this.#known(message);
      agent.pinged(message, this.#options.clock.nowMs());
      this.#send({ kind: 'pong', nonce: message.nonce, nowMs: this.#options.clock.nowMs() });
    },
    unknown: (message) => {
      this.#known(message);
      this.#options.onUnknown(message.number);
    },
  };

  /** The agent; nothing may come before its hello. */
  #known({ kind }: AgentMessage): AgentRecord {
    if (this.#agent === undefined) throw new ProtocolError('bad-message', `${kind}: before the hello`);
    return this.#agent;
  }

  #report(agent: AgentRecord, message: ReportMessage, payload: Uint8Array): void {
    this.#options.lookAtClock();
    if (this.#ending) return;
    const { schema, state, offsetMs } = this.#table.apply(message);
    // The table knows it, so it has been begun here.
    const source = this.#sources.get(message.source)!;
    const { stream } = source;
    const count = schema.seriesCount;
    const timeMs = message.timeMs + offsetMs;
    const report = {
      ...{
        schema,
        labels: stream.labels,
        epoch: this.#table.epoch!,
        seq: message.seq,
        timeMs,
        key: message.key,
        payload,
      },
      follows: source.follows,
      sums: state.sums.subarray(0, count),
      present: state.present.subarray(0, count),
    };
    const recorded = (declared: Schema) => recordedSchema(source, declared, timeMs);
    const outcome = this.#options.delivery.store.receive(stream, report, recorded);
    source.follows = outcome === 'stored';
    if (source.follows && this.#storedEpoch !== this.#table.epoch) {
      this.#storedEpoch = this.#table.epoch!;
      this.#stored(this.#storedEpoch);
    }
    if (outcome === 'too_far_ahead') this.#endForClock(agent, timeMs);
    else if (outcome !== 'stored' && outcome !== 'duplicate') this.#refusedTimer ??= this.#refusedSoon(agent);
  }

  /**
   * One of the two clocks is wrong. Nothing is refused for that: the agent measures again, and sends the report again.
   */
  #endForClock(agent: AgentRecord, timeMs: number): never {
    const by = secondsText(timeMs - this.#options.clock.nowMs());
    const text = `a report is ${by} ahead of the server's clock`;
    this.#options.warn(
      `clock ${agent.id}`,
      `agent '${agent.id}': ${text}; its connection was ended, so that it measures the clock again; is NTP on? (timedatectl)`,
    );
    throw new ProtocolError('clock', text);
  }

  /** One message for a whole backlog that is refused. */
  #refusedSoon(agent: AgentRecord): Timer {
    return this.#options.clock.after(refusedEveryMs, () => {
      this.#refusedTimer = undefined;
      this.#sendRefused(agent);
    });
  }

  #sendRefused(agent: AgentRecord): void {
    if (this.#ending) return;
    for (const { reason, count, firstMs, lastMs } of agent.drops.takeRefused()) {
      const text = refusedText(reason, this.#options.delivery.windowMs);
      this.#send({ kind: 'refused', reason, count, firstMs, lastMs, text });
    }
  }

  /** The store counts what the source has declared, in the place of what it counted before. */
  #hold(source: ConnectedSource | undefined, schema: Schema | undefined): void {
    if (source === undefined) return;
    const before = source.held;
    source.held = schema;
    this.#options.delivery.store.holdSchema(source.stream.agent, schema, before);
  }

  #leaveSources(): void {
    for (const source of this.#sources.values()) this.#hold(source, undefined);
    this.#sources.clear();
  }

  #acknowledgeNow(agent: AgentRecord): void {
    const ack = this.#options.delivery.ack(agent);
    if (ack !== undefined) this.acknowledge(ack);
  }

  #send(message: ServerMessage): void {
    if (this.#ending) return;
    // Acknowledgements and pongs are a few bytes; a peer that lets them pile up does not read.
    if (this.#connection.unsentBytes > unsentBytesMax) {
      this.#ending = true;
      this.#options.onEnd('slow');
      const bytes = this.#connection.unsentBytes;
      this.#options.warn(
        `slow ${countedAddress(this.#connection.peerAddress)}`,
        `${this.#who()} is cut off: ${bytes} bytes wait for it to read`,
      );
      return this.#connection.destroy(new ConnectionError('closed', `${this.#connection.peer} does not read`));
    }
    this.#connection.write(encodeFrame(encodeMessage(message))).catch(() => {
      // The reader in run() gets the same error, and is where it is handled.
    });
  }

  #fail(error: unknown): void {
    if (this.#ending) return;
    if (error instanceof ConnectionError || (error instanceof FrameError && error.code === 'truncated')) {
      this.#ending = true;
      return this.#log('ended', `${this.#who()}: ${error.message}`);
    }
    const refusal = error instanceof FrameError || error instanceof ProtocolError ? error : this.#bug(error);
    const code = wireCode(refusal);
    this.#send({ kind: 'error', code, text: refusal.message });
    if (this.#ending) return;
    this.#ending = true;
    this.#options.onEnd(code);
    const line = `${this.#who()} is cut off (${code}): ${refusal.message}`;
    const budget = refusal instanceof BudgetError ? refusal.budget : code === 'limit' ? 'messages' : undefined;
    if (budget !== undefined) this.#agent?.excesses.count(budget, refusal.message, this.#options.clock.nowMs());
    // A line that was lost shows twice: here by a newer connection, or by silence, and as an agent that is down.
    if (code === 'replaced' || code === 'silent') this.#log('ended', line);
    // It tries once a minute until a person has changed something. Two hosts behind two addresses: one line for both.
    else if (code === 'name-taken') this.#options.warn(`${code} ${this.#claimedName}`, line, permanentLoggedEveryMs);
    // A bug and a step of the clock have been logged with their size.
    else if (code !== 'internal' && code !== 'clock') {
      const everyMs = permanent(code) ? permanentLoggedEveryMs : undefined;
      this.#options.warn(`${code} ${this.#agent?.id ?? countedAddress(this.#connection.peerAddress)}`, line, everyMs);
    }
    this.#halfClosed = this.#connection.end();
    // The name is free at once, not when the peer has read the error.
    this.#leave();
  }

  /** A bug that one peer of a thousand meets ends only its connection. */
  #bug(error: unknown): ProtocolError {
    this.#options.onBug(this.#who(), error);
    return new ProtocolError('internal', "a bug of the server ended this connection; the server's log has more");
  }

  #watch(): Timer {
    const { clock } = this.#options;
    let timer: Timer;
    const look = () => {
      const nowMs = clock.monotonicMs();
      const [sinceMs, boundMs] =
        this.#agent === undefined ? [this.#startedMs, limits.helloTimeoutMs] : [this.#heardMs, limits.silenceMs];
      const leftMs = sinceMs + boundMs - nowMs;
      if (leftMs > 0) timer = clock.after(leftMs, look);
      else if (this.#agent === undefined)
        this.refuse(new ProtocolError('hello-timeout', `no hello within ${boundMs / 1000} s`));
      else this.refuse(new ProtocolError('silent', `no frame for ${boundMs / 1000} s`));
    };
    timer = clock.after(limits.helloTimeoutMs, look);
    return { cancel: () => timer.cancel() };
  }

  #who(): string {
    return this.#agent === undefined
      ? `peer ${this.#connection.peer}`
      : `agent '${this.#agent.id}' (${this.#connection.peer})`;
  }

  /** An agent may connect as often as it likes: one line of each kind a minute. */
  #log(kind: 'connected' | 'ended', line: string): void {
    // A connection without a frame is a health check.
    if (this.#frames === 0) return this.#options.log.debug(line);
    this.#options.info(`${kind} ${this.#agent?.id ?? countedAddress(this.#connection.peerAddress)}`, line);
  }
}

/** A source as this connection has begun it. */
interface ConnectedSource {
  readonly stream: StreamRecord;
  /** The declared schema, once the store counts it. */
  held: Schema | undefined;
  /** The last report is the newest one of the window: a delta can follow it there. */
  follows: boolean;
  /** The schema object that the window has for the declared one, and how many series of that it is known to cover. */
  schema: Schema | undefined;
  schemaSeries: number;
}

/**
 * The schema object for what this connection has declared: that of the connection before, if equal. For a report of this
 * time, which is stored. Throws a BudgetError if the agent has had too many new series or schemas of late.
 */
function recordedSchema(source: ConnectedSource, declared: Schema, timeMs: number): Schema {
  if (source.schema !== undefined && source.schemaSeries === declared.seriesCount) return source.schema;
  const { stream } = source;
  const { churn } = stream.agent;
  const recorded = source.schema ?? stream.schema;
  if (recorded?.agrees(declared, source.schemaSeries) === true) {
    const known = recorded === declared ? source.schemaSeries : recorded.seriesCount;
    churn.take({ series: Math.max(0, declared.seriesCount - known), isNewSchema: false, timeMs });
    recorded.extend(declared);
    source.schema = recorded;
  } else {
    churn.take({ series: newSeriesCount(declared, recorded), isNewSchema: true, timeMs });
    source.schema = declared;
  }
  source.schemaSeries = declared.seriesCount;
  return source.schema;
}

/** Equal groups of both are one object. */
function newSeriesCount(declared: Schema, recorded: Schema | undefined): number {
  const known = new Set(recorded?.groups);
  let count = 0;
  for (const group of declared.groups) if (!known.has(group)) count += group.seriesCount;
  return count;
}

export interface AgentConnectionOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly delivery: Delivery;
  readonly admission: Admission;
  readonly scheduler: FrameScheduler;
  readonly labelBounds: LabelBounds;
  /** Each logs a line at most once a minute for each key. */
  warn(key: string, line: string, everyMs?: number): void;
  info(key: string, line: string): void;
  /** The server has ended the connection: an error code of the protocol, or `slow`. */
  onEnd(reason: string): void;
  /** A frame of a kind that this version does not know. */
  onUnknown(kind: number): void;
  /** A frame of this peer has met a bug. */
  onBug(who: string, error: unknown): void;
  /** Looks whether this host's clock was set, before a time is compared with it; that may end every connection. */
  lookAtClock(): void;
}

const unsentBytesMax = 64 * 1024;
const permanentLoggedEveryMs = 3_600_000;
const refusedEveryMs = 1000;
