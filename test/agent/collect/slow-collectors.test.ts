import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { CollectorRow } from '../../../src/agent/collect/collectors/collector.ts';
import { diskstats } from '../../../src/agent/collect/collectors/diskstats.ts';
import { hwmon } from '../../../src/agent/collect/collectors/hwmon.ts';
import { collectorRows } from '../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { UnreadableError } from '../../../src/agent/collect/proc/errors.ts';
import type { Host } from '../../../src/agent/collect/proc/host.ts';
import { readsLate, SlowCollector } from '../../../src/agent/collect/slow-host.ts';
import { SlowLane } from '../../../src/agent/collect/slow-lane.ts';
import { contextOf, fixtureHosts, OneCollector } from '../../support/collect-fixture.ts';
import { type FixtureHost, type FixtureTree, hostOf, makeTree } from '../../support/fixture-proc.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { TreeCalls } from '../../support/tree-calls.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

// The collectors of the slow lane over their fixtures, in the lane: they find all at the first instant, and at the next ones
// ask for nothing but the values, of files that are there and stay open.

/** Whose sizes are of no file; slow-lane.test.ts has it. */
const withoutFiles = ['filesystem'];

for (const row of collectorRows.filter(({ lane, name }) => lane === 'slow' && !withoutFiles.includes(name))) {
  for (const fixture of fixtureHosts(row.name).filter(({ title }) => !title.startsWith('broken'))) {
    test(`${row.name}: ${fixture.title}: in the slow lane`, () => collectTwice(row, fixture));
  }
}

test('hwmon: what a driver refuses, and what hangs, costs its own series', async () => {
  const fixture = fixtureHosts('hwmon').find(({ title }) => title.startsWith('Linux 4.4'))!;
  const bed = new Bed(hwmon, fixture);
  try {
    await bed.collect();
    const refused = [
      ['sys/class/hwmon/hwmon0/temp1_input', 'ENODATA'],
      ['sys/class/hwmon/hwmon1/fan1_input', 'EINVAL'],
    ] as const;
    for (const [path, code] of refused) bed.calls.failing.set(path, code);
    bed.calls.hanging.add('sys/class/hwmon/hwmon2/device/temp');
    const lines = (text: string) => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    const gone = /^node_hwmon_(fan_rpm|temp_celsius)\{/;
    const rest = lines(fixture.expected!).filter((line) => !gone.test(line));
    // What hangs keeps its value for one interval.
    assert.deepEqual(
      lines(await bed.collect()),
      [...rest, 'node_hwmon_temp_celsius{chip="thermal_thermal_zone0",sensor="temp0"} 29.8'].sort(byFixture(fixture)),
    );
    assert.deepEqual(bed.takeErrnos(), ['ENODATA', 'EINVAL']);
    assert.deepEqual(lines(await bed.collect()), rest);
    assert.deepEqual(bed.takeErrnos(), ['ENODATA', 'EINVAL', 'late']);
    bed.calls.failing.clear();
    bed.calls.release('sys/class/hwmon/hwmon2/device/temp');
    assert.equal(await bed.collect(), fixture.expected);
  } finally {
    bed.end();
  }
});

test('diskstats: a disk whose queue hangs stays what it was, and its counters are there', async () => {
  const rotational = 'sys/block/sda/queue/rotational';
  const files = new Map([
    ['proc/diskstats', '   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n'],
    [rotational, '1\n'],
  ]);
  const bed = new Bed(diskstats, { ...fixtureHosts('diskstats')[0]!, files, links: new Map() });
  try {
    const whole = await bed.collect();
    assert.match(whole, /^node_disk_info\{device="sda",.*rotational="1"\} 1$/m);
    bed.calls.hanging.add(rotational);
    for (let instant = 0; instant < 24; instant++) assert.equal(await bed.collect(), whole);
    assert.ok(bed.takeErrnos().includes('late'));
    bed.calls.release(rotational);
    bed.tree.write(rotational, '0\n');
    for (let instant = 0; instant < 13; instant++) await bed.collect();
    assert.equal(await bed.collect(), whole.replace('rotational="1"', 'rotational="0"'));
  } finally {
    bed.end();
  }
});

test('no collector of the lane reads past it', () => {
  for (const { name } of collectorRows.filter(({ lane }) => lane === 'slow')) {
    const url = new URL(`../../../../src/agent/collect/collectors/${name}.ts`, import.meta.url);
    assert.doesNotMatch(readFileSync(url, 'utf8'), /\bhost\.(exists|stat|passing|readForeign)\(/, name);
  }
});

/** In the order in which the fixture has them. */
function byFixture({ expected = '' }: FixtureHost): (a: string, b: string) => number {
  return (a, b) => expected.indexOf(a) - expected.indexOf(b);
}

async function collectTwice(row: CollectorRow, fixture: FixtureHost): Promise<void> {
  const bed = new Bed(row, fixture);
  const { calls } = bed;
  try {
    assert.equal(await bed.collect(), fixture.expected);
    calls.made.length = 0;
    assert.equal(await bed.collect(), fixture.expected);
    assert.deepEqual(bed.takeErrnos(), []);
    // Of a CPU that is offline the first run asked for all, before it knew.
    const made = calls.made.filter((call) => !call.startsWith('close '));
    assert.deepEqual(
      made.filter((call) => !call.startsWith('read ')),
      [],
    );
    assert.equal(made.length, calls.openCount);
  } finally {
    bed.end();
  }
}

/** A collector in the lane, over the files of a fixture. */
class Bed {
  readonly calls: TreeCalls;
  readonly tree: FixtureTree;
  readonly #clock = new VirtualClock();
  readonly #slow: SlowCollector;
  readonly #host: Host;
  readonly #one: OneCollector;

  constructor(row: CollectorRow, fixture: FixtureHost) {
    this.tree = makeTree(fixture.files, fixture.links);
    this.calls = new TreeCalls(this.tree);
    const lane = new SlowLane({ clock: this.#clock, log: new MemoryLog(), calls: this.calls, rareFilesKeptMax: 0 });
    const { roots } = this.tree;
    this.#slow = new SlowCollector(row.name, row.create(contextOf(fixture.options)), { lane, roots });
    this.#host = hostOf(this.tree, fixture);
    this.#one = new OneCollector(this.#slow);
  }

  /** Collects, and lets 5 s pass. */
  async collect(): Promise<string> {
    this.#host.beginInstant();
    const prepared = this.#slow.prepare(this.#host);
    await this.#clock.advance(5000);
    await prepared;
    return withoutOwn(expositionOf(this.#one.collect(this.#host)).replaceAll(this.tree.folder, ''));
  }

  takeErrnos(): string[] {
    return this.#host.takeErrors().map((error) => (error instanceof UnreadableError ? error.errno : error.code));
  }

  end(): void {
    this.#slow.close();
    this.#host.close();
    assert.equal(this.calls.openCount, 0);
    this.tree.remove();
  }
}

/** Without what the lane says of itself. */
function withoutOwn(text: string): string {
  return text.replaceAll(new RegExp(`^.*${readsLate.name}.*\n`, 'gm'), '');
}
