import type { Log, SeldomLog } from '../runtime/log.ts';
import { isoTime, plural } from '../runtime/words.ts';
import type { Loss } from './delivery/cursor.ts';
import type { CursorChange } from './delivery/cursors.ts';
import type { RollBack, ServerMetrics } from './own-metrics.ts';
import { scraperText } from './web/identify.ts';

/** Counts what happened to an answer or a scraper, and logs what a person should act on. */
export function scraperChanged(
  change: CursorChange,
  { metrics, log, seldom }: { readonly metrics: ServerMetrics; readonly log: Log; readonly seldom: SeldomLog },
): void {
  const text = scraperText(change.scraper.name);
  switch (change.kind) {
    case 'confirmed':
      return;
    case 'lost':
      return metrics.rollback(rollBacks[change.how]);
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
      return metrics.forgetScraper(text, change.selection);
  }
}

const rollBacks: { readonly [how in Loss]: RollBack } = {
  aborted: 'aborted',
  cut: 'unconfirmed',
  'at once': 'unconfirmed',
  'at rest': 'unconfirmed',
  restart: 'restart',
  clock: 'clock',
  refused: 'refused',
};
