import type { Reading, SeriesLabels } from './reading.ts';

// What the pages show of a host, computed from the reports in its window. Every rate is of two reports: the increase of a
// counter over the time between them; where a counter went back (a reboot), there is none.

/** How a host was at the time of one report. What its agent does not collect is undefined. */
export interface Vitals {
  readonly timeMs: number;
  /** Share of the processors' time that was not idle, 0 to 1. */
  readonly cpu?: number;
  /** Share of the memory that is not available, 0 to 1. */
  readonly memory?: number;
  /** The fullest file system. */
  readonly disk?: FileSystem;
  /** Bytes a second that block devices read and wrote. */
  readonly readBytes?: number;
  readonly writtenBytes?: number;
  /** Bytes a second over all interfaces but the loopback. */
  readonly receivedBytes?: number;
  readonly sentBytes?: number;
  /** Load average of a minute, by processor. */
  readonly load?: number;
  /** The share of time in which some task waited, 0 to 1, for what it waited longest. */
  readonly pressure?: { readonly resource: 'cpu' | 'memory' | 'io'; readonly share: number };
  /** The hottest sensor, in °C. */
  readonly celsius?: number;
  readonly failedUnits?: readonly string[];
  readonly uptimeSeconds?: number;
  /** Processes killed for want of memory since the boot. */
  readonly oomKills?: number;
  readonly failedCollectors: readonly FailedCollector[];
}

/** A collector that failed, and why, as its agent's log says it. */
export interface FailedCollector {
  readonly name: string;
  readonly reason: string;
}

export interface FileSystem {
  readonly mountpoint: string;
  readonly device: string;
  readonly fstype: string;
  readonly sizeBytes: number;
  /** Free for users that are not root. */
  readonly availableBytes: number;
  /** 0 to 1, of what users that are not root can have, as df shows it. */
  readonly used: number;
}

/** Of a report, with rates since an earlier one. */
export function vitalsOf(now: Reading, before: Reading | undefined): Vitals {
  const since = before === undefined ? undefined : new Since(now, before);
  const [disk] = fileSystemsOf(now).sort((a, b) => b.used - a.used);
  return {
    timeMs: now.timeMs,
    failedCollectors: failedCollectorsOf(now),
    ...defined({
      cpu: since && cpuOf(since),
      memory: memoryOf(now),
      disk,
      readBytes: since?.rate('node_disk_read_bytes_total', isWholeDisk),
      writtenBytes: since?.rate('node_disk_written_bytes_total', isWholeDisk),
      receivedBytes: since?.rate('node_network_receive_bytes_total', isNotLoopback),
      sentBytes: since?.rate('node_network_transmit_bytes_total', isNotLoopback),
      load: loadOf(now),
      pressure: since && pressureOf(since),
      celsius: celsiusOf(now),
      uptimeSeconds: uptimeOf(now),
      oomKills: now.value('node_vmstat_oom_kill'),
      failedUnits: failedUnitsOf(now),
    }),
  };
}

/** The file systems with a size, one line a device: the same one may be mounted many times. */
export function fileSystemsOf(now: Reading): FileSystem[] {
  const available = new Map<string, number>();
  const free = new Map<string, number>();
  for (const { labels, value } of now.series('node_filesystem_avail_bytes')) available.set(placeOf(labels), value);
  for (const { labels, value } of now.series('node_filesystem_free_bytes')) free.set(placeOf(labels), value);
  const found = new Map<string, FileSystem>();
  for (const { labels, value: sizeBytes } of now.series('node_filesystem_size_bytes')) {
    const place = placeOf(labels);
    const availableBytes = available.get(place);
    if (availableBytes === undefined || !(sizeBytes > 0)) continue;
    const usedBytes = sizeBytes - (free.get(place) ?? availableBytes);
    const [device = '', mountpoint = '', fstype = ''] = ['device', 'mountpoint', 'fstype'].map((name) =>
      labels.get(name),
    );
    const each = { device, mountpoint, fstype, sizeBytes, availableBytes };
    const known = found.get(device);
    // The shortest path is the one that people know.
    if (known !== undefined && device.startsWith('/') && known.mountpoint.length <= mountpoint.length) continue;
    found.set(device.startsWith('/') ? device : place, {
      ...each,
      used: usedBytes / Math.max(1, usedBytes + availableBytes),
    });
  }
  return [...found.values()];
}

const placeOf = (labels: SeriesLabels): string =>
  JSON.stringify([labels.get('device'), labels.get('mountpoint'), labels.get('fstype')]);

/** Two reports of a host, of which the second is newer. */
export class Since {
  readonly #now: Reading;
  readonly #before: Reading;
  readonly #seconds: number;

  constructor(now: Reading, before: Reading) {
    this.#now = now;
    this.#before = before;
    this.#seconds = (now.timeMs - before.timeMs) / 1000;
  }

  /** How much each series of a counter has risen, by its labels; those that are new or went back are left out. */
  *increases(name: string): Generator<{ readonly labels: SeriesLabels; readonly increase: number }> {
    for (const { labels, value, before } of this.#now.seriesSince(this.#before, name)) {
      const increase = value - before;
      if (increase >= 0) yield { labels, increase };
    }
  }

  /** The sum of these series' increases a second; undefined where there is none of them. */
  rate(name: string, isCounted: (labels: SeriesLabels) => boolean = () => true): number | undefined {
    let sum: number | undefined;
    for (const { labels, increase } of this.increases(name)) {
      if (isCounted(labels)) sum = (sum ?? 0) + increase / this.#seconds;
    }
    return this.#seconds > 0 ? sum : undefined;
  }

  /** Increases a second of each value of one label. */
  rates(name: string, label: string): Map<string, number> {
    const rates = new Map<string, number>();
    if (!(this.#seconds > 0)) return rates;
    for (const { labels, increase } of this.increases(name)) {
      const key = labels.get(label) ?? '';
      rates.set(key, (rates.get(key) ?? 0) + increase / this.#seconds);
    }
    return rates;
  }
}

/** Share of the processors' time that was not idle between two reports. */
export const cpuShare = (now: Reading, before: Reading): number | undefined => cpuOf(new Since(now, before));

function cpuOf(since: Since): number | undefined {
  let all = 0;
  let idle = 0;
  for (const { labels, increase } of since.increases('node_cpu_seconds_total')) {
    all += increase;
    const mode = labels.get('mode');
    if (mode === 'idle' || mode === 'iowait') idle += increase;
  }
  return all > 0 ? 1 - idle / all : undefined;
}

function memoryOf(now: Reading): number | undefined {
  const total = now.value('node_memory_MemTotal_bytes');
  const available = now.value('node_memory_MemAvailable_bytes');
  return total === undefined || available === undefined || !(total > 0) ? undefined : 1 - available / total;
}

function loadOf(now: Reading): number | undefined {
  const cpus = new Set<string>();
  for (const { labels } of now.series('node_cpu_seconds_total')) cpus.add(labels.get('cpu') ?? '');
  const load = now.value('node_load1');
  return load === undefined || cpus.size === 0 ? undefined : load / cpus.size;
}

function pressureOf(since: Since): Vitals['pressure'] {
  const all = (['cpu', 'memory', 'io'] as const).flatMap((resource) => {
    const share = since.rate(`node_pressure_${resource}_waiting_seconds_total`);
    return share === undefined ? [] : [{ resource, share: Math.min(1, share) }];
  });
  return all.sort((a, b) => b.share - a.share)[0];
}

function celsiusOf(now: Reading): number | undefined {
  let most: number | undefined;
  for (const name of ['node_hwmon_temp_celsius', 'node_thermal_zone_temp']) {
    for (const { value } of now.series(name)) if (!(value <= (most ?? -Infinity))) most = value;
  }
  return most;
}

function uptimeOf(now: Reading): number | undefined {
  const bootSeconds = now.value('node_boot_time_seconds');
  if (bootSeconds === undefined) return undefined;
  return Math.max(0, (now.value('node_time_seconds') ?? now.timeMs / 1000) - bootSeconds);
}

/** systemd's units that failed. An agent names only these by default, so that without one there is no such series. */
function failedUnitsOf(now: Reading): string[] | undefined {
  const failed: string[] = [];
  let isKnown = false;
  for (const { labels, value } of now.series('node_systemd_unit_state')) {
    isKnown = true;
    if (labels.get('state') === 'failed' && value === 1) failed.push(labels.get('name') ?? '');
  }
  for (const _ of now.series('node_systemd_units')) isKnown = true;
  return isKnown ? failed : undefined;
}

/** A collector whose subject this host does not have is none of them. */
export function failedCollectorsOf(now: Reading): FailedCollector[] {
  return [...now.series('sysmon_agent_collector_failed')].map(({ labels }) => ({
    name: labels.get('collector') ?? '',
    reason: labels.get('reason') ?? '',
  }));
}

/** Partitions, RAID members and loop devices are counted by what is below them. */
const isWholeDisk = (labels: SeriesLabels): boolean =>
  /^(?:[hsvx]v?d[a-z]+|nvme\d+n\d+|mmcblk\d+|dasd[a-z]+)$/.test(labels.get('device') ?? '');

const isNotLoopback = (labels: SeriesLabels): boolean => labels.get('device') !== 'lo';

/** Without the undefined ones. */
function defined<T extends object>(values: T): { [key in keyof T]?: Exclude<T[key], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [key in keyof T]?: Exclude<T[key], undefined>;
  };
}
