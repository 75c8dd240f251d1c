// /sys/kernel/mm/ksm: a file a number of kernel samepage merging, which looks for equal pages of memory.
// https://www.kernel.org/doc/html/latest/admin-guide/mm/ksm.html
// general_profit came with Linux 6.1, and may be negative.

import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, counter, gauge, type SampledFamily, type Samples } from './collector.ts';

export const ksmd: CollectorRow = {
  name: 'ksmd',
  enabled: 'on request',
  description: 'merging of equal pages of memory, from /sys/kernel/mm/ksm',
  options: [],
  create: () => ({ collect }),
};

const folder = 'sys/kernel/mm/ksm';
const files: readonly (readonly [path: string, SampledFamily])[] = [
  file('full_scans', counter('node_ksmd_full_scans_total', 'How often all memory that may be merged was scanned.')),
  file(
    'general_profit',
    gauge('node_ksmd_general_profit_bytes', 'Memory that merging saves, less what it costs, in bytes.'),
  ),
  file(
    'merge_across_nodes',
    gauge('node_ksmd_merge_across_nodes', 'Whether pages of different NUMA nodes are merged.'),
  ),
  file('pages_shared', gauge('node_ksmd_pages_shared', 'Merged pages that are in use.')),
  file(
    'pages_sharing',
    gauge('node_ksmd_pages_sharing', 'Pages that merging saves: uses of merged pages beyond the first.'),
  ),
  file('pages_to_scan', gauge('node_ksmd_pages_to_scan', 'Pages that are scanned before ksmd sleeps.')),
  file(
    'pages_unshared',
    gauge('node_ksmd_pages_unshared', 'Pages that are checked again and again, and have no equal.'),
  ),
  file('pages_volatile', gauge('node_ksmd_pages_volatile', 'Pages that change too fast to be merged.')),
  file('run', gauge('node_ksmd_run', 'Whether ksmd runs: 0 stopped, 1 running, 2 stopped and all pages unmerged.')),
  file(
    'sleep_millisecs',
    gauge('node_ksmd_sleep_seconds', 'How long ksmd sleeps between scans, in seconds.', { divisor: 1000 }),
  ),
];

function file(name: string, family: SampledFamily): readonly [path: string, SampledFamily] {
  return [`${folder}/${name}`, family];
}

function collect(host: Host, out: Samples): void {
  if (!host.exists(folder)) throw new NoDataError(host.path(folder), ' does not exist');
  for (const [path, family] of files) {
    const number = host.value(path, parseNumber);
    if (number !== undefined) out.sample(family, number);
  }
}

function parseNumber(text: KernelText): number {
  return text.signed('the value');
}
