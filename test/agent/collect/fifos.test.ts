import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { collectorRows } from '../../../src/agent/collect/collectors/index.ts';
import { CollectError } from '../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../src/agent/collect/proc/host.ts';
import type { CollectedEach } from '../../support/collect-each.ts';
import { collectOn, wholeHost } from '../../support/collect-fixture.ts';
import { filesRead } from '../../support/files-read.ts';
import { type FixtureTree, systemOf } from '../../support/fixture-proc.ts';

// A FIFO that nobody writes to stands for a file that never answers: whoever opens it as usual waits for ever. Of each collector one
// file of the whole host is one: at a time the last and the first of those that it reads in sysfs; in /proc, where it reads none
// there. The process that collects ends all the same, and each collector gives what it gives with a folder in that place, which is
// an error at once. What that costs is tested in damaged.ts.

const kernel = 'Linux 6.18';
const script = fileURLToPath(new URL('../../support/collect-each.js', import.meta.url));
const collectMsMax = 60_000;
/** What they read depends on options, or is asked over a socket, or stands below --rootfs. */
const withoutFile = ['os', 'sysctl', 'systemd', 'textfile', 'timex'];

const whole = wholeHost(kernel);
after(() => whole.remove());

for (const [which, at] of [
  ['last', -1],
  ['first', 0],
] as const) {
  test(`a FIFO in place of the ${which} file of each collector costs what a folder there costs`, async () => {
    const names = collectorRows.map(({ name }) => name).filter((name) => !withoutFile.includes(name));
    const files = new Map(names.map((name) => [name, fileOf(name, at)]));
    const paths = [...new Set(files.values())];
    const collected = await collectWithFifos(paths);
    const expected = collectWithFolders(paths);
    for (const [name, file] of files) {
      assert.deepEqual(collected[name]!.lines, expected.get(name), `${name}, with a FIFO at ${file}`);
      assert.notEqual(collected[name]!.problems, 0, `${name} says nothing of a FIFO at ${file}`);
    }
  });
}

function fileOf(name: string, at: 0 | -1): string {
  const files = filesRead(name, whole);
  const inSysfs = files.filter((file) => file.startsWith('sys/'));
  const file = (inSysfs.length > 0 ? inSysfs : files).at(at);
  assert.ok(file !== undefined, `${name} reads no file`);
  return file;
}

/** By collector, its series as sorted lines; none where it fails. */
function collectWithFolders(files: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const tree = treeWithout(files);
  for (const file of files) mkdirSync(tree.path(file));
  const host = new Host(tree.roots, systemOf());
  try {
    return new Map(collectorRows.map(({ name }) => [name, linesOf(name, host)]));
  } finally {
    host.close();
    tree.remove();
  }
}

function linesOf(name: string, host: Host): readonly string[] {
  try {
    const { text: found } = collectOn(name, host, new Map(), () => {});
    const lines = found.replaceAll(host.path('proc').slice(0, -'/proc'.length), '').split('\n');
    return lines.filter((line) => line !== '' && !line.startsWith('#')).sort();
  } catch (error) {
    if (!(error instanceof CollectError)) throw error;
    return [];
  }
}

async function collectWithFifos(files: readonly string[]): Promise<CollectedEach> {
  const tree = treeWithout(files);
  try {
    execFileSync(
      'mkfifo',
      files.map((file) => tree.path(file)),
    );
    // A thread for each that hangs.
    const env = { ...process.env, UV_THREADPOOL_SIZE: '256' };
    const child = spawn(process.execPath, [script, tree.folder], { stdio: ['ignore', 'pipe', 'inherit'], env });
    const timer = setTimeout(() => child.kill('SIGKILL'), collectMsMax);
    const printed = await text(child.stdout);
    clearTimeout(timer);
    assert.notEqual(printed, '', `it has not collected within ${collectMsMax} ms`);
    return JSON.parse(printed.replaceAll(tree.folder, ''));
  } finally {
    tree.remove();
  }
}

function treeWithout(files: readonly string[]): FixtureTree {
  const tree = wholeHost(kernel);
  for (const file of files) rmSync(tree.path(file));
  return tree;
}
