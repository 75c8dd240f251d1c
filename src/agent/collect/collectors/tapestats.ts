// /sys/class/scsi_tape/stN/stats: a file of one number each: bytes, counts, and nanoseconds; since Linux 4.2. The same drive is there
// under more names (nst0, st0a), each with the same numbers.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-scsi_tape
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
} from './collector.ts';

const ignored = patternOption('tapestats.ignored-devices', '^$', 'Tape drives to leave out.');

export const tapestats: CollectorRow = {
  name: 'tapestats',
  enabled: 'by default',
  description: 'reads, writes and their time of tape drives, from /sys/class/scsi_tape',
  options: [ignored],
  lane: 'slow',
  create: (context) => new Tapestats(new NameFilter(undefined, context.option(ignored))),
};

const perDevice = { labels: ['device'] };
const nanoseconds = { ...perDevice, divisor: 1_000_000_000 };
const attributes: readonly { readonly file: string; readonly family: SampledFamily }[] = [
  {
    file: 'in_flight',
    family: gauge('node_tape_io_now', 'Reads, writes and other commands that are under way.', perDevice),
  },
  { file: 'io_ns', family: counter('node_tape_io_time_seconds_total', 'Time of all commands.', nanoseconds) },
  {
    file: 'other_cnt',
    family: counter('node_tape_io_others_total', 'Commands that were neither reads nor writes.', perDevice),
  },
  { file: 'read_byte_cnt', family: counter('node_tape_read_bytes_total', 'Bytes read.', perDevice) },
  { file: 'read_cnt', family: counter('node_tape_reads_completed_total', 'Reads that were completed.', perDevice) },
  { file: 'read_ns', family: counter('node_tape_read_time_seconds_total', 'Time of all reads.', nanoseconds) },
  {
    file: 'resid_cnt',
    family: counter('node_tape_residual_total', 'Reads and writes that moved less than was asked for.', perDevice),
  },
  { file: 'write_byte_cnt', family: counter('node_tape_written_bytes_total', 'Bytes written.', perDevice) },
  { file: 'write_cnt', family: counter('node_tape_writes_completed_total', 'Writes that were completed.', perDevice) },
  { file: 'write_ns', family: counter('node_tape_write_time_seconds_total', 'Time of all writes.', nanoseconds) },
];

const folder = 'sys/class/scsi_tape';

class Tapestats implements Collector {
  readonly #filter: NameFilter;
  /** The files of each drive. */
  readonly #paths = new Map<string, readonly string[]>();

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    for (const drive of host.devices(folder, /^st\d+$/)) {
      const paths = this.#pathsOf(drive);
      for (let at = 0; at < paths.length; at++) {
        const value = host.value(paths[at]!, parseNumber);
        if (value !== undefined) out.sample(attributes[at]!.family, value, drive);
      }
    }
  }

  #pathsOf(drive: string): readonly string[] {
    let paths = this.#paths.get(drive);
    if (paths === undefined) {
      const isKept = this.#filter.keeps(drive);
      paths = isKept ? attributes.map(({ file }) => `${folder}/${drive}/stats/${file}`) : [];
      this.#paths.set(drive, paths);
    }
    return paths;
  }
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}
