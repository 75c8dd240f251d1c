import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import fc from 'fast-check';
import { Counter, Gauge, Registry } from 'prom-client';
import { Exposition } from '../../../src/server/exposition/exposition.ts';
import { batchOf, familyOf, reportOf, schemaOf, textOf } from '../../support/batches.ts';
import type { LabelledFamily } from '../../support/groups.ts';

interface OracleFamily {
  readonly family: LabelledFamily;
  readonly series: readonly { readonly labelValues: readonly string[]; readonly value: number }[];
}

const labelValue = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }),
  fc.constantFrom('"', '\\', '\n', '\\n', '\\"', 'größe', '日本', '👋🏽', '{a="b"} 1', ' '),
);
const help = fc.oneof(fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }), fc.constantFrom('a\\nb', '\n', '"'));
const value = fc.oneof(
  fc.double(),
  fc.maxSafeInteger(),
  fc.integer().map((sum) => sum / 100),
);

const families: fc.Arbitrary<OracleFamily[]> = fc.uniqueArray(
  fc
    .record({
      number: fc.nat(30),
      type: fc.constantFrom('gauge' as const, 'counter' as const),
      help,
      labelCount: fc.nat(3),
    })
    .chain(({ number, type, help, labelCount }) =>
      fc
        .uniqueArray(
          fc.record({
            labelValues: fc.array(labelValue, { minLength: labelCount, maxLength: labelCount }),
            // A counter of prom-client's refuses what a counter cannot be.
            value: type === 'gauge' ? value : fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
          }),
          { minLength: 1, maxLength: 5, selector: ({ labelValues }) => JSON.stringify(labelValues) },
        )
        .map((series) => ({
          family: familyOf(`family_${number}`, {
            type,
            help,
            labelNames: Array.from({ length: labelCount }, (_, at) => `label_${at}`),
          }),
          series,
        })),
    ),
  { maxLength: 6, selector: ({ family }) => family.name },
);

test('the same values give the same text as in prom-client', async () => {
  await fc.assert(
    fc.asyncProperty(families, async (families) => {
      assert.equal(oursOf(families), asWeWriteIt(await theirsOf(families)));
    }),
    { numRuns: 500 },
  );
});

function oursOf(families: readonly OracleFamily[]): string {
  const schema = schemaOf(
    ...families.map(({ family, series }) => [family, ...series.flatMap(({ labelValues }) => labelValues)] as const),
  );
  const sums = families.flatMap(({ series }) => series.map(({ value }) => value));
  return textOf(
    new Exposition({ onDisagreement: assert.fail }),
    [batchOf('web-1.example', [{ schema, reports: [reportOf(1, ...sums)] }], [['site', 'x "y"']])],
    false,
  );
}

async function theirsOf(families: readonly OracleFamily[]): Promise<string> {
  const registry = new Registry();
  for (const { family, series } of families) {
    const { name, help, labelNames } = family;
    const options = { name, help, labelNames: ['agent', ...labelNames, 'site'], registers: [registry] };
    const metric = family.type === 'gauge' ? new Gauge(options) : new Counter(options);
    for (const { labelValues, value } of series) {
      const own = Object.fromEntries(labelNames.map((label, at) => [label, labelValues[at]!]));
      const labels = { agent: 'web-1.example', ...own, site: 'x "y"' };
      if (metric instanceof Gauge) metric.set(labels, value);
      else metric.inc(labels, value);
    }
  }
  return registry.metrics();
}

/** Two things prom-client does otherwise: `Nan`, which Prometheus reads too, and an empty line between families. */
function asWeWriteIt(text: string): string {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => `${line.replace(/ Nan$/, ' NaN')}\n`).join('');
}

/** Why a test is skipped where Debian's package of this program is missing. In CI it is not skipped but fails. */
function missing(program: string, debianPackage: string): string | false {
  if (process.env.CI === 'true' || spawnSync(program, ['--version']).error === undefined) return false;
  return `${program} is not here: apt-get install ${debianPackage} brings it`;
}

const noPromtool = missing('promtool', 'prometheus');
const noExporter = missing('prometheus-node-exporter', 'prometheus-node-exporter');

test('promtool reads it, and has nothing to say of it', { skip: noPromtool }, () => {
  const path = familyOf('node_filesystem_size_bytes', { labelNames: ['device', 'mountpoint'] });
  const families = [
    familyOf('node_load1', { divisor: 100 }),
    familyOf('node_cpu_seconds_total', { type: 'counter', divisor: 100, labelNames: ['cpu', 'mode'] }),
  ] as const;
  const agents = Array.from({ length: 100 }, (_, at) => {
    const schema = schemaOf(
      [families[0]],
      [families[1], ...Array.from({ length: 40 }, (_, cpu) => [`${cpu}`, 'idle']).flat()],
      [path, '/dev/"odd"', '/mnt/a\\b\nc', 'größe 日本 👋🏽', '\t\r\u0000'],
    );
    const sums = Array.from({ length: schema.seriesCount }, (_, series) => series * 997 + at);
    const odd = [Number.NaN, Infinity, -Infinity, 0.1 + 0.2, 5e-324, -1.7976931348623157e308][at % 6]!;
    return batchOf(`agent-${at}`, [{ schema, reports: [reportOf(1000 + at, odd, ...sums.slice(1))] }]);
  });
  for (const timestamps of [true, false]) {
    const text = textOf(new Exposition({ onDisagreement: assert.fail }), agents, timestamps);
    assert.equal(text.split('\n').length, 100 * 43 + 7);
    assert.deepEqual(promtoolSays(text), { status: 0, says: '' });
  }
  // It would have said so.
  assert.notEqual(promtoolSays('a{b="c} 1\n').status, 0);
  assert.notEqual(promtoolSays('# TYPE a counter\na 1\n').says, '');
});

test("promtool says nothing that it does not say of node_exporter's own text", {
  skip: noPromtool || noExporter,
}, async () => {
  const theirs = await nodeExporterText();
  const schema = schemaOf(...familiesOf(theirs));
  assert.ok(schema.seriesCount > 100, `${schema.seriesCount} series`);
  const report = reportOf(1, ...Array.from({ length: schema.seriesCount }, (_, series) => series));
  const text = textOf(new Exposition({ onDisagreement: assert.fail }), [batchOf('a', [{ schema, reports: [report] }])]);
  const known = new Set(promtoolSays(theirs).says.split('\n'));
  assert.deepEqual(
    promtoolSays(text)
      .says.split('\n')
      .filter((line) => !known.has(line)),
    [],
  );
});

async function nodeExporterText(): Promise<string> {
  const exporter = spawn('prometheus-node-exporter', ['--web.listen-address=127.0.0.1:0'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  try {
    return await (await fetch(`http://${await addressOf(exporter)}/metrics`)).text();
  } finally {
    exporter.kill();
  }
}

async function addressOf(exporter: ChildProcess): Promise<string> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: exporter.stderr! })) {
    lines.push(line);
    const address = /Listening on.*address=(127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (address !== undefined) return address;
  }
  throw new Error(`node_exporter ended without listening:\n${lines.join('\n')}`);
}

/** The families of a text that an agent could send, with their label values. */
function familiesOf(text: string): (readonly [LabelledFamily, ...string[]])[] {
  const helps = new Map([...text.matchAll(/^# HELP (\S+) (.*)$/gm)].map(([, name, help]) => [name!, help!]));
  const types = new Map(
    [...text.matchAll(/^# TYPE (\S+) (counter|gauge|untyped)$/gm)].map(([, name, type]) => [name!, type]),
  );
  const families = new Map<string, [LabelledFamily, ...string[]]>();
  for (const [, name, labels] of text.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? \S+$/gm)) {
    const type = types.get(name!);
    if (type === undefined) continue;
    const pairs = [...(labels ?? '').matchAll(/([a-z_0-9]+)="((?:[^"\\]|\\.)*)"/g)];
    const known = families.get(name!);
    const values = pairs.map(([, , value]) => value!);
    if (known !== undefined) known.push(...values);
    else {
      const labelNames = pairs.map(([, label]) => label!);
      const family = familyOf(name!, {
        type: type as LabelledFamily['type'],
        help: helps.get(name!) ?? '',
        labelNames,
      });
      families.set(name!, [family, ...values]);
    }
  }
  return [...families.values()];
}

function promtoolSays(text: string): { status: number | null; says: string } {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  return { status, says: stdout + stderr };
}
