// /proc/net/softnet_stat: a row a CPU that is online, of hexadecimal columns without a heading:
//     002b0974 00000000 00000005 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
// processed, dropped, time_squeeze, five that are 0 now, cpu_collision, received_rps (Linux 2.6.35), flow_limit_count (3.11),
// backlog length and CPU (5.10). Before that a row's number is the CPU's, as long as all are online.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/core/net-procfs.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, gauge, type Samples } from './collector.ts';

export const softnet: CollectorRow = {
  name: 'softnet',
  enabled: 'by default',
  description: "packets that each CPU took from the network's queues, from /proc/net/softnet_stat",
  options: [],
  create: () => new Softnet(),
};

const perCpu = { labels: ['cpu'] };
const columns = [
  { at: 0, family: counter('node_softnet_processed_total', 'Packets that were processed.', perCpu) },
  { at: 1, family: counter('node_softnet_dropped_total', 'Packets dropped because the backlog was full.', perCpu) },
  {
    at: 2,
    family: counter(
      'node_softnet_times_squeezed_total',
      'Times that processing stopped with packets left, for want of budget or time.',
      perCpu,
    ),
  },
  {
    at: 8,
    family: counter('node_softnet_cpu_collision_total', 'Times that a device was busy with another CPU.', perCpu),
  },
  {
    at: 9,
    family: counter('node_softnet_received_rps_total', 'Times that another CPU had packets for this one.', perCpu),
  },
  {
    at: 10,
    family: counter('node_softnet_flow_limit_count_total', 'Packets dropped by the limit of a flow.', perCpu),
  },
  { at: 11, family: gauge('node_softnet_backlog_len', 'Packets that wait in the backlog.', perCpu) },
];
const cpuColumn = 12;
const columnsMin = 9;
const names = Array.from({ length: cpuColumn + 1 }, (_, at) => `column ${at + 1}`);

/** A row that begins with no number counts too: the next one is of the next CPU. */
function isRow(line: KernelText): boolean {
  return line.isAtHexadecimal() || line.wordCount() >= columnsMin;
}

class Softnet implements Collector {
  readonly #counts: number[] = [];
  readonly #names: string[] = [];

  collect(host: Host, out: Samples): void {
    let row = 0;
    host.read('proc/net/softnet_stat').eachLine('a CPU', (line) => {
      if (!isRow(line)) return false;
      const at = row++;
      const count = line.hexadecimals(this.#counts, names);
      if (count < columnsMin) throw line.error(`it has ${count} columns, expected at least ${columnsMin}`);
      const cpu = this.#nameOf(count > cpuColumn ? this.#counts[cpuColumn]! : at);
      for (const { at: column, family } of columns) {
        if (column < count) out.sample(family, this.#counts[column]!, cpu);
      }
      return true;
    });
  }

  #nameOf(cpu: number): string {
    // A number that is no CPU's must not make the list long.
    if (cpu > 65_535) return String(cpu);
    this.#names[cpu] ??= String(cpu);
    return this.#names[cpu];
  }
}
