import type { Recording } from '../model/recording.ts';
import type { BootClock, Clock } from '../runtime/clock.ts';
import type { Connection } from '../runtime/connection.ts';
import { type Log, onceAMinute, type SeldomLog } from '../runtime/log.ts';
import type { OptionRow } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { isoTime } from '../runtime/words.ts';
import { createCollectors } from './collect/collectors/index.ts';
import { EpochClock } from './collect/epoch-clock.ts';
import { Optimizer } from './collect/optimizer.ts';
import { Host } from './collect/proc/host.ts';
import { keptFiles } from './collect/proc/kept-files.ts';
import { nodeSystem } from './collect/proc/system.ts';
import { type AbsentSubject, type CollectorFailure, Sampler } from './collect/sampler.ts';
import { runSchedule } from './collect/schedule.ts';
import { SeriesBudget } from './collect/series-budget.ts';
import { inSlowLane } from './collect/slow-host.ts';
import { SlowLane } from './collect/slow-lane.ts';
import type { AgentOptions } from './options.ts';
import { type AgentCounters, newAgentCounters, processFacts, SelfMetrics } from './own-metrics.ts';
import { collectorOption, collectorsOf, helloOf, hostSourceOf, labelsOf, rootsOf, type Settings } from './settings.ts';
import { Mirror, type MirrorClosed, type SpoolDisk } from './spool/mirror.ts';
import { type Drop, dropText, Spool } from './spool/spool.ts';
import { type AgentStatus, diskStatus, linkStatus } from './status.ts';
import { Link, type LinkState } from './uplink/uplink.ts';

/** The parts of an agent: real ones in `run`, virtual ones in the simulation. */
export interface AgentParts {
  readonly settings: Pick<Settings, 'address' | 'agentName' | 'labels' | 'schedule' | 'bounds' | 'spoolDir'>;
  readonly clock: Clock;
  readonly boot: BootClock;
  /** Where the spool is mirrored; undefined: it is in memory only. */
  readonly disk: SpoolDisk | undefined;
  /** A connection to the server that is ready for the hello, or a ConnectionError. */
  readonly dial: (signal: AbortSignal) => Promise<Connection>;
  /** Distinguishes two hosts with one name. */
  readonly hostId: string;
  /** Makes the sampler of the host; the counters are among its samples. */
  readonly newSampler: (counters: AgentCounters) => HostSampler;
  readonly log: Log;
  /** 0 ≤ random() < 1. */
  readonly random: () => number;
  readonly onState?: (state: LinkState) => void;
}

/** A host and its collectors. */
export interface HostSampler {
  /** The recording is valid until the next call, which must wait for this one. */
  sample(): Promise<Recording>;
  /** The collectors that failed the last time, and why. */
  readonly failures: readonly CollectorFailure[];
  /** The collectors of whose subject this host has nothing. */
  readonly absent: readonly AbsentSubject[];
  /** The files and mounts whose reads have not returned: `process.exit()` waits for them. */
  readonly pendingReads: readonly string[];
  /** Closes the kernel's files. The next sample reopens them. */
  close(): void;
}

/**
 * A running agent:
 *
 *     schedule ─▶ sampler ─▶ spool ─▶ link ─▶ server
 */
export class Agent {
  readonly counters = newAgentCounters();
  readonly spool: Spool;
  readonly #parts: AgentParts;
  readonly #seldom: SeldomLog;
  readonly #times: EpochClock;
  readonly #sampler: HostSampler;
  readonly #link: Link;
  readonly #startedAt: string;
  readonly #stopping = new AbortController();
  #ticks: { stop(): void } | undefined;
  #ticking: Promise<void> = Promise.resolve();
  #lastTickAtMs: number;
  #series = 0;
  #sending: Promise<void> = Promise.resolve();

  constructor(parts: AgentParts) {
    const { clock, boot, newSampler, log, random } = parts;
    const { counters } = this;
    this.#parts = parts;
    this.#seldom = onceAMinute(log, clock);
    this.#startedAt = isoTime(clock.nowMs());
    this.#lastTickAtMs = clock.monotonicMs();
    const { spool, link } = spoolAndLink({ ...parts, counters, onClockStep: () => this.#times.renew() });
    this.spool = spool;
    this.#link = link;
    this.#times = new EpochClock({ clock, boot, random, spool, counters, log });
    this.#sampler = newSampler(counters);
  }

  /** Series of the last report. */
  get series(): number {
    return this.#series;
  }

  /** False when no tick has come for so long that a restart is worth a try. */
  get isAlive(): boolean {
    const sinceMs = this.#parts.clock.monotonicMs() - this.#lastTickAtMs;
    return sinceMs <= 2 * this.#parts.settings.schedule.intervalMs + tickGraceMs;
  }

  /**
   * Reads the spool and makes the first report. Then it goes on by itself, until `stop`; `failed` rejects where it
   * cannot, which is a bug.
   */
  async start(): Promise<{ readonly failed: Promise<never> }> {
    const { clock, settings } = this.#parts;
    this.#logDrops(await this.spool.load());
    await this.#tick();
    this.#ticks = runSchedule({
      ...{ schedule: settings.schedule, clock, counters: this.counters },
      tick: () => (this.#ticking = this.#tick()),
    });
    this.#sending = this.#link.run(this.#stopping.signal);
    const failed = new Promise<never>((_, reject) => this.#sending.catch(reject));
    return { failed };
  }

  /** Makes no more reports and sends those that wait, for some seconds at most. What was not sent stays on disk. */
  async stop(): Promise<MirrorClosed> {
    const { clock } = this.#parts;
    const untilMs = clock.monotonicMs() + stopMsMax;
    this.#ticks?.stop();
    await this.#ticking;
    this.#stopping.abort();
    await this.#sending;
    const closed = await this.spool.close(untilMs - clock.monotonicMs());
    this.#sampler.close();
    return closed;
  }

  /** The files and mounts whose reads have not returned: `process.exit()` would wait for them. */
  get pendingReads(): readonly string[] {
    return this.#sampler.pendingReads;
  }

  /** Reopens the files of the kernel, and connects now instead of after the backoff. */
  refresh(): void {
    this.#sampler.close();
    this.#link.retryNow();
  }

  status(): AgentStatus {
    const { settings } = this.#parts;
    const { spool, counters } = this;
    return {
      version,
      name: settings.agentName,
      startedAt: this.#startedAt,
      server: settings.address,
      link: linkStatus(this.#link.state),
      spool: {
        reports: spool.waitingCount,
        bytes: spool.bytes,
        bytesMax: settings.bounds.bytesMax,
        oldestAt: spool.oldestWaitingMs === undefined ? null : isoTime(spool.oldestWaitingMs),
        folder: settings.spoolDir ?? null,
        disk: diskStatus(spool.diskState),
        unwrittenReports: spool.unwrittenCount,
      },
      reportsDropped: counters.reportsDropped,
      reportsRefused: this.#link.refusals.map(({ firstMs, lastMs, ...refusal }) => ({
        ...{ ...refusal, firstAt: isoTime(firstMs), lastAt: isoTime(lastMs) },
      })),
      lastReportAt: spool.epoch === undefined ? null : isoTime(spool.epoch.lastTimeMs),
      intervalSeconds: settings.schedule.intervalMs / 1000,
      series: this.#series,
      clockOffsetSeconds: counters.clockOffsetMs / 1000,
      reconnects: counters.reconnects,
      failures: this.#sampler.failures,
      absent: this.#sampler.absent,
    };
  }

  async #tick(): Promise<void> {
    const timeMs = this.#times.stamp();
    const recording = await this.#sampler.sample();
    this.#series = recording.schema.seriesCount;
    this.#logDrops(this.spool.append(recording, timeMs));
    this.#link.appended();
    this.#lastTickAtMs = this.#parts.clock.monotonicMs();
  }

  #logDrops(drops: readonly Drop[]): void {
    for (const drop of drops) this.#seldom.warn(`dropped ${drop.reason}`, dropText(drop, this.#parts.settings.bounds));
  }
}

/** Waits for reads under way, a second at most: whether all have ended. What has not by then hangs. */
export async function readsEnd(reader: Pick<HostSampler, 'pendingReads'>, clock: Clock): Promise<boolean> {
  const untilMs = clock.monotonicMs() + pendingMsMax;
  while (reader.pendingReads.length > 0 && clock.monotonicMs() < untilMs) await clock.sleep(pendingLookMs);
  return reader.pendingReads.length === 0;
}

/** What takes reports to the server, whoever makes them. `onClockStep`: the clock of this host was set. */
export function spoolAndLink(
  parts: Omit<AgentParts, 'newSampler'> & { readonly counters: AgentCounters; readonly onClockStep: () => void },
): { readonly spool: Spool; readonly link: Link } {
  const { settings, clock, boot, disk, dial, hostId, log, random, onState, counters, onClockStep } = parts;
  const mirror = disk && new Mirror({ disk, clock, log, counters });
  const spool = new Spool({
    ...{ clock, counters, bounds: settings.bounds, source: hostSourceOf(settings), servers: [settings.address] },
    ...(mirror && { mirror }),
  });
  const link = new Link({
    ...{ address: settings.address, dial, clock, boot, random, counters, log, onClockStep },
    ...{ spool, receiver: spool.receiver(settings.address), hello: helloOf(settings, hostId) },
    ...(onState && { onState }),
  });
  return { spool, link };
}

/** The collectors that the options choose, on the host that they name. */
export function newSampler(
  options: AgentOptions,
  { clock, log, counters }: { readonly clock: Clock; readonly log: Log; readonly counters: AgentCounters },
): HostSampler {
  const roots = rootsOf(options);
  const kept = keptFiles();
  const host = new Host(roots, nodeSystem, kept.fast);
  const lane = new SlowLane({ clock, log, filesKeptMax: kept.slow });
  const context = { clock, option: (row: OptionRow<unknown>) => collectorOption(options, row.name) };
  const collectors = inSlowLane(createCollectors(collectorsOf(options), context), { lane, roots });
  const budget = new SeriesBudget({ labels: labelsOf(options) });
  const startTimeMs = clock.nowMs() - process.uptime() * 1000;
  const self = new SelfMetrics(counters, processFacts(version, Math.round(startTimeMs), clock));
  const sampler = new Sampler({ host, collectors, self, clock, counters, log, budget });
  const optimizer = new Optimizer();
  return {
    async sample() {
      const recording = await sampler.sample();
      optimizer.suit(recording.schema.seriesCount);
      return recording;
    },
    get failures() {
      return sampler.failures;
    },
    get absent() {
      return sampler.absent;
    },
    get pendingReads() {
      return lane.pending;
    },
    close() {
      host.close();
      for (const { collector } of collectors) collector.close?.();
    },
  };
}

// Of the 5 s in which the program ends, the link takes four at most. What is left is the disk's.
const stopMsMax = 4500;
// A restart does not help a host that is slow because it swaps.
const tickGraceMs = 60_000;
const pendingMsMax = 1000;
const pendingLookMs = 20;
