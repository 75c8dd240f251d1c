// /sys/fs/xfs/DEVICE/stats/stats: a line a subject, its counts in columns. Since Linux 4.4.
//     extent_alloc 92447 97589 92448 93751
//     abt 0 0 0 0
// https://www.kernel.org/doc/html/latest/admin-guide/xfs.html
// What the columns are: https://xfs.org/index.php/Runtime_Stats
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, counter, type SampledFamily, type Samples } from './collector.ts';

export const xfs: CollectorRow = {
  name: 'xfs',
  enabled: 'by default',
  description: 'what each XFS file system does, from /sys/fs/xfs',
  options: [],
  create: () => ({ collect }),
};

function families(prefix: string, columns: readonly (readonly [name: string, help: string])[]): SampledFamily[] {
  return columns.map(([name, help]) => counter(`node_xfs_${prefix}${name}_total`, help, { labels: ['device'] }));
}

const btree = (what: string) =>
  [
    ['lookups', `Lookups in the tree of ${what}.`],
    ['compares', `Comparisons in the tree of ${what}.`],
    ['records_inserted', `Records that were inserted into the tree of ${what}.`],
    ['records_deleted', `Records that were deleted from the tree of ${what}.`],
  ] as const;

interface Subject {
  readonly prefix: string;
  readonly columns: readonly string[];
  readonly families: readonly SampledFamily[];
}

function subject(name: string, of: readonly SampledFamily[]): Subject {
  return { prefix: `${name} `, columns: of.map((_, at) => `column ${at + 1} of ${name}`), families: of };
}

// Of the kernel's some 25 lines those that node_exporter gives.
const subjects: readonly Subject[] = [
  subject(
    'extent_alloc',
    families('extent_allocation_', [
      ['extents_allocated', 'Extents that were allocated.'],
      ['blocks_allocated', 'Blocks that were allocated.'],
      ['extents_freed', 'Extents that were freed.'],
      ['blocks_freed', 'Blocks that were freed.'],
    ]),
  ),
  subject('abt', families('allocation_btree_', btree('free space'))),
  subject(
    'blk_map',
    families('block_mapping_', [
      ['reads', 'Blocks of a file that were looked up to be read.'],
      ['writes', 'Blocks of a file that were looked up to be written.'],
      ['unmaps', 'Blocks of a file that were given up.'],
      ['extent_list_insertions', 'Extents that were added to the list of a file.'],
      ['extent_list_deletions', 'Extents that were removed from the list of a file.'],
      ['extent_list_lookups', 'Lookups in the list of extents of a file.'],
      ['extent_list_compares', 'Comparisons in the list of extents of a file.'],
    ]),
  ),
  subject('bmbt', families('block_map_btree_', btree('the blocks of files'))),
  subject(
    'dir',
    families('directory_operation_', [
      ['lookup', 'Names that were looked up in folders.'],
      ['create', 'Names that were added to folders.'],
      ['remove', 'Names that were removed from folders.'],
      ['getdents', 'Folders that were listed.'],
    ]),
  ),
  subject(
    'ig',
    families('inode_operation_', [
      ['attempts', 'Inodes that were looked up in the cache.'],
      ['found', 'Inodes that the cache had.'],
      ['recycled', 'Inodes that the cache was about to give up and had.'],
      ['missed', 'Inodes that the cache did not have.'],
      ['duplicates', 'Inodes that somebody else put into the cache meanwhile.'],
      ['reclaims', 'Inodes that were removed from the cache to be used again.'],
      ['attribute_changes', 'Changes of the attributes of inodes.'],
    ]),
  ),
  subject(
    'rw',
    families('', [
      ['write_calls', 'Calls of write().'],
      ['read_calls', 'Calls of read().'],
    ]),
  ),
  subject(
    'vnodes',
    families('vnode_', [
      ['active', 'Vnodes that are on no free list.'],
      ['allocate', 'Calls of vn_alloc().'],
      ['get', 'Calls of vn_get().'],
      ['hold', 'Calls of vn_hold().'],
      ['release', 'Calls of vn_rele().'],
      ['reclaim', 'Calls of vn_reclaim().'],
      ['remove', 'Calls of vn_remove().'],
    ]),
  ),
];

const counts: number[] = [];
// `stats` is the sum of all.
const device = /^(?!stats$|error$|debug$)/;

function collect(host: Host, out: Samples): void {
  const names = host.devices('sys/fs/xfs', device);
  const paths = names.map((name) => `sys/fs/xfs/${name}/stats/stats`);
  host.readEach(paths, (text, at) => readStats(text, out, names[at]!));
}

function readStats(text: KernelText, out: Samples, name: string): void {
  text.eachLine('a known subject', (line) => {
    for (const { prefix, columns, families: wanted } of subjects) {
      if (!line.skip(prefix)) continue;
      const found = line.unsigneds(counts, columns);
      if (found < columns.length) throw line.error(`${prefix}has ${found} columns, expected ${columns.length}`);
      for (let at = 0; at < found; at++) out.sample(wanted[at]!, counts[at]!, name);
      return true;
    }
    return false;
  });
}
