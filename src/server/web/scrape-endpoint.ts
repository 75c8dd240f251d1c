import type { AgentId } from '../../model/agent-id.ts';
import type { StreamId } from '../../model/source.ts';
import { escapeLabelValue } from '../../model/text-format.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { SeldomLog } from '../../runtime/log.ts';
import type { AgentRecord, StreamRecord } from '../delivery/agent-record.ts';
import type { Delivery } from '../delivery/delivery.ts';
import { takeNewest } from '../delivery/scrape.ts';
import {
  type Scrape,
  type ScrapeConnection,
  type ScraperName,
  scraperText,
  selectionText,
} from '../delivery/scraper.ts';
import { decodedSeriesBytes } from '../delivery/window.ts';
import type { AgentBatch, Exposition } from '../exposition/exposition.ts';
import { AnswerQueue, type Turn } from './answer-queue.ts';
import type { Identified } from './identify.ts';
import type { KnownScrapers } from './known-scrapers.ts';
import type { WebMetrics } from './metrics.ts';
import { bytesPerSecondMin, ReaderWatch } from './reader-watch.ts';

/** Where one answer goes, slice by slice. */
export interface AnswerSink {
  /** A line with the reason, instead of an answer. */
  refuse(code: number, text: string): void;
  /** The answer begins. */
  begin(): void;
  /** `onFree`: the slice may be written into again. False where no more should come before {@link drained}. */
  write(slice: Uint8Array, onFree: () => void): boolean;
  /** Resolves when more may be written, or the answer has ended. */
  drained(): Promise<void>;
  /** The last of it. */
  finish(text: string): void;
  /** Resolves when all of it is with the operating system, or never will be. */
  readonly ended: Promise<'sent' | 'lost'>;
  readonly isLost: boolean;
  /** Bytes that the operating system has accepted so far. */
  readonly sentBytes: number;
  /** Destroys the connection. */
  cut(): void;
}

export interface ScrapeEndpointOptions {
  readonly clock: Clock;
  readonly delivery: Delivery;
  readonly exposition: Exposition;
  readonly metrics: WebMetrics;
  readonly scrapers: KnownScrapers;
  /** Lets the event loop turn, so that agents are heard while a large answer is made. */
  turn(): Promise<void>;
  readonly seldom: SeldomLog;
}

/**
 * `/metrics`, whatever carries it: opens the scrape, makes the answer no faster than it is read, and reports whether it
 * was sent completely.
 *
 *     request ─▶ cursor ─▶ queue ─▶ reports ─▶ text ─▶ sink ─▶ finish or abort
 */
export class ScrapeEndpoint {
  readonly #options: ScrapeEndpointOptions;
  readonly #queue = new AnswerQueue(queueLimits);

  constructor(options: ScrapeEndpointOptions) {
    this.#options = options;
  }

  /** Resolves when the answer has ended, one way or the other. */
  async answer(request: Identified, from: RequestOrigin, sink: AnswerSink): Promise<void> {
    const agents = this.#select(request, sink);
    if (agents === undefined) return;
    const waitMs = request.timeoutMs === undefined ? statelessMs : request.timeoutMs + lateMs;
    const deadlineMs = Math.min(waitMs, deadlineMsMax);
    const startedMs = this.#options.clock.monotonicMs();
    let why = 'its client closed the connection';
    const cut = (reason: string) => {
      why = reason;
      sink.cut();
    };
    // A client that does not read holds this answer's memory: until its own deadline and no longer.
    const deadline = this.#options.clock.after(deadlineMs, () => cut(`it took longer than ${deadlineMs / 1000} s`));
    const bytes = decodedSeriesBytes * samplesAtMost(request, agents);
    const turn = await this.#queue.enter({ owner: from.owner, bytes }, sink.ended);
    try {
      const isSent =
        turn !== undefined && !sink.isLost && (await this.#give({ request, from, agents, sink, turn, cut, startedMs }));
      if (!isSent) this.#notSent(request, from, turn === undefined ? `${why} while others were answered` : why);
    } finally {
      turn?.end();
      deadline.cancel();
    }
  }

  /** The agents that the request selects, or undefined after an answer with an error. */
  #select({ agents: names }: Identified, sink: AnswerSink): readonly AgentRecord[] | undefined {
    const { agents } = this.#options.delivery.store;
    if (names.length === 0) return [...agents.values()];
    const unknown = names.find((name) => !agents.has(name));
    if (unknown === undefined) return names.map((name) => agents.get(name)!);
    sink.refuse(404, `no agent named '${unknown}' is known\n`);
    return undefined;
  }

  /** Resolves to whether all of it is with the operating system. */
  async #give(job: Job): Promise<boolean> {
    const scrape = await this.#open(job);
    const { connection, owner, proxy } = job.from;
    const { address } = connection;
    const { scrapers, clock } = this.#options;
    const isNewest = scrape === undefined || scrape.gives === 'newest';
    const confirmedBy = isNewest ? 'none' : scrape.number === undefined ? 'connection' : 'receipt';
    scrapers.answered(job.request, { address, owner, proxy, confirmedBy, gives: scrape?.gives });
    const isSent =
      scrape === undefined
        ? await this.#send(job, await takeNewest(this.#options, streamsOf(job.agents)), { timestamps: false })
        : await this.#giveReports(job, scrape);
    const ms = clock.monotonicMs() - job.startedMs;
    if (isSent)
      scrapers.sent(job.request, { samples: isNewest ? undefined : scrape.samples, bytes: job.sink.sentBytes, ms });
    return isSent;
  }

  /** Undefined for a scraper that gets the newest values. */
  async #open({ request, from }: Job): Promise<Scrape | undefined> {
    const { delivery, metrics, seldom } = this.#options;
    const { given, scraper: name, program, agents: selection, timeoutMs, samplesMax, textBytesMax: bytesMax } = request;
    if (given.kind === 'newest' || timeoutMs === undefined) return undefined;
    const reportsMax = given.reports === 'one' ? 1 : undefined;
    const { connection } = from;
    const scrape = await delivery.openScrape({
      takesAnyOrder: program.name === 'vm_promscrape',
      name,
      selection,
      connection,
      timeoutMs,
      samplesMax,
      bytesMax,
      reportsMax,
    });
    if (scrape === undefined) {
      metrics.nameRefused();
      seldom.warn('names', `scraper '${scraperText(name)}' gets the newest values only: ${this.#limitOf(name)}`);
    }
    return scrape;
  }

  /** Why there is no cursor for a request of this name. */
  #limitOf(name: ScraperName): string {
    const isKnown = [...this.#options.delivery.scrapers].some((each) => scraperText(each.name) === scraperText(name));
    return isKnown
      ? 'its selections of agents (agent=) are too many, or have too many agents together; use fewer targets, or one for all agents'
      : '32 scraper names are in use, which is the limit';
  }

  async #giveReports(job: Job, scrape: Scrape): Promise<boolean> {
    const { metrics } = this.#options;
    const { request, agents, turn } = job;
    const scraper = scraperText(request.scraper);
    this.#warnOfRareScrapes(scraper, scrape.intervalMs, agents);
    if (scrape.skippedReports > 0) metrics.skipped(scrape.skippedReports);
    for (const stream of scrape.tooLarge) this.#warnOfTooLarge(scraper, stream);
    turn.holds(scrape.decodedBytes);
    let isSent = false;
    try {
      const isNewest = scrape.gives === 'newest';
      const batches = isNewest ? await takeNewest(this.#options, streamsOf(agents)) : scrape.batches;
      isSent = await this.#send(job, batches, { timestamps: !isNewest, scrape });
    } finally {
      if (isSent) {
        scrape.finish();
        metrics.scraped(scraper, request.agents.join(','), scrape);
        metrics.scrape('finished');
      } else scrape.abort();
    }
    return isSent;
  }

  /** Where reports were asked for, they are sent again. */
  #notSent({ scraper, given }: Identified, { connection }: RequestOrigin, why: string): void {
    if (given.kind === 'newest') return;
    const name = scraperText(scraper);
    this.#options.metrics.scrape('aborted');
    this.#options.seldom.warn(
      `aborted ${name}`,
      `an answer to scraper '${name}' (${connection.address}) was not sent completely: ${why}; its reports are sent again`,
    );
  }

  async #send(
    { request, agents, sink, turn, cut }: Job,
    batches: readonly AgentBatch[],
    { timestamps, scrape }: { readonly timestamps: boolean; readonly scrape?: Scrape },
  ): Promise<boolean> {
    const { clock, exposition } = this.#options;
    const watch = new ReaderWatch({
      clock,
      sentBytes: () => sink.sentBytes,
      onSlow: () => turn.wait(),
      onStalled: () => cut(`its client reads less than ${bytesPerSecondMin / 1024} KiB a second`),
    });
    try {
      sink.begin();
      // No faster than it is read, and each slice is reused once it was sent: new ones cost as much as the rendering.
      for (const slice of exposition.render(batches, { timestamps })) {
        if (sink.isLost) return false;
        if (slice.length === 0 || sink.write(slice, () => exposition.release(slice))) {
          await this.#options.turn();
          continue;
        }
        watch.isWaitedFor = true;
        await sink.drained();
        watch.isWaitedFor = false;
        // The kernel may have taken it at once: whoever reads fast would keep all others waiting, request after request.
        await this.#options.turn();
      }
      // A probe must not be refused for a label of an agent.
      const shown = scrape?.gives === 'probe' ? [] : agents;
      const own =
        answerText(scrape, this.#options.delivery.serverId, request.agents) +
        (await this.#ownText(shown, scrape?.withheld));
      await scrape?.mayEnd;
      if (sink.isLost) return false;
      sink.finish(own);
      watch.isWaitedFor = true;
      return (await sink.ended) === 'sent';
    } finally {
      watch.stop();
    }
  }

  #warnOfTooLarge(scraper: string, stream: StreamId): void {
    this.#options.seldom.warn(
      `large ${scraper} ${stream}`,
      `a report of '${stream}' is larger than an answer to scraper '${scraper}' may be, and is never sent: raise max or ` +
        'max-bytes in its URL, or disable collectors of the agent',
    );
  }

  /**
   * Labels of a host are in `sysmon_agent_up` too: the answer may be refused for them. An agent that is awaited has none:
   * 0 would be an outage that there was not, and its labels are not known yet.
   */
  #ownText(agents: readonly AgentRecord[], withheld: ReadonlySet<StreamId> | undefined): Promise<string> {
    const { clock, metrics } = this.#options;
    const monotonicMs = clock.monotonicMs();
    const streams = streamsOf(agents).filter((stream) => {
      return withheld?.has(stream.id) !== true && !stream.isAwaited(monotonicMs);
    });
    return metrics.text(streams.map((stream) => ({ stream, up: stream.up(monotonicMs) })));
  }

  /** Rules evaluated "now" are off when scrapes are rarer than reports: a warning once a day. */
  #warnOfRareScrapes(scraper: string, everyMs: number | undefined, agents: readonly AgentRecord[]): void {
    const { clock, seldom } = this.#options;
    if (everyMs === undefined) return;
    const monotonicMs = clock.monotonicMs();
    for (const agent of agents) {
      const { intervalMs } = agent.host;
      if (!agent.host.up(monotonicMs)) continue;
      if (intervalMs * 1.5 < everyMs && everyMs < longScrapeMs) {
        return seldom.warn(
          `rare ${scraper}`,
          `scraper '${scraper}' scrapes every ${Math.round(everyMs / 1000)} s, agent '${agent.id}' reports every ` +
            `${intervalMs / 1000} s: nothing is missing later, but rules see the newest reports late; ` +
            `set scrape_interval to at most the agents' --schedule`,
          dayMs,
        );
      }
      if (intervalMs > lookbackWarningMs) {
        return seldom.warn(
          `sparse ${agent.id}`,
          `agent '${agent.id}' reports every ${intervalMs / 1000} s: Prometheus looks back 5 min for a value, so graphs ` +
            'have gaps when a report is late; set its --schedule to 2m or less',
          dayMs,
        );
      }
    }
  }
}

/** Where a request came from. */
export interface RequestOrigin {
  readonly connection: ScrapeConnection;
  /** The owner in the queue: an address, or a network. */
  readonly owner: string;
  /** The sign of a proxy in between. */
  readonly proxy: string | undefined;
}

interface Job {
  readonly request: Identified;
  readonly from: RequestOrigin;
  readonly agents: readonly AgentRecord[];
  readonly sink: AnswerSink;
  readonly turn: Turn;
  /** Aborts the answer. */
  readonly cut: (why: string) => void;
  /** On the monotonic clock. */
  readonly startedMs: number;
}

/** The number by which the scraper's database is asked for this answer. */
function answerText(scrape: Scrape | undefined, serverId: string, selection: readonly AgentId[]): string {
  if (scrape?.number === undefined) return '';
  // One Prometheus may scrape several servers under one name.
  const labels = [`scraper="${escapeLabelValue(scraperText(scrape.scraper))}"`, `server_id="${serverId}"`];
  // Of two targets of one scraper, each has a series of its own.
  if (selection.length > 0) labels.push(`selection="${selectionText(selection.join(','))}"`);
  const help = 'The number of this answer. Where Prometheus has stored it, it has stored the whole answer.';
  return `${probeText(scrape, labels)}# HELP ${answerName} ${help}\n# TYPE ${answerName} gauge\n${answerName}{${labels.join()}} ${scrape.number}\n`;
}

/** Two samples of a series: does its database keep both, at their times? */
function probeText({ number, probeTimesMs }: Scrape, labels: readonly string[]): string {
  if (probeTimesMs === undefined) return '';
  // Each probe is a series of its own: nothing in it can come after something newer.
  const series = `${probeName}{${[...labels, `answer="${number}"`].join()}}`;
  const help = 'Two samples that show whether timestamps are kept.';
  const lines = probeTimesMs.map((ms, at) => `${series} ${at + 1} ${ms}\n`);
  return `# HELP ${probeName} ${help}\n# TYPE ${probeName} gauge\n${lines.join('')}`;
}

function streamsOf(agents: readonly AgentRecord[]): StreamRecord[] {
  return agents.flatMap(({ streams }) => [...streams]);
}

/** The size of an answer before it is planned, at most. */
function samplesAtMost({ given, samplesMax }: Identified, agents: readonly AgentRecord[]): number {
  const once = streamsOf(agents).reduce((sum, { schema }) => sum + (schema?.seriesCount ?? 0), 0);
  return given.kind === 'newest' ? once : Math.max(once, Math.min(samplesMax ?? Infinity, samplesUsual));
}

/** Has a receipt: see `delivery/receipts.ts`. */
const answerName = 'sysmon_server_answer';
const probeName = 'sysmon_server_probe';
// Of an answer with reports, until it is known what is in it.
const samplesUsual = 300_000;
const statelessMs = 60_000;
// A little more than the scraper's own time-out, so that it is the scraper that closes the connection.
const lateMs = 2000;
// No client holds an answer's memory for longer, whatever it says.
const deadlineMsMax = 120_000;
// Three answers keep a core busy while one of them waits for its reader, and two owners leave room for a third.
const queueLimits = {
  turnsMax: 3,
  turnsPerOwnerMax: 2,
  bytesMax: 128 * 1024 * 1024,
  bytesPerOwnerMax: 64 * 1024 * 1024,
};
// After such a pause Prometheus was down, not slow.
const longScrapeMs = 5 * 60_000;
const lookbackWarningMs = 120_000;
const dayMs = 24 * 3_600_000;
