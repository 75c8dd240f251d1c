import { ageText, plural } from '../../../runtime/words.ts';
import { selectionText } from '../../delivery/scraper.ts';
import type { ScraperStatus, ServerStatus } from '../../status.ts';
import type { Reply } from '../reply.ts';
import { escapeHtml, sizeText, tableHtml } from './html.ts';
import { page } from './layout.ts';

/** The page at `/scrapers`: who scrapes, and how. */
export function scrapersPage({ scrapers }: ServerStatus, nowMs: number): Reply {
  const problems = scrapers.flatMap(({ scraper, problems: texts }) =>
    texts.map((text) => `<li>${escapeHtml(scraper)}: ${escapeHtml(text)}`),
  );
  const columns = [
    ...['Scraper', 'Program', 'Address', 'Selects', 'Confirmed by'].map((title) => ({ title })),
    ...['Last scrape', 'Behind', 'Last answer', 'Took', 'Connections', 'Conflicts'].map((title) => ({
      title,
      isNumber: true,
    })),
    { title: 'Holds acknowledgements' },
  ];
  const rows = scrapers.map((scraper) => rowOf(scraper, nowMs));
  const wrong =
    problems.length === 0
      ? '<p class=calm>Nothing is wrong.</p>'
      : `<div class=wrong><ul>${problems.join('')}</ul></div>`;
  const main = `<h1>Scrapers</h1>
<p id=live class=soft role=status></p>
<div id=scrapers>${scrapers.length === 0 ? '<p>No Prometheus has scraped yet. Until one does, reports are acknowledged as they arrive.</p>' : `${wrong}${tableHtml('Scrapers', columns, rows)}`}</div>
`;
  return page({ title: 'sysmon: scrapers', path: '/scrapers', main, scripts: ['scrapers.js'] });
}

function rowOf(scraper: ScraperStatus, nowMs: number): string[] {
  const { lastAnswer } = scraper;
  return [
    escapeHtml(scraper.scraper),
    escapeHtml(`${scraper.program || 'not seen since the start'} ${scraper.version}`.trim()),
    escapeHtml(scraper.address),
    escapeHtml(selectionText(scraper.selection) || 'all agents'),
    confirmations[scraper.confirmedBy],
    `${ageText(nowMs - Date.parse(scraper.lastScrapeAt))} ago`,
    scraper.confirmedBy === 'none'
      ? '–'
      : scraper.behind
        ? `<span class=warn>${ageText(scraper.lagSeconds * 1000)}, ${plural(scraper.backlogReports, 'report')}</span>`
        : 'no',
    lastAnswer === undefined
      ? '–'
      : `${lastAnswer.samples === undefined ? 'newest values' : plural(lastAnswer.samples, 'sample')}, ${sizeText(lastAnswer.bytes)}`,
    lastAnswer === undefined ? '–' : `${Math.round(lastAnswer.seconds * 1000)} ms`,
    String(scraper.connections),
    String(scraper.conflicts),
    scraper.known ? 'yes' : 'no',
  ];
}

const confirmations: { readonly [by in ScraperStatus['confirmedBy']]: string } = {
  connection: 'its connection',
  receipt: 'its database (receipt)',
  none: 'nothing: newest values only',
};
