// /proc/diskstats: a line a block device, in records: `254 0 vda 438577 47551 13123666 922796 …`: major, minor, name, then reads
// completed, merged, sectors, milliseconds; the same of writes; I/O in flight, milliseconds of I/O, the same weighted; since
// Linux 4.18 discards as reads; since 5.5 flushes and their milliseconds. A sector is 512 bytes, whatever the device says.
// https://www.kernel.org/doc/html/latest/admin-guide/iostats.html
// /sys/block/DEVICE/queue/rotational: 0 or 1. https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-block
// /run/udev/data/bMAJOR:MINOR: what udev knows of the device, `E:ID_MODEL=…`, a line a property.
// https://www.freedesktop.org/software/systemd/man/latest/udev.html
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
  type Samples,
} from './collector.ts';

const include = patternOption('diskstats.device-include', '', 'Block devices to collect. Empty: all.');
const exclude = patternOption(
  'diskstats.device-exclude',
  '^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$',
  'Block devices to leave out, by default partitions and those in memory. Empty: none.',
);

export const diskstats: CollectorRow = {
  name: 'diskstats',
  enabled: 'by default',
  description: 'reads, writes and their time of block devices, from /proc/diskstats and /run/udev/data',
  options: [include, exclude],
  lane: 'slow',
  create: (context) => new Diskstats(new NameFilter(context.option(include), context.option(exclude)), context.clock),
};

const perDevice = { labels: ['device'] };
const milliseconds = { ...perDevice, divisor: 1000 };
const sectorBytes = 512;

/** In the order of the columns, from the fourth on. */
const columns = [
  { family: counter('node_disk_reads_completed_total', 'Reads that were completed.', perDevice), factor: 1 },
  { family: counter('node_disk_reads_merged_total', 'Reads that were merged with others.', perDevice), factor: 1 },
  { family: counter('node_disk_read_bytes_total', 'Bytes read.', perDevice), factor: sectorBytes },
  { family: counter('node_disk_read_time_seconds_total', 'Time of all reads together.', milliseconds), factor: 1 },
  { family: counter('node_disk_writes_completed_total', 'Writes that were completed.', perDevice), factor: 1 },
  { family: counter('node_disk_writes_merged_total', 'Writes that were merged with others.', perDevice), factor: 1 },
  { family: counter('node_disk_written_bytes_total', 'Bytes written.', perDevice), factor: sectorBytes },
  { family: counter('node_disk_write_time_seconds_total', 'Time of all writes together.', milliseconds), factor: 1 },
  { family: gauge('node_disk_io_now', 'Reads and writes that are under way.', perDevice), factor: 1 },
  {
    family: counter('node_disk_io_time_seconds_total', 'Time in which the device had something to do.', milliseconds),
    factor: 1,
  },
  {
    family: counter(
      'node_disk_io_time_weighted_seconds_total',
      'Time in which the device had something to do, times the reads and writes under way.',
      milliseconds,
    ),
    factor: 1,
  },
  { family: counter('node_disk_discards_completed_total', 'Discards that were completed.', perDevice), factor: 1 },
  {
    family: counter('node_disk_discards_merged_total', 'Discards that were merged with others.', perDevice),
    factor: 1,
  },
  {
    family: counter('node_disk_discarded_sectors_total', 'Sectors of 512 bytes that were discarded.', perDevice),
    factor: 1,
  },
  {
    family: counter('node_disk_discard_time_seconds_total', 'Time of all discards together.', milliseconds),
    factor: 1,
  },
  { family: counter('node_disk_flush_requests_total', 'Flushes that were completed.', perDevice), factor: 1 },
  {
    family: counter('node_disk_flush_requests_time_seconds_total', 'Time of all flushes together.', milliseconds),
    factor: 1,
  },
];
const columnNames = columns.map(({ family }) => family.name);
const columnsMin = 11;

const info = gauge('node_disk_info', 'Always 1; the labels are what the kernel and udev know of the device.', {
  labels: ['device', 'major', 'minor', 'path', 'wwn', 'model', 'serial', 'revision', 'rotational'],
});
const filesystemInfo = gauge(
  'node_disk_filesystem_info',
  'Always 1; the labels are what udev knows of its file system.',
  {
    labels: ['device', 'type', 'usage', 'uuid', 'version'],
  },
);
const deviceMapperInfo = gauge('node_disk_device_mapper_info', 'Always 1, for devices of the device mapper.', {
  labels: ['device', 'name', 'uuid', 'vg_name', 'lv_name', 'lv_layer'],
});
const ataFamilies = [
  {
    property: 'ID_ATA_WRITE_CACHE',
    family: gauge('node_disk_ata_write_cache', 'Whether the ATA disk has a write cache.', perDevice),
  },
  {
    property: 'ID_ATA_WRITE_CACHE_ENABLED',
    family: gauge('node_disk_ata_write_cache_enabled', 'Whether the write cache of the ATA disk is on.', perDevice),
  },
  {
    property: 'ID_ATA_ROTATION_RATE_RPM',
    family: gauge(
      'node_disk_ata_rotation_rate_rpm',
      'Turns of the ATA disk in a minute; 0 for one that does not turn.',
      perDevice,
    ),
  },
];

// udev writes its file a moment after a device has come, and again when a file system is made on it.
const lookAgainMs = 60_000;

interface Device {
  readonly name: string;
  readonly isKept: boolean;
  readonly major: number;
  readonly minor: number;
  readonly rotationalPath: string;
  rotational: string;
  /** The labels of `info`; the last says whether the disk turns. */
  infoLabels: readonly string[];
  /** What else is known of it, each with its labels. */
  facts: readonly Fact[];
  seen: number;
}

interface Fact {
  readonly family: ReturnType<typeof gauge>;
  readonly value: number;
  readonly labels: readonly string[];
}

class Diskstats implements Collector {
  readonly #filter: NameFilter;
  readonly #clock: CollectorContext['clock'];
  readonly #devices = new Map<string, Device>();
  readonly #counts: number[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;
  #collection = 0;

  constructor(filter: NameFilter, clock: CollectorContext['clock']) {
    this.#filter = filter;
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    this.#collection++;
    this.#lookAgain(host);
    const counts = this.#counts;
    let deviceCount = 0;
    host.read('proc/diskstats').eachLine('a block device', (line) => {
      if (!line.more() || !line.isAtDigit()) return false;
      const major = line.unsigned('the major number');
      const minor = line.unsigned('the minor number');
      const name = line.word('the name of the device');
      const count = line.unsigneds(counts, columnNames);
      if (count < columnsMin) throw line.error(`'${name}' has ${count} columns, expected at least ${columnsMin}`);
      const device = this.#device(host, { name, major, minor });
      deviceCount++;
      if (!device.isKept) return true;
      for (let at = 0; at < count; at++) {
        const { family, factor } = columns[at]!;
        out.sample(family, counts[at]! * factor, name);
      }
      readRotational(host, device);
      out.sampleLabels(info, 1, device.infoLabels);
      for (const { family, value, labels } of device.facts) out.sampleLabels(family, value, labels);
      return true;
    });
    if (deviceCount < this.#devices.size) this.#forgetTheGone();
  }

  #device(host: Host, { name, major, minor }: Pick<Device, 'name' | 'major' | 'minor'>): Device {
    let device = this.#devices.get(name);
    if (device === undefined || device.major !== major || device.minor !== minor) {
      device = {
        ...{ name, isKept: this.#filter.keeps(name), major, minor, seen: 0, infoLabels: [], facts: [] },
        ...{ rotationalPath: `sys/block/${name.replaceAll('/', '!')}/queue/rotational`, rotational: '0' },
      };
      if (device.isKept) readFacts(host, device);
      this.#devices.set(name, device);
    }
    device.seen = this.#collection;
    return device;
  }

  #lookAgain(host: Host): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lookedMs < lookAgainMs) return;
    this.#lookedMs = nowMs;
    for (const device of this.#devices.values()) if (device.isKept) readFacts(host, device);
  }

  #forgetTheGone(): void {
    for (const [name, { seen }] of this.#devices) if (seen !== this.#collection) this.#devices.delete(name);
  }
}

/** What does not answer stays as it was. A partition has no queue, and is 0 as in node_exporter. */
function readRotational(host: Host, device: Device): void {
  const rotational = host.rareValue(device.rotationalPath, parseSwitch);
  if (rotational === undefined || rotational === device.rotational) return;
  device.rotational = rotational;
  device.infoLabels = device.infoLabels.with(-1, rotational);
}

function readFacts(host: Host, device: Device): void {
  const { name, major, minor, rotational } = device;
  const udev = readProperties(host, `udev/b${major}:${minor}`);
  const of = (property: string) => udev.get(property) ?? '';
  const serial = of('SCSI_IDENT_SERIAL') || of('ID_SERIAL_SHORT') || of('ID_SERIAL');
  device.infoLabels = [
    ...[name, String(major), String(minor), of('ID_PATH'), of('ID_WWN'), of('ID_MODEL'), serial],
    ...[of('ID_REVISION'), rotational],
  ];
  const facts: Fact[] = [];
  if (of('ID_FS_TYPE') !== '') {
    const labels = ['ID_FS_TYPE', 'ID_FS_USAGE', 'ID_FS_UUID', 'ID_FS_VERSION'].map(of);
    facts.push({ family: filesystemInfo, value: 1, labels: [name, ...labels] });
  }
  if (of('DM_NAME') !== '') {
    const labels = ['DM_NAME', 'DM_UUID', 'DM_VG_NAME', 'DM_LV_NAME', 'DM_LV_LAYER'].map(of);
    facts.push({ family: deviceMapperInfo, value: 1, labels: [name, ...labels] });
  }
  if (of('ID_ATA') !== '') {
    for (const { property, family } of ataFamilies) {
      const value = of(property);
      if (/^\d{1,9}$/.test(value)) facts.push({ family, value: Number(value), labels: [name] });
    }
  }
  device.facts = facts;
}

function parseSwitch(text: KernelText): string {
  return String(text.unsigned('the switch'));
}

function readProperties(host: Host, path: string): Map<string, string> {
  const properties = new Map<string, string>();
  host.part(path, (text) =>
    text.eachLine('a line of udev', (line) => {
      // `E:ID_MODEL=…` is a property, `S:…` a link, `I:…` a time.
      const entry = line.rest();
      const equals = entry.indexOf('=');
      if (entry.startsWith('E:') && equals > 0) properties.set(entry.slice(2, equals), entry.slice(equals + 1));
      return /^[A-Z]:/.test(entry);
    }),
  );
  return properties;
}
