import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentsStatus, type ScraperStatus, type StatusSources, serverStatus } from '../../src/server/status.ts';
import type { KnownScraper } from '../../src/server/web/known-scrapers.ts';
import { VirtualDatabase } from '../support/virtual-database.ts';
import { connect, windowMs } from './delivery/cursors-harness.ts';
import { DeliveryHarness, memoryBytesMax } from './delivery/delivery-harness.ts';
import { testSchema } from './delivery/report-maker.ts';

function sourcesOf(
  { clock, delivery }: DeliveryHarness,
  known: ReadonlyMap<string, KnownScraper> = new Map(),
): StatusSources {
  return {
    ...{ clock, delivery, version: '1', startedAtMs: 0, windowMs, memoryBytesMax },
    ...{ serverClock: { status: { steps: 0 } }, scrapers: { all: known } },
  };
}

function scrapersOf(harness: DeliveryHarness, known?: ReadonlyMap<string, KnownScraper>): readonly ScraperStatus[] {
  return serverStatus(sourcesOf(harness, known)).scrapers;
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

test('that an agent sends late is no lag of the scraper that has all at once', async () => {
  const harness = new DeliveryHarness();
  const late = harness.connect('web-1');
  const connection = connect();
  for (let scrape = 0; scrape < 8; scrape++) {
    late.report(harness.clock.nowMs() - 1_000_000 + 40_000 * scrape);
    await harness.scrape(connection, { name: 'steady' });
    await harness.clock.advance(4000);
  }
  const [steady] = scrapersOf(harness);
  assert.deepEqual([steady!.lagSeconds, steady!.behind, steady!.problems], [4, false, []]);
  assert.equal(steady!.backlogReports, 1);
  // What it has not fetched for a while is: from when it came on.
  for (let report = 0; report < 10; report++) {
    late.report(harness.clock.nowMs() - 500_000 + 1000 * report);
    await harness.clock.advance(10_000);
  }
  assert.equal(scrapersOf(harness)[0]!.lagSeconds, 104);
});

test('how many reports are in the spool of an agent, by what is newer, a ping or a report', async () => {
  const harness = new DeliveryHarness();
  const agent = harness.connect('web-1');
  const nowMs = harness.clock.nowMs();
  const spool = () => {
    const { spoolReports, spoolReportsAt } = agentsStatus(sourcesOf(harness))[0]!;
    return [spoolReports, spoolReportsAt && Date.parse(spoolReportsAt) - nowMs];
  };
  assert.deepEqual(spool(), [undefined, undefined]);
  // Of another program than sysmon-agent.
  agent.report(nowMs - 90_000);
  assert.deepEqual(spool(), [undefined, undefined]);
  agent.record.pinged({ spoolReports: 300, droppedReports: 0 }, nowMs - 60_000);
  assert.deepEqual(spool(), [300, -60_000]);
  agent.maker.schema = testSchema(1, 'sysmon_agent_spool_reports');
  agent.maker.breakChain();
  const times = [nowMs - 70_000, nowMs - 30_000];
  agent.report(times[0]);
  assert.deepEqual(spool(), [300, -60_000], 'the report is older than the ping');
  agent.report(times[1]);
  assert.deepEqual(spool(), [2, -30_000]);
  agent.record.pinged({ spoolReports: 0, droppedReports: 0 }, nowMs);
  assert.deepEqual(spool(), [0, 0]);
});

test('a scraper that is late, away, behind a proxy, or under a name that another has; one that is well is none of these', async () => {
  const harness = new DeliveryHarness();
  const agent = harness.connect('web-1');
  const steady = connect();
  const problems = (known?: Partial<KnownScraper>) => {
    const program = { name: 'Prometheus', version: '3.5.0' };
    const each: KnownScraper = {
      ...{ program, address: '192.0.2.1', confirmedBy: 'connection', newestWhy: undefined, proxy: undefined },
      ...{ seenAtMs: harness.clock.monotonicMs(), line: '', lastAnswer: undefined, ...known },
    };
    return scrapersOf(harness, new Map([['p', each]])).flatMap((scraper) => scraper.problems);
  };
  for (let scrape = 0; scrape < 4; scrape++) {
    agent.report();
    await harness.scrape(steady);
    await harness.clock.advance(5000);
  }
  assert.deepEqual(problems(), []);
  const proxy = { sign: 'Via: 1.1 nginx', seenAtMs: harness.clock.monotonicMs() - 3000 };
  assert.deepEqual(problems({ proxy }), [
    'an HTTP proxy is in between (Via: 1.1 nginx, the last time 3 s ago), whose reading counts as scraped: connect directly, or use --prometheus',
  ]);
  assert.deepEqual(problems({ proxy: { ...proxy, seenAtMs: proxy.seenAtMs - 24 * 3_600_000 } }), []);
  assert.deepEqual(problems({ newestWhy: 'it ignores timestamps' }), [
    'it gets the newest values only: it ignores timestamps',
  ]);

  // It is given one report at each scrape, and there are two.
  for (let scrape = 0; scrape < 80; scrape++) {
    agent.report();
    await harness.clock.advance(2500);
    agent.report();
    await harness.scrape(steady, { reportsMax: 1 });
    await harness.clock.advance(2500);
  }
  assert.match(problems().join(), /^the oldest report that it has not had came \d+ (?:s|min) ago: it catches up/);
  for (let scrape = 0; scrape < 2; scrape++) await harness.scrape(steady);
  assert.deepEqual(problems(), []);

  await harness.clock.advance(61_000);
  assert.match(
    problems().join(),
    /^it has not scraped for 61 s, and agents keep reports for it; if it is gone for good: sysmon-server forget-scraper p$/,
  );

  const other = connect();
  for (let scrape = 0; scrape < 3; scrape++) {
    for (const connection of [steady, other]) await harness.scrape(connection);
    await harness.clock.advance(5000);
  }
  const conflict =
    /^two connections scraped under its name at once, the last time (.+) ago: give each Prometheus a scraper=NAME of its own$/m;
  assert.equal(conflict.exec(problems().join('\n'))?.[1], '5 s');
  // One of the two has gone. Of what was, a day later nothing is said.
  const alone = async (hours: number) => {
    for (let hour = 0; hour < hours; hour++) {
      await harness.clock.advance(3_600_000);
      agent.report();
      await harness.scrape(steady);
    }
    return problems().join('\n');
  };
  assert.equal(conflict.exec(await alone(20))?.[1], '20 h');
  assert.equal(await alone(4), '');
  assert.equal(scrapersOf(harness)[0]!.conflicts, 1);
});

test('that a scraper does not confirm is said for a day after the last time', async () => {
  const harness = new DeliveryHarness();
  const agent = harness.connect('web-1');
  const unconfirmed = async () => {
    const connection = connect();
    agent.report();
    await harness.scrape(connection);
    await harness.clock.advance(60_000);
    await harness.end(connection, 'reset');
  };
  for (let scrape = 0; scrape < 3; scrape++) await unconfirmed();
  const problems = () => scrapersOf(harness).flatMap((each) => each.problems);
  assert.deepEqual(problems(), [
    '1 time it did not confirm what was sent twice, the last 60 s ago: raise the idle time-outs of its connections, or use --prometheus',
  ]);
  const steady = connect();
  for (let hour = 0; hour < 24; hour++) {
    agent.report();
    await harness.scrape(steady);
    await harness.clock.advance(3_600_000);
  }
  assert.deepEqual(problems(), []);
});
