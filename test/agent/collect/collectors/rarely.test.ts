import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const source = 'sys/devices/system/clocksource/clocksource0';

/** What a collector says of a host before its files change, 59 s after that, and a minute after that. */
async function follow(
  name: string,
  changes: readonly (readonly [file: string, before: string, after: string])[],
  options: ReadonlyMap<string, string> = new Map(),
): Promise<string[]> {
  const clock = new VirtualClock();
  const tree = makeTree(changes.map(([file, before]) => [file, before]));
  const host = hostOf(tree, { system: new Map() });
  const collector = new OneCollector(newCollector(name, { ...contextOf(options), clock }));
  const texts: string[] = [];
  try {
    texts.push(expositionOf(collector.collect(host)));
    for (const [file, , after] of changes) tree.write(file, after);
    await clock.advance(59_000);
    texts.push(expositionOf(collector.collect(host)));
    await clock.advance(1000);
    texts.push(expositionOf(collector.collect(host)));
    return texts.map((text) => text.replaceAll(/^(?:#|node_time_(?:seconds|zone)).*\n/gm, ''));
  } finally {
    host.close();
    tree.remove();
  }
}

test('the names of a host are read once a minute', async () => {
  const texts = await follow('uname', [
    ['proc/sys/kernel/hostname', 'old\n', 'new\n'],
    ['proc/sys/kernel/domainname', '(none)\n', 'lan\n'],
  ]);
  const labels = texts.map((text) => /nodename="\w+",domainname="[^"]+"/.exec(text)?.[0]);
  assert.deepEqual(labels, [
    'nodename="old",domainname="(none)"',
    'nodename="old",domainname="(none)"',
    'nodename="new",domainname="lan"',
  ]);
});

test('the sources of the clock are read once a minute', async () => {
  const texts = await follow('time', [
    [`${source}/current_clocksource`, 'tsc\n', 'hpet\n'],
    [`${source}/available_clocksource`, 'tsc hpet\n', 'hpet\n'],
  ]);
  const line = (what: string, name: string) =>
    `node_time_clocksource_${what}_info{device="0",clocksource="${name}"} 1\n`;
  assert.deepEqual(texts, [
    line('available', 'tsc') + line('available', 'hpet') + line('current', 'tsc'),
    line('available', 'tsc') + line('available', 'hpet') + line('current', 'tsc'),
    line('available', 'hpet') + line('current', 'hpet'),
  ]);
});

test('the alias of a network device is read once a minute, and its counters each time', async () => {
  const counters = (count: number) =>
    ` face |bytes packets errs drop fifo frame compressed multicast|bytes\n  eth0: ${count} 0 0 0 0 0 0 0 0\n`;
  const texts = await follow(
    'netdev',
    [
      ['proc/net/dev', counters(1), counters(2)],
      ['sys/class/net/eth0/ifalias', 'rack 7\n', 'rack 8\n'],
    ],
    new Map([['netdev.label-ifalias', 'true']]),
  );
  const series = texts.map((text) => /^node_network_receive_bytes_total.*$/m.exec(text)?.[0]);
  assert.deepEqual(series, [
    'node_network_receive_bytes_total{device="eth0",ifalias="rack 7"} 1',
    'node_network_receive_bytes_total{device="eth0",ifalias="rack 7"} 2',
    'node_network_receive_bytes_total{device="eth0",ifalias="rack 8"} 2',
  ]);
});

test('names of PCI devices are looked for when there is a device that is new', () => {
  const ids = 'root/usr/share/misc/pci.ids';
  const tree = makeTree([[ids, '8086  Intel\n1022  AMD\n']]);
  const host = hostOf(tree, { system: new Map() });
  const collector = new OneCollector(newCollector('pcidevice', contextOf(new Map([['pcidevice.names', 'true']]))));
  const add = (place: string, vendor: string) => tree.write(`sys/bus/pci/devices/${place}/vendor`, `0x${vendor}\n`);
  const vendors = () =>
    [...expositionOf(collector.collect(host)).matchAll(/,vendor_name="([^"]*)"/g)].map(([, name]) => name);
  try {
    add('0000:00:00.0', '8086');
    assert.deepEqual(vendors(), ['Intel']);
    tree.write(ids, '8086  Intel Corporation\n1022  Advanced Micro Devices\n');
    assert.deepEqual(vendors(), ['Intel'], 'it is a large file');
    add('0000:00:01.0', '1022');
    assert.deepEqual(vendors(), ['Intel Corporation', 'Advanced Micro Devices']);
    tree.write(ids, '8086  Intel\n1022  AMD\n10de  NVIDIA');
    add('0000:00:02.0', '10de');
    assert.deepEqual(vendors(), ['Intel', 'AMD', 'NVIDIA']);
  } finally {
    host.close();
    tree.remove();
  }
});
