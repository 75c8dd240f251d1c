import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { collectorRows } from '../src/agent/collect/collectors/index.ts';
import { program as agentProgram } from '../src/agent/options.ts';
import { environmentName } from '../src/runtime/options.ts';
import { program as serverProgram } from '../src/server/options.ts';
import { rootFile } from './support/files.ts';

// What no tool checks.

interface Source {
  /** `src/agent/main.ts` */
  readonly path: string;
  readonly text: string;
  /** What it imports: `src/model/family.ts`, `node:fs`, `msgpackr`. */
  readonly imports: readonly string[];
  /** Those of them from which it has types alone. */
  readonly types: ReadonlySet<string>;
}

function sourcesBelow(folder: string): Source[] {
  return readdirSync(rootFile(folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.m?[tj]s$/.test(name))
    .map((name) => join(folder, name))
    .sort()
    .map((path) => {
      const text = readFileSync(rootFile(path), 'utf8');
      return { path, text, ...importsOf(path, text) };
    });
}

function importsOf(path: string, text: string): Pick<Source, 'imports' | 'types'> {
  const found = [
    ...text.matchAll(/(?:^(?:import|export)\s+(type\s)?(?:[\w*{}\s,]+?\sfrom\s+)?|\bimport\(|\brequire\()'([^']+)'/gm),
  ].map(([, type, name]) => ({ type, name: name!.startsWith('.') ? normalize(join(dirname(path), name!)) : name! }));
  return {
    imports: found.map(({ name }) => name),
    types: new Set(found.filter(({ type }) => type !== undefined).map(({ name }) => name)),
  };
}

const sources = sourcesBelow('src');

test('the sources are found, and what they import', () => {
  assert.ok(sources.length > 30);
  const found = importsOf(
    'src/agent/x.ts',
    `import type { A } from './a.ts';\nimport {\n  b,\n} from '../b.ts';\nexport * from 'c';\nawait import('d');\nimport 'e';`,
  );
  assert.deepEqual(found.imports, ['src/agent/a.ts', 'src/b.ts', 'c', 'd', 'e']);
  assert.deepEqual([...found.types], ['src/agent/a.ts']);
});

for (const [library, importers] of [
  ['msgpackr', ['src/protocol/codec.ts']],
  ['prom-client', ['src/server/own-metrics.ts']],
  ['bcryptjs', ['src/server/web/password-worker.ts']],
  ['yaml', ['src/server/web/web-config.ts']],
  ['uplot', ['src/server/web/page/browser/agent.ts']],
  ['node-cron', ['src/agent/collect/schedule.ts', 'src/server/daily.ts']],
] as const) {
  test(`${library} is imported by ${importers.join(' and ')} alone`, () => {
    const found = sources.filter(({ imports }) =>
      imports.some((name) => name === library || name.startsWith(`${library}/`)),
    );
    assert.deepEqual(
      found.map(({ path }) => path),
      importers.filter((path) => sources.some((source) => source.path === path)),
    );
    assert.ok(found.length > 0);
  });
}

test('no other library is used', () => {
  const known = /^(node:|src\/|msgpackr(\/pack)?$|prom-client$|node-cron$|bcryptjs$|yaml$|uplot$)/;
  for (const { path, imports } of sources) {
    for (const name of imports) assert.match(name, known, `${path} imports '${name}'`);
  }
});

// LAYOUT.md: `model ← protocol ← agent | server`, `runtime ← agent | server`; agent and server never meet.
const sides: Readonly<Record<string, readonly string[]>> = {
  model: [],
  protocol: ['model'],
  runtime: [],
  agent: ['model', 'protocol', 'runtime'],
  server: ['model', 'protocol', 'runtime'],
};

test('who may import whom', () => {
  for (const { path, imports } of sources) {
    const side = path.split('/')[1]!;
    for (const name of imports.filter((imported) => imported.startsWith('src/'))) {
      const other = name.split('/')[1]!;
      assert.ok(other === side || sides[side]!.includes(other), `${path} imports '${name}'`);
    }
  }
});

test('the compiler is told the same', () => {
  for (const [side, others] of Object.entries(sides)) {
    const { include, references } = JSON.parse(readFileSync(rootFile(`src/${side}/tsconfig.json`), 'utf8'));
    assert.deepEqual(include, ['./**/*.ts'], side);
    assert.deepEqual(
      references.map((reference: { path: string }) => reference.path),
      others.map((other) => `../../src/${other}`),
      side,
    );
  }
});

// What each stretch of the way may know of the others. Only the files above them (wire-up.ts, run.ts, commands.ts, …)
// know several, and no stretch knows those.
const stretches: Readonly<Record<string, readonly RegExp[]>> = {
  'src/agent/collect': [],
  'src/agent/spool': [],
  'src/agent/uplink': [],
  'src/agent/join': [/^src\/agent\/key-file\.ts$/],
  'src/server/ingest': [/^src\/server\/delivery\//],
  'src/server/delivery': [/^src\/server\/exposition\//],
  'src/server/exposition': [],
  'src/server/prometheus': [/^src\/server\/delivery\/receipts\.ts$/],
  'src/server/web': [/^src\/server\/(delivery|exposition)\//],
};
/** As types alone: uplink and collect know the spool's interface, the page what is to be shown. */
const stretchesTypes: Readonly<Record<string, readonly RegExp[]>> = {
  'src/agent/collect': [/^src\/agent\/spool\//],
  'src/agent/uplink': [/^src\/agent\/spool\//],
  'src/server/web': [/^src\/server\/status\.ts$/],
};

test('the stretches of the way meet in wire-up.ts', () => {
  const found: string[] = [];
  for (const { path, imports, types } of sources) {
    const own = /^src\/(?:agent|server)\/[a-z]+(?=\/)/.exec(path)?.[0];
    if (own === undefined) continue;
    assert.ok(own in stretches, `${own} has no rule`);
    for (const name of imports) {
      if (!/^src\/(agent|server)\//.test(name) || name.startsWith(`${own}/`)) continue;
      const allowed = [...stretches[own]!, ...(types.has(name) ? (stretchesTypes[own] ?? []) : [])];
      if (!allowed.some((pattern) => pattern.test(name))) found.push(`${path} imports ${name}`);
    }
  }
  assert.deepEqual(found, []);
});

test('no file imports itself by way of others', () => {
  const files = [...sources, ...['test', 'bench', 'scripts'].flatMap(sourcesBelow)];
  const importsByPath = new Map(files.map(({ path, imports }) => [path, imports]));
  const done = new Set<string>();
  const circleFrom = (path: string, way: readonly string[]): readonly string[] | undefined => {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path];
    if (done.has(path)) return undefined;
    done.add(path);
    for (const next of importsByPath.get(path) ?? []) {
      const circle = circleFrom(next, [...way, path]);
      if (circle !== undefined) return circle;
    }
    return undefined;
  };
  const circles = files.map(({ path }) => circleFrom(path, [])?.join(' → ') ?? '');
  assert.deepEqual(
    circles.filter((circle) => circle !== ''),
    [],
  );
  assert.ok(done.has('scripts/compile.mjs') && done.has('test/tidy.test.ts') && done.has('src/agent/main.ts'));
});

test('settings.ts alone reads the values of options', () => {
  const found = sources
    .filter(({ path }) => /^src\/(agent|server)\/[^/]+$/.test(path))
    .filter(({ text }) => /\boptions\.values\b|\{ values \}|\['values'\]/.test(text))
    .map(({ path }) => path);
  assert.deepEqual(found, ['src/agent/settings.ts', 'src/server/settings.ts']);
});

test('a collector knows the kernel, the model and options; nothing of schemas, spools or sockets', () => {
  const known =
    /^src\/(agent\/collect\/(bus|collectors|proc)\/|model\/(family|text-parser)\.ts$|runtime\/(clock|options)\.ts$)/;
  for (const { path, imports } of sources.filter((source) =>
    /^src\/agent\/collect\/(collectors|proc)\//.test(source.path),
  )) {
    for (const name of imports.filter((imported) => imported.startsWith('src/'))) {
      assert.match(name, known, `${path} imports '${name}'`);
    }
    if (path.includes('/collectors/')) {
      // Through Host alone, whose errors name the file.
      for (const name of imports) assert.doesNotMatch(name, /^node:fs/, path);
    }
  }
});

test('a collector is a file, a row, and a fixture; rows are in order', () => {
  const names = collectorRows.map((row) => row.name);
  assert.deepEqual(names, names.toSorted());
  const files = (folder: string, end: string) =>
    readdirSync(rootFile(folder))
      .filter((file) => file.endsWith(end))
      .map((file) => file.slice(0, -end.length));
  const contract = ['collector', 'index'];
  assert.deepEqual(
    files('src/agent/collect/collectors', '.ts')
      .filter((file) => !contract.includes(file))
      .sort(),
    names,
  );
  assert.deepEqual(files('test/fixtures/collectors', '.txt').sort(), names);
});

/** As node_exporter has it. */
const optionPrefixes: Readonly<Record<string, string>> = { powersupplyclass: 'powersupply' };

test("a collector's options are named after it, and say what they are for", () => {
  for (const { name, options, description } of collectorRows) {
    assert.notEqual(description, '');
    for (const option of options) {
      assert.ok(option.name.startsWith(`${optionPrefixes[name] ?? name}.`), option.name);
      assert.notEqual(option.help, '');
    }
  }
});

test('no two options are one variable of the environment', () => {
  for (const options of [agentProgram.options, serverProgram.options]) {
    const names = Object.values(options).map(({ name }) => environmentName(name));
    assert.deepEqual(
      names.filter((name, at) => names.indexOf(name) !== at),
      [],
    );
  }
});

test('each collector says where its format is written down', () => {
  for (const { path, text } of sources) {
    if (!/^src\/agent\/collect\/collectors\/(?!collector|index)/.test(path)) continue;
    assert.match(text, /^\/\/ .*\n(?:\/\/ .*\n)*?\/\/ .*https:\/\//, `${path} should open with its format and a URL`);
  }
});

test('nothing is left to do, and nothing names the machine that it was written on', () => {
  for (const { path, text } of [...sources, ...sourcesBelow('bench')]) {
    assert.doesNotMatch(text, /\b(TODO|FIXME|XXX)\b/, path);
    assert.doesNotMatch(text, /\/(work|home)\/\w/, path);
  }
});

test('no words of our own where the field has one', () => {
  const documents = readdirSync(rootFile('docs')).filter((name) => name.endsWith('.md'));
  const written = ['README.md', 'CHANGELOG.md', 'SECURITY.md', 'install.sh', 'src/protocol/README.md']
    .concat(documents.map((name) => `docs/${name}`))
    .map((path) => ({ path, text: readFileSync(rootFile(path), 'utf8') }));
  for (const { path, text } of [...sources, ...sourcesBelow('scripts'), ...written]) {
    assert.doesNotMatch(text, /\b(settle[sd]?|goodbyes?|stands? for|in doubt|told)\b/i, path);
  }
});
