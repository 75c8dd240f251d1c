import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows } from '../src/agent/collect/collectors/index.ts';
import {
  collectorsDocument,
  collectorsLeftOut,
  familiesOf,
  isMissingKnown,
  nodeExporterFamilies,
} from './support/collectors-doc.ts';
import { fixtureFile, rootFile } from './support/files.ts';

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

test("every collector of node_exporter's is here, or is left out with a reason", () => {
  const names = new Set(collectorRows.map(({ name }) => name));
  for (const collector of Object.keys(collectorsLeftOut)) assert.ok(!names.has(collector), collector);
  // Its own: how each of its collectors did.
  const upstream = [...nodeExporterFamilies().keys()].filter((name) => name !== 'scrape');
  assert.ok(upstream.length > 60);
  assert.deepEqual(
    upstream.filter((name) => !names.has(name) && collectorsLeftOut[name] === undefined),
    [],
  );
});

/** What dashboards and alerts for node_exporter ask for and no file of a Linux host says, with the reason. */
const notFromFiles: readonly (readonly [families: RegExp, reason: string])[] = [
  [/^process_/, 'of the process of node_exporter; this agent has sysmon_agent_cpu_seconds_total and its like'],
  [/^node_memory_(available|compressed|internal|purgeable|total|wired)_bytes$/, 'of macOS and the BSDs'],
  [/^node_kernel_hung_tasks$/, 'a name without its end: the family is node_kernel_hung_tasks_total'],
  [/^node_exporter_build_info$/, "the agent's own (own-metrics.ts)"],
  [/^node_scrape_collector_(duration_seconds|success)$/, "the sampler's (sampler.ts)"],
  [
    /^node_timex_(frequency_adjustment_ratio|loop_time_constant|pps_.*|tai_offset_seconds|tick_seconds)$/,
    'need the system call adjtimex, which only native code can make',
  ],
  [/^node_systemd_socket_/, 'would be a call for each socket, to the first process of the host'],
];

for (const list of ['dashboard-1860', 'node-mixin', 'awesome-alerts']) {
  test(`every metric of ${list} is given by a fixture of its collector, or no file says it`, () => {
    const given = new Set(collectorRows.flatMap(({ name }) => [...familiesOf(name).keys()]));
    const families = readFileSync(fixtureFile(`node-exporter/${list}.txt`), 'utf8')
      .trim()
      .split('\n');
    assert.ok(families.length > 40);
    for (const family of families) {
      const isExcused = notFromFiles.some(([pattern]) => pattern.test(family));
      assert.equal(given.has(family), !isExcused, family);
    }
  });
}
