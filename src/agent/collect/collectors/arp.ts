// /proc/net/arp: a heading, then a row for each neighbour with an IPv4 address:
//     IP address       HW type     Flags       HW address            Mask     Device
//     192.0.2.1        0x1         0x2         02:fc:00:00:00:05     *        eth0
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/ipv4/arp.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, NameFilter, patternOption, type Samples } from './collector.ts';

const include = patternOption('arp.device-include', '', 'Network devices to collect. Empty: all.');
const exclude = patternOption('arp.device-exclude', '', 'Network devices to leave out. Empty: none.');

export const arp: CollectorRow = {
  name: 'arp',
  enabled: 'by default',
  description: 'neighbours with an IPv4 address, by network device, from /proc/net/arp',
  options: [include, exclude],
  create: (context) => new Arp(new NameFilter(context.option(include), context.option(exclude))),
};

const entries = gauge('node_arp_entries', 'Neighbours with an IPv4 address, as the ARP table has them.', {
  labels: ['device'],
});

const columnCount = 6;

class Arp implements Collector {
  readonly #filter: NameFilter;
  readonly #devices = new Map<string, { readonly isKept: boolean; count: number }>();

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    for (const device of this.#devices.values()) device.count = 0;
    const text = host.read('proc/net/arp');
    // A row that cannot be read would make the count of an unknown device too small: it costs them all.
    let hasHeading = false;
    while (text.nextLine()) {
      if (!hasHeading && text.skip('IP address')) hasHeading = true;
      else if (isRow(text)) this.#device(text.lastWord('the device')).count++;
    }
    if (!hasHeading) throw text.error('the table has no heading');
    for (const [name, { isKept, count }] of this.#devices) {
      if (count === 0) this.#devices.delete(name);
      else if (isKept) out.sample(entries, count, name);
    }
  }

  #device(name: string): { count: number } {
    let device = this.#devices.get(name);
    if (device === undefined) {
      device = { isKept: this.#filter.keeps(name), count: 0 };
      this.#devices.set(name, device);
    }
    return device;
  }
}

function isRow(text: KernelText): boolean {
  if (text.isAtDigit()) return true;
  if (text.wordCount() >= columnCount) throw text.error('the row does not begin with an IPv4 address');
  return false;
}
