// /proc/net/sockstat and sockstat6: `TCP: inuse 1115 orphan 0 tw 0 alloc 1115 mem 51`, a line a protocol. `mem` is in pages; it may be
// a little below zero, because CPUs count apart.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/ipv4/proc.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';

export const sockstat: CollectorRow = {
  name: 'sockstat',
  enabled: 'by default',
  description: 'sockets by protocol, and the memory that they take, from /proc/net/sockstat and sockstat6',
  options: [],
  create: () => new Sockstat(),
};

const paths = ['proc/net/sockstat', 'proc/net/sockstat6'];

interface Field {
  readonly name: string;
  /** ` inuse ` */
  readonly prefix: string;
  readonly family: SampledFamily;
  /** For memory, which the kernel gives in pages. */
  readonly bytesFamily: SampledFamily | undefined;
}

class Sockstat implements Collector {
  /** The fields of each protocol as they came the last time. */
  readonly #fields = new Map<string, Field[]>();
  readonly #counts: number[] = [];
  #pageSize: number | undefined;

  collect(host: Host, out: Samples): void {
    this.#pageSize ??= host.system.pageSize();
    host.readEach(paths, (text) => {
      text.eachLine('a protocol', (line) => {
        const protocol = line.keyIfThere();
        if (protocol === undefined) return false;
        this.#collectLine(protocol, line, out);
        return true;
      });
    });
  }

  #collectLine(protocol: string, line: KernelText, out: Samples): void {
    const fields = this.#fields.get(protocol) ?? [];
    this.#fields.set(protocol, fields);
    let count = 0;
    for (; line.more(); count++) {
      if (fields[count] === undefined || !line.skip(fields[count]!.prefix)) {
        fields[count] = fieldOf(protocol, line.word('the name of a field'));
      }
      const { name, bytesFamily } = fields[count]!;
      this.#counts[count] = bytesFamily === undefined ? line.unsigned(name) : line.signed(name);
    }
    for (let at = 0; at < count; at++) {
      const { family, bytesFamily } = fields[at]!;
      out.sample(family, this.#counts[at]!);
      if (bytesFamily !== undefined) out.sample(bytesFamily, this.#counts[at]! * this.#pageSize!);
    }
  }
}

function fieldOf(protocol: string, name: string): Field {
  const family = gauge(`node_sockstat_${protocol}_${name}`, `${name} of ${protocol} sockets, from /proc/net/sockstat.`);
  const bytesFamily =
    name === 'mem'
      ? gauge(`node_sockstat_${protocol}_mem_bytes`, `Memory of ${protocol} sockets, from /proc/net/sockstat.`)
      : undefined;
  return { name, prefix: `${name} `, family, bytesFamily };
}
