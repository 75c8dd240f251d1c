import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import { scrapersMax } from '../../../src/server/delivery/cursors.ts';
import type { ConnectionEvent, ScrapeConnection } from '../../../src/server/delivery/scraper.ts';
import { agentA, agentB, CursorsHarness, connect, hostOf, minuteMs, timeoutMs, windowMs } from './cursors-harness.ts';

// Names.

test('each name, and each selection under it, has a cursor of its own', () => {
  const world = new CursorsHarness();
  const first = world.report();
  world.report(agentB);
  const [one, two, selecting] = [connect(), connect(), connect()];
  assert.deepEqual(world.scrape(one, { name: 'one' }), [first]);
  assert.deepEqual(world.scrape(two, { name: 'two' }), [first]);
  assert.deepEqual(world.scrape(selecting, { name: 'one', selection: agentA }), [first]);
  assert.deepEqual(world.scrape(one, { name: 'one' }), []);
  assert.equal(world.count('conflict one'), 0);
});

test('a parameter, a user and an address of the same text are three scrapers', () => {
  const world = new CursorsHarness();
  const ms = world.report();
  for (const space of ['param', 'user', 'addr'] as const) {
    for (const expected of [[ms], []]) {
      assert.deepEqual(world.scrapeOnce({ name: '192.0.2.1', space }), expected, space);
    }
  }
  assert.equal([...world.cursors.scrapers].length, 3);
});

test('32 names are given a cursor, the next is not, and a name that is known always is', () => {
  const world = new CursorsHarness();
  for (let index = 0; index < scrapersMax; index++) world.scrape(connect(), { name: `p${index}` });
  assert.equal(world.tryOpen(connect(), { name: 'one too many' }), undefined);
  assert.notEqual(world.tryOpen(connect(), { name: 'p0', selection: 'a' }), undefined);
});

test('a name that no longer holds acks makes room for a new one; one with an open connection does not', async () => {
  const world = new CursorsHarness();
  const connections = Array.from({ length: scrapersMax }, () => connect());
  for (const [index, connection] of connections.entries()) world.scrape(connection, { name: `p${index}` });
  await world.clock.advance(windowMs + 1);
  assert.equal(world.tryOpen(connect(), { name: 'new' }), undefined);
  world.end(connections[7]!);
  assert.notEqual(world.tryOpen(connect(), { name: 'new' }), undefined);
  assert.deepEqual(world.all('p7'), []);
  assert.equal(world.count('forgotten p7'), 1);
  assert.equal(world.tryOpen(connect(), { name: 'another' }), undefined);
});

test('a connection counts for the name that used it last: one open connection keeps one name', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  for (let index = 0; index < scrapersMax; index++) world.scrape(connection, { name: `p${index}` });
  await world.clock.advance(windowMs + 1);
  for (let index = 1; index < scrapersMax; index++) {
    assert.notEqual(world.tryOpen(connect(), { name: `new${index}` }), undefined, `new${index}`);
  }
  assert.equal(world.all(`p${scrapersMax - 1}`).length, 1);
  assert.equal(world.tryOpen(connect(), { name: 'one too many' }), undefined);
});

test('the selections of a name are bounded', () => {
  const world = new CursorsHarness();
  const isOpened = (selection: string) => world.tryOpen(connect(), { selection }) !== undefined;
  for (let at = 0; at < 128; at++) assert.equal(isOpened(`s${at}`), true);
  assert.equal(isOpened('one too many'), false);
  assert.equal(isOpened('s7'), true, 'one that is known always is');
  assert.equal(isOpened('s0'), true);
});

test('all selections of a name have no more agents than four cursors for all of them, and all names 1024 selections', () => {
  const world = new CursorsHarness();
  world.agentCount = 300;
  const names = Array.from({ length: world.agentCount }, (_, at) => `host-${at}`);
  const isOpened = (selection: string, name = 'p') => world.tryOpen(connect(), { name, selection }) !== undefined;
  let opened = 0;
  for (let left = 0; left < 20; left++) if (isOpened(names.toSpliced(left, 1).join())) opened++;
  assert.equal(opened, 4);
  assert.equal(isOpened(names.slice(0, 4).join()), true, 'what is left');
  assert.equal(isOpened('host-9'), false);
  assert.equal(isOpened(''), true, 'all');
  for (let at = 0; at < 10; at++) for (const host of names.slice(0, 128)) isOpened(host, `q${at}`);
  assert.equal(
    [...world.cursors.scrapers].reduce((sum, { groups }) => sum + groups.size, 0),
    1024,
  );
});

test('a selection that was asked for once is kept for two hours, any other for a day', async () => {
  const world = new CursorsHarness();
  const tidy = () => world.cursors.tidy([], world.clock.monotonicMs());
  const selections = () => [...world.cursors.scrapers].flatMap(({ groups }) => [...groups.keys()]);
  for (const selection of ['', 'a', 'b']) world.scrapeOnce({ selection });
  await world.clock.advance(minuteMs);
  world.scrapeOnce({ selection: 'b' });
  await world.clock.advance(119 * minuteMs);
  tidy();
  assert.deepEqual(selections(), ['', 'a', 'b']);
  await world.clock.advance(minuteMs);
  tidy();
  assert.deepEqual(selections(), ['', 'b']);
  world.restart();
  world.scrapeOnce({ selection: 'b' });
  await world.clock.advance(3 * 60 * minuteMs);
  tidy();
  assert.ok(selections().includes('b'), 'it was known before the start');
});

// Confirmed by connection.

test('a finished answer is unconfirmed, and the next request on its connection confirms it', () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  world.scrape(connection);
  assert.equal(world.confirmedMs(), -Infinity);
  assert.deepEqual(world.scrape(connection), []);
  assert.equal(world.confirmedMs(), ms);
  assert.equal(world.count('confirmed p'), 1);
});

test('a request for another selection confirms it as well: any target of the scraper may come next', () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const ms = world.report();
  world.scrape(one, { selection: agentA });
  world.scrape(two, { selection: agentB });
  world.scrape(one, { selection: agentB });
  assert.equal(world.confirmedMs(), ms);
  assert.deepEqual(world.scrape(two, { selection: agentA }), []);
});

test('a request of another name does not', () => {
  const world = new CursorsHarness();
  const connection = connect();
  world.report();
  world.scrape(connection, { name: 'p' });
  world.scrape(connection, { name: 'q' });
  assert.equal(world.count('confirmed p'), 0);
  world.scrape(connection, { name: 'p' });
  assert.equal(world.count('confirmed p'), 1);
});

test('time alone confirms nothing: a scraper may stand still for long before it reads', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  world.scrape(connection);
  await world.clock.advance(20 * minuteMs);
  assert.equal(world.count('confirmed p'), 0);
  assert.deepEqual(world.scrape(connection), []);
  assert.equal(world.confirmedMs(), ms);
});

test('how a connection ends, and after how long, says whether its last answer was read', async () => {
  const ends: readonly [ConnectionEvent, restMs: number, event: string, samples?: number][] = [
    [{ kind: 'half-closed' }, 0, 'confirmed p'],
    [{ kind: 'fin', isAcknowledged: true }, 1000, 'confirmed p'],
    [{ kind: 'fin', isAcknowledged: true }, timeoutMs * 0.8 - 1, 'confirmed p'],
    // It had said that it would wait for so long, and may have waited in vain behind a proxy.
    [{ kind: 'fin', isAcknowledged: true }, timeoutMs, 'lost p at rest'],
    [{ kind: 'fin', isAcknowledged: true }, timeoutMs + 1501, 'confirmed p'],
    [{ kind: 'fin', isAcknowledged: true }, 999, 'lost p at once'],
    // A scraper that is killed while it stores many closes its connection, too.
    [{ kind: 'fin', isAcknowledged: true }, 1999, 'lost p at once', 100_000],
    [{ kind: 'fin', isAcknowledged: true }, 2000, 'confirmed p', 100_000],
    [{ kind: 'reset' }, 1000, 'lost p at rest', 100_000],
    [{ kind: 'fin', isAcknowledged: false }, 1000, 'lost p cut'],
    [{ kind: 'fin', isAcknowledged: false }, 999, 'lost p cut'],
    [{ kind: 'reset' }, 1000, 'lost p at rest'],
    [{ kind: 'reset' }, timeoutMs * 0.8 - 1, 'lost p at rest'],
    // It has given up, with bytes unread.
    [{ kind: 'reset' }, timeoutMs * 0.8, 'lost p timed out'],
    [{ kind: 'reset' }, timeoutMs + 1500, 'lost p timed out'],
    [{ kind: 'reset' }, timeoutMs + 1501, 'lost p at rest'],
    [{ kind: 'reset' }, 999, 'lost p cut'],
  ];
  for (const [end, restMs, event, samples = 0] of ends) {
    const world = new CursorsHarness();
    const connection = connect();
    const ms = world.report();
    world.open(connection).finish({ samples });
    await world.clock.advance(restMs);
    for (let time = 0; time < 2; time++) {
      for (const change of world.cursors.ended(connection, end, world.clock.monotonicMs())) {
        world.events.push(change.kind === 'lost' ? `lost p ${change.how}` : `${change.kind} p`);
      }
    }
    assert.deepEqual(world.events, [event]);
    assert.deepEqual(world.scrape(connect()), event === 'confirmed p' ? [] : [ms], event);
    assert.equal(world.count('conflict p'), 0);
  }
});

test('an answer whose connection had ended before all of it was sent was not given', () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  const open = world.open(connection);
  world.end(connection, 'fin');
  open.finish();
  assert.deepEqual(world.events, ['lost p aborted']);
  assert.equal(world.cursors.sentMs(hostOf(agentA), agentA, 0), Infinity, 'nor is the scraper known');
  assert.deepEqual(world.scrape(connect()), [ms]);
});

test('an aborted answer leaves the cursor where it was, however old it is', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  world.open(connection).abort();
  world.end(connection);
  assert.deepEqual(world.events, ['lost p aborted']);
  await world.clock.advance(20 * minuteMs);
  assert.deepEqual(world.scrape(connect()), [ms]);
});

test('new data always flow: an answer that is never confirmed is given twice, and then the next', async () => {
  const world = new CursorsHarness();
  const given: number[][] = [];
  const made: number[] = [];
  for (let scrape = 0; scrape < 6; scrape++) {
    made.push(world.report());
    const connection = connect();
    given.push(world.scrape(connection));
    await world.clock.advance(6 * minuteMs);
    world.end(connection, 'reset');
  }
  for (const [at, times] of given.entries()) assert.deepEqual(times, made.slice(Math.max(0, at - 1), at + 1));
  assert.equal(world.count('assumed p'), 4);
  const assumed = world.changes.flatMap((change) => (change.kind === 'assumed' ? change.assumed : []));
  assert.deepEqual(
    assumed.map(({ untilMs }) => untilMs),
    made.slice(0, 4),
  );
  assert.equal(world.confirmedMs(), made[3], 'acks go on');
});

test('a scraper that is too busy to read, and gives up each time, is given the same four times', async () => {
  const world = new CursorsHarness();
  const made: number[] = [];
  for (let scrape = 0; scrape < 4; scrape++) {
    made.push(world.report());
    const connection = connect();
    assert.deepEqual(world.scrape(connection), made, `scrape ${scrape}`);
    await world.clock.advance(timeoutMs);
    world.end(connection, 'reset');
    await world.clock.advance(5000);
  }
  assert.equal(world.confirmedMs(), -Infinity, 'nothing is acknowledged');
  assert.deepEqual(world.scrape(connect()), made.slice(1));
  assert.equal(world.count('assumed p'), 1);
});

test('new data flow where each connection is reset as its scrape times out', async () => {
  const world = new CursorsHarness();
  const given: number[] = [];
  for (let scrape = 0; scrape < 20; scrape++) {
    world.report();
    const connection = connect();
    given.push(world.scrape(connection).length);
    await world.clock.advance(timeoutMs);
    world.end(connection, 'reset');
  }
  assert.ok(
    given.every((count) => count <= 4),
    given.join(),
  );
});

test('a scraper that is killed by its answers is given them more often', async () => {
  const world = new CursorsHarness();
  const ms = world.report();
  for (let kill = 0; kill < 4; kill++) {
    const connection = connect();
    assert.deepEqual(world.scrape(connection), [ms], `kill ${kill}`);
    await world.clock.advance(100);
    world.end(connection, 'fin');
    await world.clock.advance(15_000);
  }
  assert.deepEqual(world.scrape(connect()), []);
  assert.equal(world.count('assumed p'), 1);
});

test('a pool gives the targets of a job to any connection: no conflict, no cursor but one of each, no repetition', async () => {
  const world = new CursorsHarness();
  const agents = Array.from({ length: 5 }, (_, at) => agentId(`a${at}`)!);
  const pool = [connect(), connect(), connect()];
  let repeated = 0;
  for (let round = 0; round < 20; round++) {
    for (const agent of agents) world.report(agent);
    for (const [at, agent] of agents.entries()) {
      const open = world.open(pool[(at + round) % pool.length]!, { selection: agent });
      repeated += (open.given.get(agent)?.length ?? 0) - 1;
      open.finish();
      await world.clock.advance(100);
    }
    await world.clock.advance(5000);
  }
  assert.ok(repeated <= 3, `${repeated} reports were given again`);
  assert.equal(world.count('conflict p'), 0);
  assert.equal(world.all().length, agents.length);
  for (const agent of agents) assert.ok(world.confirmedMs(agent) > -Infinity);
});

// Known, and away.

test('acks wait for the slowest of the scrapers that are known, each for what it selects', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  world.report(agentB);
  world.scrapeOnce({ name: 'fast' });
  world.scrapeOnce({ name: 'slow' });
  world.scrapeOnce({ name: 'other', selection: agentB });
  await world.clock.advance(5000);
  const second = world.report();
  world.scrapeOnce({ name: 'fast' });
  assert.equal(world.confirmedMs(), first);
  world.scrapeOnce({ name: 'slow' });
  assert.equal(world.confirmedMs(), second);
});

test('a scraper is known from its first answer that was sent whole', () => {
  const world = new CursorsHarness();
  const connection = connect();
  world.report();
  const open = world.open(connection);
  assert.equal(world.confirmedMs(), Infinity);
  open.finish();
  assert.equal(world.confirmedMs(), -Infinity);
  world.end(connection);
  assert.equal(world.confirmedMs(), -Infinity, 'and stays so');
});

test('after the window a cursor holds no acks and wants nothing; its position is kept for a day', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  world.scrapeOnce();
  await world.clock.advance(windowMs);
  assert.equal(world.confirmedMs(), first);
  await world.clock.advance(1);
  world.tidy();
  assert.equal(world.confirmedMs(), Infinity);
  assert.equal(world.sentMs(), Infinity);
  await world.clock.advance(20 * 3_600_000);
  const second = world.report();
  world.tidy();
  assert.deepEqual(world.scrape(connect()), [second]);
  await world.clock.advance(24 * 3_600_000 + 1);
  world.tidy();
  assert.deepEqual([...world.cursors.scrapers], []);
  assert.equal(world.count('forgotten p'), 1);
});

test('a scraper can be forgotten', () => {
  const world = new CursorsHarness();
  world.report();
  world.scrape(connect());
  world.forget({ space: 'addr', text: 'p' });
  assert.notEqual(world.confirmedMs(), Infinity);
  world.forget({ space: 'param', text: 'p' });
  assert.equal(world.confirmedMs(), Infinity);
  assert.deepEqual(world.events, ['forgotten p']);
});

test('what an answer has given is no loss when it leaves the window in its time', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const confirmed = world.report();
  world.scrape(connection);
  await world.clock.advance(1000);
  const given = world.report();
  world.scrape(connection);
  assert.equal(world.sentMs(), given);
  assert.equal(world.confirmedMs(), confirmed);
});

test('a forgotten agent is forgotten in every cursor, what is pending included', () => {
  const world = new CursorsHarness();
  const connection = connect();
  world.report();
  world.report(agentB);
  world.scrape(connection);
  world.reports.delete(agentA);
  world.tidy([agentA]);
  world.scrape(connection);
  assert.deepEqual([...world.all()[0]!.positions.keys()], [hostOf(agentB)]);
});

test('a cursor knows how long ago its last scrape was, and the one before', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  assert.deepEqual(world.open(connection).cursor.intervalsMs, [undefined, undefined]);
  await world.clock.advance(15_000);
  const second = world.open(connection).cursor;
  assert.equal(second.intervalsMs[0], 15_000);
  assert.equal(second.intervalMs, undefined);
  await world.clock.advance(30_000);
  const third = world.open(connection).cursor;
  assert.equal(third.intervalsMs[0], 30_000);
  assert.equal(third.intervalMs, 15_000, 'one may have been missed');
});

// Restarts and clocks.

test('positions come back after a restart; what was unconfirmed is given again', () => {
  const world = new CursorsHarness();
  const [confirmed, pending, lost] = [connect(), connect(), connect()];
  const odd = agentId('__proto__')!;
  const first = world.report();
  world.report(odd);
  world.scrape(confirmed, { name: 'confirmed' });
  world.scrape(confirmed, { name: 'confirmed' });
  world.scrape(pending, { name: 'pending' });
  world.scrape(lost, { name: 'lost' });
  world.end(lost);
  world.restart();
  for (const name of ['pending', 'lost']) {
    const { given, cursor } = world.open(connect(), { name });
    assert.deepEqual([...given.keys()].sort(), [odd, agentA].sort());
    assert.equal(cursor.sentMs(hostOf(agentA)), first);
    assert.equal(cursor.sentMs(hostOf(odd)), first);
    assert.equal(world.count(`lost ${name} restart`), 1);
  }
  assert.equal(world.open(connect(), { name: 'confirmed' }).given.size, 0);
  assert.equal(world.count('lost confirmed restart'), 0);
});

test('a server that restarts again and again gives what is unconfirmed again and again, but not for ever', () => {
  const world = new CursorsHarness();
  const ms = world.report();
  for (let restart = 0; restart < 4; restart++) {
    assert.deepEqual(world.scrape(connect()), [ms], `restart ${restart}`);
    world.restart();
  }
  assert.deepEqual(world.scrape(connect()), []);
});

test('a position of the future is forgotten at a restart', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const past = world.report(agentB);
  await world.clock.advance(1000);
  const future = world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(connection);
  world.clock.step(-500);
  world.restart();
  const { cursor } = world.open(connect());
  assert.equal(cursor.positionMs(hostOf(agentA)), -Infinity);
  assert.equal(cursor.positionMs(hostOf(agentB)), past);
  assert.ok(past < future);
});

test('after a step of the clock pending answers are given again, and nothing that is made then is passed over', async () => {
  for (const deltaMs of [-3_600_000, 3_600_000]) {
    const world = new CursorsHarness();
    const connection = connect();
    world.report();
    for (let scrape = 0; scrape < 2; scrape++) world.scrape(connection);
    await world.clock.advance(1000);
    world.report();
    world.scrape(connection);
    const open = world.open(connect(), { name: 'q' });
    world.step(deltaMs);
    assert.equal(world.count('lost p clock'), 1);
    open.finish();
    assert.deepEqual(open.cursor.answers, []);
    await world.clock.advance(1000);
    const made = world.report();
    assert.ok(world.scrape(connection).includes(made), `${deltaMs}`);
  }
});

// Addresses.

test('a scraper that is named by its address takes over the only one that has gone silent', async () => {
  const world = new CursorsHarness();
  const had = world.report();
  const old = connect('127.0.0.1');
  for (let scrape = 0; scrape < 4; scrape++) {
    world.scrape(old, { name: '127.0.0.1', space: 'addr' });
    await world.clock.advance(15_000);
  }
  const missed = world.report();
  assert.deepEqual(world.scrape(connect('::1'), { name: '::1', space: 'addr' }), [had, missed], 'still there');
  world.forget({ space: 'addr', text: '::1' });
  world.end(old, 'half-closed');
  await world.clock.advance(minuteMs);
  assert.deepEqual(world.scrape(connect('::1'), { name: '::1', space: 'addr' }), [missed]);
  assert.equal(world.count('::1 took over 127.0.0.1'), 1);
  assert.equal(world.count('forgotten 127.0.0.1'), 1);
  assert.deepEqual(world.all('127.0.0.1'), []);
});

test('of two that have gone silent none is taken over, nor one that is named otherwise', async () => {
  const world = new CursorsHarness();
  for (const [name, space] of [
    ['192.0.2.1', 'addr'],
    ['192.0.2.2', 'addr'],
    ['p', 'param'],
  ] as const) {
    for (let scrape = 0; scrape < 3; scrape++) world.scrapeOnce({ name, space });
  }
  await world.clock.advance(5 * minuteMs);
  world.scrapeOnce({ name: '192.0.2.3', space: 'addr' });
  world.forget({ space: 'addr', text: '192.0.2.1' });
  world.forget({ space: 'addr', text: '192.0.2.2' });
  world.forget({ space: 'addr', text: '192.0.2.3' });
  world.scrapeOnce({ name: '192.0.2.4', space: 'addr' });
  assert.deepEqual(
    world.events.filter((event) => event.includes('took over')),
    [],
  );
});

test('who could not come because the server was not there is not silent', async () => {
  const world = new CursorsHarness();
  for (let scrape = 0; scrape < 3; scrape++) world.scrapeOnce({ name: '192.0.2.1', space: 'addr' });
  await world.clock.advance(20 * minuteMs);
  world.restart();
  world.scrapeOnce({ name: '192.0.2.3', space: 'addr' });
  assert.equal(world.count('192.0.2.3 took over 192.0.2.1'), 0);
});

test('a name that comes from another address, while its own may come back, takes nothing from it', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  for (let scrape = 0; scrape < 4; scrape++) {
    world.scrapeOnce();
    await world.clock.advance(15_000);
  }
  // It restarts; meanwhile somebody else asks in its name, and reads.
  const missed = world.report();
  const other = connect('198.51.100.9');
  assert.deepEqual(world.scrape(other), [missed]);
  world.scrape(other);
  assert.equal(world.count('another address p'), 1);
  assert.ok(world.confirmedMs() < missed);
  assert.deepEqual(world.scrape(connect()), [missed]);
  assert.ok(first < missed);
});

test('while a scraper that is named by its address restarts, nobody reads what is made for it', async () => {
  const world = new CursorsHarness();
  const victim = { name: '192.0.2.1', space: 'addr' } as const;
  world.report();
  for (let scrape = 0; scrape < 4; scrape++) {
    world.scrapeOnce(victim);
    await world.clock.advance(5000);
  }
  const [byParameter, byAddress] = [connect('198.51.100.9'), connect('198.51.100.9')];
  const made: number[] = [];
  for (let second = 0; second < 15; second++) {
    made.push(world.report());
    world.scrape(byParameter, { name: '192.0.2.1', space: 'param' });
    world.scrape(byAddress, { name: '198.51.100.9', space: 'addr' });
    await world.clock.advance(1000);
  }
  assert.deepEqual(world.scrape(connect(), victim), made);
});

test('a name that comes from another address, and whose own has been silent, goes on', async () => {
  const world = new CursorsHarness();
  world.report();
  for (let scrape = 0; scrape < 4; scrape++) {
    world.scrapeOnce();
    await world.clock.advance(15_000);
  }
  const missed = world.report();
  await world.clock.advance(minuteMs);
  assert.deepEqual(world.scrape(connect('198.51.100.9')), [missed]);
  assert.equal(world.all().length, 1);
  assert.equal(world.count('another address p'), 1);
});

// Several scrapers of one name.

test('two open connections of one name have a cursor each, and each is given everything', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const given: number[][] = [[], []];
  const made: number[] = [];
  for (let round = 0; round < 5; round++) {
    made.push(world.report());
    given[0]!.push(...world.scrape(one));
    await world.clock.advance(2500);
    given[1]!.push(...world.scrape(two));
    await world.clock.advance(2500);
  }
  assert.deepEqual(given[0], made);
  // The second has begun when nobody could know what had become of the first one's answer.
  assert.deepEqual(given[1], made);
  assert.equal(world.count('conflict p'), 1);
});

test('acks wait for the second connection of a known name from its first scrape on', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const first = world.report();
  world.scrape(one);
  world.scrape(one);
  world.open(two);
  await world.clock.advance(1000);
  world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(one);
  assert.equal(world.confirmedMs(), first);
});

test('a first connection that is dead without a sign: its cursor goes when it ends, and there is no conflict', async () => {
  const world = new CursorsHarness();
  const [dead, next] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(dead);
  await world.clock.advance(1000);
  const second = world.report();
  for (let scrape = 0; scrape < 3; scrape++) world.scrape(next);
  assert.ok(world.confirmedMs() < second);
  world.end(dead);
  assert.equal(world.confirmedMs(), second);
  assert.equal(world.all().length, 1);
  assert.equal(world.count('conflict p'), 0);
});

test('a late request of a connection that is dead makes no conflict with the one that lives', () => {
  const world = new CursorsHarness();
  const [dead, living] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(dead);
  world.scrape(living);
  world.scrape(dead);
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(living);
  world.end(dead);
  assert.equal(world.count('conflict p'), 0);
  assert.equal(world.all().length, 1);
});

test('one line that is cut again and again makes neither a conflict nor cursors that stay', async () => {
  const world = new CursorsHarness();
  const connections = Array.from({ length: 12 }, () => connect());
  for (const [at, connection] of connections.entries()) {
    world.report();
    for (let scrape = 0; scrape <= at % 3; scrape++) world.scrape(connection);
    await world.clock.advance(2000);
    if (at % 4 === 3) world.end(connection);
  }
  assert.ok(world.all().length <= 4);
  for (const connection of connections.slice(0, -1)) world.end(connection);
  assert.equal(world.count('conflict p'), 0);
  world.scrape(connections.at(-1)!);
  assert.equal(world.all().length, 1);
});

test('what a paused server finds when it wakes up, all given up on, loses nothing', async () => {
  const world = new CursorsHarness();
  const [alive, ...late] = Array.from({ length: 20 }, () => connect());
  world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(alive!);
  await world.clock.advance(40_000);
  const missed = world.report();
  for (const connection of late) {
    world.scrape(connection);
    world.end(connection, 'fin');
  }
  world.end(alive!);
  assert.deepEqual(world.scrape(connect()), [missed]);
  assert.equal(world.count('assumed p'), 0);
});

test('whichever of two comes back after a break starts from the oldest of both', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  world.end(two);
  await world.clock.advance(1000);
  const missed = world.report();
  assert.deepEqual(world.scrape(one), [missed]);
  assert.deepEqual(world.scrape(connect()), [missed]);
  assert.equal(world.count('conflict p'), 1);
});

test('both go away, and come back in any order: none has lost anything', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  for (const connection of [one, two]) world.end(connection);
  await world.clock.advance(20 * minuteMs);
  const missed = world.report();
  const again = connect();
  assert.deepEqual(world.scrape(again), [missed]);
  // Once more, before the second is there: it must not use up what is kept for the second.
  world.scrape(again);
  world.end(again);
  world.scrape(connect());
  assert.deepEqual(world.scrape(connect()), [missed]);
});

test('one is away, and the connection of the other dies without a sign: what the first has missed is kept', async () => {
  const world = new CursorsHarness();
  const [one, two, next] = [connect(), connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  world.end(one);
  await world.clock.advance(1000);
  const missed = world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(two);
  // Of the first that is back, or of the second whose line was cut.
  assert.deepEqual(world.scrape(next), [missed]);
  world.scrape(next);
  world.end(two);
  assert.deepEqual(world.scrape(connect()), [missed]);
});

test('when as many are at work as ever were, nobody is missing, and what was left behind goes', async () => {
  const world = new CursorsHarness();
  const [one, two, back] = [connect(), connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  world.end(two);
  await world.clock.advance(1000);
  const missed = world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(back);
  }
  assert.equal(world.all().length, 2);
  assert.equal(world.confirmedMs(), missed);
});

test('of two cursors that are both abandoned, one stays for a day, at the older position, known if one was', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  world.end(one);
  await world.clock.advance(1000);
  const missedByOne = world.report();
  for (let scrape = 0; scrape < 2; scrape++) world.scrape(two);
  world.end(two);
  await world.clock.advance(windowMs + 1);
  world.tidy();
  assert.equal(world.all().length, 1);
  const open = world.open(connect());
  assert.deepEqual(open.given.get(agentA), [missedByOne]);
  assert.ok(world.confirmedMs() < missedByOne);
});

test('one of two that has been away for the window goes', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  await world.clock.advance(windowMs + 1);
  world.scrape(two);
  world.tidy();
  assert.equal(world.all().length, 1);
});

test('a name has four cursors at the most', () => {
  const world = new CursorsHarness();
  world.report();
  const connections = Array.from({ length: 6 }, () => connect());
  for (const connection of connections) world.scrape(connection);
  assert.equal(world.all().length, 4);
  // Five that are at work: the last gets the newest values.
  const busy = new CursorsHarness();
  const working = connections.slice(0, 4).map(() => connect());
  for (const [at] of working.entries()) {
    for (let scrape = 0; scrape < 3; scrape++)
      for (const connection of working.slice(0, at + 1)) busy.scrape(connection);
  }
  assert.equal(busy.all().length, 4);
  assert.equal(busy.tryOpen(connect()), undefined);
});

test('two of one name get on, however many cursors others have left behind', async () => {
  const world = new CursorsHarness();
  world.report();
  const left = Array.from({ length: 4 }, () => connect());
  for (let scrape = 0; scrape < 3; scrape++) for (const connection of left) world.scrape(connection);
  for (const connection of left.slice(0, 3)) world.end(connection);
  const [one, two] = [left[3]!, connect()];
  const given: number[][] = [[], []];
  const made: number[] = [];
  for (let round = 0; round < 4; round++) {
    await world.clock.advance(5000);
    made.push(world.report());
    given[0]!.push(...world.scrape(one));
    given[1]!.push(...world.scrape(two));
    // Another that comes and goes.
    if (round === 1) world.scrapeOnce();
  }
  assert.deepEqual(given, [made, made]);
  assert.equal(world.count('assumed p'), 0);
});

test('two of one name are waited for after a restart of the server, too', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    world.scrape(one);
    world.scrape(two);
  }
  world.end(two);
  await world.clock.advance(10 * minuteMs);
  const second = world.report();
  world.restart();
  world.tidy();
  const again = connect();
  for (const expected of [[second], []]) assert.deepEqual(world.scrape(again), expected);
  assert.deepEqual(world.scrape(connect()), [second]);
});

/** A Prometheus: what it has stored, and the connection it uses. */
interface Prometheus {
  readonly name: string;
  readonly stored: Map<AgentId, Set<number>>;
  connection: ScrapeConnection | undefined;
}

const agents = [agentA, agentB];
const action = fc.record({
  dtMs: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 15_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 6 * minuteMs }) },
  ),
  agent: fc.constantFrom(...agents),
  prometheus: fc.nat(3),
  reportsMax: fc.constantFrom(1, 2, 5, Infinity),
  what: fc.constantFrom(
    ...(['scrape', 'scrape', 'scrape', 'scrape', 'abort', 'read, then close', 'killed', 'never arrives'] as const),
    ...(['leave open', 'restart', 'tidy'] as const),
  ),
});

type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;

const steps = (...each: readonly (readonly [Action['what'], prometheus: number, dtMs?: number])[]): Action[] =>
  each.map(([what, prometheus, dtMs = 0]) => ({ dtMs, agent: agents[0]!, prometheus, reportsMax: 1, what }));

// Both found by the test below: a cursor made room whose Prometheus dialled again.
const roomMade: Action[][] = [
  [
    ...steps(['restart', 0], ['scrape', 2], ['scrape', 3], ['abort', 2], ['read, then close', 2, 1000]),
    ...steps(['scrape', 2], ['scrape', 2], ['scrape', 0], ['scrape', 0], ['abort', 3], ['scrape', 0], ['scrape', 0]),
  ],
  [
    ...steps(['abort', 2], ['scrape', 2], ['never arrives', 2], ['abort', 3], ['scrape', 2], ['abort', 3]),
    ...steps(['scrape', 0], ['scrape', 0], ['scrape', 0]),
  ],
];

test('every report is given to every scraper, or counted', () => {
  let conflicts = 0;
  let assumptions = 0;
  return fc
    .assert(
      fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 60 }), async (history) => {
        const world = new CursorsHarness();
        // Two alone under their names, two behind one.
        const all = ['one', 'two', 'shared', 'shared'].map((name): Prometheus => {
          const stored = new Map(agents.map((agent) => [agent, new Set<number>()]));
          return { name, stored, connection: undefined };
        });
        const open = (prometheus: Prometheus, reportsMax: number) => {
          prometheus.connection ??= connect();
          return world.open(prometheus.connection, { name: prometheus.name, reportsMax });
        };
        const scrape = (prometheus: Prometheus, reportsMax = Infinity) => {
          const opened = open(prometheus, reportsMax);
          opened.finish();
          for (const [agent, times] of opened.given) for (const ms of times) prometheus.stored.get(agent)!.add(ms);
        };
        const close = (prometheus: Prometheus) => {
          if (prometheus.connection !== undefined) world.end(prometheus.connection);
          prometheus.connection = undefined;
        };
        world.report();
        // Before the two under one name have been seen at work, nobody can know that there are two.
        for (let round = 0; round < 3; round++) for (const prometheus of all) scrape(prometheus);

        for (const { dtMs, agent, prometheus: index, reportsMax, what } of history) {
          await world.clock.advance(dtMs);
          world.report(agent);
          await world.clock.advance(1);
          const prometheus = all[index]!;
          if (what === 'tidy') world.tidy();
          else if (what === 'leave open') prometheus.connection = undefined;
          else if (what === 'restart') {
            for (const each of all) close(each);
            world.restart();
          } else if (what === 'scrape') scrape(prometheus, reportsMax);
          else if (what === 'read, then close') {
            scrape(prometheus, reportsMax);
            await world.clock.advance(dtMs);
            close(prometheus);
          } else {
            const opened = open(prometheus, reportsMax);
            if (what === 'abort') opened.abort();
            else opened.finish();
            if (what === 'never arrives') prometheus.connection = undefined;
            else close(prometheus);
          }
        }
        for (let round = 0; round < 2; round++) for (const prometheus of all) scrape(prometheus);
        conflicts += world.count('conflict shared');
        for (const { name, stored } of all) {
          const counted = world.changes.flatMap((change) =>
            change.kind === 'assumed' && change.scraper.name.text === name ? change.assumed : [],
          );
          assumptions += counted.length;
          for (const agent of agents) {
            const isCounted = (ms: number) =>
              counted.some(({ stream, afterMs, untilMs }) => stream === hostOf(agent) && afterMs < ms && ms <= untilMs);
            const lacks = (world.reports.get(agent) ?? []).filter(
              (ms) => !stored.get(agent)!.has(ms) && !isCounted(ms),
            );
            assert.deepEqual(lacks, [], `${name} lacks reports of ${agent}`);
          }
        }
      }),
      { numRuns: 200, examples: roomMade.map((history): [Action[]] => [history]) },
    )
    .then(() => {
      assert.ok(conflicts > 0, 'no history with a conflict');
      assert.ok(assumptions > 0, 'no history in which anything was given twice');
    });
});
