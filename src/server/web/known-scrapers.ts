import type { SeldomLog } from '../../runtime/log.ts';
import { scraperText } from '../delivery/scraper.ts';
import type { Identified } from './identify.ts';
import type { WebMetrics } from './metrics.ts';

/** Where an answer to a scraper goes. */
export interface AnsweredTo {
  readonly address: string;
  /** The address, of an IPv6 address its /64. */
  readonly owner: string;
  /** The sign of a proxy in between; undefined: none. */
  readonly proxy: string | undefined;
  /** What confirms its answers; none: it gets the newest values. */
  readonly confirmedBy: 'connection' | 'receipt' | 'none';
}

type ScraperInfos = Pick<WebMetrics, 'scraperInfo' | 'forgetScraperInfo'>;

/** Logs, and shows as a metric, who scrapes, what each scraper gets and why, and how its answers are confirmed. */
export class KnownScrapers {
  readonly #seldom: SeldomLog;
  readonly #metrics: ScraperInfos;
  /** The line of each, by name, in the order of their last answers. */
  readonly #lines = new Map<string, string>();
  /** Those behind a proxy. */
  readonly #proxied = new Set<string>();

  constructor({ seldom, metrics }: { readonly seldom: SeldomLog; readonly metrics: ScraperInfos }) {
    this.#seldom = seldom;
    this.#metrics = metrics;
  }

  /** Requests without the time-out header are not logged: they are a person's. */
  answered(request: Identified, to: AnsweredTo): void {
    if (request.timeoutMs === undefined) return;
    const scraper = scraperText(request.scraper);
    const { program } = request;
    if (to.proxy !== undefined && to.confirmedBy !== 'none') {
      this.#proxied.add(scraper);
      // A receipt comes from the database itself, whatever stands between.
      if (to.confirmedBy === 'connection') this.#warnOfProxy(scraper, to.proxy);
    }
    const version = program.version === '' ? '' : ` ${program.version}`;
    const line = `scraper '${scraper}' (${to.address}, ${program.name}${version}) ${givenText(request, to)}`;
    if (this.#lines.get(scraper) !== line) {
      // Anyone can send any number of names: beyond those that are remembered, an address has one line a minute.
      const isFew = this.#lines.size < scrapersMax;
      this.#seldom.info(isFew ? `scraper ${scraper}` : `scraper at ${to.owner}`, line);
    }
    this.#lines.delete(scraper);
    this.#lines.set(scraper, line);
    this.#metrics.scraperInfo({
      scraper,
      program: program.name,
      version: program.version,
      via: this.#proxied.has(scraper) ? 'proxy' : 'direct',
      confirmed_by: to.confirmedBy,
    });
    if (this.#lines.size > scrapersMax) this.#forget(this.#lines.keys().next().value!);
  }

  #forget(scraper: string): void {
    this.#lines.delete(scraper);
    this.#proxied.delete(scraper);
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

function givenText({ given }: Identified, { confirmedBy }: AnsweredTo): string {
  if (confirmedBy === 'none' || given.kind === 'newest') {
    const why = given.kind === 'newest' ? given.why : 'too many scraper names are in use';
    return `gets the newest values without timestamps (${why}); reports in between are not sent`;
  }
  const what =
    given.reports === 'many' ? 'every report with timestamps' : 'one report of each agent an answer, with timestamps';
  const how =
    confirmedBy === 'receipt'
      ? 'its own API confirms what it has stored of an answer'
      : 'the next request on its connection, or an orderly end of it, confirms an answer';
  return `gets ${what} (${given.why}); ${how}`;
}

const scrapersMax = 64;
const hourMs = 3_600_000;
