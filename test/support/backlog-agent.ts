import { counter, gauge } from '../../src/agent/collect/collectors/collector.ts';
import { Recorder } from '../../src/agent/collect/recorder.ts';
import { every } from '../../src/agent/collect/schedule.ts';
import { Agent } from '../../src/agent/wire-up.ts';
import type { Recording } from '../../src/model/recording.ts';
import { type Clock, realClock, sleepOn, type Timer } from '../../src/runtime/clock.ts';
import { ConnectionError } from '../../src/runtime/connection.ts';
import { dial } from '../../src/runtime/dial.ts';
import type { Scope } from './programs.ts';
import { VirtualClock } from './virtual-clock.ts';

export interface BacklogAgentOptions {
  readonly name: string;
  readonly port: number;
  readonly intervalMs: number;
  readonly seriesCount: number;
  /** How long it has been away when it comes back. */
  readonly awayMs: number;
  /** Of its wall clock. */
  readonly wallAheadMs: number;
}

/**
 * The agent itself, in this process, with made-up samples. The hours for which it was away pass in a moment of a clock of
 * its own, which then goes on as the real one does.
 */
export class BacklogAgent {
  readonly options: BacklogAgentOptions;
  readonly #clock: WarpedClock;
  readonly #agent: Agent;
  #isAway = true;
  #isSampling = true;
  #stopped: Promise<unknown> | undefined;

  private constructor(options: BacklogAgentOptions) {
    this.options = options;
    const { name, port, intervalMs, awayMs, wallAheadMs, seriesCount } = options;
    const clock = new WarpedClock(Date.now() - awayMs + wallAheadMs);
    this.#clock = clock;
    const nobody = { error() {}, warn() {}, info() {}, debug() {} };
    const schedule = every(intervalMs);
    this.#agent = new Agent({
      settings: {
        ...{ address: `127.0.0.1:${port}`, agentName: name, labels: [], spoolDir: undefined },
        schedule: { intervalMs, nextAfter: (nowMs) => (this.#isSampling ? schedule.nextAfter(nowMs) : Infinity) },
        bounds: { bytesMax: 64 * 2 ** 20, ageMsMax: 24 * 3_600_000 },
      },
      ...{ clock, boot: { bootMs: () => clock.monotonicMs() }, disk: undefined, log: nobody },
      ...{ random: Math.random, hostId: `host-of-${name}` },
      dial: async (signal) => {
        if (this.#isAway) throw new ConnectionError('refused', 'it is away');
        return dial({ host: '127.0.0.1', port, timeoutMs: 5000, signal });
      },
      newSampler: () => ({
        sample: samplerOf(clock, seriesCount),
        failures: [],
        absent: [],
        pendingReads: [],
        close() {},
      }),
    });
  }

  /** Its reports of the time for which it was away are made, and it goes on making them. */
  static async start(scope: Scope, options: BacklogAgentOptions): Promise<BacklogAgent> {
    const agent = new BacklogAgent(options);
    await agent.#agent.start();
    await agent.#clock.warp(options.awayMs);
    scope.after(() => agent.close());
    return agent;
  }

  get waitingCount(): number {
    return this.#agent.spool.waitingCount;
  }

  /** The server can be reached from now on. */
  comeBack(): void {
    this.#isAway = false;
    this.#agent.refresh();
  }

  /** From now on nothing new; what is there is delivered. */
  stopSampling(): void {
    this.#isSampling = false;
  }

  async close(): Promise<void> {
    this.#stopped ??= this.#agent.stop();
    await this.#stopped;
  }
}

/** A clock that passes a time in a moment, and is the real one from then on. */
class WarpedClock implements Clock {
  readonly #virtual: VirtualClock;
  readonly #timers = new Set<{ readonly dueMs: number; readonly callback: () => void; timer: Timer }>();
  /** The real monotonic clock, where this one has become real. */
  #realAtMs: number | undefined;

  constructor(nowMs: number) {
    this.#virtual = new VirtualClock(nowMs);
  }

  nowMs(): number {
    return Math.floor(this.#virtual.nowMs() + this.#sinceMs);
  }

  monotonicMs(): number {
    return this.#virtual.monotonicMs() + this.#sinceMs;
  }

  after(ms: number, callback: () => void): Timer {
    if (this.#realAtMs !== undefined) return realClock.after(ms, callback);
    const dueMs = this.monotonicMs() + Math.max(0, ms);
    const fire = () => {
      this.#timers.delete(entry);
      callback();
    };
    const entry = { dueMs, callback: fire, timer: this.#virtual.after(ms, fire) };
    this.#timers.add(entry);
    return {
      cancel: () => {
        this.#timers.delete(entry);
        entry.timer.cancel();
      },
    };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  async warp(ms: number): Promise<void> {
    await this.#virtual.advance(ms);
    this.#realAtMs = realClock.monotonicMs();
    for (const entry of this.#timers) {
      entry.timer.cancel();
      entry.timer = realClock.after(entry.dueMs - this.monotonicMs(), entry.callback);
    }
  }

  get #sinceMs(): number {
    return this.#realAtMs === undefined ? 0 : realClock.monotonicMs() - this.#realAtMs;
  }
}

/** Half of the series are counters that rise by a second a second, the others jump about; both follow from the time. */
function samplerOf(clock: Clock, seriesCount: number): () => Promise<Recording> {
  const counters = { samplesDuplicate: 0, samplesRefused: 0, labelsCut: 0, schemasBegun: 0 };
  const recorder = new Recorder({ counters, warn: (text) => void Promise.reject(new Error(text)) });
  const part = recorder.part('made-up');
  return async () => {
    const seconds = Math.floor(clock.nowMs() / 1000);
    recorder.begin();
    recorder.enter(part);
    for (let series = 0; series < seriesCount; series++) {
      if (series % 2 === 0) recorder.sample(secondsTotal, seconds * 100 + series, String(series));
      else recorder.sample(bytes, (seconds * (series + 13)) % 1_000_003, String(series));
    }
    recorder.leave();
    return recorder.end();
  };
}

const secondsTotal = counter('made_up_seconds_total', 'Rises.', { labels: ['series'], divisor: 100 });
const bytes = gauge('made_up_bytes', 'Goes up and down.', { labels: ['series'] });
