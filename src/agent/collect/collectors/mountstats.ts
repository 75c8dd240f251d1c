// /proc/self/mountstats: a line a mount; below that of an NFS mount what its client counted.
//     device server:/srv mounted on /mnt with fstype nfs4 statvers=1.1
//     	age:	13968
//     	bytes:	1207640230 0 0 0 1210214218 0 295483 0
//     	events:	52 226 0 0 1 13 398 0 0 331 0 47 0 0 77 0 0 77 0 0 0 0 0 0 0 0 0
//     	xprt:	tcp 832 0 1 0 11 6428 6428 0 12154 0 24 26 5726
//     	per-op statistics
//     	        READ: 1298 1298 0 207680 1210292152 6 79386 79407 0
// With nconnect there are several xprt. The counts of an operation grew a ninth (errors) with Linux 5.3, xprt the last
// three with statvers=1.1 (Linux 3.0). RDMA has others behind its tenth.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/fs/nfs/super.c
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/sunrpc/stats.c
// The address of the server is in /proc/self/mountinfo: `addr=` of its last field.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#proc-pid-mountinfo-information-about-mounts
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  type FamilyOptions,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
} from './collector.ts';

export const mountstats: CollectorRow = {
  name: 'mountstats',
  enabled: 'on request',
  description: 'what the NFS client did for each mount, from /proc/self/mountstats',
  options: [],
  create: () => new Mountstats(),
};

const mountLabels = ['export', 'protocol', 'mountaddr'];
const nfs = (name: string, help: string, options: FamilyOptions = {}) =>
  counter(`node_mountstats_nfs_${name}`, help, { labels: mountLabels, ...options });
const nfsGauge = (name: string, help: string, options: FamilyOptions) =>
  gauge(`node_mountstats_nfs_${name}`, help, options);

const age = nfs('age_seconds_total', 'How long ago an NFS file system was mounted, in seconds.');
const info = nfsGauge('mountpoint_info', 'An NFS mount point: 1.', { labels: [...mountLabels, 'mountpoint'] });

/** In the order of `bytes:`. */
const byteFamilies: readonly SampledFamily[] = [
  nfs('read_bytes_total', 'Bytes that programs read.'),
  nfs('write_bytes_total', 'Bytes that programs wrote.'),
  nfs('direct_read_bytes_total', 'Bytes that programs read with O_DIRECT.'),
  nfs('direct_write_bytes_total', 'Bytes that programs wrote with O_DIRECT.'),
  nfs('total_read_bytes_total', 'Bytes that were read from the server.'),
  nfs('total_write_bytes_total', 'Bytes that were written to the server.'),
  nfs('read_pages_total', 'Pages that were read for mapped files.'),
  nfs('write_pages_total', 'Pages that were written for mapped files.'),
];

/** In the order of `events:`; undefined for one that node_exporter does not give either. */
const eventFamilies: readonly (SampledFamily | undefined)[] = [
  event('inode_revalidate', 'Attributes of a file in the cache that were asked for again.'),
  event('dnode_revalidate', 'Names in the cache that were asked for again.'),
  event('data_invalidate', 'Caches of a file that were thrown away.'),
  event('attribute_invalidate', 'Attributes in the cache that were no longer valid.'),
  event('vfs_open', 'Files and folders that were opened.'),
  event('vfs_lookup', 'Names that were looked up.'),
  event('vfs_access', 'Permissions that were checked.'),
  event('vfs_update_page', 'Pages that were changed.'),
  event('vfs_read_page', 'Pages that were read singly.'),
  event('vfs_read_pages', 'Groups of pages that were read.'),
  event('vfs_write_page', 'Pages that were written singly.'),
  event('vfs_write_pages', 'Groups of pages that were written.'),
  event('vfs_getdents', 'Folders that were listed.'),
  event('vfs_setattr', 'Attributes that were set.'),
  event('vfs_flush', 'Files whose changes were written when they were closed.'),
  event('vfs_fsync', 'Calls of fsync() for files and folders.'),
  event('vfs_lock', 'Locks that were asked for.'),
  event('vfs_file_release', 'Files that were closed and released.'),
  undefined, // waits for congestion
  event('truncation', 'Files that were truncated.'),
  event('write_extension', 'Files that a write behind their end made longer.'),
  event('silly_rename', 'Files that were deleted while they were open.'),
  event('short_read', 'Reads to which the server gave less than was asked for.'),
  event('short_write', 'Writes of which the server took less than it was given.'),
  event('jukebox_delay', 'Calls that the server put off (EJUKEBOX): the file is not at hand.'),
  event('pnfs_read', 'Reads by parallel NFS.'),
  event('pnfs_write', 'Writes by parallel NFS.'),
];

function event(name: string, help: string): SampledFamily {
  return nfs(`event_${name}_total`, help);
}

const operationLabels = [...mountLabels, 'operation'];
/** In the order of the line of an operation; the ninth, errors, node_exporter does not give. */
const operationFamilies: readonly SampledFamily[] = [
  operation('requests_total', 'Calls of an operation.'),
  operation('transmissions_total', 'How often calls of an operation were sent.'),
  operation('major_timeouts_total', 'Calls of an operation that waited for longer than their time-out.'),
  operation('sent_bytes_total', 'Bytes that were sent for an operation, headers included.'),
  operation('received_bytes_total', 'Bytes that were received for an operation, headers included.'),
  operation('queue_time_seconds_total', 'How long calls of an operation waited to be sent, in seconds.', 1000),
  operation('response_time_seconds_total', 'How long the server took for calls of an operation, in seconds.', 1000),
  operation('request_time_seconds_total', 'How long calls of an operation took in all, in seconds.', 1000),
];

function operation(name: string, help: string, divisor = 1): SampledFamily {
  return nfs(`operations_${name}`, help, { labels: operationLabels, divisor });
}

const transportLabels = [...mountLabels, 'transport'];
const transport = {
  bind: perTransport('bind_total', 'How often a connection to the server was begun from scratch.'),
  connect: perTransport('connect_total', 'TCP connections to the server.'),
  idle: nfsGauge('transport_idle_time_seconds', 'How long ago a transport was last used, in seconds.', {
    labels: transportLabels,
  }),
  sends: perTransport('sends_total', 'Calls that were sent to the server.'),
  receives: perTransport('receives_total', 'Answers that were received from the server.'),
  badIds: perTransport('bad_transaction_ids_total', 'Answers of the server to a call that nobody had made.'),
  backlog: perTransport('backlog_queue_total', 'Calls that waited for a slot, summed up at each call.'),
  slots: nfsGauge('transport_maximum_rpc_slots', 'The most slots for calls that were ever in use.', {
    labels: transportLabels,
  }),
  sending: perTransport('sending_queue_total', 'Calls that waited to be sent, summed up at each call.'),
  pending: perTransport('pending_queue_total', 'Calls that waited for an answer, summed up at each call.'),
};

function perTransport(name: string, help: string): SampledFamily {
  return nfs(`transport_${name}`, help, { labels: transportLabels });
}

// What stands behind the port, by protocol. Undefined: not shown.
type Columns = readonly (SampledFamily | undefined)[];
const { bind, connect, idle, sends, receives, badIds, backlog, slots, sending, pending } = transport;
const columnsOf: ReadonlyMap<string, Columns> = new Map<string, Columns>([
  ['tcp', [bind, connect, undefined, idle, sends, receives, badIds, undefined, backlog, slots, sending, pending]],
  ['udp', [bind, sends, receives, badIds, undefined, backlog, slots, sending, pending]],
  ['rdma', [bind, connect, undefined, idle, sends, receives, badIds, undefined, backlog]],
]);

const byteNames = columnNames('bytes', byteFamilies.length);
const eventNames = columnNames('events', eventFamilies.length);
const operationNames = columnNames('the operation', operationFamilies.length);
const transportNames = columnNames('xprt', 12);

function columnNames(of: string, count: number): string[] {
  return Array.from({ length: count }, (_, at) => `column ${at + 1} of ${of}`);
}

/** One NFS mount, as far as its lines were read. */
interface Mount {
  readonly export: string;
  readonly mountPoint: string;
  readonly address: string;
  age: number | undefined;
  bytes: readonly number[];
  events: readonly number[];
  readonly transports: { readonly protocol: string; readonly counts: readonly number[] }[];
  /** Of each protocol that nothing was given of yet: for these the operations follow. */
  protocols: readonly string[];
}

/** Which mount the lines are of. `other`: one that is not NFS, or whose own line could not be read. */
type Block =
  | { readonly kind: 'other' }
  | { readonly kind: 'head'; readonly mount: Mount }
  | { readonly kind: 'operations'; readonly mount: Mount };

class Mountstats implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    let block: Block = { kind: 'other' };
    const addresses = readAddresses(host);
    const given = new Set<string>();
    const end = () => {
      if (block.kind === 'head') this.#giveHead(out, block.mount, given);
    };
    host.read('proc/self/mountstats').eachLine('a mount', (line) => {
      if (line.skip('device ') || line.skip('no device ')) {
        end();
        block = { kind: 'other' };
        const read = readMount(line);
        const address = read === undefined ? undefined : addresses.get(read.mountPoint);
        // It was mounted between the two reads, or its line in mountinfo cannot be read: it has no labels.
        if (read === undefined || address === undefined) return true;
        block = { kind: 'head', mount: newMount(read, address) };
        return true;
      }
      if (line.skip('per-op statistics')) {
        end();
        if (block.kind !== 'other') block = { kind: 'operations', mount: block.mount };
        return true;
      }
      if (block.kind === 'head') return readHead(line, block.mount);
      if (block.kind === 'other') return false;
      this.#giveOperation(line, out, block.mount);
      return true;
    });
    end();
    this.#labels.endCollection();
  }

  #giveHead(out: Samples, mount: Mount, given: Set<string>): void {
    const protocols: string[] = [];
    for (const { protocol } of mount.transports) {
      const labels = this.#labels.of(mount.export, protocol, mount.address);
      const key = labels.join('\n');
      // Two mounts of one export share their counts; each has its mount point.
      const infoKey = `${key}\n${mount.mountPoint}`;
      if (!given.has(infoKey)) out.sampleLabels(info, 1, this.#labels.of(...labels, mount.mountPoint));
      given.add(infoKey);
      if (given.has(key)) break;
      given.add(key);
      protocols.push(protocol);
      this.#giveCounts(out, mount, labels);
    }
    mount.protocols = protocols;
  }

  #giveCounts(out: Samples, mount: Mount, labels: readonly string[]): void {
    if (mount.age !== undefined) out.sampleLabels(age, mount.age, labels);
    for (let at = 0; at < mount.bytes.length; at++) out.sampleLabels(byteFamilies[at]!, mount.bytes[at]!, labels);
    for (let at = 0; at < mount.events.length; at++) {
      const family = eventFamilies[at];
      if (family !== undefined) out.sampleLabels(family, mount.events[at]!, labels);
    }
    for (const [number, { protocol, counts }] of mount.transports.entries()) {
      const transportLabelValues = this.#labels.of(...labels, String(number));
      const columns = columnsOf.get(protocol)!;
      for (let at = 0; at < counts.length; at++) {
        const family = columns[at];
        if (family !== undefined) out.sampleLabels(family, counts[at]!, transportLabelValues);
      }
    }
  }

  #giveOperation(line: KernelText, out: Samples, mount: Mount): void {
    const name = line.key('the name of an operation');
    const counts: number[] = [];
    const found = line.unsigneds(counts, operationNames);
    if (found < counts.length || found < operationNames.length) {
      throw line.error(`'${name}' has ${found} columns, expected ${operationNames.length}`);
    }
    for (const protocol of mount.protocols) {
      const labels = this.#labels.of(mount.export, protocol, mount.address, name);
      for (let at = 0; at < found; at++) {
        const family = operationFamilies[at]!;
        // As node_exporter: a time that the kernel has counted below 0 is close to 2^64.
        out.sampleLabels(family, family.divisor === 1 ? counts[at]! : counts[at]! % 2 ** 53, labels);
      }
    }
  }
}

/** The mount's device and where it is; undefined where it is not NFS. Behind `device `. */
function readMount(line: KernelText): { readonly export: string; readonly mountPoint: string } | undefined {
  const [device = '', mountPoint, type, version] = line.rest().split(/ mounted on | with fstype | statvers=/);
  if (mountPoint === undefined || type === undefined) throw line.error('it does not say what is mounted, and where');
  if (version === undefined || (type !== 'nfs' && type !== 'nfs4')) return undefined;
  return { export: device, mountPoint };
}

function newMount(read: { readonly export: string; readonly mountPoint: string }, address: string): Mount {
  return { ...read, address, age: undefined, bytes: [], events: [], transports: [], protocols: [] };
}

function readHead(line: KernelText, mount: Mount): boolean {
  if (line.skip('age:')) {
    mount.age = line.unsigned('the age');
    return true;
  }
  if (line.skip('bytes:')) {
    mount.bytes = readRow(line, byteNames, byteNames.length);
    return true;
  }
  if (line.skip('events:')) {
    mount.events = readRow(line, eventNames, eventNames.length);
    return true;
  }
  if (!line.skip('xprt:')) return false;
  const protocol = line.word('the protocol');
  const columns = columnsOf.get(protocol);
  if (columns === undefined) throw line.error(`the protocol is '${protocol}', expected tcp, udp or rdma`);
  line.unsigned('the port');
  // statvers=1.0 has three fewer.
  mount.transports.push({
    protocol,
    counts: readRow(line, transportNames.slice(0, columns.length), columns.length - 3),
  });
  return true;
}

function readRow(line: KernelText, names: readonly string[], countMin: number): number[] {
  const counts: number[] = [];
  const found = line.unsigneds(counts, names);
  if (found < countMin) throw line.error(`it has ${found} columns, expected ${countMin}`);
  return counts;
}

/** By mount point: `71 27 0:45 / /mnt rw,relatime shared:37 - nfs4 server:/srv rw,vers=4.0,addr=192.168.1.1`. */
function readAddresses(host: Host): Map<string, string> {
  const addresses = new Map<string, string>();
  host.read('proc/self/mountinfo').eachLine('a mount', (line) => {
    const match = /^\d+ \d+ \S+ \S+ +(\S+) .* - \S+ \S+(?: (\S+))?$/.exec(line.rest());
    if (match === null) throw line.error('it is not a line of mountinfo');
    const [, mountPoint = '', options = ''] = match;
    // mountinfo alone escapes `#`.
    addresses.set(mountPoint.replaceAll('\\043', '#'), /(?:^|,)addr=([^,]*)/.exec(options)?.[1] ?? '');
    return true;
  });
  return addresses;
}
