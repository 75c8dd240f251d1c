import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { collectorRows } from '../src/agent/collect/collectors/index.ts';
import { rootFile } from './support/files.ts';

// What no tool checks.

interface Source {
  /** `src/agent/main.ts` */
  readonly path: string;
  readonly text: string;
  /** What it imports: `src/model/family.ts`, `node:fs`, `msgpackr`. */
  readonly imports: readonly string[];
}

function sourcesBelow(folder: string): Source[] {
  return readdirSync(rootFile(folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .sort()
    .map((path) => {
      const text = readFileSync(rootFile(path), 'utf8');
      return { path, text, imports: importsOf(path, text) };
    });
}

function importsOf(path: string, text: string): string[] {
  const specifiers = [
    ...text.matchAll(/(?:^(?:import|export)\s+(?:[\w*{}\s,]+?\sfrom\s+)?|\bimport\(|\brequire\()'([^']+)'/gm),
  ];
  return specifiers.map(([, name]) => (name!.startsWith('.') ? normalize(join(dirname(path), name!)) : name!));
}

const sources = sourcesBelow('src');

test('the sources are found, and what they import', () => {
  assert.ok(sources.length > 30);
  const found = importsOf(
    'src/agent/x.ts',
    `import type { A } from './a.ts';\nimport {\n  b,\n} from '../b.ts';\nexport * from 'c';\nawait import('d');\nimport 'e';`,
  );
  assert.deepEqual(found, ['src/agent/a.ts', 'src/b.ts', 'c', 'd', 'e']);
});

for (const [library, importers] of [
  ['msgpackr', ['src/protocol/codec.ts']],
  ['prom-client', ['src/server/own-metrics.ts']],
  ['node-cron', ['src/agent/collect/schedule.ts', 'src/server/housekeeping.ts']],
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
  const known = /^(node:|src\/|msgpackr(\/pack)?$|prom-client$|node-cron$)/;
  for (const { path, imports } of sources) {
    for (const name of imports) assert.match(name, known, `${path} imports '${name}'`);
  }
});

test('who may import whom', () => {
  const allowed: Record<string, readonly string[]> = {
    model: ['model'],
    protocol: ['model', 'protocol'],
    runtime: ['runtime'],
    agent: ['model', 'protocol', 'runtime', 'agent'],
    server: ['model', 'protocol', 'runtime', 'server'],
  };
  for (const { path, imports } of sources) {
    const side = path.split('/')[1]!;
    for (const name of imports.filter((imported) => imported.startsWith('src/'))) {
      assert.ok(allowed[side]?.includes(name.split('/')[1]!), `${path} imports '${name}'`);
    }
  }
});

test('a collector knows the kernel, the model and options; nothing of schemas, spools or sockets', () => {
  const known = /^src\/(agent\/collect\/(collectors|proc)\/|model\/family\.ts$|runtime\/(clock|options)\.ts$)/;
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

test("a collector's options are named after it, and say what they are for", () => {
  for (const { name, options, description } of collectorRows) {
    assert.notEqual(description, '');
    for (const option of options) {
      assert.ok(option.name.startsWith(`${name}.`), option.name);
      assert.notEqual(option.help, '');
    }
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
