import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { contextOf, expectedOf, isAsked, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { fixtureFile } from '../../../support/files.ts';
import { type FixtureHost, hostOf, makeTree, parseFixture, printFixture } from '../../../support/fixture-proc.ts';

// Each collector over the kernel files of its fixture. UPDATE=1 rewrites what is expected: read the difference.
for (const { name } of collectorRows) {
  const path = fixtureFile(`collectors/${name}.txt`);
  const fixture = parseFixture(readFileSync(path, 'utf8'));
  if (process.env.UPDATE === '1') {
    const hosts = fixture.hosts.map((host) =>
      isAsked(host.title) ? host : { ...host, expected: expectedOf(name, host) },
    );
    writeFileSync(path, printFixture({ ...fixture, hosts }));
  } else {
    for (const host of fixture.hosts.filter(({ title }) => !isAsked(title))) {
      test(`${name}: ${host.title}`, () => {
        assert.equal(expectedOf(name, host), host.expected);
      });
      if (!host.title.startsWith('broken')) {
        test(`${name}: ${host.title}: the same files once more`, () => collectTwice(name, host));
      }
    }
  }
}

/** A collector remembers what it can of the last collection: the next one gives the same. */
function collectTwice(name: string, fixture: FixtureHost): void {
  const tree = makeTree(fixture.files, fixture.links);
  const host = hostOf(tree, fixture);
  const one = new OneCollector(newCollector(name, contextOf(fixture.options)));
  try {
    const first = expositionOf(one.collect(host));
    assert.equal(expositionOf(one.collect(host)), first);
    assert.deepEqual(host.takeErrors(), []);
  } finally {
    host.close();
    tree.remove();
  }
}

test('a fixture file is read as it is printed', () => {
  const text = readFileSync(fixtureFile('collectors/stat.txt'), 'utf8');
  assert.equal(printFixture(parseFixture(text)), text);
});

test('a fixture may have symbolic links', () => {
  const text = '=== links\n--- sys/class/net/eth0/master -> ../bond0\n--- sys/class/net/bond0/mtu\n1500\n';
  const fixture = parseFixture(text);
  assert.equal(printFixture(fixture), text);
  const { files, links } = fixture.hosts[0]!;
  const tree = makeTree(files, links);
  try {
    assert.equal(readFileSync(tree.path('sys/class/net/eth0/master/mtu'), 'utf8'), '1500\n');
  } finally {
    tree.remove();
  }
});
