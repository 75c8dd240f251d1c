import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { arch, machine } from 'node:os';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { collectFixture, contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { fixtureFile } from '../../../support/files.ts';
import { type FixtureHost, makeTree, parseFixture } from '../../../support/fixture-proc.ts';
import {
  type ParsedMetrics,
  parseMetrics,
  nodeExporterSkip as skip,
  startNodeExporter,
} from '../../../support/node-exporter.ts';

// The same kernel files to node_exporter and to us: the same families, types, labels and values. Debian 12 has 1.5.0;
// what is here is 1.12's, and this is where they differ.
const onlyIn15 = [
  // 1.5 takes every field of /proc/meminfo, 1.12 a list.
  /^node_memory_(KReclaimable|SecPageTables|FileHugePages|FilePmdMapped|Hugetlb|Unaccepted|Balloon)_bytes\b/,
];
// 1.5 gives CPUs that are offline zeros; 1.12 leaves them out.
const offlineCpus = { host: /four of eight CPUs offline/, only: /^node_cpu_(guest_)?seconds_total\{cpu="[1346]",/ };
// netlink has it and /proc/net/dev has not: it is compared on this machine, below.
const onlyHere = [/^node_network_receive_nohandler_total\b/];
function comparable(metrics: ParsedMetrics, without: readonly RegExp[]): unknown {
  const isKept = (name: string) =>
    name.startsWith('node_') && !/^node_(scrape|exporter)_/.test(name) && !without.some((only) => only.test(name));
  const types = [...metrics.types].filter(([name]) => isKept(name)).sort();
  const values = [...metrics.values].filter(([name]) => isKept(name)).sort();
  return { types: Object.fromEntries(types), values: Object.fromEntries(values) };
}

function flagsOf({ options }: FixtureHost): string[] {
  return [...options].map(([name, value]) =>
    value === 'true' || value === 'false'
      ? `--${value === 'true' ? '' : 'no-'}collector.${name}`
      : `--collector.${name}=${value}`,
  );
}

for (const name of ['cpu', 'loadavg', 'meminfo', 'netdev', 'stat']) {
  const { hosts } = parseFixture(readFileSync(fixtureFile(`collectors/${name}.txt`), 'utf8'));
  for (const host of hosts) {
    test(`${name}: ${host.title}: as node_exporter`, { skip }, async () => {
      const tree = makeTree(host.files);
      const exporter = await startNodeExporter({ collectors: [name], roots: tree.roots, flags: flagsOf(host) });
      try {
        const theirs = comparable(
          parseMetrics(await exporter.scrape()),
          offlineCpus.host.test(host.title) ? [...onlyIn15, offlineCpus.only] : onlyIn15,
        );
        const ours = comparable(parseMetrics(collectFixture(name, host)), onlyHere);
        assert.deepEqual(ours, theirs);
        assert.notDeepEqual(ours, { types: {}, values: {} });
      } finally {
        await exporter.stop();
        tree.remove();
      }
    });
  }
}

test(`this machine: every collector gives node_exporter's families, types and labels`, { skip }, async () => {
  const collectors = collectorRows.map((row) => row.name);
  const exporter = await startNodeExporter({ collectors, netlink: true });
  const host = new Host();
  try {
    const theirs = parseMetrics(await exporter.scrape());
    const context = { ...contextOf(), clock: { nowMs: () => Date.now(), monotonicMs: () => 0 }, machine: machine() };
    const texts = collectors.map((name) => expositionOf(new OneCollector(newCollector(name, context)).collect(host)));
    const ours = parseMetrics(texts.join(''));
    const names = (metrics: ParsedMetrics, without: readonly RegExp[]) => {
      const { types, values } = comparable(metrics, without) as { types: object; values: Record<string, number> };
      return { types, series: Object.keys(values) };
    };
    assert.deepEqual(names(ours, []), names(theirs, onlyIn15));
    // What cannot have moved between the two.
    for (const series of [
      'node_boot_time_seconds{}',
      'node_memory_MemTotal_bytes{}',
      'node_memory_SwapTotal_bytes{}',
    ]) {
      assert.equal(ours.values.get(series), theirs.values.get(series), `${series} on ${arch()}`);
    }
  } finally {
    host.close();
    await exporter.stop();
  }
});
