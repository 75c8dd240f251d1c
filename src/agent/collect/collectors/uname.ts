// uname(2), from the files that hold the same: /proc/sys/kernel/{ostype,hostname,osrelease,version,domainname}. A sandbox
// (gVisor) may lack some of them, or all: the call itself says the same, but for the domain.
// https://www.kernel.org/doc/html/latest/admin-guide/sysctl/kernel.html
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorContext, type CollectorRow, gauge, type Samples } from './collector.ts';

export const uname: CollectorRow = {
  name: 'uname',
  enabled: 'by default',
  description: 'name of the host, release and version of the kernel, from /proc/sys/kernel',
  options: [],
  create: (context) => new Uname(context),
};

const info = gauge('node_uname_info', 'Always 1; the labels are what uname says.', {
  labels: ['sysname', 'release', 'version', 'machine', 'nodename', 'domainname'],
});

// The domain of NIS, which few hosts have: it is set once, at the boot.
const domainEveryMs = 60_000;

class Uname implements Collector {
  readonly #clock: CollectorContext['clock'];
  /** Of the kernel that runs, which does not change. */
  #kernel: readonly string[] | undefined;
  #domain: { readonly name: string; readonly readAtMs: number } | undefined;
  #labels: readonly string[] = [];

  constructor({ clock }: CollectorContext) {
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    this.#kernel ??= readKernel(host);
    const nodename = host.value('proc/sys/kernel/hostname', parseLine) ?? host.system.hostname();
    const domainname = this.#domainName(host);
    if (this.#labels[4] !== nodename || this.#labels[5] !== domainname) {
      this.#labels = [...this.#kernel, nodename, domainname];
    }
    out.sampleLabels(info, 1, this.#labels);
  }

  #domainName(host: Host): string {
    const nowMs = this.#clock.monotonicMs();
    if (this.#domain === undefined || nowMs - this.#domain.readAtMs >= domainEveryMs) {
      const name = host.value('proc/sys/kernel/domainname', parseLine) ?? '(none)';
      this.#domain = { name, readAtMs: nowMs };
    }
    return this.#domain.name;
  }
}

function readKernel(host: Host): string[] {
  const { system } = host;
  return [
    host.value('proc/sys/kernel/ostype', parseLine) ?? system.type(),
    host.value('proc/sys/kernel/osrelease', parseLine) ?? system.release(),
    host.value('proc/sys/kernel/version', parseLine) ?? system.version(),
    system.machine(),
  ];
}

function parseLine(text: KernelText): string {
  return text.rest();
}
