import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seriesValue } from '../../../src/model/family.ts';
import type { AgentRecord } from '../../../src/server/delivery/agent-record.ts';
import { Cursor, decodedBytesMaxDefault } from '../../../src/server/delivery/cursor.ts';
import { planAnswer, takeNewest } from '../../../src/server/delivery/scrape.ts';
import { Exposition } from '../../../src/server/exposition/exposition.ts';
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
    const scrape = await world.open(connect(), { name: `p${samplesMax}`, samplesMax });
    assert.equal(scrape.samples + scrape.backlogReports, 10);
    return Object.values(timesOf(scrape)).map((times) => times.length);
  };
  assert.deepEqual(await counts(1), [1]);
  assert.deepEqual(await counts(3), [1, 1, 1]);
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
    world.delivery.store.receive(agent.record.host, {
      ...agent.maker.make(world.clock.nowMs(), values, { key: true }),
      follows: false,
    });
  for (let before = 0; before < 10; before++) {
    report();
    await world.clock.advance(5000);
  }
  const lastScrapeMs = world.clock.nowMs();
  for (let since = 0; since < 3; since++) {
    await world.clock.advance(5000);
    report();
  }
  const bounds = { samplesMax: 100, firstSamplesMax: 100, reportsMax: Infinity, ...unbounded };
  const nowMs = world.clock.nowMs();
  const times = { nowMs, monotonicMs: world.clock.monotonicMs(), notBeforeMs: -Infinity, lastScrapeMs };
  const plan = planAnswer([agent.record.host], new Cursor('', '', 0), bounds, times);
  assert.equal(plan.arrived.samples, 300);
  assert.equal(plan.backlogReports, 12);
  const first = planAnswer([agent.record.host], new Cursor('', '', 0), bounds, { ...times, lastScrapeMs: nowMs });
  assert.equal(first.arrived.samples, 0, 'nobody knows since when');
});

const unbounded = { bytesMax: Infinity, decodedBytesMax: Infinity };

test('only what does not fit waits, and comes first with the next scrape', async () => {
  const world = new DeliveryHarness();
  const sizes = { a: 40, b: 70, c: 40, d: 20 };
  const report = async () => {
    await world.clock.advance(1000);
    for (const [name, size] of Object.entries(sizes)) {
      const { record, maker } = agents.get(name)!;
      const made = maker.make(
        world.clock.nowMs(),
        Array.from({ length: size }, () => 1),
        { key: true },
      );
      world.delivery.store.receive(record.host, { ...made, follows: false });
    }
  };
  const agents = new Map(Object.keys(sizes).map((name) => [name, world.connect(name)]));
  for (const [name, { maker }] of agents) maker.schema = testSchema(sizes[name as keyof typeof sizes]);
  const connection = connect();
  const given: string[] = [];
  for (let scrape = 0; scrape < 4; scrape++) {
    await report();
    const times = await world.scrape(connection, { samplesMax: 110 });
    given.push(
      Object.entries(times)
        .map(([name, { length }]) => `${name}${length}`)
        .join(' '),
    );
  }
  // A share is 27 samples: d has all of its own each time, and the others what it leaves, in turn.
  assert.deepEqual(given, ['a1 c1 d1', 'b1 d1', 'a1 c1 d1', 'b1 d1']);
});

test('a maximum is one: a report that is larger waits, and is named', async () => {
  const world = new DeliveryHarness();
  const [small, large] = [world.connect('small'), world.connect('large')];
  large.maker.schema = testSchema(100);
  small.report();
  world.delivery.store.receive(
    large.record.host,
    large.maker.make(
      world.clock.nowMs(),
      Array.from({ length: 100 }, () => 1),
    ),
  );
  for (const bounds of [{ samplesMax: 99 }, { bytesMax: 4000 }]) {
    const scrape = await world.open(connect(), { ...bounds, name: JSON.stringify(bounds) });
    assert.deepEqual(Object.keys(timesOf(scrape)), ['small']);
    assert.deepEqual(scrape.tooLarge, ['large']);
    assert.equal(scrape.backlogReports, 1);
  }
  assert.deepEqual((await world.open(connect(), { samplesMax: 101 })).tooLarge, []);
});

test('a bound in bytes holds for the text', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.maker.schema = testSchema(50);
  for (let report = 0; report < 40; report++) {
    await world.clock.advance(1000);
    const values = Array.from({ length: 50 }, (_, series) => series / 7);
    const made = agent.maker.make(world.clock.nowMs(), values, { key: true });
    world.delivery.store.receive(agent.record.host, { ...made, follows: false });
  }
  const exposition = new Exposition({ onDisagreement: () => {} });
  for (const bytesMax of [10_000, 50_000, 100_000]) {
    const { batches } = await world.open(connect(), { bytesMax, name: `${bytesMax}` });
    let bytes = 0;
    for (const slice of exposition.render(batches, { timestamps: true })) bytes += slice.length;
    assert.ok(bytes <= bytesMax && bytes > bytesMax / 2, `${bytes} of ${bytesMax} bytes`);
  }
});

test('a bound in reports of each agent', async () => {
  const world = new DeliveryHarness();
  const [a, b] = [world.connect('a'), world.connect('b')];
  const nowMs = world.clock.nowMs();
  for (const agent of [a, b]) for (let ms = -3; ms < 0; ms++) agent.report(nowMs + ms);
  const connection = connect();
  assert.deepEqual(await world.scrape(connection, { reportsMax: 1 }), { a: [nowMs - 3], b: [nowMs - 3] });
  assert.deepEqual(await world.scrape(connection, { reportsMax: 1 }), { a: [nowMs - 2], b: [nowMs - 2] });
});

test('absent series take no room', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.maker.schema = testSchema(100);
  const nowMs = world.clock.nowMs();
  for (let ms = -10; ms < 0; ms++) {
    const values = Array.from({ length: 100 }, (_, series) => (series < 5 ? 1 : undefined));
    world.delivery.store.receive(agent.record.host, agent.maker.make(nowMs + ms, values));
  }
  const scrape = await world.open(connect(), { samplesMax: 50 });
  assert.equal(scrape.samples, 50);
  assert.equal(scrape.backlogReports, 0);
});

test('what is too old to be given is counted once, whatever becomes of the answer', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  await world.scrapeAll();
  agent.report(world.clock.nowMs() - windowMs + 1);
  const scrape = await world.open(connect());
  assert.equal(scrape.skippedReports, 1);
  scrape.abort();
  assert.equal((await world.open(connect())).skippedReports, 0);
  await world.clock.advance(minuteMs);
  world.delivery.tidy();
  assert.equal(world.count('evicted age'), 1);
  assert.equal(world.count('evicted age unscraped'), 0);
});

test('a fleet that makes more than the default for a scrape is caught up with', async () => {
  const world = new DeliveryHarness();
  const series = 15_000;
  const agents = ['a', 'b', 'c', 'd'].map((name) => world.connect(name));
  for (const agent of agents) agent.maker.schema = testSchema(series);
  const values = Array.from({ length: series }, () => 0);
  const connection = connect();
  const backlogs: number[] = [];
  // Ten reports of four times 15 000 series come between two scrapes: twice of what a scrape may carry at first.
  for (let scrape = 0; scrape < 6; scrape++) {
    for (let report = 0; report < 10; report++) {
      await world.clock.advance(500);
      for (const agent of agents) {
        const made = agent.maker.make(world.clock.nowMs(), values, { key: true });
        world.delivery.store.receive(agent.record.host, { ...made, follows: false });
      }
    }
    const scrapeOpen = await world.open(connection);
    scrapeOpen.finish();
    backlogs.push(scrapeOpen.backlogReports);
  }
  assert.deepEqual(backlogs, [20, 40, 0, 0, 0, 0]);
});

test('the newest again is none that would be too old when it arrives', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const nowMs = world.clock.nowMs();
  for (const name of ['p', 'q']) await world.scrapeAll({ name });
  // Up, since something comes from it: but only what lay in its spool for long.
  agent.report(nowMs - windowMs + timeoutMs + 10_000);
  const old = await world.open(connect(), { name: 'p' });
  assert.deepEqual(old.batches, []);
  assert.equal(old.skippedReports, 1);
  agent.report(nowMs - windowMs + timeoutMs + 10_001);
  const connection = connect();
  for (let scrape = 0; scrape < 2; scrape++) {
    const open = await world.open(connection, { name: 'q' });
    assert.equal(open.batches.length, 1, `scrape ${scrape}`);
    open.finish();
  }
});

test('a report of a clock that is a little ahead waits until its time has come', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const aheadMs = agent.report(world.clock.nowMs() + 9000);
  const connection = connect();
  assert.deepEqual(await world.scrape(connection), {});
  const newest = () => takeNewest({ clock: world.clock, turn: async () => {} }, [agent.record.host]);
  assert.deepEqual(await newest(), []);
  await world.clock.advance(9000);
  assert.deepEqual(await world.scrape(connection), { a: [aheadMs] });
  assert.equal((await newest()).length, 1);
});

test('the newest values are of the agents that are up', async () => {
  const world = new DeliveryHarness();
  const [up, down] = [world.connect('up'), world.connect('down')];
  down.report();
  await world.clock.advance(minuteMs);
  up.report();
  const options = { clock: world.clock, turn: async () => {} };
  const [batch, ...others] = await takeNewest(options, [up.record.host, down.record.host]);
  assert.equal(others.length, 0);
  const newest = batch!.runs[0]!.reports[0]!;
  assert.equal(seriesValue(newest.sums[0]!, 1), 0);
});

test('while a large scrape is put together the event loop turns', async () => {
  const world = new DeliveryHarness();
  let turns = 0;
  for (const name of ['a', 'b', 'c']) {
    const agent = world.connect(name);
    agent.maker.schema = testSchema(60_000);
    const values = Array.from({ length: 60_000 }, () => 1);
    world.delivery.store.receive(agent.record.host, agent.maker.make(world.clock.nowMs(), values));
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
    for (const { record, maker } of large) world.delivery.store.receive(record.host, maker.make(nowMs, values));
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
  const scrape = await world.open(connection);
  assert.equal(turns, 1);
  const given = scrape.batches.find(({ agent }) => agent === back.record.id);
  const times = given?.runs.flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs));
  assert.deepEqual(times, [beforeMs], 'the newest again is the newest that this scraper has had');
  scrape.finish();
  assert.deepEqual((await world.scrape(connection))['c'], outage);
});

test('what a scraper may have already, and is old, comes without newer ones of its agent; nobody else waits', async () => {
  const world = new DeliveryHarness();
  const [a, b, c] = [world.connect('a'), world.connect('b'), world.connect('c')];
  const first = [a.report(), b.report()];
  await world.clock.advance(5000);
  const second = a.report();
  const lost = connect();
  await world.scrape(lost);
  await world.end(lost);
  await world.clock.advance(2 * minuteMs);
  const later = [a.report(), b.report(), c.report()];
  const connection = connect();
  const scrape = await world.open(connection);
  assert.deepEqual(timesOf(scrape), { a: [first[0], second], b: [first[1]], c: [later[2]] });
  assert.equal(scrape.backlogReports, 2);
  scrape.finish();
  assert.deepEqual(await world.scrape(connection), { a: [later[0]], b: [later[1]] });
});

test('what a scraper may have already comes with all else while it is young', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const first = agent.report();
  const lost = connect();
  await world.scrape(lost);
  await world.end(lost);
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
  assert.deepEqual(await world.scrape(connection), { a: [old], b: [younger] });
});

test('whatever the bounds, an answer keeps them, gives each agent its oldest, and in the end nobody waits', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ size: fc.integer({ min: 1, max: 30 }), reports: fc.integer({ min: 0, max: 12 }) }), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.integer({ min: 30, max: 120 }),
      fc.constantFrom(1, 3, undefined),
      async (fleet, samplesMax, reportsMax) => {
        const world = new DeliveryHarness();
        const made: Record<string, number[]> = {};
        for (const [at, { size, reports }] of fleet.entries()) {
          const agent = world.connect(`a${at}`);
          agent.maker.schema = testSchema(size);
          for (let report = 0; report < reports; report++) {
            const timeMs = world.clock.nowMs() - 1000 + report;
            const values = Array.from({ length: size }, () => 1);
            world.delivery.store.receive(agent.record.host, agent.maker.make(timeMs, values, { key: true }));
            made[`a${at}`] = [...(made[`a${at}`] ?? []), timeMs];
          }
        }
        const connection = connect();
        const got: Record<string, number[]> = {};
        const most = fleet.reduce((sum, { reports }) => sum + reports, 0);
        for (let scrape = 0; scrape <= most; scrape++) {
          const answer = await world.open(connection, {
            samplesMax,
            ...(reportsMax === undefined ? {} : { reportsMax }),
          });
          let samples = 0;
          for (const { runs } of answer.batches) {
            for (const { reports } of runs) for (const { present } of reports) samples += present.length;
          }
          assert.ok(samples <= samplesMax, `${samples} of ${samplesMax}`);
          for (const [agent, times] of Object.entries(timesOf(answer))) {
            assert.ok(times.length <= (reportsMax ?? Infinity));
            got[agent] = [...(got[agent] ?? []), ...times];
          }
          answer.finish();
          if (answer.backlogReports === 0) break;
        }
        assert.deepEqual(Object.entries(got).sort(), Object.entries(made).sort());
      },
    ),
    { numRuns: 100 },
  ));

test('an agent with more than its share waits alone: the others have all of theirs, and it is named', async () => {
  const world = new DeliveryHarness();
  const honest = Array.from({ length: 20 }, (_, at) => world.connect(`web-${at}`));
  const evil = world.connect('evil');
  evil.maker.schema = testSchema(60_000);
  const values = Array.from({ length: 60_000 }, () => 1);
  const connection = connect();
  for (let scrape = 0; scrape < 2; scrape++) {
    for (let report = 0; report < 9; report++) {
      await world.clock.advance(500);
      for (const agent of honest) agent.report();
      const made = evil.maker.make(world.clock.nowMs(), values, { key: true });
      world.delivery.store.receive(evil.record.host, { ...made, follows: false });
    }
    const answer = await world.open(connection);
    answer.finish();
    const given = timesOf(answer);
    for (const { record } of honest) assert.equal(given[record.id]?.length, 9);
    assert.ok(given['evil']!.length <= 5, `${given['evil']!.length} of its reports`);
    assert.ok(answer.samples <= 301_000, `${answer.samples}`);
  }
  checkOnlyExcess(
    world,
    evil.record,
    /^an answer has room for \d+000 of its samples \(\d+\.\d MiB, in memory \d\.\d MiB\) beside others, \d+ reports wait/,
  );
});

test('absent series take memory when they are decoded: an agent that has hardly any others waits alone, and is named', async () => {
  const world = new DeliveryHarness();
  const honest = Array.from({ length: 3 }, (_, at) => world.connect(`web-${at}`));
  const evil = world.connect('evil');
  evil.maker.schema = testSchema(20_000);
  const nowMs = world.clock.nowMs();
  for (const values of [Array(20_000).fill(undefined), Array.from({ length: 20_000 }, (_, at) => at || undefined)]) {
    for (let report = 0; report < 100; report++) {
      const timeMs = nowMs - 90_000 + evil.maker.seq * 100;
      for (const agent of honest) agent.report(timeMs);
      const made = evil.maker.make(timeMs, values.fill(undefined, 1));
      world.delivery.store.receive(evil.record.host, made);
    }
  }
  const made = { honest: 200, evil: 200 };
  const connection = connect();
  let [turns, most] = [0, 0];
  world.onTurn = () => turns++;
  const got: number[] = [];
  for (let scrape = 0; got.length < made.evil; scrape++) {
    const answer = await world.open(connection);
    const given = timesOf(answer);
    if (scrape === 0) for (const { record } of honest) assert.equal(given[record.id]?.length, made.honest);
    let bytes = 0;
    for (const { runs } of answer.batches) {
      for (const { reports } of runs)
        for (const { sums, present } of reports) bytes += sums.byteLength + present.byteLength;
    }
    most = Math.max(most, bytes);
    assert.ok(bytes <= answer.decodedBytes, `${bytes} of ${answer.decodedBytes}`);
    got.push(...(given['evil'] ?? []));
    answer.finish();
    assert.ok(scrape < 6, `${got.length} reports after ${scrape} scrapes`);
  }
  assert.ok(most > 0.9 * decodedBytesMaxDefault && most <= decodedBytesMaxDefault, `${most}`);
  assert.ok(turns >= (made.evil * 20_000) / 120_000, `${turns} turns`);
  assert.deepEqual(
    got,
    [...got].sort((a, b) => a - b),
  );
  checkOnlyExcess(
    world,
    evil.record,
    /^an answer has room for \d+ of its samples \(0\.0 MiB, in memory [78]\.\d MiB\) beside others/,
  );
});

test('a fleet of which most series are absent is caught up with', async () => {
  const world = new DeliveryHarness();
  const agents = ['a', 'b', 'c', 'd'].map((name) => world.connect(name));
  for (const agent of agents) agent.maker.schema = testSchema(15_000);
  const values = Array.from({ length: 15_000 }, (_, at) => (at === 0 ? 1 : undefined));
  const connection = connect();
  const backlogs: number[] = [];
  // 11 MB of decoded reports come between two scrapes.
  for (let scrape = 0; scrape < 5; scrape++) {
    for (let report = 0; report < 20; report++) {
      await world.clock.advance(600);
      for (const agent of agents) {
        world.delivery.store.receive(agent.record.host, agent.maker.make(world.clock.nowMs(), values));
      }
    }
    const answer = await world.open(connection);
    answer.finish();
    backlogs.push(answer.backlogReports);
  }
  assert.ok(backlogs[0]! > 10, `${backlogs}`);
  assert.deepEqual(backlogs.slice(2), [0, 0, 0], `${backlogs}`);
});

test('whoever has most of an answer that is not sent completely is named', async () => {
  const world = new DeliveryHarness();
  const [small, large] = [world.connect('small'), world.connect('large')];
  large.maker.schema = testSchema(30);
  small.report();
  const values = Array.from({ length: 30 }, () => 1);
  world.delivery.store.receive(large.record.host, large.maker.make(world.clock.nowMs(), values));
  (await world.open(connect())).abort();
  assert.deepEqual(small.record.excesses.all, []);
  const [excess] = large.record.excesses.all;
  assert.equal(excess?.text, 'most of an answer of 0.0 MiB that was not sent completely was its own');
});

test('an agent with few long lines is bounded by their bytes, and makes room for the others', async () => {
  const world = new DeliveryHarness();
  const honest = world.connect('web-1');
  const evil = world.connect('evil');
  // 4 KB a line.
  evil.maker.labels = [['site', 'x'.repeat(3900)]];
  const long = evil.reconnect();
  long.maker.schema = testSchema(4000);
  const values = Array.from({ length: 4000 }, () => 1);
  for (let report = 0; report < 20; report++) {
    honest.report(world.clock.nowMs() - 2000 + report * 100);
    const made = long.maker.make(world.clock.nowMs() - 2000 + report * 100, values, { key: true });
    world.delivery.store.receive(long.record.host, { ...made, follows: false });
  }
  const given = timesOf(await world.open(connect()));
  assert.equal(given['web-1']!.length, 20);
  assert.equal(given['evil']!.length, 4, '64 MiB of text');
});

test('one that waits for an answer that others fill gets on in the end', async () => {
  const world = new DeliveryHarness();
  const others = Array.from({ length: 10 }, (_, at) => world.connect(`web-${at}`));
  const large = world.connect('large');
  large.maker.schema = testSchema(30);
  const values = Array.from({ length: 30 }, () => 1);
  const nowMs = world.clock.nowMs();
  for (let report = 0; report < 100; report++) for (const agent of others) agent.report(nowMs - 60_000 + report * 100);
  world.delivery.store.receive(large.record.host, large.maker.make(nowMs, values));
  const connection = connect();
  let scrapes = 0;
  // The others have shares of 5, and leave 5.
  while ((await world.scrape(connection, { samplesMax: 60 }))['large'] === undefined) scrapes++;
  assert.equal(scrapes, 4);
});

/** Nobody else is beyond a budget, and this agent beyond its share of an answer. */
function checkOnlyExcess({ delivery }: DeliveryHarness, agent: AgentRecord, text: RegExp): void {
  const beyond = [...delivery.store.agents.values()].filter(({ excesses }) => excesses.all.length > 0);
  assert.deepEqual(beyond, [agent]);
  const [excess] = agent.excesses.all;
  assert.equal(excess?.budget, 'answer');
  assert.match(excess.text, text);
}
