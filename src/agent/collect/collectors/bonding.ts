// /sys/class/net/bonding_masters: the names of the bonds in one line, empty where there is none, missing without the
// module. BOND/bonding/slaves: the names of a bond's interfaces. BOND/lower_INTERFACE/bonding_slave/mii_status: `up`, `down`,
// `going down` or `going back`; until Linux 3.18 the link was called slave_INTERFACE.
// https://www.kernel.org/doc/html/latest/networking/bonding.html
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-bonding
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const bonding: CollectorRow = {
  name: 'bonding',
  enabled: 'by default',
  description: 'interfaces of bonds, and how many of them have a link, from /sys/class/net',
  options: [],
  lane: 'slow',
  create: () => new Bonding(),
};

const labels = ['master'];
const slaves = gauge('node_bonding_slaves', 'Interfaces of a bond.', { labels });
const active = gauge('node_bonding_active', 'Interfaces of a bond that have a link.', { labels });

const folder = 'sys/class/net';

class Bonding implements Collector {
  collect(host: Host, out: Samples): void {
    for (const master of namesIn(host.read(`${folder}/bonding_masters`))) {
      host.part(`${folder}/${master}/bonding/slaves`, (text) => {
        const names = namesIn(text);
        const states = names.map((name) => stateOf(host, master, name));
        out.sample(slaves, names.length, master);
        // Where one is not known, the number would be wrong.
        if (!states.includes(undefined)) out.sample(active, states.filter((state) => state === 'up').length, master);
      });
    }
  }
}

function stateOf(host: Host, master: string, name: string): string | undefined {
  const ofBond = `${folder}/${master}`;
  return (
    host.value(`${ofBond}/lower_${name}/bonding_slave/mii_status`, parseText) ??
    host.value(`${ofBond}/slave_${name}/bonding_slave/mii_status`, parseText)
  );
}

function namesIn(text: KernelText): string[] {
  const names: string[] = [];
  if (text.isEmpty) return names;
  text.firstLine();
  while (text.more()) names.push(text.word('a name'));
  return names;
}

function parseText(text: KernelText): string {
  return text.rest();
}
