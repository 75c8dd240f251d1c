import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import { type ScrapeConnection, samplesMaxDefault, scrapersMax } from '../../../src/server/delivery/cursors.ts';
import { agentA, agentB, CursorsHarness, connect, minuteMs, timeoutMs, windowMs } from './cursors-harness.ts';

test('rule 1: each name, and each selection under it, has a cursor of its own', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  world.report(agentB);
  const [one, two, selecting] = [connect(), connect(), connect()];
  assert.deepEqual(await world.scrape(one, { name: 'one' }), [first]);
  assert.deepEqual(await world.scrape(two, { name: 'two' }), [first]);
  assert.deepEqual(await world.scrape(selecting, { name: 'one', selection: agentA }), [first]);
  assert.deepEqual(await world.scrape(one, { name: 'one' }), []);
  assert.equal(world.count('conflict one'), 0);
});

test('rule 1: 32 names are given a cursor, the next is not, and a name that is known always is', async () => {
  const world = new CursorsHarness();
  for (let index = 0; index < scrapersMax; index++) await world.scrape(connect(), { name: `p${index}` });
  const request = { selection: '', connection: connect(), timeoutMs };
  assert.equal(await world.cursors.open({ ...request, name: 'one too many' }), undefined);
  assert.notEqual(await world.cursors.open({ ...request, name: 'p0', selection: 'a' }), undefined);
});

test('rule 1: a name that no longer holds acks makes room for a new one; one with an open connection does not', async () => {
  const world = new CursorsHarness();
  const connections = Array.from({ length: scrapersMax }, connect);
  for (const [index, connection] of connections.entries()) await world.scrape(connection, { name: `p${index}` });
  await world.clock.advance(windowMs + 1);
  const request = { name: 'new', selection: '', connection: connect(), timeoutMs };
  assert.equal(await world.cursors.open(request), undefined);
  world.cursors.closed(connections[7]!);
  assert.notEqual(await world.cursors.open(request), undefined);
  assert.equal(
    [...world.cursors.scrapers].some(({ name }) => name === 'p7'),
    false,
  );
  assert.equal(world.count('forgotten p7'), 1);
  assert.equal(await world.cursors.open({ ...request, name: 'another' }), undefined);
});

test('rule 1: the selections of a name are bounded', async () => {
  const world = new CursorsHarness();
  const opened = async (selection: string) =>
    (await world.cursors.open({ name: 'p', selection, connection: connect(), timeoutMs })) !== undefined;
  const saved = { scraper: 'p', seenAtMs: world.clock.nowMs(), known: true, positions: {} };
  const selections = Array.from({ length: 32 * 128 - 1 }, (_, index) => `s${index}`);
  world.cursors.restore(selections.map((selection) => ({ ...saved, selection })));
  assert.equal(await opened('s0'), true);
  assert.equal(await opened('last'), true);
  assert.equal(await opened('one too many'), false);
});

test('rule 2: a finished scrape is pending, and the next request on its connection commits it', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  await world.scrape(connection);
  assert.equal(world.cursors.committedMs(agentA), Infinity);
  assert.ok(world.cursors.savedMs(agentA) < ms);
  assert.deepEqual(await world.scrape(connection), []);
  assert.equal(world.cursors.committedMs(agentA), ms);
  assert.equal(world.count('committed p'), 1);
});

test('rule 2: time alone commits nothing: a scraper may stand still for long before it reads', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  await world.scrape(connection);
  await world.clock.advance(20 * minuteMs);
  assert.equal(world.count('committed p'), 0);
  assert.deepEqual(await world.scrape(connection), []);
  assert.equal(world.cursors.committedMs(agentA), ms);
  assert.equal(world.clock.timers, 0);
});

test('rule 2: a close before that rolls back, and what was sent is sent again', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  await world.scrape(connection);
  world.cursors.closed(connection);
  assert.equal(world.count('rolled back p unconfirmed'), 1);
  assert.equal(world.clock.timers, 0);
  assert.deepEqual(await world.scrape(connect()), [ms]);
  assert.equal(world.count('conflict p'), 0);
});

test('rule 2: a close that has arrived, but is seen only after the next request, makes no second scraper', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  await world.scrape(connection);
  // As after a pause of the whole process: the next request is read, and the close right behind it.
  world.inTurn = () => world.cursors.closed(connection);
  assert.deepEqual(await world.scrape(connect()), [ms]);
  assert.equal(world.count('committed p'), 0);
  assert.equal(world.count('rolled back p unconfirmed'), 1);
  assert.equal([...world.cursors.scrapers][0]?.cursors.length, 1);
});

test('rule 2: a connection that was closed when its response finished rolls back', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  const open = await world.open(connection);
  world.cursors.closed(connection);
  open.finish();
  assert.equal(world.count('rolled back p unconfirmed'), 1);
  assert.deepEqual(await world.scrape(connect()), [ms]);
});

test('rule 2: an aborted response leaves the cursor where it was, however old it is', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  (await world.open(connection)).scrape.abort();
  world.cursors.closed(connection);
  assert.equal(world.count('rolled back p aborted'), 1);
  await world.clock.advance(20 * minuteMs);
  assert.deepEqual(await world.scrape(connect()), [ms]);
});

test('rule 2: another connection of the name commits nothing: the first may be dead, and never have carried it', async () => {
  const world = new CursorsHarness();
  const [gone, next] = [connect(), connect()];
  const ms = world.report();
  await world.scrape(gone);
  assert.deepEqual(await world.scrape(next), [ms]);
  await world.scrape(next);
  assert.equal(world.count('committed p'), 1);
  assert.equal(world.count('conflict p'), 0);
});

test('rule 2: another connection takes over the cursor of one that is known to be dead', async () => {
  const world = new CursorsHarness();
  const [gone, next] = [connect(), connect()];
  const ms = world.report();
  world.undelivered.add(gone);
  await world.scrape(gone);
  assert.deepEqual(await world.scrape(next), [ms]);
  assert.equal(world.count('rolled back p unconfirmed'), 1);
  assert.equal([...world.cursors.scrapers][0]?.cursors.length, 1);
});

test('rule 2: a connection that was taken for dead and is only slow is a connection like any other', async () => {
  const world = new CursorsHarness();
  const [slow, other] = [connect(), connect()];
  const first = world.report();
  world.undelivered.add(slow);
  await world.scrape(slow);
  await world.scrape(other);
  world.undelivered.clear();
  await world.scrape(slow);
  await world.clock.advance(1000);
  const second = world.report();
  assert.deepEqual(await world.scrape(slow), [second]);
  assert.deepEqual(await world.scrape(slow), []);
  assert.deepEqual(await world.scrape(other), [second]);
  await world.scrape(other);
  assert.equal(world.count('conflict p'), 1);
  assert.ok(first < second);
});

test('rule 2: a response that finishes after another connection has taken its cursor over changes nothing there', async () => {
  const world = new CursorsHarness();
  const [old, next] = [connect(), connect()];
  const first = world.report();
  const open = await world.open(old);
  world.cursors.closed(old);
  await world.clock.advance(1000);
  const second = world.report();
  assert.deepEqual(await world.scrape(next), [first, second]);
  open.finish();
  assert.equal(world.count('rolled back p unconfirmed'), 1);
  assert.deepEqual(await world.scrape(next), []);
  assert.equal(world.cursors.committedMs(agentA), second);
});

test('rule 2: a connection that ends while it waits for its turn leaves no cursor behind', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  await world.scrape(one);
  const opening = world.scrape(two);
  world.cursors.closed(two);
  await opening;
  assert.equal(world.count('conflict p'), 0);
  const [scraper] = [...world.cursors.scrapers];
  assert.equal(scraper?.cursors.length, 1);
});

test('a goodbye that the peer has answered commits what was pending before it', async () => {
  const world = new CursorsHarness();
  const [read, lost] = [connect(), connect()];
  const ms = world.report();
  await world.scrape(read, { name: 'read' });
  await world.scrape(lost, { name: 'lost' });
  world.cursors.closed(read, { isAllRead: true });
  assert.deepEqual(world.events.slice(-2), ['committed read', 'changed']);
  world.cursors.closed(lost);
  assert.equal(world.count('committed lost'), 0);
  assert.equal(world.count('rolled back lost unconfirmed'), 1);
  assert.equal(world.cursors.committedMs(agentA), ms);
});

test('rule 4: what a response gave that was taken back is given again, however old, and known to be nothing new', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  await world.scrape(connection);
  world.cursors.closed(connection);
  await world.clock.advance(20 * minuteMs);
  const again = connect();
  const open = await world.open(again);
  assert.deepEqual(open.given.get(agentA), [ms]);
  assert.equal(open.scrape.offeredMs(agentA), ms);
  open.finish();
  assert.equal((await world.open(again)).scrape.offeredMs(agentA), -Infinity);
});

test('rule 4: what a rolled-back response had given is remembered through a smaller one', async () => {
  for (const smaller of ['is read', 'is rolled back'] as const) {
    const world = new CursorsHarness();
    const times: number[] = [];
    for (let report = 0; report < 4; report++) {
      times.push(world.report());
      await world.clock.advance(1000);
    }
    let connection = connect();
    assert.deepEqual(await world.scrape(connection), times);
    world.cursors.closed(connection);
    connection = connect();
    assert.deepEqual(await world.scrape(connection, { reportsMax: 1 }), times.slice(0, 1));
    if (smaller === 'is rolled back') world.cursors.closed(connection);
    const open = await world.open(smaller === 'is read' ? connection : connect());
    assert.deepEqual(open.given.get(agentA), smaller === 'is read' ? times.slice(1) : times);
    assert.equal(open.scrape.offeredMs(agentA), times.at(-1));
  }
});

test('rule 4: who starts from the oldest of several may have what the others had', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const first = world.report();
  await world.scrape(one);
  await world.scrape(one);
  await world.scrape(two);
  await world.clock.advance(1000);
  const second = world.report();
  await world.scrape(one);
  const { scrape, given } = await world.open(connect());
  assert.deepEqual(given.get(agentA), [second]);
  assert.equal(scrape.afterMs(agentA), first);
  assert.equal(scrape.offeredMs(agentA), second);
});

test('rule 5: a scraper never seen starts 5 min back; an agent that comes later is new to it as a whole', async () => {
  const world = new CursorsHarness();
  const times: number[] = [];
  for (let minute = 0; minute < 8; minute++) {
    times.push(world.report());
    await world.clock.advance(minuteMs);
  }
  const connection = connect();
  assert.deepEqual(await world.scrape(connection), times.slice(4));
  world.reports.set(agentB, times);
  assert.deepEqual((await world.open(connection)).given.get(agentB), times);
});

test('rule 5: positions come back after a restart; what was pending or taken back is given again', async () => {
  const world = new CursorsHarness();
  const [confirmed, pending, lost] = [connect(), connect(), connect()];
  const odd = agentId('__proto__')!;
  const first = world.report();
  world.report(odd);
  await world.scrape(confirmed, { name: 'confirmed' });
  await world.scrape(confirmed, { name: 'confirmed' });
  await world.scrape(pending, { name: 'pending' });
  await world.scrape(lost, { name: 'lost' });
  world.cursors.closed(lost);
  const saved = JSON.parse(JSON.stringify(world.cursors.save()));
  world.cursors = world.restarted();
  world.cursors.restore(saved);
  for (const name of ['pending', 'lost']) {
    const { given, scrape } = await world.open(connect(), { name });
    assert.deepEqual([...given.keys()].sort(), [odd, agentA].sort());
    assert.equal(scrape.offeredMs(agentA), first);
    assert.equal(scrape.offeredMs(odd), first);
    assert.equal(world.count(`rolled back ${name} restart`), 1);
  }
  const open = await world.open(connect(), { name: 'confirmed' });
  assert.equal(open.given.size, 0);
  assert.equal(world.count('rolled back confirmed restart'), 0);
});

test('rule 5: the file is out of date at the end of each response, and when its connection ends before it is confirmed', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  world.report();
  await world.scrape(connection);
  assert.deepEqual(world.events.splice(0), ['changed']);
  (await world.open(connection)).scrape.abort();
  assert.deepEqual(world.events.splice(0), ['committed p', 'rolled back p aborted', 'changed']);
  await world.scrape(connection);
  world.cursors.closed(connection);
  world.cursors.closed(connection);
  assert.deepEqual(world.events, ['changed', 'rolled back p unconfirmed', 'changed']);
});

test('rule 5: after the window a cursor holds no acks; its position is kept for a day', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  await world.scrapeOnce();
  await world.clock.advance(windowMs);
  assert.equal(world.cursors.committedMs(agentA), first);
  await world.clock.advance(1);
  world.cursors.tidy([]);
  assert.equal(world.cursors.committedMs(agentA), Infinity);
  await world.clock.advance(20 * 3_600_000);
  const second = world.report();
  world.cursors.tidy([]);
  assert.deepEqual(await world.scrape(connect()), [second]);
  assert.equal([...world.cursors.scrapers].length, 1);
});

test('rule 5: a cursor that nobody has used for a day is forgotten, unless its connection is open', async () => {
  const world = new CursorsHarness();
  const [open, closed] = [connect(), connect()];
  await world.scrape(open, { name: 'open' });
  await world.scrape(closed, { name: 'closed' });
  world.cursors.closed(closed);
  await world.clock.advance(24 * 3_600_000 + 1);
  world.cursors.tidy([]);
  assert.deepEqual(
    [...world.cursors.scrapers].map(({ name }) => name),
    ['open'],
  );
  assert.equal(world.count('forgotten closed'), 1);
});

test('rule 6: acks wait for the slowest of the scrapers that are known, each for what it selects', async () => {
  const world = new CursorsHarness();
  const first = world.report();
  world.report(agentB);
  await world.scrapeOnce({ name: 'fast' });
  await world.scrapeOnce({ name: 'slow' });
  await world.scrapeOnce({ name: 'other', selection: agentB });
  await world.clock.advance(5000);
  const second = world.report();
  await world.scrapeOnce({ name: 'fast' });
  assert.equal(world.cursors.committedMs(agentA), first);
  await world.scrapeOnce({ name: 'slow' });
  assert.equal(world.cursors.committedMs(agentA), second);
});

test('rule 6: a scraper is known from its first committed scrape; on disk from its first finished one', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const ms = world.report();
  const open = await world.open(connection);
  assert.equal(world.cursors.committedMs(agentA), Infinity);
  open.finish();
  assert.equal(world.cursors.committedMs(agentA), Infinity);
  assert.ok(world.cursors.savedMs(agentA) < ms);
  assert.equal(world.cursors.savedMs(agentB), -Infinity);
  assert.equal(world.cursors.save()[0]?.known, true);
  world.cursors.closed(connection);
  assert.equal(world.cursors.save()[0]?.known, false);
  assert.equal(world.cursors.savedMs(agentA), Infinity);
});

test('rule 7: an abort halves what a scrape may carry, down to 10 000 samples; a commit doubles it back', async () => {
  const world = new CursorsHarness();
  const carries: number[] = [];
  for (let abort = 0; abort < 6; abort++) {
    const broken = connect();
    const { scrape } = await world.open(broken);
    carries.push(scrape.samplesMax);
    world.cursors.closed(broken);
    scrape.abort();
  }
  assert.deepEqual(carries, [300_000, 150_000, 75_000, 37_500, 18_750, 10_000]);
  const connection = connect();
  await world.scrape(connection);
  assert.equal((await world.open(connection)).scrape.samplesMax, 20_000);
});

test('rule 7: a scrape may carry three times what comes in between two, also while it has not caught up', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const carries: number[] = [];
  for (let scrape = 0; scrape < 5; scrape++) {
    const open = await world.open(connection);
    carries.push(open.scrape.samplesMax);
    open.finish(500_000);
  }
  assert.deepEqual(carries, [samplesMaxDefault, 600_000, 1_200_000, 1_500_000, 1_500_000]);
  (await world.open(connection)).finish(10);
  assert.equal((await world.open(connection)).scrape.samplesMax, samplesMaxDefault);
});

test('rule 8: two open connections of one name have a cursor each, and each is given everything', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const given: number[][] = [[], []];
  const made: number[] = [];
  for (let round = 0; round < 5; round++) {
    made.push(world.report());
    given[0]!.push(...(await world.scrape(one)));
    await world.clock.advance(2500);
    given[1]!.push(...(await world.scrape(two)));
    await world.clock.advance(2500);
  }
  assert.deepEqual(given[0], made);
  // The second has begun when nobody could know what had become of the first one's answer.
  assert.deepEqual(given[1], made);
  assert.equal(world.count('conflict p'), 1);
  assert.equal([...world.cursors.scrapers][0]?.conflicts, 1);
});

test('rule 8: acks wait for the second connection of a known name from its first scrape on', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const first = world.report();
  await world.scrape(one);
  await world.scrape(one);
  await world.open(two);
  await world.clock.advance(1000);
  world.report();
  for (let scrape = 0; scrape < 2; scrape++) await world.scrape(one);
  assert.equal(world.cursors.committedMs(agentA), first);
});

test('rule 8: whichever of two comes back after a break starts from the oldest of both', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    await world.scrape(one);
    await world.scrape(two);
  }
  world.cursors.closed(two);
  await world.clock.advance(1000);
  const missed = world.report();
  assert.deepEqual(await world.scrape(one), [missed]);
  assert.deepEqual(await world.scrape(connect()), [missed]);
  assert.equal(world.count('conflict p'), 1);
});

test('rule 8: both go away, and come back in any order: none has lost anything', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  await world.scrape(one);
  await world.scrape(two);
  for (const connection of [one, two]) await world.scrape(connection);
  for (const connection of [one, two]) world.cursors.closed(connection);
  await world.clock.advance(20 * minuteMs);
  const missed = world.report();
  const again = connect();
  assert.deepEqual(await world.scrape(again), [missed]);
  // Once more, before the second is there: it must not use up what is kept for the second.
  await world.scrape(again);
  world.cursors.closed(again);
  await world.scrape(connect());
  assert.deepEqual(await world.scrape(connect()), [missed]);
});

test('rule 8: one is away, and the connection of the other dies without a goodbye: what the first has missed is kept', async () => {
  for (const isDead of [true, false]) {
    const world = new CursorsHarness();
    const [one, two, next] = [connect(), connect(), connect()];
    world.report();
    for (let scrape = 0; scrape < 3; scrape++) {
      await world.scrape(one);
      await world.scrape(two);
    }
    world.cursors.closed(one);
    await world.clock.advance(1000);
    const missed = world.report();
    for (let scrape = 0; scrape < 2; scrape++) await world.scrape(two);
    // Of the first that is back, or of the second whose line was cut.
    assert.deepEqual(await world.scrape(next), [missed]);
    await world.scrape(next);
    const positions = () => [...world.cursors.scrapers][0]!.cursors.length;
    assert.equal(positions(), 3);
    if (isDead) assert.deepEqual(await world.scrape(connect()), [missed]);
    else {
      // It is alive, so it was the first that is back.
      for (let scrape = 0; scrape < 2; scrape++) await world.scrape(two);
      assert.equal(positions(), 2);
    }
  }
});

test('rule 8: of two cursors that are both abandoned, one stays for a day, at the older position', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  await world.scrape(one);
  await world.scrape(two);
  for (const connection of [one, two]) await world.scrape(connection);
  world.cursors.closed(one);
  await world.clock.advance(1000);
  const missedByOne = world.report();
  for (let scrape = 0; scrape < 2; scrape++) await world.scrape(two);
  world.cursors.closed(two);
  await world.clock.advance(windowMs + 1);
  world.cursors.tidy([]);
  assert.equal([...world.cursors.scrapers][0]?.cursors.length, 1);
  const open = await world.open(connect());
  assert.deepEqual(open.given.get(agentA), [missedByOne]);
  assert.ok(world.cursors.committedMs(agentA) < missedByOne);
});

test('rule 8: of two that are both abandoned, what stays is known if one was', async () => {
  const world = new CursorsHarness();
  const cursor = { scraper: 'p', selection: '', positions: { a: 1 } };
  const seenAtMs = world.clock.nowMs();
  world.cursors.restore([
    { ...cursor, seenAtMs, known: true },
    { ...cursor, seenAtMs: seenAtMs + 1, known: false },
  ]);
  await world.clock.advance(windowMs + 2);
  world.cursors.tidy([]);
  await world.open(connect());
  assert.equal(world.cursors.committedMs(agentA), 1);
});

test('rule 8: an abandoned cursor beside one that reads goes when it stops to hold acks', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  world.report();
  await world.scrape(one);
  await world.scrape(two);
  world.cursors.closed(one);
  await world.clock.advance(windowMs + 1);
  await world.scrape(two);
  world.cursors.tidy([]);
  assert.equal([...world.cursors.scrapers][0]?.cursors.length, 1);
});

test('rule 8: an old connection that never scrapes again was dead: no conflict, and soon nothing waits for it', async () => {
  const world = new CursorsHarness();
  const [old, next] = [connect(), connect()];
  world.report();
  await world.scrape(old);
  // Then the line is cut. A last request and a goodbye come much later.
  await world.scrape(old);
  await world.clock.advance(1000);
  const second = world.report();
  assert.deepEqual(await world.scrape(next), [second]);
  await world.scrape(next);
  await world.scrape(old);
  world.cursors.closed(old);
  assert.ok(world.cursors.committedMs(agentA) < second);
  await world.clock.advance(minuteMs + 1);
  await world.scrape(next);
  assert.equal(world.cursors.committedMs(agentA), second);
  world.cursors.tidy([]);
  assert.equal([...world.cursors.scrapers][0]?.cursors.length, 1);
  assert.equal(world.count('conflict p'), 0);
});

test('rule 8: a late request of a connection that is dead makes no conflict with the one that lives', async () => {
  const world = new CursorsHarness();
  const [living, dead] = [connect(), connect()];
  world.report();
  await world.scrape(living);
  await world.scrape(dead);
  world.cursors.closed(dead);
  for (let scrape = 0; scrape < 3; scrape++) await world.scrape(living);
  assert.equal(world.count('conflict p'), 0);
  assert.equal([...world.cursors.scrapers][0]?.isShared, false);
});

test('rule 8: acks wait for a scraper whose connections are all in doubt', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const first = world.report();
  for (const connection of [one, one, two]) await world.scrape(connection);
  for (const connection of [one, two]) world.cursors.closed(connection);
  world.report();
  await world.clock.advance(10 * minuteMs);
  assert.ok(world.cursors.committedMs(agentA) <= first);
});

test('rule 8: a connection that scrapes on is waited for as long as the window, also after a restart', async () => {
  const world = new CursorsHarness();
  const [one, two] = [connect(), connect()];
  const first = world.report();
  for (let scrape = 0; scrape < 3; scrape++) {
    await world.scrape(one);
    await world.scrape(two);
  }
  assert.equal(world.count('conflict p'), 1);
  world.cursors.closed(two);
  // Those who come and go beside it make no difference.
  for (const connection of [one, connect(), connect()]) {
    await world.scrape(connection);
    world.cursors.closed(connection);
  }
  await world.clock.advance(10 * minuteMs);
  const second = world.report();
  const saved = world.cursors.save();
  world.cursors = world.restarted();
  world.cursors.restore(saved);
  world.cursors.tidy([]);
  assert.deepEqual(await world.scrape(connect()), [second]);
  assert.deepEqual(await world.scrape(connect()), [second]);
  assert.ok(first < second);
});

test('rule 9: a forgotten agent is forgotten in every cursor, what is pending included', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  world.report();
  world.report(agentB);
  await world.scrape(connection);
  world.reports.delete(agentA);
  world.cursors.tidy([agentA]);
  await world.scrape(connection);
  assert.deepEqual(Object.keys(world.cursors.save()[0]!.positions), [agentB]);
});

test('a scrape knows how long ago the last one was', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  assert.equal((await world.open(connection)).scrape.sinceLastMs, undefined);
  await world.clock.advance(15_000);
  const second = await world.open(connection);
  assert.equal(second.scrape.sinceLastMs, 15_000);
  assert.equal(second.scrape.intervalMs, undefined);
  await world.clock.advance(30_000);
  const third = await world.open(connection);
  assert.equal(third.scrape.sinceLastMs, 30_000);
  assert.equal(third.scrape.intervalMs, 15_000, 'one may have been missed');
});

/** A Prometheus: what it has stored, and the connection it uses. */
interface Prometheus {
  readonly name: string;
  readonly stored: Map<AgentId, Set<number>>;
  /** Of each agent, what is newer than this must be there; set by its first scrape. */
  fromMs: Map<AgentId, number> | undefined;
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
    'scrape',
    'scrape',
    'scrape',
    'abort',
    'read, then close',
    'finish, then close',
    'never arrives',
    'leave open',
    'tidy',
  ),
  ms: fc.integer({ min: 0, max: timeoutMs }),
});

test('every report is given to every scraper', async () => {
  let conflicts = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 40 }), async (history) => {
      const world = new CursorsHarness();
      // Two alone under their names, two behind one.
      const all = ['one', 'two', 'shared', 'shared'].map((name): Prometheus => {
        const stored = new Map(agents.map((agent) => [agent, new Set<number>()]));
        return { name, stored, fromMs: undefined, connection: undefined };
      });
      const store = (prometheus: Prometheus, given: ReadonlyMap<AgentId, number[]>) => {
        for (const [agent, times] of given) for (const ms of times) prometheus.stored.get(agent)!.add(ms);
      };
      const open = async (prometheus: Prometheus, reportsMax: number) => {
        prometheus.connection ??= connect();
        const opened = await world.open(prometheus.connection, { name: prometheus.name, reportsMax });
        prometheus.fromMs ??= new Map(agents.map((agent) => [agent, opened.scrape.afterMs(agent)]));
        return opened;
      };
      const close = (prometheus: Prometheus) => {
        if (prometheus.connection !== undefined) world.cursors.closed(prometheus.connection);
        prometheus.connection = undefined;
      };
      world.report();
      // Before the two under one name have been seen at work, nobody can know that there are two.
      for (let scrape = 0; scrape < 3; scrape++) {
        for (const prometheus of all) store(prometheus, (await open(prometheus, Infinity).then(finished)).given);
      }

      for (const { dtMs, agent, prometheus: index, reportsMax, what, ms } of history) {
        await world.clock.advance(dtMs);
        world.report(agent);
        await world.clock.advance(1);
        const prometheus = all[index]!;
        if (what === 'tidy') world.cursors.tidy([]);
        else if (what === 'leave open') prometheus.connection = undefined;
        else {
          const opened = await open(prometheus, reportsMax);
          if (what === 'abort') {
            close(prometheus);
            opened.scrape.abort();
            continue;
          }
          if (what === 'never arrives') world.undelivered.add(prometheus.connection!);
          opened.finish();
          if (what === 'scrape' || what === 'read, then close') store(prometheus, opened.given);
          if (what === 'never arrives') prometheus.connection = undefined;
          if (what.endsWith('close')) {
            await world.clock.advance(ms);
            close(prometheus);
          }
        }
      }
      for (const prometheus of all) {
        for (let scrape = 0; scrape < 2; scrape++) {
          store(prometheus, (await open(prometheus, Infinity).then(finished)).given);
        }
      }
      conflicts += world.count('conflict shared');
      for (const { name, stored, fromMs } of all) {
        for (const agent of agents) {
          const wanted = (world.reports.get(agent) ?? []).filter((ms) => ms > fromMs!.get(agent)!);
          assert.deepEqual(
            wanted.filter((ms) => !stored.get(agent)!.has(ms)),
            [],
            `${name} lacks reports of ${agent}`,
          );
        }
      }
    }),
    { numRuns: 150 },
  );
  assert.ok(conflicts > 0, 'no history with a conflict');
});

function finished<T extends { finish(): void }>(opened: T): T {
  opened.finish();
  return opened;
}

test('what an unconfirmed answer passed over as too old is not counted again when it leaves the window', async () => {
  const world = new CursorsHarness();
  const connection = connect();
  const committed = world.report();
  await world.scrape(connection);
  await world.clock.advance(1000);
  const offered = world.report();
  await world.scrape(connection);
  assert.equal(world.cursors.wantedAfterMs(agentA, 'age'), offered);
  // A chunk that goes for want of memory may hold what the answer gave: lost, should it not have arrived.
  assert.equal(world.cursors.wantedAfterMs(agentA, 'memory'), committed);
  world.cursors.closed(connection);
  assert.equal(world.cursors.wantedAfterMs(agentA, 'age'), committed);
});
