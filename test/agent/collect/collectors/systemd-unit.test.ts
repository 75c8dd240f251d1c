import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const top = 'sys/fs/cgroup';

/** A host with control groups. */
class Bed {
  readonly tree = makeTree([]);
  readonly host = hostOf(this.tree, { system: new Map() });
  readonly clock = new VirtualClock();
  readonly #collector: OneCollector;
  #groups = 0;

  constructor(options: Readonly<Record<string, string>> = {}) {
    const context = { ...contextOf(new Map(Object.entries(options))), clock: this.clock };
    this.#collector = new OneCollector(newCollector('systemd-unit', context));
    this.tree.write(`${top}/cgroup.stat`, 'nr_descendants 0\n');
  }

  /** Makes or changes a group: microseconds of CPU time, bytes of memory. */
  unit(name: string, { usage = 1, memory = 1 }: { readonly usage?: number; readonly memory?: number } = {}): void {
    this.tree.write(`${top}/system.slice/${name}/cpu.stat`, `usage_usec ${usage}\nuser_usec ${usage}\nsystem_usec 0\n`);
    this.tree.write(`${top}/system.slice/${name}/memory.current`, `${memory}\n`);
  }

  /** A kept descriptor of a group that is gone says ENODEV, unlike one of a file that was deleted. */
  remove(name: string): void {
    this.host.close();
    this.tree.delete(`${top}/system.slice/${name}`);
  }

  /** As the kernel does when a group comes or goes. */
  count(): void {
    this.tree.write(`${top}/cgroup.stat`, `nr_descendants ${++this.#groups}\n`);
  }

  /** `a.service 4096` and so on, and how many are left out. */
  collect(): readonly string[] {
    const text = expositionOf(this.#collector.collect(this.host));
    assert.deepEqual(this.host.takeErrors(), []);
    const found =
      /^(?:node_systemd_unit_memory_current_bytes\{name="(.*?)"\}|sysmon_agent_systemd_units_(left)_out) (\d+)$/gm;
    return [...text.matchAll(found)].map(([, name, left, value]) => `${name ?? left} ${value}`);
  }

  [Symbol.dispose](): void {
    this.host.close();
    this.tree.remove();
  }
}

test('a group that vanishes between listing and reading is no failure; one that comes is seen at once', () => {
  using bed = new Bed();
  bed.unit('a.service');
  bed.unit('b.service');
  assert.deepEqual(bed.collect(), ['a.service 1', 'b.service 1', 'left 0']);
  bed.remove('a.service');
  assert.deepEqual(bed.collect(), ['b.service 1', 'left 0'], 'before the kernel has counted it');
  bed.unit('c.service');
  bed.count();
  assert.deepEqual(bed.collect(), ['b.service 1', 'c.service 1', 'left 0']);
});

test('a group that came in the interval in which another went is seen half a minute later', async () => {
  using bed = new Bed();
  bed.unit('a.service');
  bed.collect();
  bed.remove('a.service');
  bed.unit('b.service');
  assert.deepEqual(bed.collect(), ['left 0']);
  await bed.clock.advance(30_000);
  assert.deepEqual(bed.collect(), ['b.service 1', 'left 0']);
});

test('a unit that uses no CPU is read again twice a minute', async () => {
  using bed = new Bed();
  bed.unit('a.service', { usage: 5, memory: 100 });
  assert.deepEqual(bed.collect(), ['a.service 100', 'left 0']);
  bed.unit('a.service', { usage: 5, memory: 200 });
  assert.deepEqual(bed.collect(), ['a.service 100', 'left 0']);
  bed.unit('a.service', { usage: 6, memory: 300 });
  assert.deepEqual(bed.collect(), ['a.service 300', 'left 0']);
  bed.unit('a.service', { usage: 6, memory: 400 });
  await bed.clock.advance(30_000);
  assert.deepEqual(bed.collect(), ['a.service 400', 'left 0']);
});

test('those with the most memory are collected, and one is not left out for a small difference', async () => {
  using bed = new Bed({ 'systemd-unit.max': '2', 'systemd-unit.name-include': '.*\\.service' });
  for (const [name, memory] of Object.entries({ 'a.service': 100, 'b.service': 300, 'c.service': 200 }))
    bed.unit(name, { memory });
  assert.deepEqual(bed.collect(), ['b.service 300', 'c.service 200', 'left 1']);
  bed.unit('a.service', { memory: 240 });
  await bed.clock.advance(30_000);
  assert.deepEqual(bed.collect(), ['b.service 300', 'c.service 200', 'left 1']);
  bed.unit('a.service', { memory: 260 });
  await bed.clock.advance(30_000);
  assert.deepEqual(bed.collect(), ['b.service 300', 'a.service 260', 'left 1']);
});

test('without the memory controller all are equal: those that are collected stay', async () => {
  using bed = new Bed({ 'systemd-unit.max': '2', 'systemd-unit.name-include': '.*\\.service' });
  for (const name of ['b.service', 'c.service']) bed.unit(name, { memory: 0 });
  assert.deepEqual(bed.collect(), ['b.service 0', 'c.service 0', 'left 0']);
  bed.unit('a.service', { memory: 0 });
  bed.count();
  assert.deepEqual(bed.collect(), ['b.service 0', 'c.service 0', 'left 1']);
});

test('a controller that systemd switches on later brings its files', async () => {
  using bed = new Bed();
  const slice = `${top}/system.slice`;
  bed.tree.write(`${slice}/cgroup.subtree_control`, 'cpu\n');
  bed.tree.write(`${slice}/a.service/cpu.stat`, 'usage_usec 1\nuser_usec 1\nsystem_usec 0\n');
  assert.deepEqual(bed.collect(), ['left 0']);
  bed.tree.write(`${slice}/cgroup.subtree_control`, 'cpu memory\n');
  bed.unit('a.service', { memory: 7 });
  assert.deepEqual(bed.collect(), ['left 0']);
  await bed.clock.advance(30_000);
  assert.deepEqual(bed.collect(), ['a.service 7', 'left 0']);
});

test("systemd's underscore before a name that a file of the kernel could have is no part of it; patterns are of whole names", () => {
  using bed = new Bed({ 'systemd-unit.name-include': 'cpu.service|b', 'systemd-unit.name-exclude': 'cpu' });
  bed.unit('_cpu.service');
  bed.unit('b.service');
  assert.deepEqual(bed.collect(), ['cpu.service 1', 'left 0']);
});

test('300 services: a tick in which nothing happens costs one read each', () => {
  using bed = new Bed({ 'systemd-unit.max': '1000' });
  for (let at = 0; at < 300; at++) bed.unit(`s${at}.service`);
  bed.collect();
  let reads = 0;
  const read = bed.host.readIfThere.bind(bed.host);
  bed.host.readIfThere = (path) => {
    reads++;
    return read(path);
  };
  const value = bed.host.value.bind(bed.host);
  bed.host.value = (path, parse) => {
    reads++;
    return value(path, parse);
  };
  assert.equal(bed.collect().length, 301);
  // cgroup.stat twice, from one read.
  assert.equal(reads, 302);
});
