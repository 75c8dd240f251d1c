import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectorRows } from '../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { readsLate, SlowCollector } from '../../../src/agent/collect/slow-host.ts';
import { SlowLane } from '../../../src/agent/collect/slow-lane.ts';
import { contextOf, fixtureHosts, OneCollector } from '../../support/collect-fixture.ts';
import { type FixtureHost, hostOf, makeTree } from '../../support/fixture-proc.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { TreeCalls } from '../../support/tree-calls.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

// The collectors of the slow lane over their fixtures, in the lane: they find all at the first instant, and at the next ones
// ask for nothing but the values, of files that are there and stay open.

/** Whose sizes are of no file; slow-lane.test.ts has it. */
const withoutFiles = ['filesystem'];

for (const row of collectorRows.filter(({ lane, name }) => lane === 'slow' && !withoutFiles.includes(name))) {
  for (const fixture of fixtureHosts(row.name).filter(({ title }) => !title.startsWith('broken'))) {
    test(`${row.name}: ${fixture.title}: in the slow lane`, () => collectTwice(row, fixture));
  }
}

async function collectTwice(row: (typeof collectorRows)[number], fixture: FixtureHost): Promise<void> {
  const tree = makeTree(fixture.files, fixture.links);
  const calls = new TreeCalls(tree);
  const clock = new VirtualClock();
  const lane = new SlowLane({ clock, log: new MemoryLog(), calls });
  const slow = new SlowCollector(row.name, row.create(contextOf(fixture.options)), { lane, roots: tree.roots });
  const host = hostOf(tree, fixture);
  const one = new OneCollector(slow);
  const collected = async () => {
    host.beginInstant();
    await slow.prepare(host);
    return withoutOwn(expositionOf(one.collect(host)).replaceAll(tree.folder, ''));
  };
  try {
    assert.equal(await collected(), fixture.expected);
    assert.deepEqual(host.takeErrors(), []);
    calls.made.length = 0;
    await clock.advance(5000);
    assert.equal(await collected(), fixture.expected);
    // Of a CPU that is offline the first run asked for all, before it knew.
    const made = calls.made.filter((call) => !call.startsWith('close '));
    assert.deepEqual(
      made.filter((call) => !call.startsWith('read ')),
      [],
    );
    assert.equal(made.length, calls.openCount);
  } finally {
    slow.close();
    host.close();
    assert.equal(calls.openCount, 0);
    tree.remove();
  }
}

/** Without what the lane says of itself. */
function withoutOwn(text: string): string {
  return text.replaceAll(new RegExp(`^.*${readsLate.name}.*\n`, 'gm'), '');
}
