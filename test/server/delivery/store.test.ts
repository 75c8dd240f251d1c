import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { agentId } from '../../../src/model/agent-id.ts';
import { limits } from '../../../src/protocol/limits.ts';
import type { Outcome } from '../../../src/server/delivery/agent-record.ts';
import { BudgetError } from '../../../src/server/delivery/budget.ts';
import { Store, type StoreOptions } from '../../../src/server/delivery/store.ts';
import { beginOf } from '../../support/groups.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';
import { ReportMaker, testSchema, valuesOf } from './report-maker.ts';

const windowMs = 30 * 60_000;
const name = (text: string) => agentId(text)!;

interface Seen {
  readonly outcomes: Outcome[];
  readonly evicted: string[];
  received: number;
}

function makeStore(options: Partial<StoreOptions> = {}) {
  const clock = new VirtualClock();
  const seen: Seen = { outcomes: [], evicted: [], received: 0 };
  const store = new Store({
    clock,
    windowMs,
    memoryBytesMax: 64 * 1024 * 1024,
    forgetAfterMs: 24 * 3_600_000,
    unscrapedAfterMs: () => Infinity,
    scrapersWithout: () => ['p'],
    onReport: (outcome) => seen.outcomes.push(outcome),
    onEvict: (reason, unscraped) => seen.evicted.push(unscraped ? `${reason}, unscraped` : reason),
    onReceived: () => seen.received++,
    ...options,
  });
  return { clock, seen, store };
}

test('a report is stored, or not for one of four reasons; it is received unless it is too far ahead', async () => {
  const { clock, seen, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  const nowMs = clock.nowMs();
  const receive = (timeMs: number) => store.receive(agent.host, maker.make(timeMs, [1]));

  assert.equal(receive(nowMs - windowMs - 1), 'too_old');
  assert.deepEqual(agent.received, { epoch: 1, seq: 1 });
  assert.equal(receive(nowMs - windowMs), 'stored');
  assert.equal(receive(nowMs - 1), 'stored');
  assert.equal(receive(nowMs - 1), 'not_newer');
  assert.equal(receive(nowMs + limits.futureMsMax + 1), 'too_far_ahead');
  assert.deepEqual(agent.received, { epoch: 1, seq: 4 }, 'one of the clocks is wrong: it is to come again');
  maker.seq = 5;
  assert.equal(receive(nowMs + limits.futureMsMax), 'stored');
  maker.seq = 2;
  assert.equal(receive(nowMs + 1), 'duplicate');
  assert.equal(agent.host.window.reportCount, 3);
  assert.deepEqual(agent.received, { epoch: 1, seq: 6 });
  assert.deepEqual(seen.outcomes, ['too_old', 'stored', 'stored', 'not_newer', 'too_far_ahead', 'stored', 'duplicate']);
  assert.equal(seen.received, seen.outcomes.length);
  const refused = (reason: string, timeMs: number) => ({
    ...{ reason, count: 1, firstMs: timeMs, lastMs: timeMs, droppedMs: nowMs, scrapers: new Set<string>() },
  });
  assert.deepEqual(agent.drops.all, [refused('too_old', nowMs - windowMs - 1), refused('not_newer', nowMs - 1)]);
});

test('a report that meets a bug is not received, and comes again', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  agent.host.window.append = () => {
    throw new RangeError('a bug');
  };
  assert.throws(() => store.receive(agent.host, maker.make(clock.nowMs(), [1])), RangeError);
  assert.equal(agent.received, undefined);
  assert.deepEqual([...agent.epochs], []);
  assert.equal(agent.host.up(clock.monotonicMs()), false);
});

test('what was newest stays the bound when the window is empty again', async () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  const timeMs = clock.nowMs();
  store.receive(agent.host, maker.make(timeMs, [1]));
  await clock.advance(windowMs + 1);
  store.evictByAge(agent);
  assert.equal(agent.host.window.reportCount, 0);
  assert.equal(store.receive(agent.host, maker.make(timeMs, [1])), 'not_newer');
});

test('an ack names the newest report that every scraper has; a dropped one is acknowledged in its turn', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  const nowMs = clock.nowMs();
  assert.equal(agent.acknowledgeable(() => Infinity).ack, undefined);
  store.receive(agent.host, maker.make(nowMs - windowMs - 1, [0])); // 1: too old
  assert.deepEqual(agent.acknowledgeable(() => -Infinity).ack, { epoch: 1, seq: 1 });
  for (const ageMs of [30, 20, 10]) store.receive(agent.host, maker.make(nowMs - ageMs, [1])); // 2, 3, 4
  store.receive(agent.host, maker.make(nowMs - 10, [1])); // 5: not newer
  assert.equal(agent.acknowledgeable(() => -Infinity).ack, undefined);
  assert.equal(agent.acknowledgeable(() => nowMs - 31).ack, undefined);
  assert.equal(agent.acknowledgeable(() => nowMs - 30).ack?.seq, 2);
  assert.equal(agent.acknowledgeable(() => nowMs - 11).ack?.seq, 3);
  assert.equal(agent.acknowledgeable(() => nowMs - 10).ack?.seq, 5);
  assert.equal(agent.acknowledgeable(() => Infinity).ack?.seq, 5);
});

test('what was evicted is acknowledged: it will not be asked for any more', async () => {
  const { clock, seen, store } = makeStore({ unscrapedAfterMs: () => -Infinity });
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  for (let report = 0; report < 4; report++) {
    store.receive(agent.host, maker.make(clock.nowMs(), [report]));
    await clock.advance(1000);
  }
  await clock.advance(windowMs - 2500);
  store.evictByAge(agent);
  assert.deepEqual(seen.evicted, ['age, unscraped', 'age, unscraped']);
  assert.equal(agent.acknowledgeable(() => -Infinity).ack?.seq, 2);
});

test('an eviction counts as a loss only where a scraper that is known had not had the report', async () => {
  let unscrapedAfterMs = 0;
  const { clock, seen, store } = makeStore({ unscrapedAfterMs: () => unscrapedAfterMs });
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  for (const at of [1, 2, 3]) {
    if (at === 2) unscrapedAfterMs = clock.nowMs();
    store.receive(agent.host, maker.make(clock.nowMs(), [at]));
    await clock.advance(1000);
  }
  await clock.advance(windowMs);
  store.evictByAge(agent);
  assert.deepEqual(seen.evicted, ['age', 'age', 'age, unscraped']);
});

test('eight epochs are remembered: those last begun', () => {
  const { store } = makeStore();
  const agent = store.agent(name('a'));
  for (let epoch = 1; epoch <= 8; epoch++) {
    store.begin(agent, beginOf({ epoch }));
    const maker = new ReportMaker({ epoch });
    store.receive(agent.host, maker.make(1, [1]));
  }
  store.begin(agent, beginOf({ epoch: 1, offsetMs: 250 })); // again: it keeps its place in the count, and is the youngest
  store.begin(agent, beginOf({ epoch: 9 }));
  assert.deepEqual([...agent.epochs.keys()], [3, 4, 5, 6, 7, 8, 1, 9]);
  assert.equal(agent.epochs.get(1), 1);
  assert.equal(agent.epochs.get(9), 0);
  assert.equal(agent.host.offsetMs, 0);
});

test('a delta whose chain is broken is stored as a key, with the same values', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker({ schema: testSchema(2) });
  const nowMs = clock.nowMs();
  assert.equal(store.receive(agent.host, maker.make(nowMs - 30, [1, undefined])), 'stored');
  assert.equal(store.receive(agent.host, maker.make(nowMs - 30, [2, 2])), 'not_newer');
  assert.equal(store.receive(agent.host, maker.make(nowMs - 20, [3, 2], { follows: false })), 'stored');
  assert.equal(store.receive(agent.host, maker.make(nowMs - 10, [4, undefined])), 'stored');
  // So many that those of interest are no longer held decoded.
  for (let report = 0; report < 4; report++) store.receive(agent.host, maker.make(nowMs + report, [5, 5]));
  const values = agent.host.window.read(0, nowMs - 10, 9).flatMap(({ reports }) => reports.map(valuesOf));
  assert.deepEqual(values, [
    [1, undefined],
    [3, 2],
    [4, undefined],
  ]);
});

test('an agent is up for three intervals and 5 s after a report', async () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  agent.host.intervalMs = 10_000;
  assert.equal(agent.host.up(clock.monotonicMs()), false);
  store.receive(agent.host, new ReportMaker().make(clock.nowMs(), [1]));
  await clock.advance(35_000);
  assert.equal(agent.host.up(clock.monotonicMs()), true);
  await clock.advance(1);
  assert.equal(agent.host.up(clock.monotonicMs()), false);
});

test('an agent whose newest report was refused is not up, whatever came before', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  agent.host.intervalMs = 10_000;
  const maker = new ReportMaker();
  const nowMs = clock.nowMs();
  const isUpAfter = (timeMs: number) => {
    store.receive(agent.host, maker.make(timeMs, [1]));
    return agent.host.up(clock.monotonicMs());
  };
  assert.equal(isUpAfter(nowMs), true);
  assert.equal(isUpAfter(nowMs), false, 'not newer');
  assert.equal(isUpAfter(nowMs + 1), true);
  assert.equal(isUpAfter(nowMs - windowMs - 1), false, 'too old');
  maker.seq = 0;
  assert.equal(isUpAfter(nowMs), true, 'a duplicate');
  maker.seq = 9;
  assert.equal(isUpAfter(nowMs + limits.futureMsMax + 1), false, 'too far ahead');
});

test('a step of the wall clock makes no agent go down', async () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  agent.host.intervalMs = 5000;
  store.receive(agent.host, new ReportMaker().make(clock.nowMs(), [1]));
  clock.step(3_600_000);
  assert.equal(agent.host.up(clock.monotonicMs()), true);
});

/** An agent with reports 1 to 10, a minute apart, the last one now. */
function tenReports() {
  const world = makeStore();
  const agent = world.store.agent(name('a'));
  const maker = new ReportMaker();
  const nowMs = world.clock.nowMs();
  const timeOf = (seq: number) => nowMs - (10 - seq) * 60_000;
  for (let seq = 1; seq <= 10; seq++) world.store.receive(agent.host, maker.make(timeOf(seq), [seq]));
  const held = () =>
    agent.host.window.read(-Infinity, Infinity, 99).flatMap(({ reports }) => reports.map(({ seq }) => seq));
  const step = (deltaMs: number, seq: number) => {
    world.clock.step(deltaMs);
    // As delivery does.
    const untilMs = timeOf(seq) + Math.min(0, deltaMs - 3000);
    world.store.clockStepped(deltaMs, () => ({ ack: { epoch: 1, seq }, untilMsOf: () => untilMs }));
  };
  return { ...world, agent, maker, timeOf, held, step };
}

test('the clock is set: what is not acknowledged is forgotten and comes again; nothing is evicted by it', () => {
  for (const deltaMs of [7_200_000, -7_200_000, 12_000, -12_000]) {
    const { clock, seen, store, agent, maker, timeOf, held, step } = tenReports();
    const { windowBytes } = store;
    step(deltaMs, 6);
    assert.deepEqual([...agent.epochs], [[1, 6]], 'the welcome asks for the rest');
    assert.deepEqual(agent.received, { epoch: 1, seq: 6 });
    assert.ok(store.windowBytes < windowBytes);
    // After a step forwards, what every scraper has stays readable: by its age it is as old as before.
    store.evictByAge(agent);
    const kept = deltaMs > 0 ? [1, 2, 3, 4, 5, 6] : deltaMs === -12_000 ? [1, 2, 3, 4, 5] : [];
    assert.deepEqual(held(), kept);
    assert.deepEqual(seen.evicted, []);
    // They come again, with the times of the clock as it is now; a measurement is up to half a second off.
    maker.seq = 6;
    maker.breakChain();
    for (let seq = 7; seq <= 10; seq++) {
      assert.equal(store.receive(agent.host, maker.make(timeOf(seq) + deltaMs - 500, [seq])), 'stored');
    }
    assert.deepEqual(held(), [...kept, 7, 8, 9, 10]);
    assert.deepEqual(agent.acknowledgeable(() => Infinity).ack, { epoch: 1, seq: 10 });
    assert.equal(agent.host.up(clock.monotonicMs()), true);
  }
});

test('what came before a step leaves the window when it is old, by the time that has passed', async () => {
  const { clock, seen, store, agent, held, step } = tenReports();
  step(7_200_000, 6);
  await clock.advance(windowMs - 9 * 60_000);
  store.evictByAge(agent);
  assert.deepEqual(held(), [1, 2, 3, 4, 5, 6]);
  await clock.advance(60_000);
  store.evictByAge(agent);
  assert.deepEqual(held(), [2, 3, 4, 5, 6]);
  assert.deepEqual(seen.evicted, ['age']);
});

test('of an agent that is acknowledged nothing yet, a step forgets all', () => {
  const { store, agent, held, clock } = tenReports();
  clock.step(60_000);
  store.clockStepped(60_000, () => ({ ack: undefined, untilMsOf: () => -Infinity }));
  assert.deepEqual(held(), []);
  assert.deepEqual([...agent.epochs], []);
  assert.equal(agent.received, undefined);
  assert.equal(agent.host.newestMs, -Infinity);
  assert.equal(store.windowBytes, 0);
});

test('epochs before the acknowledged one are known whole, those after it not at all', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  for (const epoch of [1, 2, 3]) {
    store.begin(agent, beginOf({ epoch }));
    const maker = new ReportMaker({ epoch });
    for (let seq = 1; seq <= 3; seq++) store.receive(agent.host, maker.make(clock.nowMs() + epoch * 10 + seq, [1]));
  }
  store.clockStepped(5000, () => ({ ack: { epoch: 2, seq: 2 }, untilMsOf: () => clock.nowMs() + 22 }));
  assert.deepEqual(
    [...agent.epochs],
    [
      [1, 3],
      [2, 2],
    ],
  );
});

test('a step makes nobody look silent for a day', () => {
  const { store, step } = tenReports();
  step(2 * 86_400_000, 10);
  assert.deepEqual(store.tidy(), []);
});

test('an agent is forgotten a day after its last report, unless it is connected', async () => {
  const { clock, seen, store } = makeStore();
  const gone = store.agent(name('gone'));
  const connected = store.agent(name('connected'));
  connected.peer = '192.0.2.1:1';
  const maker = new ReportMaker();
  store.receive(gone.host, maker.make(clock.nowMs(), [1]));
  await clock.advance(24 * 3_600_000);
  assert.deepEqual(store.tidy(), []);
  assert.deepEqual(seen.evicted, ['age']);
  await clock.advance(1);
  assert.deepEqual(store.tidy(), ['gone']);
  assert.deepEqual([...store.agents.keys()], ['connected']);
});

test('forgetting an agent gives its bytes back', () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  store.receive(agent.host, new ReportMaker().make(clock.nowMs(), [1]));
  assert.ok(store.windowBytes > 0);
  store.forget(name('a'));
  store.forget(name('a'));
  assert.equal(store.windowBytes, 0);
});

test('beyond the bound the oldest reports of the whole fleet go where none is beyond its share, and are counted', () => {
  const { clock, seen, store } = makeStore({ memoryBytesMax: 400_000 });
  const nowMs = clock.nowMs();
  const agents = [0, 1, 2, 3, 4, 5].map((index) => ({
    agent: store.agent(name(`agent-${index}`)),
    maker: new ReportMaker({ schema: testSchema(500) }),
  }));
  const stored: number[] = [];
  for (let report = 0; report < 120; report++) {
    const { agent, maker } = agents[report % 6]!;
    const timeMs = nowMs - 60_000 + report * 100;
    const values = Array.from({ length: 500 }, (_, series) => series * report);
    store.receive(agent.host, maker.make(timeMs, values, { key: true }));
    stored.push(timeMs);
    assert.ok(store.windowBytes <= 400_000, `${store.windowBytes} bytes`);
  }
  const left = agents.flatMap(({ agent }) =>
    agent.host.window.read(0, nowMs, 99).flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs)),
  );
  const evictedCount = seen.evicted.length;
  assert.ok(evictedCount > 0);
  assert.deepEqual(new Set(seen.evicted), new Set(['memory']));
  assert.deepEqual(
    left.sort((a, b) => a - b),
    stored.slice(evictedCount),
  );
});

test('a report that alone is more than the bound is not held', () => {
  const { clock, seen, store } = makeStore({ memoryBytesMax: 10_000, unscrapedAfterMs: () => -Infinity });
  const agent = store.agent(name('a'));
  const values = Array.from({ length: 5000 }, (_, series) => series);
  store.receive(agent.host, new ReportMaker({ schema: testSchema(5000) }).make(clock.nowMs(), values));
  assert.deepEqual(seen.evicted, ['memory, unscraped']);
  assert.equal(store.windowBytes, 0);
  assert.deepEqual(agent.acknowledgeable(() => -Infinity).ack, { epoch: 1, seq: 1 });
});

test('a schema evicts no reports of others: windows leave an eighth to schemas, and what is beyond is refused', () => {
  const { clock, seen, store } = makeStore({ memoryBytesMax: 1_000_000 });
  const agents = ['a', 'b', 'c', 'd'].map((each) => ({
    agent: store.agent(name(each)),
    maker: new ReportMaker({ schema: testSchema(500) }),
  }));
  const values = Array.from({ length: 500 }, (_, series) => series * 1000.5);
  for (let report = 0; seen.evicted.length < 8; report++) {
    for (const { agent, maker } of agents) {
      store.receive(agent.host, maker.make(clock.nowMs() - 60_000 + report * 100, values, { key: true }));
    }
  }
  const before = { evicted: seen.evicted.length, bytes: store.windowBytes };
  assert.ok(before.bytes > 930_000 && before.bytes <= 955_000, `${before.bytes} bytes`);
  const schemaOf = (bytes: number) => testSchema(1, 'x'.repeat(bytes));
  store.holdSchema(store.agent(name('e')), schemaOf(25_000), undefined);
  const [f, g] = [store.agent(name('f')), store.agent(name('g'))];
  const held = schemaOf(15_000);
  store.holdSchema(f, held, undefined);
  const tooMuch = schemaOf(30_000);
  assert.throws(
    () => store.holdSchema(g, tooMuch, undefined),
    (error) => error instanceof BudgetError && error.code === 'busy' && error.budget === 'schemas',
  );
  store.holdSchema(g, undefined, tooMuch);
  assert.equal(seen.evicted.length, before.evicted, 'of nobody');
  store.holdSchema(f, undefined, held);
});

test('the schemas of one agent are bounded; its own older reports, which hold older ones, make room', () => {
  const { clock, seen, store } = makeStore({ memoryBytesMax: 64 * 1024 * 1024 });
  const agent = store.agent(name('a'));
  const schemaOf = (bytes: number) => testSchema(1, 'x'.repeat(bytes));
  for (let report = 0; report < 5; report++) {
    const maker = new ReportMaker({ epoch: report, schema: schemaOf(700_000) });
    store.receive(agent.host, maker.make(clock.nowMs() + report, [report]));
  }
  assert.deepEqual(seen.evicted, []);
  const next = schemaOf(1_500_000);
  store.holdSchema(agent, next, undefined);
  assert.equal(seen.evicted.length, 2);
  store.holdSchema(agent, undefined, next);
  assert.throws(
    () => store.holdSchema(agent, schemaOf(4_200_000), undefined),
    /its schemas take 6.0 MiB, at most 4.0 MiB of --memory-max are allowed/,
  );
  assert.equal(seen.evicted.length, 2, 'no report makes room for it');
});

test('an agent beyond its share makes room for the others, whatever the times of its reports', () => {
  const { clock, seen, store } = makeStore({ memoryBytesMax: 1_000_000, unscrapedAfterMs: () => -Infinity });
  const nowMs = clock.nowMs();
  const honest = ['a', 'b', 'c', 'd', 'e'].map((each) => ({
    agent: store.agent(name(each)),
    maker: new ReportMaker(),
  }));
  const evil = store.agent(name('evil'));
  const maker = new ReportMaker({ schema: testSchema(2000) });
  const values = Array.from({ length: 2000 }, (_, series) => series * 1000.5);
  for (let report = 0; report < 200; report++) {
    for (const each of honest) store.receive(each.agent.host, each.maker.make(nowMs - 60_000 + report * 100, [report]));
    // Always the newest of all.
    store.receive(evil.host, maker.make(nowMs - 10_000 + report * 100, values, { key: true }));
  }
  assert.ok(evil.host.window.reportCount < 60 && evil.host.window.reportCount > 10, `${evil.host.window.reportCount}`);
  for (const { agent } of honest) {
    assert.equal(agent.host.window.reportCount, 200);
    assert.deepEqual([agent.drops.all, agent.excesses.all], [[], []]);
  }
  assert.ok(seen.evicted.length > 100);
  assert.equal(evil.drops.all[0]?.reason, 'memory');
  const [excess] = evil.excesses.all;
  assert.equal(excess?.budget, 'memory');
  assert.match(
    excess.text,
    /^it takes 0\.\d MiB of --memory-max, its share is 0\.2 MiB: its oldest reports are evicted$/,
  );
});

test('reports are paced by their own times: a backlog is taken at once, more than ten a second are refused', async () => {
  const { clock, seen, store } = makeStore();
  const nowMs = clock.nowMs();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker();
  for (let report = 0; report < 10_000; report++) {
    store.receive(agent.host, maker.make(nowMs - 1_000_000 + report * 100, [report]));
  }
  assert.deepEqual(new Set(seen.outcomes), new Set(['stored']));
  seen.outcomes.length = 0;
  for (let report = 1; report <= 1000; report++) store.receive(agent.host, maker.make(nowMs + report, [report]));
  const stored = seen.outcomes.filter((outcome) => outcome === 'stored').length;
  assert.ok(stored >= 60 && stored <= 71, `${stored} in a second`);
  assert.deepEqual(agent.received, { epoch: 1, seq: maker.seq }, 'the others are acknowledged in their turn');
  assert.equal(agent.drops.all[0]?.reason, 'too_many');
  assert.equal(agent.drops.all[0]?.count, 1000 - stored);
  assert.equal(agent.excesses.all[0]?.budget, 'reports');
  await clock.advance(10_000);
  assert.equal(store.receive(agent.host, maker.make(clock.nowMs(), [1])), 'stored');
});

test('an agent that is gone keeps its schema as long as its reports, one that is connected always', async () => {
  const { clock, store } = makeStore();
  const agent = store.agent(name('a'));
  const maker = new ReportMaker({ schema: testSchema(2) });
  agent.peer = '192.0.2.1:40000';
  store.receive(agent.host, maker.make(clock.nowMs(), [1, 2]));
  await clock.advance(windowMs + 1);
  store.tidy();
  assert.equal(agent.host.schema, maker.schema);
  store.receive(agent.host, maker.make(clock.nowMs(), [1, 2]));
  agent.peer = undefined;
  store.tidy();
  assert.equal(agent.host.schema, maker.schema);
  await clock.advance(windowMs + 1);
  store.tidy();
  assert.equal(agent.host.schema, undefined);
  assert.equal(store.windowBytes, 0);
});

test('whatever agents send within their limits, the windows stay below the bound and the sum is right', async () => {
  const memoryBytesMax = 60_000;
  const step = fc.record({
    agent: fc.integer({ min: 0, max: 3 }),
    dtMs: fc.integer({ min: 0, max: 200_000 }),
    ageMs: fc.integer({ min: -20_000, max: 200_000 }),
    series: fc.constantFrom(1, 1, 2, 30, 3000),
    schema: fc.constantFrom('same', 'same', 'same', 'new', 'labels'),
    key: fc.boolean(),
    what: fc.constantFrom('report', 'report', 'report', 'tidy', 'forget'),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { clock, store } = makeStore({ memoryBytesMax, windowMs: 600_000 });
      const makers = new Map<number, ReportMaker>();
      for (const { agent: index, dtMs, ageMs, series, schema, key, what } of steps) {
        await clock.advance(dtMs);
        const id = name(`agent-${index}`);
        const maker = makers.get(index) ?? new ReportMaker();
        makers.set(index, maker);
        if (what === 'tidy') store.tidy();
        else if (what === 'forget') store.forget(id);
        else {
          const isNew = schema !== 'same';
          if (isNew) maker.schema = testSchema(series, schema === 'labels' ? 'x'.repeat(20_000) : 'test_value');
          const values = Array.from({ length: maker.schema.seriesCount }, (_, at) => at * dtMs);
          const agent = store.agent(id);
          const follows = agent.host.window.newestMs !== undefined && !key;
          store.receive(agent.host, maker.make(clock.nowMs() - ageMs, values, { key: key || isNew, follows }));
        }
        assert.ok(store.windowBytes <= memoryBytesMax);
        const sum = [...store.agents.values()].reduce((bytes, { host }) => bytes + host.window.bytes, 0);
        assert.equal(store.windowBytes, sum + store.schemas.bytes);
        for (const { host } of store.agents.values()) {
          assert.equal(host.window.bytes === 0, host.window.reportCount === 0);
        }
      }
    }),
    { numRuns: 50 },
  );
});
