// /proc/pressure/{cpu,memory,io,irq}, since Linux 4.20 (irq 6.1), where CONFIG_PSI is set and `psi=0` is not:
//     some avg10=0.00 avg60=0.00 avg300=0.00 total=126224
//     full avg10=0.00 avg60=0.00 avg300=0.00 total=53541
// Microseconds in which some task, or every one, waited for the resource. irq has `full` alone.
// https://www.kernel.org/doc/html/latest/accounting/psi.html
import type { Host } from '../proc/host.ts';
import { type CollectorRow, counter, type SampledFamily, type Samples } from './collector.ts';

export const pressure: CollectorRow = {
  name: 'pressure',
  enabled: 'by default',
  description: 'time lost by waiting for CPU, memory and disks (pressure stall information), from /proc/pressure',
  options: [],
  create: () => ({ collect }),
};

// `full` of cpu is no number of the whole host: the kernel gives 0 since 5.13, and nothing before.
const files = [
  file('cpu', { some: waiting('cpu', 'the CPU') }),
  file('io', { some: waiting('io', 'a disk'), full: stalled('io', 'a disk') }),
  file('memory', { some: waiting('memory', 'memory'), full: stalled('memory', 'memory') }),
  file('irq', {
    full: counter('node_pressure_irq_stalled_seconds_total', 'Time in which interrupts kept every task from running.', {
      divisor: 1_000_000,
    }),
  }),
];

const paths = files.map(({ path }) => path);

function file(resource: string, families: { readonly some?: SampledFamily; readonly full?: SampledFamily }) {
  return {
    path: `proc/pressure/${resource}`,
    lines: Object.entries(families).map(([kind, family]) => ({ prefix: `${kind} `, family })),
  };
}

function waiting(resource: string, what: string): SampledFamily {
  return counter(`node_pressure_${resource}_waiting_seconds_total`, `Time in which some task waited for ${what}.`, {
    divisor: 1_000_000,
  });
}

function stalled(resource: string, what: string): SampledFamily {
  return counter(
    `node_pressure_${resource}_stalled_seconds_total`,
    `Time in which every task that was not idle waited for ${what}.`,
    { divisor: 1_000_000 },
  );
}

function collect(host: Host, out: Samples): void {
  host.readEach(paths, (text, at) => {
    const { lines } = files[at]!;
    text.eachLine('some or full', (line) => {
      const row = lines.find(({ prefix }) => line.skip(prefix));
      // `full` of cpu is known, and is not wanted.
      if (row === undefined) return line.skip('full ');
      if (!line.skipPast('total=')) throw line.error('the total is missing');
      out.sample(row.family, line.unsigned('the total'));
      return true;
    });
  });
}
