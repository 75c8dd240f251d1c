// /sys/class/nvme/nvmeN: firmware_rev, model, serial, state, cntlid (the controller's number in its subsystem), and a folder
// for each namespace: nvmeNnM, or nvmeScNnM (S is the subsystem) where the kernel joins several ways to a disk (native multipath)
// and this is one of them. In it size (in sectors of 512 bytes), nuse (in blocks of the namespace; since Linux 6.8; the device is
// asked), queue/logical_block_size, and ana_state where the disk says which way is the best.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-nvme
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const nvme: CollectorRow = {
  name: 'nvme',
  enabled: 'by default',
  description: 'NVMe controllers and namespaces: model, firmware, state, sizes, from /sys/class/nvme',
  options: [],
  lane: 'slow',
  create: () => new Nvme(),
};

const info = gauge('node_nvme_info', 'Always 1; what the controller is, and its state, as labels.', {
  labels: ['device', 'firmware_revision', 'model', 'serial', 'state', 'cntlid'],
});
const namespaceInfo = gauge('node_nvme_namespace_info', 'Always 1; the label ana_state is how it is reached.', {
  labels: ['device', 'nsid', 'ana_state'],
});
const labels = ['device', 'nsid'];
// node_exporter counts the sectors of `size` as blocks of the namespace. Where those have 4096 bytes, it gives eight times the
// size; `nuse` is in such blocks.
const capacity = gauge(
  'node_nvme_namespace_capacity_bytes',
  "Size of a namespace as node_exporter gives it: the kernel's number of sectors times the size of a block.",
  { labels },
);
const size = gauge('node_nvme_namespace_size_bytes', 'The same as node_nvme_namespace_capacity_bytes.', { labels });
const used = gauge('node_nvme_namespace_used_bytes', 'How much of a namespace is used, in bytes.', { labels });
const blockSize = gauge('node_nvme_namespace_logical_block_size_bytes', 'Size of a block of a namespace, in bytes.', {
  labels,
});

const folder = 'sys/class/nvme';

class Nvme implements Collector {
  collect(host: Host, out: Samples): void {
    for (const device of host.devices(folder)) {
      const path = `${folder}/${device}`;
      const texts = [
        ...['firmware_rev', 'model', 'serial'].map((file) => host.rareText(`${path}/${file}`)),
        host.value(`${path}/state`, parseText),
        host.rareText(`${path}/cntlid`),
      ];
      // One that has gone since it was listed has nothing of all this.
      if (texts.some((text) => text !== undefined)) {
        out.sampleLabels(info, 1, [device, ...texts.map((text) => text ?? '')]);
      }
      for (const [id, namespace] of namespacesOf(host, path)) {
        collectNamespace(host, out, { device, id, path: `${path}/${namespace}` });
      }
    }
  }
}

/** Folders by what node_exporter calls their nsid, the last number. Of two with the same one, the way counts. */
function namespacesOf(host: Host, path: string): ReadonlyMap<string, string> {
  const namespaces = new Map<string, string>();
  for (const name of host.attributes(path)) {
    const { way, id } = /^nvme\d+(?<way>c\d+)?n(?<id>\d+)$/.exec(name)?.groups ?? {};
    if (id !== undefined && (way !== undefined || !namespaces.has(id))) namespaces.set(id, name);
  }
  return namespaces;
}

function collectNamespace(
  host: Host,
  out: Samples,
  { device, id, path }: { readonly device: string; readonly id: string; readonly path: string },
): void {
  const anaState = host.value(`${path}/ana_state`, parseText);
  const blockBytes = host.rareValue(`${path}/queue/logical_block_size`, parseNumber);
  const sectors = host.rareValue(`${path}/size`, parseNumber);
  // One that has gone since it was listed has nothing of all this.
  if (anaState === undefined && blockBytes === undefined && sectors === undefined) return;
  out.sampleLabels(namespaceInfo, 1, [device, id, anaState ?? 'unknown']);
  if (blockBytes === undefined) return;
  if (sectors !== undefined) {
    out.sample(capacity, sectors * blockBytes, device, id);
    out.sample(size, sectors * blockBytes, device, id);
  }
  const blocksUsed = host.value(`${path}/nuse`, parseNumber);
  if (blocksUsed !== undefined) out.sample(used, blocksUsed * blockBytes, device, id);
  out.sample(blockSize, blockBytes, device, id);
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}

function parseText(text: KernelText): string {
  return text.rest();
}
