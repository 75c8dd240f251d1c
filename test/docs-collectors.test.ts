import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows } from '../src/agent/collect/collectors/index.ts';
import { collectorsDocument, familiesOf, isMissingKnown, nodeExporterFamilies } from './support/collectors-doc.ts';
import { rootFile } from './support/files.ts';

const path = rootFile('docs/collectors.md');

if (process.env.UPDATE === '1') {
  writeFileSync(path, collectorsDocument());
} else {
  test('docs/collectors.md says what the rows and fixtures say', () => {
    const written = existsSync(path) ? readFileSync(path, 'utf8') : '';
    assert.ok(
      written === collectorsDocument(),
      "it is old: 'UPDATE=1 npm test -- --only docs-collectors' makes it anew",
    );
  });
}

test("a collector gives every family of node_exporter's, or its row says why not", () => {
  const upstream = nodeExporterFamilies();
  const unexplained: string[] = [];
  for (const row of collectorRows) {
    const given = familiesOf(row.name);
    for (const family of upstream.get(row.name) ?? []) {
      const isKnown = isMissingKnown(row, family);
      if (!given.has(family) && !isKnown) unexplained.push(`${row.name}: ${family}`);
      assert.ok(!(given.has(family) && isKnown), `'${family}' is given, and the row of '${row.name}' calls it missing`);
    }
    for (const { families, reason } of row.missing ?? []) {
      assert.ok(families.length > 0 && reason !== '', row.name);
    }
  }
  assert.deepEqual(unexplained, []);
});
