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
): Promise<string[]> {
  const clock = new VirtualClock();
  const tree = makeTree(changes.map(([file, before]) => [file, before]));
  const host = hostOf(tree, { system: new Map() });
  const collector = new OneCollector(newCollector(name, { ...contextOf(), clock }));
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
