// /proc/net/dev: two lines of headings, then a line a device, in records: a read gives at most a page.
//     Inter-|   Receive                                                |  Transmit
//      face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
//       eth0: 350650058   10233    0    0    0     0          0         0   473343    5770    0    0    0     0       0          0
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/core/net-procfs.c
// The alias of an interface may have a colon (`eth0:1`), so the name ends before the line's last one.
// rx_nohandler came with Linux 4.6 and is not in that file but in /sys/class/net/DEVICE/statistics.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-statistics
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
  switchOption,
} from './collector.ts';

const include = patternOption('netdev.device-include', '', 'Network devices to collect. Empty: all.');
const exclude = patternOption('netdev.device-exclude', '', 'Network devices to leave out. Empty: none.');

const addressInfo = switchOption('netdev.address-info', 'false', 'Collect the addresses of devices that are up.');

export const netdev: CollectorRow = {
  name: 'netdev',
  enabled: 'by default',
  description: 'bytes, packets, errors and drops of network devices, from /proc/net/dev',
  options: [include, exclude, addressInfo],
  create: (context) => {
    const filter = new NameFilter(context.option(include), context.option(exclude));
    return new Netdev(filter, context.option(addressInfo) ? new Addresses(filter, context.clock) : undefined);
  },
};

// By the heading of the half (receive, transmit) and of the column.
const columnFamilies: ReadonlyMap<string, SampledFamily> = new Map([
  perDevice('receive_bytes', 'Bytes received.'),
  perDevice('receive_packets', 'Packets received.'),
  perDevice('receive_errs', 'Packets that were received with errors.'),
  perDevice('receive_drop', 'Packets that were received and dropped for want of room or of a listener.'),
  perDevice('receive_fifo', 'Packets that were lost because the queue of the device was full.'),
  perDevice('receive_frame', 'Packets that were received with errors of framing, length or checksum.'),
  perDevice('receive_compressed', 'Compressed packets received (SLIP, PPP).'),
  perDevice('receive_multicast', 'Multicast packets received.'),
  perDevice('transmit_bytes', 'Bytes sent.'),
  perDevice('transmit_packets', 'Packets sent.'),
  perDevice('transmit_errs', 'Packets that could not be sent for an error.'),
  perDevice('transmit_drop', 'Packets that were to be sent and were dropped.'),
  perDevice('transmit_fifo', 'Packets that could not be sent because the queue of the device ran dry.'),
  perDevice('transmit_colls', 'Collisions while sending.'),
  perDevice('transmit_carrier', 'Packets that could not be sent because the carrier was lost.'),
  perDevice('transmit_compressed', 'Compressed packets sent (SLIP, PPP).'),
]);
const [, noHandler] = perDevice('receive_nohandler', 'Packets that were received and that no protocol wanted.');

function perDevice(name: string, help: string): [name: string, SampledFamily] {
  return [name, counter(`node_network_${name}_total`, help, { labels: ['device'] })];
}

const addresses = gauge('node_network_address_info', 'Always 1, for each address of a device that is up.', {
  labels: ['device', 'address', 'netmask', 'scope'],
});
// A change of addresses is seen soon enough, and asking for them costs as much as all the rest.
const addressesAgainMs = 15_000;

class Addresses {
  readonly #filter: NameFilter;
  readonly #clock: CollectorContext['clock'];
  #labels: readonly (readonly string[])[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;

  constructor(filter: NameFilter, clock: CollectorContext['clock']) {
    this.#filter = filter;
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lookedMs >= addressesAgainMs) {
      this.#lookedMs = nowMs;
      this.#labels = this.#look(host);
    }
    for (const labels of this.#labels) out.sampleLabels(addresses, 1, labels);
  }

  #look(host: Host): string[][] {
    const interfaces = Object.entries(host.system.networkInterfaces());
    return interfaces.flatMap(([device, all = []]) =>
      this.#filter.keeps(device)
        ? all.map(({ address, cidr }) => [device, address, cidr?.split('/')[1] ?? '', scopeOf(address)])
        : [],
    );
  }
}

/** As node_exporter has it: the loopback is `link-local` too. */
function scopeOf(address: string): string {
  return /^(127\.|169\.254\.|::1$|fe[89ab][0-9a-f]:)/i.test(address) ? 'link-local' : 'global';
}

interface Device {
  readonly name: string;
  readonly isKept: boolean;
  /** Undefined before Linux 4.6, and for an alias. */
  readonly noHandlerPath: string | undefined;
  seen: number;
}

class Netdev implements Collector {
  readonly #filter: NameFilter;
  readonly #addresses: Addresses | undefined;
  readonly #devices = new Map<string, Device>();
  #columns: Columns | undefined;
  #collection = 0;

  constructor(filter: NameFilter, addressesOfHost: Addresses | undefined) {
    this.#filter = filter;
    this.#addresses = addressesOfHost;
  }

  collect(host: Host, out: Samples): void {
    this.#collection++;
    let columns: Columns | undefined;
    let count = 0;
    host.read('proc/net/dev').eachLine('a network device', (line) => {
      if (columns === undefined) {
        columns = this.#readHeading(line);
        return false;
      }
      const device = this.#device(host, line.keyToLastColon('the name of a device'));
      count++;
      if (device.isKept) collectDevice(host, out, { device, columns, line });
      return true;
    });
    if (count < this.#devices.size) this.#forgetTheGone();
    this.#addresses?.collect(host, out);
  }

  /** Which column is which. Undefined for the line above, which says only `Receive` and `Transmit`. */
  #readHeading(line: KernelText): Columns | undefined {
    if (!line.skip('face') || !line.more()) return undefined;
    if (this.#columns === undefined || !line.skip(this.#columns.heading)) this.#columns = new Columns(line.rest());
    return this.#columns;
  }

  #device(host: Host, name: string): Device {
    let device = this.#devices.get(name);
    if (device === undefined) {
      const path = `sys/class/net/${name}/statistics/rx_nohandler`;
      const hasPath = !name.includes('/') && host.exists(path);
      device = { name, isKept: this.#filter.keeps(name), noHandlerPath: hasPath ? path : undefined, seen: 0 };
      this.#devices.set(name, device);
    }
    device.seen = this.#collection;
    return device;
  }

  #forgetTheGone(): void {
    for (const [name, { seen }] of this.#devices) if (seen !== this.#collection) this.#devices.delete(name);
  }
}

function collectDevice(
  host: Host,
  out: Samples,
  { device, columns, line }: { device: Device; columns: Columns; line: KernelText },
): void {
  const { name, noHandlerPath } = device;
  const { names, counts, families } = columns;
  const found = line.unsigneds(counts, names);
  if (found < names.length) throw line.error(`'${name}' has ${found} columns, expected ${names.length}`);
  for (let at = 0; at < found; at++) {
    const family = families[at];
    if (family !== undefined) out.sample(family, counts[at]!, name);
  }
  if (noHandlerPath === undefined) return;
  const dropped = host.value(noHandlerPath, parseCount);
  if (dropped !== undefined) out.sample(noHandler, dropped, name);
}

/** The columns of a heading, from the bar behind `face` on. */
class Columns {
  readonly heading: string;
  readonly names: readonly string[];
  /** Undefined for a column that is not known. */
  readonly families: readonly (SampledFamily | undefined)[];
  /** Those of the device that is being read. */
  readonly counts: number[] = [];

  constructor(heading: string) {
    const [, receive = '', transmit = ''] = heading.split('|');
    this.heading = heading;
    this.names = [...namesOf(receive, 'receive'), ...namesOf(transmit, 'transmit')];
    this.families = this.names.map((name) => columnFamilies.get(name));
  }
}

function namesOf(headings: string, half: string): string[] {
  return headings
    .split(/\s+/)
    .filter((name) => name !== '')
    .map((name) => `${half}_${name}`);
}

function parseCount(text: KernelText): number {
  return text.unsigned('the count');
}
