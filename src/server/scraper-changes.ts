import type { Log, SeldomLog } from '../runtime/log.ts';
import { ageText, isoTime, plural } from '../runtime/words.ts';
import type { Loss } from './delivery/cursor.ts';
import type { CursorChange } from './delivery/cursors.ts';
import type { Keeps } from './delivery/probe.ts';
import type { ReceiptEvent, ScraperDatabase } from './delivery/receipts.ts';
import { type ScraperName, scraperText } from './delivery/scraper.ts';
import type { RollBack, ServerMetrics } from './own-metrics.ts';
import type { KnownScrapers } from './web/known-scrapers.ts';

/** Counts what happened to an answer or a scraper, and logs what a person should act on. */
export function scraperChanged(
  change: CursorChange,
  {
    metrics,
    log,
    seldom,
    scrapers,
  }: {
    readonly metrics: ServerMetrics;
    readonly log: Log;
    readonly seldom: SeldomLog;
    readonly scrapers: Pick<KnownScrapers, 'forget'>;
  },
): void {
  const text = scraperText(change.scraper.name);
  switch (change.kind) {
    case 'confirmed':
      if (change.by === 'receipt') metrics.receipt(text, 'confirmed');
      return;
    case 'lost':
      return metrics.rollback(rollBacks[change.how]);
    case 'probed':
      if (change.keeps === 'all') return;
      return log.warn(`Prometheus '${text}' ${probed[change.keeps]}`);
    case 'refused':
      return refused(text, change, { metrics, seldom });
    case 'assumed': {
      metrics.answerAssumed(text);
      const { assumed } = change;
      const newestMs = Math.max(...assumed.map(({ untilMs }) => untilMs));
      return seldom.warn(
        `assumed ${text}`,
        `scraper '${text}' has not confirmed the reports of ${plural(assumed.length, 'agent')} up to ${isoTime(newestMs)}, ` +
          'which were sent to it twice; assuming that it has them. Its connection ended before the next request each time: ' +
          'raise the idle time-out of connections, also in proxies, above the scrape interval',
      );
    }
    case 'conflict':
      metrics.conflict(text);
      return seldom.warn(
        `conflict ${text}`,
        `two connections scrape as '${text}' at once, so some samples are sent twice: give each Prometheus server or job ` +
          'a name of its own with params: {scraper: [NAME]}',
      );
    case 'another address':
      return seldom.warn(
        `address ${text} ${change.address}`,
        `scraper '${text}' connects from ${change.address}, before from ${change.before}: if these are two, give each ` +
          'a name of its own with params: {scraper: [NAME]}',
      );
    case 'address taken over':
      return log.info(
        `scraper '${text}' continues with the cursor of '${change.from}', which has been silent; give it a name with ` +
          'params: {scraper: [NAME]}',
      );
    case 'forgotten':
      if (change.isLast) scrapers.forget(text);
      return metrics.forgetScraper(text, change.selection, change.isLast);
  }
}

const probed: { readonly [keeps in Exclude<Keeps, 'all'>]: string } = {
  one:
    'keeps one sample of a series from an answer, as a probe shows: it gets one report of each agent an answer; does it remove ' +
    'duplicates?',
  none: 'ignores the timestamps of samples, as a probe shows: it gets the newest values only; set honor_timestamps: true in its job',
};

/** An answer was read, and its receipt says that it was not stored. */
function refused(
  scraper: string,
  change: CursorChange & { readonly kind: 'refused' },
  { metrics, seldom }: { readonly metrics: ServerMetrics; readonly seldom: SeldomLog },
): void {
  metrics.receipt(scraper, 'refused');
  const { number, samples, why, blocked } = change;
  const size = plural(samples, 'sample');
  const text =
    why === undefined
      ? `Prometheus '${scraper}' has not stored answer ${number} of ${size}, and does not say why (another program may scrape under this name)`
      : `Prometheus '${scraper}' read answer ${number} of ${size} and did not store it: ${why}`;
  if (blocked === undefined) return seldom.warn(`refused ${scraper}`, `${text}; ${nextText(change)}`);
  seldom.warn(
    `refused ${scraper} ${blocked}`,
    `${text}; it had nothing but '${blocked}', which waits from now on and is tried again every few minutes: ` +
      'raise that limit of its job, or change what the agent reports, or its labels',
    hourMs,
  );
}

function nextText({ samples, nextSamplesMax, why }: CursorChange & { readonly kind: 'refused' }): string {
  if (samples === 0) return "it had sysmon_agent_up and the server's own metrics alone";
  if (why === undefined && nextSamplesMax >= samples) return 'giving it again';
  const parts = nextSamplesMax < samples ? `parts of at most ${plural(nextSamplesMax, 'sample')}` : 'parts, by agents';
  return `giving it again in ${parts}`;
}

const hourMs = 3_600_000;

/** A database was asked for receipts. While it does not answer: a line at the second time, after 10 min, then each hour. */
export function receiptQuestion(
  name: ScraperName,
  event: ReceiptEvent,
  {
    metrics,
    log,
    databases,
  }: { readonly metrics: ServerMetrics; readonly log: Log; readonly databases: ReadonlyMap<string, ScraperDatabase> },
): void {
  const scraper = scraperText(name);
  const url = databases.get(scraper)?.url ?? '';
  if (event.kind === 'answered') {
    if (event.wasLogged) log.info(`Prometheus '${scraper}' at ${url} answers again`);
    return;
  }
  metrics.receipt(scraper, 'unanswered');
  if (!event.isDue) return;
  const since = event.forMs < 60_000 ? '' : ` for ${ageText(event.forMs)}`;
  log.warn(
    `Prometheus '${scraper}' at ${url} does not say${since} which answers it has stored: ${event.why}; nothing that it scrapes is ` +
      'confirmed meanwhile, and agents keep their reports',
  );
}

const rollBacks: { readonly [how in Loss]: RollBack } = {
  aborted: 'aborted',
  cut: 'unconfirmed',
  'at once': 'unconfirmed',
  'timed out': 'unconfirmed',
  'at rest': 'unconfirmed',
  restart: 'restart',
  clock: 'clock',
  refused: 'refused',
};
