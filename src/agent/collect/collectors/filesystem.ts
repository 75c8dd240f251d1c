// /proc/1/mountinfo (proc/self where that cannot be seen or opened: hidepid), a line a mount, in records: number, parent,
// major:minor, root, mount point, options, optional fields up to a hyphen; then type, source, options of the superblock.
//     36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#proc-pid-mountinfo-information-about-mounts
// A space, a tab, a newline and a backslash in a path are \040, \011, \012 and \134. The size of each is what statfs(2)
// says, which waits for the server of a network file system, for ever if need be.
import { UnreadableError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { FileSystemSize } from '../proc/system.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, NameFilter, patternOption, type Samples } from './collector.ts';

const defaultMountPoints = '^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)';
const defaultTypes =
  '^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|' +
  'procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$';

const pointsExclude = patternOption(
  'filesystem.mount-points-exclude',
  defaultMountPoints,
  'Mount points to leave out. The default does not apply with --filesystem.mount-points-include.',
);
const pointsInclude = patternOption('filesystem.mount-points-include', '', 'Mount points to collect. Empty: all.');
const typesExclude = patternOption(
  'filesystem.fs-types-exclude',
  defaultTypes,
  'Types of file systems to leave out. The default does not apply with --filesystem.fs-types-include.',
);
const typesInclude = patternOption('filesystem.fs-types-include', '', 'Types of file systems to collect. Empty: all.');

export const filesystem: CollectorRow = {
  name: 'filesystem',
  enabled: 'by default',
  description: 'size, free space and errors of mounted file systems, from /proc/1/mountinfo and statfs(2)',
  options: [pointsExclude, pointsInclude, typesExclude, typesInclude],
  lane: 'slow',
  create: (context) =>
    new Filesystem(
      filter(context.option(pointsInclude), context.option(pointsExclude), defaultMountPoints),
      filter(context.option(typesInclude), context.option(typesExclude), defaultTypes),
    ),
};

/** As in node_exporter: what is to be included is not left out by default. */
function filter(include: RegExp | undefined, exclude: RegExp | undefined, excludeDefault: string): NameFilter {
  const isDefault = String(exclude) === String(new RegExp(excludeDefault));
  return new NameFilter(include, include !== undefined && isDefault ? undefined : exclude);
}

const labels = ['device', 'mountpoint', 'fstype', 'device_error'];

const size = gauge('node_filesystem_size_bytes', 'Size of the file system.', { labels });
const free = gauge('node_filesystem_free_bytes', 'Free space, with what is reserved for root.', { labels });
const available = gauge('node_filesystem_avail_bytes', 'Free space that everybody may use.', { labels });
const files = gauge('node_filesystem_files', 'Files (inodes) that the file system can hold.', { labels });
const filesFree = gauge('node_filesystem_files_free', 'Files (inodes) that can still be created.', { labels });
const readonly = gauge('node_filesystem_readonly', 'Whether the file system is read-only: 1, or 0.', { labels });
const deviceError = gauge(
  'node_filesystem_device_error',
  'Whether the file system could not be asked for its size: 1, with the reason as a label, or 0.',
  { labels },
);
const mountInfo = gauge('node_filesystem_mount_info', "Always 1; the numbers of the file system's device.", {
  labels: ['device', 'major', 'minor', 'mountpoint'],
});

interface Mount {
  readonly device: string;
  readonly point: string;
  readonly type: string;
  readonly isReadonly: boolean;
  /** The labels while there is no error, and those of `mountInfo`. */
  readonly labels: readonly string[];
  readonly infoLabels: readonly string[];
}

class Filesystem implements Collector {
  readonly #points: NameFilter;
  readonly #types: NameFilter;
  /** Those of the same text, the last time. */
  #mounts: readonly Mount[] = [];
  #text = Buffer.alloc(0);

  constructor(points: NameFilter, types: NameFilter) {
    this.#points = points;
    this.#types = types;
  }

  collect(host: Host, out: Samples): void {
    const text = readMountinfo(host);
    const content = text.content();
    if (!this.#text.equals(content) || content.length === 0) {
      const mounts = this.#read(text);
      // One with a broken line is read again each time, and the line is said again.
      this.#text = mounts.isWhole ? Buffer.from(content) : Buffer.alloc(0);
      this.#mounts = mounts.kept;
    }
    for (const mount of this.#mounts) collectMount(host, out, mount);
  }

  #read(text: KernelText): { readonly kept: readonly Mount[]; readonly isWhole: boolean } {
    const kept = new Map<string, Mount>();
    let lines = 0;
    let read = 0;
    text.eachLine('a mount', (line) => {
      lines++;
      const mount = parseMount(line);
      read++;
      // The same device may be mounted twice at one point.
      const key = mount.labels.join('\0');
      if (this.#points.keeps(mount.point) && this.#types.keeps(mount.type) && !kept.has(key)) kept.set(key, mount);
      return true;
    });
    return { kept: [...kept.values()], isWhole: lines === read };
  }
}

/** With hidepid=2 there is no /proc/1, with hidepid=1 nothing in it may be opened (EPERM); SELinux says EACCES. */
function readMountinfo(host: Host): KernelText {
  try {
    const text = host.readIfThere('proc/1/mountinfo');
    if (text !== undefined) return text;
  } catch (error) {
    if (!(error instanceof UnreadableError && (error.errno === 'EACCES' || error.errno === 'EPERM'))) throw error;
  }
  return host.readIfThere('proc/self/mountinfo') ?? host.read('proc/1/mountinfo');
}

function parseMount(line: KernelText): Mount {
  line.unsigned('the number of the mount');
  line.unsigned('the number of its parent');
  const [major = '', minor = ''] = line.word('the number of its device').split(':');
  if (!/^\d+$/.test(major) || !/^\d+$/.test(minor)) throw line.error('the number of its device should be two numbers');
  line.word('its root');
  const point = unescaped(line.word('the mount point'));
  if (!point.startsWith('/')) throw line.error('the mount point should begin with a slash');
  const options = line.word('its options');
  while (line.word('the hyphen') !== '-');
  const type = line.word('the type');
  const device = unescaped(line.word('the device'));
  const superOptions = line.word('the options of the superblock');
  return {
    device,
    point,
    type,
    isReadonly: /(?:^|,)ro(?:,|$)/.test(options) || /(?:^|,)(?:emergency_)?ro(?:,|$)/.test(superOptions),
    labels: [device, point, type, ''],
    infoLabels: [device, major, minor, point],
  };
}

function unescaped(path: string): string {
  if (!path.includes('\\')) return path;
  return path.replaceAll(/\\(040|011|012|043|134)/g, (_, code: string) =>
    String.fromCharCode(Number.parseInt(code, 8)),
  );
}

function collectMount(host: Host, out: Samples, { device, point, type, isReadonly, labels, infoLabels }: Mount): void {
  const found = sizeOf(host, point);
  if (found === undefined) return;
  if (typeof found === 'string') {
    const withError = [device, point, type, found];
    out.sampleLabels(deviceError, 1, withError);
    out.sampleLabels(readonly, isReadonly && found !== timeout ? 1 : 0, withError);
    return;
  }
  out.sampleLabels(deviceError, 0, labels);
  out.sampleLabels(readonly, isReadonly ? 1 : 0, labels);
  out.sampleLabels(size, found.blocks * found.bsize, labels);
  out.sampleLabels(free, found.bfree * found.bsize, labels);
  out.sampleLabels(available, found.bavail * found.bsize, labels);
  out.sampleLabels(files, found.files, labels);
  out.sampleLabels(filesFree, found.ffree, labels);
  out.sampleLabels(mountInfo, 1, infoLabels);
}

/** node_exporter's word for a mount that does not answer. */
const timeout = 'mountpoint timeout';

/** The size, or why there is none; undefined where that is not known yet. */
function sizeOf(host: Host, point: string): FileSystemSize | string | undefined {
  try {
    return host.fileSystem(`root${point}`);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    return error.errno === 'late' ? timeout : (errorTexts.get(error.errno) ?? error.errno);
  }
}

/** As node_exporter has them in its label. https://man7.org/linux/man-pages/man2/statfs.2.html#ERRORS */
const errorTexts: ReadonlyMap<string, string> = new Map([
  ['EACCES', 'permission denied'],
  ['EPERM', 'operation not permitted'],
  ['ENOENT', 'no such file or directory'],
  ['ENOTDIR', 'not a directory'],
  ['EIO', 'input/output error'],
  ['ENOTCONN', 'transport endpoint is not connected'],
  ['ESTALE', 'stale NFS file handle'],
  ['EHOSTDOWN', 'host is down'],
  ['EHOSTUNREACH', 'no route to host'],
  ['ETIMEDOUT', 'connection timed out'],
  ['ECONNREFUSED', 'connection refused'],
  ['ECONNABORTED', 'software caused connection abort'],
  ['ENODEV', 'no such device'],
  ['ENXIO', 'no such device or address'],
  ['ELOOP', 'too many levels of symbolic links'],
  ['ENAMETOOLONG', 'file name too long'],
  ['EOVERFLOW', 'value too large for defined data type'],
]);
