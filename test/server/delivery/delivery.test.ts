import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { parseState } from '../../../src/server/delivery/state-file.ts';
import { beginOf } from '../../support/groups.ts';
import { settle } from '../../support/virtual-clock.ts';
import { connect, minuteMs, timeoutMs, windowMs } from './cursors-harness.ts';
import { DeliveryHarness, MemoryState } from './delivery-harness.ts';
import { ReportMaker } from './report-maker.ts';

/** From the start until it is sure that nobody scrapes. */
const holdMs = 45_000;

test('an ack comes when the scrape is confirmed and the file says so, whichever is later', async () => {
  for (const later of ['commit', 'file'] as const) {
    const world = new DeliveryHarness();
    const agent = world.connect('a');
    agent.report();
    if (later === 'file') world.disk!.isHeld = true;
    const connection = connect();
    await world.scrape(connection);
    assert.equal(agent.acked, 0, later);
    await world.scrape(connection);
    if (later === 'file') {
      assert.equal(world.count('confirmed'), 1);
      assert.equal(agent.acked, 0);
      world.disk!.release();
      await settle();
    }
    assert.equal(agent.acked, 1, later);
  }
});

test('while the file cannot be written acks are held; they come with the next write that succeeds', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const connection = connect();
  agent.report();
  await world.scrape(connection);
  await world.scrape(connection);
  assert.equal(agent.acked, 1);
  world.disk!.isFailing = true;
  await world.clock.advance(5000);
  agent.report();
  await world.scrape(connection);
  await world.scrape(connection);
  assert.equal(world.count('confirmed'), 3);
  assert.equal(world.count('state: ENOSPC'), 2);
  assert.equal(agent.acked, 1);
  world.disk!.isFailing = false;
  await world.scrape(connection);
  assert.equal(agent.acked, 2);
});

test('the first scraper ever is on disk before anything is acknowledged because of it', async () => {
  const world = new DeliveryHarness();
  await world.clock.advance(holdMs);
  const agent = world.connect('a');
  agent.report();
  assert.equal(agent.acked, 1, 'nobody scrapes');
  await world.delivery.flush();
  world.disk!.isFailing = true;
  await world.clock.advance(5000);
  agent.report();
  agent.acks.length = 0;
  await world.scrapeAll();
  assert.equal(agent.acked, 0);
});

test('without a state folder a commit is enough', async () => {
  const world = new DeliveryHarness({ disk: undefined });
  const agent = world.connect('a');
  agent.report();
  await world.scrapeAll();
  assert.equal(agent.acked, 1);
});

test('for 45 s after the start nobody can be said not to scrape, and acks wait', async () => {
  for (const disk of [undefined, new MemoryState()]) {
    const world = new DeliveryHarness({ disk });
    const agent = world.connect('a');
    agent.report();
    await world.clock.advance(holdMs - 1);
    world.delivery.tidy();
    assert.equal(agent.acked, 0);
    await world.clock.advance(1);
    world.delivery.tidy();
    assert.equal(agent.acked, 1);
    agent.report();
    assert.equal(agent.acked, 2);
  }
});

test('a stop in these 45 s does not say that all was scraped', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const ms = agent.report();
  await world.delivery.flush();
  world.restart();
  const again = agent.reconnect();
  assert.deepEqual(again.acks, []);
  assert.deepEqual(again.last, [[1, 0]]);
  agent.maker.seq = 0;
  again.report(ms);
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
});

test('a kill after a first scrape that had not carried everything loses nothing', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const times: number[] = [];
  for (let report = 0; report < 3; report++) {
    times.push(agent.report());
    await world.clock.advance(5000);
  }
  assert.deepEqual(await world.scrape(connect(), { samplesMax: 1 }), { a: times.slice(0, 1) });
  world.restart();
  const again = agent.reconnect();
  assert.deepEqual(again.last, [[1, 0]]);
  assert.equal(again.acked, 0);
  agent.maker.seq = 0;
  for (const ms of times) again.report(ms);
  assert.deepEqual(await world.scrapeAll(), { a: times });
});

test('of several scrapers the slowest decides', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  await world.scrapeAll({ name: 'fast' });
  await world.scrapeAll({ name: 'slow' });
  agent.report();
  await world.scrapeAll({ name: 'fast' });
  assert.equal(agent.acked, 0);
  await world.scrapeAll({ name: 'slow' });
  assert.equal(agent.acked, 1);
});

test('a scraper that selects an agent holds that one alone', async () => {
  const world = new DeliveryHarness();
  await world.clock.advance(holdMs);
  const [a, b] = [world.connect('a'), world.connect('b')];
  await world.scrapeAll({ selection: [a.record.id] });
  a.report();
  b.report();
  assert.equal(a.acked, 0);
  assert.equal(b.acked, 1);
  await world.scrapeAll({ selection: [a.record.id] });
  assert.equal(a.acked, 1);
});

test('a scraper away for longer than the window holds nothing any more; what it finds then starts where it was', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.report();
  await world.scrapeAll();
  await world.clock.advance(minuteMs);
  const kept: number[] = [];
  for (let minute = 0; minute < 40; minute++) {
    kept.push(agent.report());
    await world.clock.advance(minuteMs);
    world.delivery.tidy();
    assert.equal(agent.acked > 1, minute >= 29, `minute ${minute}`);
  }
  assert.equal(agent.acked, 41);
  assert.ok(world.count('evicted age') > 0);
  assert.equal(world.count('evicted age unscraped'), 0, 'who is gone wants nothing');
  const fromMs = world.clock.nowMs() - windowMs + timeoutMs + 10_000;
  assert.deepEqual(await world.scrapeAll(), { a: kept.filter((ms) => ms > fromMs) });
});

test('what was evicted unscraped is acknowledged, in its turn', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  await world.scrapeAll();
  agent.report();
  await world.clock.advance(windowMs - minuteMs);
  await world.scrapeAll({ samplesMax: 0 });
  agent.report();
  await world.clock.advance(minuteMs + 1000);
  world.delivery.tidy();
  assert.equal(world.count('evicted age unscraped'), 1);
  assert.equal(agent.acked, 1);
});

test('a restart: no report is lost, none is acknowledged early, and a welcome says what was committed', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const connection = connect();
  const first = agent.report();
  await world.scrape(connection);
  await world.scrape(connection);
  await world.clock.advance(5000);
  const second = agent.report();
  world.restart();

  const again = agent.reconnect();
  assert.deepEqual(again.last, [[1, 1]]);
  assert.equal(again.acked, 1);
  agent.maker.seq = 0;
  again.report(first);
  again.report(second);
  assert.deepEqual(world.events.slice(-2), ['duplicate', 'stored']);
  assert.equal(again.acked, 1);
  const next = connect();
  assert.deepEqual(await world.scrape(next), { a: [second] });
  await world.scrape(next);
  assert.equal(again.acked, 2);
});

test('a restart: what was sent and not confirmed is sent again', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const ms = agent.report();
  await world.scrape(connect());
  world.restart();
  const again = agent.reconnect();
  assert.equal(again.acked, 0);
  agent.maker.seq = 0;
  again.report(ms);
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
  assert.equal(world.count('lost restart'), 1);
});

test('a restart after a rollback: it is sent again', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const ms = agent.report();
  const connection = connect();
  await world.scrape(connection);
  await world.end(connection);
  world.restart();
  const again = agent.reconnect();
  assert.equal(again.acked, 0);
  agent.maker.seq = 0;
  again.report(ms);
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
});

test('a restart after a stop whose goodbye was answered: nothing comes twice', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const ms = agent.report();
  const connection = connect();
  await world.scrape(connection);
  await world.end(connection, 'half-closed');
  await world.delivery.flush();
  world.restart();
  const again = agent.reconnect();
  agent.maker.seq = 0;
  again.report(ms);
  assert.deepEqual(await world.scrapeAll(), {});
});

test('a restart: of epochs begun before the committed one, all was committed; of later ones nothing', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const { store } = world.delivery;
  const epochs = [1, 2, 3].map((epoch) => new ReportMaker({ epoch }));
  const receive = (maker: ReportMaker) => {
    store.begin(agent.record, beginOf({ epoch: maker.epoch }));
    for (let report = 0; report < 2; report++) {
      store.receive(agent.record.host, { ...maker.make(world.clock.nowMs() + maker.seq, [1]), follows: false });
    }
  };
  receive(epochs[0]!);
  await world.clock.advance(1000);
  receive(epochs[1]!);
  await world.clock.advance(1000);
  await world.scrapeAll();
  receive(epochs[2]!);
  await world.scrapeAll({ samplesMax: 1 });
  await world.delivery.flush();
  assert.deepEqual(agent.last, [
    [1, 2],
    [2, 2],
    [3, 2],
  ]);
  world.restart();
  const record = world.delivery.store.agents.get(agentId('a')!)!;
  assert.deepEqual(
    [...record.epochs],
    [
      [1, 2],
      [2, 2],
      [3, 1],
    ],
  );
});

test('a restart: an agent with nothing committed is known, and nothing is said of its epochs', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  await world.scrapeAll();
  agent.report();
  await world.delivery.flush();
  const saved = JSON.parse(world.disk!.text!);
  assert.deepEqual(saved.agents[0].epochs, []);
  assert.deepEqual(saved.agents[0].committedMs, []);
  world.restart();
  assert.equal(world.delivery.store.agents.get(agentId('a')!)?.epochs.size, 0);
});

test('a restart: nothing older than what was committed is stored, also where that has left the window', async () => {
  for (const restMs of [0, windowMs + 1]) {
    const world = new DeliveryHarness();
    const agent = world.connect('a');
    const ms = agent.report();
    await world.scrapeAll();
    await world.clock.advance(restMs);
    world.delivery.tidy();
    await world.delivery.flush();
    world.restart();
    world.clock.step(-restMs);
    const other = new ReportMaker({ epoch: 2 });
    const record = world.delivery.store.agent(agent.record.id);
    assert.equal(world.delivery.store.receive(record.host, other.make(ms, [1])), 'not_newer');
    assert.equal(world.delivery.store.receive(record.host, other.make(ms + 1, [1])), 'stored');
  }
});

test('a restart: the day after which an agent is forgotten goes on', async () => {
  const world = new DeliveryHarness();
  world.connect('a').report();
  await world.clock.advance(23 * 3_600_000);
  await world.delivery.flush();
  world.restart();
  await world.clock.advance(3_600_001);
  world.delivery.tidy();
  assert.equal(world.delivery.store.agents.size, 0);
});

test('an agent that had no report when a scraper first came is new to it as a whole', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  await world.scrapeAll();
  const ms = agent.report(world.clock.nowMs() - 20 * minuteMs);
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
});

test('a file that cannot be understood is reported and counts as none', () => {
  const disk = new MemoryState();
  disk.text = '{"version":1';
  const world = new DeliveryHarness({ disk });
  assert.deepEqual(world.events, ['state: not JSON']);
  assert.equal(world.delivery.store.agents.size, 0);
});

test('forgetting an agent: its reports, its positions, its line in the file', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  world.connect('b').report();
  agent.report();
  await world.scrapeAll();
  agent.disconnect();
  world.delivery.forget(agent.record.id);
  await settle();
  const { agents, cursors } = JSON.parse(world.disk!.text!);
  assert.deepEqual(
    agents.map(({ name }: { name: string }) => name),
    ['b'],
  );
  assert.deepEqual(Object.keys(cursors[0].positions), ['b']);
  const again = world.connect('a');
  const ms = again.report();
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
});

test('an agent of which nothing was heard for a day is forgotten everywhere', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.report();
  await world.scrapeAll();
  agent.disconnect();
  await world.clock.advance(24 * 3_600_000 + 1);
  world.delivery.tidy();
  await world.delivery.flush();
  assert.equal(world.delivery.store.agents.size, 0);
  assert.deepEqual(JSON.parse(world.disk!.text!).agents, []);
});

test('a newer connection of an agent gets its acks, and the older one does not take them away when it goes', async () => {
  const world = new DeliveryHarness();
  const older = world.connect('a');
  const newer = older.reconnect();
  older.disconnect();
  newer.report();
  await world.scrapeAll();
  assert.equal(newer.acked, 1);
  assert.deepEqual(older.acks, []);
  newer.disconnect();
  newer.report();
  await world.scrapeAll();
  assert.equal(newer.acked, 1);
});

test('a new agent is new to a scraper that is known, from its first report on', async () => {
  const world = new DeliveryHarness();
  await world.scrapeAll();
  const agent = world.connect('late');
  const nowMs = world.clock.nowMs();
  const times = [20, 10, 0].map((minutes) => agent.report(nowMs - minutes * minuteMs));
  assert.equal(agent.acked, 0);
  assert.deepEqual(await world.scrapeAll(), { late: times });
  assert.equal(agent.acked, 3);
});

test('a scraper never seen is given five minutes of what was acknowledged, and all of what was not', async () => {
  const world = new DeliveryHarness();
  await world.clock.advance(holdMs);
  const [a, b] = [world.connect('a'), world.connect('b')];
  // Nobody scrapes: who is connected is acknowledged.
  b.disconnect();
  const made: number[] = [];
  for (let minute = 0; minute < 12; minute++) {
    made.push(a.report());
    b.report();
    await world.clock.advance(minuteMs);
  }
  assert.equal(a.acked, 12);
  assert.deepEqual(await world.scrape(connect()), { a: made.slice(8), b: made });
});

test('a scraper never seen is given what another has not had yet', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const connection = connect();
  const made: number[] = [];
  for (let minute = 0; minute < 20; minute++) {
    made.push(agent.report());
    // The first goes away after three.
    if (minute < 4) await world.scrape(connection, { name: 'first' });
    await world.clock.advance(minuteMs);
  }
  assert.equal(agent.acked, 3);
  assert.deepEqual(await world.scrape(connect(), { name: 'second' }), { a: made.slice(3) });
});

test('a scraper never seen, after the state was lost, is given everything that the agents still have', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const connection = connect();
  for (let scrape = 0; scrape < 2; scrape++) await world.scrape(connection);
  const made = [20, 10, 0].map((minutes) => agent.report(world.clock.nowMs() - minutes * minuteMs));
  world.disk!.text = undefined;
  world.restart();
  const again = agent.reconnect();
  agent.maker.seq = 0;
  for (const ms of made) again.report(ms);
  assert.deepEqual(await world.scrape(connect()), { a: made });
});

test('a scraper holds acks from its first answer that was sent whole, and until it is forgotten', async () => {
  const world = new DeliveryHarness();
  await world.clock.advance(holdMs);
  const agent = world.connect('a');
  await world.scrape(connect(), { name: 'gone' });
  agent.report();
  await world.scrapeAll();
  assert.equal(agent.acked, 0);
  assert.equal(world.delivery.forgetScraper({ space: 'addr', text: 'gone' }), undefined);
  assert.deepEqual(world.delivery.forgetScraper({ space: 'param', text: 'gone' }), { cursors: 1, freedReports: 1 });
  await settle();
  assert.equal(agent.acked, 1);
});

test('what was given twice and never confirmed is acknowledged', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  for (let scrape = 0; scrape < 3; scrape++) {
    agent.report();
    const connection = connect();
    await world.scrape(connection);
    await world.clock.advance(minuteMs);
    await world.end(connection);
  }
  assert.equal(world.count('assumed'), 1);
  assert.equal(agent.acked, 1);
});

test('a restart: a time that is still to come is forgotten, and what is made then is stored', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  agent.report();
  await world.scrapeAll();
  await world.delivery.flush();
  world.clock.step(-20 * minuteMs);
  world.bootId = 'boot 2';
  world.restart();
  const again = agent.reconnect();
  const ms = again.report();
  assert.equal(world.events.at(-1), 'stored');
  assert.deepEqual(await world.scrapeAll(), { a: [ms] });
});

test('the clock is set while the server is not running: no position is ahead of what agents send again', async () => {
  // One that is set back by less than the time since the last write leaves no time of the future in the file.
  for (const stepMs of [-2001, -8000, -9500, 2001, 7_200_000]) {
    const world = new DeliveryHarness();
    const agent = world.connect('a');
    const fast = connect();
    for (let report = 0; report < 4; report++) {
      agent.report();
      await world.clock.advance(1000);
    }
    await world.scrape(fast);
    const made = [agent.report(), agent.report(world.clock.nowMs() + 500)];
    await world.scrape(fast);
    assert.equal(agent.acked, 4);
    await world.delivery.flush();
    await world.clock.advance(9000);
    world.clock.step(stepMs);
    world.restart();
    assert.equal(world.delivery.steppedBeforeMs, stepMs);
    const next = agent.reconnect();
    assert.deepEqual(next.last, [[1, 4]]);
    next.maker.seq = 4;
    // As well as the agent can measure the new clock: its old offset may have been off by 2 s.
    const again = made.map((timeMs) => next.report(timeMs + stepMs - 2400));
    assert.equal(world.count('not_newer'), 0, `${stepMs} ms`);
    assert.deepEqual((await world.scrape(connect()))['a'], again, `${stepMs} ms`);
  }
});

test('the clock is set back while the host of the server boots: the offset of an epoch that was known before shows it', async () => {
  for (const stepMs of [-2001, -9500, -60_000, -7_200_000]) {
    const world = new DeliveryHarness();
    const agent = world.connect('a');
    const [fast, slow] = [connect(), connect()];
    for (let report = 0; report < 4; report++) {
      agent.report();
      await world.clock.advance(1000);
    }
    for (const [connection, name] of [
      [fast, 'fast'],
      [slow, 'slow'],
    ] as const) {
      await world.scrape(connection, { name });
      await world.scrape(connection, { name });
    }
    const made = [agent.report(), agent.report(world.clock.nowMs() + 500)];
    await world.scrape(fast, { name: 'fast' });
    await world.delivery.flush();
    await world.clock.advance(70_000);
    world.clock.step(stepMs);
    world.bootId = 'boot 2';
    world.restart();
    assert.equal(world.delivery.steppedBeforeMs, 0);
    const next = agent.reconnect({ offsetMs: stepMs });
    next.maker.seq = 4;
    const again = made.map((timeMs) => next.report(timeMs + stepMs));
    assert.equal(world.count('not_newer'), 0, `${stepMs} ms`);
    for (const name of ['fast', 'slow']) {
      assert.deepEqual((await world.scrapeAll({ name }))['a'], again, `${stepMs} ms, ${name}`);
    }
    assert.equal(next.acked, 6);
    // Once is enough, whatever another connection says.
    next.reconnect({ offsetMs: stepMs - 60_000 });
    next.report(again.at(-1)! - 1);
    assert.equal(world.count('not_newer'), 1);
  }
});

test('a step of the clock across a restart is told from drift and from another boot', async () => {
  for (const { stepMs, bootId } of [
    { stepMs: -2000, bootId: 'boot 1' },
    { stepMs: -20_000, bootId: 'boot 2' },
  ]) {
    const world = new DeliveryHarness();
    world.connect('a').report();
    await world.scrapeAll();
    await world.delivery.flush();
    world.clock.step(stepMs);
    world.bootId = bootId;
    world.restart();
    assert.equal(world.delivery.steppedBeforeMs, 0);
  }
});

test('the clock is set: what is not acknowledged comes again with other times, and who lacks it is given it', async () => {
  for (const stepMs of [-7_200_000, -12_000, -2001, 2001, 7_200_000]) {
    for (const errorMs of [-2400, 500]) {
      const world = new DeliveryHarness();
      const agent = world.connect('a');
      const [fast, slow] = [connect(), connect()];
      const times: number[] = [];
      const made = async (count: number) => {
        for (let report = 0; report < count; report++) {
          times.push(agent.report());
          await world.clock.advance(1000);
        }
      };
      await made(4);
      await world.scrape(fast, { name: 'fast' });
      await world.scrape(slow, { name: 'slow' });
      await world.scrape(slow, { name: 'slow' });
      await made(4);
      await world.scrape(fast, { name: 'fast' });
      await world.scrape(fast, { name: 'fast' });
      assert.equal(agent.acked, 4, 'the slow one has four');
      world.clock.step(stepMs);
      world.delivery.clockStepped(stepMs);
      assert.deepEqual(agent.last, [[1, 4]]);
      // By the clock as it is now, as well as the agent can measure it: its old offset may have been off by 2 s.
      const again = times.slice(4).map((timeMs) => timeMs + stepMs + errorMs);
      const next = agent.reconnect();
      next.maker.seq = 4;
      for (const timeMs of again) next.report(timeMs);
      assert.equal(world.count('not_newer'), 0);
      assert.deepEqual((await world.scrape(slow, { name: 'slow' }))['a'], again, `${stepMs} ms`);
      await world.scrape(slow, { name: 'slow' });
      // The fast one had all of them, by their old times: it may be given them again, and is given what comes next.
      await world.clock.advance(5000);
      const nextMs = next.report();
      assert.equal((await world.scrape(fast, { name: 'fast' }))['a']?.at(-1), nextMs, `${stepMs} ms`);
      await world.scrape(fast, { name: 'fast' });
      assert.equal(next.acked, 8);
      assert.equal(world.count('evicted age unscraped'), 0);
    }
  }
});

test('a source that makes room for another is forgotten by cursors and acks, also amid an answer', async () => {
  const world = new DeliveryHarness();
  const agent = world.connect('a');
  const maker = new ReportMaker();
  let seq = 0;
  const rename = (round: number) => {
    for (let source = 1; source <= 60; source++) {
      const begin = beginOf({ source, name: `round-${round}-${source}` });
      const stream = world.delivery.begin(agent.record, begin);
      const made = maker.make(world.clock.nowMs() - source, [1], { key: true });
      world.delivery.store.receive(stream, { ...made, seq: ++seq });
    }
  };
  const connection = connect();
  for (let round = 0; round < 10; round++) {
    rename(2 * round);
    const scrape = await world.open(connection);
    assert.equal(scrape.until.size, 60);
    // Those that the answer gives have gone when it has been sent.
    rename(2 * round + 1);
    scrape.finish();
    await settle();
    assert.equal(agent.record.streamCount, 65);
    for (let minutes = 0; minutes < 35; minutes += 5) {
      await world.clock.advance(5 * minuteMs);
      await world.scrape(connection);
    }
  }
  await world.scrape(connection);
  await world.scrape(connection);
  await world.delivery.flush();
  const { cursors, agents } = parseState(world.disk!.text!);
  const known = new Set<string>([...agent.record.streams].map(({ id }) => id));
  for (const { positions, unconfirmed } of cursors) {
    for (const times of [positions, ...unconfirmed.map(({ until }) => until)]) {
      assert.deepEqual(
        [...times.keys()].filter((stream) => !known.has(stream)),
        [],
      );
    }
  }
  assert.ok([...agents[0]!.committedMs].length <= 65);
});
