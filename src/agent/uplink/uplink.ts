import { FrameError, ProtocolError, permanent } from '../../protocol/errors.ts';
import type { Hello, Refused } from '../../protocol/messages.ts';
import { backoffMs } from '../../runtime/backoff.ts';
import type { BootClock, Clock, Timer } from '../../runtime/clock.ts';
import { type Connection, ConnectionError } from '../../runtime/connection.ts';
import { type Log, onceAMinute, type SeldomLog } from '../../runtime/log.ts';
import { isoTime, plural, printable } from '../../runtime/words.ts';
import type { Receiver } from '../spool/receiver.ts';
import type { Replay } from '../spool/replay.ts';
import type { Spool } from '../spool/spool.ts';
import { ServerClock } from './clock-offset.ts';
import { ClockStepError, type ConnectionCounters, RefusedError, ServerConnection, sendDelayMs } from './connection.ts';
import { FailureLog } from './failure-log.ts';
import { type PoisonCode, PoisonReports } from './poison.ts';
import { type Refusal, type RefusalReason, Refusals } from './refusals.ts';

/** The state of the link, for `status`. Times are of the wall clock. */
export type LinkState =
  | { readonly kind: 'connecting'; readonly sinceMs: number }
  /** `unsent` counts the reports that are not sent. */
  | { readonly kind: 'connected'; readonly peer: string; readonly sinceMs: number; readonly unsent: () => number }
  | { readonly kind: 'waiting'; readonly reason: string; readonly isRefused: boolean; readonly retryAtMs: number }
  | { readonly kind: 'stopped' };

export interface LinkCounters extends ConnectionCounters {
  readonly reportsRefused: Record<RefusalReason, number>;
  connects: number;
  reconnects: number;
  connectFailures: number;
}

export interface LinkOptions {
  /** The server's address, for log lines. */
  readonly address: string;
  /** A connection that is ready for the hello, or a ConnectionError. It may be called any number of times. */
  readonly dial: (signal: AbortSignal) => Promise<Connection>;
  readonly spool: Spool;
  /** The server, as the spool knows it. */
  readonly receiver: Receiver;
  readonly hello: Omit<Hello, 'kind' | 'version'>;
  readonly clock: Clock;
  readonly boot: BootClock;
  /** 0 ≤ random() < 1. */
  readonly random: () => number;
  readonly counters: LinkCounters;
  readonly log: Log;
  readonly onState?: (state: LinkState) => void;
  /** The server's clock was set: the next report should begin a new epoch. */
  readonly onClockStep: () => void;
}

/** One connection after another, until it is stopped. */
export class Link {
  readonly #options: LinkOptions;
  readonly #failureLog: FailureLog;
  readonly #serverClock = new ServerClock();
  readonly #poison = new PoisonReports();
  readonly #refusals: Refusals;
  readonly #seldom: SeldomLog;
  #state: LinkState;
  /** The present connection, from its hello on. */
  #connection: ServerConnection | undefined;
  /** Failures in a row, since the last connection on which a report was sent. */
  #failures = 0;
  /** Connections in a row that a bug of the server has ended. */
  #bugsInARow = 0;
  /** The last connection has no key. */
  #isPlain = false;
  /** No connection was logged yet. */
  #isFirst = true;
  /** Aborted to end the wait for the next try. */
  #wait = new AbortController();

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#failureLog = new FailureLog(options);
    this.#refusals = new Refusals(options.counters.reportsRefused);
    this.#seldom = onceAMinute(options.log, options.clock);
    this.#state = { kind: 'connecting', sinceMs: options.clock.nowMs() };
  }

  get state(): LinkState {
    return this.#state;
  }

  /** The spool has one more report. */
  appended(): void {
    this.#connection?.appended();
  }

  /** Reports that the server did not store, by reason. */
  get refusals(): readonly Refusal[] {
    return this.#refusals.all;
  }

  /** Connects now instead of after the backoff, and logs if that fails. For a person who asks for it. */
  retryNow(): void {
    this.#failureLog.asked();
    this.#wait.abort();
  }

  /**
   * Runs until `stopping` aborts, then sends what is in the spool, for `drainMsMax` at most; no more reports may be
   * made by then. Rejects only on a bug.
   */
  async run(stopping: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const stop = new AbortController();
    let deadline: Timer | undefined;
    const startDraining = () => {
      this.#wait.abort();
      deadline = clock.after(drainMsMax, () => stop.abort());
    };
    stopping.addEventListener('abort', startDraining, { once: true });
    try {
      while (!stopping.aborted) await this.#connectOrWait(stopping, stop.signal);
    } finally {
      stopping.removeEventListener('abort', startDraining);
      deadline?.cancel();
      this.#become({ kind: 'stopped' });
    }
  }

  async #connectOrWait(draining: AbortSignal, signal: AbortSignal): Promise<void> {
    try {
      await this.#connectOnce({ draining, signal });
    } catch (error) {
      if (draining.aborted && isOperational(error)) return;
      const retryMs = this.#failed(error);
      this.#wait = new AbortController();
      await this.#options.clock.sleep(retryMs, this.#wait.signal);
    }
  }

  /** From the dial to the end of the connection. Returns when it is drained, throws otherwise. */
  async #connectOnce({ draining, signal }: { draining: AbortSignal; signal: AbortSignal }): Promise<void> {
    const { spool, receiver, hello, clock, boot, counters, log, onClockStep } = this.#options;
    this.#become({ kind: 'connecting', sinceMs: clock.nowMs() });
    let isWelcomed = false;
    let hasSentReports = false;
    try {
      this.#isPlain = false;
      const connection = await this.#options.dial(draining);
      this.#isPlain = connection.identity === undefined;
      this.#connection = new ServerConnection({
        ...{ connection, spool, receiver, hello, clock, boot, counters, log, draining, signal, onClockStep },
        ...{ serverClock: this.#serverClock, poison: this.#poison },
        onRefused: (refused) => this.#refused(refused),
        onDropped: (code, timeMs) =>
          this.#refused({ ...poisonReasons[code], count: 1, firstMs: timeMs, lastMs: timeMs }),
        delayMs: sendDelayMs(hello.agentName, spool.source.intervalMs),
        onWelcomed: (replay) => {
          isWelcomed = true;
          this.#welcomed(connection, replay);
        },
        onReportSent: () => {
          hasSentReports = true;
        },
      });
      await this.#connection.run();
    } catch (error) {
      if (!isWelcomed && !draining.aborted) counters.connectFailures++;
      if (isOperational(error)) this.#ended(error.code, hasSentReports);
      throw error;
    } finally {
      this.#connection = undefined;
    }
  }

  /** A connection was of use when a report went out: a server that takes hellos alone is not dialled at full speed. */
  #ended(code: string, hasSentReports: boolean): void {
    if (hasSentReports) {
      this.#bugsInARow = code === 'internal' ? this.#bugsInARow + 1 : 0;
      this.#failures = Math.max(0, this.#bugsInARow - 1);
    }
    this.#poison.ended(code, hasSentReports);
  }

  #refused(refused: Omit<Refused, 'kind'>): void {
    const { reason, count, firstMs, lastMs, text } = refused;
    this.#refusals.add(refused);
    const times = count === 1 ? isoTime(firstMs) : `${isoTime(firstMs)} to ${isoTime(lastMs)}`;
    this.#seldom.warn(
      `refused ${reason}`,
      `'${this.#options.address}' did not store ${plural(count, 'report')} of ${times}: ${printable(text)}`,
    );
  }

  #welcomed(connection: Connection, replay: Replay): void {
    const { counters, clock, address, log } = this.#options;
    if (counters.connects > 0) counters.reconnects++;
    counters.connects++;
    const unsent = () => replay.unsentCount;
    this.#become({ kind: 'connected', peer: connection.peer, sinceMs: clock.nowMs(), unsent });
    const place = connection.peer === address ? '' : ` (${connection.peer})`;
    // Only if a failure was logged: a server that comes and goes does not fill the log.
    if (this.#isFirst || this.#failureLog.isFailureLogged) {
      log.info(`connected to '${address}'${place}; ${plural(unsent(), 'report')} to send`);
    }
    this.#isFirst = false;
    this.#failureLog.succeeded();
  }

  /** How long to wait after this error. */
  #failed(error: unknown): number {
    if (!isOperational(error)) throw error;
    const { random, clock, spool, address } = this.#options;
    const isRefused = permanent(error.code);
    const retryMs = isRefused ? refusedRetryMs : Math.round(backoffMs(this.#failures++, backoff, random));
    const words = this.#state.kind === 'connected' ? `lost '${address}'` : `cannot connect to '${address}'`;
    const advice = adviceOn(error, this.#state.kind !== 'connected' && this.#isPlain);
    const waiting = `${plural(spool.waitingCount, 'report')} waiting, retrying in ${retryMs / 1000} s`;
    // That has a line of its own, where the clock is compared; and it is no failure.
    if (error.code !== 'clock') this.#failureLog.failed(error.code, `${words}: ${error.message}${advice}; ${waiting}`);
    this.#become({ kind: 'waiting', reason: error.message, isRefused, retryAtMs: clock.nowMs() + retryMs });
    return retryMs;
  }

  #become(state: LinkState): void {
    this.#state = state;
    this.#options.onState?.(state);
  }
}

// Of the 5 s in which a program ends; the rest is for the disk and for systemd.
const drainMsMax = 4000;
const backoff = { baseMs: 500, maxMs: 30_000 };
// A person has to change something first: a version, a name, a key.
const refusedRetryMs = 60_000;

type OperationalError = ConnectionError | RefusedError | ClockStepError | FrameError | ProtocolError;

/** Why a report is dropped that the server cannot process. */
const poisonReasons: Readonly<Record<PoisonCode, { readonly reason: RefusalReason; readonly text: string }>> = {
  internal: {
    reason: 'server_bug',
    text: 'it failed on the report three times; its log has the bug, please report it',
  },
  clock: { reason: 'server_clock', text: 'the report is ahead of its clock, though both clocks were compared' },
};

/** Anything else is a bug, and ends the program. */
function isOperational(error: unknown): error is OperationalError {
  return (
    error instanceof ConnectionError ||
    error instanceof RefusedError ||
    error instanceof ClockStepError ||
    error instanceof FrameError ||
    error instanceof ProtocolError
  );
}

/** What a person may have to change: servers end a connection without a reason if its key is wrong or missing. */
function adviceOn({ code }: OperationalError, isPlainHello: boolean): string {
  if (isPlainHello && (code === 'closed' || code === 'reset')) {
    return " (does the server want a key? 'sysmon-server enroll NAME' makes one)";
  }
  if (code !== 'tls') return '';
  return " (is the key of --key-file this server's, and of the present fleet key? 'sysmon-server enroll' makes another)";
}
