import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Family } from '../../src/model/family.ts';
import { decodeAgentMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeDelta, encodeKey, type Sums } from '../../src/protocol/delta.ts';
import { ProtocolError } from '../../src/protocol/errors.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { FamilyDeclaration } from '../../src/protocol/message.ts';
import { SchemaTable } from '../../src/protocol/schema-table.ts';

const cpu: Family = {
  name: 'cpu',
  type: 'counter',
  help: 'Help.',
  unit: '',
  divisor: 100,
  labelNames: ['cpu', 'mode'],
};
const load: Family = { name: 'load', type: 'gauge', help: 'Help.', unit: '', divisor: 100, labelNames: [] };
const two = declare(cpu, 2, ['0', 'idle', '0', 'user']);
const one = declare(load, 1, []);

function declare(family: Family, seriesCount: number, labelValues: readonly string[]): FamilyDeclaration {
  return { family, seriesCount, labelValues };
}

/** A table that has seen what leads up to the thing under test. */
class Peer {
  readonly table = new SchemaTable();

  begin(epoch = 1, offsetMs = 0): this {
    this.table.begin({ kind: 'begin', epoch, offsetMs });
    return this;
  }
  schema(...families: FamilyDeclaration[]): this {
    this.table.declare({ kind: 'schema', families }, 100);
    return this;
  }
  key(seq: number, pairs: (number | null)[] = [], timeMs = seq * 1000): this {
    this.table.apply({ kind: 'report', key: true, seq, timeMs, pairs });
    return this;
  }
  report(seq: number, pairs: (number | null)[] = [], timeMs = seq * 1000): this {
    this.table.apply({ kind: 'report', key: false, seq, timeMs, pairs });
    return this;
  }
  get values(): (number | null)[] {
    const { sums, present } = this.table.state;
    return Array.from({ length: this.table.schema.seriesCount }, (_, i) => (present[i] === 0 ? null : sums[i]!));
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
  const peer = new Peer().begin(7, -5).schema(two).key(1, [0, 10]);
  assert.deepEqual([peer.table.epoch, peer.table.offsetMs], [7, -5]);
  assert.deepEqual(peer.values, [10, 0]);
  assert.deepEqual(peer.report(2, [0, 5, 0, 1]).values, [15, 1]);
  assert.deepEqual(peer.report(3, [-1, null]).values, [null, 1]);
  peer.schema(one, declare(cpu, 1, ['1', 'idle'])).key(4, [1, 2, 0, 3, 0, 4]);
  assert.deepEqual(peer.values, [0, 2, 3, 4]);
  assert.deepEqual(
    peer.table.schema.blocks.map(({ family, firstSeries }) => [family.name, firstSeries]),
    [
      ['cpu', 0],
      ['load', 2],
      ['cpu', 3],
    ],
  );
});

test('a begin empties schema and sums', () => {
  const peer = new Peer().begin().schema(two).key(1, [0, 10]);
  const before = peer.table.schema;
  peer.begin(2, 30).schema(one).key(9, [0, 3]);
  assert.deepEqual(peer.values, [3]);
  assert.notEqual(peer.table.schema, before);
  assert.deepEqual([before.seriesCount, peer.table.schema.seriesCount], [2, 1]);
  assert.deepEqual([peer.table.epoch, peer.table.offsetMs], [2, 30]);
});

test('nothing comes before the first begin', () => {
  refuses('order', () => new Peer().schema(one), /before the first begin/);
  refuses('order', () => new Peer().key(1), /before the first begin/);
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
  for (const seq of [4, 5, 7]) refuses('order', () => at().report(seq, [], 9e6), /came after 5, expected 6/);
});

test('a key may jump ahead, and after a begin repeat', () => {
  const at = () => new Peer().begin().schema(one).key(5).report(6);
  at().key(7);
  at().key(7000);
  refuses('order', () => at().key(6, [], 9e6), /report 6: came after 6/);
  refuses('order', () => at().key(1, [], 9e6));
  at().begin().schema(one).key(3).report(4);
  at().begin().schema(one).key(6);
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
  at().begin().schema(one).key(1, [], 400);
});

test('names and labels of a family', () => {
  const named = (name: string) => new Peer().begin().schema(declare({ ...load, name }, 1, []));
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
      declare(
        { ...load, labelNames },
        1,
        labelNames.map(() => 'x'),
      ),
    );
  labelled('a', '_', 'B9', 'agents');
  for (const name of ['', '9', 'a:b', 'ä', '__a', 'agent'])
    refuses('schema', () => labelled('x', name), /not for agents/);
  refuses('schema', () => labelled('a', 'b', 'a'), /names its label "a" twice/);
});

test('a family that is named again is the same, and only its series are more', () => {
  const at = () => new Peer().begin().schema(two);
  at().schema(declare(cpu, 1, ['1', 'idle']));
  const again = (change: Partial<Family>) => () => at().schema(declare({ ...cpu, ...change }, 1, ['1', 'idle']));
  for (const change of [{ type: 'gauge' as const }, { divisor: 1 }, { labelNames: ['mode', 'cpu'] }]) {
    refuses('schema', again(change), /schema family "cpu": is named again with another/);
  }
  refuses('schema', () => at().schema(declare({ ...cpu, labelNames: ['cpu'] }, 1, ['1'])));
  // What the text says of it is of no account: the first that came stays.
  for (const change of [{ help: 'Other.' }, { unit: 'seconds' }]) again(change)();
  assert.equal(
    new Peer()
      .begin()
      .schema(two, declare({ ...cpu, help: 'Other.' }, 1, ['1', 'a']))
      .table.schema.family('cpu'),
    cpu,
  );
});

test('a series comes once', () => {
  const begun = () => new Peer().begin();
  refuses(
    'schema',
    () => begun().schema(declare(cpu, 2, ['0', 'a', '0', 'a'])),
    /declares a series twice: \{"0", "a"\}/,
  );
  refuses('schema', () =>
    begun()
      .schema(two)
      .schema(declare(cpu, 1, ['0', 'user'])),
  );
  refuses('schema', () => begun().schema(two, declare(cpu, 1, ['1', 'a']), declare(cpu, 1, ['1', 'a'])));
  refuses('schema', () => begun().schema(one, one));
  refuses('schema', () => begun().schema(declare(load, 2, [])));
  refuses('schema', () => begun().schema(declare(cpu, 2, ['', '', '', ''])));
  // A family that came after the first that was named again.
  refuses('schema', () => begun().schema(two, declare(cpu, 1, ['1', 'a']), one, one));
  // Apart, though they read alike when joined.
  begun().schema(declare(cpu, 4, ['1:1', '', '1', '1:', '', '1:1', '1:', '1']));
  begun().schema(declare(cpu, 3, ['a', '', '', 'a', '', '']));
  // A begin forgets.
  begun().schema(two).begin().schema(two);
});

test('after many reports a series is still refused twice, and a family named again is still the same', () => {
  const peer = new Peer().begin().schema(two);
  for (let seq = 1; seq <= 3; seq++) peer.key(seq);
  refuses('schema', () => peer.schema(two));
  refuses('schema', () => peer.schema(declare({ ...cpu, divisor: 7 }, 1, ['9', 'user'])));
  peer.schema(declare({ ...cpu }, 1, ['9', 'user']));
  assert.equal(peer.table.schema.blocks.at(-1)?.family, peer.table.schema.blocks[0]?.family);
  refuses('schema', () => peer.schema(declare(cpu, 1, ['9', 'user'])));
});

test(`series since the begin: ${limits.seriesMax - 1} and ${limits.seriesMax}, not one more`, () => {
  const x: Family = { ...load, name: 'x', labelNames: ['i'] };
  const many = (count: number) =>
    declare(
      x,
      count,
      Array.from({ length: count }, (_, i) => `${i}`),
    );
  new Peer().begin().schema(many(limits.seriesMax - 1));
  new Peer().begin().schema(many(limits.seriesMax));
  new Peer().begin().schema(many(limits.seriesMax - 1), one);
  new Peer().begin().schema(many(limits.seriesMax)).begin().schema(one);
  refuses('limit', () => new Peer().begin().schema(many(limits.seriesMax + 1)));
  refuses('limit', () => new Peer().begin().schema(many(limits.seriesMax)).schema(one), /more than 65536 series/);
  refuses('limit', () => new Peer().begin().schema(declare(load, Number.MAX_SAFE_INTEGER, [])));
});

test(`schema bytes since the begin: ${limits.schemaBytesMax - 1} and ${limits.schemaBytesMax}, not one more`, () => {
  const frames = (bytes: number) => {
    const { table } = new Peer().begin();
    for (let left = bytes; left > 0; left -= limits.schemaFrameBytesMax) {
      table.declare({ kind: 'schema', families: [] }, Math.min(left, limits.schemaFrameBytesMax));
    }
    return table;
  };
  frames(limits.schemaBytesMax - 1);
  const table = frames(limits.schemaBytesMax);
  table.begin({ kind: 'begin', epoch: 1, offsetMs: 0 });
  table.declare({ kind: 'schema', families: [] }, 1);
  refuses('limit', () => frames(limits.schemaBytesMax + 1), /8388609 bytes since the begin, at most 8388608/);
});

test('many small declarations cost no more than one', () => {
  const x: Family = { ...load, name: 'x', labelNames: ['i'] };
  const peer = new Peer().begin();
  for (let i = 0; i < 20_000; i++) peer.schema(declare(x, 1, [`${i}`]));
  assert.ok(peer.table.state.sums.length < 2 * 20_000);
  assert.equal(peer.key(1, [19_999, 5]).values.at(-1), 5);
});

test('pairs are held against the series that are declared, not against the room there is', () => {
  const peer = new Peer()
    .begin()
    .schema(two)
    .schema(one)
    .schema(declare(cpu, 2, ['1', 'x', '1', 'y']))
    .key(1, [4, 1]);
  assert.ok(peer.table.state.sums.length > 5);
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
  const gauge: Family = { ...load, name: 'g', labelNames: ['i'] };
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
      const begin = encodeMessage({ kind: 'begin', epoch: 3, offsetMs: 0 });
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
          for (const payload of encodeSchema([declare(gauge, add, labelValues)])) receive(payload);
          [count, last] = [count + add, undefined];
        }
        const taken = Array.from({ length: count }, (_, n) => values[n % values.length]!);
        const next: Sums = {
          sums: Float64Array.from(taken, (v) => v ?? 0),
          present: Uint8Array.from(taken, (v) => (v === null ? 0 : 1)),
        };
        const key = last === undefined;
        const pairs = last === undefined ? encodeKey(next) : encodeDelta(last, next);
        receive(encodeMessage({ kind: 'report', key, seq: i + 1, timeMs: i + 1, pairs }));
        last = next;
        const { sums, present } = receiver.state;
        assert.equal(receiver.schema.seriesCount, count);
        assert.deepEqual([...sums.subarray(0, count)], [...next.sums]);
        assert.deepEqual([...present.subarray(0, count)], [...next.present]);
      }
    }),
    { numRuns: 300 },
  );
});
