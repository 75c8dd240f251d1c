import type { SeldomLog } from '../../runtime/log.ts';
import { type Identified, scraperText } from './identify.ts';
import type { WebMetrics } from './metrics.ts';

/** Where an answer to a scraper goes. */
export interface AnsweredTo {
  readonly address: string;
  /** Whose address it is: an IPv6 address counts as its /64. */
  readonly owner: string;
  /** What says that a proxy stands between; undefined: nothing. */
  readonly proxy: string | undefined;
  /** It is given reports, each once. */
  readonly isStateful: boolean;
}

/** Says in the log and in a metric who scrapes, what each is given and why, and how its answers are confirmed. */
export class KnownScrapers {
  readonly #seldom: SeldomLog;
  readonly #metrics: WebMetrics;
  /** The line of each, by name; the one that was answered longest ago is the first. */
  readonly #lines = new Map<string, string>();
  /** Those behind a proxy. */
  readonly #proxied = new Set<string>();

  constructor({ seldom, metrics }: { readonly seldom: SeldomLog; readonly metrics: WebMetrics }) {
    this.#seldom = seldom;
    this.#metrics = metrics;
  }

  /** Of requests without the time-out header nothing is said: those are people who look. */
  answered(request: Identified, to: AnsweredTo): void {
    if (request.timeoutMs === undefined) return;
    const scraper = scraperText(request.scraper);
    const { program } = request;
    if (to.proxy !== undefined && to.isStateful) this.#warnOfProxy(scraper, to.proxy);
    const version = program.version === '' ? '' : ` ${program.version}`;
    const line = `scraper '${scraper}' (${to.address}, ${program.name}${version}) ${givenText(request, to)}`;
    if (this.#lines.get(scraper) !== line) {
      // Anybody can make up names: when more have come than are remembered, an address has one line a minute.
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
      confirmed_by: to.isStateful ? 'connection' : 'none',
    });
    if (this.#lines.size > scrapersMax) this.#forget(this.#lines.keys().next().value!);
  }

  #forget(scraper: string): void {
    this.#lines.delete(scraper);
    this.#proxied.delete(scraper);
    this.#metrics.forgetScraperInfo(scraper);
  }

  #warnOfProxy(scraper: string, sign: string): void {
    this.#proxied.add(scraper);
    this.#seldom.warn(
      `proxy ${scraper}`,
      `scraper '${scraper}' comes through an HTTP proxy (${sign}): what the proxy has read counts as scraped, so that ` +
        'samples are lost when Prometheus is restarted or slow; let it reach this port directly',
      hourMs,
    );
  }
}

function givenText({ given }: Identified, { isStateful }: AnsweredTo): string {
  if (!isStateful || given.kind === 'newest') {
    const why = given.kind === 'newest' ? given.why : 'too many scraper names are in use';
    return `gets the newest values without timestamps (${why}); what it misses is not given again`;
  }
  const what =
    given.reports === 'many' ? 'every report with timestamps' : 'one report of each agent an answer, with timestamps';
  return `gets ${what} (${given.why}); an answer is confirmed by the next request or an orderly end of its connection`;
}

const scrapersMax = 64;
const hourMs = 3_600_000;
