// /proc/loadavg: `0.06 0.14 0.09 1/86 14424`, one line.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#kernel-data
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const loadavg: CollectorRow = {
  name: 'loadavg',
  enabled: 'by default',
  description: 'load averages, from /proc/loadavg',
  options: [],
  create: () => ({ collect }),
};

// The kernel prints two digits behind the point: hundredths are exact.
const load1 = gauge('node_load1', 'Processes that run or wait for the disk, averaged over 1 min.', { divisor: 100 });
const load5 = gauge('node_load5', 'Processes that run or wait for the disk, averaged over 5 min.', { divisor: 100 });
const load15 = gauge('node_load15', 'Processes that run or wait for the disk, averaged over 15 min.', { divisor: 100 });

function collect(host: Host, out: Samples): void {
  const text = host.read('proc/loadavg');
  text.firstLine();
  out.sample(load1, text.hundredths('the load of 1 min'));
  out.sample(load5, text.hundredths('the load of 5 min'));
  out.sample(load15, text.hundredths('the load of 15 min'));
}
