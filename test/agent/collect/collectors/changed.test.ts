import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { contextOf, fixtureHosts, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { type FixtureHost, hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

// A collector remembers what it can: columns, labels, paths, devices. Files that come to be those of another host (devices that come
// and go, a container that is moved) give what a new collector makes of them. Not here: netdev and vmstat, which rely on a kernel
// that has the same fields as long as it runs.
const names = [
  ...['arp', 'conntrack', 'diskstats', 'mdadm', 'netstat', 'os', 'pressure', 'schedstat', 'selinux', 'sockstat'],
  ...['softnet', 'stat', 'udp_queues'],
];

function hostsOf(name: string): FixtureHost[] {
  return fixtureHosts(name).filter(({ title, options, system }) => {
    return !title.startsWith('broken') && options.size === 0 && system.size === 0;
  });
}

for (const name of names) {
  test(`${name}: the files become those of another host, and of the first again`, async () => {
    const hosts = hostsOf(name);
    assert.ok(hosts.length > 1);
    const tree = makeTree([]);
    const host = hostOf(tree, { system: new Map() });
    const clock = new VirtualClock();
    const one = new OneCollector(newCollector(name, { ...contextOf(), clock }));
    try {
      for (const fixture of [...hosts, hosts[0]!]) {
        for (const root of Object.values(tree.roots)) {
          rmSync(root, { recursive: true });
          mkdirSync(root);
        }
        host.close();
        for (const [path, content] of fixture.files) tree.write(path, content);
        for (const [link, target] of fixture.links) tree.link(link, target);
        // Some files are read once a minute.
        await clock.advance(60_000);
        assert.equal(expositionOf(one.collect(host)), fixture.expected, fixture.title);
      }
    } finally {
      host.close();
      tree.remove();
    }
  });
}
