// /proc/schedstat, where the kernel has CONFIG_SCHEDSTATS: of each CPU a line, and of each of its scheduling domains one:
//     cpu0 0 0 0 0 0 0 2045936778163 343796328169 94767
//     domain0 00000000,00000003 212499247 210112015 …
// Behind the CPU's name six counts, nanoseconds in which tasks ran, nanoseconds in which they waited to, and time slices. So since version
// 15 (Linux 2.6.38); versions 16 and 17 changed the domains alone.
// https://www.kernel.org/doc/html/latest/scheduler/sched-stats.html
import type { Host } from '../proc/host.ts';
import { type Collector, type CollectorRow, counter, type Samples } from './collector.ts';

export const schedstat: CollectorRow = {
  name: 'schedstat',
  enabled: 'by default',
  description: 'time that tasks ran and waited on each CPU, from /proc/schedstat',
  options: [],
  create: () => new Schedstat(),
};

const nanoseconds = { labels: ['cpu'], divisor: 1_000_000_000 };
const families = [
  counter('node_schedstat_running_seconds_total', 'Time in which the CPU ran tasks.', nanoseconds),
  counter(
    'node_schedstat_waiting_seconds_total',
    'Time in which tasks that could run waited for the CPU.',
    nanoseconds,
  ),
  counter('node_schedstat_timeslices_total', 'Time slices that the CPU has given.', { labels: ['cpu'] }),
];
const columns = [6, 7, 8];
const names = ['the time of running', 'the time of waiting', 'the number of time slices'];

class Schedstat implements Collector {
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    const counts = this.#counts;
    host.read('proc/schedstat').eachLine('a CPU', (line) => {
      if (!line.skip('cpu')) return false;
      const cpu = line.word('the number of a CPU');
      if (line.columns(counts, columns, names, 'unsigned') < columns.length)
        throw line.error(`cpu${cpu} has too few columns`);
      for (let at = 0; at < families.length; at++) out.sample(families[at]!, counts[at]!, cpu);
      return true;
    });
  }
}
