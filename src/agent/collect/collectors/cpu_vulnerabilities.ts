// /sys/devices/system/cpu/vulnerabilities: a file a weakness of processors: `Not affected`, `Vulnerable: no microcode`,
// `Mitigation: PTI`, `Unknown: No mitigations`. Since Linux 4.15.
// https://www.kernel.org/doc/html/latest/admin-guide/hw-vuln/index.html
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, LabelLists, type Samples } from './collector.ts';

export const cpu_vulnerabilities: CollectorRow = {
  name: 'cpu_vulnerabilities',
  enabled: 'on request',
  description: "weaknesses of the host's processors and what is done against them",
  options: [],
  create: () => new CpuVulnerabilities(),
};

const info = gauge(
  'node_cpu_vulnerabilities_info',
  'A weakness of the processors, its state, and what is done against it: 1.',
  {
    labels: ['codename', 'state', 'mitigation'],
  },
);

const folder = 'sys/devices/system/cpu/vulnerabilities';
const states: readonly (readonly [start: string, state: string])[] = [
  ['not affected', 'not affected'],
  ['vulnerable', 'vulnerable'],
  ['mitigation', 'mitigation'],
  ['unknown', 'unknown'],
];

class CpuVulnerabilities implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder)) {
      const said = host.value(`${folder}/${name}`, parseText);
      if (said === undefined) continue;
      const state = states.find(([start]) => said.toLowerCase().startsWith(start))?.[1];
      // What stands behind the first word; all of it where the first word is none of these.
      const rest = said.split(/\s+/).slice(1).join(' ');
      const mitigation = state === 'not affected' ? '' : state === undefined ? said : rest;
      out.sampleLabels(info, 1, this.#labels.of(name, state ?? 'unknown', mitigation));
    }
    this.#labels.endCollection();
  }
}

function parseText(text: KernelText): string {
  const said = text.rest();
  if (said === '') throw text.error('it is empty');
  return said;
}
