import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, utimesSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows, createCollectors } from '../../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { fixtureFile } from '../../../support/files.ts';
import { hostOf, makeTree, parseFixture } from '../../../support/fixture-proc.ts';
import { parseMetrics, nodeExporterSkip as skip, startNodeExporter } from '../../../support/node-exporter.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const folder = 'root/var/lib/sysmon-agent/textfile';

/** A host with text files, and what is collected of it. */
class Bed {
  readonly tree = makeTree([]);
  readonly host = hostOf(this.tree, { system: new Map() });
  /** Long after the files were written, so that each is read once. */
  readonly clock = new VirtualClock(Date.now() + 3_600_000);
  readonly #collector: OneCollector;

  constructor(options = new Map<string, string>()) {
    const context = { ...contextOf(options), clock: this.clock };
    this.#collector = new OneCollector(newCollector('textfile', context));
  }

  /** The samples without the times of the files, and what is wrong. */
  collect(): { readonly lines: readonly string[]; readonly errors: readonly string[] } {
    const text = expositionOf(this.#collector.collect(this.host));
    const lines = text.split('\n').filter((line) => line !== '' && !/^(#|node_textfile_mtime)/.test(line));
    return {
      lines,
      errors: this.host.takeErrors().map(({ message }) => message.replaceAll(this.tree.folder, '')),
    };
  }

  [Symbol.dispose](): void {
    this.host.close();
    this.tree.remove();
  }
}

const isWell = 'node_textfile_scrape_error 0';

test('files that come, change and go are seen at the next collection', () => {
  using bed = new Bed();
  bed.tree.write(`${folder}/a.prom`, 'a 1\n');
  assert.deepEqual(bed.collect().lines, ['a 1', isWell]);
  bed.tree.write(`${folder}/a.prom`, 'a 2\n');
  assert.deepEqual(bed.collect().lines, ['a 2', isWell]);
  bed.tree.write(`${folder}/b.prom`, 'a{x="1"} 3\n');
  assert.deepEqual(bed.collect().lines, ['a 2', 'a{x="1"} 3', isWell]);
  bed.tree.write(`${folder}/a.prom`, 'a 2\na 3');
  const half = bed.collect();
  assert.deepEqual(half.lines, [
    'a{x="1"} 3',
    'node_textfile_scrape_error 1',
    'sysmon_agent_textfile_refused{file="/var/lib/sysmon-agent/textfile/a.prom",reason="format"} 1',
  ]);
  assert.deepEqual(half.errors, [`'/${folder}/a.prom', line 2: it ends in the middle of the line`]);
  assert.deepEqual(bed.collect(), half, 'it is said as long as it is so');
  bed.tree.delete(`${folder}/a.prom`);
  assert.deepEqual(bed.collect(), { lines: ['a{x="1"} 3', isWell], errors: [] });
  bed.tree.delete(folder);
  assert.deepEqual(bed.collect(), { lines: [isWell], errors: [] });
});

test('a type and a help that change, and another order of the labels', () => {
  using bed = new Bed();
  bed.tree.write(`${folder}/a.prom`, '# TYPE a gauge\na{x="1",y="2"} 1\n');
  assert.deepEqual(bed.collect().lines, ['a{x="1",y="2"} 1', isWell]);
  bed.tree.write(`${folder}/a.prom`, '# TYPE a gauge\na{y="2",x="1"} 2\n');
  assert.deepEqual(bed.collect().lines, ['a{x="1",y="2"} 2', isWell]);
});

test('a file is parsed again only when it has changed; one that was just written may change within its time', () => {
  using bed = new Bed();
  const path = bed.tree.path(`${folder}/a.prom`);
  bed.tree.write(`${folder}/a.prom`, 'a 1\n');
  let reads = 0;
  const readForeign = bed.host.readForeign.bind(bed.host);
  bed.host.readForeign = (...given) => {
    reads++;
    return readForeign(...given);
  };
  for (let round = 0; round < 5; round++) bed.collect();
  assert.equal(reads, 1);
  utimesSync(path, 1, 1);
  for (let round = 0; round < 5; round++) bed.collect();
  assert.equal(reads, 2);
  bed.clock.step(-3_600_000);
  utimesSync(path, 2, 2);
  for (let round = 0; round < 5; round++) bed.collect();
  assert.equal(reads, 7);
});

test('what is no file, too large, or too many is refused singly', () => {
  using bed = new Bed();
  bed.tree.write(`${folder}/good.prom`, 'good 1\n');
  mkdirSync(bed.tree.path(`${folder}/folder.prom`));
  assert.equal(spawnSync('mkfifo', [bed.tree.path(`${folder}/fifo.prom`)]).status, 0);
  symlinkSync('nothing', bed.tree.path(`${folder}/dangling.prom`));
  bed.tree.write(`${folder}/large.prom`, `# ${'x'.repeat(2 * 1024 * 1024)}\nlarge 1\n`);
  bed.tree.write(`${folder}/many.prom`, Array.from({ length: 10_001 }, (_, at) => `many{x="${at}"} 1\n`).join(''));
  const { lines, errors } = bed.collect();
  assert.deepEqual(lines, [
    'good 1',
    'node_textfile_scrape_error 1',
    ...[
      ['fifo', 'unreadable'],
      ['folder', 'unreadable'],
      ['large', 'limit'],
      ['many', 'limit'],
    ].map(
      ([name, reason]) =>
        `sysmon_agent_textfile_refused{file="/var/lib/sysmon-agent/textfile/${name}.prom",reason="${reason}"} 1`,
    ),
  ]);
  assert.deepEqual(
    errors.map((error) => error.replace(`'/${folder}/`, "'")),
    [
      "'fifo.prom' cannot be read: it is no regular file",
      "'folder.prom' cannot be read: it is no regular file",
      "'large.prom' has 2097163 bytes, at most 2097152 are read",
      "'many.prom', line 10001: more than 10000 samples",
    ],
  );
});

test('bytes that are no UTF-8: a sample that has some costs its file, a comment does not', () => {
  using bed = new Bed();
  bed.tree.write(`${folder}/comment.prom`, Buffer.from('# HELP a Gr\xf6sse\n  # \xe9\na{x="\xc3\xa9"} 1\n', 'latin1'));
  bed.tree.write(`${folder}/label.prom`, Buffer.from('b 1\nc{x="caf\xe9"} 1\n', 'latin1'));
  const { lines, errors } = bed.collect();
  assert.deepEqual(lines, [
    'a{x="é"} 1',
    'node_textfile_scrape_error 1',
    'sysmon_agent_textfile_refused{file="/var/lib/sysmon-agent/textfile/label.prom",reason="format"} 1',
  ]);
  assert.deepEqual(errors, [
    `'/${folder}/label.prom', line 2: it has bytes that are no UTF-8: "c{x=\\"caf\ufffd\\"} 1"`,
  ]);
});

test('a folder that is named with a slash at its end, and twice', () => {
  using bed = new Bed(new Map([['textfile.directory', '/srv//a/\n/srv/a\n/']]));
  bed.tree.write('root/srv/a/a.prom', 'a 1\n');
  bed.tree.write('root/b.prom', 'b x\n');
  assert.deepEqual(bed.collect().lines, [
    'a 1',
    'node_textfile_scrape_error 1',
    'sysmon_agent_textfile_refused{file="/b.prom",reason="format"} 1',
  ]);
  bed.tree.write('root/b.prom', 'b 1\n');
  bed.tree.write('root/srv/a/a.prom', 'a x\n');
  assert.equal(bed.collect().lines.at(-1), 'sysmon_agent_textfile_refused{file="/srv/a/a.prom",reason="format"} 1');
});

test('files that are together more than a collector may give: the first stay', () => {
  using bed = new Bed();
  for (const name of ['a', 'b', 'c', 'd']) {
    const text = Array.from({ length: 9_000 }, (_, at) => `${name}{x="${at}"} 1\n`).join('');
    bed.tree.write(`${folder}/${name}.prom`, text);
  }
  const { lines, errors } = bed.collect();
  assert.equal(lines.filter((line) => /^[abcd]\{/.test(line)).length, 18_000);
  assert.deepEqual(
    errors,
    ['c', 'd'].map((name) => `'/${folder}/${name}.prom' is left out: with it, all files have more than 20000 samples`),
  );
});

test('text files are collected last: no file can take a name from a collector', () => {
  const names = createCollectors(collectorRows, contextOf()).map(({ name }) => name);
  assert.equal(names.at(-1), 'textfile');
  assert.equal(names.length, collectorRows.length);
});

test('the files of the fixture: as node_exporter', { skip }, async () => {
  const { hosts } = parseFixture(readFileSync(fixtureFile('collectors/textfile.txt'), 'utf8'));
  const tree = makeTree(hosts[0]!.files);
  const host = hostOf(tree, hosts[0]!);
  const path = '/var/lib/prometheus/node-exporter';
  const collector = newCollector('textfile', contextOf(new Map([['textfile.directory', path]])));
  const flags = [`--collector.textfile.directory=${tree.roots.rootfs}${path}`];
  const exporter = await startNodeExporter({ collectors: ['textfile'], flags });
  try {
    utimesSync(tree.path(`root${path}/apt.prom`), 1719833400, 1719833400);
    const of = (text: string) => {
      const { types, values } = parseMetrics(text.replaceAll(tree.roots.rootfs, ''));
      const isOwn = (name: string) => /^(node_(scrape|exporter)|promhttp)_/.test(name);
      return {
        types: Object.fromEntries([...types].filter(([name]) => !isOwn(name)).sort()),
        values: Object.fromEntries([...values].filter(([name]) => !isOwn(name)).sort()),
      };
    };
    assert.deepEqual(of(expositionOf(new OneCollector(collector).collect(host))), of(await exporter.scrape()));
  } finally {
    host.close();
    await exporter.stop();
    tree.remove();
  }
});
