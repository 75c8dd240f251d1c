import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { counter, gauge } from '../../../src/agent/collect/collectors/collector.ts';
import { Recorder } from '../../../src/agent/collect/recorder.ts';
import { SeriesBudget, SeriesBudgetError, type SeriesCost } from '../../../src/agent/collect/series-budget.ts';
import { type AgentCounters, newAgentCounters } from '../../../src/agent/own-metrics.ts';
import type { Recording } from '../../../src/model/recording.ts';
import type { Schema } from '../../../src/model/schema.ts';
import type { Labels } from '../../../src/model/source.ts';
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

const unlimited: SeriesCost = { count: 1e9, schemaBytes: 1e9, textBytes: 1e9 };

/** A recorder with two parts, and what it said. */
class Bench {
  readonly counters: AgentCounters = newAgentCounters();
  readonly warnings: string[] = [];
  readonly recorder: Recorder;
  readonly parts;
  readonly own;
  /** The parts that had no room the last time, and why. */
  refused: string[] = [];

  constructor(wire: Partial<SeriesCost> = {}, partCount = 2, labels: Labels = []) {
    const budget = new SeriesBudget({ labels, wire: { ...unlimited, ...wire } });
    this.recorder = new Recorder({ counters: this.counters, warn: (text) => this.warnings.push(text), budget });
    this.parts = Array.from({ length: partCount }, (_, at) => this.recorder.part(`part${at}`));
    this.own = this.recorder.part('own', { isOwn: true });
  }

  /** One instant: for each part its samples, or a failure after them. A part that has no room fails too. */
  record(given: readonly (readonly Sample[] | { readonly failed: readonly Sample[] })[]): Recording {
    this.recorder.begin();
    this.refused = [];
    given.forEach((part, at) => {
      this.recorder.enter(this.parts[at]!);
      try {
        for (const sample of 'failed' in part ? part.failed : part) this.#give(sample);
        if ('failed' in part) this.recorder.abandon();
        else this.recorder.leave();
      } catch (error) {
        if (!(error instanceof SeriesBudgetError)) throw error;
        this.refused.push(`${at}: ${error.message}`);
        this.recorder.abandon();
      }
    });
    this.recorder.enter(this.own);
    this.recorder.sample(bare, 1);
    this.recorder.leave();
    return this.recorder.end();
  }

  #give({ family, labels, sum }: Sample): void {
    const [a, b] = labels;
    if (labels.length > 2) this.recorder.sampleLabels(family, sum, [...labels]);
    else this.recorder.sample(family, sum, a, b);
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
  { family: { ...one, name: 'h', type: 'histogram' as const }, problem: /a histogram has no series named 'h'/ },
  { family: { ...one, suffix: '_sum' }, problem: /a counter has no series named 'one_total_sum'/ },
  { family: { ...one, name: 'h', type: 'histogram' as const, suffix: '_bucket' }, problem: /lacks the label 'le'/ },
  {
    family: { ...one, name: 'h', type: 'histogram' as const, suffix: '_sum', labelNames: ['le'] },
    problem: /has the label/,
  },
  {
    family: { ...one, name: 's', type: 'summary' as const, suffix: '_x' },
    problem: /no series named 's_x'/,
  },
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

test('series of one family with other labels and suffixes are groups that a server takes; no name is of two families', () => {
  const bench = new Bench();
  const histogram = { name: 'h', type: 'histogram', help: 'H.', divisor: 1 } as const;
  const bucket = { ...histogram, suffix: '_bucket', labelNames: ['le'] };
  const [sum, count] = [
    { ...histogram, suffix: '_sum', labelNames: [] },
    { ...histogram, suffix: '_count', labelNames: [] },
  ];
  const { schema } = bench.record([
    [sampleOf(bucket, 1, '1'), sampleOf(bucket, 2, '+Inf'), sampleOf(sum, 3), sampleOf(count, 2)],
    [
      sampleOf(gauge('h_sum', 'Another.'), 9),
      sampleOf(gauge('two', 'Two.', { labels: ['c'] }), 5, 'x'),
      sampleOf(two, 6, 'x', 'y'),
    ],
  ]);
  assert.deepEqual(
    schema.groups.map(({ family, suffix, labelNames, seriesCount }) => [family.name + suffix, labelNames, seriesCount]),
    [
      ['h_bucket', ['le'], 2],
      ['h_sum', [], 1],
      ['h_count', [], 1],
      ['two', ['c'], 1],
      ['two', ['a', 'b'], 1],
      ['bare', [], 1],
    ],
  );
  assert.equal(bench.counters.samplesRefused, 1);
  assert.match(bench.warnings[0]!, /leaving out 'h_sum': another collector/);
});

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

test('a part has three quarters of the room, all together nearly the whole; beyond it a part fails, and no other', () => {
  const bench = new Bench({ count: 128 }, 4);
  const give = (...counts: readonly number[]) => {
    const recording = bench.record(
      counts.map((count, part) => Array.from({ length: count }, (_, at) => sampleOf(two, at, `${part}`, `${at}`))),
    );
    return counts.map(
      (_, part) => Object.keys(read(recording)).filter((key) => key.startsWith(`["two","${part}"`)).length,
    );
  };
  assert.deepEqual(give(26, 60, 40), [26, 60, 40], '126 of 128: the rest is for what the agent says of itself');
  assert.deepEqual(bench.refused, []);
  assert.deepEqual(give(26, 61, 40, 1), [26, 61, 0, 1], 'the one that has no room leaves it to those after it');
  assert.match(bench.refused.join(), /^2: with it the collectors have more than 126 series; filter by its options/);
  assert.deepEqual(give(97, 20), [0, 20]);
  assert.match(bench.refused.join(), /^0: it has more than 96 series; filter by its options .* or --disable it$/);
  assert.deepEqual(give(96, 20), [96, 20], 'it is back as soon as it fits');
  assert.deepEqual(bench.refused, []);
  assert.deepEqual(bench.warnings, []);
});

test('series that are gone make room at once', () => {
  const bench = new Bench({ count: 128 });
  const give = (from: number) =>
    bench.record([Array.from({ length: 90 }, (_, at) => sampleOf(one, at, `${from + at}`)), []]);
  give(0);
  const next = give(90);
  assert.equal(Object.keys(read(next)).length, 91);
  assert.equal(next.schema.seriesCount, 91);
  assert.deepEqual(bench.warnings, []);
});

test('the bytes of a schema, and of a report as text, have a limit too', () => {
  const long = 'x'.repeat(500);
  const longs = Array.from({ length: 14 }, (_, at) => sampleOf(one, at, `${at}${long}`));
  const shorts = Array.from({ length: 20 }, (_, at) => sampleOf(two, at, `${at}`, 'b'));
  for (const [wire, reason] of [
    [{ schemaBytes: 8000 }, /^0: it has more than 6000 bytes of names and labels/],
    [{ textBytes: 12_000 }, /^0: it has more than 9000 bytes of text a report/],
  ] as const) {
    const bench = new Bench(wire);
    const recording = bench.record([longs, shorts]);
    assert.equal(Object.keys(read(recording)).length, 21);
    assert.match(bench.refused.join(), reason);
    assert.equal(Object.keys(read(bench.record([longs.slice(0, 8), shorts]))).length, 29);
  }
});

test('a series whose line would be too long for a server is left out alone', () => {
  const bench = new Bench();
  const long = (at: number) => Array.from({ length: 9 }, (_, label) => `${at}${label}`.padEnd(400, '"'));
  const many = gauge('many', 'Many.', { labels: Array.from({ length: 9 }, (_, at) => `l${at}`) });
  for (let instant = 1; instant <= 2; instant++) {
    const recording = bench.record([[sampleOf(many, 1, ...long(1)), sampleOf(one, 2, 'x')], []]);
    assert.deepEqual(read(recording), { '["one_total","x"]': 2, '["bare"]': 1 });
    assert.equal(bench.counters.samplesRefused, instant);
  }
  assert.equal(bench.warnings.length, 1);
  assert.match(bench.warnings[0]!, /leaving out a series of 'many': its line would be longer than 4096 bytes/);
});

test('a family with more labels than a server allows beside those of the host is left out alone', () => {
  const labels = Array.from({ length: 20 }, (_, at): [string, string] => [`host${at}`, 'x']);
  const bench = new Bench({}, 2, labels);
  const wide = (name: string, count: number) =>
    gauge(name, 'Wide.', { labels: Array.from({ length: count }, (_, at) => (at === 0 ? 'host0' : `l${at}`)) });
  const values = (count: number) => Array<string>(count).fill('x');
  // With __name__, agent, job and instance; one is a label of the host, too.
  const recording = bench.record([[sampleOf(wide('most', 41), 1, ...values(41))], []]);
  assert.equal(Object.keys(read(recording)).length, 2);
  bench.record([[sampleOf(wide('wide', 42), 1, ...values(42))], []]);
  assert.match(
    bench.warnings.join(),
    /^leaving out 'wide': it has 65 labels with __name__, agent, job, instance and those of --label, at most 64 are allowed$/,
  );
});

test('a part that gives without end is stopped before it fills the memory', () => {
  const bench = new Bench({ count: 128 });
  let given = 0;
  function* endless(): Generator<Sample> {
    for (;;) yield sampleOf(one, given, `${given++}`);
  }
  for (let instant = 0; instant < 2; instant++) {
    given = 0;
    const recording = bench.record([endless() as unknown as Sample[], [sampleOf(two, 1, 'x', 'y')]]);
    assert.deepEqual(read(recording), { '["two","x","y"]': 1, '["bare"]': 1 });
    assert.equal(given, 97);
  }
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
      const bench = new Bench({ count: seriesMax });
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
