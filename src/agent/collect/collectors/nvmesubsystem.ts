// /sys/class/nvme-subsystem/nvme-subsysN: subsysnqn, model, serial, and with multipath iopolicy (`numa`, `round-robin`); a
// link nvmeM for each controller, which is a path to it, with state (`live`, `connecting`, `deleting (no IO)`) and transport
// (`pcie`, `tcp`, `fc`, `rdma`); a folder nvmeMnK for each namespace.
// https://www.kernel.org/doc/html/latest/admin-guide/nvme-multipath.html
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-nvme
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, LabelLists, type Samples } from './collector.ts';

export const nvmesubsystem: CollectorRow = {
  name: 'nvmesubsystem',
  enabled: 'on request',
  description: 'NVMe subsystems, and the state of each path to them, from /sys/class/nvme-subsystem',
  options: [],
  lane: 'slow',
  create: () => new NvmeSubsystem(),
};

const info = gauge('node_nvmesubsystem_info', 'Always 1; name, model and policy of an NVMe subsystem as labels.', {
  labels: ['subsystem', 'nqn', 'model', 'serial', 'iopolicy'],
});
const namespaceInfo = gauge('node_nvmesubsystem_namespace_info', 'Always 1, for each disk of an NVMe subsystem.', {
  labels: ['subsystem', 'device'],
});
const paths = gauge('node_nvmesubsystem_paths', 'Paths to an NVMe subsystem.', { labels: ['subsystem'] });
const pathsLive = gauge('node_nvmesubsystem_paths_live', 'Paths to an NVMe subsystem that work.', {
  labels: ['subsystem'],
});
const pathState = gauge('node_nvmesubsystem_path_state', '1 for the state that a path is in, 0 for the others.', {
  labels: ['subsystem', 'controller', 'transport', 'state'],
});

const folder = 'sys/class/nvme-subsystem';
const states = ['connecting', 'dead', 'deleting', 'live', 'new', 'resetting', 'unknown'];

class NvmeSubsystem implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder, /^nvme-subsys\d+$/)) this.#collectOne(host, out, name);
    this.#labels.endCollection();
  }

  #collectOne(host: Host, out: Samples, name: string): void {
    const at = `${folder}/${name}`;
    const texts = ['subsysnqn', 'model', 'serial', 'iopolicy'].map((file) => host.rareText(`${at}/${file}`, ''));
    // One that has gone since it was listed has nothing of all this.
    if (texts.every((text) => text === undefined)) return;
    out.sampleLabels(info, 1, this.#labels.of(name, ...texts.map((text) => text ?? '')));
    const names = host.attributesIfKnown(at);
    if (names === undefined) return;
    for (const disk of names.filter((each) => /^nvme\d+n\d+$/.test(each))) out.sample(namespaceInfo, 1, name, disk);
    const controllers = names.filter((each) => /^nvme\d+$/.test(each));
    const found = controllers.map((controller) => host.value(`${at}/${controller}/state`, parseState));
    for (const [index, controller] of controllers.entries()) {
      if (found[index] === undefined) continue;
      const transport = host.rareText(`${at}/${controller}/transport`) ?? '';
      for (const state of states) {
        out.sampleLabels(
          pathState,
          state === found[index] ? 1 : 0,
          this.#labels.of(name, controller, transport, state),
        );
      }
    }
    out.sample(paths, controllers.length, name);
    // Where a state is not known, the number would be wrong.
    if (!found.includes(undefined)) out.sample(pathsLive, found.filter((state) => state === 'live').length, name);
  }
}

/** `deleting (no IO)` is deleting, too. */
function parseState(text: KernelText): string {
  const state = text.word('the state');
  return states.includes(state) ? state : 'unknown';
}
