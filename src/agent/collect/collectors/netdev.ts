// /proc/net/dev: two lines of headings, then a line a device, in records: a read gives at most a page.
//     Inter-|   Receive                                                |  Transmit
//      face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
//       eth0: 350650058   10233    0    0    0     0          0         0   473343    5770    0    0    0     0       0          0
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/core/net-procfs.c
// The alias of an interface may have a colon (`eth0:1`), so the name ends before the line's last one.
// rx_nohandler came with Linux 4.6 and is not in that file but in /sys/class/net/DEVICE/statistics.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-statistics
import type { Family } from '../../../model/family.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, NameFilter, patternOption, type Samples } from './collector.ts';

const include = patternOption('netdev.device-include', '', 'network devices to take; all if empty');
const exclude = patternOption('netdev.device-exclude', '', 'network devices to leave out; none if empty');

export const netdev: CollectorRow = {
  name: 'netdev',
  enabled: 'by default',
  description: 'bytes, packets, errors and drops of network devices, from /proc/net/dev',
  options: [include, exclude],
  create: (context) => new Netdev(new NameFilter(context.option(include), context.option(exclude))),
};

const heading =
  ' face |bytes    packets errs drop fifo frame compressed multicast' +
  '|bytes    packets errs drop fifo colls carrier compressed';

const columns: readonly Family[] = [
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
];
const noHandler = perDevice('receive_nohandler', 'Packets that were received and that no protocol wanted.');

function perDevice(name: string, help: string): Family {
  const unit = name.endsWith('_bytes') ? 'bytes' : '';
  return counter(`node_network_${name}_total`, help, { labels: ['device'], unit });
}

interface Device {
  readonly name: string;
  readonly isKept: boolean;
  readonly noHandlerPath: string;
  hasNoHandler: boolean;
  seen: number;
}

class Netdev implements Collector {
  readonly #filter: NameFilter;
  readonly #devices = new Map<string, Device>();
  #collection = 0;

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    const text = host.read('proc/net/dev');
    readHeadings(text);
    this.#collection++;
    let count = 0;
    while (text.nextLine()) {
      const device = this.#device(text.keyToLastColon('the name of a device'));
      count++;
      if (device.isKept) {
        for (let at = 0; at < columns.length; at++) {
          const family = columns[at]!;
          out.sample(family, text.unsigned(family.name), device.name);
        }
        this.#collectNoHandler(host, out, device);
      }
    }
    if (count < this.#devices.size) this.#forgetTheGone();
  }

  #collectNoHandler(host: Host, out: Samples, device: Device): void {
    if (!device.hasNoHandler) return;
    const text = host.readIfThere(device.noHandlerPath);
    if (text === undefined) {
      // An older kernel, or an alias: not asked for again, which on a host of many devices would be felt.
      device.hasNoHandler = false;
    } else {
      text.nextLine();
      out.sample(noHandler, text.unsigned('the count'), device.name);
    }
  }

  #device(name: string): Device {
    let device = this.#devices.get(name);
    if (device === undefined) {
      device = {
        name,
        isKept: this.#filter.keeps(name),
        noHandlerPath: `sys/class/net/${name}/statistics/rx_nohandler`,
        hasNoHandler: !name.includes('/'),
        seen: 0,
      };
      this.#devices.set(name, device);
    }
    device.seen = this.#collection;
    return device;
  }

  #forgetTheGone(): void {
    for (const [name, { seen }] of this.#devices) if (seen !== this.#collection) this.#devices.delete(name);
  }
}

function readHeadings(text: KernelText): void {
  if (text.nextLine() && text.skip('Inter-|') && text.nextLine() && text.skip(heading)) return;
  throw text.error('the headings of the columns are not the ones that are known');
}
