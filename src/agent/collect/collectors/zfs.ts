// /proc/spl/kstat/zfs: a file a subject, and a folder a pool; they are there once the module is loaded. Below two lines of
// headings a line a number; type 4 is unsigned, 3 signed, and there are others, such as texts.
//     13 1 0x01 96 4608 1521614520 2017011510
//     name                            type data
//     hits                            4    8772612
// POOL/io has a line of names and one of numbers (until OpenZFS 2.0), POOL/state a word, POOL/objset-0x… is a dataset:
//     dataset_name                    7    pool1/data
//     writes                          4    4
// https://openzfs.github.io/openzfs-docs/Performance%20and%20Tuning/index.html
// https://github.com/openzfs/zfs/blob/master/module/os/linux/spl/spl-kstat.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples, untyped } from './collector.ts';

export const zfs: CollectorRow = {
  name: 'zfs',
  enabled: 'by default',
  description: 'ZFS: cache, pools and datasets, from /proc/spl/kstat/zfs',
  options: [],
  create: () => new Zfs(),
};

const folder = 'proc/spl/kstat/zfs';
const subjects: readonly (readonly [file: string, prefix: string])[] = [
  ['abdstats', 'abd'],
  ['arcstats', 'arc'],
  ['dbufstats', 'dbuf'],
  ['dmu_tx', 'dmu_tx'],
  ['dnodestats', 'dnode'],
  ['fm', 'fm'],
  ['vdev_cache_stats', 'vdev_cache'],
  ['vdev_mirror_stats', 'vdev_mirror'],
  ['xuio_stats', 'xuio'],
  ['zfetchstats', 'zfetch'],
  ['zil', 'zil'],
];

const states = ['online', 'degraded', 'faulted', 'offline', 'removed', 'unavail', 'suspended'] as const;
const poolState = gauge('node_zfs_zpool_state', 'Whether a pool is in a state: 1, or 0.', {
  labels: ['zpool', 'state'],
});

class Zfs implements Collector {
  readonly #families = new Map<string, SampledFamily>();

  collect(host: Host, out: Samples): void {
    const names = host.devices(folder);
    for (const [file, prefix] of subjects) {
      if (!names.includes(file)) continue;
      host.part(`${folder}/${file}`, (text) => {
        readNumbers(text, (name, number) => {
          out.sample(this.#familyOf(`${prefix}_${name}`, `${name} of ${file}`, []), number);
        });
      });
    }
    // A pool is a folder; the others are files, and have no files in them.
    const files = new Set(subjects.map(([file]) => file));
    for (const pool of names.filter((name) => !files.has(name))) this.#collectPool(host, out, pool);
  }

  #collectPool(host: Host, out: Samples, pool: string): void {
    for (const file of host.attributes(`${folder}/${pool}`)) {
      const path = `${folder}/${pool}/${file}`;
      if (file === 'io') host.part(path, (text) => this.#readIo(text, out, pool));
      if (file.startsWith('objset-')) host.part(path, (text) => this.#readDataset(text, out, pool));
      if (file === 'state') {
        const state = host.value(path, parseState);
        for (const name of states) if (state !== undefined) out.sample(poolState, state === name ? 1 : 0, pool, name);
      }
    }
  }

  #readIo(text: KernelText, out: Samples, pool: string): void {
    let names: readonly string[] | undefined;
    const numbers: number[] = [];
    text.eachLine("numbers below 'nread'", (line) => {
      if (names === undefined) {
        const found = line.rest().split(/\s+/);
        if (found[0] === 'nread' && found.length >= 12) names = found;
        return false;
      }
      const found = line.unsigneds(numbers, names);
      if (found < names.length) throw line.error(`it has ${found} columns, expected ${names.length}`);
      for (const [at, name] of names.entries()) {
        out.sample(this.#familyOf(`zpool_${name}`, `${name} of the io of a pool`, ['zpool']), numbers[at]!, pool);
      }
      return true;
    });
  }

  #readDataset(text: KernelText, out: Samples, pool: string): void {
    let dataset: string | undefined;
    readNumbers(
      text,
      (name, number) => {
        if (dataset === undefined) return;
        const family = this.#familyOf(`zpool_dataset_${name}`, `${name} of a dataset`, ['zpool', 'dataset']);
        out.sample(family, number, pool, dataset);
      },
      (name) => {
        dataset = name;
      },
    );
  }

  #familyOf(name: string, what: string, labels: readonly string[]): SampledFamily {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = untyped(`node_zfs_${name.replaceAll('-', '_')}`, `ZFS: ${what}.`, { labels });
      this.#families.set(name, family);
    }
    return family;
  }
}

/** Below `name type data`. */
function readNumbers(
  text: KernelText,
  give: (name: string, number: number) => void,
  giveDataset?: (name: string) => void,
): void {
  let isBelow = false;
  text.eachLine("a number below 'name type data'", (line) => {
    const name = line.word('the name');
    if (!isBelow) {
      isBelow = name === 'name' && /^\s*type\s+data\s*$/.test(line.peek());
      return false;
    }
    const type = line.word('the type');
    if (name === 'dataset_name') giveDataset?.(line.rest());
    if (type !== '3' && type !== '4') return false;
    if (!/^[\w-]+$/.test(name)) throw line.error(`'${name}' is no name of a number`);
    give(name, type === '3' ? line.signed(name) : line.unsigned(name));
    return true;
  });
}

function parseState(line: KernelText): string {
  return line.word('the state').toLowerCase();
}
