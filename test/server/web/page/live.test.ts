import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Changes, changesOf, LiveFleet, type Viewer } from '../../../../src/server/web/page/live.ts';
import { HttpHarness } from '../http-harness.ts';

class Page implements Viewer {
  readonly events: { readonly name: string; readonly data: Partial<Changes> }[] = [];
  isSlow = false;
  send(event: string): boolean {
    const [, name, data] = /^event: (\w+)\ndata: (.*)\n\n$/.exec(event) ?? [];
    this.events.push({ name: name!, data: JSON.parse(data!) });
    return !this.isSlow;
  }
  get last(): Partial<Changes> {
    return this.events.at(-1)!.data;
  }
}

function worldOf() {
  const world = new HttpHarness();
  const fleet = new LiveFleet({
    clock: world.clock,
    records: world.delivery.store.agents,
    status: world.view,
    ...{ plaintext: false, joining: { kind: 'by-key' } },
  });
  const render = (query = '') => {
    const revision = Number(/data-revision=(\d+)/.exec(fleet.page(query).body)![1]);
    return { revision, query };
  };
  const open = (page: Page, query?: string) => fleet.open(page, render(query));
  /** An agent that is connected and has reported. */
  const host = (name: string) => {
    const agent = world.connect(name);
    agent.record.peer = '192.0.2.1:1';
    agent.record.connectedAtMs = world.clock.nowMs();
    agent.report();
    return agent;
  };
  return { world, fleet, render, open, host };
}

test('an open page is told what has changed, and only that', async () => {
  const { world, fleet, open, host } = worldOf();
  for (const name of ['a', 'b']) host(name);
  const page = new Page();
  const close = open(page);
  await world.clock.advance(5000);
  assert.equal(page.events[0]?.name, 'changes');
  assert.deepEqual(page.events[0].data, { revision: 2, cells: {}, parts: { about: 'Version 1.2.3, up for 5 s.' } });
  // Silence: they are down, and lines, problems and the headline say so.
  await world.clock.advance(90_000);
  const down = page.events.find(({ data }) => Object.keys(data.cells!).length > 0)!;
  assert.deepEqual(Object.keys(down.data.cells!), ['a', 'b']);
  const said = (part: 'headline' | 'problems') => page.events.map(({ data }) => data.parts![part] ?? '').join('');
  assert.equal(said('headline'), 'sysmon: 0 of 2 agents up', 'once');
  assert.match(said('problems'), /down/);
  assert.ok(
    page.events.every(({ data }) => data.table === undefined),
    'the same hosts in the same order',
  );
  const before = page.events.length;
  host('c');
  await world.clock.advance(5000);
  const { table, cells } = page.last;
  assert.deepEqual([table?.names, table?.of, Object.keys(table!.rows)], [['a', 'b', 'c'], 3, ['c']]);
  assert.match(table!.rows['c']!, /^<tr data-host="c"><th scope=row><a href="\/agents\/c">c<\/a>/);
  assert.deepEqual(Object.keys(cells!), ['a', 'b']);
  assert.equal(page.events.length, before + 1);
  close();
  assert.equal(fleet.viewerCount, 0);
  await world.clock.advance(5000);
  const count = page.events.length;
  await world.clock.advance(60_000);
  assert.equal(page.events.length, count);
  assert.equal(world.clock.timers, 0, 'while no page is open, nothing is computed');
  fleet.stop();
});

test('a page of some hosts is told of those alone, and when another host is one of them or none', async () => {
  const { world, fleet, open, host } = worldOf();
  const [a] = [host('a'), host('b')];
  const [down, other, of] = [new Page(), new Page(), new Page()];
  open(down, 'state=down');
  open(other, '?q=b');
  open(of, 'q=b&sort=host');
  await world.clock.advance(30_000);
  const first = down.events.find(({ data }) => data.table !== undefined)!.data;
  assert.deepEqual([first.table!.names, Object.keys(first.table!.rows), first.cells], [['a', 'b'], ['a', 'b'], {}]);
  assert.match(first.table!.rows['a']!, /down for 2\d s/);
  a!.report(world.clock.nowMs());
  await world.clock.advance(5000);
  assert.deepEqual([down.last.table?.names, down.last.table?.rows], [['b'], {}], 'a is up again');
  assert.equal(down.last.parts!.headline, 'sysmon: 1 of 2 agents up');
  assert.deepEqual(Object.keys(down.last.cells!), ['b']);
  assert.ok(other.events.every(({ data }) => Object.keys(data.cells!).every((name) => name === 'b')));
  assert.deepEqual(of.events, other.events, 'the same query in other words');
  assert.equal(fleet.viewerCount, 3);
  fleet.stop();
});

test('a page that is sorted is told of another order', async () => {
  const { world, fleet, open, host } = worldOf();
  const [a, b] = [host('a'), host('b')];
  const page = new Page();
  open(page, 'sort=state');
  const names = () => page.events.map(({ data }) => data.table?.names);
  await world.clock.advance(10_000);
  assert.deepEqual(names(), [undefined, undefined]);
  page.events.length = 0;
  for (let count = 0; count < 8; count++) {
    await world.clock.advance(5000);
    a!.report(world.clock.nowMs());
  }
  assert.deepEqual(
    names().filter((each) => each !== undefined),
    [['b', 'a']],
    'the worst first',
  );
  assert.deepEqual(page.events.find(({ data }) => data.table !== undefined)!.data.table!.rows, {});
  b!.report(world.clock.nowMs());
  await world.clock.advance(5000);
  assert.deepEqual(page.last.table?.names, ['a', 'b']);
  fleet.stop();
});

test('a page that took long to open is told what it has missed; one that is much older loads itself again', async () => {
  const { world, fleet, render, open, host } = worldOf();
  host('a');
  const rendered = render('state=down');
  const first = new Page();
  open(first);
  await world.clock.advance(10_000);
  const late = new Page();
  fleet.open(late, rendered);
  assert.deepEqual(late.events.slice(0, 2), first.events);
  const table = { names: [], of: 1, rows: {} };
  assert.deepEqual(late.events.slice(2), [
    { name: 'changes', data: { revision: rendered.revision + 2, cells: {}, parts: {}, table } },
  ]);
  await world.clock.advance(60_000);
  const old = new Page();
  fleet.open(old, rendered);
  assert.deepEqual(
    old.events.map(({ name }) => name),
    ['stale'],
  );
  fleet.stop();
});

test('a page that opens a while after it was rendered, while no other was open, is told of all since then', async () => {
  const { world, fleet, render, host } = worldOf();
  host('a');
  const rendered = render('state=down');
  await world.clock.advance(40_000);
  const page = new Page();
  const close = fleet.open(page, rendered);
  await world.clock.advance(5000);
  assert.deepEqual(page.last.table?.names, ['a']);
  assert.equal(page.last.parts?.headline, 'sysmon: 0 of 1 agent up');
  close();
  await world.clock.advance(65_000);
  const late = new Page();
  fleet.open(late, rendered);
  assert.deepEqual(
    late.events.map(({ name }) => name),
    ['stale'],
    'too late',
  );
  fleet.stop();
});

test('pages that are asked for at once are of one revision', () => {
  const { fleet } = worldOf();
  assert.equal(fleet.page('').body, fleet.page('').body);
  fleet.stop();
});

test('pages are bounded, and one that does not read is forgotten', async () => {
  const { world, fleet, open } = worldOf();
  const slow = new Page();
  slow.isSlow = true;
  open(slow);
  for (let count = 0; count < 63; count++) fleet.open(new Page(), { revision: 1, query: '' });
  assert.equal(fleet.hasRoom, false);
  await world.clock.advance(5000);
  assert.equal(fleet.viewerCount, 63);
  fleet.stop();
});

test('changes are by cell, and by what stands above the table', () => {
  const parts = { headline: 'x', about: 'x', problems: 'x' };
  const before = { cells: new Map([['a', ['1', '2']]]), parts };
  assert.deepEqual(changesOf(before, { cells: new Map([['a', ['1', '3']]]), parts }), {
    ...{ cells: { a: { 1: '3' } }, parts: {} },
  });
  assert.deepEqual(changesOf(before, { cells: new Map([['b', ['1', '3']]]), parts: { ...parts, about: 'y' } }), {
    ...{ cells: {}, parts: { about: 'y' } },
  });
});
