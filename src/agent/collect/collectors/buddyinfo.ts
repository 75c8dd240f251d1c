// /proc/buddyinfo: a line a zone of memory, a column an order: how many blocks of 2^order pages are free.
//     Node 0, zone   Normal  13198  19387  12059   6797   6336   3315   1909    898    455    310   1248
// How many orders there are is a choice of the kernel's build: 11 by default.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#kernel-data
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const buddyinfo: CollectorRow = {
  name: 'buddyinfo',
  enabled: 'on request',
  description: 'free blocks of memory by size, from /proc/buddyinfo',
  options: [],
  create: () => new Buddyinfo(),
};

const blocks = gauge('node_buddyinfo_blocks', 'Free blocks of 2^size pages.', { labels: ['node', 'zone', 'size'] });

class Buddyinfo {
  /** By node and zone: the labels of each order. */
  readonly #labels = new Map<string, string[][]>();
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    host.read('proc/buddyinfo').eachLine('a zone', (line) => {
      if (!line.skip('Node ')) throw line.error('it does not begin with a node');
      const node = line.word('the node');
      const zone = line.skip(' zone') ? line.word('the zone') : undefined;
      if (!/^\d+,$/.test(node) || zone === undefined) throw line.error('it is not of a zone of a node');
      const count = line.unsigneds(this.#counts, orders);
      if (count === 0) throw line.error('it has no counts');
      const labels = this.#labelsOf(node.slice(0, -1), zone);
      for (let order = 0; order < count; order++) out.sampleLabels(blocks, this.#counts[order]!, labels[order]!);
      return true;
    });
  }

  #labelsOf(node: string, zone: string): string[][] {
    const key = `${node} ${zone}`;
    let labels = this.#labels.get(key);
    if (labels === undefined) {
      labels = orders.map((_, order) => [node, zone, String(order)]);
      this.#labels.set(key, labels);
    }
    return labels;
  }
}

// More than any kernel has: MAX_ORDER is at most 17, on arm64 with pages of 64 KiB.
const orders = Array.from({ length: 32 }, (_, order) => `the count of order ${order}`);
