// uname(2), from the files that hold the same: /proc/sys/kernel/{ostype,hostname,osrelease,version,domainname}.
// https://www.kernel.org/doc/html/latest/admin-guide/sysctl/kernel.html
import type { Host } from '../proc/host.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const uname: CollectorRow = {
  name: 'uname',
  enabled: 'by default',
  description: 'name of the host, release and version of the kernel, from /proc/sys/kernel',
  options: [],
  create: (context) => new Uname(context.machine),
};

const info = gauge('node_uname_info', 'Always 1; the labels are what uname says.', {
  labels: ['sysname', 'release', 'version', 'machine', 'nodename', 'domainname'],
});

class Uname implements Collector {
  readonly #machine: string;
  /** Of the kernel that runs, which does not change. */
  #kernel: readonly string[] | undefined;
  #labels: readonly string[] = [];

  constructor(machine: string) {
    this.#machine = machine;
  }

  collect(host: Host, out: Samples): void {
    this.#kernel ??= [...kernelPaths.map((path) => read(host, path)), this.#machine];
    const nodename = read(host, 'proc/sys/kernel/hostname');
    const domainname = read(host, 'proc/sys/kernel/domainname');
    if (this.#labels[4] !== nodename || this.#labels[5] !== domainname) {
      this.#labels = [...this.#kernel, nodename, domainname];
    }
    out.sampleLabels(info, 1, this.#labels);
  }
}

const kernelPaths = ['proc/sys/kernel/ostype', 'proc/sys/kernel/osrelease', 'proc/sys/kernel/version'];

function read(host: Host, path: string): string {
  const text = host.read(path);
  text.nextLine();
  return text.rest();
}
