// /proc/net/dev: two lines of headings, then a line a device, in records: a read gives at most a page.
//     Inter-|   Receive                                                |  Transmit
//      face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
//       eth0: 350650058   10233    0    0    0     0          0         0   473343    5770    0    0    0     0       0          0
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/core/net-procfs.c
// The alias of an interface may have a colon (`eth0:1`), so the name ends before the line's last one.
// Columns are sums: drop is rx_dropped and rx_missed_errors, frame are four counters, carrier four more. One by one they are in
// /sys/class/net/DEVICE/statistics, and so is rx_nohandler, which came with Linux 4.6 and is no column.
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
const detailedMetrics = switchOption(
  'netdev.enable-detailed-metrics',
  'false',
  'Collect each counter of errors and drops by itself, by other names, instead of their sums.',
);
const labelIfAlias = switchOption(
  'netdev.label-ifalias',
  'false',
  'Add the alias of the device to its series, as the label ifalias.',
);

export const netdev: CollectorRow = {
  name: 'netdev',
  enabled: 'by default',
  description: 'bytes, packets, errors and drops of network devices, from /proc/net/dev',
  options: [include, exclude, addressInfo, detailedMetrics, labelIfAlias],
  create: (context) => {
    const filter = new NameFilter(context.option(include), context.option(exclude));
    const hasAlias = context.option(labelIfAlias);
    return new Netdev({
      filter,
      addresses: context.option(addressInfo) ? new Addresses(filter, context.clock) : undefined,
      counters: (context.option(detailedMetrics) ? detailedCounters : usualCounters)(
        hasAlias ? ['device', 'ifalias'] : ['device'],
      ),
      aliasClock: hasAlias ? context.clock : undefined,
    });
  },
};

interface Counters {
  /** By the heading of the half (receive, transmit) and of the column. */
  readonly columns: ReadonlyMap<string, SampledFamily>;
  /** By the name in the folder of statistics. */
  readonly files: readonly (readonly [file: string, SampledFamily])[];
}

function usualCounters(labels: readonly string[]): Counters {
  const family = familyWith(labels);
  return {
    columns: new Map([
      ...sharedColumns(labels),
      ['receive_errs', family('receive_errs', receiveErrors)],
      [
        'receive_drop',
        family('receive_drop', 'Packets that were received and dropped for want of room or of a listener.'),
      ],
      ['receive_fifo', family('receive_fifo', receiveFifo)],
      [
        'receive_frame',
        family('receive_frame', 'Packets that were received with errors of framing, length or checksum.'),
      ],
      ['receive_multicast', family('receive_multicast', multicast)],
      ['transmit_errs', family('transmit_errs', transmitErrors)],
      ['transmit_drop', family('transmit_drop', transmitDropped)],
      ['transmit_fifo', family('transmit_fifo', transmitFifo)],
      ['transmit_colls', family('transmit_colls', collisions)],
      ['transmit_carrier', family('transmit_carrier', transmitCarrier)],
    ]),
    files: [['rx_nohandler', family('receive_nohandler', noHandler)]],
  };
}

function detailedCounters(labels: readonly string[]): Counters {
  const family = familyWith(labels);
  return {
    columns: new Map([
      ...sharedColumns(labels),
      ['receive_errs', family('receive_errors', receiveErrors)],
      ['receive_fifo', family('receive_fifo_errors', receiveFifo)],
      ['receive_multicast', family('multicast', multicast)],
      ['transmit_errs', family('transmit_errors', transmitErrors)],
      ['transmit_drop', family('transmit_dropped', transmitDropped)],
      ['transmit_fifo', family('transmit_fifo_errors', transmitFifo)],
      ['transmit_colls', family('collisions', collisions)],
    ]),
    files: [
      ['rx_nohandler', family('receive_nohandler', noHandler)],
      ['rx_dropped', family('receive_dropped', 'Packets that were received and that the kernel dropped.')],
      ['rx_missed_errors', family('receive_missed_errors', 'Packets that the device dropped for want of room.')],
      ['rx_length_errors', family('receive_length_errors', 'Packets of a wrong length that were received.')],
      [
        'rx_over_errors',
        family('receive_over_errors', 'Packets that were received and longer than there was room for.'),
      ],
      ['rx_crc_errors', family('receive_crc_errors', 'Packets with a wrong checksum that were received.')],
      ['rx_frame_errors', family('receive_frame_errors', 'Packets with errors of framing that were received.')],
      ['tx_aborted_errors', family('transmit_aborted_errors', 'Packets whose sending was aborted.')],
      ['tx_carrier_errors', family('transmit_carrier_errors', transmitCarrier)],
      [
        'tx_heartbeat_errors',
        family('transmit_heartbeat_errors', 'Packets sent without a sign of life of the transceiver.'),
      ],
      ['tx_window_errors', family('transmit_window_errors', 'Packets that collided too late to be sent again.')],
    ],
  };
}

function sharedColumns(labels: readonly string[]): (readonly [string, SampledFamily])[] {
  const family = familyWith(labels);
  return [
    ['receive_bytes', family('receive_bytes', 'Bytes received.')],
    ['receive_packets', family('receive_packets', 'Packets received.')],
    ['receive_compressed', family('receive_compressed', 'Compressed packets received (SLIP, PPP).')],
    ['transmit_bytes', family('transmit_bytes', 'Bytes sent.')],
    ['transmit_packets', family('transmit_packets', 'Packets sent.')],
    ['transmit_compressed', family('transmit_compressed', 'Compressed packets sent (SLIP, PPP).')],
  ];
}

const receiveErrors = 'Packets that were received with errors.';
const receiveFifo = 'Packets that were lost because the queue of the device was full.';
const multicast = 'Multicast packets received.';
const noHandler = 'Packets that were received and that no protocol wanted.';
const transmitErrors = 'Packets that could not be sent for an error.';
const transmitDropped = 'Packets that were to be sent and were dropped.';
const transmitFifo = 'Packets that could not be sent because the queue of the device ran dry.';
const transmitCarrier = 'Packets that could not be sent because the carrier was lost.';
const collisions = 'Collisions while sending.';

function familyWith(labels: readonly string[]): (name: string, help: string) => SampledFamily {
  return (name, help) => counter(`node_network_${name}_total`, help, { labels });
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
  /** Those of its statistics that there are: none before Linux 4.6, none of an alias. */
  readonly files: readonly { readonly path: string; readonly family: SampledFamily }[];
  /** Undefined where it is no label, '' where there is none. */
  alias: string | undefined;
  aliasReadMs: number;
  seen: number;
}

interface NetdevOptions {
  readonly filter: NameFilter;
  readonly addresses: Addresses | undefined;
  readonly counters: Counters;
  /** Undefined where the alias is no label. */
  readonly aliasClock: CollectorContext['clock'] | undefined;
}

class Netdev implements Collector {
  readonly #filter: NameFilter;
  readonly #addresses: Addresses | undefined;
  readonly #counters: Counters;
  readonly #aliasClock: CollectorContext['clock'] | undefined;
  readonly #devices = new Map<string, Device>();
  #columns: Columns | undefined;
  #collection = 0;

  constructor({ filter, addresses: addressesOfHost, counters, aliasClock }: NetdevOptions) {
    this.#filter = filter;
    this.#addresses = addressesOfHost;
    this.#counters = counters;
    this.#aliasClock = aliasClock;
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
    if (this.#columns === undefined || !line.skip(this.#columns.heading)) {
      this.#columns = new Columns(line.rest(), this.#counters.columns);
    }
    return this.#columns;
  }

  #device(host: Host, name: string): Device {
    let device = this.#devices.get(name);
    if (device === undefined) {
      const isKept = this.#filter.keeps(name);
      const hasFolder = isKept && !name.includes('/');
      const paths = this.#counters.files.map(([file, family]) => ({
        path: pathOf(name, `statistics/${file}`),
        family,
      }));
      const files = hasFolder ? paths.filter(({ path }) => host.exists(path)) : [];
      device = { name, isKept, files, alias: undefined, aliasReadMs: Number.NEGATIVE_INFINITY, seen: 0 };
      this.#devices.set(name, device);
    }
    device.seen = this.#collection;
    if (this.#aliasClock !== undefined && device.isKept) readAlias(host, device, this.#aliasClock.monotonicMs());
    return device;
  }

  #forgetTheGone(): void {
    for (const [name, { seen }] of this.#devices) if (seen !== this.#collection) this.#devices.delete(name);
  }
}

function pathOf(device: string, file: string): string {
  return `sys/class/net/${device}/${file}`;
}

/** Once a minute: somebody sets it by hand. */
function readAlias(host: Host, device: Device, nowMs: number): void {
  if (nowMs - device.aliasReadMs < aliasAgainMs) return;
  device.aliasReadMs = nowMs;
  const path = device.name.includes('/') ? undefined : pathOf(device.name, 'ifalias');
  device.alias = (path === undefined ? undefined : host.value(path, parseText, '')) ?? '';
}

const aliasAgainMs = 60_000;

function collectDevice(
  host: Host,
  out: Samples,
  { device, columns, line }: { device: Device; columns: Columns; line: KernelText },
): void {
  const { name, alias } = device;
  const { names, counts, families } = columns;
  const found = line.unsigneds(counts, names);
  if (found < names.length) throw line.error(`'${name}' has ${found} columns, expected ${names.length}`);
  for (let at = 0; at < found; at++) {
    const family = families[at];
    if (family !== undefined) out.sample(family, counts[at]!, name, alias);
  }
  for (const { path, family } of device.files) {
    const count = host.value(path, parseCount);
    if (count !== undefined) out.sample(family, count, name, alias);
  }
}

/** The columns of a heading, from the bar behind `face` on. */
class Columns {
  readonly heading: string;
  readonly names: readonly string[];
  /** Undefined for a column that is not known. */
  readonly families: readonly (SampledFamily | undefined)[];
  /** Those of the device that is being read. */
  readonly counts: number[] = [];

  constructor(heading: string, familyOf: ReadonlyMap<string, SampledFamily>) {
    const [, receive = '', transmit = ''] = heading.split('|');
    this.heading = heading;
    this.names = [...namesOf(receive, 'receive'), ...namesOf(transmit, 'transmit')];
    this.families = this.names.map((name) => familyOf.get(name));
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

function parseText(text: KernelText): string {
  return text.rest();
}
