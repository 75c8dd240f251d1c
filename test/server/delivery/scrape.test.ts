import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seriesValue } from '../../../src/model/family.ts';
import { takeNewest } from '../../../src/server/delivery/scrape.ts';
import { connect, minuteMs, timeoutMs, windowMs } from './cursors-harness.ts';
import { DeliveryHarness, timesOf } from './delivery-harness.ts';
import { testSchema } from './report-maker.ts';

test('rounds of one report an agent, so that all of them come back together', async () => {
  const world = new DeliveryHarness();
  const nowMs = world.clock.nowMs();
  for (const [name, reports] of [
    ['a', 4],
    ['b', 2],
    ['c', 4],
  ] as const) {
    const agent = world.connect(name);
    for (let report = 0; report < reports; report++) agent.report(nowMs - 100 + report);
  }
  const counts = async (samplesMax: number) => {
    const { taken } = await world.open(connect(), { name: `p${samplesMax}`, samplesMax });
    assert.equal(taken.samples + taken.backlogReports, 10);
    return Object.values(timesOf(taken)).map((times) => times.length);
  };
  assert.deepEqual(await counts(0), [1, 1, 1]);
  assert.deepEqual(await counts(4), [2, 1, 1]);
  assert.deepEqual(await counts(7), [3, 2, 2]);
  assert.deepEqual(await counts(9), [4, 2, 3]);
  assert.deepEqual(await counts(10), [4, 2, 4]);
  assert.deepEqual(await counts(999), [4, 2, 4]);
});

test('what has come since the last scrape is counted, whether it fits or has to wait', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.maker.schema = testSchema(100);
  const values = Array.from({ length: 100 }, () => 1);
  const report = () =>
    world.delivery.store.receive(agent.record, {
      ...agent.maker.make(world.clock.nowMs(), values, { key: true }),
      follows: false,
    });
  for (let before = 0; before < 10; before++) {
    report();
    await world.clock.advance(5000);
  }
  const connection = connect();
  const first = await world.open(connection, { samplesMax: 100 });
  assert.equal(first.taken.arrivedSamples, 0, 'nobody knows since when');
  first.scrape.finish(first.taken);
  for (let since = 0; since < 3; since++) {
    await world.clock.advance(5000);
    report();
  }
  const second = await world.open(connection, { samplesMax: 100 });
  assert.equal(second.taken.arrivedSamples, 300);
  assert.equal(second.taken.backlogReports, 11);
});

test('a fleet that makes more than the default for a scrape is caught up with', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('big');
  const series = 60_000;
  agent.maker.schema = testSchema(series);
  const values = Array.from({ length: series }, () => 0);
  const connection = connect();
  const backlogs: number[] = [];
  // Ten reports of 60 000 series come between two scrapes: twice of what a scrape may carry at first.
  for (let scrape = 0; scrape < 6; scrape++) {
    for (let report = 0; report < 10; report++) {
      await world.clock.advance(500);
      const made = agent.maker.make(world.clock.nowMs(), values, { key: true });
      world.delivery.store.receive(agent.record, { ...made, follows: false });
    }
    const { scrape: open, taken } = await world.open(connection);
    open.finish(taken);
    backlogs.push(taken.backlogReports);
  }
  assert.deepEqual(backlogs, [5, 10, 10, 0, 0, 0]);
});

test('the newest again is none that would be too old when it arrives', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const nowMs = world.clock.nowMs();
  for (const name of ['p', 'q']) await world.scrapeAll({ name });
  // Up, since something comes from it: but only what lay in its spool for long.
  agent.report(nowMs - windowMs + timeoutMs + 10_000);
  const old = await world.open(connect(), { name: 'p' });
  assert.deepEqual(old.taken.batches, []);
  assert.equal(old.taken.skippedReports, 1);
  agent.report(nowMs - windowMs + timeoutMs + 10_001);
  const connection = connect();
  for (let scrape = 0; scrape < 2; scrape++) {
    const { scrape: open, taken } = await world.open(connection, { name: 'q' });
    assert.equal(taken.batches.length, 1, `scrape ${scrape}`);
    open.finish(taken);
  }
});

test('a report of a clock that is a little ahead waits until its time has come', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const aheadMs = agent.report(world.clock.nowMs() + 9000);
  const connection = connect();
  assert.deepEqual(await world.scrape(connection), {});
  assert.deepEqual(takeNewest(world, [agent.record]), []);
  await world.clock.advance(9000);
  assert.deepEqual(await world.scrape(connection), { a: [aheadMs] });
  assert.equal(takeNewest(world, [agent.record]).length, 1);
});

test('the newest values are of the agents that are up, and belong to the reader', async () => {
  const world = new DeliveryHarness();
  const [up, down] = [world.connect('up'), world.connect('down')];
  down.report();
  await world.clock.advance(minuteMs);
  up.report();
  const [batch, ...others] = takeNewest(world, [up.record, down.record]);
  assert.equal(others.length, 0);
  batch!.runs[0]!.reports[0]!.sums.fill(99);
  const again = takeNewest(world, [up.record])[0]!.runs[0]!.reports[0]!;
  assert.equal(seriesValue(again.sums[0]!, 1), 0);
});

test('while a large scrape is put together the event loop turns', async () => {
  const world = new DeliveryHarness();
  let turns = 0;
  for (const name of ['a', 'b', 'c']) {
    const agent = world.connect(name);
    agent.maker.schema = testSchema(60_000);
    const values = Array.from({ length: 60_000 }, () => 1);
    world.delivery.store.receive(agent.record, agent.maker.make(world.clock.nowMs(), values));
  }
  world.onTurn = () => turns++;
  await world.open(connect());
  assert.equal(turns, 1);
});

test('what comes from an outage while a scrape is put together does not go out before what is older', async () => {
  const world = new DeliveryHarness();
  const large = ['a', 'b'].map((name) => world.connect(name));
  const back = world.connect('c');
  const values = Array.from({ length: 60_000 }, () => 1);
  for (const agent of large) agent.maker.schema = testSchema(values.length);
  const reportLarge = () => {
    const nowMs = world.clock.nowMs();
    for (const { record, maker } of large) world.delivery.store.receive(record, maker.make(nowMs, values));
  };
  const connection = connect();
  reportLarge();
  const beforeMs = back.report(world.clock.nowMs() - minuteMs);
  await world.scrape(connection);

  await world.clock.advance(5000);
  reportLarge();
  const outage = [1, 2, 3].map((second) => beforeMs + second * 1000);
  let turns = 0;
  world.onTurn = () => {
    if (turns++ === 0) for (const ms of outage) back.report(ms);
  };
  const { scrape, taken } = await world.open(connection);
  assert.equal(turns, 1);
  const given = taken.batches.find(({ agent }) => agent === back.record.id);
  const times = given?.runs.flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs));
  assert.deepEqual(times, [beforeMs], 'the newest again is the newest that this scraper has had');
  scrape.finish(taken);
  assert.deepEqual((await world.scrape(connection))['c'], outage);
});

test('what a scraper may have already, and is old, comes alone; all else with the next scrape', async () => {
  const world = new DeliveryHarness();
  const [a, b] = [world.connect('a'), world.connect('b')];
  const first = [a.report(), b.report()];
  await world.clock.advance(5000);
  const second = a.report();
  const lost = connect();
  await world.scrape(lost);
  world.delivery.cursors.closed(lost);
  await world.clock.advance(2 * minuteMs);
  const later = [a.report(), b.report()];
  const connection = connect();
  const { scrape, taken } = await world.open(connection);
  assert.deepEqual(timesOf(taken), { a: [first[0], second], b: [first[1]] });
  assert.equal(taken.backlogReports, 2);
  scrape.finish(taken);
  assert.deepEqual(await world.scrape(connection), { a: [later[0]], b: [later[1]] });
});

test('what a scraper may have already comes with all else while it is young', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const first = agent.report();
  const lost = connect();
  await world.scrape(lost);
  world.delivery.cursors.closed(lost);
  await world.clock.advance(minuteMs - 1);
  const later = agent.report();
  assert.deepEqual(await world.scrape(connect()), { a: [first, later] });
});

test('an agent that is not back yet with what may have been had holds up nobody', async () => {
  const world = new DeliveryHarness();
  const [a, b] = [world.connect('a'), world.connect('b')];
  const old = a.report();
  await world.scrape(connect());
  world.restart();
  await world.clock.advance(2 * minuteMs);
  const again = b.reconnect();
  const young = again.report();
  const connection = connect();
  assert.deepEqual(await world.scrape(connection), { b: [young] });
  await world.scrape(connection);
  const back = a.reconnect();
  a.maker.seq = 0;
  back.report(old);
  const younger = again.report(young + 1);
  await world.clock.advance(1000);
  const { scrape, taken } = await world.open(connection);
  assert.deepEqual(timesOf(taken), { a: [old] });
  const ofB = taken.batches.filter(({ agent }) => agent === 'b');
  assert.deepEqual(
    ofB.flatMap(({ runs }) => runs.flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs))),
    [young],
    'b waits, and does not go stale meanwhile',
  );
  scrape.finish(taken);
  assert.deepEqual(await world.scrape(connection), { b: [younger] });
});
