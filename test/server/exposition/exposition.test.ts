import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Schema } from '../../../src/model/schema.ts';
import { type AgentBatch, Exposition, type ExpositionOptions } from '../../../src/server/exposition/exposition.ts';
import { ownBytesMax, schemaBytesMax } from '../../../src/server/exposition/series-text.ts';
import { appendTo, batchOf, familyOf, idOf, reportOf, schemaOf, textOf } from '../../support/batches.ts';

const quiet: ExpositionOptions = {
  onDisagreement: (family, { agent }) => assert.fail(`${agent} disagrees about ${family}`),
};
const load = familyOf('node_load1', { help: '1m load average.', divisor: 100 });
const cpu = familyOf('node_cpu_seconds_total', { type: 'counter', divisor: 100, labelNames: ['cpu', 'mode'] });

test('a family stands in one piece over all agents, each series oldest first', () => {
  const first = schemaOf([load], [cpu, '0', 'idle', '0', 'user']);
  const second = schemaOf([load]);
  const text = textOf(new Exposition(quiet), [
    batchOf('a', [{ schema: first, reports: [reportOf(1000, 21, 100, 7), reportOf(6000, 25, 350, 8)] }]),
    batchOf('b', [{ schema: second, reports: [reportOf(2500, 300)] }], [['site', 'x']]),
  ]);
  assert.equal(
    text,
    [
      '# HELP node_load1 1m load average.',
      '# TYPE node_load1 gauge',
      'node_load1{agent="a"} 0.21 1000',
      'node_load1{agent="a"} 0.25 6000',
      'node_load1{agent="b",site="x"} 3 2500',
      '# HELP node_cpu_seconds_total Help of node_cpu_seconds_total.',
      '# TYPE node_cpu_seconds_total counter',
      'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 1 1000',
      'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 3.5 6000',
      'node_cpu_seconds_total{agent="a",cpu="0",mode="user"} 0.07 1000',
      'node_cpu_seconds_total{agent="a",cpu="0",mode="user"} 0.08 6000',
      '',
    ].join('\n'),
  );
});

test('without timestamps only the newest report of an agent is printed', () => {
  const old = schemaOf([familyOf('gone')], [load]);
  const schema = schemaOf([load]);
  const runs = [
    { schema: old, reports: [reportOf(1000, 1, 100)] },
    { schema, reports: [reportOf(6000, 200), reportOf(11_000, 300)] },
    { schema: schemaOf([familyOf('not_yet')]), reports: [] },
  ];
  const text = textOf(new Exposition(quiet), [batchOf('a', runs)], false);
  assert.deepEqual(samples(text), ['node_load1{agent="a"} 3']);
});

test('an absent series prints nothing, and a family of absent series not even its name', () => {
  const gone = familyOf('gone');
  const schema = schemaOf([gone], [load], [familyOf('gone_too')]);
  const exposition = new Exposition(quiet);
  const absent = batchOf('a', [{ schema, reports: [reportOf(1, undefined, 0, undefined)] }]);
  assert.equal(
    textOf(exposition, [absent]),
    '# HELP node_load1 1m load average.\n# TYPE node_load1 gauge\nnode_load1{agent="a"} 0 1\n',
  );
  const back = batchOf('a', [{ schema, reports: [reportOf(1, undefined, 0), reportOf(2, 5, undefined)] }]);
  assert.deepEqual(samples(textOf(exposition, [back])), ['gone{agent="a"} 5 2', 'node_load1{agent="a"} 0 1']);
});

test('nothing to say is no text at all', () => {
  const exposition = new Exposition(quiet);
  assert.equal(textOf(exposition, []), '');
  assert.equal(textOf(exposition, [batchOf('a', [])]), '');
  assert.equal(textOf(exposition, [batchOf('a', [{ schema: schemaOf([load]), reports: [] }])]), '');
  assert.equal(textOf(exposition, [batchOf('a', [{ schema: new Schema(), reports: [reportOf(1)] }])]), '');
});

test('an untyped family is called untyped, and one without help has no HELP', () => {
  const schema = schemaOf([familyOf('node_vmstat_oom_kill', { type: 'untyped', help: '' })]);
  const text = textOf(new Exposition(quiet), [batchOf('a', [{ schema, reports: [reportOf(1, 3)] }])]);
  assert.equal(text, '# TYPE node_vmstat_oom_kill untyped\nnode_vmstat_oom_kill{agent="a"} 3 1\n');
});

test('a HELP escapes backslashes and line ends, a label value quotes as well', () => {
  const family = familyOf('escaped', { help: 'a "b" \\ c\nd', labelNames: ['path'] });
  const schema = schemaOf([
    family,
    'C:\\"x"\n',
    '\\n',
    'größe',
    '日本',
    '👋🏽 ok',
    'tab\tcr\r',
    'half \ud800 of a pair',
  ]);
  const reports = [reportOf(1, 1, 2, 3, 4, 5, 6, 7)];
  const text = textOf(new Exposition(quiet), [batchOf('a', [{ schema, reports }], [['quote', '"']])]);
  assert.equal(
    text,
    [
      '# HELP escaped a "b" \\\\ c\\nd',
      '# TYPE escaped gauge',
      'escaped{agent="a",path="C:\\\\\\"x\\"\\n",quote="\\""} 1 1',
      'escaped{agent="a",path="\\\\n",quote="\\""} 2 1',
      'escaped{agent="a",path="größe",quote="\\""} 3 1',
      'escaped{agent="a",path="日本",quote="\\""} 4 1',
      'escaped{agent="a",path="👋🏽 ok",quote="\\""} 5 1',
      'escaped{agent="a",path="tab\tcr\r",quote="\\""} 6 1',
      'escaped{agent="a",path="half \ufffd of a pair",quote="\\""} 7 1',
      '',
    ].join('\n'),
  );
});

test('a family wins over the labels of the hello, nobody over the name of the agent', () => {
  const family = familyOf('m', { labelNames: ['agent', 'site', 'mode', 'mode'] });
  const schema = schemaOf([family, 'forged', 'own', '1', '2', 'forged', '', '3', '4']);
  const labels = [
    ['site', 'x'],
    ['agent', 'forged'],
    ['rack', '7'],
    ['rack', '8'],
    ['empty', ''],
  ] as const;
  const text = textOf(new Exposition(quiet), [batchOf('a', [{ schema, reports: [reportOf(1, 1, 2)] }], labels)]);
  // The second series has site="", which is no label; the hello's must not step in, or two series could become one.
  assert.deepEqual(samples(text), [
    'm{agent="a",site="own",mode="1",rack="7"} 1 1',
    'm{agent="a",mode="3",rack="7"} 2 1',
  ]);
});

test('an agent whose labels families have in many ways is printed like any other', () => {
  const names = ['a', 'b', 'c', 'd', 'e'];
  const labels = names.map((name) => [name, 'hello'] as const);
  const families = Array.from({ length: 32 }, (_, mask) =>
    familyOf(`m${mask}`, { labelNames: ['z', ...names.filter((_, bit) => (mask >> bit) & 1)] }),
  );
  const schema = new Schema();
  for (const family of families) appendTo(schema, family, ...family.labelNames.map((name) => `own ${name}`));
  const batch = batchOf('x', [{ schema, reports: [reportOf(1, ...families.map((_, mask) => mask))] }], labels);
  const exposition = new Exposition(quiet);
  const expected = families.map(({ name, labelNames }, mask) => {
    const own = labelNames.map((label) => `${label}="own ${label}"`);
    const rest = names.filter((label) => !labelNames.includes(label)).map((label) => `${label}="hello"`);
    return `${name}{${['agent="x"', ...own, ...rest].join(',')}} ${mask} 1`;
  });
  for (let round = 0; round < 2; round++) assert.deepEqual(samples(textOf(exposition, [batch])), expected);
});

test('a schema that has grown prints what was added, and old reports lack it', () => {
  const exposition = new Exposition(quiet);
  const schema = schemaOf([cpu, '0', 'idle']);
  const before = reportOf(1000, 100);
  assert.deepEqual(samples(textOf(exposition, [batchOf('a', [{ schema, reports: [before] }])])), [
    'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 1 1000',
  ]);
  appendTo(schema, load);
  appendTo(schema, cpu, '1', 'idle', '2', 'idle');
  const after = reportOf(6000, 200, 50, 300, undefined);
  assert.deepEqual(samples(textOf(exposition, [batchOf('a', [{ schema, reports: [before, after] }])])), [
    'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 1 1000',
    'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 2 6000',
    'node_cpu_seconds_total{agent="a",cpu="1",mode="idle"} 3 6000',
    'node_load1{agent="a"} 0.5 6000',
  ]);
});

test('a schema begun anew follows the old one, family by family', () => {
  const exposition = new Exposition(quiet);
  const text = textOf(exposition, [
    batchOf('a', [
      { schema: schemaOf([load], [cpu, '0', 'idle']), reports: [reportOf(1000, 100, 200)] },
      { schema: schemaOf([cpu, '1', 'idle'], [load]), reports: [reportOf(6000, 300, 400)] },
    ]),
  ]);
  assert.deepEqual(samples(text), [
    'node_load1{agent="a"} 1 1000',
    'node_load1{agent="a"} 4 6000',
    'node_cpu_seconds_total{agent="a",cpu="0",mode="idle"} 2 1000',
    'node_cpu_seconds_total{agent="a",cpu="1",mode="idle"} 3 6000',
  ]);
});

test('an agent that comes back with other labels is printed with them, whatever was kept', () => {
  const exposition = new Exposition(quiet);
  const run = { schema: schemaOf([load]), reports: [reportOf(1, 100)] };
  assert.deepEqual(samples(textOf(exposition, [batchOf('a', [run], [['site', 'x']])])), [
    'node_load1{agent="a",site="x"} 1 1',
  ]);
  assert.deepEqual(samples(textOf(exposition, [batchOf('a', [run], [['site', 'y']])])), [
    'node_load1{agent="a",site="y"} 1 1',
  ]);
});

test('agents that disagree: the first one counts, another type is reported once a schema', () => {
  const seen: string[] = [];
  const exposition = new Exposition({
    onDisagreement: (family, other, shown) =>
      seen.push(`${family}: ${other.agent} ${other.type}, ${shown.agent} ${shown.type}`),
  });
  const batches = [
    batchOf('a', [
      { schema: schemaOf([familyOf('m', { type: 'counter', help: 'First.' })]), reports: [reportOf(1, 10)] },
    ]),
    batchOf('b', [
      { schema: schemaOf([familyOf('m', { type: 'gauge', help: 'Second.' })]), reports: [reportOf(1, 20)] },
    ]),
    // Another help or divisor is nobody's business: the values are right.
    batchOf('c', [
      {
        schema: schemaOf([familyOf('m', { type: 'counter', help: 'Third.', divisor: 8 })]),
        reports: [reportOf(1, 30)],
      },
    ]),
  ];
  const expected = '# HELP m First.\n# TYPE m counter\nm{agent="a"} 10 1\nm{agent="b"} 20 1\nm{agent="c"} 3.75 1\n';
  assert.equal(textOf(exposition, batches), expected);
  assert.equal(textOf(exposition, batches), expected);
  assert.deepEqual(seen, ['m: b gauge, a counter']);
  // The first stays the first, also where it has nothing to say.
  assert.equal(textOf(exposition, batches.slice(1)), expected.replace('m{agent="a"} 10 1\n', ''));
});

test('TYPE and HELP are those of most agents, not of the first, nor of one with many sources', () => {
  const exposition = new Exposition({ onDisagreement: () => {} });
  const declaring = (name: string, help: string, type: 'counter' | 'gauge', source?: string) => ({
    ...batchOf(name, [{ schema: schemaOf([familyOf('m', { type, help })]), reports: [reportOf(1, 1)] }]),
    ...(source === undefined ? {} : { sourceName: source }),
  });
  const header = (batches: readonly AgentBatch[]) => textOf(exposition, batches).split('\n').slice(0, 2).join('; ');
  const evil = [
    declaring('evil', 'Buy!', 'gauge'),
    ...[1, 2, 3].map((at) => declaring('evil', 'Buy!', 'gauge', `s${at}`)),
  ];
  const honest = ['a', 'b', 'c'].map((name) => declaring(name, 'Right.', 'counter'));
  assert.equal(header(evil), '# HELP m Buy!; # TYPE m gauge', 'nobody else is there');
  assert.equal(header([...evil, honest[0]!]), '# HELP m Buy!; # TYPE m gauge', 'one against one: the older');
  assert.equal(header([...evil, ...honest]), '# HELP m Right.; # TYPE m counter');
  assert.equal(header(evil), '# HELP m Right.; # TYPE m counter', 'an answer without most agents decides nothing');
  const upgraded = ['a', 'b'].map((name) => declaring(name, 'New.', 'counter'));
  assert.equal(header([...upgraded.slice(0, 1), ...honest.slice(1)]), '# HELP m Right.; # TYPE m counter');
  assert.equal(header([...upgraded, honest[2]!]), '# HELP m New.; # TYPE m counter', 'hosts are upgraded one by one');
});

test('families keep the order in which they were first seen', () => {
  const exposition = new Exposition(quiet);
  const [m, n, o] = ['m', 'n', 'o'].map((name) => familyOf(name)) as [typeof load, typeof load, typeof load];
  const backwards = batchOf('b', [{ schema: schemaOf([o], [n], [m]), reports: [reportOf(1, 3, 2, 1)] }]);
  const forwards = batchOf('a', [{ schema: schemaOf([m], [n]), reports: [reportOf(1, 1, 2)] }]);
  textOf(exposition, [forwards]);
  const text = textOf(exposition, [backwards, forwards]);
  assert.deepEqual(samples(text), [
    'm{agent="b"} 1 1',
    'm{agent="a"} 1 1',
    'n{agent="b"} 2 1',
    'n{agent="a"} 2 1',
    'o{agent="b"} 3 1',
  ]);
});

test('a fleet is written in another way than a few agents, and says the same', () => {
  const fleet = Array.from({ length: 150 }, (_, at) => fleetAgent(at));
  const whole = textOf(new Exposition(quiet), fleet);
  const byFamily = new Map<string, string[]>();
  for (const batch of fleet) {
    for (const line of textOf(new Exposition(quiet), [batch]).trimEnd().split('\n')) {
      const name = /^(?:# \w+ )?([a-z_0-9]+)/.exec(line)![1]!;
      const lines = byFamily.get(name) ?? [];
      if (!line.startsWith('#') || !lines.includes(line)) lines.push(line);
      byFamily.set(name, lines);
    }
  }
  const expected = [...byFamily.keys()].sort(byNumber).flatMap((name) => byFamily.get(name)!);
  assert.equal(whole, `${expected.join('\n')}\n`);
  assert.ok(whole.length > 3_000_000, 'both long and short families, in several groups');
});

/** Families 0 to 99 with a few series each, one long; a tenth of the agents declare them backwards, in two runs. */
function fleetAgent(at: number): AgentBatch {
  const families = Array.from({ length: 100 }, (_, number) => familyOf(`family_${number}`, { labelNames: ['n'] }));
  const order = [...families.keys()].filter((number) => number === 0 || (number + at) % 7 !== 0);
  // The first agent has them all, so that each family's place is its number.
  const numbers = at === 0 ? [...families.keys()] : at % 10 === 9 ? order.reverse() : order;
  const schema = new Schema();
  for (const number of numbers) {
    const seriesCount = number === 50 ? 100 : 1 + ((at + number) % 3);
    appendTo(schema, families[number]!, ...Array.from({ length: seriesCount }, (_, series) => `series ${series}`));
  }
  const sums = Array.from({ length: schema.seriesCount }, (_, series) =>
    (series + at) % 11 === 10 ? undefined : series * 1000 + at,
  );
  const reports = [reportOf(1000 + at, ...sums), reportOf(6000 + at, ...sums)];
  return batchOf(`agent-${at}`, [{ schema, reports }]);
}

const byNumber = (a: string, b: string) => Number(a.split('_')[1]) - Number(b.split('_')[1]);

test('slices are half a MiB, the last one less, and belong to the caller', () => {
  const exposition = new Exposition(quiet);
  for (const count of [1, 150]) {
    const batches = Array.from({ length: count }, (_, at) => fleetAgent(at));
    const expected = textOf(new Exposition(quiet), batches);
    const slices = [...exposition.render(batches, { timestamps: true })].filter((slice) => slice.length > 0);
    assert.equal(Buffer.concat(slices).toString(), expected);
    assert.equal(slices.length, Math.ceil(expected.length / sliceBytes));
    assert.ok(slices.slice(0, -1).every(({ length }) => length >= sliceBytes - lineBytesMost && length <= sliceBytes));
  }
});

const sliceBytes = 524_288;
/** Of {@link fleetAgent}, with the header of a family: a slice ends where the next does not fit. */
const lineBytesMost = 200;

test('a slice that is given back is written again, but never twice at once', () => {
  const exposition = new Exposition(quiet);
  const batches = Array.from({ length: 150 }, (_, at) => fleetAgent(at));
  const expected = textOf(new Exposition(quiet), batches);
  const buffers = new Set<ArrayBufferLike>();
  const render = () => {
    let text = '';
    for (const slice of exposition.render(batches, { timestamps: true })) {
      text += Buffer.from(slice).toString();
      if (slice.length > 0) buffers.add(slice.buffer);
      exposition.release(slice);
      exposition.release(slice);
    }
    return text;
  };
  for (let round = 0; round < 8; round++) assert.equal(render(), expected);
  assert.equal(buffers.size, 2, 'the one that is being sent, and the one that is being written');
});

test('of the slices that are given back, four are kept: 2 MiB', () => {
  const exposition = new Exposition(quiet);
  const given = new Set<ArrayBufferLike>();
  for (let count = 0; count < 150; count++) {
    const slice = new Uint8Array(sliceBytes);
    given.add(slice.buffer);
    exposition.release(slice);
  }
  let written = 0;
  const batches = Array.from({ length: 600 }, (_, at) => fleetAgent(at));
  for (const slice of exposition.render(batches, { timestamps: true })) {
    if (given.delete(slice.buffer)) written++;
  }
  assert.equal(written, 4);
});

test('control returns for each MiB of text or two, also while families are written side by side', () => {
  const exposition = new Exposition(quiet);
  const batches = Array.from({ length: 400 }, (_, at) => fleetAgent(at));
  textOf(exposition, batches); // builds the names
  let bytes = 0;
  let turns = 0;
  for (const slice of exposition.render(batches, { timestamps: true })) {
    bytes += slice.length;
    if (slice.length === 0) turns++;
  }
  assert.ok(turns >= bytes / 2 ** 21, `${turns} turns without text for ${bytes} bytes`);
});

test('two scrapes at once do not disturb each other, nor does a schema that grows meanwhile', () => {
  const exposition = new Exposition(quiet);
  const batches = Array.from({ length: 100 }, (_, at) => fleetAgent(at));
  const expected = textOf(new Exposition(quiet), batches);
  const readers = [0, 1].map(() => ({ slices: exposition.render(batches, { timestamps: true }), text: '' }));
  for (let round = 0, open = 2; open > 0; round++) {
    open = 0;
    for (const reader of readers) {
      const next = reader.slices.next();
      if (next.done === true) continue;
      reader.text += Buffer.from(next.value).toString();
      exposition.release(next.value);
      open++;
    }
    const { schema } = batches[round % batches.length]!.runs[0]!;
    appendTo(schema, familyOf(`new_${round}_of_${schema.seriesCount}`));
  }
  for (const reader of readers) assert.equal(reader.text, expected);
});

test('the names of new series are built a little at a time: an empty slice between', () => {
  const exposition = new Exposition(quiet);
  const family = familyOf('m', { labelNames: ['n'] });
  const agents = Array.from({ length: 60 }, (_, agent) => {
    const names = Array.from({ length: 300 }, (_, at) => `series ${at} of ${agent}`);
    return batchOf(`agent-${agent}`, [{ schema: schemaOf([family, ...names]), reports: [reportOf(1, 5)] }]);
  });
  const first = [...exposition.render(agents, { timestamps: true })];
  const again = [...exposition.render(agents, { timestamps: true })];
  const empty = (slices: Uint8Array[]) => slices.filter((slice) => slice.length === 0).length;
  assert.ok(empty(first) >= 1, 'more than 256 KiB of names');
  assert.equal(empty(again), 0);
  assert.deepEqual(Buffer.concat(again), Buffer.concat(first));
});

test('agents with the longest names are printed in full, though not all of it is kept', () => {
  const names = Array.from({ length: 36 }, (_, at) => `m${at}`);
  const quotes = '"'.repeat(1000);
  const escaped = '\\"'.repeat(1000);
  const seriesCount = 200;
  assert.ok(seriesCount * escaped.length > ownBytesMax);
  assert.ok(names.length * ownBytesMax > schemaBytesMax);
  const batches = ['a', 'b'].map((agent) => {
    const schema = schemaOf([load]);
    for (const name of names) {
      const values = Array.from({ length: seriesCount }, (_, at) => `${agent}${name}${at}${quotes}`);
      appendTo(schema, familyOf(name, { labelNames: ['n'] }), ...values);
    }
    appendTo(schema, cpu, '0', 'idle');
    const sums = Array.from({ length: names.length * seriesCount }, (_, at) => at);
    return batchOf(agent, [{ schema, reports: [1, 2].map((time) => reportOf(time, 0, ...sums, 7)) }]);
  });
  const exposition = new Exposition(quiet);
  const expected = names.flatMap((name, family) =>
    ['a', 'b'].flatMap((agent) =>
      Array.from({ length: 2 * seriesCount }, (_, line) => {
        const at = line >> 1;
        const labels = `agent="${agent}",n="${agent}${name}${at}${escaped}"`;
        return `${name}{${labels}} ${family * seriesCount + at} ${1 + (line % 2)}`;
      }),
    ),
  );
  for (let round = 0; round < 2; round++) {
    const lines = samples(textOf(exposition, batches));
    assert.equal(lines.length, 4 + expected.length + 4);
    assert.ok(lines.slice(4, -4).every((line, at) => line === expected[at]));
    assert.equal(lines.at(-1), 'node_cpu_seconds_total{agent="b",cpu="0",mode="idle"} 0.07 2');
  }
});

test('agents that have label values in common have their text in common, under whatever names', () => {
  const exposition = new Exposition(quiet);
  const values = ['sda', 'sdb'];
  const families = ['disk', 'device', 'disk'].map((label, at) => familyOf(`m${at}`, { labelNames: [label] }));
  const batches = ['a', 'b'].map((agent, place) => {
    const schema = new Schema();
    for (const family of families) appendTo(schema, family, ...values);
    // The second has one label itself that the families have, too.
    const labels = place === 0 ? [] : ([['disk', 'own']] as const);
    return batchOf(agent, [{ schema, reports: [reportOf(1, 1, 2, 3, 4, 5, 6)] }], labels);
  });
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(samples(textOf(exposition, batches)), [
      'm0{agent="a",disk="sda"} 1 1',
      'm0{agent="a",disk="sdb"} 2 1',
      'm0{agent="b",disk="sda"} 1 1',
      'm0{agent="b",disk="sdb"} 2 1',
      'm1{agent="a",device="sda"} 3 1',
      'm1{agent="a",device="sdb"} 4 1',
      'm1{agent="b",device="sda",disk="own"} 3 1',
      'm1{agent="b",device="sdb",disk="own"} 4 1',
      'm2{agent="a",disk="sda"} 5 1',
      'm2{agent="a",disk="sdb"} 6 1',
      'm2{agent="b",disk="sda"} 5 1',
      'm2{agent="b",disk="sdb"} 6 1',
    ]);
  }
});

test('a line longer than a slice gets a slice of its own', () => {
  const labelNames = Array.from({ length: 100 }, (_, at) => `l${at}`);
  const wide = familyOf('wide', { labelNames });
  for (const value of ['\\'.repeat(1000), '日'.repeat(1000)]) {
    const values = labelNames.map(() => value);
    const schema = schemaOf([load], [wide, ...values, 'x', ...values.slice(1)]);
    const reports = [reportOf(1, 5, 6, 7), reportOf(2, 5, 6, 7)];
    const lines = samples(textOf(new Exposition(quiet), [batchOf('a', [{ schema, reports }])]));
    assert.equal(lines.length, 6);
    const escaped = value.replaceAll('\\', '\\\\');
    assert.equal(lines[2], `wide{agent="a",${labelNames.map((name) => `${name}="${escaped}"`).join(',')}} 6 1`);
    assert.ok(Buffer.byteLength(lines[2]) > 200_000);
    assert.match(lines[5]!, /^wide\{agent="a",l0="x",.*\} 7 2$/);
  }
});

test('any values, labels and absences come out as they went in', () => {
  const text = fc.string({ unit: 'binary', maxLength: 12 });
  const series = fc.record({
    value: text,
    sums: fc.array(fc.option(fc.double(), { nil: undefined }), { minLength: 3, maxLength: 3 }),
  });
  const agent = fc.uniqueArray(series, { selector: ({ value }) => value, maxLength: 8 });
  const labelled = familyOf('m', { labelNames: ['v'] });
  fc.assert(
    fc.property(fc.array(agent, { maxLength: 3 }), (agents) => {
      const expected: string[] = [];
      const batches = agents.map((list, at) => {
        const schema = schemaOf([labelled, ...list.map(({ value }) => value)]);
        for (const { value, sums } of list) {
          sums.forEach((sum, time) => {
            if (sum !== undefined) expected.push(JSON.stringify([`agent-${at}`, value, shown(sum), time]));
          });
        }
        const reports = [0, 1, 2].map((time) => reportOf(time, ...list.map(({ sums }) => sums[time])));
        return batchOf(`agent-${at}`, [{ schema, reports }]);
      });
      assert.deepEqual(samples(textOf(new Exposition(quiet), batches)).map(parsed), expected);
    }),
    { numRuns: 500 },
  );
});

function shown(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf';
  return String(value);
}

/** A sample's line, read by the rules of the format. */
function parsed(line: string): string {
  const match = /^m\{agent="(agent-\d)"(?:,v="((?:[^"\\]|\\[\\"n])*)")?\} (\S+) (\d+)$/s.exec(line);
  assert.ok(match, line);
  const [, agent, value = '', number, time] = match;
  const unescaped = value.replace(/\\(.)/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped));
  return JSON.stringify([agent, unescaped, number, Number(time)]);
}

/** The lines that are no comments. */
function samples(text: string): string[] {
  assert.ok(text === '' || text.endsWith('\n'));
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

test('a histogram has one TYPE and HELP for its buckets, sum and count; other sources say their name', () => {
  const family = { name: 'h', type: 'histogram', help: 'Times.', divisor: 1 } as const;
  const summary = { name: 's', type: 'summary', help: '', divisor: 1000 } as const;
  const schema = new Schema();
  const add = (of: typeof family | typeof summary, suffix: string, labelNames: string[], ...labelValues: string[]) => {
    const seriesCount = labelNames.length === 0 ? 1 : labelValues.length / labelNames.length;
    schema.add({ family: of, suffix, labelNames, seriesCount, labelValues });
  };
  add(family, '_bucket', ['path', 'le'], '/a', '0.1', '/a', '+Inf');
  add(family, '_sum', ['path'], '/a');
  add(summary, '', ['quantile'], '0.5');
  add(family, '_count', ['path'], '/a');
  add(summary, '_sum', []);
  add(summary, '_count', []);
  const reports = [reportOf(1, 1, 2, 3.5, 1500, 2, 2500, 4000)];
  const runs = [{ schema, labels: [['tier', 'db']] as const, reports }];
  const host = batchOf('a', [{ schema: schemaOf([familyOf('m')]), reports: [reportOf(1, 7)] }]);
  const exposition = new Exposition(quiet);
  for (let round = 0; round < 2; round++) {
    const text = textOf(exposition, [{ agent: idOf('a'), sourceName: 'redis', runs }, host]);
    assert.deepEqual(text.trimEnd().split('\n'), [
      '# HELP h Times.',
      '# TYPE h histogram',
      'h_bucket{agent="a",source="redis",path="/a",le="0.1",tier="db"} 1 1',
      'h_bucket{agent="a",source="redis",path="/a",le="+Inf",tier="db"} 2 1',
      'h_sum{agent="a",source="redis",path="/a",tier="db"} 3.5 1',
      'h_count{agent="a",source="redis",path="/a",tier="db"} 2 1',
      '# TYPE s summary',
      's{agent="a",source="redis",quantile="0.5",tier="db"} 1.5 1',
      's_sum{agent="a",source="redis",tier="db"} 2.5 1',
      's_count{agent="a",source="redis",tier="db"} 4 1',
      '# HELP m Help of m.',
      '# TYPE m gauge',
      'm{agent="a"} 7 1',
    ]);
  }
});

test('one answer has the reports before and after a change of labels, each with its own', () => {
  const labels = (rack: string) => [['rack', rack]] as const;
  const runs = [
    { schema: schemaOf([familyOf('m')]), labels: labels('a'), reports: [reportOf(1, 1), reportOf(2, 2)] },
    { schema: schemaOf([familyOf('m')]), labels: labels('b'), reports: [reportOf(3, 3)] },
  ];
  const exposition = new Exposition(quiet);
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(samples(textOf(exposition, [{ agent: idOf('x'), sourceName: 'host', runs }])), [
      'm{agent="x",rack="a"} 1 1',
      'm{agent="x",rack="a"} 2 2',
      'm{agent="x",rack="b"} 3 3',
    ]);
  }
});
