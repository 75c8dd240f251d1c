// /sys/fs/bcachefs/UUID: btree_cache_size; compression_stats and btree_write_stats, tables with a line of headings; errors, a
// line an error; counters/NAME, with a number since the mount and one since the file system was made; dev-N, a folder for each
// device. Numbers are in units of 1024: `2.05G`.
//     type              compressed    uncompressed     average extent size
//     lz4                    48.9G           71.2G                   62.5k
// https://bcachefs-docs.readthedocs.io/en/latest/options.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/fs/bcachefs/sysfs.c?h=v6.16
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
} from './collector.ts';

export const bcachefs: CollectorRow = {
  name: 'bcachefs',
  enabled: 'by default',
  description: 'bcachefs file systems: counters, compression, errors, devices, from /sys/fs/bcachefs',
  options: [],
  lane: 'slow',
  create: () => new Bcachefs(),
};

const labels = ['uuid'];
const info = gauge('node_bcachefs_info', 'A bcachefs file system: 1.', { labels });
const cacheSize = gauge('node_bcachefs_btree_cache_size_bytes', 'Memory of the cache of B-tree nodes, in bytes.', {
  labels,
});
const ofAlgorithm = [...labels, 'algorithm'];
const compressed = gauge('node_bcachefs_compression_compressed_bytes', 'Size of compressed data, in bytes.', {
  labels: ofAlgorithm,
});
const uncompressed = gauge(
  'node_bcachefs_compression_uncompressed_bytes',
  'Size that compressed data would have without compression, in bytes.',
  { labels: ofAlgorithm },
);
const errors = counter('node_bcachefs_errors_total', 'Errors of the file system by their kind.', {
  labels: [...labels, 'error_type'],
});
const ofType = [...labels, 'type'];
const writes = counter('node_bcachefs_btree_writes_total', 'Writes of B-tree nodes by their reason.', {
  labels: ofType,
});
const writeSize = gauge('node_bcachefs_btree_write_average_size_bytes', 'Average size of such a write, in bytes.', {
  labels: ofType,
});

const ofDevice = [...labels, 'device'];
const deviceInfo = gauge('node_bcachefs_device_info', 'Always 1; label and states of a device, its own in brackets.', {
  labels: [...ofDevice, 'label', 'state'],
});
const bucketSize = gauge('node_bcachefs_device_bucket_size_bytes', 'Size of a bucket of the device, in bytes.', {
  labels: ofDevice,
});
const buckets = gauge('node_bcachefs_device_buckets', 'Buckets of the device.', { labels: ofDevice });
const durability = gauge('node_bcachefs_device_durability', 'As how many copies one on this device counts.', {
  labels: ofDevice,
});
const deviceBytes = counter('node_bcachefs_device_io_done_bytes_total', 'Bytes read and written by kind of data.', {
  labels: [...ofDevice, 'operation', 'data_type'],
});
const deviceErrors = counter('node_bcachefs_device_io_errors_total', 'I/O errors of the device by their kind.', {
  labels: [...ofDevice, 'type'],
});

/** By the name of the file: which counters there are, the kernel says. */
const counterFamilies = new Map<string, SampledFamily>();

function counterOf(file: string): SampledFamily {
  let family = counterFamilies.get(file);
  if (family === undefined) {
    const name = file.replaceAll(/[^a-zA-Z0-9_]/g, '_');
    const help = `What bcachefs counts as ${file}, since the file system was made.`;
    family = counter(`node_bcachefs_${name}_total`, help, { labels });
    counterFamilies.set(file, family);
  }
  return family;
}

class Bcachefs implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    for (const uuid of host.devices('sys/fs/bcachefs', /-/)) this.#collectOne(host, out, uuid);
    this.#labels.endCollection();
  }

  #collectOne(host: Host, out: Samples, uuid: string): void {
    const folder = `sys/fs/bcachefs/${uuid}`;
    const names = host.attributes(folder);
    // One that has gone since it was listed has nothing of all this.
    if (names.length === 0) return;
    out.sample(info, 1, uuid);
    const bytes = host.value(`${folder}/btree_cache_size`, parseSize);
    if (bytes !== undefined) out.sample(cacheSize, bytes, uuid);
    host.part(`${folder}/compression_stats`, (text) => {
      text.eachLine('an algorithm', (line) => {
        const algorithm = nameIn(line);
        if (algorithm === undefined) return false;
        const small = line.humanSize('the compressed size');
        const large = line.humanSize('the uncompressed size');
        out.sample(compressed, small, uuid, algorithm);
        out.sample(uncompressed, large, uuid, algorithm);
        return true;
      });
    });
    host.part(`${folder}/errors`, (text) => {
      // There were none.
      if (text.isEmpty) return;
      text.eachLine('an error', (line) => {
        const type = nameIn(line);
        if (type === undefined) return false;
        out.sample(errors, line.unsigned('the number of errors'), uuid, type);
        return true;
      });
    });
    host.part(`${folder}/btree_write_stats`, (text) => {
      text.eachLine('a reason', (line) => {
        const type = nameIn(line);
        if (type === undefined) return false;
        const count = line.unsigned('the number of writes');
        const size = line.humanSize('the average size');
        out.sample(writes, count, uuid, type);
        out.sample(writeSize, size, uuid, type);
        return true;
      });
    });
    for (const file of host.attributes(`${folder}/counters`)) {
      host.part(`${folder}/counters/${file}`, (text) => {
        text.eachLine('the number since the file system was made', (line) => {
          if (!line.skip('since filesystem creation:')) return false;
          out.sample(counterOf(file), countIn(line), uuid);
          return true;
        });
      });
    }
    for (const name of names.filter((each) => each.startsWith('dev-'))) {
      this.#collectDevice(host, out, { folder: `${folder}/${name}`, uuid, device: name.slice('dev-'.length) });
    }
  }

  #collectDevice(
    host: Host,
    out: Samples,
    { folder, uuid, device }: { readonly folder: string; readonly uuid: string; readonly device: string },
  ): void {
    const state = host.value(`${folder}/state`, parseText);
    const label = host.rareText(`${folder}/label`, '');
    if (state !== undefined) out.sampleLabels(deviceInfo, 1, this.#labels.of(uuid, device, label ?? '', state));
    const size = host.rareValue(`${folder}/bucket_size`, parseSize);
    if (size !== undefined) out.sample(bucketSize, size, uuid, device);
    const count = host.rareValue(`${folder}/nbuckets`, parseNumber);
    if (count !== undefined) out.sample(buckets, count, uuid, device);
    const copies = host.rareValue(`${folder}/durability`, parseNumber);
    if (copies !== undefined) out.sample(durability, copies, uuid, device);
    host.part(`${folder}/io_done`, (text) => {
      let operation: string | undefined;
      text.eachLine('a kind of data', (line) => {
        const key = line.keyIfThere()?.trim();
        if (key === 'read' || key === 'write') operation = key;
        if (key === undefined || operation === undefined || !line.more()) return false;
        const bytes = line.unsigned(key);
        out.sampleLabels(deviceBytes, bytes, this.#labels.of(uuid, device, operation, key));
        return true;
      });
    });
    host.part(`${folder}/io_errors`, (text) => {
      let isSinceCreation = false;
      text.eachLine('a kind of error', (line) => {
        if (line.skip('IO errors since ')) isSinceCreation = line.skip('filesystem creation');
        const type = isSinceCreation ? line.keyIfThere()?.trim() : undefined;
        if (type === undefined) return false;
        const number = line.unsigned(type);
        out.sampleLabels(deviceErrors, number, this.#labels.of(uuid, device, type));
        return true;
      });
    });
  }
}

/** The first word, without a colon; undefined where no number follows, as in a heading. */
function nameIn(line: KernelText): string | undefined {
  const name = line.word('the name');
  if (!line.more() || !line.isAtDigit()) return undefined;
  return name.endsWith(':') ? name.slice(0, -1) : name;
}

/** Some kernels print all of its digits, others a size. */
function countIn(line: KernelText): number {
  return /^\s*\d+\s*$/.test(line.peek()) ? line.unsigned('the count') : line.humanSize('the count');
}

function parseSize(text: KernelText): number {
  return text.humanSize('the size');
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}

function parseText(text: KernelText): string {
  return text.rest();
}
