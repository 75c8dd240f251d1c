// /proc/zoneinfo: a block a zone of memory, in pages; what is counted by node stands in the node's first zone that has
// memory.
//     Node 0, zone      DMA
//       per-node stats
//           nr_inactive_anon 37106
//       pages free     3840
//             min      19
//             protection: (0, 2946, 3922, 3922)
//           nr_free_pages 3840
//       pagesets
//         cpu: 0
//                   high:  0
// Until Linux 4.7 all counts were of the zone, and there was `scanned`.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/mm/vmstat.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, gauge, type SampledFamily, type Samples } from './collector.ts';

export const zoneinfo: CollectorRow = {
  name: 'zoneinfo',
  enabled: 'on request',
  description: 'pages of memory by zone, from /proc/zoneinfo',
  options: [],
  create: () => new Zoneinfo(),
};

const labels = ['node', 'zone'];
const fields: ReadonlyMap<string, SampledFamily> = new Map([
  pages('min', 'min_pages', 'Free pages below which only urgent requests are served.'),
  pages('low', 'low_pages', 'Free pages below which kswapd starts.'),
  pages('high', 'high_pages', 'Free pages at which kswapd stops.'),
  pages('scanned', 'scanned_pages', 'Pages that were scanned since the last reclaim.'),
  pages('spanned', 'spanned_pages', 'Pages from the first to the last of the zone, holes included.'),
  pages('present', 'present_pages', 'Pages that exist in the zone.'),
  pages('managed', 'managed_pages', 'Present pages that the allocator manages.'),
  pages('nr_free_pages', 'nr_free_pages', 'Free pages.'),
  pages('nr_active_anon', 'nr_active_anon_pages', 'Anonymous pages that were used recently.'),
  pages('nr_inactive_anon', 'nr_inactive_anon_pages', 'Anonymous pages that were not used recently.'),
  pages('nr_isolated_anon', 'nr_isolated_anon_pages', 'Anonymous pages that are taken off their list for reclaim.'),
  pages('nr_anon_pages', 'nr_anon_pages', 'Anonymous pages that are mapped.'),
  pages(
    'nr_anon_transparent_hugepages',
    'nr_anon_transparent_hugepages',
    'Transparent huge pages of anonymous memory.',
  ),
  pages('nr_active_file', 'nr_active_file_pages', 'Pages of files that were used recently.'),
  pages('nr_inactive_file', 'nr_inactive_file_pages', 'Pages of files that were not used recently.'),
  pages('nr_isolated_file', 'nr_isolated_file_pages', 'Pages of files that are taken off their list for reclaim.'),
  pages('nr_file_pages', 'nr_file_pages', 'Pages of the page cache.'),
  pages('nr_slab_reclaimable', 'nr_slab_reclaimable_pages', 'Slab pages that can be reclaimed.'),
  pages('nr_slab_unreclaimable', 'nr_slab_unreclaimable_pages', 'Slab pages that cannot be reclaimed.'),
  pages('nr_mlock_stack', 'nr_mlock_stack_pages', 'Locked pages that were found while scanning.'),
  pages('nr_kernel_stack', 'nr_kernel_stacks', 'Memory of kernel stacks: a number of stacks, since Linux 4.8 in KiB.'),
  pages('nr_mapped', 'nr_mapped_pages', 'Pages of files that are mapped.'),
  pages('nr_dirty', 'nr_dirty_pages', 'Pages that are to be written.'),
  pages('nr_writeback', 'nr_writeback_pages', 'Pages that are being written.'),
  pages('nr_unevictable', 'nr_unevictable_pages', 'Pages that cannot be evicted.'),
  pages('nr_shmem', 'nr_shmem_pages', 'Pages of shared memory and tmpfs.'),
  since('nr_dirtied', 'nr_dirtied_total', 'Pages that became dirty.'),
  since('nr_written', 'nr_written_total', 'Pages that were written.'),
  since('numa_hit', 'numa_hit_total', 'Pages that were taken from the node that was meant.'),
  since('numa_miss', 'numa_miss_total', 'Pages that were taken from here because the node that was meant had none.'),
  since('numa_foreign', 'numa_foreign_total', 'Pages that were meant to come from here and came from elsewhere.'),
  since('numa_interleave', 'numa_interleave_total', 'Pages that interleaving took from here.'),
  since('numa_local', 'numa_local_total', 'Pages that a process on this node got.'),
  since('numa_other', 'numa_other_total', 'Pages that a process on another node got.'),
]);

function pages(field: string, name: string, help: string): [field: string, SampledFamily] {
  return [field, gauge(`node_zoneinfo_${name}`, help, { labels })];
}

function since(field: string, name: string, help: string): [field: string, SampledFamily] {
  return [field, counter(`node_zoneinfo_${name}`, help, { labels })];
}

/** By the zone that asks. There are as many as the kernel has zones, six at the most. */
const protections: readonly SampledFamily[] = Array.from({ length: 8 }, (_, zone) =>
  gauge(`node_zoneinfo_protection_${zone}`, `Pages that are kept from requests that could use zone ${zone}.`, {
    labels,
  }),
);

interface Zone {
  readonly node: string;
  readonly name: string;
}

/** Which zone the lines are of. `unknown`: its own line could not be read, so they cannot be used. */
type Block = { readonly kind: 'none' } | { readonly kind: 'unknown' } | { readonly kind: 'zone'; readonly zone: Zone };

class Zoneinfo implements Collector {
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    let block: Block = { kind: 'none' };
    host.read('proc/zoneinfo').eachLine('a known count of a zone', (line) => {
      if (line.skip('Node')) {
        // If the next line throws, it stays so.
        block = { kind: 'unknown' };
        block = { kind: 'zone', zone: readZone(line) };
        return false;
      }
      if (line.skip('protection:')) {
        const count = line.unsignedsInParentheses(this.#counts, 'the protection');
        if (block.kind === 'none') throw line.error('it is of no zone');
        if (block.kind === 'unknown') return true;
        this.#giveProtection(out, block.zone, Math.min(count, protections.length));
        return true;
      }
      const name = line.word('the name of a count');
      const family = fields.get(name);
      if (family === undefined) return false;
      const count = line.unsigned(name);
      if (block.kind === 'none') throw line.error('it is of no zone');
      if (block.kind === 'zone') out.sample(family, count, block.zone.node, block.zone.name);
      return true;
    });
  }

  #giveProtection(out: Samples, { node, name }: Zone, count: number): void {
    for (let at = 0; at < count; at++) out.sample(protections[at]!, this.#counts[at]!, node, name);
  }
}

/** What follows `Node`: ` 0, zone      DMA`. */
function readZone(line: KernelText): Zone {
  const node = line.word('the node');
  if (!/^\d+,$/.test(node) || !line.skip(' zone')) throw line.error('it is not of a zone of a node');
  return { node: node.slice(0, -1), name: line.word('the zone') };
}
