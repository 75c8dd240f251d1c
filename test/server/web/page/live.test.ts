import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changesOf, LiveFleet, type Viewer } from '../../../../src/server/web/page/live.ts';
import { HttpHarness } from '../http-harness.ts';

class Page implements Viewer {
  readonly events: {
    readonly name: string;
    readonly data: { revision?: number; isOther?: boolean; cells?: object; problems?: string };
  }[] = [];
  isSlow = false;
  send(event: string): boolean {
    const [, name, data] = /^event: (\w+)\ndata: (.*)\n\n$/.exec(event) ?? [];
    this.events.push({ name: name!, data: JSON.parse(data!) });
    return !this.isSlow;
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
  const open = (page: Page) => {
    const revision = Number(/data-revision=(\d+)/.exec(fleet.page('').body)![1]);
    return fleet.open(page, revision);
  };
  return { world, fleet, open };
}

test('an open page is told what has changed, and only that', async () => {
  const { world, fleet, open } = worldOf();
  for (const name of ['a', 'b']) {
    const agent = world.connect(name);
    agent.record.peer = '192.0.2.1:1';
    agent.report();
  }
  const page = new Page();
  const close = open(page);
  await world.clock.advance(5000);
  const [first] = page.events;
  assert.equal(first?.name, 'changes');
  assert.deepEqual(first.data.cells, {}, 'nothing');
  assert.equal(first.data.isOther, false);
  // Silence: they are down, and both lines and problems say so.
  await world.clock.advance(90_000);
  const down = page.events.find(({ data }) => Object.keys(data.cells ?? {}).length > 0)!;
  assert.deepEqual(Object.keys(down.data.cells!), ['a', 'b']);
  assert.match(page.events.map(({ data }) => data.problems ?? '').join(''), /down/);
  world.connect('c').report();
  await world.clock.advance(5000);
  assert.equal(page.events.at(-1)?.data.isOther, true, 'another table');
  close();
  assert.equal(fleet.viewerCount, 0);
  await world.clock.advance(5000);
  const count = page.events.length;
  await world.clock.advance(60_000);
  assert.equal(page.events.length, count);
  assert.equal(world.clock.timers, 0, 'while no page is open, nothing is computed');
  fleet.stop();
});

test('a page that took long to open is told what it has missed; one that is much older loads itself again', async () => {
  const { world, fleet, open } = worldOf();
  const revision = Number(/data-revision=(\d+)/.exec(fleet.page('').body)![1]);
  const first = new Page();
  open(first);
  await world.clock.advance(10_000);
  const late = new Page();
  fleet.open(late, revision);
  assert.deepEqual(late.events, first.events);
  assert.equal(late.events.length, 2);
  await world.clock.advance(60_000);
  const old = new Page();
  fleet.open(old, revision);
  assert.deepEqual(
    old.events.map(({ name }) => name),
    ['stale'],
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
  for (let count = 0; count < 63; count++) fleet.open(new Page(), 1);
  assert.equal(fleet.hasRoom, false);
  await world.clock.advance(5000);
  assert.equal(fleet.viewerCount, 63);
  fleet.stop();
});

test('changes are by cell', () => {
  const before = { cells: new Map([['a', ['1', '2']]]), problems: 'x' };
  assert.deepEqual(changesOf(before, { cells: new Map([['a', ['1', '3']]]), problems: 'x' }), {
    ...{ cells: { a: { 1: '3' } }, isOther: false },
  });
  assert.deepEqual(changesOf(before, { cells: new Map([['b', ['1', '3']]]), problems: 'y' }), {
    ...{ cells: {}, isOther: true, problems: 'y' },
  });
});
