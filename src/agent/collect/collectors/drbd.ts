// /proc/drbd, until DRBD 8: a line of states and one of counts a device, KEY:VALUE; bytes are in KiB.
//      0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----
//         ns:17324442 nr:0 dw:17323920 dr:1036 al:72 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
// Below may be how far a synchronization is. DRBD 9, which is not in the kernel, has only its version here.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/drivers/block/drbd/drbd_proc.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, counter, gauge, type SampledFamily, type Samples } from './collector.ts';

export const drbd: CollectorRow = {
  name: 'drbd',
  enabled: 'on request',
  description: 'replicated block devices, from /proc/drbd',
  options: [],
  create: () => ({ collect }),
};

const labels = ['device'];
const nodeLabels = ['device', 'node'];

interface Count {
  readonly family: SampledFamily;
  readonly factor: number;
}

const counts: ReadonlyMap<string, Count> = new Map([
  total('ns', 'network_sent_bytes_total', 'Bytes that were sent to the peer.', 1024),
  total('nr', 'network_received_bytes_total', 'Bytes that were received from the peer.', 1024),
  total('dw', 'disk_written_bytes_total', 'Bytes that were written to the local disk.', 1024),
  total('dr', 'disk_read_bytes_total', 'Bytes that were read from the local disk.', 1024),
  total('al', 'activitylog_writes_total', 'Updates of the activity log.', 1),
  total('bm', 'bitmap_writes_total', 'Updates of the bitmap.', 1),
  now('lo', 'local_pending', 'Requests to the local disk that are open.', 1),
  now('pe', 'remote_pending', 'Requests to the peer that it has not answered.', 1),
  now('ua', 'remote_unacknowledged', 'Requests of the peer that are not answered.', 1),
  now('ap', 'application_pending', 'Requests of programs that are not answered.', 1),
  now('ep', 'epochs', 'Epochs that are open: groups of writes that may change places.', 1),
  now('oos', 'out_of_sync_bytes', 'Bytes that the two disks are known not to have in common.', 1024),
]);

function total(key: string, name: string, help: string, factor: number): [key: string, Count] {
  return [key, { family: counter(`node_drbd_${name}`, help, { labels }), factor }];
}

function now(key: string, name: string, help: string, factor: number): [key: string, Count] {
  return [key, { family: gauge(`node_drbd_${name}`, help, { labels }), factor }];
}

const isConnected = gauge('node_drbd_connected', 'Whether the device is connected to its peer: 1, or 0.', { labels });
const isPrimary = gauge('node_drbd_node_role_is_primary', 'Whether a node is the primary one: 1, or 0.', {
  labels: nodeLabels,
});
const isUpToDate = gauge('node_drbd_disk_state_is_up_to_date', "Whether a node's disk is up to date: 1, or 0.", {
  labels: nodeLabels,
});

const countPrefixes = [...counts].map(([key, count]) => ({ prefix: `${key}:`, key, ...count }));

function collect(host: Host, out: Samples): void {
  // Undefined where its own line could not be read: its counts are of no device.
  let device: string | undefined;
  host.read('proc/drbd').eachLine('a device, or of its version', (line) => {
    if (line.skip('version: ') || line.skip('GIT-hash: ') || line.skip('srcversion: ')) return true;
    const head = /^(?:\S+: cs:|\d+: )/.exec(line.peek())?.[0];
    if (head === undefined) return device !== undefined && readCounts(line, out, device);
    device = undefined;
    const number = /^(\d+): cs:/.exec(head)?.[1];
    if (number === undefined)
      throw line.error(`it begins with '${head.trim()}', expected the number of a device and its state`);
    device = `drbd${number}`;
    line.skipWord();
    readStates(line, out, device);
    return true;
  });
}

/** `cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----` */
function readStates(line: KernelText, out: Samples, device: string): void {
  const states = new Map<string, string>();
  while (line.more()) {
    const [key = '', value] = line.word('a state').split(':');
    if (value !== undefined) states.set(key, value);
  }
  const connection = states.get('cs');
  const roles = states.get('ro')?.split('/');
  const disks = states.get('ds')?.split('/');
  for (const [key, pair] of [
    ['ro', roles],
    ['ds', disks],
  ] as const) {
    if (pair !== undefined && pair.length !== 2) throw line.error(`'${key}' is not of two nodes`);
  }
  out.sample(isConnected, connection === 'Connected' ? 1 : 0, device);
  for (const [at, node] of ['local', 'remote'].entries()) {
    if (roles !== undefined) out.sample(isPrimary, roles[at] === 'Primary' ? 1 : 0, device, node);
    if (disks !== undefined) out.sample(isUpToDate, disks[at] === 'UpToDate' ? 1 : 0, device, node);
  }
}

/** `ns:17324442 nr:0 …`; false for a line that has none of them. */
function readCounts(line: KernelText, out: Samples, device: string): boolean {
  const found: [family: SampledFamily, count: number][] = [];
  while (line.more()) {
    const known = countPrefixes.find(({ prefix }) => line.skip(prefix));
    if (known === undefined) line.skipWord();
    else found.push([known.family, line.unsigned(`'${known.key}'`) * known.factor]);
  }
  for (const [family, count] of found) out.sample(family, count, device);
  return found.length > 0;
}
