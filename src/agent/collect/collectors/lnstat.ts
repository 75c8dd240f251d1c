// /proc/net/stat: a file a cache of the network; a heading of names, then a line a CPU, in hexadecimal digits.
//     entries  allocs   destroys hash_grows lookups  hits …
//     00000014 00000001 00000002 00000003   00000004 …
// https://man7.org/linux/man-pages/man8/lnstat.8.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/core/neighbour.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, type SampledFamily, type Samples } from './collector.ts';

export const lnstat: CollectorRow = {
  name: 'lnstat',
  enabled: 'on request',
  description: "the network's caches, by CPU, from /proc/net/stat",
  options: [],
  create: () => new Lnstat(),
};

const folder = 'proc/net/stat';

interface Heading {
  readonly text: string;
  readonly names: readonly string[];
  readonly families: readonly SampledFamily[];
}

class Lnstat implements Collector {
  readonly #headings = new Map<string, Heading>();
  readonly #families = new Map<string, SampledFamily>();
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    const names = host.devices(folder);
    const paths = names.map((name) => `${folder}/${name}`);
    host.readEach(paths, (text, at) => this.#readCache(text, out, names[at]!));
  }

  #readCache(text: KernelText, out: Samples, subsystem: string): void {
    let heading: Heading | undefined;
    let cpu = 0;
    text.eachLine('a CPU', (line) => {
      if (heading === undefined) {
        heading = this.#readHeading(line, subsystem);
        return false;
      }
      const { names, families } = heading;
      if (!line.isAtHexadecimal()) throw line.error('it is not of a CPU');
      // A line that cannot be read is a CPU too.
      const number = String(cpu++);
      const found = line.hexadecimals(this.#counts, names);
      if (found < names.length) throw line.error(`it has ${found} columns, expected ${names.length}`);
      for (let at = 0; at < found; at++) out.sample(families[at]!, this.#counts[at]!, subsystem, number);
      return true;
    });
  }

  #readHeading(line: KernelText, subsystem: string): Heading {
    const text = line.rest();
    const known = this.#headings.get(subsystem);
    if (known?.text === text) return known;
    const names = text.split(/\s+/);
    if (!names.every((name) => /^[a-z_][a-z0-9_]*$/.test(name))) throw line.error('it is not a heading of names');
    const heading = { text, names, families: names.map((name) => this.#familyOf(name)) };
    this.#headings.set(subsystem, heading);
    return heading;
  }

  #familyOf(name: string): SampledFamily {
    let family = this.#families.get(name);
    if (family === undefined) {
      const help = `${name} of the network's caches in /proc/net/stat.`;
      family = counter(`node_lnstat_${name}_total`, help, { labels: ['subsystem', 'cpu'] });
      this.#families.set(name, family);
    }
    return family;
  }
}
