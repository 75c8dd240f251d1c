import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { makeTree } from '../../../support/fixture-proc.ts';
import { parseMetrics } from '../../../support/node-exporter.ts';

test('lines that move, come, go, or cannot be parsed are seen at the next collection', () => {
  const tree = makeTree([]);
  const host = new Host(tree.roots);
  const vmstat = new OneCollector(newCollector('vmstat'));
  const collect = (content: string) => {
    tree.write('proc/vmstat', content);
    return Object.fromEntries(parseMetrics(expositionOf(vmstat.collect(host))).values);
  };
  try {
    assert.deepEqual(collect('nr_free_pages 9\npgpgin 1\npgfault 2\n'), {
      'node_vmstat_pgpgin{}': 1,
      'node_vmstat_pgfault{}': 2,
    });
    assert.deepEqual(collect('pgpgin 3\nnr_free_pages 9\npgfault 4\n'), {
      'node_vmstat_pgpgin{}': 3,
      'node_vmstat_pgfault{}': 4,
    });
    assert.deepEqual(collect('pgfault 5\npgpgin 6\n'), { 'node_vmstat_pgpgin{}': 6, 'node_vmstat_pgfault{}': 5 });
    assert.deepEqual(collect('pgfault 7\n'), { 'node_vmstat_pgfault{}': 7 });
    assert.deepEqual(host.takeErrors(), []);
    assert.deepEqual(collect('pgfault x\npgpgin 8\n'), { 'node_vmstat_pgpgin{}': 8 });
    assert.equal(host.takeErrors().length, 1);
    assert.throws(() => collect('nr_free_pages 9\n'), /has no line of a field/);
    assert.deepEqual(collect('pgfault 10\npgpgin 18446744073709551615\n'), {
      'node_vmstat_pgfault{}': 10,
      'node_vmstat_pgpgin{}': 2 ** 64,
    });
  } finally {
    host.close();
    tree.remove();
  }
});
