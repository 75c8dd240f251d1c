import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ScraperStatus, type StatusSources, serverStatus } from '../../src/server/status.ts';
import { connect, windowMs } from './delivery/cursors-harness.ts';
import { DeliveryHarness, memoryBytesMax } from './delivery/delivery-harness.ts';

function scrapersOf({ clock, delivery }: DeliveryHarness): readonly ScraperStatus[] {
  const serverClock = { status: { steps: 0 } };
  const sources: StatusSources = {
    clock,
    delivery,
    version: '1',
    startedAtMs: 0,
    windowMs,
    memoryBytesMax,
    serverClock,
    scrapers: { all: new Map() },
  };
  return serverStatus(sources).scrapers;
}

test('a scraper lags by the age of the oldest report that it was not given, and says how many there are', async () => {
  const harness = new DeliveryHarness();
  const agent = harness.connect('web-1');
  const other = harness.connect('web-2');
  const connection = connect();
  agent.report();
  await harness.scrape(connection, { name: 'steady' });
  await harness.scrapeAll({ name: 'away' });
  for (let report = 0; report < 3; report++) {
    await harness.clock.advance(5000);
    agent.report();
    other.report();
    await harness.scrape(connection, { name: 'steady' });
  }
  await harness.clock.advance(2000);
  const [steady, away] = scrapersOf(harness);
  assert.equal(away!.backlogReports, 6);
  // The first of them came 10 s before the last one, which is 2 s old.
  assert.equal(away!.lagSeconds, 12);
  // What its last answer gave is confirmed by its next request.
  assert.equal(steady!.backlogReports, 2);
  assert.equal(steady!.lagSeconds, 2);
  await harness.scrape(connection, { name: 'steady' });
  assert.equal(scrapersOf(harness)[0]!.lagSeconds, 0);
});
