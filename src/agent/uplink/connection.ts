import { decodeServerMessage, encodeMessage } from '../../protocol/codec.ts';
import { ProtocolError } from '../../protocol/errors.ts';
import { encodeFrame, FrameDecoder } from '../../protocol/frame.ts';
import { limits } from '../../protocol/limits.ts';
import type {
  AgentMessage,
  EpochSeq,
  Handlers,
  Hello,
  Pong,
  Refused,
  ServerMessage,
  Welcome,
} from '../../protocol/messages.ts';
import { handle, protocolVersion } from '../../protocol/messages.ts';
import type { BootClock, Clock, Timer } from '../../runtime/clock.ts';
import { CodedError } from '../../runtime/coded-error.ts';
import { type Connection, ConnectionError } from '../../runtime/connection.ts';
import type { Log } from '../../runtime/log.ts';
import { secondsText } from '../../runtime/words.ts';
import type { Receiver } from '../spool/receiver.ts';
import type { Replay, ReplayStep } from '../spool/replay.ts';
import type { SpoolEpoch } from '../spool/segment.ts';
import type { Spool } from '../spool/spool.ts';
import {
  type ClockStep,
  offsetMeasured,
  offsetOfNext,
  type ServerAhead,
  type ServerClock,
  serverAhead,
} from './clock-offset.ts';
import { KeepAlive } from './keep-alive.ts';
import type { PoisonCode, PoisonReports } from './poison.ts';

/** The server has ended the connection with an error. The code comes from a peer: any text. */
export class RefusedError extends CodedError<string> {
  override readonly name = 'RefusedError';
}

/** The server's clock was set: the next connection sends what is not acknowledged with other times. */
export class ClockStepError extends CodedError<'clock'> {
  override readonly name = 'ClockStepError';
}

export interface ConnectionCounters {
  bytesSent: number;
  acksReceived: number;
  clockOffsetMs: number;
  serverClockSteps: number;
}

export interface ServerConnectionOptions {
  readonly connection: Connection;
  readonly spool: Spool;
  /** The server, as the spool knows it. */
  readonly receiver: Receiver;
  readonly serverClock: ServerClock;
  readonly poison: PoisonReports;
  readonly hello: Omit<Hello, 'kind' | 'version'>;
  readonly clock: Clock;
  readonly boot: BootClock;
  readonly counters: ConnectionCounters;
  readonly log: Log;
  /** How long a report is held back, so that the agents of a server do not all send at once: see `sendDelayMs`. */
  readonly delayMs: number;
  /** The server has answered the hello with a welcome. */
  readonly onWelcomed: (replay: Replay) => void;
  /** A report was sent. */
  readonly onReportSent: () => void;
  /** The server has not stored reports. */
  readonly onRefused: (refused: Refused) => void;
  /** A report was dropped: the server has ended three connections because of it. */
  readonly onDropped: (code: PoisonCode, timeMs: number) => void;
  /** The server's clock was set, and the offsets of this run's epochs were fixed again. */
  readonly onClockStep: () => void;
  /** No more reports are made: the rest is sent, and the connection is half-closed. */
  readonly draining: AbortSignal;
  /** It ends at once. */
  readonly signal: AbortSignal;
}

/**
 * One connection, from the hello to its end: what the server lacks is sent, then each report as it comes.
 */
export class ServerConnection {
  readonly #options: ServerConnectionOptions;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
  /** Aborted with the reason when the connection can no longer be used. */
  readonly #ended = new AbortController();
  /** Resumes the wait for a report. Not an AbortSignal: its listeners cost as much as the report. */
  #resume: (() => void) | undefined;
  /** No more waiting for reports: the connection has ended, or is drained. */
  #isWoken = false;
  /** Runs while a report is held back. */
  #delay: Timer | undefined;
  /** Promises of answers, by `welcome` or the nonce of a ping. */
  readonly #expected = new Map<'welcome' | number, Expected>();
  #welcomedAtMs = 0;
  #reading: Promise<void> = Promise.resolve();
  #nonce = 0;
  /** When the pings that are not answered yet were sent, in boot time, by nonce. */
  readonly #pingSentAtMs = new Map<number, number>();
  /** Reports go out: whatever voids their offsets ends the connection. */
  #isDelivering = false;
  readonly #keepAlive: KeepAlive;
  /** Bytes since the last ping that paces the replay, and what it is answered with. */
  #unpacedBytes = 0;
  #pace: Promise<void> | undefined;
  /** The last measurement of the server's clock; and that by which an offset may be fixed, with when it was made. */
  #lastMeasured: ServerAhead | undefined;
  #measured: { readonly by: ServerAhead; readonly atMs: number } | undefined;

  constructor(options: ServerConnectionOptions) {
    this.#options = options;
    this.#connection = options.connection;
    this.#clock = options.clock;
    this.#keepAlive = new KeepAlive({
      clock: options.clock,
      // If it fails the connection ends, which is handled where the connection is used.
      ping: () => void this.#write(this.#pingFrame(), 'ping').catch(() => {}),
      onSilence: (silentMs) =>
        this.#end(new ConnectionError('timeout', `${this.#peer} has been silent for ${secondsText(silentMs)}`)),
    });
  }

  /**
   * Returns when it is drained and the server has read everything; otherwise throws a ConnectionError, a RefusedError,
   * or the error of the server's bytes. The connection is closed in any case.
   */
  async run(): Promise<void> {
    const { signal, draining } = this.#options;
    const stop = () => this.#end(new ConnectionError('closed', `the connection to ${this.#peer} was ended here`));
    const wake = () => this.#wake();
    signal.addEventListener('abort', stop);
    draining.addEventListener('abort', wake);
    try {
      if (signal.aborted) stop();
      if (draining.aborted) wake();
      this.#reading = this.#readAll();
      const { epochs } = await this.#greet();
      await this.#agreeOnClock();
      const replay = await this.#replay(epochs);
      this.#options.onWelcomed(replay);
      this.#keepAlive.start();
      this.#isDelivering = true;
      await this.#deliver(replay);
      // The pong shows that everything before the ping has been read.
      await this.#ping();
      await this.#connection.end();
    } finally {
      signal.removeEventListener('abort', stop);
      draining.removeEventListener('abort', wake);
      this.#keepAlive.stop();
      this.#end(new ConnectionError('closed', `the connection to ${this.#peer} has ended`));
      await this.#reading;
    }
  }

  async #greet(): Promise<Welcome> {
    const { boot, hello } = this.#options;
    const answer = this.#expect('welcome');
    const overdue = this.#clock.after(limits.pongTimeoutMs, () =>
      this.#end(
        new ConnectionError(
          'timeout',
          `${this.#peer} did not answer the hello within ${secondsText(limits.pongTimeoutMs)}`,
        ),
      ),
    );
    try {
      const sentAtMs = boot.bootMs();
      await this.#send({ kind: 'hello', version: protocolVersion, ...hello });
      const message = await answer;
      if (message.version !== protocolVersion) {
        throw new ProtocolError(
          'version',
          `the server speaks version ${message.version}, this agent ${protocolVersion}`,
        );
      }
      this.#takeTime(serverAhead({ sentAtMs, receivedAtMs: this.#welcomedAtMs, serverMs: message.nowMs }));
      return message;
    } finally {
      overdue.cancel();
    }
  }

  /** What the server lacks, without reports that it cannot process. */
  async #replay(received: readonly EpochSeq[]): Promise<Replay> {
    const { spool, receiver, poison, onDropped } = this.#options;
    const replay = spool.replay(receiver, received, poison.dropped);
    const { first } = replay;
    const treatment = poison.begins(first);
    if (treatment.kind === 'send') return replay;
    if (treatment.kind === 'drop') onDropped(treatment.code, first!.timeMs);
    else if (treatment.code === 'clock') await this.#doubtOffsetOf(treatment.report.epoch);
    return spool.replay(receiver, received, poison.dropped);
  }

  /**
   * Both ends agree on the server's clock, and the server finds reports of this epoch ahead of it. That is an epoch of
   * an earlier run, whose offset was measured when the server's clock was wrong: now it gets that of this host's wall
   * clock.
   */
  async #doubtOffsetOf(id: number): Promise<void> {
    const { spool, receiver } = this.#options;
    const epoch = spool.epochs.find((each) => each.id === id);
    const baseMs = spool.epoch?.baseMs;
    if (epoch === undefined || epoch.baseMs !== undefined || baseMs === undefined) return;
    await spool.fixOffset(receiver, epoch, offsetMeasured(baseMs, await this.#measureServer()));
  }

  /** Sends what the replay gives, until it is drained. */
  async #deliver(replay: Replay): Promise<void> {
    const { draining } = this.#options;
    for (;;) {
      this.#ended.signal.throwIfAborted();
      const step = replay.next(pieceBytesMax);
      if (step.kind === 'fix offset') {
        await this.#fixOffset(step.epoch);
      } else if (step.kind === 'send') {
        await this.#sendPiece(step);
      } else if (draining.aborted) {
        return;
      } else {
        await this.#nextReport();
      }
    }
  }

  async #sendPiece({ bytes, reportCount }: SendStep): Promise<void> {
    // In one write, because every wake-up of the process costs CPU.
    const takesPing = reportCount > 0 && this.#keepAlive.takesPing;
    const written = this.#write(takesPing ? Buffer.concat([bytes, this.#pingFrame()]) : bytes, 'report');
    if (takesPing) this.#keepAlive.sent('ping');
    await written;
    if (reportCount > 0) this.#options.onReportSent();
    this.#unpacedBytes += bytes.length;
    if (this.#unpacedBytes >= paceBytes) await this.#keepPace();
  }

  /** Resolves after the next append and the delay of this agent; at once when there is nothing to wait for. */
  #nextReport(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isWoken) resolve();
      else this.#resume = resolve;
    });
  }

  /** The spool has one more report. */
  appended(): void {
    // The replay finds a report that comes while nothing waits for it; one that comes in the delay is sent with the
    // first.
    if (this.#resume === undefined || this.#delay !== undefined) return;
    this.#delay = this.#clock.after(this.#options.delayMs, () => this.#goOn());
  }

  #goOn(): void {
    this.#delay = undefined;
    this.#resume?.();
    this.#resume = undefined;
  }

  #wake(): void {
    this.#isWoken = true;
    this.#delay?.cancel();
    this.#goOn();
  }

  /** If the server's clock disagrees with the offsets in use, reports are held until it has been measured again. */
  async #agreeOnClock(): Promise<void> {
    const { serverClock, receiver } = this.#options;
    if (receiver.serverAheadMs === undefined) return;
    for (let attempt = 0; attempt < limits.clockMeasurementsMax && !serverClock.isAgreed; attempt++) await this.#ping();
  }

  /** Fixes what the server adds to the times of an epoch that has no offset yet. */
  async #fixOffset(epoch: SpoolEpoch): Promise<void> {
    const { spool, receiver, serverClock, counters, log } = this.#options;
    const measured = await this.#measureServer();
    // If the measurement has shown a step, the offset is fixed and the connection has ended.
    this.#ended.signal.throwIfAborted();
    const knownMs = receiver.serverAheadMs;
    // The boot of an epoch of an earlier run is not known: its clock is taken to be that of this host now.
    const baseMs = epoch.baseMs ?? spool.epoch!.baseMs!; // a run begins with an epoch
    const offsetMs = knownMs === undefined ? offsetMeasured(baseMs, measured) : offsetOfNext(baseMs, measured, knownMs);
    if (epoch.baseMs !== undefined) serverClock.fixed(measured);
    if (epoch === spool.epoch) counters.clockOffsetMs = offsetMs;
    await spool.fixOffset(receiver, epoch, offsetMs);
    if (Math.abs(offsetMs) <= limits.clockOffsetIgnoredMs) return;
    const way = offsetMs > 0 ? 'behind' : 'ahead of';
    log.warn(
      `the clock of this host is ${secondsText(Math.abs(offsetMs))} ${way} the server's; times are corrected. ` +
        'Is NTP on, here and there? (timedatectl)',
    );
  }

  /** How far the server's clock is ahead of boot time, by the quickest of some round trips. */
  async #measureServer(): Promise<ServerAhead> {
    const { serverClock } = this.#options;
    const { by, atMs } = this.#measured!; // by the welcome, at the least
    let best = this.#clock.monotonicMs() - atMs <= measurementMsMax ? by : undefined;
    for (let attempt = 0; attempt < limits.clockMeasurementsMax; attempt++) {
      if (best?.isExact === true && serverClock.isAgreed) break;
      await this.#ping();
      best = quickest(this.#lastMeasured!, best);
    }
    this.#measured = { by: best!, atMs: this.#clock.monotonicMs() };
    return best!;
  }

  /** The server has sent the time of its clock. */
  #takeTime(measured: ServerAhead): void {
    const { receiver, serverClock } = this.#options;
    this.#lastMeasured = measured;
    this.#measured ??= { by: measured, atMs: this.#clock.monotonicMs() };
    const knownMs = receiver.serverAheadMs;
    if (knownMs === undefined) return;
    const step = serverClock.compare(knownMs, measured);
    if (step !== undefined) this.#followStep(step);
    // Ends with the connection, if it does.
    else if (!serverClock.isAgreed && this.#isDelivering) this.#ping().catch(() => {});
  }

  /**
   * Within an epoch this host's clock is monotonic, so the server's clock was set: the offsets of this run follow it.
   */
  #followStep({ byMs, measured }: ClockStep): void {
    const { spool, receiver, poison, counters, log, onClockStep } = this.#options;
    for (const epoch of spool.epochs) {
      // Of an epoch of an earlier run only the offset is known: it moves with the server's clock.
      const before = receiver.offsetsMs.get(epoch.id);
      if (epoch.baseMs === undefined && before === undefined) continue;
      const offsetMs = epoch.baseMs === undefined ? before! + byMs : offsetMeasured(epoch.baseMs, measured);
      void spool.fixOffset(receiver, epoch, offsetMs);
      if (epoch === spool.epoch) counters.clockOffsetMs = offsetMs;
    }
    poison.clockStepped();
    counters.serverClockSteps++;
    onClockStep();
    const way = byMs > 0 ? 'forwards' : 'back';
    const text = `the clock of '${receiver.server}' was set ${way} by ${secondsText(Math.abs(byMs))}`;
    log.warn(`${text}; what it has not acknowledged is sent with times by its new clock`);
    if (this.#isDelivering) this.#end(new ClockStepError('clock', text));
  }

  /**
   * A kernel buffers megabytes. On a slow line a ping would wait behind them for longer than the limit of silence, and
   * each connection would end, and send the same again. So no more is under way than the bytes between three pings.
   */
  async #keepPace(): Promise<void> {
    this.#unpacedBytes = 0;
    await this.#pace;
    this.#pace = this.#ping();
    // It is awaited by the next turn, if there is one.
    this.#pace.catch(() => {});
  }

  /** Resolves with its answer. */
  async #ping(): Promise<void> {
    const frame = this.#pingFrame();
    const answer = this.#expect(this.#nonce);
    await this.#write(frame, 'ping');
    await answer;
  }

  /** A ping that goes out now. */
  #pingFrame(): Uint8Array {
    const nonce = ++this.#nonce;
    this.#pingSentAtMs.set(nonce, this.#options.boot.bootMs());
    const { waitingCount: spoolReports, droppedCount: droppedReports } = this.#options.spool;
    return encodeFrame(encodeMessage({ kind: 'ping', nonce, spoolReports, droppedReports }));
  }

  async #readAll(): Promise<void> {
    try {
      for await (const chunk of this.#connection) {
        for (const payload of this.#decoder.push(chunk)) this.#receive(decodeServerMessage(payload));
      }
      this.#decoder.end();
      this.#end(new ConnectionError('closed', `${this.#peer} closed the connection`));
    } catch (error) {
      this.#end(error);
    }
  }

  #receive(message: ServerMessage): void {
    this.#keepAlive.heard();
    handle(this.#handlers, message);
  }

  readonly #handlers: Handlers<ServerMessage> = {
    welcome: (message) => {
      this.#welcomedAtMs = this.#options.boot.bootMs();
      if (!this.#answer('welcome', message)) throw new ProtocolError('bad-message', 'welcome: a second one');
    },
    pong: (message) => this.#ponged(message),
    ack: ({ epoch, seq }) => {
      this.#options.counters.acksReceived++;
      this.#options.spool.acknowledge(this.#options.receiver, { epoch, seq });
    },
    error: ({ code, text }) => {
      if (code === 'clock') this.#options.serverClock.doubt();
      throw new RefusedError(code, `${this.#peer} refused this agent (${code}): ${text}`);
    },
    refused: (message) => this.#options.onRefused(message),
    unknown: () => {},
  };

  #ponged({ nonce, nowMs: serverMs }: Pong): void {
    const sentAtMs = this.#pingSentAtMs.get(nonce);
    // A pong without a ping is a sign of life, like any other frame.
    if (sentAtMs === undefined) return;
    this.#pingSentAtMs.delete(nonce);
    this.#takeTime(serverAhead({ sentAtMs, receivedAtMs: this.#options.boot.bootMs(), serverMs }));
    this.#answer(nonce);
  }

  #expect(what: 'welcome'): Promise<Welcome>;
  #expect(what: number): Promise<undefined>;
  #expect(what: 'welcome' | number): Promise<Welcome | undefined> {
    const answer = new Promise<Welcome | undefined>((resolve, reject) => {
      this.#expected.set(what, { resolve, reject });
    });
    // The sender may fail before it waits for the answer.
    answer.catch(() => {});
    if (this.#ended.signal.aborted) this.#expected.get(what)?.reject(this.#ended.signal.reason);
    return answer;
  }

  #answer(what: 'welcome' | number, welcome?: Welcome): boolean {
    const expected = this.#expected.get(what);
    this.#expected.delete(what);
    expected?.resolve(welcome);
    return expected !== undefined;
  }

  #send(message: AgentMessage): Promise<void> {
    return this.#write(encodeFrame(encodeMessage(message)), 'other');
  }

  async #write(bytes: Uint8Array, what: 'report' | 'ping' | 'other'): Promise<void> {
    this.#keepAlive.sent(what);
    this.#options.counters.bytesSent += bytes.length;
    try {
      await this.#connection.write(bytes);
    } catch (error) {
      // An error message of the server is the better reason: everything is read first.
      await this.#reading;
      this.#end(error);
      throw this.#ended.signal.reason;
    }
  }

  /** The first reason counts. */
  #end(reason: unknown): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(reason);
    this.#wake();
    for (const { reject } of this.#expected.values()) reject(reason);
    this.#expected.clear();
    this.#connection.destroy(reason instanceof Error ? reason : undefined);
  }

  get #peer(): string {
    return this.#connection.peer;
  }
}

function quickest(a: ServerAhead, b: ServerAhead | undefined): ServerAhead {
  return b === undefined || a.errorMs <= b.errorMs ? a : b;
}

type SendStep = Extract<ReplayStep, { readonly kind: 'send' }>;

interface Expected {
  readonly resolve: (welcome: Welcome | undefined) => void;
  readonly reject: (reason: unknown) => void;
}

// A write waits for the one before, so this is also the most that is buffered outside the kernel.
const pieceBytesMax = 65_536;
// At most twice this is under way: 2.5 MB/s at a round trip of 100 ms; below 13 KB/s silence would end the connection.
const paceBytes = 131_072;
// A replay may begin several epochs one after another: they share a measurement.
const measurementMsMax = 10_000;

/** The delay of this agent's reports, within a second and a quarter of the interval: the same at each start. */
export function sendDelayMs(agentName: string, intervalMs: number): number {
  // FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(agentName)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return (hash / 2 ** 32) * Math.min(1000, intervalMs / 4);
}
