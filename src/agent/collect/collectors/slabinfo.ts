// /proc/slabinfo: a line a cache of kernel objects, below two headings. Root alone may read it.
//     # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables …
//     dentry            159233 172242    192   21    1 : tunables    0    0    0 : slabdata   8202   8202      0
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#kernel-data
import type { Host } from '../proc/host.ts';
import {
  type Collector,
  type CollectorRow,
  gauge,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
} from './collector.ts';

const include = patternOption('slabinfo.slabs-include', '.*', 'Slab caches to collect. Empty: all.');
const exclude = patternOption('slabinfo.slabs-exclude', '', 'Slab caches to leave out. Empty: none.');

export const slabinfo: CollectorRow = {
  name: 'slabinfo',
  enabled: 'on request',
  description: "the kernel's caches of objects, from /proc/slabinfo, which root alone may read",
  options: [include, exclude],
  create: (context) => new Slabinfo(new NameFilter(context.option(include), context.option(exclude))),
};

const labels = ['slab'];
// In the order of the columns.
const families: readonly SampledFamily[] = [
  gauge('node_slabinfo_active_objects', 'Objects of a slab cache that are in use.', { labels }),
  gauge('node_slabinfo_objects', 'Objects that a slab cache has room for, in use or not.', { labels }),
  gauge('node_slabinfo_object_size_bytes', 'Size of an object of a slab cache, in bytes.', { labels }),
  gauge('node_slabinfo_objects_per_slab', 'Objects that a slab holds.', { labels }),
  gauge('node_slabinfo_pages_per_slab', 'Pages that a slab takes.', { labels }),
];
const columns = ['active objects', 'objects', 'object size', 'objects per slab', 'pages per slab'].map(
  (name) => `the column '${name}'`,
);

class Slabinfo implements Collector {
  readonly #filter: NameFilter;
  readonly #counts: number[] = [];

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    host.read('proc/slabinfo').eachLine('a slab cache', (line) => {
      if (line.skip('slabinfo - version') || line.skip('#')) return false;
      const name = line.word('the name of a slab cache');
      for (const [at, column] of columns.entries()) this.#counts[at] = line.unsigned(column);
      if (!line.skip(' : tunables ')) throw line.error("'tunables' does not follow the fifth column");
      if (!this.#filter.keeps(name)) return true;
      for (let at = 0; at < families.length; at++) out.sample(families[at]!, this.#counts[at]!, name);
      return true;
    });
  }
}
