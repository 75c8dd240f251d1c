import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Sums } from '../../src/model/report.ts';
import type { SeriesGroup } from '../../src/model/series.ts';
import { decodeAgentMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeDelta, encodeKey } from '../../src/protocol/delta.ts';
import { ProtocolError } from '../../src/protocol/errors.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { Begin } from '../../src/protocol/messages.ts';
import {
  type DeclaredSource,
  type LabelBounds,
  SchemaTable,
  wireLabelBounds,
} from '../../src/protocol/schema-table.ts';
import { beginOf, groupOf, type LabelledFamily } from '../support/groups.ts';

const cpu: LabelledFamily = { name: 'cpu', type: 'counter', help: 'Help.', divisor: 100, labelNames: ['cpu', 'mode'] };
const load: LabelledFamily = { name: 'load', type: 'gauge', help: 'Help.', divisor: 100, labelNames: [] };
const two = groupOf(cpu, ['0', 'idle', '0', 'user']);
const one = groupOf(load);

/** A table that has seen what leads up to the thing under test, and the source that it is about. */
class Peer {
  readonly table: SchemaTable;
  source = 0;

  constructor(labelBounds?: LabelBounds) {
    this.table = new SchemaTable(undefined, labelBounds);
  }

  begin(epoch = 1, more: Partial<Begin> = {}): this {
    this.source = more.source ?? 0;
    this.table.begin(beginOf({ epoch, ...(this.source === 0 ? {} : { name: `s${this.source}` }), ...more }));
    return this;
  }
  of(source: number): this {
    this.source = source;
    return this;
  }
  schema(...groups: SeriesGroup[]): this {
    this.table.declare({ kind: 'schema', source: this.source, groups }, 100);
    return this;
  }
  key(seq: number, pairs: (number | null)[] = [], timeMs = seq * 1000): this {
    this.table.apply({ kind: 'report', key: true, source: this.source, seq, timeMs, pairs });
    return this;
  }
  report(seq: number, pairs: (number | null)[] = [], timeMs = seq * 1000): this {
    this.table.apply({ kind: 'report', key: false, source: this.source, seq, timeMs, pairs });
    return this;
  }
  get declared(): DeclaredSource {
    return [...this.table.sources].find(({ id }) => id === this.source)!;
  }
  get values(): (number | null)[] {
    const { sums, present } = this.declared.state;
    return Array.from({ length: this.declared.schema.seriesCount }, (_, i) => (present[i] === 0 ? null : sums[i]!));
  }
}

function refuses(code: string, step: () => unknown, says?: RegExp): void {
  assert.throws(step, (error) => {
    assert.ok(error instanceof ProtocolError, String(error));
    assert.equal(error.code, code, error.message);
    if (says !== undefined) assert.match(error.message, says);
    return true;
  });
}

test('a connection: begin, schema, key, reports, a series more', () => {
  const peer = new Peer().begin(7, { offsetMs: -5 }).schema(two).key(1, [0, 10]);
  assert.deepEqual([peer.table.epoch, peer.declared.offsetMs], [7, -5]);
  assert.deepEqual(peer.values, [10, 0]);
  assert.deepEqual(peer.report(2, [0, 5, 0, 1]).values, [15, 1]);
  assert.deepEqual(peer.report(3, [-1, null]).values, [null, 1]);
  peer.schema(one, groupOf(cpu, ['1', 'idle'])).key(4, [1, 2, 0, 3, 0, 4]);
  assert.deepEqual(peer.values, [0, 2, 3, 4]);
  assert.deepEqual(
    peer.declared.schema.blocks.map(({ family, firstSeries }) => [family.name, firstSeries]),
    [
      ['cpu', 0],
      ['load', 2],
      ['cpu', 3],
    ],
  );
});

test('a begin empties schema and sums', () => {
  const peer = new Peer().begin().schema(two).key(1, [0, 10]);
  const before = peer.declared.schema;
  peer.begin(2, { offsetMs: 30 }).schema(one).key(9, [0, 3]);
  assert.deepEqual(peer.values, [3]);
  assert.notEqual(peer.declared.schema, before);
  assert.deepEqual([before.seriesCount, peer.declared.schema.seriesCount], [2, 1]);
  assert.deepEqual([peer.table.epoch, peer.declared.offsetMs], [2, 30]);
});

test('nothing comes before the first begin', () => {
  refuses('order', () => new Peer().schema(one), /before the begin of source 0/);
  refuses('order', () => new Peer().key(1), /before the begin of source 0/);
});

test('the first report after a begin or a schema is a key', () => {
  refuses('order', () => new Peer().begin().schema(one).report(1), /report 1: is no key/);
  refuses('order', () => new Peer().begin().schema(one).key(1).begin().report(2));
  refuses('order', () => new Peer().begin().schema(one).key(1).schema(two).report(2));
  refuses('order', () => new Peer().begin().schema(one).key(1).schema().report(2));
});

test('a report is one more than the report before it', () => {
  const at = () => new Peer().begin().schema(one).key(5);
  at().report(6).report(7);
  for (const seq of [4, 5]) refuses('order', () => at().report(seq, [], 9e6), /came after 5, expected a greater/);
  refuses('order', () => at().report(7), /came after 5, expected 6, or a key/);
});

test('a key may jump ahead; within an epoch numbers rise, through a begin too', () => {
  const at = () => new Peer().begin().schema(one).key(5).report(6);
  at().key(7);
  at().key(7000);
  refuses('order', () => at().key(6, [], 9e6), /report 6: came after 6/);
  refuses('order', () => at().key(1, [], 9e6));
  at().begin().schema(one).key(7).report(8);
  at().begin().schema(one).key(9);
  refuses('order', () => at().begin().schema(one).key(6), /report 6: came after 6/);
  at().begin(2).schema(one).key(1);
});

test(`a key at least every ${limits.reportsPerKeyMax} reports`, () => {
  const after = (reports: number) => {
    const peer = new Peer().begin().schema(one).key(1);
    for (let i = 1; i <= reports; i++) peer.report(1 + i);
    return peer;
  };
  after(limits.reportsPerKeyMax - 2).report(limits.reportsPerKeyMax);
  after(limits.reportsPerKeyMax - 1)
    .key(limits.reportsPerKeyMax + 1)
    .report(limits.reportsPerKeyMax + 2);
  refuses('order', () => after(limits.reportsPerKeyMax), /report 61: is no key, and so were the 59 before it/);
});

test('times rise within an epoch, and may repeat after a begin', () => {
  const at = () => new Peer().begin().schema(one).key(1, [], 500);
  at().report(2, [], 501);
  refuses('order', () => at().report(2, [], 500), /has time 500, not after 500/);
  refuses('order', () => at().key(2, [], 499));
  at().begin().schema(one).key(2, [], 400);
});

test('names and labels of a family', () => {
  const named = (name: string) => new Peer().begin().schema(groupOf({ ...load, name }));
  for (const name of ['a', '_a:B9', ':', 'upx', 'scraper', 'sysmon_agent_upx', 'sysmon_agent_x', 'sysmon_serve'])
    named(name);
  for (const name of ['', '0a', 'a-b', 'ä', 'a\n', 'a b']) refuses('schema', () => named(name), /is no metric name/);
  for (const name of [
    'up',
    'scrape_',
    'scrape_duration_seconds',
    'sysmon_agent_up',
    'sysmon_server_',
    'sysmon_server_x',
  ]) {
    refuses('schema', () => named(name), /is one of the server's own names/);
  }
  const labelled = (...labelNames: string[]) =>
    new Peer().begin().schema(
      groupOf(
        { ...load, labelNames },
        labelNames.map(() => 'x'),
      ),
    );
  labelled('a', '_', 'B9', 'agents', 'source', 'le', 'quantile');
  for (const name of ['', '9', 'a:b', 'ä', '__a', 'agent', 'job', 'instance'])
    refuses('schema', () => labelled('x', name), /not for agents/);
  refuses('schema', () => labelled('a', 'b', 'a'), /names its label "a" twice/);
});

test('a family that is named again is the same, and only its series are more', () => {
  const at = () => new Peer().begin().schema(two);
  at().schema(groupOf(cpu, ['1', 'idle']));
  const again = (change: Partial<LabelledFamily>) => () => at().schema(groupOf({ ...cpu, ...change }, ['1', 'idle']));
  for (const change of [{ type: 'gauge' as const }, { divisor: 1 }]) {
    refuses('schema', again(change), /schema family "cpu": is named again with another/);
  }
  // What the text says of it is of no account: the first that came stays.
  again({ help: 'Other.' })();
  const peer = new Peer().begin().schema(two, groupOf({ ...cpu, help: 'Other.' }, ['1', 'a']));
  assert.equal(peer.declared.schema.family('cpu'), two.family);
});

test('a family may have series with other labels, each of them once', () => {
  const at = () => new Peer().begin().schema(two);
  const again = (labelNames: string[], ...values: string[]) => at().schema(groupOf({ ...cpu, labelNames }, values));
  again(['cpu'], '0');
  again(['mode'], 'idle');
  again([]);
  again(['cpu', 'mode', 'more'], '0', 'idle', 'x');
  // The same labels, however they stand; a label without a value is none.
  refuses('schema', () => again(['mode', 'cpu'], 'idle', '0'), /declares a series twice: \{"idle", "0"\}/);
  refuses('schema', () => again(['cpu', 'mode', 'more'], '0', 'idle', ''), /twice/);
  refuses(
    'schema',
    () => at().schema(groupOf(cpu, ['0', '']), groupOf({ ...cpu, labelNames: ['cpu'] }, ['0'])),
    /twice/,
  );
  again(['mode', 'cpu'], 'idle', '1');
});

const latency = { name: 'latency', type: 'histogram', help: '', divisor: 1 } as const;
const quantiles = { name: 'pause', type: 'summary', help: '', divisor: 1 } as const;
const part = (family: Omit<LabelledFamily, 'labelNames'>, suffix: string, labelNames: string[], ...values: string[]) =>
  groupOf({ ...family, labelNames }, values, suffix);

test('histograms and summaries', () => {
  const begun = () => new Peer().begin();
  const peer = begun().schema(
    part(latency, '_bucket', ['path', 'le'], '/a', '0.1', '/a', '1e3', '/a', '+Inf'),
    part(latency, '_sum', ['path'], '/a'),
    part(latency, '_count', ['path'], '/a'),
    part(quantiles, '', ['quantile'], '0.5', '.99'),
    part(quantiles, '_sum', []),
    part(quantiles, '_count', []),
  );
  assert.equal(peer.declared.schema.seriesCount, 9);
  // Later more of each.
  peer.schema(part(latency, '_bucket', ['path', 'le'], '/b', '1'), part(latency, '_sum', ['path'], '/b'));
  refuses('schema', () => peer.schema(part(latency, '_sum', ['path'], '/b')), /twice/);
  refuses('schema', () => begun().schema(part(latency, '_bucket', ['path'], '/a')), /lacks the label "le"/);
  refuses('schema', () => begun().schema(part(latency, '_sum', ['le'], '1')), /has the label "le" in its series "lat/);
  refuses('schema', () => begun().schema(part(quantiles, '', [])), /lacks the label "quantile"/);
  refuses('schema', () => begun().schema(part(quantiles, '_count', ['quantile'], '1')), /has the label "quantile"/);
  for (const le of ['', 'x', '1x', 'Inf', 'NaN', '0x10', '1e', '.']) {
    refuses(
      'schema',
      () => begun().schema(part(latency, '_bucket', ['le'], le)),
      /for its label "le", expected a number/,
    );
  }
  for (const le of ['1', '-1.5', '+1e-9', '5.', '+Inf']) begun().schema(part(latency, '_bucket', ['le'], le));
});

test('no two families have series of one name', () => {
  const gauge = (name: string) => groupOf({ ...load, name });
  const sum = part(latency, '_sum', []);
  new Peer().begin().schema(gauge('latency_bucket'), sum);
  refuses(
    'schema',
    () => new Peer().begin().schema(sum, gauge('latency_sum')),
    /"latency_sum": has series named "latency_sum", as/,
  );
  refuses(
    'schema',
    () => new Peer().begin().schema(gauge('latency_sum'), sum),
    /"latency": has series named "latency_sum", as/,
  );
  refuses('schema', () => new Peer().begin().schema(sum, gauge('latency')), /another type/);
  // Also when the names were let go of meanwhile.
  const peer = new Peer().begin().schema(sum);
  for (let seq = 1; seq <= 3; seq++) peer.key(seq);
  refuses('schema', () => peer.schema(gauge('latency_sum')));
});

test('sources: each has its own schema, sums and times; one row of numbers for all', () => {
  const peer = new Peer().begin().schema(one).key(1, [0, 5], 9000);
  peer.begin(1, { source: 3, offsetMs: 7 }).schema(two).key(2, [0, 1, 0, 2], 500);
  assert.deepEqual(peer.values, [1, 2]);
  assert.deepEqual(peer.of(0).report(3, [0, 1], 9001).values, [6]);
  assert.deepEqual(peer.of(3).report(4, [0, 1], 501).values, [2, 2]);
  refuses('order', () => peer.of(0).report(5, [], 9001), /has time 9001, not after 9001/);
  assert.deepEqual(
    [...peer.table.sources].map(({ id, name, offsetMs }) => [id, name, offsetMs]),
    [
      [0, 'host', 0],
      [3, 's3', 7],
    ],
  );
  refuses('order', () => peer.of(2).schema(one), /came before the begin of source 2/);
  refuses('order', () => peer.of(2).key(6), /report 6: came before the begin of source 2/);
});

test('after a gap each source sends a key', () => {
  const at = () => new Peer().begin().schema(one).key(1).begin(1, { source: 1 }).schema(two).key(2);
  at().of(0).report(3).of(1).report(4);
  refuses(
    'order',
    () => at().of(0).key(4).of(1).report(5),
    /is no key, and is the first after a begin, a schema or a gap/,
  );
  at().of(0).key(4).of(1).key(5).of(0).report(6);
});

test('a begin of another epoch ends all sources, one of the same epoch only its own', () => {
  const at = () => new Peer().begin().schema(one).key(1).begin(1, { source: 1 }).schema(two).key(2);
  at().begin(1).of(1).report(3);
  refuses('order', () => at().begin(1).report(3), /is no key/);
  refuses('bad-message', () => at().begin(1).key(3, [0, 1]));
  refuses('order', () => at().begin(2).of(1).key(1), /came before the begin of source 1/);
  refuses('bad-message', () => at().begin(1, { source: 1 }).key(3, [0, 1]));
});

test('two sources have two names, and a source may be begun with another', () => {
  const peer = new Peer().begin().begin(1, { source: 1, name: 'a' });
  refuses('order', () => peer.begin(1, { source: 2, name: 'a' }), /"a" is the name of source 1/);
  peer.begin(1, { source: 1, name: 'b' }).begin(1, { source: 2, name: 'a' });
  peer.begin(1, { source: 1, name: 'b' });
});

test(`${limits.sourcesMax} sources, not one more`, () => {
  const peer = new Peer();
  for (let source = 0; source < limits.sourcesMax; source++) peer.begin(1, { source });
  peer.begin(1, { source: 5 });
  refuses('limit', () => peer.begin(1, { source: limits.sourcesMax }), /more than 64 sources/);
  peer.begin(2, { source: limits.sourcesMax });
});

test('the label source is the host’s to name alone', () => {
  const group = groupOf({ ...load, labelNames: ['source'] }, ['x']);
  new Peer().begin().schema(group);
  refuses(
    'schema',
    () => new Peer().begin(1, { source: 1 }).schema(group),
    /a label "source", which is not for agents/,
  );
});

test('a series comes once', () => {
  const begun = () => new Peer().begin();
  refuses('schema', () => begun().schema(groupOf(cpu, ['0', 'a', '0', 'a'])), /declares a series twice: \{"0", "a"\}/);
  refuses('schema', () =>
    begun()
      .schema(two)
      .schema(groupOf(cpu, ['0', 'user'])),
  );
  refuses('schema', () => begun().schema(two, groupOf(cpu, ['1', 'a']), groupOf(cpu, ['1', 'a'])));
  refuses('schema', () => begun().schema(one, one));
  refuses('schema', () => begun().schema({ ...one, seriesCount: 2 }));
  refuses('schema', () => begun().schema(groupOf(cpu, ['', '', '', ''])));
  // A family that came after the first that was named again.
  refuses('schema', () => begun().schema(two, groupOf(cpu, ['1', 'a']), one, one));
  // Apart, though they read alike when joined.
  begun().schema(groupOf(cpu, ['1:1', '', '1', '1:', '', '1:1', '1:', '1']));
  begun().schema(groupOf(cpu, ['a', '', '', 'a', '', '']));
  // A begin forgets.
  begun().schema(two).begin().schema(two);
});

test('after many reports a series is still refused twice, and a family named again is still the same', () => {
  const peer = new Peer().begin().schema(two);
  for (let seq = 1; seq <= 3; seq++) peer.key(seq);
  refuses('schema', () => peer.schema(two));
  refuses('schema', () => peer.schema(groupOf({ ...cpu, divisor: 7 }, ['9', 'user'])));
  peer.schema(groupOf({ ...cpu }, ['9', 'user']));
  assert.equal(peer.declared.schema.blocks.at(-1)?.family, peer.declared.schema.blocks[0]?.family);
  refuses('schema', () => peer.schema(groupOf(cpu, ['9', 'user'])));
});

test(`series since the begin: ${limits.seriesMax - 1} and ${limits.seriesMax}, not one more`, () => {
  const x: LabelledFamily = { ...load, name: 'x', labelNames: ['i'] };
  const many = (count: number) =>
    groupOf(
      x,
      Array.from({ length: count }, (_, i) => `${i}`),
    );
  new Peer().begin().schema(many(limits.seriesMax - 1));
  new Peer().begin().schema(many(limits.seriesMax));
  new Peer().begin().schema(many(limits.seriesMax - 1), one);
  new Peer().begin().schema(many(limits.seriesMax)).begin().schema(one);
  refuses('limit', () => new Peer().begin().schema(many(limits.seriesMax + 1)));
  refuses(
    'limit',
    () => new Peer().begin().schema(many(limits.seriesMax)).schema(one),
    /65537 series since the begin, at most 65536/,
  );
  refuses('limit', () => new Peer().begin().schema({ ...one, seriesCount: Number.MAX_SAFE_INTEGER }));
});

test(`schema bytes since the begin: ${limits.schemaBytesMax - 1} and ${limits.schemaBytesMax}, not one more`, () => {
  const frames = (bytes: number) => {
    const { table } = new Peer().begin();
    for (let left = bytes; left > 0; left -= limits.schemaFrameBytesMax) {
      table.declare({ kind: 'schema', source: 0, groups: [] }, Math.min(left, limits.schemaFrameBytesMax));
    }
    return table;
  };
  frames(limits.schemaBytesMax - 1);
  const table = frames(limits.schemaBytesMax);
  table.begin(beginOf());
  table.declare({ kind: 'schema', source: 0, groups: [] }, 1);
  refuses('limit', () => frames(limits.schemaBytesMax + 1), /8388609 bytes since the begin, at most 8388608/);
});

test('series and schema bytes are counted over all sources', () => {
  const x: LabelledFamily = { ...load, name: 'x', labelNames: ['i'] };
  const half = groupOf(
    x,
    Array.from({ length: limits.seriesMax / 2 }, (_, i) => `${i}`),
  );
  const peer = new Peer().begin().schema(half).begin(1, { source: 1 }).schema(half);
  refuses('limit', () => peer.of(0).schema(one), /65537 series/);
  const bytes = new Peer().begin().begin(1, { source: 1 });
  bytes.table.declare({ kind: 'schema', source: 0, groups: [] }, limits.schemaBytesMax - 5);
  bytes.table.declare({ kind: 'schema', source: 1, groups: [] }, 5);
  refuses('limit', () => bytes.table.declare({ kind: 'schema', source: 1, groups: [] }, 1), /bytes since the begin/);
  bytes.begin(1, { source: 1 }).table.declare({ kind: 'schema', source: 1, groups: [] }, 5);
});

test('names, values and labels: at the bound, not one more', () => {
  const begun = (group: SeriesGroup) => new Peer().begin().schema(group);
  const family = (labelNames: string[], name = 'm') => ({ ...load, name, labelNames });
  const names = (count: number) => Array.from({ length: count }, (_, i) => `l${i}`);
  const sized = (count: number) => groupOf(family(names(count)), Array(count).fill('x'));
  // With __name__, agent, job and instance.
  begun(sized(limits.seriesLabelsMax - 4));
  refuses('limit', () => begun(sized(limits.seriesLabelsMax - 3)), /65 labels with __name__, .*, at most 64/);
  begun(groupOf(family([], 'n'.repeat(limits.nameBytesMax))));
  refuses('limit', () => begun(groupOf(family([], 'n'.repeat(limits.nameBytesMax + 1)))), /a name of 129 bytes/);
  begun(part({ ...latency, name: 'n'.repeat(limits.nameBytesMax - 4) }, '_sum', []));
  refuses('limit', () => begun(part({ ...latency, name: 'n'.repeat(limits.nameBytesMax - 3) }, '_sum', [])));
  begun(groupOf(family(['l'.repeat(limits.nameBytesMax)]), ['x']));
  refuses(
    'limit',
    () => begun(groupOf(family(['l'.repeat(limits.nameBytesMax + 1)]), ['x'])),
    /the name of a label has 129/,
  );
  for (const value of ['x'.repeat(512), 'ü'.repeat(256), '"'.repeat(512), '🙂'.repeat(128)])
    begun(groupOf(family(['l']), [value]));
  for (const value of ['x'.repeat(513), `${'ü'.repeat(256)}x`, '"'.repeat(513), `${'🙂'.repeat(128)}x`]) {
    refuses('limit', () => begun(groupOf(family(['l']), [value])), /a label value of 51[3-9] bytes, at most 512/);
  }
});

test(`a line of ${limits.lineBytesMax} bytes, its source's labels and escapes included, not one more`, () => {
  // What stands around a series `m{l0="…",…}`: the agent's name at its longest, a value, a time.
  const around = 'agent=""'.length + 2 + limits.agentNameCharactersMax + 44;
  const line = (bytes: number, more: Partial<Begin> = {}, char = 'x') => {
    const labelNames = Array.from({ length: 10 }, (_, i) => `l${i}`);
    let left = bytes - around - 1 - 10 * 6;
    const values = labelNames.map(() => {
      const length = Math.min(left, 400);
      left -= length;
      return char === 'x' ? 'x'.repeat(length) : char.repeat(length / 2) + 'x'.repeat(length % 2);
    });
    assert.equal(left, 0);
    return new Peer().begin(1, more).schema(groupOf({ ...load, name: 'm', labelNames }, values));
  };
  line(limits.lineBytesMax);
  refuses('limit', () => line(limits.lineBytesMax + 1), /a line of 4097 bytes, at most 4096/);
  line(limits.lineBytesMax, {}, '"');
  refuses('limit', () => line(limits.lineBytesMax + 1, {}, '\n'), /a line of 4097 bytes/);
  line(limits.lineBytesMax - 10, { labels: [['rack', 'b7']] });
  refuses('limit', () => line(limits.lineBytesMax - 9, { labels: [['rack', 'b7']] }));
  line(limits.lineBytesMax - 12, { source: 7 });
  refuses('limit', () => line(limits.lineBytesMax - 11, { source: 7 }));
});

test(`text of a report: at most ${limits.reportTextBytesMax} bytes, over all sources`, () => {
  const wide = (series: number, first: number) =>
    groupOf(
      { ...load, name: 'm', labelNames: ['a', 'b'] },
      Array.from({ length: series }, (_, i) => [`${first + i}`.padEnd(400, '-'), 'x'.repeat(400)]).flat(),
    );
  const lineBytes = 1 + 2 * 405 - 0 + ('agent=""'.length + 2 + 128 + 44);
  const most = Math.floor(limits.reportTextBytesMax / lineBytes);
  const at = () => new Peer().begin().schema(wide(most, 0));
  at();
  refuses('limit', () => at().schema(wide(1, most)), /bytes of text a report, at most 16777216/);
  refuses('limit', () => at().begin(1, { source: 1 }).schema(wide(1, 0)), /bytes of text a report/);
  at().begin().schema(wide(most, 0));
});

test('labels as a scraper counts them: with the name, agent, job, instance, source and those of the host', () => {
  const wide = (labels: number): LabelledFamily => ({
    ...load,
    labelNames: Array.from({ length: labels }, (_, i) => `l${i}`),
  });
  const declare = (labels: number, begin: Partial<Begin>) =>
    new Peer({ ...wireLabelBounds, labels: 10 })
      .begin(1, begin)
      .schema(groupOf(wide(labels), Array<string>(labels).fill('x')));
  declare(6, {});
  refuses('limit', () => declare(7, {}), /11 labels with __name__, agent, job, .*, at most 10 are allowed here/);
  declare(5, { source: 1 });
  refuses('limit', () => declare(6, { source: 1 }), /11 labels/);
  declare(4, {
    labels: [
      ['site', 'x'],
      ['rack', 'y'],
    ],
  });
  refuses('limit', () => declare(6, { labels: [['site', 'x']] }), /11 labels/);
  declare(6, { labels: [['l1', 'of the host, which the series has too']] });
});

test('labels of a begin: each name, each value, and with those of a series no more than a scraper may count', () => {
  const begin = (labels: Begin['labels'], more: Partial<Begin> = {}) => new Peer().begin(1, { labels, ...more });
  begin([['n'.repeat(limits.nameBytesMax), 'v'.repeat(limits.labelValueBytesMax)]]);
  refuses('limit', () => begin([['n'.repeat(129), 'v']]), /begin: the name of a label has 129 bytes, at most 128/);
  refuses(
    'limit',
    () => begin([['rack', 'v'.repeat(900)]]),
    /begin: the value of label "rack" has 900 bytes, at most 512/,
  );
  refuses('limit', () => begin([['rack', `${'é'.repeat(256)}x`]]), /has 513 bytes/);
  const host = Array.from({ length: 32 }, (_, i): [string, string] => [`host${i}`, 'x']);
  const own = (count: number) => {
    const labelNames = Array.from({ length: count }, (_, i) => `own${i}`);
    return groupOf({ ...load, labelNames }, Array<string>(count).fill('y'));
  };
  begin(host).schema(own(28));
  refuses('limit', () => begin(host).schema(own(29)), /65 labels with .* those of the host, at most 64/);
  refuses(
    'limit',
    () => begin(host, { source: 1 }).schema(own(28)),
    /65 labels with .* those of the source, at most 64/,
  );
  const narrow = () => new Peer({ ...wireLabelBounds, labels: 10 });
  narrow().begin(1, { labels: host.slice(0, 6) });
  refuses(
    'limit',
    () => narrow().begin(1, { labels: host.slice(0, 7) }),
    /begin: 11 labels .*, at most 10 are allowed here/,
  );
});

test("a scraper's bounds on lengths hold names, values, metrics and the labels of the host", () => {
  const bounds = { ...wireLabelBounds, nameBytes: 16, valueBytes: 64 };
  const declare = (name: string, value: string, label: string) =>
    new Peer(bounds).begin().schema(groupOf({ ...load, name, labelNames: [label] }, [value]));
  const m = (length: number) => 'm'.repeat(length);
  declare(m(64), 'é'.repeat(32), m(16));
  refuses('limit', () => declare(m(65), 'x', 'l'), /its name, the value of __name__, has 65 bytes, at most 64/);
  refuses('limit', () => declare('m', `${'é'.repeat(32)}x`, 'l'), /a label value of 65 bytes, at most 64/);
  refuses('limit', () => declare('m', 'x', m(17)), /the name of a label has 17 bytes, at most 16 are allowed here/);
  const begin = (label: string, value: string) => new Peer(bounds).begin(1, { labels: [[label, value]] });
  begin(m(16), m(64));
  refuses('limit', () => begin(m(17), 'x'), /begin: the name of a label has 17 bytes/);
  refuses('limit', () => begin('site', m(65)), /begin: the value of label "site" has 65 bytes, at most 64/);
});

test('many small declarations cost no more than one', () => {
  const x: LabelledFamily = { ...load, name: 'x', labelNames: ['i'] };
  const peer = new Peer().begin();
  for (let i = 0; i < 20_000; i++) peer.schema(groupOf(x, [`${i}`]));
  assert.ok(peer.declared.state.sums.length < 2 * 20_000);
  assert.equal(peer.key(1, [19_999, 5]).values.at(-1), 5);
});

test('pairs are held against the series that are declared, not against the room there is', () => {
  const peer = new Peer()
    .begin()
    .schema(two)
    .schema(one)
    .schema(groupOf(cpu, ['1', 'x', '1', 'y']))
    .key(1, [4, 1]);
  assert.ok(peer.declared.state.sums.length > 5);
  refuses('bad-message', () => peer.report(2, [5, 1]));
});

test('property: a history with series added and lost arrives as it was, over bytes', () => {
  const value = fc.oneof(fc.nat(1e6), fc.constantFrom(null, Number.NaN, 0.1, 2 ** 64), fc.constant(null));
  // Each step: series that come, then the values that a report takes in turn; or everything begun anew.
  const step = fc.record({
    add: fc.nat(3),
    values: fc.array(value, { minLength: 1, maxLength: 8 }),
    anew: fc.boolean(),
  });
  const gauge: LabelledFamily = { ...load, name: 'g', labelNames: ['i'] };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const receiver = new SchemaTable();
      const receive = (payload: Uint8Array) => {
        const message = decodeAgentMessage(payload);
        if (message.kind === 'begin') receiver.begin(message);
        else if (message.kind === 'schema') receiver.declare(message, payload.length);
        else if (message.kind === 'report') receiver.apply(message);
        else assert.fail(message.kind);
      };
      const begin = encodeMessage(beginOf({ epoch: 3 }));
      receive(begin);
      let count = 0;
      let last: Sums | undefined;
      for (const [i, { add, values, anew }] of steps.entries()) {
        if (anew && i % 5 === 0) {
          receive(begin);
          [count, last] = [0, undefined];
        }
        if (add > 0) {
          const labelValues = Array.from({ length: add }, (_, n) => `${count + n}`);
          for (const payload of encodeSchema(0, [groupOf(gauge, labelValues)])) receive(payload);
          [count, last] = [count + add, undefined];
        }
        const taken = Array.from({ length: count }, (_, n) => values[n % values.length]!);
        const next: Sums = {
          sums: Float64Array.from(taken, (v) => v ?? 0),
          present: Uint8Array.from(taken, (v) => (v === null ? 0 : 1)),
        };
        const key = last === undefined;
        const pairs = last === undefined ? encodeKey(next) : encodeDelta(last, next);
        receive(encodeMessage({ kind: 'report', key, source: 0, seq: i + 1, timeMs: i + 1, pairs }));
        last = next;
        const [source] = receiver.sources;
        const { sums, present } = source!.state;
        assert.equal(source!.schema.seriesCount, count);
        assert.deepEqual([...sums.subarray(0, count)], [...next.sums]);
        assert.deepEqual([...present.subarray(0, count)], [...next.present]);
      }
    }),
    { numRuns: 300 },
  );
});
