import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { makeTree } from '../../../support/fixture-proc.ts';
import { parseMetrics } from '../../../support/node-exporter.ts';

const headings = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
`;

function devices(...names: readonly string[]): string {
  return headings + names.map((name) => `  ${name}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n`).join('');
}

test('a device that is gone is forgotten: one of the same name is another device', () => {
  const tree = makeTree([]);
  const host = new Host(tree.roots);
  const netdev = new OneCollector(newCollector('netdev'));
  const collect = (...names: readonly string[]) => {
    tree.write('proc/net/dev', devices(...names));
    return parseMetrics(expositionOf(netdev.collect(host))).values;
  };
  const noHandler = (name: string) => `node_network_receive_nohandler_total{device="${name}"}`;
  try {
    assert.equal(collect('lo', 'eth0').get(noHandler('eth0')), undefined);
    // Looked for once, when a device is new: on a host of many devices without such a file it would be felt.
    tree.write('sys/class/net/eth0/statistics/rx_nohandler', '3\n');
    assert.equal(collect('lo', 'eth0').get(noHandler('eth0')), undefined);
    assert.equal(collect('lo').size, 16);
    assert.equal(collect('lo', 'eth0').get(noHandler('eth0')), 3);
    tree.delete('sys/class/net/eth0');
    assert.equal(collect('lo', 'eth0').get(noHandler('eth0')), 3, 'its file is still open');
    collect('lo');
    assert.equal(collect('lo', 'eth0').get(noHandler('eth0')), undefined);
  } finally {
    host.close();
    tree.remove();
  }
});
