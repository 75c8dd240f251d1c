// /sys/block/dm-N: dm/{name,uuid,suspended}, size in sectors of 512 bytes whatever the disk's own, and a link slaves/DISK for
// each path. A device of multipath has a UUID that begins with `mpath-`. /sys/block/DISK/device/state: `running`, `offline`
// and others of SCSI, `live`, `dead` and others of NVMe.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-block-dm
// https://docs.kernel.org/admin-guide/device-mapper/dm-init.html
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, LabelLists, type Samples } from './collector.ts';

export const dmmultipath: CollectorRow = {
  name: 'dmmultipath',
  enabled: 'by default',
  description: 'disks that are reached by several paths, and the state of each path, from /sys/block/dm-*',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new DmMultipath(),
};

const labels = ['device', 'sysfs_name'];
const info = gauge('node_dmmultipath_device_info', 'Always 1; names of a disk with several paths as labels.', {
  labels: [...labels, 'uuid'],
});
const active = gauge('node_dmmultipath_device_active', 'Whether the disk is not suspended: 1, or 0.', { labels });
const size = gauge('node_dmmultipath_device_size_bytes', 'Size of the disk, in bytes.', { labels });
const paths = gauge('node_dmmultipath_device_paths', 'Paths to the disk.', { labels });
const pathsActive = gauge('node_dmmultipath_device_paths_active', 'Paths to the disk that work.', { labels });
const pathsFailed = gauge('node_dmmultipath_device_paths_failed', 'Paths to the disk that do not work.', { labels });
const pathState = gauge('node_dmmultipath_path_state', 'Always 1; the state of a path as a label.', {
  labels: ['device', 'path', 'state'],
});

const folder = 'sys/block';
const sectorBytes = 512;
const working: ReadonlySet<string> = new Set(['running', 'live']);

class DmMultipath implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    const disks = host.devicesIfThere(folder, /^dm-\d+$/).flatMap((disk) => {
      const uuid = host.rareText(`${folder}/${disk}/dm/uuid`);
      return uuid?.startsWith('mpath-') === true ? [{ disk, uuid }] : [];
    });
    if (disks.length === 0) throw new NoDataError(host.path(folder), ' has no disk with several paths');
    for (const { disk, uuid } of disks) this.#collectDisk(host, out, disk, uuid);
    this.#labels.endCollection();
  }

  #collectDisk(host: Host, out: Samples, disk: string, uuid: string): void {
    const device = host.rareText(`${folder}/${disk}/dm/name`);
    if (device === undefined) return;
    out.sampleLabels(info, 1, this.#labels.of(device, disk, uuid));
    const suspended = host.value(`${folder}/${disk}/dm/suspended`, parseNumber);
    if (suspended !== undefined) out.sample(active, suspended === 0 ? 1 : 0, device, disk);
    const sectors = host.value(`${folder}/${disk}/size`, parseNumber);
    if (sectors !== undefined) out.sample(size, sectors * sectorBytes, device, disk);
    const names = host.attributesIfKnown(`${folder}/${disk}/slaves`);
    if (names === undefined) return;
    const states = names.map((path) => host.value(`${folder}/${path}/device/state`, parseText));
    for (const [at, state] of states.entries()) {
      if (state !== undefined) out.sampleLabels(pathState, 1, this.#labels.of(device, names[at]!, state));
    }
    out.sample(paths, names.length, device, disk);
    // A path whose state is not known is neither.
    if (states.includes(undefined)) return;
    const workingCount = states.filter((state) => working.has(state!)).length;
    out.sample(pathsActive, workingCount, device, disk);
    out.sample(pathsFailed, names.length - workingCount, device, disk);
  }
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}

function parseText(text: KernelText): string {
  return text.rest();
}
