import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import type { CursorChange } from '../../../src/server/delivery/cursors.ts';
import type { Scrape, ScrapeConnection } from '../../../src/server/delivery/scraper.ts';
import { VirtualDatabase } from '../../support/virtual-database.ts';
import { connect } from './cursors-harness.ts';
import { DeliveryHarness, MemoryState, type ScrapeOptions, type TestAgent, timesOf } from './delivery-harness.ts';
import { testSchema } from './report-maker.ts';

type Times = Record<string, number[]>;

/** A server whose scraper 'p' has a database, and what becomes of its answers. */
class ReceiptsHarness extends DeliveryHarness {
  readonly database = new VirtualDatabase(this.clock);
  readonly refusals: (CursorChange & { readonly kind: 'refused' })[] = [];
  /** Any: each scrape comes over one of its own. */
  connection: ScrapeConnection | undefined;
  override onCursorChange = (change: CursorChange) => {
    if (change.kind === 'refused') this.refusals.push(change);
  };

  constructor(options?: { disk?: MemoryState | undefined }) {
    super(options);
    this.databases.set('p', this.database);
    this.restart();
  }

  /** One whose database is known to keep timestamps. */
  static async start(options: ScrapeOptions = {}): Promise<ReceiptsHarness> {
    const world = new ReceiptsHarness();
    await world.give('stored', options);
    return world;
  }

  async agent(name: string, series = 1): Promise<TestAgent> {
    const agent = this.connect(name);
    agent.maker.schema = testSchema(series);
    return agent;
  }

  /** A request, and its answer up to its last byte. */
  async begin(options: ScrapeOptions = {}): Promise<Scrape> {
    const opening = this.open(this.connection ?? connect(), options);
    await this.clock.advance(20);
    const scrape = await opening;
    await scrape.mayEnd;
    return scrape;
  }

  /** A whole scrape, that the database stores or not; then a second passes. */
  async give(end: 'stored' | 'refused' | 'not said', options: ScrapeOptions = {}): Promise<Times> {
    const scrape = await this.begin(options);
    scrape.finish();
    if (end === 'stored') this.database.store(scrape.number, scrape.probeTimesMs);
    const selection = (options.selection ?? []).join(',');
    if (end === 'refused') this.database.lastErrors.set(selection, 'sample limit exceeded');
    else this.database.lastErrors.delete(selection);
    await this.clock.advance(1000);
    return timesOf(scrape);
  }

  get position(): number {
    return this.delivery.confirmedMs(this.delivery.store.agents.values().next().value!.host);
  }
}

test('an answer that is stored is confirmed and acknowledged, whatever becomes of its connection', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  const madeMs = agent.report();
  const scrape = await world.begin();
  scrape.finish();
  assert.equal(world.position, -Infinity);
  world.database.store(scrape.number, scrape.probeTimesMs);
  await world.clock.advance(99);
  assert.equal(agent.acked, 0);
  await world.clock.advance(4);
  assert.equal(world.position, madeMs);
  assert.equal(agent.acked, 1);
  assert.equal(world.clock.timers, 0, 'nothing is unknown, so nothing is asked');
});

test('neither the next request on its connection nor its end confirms it', async () => {
  for (const kind of ['half-closed', 'reset'] as const) {
    const world = await ReceiptsHarness.start();
    const agent = await world.agent('a');
    world.connection = connect();
    agent.report();
    await world.give('stored');
    const madeMs = agent.report();
    await world.give('refused');
    await world.give('refused');
    assert.ok(world.position < madeMs, 'asked again');
    await world.clock.advance(2000);
    await world.end(world.connection, kind);
    assert.ok(world.position < madeMs, kind);
    assert.equal(agent.acked, 1);
  }
});

test('what was read and not stored is given again at once, half as much, with the reason; then more again', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a', 100);
  agent.maker.schema = testSchema(100);
  const report = () => {
    const values = Array.from({ length: 100 }, (_, series) => series);
    world.delivery.store.receive(agent.record.host, {
      ...agent.maker.make(world.clock.nowMs(), values, { key: true }),
      follows: false,
    });
  };
  report();
  await world.give('stored');
  for (let count = 0; count < 40; count++) {
    report();
    await world.clock.advance(1000);
  }
  const sizes: number[] = [];
  const given: number[] = [];
  const limit = 1500;
  for (let scrape = 0; scrape < 20; scrape++) {
    const all = (await world.begin()) as Scrape;
    all.finish();
    sizes.push(all.samples);
    if (all.samples <= limit) {
      world.database.store(all.number);
      world.database.lastErrors.clear();
      given.push(...(timesOf(all)['a'] ?? []));
    } else world.database.lastErrors.set('', 'sample limit exceeded');
    await world.clock.advance(1000);
  }
  assert.deepEqual(sizes.slice(0, 4), [4000, 2000, 1000, 1100], 'rising by little below what was refused');
  assert.deepEqual(
    given,
    [...new Set(given)].sort((a, b) => a - b),
    'each once, in order',
  );
  assert.equal(given.length, 40);
  const [first, second] = world.refusals;
  assert.deepEqual(
    [first, second].map((refusal) => [refusal?.samples, refusal?.nextSamplesMax, refusal?.why]),
    [
      [4000, 2000, 'sample limit exceeded'],
      [2000, 1000, 'sample limit exceeded'],
    ],
  );
  assert.equal(agent.acked, 41);
});

test('a first answer that is refused is given again in parts, though no receipt has ever come', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  const times = [0, 1, 2, 3].map((ms) => agent.report(world.clock.nowMs() - 4 + ms));
  assert.deepEqual((await world.give('refused'))['a'], times);
  assert.deepEqual((await world.give('refused'))['a'], times.slice(0, 2));
  assert.deepEqual((await world.give('stored'))['a'], times.slice(0, 1));
  assert.equal(agent.acked, 1);
});

test('answers that did not come in time, however often, do not make the next ones smaller than what comes in', async () => {
  const world = new ReceiptsHarness();
  const agent = await world.agent('a', 100);
  agent.report();
  await world.give('stored');
  for (let scrape = 0; scrape < 12; scrape++) {
    agent.report();
    (await world.begin()).finish();
    world.database.lastErrors.set('', 'Get "http://127.0.0.1:9733/metrics": context deadline exceeded');
    await world.clock.advance(1000);
  }
  assert.ok(world.refusals.length > 5);
  const halved = world.refusals.map(({ nextSamplesMax }) => nextSamplesMax);
  assert.deepEqual(halved.slice(0, 3), [150_000, 75_000, 37_500]);
  assert.equal(Math.min(...halved), 1000);
});

test('one report that is larger than what was refused is given all the same, alone', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  await world.give('stored');
  agent.report();
  for (let scrape = 0; scrape < 5; scrape++) assert.equal((await world.give('refused'))['a']?.length, 1);
  assert.equal(world.refusals.at(-1)?.nextSamplesMax, 1);
  assert.equal(world.refusals.at(-1)?.blocked, agent.record.host.id);
});

test('an agent for which Prometheus refuses whole scrapes is found, and waits alone', async () => {
  // The reason quotes the label, which may have any words in it.
  for (const value of ['EOF', 'sample_limit']) await findsOneThatIsRefused(value);
});

async function findsOneThatIsRefused(value: string): Promise<void> {
  const world = await ReceiptsHarness.start();
  const agents: TestAgent[] = [];
  for (let agent = 0; agent < 20; agent++) agents.push(await world.agent(`agent-${agent}`));
  const bad = agents[13]!;
  const { id: badId } = bad.record;
  for (let scrape = 0; scrape < 60; scrape++) {
    for (const agent of agents) agent.report();
    const one = await world.begin();
    one.finish();
    const isBad = one.until.has(bad.record.host.id) || !one.withheld.has(bad.record.host.id);
    const why = `label_value_length_limit exceeded (metric: m, label name: l, value: "${value}", length: 303, limit: 200)`;
    if (isBad) world.database.lastErrors.set('', why);
    else {
      world.database.store(one.number);
      world.database.lastErrors.clear();
    }
    await world.clock.advance(1000);
  }
  assert.deepEqual(
    agents.filter(({ acked }) => acked < 55).map(({ record }) => record.id),
    [badId],
  );
  assert.equal(bad.acked, 0);
  const found = world.refusals.findIndex(({ blocked }) => blocked === bad.record.host.id);
  assert.ok(found >= 0 && found <= 8, `found by refusal ${found}`);
  assert.ok(world.refusals.length <= found + 2, 'once a minute from then on');
  // The limit is raised: all of it comes.
  world.database.lastErrors.clear();
  for (let scrape = 0; scrape < 150; scrape++) {
    const one = await world.begin();
    one.finish();
    world.database.store(one.number);
    await world.clock.advance(1000);
  }
  assert.equal(bad.acked, 60);
}

for (const when of ['before any report of it', 'after its reports'] as const) {
  test(`an agent whose labels alone are refused is found, ${when}`, async () => {
    const world = await ReceiptsHarness.start();
    const agents: TestAgent[] = [];
    for (let agent = 0; agent < 20; agent++) agents.push(await world.agent(`agent-${agent}`));
    const bad = agents[13]!;
    const honest = agents.filter((agent) => agent !== bad);
    const { id } = bad.record.host;
    let upCount = 0;
    for (let scrape = 0; scrape < 60; scrape++) {
      for (const agent of honest) agent.report();
      // It is silent while its labels are refused.
      const isLong = when === 'before any report of it' || scrape >= 10;
      if (!isLong) bad.report();
      const one = await world.begin();
      one.finish();
      // Its sysmon_agent_up has them in each answer that is not withheld from it.
      if (isLong && !one.withheld.has(id)) world.database.lastErrors.set('', 'label_value_length_limit exceeded');
      else {
        world.database.store(one.number);
        world.database.lastErrors.clear();
        if (scrape >= 40 && honest.every(({ record }) => !one.withheld.has(record.host.id))) upCount++;
      }
      await world.clock.advance(1000);
    }
    assert.ok(world.refusals.some(({ blocked }) => blocked === id));
    assert.ok(world.refusals.length < 15, `${world.refusals.length} refused`);
    for (const { acked, record } of honest) assert.ok(acked >= 55, `${record.id}: ${acked}`);
    assert.ok(upCount >= 18, `in ${upCount} of 20 answers all others`);
  });
}

test('after a restart the number is asked for before the first answer, and nothing is given twice', async () => {
  for (const end of ['stored', 'not said'] as const) {
    const world = await ReceiptsHarness.start();
    const agent = await world.agent('a');
    agent.report();
    await world.give('stored');
    agent.report();
    const scrape = await world.begin();
    // Killed before it knows that all of it was sent.
    world.restart();
    if (end === 'stored') world.database.store(scrape.number, scrape.probeTimesMs);
    const again = await world.agent('a');
    again.maker.seq = agent.maker.seq;
    world.delivery.store.receive(again.record.host, {
      ...agent.maker.make(timesOf(scrape)['a']![0]!, [1]),
      follows: false,
    });
    const newMs = world.clock.nowMs() + 1;
    await world.clock.advance(1);
    const given = await world.give('stored');
    const expected = end === 'stored' ? [] : timesOf(scrape)['a'];
    assert.deepEqual(given['a'] ?? [], expected, end);
    assert.ok(newMs > 0);
  }
});

test('no two runs have a number in common, nor two servers; the state keeps who a server is', async () => {
  const world = await ReceiptsHarness.start();
  await world.agent('a');
  const { serverId } = world.delivery;
  assert.match(serverId, /^[0-9a-f]{16}$/);
  const numbers = [(await world.begin()).number!];
  world.restart();
  assert.equal(world.delivery.serverId, serverId);
  numbers.push((await world.begin()).number!);
  // One with a copy of its state.
  const disk = new MemoryState();
  disk.text = world.disk!.text;
  const copy = new ReceiptsHarness({ disk });
  assert.equal(copy.delivery.serverId, serverId);
  numbers.push((await copy.begin()).number!);
  world.disk!.text = undefined;
  world.restart();
  assert.notEqual(world.delivery.serverId, serverId);
  numbers.push((await world.begin()).number!);
  for (const [at, number] of numbers.entries()) {
    assert.ok(number >= 1e14 && number < 1e15, `${number}`);
    for (const other of numbers.slice(at + 1)) assert.ok(Math.abs(number - other) > 1e6, `${numbers}`);
  }
});

test('of two servers that one Prometheus scrapes under one name, none confirms what the other has given', async () => {
  const [one, other] = [new ReceiptsHarness(), new ReceiptsHarness()];
  one.databases.set('p', other.database);
  other.database.answerMs = 0;
  one.restart();
  const store = async (world: ReceiptsHarness, isStored: boolean) => {
    const scrape = await world.begin();
    scrape.finish();
    if (isStored) other.database.store(scrape.number, scrape.probeTimesMs);
    await world.clock.advance(1000);
  };
  for (const world of [one, other]) await store(world, true);
  const [agent, stored] = [await one.agent('a'), await other.agent('b')];
  for (let round = 0; round < 20; round++) {
    agent.report();
    stored.report();
    await store(other, true);
    await store(one, false);
  }
  assert.deepEqual([agent.acked, stored.acked], [0, 20]);
});

test('while the database does not answer, new data flow, nothing is acknowledged, and it is said', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  await world.give('stored');
  world.database.isDown = true;
  const times: number[] = [];
  const given: number[] = [];
  const numbers: (number | undefined)[] = [];
  for (let scrape = 0; scrape < 60; scrape++) {
    times.push(agent.report());
    const one = await world.begin();
    one.finish();
    numbers.push(one.number);
    given.push(...(timesOf(one)['a'] ?? []));
    await world.clock.advance(5000);
  }
  assert.deepEqual(given, times.slice(0, given.length), 'each once');
  assert.ok(given.length > 57);
  assert.equal(agent.acked, 1);
  const due = world.receiptEvents.flatMap((event) => (event.kind === 'unanswered' && event.isDue ? [event.forMs] : []));
  assert.equal(due.length, 1, `one line in five minutes: ${due}`);
  // It comes back, and has all but one.
  const gap = numbers.length - 10;
  for (const [at, number] of numbers.entries()) if (at !== gap) world.database.store(number);
  world.database.isDown = false;
  await world.clock.advance(40_000);
  assert.ok(agent.acked >= gap && agent.acked < numbers.length, `acknowledged up to ${agent.acked}`);
  const again = (await world.give('stored'))['a'] ?? [];
  assert.deepEqual(again, [times[gap]], 'what was not stored, alone');
  agent.report();
  await world.give('stored');
  assert.equal(agent.acked, 62);
});

test('a database that shows its samples late is given what is newer meanwhile, each report once', async () => {
  const world = await ReceiptsHarness.start();
  Object.assign(world.database, { showsMs: 4000, showsAfterMs: 15_000 });
  const agent = await world.agent('a');
  const times: number[] = [];
  const given: number[] = [];
  for (let scrape = 0; scrape < 20; scrape++) {
    times.push(agent.report());
    const scrapes = await world.begin({ takesAnyOrder: true });
    scrapes.finish();
    // The fifth is refused, and nobody says why.
    if (scrape !== 5) world.database.store(scrapes.number);
    given.push(...(timesOf(scrapes)['a'] ?? []));
    await world.clock.advance(1000);
  }
  const again = given.filter((ms, at) => given.indexOf(ms) !== at);
  assert.deepEqual(again, [], 'it may still come');
  assert.equal(agent.acked, 5);
  for (let scrape = 0; scrape < 25; scrape++) {
    const one = await world.begin({ takesAnyOrder: true });
    one.finish();
    world.database.store(one.number);
    given.push(...(timesOf(one)['a'] ?? []));
    await world.clock.advance(1000);
  }
  assert.deepEqual(
    given.filter((ms, at) => given.indexOf(ms) !== at),
    [times[5]],
  );
  await world.clock.advance(6000);
  assert.equal(agent.acked, 20);
});

test('two selections of one scraper are confirmed each by its own answers', async () => {
  const world = await ReceiptsHarness.start({ selection: [agentId('a')!] });
  const [a, b] = [await world.agent('a'), await world.agent('b')];
  const only = (agent: TestAgent) => ({ selection: [agent.record.id] });
  for (const agent of [a, b]) {
    agent.report();
    await world.give('stored', only(agent));
  }
  const lostMs = a.report();
  b.report();
  assert.deepEqual(await world.give('refused', only(a)), { a: [lostMs] });
  await world.give('stored', only(b));
  assert.deepEqual([a.acked, b.acked], [1, 2], 'a later number proves nothing of an earlier one');
  assert.deepEqual(await world.give('stored', only(a)), { a: [lostMs] });
  assert.equal(a.acked, 2);
});

test('where numbers come no more, new data flow and nothing is acknowledged; after five minutes each is given once', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  await world.give('stored');
  for (let scrape = 0; scrape < 20; scrape++) {
    const madeMs = agent.report();
    // The first are given again in smaller parts, as for a limit of the job.
    const given = (await world.give('not said'))['a'] ?? [];
    if (scrape >= 4) assert.equal(given.at(-1), madeMs);
  }
  await world.clock.advance(5 * 60_000);
  const refusals = world.refusals.length;
  const given: number[] = [];
  const times: number[] = [];
  for (let scrape = 0; scrape < 20; scrape++) {
    times.push(agent.report());
    given.push(...((await world.give('not said'))['a'] ?? []));
  }
  assert.deepEqual(given.slice(-19), times.slice(1), 'each once');
  assert.equal(world.refusals.length, refusals);
  assert.equal(agent.acked, 1);
});

test('whoever else asks under the name, and however often, the scraper misses nothing, and is given all in order', async () => {
  for (const [address, isRestarted] of [
    ['192.0.2.1', false],
    ['192.0.2.66', false],
    ['192.0.2.1', true],
  ] as const) {
    for (let others = 1; others <= 12; others++) {
      const world = await ReceiptsHarness.start();
      const agent = await world.agent('a');
      const made: number[] = [];
      const stored: number[] = [];
      for (let round = 0; round < 10; round++) {
        if (isRestarted && round === 5) world.restart();
        made.push((isRestarted && round >= 5 ? agent.reconnect() : agent).report());
        for (let at = 0; at < others; at++) {
          world.connection = connect(address);
          (await world.begin()).finish();
        }
        world.connection = undefined;
        stored.push(...((await world.give('stored'))['a'] ?? []));
      }
      for (let rest = 0; rest < 5; rest++) stored.push(...((await world.give('stored'))['a'] ?? []));
      assert.deepEqual(stored, made, `${others} from ${address}`);
    }
  }
});

test('what is missing of another address says nothing of the size that the database takes', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a', 100);
  for (let round = 0; round < 6; round++) {
    for (let count = 0; count < 10; count++) agent.report(world.clock.nowMs() - 10 + count);
    world.connection = connect('192.0.2.66');
    (await world.begin()).finish();
    world.connection = undefined;
    assert.equal((await world.give('stored'))['a']?.length, 10);
  }
  assert.equal(world.refusals.length, 6);
});

test('an answer ends only when its number is on disk; a disk that stalls is waited for for a while', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  world.disk!.isHeld = true;
  const opening = world.open(connect());
  await world.clock.advance(10);
  const scrape = await opening;
  let mayEnd = false;
  void scrape.mayEnd.then(() => {
    mayEnd = true;
  });
  await world.clock.advance(1000);
  assert.equal(mayEnd, false);
  world.disk!.release();
  await world.clock.advance(0);
  assert.equal(mayEnd, true);
  assert.ok(world.disk!.text!.includes(String(scrape.number)));
  world.disk!.isHeld = true;
  const stalled = await world.open(connect());
  await world.clock.advance(2500);
  await stalled.mayEnd;
  world.disk!.release();
});

test('a clock that is set back makes positions of what was given move back, receipts too', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  const scrape = await world.begin();
  scrape.finish();
  world.clock.step(-3_600_000);
  world.delivery.clockStepped(-3_600_000);
  world.database.store(scrape.number, scrape.probeTimesMs);
  await world.clock.advance(1000);
  assert.ok(world.position <= world.clock.nowMs());
});

/** A report that is given and not stored, and a later one that is: between them and the position is a gap. */
async function gapBefore(world: ReceiptsHarness, agent: TestAgent): Promise<{ lostMs: number; storedMs: number }> {
  agent.report();
  await world.give('stored', anyOrder);
  const lostMs = agent.report();
  world.database.isDown = true;
  assert.deepEqual((await world.give('not said', anyOrder))['a'], [lostMs]);
  const storedMs = agent.report();
  assert.deepEqual((await world.give('stored', anyOrder))['a'], [storedMs]);
  world.database.isDown = false;
  await world.clock.advance(2000);
  return { lostMs, storedMs };
}

const anyOrder: ScrapeOptions = { takesAnyOrder: true };

test('what was lost before an answer that is stored is given again, alone', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  const { lostMs } = await gapBefore(world, agent);
  assert.equal(agent.acked, 1);
  assert.deepEqual((await world.give('stored', anyOrder))['a'], [lostMs]);
  assert.equal(agent.acked, 3);
});

test('a gap whose reports are gone is passed, and what is newer flows', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  const { lostMs } = await gapBefore(world, agent);
  agent.record.host.window.evictBefore(lostMs + 1);
  const newMs = agent.report();
  assert.deepEqual((await world.give('stored', anyOrder))['a'], [newMs]);
  assert.equal(agent.acked, 4);
});

test('by a clock that was set, nothing counts as stored beyond a gap', async () => {
  for (const stepMs of [-10_000, 10_000]) {
    const world = await ReceiptsHarness.start();
    const agent = await world.agent('a');
    const { storedMs } = await gapBefore(world, agent);
    world.clock.step(stepMs);
    world.delivery.clockStepped(stepMs);
    // What was lost has this time now, which by the clock before would be beyond the gap.
    const timeMs = storedMs + Math.min(0, stepMs - 3000);
    agent.report(timeMs);
    assert.deepEqual((await world.give('stored', anyOrder))['a'], [timeMs], `${stepMs}`);
  }
});

test('of several answers that were under way together, all refused, only one makes the next ones smaller', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a', 100);
  agent.report();
  await world.give('stored', anyOrder);
  world.database.isDown = true;
  for (let scrape = 0; scrape < 6; scrape++) {
    for (let count = 0; count < 10; count++) agent.report(world.clock.nowMs() - 10 + count);
    await world.give('not said', anyOrder);
  }
  world.database.isDown = false;
  await world.clock.advance(30_000);
  (await world.begin(anyOrder)).finish();
  assert.equal(world.refusals.length, 6);
  assert.ok(world.refusals.every(({ blocked }) => blocked === undefined));
  const sizes = new Set(world.refusals.map(({ nextSamplesMax }) => nextSamplesMax));
  assert.deepEqual([...sizes], [Math.floor(world.refusals[0]!.samples / 2)]);
});

test('an agent that is alone in an answer of several reports that is refused without a reason is given smaller ones', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  for (let count = 0; count < 40; count++) agent.report(world.clock.nowMs() - 40 + count);
  const sizes: (number | undefined)[] = [];
  for (let scrape = 0; scrape < 3; scrape++) {
    sizes.push((await world.give('not said'))['a']?.length);
    await world.clock.advance(20_000);
  }
  assert.deepEqual(sizes, [40, 20, 10]);
  assert.equal(world.refusals.at(-1)?.blocked, undefined);
});

test('a scraper is given nothing before its probe has shown what it keeps, and then what it keeps', async () => {
  for (const [keeps, gives] of [
    [2, 'reports'],
    [1, 'one report'],
    [0, 'newest'],
  ] as const) {
    const world = new ReceiptsHarness();
    const agent = await world.agent('a');
    agent.report();
    const probe = await world.begin();
    assert.deepEqual([probe.gives, probe.batches.length, probe.probeTimesMs?.length], ['probe', 0, 2]);
    probe.finish();
    world.database.store(probe.number, probe.probeTimesMs!.slice(0, keeps));
    await world.clock.advance(1000);
    agent.report();
    const next = await world.begin();
    assert.equal(next.gives, gives);
    assert.equal(next.probeTimesMs, undefined);
    const reports = timesOf(next)['a']?.length ?? 0;
    assert.equal(reports, { reports: 2, 'one report': 1, newest: 0 }[gives]);
    next.finish();
    world.database.store(next.number);
    await world.clock.advance(1000);
    assert.equal(agent.acked, { reports: 2, 'one report': 1, newest: 0 }[gives]);
    // Its job is corrected: that shows within minutes, and nothing was held for it meanwhile.
    await world.clock.advance(45_000);
    if (gives === 'newest') assert.equal(world.delivery.confirmedMs(agent.record.host), Infinity);
    await world.clock.advance(5 * 60_000);
    await world.give('stored');
    await world.clock.advance(10);
    assert.equal((await world.begin()).gives, 'reports');
  }
});

test('a database that does not answer shows nothing: its scraper is given reports, as its program says', async () => {
  const world = new ReceiptsHarness();
  const agent = await world.agent('a');
  const madeMs = agent.report();
  world.database.isDown = true;
  assert.equal((await world.begin()).gives, 'probe');
  assert.deepEqual((await world.give('not said'))['a'], [madeMs]);
});

test('after a restart reports go on, with a probe beside them', async () => {
  const world = await ReceiptsHarness.start();
  const agent = await world.agent('a');
  agent.report();
  await world.give('stored');
  world.restart();
  const scrape = await world.begin();
  assert.deepEqual([scrape.gives, scrape.probeTimesMs?.length], ['reports', 2]);
});
