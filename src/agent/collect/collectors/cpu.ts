// /proc/stat: `cpu0 2629 0 1439 95833 18 0 32 4 0 0`, a line a CPU, in ticks of 1/100 s: user nice system idle iowait
// irq softirq steal guest guest_nice. The line `cpu` is their sum.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
// /sys/devices/system/cpu: isolated and online (`2-3,5`), cpuN/online where a CPU can be taken offline, cpuN/thermal_throttle/{core,package}_throttle_count,
// cpuN/topology/{physical_package_id,core_id}.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu
// /proc/cpuinfo: src/agent/collect/proc/cpu-info.ts
import { parseCpuInfo } from '../proc/cpu-info.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  NameFilter,
  patternOption,
  type Samples,
  switchOption,
} from './collector.ts';

const guestTime = switchOption('cpu.guest', 'true', 'Collect the time that CPUs spent in guests (virtual machines).');

const withInfo = switchOption(
  'cpu.info',
  'false',
  'Collect what /proc/cpuinfo says of each CPU, and its frequency. The frequency takes the kernel a while on large hosts.',
);
const flags = patternOption(
  'cpu.info.flags-include',
  '',
  'Flags of the first CPU to collect. Empty: none. Sets --cpu.info.',
);
const bugs = patternOption(
  'cpu.info.bugs-include',
  '',
  'Bugs of the first CPU to collect. Empty: none. Sets --cpu.info.',
);

export const cpu: CollectorRow = {
  name: 'cpu',
  enabled: 'by default',
  description:
    'seconds of each CPU in each mode, throttling and isolation, from /proc/stat and /sys/devices/system/cpu',
  options: [guestTime, withInfo, flags, bugs],
  create: (context) => {
    const { flagsInclude, bugsInclude } = { flagsInclude: context.option(flags), bugsInclude: context.option(bugs) };
    const hasInfo = context.option(withInfo) || flagsInclude !== undefined || bugsInclude !== undefined;
    return new Cpu(context.option(guestTime), hasInfo ? new CpuInfo(flagsInclude, bugsInclude) : undefined);
  },
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
const online = gauge('node_cpu_online', 'Whether the CPU is online: 1, or 0.', { labels: ['cpu'] });
const info = gauge('node_cpu_info', 'Always 1; the labels are what /proc/cpuinfo says of the CPU.', {
  labels: [
    ...['package', 'core', 'cpu', 'vendor', 'family', 'model', 'model_name', 'microcode', 'stepping', 'cachesize'],
  ],
});
/** cpufreq gives it, too, with the label cpu alone. */
export const frequency = gauge('node_cpu_frequency_hertz', 'Frequency at which the CPU runs.', {
  labels: ['package', 'core', 'cpu'],
});
const flagInfo = gauge(
  'node_cpu_flag_info',
  'Always 1, for each flag of the first CPU that --cpu.info.flags-include names.',
  {
    labels: ['flag'],
  },
);
const bugInfo = gauge(
  'node_cpu_bug_info',
  'Always 1, for each bug of the first CPU that --cpu.info.bugs-include names.',
  {
    labels: ['bug'],
  },
);

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
  readonly #info: CpuInfo | undefined;
  readonly #online = new Online();
  #cpus: CpuTime[] = [];
  #isolated: readonly string[] = [];
  #throttles: readonly ThrottleFile[] = [];

  constructor(guest: boolean, cpuInfo: CpuInfo | undefined) {
    this.#guest = guest;
    this.#info = cpuInfo;
  }

  collect(host: Host, out: Samples): void {
    const text = host.read('proc/stat');
    const { cpus, changed } = readCpus(text, this.#cpus);
    if (changed) {
      this.#isolated = readIsolated(host);
      this.#throttles = findThrottles(host, cpus);
      this.#online.look(host);
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
    this.#online.collect(host, out);
    this.#info?.collect(host, out);
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
  return host.value(`${cpuFolder}/isolated`, parseCpuList) ?? [];
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

const cpuFolder = 'sys/devices/system/cpu';

/**
 * Which CPUs are online, from one list for all. As in node_exporter there is no series where the first CPU has no file of
 * its own, as on most x86 machines.
 */
class Online {
  #cpus: readonly string[] = [];
  #list = '';
  #online: ReadonlySet<string> = new Set();

  /** When CPUs have come or gone. */
  look(host: Host): void {
    const names = host.exists(`${cpuFolder}/cpu0/online`) ? host.attributes(cpuFolder, /^cpu\d+$/) : [];
    this.#cpus = names.map((name) => name.slice('cpu'.length)).sort((a, b) => Number(a) - Number(b));
  }

  collect(host: Host, out: Samples): void {
    if (this.#cpus.length === 0) return;
    const set = host.value(`${cpuFolder}/online`, (text) => this.#parse(text));
    if (set === undefined) return;
    for (const name of this.#cpus) out.sample(online, set.has(name) ? 1 : 0, name);
  }

  #parse(text: KernelText): ReadonlySet<string> {
    const list = text.rest();
    if (list !== this.#list) {
      this.#online = new Set(list.split(',').flatMap((range) => parseRange(range, text)));
      this.#list = list;
    }
    return this.#online;
  }
}

/** What /proc/cpuinfo says. Labels are made when it says something else. */
class CpuInfo {
  readonly #flags: NameFilter | undefined;
  readonly #bugs: NameFilter | undefined;
  readonly #labels = new Map<string, readonly string[]>();
  readonly #frequencyLabels = new Map<string, readonly string[]>();

  constructor(flagsInclude: RegExp | undefined, bugsInclude: RegExp | undefined) {
    this.#flags = flagsInclude && new NameFilter(flagsInclude, undefined);
    this.#bugs = bugsInclude && new NameFilter(bugsInclude, undefined);
  }

  collect(host: Host, out: Samples): void {
    host.part('proc/cpuinfo', (text) => {
      const cpus = parseCpuInfo(text);
      for (const each of cpus) {
        const { packageId, coreId, processor, vendor, family, model, modelName, microcode, stepping, cacheSize } = each;
        const labels = [packageId, coreId, processor, vendor, family, model, modelName, microcode, stepping, cacheSize];
        out.sampleLabels(info, 1, kept(this.#labels, labels));
      }
      for (const { packageId, coreId, processor, megahertz } of cpus) {
        if (megahertz === undefined) continue;
        const labels = kept(this.#frequencyLabels, [packageId, coreId, processor]);
        out.sampleLabels(frequency, Math.round(megahertz * 1_000_000), labels);
      }
      for (const flag of cpus[0]?.flags ?? []) if (this.#flags?.keeps(flag)) out.sample(flagInfo, 1, flag);
      for (const bug of cpus[0]?.bugs ?? []) if (this.#bugs?.keeps(bug)) out.sample(bugInfo, 1, bug);
    });
  }
}

/** The same array as the last time for the CPU, whose number is the third label, if it has the same labels. */
function kept(known: Map<string, readonly string[]>, labels: readonly string[]): readonly string[] {
  const cpu = labels[2]!;
  const last = known.get(cpu);
  if (last?.every((label, at) => label === labels[at])) return last;
  known.set(cpu, labels);
  return labels;
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
    const folder = `${cpuFolder}/cpu${name}`;
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
