// /proc/net/ip_vs: virtual services of the kernel's load balancer, and below each its real servers; addresses and ports are
// hexadecimal. /proc/net/ip_vs_stats: two lines of headings, then the sums in hexadecimal digits.
//     IP Virtual Server version 1.2.1 (size=4096)
//     Prot LocalAddress:Port Scheduler Flags
//       -> RemoteAddress:Port Forward Weight ActiveConn InActConn
//     TCP  C0A80016:0CEA wlc
//       -> C0A85216:0CEA      Tunnel  100    248        2
//     FWM  10001000 wlc
//        Total Incoming Outgoing         Incoming         Outgoing
//        Conns  Packets  Packets            Bytes            Bytes
//      16AA370 E33656E5        0     51D8C8883AB3                0
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/ipvs/ip_vs_ctl.c
import { option } from '../../../runtime/options.ts';
import { ipv4OfHex, ipv6OfHex } from '../proc/address.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, gauge, LabelLists, type Samples } from './collector.ts';

const allLabels = ['local_address', 'local_port', 'remote_address', 'remote_port', 'proto', 'local_mark'] as const;
type Label = (typeof allLabels)[number];

const backendLabels = option<readonly Label[]>({
  name: 'ipvs.backend-labels',
  placeholder: 'LABEL,…',
  parse: parseLabels,
  default: allLabels.join(','),
  help: 'Labels of the series of a real server. What they do not tell apart is summed up.',
});

/** In the order of `allLabels`. */
function parseLabels(given: string): readonly Label[] {
  const names = given.split(',').filter((name) => name !== '');
  if (!names.every((name) => allLabels.some((label) => label === name))) {
    throw new Error(`expected some of ${allLabels.join(', ')}`);
  }
  return allLabels.filter((label) => names.includes(label));
}

export const ipvs: CollectorRow = {
  name: 'ipvs',
  enabled: 'by default',
  description: "the kernel's load balancer, from /proc/net/ip_vs and ip_vs_stats",
  options: [backendLabels],
  create: (context) => new Ipvs(context.option(backendLabels)),
};

// In the order of the columns.
const sums = [
  counter('node_ipvs_connections_total', 'Connections to the load balancer.'),
  counter('node_ipvs_incoming_packets_total', 'Packets that the load balancer received.'),
  counter('node_ipvs_outgoing_packets_total', 'Packets that the load balancer sent.'),
  counter('node_ipvs_incoming_bytes_total', 'Bytes that the load balancer received.'),
  counter('node_ipvs_outgoing_bytes_total', 'Bytes that the load balancer sent.'),
];
const sumNames = ['the connections', 'incoming packets', 'outgoing packets', 'incoming bytes', 'outgoing bytes'];

interface Backend {
  readonly labels: readonly string[];
  weight: number;
  active: number;
  inactive: number;
}

type Service = Pick<Readonly<Record<Label, string>>, 'proto' | 'local_address' | 'local_port' | 'local_mark'>;

class Ipvs implements Collector {
  readonly #labelNames: readonly Label[];
  readonly #families;
  readonly #labels = new LabelLists();
  readonly #counts: number[] = [];

  constructor(labels: readonly Label[]) {
    this.#labelNames = labels;
    this.#families = {
      active: gauge('node_ipvs_backend_connections_active', 'Active connections to a real server.', { labels }),
      inactive: gauge('node_ipvs_backend_connections_inactive', 'Inactive connections to a real server.', { labels }),
      weight: gauge('node_ipvs_backend_weight', 'Weight of a real server.', { labels }),
    };
  }

  collect(host: Host, out: Samples): void {
    this.#readSums(host.read('proc/net/ip_vs_stats'), out);
    host.part('proc/net/ip_vs', (text) => this.#readBackends(text, out));
    this.#labels.endCollection();
  }

  #readSums(text: KernelText, out: Samples): void {
    let isBelowRates = false;
    text.eachLine('sums', (line) => {
      if (line.skip('Conns/s')) isBelowRates = true;
      if (isBelowRates || line.skip('Total') || line.skip('Conns')) return false;
      const found = line.hexadecimals(this.#counts, sumNames);
      if (found < sums.length) throw line.error(`it has ${found} columns, expected ${sums.length}`);
      for (let at = 0; at < found; at++) out.sample(sums[at]!, this.#counts[at]!);
      return true;
    });
  }

  #readBackends(text: KernelText, out: Samples): void {
    const backends = new Map<readonly string[], Backend>();
    // Undefined where its own line could not be read: its servers have no labels.
    let service: Service | undefined;
    const failed = text.eachLine('a service or a heading', (line) => {
      if (line.skip('IP Virtual Server') || line.skip('Prot ') || line.skip('-> RemoteAddress')) return true;
      if (!line.skip('->')) {
        if (!/^[A-Za-z]/.test(line.peek())) return false;
        service = undefined;
        service = readService(line);
        return true;
      }
      const { address, port } = readAddress(line, 'the remote address');
      line.word('how it forwards');
      const weight = line.unsigned('the weight');
      const active = line.unsigned('the active connections');
      const inactive = line.unsigned('the inactive connections');
      if (service === undefined) return true;
      const backend = this.#backendOf(backends, { ...service, remote_address: address, remote_port: port });
      backend.weight += weight;
      backend.active += active;
      backend.inactive += inactive;
      return true;
    });
    // With all labels each is a server; with fewer they are sums, which are too small without one of them.
    if (failed > 0 && this.#labelNames.length < allLabels.length) return;
    for (const { labels, weight, active, inactive } of backends.values()) {
      out.sampleLabels(this.#families.active, active, labels);
      out.sampleLabels(this.#families.inactive, inactive, labels);
      out.sampleLabels(this.#families.weight, weight, labels);
    }
  }

  #backendOf(backends: Map<readonly string[], Backend>, all: Readonly<Record<Label, string>>): Backend {
    const labels = this.#labels.of(...this.#labelNames.map((name) => all[name]));
    let backend = backends.get(labels);
    if (backend === undefined) {
      backend = { labels, weight: 0, active: 0, inactive: 0 };
      backends.set(labels, backend);
    }
    return backend;
  }
}

/** `TCP  C0A80016:0CEA wlc`, or `FWM  10001000 wlc` for packets that a rule has marked. */
function readService(line: KernelText): Service {
  const proto = line.word('the protocol');
  if (proto === 'FWM') {
    // node_exporter has it so.
    return { proto, local_address: '', local_port: '0', local_mark: line.word('the mark') };
  }
  if (!/^[A-Z]+$/.test(proto)) throw line.error(`the protocol is '${proto}', expected TCP, UDP, SCTP or FWM`);
  const { address, port } = readAddress(line, 'the local address');
  return { proto, local_address: address, local_port: port, local_mark: '' };
}

/** `C0A80016:0CEA`, or `[2620:0000:…:0001]:0050`. */
function readAddress(line: KernelText, what: string): { readonly address: string; readonly port: string } {
  const word = line.word(what);
  const match = /^(?:([0-9A-F]{8})|\[([0-9a-f:]{39})\]):([0-9A-F]{4})$/i.exec(word);
  if (match === null) throw line.error(`${what} is '${word}', expected an address and a port`);
  const [, ipv4, ipv6 = '', port = ''] = match;
  return {
    address: ipv4 === undefined ? ipv6OfHex(ipv6.replaceAll(':', '')) : ipv4OfHex(ipv4, 'network'),
    port: String(Number.parseInt(port, 16)),
  };
}
