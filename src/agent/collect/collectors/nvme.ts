// /sys/class/nvme/nvmeN: firmware_rev, model, serial, state, cntlid (the controller's number in its subsystem), and a folder
// nvmeNnM for each namespace that it has alone: size (in sectors of 512 bytes), nuse (in blocks of the namespace; since
// Linux 6.8; the device is asked), queue/logical_block_size, and ana_state where there are several ways to it.
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
      const firmware = host.rareText(`${path}/firmware_rev`) ?? '';
      const model = host.rareText(`${path}/model`) ?? '';
      const serial = host.rareText(`${path}/serial`) ?? '';
      const state = host.value(`${path}/state`, parseText) ?? '';
      const controller = host.rareText(`${path}/cntlid`) ?? '';
      out.sampleLabels(info, 1, [device, firmware, model, serial, state, controller]);
      for (const namespace of host.attributes(path)) {
        if (/^nvme\d+n\d+$/.test(namespace)) collectNamespace(host, out, { device, namespace });
      }
    }
  }
}

function collectNamespace(
  host: Host,
  out: Samples,
  { device, namespace }: { readonly device: string; readonly namespace: string },
): void {
  const path = `${folder}/${device}/${namespace}`;
  const id = namespace.slice(namespace.lastIndexOf('n') + 1);
  out.sampleLabels(namespaceInfo, 1, [device, id, host.value(`${path}/ana_state`, parseText) ?? 'unknown']);
  const blockBytes = host.rareValue(`${path}/queue/logical_block_size`, parseNumber);
  if (blockBytes === undefined) return;
  const sectors = host.rareValue(`${path}/size`, parseNumber);
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
