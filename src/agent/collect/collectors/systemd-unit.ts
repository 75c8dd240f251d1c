// What each slice, service and container uses, from the files of its control group below /sys/fs/cgroup (cgroup v2):
// cpu.stat, memory.current and their like. https://docs.kernel.org/admin-guide/cgroup-v2.html
//     cpu.stat       usage_usec 1294113            memory.events  oom_kill 1
//                    user_usec 873000              io.stat        8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0
//                    system_usec 421113            cpu.pressure   some avg10=0.00 avg60=0.00 avg300=0.00 total=51221
// Memory's peak came with Linux 5.19, cpu.pressure's `full` with 5.13. A file is missing where its controller is off.
import { integer, type OptionRow, option } from '../../../runtime/options.ts';
import { type ControlGroup, controlGroups, findControlGroups } from '../proc/control-groups.ts';
import { CollectError, NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorContext,
  type CollectorRow,
  counter,
  gauge,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
  whole,
} from './collector.ts';

const include = patternOption(
  'systemd-unit.name-include',
  '',
  'Slices, services, scopes and containers to collect, matched as a whole. Empty: all.',
);
/** Sessions, what systemd-run makes where it is given no name, and single runs of podman's health checks. */
const exclude = patternOption(
  'systemd-unit.name-exclude',
  'session-c?\\d+\\.scope|run-(r[0-9a-f]{32}|u\\d+(-s\\d+)?|p\\d+(-i\\d+)?)\\.(scope|service)|[0-9a-f]{64}(-.*)?\\.service',
  'Slices, services, scopes and containers to leave out, matched as a whole. Empty: none.',
);
const max: OptionRow<number> = option({
  name: 'systemd-unit.max',
  placeholder: 'COUNT',
  parse: integer({ min: 1, max: 2000 }),
  default: '200',
  help: 'Most slices, services, scopes and containers to collect: those with the most memory.',
});

export const systemdUnit: CollectorRow = {
  name: 'systemd-unit',
  enabled: 'by default',
  description:
    'CPU, memory, I/O, tasks and pressure of slices, services and containers, from /sys/fs/cgroup (cgroup v2)',
  options: [include, exclude, max],
  create: (context) => new SystemdUnits(context),
};

const perUnit = (name: string, help: string) => counter(`node_systemd_unit_${name}`, help, { labels: ['name'] });
const sizeOf = (name: string, help: string) => gauge(`node_systemd_unit_${name}`, help, { labels: ['name'] });
const microseconds = (name: string, help: string) =>
  counter(`node_systemd_unit_${name}`, help, { labels: ['name'], divisor: 1_000_000 });

const cpuSeconds = counter('node_systemd_unit_cpu_seconds_total', 'CPU time that a unit has used.', {
  labels: ['name', 'mode'],
  divisor: 1_000_000,
});
const leftOut = gauge(
  'sysmon_agent_systemd_units_left_out',
  'Slices, services, scopes and containers that are not collected: others have more memory (--systemd-unit.max), or there are too many to look at.',
);

/** What is read of a unit, each at its place in `Unit.values`: NaN is absent. */
const families: readonly (SampledFamily | undefined)[] = [
  undefined, // the user's part of cpuSeconds, below
  undefined, // the system's
  counter('node_systemd_unit_cpu_throttled_periods_total', 'Periods in which a unit had used up its CPU quota.', {
    labels: ['name'],
  }),
  microseconds('cpu_throttled_seconds_total', 'Time for which a unit had to wait because its CPU quota was used up.'),
  sizeOf('memory_current_bytes', 'Memory of a unit, its page cache included.'),
  sizeOf('memory_peak_bytes', 'The most memory that a unit has had at a time.'),
  sizeOf('memory_swap_bytes', 'Swap of a unit.'),
  perUnit('oom_kills_total', 'Processes of a unit that the OOM killer has killed.'),
  perUnit('io_read_bytes_total', 'Bytes that a unit has read from block devices. A device on another counts at both.'),
  perUnit('io_written_bytes_total', 'Bytes that a unit has written to block devices.'),
  perUnit('io_reads_completed_total', 'Reads of a unit from block devices.'),
  perUnit('io_writes_completed_total', 'Writes of a unit to block devices.'),
  sizeOf('tasks_current', 'Processes and threads of a unit.'),
  sizeOf('tasks_max', 'The most processes and threads that a unit may have; absent without a limit.'),
  microseconds('pressure_cpu_waiting_seconds_total', 'Time in which a task of a unit waited for a CPU.'),
  microseconds('pressure_cpu_stalled_seconds_total', 'Time in which all tasks of a unit waited for a CPU.'),
  microseconds('pressure_memory_waiting_seconds_total', 'Time in which a task of a unit waited for memory.'),
  microseconds('pressure_memory_stalled_seconds_total', 'Time in which all tasks of a unit waited for memory.'),
  microseconds('pressure_io_waiting_seconds_total', 'Time in which a task of a unit waited for I/O.'),
  microseconds('pressure_io_stalled_seconds_total', 'Time in which all tasks of a unit waited for I/O.'),
];
const place = {
  user: 0,
  system: 1,
  throttled: 2,
  throttledTime: 3,
  memory: 4,
  peak: 5,
  swap: 6,
  oomKills: 7,
  io: 8,
  tasks: 12,
  tasksMax: 13,
  cpuPressure: 14,
  memoryPressure: 16,
  ioPressure: 18,
} as const;

/** The other files, which are read when a unit has used CPU time, and now and then. */
const files: readonly { readonly name: string; read(host: Host, path: string, values: Float64Array): void }[] = [
  { name: 'memory.current', read: valueInto(place.memory) },
  { name: 'memory.peak', read: valueInto(place.peak) },
  { name: 'memory.swap.current', read: valueInto(place.swap) },
  {
    name: 'memory.events',
    read: (host, path, values) => keyedInto(host, path, { keys: oomKeys, values, at: place.oomKills }),
  },
  { name: 'io.stat', read: readIo },
  { name: 'pids.current', read: valueInto(place.tasks) },
  { name: 'pids.max', read: valueInto(place.tasksMax) },
  { name: 'cpu.pressure', read: pressureInto(place.cpuPressure) },
  { name: 'memory.pressure', read: pressureInto(place.memoryPressure) },
  { name: 'io.pressure', read: pressureInto(place.ioPressure) },
];

/** A group that came in the same interval as another went changes no count, so the tree is walked now and then anyway. */
const walkEveryMs = 30_000;
/** A unit that uses no CPU changes little: what others do to it (reclaim, writeback) is seen this late. */
const idleReadEveryMs = 30_000;
/** Not to change the choice whenever two units have nearly the same. */
const advantage = 1.25;

interface Unit extends ControlGroup {
  /** Undefined before Linux 4.15. */
  readonly cpuPath: string | undefined;
  cpuKeys: readonly string[];
  readonly files: readonly { readonly path: string; read(host: Host, path: string, values: Float64Array): void }[];
  readonly values: Float64Array;
  /** Microseconds of CPU time the last time; NaN where there is no cpu.stat. */
  usage: number;
  /** When the other files are read the next time, though it has used no CPU time. */
  readAtMs: number;
}

class SystemdUnits implements Collector {
  readonly #clock: CollectorContext['clock'];
  readonly #filter: NameFilter;
  readonly #max: number;
  #units: Unit[] = [];
  #leftOut = 0;
  #groups = Number.NaN;
  #walkAtMs = Number.NEGATIVE_INFINITY;

  constructor(context: CollectorContext) {
    this.#clock = context.clock;
    this.#filter = new NameFilter(whole(context.option(include)), whole(context.option(exclude)));
    this.#max = context.option(max);
  }

  collect(host: Host, out: Samples): void {
    const nowMs = this.#clock.monotonicMs();
    const groups = this.#groupCount(host);
    if (groups !== this.#groups || nowMs >= this.#walkAtMs) {
      this.#choose(host, nowMs);
      this.#groups = groups;
      this.#walkAtMs = nowMs + walkEveryMs;
    }
    for (const unit of this.#units) if (readUnit(host, unit, nowMs)) sampleUnit(out, unit);
    out.sample(leftOut, this.#leftOut);
  }

  /** NaN where it is not known; throws NoDataError without cgroup v2. */
  #groupCount(host: Host): number {
    const path = `${controlGroups}/cgroup.stat`;
    const count = new Float64Array(1);
    if (host.readIfThere(path) === undefined) throw new NoDataError(host.path(path), ' does not exist: no cgroup v2');
    return keyedInto(host, path, { keys: groupKeys, values: count, at: 0 }) ? count[0]! : Number.NaN;
  }

  #choose(host: Host, nowMs: number): void {
    const { groups: candidates, leftOut: notFound } = findControlGroups(host, (name) => this.#filter.keeps(name));
    const known = new Map(this.#units.map((unit) => [unit.path, unit]));
    const chosen = candidates.length <= this.#max ? candidates : this.#largest(host, candidates, known);
    this.#leftOut = notFound + candidates.length - chosen.length;
    this.#units = chosen.flatMap((each) => {
      const unit = known.get(each.path);
      // Another controller: other files, and other lines in cpu.stat.
      return unit?.controllers === each.controllers ? unit : (newUnit(host, each, nowMs) ?? []);
    });
  }

  #largest(host: Host, candidates: readonly ControlGroup[], known: ReadonlyMap<string, Unit>): readonly ControlGroup[] {
    const weighed = candidates.map((candidate, at) => {
      const bytes = host.value(`${candidate.path}/memory.current`, parseCount) ?? 0;
      const isKnown = known.has(candidate.path);
      return { candidate, at, isKnown: Number(isKnown), weight: isKnown ? bytes * advantage : bytes };
    });
    // Without a number of the memory controller all are equal.
    weighed.sort((a, b) => b.weight - a.weight || b.isKnown - a.isKnown || a.at - b.at);
    return weighed
      .slice(0, this.#max)
      .sort((a, b) => a.at - b.at)
      .map(({ candidate }) => candidate);
  }
}

/** Sorted; empty where the group has just gone. */
function namesIn(host: Host, path: string): readonly string[] {
  return host.attributes(path);
}

function newUnit(host: Host, group: ControlGroup, nowMs: number): Unit | undefined {
  const { path } = group;
  const there = new Set(namesIn(host, path));
  if (there.size === 0) return undefined;
  return {
    ...group,
    ...{ cpuPath: there.has('cpu.stat') ? `${path}/cpu.stat` : undefined, cpuKeys, usage: Number.NaN, readAtMs: nowMs },
    files: files.filter((file) => there.has(file.name)).map(({ name, read }) => ({ path: `${path}/${name}`, read })),
    values: new Float64Array(families.length).fill(Number.NaN),
  };
}

/** False where the group is gone. */
function readUnit(host: Host, unit: Unit, nowMs: number): boolean {
  const usage = readCpu(host, unit);
  if (usage === undefined) return false;
  const isIdle = usage === unit.usage && nowMs < unit.readAtMs;
  unit.usage = usage;
  if (isIdle) return true;
  unit.readAtMs = nowMs + idleReadEveryMs;
  for (const { path, read } of unit.files) read(host, path, unit.values);
  return true;
}

/** CPU time in microseconds, NaN where it is not known, undefined where the group is gone. */
function readCpu(host: Host, unit: Unit): number | undefined {
  const { values, cpuPath, cpuKeys: keys } = unit;
  if (cpuPath === undefined) return Number.NaN;
  const isRead = keyedInto(host, cpuPath, { keys, values: cpuUsage, at: 0 });
  if (isRead === undefined) return undefined;
  for (let at = 0; at < 4; at++) values[at] = at + 1 < keys.length ? cpuUsage[at + 1]! : Number.NaN;
  // Without the controller the kernel has no lines of a quota.
  if (isRead && Number.isNaN(cpuUsage[4])) unit.cpuKeys = cpuKeysShort;
  return cpuUsage[0]!;
}

const cpuUsage = new Float64Array(5);

function sampleUnit(out: Samples, { name, values }: Unit): void {
  if (!Number.isNaN(values[place.user])) out.sample(cpuSeconds, values[place.user]!, name, 'user');
  if (!Number.isNaN(values[place.system])) out.sample(cpuSeconds, values[place.system]!, name, 'system');
  for (let at = place.throttled; at < families.length; at++) {
    const value = values[at]!;
    if (!Number.isNaN(value)) out.sample(families[at]!, value, name);
  }
}

const cpuKeysShort = ['usage_usec ', 'user_usec ', 'system_usec '];
const cpuKeys = [...cpuKeysShort, 'nr_throttled ', 'throttled_usec '];
const oomKeys = ['oom_kill '];
const groupKeys = ['nr_descendants '];
const found: number[] = [];

/**
 * The numbers behind these words, into `values` from `at` on; NaN for a word that is not there. False where the file
 * cannot be read or parsed, undefined where it is missing.
 */
function keyedInto(
  host: Host,
  path: string,
  { keys, values, at }: { readonly keys: readonly string[]; readonly values: Float64Array; readonly at: number },
): boolean | undefined {
  try {
    const text = host.readIfThere(path);
    if (text === undefined) return undefined;
    if (!text.unsignedsBehind(keys, found)) readKeyed(text, keys);
    for (let index = 0; index < keys.length; index++) values[at + index] = found[index]!;
    return true;
  } catch (error) {
    for (let index = 0; index < keys.length; index++) values[at + index] = Number.NaN;
    host.passOver(error);
    return false;
  }
}

/** Line by line, which says what is wrong. */
function readKeyed(text: KernelText, keys: readonly string[]): void {
  for (let index = 0; index < keys.length; index++) found[index] = Number.NaN;
  text.eachLine(`'${keys[0]!.trimEnd()}'`, (line) => {
    const index = keys.indexOf(`${line.word('a name')} `);
    if (index < 0) return false;
    found[index] = line.unsigned(keys[index]!.trimEnd());
    return true;
  });
}

function valueInto(at: number) {
  return (host: Host, path: string, values: Float64Array): void => {
    values[at] = host.value(path, parseCount) ?? Number.NaN;
  };
}

/** `max` is no limit, and so no number. */
function parseCount(text: KernelText): number {
  return text.skip('max') ? Number.NaN : text.unsigned('the number');
}

/** A line for each device. A sum that lacks one of them would be wrong. */
function readIo(host: Host, path: string, values: Float64Array): void {
  const sums = [0, 0, 0, 0];
  let isWhole = true;
  try {
    const text = host.readIfThere(path);
    if (text !== undefined && !text.isEmpty) {
      text.eachLine('a device', (line) => {
        if (!skipToCounts(line)) return true;
        isWhole = false;
        sums[0]! += line.unsigned('rbytes');
        for (let index = 1; index < ioKeys.length; index++) {
          line.more();
          if (!line.skip(ioKeys[index]!)) throw line.error(`expected ${ioKeys[index]} after ${ioKeys[index - 1]}`);
          sums[index]! += line.unsigned(ioKeys[index]!);
        }
        isWhole = true;
        return true;
      });
    }
  } catch (error) {
    isWhole = false;
    host.passOver(error);
  }
  for (let index = 0; index < ioKeys.length; index++) values[place.io + index] = isWhole ? sums[index]! : Number.NaN;
}

/**
 * False for a device without I/O. Linux 5.15 to 5.18 does not end the line of such a device, so that the next one follows on the
 * same: `7:7 7:6 8:0 rbytes=4096 …` (https://git.kernel.org/linus/3607849df478).
 */
function skipToCounts(line: KernelText): boolean {
  line.word('the device');
  while (line.more()) {
    if (line.skip(ioKeys[0]!)) return true;
    line.skipWord();
  }
  return false;
}

const ioKeys = ['rbytes=', 'wbytes=', 'rios=', 'wios='];

function pressureInto(at: number) {
  return (host: Host, path: string, values: Float64Array): void => {
    values[at] = Number.NaN;
    values[at + 1] = Number.NaN;
    try {
      host.readIfThere(path)?.eachLine('pressure', (line) => {
        const kind = line.word('some or full');
        if (kind !== 'some' && kind !== 'full') return false;
        while (line.more() && !line.skip('total=')) line.word('an average');
        values[kind === 'some' ? at : at + 1] = line.unsigned('total');
        return true;
      });
    } catch (error) {
      // Switched off (EOPNOTSUPP), or a kernel whose files nobody may read.
      if (!(error instanceof CollectError)) throw error;
      host.passOver(error);
    }
  };
}
