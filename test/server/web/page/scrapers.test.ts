import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ScraperStatus, ServerStatus } from '../../../../src/server/status.ts';
import { scrapersPage } from '../../../../src/server/web/page/scrapers.ts';
import { cellsOf } from './table.ts';

const nowMs = 1_700_000_000_000;

const scraper: ScraperStatus = {
  ...{ scraper: 'prometheus', selection: '', program: 'Prometheus', version: '3.5.0', address: '192.0.2.9' },
  ...{ confirmedBy: 'connection', connections: 1, conflicts: 0, lastScrapeAt: new Date(nowMs - 3000).toISOString() },
  ...{ known: true, backlogReports: 0, lagSeconds: 0, behind: false, problems: [] },
  lastAnswer: { samples: 5000, bytes: 12_345, seconds: 0.0421 },
};

function pageOf(...scrapers: ScraperStatus[]) {
  const server: ServerStatus = {
    ...{ version: '1', startedAt: new Date(nowMs).toISOString(), agents: { known: 1, up: 1, connected: 1 } },
    ...{ windowBytes: 0, windowBytesMax: 100, windowReports: 0, windowSeconds: 1800, clock: { steps: 0 }, scrapers },
  };
  const { body } = scrapersPage(server, nowMs);
  const rows = /<tbody>\n(.*)<\/table>/s.exec(body)?.[1] ?? '';
  const cells = cellsOf(rows);
  return { body, cells };
}

test('who scrapes: name, program, address, how it is confirmed, how far it is behind, its last answer, conflicts', () => {
  const well = [
    'Prometheus 3.5.0',
    '192.0.2.9',
    'all agents',
    'its connection',
    '3 s ago',
    'no',
    '5000 samples, 12 kB',
    '42 ms',
    '1',
    '0',
    'yes',
  ];
  assert.deepEqual(pageOf(scraper).cells, [['prometheus', ...well]]);
  const { cells, body } = pageOf({
    ...{ ...scraper, scraper: '<b>', selection: 'a,b', confirmedBy: 'receipt', behind: true, lagSeconds: 600 },
    ...{ backlogReports: 120, conflicts: 2, connections: 2, problems: ['it is <slow>'] },
  });
  assert.deepEqual(
    [0, 3, 4, 6, 9, 10].map((at) => cells[0]![at]),
    ['&lt;b&gt;', 'a,b', 'its database (receipt)', '10 min, 120 reports', '2', '2'],
  );
  assert.match(body, /<li>&lt;b&gt;: it is &lt;slow&gt;/);
});

test('one that gets the newest values has no lag; without any, one line says what that means', () => {
  const { cells } = pageOf({
    ...scraper,
    confirmedBy: 'none',
    known: false,
    lastAnswer: { bytes: 900, seconds: 0.01 },
  });
  assert.deepEqual(
    [4, 6, 7, 11].map((at) => cells[0]![at]),
    ['nothing: newest values only', '–', 'newest values, 900 B', 'no'],
  );
  assert.match(pageOf(scraper).body, /<p class=calm>Nothing is wrong\.<\/p>/);
  assert.match(pageOf().body, /No Prometheus has scraped yet/);
});
