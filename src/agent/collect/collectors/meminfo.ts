// /proc/meminfo: `MemTotal:       24683656 kB`, a line a field; counts of huge pages have no unit.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#meminfo
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';

export const meminfo: CollectorRow = {
  name: 'meminfo',
  enabled: 'by default',
  description: 'memory, from /proc/meminfo',
  options: [],
  create: () => ({ collect }),
};

// A field that a kernel does not have (MemAvailable before 3.14, Percpu before 4.19, Zswap before 5.19) gives no series.
// Those of newer kernels that are not here (KReclaimable, FileHugePages, Balloon) node_exporter has not either.
const kilobyteFields = [
  'Active',
  'Active(anon)',
  'Active(file)',
  'AnonHugePages',
  'AnonPages',
  'Bounce',
  'Buffers',
  'Cached',
  'CmaFree',
  'CmaTotal',
  'CommitLimit',
  'Committed_AS',
  'DirectMap1G',
  'DirectMap2M',
  'DirectMap4k',
  'Dirty',
  'HardwareCorrupted',
  'Hugepagesize',
  'Inactive',
  'Inactive(anon)',
  'Inactive(file)',
  'KernelStack',
  'Mapped',
  'MemAvailable',
  'MemFree',
  'MemTotal',
  'Mlocked',
  'NFS_Unstable',
  'PageTables',
  'Percpu',
  'SReclaimable',
  'SUnreclaim',
  'Shmem',
  'ShmemHugePages',
  'ShmemPmdMapped',
  'Slab',
  'SwapCached',
  'SwapFree',
  'SwapTotal',
  'Unevictable',
  'VmallocChunk',
  'VmallocTotal',
  'VmallocUsed',
  'Writeback',
  'WritebackTmp',
  'Zswap',
  'Zswapped',
] as const;
const countFields = ['HugePages_Free', 'HugePages_Rsvd', 'HugePages_Surp', 'HugePages_Total'] as const;

interface Field {
  readonly family: SampledFamily;
  readonly isInKilobytes: boolean;
}

const fields: ReadonlyMap<string, Field> = new Map<string, Field>([
  ...kilobyteFields.map((field) => {
    // `Active(anon)` is `node_memory_Active_anon_bytes`.
    const name = `node_memory_${field.replace('(', '_').replace(')', '')}_bytes`;
    const family = gauge(name, `${field} of /proc/meminfo, in bytes.`);
    return [field, { family, isInKilobytes: true }] as const;
  }),
  ...countFields.map((field) => {
    const family = gauge(`node_memory_${field}`, `${field} of /proc/meminfo, a number of pages.`);
    return [field, { family, isInKilobytes: false }] as const;
  }),
]);

function collect(host: Host, out: Samples): void {
  host.read('proc/meminfo').eachLine('a known field', (line) => {
    const name = line.key('the name of a field');
    const field = fields.get(name);
    if (field === undefined) return false;
    const count = line.unsigned(name);
    if (field.isInKilobytes && !line.skip(' kB')) throw line.error(`${name} is not in kB`);
    out.sample(field.family, field.isInKilobytes ? count * 1024 : count);
    return true;
  });
}
