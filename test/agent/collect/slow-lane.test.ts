import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Collector, Samples } from '../../../src/agent/collect/collectors/collector.ts';
import { gauge } from '../../../src/agent/collect/collectors/collector.ts';
import { filesystem } from '../../../src/agent/collect/collectors/filesystem.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { NoDataError } from '../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../src/agent/collect/proc/host.ts';
import type { KernelText } from '../../../src/agent/collect/proc/text.ts';
import { Sampler } from '../../../src/agent/collect/sampler.ts';
import { SlowCollector } from '../../../src/agent/collect/slow-host.ts';
import { SlowLane, type SlowLaneOptions } from '../../../src/agent/collect/slow-lane.ts';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { contextOf } from '../../support/collect-fixture.ts';
import { type FixtureTree, makeTree } from '../../support/fixture-proc.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { parseMetrics } from '../../support/node-exporter.ts';
import { TreeCalls } from '../../support/tree-calls.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const value = gauge('node_value', 'A value.', { labels: ['device', 'kind'] });
const number = (text: KernelText) => text.unsigned('the value');
const word = (text: KernelText) => text.word('the kind');

/** Devices with a value and, unless it is unknown, a kind. */
class Things implements Collector {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(this.#folder)) {
      const kind = host.rareValue(`${this.#folder}/${name}/kind`, word);
      const count = host.value(`${this.#folder}/${name}/value`, number);
      if (kind !== undefined && count !== undefined) out.sample(value, count, name, kind);
    }
  }
}

const things = 'sys/class/things';

/** Without what is logged of each read that gives nothing. */
class WarningLog extends MemoryLog {
  override debug(): void {}
}

/** A sampler of things, with what a test looks at. */
class Bed {
  readonly clock = new VirtualClock();
  readonly log = new WarningLog();
  readonly tree: FixtureTree;
  readonly calls: TreeCalls;
  readonly lane: SlowLane;
  /** Attributes that could not be read, since the start. */
  unreadable: number | undefined;
  readonly #sampler: Sampler;
  readonly #host: Host;
  readonly #collectors;

  constructor(
    files: Readonly<Record<string, string>>,
    collectors: Readonly<Record<string, Collector>>,
    options: Pick<SlowLaneOptions, 'filesKeptMax' | 'rareFilesKeptMax'>,
  ) {
    this.tree = makeTree(Object.entries(files));
    this.calls = new TreeCalls(this.tree);
    this.lane = new SlowLane({ clock: this.clock, log: this.log, calls: this.calls, ...options });
    const { roots } = this.tree;
    this.#host = new Host(roots);
    this.#collectors = Object.entries(collectors).map(([name, collector]) => ({
      ...{ name, collector: new SlowCollector(name, collector, { lane: this.lane, roots }) },
    }));
    this.#sampler = new Sampler({
      ...{ host: this.#host, collectors: this.#collectors, self: { collect() {} } },
      ...{ clock: this.clock, log: this.log, counters: newAgentCounters() },
    });
  }

  /** Samples once, by default 5 s after the last time: the series, without those about the agent; and how long it took. */
  async sample(intervalMs = 5000): Promise<{ readonly series: Record<string, number>; readonly ms: number }> {
    const startMs = this.clock.monotonicMs();
    let ms = Number.NaN;
    const sampling = this.#sampler.sample().then((recording) => {
      ms = this.clock.monotonicMs() - startMs;
      return parseMetrics(expositionOf(recording)).values;
    });
    await this.clock.advance(intervalMs);
    const found = await sampling;
    this.unreadable = found.get('sysmon_agent_attributes_unreadable_total{collector="things"}');
    const values = [...found].filter(([name]) => !/^(node_scrape_|sysmon_agent_(parse|attributes))/.test(name));
    return { series: Object.fromEntries(values), ms };
  }

  close(): void {
    for (const { collector } of this.#collectors) collector.close();
    this.#host.close();
  }

  end(): void {
    this.close();
    for (const path of [...this.calls.hanging]) this.calls.release(path);
    assert.equal(this.calls.openCount, 0, 'all files are closed');
    this.tree.remove();
  }
}

function thing(name: string, count: number, folder = things): Record<string, string> {
  return { [`${folder}/${name}/value`]: `${count}\n`, [`${folder}/${name}/kind`]: 'disk\n' };
}

function series(name: string): string {
  return `node_value{device="${name}",kind="disk"}`;
}

function late(collector: string): string {
  return `sysmon_agent_reads_late{collector="${collector}"}`;
}

async function withBed(
  files: Readonly<Record<string, string>>,
  collectors: Readonly<Record<string, Collector>>,
  use: (bed: Bed) => Promise<void>,
  options: Pick<SlowLaneOptions, 'filesKeptMax' | 'rareFilesKeptMax'> = { rareFilesKeptMax: 0 },
): Promise<void> {
  const bed = new Bed(files, collectors, options);
  try {
    await use(bed);
  } finally {
    bed.end();
  }
}

const one = { things: new Things(things) };

test('the first instant has everything; afterwards each file is read once an instant, a rare one once a minute', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2) }, one, async (bed) => {
    const expected = { [series('a')]: 1, [series('b')]: 2, [late('things')]: 0 };
    assert.deepEqual(await bed.sample(), { series: expected, ms: 0 });
    const { made } = bed.calls;
    assert.equal(made.filter((call) => call.startsWith('names')).length, 1);
    assert.equal(made.filter((call) => call.startsWith('open')).length, 4);
    for (let instant = 1; instant < 12; instant++) await bed.sample();
    assert.equal(bed.calls.count(`read ${things}/a/value`), 12);
    assert.equal(bed.calls.count(`open ${things}/a/value`), 1, 'it stays open');
    assert.ok([2, 3].includes(bed.calls.count(`read ${things}/a/kind`)));
    assert.equal(bed.calls.openCount, 2, 'what is read rarely is closed');
    assert.equal(bed.calls.count(`names ${things}`), 4);
    bed.tree.write(`${things}/a/value`, '7\n');
    assert.equal((await bed.sample()).series[series('a')], 7);
  }));

test('a file that only root may read is asked for once a minute, and read when that has changed', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2) }, one, async (bed) => {
    bed.calls.failing.set(`${things}/a/value`, 'EACCES');
    const expected = { [series('b')]: 2, [late('things')]: 0 };
    for (let instant = 0; instant < 12; instant++) assert.deepEqual((await bed.sample()).series, expected);
    assert.ok([1, 2].includes(bed.calls.count(`open ${things}/a/value`)));
    assert.equal(bed.calls.count(`read ${things}/b/value`), 12);
    bed.calls.failing.clear();
    for (let instant = 0; instant < 12; instant++) await bed.sample();
    assert.equal((await bed.sample()).series[series('a')], 1);
    assert.equal(bed.calls.openCount, 2);
  }));

test('a file that is missing is looked for each 15 s, and read at each instant once it is there', () =>
  withBed({ ...thing('a', 1), [`${things}/b/kind`]: 'disk\n' }, one, async (bed) => {
    for (let instant = 0; instant < 6; instant++) await bed.sample();
    assert.equal(bed.calls.count(`open ${things}/b/value`), 2);
    bed.tree.write(`${things}/b/value`, '2\n');
    for (let instant = 0; instant < 3; instant++) await bed.sample();
    bed.tree.write(`${things}/b/value`, '3\n');
    assert.equal((await bed.sample()).series[series('b')], 3);
  }));

test('beyond a number of open files, one is opened for each read', () => {
  const files = Object.assign({}, ...['a', 'b', 'c', 'd', 'e'].map((name, at) => thing(name, at)));
  return withBed(
    files,
    one,
    async (bed) => {
      await bed.sample();
      const before = bed.calls.made.length;
      assert.deepEqual((await bed.sample()).series, {
        ...Object.fromEntries(['a', 'b', 'c', 'd', 'e'].map((name, at) => [series(name), at])),
        [late('things')]: 0,
      });
      assert.equal(bed.calls.openCount, 3);
      const made = bed.calls.made.slice(before).map((call) => call.split(' ')[0]);
      assert.deepEqual(
        ['read', 'open', 'close'].map((kind) => made.filter((each) => each === kind).length),
        [5, 2, 2],
      );
    },
    { filesKeptMax: 3, rareFilesKeptMax: 0 },
  );
});

test('of a few devices, what is read rarely stays open too', () =>
  withBed(
    { ...thing('a', 1), ...thing('b', 2) },
    one,
    async (bed) => {
      for (let instant = 0; instant < 25; instant++) await bed.sample();
      assert.equal(bed.calls.count(`open ${things}/a/kind`), 1);
      const reads = bed.calls.count(`read ${things}/a/kind`);
      assert.ok(reads >= 3 && reads <= 5, `read ${reads} times`);
      assert.equal(bed.calls.openCount, 4);
      // With more files than that, each is closed when it was read the next time.
      for (const [path, content] of Object.entries(thing('c', 3))) bed.tree.write(path, content);
      for (let instant = 0; instant < 25; instant++) await bed.sample();
      assert.equal(bed.calls.openCount, 4);
    },
    { rareFilesKeptMax: 4 },
  ));

/** Devices with a state, and a speed that changes with it. */
class Links implements Collector {
  readonly #areSure: boolean;

  constructor({ areSure }: { readonly areSure: boolean }) {
    this.#areSure = areSure;
  }

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(things)) {
      const state = `${things}/${name}/state`;
      host.value(state, word);
      const speed = host.valueAfter(`${things}/${name}/speed`, { paths: [state], areSure: this.#areSure }, number);
      if (speed !== undefined) out.sample(value, speed, name, 'disk');
    }
  }
}

function link(name: string, state: string, speed: number): Record<string, string> {
  return { [`${things}/${name}/state`]: `${state}\n`, [`${things}/${name}/speed`]: `${speed}\n` };
}

test('what changes with another file is read at the instant at which that changes, and else once a minute', () =>
  withBed(
    { ...link('a', 'up', 10), ...link('b', 'up', 100) },
    { things: new Links({ areSure: false }) },
    async (bed) => {
      const reads = (name: string) => bed.calls.count(`read ${things}/${name}/speed`);
      const speeds = async () => {
        const found = (await bed.sample()).series;
        return [found[series('a')], found[series('b')]];
      };
      assert.deepEqual(await speeds(), [10, 100]);
      bed.tree.write(`${things}/a/speed`, '20\n');
      for (let instant = 0; instant < 4; instant++) assert.deepEqual(await speeds(), [10, 100]);
      assert.deepEqual([reads('a'), reads('b')], [1, 1]);

      bed.tree.write(`${things}/a/state`, 'down\n');
      assert.deepEqual(await speeds(), [20, 100]);
      assert.deepEqual([reads('a'), reads('b')], [2, 1]);
      // From one that is longer to one that is its beginning.
      bed.tree.write(`${things}/b/state`, 'u\n');
      bed.tree.write(`${things}/b/speed`, '200\n');
      assert.deepEqual(await speeds(), [20, 200]);
      assert.deepEqual([reads('a'), reads('b')], [2, 2]);
      for (let instant = 0; instant < 16; instant++) await speeds();
      assert.ok(reads('a') >= 3 && reads('a') <= 5, `read ${reads('a')} times`);
    },
  ));

test('what changes with another file alone is read with that, and else each ten minutes', () =>
  withBed(link('a', 'up', 10), { things: new Links({ areSure: true }) }, async (bed) => {
    const reads = () => bed.calls.count(`read ${things}/a/speed`);
    const sample = async (instants: number) => {
      for (let instant = 0; instant < instants; instant++) await bed.sample();
      return (await bed.sample()).series[series('a')];
    };
    await sample(50);
    assert.equal(reads(), 1);
    bed.tree.write(`${things}/a/speed`, '20\n');
    bed.tree.write(`${things}/a/state`, 'down\n');
    assert.equal(await sample(0), 20);
    assert.equal(reads(), 2);
    bed.tree.write(`${things}/a/speed`, '30\n');
    assert.equal(await sample(121), 30);
    assert.ok(reads() >= 3 && reads() <= 4, `read ${reads()} times`);
  }));

test('a device in place of another, which says the same, is read whole', () =>
  withBed(link('a', 'up', 10), { things: new Links({ areSure: true }) }, async (bed) => {
    await bed.sample();
    bed.tree.write(`${things}/a/speed`, '20\n');
    // What the descriptor of a device that is gone says, once.
    bed.calls.failing.set(`${things}/a/state`, 'ENODEV');
    bed.calls.failsOnce = true;
    assert.equal((await bed.sample()).series[series('a')], 20);
    assert.equal(bed.calls.count(`open ${things}/a/state`), 2);
  }));

test('what a device does not have by design is no error, and looked for when its signs change', () =>
  withBed(link('a', 'up', 10), { things: new Links({ areSure: false }) }, async (bed) => {
    bed.calls.failing.set(`${things}/a/speed`, 'EINVAL');
    const without = { [late('things')]: 0 };
    for (let instant = 0; instant < 50; instant++) assert.deepEqual((await bed.sample()).series, without);
    assert.equal(bed.calls.count(`read ${things}/a/speed`), 1);
    assert.equal(bed.unreadable, 0);
    bed.calls.failing.clear();
    bed.tree.write(`${things}/a/state`, 'down\n');
    assert.equal((await bed.sample()).series[series('a')], 10);
    // Any other error is one.
    bed.calls.failing.set(`${things}/a/speed`, 'EIO');
    bed.tree.write(`${things}/a/state`, 'up\n');
    assert.deepEqual((await bed.sample()).series, without);
    assert.equal(bed.unreadable, 1);
  }));

test('a state that changes as another device goes is seen', () =>
  withBed(
    { ...link('a', 'up', 10), ...link('b', 'up', 100) },
    { things: new Links({ areSure: false }) },
    async (bed) => {
      await bed.sample();
      bed.tree.write(`${things}/b/state`, 'down\n');
      await bed.sample();
      // Its folder is listed again each 15 s.
      bed.tree.delete(`${things}/b`);
      await bed.sample();
      await bed.sample();
      bed.tree.write(`${things}/a/state`, 'down\n');
      bed.tree.write(`${things}/a/speed`, '20\n');
      assert.deepEqual((await bed.sample()).series, { [series('a')]: 20, [late('things')]: 0 });
    },
  ));

test('a device that is new, and one that is gone', () =>
  withBed(thing('a', 1), one, async (bed) => {
    await bed.sample();
    for (const [path, content] of Object.entries(thing('b', 2))) bed.tree.write(path, content);
    // The folder is read again each 15 s, and what the device has at the next instant.
    const seen = [];
    for (let instant = 0; instant < 4; instant++) seen.push((await bed.sample()).series[series('b')]);
    assert.deepEqual(seen, [undefined, undefined, undefined, 2]);
    bed.tree.delete(`${things}/b`);
    for (let instant = 0; instant < 4; instant++) await bed.sample();
    assert.equal((await bed.sample()).series[series('b')], undefined);
    assert.equal(bed.calls.openCount, 1);
  }));

test('what hangs costs its own series: kept for one interval, then absent, not asked again, and back', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2) }, one, async (bed) => {
    const { calls, log } = bed;
    await bed.sample();
    calls.hanging.add(`${things}/a/value`);
    bed.tree.write(`${things}/b/value`, '3\n');
    // One deadline is waited for, and only once.
    assert.deepEqual(await bed.sample(), {
      series: { [series('a')]: 1, [series('b')]: 3, [late('things')]: 1 },
      ms: 500,
    });
    const asked = calls.count(`read ${things}/a/value`);
    assert.deepEqual(log.lines, []);
    for (let instant = 0; instant < 3; instant++) {
      assert.deepEqual(await bed.sample(), { series: { [series('b')]: 3, [late('things')]: 1 }, ms: 0 });
    }
    assert.equal(calls.count(`read ${things}/a/value`), asked);
    const path = bed.tree.path(`${things}/a/value`);
    assert.deepEqual(log.lines, [
      `warn: collector 'things': '${path}' has not answered for 5s: its series are absent until it does`,
    ]);
    calls.release(`${things}/a/value`);
    assert.match(log.lines[1]!, /^info: collector 'things': '.*value' has answered after 20 s$/);
    assert.deepEqual(await bed.sample(), {
      series: { [series('a')]: 1, [series('b')]: 3, [late('things')]: 0 },
      ms: 0,
    });
    // It hangs again: this is not said again.
    calls.hanging.add(`${things}/a/value`);
    for (let instant = 0; instant < 4; instant++) await bed.sample();
    assert.equal(log.lines.length, 2);
  }));

test('what hangs at the first instant is absent, and the rest is there', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2), ...thing('c', 3) }, one, async (bed) => {
    bed.calls.hanging.add(`${things}/a/value`).add(`${things}/c/kind`);
    const expected = { [series('b')]: 2, [late('things')]: 2 };
    assert.deepEqual(await bed.sample(), { series: expected, ms: 500 });
    assert.deepEqual(await bed.sample(), { series: expected, ms: 0 });
  }));

/** Things, and a number of /proc. */
class CountedThings extends Things {
  override collect(host: Host, out: Samples): void {
    super.collect(host, out);
    const count = host.value('proc/count', number);
    if (count !== undefined) out.sample(value, count, 'all', 'count');
  }
}

test('a file of /proc is read when the instant begins, also while a device is waited for', () =>
  withBed({ ...thing('a', 1), 'proc/count': '1\n' }, { things: new CountedThings(things) }, async (bed) => {
    const counted = 'node_value{device="all",kind="count"}';
    assert.equal((await bed.sample()).series[counted], 1);
    bed.calls.hanging.add(`${things}/a/value`);
    const sampling = bed.sample();
    bed.tree.write('proc/count', '2\n');
    const { series: found, ms } = await sampling;
    assert.deepEqual([found[counted], ms], [1, 500]);
    assert.equal((await bed.sample()).series[counted], 2);
  }));

/** Things of which one without a value is none. */
class RealThings extends Things {
  override collect(host: Host, out: Samples): void {
    let count = 0;
    const sample = (...sampled: Parameters<Samples['sample']>) => {
      count++;
      out.sample(...sampled);
    };
    super.collect(host, { sample, sampleLabels() {} });
    if (count === 0) throw new NoDataError(host.path(things), ' has no real things');
  }
}

test('what seems not to be there because it was not read in time is looked for at the next instant', () =>
  withBed(thing('a', 1), { things: new RealThings(things) }, async (bed) => {
    const path = `${things}/a/value`;
    bed.calls.hanging.add(path);
    assert.deepEqual((await bed.sample()).series, { [late('things')]: 1 });
    bed.calls.release(path);
    assert.deepEqual((await bed.sample()).series, { [series('a')]: 1, [late('things')]: 0 });
    bed.tree.write(path, '<unknown>\n');
    assert.deepEqual((await bed.sample()).series, {});
    bed.tree.write(path, '2\n');
    assert.deepEqual((await bed.sample()).series, {}, 'what is not there is looked for once a minute');
  }));

test('what answers after the deadline is at most an interval old, and nobody waits for it', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2) }, one, async (bed) => {
    const path = `${things}/a/value`;
    await bed.sample();
    bed.calls.hanging.add(path);
    const { ms } = await bed.sample();
    assert.equal(ms, 500);
    for (let count = 10; count < 15; count++) {
      bed.tree.write(path, `${count}\n`);
      bed.calls.release(path);
      bed.calls.hanging.add(path);
      const { series: found, ms: took } = await bed.sample();
      assert.equal(found[series('a')], count);
      assert.equal(took, 0);
    }
    bed.calls.release(path);
    // Once it has been quick, it is waited for again.
    await bed.sample();
    bed.calls.hanging.add(path);
    assert.equal((await bed.sample()).ms, 500);
  }));

test('a collector with four reads that hang waits for one of them; the others go on', () =>
  withBed(
    {
      ...thing('z', 9),
      ...Object.assign({}, ...['a', 'b', 'c', 'd', 'e', 'f'].map((name) => thing(name, 1, 'sys/bad'))),
    },
    { bad: new Things('sys/bad'), things: new Things(things) },
    async (bed) => {
      await bed.sample();
      for (const name of ['a', 'b', 'c', 'd', 'e']) bed.calls.hanging.add(`sys/bad/${name}/value`);
      await bed.sample();
      const { series: found, ms } = await bed.sample();
      assert.deepEqual(found, { [series('z')]: 9, [late('things')]: 0, [late('bad')]: 4 });
      assert.equal(ms, 0);
      assert.equal(bed.calls.pending.size, 4);
      bed.calls.release('sys/bad/b/value');
      // Its place is taken by `e`; `f` has to wait for another one.
      assert.equal((await bed.sample()).series[late('bad')], 4);
      assert.ok(bed.calls.pending.has('read sys/bad/e/value'));
      bed.calls.release('sys/bad/a/value');
      const after = (await bed.sample()).series;
      assert.deepEqual([after[series('a')], after[series('b')], after[series('f')]], [1, 1, 1]);
      for (const name of ['c', 'd', 'e']) bed.calls.release(`sys/bad/${name}/value`);
      assert.equal(Object.keys((await bed.sample()).series).length, 9);
    },
  ));

test('at most twelve threads are used, whatever hangs', () => {
  const folders = ['sys/one', 'sys/two', 'sys/three', 'sys/four'];
  const names = ['a', 'b', 'c', 'd', 'e', 'f'];
  const files = Object.assign({}, ...folders.flatMap((folder) => names.map((name) => thing(name, 1, folder))));
  const collectors = Object.fromEntries(folders.map((folder) => [folder.slice(4), new Things(folder)]));
  return withBed(files, collectors, async (bed) => {
    await bed.sample();
    for (const folder of folders) for (const name of names) bed.calls.hanging.add(`${folder}/${name}/value`);
    for (let instant = 0; instant < 4; instant++) await bed.sample();
    assert.ok(bed.calls.pending.size >= 8 && bed.calls.pending.size <= 12, `${bed.calls.pending.size} threads`);
    assert.equal(bed.lane.pending.length, bed.calls.pending.size);
    assert.match(bed.log.lines.at(-1)!, /, as are others: too many reads do not return$/);
    for (const path of [...bed.calls.hanging]) bed.calls.release(path);
    await bed.sample();
    assert.deepEqual(bed.lane.pending, []);
    const { series: found } = await bed.sample();
    assert.equal(Object.keys(found).filter((name) => name.startsWith('sysmon_')).length, 4);
    assert.ok(Object.entries(found).every(([name, count]) => count === (name.startsWith('node_') ? 1 : 0)));
  });
});

test('a folder that hangs costs its collector; one that is not there is looked for once a minute', () =>
  withBed(thing('a', 1), { ...one, none: new Things('sys/class/none') }, async (bed) => {
    await bed.sample();
    bed.calls.hanging.add(things);
    for (let instant = 0; instant < 10; instant++) await bed.sample();
    assert.equal(bed.calls.count('names sys/class/none'), 1);
    assert.match(
      Object.keys((await bed.sample()).series).join(),
      /^sysmon_agent_collector_failed\{collector="things",reason="'\S*things' cannot be read: it does not answer"\}$/,
    );
    assert.equal(bed.calls.count('names sys/class/none'), 1);
    assert.match(
      bed.log.lines[1]!,
      /^warn: collector 'things' failed: '.*things' cannot be read: it does not answer; /,
    );
    bed.calls.release(things);
    await bed.sample();
    assert.equal((await bed.sample()).series[series('a')], 1);
    assert.equal(bed.calls.count('names sys/class/none'), 2);
  }));

test('files that are asked when they are closed are closed when they have answered', () =>
  withBed({ ...thing('a', 1), ...thing('b', 2) }, one, async (bed) => {
    await bed.sample();
    bed.calls.hanging.add(`${things}/a/value`);
    await bed.sample();
    bed.close();
    assert.equal(bed.calls.openCount, 1);
    bed.calls.release(`${things}/a/value`);
    assert.equal(bed.calls.openCount, 0);
    assert.equal(Object.keys((await bed.sample()).series).length, 3);
  }));

test('a mount that hangs is a device_error, and two of them are no more', () => {
  const mounts = '27 1 254:0 / / rw - ext4 /dev/vda rw\n'.concat(
    ...['a', 'b'].map((name, at) => `${30 + at} 27 0:5${at} / /mnt/${name} ro - nfs4 server:/${name} ro\n`),
  );
  const collector = filesystem.create(contextOf());
  return withBed({ 'proc/1/mountinfo': mounts }, { filesystem: collector }, async (bed) => {
    const size = (point: string, labels: string) => `node_filesystem_size_bytes{${labels},mountpoint="${point}"}`;
    const root = size('/', 'device="/dev/vda",fstype="ext4"');
    const nfs = (name: string) => size(`/mnt/${name}`, `device="server:/${name}",fstype="nfs4"`);
    const error = (name: string) =>
      `{device="server:/${name}",device_error="mountpoint timeout",fstype="nfs4",mountpoint="/mnt/${name}"}`;
    const before = (await bed.sample()).series;
    assert.equal(before[root], 409_600);
    bed.calls.hanging.add('root/mnt/a').add('root/mnt/b');
    assert.deepEqual((await bed.sample()).series, { ...before, [late('filesystem')]: 2 });
    const hung = (await bed.sample()).series;
    assert.equal(hung[root], 409_600);
    for (const name of ['a', 'b']) {
      assert.equal(hung[nfs(name)], undefined);
      assert.equal(hung[`node_filesystem_device_error${error(name)}`], 1);
      assert.equal(hung[`node_filesystem_readonly${error(name)}`], 0);
    }
    assert.equal(Object.keys(hung).length, 8 + 2 * 2 + 1);
    bed.calls.release('root/mnt/a');
    const { series: after } = await bed.sample();
    assert.equal(after[nfs('a')], 409_600);
    assert.equal(after[nfs('b')], undefined);
  });
});

test('a short schedule has a shorter deadline', async () => {
  const clock = new VirtualClock();
  const tree = makeTree(Object.entries(thing('a', 1)));
  const calls = new TreeCalls(tree);
  const lane = new SlowLane({ clock, log: new MemoryLog(), calls });
  const collector = new SlowCollector('things', new Things(things), { lane, roots: tree.roots });
  const host = new Host(tree.roots);
  const prepare = async () => {
    host.beginInstant();
    const startMs = clock.monotonicMs();
    let ms = Number.NaN;
    const preparing = collector.prepare(host).then(() => {
      ms = clock.monotonicMs() - startMs;
    });
    await clock.advance(200);
    await Promise.race([preparing, clock.advance(400)]);
    return ms;
  };
  try {
    await prepare();
    await prepare();
    calls.hanging.add(`${things}/a/value`);
    assert.equal(await prepare(), 100);
    calls.release(`${things}/a/value`);
  } finally {
    collector.close();
    host.close();
    tree.remove();
  }
});

test('a mount that is late for less than 5 s is absent, and no device_error', () => {
  const mounts = '27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:50 / /mnt/a rw - nfs4 server:/a rw\n';
  const collector = filesystem.create(contextOf());
  return withBed({ 'proc/1/mountinfo': mounts }, { filesystem: collector }, async (bed) => {
    const count = async (ms: number) => {
      const { series: found } = await bed.sample(ms);
      return [
        Object.keys(found).filter((name) => name.includes('/mnt/a')).length,
        Object.keys(found).filter((name) => name.includes('mountpoint timeout')).length,
      ];
    };
    assert.deepEqual(await count(1000), [8, 0]);
    bed.calls.hanging.add('root/mnt/a');
    const seen = [];
    for (let second = 0; second < 6; second++) seen.push(await count(1000));
    assert.deepEqual(seen, [
      [8, 0],
      [0, 0],
      [0, 0],
      [0, 0],
      [0, 0],
      [2, 2],
    ]);
  });
});
