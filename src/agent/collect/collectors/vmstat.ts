// /proc/vmstat: `pgfault 6033892`, a line a count of the virtual memory. Which there are differs by kernel and by how it
// was built; the kernel does not say which of them are counters.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/mm/vmstat.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
  untyped,
} from './collector.ts';

const fields = patternOption(
  'vmstat.fields',
  '^(oom_kill|pgpg|pswp|pg.*fault).*',
  'Fields of /proc/vmstat to collect. Empty: all.',
);

export const vmstat: CollectorRow = {
  name: 'vmstat',
  enabled: 'by default',
  description: 'paging, swapping, page faults and processes killed for want of memory, from /proc/vmstat',
  options: [fields],
  create: (context) => new Vmstat(new NameFilter(context.option(fields), undefined)),
};

class Vmstat implements Collector {
  readonly #filter: NameFilter;
  readonly #families = new Map<string, SampledFamily>();
  /** The lines that are wanted, a twentieth of all, as they were found the last time. */
  #starts: string[] = [];
  #wanted: SampledFamily[] = [];
  readonly #counts: number[] = [];

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    const text = host.read('proc/vmstat');
    if (this.#wanted.length === 0 || !text.unsignedsBehind(this.#starts, this.#counts)) this.#readAll(text);
    for (let at = 0; at < this.#wanted.length; at++) out.sample(this.#wanted[at]!, this.#counts[at]!);
  }

  #readAll(text: KernelText): void {
    this.#starts = [];
    this.#wanted = [];
    text.eachLine('a field that --vmstat.fields names', (line) => {
      const field = line.word('the name of a field');
      if (!this.#filter.keeps(field)) return false;
      this.#counts[this.#wanted.length] = line.unsigned(field);
      this.#starts.push(`${field} `);
      this.#wanted.push(this.#familyOf(field));
      return true;
    });
  }

  #familyOf(field: string): SampledFamily {
    let family = this.#families.get(field);
    if (family === undefined) {
      family = untyped(`node_vmstat_${field}`, `${field} of /proc/vmstat.`);
      this.#families.set(field, family);
    }
    return family;
  }
}
