// /proc/stat, all but the CPUs: `ctxt 629236`, a line a field; the first number of `intr` and `softirq` is the sum.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
import type { Host } from '../proc/host.ts';
import { type Collector, type CollectorRow, counter, gauge, type Samples, switchOption } from './collector.ts';

const softirq = switchOption('stat.softirq', 'false', 'software interrupts by their kind');

export const stat: CollectorRow = {
  name: 'stat',
  enabled: 'by default',
  description: 'interrupts, context switches, forks, processes and boot time, from /proc/stat',
  options: [softirq],
  create: (context) => new Stat(context.option(softirq)),
};

const fields = [
  { prefix: 'intr ', family: counter('node_intr_total', 'Interrupts that were served.') },
  { prefix: 'ctxt ', family: counter('node_context_switches_total', 'Switches from one thread to another.') },
  {
    prefix: 'btime ',
    family: gauge('node_boot_time_seconds', 'When the host started, in seconds since 1970.', { unit: 'seconds' }),
  },
  { prefix: 'processes ', family: counter('node_forks_total', 'Processes and threads that were created.') },
  { prefix: 'procs_running ', family: gauge('node_procs_running', 'Threads that run or are ready to.') },
  { prefix: 'procs_blocked ', family: gauge('node_procs_blocked', 'Threads that wait for a disk.') },
] as const;

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

class Stat implements Collector {
  readonly #softirq: boolean;

  constructor(softirq: boolean) {
    this.#softirq = softirq;
  }

  collect(host: Host, out: Samples): void {
    const text = host.read('proc/stat');
    let found = 0;
    while (text.nextLine()) {
      if (this.#softirq && text.skip('softirq ')) {
        text.unsigned('the sum of softirq');
        for (const vector of vectors) out.sample(softirqs, text.unsigned(vector), vector);
        continue;
      }
      for (const { prefix, family } of fields) {
        if (!text.skip(prefix)) continue;
        out.sample(family, text.unsigned(prefix.trimEnd()));
        found++;
        break;
      }
    }
    if (found === 0) throw text.error('none of intr, ctxt, btime, processes, procs_running, procs_blocked is there');
  }
}
