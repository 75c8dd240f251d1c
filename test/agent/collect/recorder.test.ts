import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { counter, gauge } from '../../../src/agent/collect/collectors/collector.ts';
import { Recorder } from '../../../src/agent/collect/recorder.ts';
import { type AgentCounters, newAgentCounters } from '../../../src/agent/own-metrics.ts';
import type { Recording } from '../../../src/model/recording.ts';
import type { Schema } from '../../../src/model/schema.ts';
import { decodeAgentMessage, encodeSchema } from '../../../src/protocol/codec.ts';
import { SchemaTable } from '../../../src/protocol/schema-table.ts';
import { beginOf, type LabelledFamily } from '../../support/groups.ts';

const one = counter('one_total', 'One.', { labels: ['a'] });
const two = gauge('two', 'Two.', { labels: ['a', 'b'] });
const wide = gauge('wide', 'Wide.', { labels: ['a', 'b', 'c', 'd', 'e'] });
const bare = gauge('bare', 'Bare.');

interface Sample {
  readonly family: LabelledFamily;
  readonly labels: readonly string[];
  readonly sum: number;
}

function sampleOf(family: LabelledFamily, sum: number, ...labels: string[]): Sample {
  return { family, labels, sum };
}

/** A recorder with two parts, and what it said. */
class Bench {
  readonly counters: AgentCounters = newAgentCounters();
  readonly warnings: string[] = [];
  readonly recorder: Recorder;
  readonly parts;
  readonly own;

  constructor(limits: { seriesMax?: number; schemaBytesMax?: number } = {}, partCount = 2) {
    this.recorder = new Recorder({ counters: this.counters, warn: (text) => this.warnings.push(text), ...limits });
    this.parts = Array.from({ length: partCount }, (_, at) => this.recorder.part(`part${at}`));
    this.own = this.recorder.part('own', { required: true });
  }

  /** One instant: for each part its samples, or a failure after them. */
  record(given: readonly (readonly Sample[] | { readonly failed: readonly Sample[] })[]): Recording {
    this.recorder.begin();
    given.forEach((part, at) => {
      this.recorder.enter(this.parts[at]!);
      const failed = 'failed' in part;
      for (const sample of failed ? part.failed : part) this.#give(sample);
      if (failed) this.recorder.abandon();
      else this.recorder.leave();
    });
    this.recorder.settle();
    this.recorder.enter(this.own);
    this.recorder.sample(bare, 1);
    this.recorder.leave();
    return this.recorder.end();
  }

  #give({ family, labels, sum }: Sample): void {
    const [a, b, c, d] = labels;
    if (labels.length > 4) this.recorder.sampleLabels(family, sum, [...labels]);
    else this.recorder.sample(family, sum, a, b, c, d);
  }
}

/** What a recording says, by series. A series that a schema has twice is an error. */
function read({ schema, sums, present }: Recording, all = false): Record<string, number> {
  const values = new Map<string, number>();
  const seen = new Set<string>();
  assert.equal(sums.length, schema.seriesCount);
  assert.equal(present.length, schema.seriesCount);
  for (const { family, labelNames, firstSeries, seriesCount, labelValues } of schema.blocks) {
    const width = labelNames.length;
    for (let index = 0; index < seriesCount; index++) {
      const key = JSON.stringify([family.name, ...labelValues.slice(index * width, (index + 1) * width)]);
      assert.ok(!seen.has(key), `${key} is twice in the schema`);
      seen.add(key);
      const id = firstSeries + index;
      if (present[id] === 0) assert.equal(sums[id], 0, `${key} is absent and has a sum`);
      if (present[id] === 1 || all) values.set(key, sums[id]!);
    }
  }
  return Object.fromEntries(values);
}

test('samples are lined up with a schema, each family in one block', () => {
  const bench = new Bench();
  const recording = bench.record([
    [sampleOf(one, 1, 'x'), sampleOf(two, 2, 'x', 'y'), sampleOf(one, 3, 'z'), sampleOf(two, 4, 'z', 'y')],
    [sampleOf(wide, 5, '1', '2', '3', '4', '5')],
  ]);
  assert.deepEqual(
    recording.schema.blocks.map(({ family, firstSeries, seriesCount }) => [family.name, firstSeries, seriesCount]),
    [
      ['one_total', 0, 2],
      ['two', 2, 2],
      ['wide', 4, 1],
      ['bare', 5, 1],
    ],
  );
  assert.deepEqual([...recording.sums], [1, 3, 2, 4, 5, 1]);
});

test('the same samples in the same order change neither schema nor arrays', () => {
  const bench = new Bench();
  const give = (sum: number) =>
    bench.record([[sampleOf(one, sum, 'x')], [sampleOf(wide, sum, '1', '2', '3', '4', '5')]]);
  const { schema, sums } = give(1);
  const next = give(2);
  assert.equal(next.schema, schema);
  assert.equal(next.sums, sums, 'the arrays are used again');
  assert.deepEqual([...next.sums], [2, 2, 1]);
});

test('a series that comes is appended, one that goes is absent, one that is back has its place again', () => {
  const bench = new Bench();
  const [x, y] = [sampleOf(one, 1, 'x'), sampleOf(one, 2, 'y')];
  bench.record([[x], []]);
  const { schema } = bench.record([[y, x], []]);
  assert.equal(schema.seriesCount, 3);
  assert.deepEqual([...bench.record([[y], []]).present], [0, 1, 1]);
  const back = bench.record([[x, y], []]);
  assert.equal(back.schema, schema);
  assert.deepEqual([...back.sums], [1, 1, 2]);
});

test('a part that fails takes back all it gave, new series too, and costs no other', () => {
  const bench = new Bench();
  bench.record([[sampleOf(one, 1, 'x')], [sampleOf(two, 1, 'x', 'y')]]);
  const failed = bench.record([
    { failed: [sampleOf(one, 2, 'x'), sampleOf(one, 2, 'new')] },
    [sampleOf(two, 2, 'x', 'y')],
  ]);
  assert.deepEqual(read(failed, true), { '["one_total","x"]': 0, '["two","x","y"]': 2, '["bare"]': 1 });
  assert.deepEqual(read(failed), { '["two","x","y"]': 2, '["bare"]': 1 });
  const well = bench.record([[sampleOf(one, 3, 'x'), sampleOf(one, 3, 'new')], [sampleOf(two, 3, 'x', 'y')]]);
  assert.deepEqual(read(well), {
    '["one_total","x"]': 3,
    '["two","x","y"]': 3,
    '["bare"]': 1,
    '["one_total","new"]': 3,
  });
});

test('of a series that comes twice in one instant the first is kept, and it is counted', () => {
  const bench = new Bench();
  const twice = [sampleOf(one, 1, 'x'), sampleOf(one, 2, 'x'), sampleOf(one, 3, 'z')];
  for (let instant = 1; instant <= 3; instant++) {
    assert.deepEqual(read(bench.record([twice, [sampleOf(one, 4, 'z')]])), {
      '["one_total","x"]': 1,
      '["one_total","z"]': 3,
      '["bare"]': 1,
    });
    assert.equal(bench.counters.samplesDuplicate, instant * 2);
  }
  assert.equal(bench.warnings.length, 1, 'one line for the family');
  assert.match(bench.warnings[0]!, /'one_total\{a="x"\}' came twice/);
});

test('a label that is longer than the wire takes is cut between two characters; what becomes equal is one series', () => {
  const bench = new Bench();
  const long = 'ü'.repeat(255);
  const given = [sampleOf(one, 1, `a${long}ü`), sampleOf(one, 2, `a${long}üü`), sampleOf(one, 3, long)];
  const { schema } = bench.record([given, []]);
  assert.deepEqual(schema.blocks[0]!.labelValues, [`a${long}`, long]);
  assert.equal(Buffer.byteLength(`a${long}`), 511);
  assert.equal(bench.counters.labelsCut, 2);
  assert.equal(bench.counters.samplesDuplicate, 1);
  assert.equal(bench.record([given, []]).schema.seriesCount, 3, 'and the next time it is the same one');
});

for (const { family, problem } of [
  { family: gauge('sysmon_server_x', ''), problem: /reserved/ },
  { family: gauge('up', ''), problem: /reserved/ },
  { family: gauge('1', ''), problem: /not a name/ },
  { family: gauge('x', '', { labels: ['agent'] }), problem: /no label may be called 'agent'/ },
  { family: gauge('x', '', { labels: ['__name__'] }), problem: /no label may be called/ },
  { family: gauge('x', '', { labels: ['a', 'a'] }), problem: /two of its labels/ },
  { family: gauge('x', '', { divisor: 0.5 }), problem: /its divisor is 0.5/ },
  { family: gauge('one_total', 'Not a counter.', { labels: ['a'] }), problem: /another collector/ },
]) {
  test(`a family that a server would refuse costs itself alone: ${family.name} ${problem.source}`, () => {
    const bench = new Bench();
    const labels = family.labelNames.map(() => 'v');
    for (let instant = 1; instant <= 2; instant++) {
      const recording = bench.record([
        [sampleOf(one, 1, 'x'), sampleOf(family, 1, ...labels), sampleOf(one, 2, 'y')],
        [],
      ]);
      assert.deepEqual(read(recording), { '["one_total","x"]': 1, '["one_total","y"]': 2, '["bare"]': 1 });
      assert.equal(bench.counters.samplesRefused, instant);
    }
    assert.equal(bench.warnings.length, 1);
    assert.match(bench.warnings[0]!, problem);
  });
}

test('a HELP that is too long is cut', () => {
  const bench = new Bench();
  const { schema } = bench.record([[sampleOf(gauge('x', 'h'.repeat(2000)), 1)], []]);
  assert.equal(schema.blocks[0]!.family.help.length, 1024);
});

test('families that are made anew each time are the same families', () => {
  const bench = new Bench();
  const give = () => bench.record([[sampleOf(counter('one_total', 'One.', { labels: ['a'] }), 1, 'x')], []]);
  const { schema } = give();
  assert.equal(give().schema, schema);
  assert.equal(schema.seriesCount, 2);
});

test('when a quarter of the series are dead the schema is begun anew with the living, and their values', () => {
  const bench = new Bench();
  const give = (...names: string[]) => bench.record([names.map((name, at) => sampleOf(one, at + 1, name)), []]);
  const { schema } = give('a', 'b', 'c');
  let instants = 1;
  let recording: Recording;
  do {
    recording = give('c', 'a', 'new');
    instants++;
  } while (recording.schema === schema && instants < 1000);
  // In the first period `b` was there once; after the second it is dead, one of five.
  assert.equal(instants, 1000, 'a fifth of the series is less than a quarter');
  do {
    recording = give('c', 'new');
    instants++;
  } while (recording.schema === schema && instants < 2000);
  assert.ok(instants > 1000 + 60 && instants <= 1000 + 120, `${instants}`);
  assert.equal(bench.counters.schemasBegun, 1);
  assert.deepEqual(read(recording, true), { '["one_total","c"]': 1, '["one_total","new"]': 2, '["bare"]': 1 });
  assert.deepEqual(read(give('new', 'b', 'c')), {
    '["one_total","new"]': 1,
    '["one_total","b"]': 2,
    '["one_total","c"]': 3,
    '["bare"]': 1,
  });
});

test('beyond the limit whole parts are left out, the largest first, and come back when there is room', () => {
  const bench = new Bench({ seriesMax: 128 }, 3);
  const give = (counts: readonly number[]) =>
    bench.record(
      counts.map((count, part) => Array.from({ length: count }, (_, at) => sampleOf(two, at, `${part}`, `${at}`))),
    );
  const counted = (recording: Recording) =>
    [0, 1, 2].map((part) => Object.keys(read(recording)).filter((key) => key.startsWith(`["two","${part}"`)).length);

  // 126 is what is left of 128 for them.
  assert.deepEqual(counted(give([26, 60, 40])), [26, 60, 40]);
  assert.deepEqual(bench.warnings, []);
  assert.deepEqual(counted(give([26, 61, 40])), [26, 0, 40]);
  assert.deepEqual(
    bench.parts.map((part) => part.leftOut),
    [false, true, false],
  );
  assert.equal(bench.counters.seriesLeftOut, 61);
  assert.match(bench.warnings[0]!, /leaving out collector 'part1' with its 61 series: a host may have 128 series/);
  assert.deepEqual(counted(give([26, 60, 40])), [26, 0, 40], 'it does not come and go');
  assert.equal(bench.warnings.length, 1);
  assert.deepEqual(counted(give([26, 45, 40])), [26, 0, 40], 'there is room: from the next instant on');
  assert.match(bench.warnings[1]!, /'part1' fit again/);
  assert.deepEqual(counted(give([26, 45, 40])), [26, 45, 40]);
  assert.equal(bench.counters.seriesLeftOut, 0);
  assert.equal(bench.warnings.length, 2);
});

test('series that are gone make room at once', () => {
  const bench = new Bench({ seriesMax: 128 });
  const give = (from: number) =>
    bench.record([Array.from({ length: 100 }, (_, at) => sampleOf(one, at, `${from + at}`)), []]);
  give(0);
  const next = give(100);
  assert.equal(Object.keys(read(next)).length, 101);
  assert.equal(next.schema.seriesCount, 101);
  assert.deepEqual(bench.warnings, []);
});

test('the bytes of a schema have a limit too', () => {
  const bench = new Bench({ schemaBytesMax: 5600 });
  const long = 'x'.repeat(500);
  const recording = bench.record([
    Array.from({ length: 12 }, (_, at) => sampleOf(one, at, `${at}${long}`)),
    Array.from({ length: 20 }, (_, at) => sampleOf(two, at, `${at}`, 'b')),
  ]);
  assert.equal(Object.keys(read(recording)).length, 21);
  assert.match(bench.warnings[0]!, /leaving out collector 'part0' with its 12 series/);
});

test('a part that gives without end does not fill the memory', () => {
  const bench = new Bench({ seriesMax: 128 });
  const recording = bench.record([
    Array.from({ length: 100_000 }, (_, at) => sampleOf(one, at, `${at}`)),
    [sampleOf(two, 1, 'x', 'y')],
  ]);
  assert.deepEqual(read(recording), { '["two","x","y"]': 1, '["bare"]': 1 });
  assert.equal(bench.counters.seriesLeftOut, 100_000);
});

// Whatever comes, fails, comes twice or does not come: the recording says what was given, and a server takes the schema.
test('property: a recording is what was given', () => {
  const sample = fc.record({
    family: fc.constantFrom(one, two, wide, bare),
    label: fc.constantFrom('', 'a', 'b', '1:b', 'ü'),
    other: fc.constantFrom('', 'a', '1:b'),
    sum: fc.double(),
  });
  const part = fc.record({ samples: fc.array(sample, { maxLength: 12 }), fails: fc.boolean() });
  const instants = fc.array(fc.tuple(part, part), { maxLength: 150 });
  fc.assert(
    fc.property(instants, fc.constantFrom(65_536, 48), (all, seriesMax) => {
      const bench = new Bench({ seriesMax });
      let last: Schema | undefined;
      let lastCount = 0;
      for (const parts of all) {
        const given = parts.map(({ samples, fails }) => {
          const list = samples.map(({ family, label, other, sum }) => {
            const labels = [label, other, label, other, label].slice(0, family.labelNames.length);
            return sampleOf(family === bare ? gauge('bare2', '') : family, sum, ...labels);
          });
          return fails ? { failed: list } : list;
        });
        const begun = bench.counters.schemasBegun;
        const recording = bench.record(given);
        if (seriesMax === 65_536) assert.deepEqual(read(recording), expectedOf(given));
        else assert.ok(recording.schema.seriesCount <= seriesMax);
        if (bench.counters.schemasBegun === begun && last !== undefined) assert.equal(recording.schema, last);
        if (recording.schema === last) assert.ok(recording.schema.seriesCount >= lastCount);
        last = recording.schema;
        lastCount = last.seriesCount;
        declare(recording.schema);
      }
    }),
    { numRuns: 60 },
  );
});

/** Parts after another; a failed one gives nothing, but keeps what it gave first from those after it. */
function expectedOf(
  given: readonly (readonly Sample[] | { readonly failed: readonly Sample[] })[],
): Record<string, number> {
  const values = new Map<string, number>();
  for (const part of given) {
    if ('failed' in part) continue;
    for (const { family, labels, sum } of part) {
      const key = JSON.stringify([family.name, ...labels]);
      if (!values.has(key)) values.set(key, sum);
    }
  }
  return Object.fromEntries([...values, ['["bare"]', 1]]);
}

/** As a server does; throws where it would refuse. */
function declare(schema: Schema): void {
  const table = new SchemaTable();
  table.begin(beginOf());
  for (const payload of encodeSchema(0, schema.groups)) {
    const message = decodeAgentMessage(payload);
    if (message.kind === 'schema') table.declare(message, payload.length);
  }
}
