// /sys/fs/btrfs/UUID: a file system: its label, devices, and what is allocated, by kind (data, metadata, system) and profile
// (single, raid1). commit_stats came with Linux 6.0: `commits 258`, a line a number.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-fs-btrfs
// https://btrfs.readthedocs.io/en/latest/btrfs-man5.html#sysfs-interface
// What of each device is unused, and its errors by its UUID, only ioctl says.
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
} from './collector.ts';

export const btrfs: CollectorRow = {
  name: 'btrfs',
  enabled: 'by default',
  successWithoutData: 1,
  description: 'Btrfs file systems: what is allocated and used, commits, devices, from /sys/fs/btrfs',
  options: [],
  lane: 'slow',
  missing: [
    {
      families: ['node_btrfs_device_errors_total', 'node_btrfs_device_unused_bytes'],
      reason: 'only an ioctl on the mounted file system says them, which needs native code and privileges',
    },
  ],
  create: () => new Btrfs(),
};

const labels = ['uuid'];
const info = gauge('node_btrfs_info', 'A Btrfs file system: 1.', { labels: ['uuid', 'label'] });
const reserve = gauge('node_btrfs_global_rsv_size_bytes', 'Size of the global reserve, in bytes.', { labels });
const deviceSize = gauge('node_btrfs_device_size_bytes', 'Size of a device of the file system, in bytes.', {
  labels: ['uuid', 'device'],
});
const reserved = gauge('node_btrfs_reserved_bytes', 'Bytes that are reserved for a kind of data.', {
  labels: ['uuid', 'block_group_type'],
});
const profileLabels = ['uuid', 'block_group_type', 'mode'];
const used = gauge('node_btrfs_used_bytes', 'Bytes of a kind of data that are used.', { labels: profileLabels });
const size = gauge('node_btrfs_size_bytes', 'Bytes that are allocated to a kind of data.', { labels: profileLabels });
const ratio = gauge('node_btrfs_allocation_ratio', 'How often a kind of data is stored.', { labels: profileLabels });
const commits: ReadonlyMap<string, SampledFamily> = new Map([
  ['commits', counter('node_btrfs_commits_total', 'Commits.', { labels })],
  [
    'last_commit_ms',
    gauge('node_btrfs_last_commit_seconds', 'How long the last commit took, in seconds.', { labels, divisor: 1000 }),
  ],
  [
    'max_commit_ms',
    gauge('node_btrfs_max_commit_seconds', 'How long the slowest commit took, in seconds.', { labels, divisor: 1000 }),
  ],
  [
    'total_commit_ms',
    counter('node_btrfs_commit_seconds_total', 'How long all commits took, in seconds.', { labels, divisor: 1000 }),
  ],
]);
const kinds = ['data', 'metadata', 'system'] as const;
// The kernel counts a device's size in sectors of this size, whatever its own.
const sectorBytes = 512;

class Btrfs implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    for (const name of host.devices('sys/fs/btrfs', /-/)) {
      const folder = `sys/fs/btrfs/${name}`;
      // Since Linux 4.20 the UUID of a file system may differ from that of its metadata, by which it is known.
      const uuid = host.rareText(`${folder}/metadata_uuid`) || name;
      this.#collectOne(host, out, folder, uuid);
    }
    this.#labels.endCollection();
  }

  #collectOne(host: Host, out: Samples, folder: string, uuid: string): void {
    // Without a label the file is empty.
    const label = host.rareText(`${folder}/label`, '');
    if (label !== undefined) out.sample(info, 1, uuid, label);
    const reserveBytes = host.value(`${folder}/allocation/global_rsv_size`, parseNumber);
    if (reserveBytes !== undefined) out.sample(reserve, reserveBytes, uuid);
    host.part(`${folder}/commit_stats`, (text) => {
      text.eachLine('a known number of commits', (line) => {
        const key = line.word('the name');
        const family = commits.get(key);
        if (family === undefined) return false;
        const number = line.unsigned(key);
        out.sample(family, number, uuid);
        return true;
      });
    });
    const devices = host.attributes(`${folder}/devices`);
    for (const device of devices) {
      const sectors = host.rareValue(`${folder}/devices/${device}/size`, parseNumber);
      if (sectors !== undefined) out.sample(deviceSize, sectors * sectorBytes, uuid, device);
    }
    for (const kind of kinds) this.#collectKind(host, out, { folder, uuid, kind, deviceCount: devices.length });
  }

  #collectKind(
    host: Host,
    out: Samples,
    of: { readonly folder: string; readonly uuid: string; readonly kind: string; readonly deviceCount: number },
  ): void {
    const { uuid, kind, deviceCount } = of;
    const folder = `${of.folder}/allocation/${kind}`;
    const reservedBytes = host.value(`${folder}/bytes_reserved`, parseNumber);
    if (reservedBytes !== undefined) out.sample(reserved, reservedBytes, uuid, kind);
    for (const mode of host.attributes(folder, profile)) {
      const labelValues = this.#labels.of(uuid, kind, mode);
      const usedBytes = host.value(`${folder}/${mode}/used_bytes`, parseNumber);
      if (usedBytes !== undefined) out.sampleLabels(used, usedBytes, labelValues);
      const totalBytes = host.value(`${folder}/${mode}/total_bytes`, parseNumber);
      if (totalBytes !== undefined) out.sampleLabels(size, totalBytes, labelValues);
      const times = ratioOf(mode, deviceCount);
      if (totalBytes !== undefined && times !== undefined) {
        out.sampleLabels(ratio, times, labelValues);
      }
    }
  }
}

const profile = /^(single|dup|raid(0|1|10|1c3|1c4|5|6))$/;

/** How often a byte is stored; of the raids with parity that depends on the number of devices. */
function ratioOf(mode: string, deviceCount: number): number | undefined {
  switch (mode) {
    case 'dup':
    case 'raid1':
    case 'raid10':
      return 2;
    case 'raid1c3':
      return 3;
    case 'raid1c4':
      return 4;
    case 'raid5':
      return deviceCount > 1 ? deviceCount / (deviceCount - 1) : undefined;
    case 'raid6':
      return deviceCount > 2 ? deviceCount / (deviceCount - 2) : undefined;
    default:
      return 1;
  }
}

function parseNumber(line: KernelText): number {
  return line.unsigned('the value');
}
