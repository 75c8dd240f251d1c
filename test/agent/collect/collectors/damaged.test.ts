import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { CollectError } from '../../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { fixtureFile } from '../../../support/files.ts';
import { type FixtureHost, type FixtureTree, makeTree, parseFixture } from '../../../support/fixture-proc.ts';

// Every file of every fixture, damaged in every way. A collector either says which file is at fault, or gives no series
// that it would not have given for the whole file, and none with another value.

/** What a new collector makes of the tree, or its complaint, which is about this file. */
function collect(name: string, { options }: FixtureHost, tree: FixtureTree, file: string): string | CollectError {
  const host = new Host(tree.roots);
  try {
    return expositionOf(new OneCollector(newCollector(name, contextOf(options))).collect(host));
  } catch (error) {
    if (!(error instanceof CollectError)) throw error;
    assert.equal(error.path, tree.path(file));
    assert.ok(error.message.includes(`'${tree.path(file)}'`), error.message);
    return error;
  } finally {
    host.close();
  }
}

function withTree<T>(host: FixtureHost, run: (tree: FixtureTree) => T): T {
  const tree = makeTree(host.files);
  try {
    return run(tree);
  } finally {
    tree.remove();
  }
}

function fixtureHosts(name: string): readonly FixtureHost[] {
  return parseFixture(readFileSync(fixtureFile(`collectors/${name}.txt`), 'utf8')).hosts;
}

/** Whether what stands in the file makes a difference. */
function isRead(name: string, host: FixtureHost, file: string): boolean {
  return withTree(host, (tree) => {
    tree.write(file, 'something else\n');
    return collect(name, host, tree, file) !== host.expected;
  });
}

for (const { name } of collectorRows) {
  for (const host of fixtureHosts(name)) {
    for (const file of [...host.files.keys()].filter((path) => isRead(name, host, path))) {
      test(`${name}: ${host.title}: ${file} empty, unreadable, and cut at every byte`, () => {
        withTree(host, (tree) => {
          tree.write(file, '');
          assert.ok(collect(name, host, tree, file) instanceof CollectError, 'empty');

          const whole = new Set(host.expected?.split('\n'));
          const bytes = Buffer.from(host.files.get(file)!);
          for (let length = 1; length < bytes.length; length++) {
            tree.write(file, bytes.subarray(0, length));
            const result = collect(name, host, tree, file);
            if (result instanceof CollectError) continue;
            assert.equal(bytes[length - 1], 0x0a, `cut within a line, at ${length}, and not refused`);
            for (const line of result.split('\n')) assert.ok(whole.has(line), `cut at ${length}: ${line}`);
          }

          // A folder where a file should be cannot be read by anybody, not even by root.
          tree.delete(file);
          mkdirSync(tree.path(file));
          const result = collect(name, host, tree, file);
          assert.ok(result instanceof CollectError && result.code === 'unreadable');
        });
      });
    }
  }
}

for (const [name, file] of [
  ['cpu', 'proc/stat'],
  ['loadavg', 'proc/loadavg'],
  ['meminfo', 'proc/meminfo'],
  ['netdev', 'proc/net/dev'],
  ['stat', 'proc/stat'],
  ['uname', 'proc/sys/kernel/hostname'],
] as const) {
  test(`${name} without ${file} says that it is missing`, () => {
    const [host] = fixtureHosts(name);
    withTree(host!, (tree) => {
      tree.delete(file);
      const result = collect(name, host!, tree, file);
      assert.ok(result instanceof CollectError && result.code === 'no-data');
      assert.match(result.message, /does not exist/);
    });
  });
}
