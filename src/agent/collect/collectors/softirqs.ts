// /proc/softirqs: a heading of all CPUs that there may be, then a line a kind of software interrupt, a column a CPU:
//                         CPU0       CPU1
//           TIMER:      994358    1237195
// BLOCK_IOPOLL is called IRQ_POLL since Linux 4.5.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#softirqs
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, type Samples } from './collector.ts';

export const softirqs: CollectorRow = {
  name: 'softirqs',
  enabled: 'on request',
  description: 'software interrupts by kind and CPU, from /proc/softirqs',
  options: [],
  create: () => new Softirqs(),
};

const total = counter('node_softirqs_functions_total', 'Software interrupts that a CPU has served, by kind.', {
  labels: ['cpu', 'type'],
});

interface Heading {
  readonly text: string;
  /** `CPU0`. */
  readonly names: readonly string[];
  readonly cpus: readonly string[];
}

class Softirqs implements Collector {
  #heading: Heading | undefined;
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    let heading: Heading | undefined;
    host.read('proc/softirqs').eachLine('a software interrupt', (line) => {
      if (heading === undefined) {
        heading = this.#readHeading(line);
        return false;
      }
      const { names, cpus } = heading;
      const type = line.key('the name of a software interrupt');
      const found = line.unsigneds(this.#counts, names);
      if (found < names.length) throw line.error(`'${type}' has ${found} columns, expected ${names.length}`);
      for (let at = 0; at < found; at++) out.sample(total, this.#counts[at]!, cpus[at], type);
      return true;
    });
  }

  #readHeading(line: KernelText): Heading {
    const text = line.rest();
    if (this.#heading?.text === text) return this.#heading;
    const names = text.split(/\s+/);
    if (!names.every((name) => /^CPU\d+$/.test(name))) throw line.error('it is not a heading of CPUs');
    this.#heading = { text, names, cpus: names.map((name) => name.slice('CPU'.length)) };
    return this.#heading;
  }
}
