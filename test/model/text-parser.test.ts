import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type MetricType, metricTypes } from '../../src/model/family.ts';
import { suffixesOf } from '../../src/model/series.ts';
import { escapeHelp, escapeLabelValue, numberText } from '../../src/model/text-format.ts';
import { parseText, TextError, type TextSample } from '../../src/model/text-parser.ts';

const bounds = { samplesMax: 10_000, labelsMax: 60 };
const parse = (text: string) => parseText(text, bounds);

/** `name{a="1"} 2 @3`, with the family's type and help before it. */
function shown({ group, labelValues, value, timestampMs }: TextSample): string {
  const { family, suffix, labelNames } = group;
  const labels = labelNames.map((name, at) => `${name}=${JSON.stringify(labelValues[at])}`).join(',');
  const time = timestampMs === undefined ? '' : ` @${timestampMs}`;
  return `${family.type} ${JSON.stringify(family.help)}: ${family.name}${suffix}{${labels}} ${value}${time}`;
}

const good: readonly (readonly [text: string, ...samples: string[]])[] = [
  ['a 1\n', 'untyped "": a{} 1'],
  ['\n  # a comment\n#\n# EOF\na\t 1 \n\n', 'untyped "": a{} 1'],
  ['# HELP a What \\\\ \\n \\x.\n# TYPE a counter\na 1\n', 'counter "What \\\\ \\n \\\\x.": a{} 1'],
  ['# TYPE a gauge\n# HELP a \na 1\n', 'gauge "": a{} 1'],
  ['# TYPE a GAUGE\na 1\n# TYPE b Counter\nb 1\n', 'gauge "": a{} 1', 'counter "": b{} 1'],
  [
    'a{y="2", x = "q\\"b\\\\n\\nü{}#," ,} 1 1719835200000\n',
    'untyped "": a{x="q\\"b\\\\n\\nü{}#,",y="2"} 1 @1719835200000',
  ],
  ['a{x=""} 1\na{x="1",y=""} 2\n', 'untyped "": a{} 1', 'untyped "": a{x="1"} 2'],
  ['a{} 1e3 -5\n', 'untyped "": a{} 1000 @-5'],
  [
    'a +Inf\nb -inf\nc NaN\nd .5e-1\ne 7.\n',
    ...['a{} Infinity', 'b{} -Infinity', 'c{} NaN', 'd{} 0.05', 'e{} 7'].map((line) => `untyped "": ${line}`),
  ],
  [
    '# TYPE h histogram\nh_bucket{le="0.1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\nh_max 9\n',
    ...['h_bucket{le="0.1"} 1', 'h_bucket{le="+Inf"} 2', 'h_sum{} 3', 'h_count{} 2'].map(
      (line) => `histogram "": ${line}`,
    ),
    'untyped "": h_max{} 9',
  ],
  [
    '# TYPE s summary\ns{quantile="0.5",p="/"} 1\ns_sum{p="/"} 3\ns_count{p="/"} 2\ns_bucket 1\n',
    ...['s{p="/",quantile="0.5"} 1', 's_sum{p="/"} 3', 's_count{p="/"} 2'].map((line) => `summary "": ${line}`),
    'untyped "": s_bucket{} 1',
  ],
  // Families need not be in one piece, and a counter's _total is of its name.
  [
    '# TYPE a_total counter\na_total 1\nb 2\na_total{x="1"} 3\n',
    'counter "": a_total{} 1',
    'untyped "": b{} 2',
    'counter "": a_total{x="1"} 3',
  ],
];

for (const [text, ...samples] of good) {
  test(`read: ${JSON.stringify(text)}`, () => assert.deepEqual(parse(text).map(shown), samples));
}

const bad: readonly (readonly [text: string, line: number, reason: RegExp])[] = [
  ['', 0, /it is empty/],
  ['a 1', 1, /ends in the middle/],
  ['a 1\n\nb', 3, /ends in the middle/],
  ['a\n', 1, /the value of 'a' is missing/],
  ['a 1x\n', 1, /the value of 'a' is "1x", expected a number/],
  ['a 0x10\n', 1, /expected a number/],
  ['a 1_000\n', 1, /expected a number/],
  ['a 1 1.5\n', 1, /timestamp is "1.5"/],
  ['a 1 99999999999999999999\n', 1, /timestamp/],
  ['a 1 2 3\n', 1, /the line should end before "3"/],
  ['a 1\r\n', 1, /the value of 'a' is "1\\r"/],
  ['1a 1\n', 1, /the name of a metric is missing before "1a 1"/],
  ['a-b 1\n', 1, /the value of 'a' is "-b"/],
  ['{"a.b"} 1\n', 1, /the name of a metric is missing/],
  ['a{x="1" 1\n', 1, /the label 'x' is not followed by ,/],
  ['a{x="1\n', 1, /value of the label 'x' does not end/],
  ['a{x="\\t"} 1\n', 1, /has "\\\\t", expected/],
  ['a{x=1} 1\n', 1, /the label 'x' is not followed by "/],
  ['a{"x"="1"} 1\n', 1, /the name of a label is missing/],
  ['a{x="1",x="2"} 1\n', 1, /the label 'x' comes twice/],
  ['a{__name__="b"} 1\n', 1, /__name__/],
  ['a{x="1"}\n', 1, /the value of 'a' is missing/],
  ['ok 1\n# TYPE a gauges\n', 2, /the type of 'a' is "gauges", expected one of counter/],
  ['# TYPE a\n', 1, /the type of 'a' is ""/],
  ['# TYPE\n', 1, /the name behind TYPE is missing before the end of the line/],
  ['# TYPE a gauge x\n', 1, /the line should end before "x"/],
  ['# TYPE a gauge\n# TYPE a gauge\n', 2, /a second TYPE of 'a'/],
  ['# HELP a x\n# HELP a x\n', 2, /a second HELP of 'a'/],
  ['a 1\n# TYPE a gauge\n', 2, /the TYPE of 'a' comes after its first sample/],
  ['# TYPE h histogram\nh 1\n', 2, /'h' is a histogram, expected h_bucket/],
  ['# TYPE h histogram\nh_bucket 1\n', 2, /'h_bucket' of a histogram lacks the label 'le'/],
  ['# TYPE h histogram\nh_sum{le="1"} 1\n', 2, /'h_sum' of a histogram has the label 'le'/],
  ['# TYPE h histogram\nh_bucket{le="x"} 1\n', 2, /the label 'le' of 'h' is "x", expected a number/],
  [`# TYPE h histogram\nh_bucket{le="${'1'.repeat(64)}x"} 1\n`, 2, /expected a number/],
  ['# TYPE s summary\ns 1\n', 2, /'s' of a summary lacks the label 'quantile'/],
  ['a 1\na 2\n', 2, /'a' has this series twice/],
  ['a{x="1",y="2"} 1\na{y="2",x="1",z=""} 2\n', 2, /'a' has this series twice/],
];

for (const [text, line, reason] of bad) {
  test(`refused: ${JSON.stringify(text.slice(0, 60))}`, () => {
    assert.throws(
      () => parse(text),
      (error) => {
        assert.ok(error instanceof TextError);
        assert.match(error.message, reason);
        assert.equal(error.line, line);
        assert.equal(error.code, /twice$/.test(error.message) && /series/.test(error.message) ? 'duplicate' : 'format');
        return true;
      },
    );
  });
}

test('bounds: samples, labels, names', () => {
  const refusal = (text: string) => {
    try {
      parseText(text, { samplesMax: 2, labelsMax: 2 });
    } catch (error) {
      if (error instanceof TextError) return `${error.code} ${error.line}: ${error.message}`;
    }
    return 'read';
  };
  assert.equal(refusal('a{x="1",y="2"} 1\nb 2\n'), 'read');
  assert.equal(refusal('a 1\nb 2\nc 3\n'), 'limit 3: more than 2 samples');
  assert.equal(refusal('a{x="1",y="2",z=""} 1\n'), 'limit 1: more than 2 labels');
  assert.match(refusal(`${'a'.repeat(1025)} 1\n`), /^limit 1: the name of a metric has 1025 characters/);
});

// What is written is read again, whatever the values.
const name = fc.stringMatching(/^[a-z]{1,3}$/).filter((text) => text !== 'le');
const value = fc.oneof(fc.double(), fc.integer());
const labels = fc.dictionary(name, fc.string({ unit: 'grapheme', maxLength: 8 }), { maxKeys: 3 });
const family = fc.record({
  type: fc.constantFrom(...metricTypes),
  help: fc.string({ maxLength: 10 }).filter((help) => !/[\r]/.test(help) && help.trimStart() === help),
  series: fc.array(fc.record({ labels, own: fc.double({ noNaN: true, noDefaultInfinity: true }), value }), {
    maxLength: 4,
  }),
});

interface Written {
  readonly lines: string[];
  readonly expected: string[];
}

function written(
  families: Readonly<
    Record<
      string,
      { type: MetricType; help: string; series: { labels: Record<string, string>; own: number; value: number }[] }
    >
  >,
): Written {
  const lines: string[] = [];
  const expected: string[] = [];
  for (const [familyName, { type, help, series }] of Object.entries(families)) {
    const name = `x_${familyName}`;
    lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`);
    const seen = new Set<string>();
    for (const one of series) {
      for (const { suffix, ownLabel } of suffixesOf(type)) {
        const all = { ...one.labels, ...(ownLabel && { [ownLabel]: String(one.own) }) };
        const kept = Object.entries(all)
          .filter(([, text]) => text !== '')
          .sort(([a], [b]) => (a < b ? -1 : 1));
        const key = JSON.stringify([suffix, kept]);
        if (seen.has(key)) continue;
        seen.add(key);
        const pairs = Object.entries(all).map(([label, text]) => `${label}="${escapeLabelValue(text)}"`);
        lines.push(`${name}${suffix}{${pairs.join(',')}} ${numberText(one.value)}`);
        const set = kept.map(([label, text]) => `${label}=${JSON.stringify(text)}`).join(',');
        expected.push(`${type} ${JSON.stringify(help)}: ${name}${suffix}{${set}} ${one.value}`);
      }
    }
  }
  return { lines, expected };
}

test('what is written is read again', () => {
  fc.assert(
    fc.property(fc.dictionary(name, family, { maxKeys: 4 }), (families) => {
      const { lines, expected } = written(families);
      fc.pre(lines.length > 0);
      assert.deepEqual(parse(`${lines.join('\n')}\n`).map(shown), expected);
    }),
    { numRuns: 300 },
  );
});

test('a text with changed bytes is read or refused with one of its lines', () => {
  const change = fc.record({ at: fc.nat(), length: fc.nat(3), text: fc.stringMatching(/^[ \n"\\{},=#a1.é]{0,4}$/) });
  const base = `${good.map(([text], at) => text.replaceAll(/\b([abcdehs])\b/g, `$1${at}`)).join('')}`;
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      let text = base;
      for (const { at, length, text: other } of changes) {
        const place = at % (text.length + 1);
        text = text.slice(0, place) + other + text.slice(place + length);
      }
      try {
        assert.ok(parse(text).length <= text.split('\n').length);
      } catch (error) {
        assert.ok(error instanceof TextError, String(error));
        assert.ok(error.line <= text.split('\n').length, `line ${error.line}`);
      }
    }),
    { numRuns: 1000 },
  );
});

test('the time is linear in the length, whatever is repeated', () => {
  const pieces = [
    'a{x="\\\\',
    '1'.repeat(60),
    ' ',
    '# HELP a x',
    '"',
    'a 1\n',
    'a{',
    'a{x="1",',
    '\\n',
    '{}',
    '\n',
    '# TYPE a gauge\n',
    'a_bucket_bucket',
  ];
  const cpuMsOf = (text: string) => {
    let least = Infinity;
    for (let round = 0; round < 2; round++) {
      // Of this process: others may have the processor meanwhile.
      const start = process.cpuUsage();
      try {
        parseText(text, { samplesMax: 1e9, labelsMax: 1e9 });
      } catch (error) {
        assert.ok(error instanceof TextError, String(error));
      }
      const { user, system } = process.cpuUsage(start);
      least = Math.min(least, (user + system) / 1000);
    }
    return least;
  };
  for (const piece of pieces) {
    for (const head of ['', 'a{x="', 'a ', '# HELP a ']) {
      const short = cpuMsOf(`${head}${piece.repeat(Math.ceil(50_000 / piece.length))}\n`);
      const long = cpuMsOf(`${head}${piece.repeat(Math.ceil(1_000_000 / piece.length))}\n`);
      // Twenty times as long; four hundred times would be quadratic.
      assert.ok(long < Math.max(100, short * 200), `${JSON.stringify(head + piece)}: ${short} ms, then ${long} ms`);
    }
  }
});
