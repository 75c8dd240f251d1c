import { seriesKey } from '../support/agents-record.ts';

/** A series as `/proc` has it, by what node_exporter calls it. Read by other means than the agent's. */
export interface DirectSeries {
  readonly family: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly type: 'counter' | 'gauge';
  readonly value: number;
}

/** Everything that `stat`, `meminfo`, `loadavg` and `net/dev` say, by the key of the series for this agent. */
export function readFourFiles(agent: string, read: (file: string) => string): Map<string, DirectSeries> {
  const series = new Map<string, DirectSeries>();
  const add = (type: 'counter' | 'gauge', family: string, value: number, labels: Record<string, string> = {}) =>
    series.set(seriesKey(family, { ...labels, agent }), { family, type, value, labels });
  readStat(read('stat'), add);
  readMeminfo(read('meminfo'), add);
  readLoadavg(read('loadavg'), add);
  readNetDev(read('net/dev'), add);
  return series;
}

type Add = (type: 'counter' | 'gauge', family: string, value: number, labels?: Record<string, string>) => void;

const modes = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq', 'steal'];

function readStat(text: string, add: Add): void {
  const first = (key: string) => Number(new RegExp(`^${key} (\\d+)`, 'm').exec(text)?.[1]);
  add('counter', 'node_intr_total', first('intr'));
  add('counter', 'node_context_switches_total', first('ctxt'));
  add('counter', 'node_forks_total', first('processes'));
  add('gauge', 'node_boot_time_seconds', first('btime'));
  add('gauge', 'node_procs_running', first('procs_running'));
  add('gauge', 'node_procs_blocked', first('procs_blocked'));
  for (const [, cpu, counts] of text.matchAll(/^cpu(\d+) (.*)$/gm)) {
    const ticks = counts!.split(' ').map(Number);
    for (const [at, mode] of modes.entries()) {
      add('counter', 'node_cpu_seconds_total', ticks[at]! / 100, { cpu: cpu!, mode });
    }
    add('counter', 'node_cpu_guest_seconds_total', ticks[8]! / 100, { cpu: cpu!, mode: 'user' });
    add('counter', 'node_cpu_guest_seconds_total', ticks[9]! / 100, { cpu: cpu!, mode: 'nice' });
  }
}

// What newer kernels have and node_exporter's list of fields has not.
const noMeminfo =
  /^(KReclaimable|SecPageTables|FileHugePages|FilePmdMapped|Unaccepted|Balloon|Hugetlb|GPUActive|GPUReclaim)$/;

function readMeminfo(text: string, add: Add): void {
  for (const [, field, number, unit] of text.matchAll(/^(.+?): +(\d+)( kB)?$/gm)) {
    if (noMeminfo.test(field!)) continue;
    const name = field!.replace('(', '_').replace(')', '');
    if (unit === undefined) add('gauge', `node_memory_${name}`, Number(number));
    else add('gauge', `node_memory_${name}_bytes`, Number(number) * 1024);
  }
}

function readLoadavg(text: string, add: Add): void {
  const [load1, load5, load15] = text.split(' ');
  add('gauge', 'node_load1', Number(load1));
  add('gauge', 'node_load5', Number(load5));
  add('gauge', 'node_load15', Number(load15));
}

const columns = [
  ...['bytes', 'packets', 'errs', 'drop', 'fifo', 'frame', 'compressed', 'multicast'].map((name) => `receive_${name}`),
  ...['bytes', 'packets', 'errs', 'drop', 'fifo', 'colls', 'carrier', 'compressed'].map((name) => `transmit_${name}`),
];

function readNetDev(text: string, add: Add): void {
  for (const [, device, counts] of text.matchAll(/^ *(\S+): *([\d ]+)$/gm)) {
    const numbers = counts!.trim().split(/ +/).map(Number);
    for (const [at, column] of columns.entries()) {
      add('counter', `node_network_${column}_total`, numbers[at]!, { device: device! });
    }
  }
}
