import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { collectorRows, createCollectors } from '../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { Host } from '../../../src/agent/collect/proc/host.ts';
import { nameOf, pathOf } from '../../../src/agent/collect/proc/names.ts';
import { Sampler } from '../../../src/agent/collect/sampler.ts';
import { inSlowLane } from '../../../src/agent/collect/slow-host.ts';
import { SlowLane } from '../../../src/agent/collect/slow-lane.ts';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { realClock } from '../../../src/runtime/clock.ts';
import { contextOf } from '../../support/collect-fixture.ts';
import { makeTree } from '../../support/fixture-proc.ts';
import { MemoryLog } from '../../support/memory-log.ts';

// Names whose bytes are no UTF-8, on files that are there: the label shows U+FFFD, and what is read is the file.

/** Strings with a character a byte. */
const bytes = (text: string) => Buffer.from(text, 'latin1');
const headings = ' face |bytes packets errs drop fifo frame compressed multicast|bytes\n';
const counters = (name: string, count: number) => `${name}: ${count} 0 0 0 0 0 0 0 0\n`;
const mount = (id: number, point: string) => `${id} 1 8:${id} / ${point} rw - ext4 /dev/sda${id} rw\n`;
const interfaceFiles = (name: string, index: number): [string, string][] =>
  [
    ['operstate', 'up\n'],
    ['ifindex', `${index}\n`],
    ['statistics/rx_nohandler', `${index}00\n`],
  ].map(([file, content]) => [`sys/class/net/${name}/${file}`, content!]);

/** Each collector, in the lane where its row says so: the series and what is logged, of two collections. */
async function collect(files: readonly (readonly [path: string, content: string])[], options: Record<string, string>) {
  const tree = makeTree([]);
  const log = new MemoryLog();
  const counters = newAgentCounters();
  try {
    for (const [path, content] of files) {
      const real = tree.path(nameOf(bytes(path)));
      mkdirSync(pathOf(path.endsWith('/') ? real : dirname(real)), { recursive: true });
      if (!path.endsWith('/')) writeFileSync(pathOf(real), bytes(content));
    }
    const rows = collectorRows.filter(({ name }) =>
      ['filesystem', 'netclass', 'netdev', 'systemd-unit', 'textfile'].includes(name),
    );
    const { roots } = tree;
    const host = new Host(roots);
    const context = contextOf(new Map(Object.entries(options)));
    const collectors = inSlowLane(createCollectors(rows, context), {
      lane: new SlowLane({ clock: realClock, log }),
      roots,
    });
    const sampler = new Sampler({ host, collectors, self: { collect() {} }, clock: realClock, counters, log });
    await sampler.sample();
    const text = expositionOf(await sampler.sample()).replaceAll(tree.folder, '');
    host.close();
    for (const { collector } of collectors) collector.close?.();
    const isSeries = (line: string) => line !== '' && !/^(#|node_scrape_|sysmon_agent_|node_exporter_)/.test(line);
    return {
      lines: text.split('\n').filter(isSeries),
      log: log.lines.filter((line) => line.startsWith('warn')),
      counters,
    };
  } finally {
    rmSync(pathOf(tree.folder), { recursive: true });
  }
}

test('mount points, interfaces, control groups and text files whose names are no UTF-8', async () => {
  const unit = 'sys/fs/cgroup/system.slice/caf\xe9.service';
  const { lines, log } = await collect(
    [
      ['proc/1/mountinfo', mount(1, '/mnt/caf\xe9') + mount(2, '/mnt/caf\xc3\xa9') + mount(3, '/mnt/a\\040\xff')],
      ['root/mnt/caf\xe9/', ''],
      ['root/mnt/caf\xc3\xa9/', ''],
      ['root/mnt/a \xff/', ''],
      ['proc/net/dev', headings + counters('w\xe9b0', 7) + counters('w\xc3\xa9b', 8)],
      ...interfaceFiles('w\xe9b0', 3),
      ...interfaceFiles('w\xc3\xa9b', 4),
      ['sys/fs/cgroup/cgroup.stat', 'nr_descendants 2\n'],
      [`${unit}/cgroup.controllers`, 'memory\n'],
      [`${unit}/memory.current`, '4096\n'],
      ['root/text/caf\xe9.prom', 'a_metric 1\n'],
    ],
    { 'textfile.directory': '/text' },
  );
  assert.deepEqual(log, []);
  const has = (...expected: string[]) => {
    for (const line of expected) assert.ok(lines.includes(line), `${line}\nis not in\n${lines.join('\n')}`);
  };
  has(
    'node_filesystem_device_error{device="/dev/sda1",mountpoint="/mnt/caf\ufffd",fstype="ext4"} 0',
    'node_filesystem_device_error{device="/dev/sda2",mountpoint="/mnt/café",fstype="ext4"} 0',
    'node_filesystem_device_error{device="/dev/sda3",mountpoint="/mnt/a \ufffd",fstype="ext4"} 0',
    'node_network_up{device="w\ufffdb0"} 1',
    'node_network_iface_id{device="w\ufffdb0"} 3',
    'node_network_iface_id{device="wéb"} 4',
    'node_network_receive_bytes_total{device="w\ufffdb0"} 7',
    'node_network_receive_nohandler_total{device="w\ufffdb0"} 300',
    'node_systemd_unit_memory_current_bytes{name="caf\ufffd.service"} 4096',
    'a_metric 1',
  );
  assert.ok(lines.some((line) => /^node_textfile_mtime_seconds\{file=".*caf\ufffd\.prom"\} /.test(line)));
  assert.equal(lines.filter((line) => !line.isWellFormed()).length, 0);
});

test('of two names that are shown alike the first is kept, the other counted and said once', async () => {
  const {
    lines,
    log,
    counters: counted,
  } = await collect(
    [
      ['proc/net/dev', headings + counters('w\xe9b0', 7) + counters('w\xeab0', 8)],
      ...interfaceFiles('w\xe9b0', 3),
      ...interfaceFiles('w\xeab0', 4),
    ],
    {},
  );
  const of = (name: string) => lines.filter((line) => line.startsWith(`${name}{`));
  assert.deepEqual(of('node_network_receive_bytes_total'), ['node_network_receive_bytes_total{device="w\ufffdb0"} 7']);
  assert.deepEqual(of('node_network_iface_id'), ['node_network_iface_id{device="w\ufffdb0"} 3']);
  assert.deepEqual(log, [
    "warn: two names become the label 'w\ufffdb0', because they are no UTF-8 or too long; keeping the first",
  ]);
  assert.ok(counted.samplesDuplicate > 2);
});
