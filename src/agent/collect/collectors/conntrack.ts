// /proc/sys/net/netfilter/nf_conntrack_{count,max}: a number each. /proc/net/stat/nf_conntrack: headings, then a row a CPU, in
// hexadecimal:
//     entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  …
//     00000021  00000000 00000000 00000000 00000003 0000588a 00000000 00000000 00000000 00000000 00000000 00000000 00000000  …
// https://www.kernel.org/doc/html/latest/networking/nf_conntrack-sysctl.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nf_conntrack_standalone.c
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';

export const conntrack: CollectorRow = {
  name: 'conntrack',
  enabled: 'by default',
  description: 'connections that the firewall tracks, from /proc/sys/net/netfilter and /proc/net/stat/nf_conntrack',
  options: [],
  create: () => new Conntrack(),
};

const entries = gauge('node_nf_conntrack_entries', 'Connections that are tracked.');
const entriesMax = gauge('node_nf_conntrack_entries_limit', 'Connections that can be tracked.');
// They only rise; node_exporter calls them gauges.
const columnFamilies: ReadonlyMap<string, SampledFamily> = new Map([
  ofColumn('found', 'Entries that were found by a search.'),
  ofColumn('invalid', 'Packets that could not be tracked.'),
  ofColumn('ignore', 'Packets of connections that were tracked already.'),
  ofColumn('insert', 'Entries that were added.'),
  ofColumn('insert_failed', 'Entries that could not be added.'),
  ofColumn('drop', 'Packets that were dropped because no entry could be made.'),
  ofColumn('early_drop', 'Entries that were removed to make room for others.'),
  ofColumn('search_restart', 'Searches that began again because the table was resized.'),
]);

function ofColumn(column: string, help: string): [string, SampledFamily] {
  return [column, gauge(`node_nf_conntrack_stat_${column}`, `${help} The sum of all CPUs.`)];
}

const countPath = 'proc/sys/net/netfilter/nf_conntrack_count';
const maxPath = 'proc/sys/net/netfilter/nf_conntrack_max';

class Conntrack implements Collector {
  #columns: Columns | undefined;

  collect(host: Host, out: Samples): void {
    const count = host.value(countPath, parseCount);
    if (count !== undefined) out.sample(entries, count);
    else if (!host.exists(countPath)) throw new NoDataError(host.path(countPath), ' does not exist');
    const max = host.value(maxPath, parseCount);
    if (max !== undefined) out.sample(entriesMax, max);
    host.part('proc/net/stat/nf_conntrack', (text) => this.#collectStatistics(text, out));
  }

  /** A row that cannot be read would make the sums too small: it costs them all. */
  #collectStatistics(text: KernelText, out: Samples): void {
    let columns: Columns | undefined;
    while (text.nextLine()) {
      if (!text.more()) continue;
      if (columns === undefined) {
        if (!text.skip('entries ')) continue;
        if (this.#columns === undefined || !text.skip(this.#columns.heading)) this.#columns = new Columns(text.rest());
        columns = this.#columns;
        columns.sums.fill(0);
      } else if (text.isAtHexadecimal()) columns.add(text);
    }
    if (columns === undefined) throw text.error('the table has no heading');
    for (const { at, family } of columns.wanted) out.sample(family, columns.sums[at]!);
  }
}

function parseCount(text: KernelText): number {
  return text.unsigned('the number of connections');
}

/** The columns of a heading, from the second on. */
class Columns {
  readonly heading: string;
  readonly wanted: readonly { readonly at: number; readonly family: SampledFamily }[];
  readonly sums: Float64Array;
  readonly #names: readonly string[];
  readonly #counts: number[] = [];

  constructor(heading: string) {
    this.heading = heading;
    this.#names = ['entries', ...heading.split(/\s+/)];
    this.sums = new Float64Array(this.#names.length);
    this.wanted = this.#names.flatMap((name, at) => {
      const family = columnFamilies.get(name);
      return family === undefined ? [] : [{ at, family }];
    });
  }

  add(text: KernelText): void {
    const count = text.hexadecimals(this.#counts, this.#names);
    if (count < this.#names.length) throw text.error(`it has ${count} columns, expected ${this.#names.length}`);
    for (let at = 0; at < count; at++) this.sums[at]! += this.#counts[at]!;
  }
}
