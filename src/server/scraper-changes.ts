import type { Log, SeldomLog } from '../runtime/log.ts';
import type { Loss } from './delivery/cursor.ts';
import type { CursorChange } from './delivery/cursors.ts';
import type { RollBack, ServerMetrics } from './own-metrics.ts';
import { scraperText } from './web/identify.ts';

/** Counts what has become of an answer or of a scraper, and says it where a person should do something. */
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
        `what scraper '${text}' was given of ${assumed.length} agents up to ${new Date(newestMs).toISOString()} counts as read, ` +
          'although no answer with it was confirmed: it was given twice, and each time the connection ended before the ' +
          'next request; let connections rest for longer than the scrape interval, in proxies between as well',
      );
    }
    case 'conflict':
      metrics.conflict(text);
      return seldom.warn(
        `conflict ${text}`,
        `two connections scrape as '${text}' at once; each is given everything, some samples come twice: ` +
          'give each Prometheus or job a name of its own with ?scraper=NAME (params: {scraper: [NAME]})',
      );
    case 'another address':
      return seldom.warn(
        `address ${text} ${change.address}`,
        `scraper '${text}' comes from ${change.address}, and came from ${change.before} before: ` +
          'if both are there, give each a name of its own with ?scraper=NAME',
      );
    case 'address taken over':
      return log.info(
        `scraper ${text} goes on where ${change.from} had stopped, which has been silent: give it a name with ?scraper=NAME`,
      );
    case 'forgotten':
      return metrics.forgetScraper(text, change.selection);
  }
}

const rollBacks: { readonly [how in Loss]: RollBack } = {
  aborted: 'aborted',
  'at once': 'unconfirmed',
  'at rest': 'unconfirmed',
  restart: 'restart',
  clock: 'clock',
  refused: 'refused',
};
