import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ScraperStatus, type StatusSources, serverStatus } from '../../src/server/status.ts';
import { VirtualDatabase } from '../support/virtual-database.ts';
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

test('what is wrong with a scraper is said, with the remedy', async () => {
  const harness = new DeliveryHarness();
  const database = new VirtualDatabase(harness.clock);
  database.answerMs = 0;
  harness.databases.set('p', database);
  harness.restart();
  const problems = () => scrapersOf(harness).flatMap((each) => each.problems);
  const scrape = async (isStored: boolean) => {
    const scrape = await harness.open(connect());
    scrape.finish();
    if (isStored) database.store(scrape.number, scrape.probeTimesMs);
    await harness.clock.advance(1000);
  };
  await scrape(true);
  assert.deepEqual(problems(), []);
  assert.equal(scrapersOf(harness)[0]!.confirmedBy, 'receipt');
  database.isDown = true;
  await scrape(false);
  assert.deepEqual(problems(), [
    'its Prometheus at http://192.0.2.9:9090 has not answered for 1 s (connect ECONNREFUSED): nothing is confirmed',
  ]);
  database.isDown = false;
  database.lastErrors.set('', 'sample limit exceeded');
  await scrape(false);
  await scrape(true);
  assert.match(
    problems()[0]!,
    /^1 s ago it did not store answer \d+: sample limit exceeded; it is given at most \d+ samples at once$/,
  );
  database.lastErrors.clear();
  for (let missing = 0; missing < 6; missing++) await scrape(false);
  assert.ok(
    problems().includes(
      'its Prometheus at http://192.0.2.9:9090 has no sysmon_server_answer of its last answers: is it the one that scrapes, and does it drop that series?',
    ),
    problems().join('\n'),
  );
  harness.delivery.stop();
});

test('a scraper is behind by more than its last answer, which its next scrape confirms', async () => {
  const harness = new DeliveryHarness();
  const agent = harness.connect('web-1');
  const connection = connect();
  for (let scrape = 0; scrape < 4; scrape++) {
    agent.report();
    await harness.scrape(connection, { name: 'steady' });
    await harness.clock.advance(5000);
  }
  assert.equal(scrapersOf(harness)[0]!.behind, false);
  await harness.clock.advance(14_000);
  assert.equal(scrapersOf(harness)[0]!.behind, false, 'two intervals and 10 s');
  await harness.clock.advance(2000);
  assert.equal(scrapersOf(harness)[0]!.behind, true);
});
