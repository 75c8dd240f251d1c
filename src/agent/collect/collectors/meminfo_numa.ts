// /sys/devices/system/node/nodeN/meminfo: `Node 0 MemTotal:       24683656 kB`, as /proc/meminfo; numastat beside it:
// `numa_hit 290713012`.
// https://www.kernel.org/doc/html/latest/admin-guide/numastat.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/drivers/base/node.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, gauge, type SampledFamily, type Samples } from './collector.ts';

export const meminfo_numa: CollectorRow = {
  name: 'meminfo_numa',
  enabled: 'on request',
  description: 'memory by NUMA node, from /sys/devices/system/node',
  options: [],
  create: () => new MeminfoNuma(),
};

const folder = 'sys/devices/system/node';
const labels = ['node'];

class MeminfoNuma implements Collector {
  readonly #families = new Map<string, SampledFamily>();

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder, /^node\d+$/)) {
      const node = name.slice('node'.length);
      host.part(`${folder}/${name}/meminfo`, (text) => this.#readMeminfo(text, out, node));
      host.part(`${folder}/${name}/numastat`, (text) => this.#readNumastat(text, out, node));
    }
  }

  #readMeminfo(text: KernelText, out: Samples, node: string): void {
    const start = `Node ${node} `;
    text.eachLine('a field of the node', (line) => {
      if (!line.skip(start)) throw line.error(`it does not begin with 'Node ${node}'`);
      const field = line.key('the name of a field');
      if (!/^\w+(\(\w+\))?$/.test(field)) throw line.error(`'${field}' is no name of a field`);
      const count = line.unsigned(field);
      const isInKilobytes = line.more();
      if (isInKilobytes && !line.skip('kB')) throw line.error(`${field} is not in kB`);
      out.sample(this.#familyOf(field), isInKilobytes ? count * 1024 : count, node);
      return true;
    });
  }

  #readNumastat(text: KernelText, out: Samples, node: string): void {
    text.eachLine('a count of the node', (line) => {
      const field = line.word('the name of a count');
      if (!/^\w+$/.test(field)) throw line.error(`'${field}' is no name of a count`);
      const count = line.unsigned(field);
      out.sample(this.#totalOf(field), count, node);
      return true;
    });
  }

  #familyOf(field: string): SampledFamily {
    // `Active(anon)` is `node_memory_numa_Active_anon`.
    const name = `node_memory_numa_${field.replace('(', '_').replace(')', '')}`;
    return this.#once(name, () =>
      gauge(name, `${field} of a NUMA node; what the kernel counts in KiB, in bytes.`, { labels }),
    );
  }

  #totalOf(field: string): SampledFamily {
    const name = `node_memory_numa_${field}_total`;
    return this.#once(name, () => counter(name, `${field} of a NUMA node, pages.`, { labels }));
  }

  #once(name: string, make: () => SampledFamily): SampledFamily {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = make();
      this.#families.set(name, family);
    }
    return family;
  }
}
