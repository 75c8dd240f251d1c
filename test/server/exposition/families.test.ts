import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { MetricType } from '../../../src/model/family.ts';
import type { SeriesGroup } from '../../../src/model/series.ts';
import { FamilyRegistry } from '../../../src/server/exposition/families.ts';
import { familyOf, idOf } from '../../support/batches.ts';
import { groupOf } from '../../support/groups.ts';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');
const agent = idOf('a');
const groupNamed = (name: string): SeriesGroup => groupOf(familyOf(name));

test('agents that declare the same share one layout, however they came to it', () => {
  const registry = new FamilyRegistry(assert.fail);
  const groups = (): SeriesGroup[] => ['m', 'n', 'o'].map(groupNamed);
  const whole = registry.extend(undefined, groups(), agent);
  const grown = registry.extend(registry.extend(undefined, groups().slice(0, 1), agent), groups().slice(1), agent);
  assert.equal(grown, whole);
  assert.notEqual(registry.extend(undefined, groups().reverse(), agent), whole);
  assert.notEqual(registry.extend(undefined, [...groups(), groupNamed('m')], agent), whole);
});

test('a layout lists its blocks in the order in which families are printed', () => {
  const registry = new FamilyRegistry(assert.fail);
  const [m, n, o] = ['m', 'n', 'o'].map(groupNamed) as [SeriesGroup, SeriesGroup, SeriesGroup];
  registry.extend(undefined, [m, n], agent);
  const layout = registry.extend(undefined, [o, n, m, n], agent);
  assert.deepEqual([...layout.blocks], [2, 1, 3, 0]);
  assert.deepEqual([...layout.orders], [0, 1, 1, 2]);
});

test('what the first declaration says counts until no schema makes it any more', async () => {
  const seen: string[] = [];
  const registry = new FamilyRegistry((family, other) => seen.push(`${other.agent} ${family}`));
  const declare = (type: MetricType) =>
    registry.extend(undefined, [groupOf(familyOf('m', { type, help: type }))], agent);
  let old: unknown = declare('counter');
  const upgraded = declare('gauge');
  const { entry } = upgraded.declarations[0]!;
  assert.equal(Buffer.from(entry.header).toString(), '# HELP m counter\n# TYPE m counter\n');
  assert.deepEqual(seen, ['a m']);
  assert.ok(old);
  old = undefined;
  await garbageIsGone();
  assert.equal(Buffer.from(entry.header).toString(), '# HELP m gauge\n# TYPE m gauge\n');
  assert.equal(declare('gauge'), upgraded);
  assert.deepEqual(seen, ['a m'], 'the new type is the right one now');
});

test('names that no schema uses are forgotten', async () => {
  const registry = new FamilyRegistry(assert.fail);
  const kept = registry.extend(undefined, [groupNamed('kept')], agent);
  for (let round = 0; round < 20; round++) {
    const made = Array.from({ length: 1000 }, (_, at) => groupNamed(`name_${round}_${at}`));
    registry.extend(undefined, made, agent);
    await garbageIsGone();
  }
  assert.ok(registry.size < 5000, `${registry.size} names of 20 001 are remembered`);
  assert.equal(registry.extend(undefined, [groupNamed('kept')], agent), kept);
});

/** A WeakRef that was looked through holds its target until the turn is over. */
async function garbageIsGone(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  await new Promise((resolve) => setImmediate(resolve));
}
