import assert from 'node:assert/strict';
import { test } from 'node:test';
import { onceAMinute } from '../../../src/runtime/log.ts';
import { type Identified, identify } from '../../../src/server/web/identify.ts';
import { KnownScrapers } from '../../../src/server/web/known-scrapers.ts';
import type { ScraperInfo } from '../../../src/server/web/metrics.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { MemoryLog } from '../../support/memory-log.ts';

const request = identify({
  ...{ method: 'GET', query: 'scraper=p', address: '192.0.2.1', httpVersion: '1.1' },
  headers: { 'user-agent': 'Prometheus/3.5.0', 'x-prometheus-scrape-timeout-seconds': '5' },
}) as Identified;
const to = { address: '192.0.2.1', owner: '192.0.2.1' };

test('a proxy is no danger where receipts confirm: it is shown, and not warned of', () => {
  const log = new MemoryLog();
  const infos: ScraperInfo[] = [];
  const metrics = { scraperInfo: (info: ScraperInfo) => infos.push(info), forgetScraperInfo: () => {} };
  const clock = new HandClock();
  const known = new KnownScrapers({ clock, seldom: onceAMinute(log, clock), metrics });
  known.answered(request, { ...to, proxy: 'a header Via', confirmedBy: 'receipt' });
  assert.deepEqual(log.lines, [
    "info: scraper 'p' (192.0.2.1, Prometheus 3.5.0) gets every report with timestamps (it keeps every sample with its " +
      'timestamp); its own API confirms what it has stored of an answer',
  ]);
  known.answered(request, { ...to, proxy: 'a header Via', confirmedBy: 'connection' });
  assert.match(log.lines[1]!, /^warn: scraper 'p' connects through an HTTP proxy \(a header Via\)/);
  const info = { scraper: 'p', program: 'Prometheus', version: '3.5.0', via: 'proxy' };
  assert.deepEqual(infos, [
    { ...info, confirmed_by: 'receipt' },
    { ...info, confirmed_by: 'connection' },
  ]);
});

test('a day after the last sign of a proxy there is none', () => {
  const infos: ScraperInfo[] = [];
  const metrics = { scraperInfo: (info: ScraperInfo) => infos.push(info), forgetScraperInfo: () => {} };
  const clock = new HandClock();
  const known = new KnownScrapers({ clock, seldom: onceAMinute(new MemoryLog(), clock), metrics });
  const answered = (proxy: string | undefined) => {
    known.answered(request, { ...to, proxy, confirmedBy: 'connection' });
    return [infos.at(-1)!.via, known.all.get('p')!.proxy?.seenAtMs];
  };
  const startMs = clock.monotonicMs();
  assert.deepEqual(answered(undefined), ['direct', undefined]);
  assert.deepEqual(answered('a header Via'), ['proxy', startMs]);
  clock.pass(12 * 3_600_000);
  assert.deepEqual(answered(undefined), ['proxy', startMs], 'not every answer through it shows it');
  assert.deepEqual(answered('a header Via'), ['proxy', startMs + 12 * 3_600_000]);
  clock.pass(24 * 3_600_000 - 1);
  assert.equal(answered(undefined)[0], 'proxy');
  clock.pass(1);
  assert.deepEqual(answered(undefined), ['direct', undefined]);
});
