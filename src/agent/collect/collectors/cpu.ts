// /proc/stat: `cpu0 2629 0 1439 95833 18 0 32 4 0 0`, a line a CPU, in ticks of 1/100 s: user nice system idle iowait
// irq softirq steal guest guest_nice. The line `cpu` is their sum.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
// /sys/devices/system/cpu: isolated (`2-3,5`), cpuN/thermal_throttle/{core,package}_throttle_count,
// cpuN/topology/{physical_package_id,core_id}.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, gauge, type Samples, switchOption } from './collector.ts';

const guestTime = switchOption('cpu.guest', 'true', 'Collect the time that CPUs spent in guests (virtual machines).');

export const cpu: CollectorRow = {
  name: 'cpu',
  enabled: 'by default',
  description:
    'seconds of each CPU in each mode, throttling and isolation, from /proc/stat and /sys/devices/system/cpu',
  options: [guestTime],
  create: (context) => new Cpu(context.option(guestTime)),
};

// USER_HZ is 100 on every machine that Node.js runs on.
const inTicks = { divisor: 100 };
const modeSeconds = counter('node_cpu_seconds_total', 'Time that the CPUs spent in each mode.', {
  labels: ['cpu', 'mode'],
  ...inTicks,
});
const guestSeconds = counter(
  'node_cpu_guest_seconds_total',
  'Time that the CPUs spent in virtual machines; it is part of user and nice too.',
  { labels: ['cpu', 'mode'], ...inTicks },
);
const isolated = gauge('node_cpu_isolated', 'Always 1, for CPUs that the scheduler leaves alone.', { labels: ['cpu'] });
const coreThrottles = counter('node_cpu_core_throttles_total', 'Times that a core was slowed down for its heat.', {
  labels: ['package', 'core'],
});
const packageThrottles = counter('node_cpu_package_throttles_total', 'Times that a CPU was slowed down for its heat.', {
  labels: ['package'],
});

const modes = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq', 'steal'] as const;
const guestModes = ['user', 'nice'] as const;
const columnNames: readonly string[] = [...modes, ...guestModes.map((mode) => `guest ${mode}`)];
const columnCount = columnNames.length;
const idleColumn = modes.indexOf('idle');
// iowait and idle can fall by a little, also while a CPU is taken offline and online again. A fall by more than this is
// a counter that started at zero again.
const idleDropTicks = 300;

class Cpu implements Collector {
  readonly #guest: boolean;
  #cpus: CpuTime[] = [];
  #isolated: readonly string[] = [];
  #throttles: readonly ThrottleFile[] = [];

  constructor(guest: boolean) {
    this.#guest = guest;
  }

  collect(host: Host, out: Samples): void {
    const text = host.read('proc/stat');
    const { cpus, changed } = readCpus(text, this.#cpus);
    if (changed) {
      this.#isolated = readIsolated(host);
      this.#throttles = findThrottles(host, cpus);
      this.#cpus = cpus;
    }
    for (const { name, ticks, columns } of cpus) {
      for (let at = 0; at < modes.length && at < columns; at++) out.sample(modeSeconds, ticks[at]!, name, modes[at]);
    }
    if (this.#guest) {
      for (const { name, ticks, columns } of cpus) {
        for (let at = 0; at + modes.length < columns; at++) {
          out.sample(guestSeconds, ticks[at + modes.length]!, name, guestModes[at]);
        }
      }
    }
    for (const name of this.#isolated) out.sample(isolated, 1, name);
    for (const file of this.#throttles) collectThrottle(host, out, file);
  }
}

interface CpuTime {
  readonly name: string;
  /** The highest value of each column so far: Prometheus takes a counter that falls for a restart. */
  readonly ticks: Float64Array;
  /** How many columns this kernel has. */
  columns: number;
}

/** Reads into the CPUs of the last time as far as they are the same ones in the same order. */
function readCpus(text: KernelText, last: CpuTime[]): { cpus: CpuTime[]; changed: boolean } {
  let cpus = last;
  let count = 0;
  text.eachLine('a CPU', (line) => {
    if (!line.skip('cpu') || line.skip(' ')) return false;
    const name = line.word('the number of a CPU');
    const columns = line.unsigneds(scratch, columnNames);
    if (columns <= idleColumn) throw line.error(`cpu${name} has ${columns} columns, expected at least 4`);
    if (cpus[count]?.name !== name) {
      if (cpus === last) cpus = last.slice(0, count);
      cpus[count] = last.find((known) => known.name === name) ?? newCpuTime(name);
    }
    addTicks(cpus[count]!, columns);
    count++;
    return true;
  });
  // CPUs that are gone are forgotten: one that comes back starts at its own value.
  return { cpus: count < cpus.length ? cpus.slice(0, count) : cpus, changed: cpus !== last || count < last.length };
}

function newCpuTime(name: string): CpuTime {
  return { name, ticks: new Float64Array(columnCount), columns: 0 };
}

/** The columns of the line that is being read. */
const scratch: number[] = [];

function addTicks(cpu: CpuTime, columns: number): void {
  const { ticks } = cpu;
  if (ticks[idleColumn]! - scratch[idleColumn]! >= idleDropTicks) ticks.fill(0);
  for (let at = 0; at < columns; at++) if (scratch[at]! > ticks[at]!) ticks[at] = scratch[at]!;
  cpu.columns = columns;
}

function readIsolated(host: Host): string[] {
  return host.value('sys/devices/system/cpu/isolated', parseCpuList) ?? [];
}

function parseCpuList(text: KernelText): string[] {
  const list = text.rest();
  return list === '' ? [] : list.split(',').flatMap((range) => parseRange(range, text));
}

// Linux has at most 8192, on any machine.
const cpuNumberMax = 65_535;

/** `2-5` or `7`. */
function parseRange(range: string, text: KernelText): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(range);
  const first = Number(match?.[1]);
  const last = match?.[2] === undefined ? first : Number(match[2]);
  if (match === null || last < first || last > cpuNumberMax) {
    throw text.error(`${JSON.stringify(range)} should be a CPU, or a range like 2-5`);
  }
  return Array.from({ length: last - first + 1 }, (_, at) => String(first + at));
}

interface ThrottleFile {
  readonly path: string;
  readonly packageId: string;
  /** Undefined for the count of a whole package. */
  readonly coreId: string | undefined;
}

/** One file for each core and for each package, however many threads share it. */
function findThrottles(host: Host, cpus: readonly CpuTime[]): ThrottleFile[] {
  const files = new Map<string, ThrottleFile>();
  for (const { name } of cpus) {
    const folder = `sys/devices/system/cpu/cpu${name}`;
    const corePath = `${folder}/thermal_throttle/core_throttle_count`;
    const packagePath = `${folder}/thermal_throttle/package_throttle_count`;
    const hasCore = host.exists(corePath);
    const hasPackage = host.exists(packagePath);
    if (!hasCore && !hasPackage) continue;
    const packageId = host.value(`${folder}/topology/physical_package_id`, parseId);
    const coreId = host.value(`${folder}/topology/core_id`, parseId);
    if (packageId === undefined || coreId === undefined) continue;
    const core = `core ${packageId} ${coreId}`;
    if (hasCore && !files.has(core)) files.set(core, { path: corePath, packageId, coreId });
    if (hasPackage && !files.has(packageId)) files.set(packageId, { path: packagePath, packageId, coreId: undefined });
  }
  return [...files.values()];
}

function parseId(text: KernelText): string {
  return String(text.unsigned('the number'));
}

function parseCount(text: KernelText): number {
  return text.unsigned('the count');
}

function collectThrottle(host: Host, out: Samples, { path, packageId, coreId }: ThrottleFile): void {
  const count = host.value(path, parseCount);
  if (count === undefined) return;
  if (coreId === undefined) out.sample(packageThrottles, count, packageId);
  else out.sample(coreThrottles, count, packageId, coreId);
}
