// /proc/interrupts: a heading of the CPUs that are online, then a line an interrupt, a column a CPU; behind them the
// controller and the devices, or of those without a number what they are for:
//                CPU0       CPU1
//      36:          0    1394134 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
//     LOC:     994358    1237195   Local timer interrupts
//     ERR:          0
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#kernel-data
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  NameFilter,
  patternOption,
  type Samples,
  switchOption,
} from './collector.ts';

const include = patternOption(
  'interrupts.name-include',
  '',
  'Interrupts to collect, by TYPE;INFO;DEVICES, as the labels have them. Empty: all.',
);
const exclude = patternOption(
  'interrupts.name-exclude',
  '',
  'Interrupts to leave out, by TYPE;INFO;DEVICES. Empty: none.',
);
const includeZeros = switchOption(
  'interrupts.include-zeros',
  'true',
  'Collect also what a CPU has not yet served once.',
);

export const interrupts: CollectorRow = {
  name: 'interrupts',
  enabled: 'on request',
  description: 'interrupts by kind and CPU, from /proc/interrupts',
  options: [include, exclude, includeZeros],
  create: (context) =>
    new Interrupts({
      filter: new NameFilter(context.option(include), context.option(exclude)),
      includeZeros: context.option(includeZeros),
    }),
};

const total = counter('node_interrupts_total', 'Interrupts that a CPU has served, by kind.', {
  labels: ['cpu', 'type', 'info', 'devices'],
});

interface Interrupt {
  /** What stands behind the counts. */
  readonly text: string;
  /** By column; undefined for one that the filter leaves out. */
  readonly labels: readonly (readonly string[])[] | undefined;
}

class Interrupts implements Collector {
  readonly #filter: NameFilter;
  readonly #includeZeros: boolean;
  #heading: Heading | undefined;
  readonly #counts: number[] = [];

  constructor(options: { readonly filter: NameFilter; readonly includeZeros: boolean }) {
    this.#filter = options.filter;
    this.#includeZeros = options.includeZeros;
  }

  collect(host: Host, out: Samples): void {
    let heading: Heading | undefined;
    let count = 0;
    host.read('proc/interrupts').eachLine('an interrupt', (line) => {
      if (heading === undefined) {
        heading = this.#readHeading(line);
        return false;
      }
      const type = line.key('the name of an interrupt');
      const found = line.unsigneds(this.#counts, heading.names);
      const text = line.rest();
      // ERR and MIS are one number for all CPUs.
      if (text === '' && (found === 1 || found === heading.names.length)) return true;
      if (found < heading.names.length) {
        throw line.error(`'${type}' has ${found} columns, expected ${heading.names.length}`);
      }
      count++;
      this.#give(out, this.#interruptOf(heading, type, text));
      return true;
    });
    if (heading !== undefined && count < heading.interrupts.size) this.#heading = undefined;
  }

  #readHeading(line: KernelText): Heading {
    const text = line.rest();
    if (this.#heading?.text === text) return this.#heading;
    const names = text.split(/\s+/);
    if (!names.every((name) => /^CPU\d+$/.test(name))) throw line.error('it is not a heading of CPUs');
    this.#heading = { text, names, interrupts: new Map() };
    return this.#heading;
  }

  #interruptOf({ names, interrupts: known }: Heading, type: string, text: string): Interrupt {
    const before = known.get(type);
    if (before?.text === text) return before;
    const words = text.split(/\s+/);
    const isNumbered = /^\d+$/.test(type);
    const info = isNumbered ? words[0]! : words.join(' ');
    const devices = isNumbered ? words.slice(1).join(' ') : '';
    const isKept = this.#filter.keeps(`${type};${info};${devices}`);
    const labels = isKept ? names.map((name) => [name.slice('CPU'.length), type, info, devices]) : undefined;
    const interrupt = { text, labels };
    known.set(type, interrupt);
    return interrupt;
  }

  #give(out: Samples, { labels }: Interrupt): void {
    if (labels === undefined) return;
    for (let at = 0; at < labels.length; at++) {
      const count = this.#counts[at]!;
      if (count > 0 || this.#includeZeros) out.sampleLabels(total, count, labels[at]!);
    }
  }
}

interface Heading {
  readonly text: string;
  /** `CPU0`. */
  readonly names: readonly string[];
  /** By type. They come and go with devices. */
  readonly interrupts: Map<string, Interrupt>;
}
