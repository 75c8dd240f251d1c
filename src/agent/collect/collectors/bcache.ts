// /sys/fs/bcache/UUID: a cache set, with a folder for each backing device (bdev0) and cache device (cache0), and a file a
// number. Sizes are in units: `1.5k`.
// https://www.kernel.org/doc/html/latest/admin-guide/bcache.html
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-block-bcache
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  type FamilyOptions,
  gauge,
  type SampledFamily,
  type Samples,
  switchOption,
} from './collector.ts';

const priorityStats = switchOption(
  'bcache.priorityStats',
  'false',
  'Collect how the buckets of each cache device are used: the kernel has to sort all of them.',
);

export const bcache: CollectorRow = {
  name: 'bcache',
  enabled: 'by default',
  description: 'block caches, from /sys/fs/bcache',
  options: [priorityStats],
  lane: 'slow',
  create: (context) => new Bcache(context.option(priorityStats)),
};

type File = readonly [file: string, SampledFamily];

function now(file: string, name: string, help: string, options?: FamilyOptions): File {
  return [file, gauge(`node_bcache_${name}`, help, { labels: ['uuid'], ...options })];
}

const setFiles: readonly File[] = [
  now('average_key_size', 'average_key_size_sectors', 'Average size of data behind a key of the tree, in sectors.'),
  now('btree_cache_size', 'btree_cache_size_bytes', 'Memory of the cache of the tree, in bytes.'),
  now('cache_available_percent', 'cache_available_percent', 'Part of the cache that is not dirty, in percent.'),
  now('congested', 'congested', 'Whether the cache is congested: 1, or 0.'),
  now('root_usage_percent', 'root_usage_percent', 'How full the root of the tree is, in percent.'),
  now('tree_depth', 'tree_depth', 'Depth of the tree.'),
  now(
    'internal/active_journal_entries',
    'active_journal_entries',
    'Entries of the journal that are newer than the tree.',
  ),
  now('internal/btree_nodes', 'btree_nodes', 'Nodes of the tree.'),
  // node_exporter takes the number for nanoseconds, and dashboards were built on that.
  now(
    'internal/btree_read_average_duration_us',
    'btree_read_average_duration_seconds',
    'Average time to read a node of the tree, in seconds.',
    { divisor: 1_000_000_000 },
  ),
  [
    'internal/cache_read_races',
    counter('node_bcache_cache_read_races_total', 'Reads from a bucket that was used for something else meanwhile.', {
      labels: ['uuid'],
    }),
  ],
];

const backingLabels = ['uuid', 'backing_device'];
const dirtyData: File = [
  'dirty_data',
  ofBacking('dirty_data_bytes', 'Data of a backing device that are only in the cache, in bytes.'),
];
const totalFiles: readonly File[] = [
  total('bypassed', 'bypassed_bytes_total', 'Bytes that bypassed the cache.'),
  total('cache_hits', 'cache_hits_total', 'Reads and writes that the cache had.'),
  total('cache_misses', 'cache_misses_total', 'Reads and writes that the cache did not have.'),
  total(
    'cache_bypass_hits',
    'cache_bypass_hits_total',
    'Reads and writes that were to bypass the cache, which had them.',
  ),
  total('cache_bypass_misses', 'cache_bypass_misses_total', 'Reads and writes that were to bypass the cache, and did.'),
  total(
    'cache_miss_collisions',
    'cache_miss_collisions_total',
    'Misses whose data somebody else had put into the cache meanwhile.',
  ),
  total('cache_readaheads', 'cache_readaheads_total', 'Reads ahead.'),
];
const writeback: ReadonlyMap<string, { readonly family: SampledFamily; readonly after: string }> = new Map([
  rate('rate:', 'writeback_rate', 'Bytes a second that are written back.', '/sec'),
  rate('target:', 'dirty_target_bytes', 'Dirty data at which writing back aims, in bytes.', ''),
  rate(
    'proportional:',
    'writeback_rate_proportional_term',
    'Part of the rate of writing back for what is dirty now.',
    '',
  ),
  rate('integral:', 'writeback_rate_integral_term', 'Part of the rate of writing back for what has been dirty.', ''),
  rate('change:', 'writeback_change', 'Change of the rate of writing back.', '/sec'),
]);

function ofBacking(name: string, help: string): SampledFamily {
  return gauge(`node_bcache_${name}`, help, { labels: backingLabels });
}

function total(file: string, name: string, help: string): File {
  return [`stats_total/${file}`, counter(`node_bcache_${name}`, help, { labels: backingLabels })];
}

function rate(key: string, name: string, help: string, after: string) {
  return [key, { family: ofBacking(name, help), after }] as const;
}

const cacheLabels = ['uuid', 'cache_device'];
const cacheFiles: readonly File[] = [
  ['io_errors', gauge('node_bcache_io_errors', 'Errors of a cache device, which decay.', { labels: cacheLabels })],
  [
    'metadata_written',
    counter('node_bcache_metadata_written_bytes_total', 'Bytes of the tree and the journal that were written.', {
      labels: cacheLabels,
    }),
  ],
  [
    'written',
    counter('node_bcache_written_bytes_total', 'Bytes that were written to a cache device.', { labels: cacheLabels }),
  ],
];
const percents: ReadonlyMap<string, SampledFamily> = new Map([
  [
    'Unused:',
    gauge('node_bcache_priority_stats_unused_percent', 'Part of a cache device that has no data, in percent.', {
      labels: cacheLabels,
    }),
  ],
  [
    'Metadata:',
    gauge('node_bcache_priority_stats_metadata_percent', 'Part of a cache device that is metadata, in percent.', {
      labels: cacheLabels,
    }),
  ],
]);

class Bcache implements Collector {
  readonly #hasPriorityStats: boolean;

  constructor(hasPriorityStats: boolean) {
    this.#hasPriorityStats = hasPriorityStats;
  }

  collect(host: Host, out: Samples): void {
    for (const uuid of host.devices('sys/fs/bcache', /-/)) {
      const set = `sys/fs/bcache/${uuid}`;
      for (const file of setFiles) giveSize(host, out, set, file, uuid);
      for (const device of host.attributes(set)) {
        if (/^bdev\d+$/.test(device)) this.#collectBacking(host, out, uuid, device);
        if (/^cache\d+$/.test(device)) this.#collectCache(host, out, uuid, device);
      }
    }
  }

  #collectBacking(host: Host, out: Samples, uuid: string, device: string): void {
    const folder = `sys/fs/bcache/${uuid}/${device}`;
    giveSize(host, out, folder, dirtyData, uuid, device);
    for (const file of totalFiles) giveSize(host, out, folder, file, uuid, device);
    host.part(`${folder}/writeback_rate_debug`, (text) => {
      text.eachLine('the rate of writing back', (line) => {
        const key = line.word('the name');
        const known = writeback.get(key);
        if (known === undefined) return false;
        const bytes = line.humanSize(key.slice(0, -1), { after: known.after, fraction: binaryDigit });
        out.sample(known.family, bytes, uuid, device);
        return true;
      });
    });
  }

  #collectCache(host: Host, out: Samples, uuid: string, device: string): void {
    const folder = `sys/fs/bcache/${uuid}/${device}`;
    for (const file of cacheFiles) giveSize(host, out, folder, file, uuid, device);
    if (!this.#hasPriorityStats) return;
    host.part(`${folder}/priority_stats`, (text) => {
      text.eachLine('the use of buckets', (line) => {
        const key = line.word('the name');
        const family = percents.get(key);
        if (family === undefined) return false;
        const percent = line.humanSize(key.slice(0, -1), { after: '%' });
        out.sample(family, percent, uuid, device);
        return true;
      });
    });
  }
}

function giveSize(
  host: Host,
  out: Samples,
  folder: string,
  [file, family]: File,
  label1: string,
  label2?: string,
): void {
  const bytes = host.value(`${folder}/${file}`, parseSize);
  if (bytes !== undefined) out.sample(family, bytes, label1, label2);
}

function parseSize(line: KernelText): number {
  return line.humanSize('the value', { fraction: binaryDigit });
}

/**
 * Until Linux 4.14 the kernel printed a hundredth of the 1024 parts here: `1.10k` is nearly 2k. node_exporter takes all
 * kernels so, also the newer ones, which print a tenth: 2 % of the unit too little at the most.
 */
function binaryDigit(digits: string): number {
  return Number(digits) / 10.24;
}
