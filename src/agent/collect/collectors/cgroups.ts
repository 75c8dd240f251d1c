// /proc/cgroups: a line a controller of cgroup version 1, below a heading.
//     #subsys_name	hierarchy	num_cgroups	enabled
//     cpuset	3	1	1
// Since Linux 6.11 a controller that is only of version 2 is not listed.
// https://www.kernel.org/doc/html/latest/admin-guide/cgroup-v1/cgroups.html
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const cgroups: CollectorRow = {
  name: 'cgroups',
  enabled: 'on request',
  description: 'how many control groups each controller has, from /proc/cgroups',
  options: [],
  create: () => ({ collect }),
};

const labels = ['subsys_name'];
const count = gauge('node_cgroups_cgroups', 'Control groups of a controller.', { labels });
const isEnabled = gauge('node_cgroups_enabled', 'Whether a controller is on: 1, or 0.', { labels });

const columns = ['the hierarchy', 'the number of control groups', 'whether it is enabled'];
const numbers: number[] = [];

function collect(host: Host, out: Samples): void {
  host.read('proc/cgroups').eachLine('a controller', (line) => {
    if (line.skip('#')) return false;
    const name = line.word('the name of a controller');
    const found = line.unsigneds(numbers, columns);
    if (found < columns.length) throw line.error(`'${name}' has ${found} columns, expected ${columns.length}`);
    out.sample(count, numbers[1]!, name);
    out.sample(isEnabled, numbers[2]!, name);
    return true;
  });
}
