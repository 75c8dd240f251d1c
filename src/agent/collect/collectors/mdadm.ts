// /proc/mdstat: of each array a line with its state and disks, which alone is not indented, one with its size, and where it is
// at work one with how far it is:
//     md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]
//           195310144 blocks [2/1] [U_]
//           [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec
// `unused devices: <none>` ends the file. A block is 1 KiB; [disks wanted/disks that work]. `broken` instead of `active`: an array
// that has lost more disks than it can do without (since 2024; before, it is `active`):
// https://lore.kernel.org/linux-raid/20240903142949.53628-1-mateusz.kusiak@intel.com/
// /sys/block/mdN/md/{raid_disks,degraded}: a number each; degraded where the level has redundancy.
// https://www.kernel.org/doc/html/latest/admin-guide/md.html
import type { FormatError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const mdadm: CollectorRow = {
  name: 'mdadm',
  enabled: 'by default',
  description: 'arrays of disks (software RAID), from /proc/mdstat and /sys/block',
  options: [],
  lane: 'slow',
  create: () => new Mdadm(),
};

const perDevice = { labels: ['device'] };
const perState = { labels: ['device', 'state'] };
const state = gauge('node_md_state', 'The state of the array: 1 for the present one, 0 for the others.', perState);
const disks = gauge('node_md_disks', 'Disks of the array that are active, failed, or spare.', perState);
const disksRequired = gauge('node_md_disks_required', 'Disks that the array needs to be whole.', perDevice);
const blocks = gauge('node_md_blocks', 'Size of the array in blocks of 1 KiB.', perDevice);
const blocksSynced = gauge(
  'node_md_blocks_synced',
  'Blocks of the array that are in sync: as many as it has, unless it is at work.',
  perDevice,
);
const degraded = gauge('node_md_degraded', 'Disks that the array lacks to be whole.', perDevice);
const raidDisks = gauge('node_md_raid_disks', 'Disks that the array is made for.', perDevice);

// `reshaping` and `broken` are none of them, as in node_exporter.
const states = ['active', 'inactive', 'recovering', 'resync', 'check'] as const;

interface MdArray {
  readonly name: string;
  /** `raid1`, empty for one that is inactive. */
  readonly level: string;
  state: (typeof states)[number] | 'reshaping' | 'broken';
  readonly failed: number;
  readonly spare: number;
  active: number;
  required: number;
  /** Undefined until the line with the size was read. */
  blocks: number | undefined;
  /** Undefined where all are. */
  synced: number | undefined;
  /** Why nothing can be said of it. */
  problem: FormatError | undefined;
}

class Mdadm implements Collector {
  collect(host: Host, out: Samples): void {
    for (const array of parseMdstat(host.read('proc/mdstat'))) {
      if (array.problem !== undefined) host.passOver(array.problem);
      else this.#collectArray(host, out, array);
    }
  }

  #collectArray(host: Host, out: Samples, array: MdArray): void {
    const { name, blocks: size = 0 } = array;
    for (const each of states) out.sample(state, array.state === each ? 1 : 0, name, each);
    out.sample(disks, array.active, name, 'active');
    out.sample(disks, array.failed, name, 'failed');
    out.sample(disks, array.spare, name, 'spare');
    out.sample(disksRequired, array.required, name);
    out.sample(blocks, size, name);
    out.sample(blocksSynced, array.synced ?? size, name);
    const folder = `sys/block/${name}/md`;
    if (host.attributes(folder).length === 0) return;
    // A container of arrays has none of its own, and a line without a number.
    const made = host.value(`${folder}/raid_disks`, parseCountIfThere);
    if (made !== undefined) out.sample(raidDisks, made, name);
    // A level without redundancy lacks no disk, and has no such file.
    const lacking = hasRedundancy.test(array.level) ? host.value(`${folder}/degraded`, parseCount) : 0;
    if (lacking !== undefined) out.sample(degraded, lacking, name);
  }
}

const hasRedundancy = /^raid(?:1|4|5|6|10)$/;

function parseCountIfThere(text: KernelText): number | undefined {
  return text.more() ? parseCount(text) : undefined;
}

function parseCount(text: KernelText): number {
  return text.unsigned('the number of disks');
}

function parseMdstat(text: KernelText): MdArray[] {
  const arrays: MdArray[] = [];
  /** The array that a line with an indentation is of. */
  let array: MdArray | undefined;
  let isWhole = false;
  text.eachLine('an array, or of unused devices', (line) => {
    const isIndented = line.isIndented();
    const entry = line.rest();
    if (entry.startsWith('unused devices:')) isWhole = true;
    if (isWhole) return true;
    if (isIndented) {
      if (array === undefined) return false;
      readSize(entry, array, line);
      readWork(entry, array, line);
      return false;
    }
    const next = readArray(entry, line);
    if (next === undefined) return false;
    arrays.push(next);
    array = next;
    return true;
  });
  for (const each of arrays) {
    if (each.blocks === undefined) each.problem ??= text.error(`the size of '${each.name}' is missing`);
  }
  const last = arrays.at(-1);
  if (!isWhole && last !== undefined) last.problem ??= text.error(`the file ends before '${last.name}' is complete`);
  return arrays;
}

/** `md3 : active raid6 sda1[8] sdb1[7](F)`; undefined where the line is none of this kind. */
function readArray(entry: string, line: KernelText): MdArray | undefined {
  const [, name, activity = '', rest = ''] = /^(\S+) : (\S+)(?: \([a-z-]+\))?( .*|)$/.exec(entry) ?? [];
  if (name === undefined || name === 'Personalities') return undefined;
  const level = /^ ([a-z]+\d*)(?= |$)/.exec(rest)?.[1] ?? '';
  const count = (mark: string) => rest.split(mark).length - 1;
  const isWithoutRedundancy = level === 'raid0' || level === 'linear';
  const members = isWithoutRedundancy ? count('[') : 0;
  const known = activities.find((each) => each === activity);
  const expected = `expected ${activities.join(', ')}`;
  const problem = known === undefined ? line.error(`'${name}' is ${JSON.stringify(activity)}, ${expected}`) : undefined;
  return {
    ...{ name, level, state: known ?? 'inactive', failed: count('(F)'), spare: count('(S)') },
    ...{ active: members, required: members, blocks: undefined, synced: undefined, problem },
  };
}

/** The word behind the name of an array. */
const activities = ['active', 'inactive', 'broken'] as const;

/** `195310144 blocks super 1.2 [2/1] [U_]` */
function readSize(entry: string, array: MdArray, line: KernelText): void {
  const size = /^(\d{1,15}) blocks\b/.exec(entry)?.[1];
  if (size === undefined) return;
  array.blocks = Number(size);
  if (array.state === 'inactive' || array.level === 'raid0' || array.level === 'linear') return;
  const [, required, active] = /\[(\d{1,9})\/(\d{1,9})\] \[[U_]+\]/.exec(entry) ?? [];
  if (required === undefined) array.problem ??= line.error(`how many disks '${array.name}' has is missing`);
  array.required = Number(required);
  array.active = Number(active);
}

/** `[=>...]  recovery =  8.5% (16775552/195310144) finish=17.0min`, or `resync=DELAYED` */
function readWork(entry: string, array: MdArray, line: KernelText): void {
  const [, work, rest = ''] = /(?:^|\s)(recovery|resync|check|reshape)\s*=(.*)$/.exec(entry) ?? [];
  if (work === undefined) return;
  array.state = work === 'recovery' ? 'recovering' : work === 'reshape' ? 'reshaping' : (work as 'resync' | 'check');
  const done = /\((\d{1,15})\/\d+\)/.exec(rest)?.[1];
  if (done !== undefined) array.synced = Number(done);
  else if (/^[A-Z]+$/.test(rest.trim())) array.synced = 0;
  else array.problem ??= line.error(`how far '${array.name}' is with its ${work} is missing`);
}
