import type { Clock } from '../../runtime/clock.ts';
import type { SeldomLog } from '../../runtime/log.ts';
import type { ConfirmedBy } from '../delivery/cursor.ts';
import type { Gives } from '../delivery/probe.ts';
import { scraperText } from '../delivery/scraper.ts';
import type { Identified, Program } from './identify.ts';
import type { WebMetrics } from './metrics.ts';

/** Where an answer to a scraper goes. */
export interface AnsweredTo {
  readonly address: string;
  /** The address, of an IPv6 address its /64. */
  readonly owner: string;
  /** The sign of a proxy in between; undefined: none. */
  readonly proxy: string | undefined;
  /** What confirms that it has them; `none`: it gets the newest values, and the server remembers nothing of it. */
  readonly confirmedBy: ConfirmedBy | 'none';
  /** What it was given, where it has a cursor. */
  readonly gives?: Gives | undefined;
}

/** What is known of a scraper by its last answer. */
export interface KnownScraper {
  readonly program: Program;
  readonly address: string;
  readonly confirmedBy: ConfirmedBy | 'none';
  /** Why it gets the newest values only; undefined: it gets reports. */
  readonly newestWhy: string | undefined;
  /** On the monotonic clock. */
  readonly seenAtMs: number;
  /** The last sign of a proxy within a day, and when it was seen, on the monotonic clock; undefined: none. */
  readonly proxy: { readonly sign: string; readonly seenAtMs: number } | undefined;
  /** What was logged of it. */
  readonly line: string;
  /** The last that was sent whole. */
  readonly lastAnswer: SentAnswer | undefined;
}

/** An answer that was sent whole. */
export interface SentAnswer {
  /** Undefined for the newest values. */
  readonly samples: number | undefined;
  /** As they were sent, compressed where the scraper takes that. */
  readonly bytes: number;
  /** From the request to the last byte. */
  readonly ms: number;
}

type ScraperInfos = Pick<WebMetrics, 'scraperInfo' | 'forgetScraperInfo'>;

/** Logs, and shows as a metric, who scrapes, what each scraper gets and why, and how its answers are confirmed. */
export class KnownScrapers {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #seldom: SeldomLog;
  readonly #metrics: ScraperInfos;
  /** By name, in the order of their last answers. */
  readonly #known = new Map<string, KnownScraper>();

  constructor(options: {
    readonly clock: Pick<Clock, 'monotonicMs'>;
    readonly seldom: SeldomLog;
    readonly metrics: ScraperInfos;
  }) {
    this.#clock = options.clock;
    this.#seldom = options.seldom;
    this.#metrics = options.metrics;
  }

  /** By name. */
  get all(): ReadonlyMap<string, KnownScraper> {
    return this.#known;
  }

  /** Requests without the time-out header are not logged: they are a person's. */
  answered(request: Identified, to: AnsweredTo): void {
    if (request.timeoutMs === undefined) return;
    // What it gets is known after that.
    if (to.gives === 'probe') return;
    const scraper = scraperText(request.scraper);
    const { program } = request;
    const { address, confirmedBy } = to;
    const before = this.#known.get(scraper);
    // What confirms for itself matters only where the connection confirms.
    if (to.proxy !== undefined && confirmedBy === 'connection') this.#warnOfProxy(scraper, to.proxy);
    const version = program.version === '' ? '' : ` ${program.version}`;
    const line = `scraper '${scraper}' (${address}, ${program.name}${version}) ${givenText(request, to)}`;
    if (before?.line !== line) {
      // Anyone can send any number of names: beyond those that are remembered, an address has one line a minute.
      const isFew = this.#known.size < shownMax;
      this.#seldom.info(isFew ? `scraper ${scraper}` : `scraper at ${to.owner}`, line);
    }
    const seenAtMs = this.#clock.monotonicMs();
    // Not every answer through a proxy shows it.
    const past =
      before?.proxy !== undefined && seenAtMs - before.proxy.seenAtMs < proxyKeptMs ? before.proxy : undefined;
    const proxy = to.proxy === undefined || confirmedBy === 'none' ? past : { sign: to.proxy, seenAtMs };
    this.#known.delete(scraper);
    this.#known.set(scraper, {
      ...{ program, address, confirmedBy, line, proxy, seenAtMs },
      newestWhy: confirmedBy === 'none' ? newestWhy(request, to.gives) : undefined,
      lastAnswer: before?.lastAnswer,
    });
    this.#metrics.scraperInfo({
      scraper,
      program: program.name,
      version: program.version,
      via: proxy === undefined ? 'direct' : 'proxy',
      confirmed_by: confirmedBy,
    });
    if (this.#known.size > shownMax) this.forget(this.#known.keys().next().value!);
  }

  /** An answer was sent whole. */
  sent({ scraper: name }: Pick<Identified, 'scraper'>, lastAnswer: SentAnswer): void {
    const scraper = scraperText(name);
    const known = this.#known.get(scraper);
    if (known !== undefined) this.#known.set(scraper, { ...known, lastAnswer });
  }

  forget(scraper: string): void {
    this.#known.delete(scraper);
    this.#metrics.forgetScraperInfo(scraper);
  }

  #warnOfProxy(scraper: string, sign: string): void {
    this.#seldom.warn(
      `proxy ${scraper}`,
      `scraper '${scraper}' connects through an HTTP proxy (${sign}): what the proxy has read counts as scraped, so ` +
        'samples are lost when Prometheus restarts or is slow; let it connect to this port directly, or name its API ' +
        `with --prometheus ${scraper}=URL, and give each Prometheus behind the proxy a name of its own`,
      hourMs,
    );
  }
}

function newestWhy({ given }: Identified, gives: Gives | undefined): string {
  if (gives === 'newest') return 'a probe shows that it ignores timestamps: set honor_timestamps: true in its job';
  return given.kind === 'newest' ? given.why : 'too many scraper names or selections of agents are in use';
}

function givenText(request: Identified, { confirmedBy, gives }: AnsweredTo): string {
  const { given } = request;
  if (confirmedBy === 'none' || given.kind === 'newest') {
    return `gets the newest values without timestamps (${newestWhy(request, gives)}); reports in between are not sent`;
  }
  if (gives === 'one report') {
    return `gets one report of each agent an answer, with timestamps (a probe shows that it keeps one sample of a series); ${confirmation[confirmedBy]}`;
  }
  const what =
    given.reports === 'many' ? 'every report with timestamps' : 'one report of each agent an answer, with timestamps';
  return `gets ${what} (${given.why}); ${confirmation[confirmedBy]}`;
}

const confirmation: { readonly [by in ConfirmedBy]: string } = {
  connection: 'the next request on its connection, or an orderly end of it, confirms an answer',
  receipt: 'its own API confirms what it has stored of an answer',
};

const shownMax = 64;
const hourMs = 3_600_000;
const proxyKeptMs = 24 * hourMs;
