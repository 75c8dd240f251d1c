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

// Names are set at the boot, and hardly ever after it.
const lookAgainMs = 60_000;

class Uname implements Collector {
  readonly #clock: CollectorContext['clock'];
  /** Of the kernel that runs, which does not change. */
  #kernel: readonly string[] | undefined;
  #labels: readonly string[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;

  constructor({ clock }: CollectorContext) {
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    if (this.#clock.monotonicMs() - this.#lookedMs >= lookAgainMs) this.#look(host);
    out.sampleLabels(info, 1, this.#labels);
  }

  #look(host: Host): void {
    this.#kernel ??= readKernel(host);
    const nodename = host.value('proc/sys/kernel/hostname', parseLine) ?? host.system.hostname();
    const domainname = host.value('proc/sys/kernel/domainname', parseLine) ?? '(none)';
    this.#labels = [...this.#kernel, nodename, domainname];
    this.#lookedMs = this.#clock.monotonicMs();
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
