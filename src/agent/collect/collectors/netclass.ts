// /sys/class/net/DEVICE: one attribute a file; `flags` and `dev_id` are hexadecimal. An attribute that a device does not
// have, or not while it is down, gives EINVAL: carrier, dormant, duplex, name_assign_type, speed. For `speed` and `duplex`
// the kernel takes a lock (rtnl) that a driver may hold for seconds.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  LabelLists,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
  switchOption,
} from './collector.ts';

const ignoredDevices = patternOption('netclass.ignored-devices', '^$', 'Network devices to leave out.');
const ignoreInvalidSpeed = switchOption(
  'netclass.ignore-invalid-speed',
  'false',
  'Leave out the speed of devices that do not know theirs and say -1 Mbit/s.',
);

export const netclass: CollectorRow = {
  name: 'netclass',
  enabled: 'by default',
  description: 'state, speed, addresses and settings of network devices, from /sys/class/net',
  options: [ignoredDevices, ignoreInvalidSpeed],
  lane: 'slow',
  create: (context) =>
    new Netclass(new NameFilter(undefined, context.option(ignoredDevices)), context.option(ignoreInvalidSpeed)),
};

const labels = ['device'];
const up = gauge('node_network_up', 'Whether the device can pass packets (operstate up): 1, or 0.', { labels });
const info = gauge('node_network_info', 'Always 1; addresses, states and alias of a network device as labels.', {
  labels: ['device', 'address', 'broadcast', 'duplex', 'operstate', 'adminstate', 'ifalias'],
});
const speed = gauge(
  'node_network_speed_bytes',
  'Speed of the link, in bytes a second; negative where it is not known.',
  {
    labels,
  },
);
const flags = gauge('node_network_flags', 'Flags of the device (IFF_UP and others), as a number.', { labels });

interface Attribute {
  readonly file: string;
  readonly family: SampledFamily;
  readonly parse: (text: KernelText) => number;
}

/** What the link does. */
const changing: readonly Attribute[] = [
  attribute('carrier', gauge('node_network_carrier', 'Whether the device has a link: 1, or 0.', { labels })),
  attribute(
    'carrier_changes',
    counter('node_network_carrier_changes_total', 'How often the link came or went.', { labels }),
  ),
  // Since Linux 4.16.
  attribute(
    'carrier_up_count',
    counter('node_network_carrier_up_changes_total', 'How often the link came.', { labels }),
  ),
  attribute(
    'carrier_down_count',
    counter('node_network_carrier_down_changes_total', 'How often the link went.', { labels }),
  ),
];
/** What an administrator sets, or nobody. */
const settings: readonly Attribute[] = [
  attribute(
    'addr_assign_type',
    gauge(
      'node_network_address_assign_type',
      'Where the address comes from: 0 the device, 1 drawn by lot, 2 another device, 3 set.',
      { labels },
    ),
  ),
  {
    ...attribute('dev_id', gauge('node_network_device_id', 'Tells devices apart that share one address.', { labels })),
    parse: parseHexadecimal,
  },
  attribute(
    'dormant',
    gauge('node_network_dormant', 'Whether the device waits for something outside, such as a login: 1, or 0.', {
      labels,
    }),
  ),
  attribute('ifindex', gauge('node_network_iface_id', 'Index of the device.', { labels })),
  attribute('iflink', gauge('node_network_iface_link', 'Index of the device below, or its own.', { labels })),
  attribute(
    'link_mode',
    gauge('node_network_iface_link_mode', 'Whether the device waits for a program before it is up: 1, or 0.', {
      labels,
    }),
  ),
  attribute('mtu', gauge('node_network_mtu_bytes', 'Largest packet, in bytes.', { labels })),
  attribute(
    'name_assign_type',
    gauge(
      'node_network_name_assign_type',
      'Where the name comes from: 1 the order of discovery, 2 predictable, 3 a user at creation, 4 renamed.',
      { labels },
    ),
  ),
  attribute('netdev_group', gauge('node_network_net_dev_group', 'Group that the device is in.', { labels })),
  attribute(
    'tx_queue_len',
    gauge('node_network_transmit_queue_length', 'Packets that may wait to be sent.', { labels }),
  ),
  attribute('type', gauge('node_network_protocol_type', 'Kind of the device (ARPHRD_ETHER is 1).', { labels })),
];

function attribute(file: string, family: SampledFamily): Attribute {
  return { file, family, parse: parseNumber };
}

const folder = 'sys/class/net';
/** A file between the devices, where the module bonding is loaded. */
const mastersFile = 'bonding_masters';
const bytesOfMegabit = 125_000;

class Netclass implements Collector {
  readonly #filter: NameFilter;
  readonly #ignoresInvalidSpeed: boolean;
  readonly #labels = new LabelLists();

  constructor(filter: NameFilter, ignoresInvalidSpeed: boolean) {
    this.#filter = filter;
    this.#ignoresInvalidSpeed = ignoresInvalidSpeed;
  }

  collect(host: Host, out: Samples): void {
    for (const device of host.devices(folder)) {
      if (device !== mastersFile && this.#filter.keeps(device)) this.#collectDevice(host, out, device);
    }
    this.#labels.endCollection();
  }

  #collectDevice(host: Host, out: Samples, device: string): void {
    const at = `${folder}/${device}`;
    const state = host.value(`${at}/operstate`, parseText);
    const flagBits = host.value(`${at}/flags`, parseHexadecimal);
    if (state !== undefined) out.sample(up, state === 'up' ? 1 : 0, device);
    if (flagBits !== undefined) out.sample(flags, flagBits, device);
    for (const { file, family, parse } of changing) {
      const value = host.value(`${at}/${file}`, parse);
      if (value !== undefined) out.sample(family, value, device);
    }
    for (const { file, family, parse } of settings) {
      const value = host.rareValue(`${at}/${file}`, parse);
      if (value !== undefined) out.sample(family, value, device);
    }
    const megabits = host.rareValue(`${at}/speed`, parseNumber);
    if (megabits !== undefined && (megabits >= 0 || !this.#ignoresInvalidSpeed)) {
      out.sample(speed, megabits * bytesOfMegabit, device);
    }
    const address = host.rareText(`${at}/address`);
    const broadcast = host.rareText(`${at}/broadcast`);
    const duplex = host.rareText(`${at}/duplex`);
    const alias = host.rareText(`${at}/ifalias`, '');
    // A device that has gone since it was listed has nothing of all this.
    if (state === undefined && flagBits === undefined && address === undefined) return;
    const texts = [address, broadcast, duplex, state].map((text) => text ?? '');
    out.sampleLabels(info, 1, this.#labels.of(device, ...texts, adminState(flagBits), alias ?? ''));
  }
}

/** IFF_UP is the lowest bit. */
function adminState(flagBits: number | undefined): string {
  if (flagBits === undefined) return 'unknown';
  return flagBits % 2 === 1 ? 'up' : 'down';
}

function parseNumber(text: KernelText): number {
  return text.signed('the number');
}

function parseHexadecimal(text: KernelText): number {
  text.skip('0x');
  return text.hexadecimal('the number');
}

function parseText(text: KernelText): string {
  return text.rest();
}
