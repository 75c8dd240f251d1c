// /sys/class/net/DEVICE: one attribute a file; `flags` and `dev_id` are hexadecimal. An attribute that a device does not
// have, or not while it is down, gives EINVAL: carrier, dormant, duplex, name_assign_type, speed; there is no such series
// then, and nothing is wrong. `ifalias` is empty where there is none. For `speed` and `duplex` the kernel takes a lock (rtnl)
// that a driver may hold for seconds.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net
// A host may have hundreds of interfaces: at each instant two files of each are read, operstate and carrier_changes, which is
// up_count and down_count together. What changes with the link is read when one of these does; what somebody may set, or may
// change otherwise (the speed of a bond), also once a minute.
import type { Host, Signs } from '../proc/host.ts';
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
const changes = counter('node_network_carrier_changes_total', 'How often the link came or went.', { labels });
const flags = gauge('node_network_flags', 'Flags of the device (IFF_UP and others), as a number.', { labels });

interface Attribute {
  readonly file: string;
  readonly family: SampledFamily;
  readonly parse: (text: KernelText) => number;
}

/** What changes with the link. */
const ofLink: readonly Attribute[] = [
  attribute('carrier', gauge('node_network_carrier', 'Whether the device has a link: 1, or 0.', { labels })),
  // Since Linux 4.16.
  attribute(
    'carrier_up_count',
    counter('node_network_carrier_up_changes_total', 'How often the link came.', { labels }),
  ),
  attribute(
    'carrier_down_count',
    counter('node_network_carrier_down_changes_total', 'How often the link went.', { labels }),
  ),
  attribute(
    'dormant',
    gauge('node_network_dormant', 'Whether the device waits for something outside, such as a login: 1, or 0.', {
      labels,
    }),
  ),
];
/** What does not change, but for a device in place of another. */
const fixed: readonly Attribute[] = [
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
  attribute('ifindex', gauge('node_network_iface_id', 'Index of the device.', { labels })),
  attribute('iflink', gauge('node_network_iface_link', 'Index of the device below, or its own.', { labels })),
  attribute(
    'name_assign_type',
    gauge(
      'node_network_name_assign_type',
      'Where the name comes from: 1 the order of discovery, 2 predictable, 3 a user at creation, 4 renamed.',
      { labels },
    ),
  ),
  attribute('type', gauge('node_network_protocol_type', 'Kind of the device (ARPHRD_ETHER is 1).', { labels })),
];

/** What an administrator sets. */
const settings: readonly Attribute[] = [
  attribute(
    'link_mode',
    gauge('node_network_iface_link_mode', 'Whether the device waits for a program before it is up: 1, or 0.', {
      labels,
    }),
  ),
  attribute('mtu', gauge('node_network_mtu_bytes', 'Largest packet, in bytes.', { labels })),
  attribute('netdev_group', gauge('node_network_net_dev_group', 'Group that the device is in.', { labels })),
  attribute(
    'tx_queue_len',
    gauge('node_network_transmit_queue_length', 'Packets that may wait to be sent.', { labels }),
  ),
];

function attribute(file: string, family: SampledFamily): Attribute {
  return { file, family, parse: parseNumber };
}

const folder = 'sys/class/net';
/** A file between the devices, where the module bonding is loaded. */
const mastersFile = 'bonding_masters';
const bytesOfMegabit = 125_000;

/** The paths of a device's files, which are made once. */
function filesOf(device: string) {
  const path = (file: string) => `${folder}/${device}/${file}`;
  // Not by a spread, of which V8 would keep a shape for each object.
  const withPath = ({ file, family, parse }: Attribute) => ({ family, parse, path: path(file) });
  const state = path('operstate');
  const changeCount = path('carrier_changes');
  const signs: Signs = { paths: [state, changeCount], areSure: false };
  const sureSigns: Signs = { ...signs, areSure: true };
  return {
    ...{ state, changeCount, signs, sureSigns },
    ...{ unsettable: [...ofLink, ...fixed].map(withPath), settings: settings.map(withPath) },
    ...{ flags: path('flags'), speed: path('speed'), duplex: path('duplex') },
    ...{ address: path('address'), broadcast: path('broadcast'), alias: path('ifalias') },
  };
}

class Netclass implements Collector {
  readonly #filter: NameFilter;
  readonly #ignoresInvalidSpeed: boolean;
  readonly #labels = new LabelLists();
  #files = new Map<string, ReturnType<typeof filesOf>>();

  constructor(filter: NameFilter, ignoresInvalidSpeed: boolean) {
    this.#filter = filter;
    this.#ignoresInvalidSpeed = ignoresInvalidSpeed;
  }

  collect(host: Host, out: Samples): void {
    const devices = host.devices(folder).filter((device) => device !== mastersFile && this.#filter.keeps(device));
    for (const device of devices) this.#collectDevice(host, out, device);
    this.#labels.endCollection();
    if (this.#files.size > devices.length) {
      this.#files = new Map(devices.map((device) => [device, this.#files.get(device)!]));
    }
  }

  #collectDevice(host: Host, out: Samples, device: string): void {
    let files = this.#files.get(device);
    if (files === undefined) {
      files = filesOf(device);
      this.#files.set(device, files);
    }
    const state = host.value(files.state, parseText);
    if (state !== undefined) out.sample(up, state === 'up' ? 1 : 0, device);
    const changeCount = host.value(files.changeCount, parseNumber);
    if (changeCount !== undefined) out.sample(changes, changeCount, device);
    const flagBits = host.valueAfter(files.flags, files.signs, parseHexadecimal);
    if (flagBits !== undefined) out.sample(flags, flagBits, device);
    for (const { path, family, parse } of files.unsettable) {
      const value = host.valueAfter(path, files.sureSigns, parse);
      if (value !== undefined) out.sample(family, value, device);
    }
    for (const { path, family, parse } of files.settings) {
      const value = host.rareValue(path, parse);
      if (value !== undefined) out.sample(family, value, device);
    }
    const megabits = host.valueAfter(files.speed, files.signs, parseNumber);
    if (megabits !== undefined && (megabits >= 0 || !this.#ignoresInvalidSpeed)) {
      out.sample(speed, megabits * bytesOfMegabit, device);
    }
    const address = host.rareText(files.address);
    const broadcast = host.rareText(files.broadcast);
    const duplex = host.valueAfter(files.duplex, files.signs, parseText);
    const alias = host.rareText(files.alias, '');
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
