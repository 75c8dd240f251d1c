// /proc/stat, all but the CPUs: `ctxt 629236`, a line a field; the first number of `intr` and `softirq` is the sum.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
import type { Host } from '../proc/host.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  type SampledFamily,
  type Samples,
  switchOption,
} from './collector.ts';

const softirq = switchOption('stat.softirq', 'false', 'Collect software interrupts by kind.');

export const stat: CollectorRow = {
  name: 'stat',
  enabled: 'by default',
  description: 'interrupts, context switches, forks, processes and boot time, from /proc/stat',
  options: [softirq],
  create: (context) => new Stat(context.option(softirq)),
};

const fields = [
  field('intr', counter('node_intr_total', 'Interrupts that were served.')),
  field('ctxt', counter('node_context_switches_total', 'Switches from one thread to another.')),
  field('btime', gauge('node_boot_time_seconds', 'When the host started, in seconds since 1970.')),
  field('processes', counter('node_forks_total', 'Processes and threads that were created.')),
  field('procs_running', gauge('node_procs_running', 'Threads that run or are ready to.')),
  field('procs_blocked', gauge('node_procs_blocked', 'Threads that wait for a disk.')),
];

function field(name: string, family: SampledFamily) {
  return { name, prefix: `${name} `, family };
}

const softirqs = counter('node_softirqs_total', 'Software interrupts that were served.', { labels: ['vector'] });
// The order of the enumeration in include/linux/interrupt.h, the same since Linux 2.6.39; from 4.9 to 5.5 BLOCK_IOPOLL
// was already called IRQ_POLL.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/linux/interrupt.h
const vectors = [
  'hi',
  'timer',
  'net_tx',
  'net_rx',
  'block',
  'block_iopoll',
  'tasklet',
  'sched',
  'hrtimer',
  'rcu',
] as const;

const vectorCounts: number[] = [];

class Stat implements Collector {
  readonly #softirq: boolean;

  constructor(softirq: boolean) {
    this.#softirq = softirq;
  }

  collect(host: Host, out: Samples): void {
    host.read('proc/stat').eachLine('intr, ctxt, btime, processes, procs_running or procs_blocked', (line) => {
      if (line.skip('cpu')) return false;
      if (this.#softirq && line.skip('softirq ')) {
        line.unsigned('the sum of softirq');
        const count = line.unsigneds(vectorCounts, vectors);
        if (count < vectors.length) throw line.error(`softirq has ${count} kinds, expected ${vectors.length}`);
        for (let at = 0; at < count; at++) out.sample(softirqs, vectorCounts[at]!, vectors[at]);
        return true;
      }
      for (const { name, prefix, family } of fields) {
        if (!line.skip(prefix)) continue;
        out.sample(family, line.unsigned(name));
        return true;
      }
      return false;
    });
  }
}
