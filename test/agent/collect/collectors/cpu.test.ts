import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { type FixtureTree, makeTree } from '../../../support/fixture-proc.ts';

const throttle = 'thermal_throttle/core_throttle_count';

function withCpu(
  files: Record<string, string>,
  run: (tree: FixtureTree, collect: () => Map<string, number>, parts: { readonly host: Host }) => void,
): void {
  const tree = makeTree(Object.entries(files));
  const host = new Host(tree.roots);
  const one = new OneCollector(newCollector('cpu'));
  try {
    run(tree, () => valuesOf(expositionOf(one.collect(host))), { host });
  } finally {
    host.close();
    tree.remove();
  }
}

function valuesOf(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

function seconds(cpu: number, mode: string): string {
  return `node_cpu_seconds_total{cpu="${cpu}",mode="${mode}"}`;
}

function stat(...cpus: readonly [number: number, user: number, idle: number, iowait: number][]): string {
  const lines = cpus.map(([number, user, idle, iowait]) => `cpu${number} ${user} 0 0 ${idle} ${iowait} 0 0 0 0 0\n`);
  return `cpu  0 0 0 0 0 0 0 0 0 0\n${lines.join('')}intr 1\n`;
}

test('a mode that steps back keeps its highest value; an idle time that falls by 3 s is another count', () => {
  withCpu({ 'proc/stat': stat([0, 100, 1000, 50]) }, (tree, collect) => {
    collect();
    tree.write('proc/stat', stat([0, 110, 990, 40]));
    let values = collect();
    assert.equal(values.get(seconds(0, 'user')), 1.1);
    assert.equal(values.get(seconds(0, 'idle')), 10);
    assert.equal(values.get(seconds(0, 'iowait')), 0.5);
    tree.write('proc/stat', stat([0, 20, 701, 60]));
    values = collect();
    assert.equal(values.get(seconds(0, 'user')), 1.1, '2.99 s is not enough');
    assert.equal(values.get(seconds(0, 'idle')), 10);
    assert.equal(values.get(seconds(0, 'iowait')), 0.6);
    tree.write('proc/stat', stat([0, 20, 700, 5]));
    values = collect();
    assert.equal(values.get(seconds(0, 'user')), 0.2);
    assert.equal(values.get(seconds(0, 'idle')), 7);
    assert.equal(values.get(seconds(0, 'iowait')), 0.05);
  });
});

test('a CPU that vanished is absent; back again, it counts from what it says', () => {
  withCpu({ 'proc/stat': stat([0, 1, 1, 1], [1, 500, 100, 5], [2, 3, 3, 3]) }, (tree, collect) => {
    assert.equal(collect().get(seconds(1, 'user')), 5);
    tree.write('proc/stat', stat([0, 1, 1, 1], [2, 4, 4, 4]));
    const without = collect();
    assert.equal(without.get(seconds(1, 'user')), undefined);
    assert.equal(without.get(seconds(2, 'user')), 0.04);
    tree.write('proc/stat', stat([0, 1, 1, 1], [1, 7, 7, 7], [2, 2, 2, 2]));
    const back = collect();
    assert.equal(back.get(seconds(1, 'user')), 0.07);
    assert.equal(back.get(seconds(2, 'user')), 0.04, 'the others keep what they had');
  });
});

test('a CPU that comes brings its throttles with it', () => {
  const files = {
    'proc/stat': stat([0, 1, 1, 1]),
    [`sys/devices/system/cpu/cpu0/${throttle}`]: '5\n',
    'sys/devices/system/cpu/cpu0/topology/core_id': '0\n',
    'sys/devices/system/cpu/cpu0/topology/physical_package_id': '0\n',
    [`sys/devices/system/cpu/cpu1/${throttle}`]: '6\n',
    'sys/devices/system/cpu/cpu1/topology/core_id': '1\n',
    'sys/devices/system/cpu/cpu1/topology/physical_package_id': '0\n',
  };
  withCpu(files, (tree, collect) => {
    const series = (core: number) => `node_cpu_core_throttles_total{package="0",core="${core}"}`;
    assert.equal(collect().get(series(1)), undefined);
    tree.write('proc/stat', stat([0, 1, 1, 1], [1, 1, 1, 1]));
    tree.write(`sys/devices/system/cpu/cpu0/${throttle}`, '7\n');
    const values = collect();
    assert.equal(values.get(series(0)), 7);
    assert.equal(values.get(series(1)), 6);
    tree.delete('sys/devices/system/cpu/cpu1');
    assert.equal(collect().get(series(0)), 7, 'one whose files go is left out');
  });
});

test('of two threads of one core the first counts; it stays the first', () => {
  const files = { 'proc/stat': stat([0, 1, 1, 1], [1, 1, 1, 1]) };
  const throttled = [0, 1].flatMap((cpu) => [
    [`sys/devices/system/cpu/cpu${cpu}/${throttle}`, `${5 + cpu}\n`],
    [`sys/devices/system/cpu/cpu${cpu}/topology/core_id`, '0\n'],
    [`sys/devices/system/cpu/cpu${cpu}/topology/physical_package_id`, '0\n'],
  ]);
  withCpu({ ...files, ...Object.fromEntries(throttled) }, (_, collect) => {
    for (let instant = 0; instant < 2; instant++) {
      const values = collect();
      assert.equal(values.get('node_cpu_core_throttles_total{package="0",core="0"}'), 5);
    }
  });
});

test('hundreds of CPUs', () => {
  const cpus = Array.from({ length: 512 }, (_, at) => [at, at, at * 2, at * 3] as [number, number, number, number]);
  withCpu({ 'proc/stat': stat(...cpus), 'sys/devices/system/cpu/isolated': '256-511\n' }, (_, collect) => {
    for (let instant = 0; instant < 2; instant++) {
      const values = collect();
      assert.equal(values.size, 512 * 10 + 256);
      for (const [number, user, idle, iowait] of cpus) {
        assert.equal(values.get(seconds(number, 'user')), user / 100);
        assert.equal(values.get(seconds(number, 'idle')), idle / 100);
        assert.equal(values.get(seconds(number, 'iowait')), iowait / 100);
      }
    }
  });
});

test('a list of isolated CPUs that makes no sense is refused before it fills the memory, and costs itself alone', () => {
  for (const list of ['5-2', '0-99999', '0-4294967295', 'x', '1,,2', '-1']) {
    withCpu(
      { 'proc/stat': stat([0, 1, 1, 1]), 'sys/devices/system/cpu/isolated': `${list}\n` },
      (_, collect, { host }) => {
        assert.equal(collect().size, 10);
        const [error] = host.takeErrors();
        assert.match(
          error!.message,
          /sys\/devices\/system\/cpu\/isolated', line 1: ".*" should be a CPU, or a range like 2-5/,
        );
      },
    );
  }
});

test('a line with too few columns is refused; a CPU that has a good one again counts from what it says', () => {
  withCpu({ 'proc/stat': 'cpu  1 2 3 4\ncpu0 1 2 3\n' }, (tree, collect) => {
    assert.throws(collect, /proc\/stat', line 2: cpu0 has 3 columns, expected at least 4/);
    tree.write('proc/stat', 'cpu  1 2 3 4\ncpu0 1 2 3\ncpu1 10 0 0 20\n');
    assert.equal(collect().get(seconds(1, 'user')), 0.1);
    tree.write('proc/stat', 'cpu  1 2 3 4\ncpu0 5 0 0 20\ncpu1 x 0 0 20\n');
    const values = collect();
    assert.equal(values.get(seconds(0, 'user')), 0.05);
    assert.equal(values.get(seconds(1, 'user')), undefined);
    tree.write('proc/stat', 'cpu  1 2 3 4\ncpu0 5 0 0 20\ncpu1 7 0 0 20\n');
    assert.equal(collect().get(seconds(1, 'user')), 0.07);
  });
});
