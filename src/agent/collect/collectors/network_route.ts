// /proc/net/route: the main table of IPv4 routes, a line a route below a heading; addresses are hexadecimal, in the byte
// order of the host.
//     Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask	MTU	Window	IRTT
//     eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
// /proc/net/ipv6_route: IPv6 routes of all tables: destination, its prefix, source, its prefix, next hop, metric, references,
// uses, flags, device.
//     fe800000000000000000000000000000 40 0000… 00 0000… 00000100 00000001 00000000 00000001     eth0
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#networking-info-in-proc-net
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/ipv4/fib_trie.c
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/ipv6/route.c
// Neither says who made a route, which source address it prefers, and the weights of several next hops: these labels, which
// node_exporter has from netlink, are empty. Routes of other IPv4 tables are not there.
import { ipv4OfHex, ipv6OfHex, prefixOfHex } from '../proc/address.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, LabelLists, type Samples } from './collector.ts';

export const network_route: CollectorRow = {
  name: 'network_route',
  enabled: 'on request',
  description: 'routes, from /proc/net/route and ipv6_route',
  options: [],
  create: () => new NetworkRoute(),
};

const info = gauge('node_network_route_info', 'A route: 1.', { labels: ['device', 'dest', 'gw', 'priority'] });
const routes = gauge('node_network_routes', 'Routes of a network device.', { labels: ['device'] });

// Of a route's flags.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/route.h
const up = 0x1;
const reject = 0x200;
const anycast = 0x10_0000;
const local = 0x8000_0000;

interface Route {
  readonly device: string;
  readonly dest: string;
  readonly gateway: string;
  readonly metric: number;
}

class NetworkRoute implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    const countByDevice = new Map<string, number>();
    // A route may be there twice, in two tables.
    const given = new Set<readonly string[]>();
    const give = ({ device, dest, gateway, metric }: Route) => {
      const labels = this.#labels.of(device, dest, gateway, String(metric));
      if (given.has(labels)) return;
      given.add(labels);
      out.sampleLabels(info, 1, labels);
      countByDevice.set(device, (countByDevice.get(device) ?? 0) + 1);
    };
    const text6 = host.readIfThere('proc/net/ipv6_route');
    const failed = readIpv4(host.read('proc/net/route'), give) + (text6 === undefined ? 0 : readIpv6(text6, give));
    // Without one of the routes the sums would be too small.
    if (failed === 0) for (const [device, count] of countByDevice) out.sample(routes, count, device);
    this.#labels.endCollection();
  }
}

/** Returns how many routes could not be read. */
function readIpv4(text: KernelText, give: (route: Route) => void): number {
  return text.eachLine('an IPv4 route', (line) => {
    // A host without a route has the heading alone.
    if (line.skip('Iface')) return true;
    if (!/^[\w*]/.test(line.peek())) return false;
    const device = line.word('the device');
    const dest = hexWord(line, 'the destination', 8);
    const gateway = hexWord(line, 'the gateway', 8);
    const flags = line.hexadecimal('the flags');
    line.unsigned('the references');
    line.unsigned('the uses');
    const metric = line.unsigned('the metric');
    const mask = hexWord(line, 'the mask', 8);
    if ((flags & up) === 0 || (flags & reject) !== 0) return true;
    give({
      device,
      dest: networkOf(ipv4OfHex(dest, 'host'), prefixOfHex(mask)),
      gateway: orEmpty(gateway, ipv4OfHost),
      metric,
    });
    return true;
  });
}

function readIpv6(text: KernelText, give: (route: Route) => void): number {
  return text.eachLine('an IPv6 route', (line) => {
    if (!line.isAtHexadecimal()) return false;
    const dest = hexWord(line, 'the destination', 32);
    const prefix = line.hexadecimal('the prefix');
    hexWord(line, 'the source', 32);
    line.hexadecimal('the prefix of the source');
    const gateway = hexWord(line, 'the next hop', 32);
    const metric = line.hexadecimal('the metric');
    line.hexadecimal('the references');
    line.hexadecimal('the uses');
    const flags = line.hexadecimal('the flags');
    const device = line.word('the device');
    // Those of multicast are of another kind too.
    const isUnicast = (flags & (reject | anycast | local)) === 0 && !dest.startsWith('ff');
    if ((flags & up) === 0 || !isUnicast) return true;
    give({ device, dest: networkOf(ipv6OfHex(dest), prefix), gateway: orEmpty(gateway, ipv6OfHex), metric });
    return true;
  });
}

function hexWord(line: KernelText, what: string, digits: number): string {
  const word = line.word(what);
  if (word.length !== digits || !/^[0-9a-f]+$/i.test(word)) {
    throw line.error(`${what} is '${word}', expected ${digits} hexadecimal digits`);
  }
  return word;
}

function networkOf(address: string, prefix: number): string {
  return prefix === 0 ? 'default' : `${address}/${prefix}`;
}

function ipv4OfHost(hex: string): string {
  return ipv4OfHex(hex, 'host');
}

function orEmpty(hex: string, addressOf: (hex: string) => string): string {
  return /^0+$/.test(hex) ? '' : addressOf(hex);
}
