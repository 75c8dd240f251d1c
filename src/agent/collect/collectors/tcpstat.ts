// /proc/net/tcp and tcp6: a line a TCP socket, in hexadecimal digits: the state, then what waits to be sent and to be read.
//       sl  local_address rem_address   st tx_queue rx_queue tr tm->when …
//        0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 …
// https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
// The kernel takes about 1 µs to print a socket, and we as long to read it. How many there are stands in /proc/net/sockstat:
// beyond a limit they are not read.
//     TCP: inuse 5 orphan 0 tw 2 alloc 9 mem 1
import { integer, option } from '../../../runtime/options.ts';
import { UnreadableError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

const socketsMax = option({
  name: 'tcpstat.max-sockets',
  placeholder: 'COUNT',
  parse: integer({ min: 1, max: 200_000 }),
  default: '20000',
  help: 'With more TCP sockets than this, they are not counted: the kernel takes 1 µs for each.',
});

export const tcpstat: CollectorRow = {
  name: 'tcpstat',
  enabled: 'on request',
  description: 'TCP connections by state, from /proc/net/tcp and tcp6',
  options: [socketsMax],
  create: (context) => new Tcpstat(context.option(socketsMax)),
};

const connections = gauge(
  'node_tcp_connection_states',
  'TCP connections in a state; for rx_queued_bytes and tx_queued_bytes, bytes that wait to be read or to be sent.',
  { labels: ['state'] },
);

// By number.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/net/tcp_states.h
const states: readonly (string | undefined)[] = [
  undefined,
  'established',
  'syn_sent',
  'syn_recv',
  'fin_wait1',
  'fin_wait2',
  'time_wait',
  'close',
  'close_wait',
  'last_ack',
  'listen',
  'closing',
];

interface Counts {
  readonly byState: number[];
  sendBytes: number;
  receiveBytes: number;
}

class Tcpstat implements Collector {
  readonly #socketsMax: number;

  constructor(max: number) {
    this.#socketsMax = max;
  }

  collect(host: Host, out: Samples): void {
    this.#checkCount(host);
    const counts: Counts = { byState: states.map(() => 0), sendBytes: 0, receiveBytes: 0 };
    const text6 = host.readIfThere('proc/net/tcp6');
    const failed =
      readSockets(host.read('proc/net/tcp'), counts) + (text6 === undefined ? 0 : readSockets(text6, counts));
    // Without one of the sockets the sums would be too small.
    if (failed > 0) return;
    const { byState } = counts;
    for (let state = 1; state < states.length; state++) {
      if (byState[state]! > 0) out.sample(connections, byState[state]!, states[state]);
    }
    out.sample(connections, counts.receiveBytes, 'rx_queued_bytes');
    out.sample(connections, counts.sendBytes, 'tx_queued_bytes');
  }

  #checkCount(host: Host): void {
    let count = 0;
    host.part('proc/net/sockstat', (text) => {
      text.eachLine('TCP', (line) => {
        if (!line.skip('TCP: inuse ')) return false;
        count += line.unsigned('inuse');
        if (line.skip(' orphan ')) count += line.unsigned('orphan');
        if (line.skip(' tw ')) count += line.unsigned('tw');
        return true;
      });
    });
    host.part('proc/net/sockstat6', (text) => {
      text.eachLine('TCP6', (line) => {
        if (!line.skip('TCP6: inuse ')) return false;
        count += line.unsigned('inuse');
        return true;
      });
    });
    if (count <= this.#socketsMax) return;
    const reason = ` is not read: there are ${count} TCP sockets, more than --${socketsMax.name}=${this.#socketsMax}`;
    throw new UnreadableError(host.path('proc/net/tcp'), { errno: 'too-many', reason });
  }
}

/** Returns how many sockets could not be read. */
function readSockets(text: KernelText, counts: Counts): number {
  return text.eachLine('a socket', (line) => {
    // A host without a socket of the kind has the heading alone.
    if (line.skip('sl ')) return true;
    if (!line.isAtDigit()) return false;
    line.skipWord(); // its number
    line.skipWord(); // the local address
    line.skipWord(); // the remote one
    const state = line.hexadecimal('the state');
    if (states[state] === undefined) throw line.error(`the state is ${state}, expected 1 to ${states.length - 1}`);
    const sendBytes = line.hexadecimal('tx_queue');
    if (!line.skip(':')) throw line.error('tx_queue should end with a colon and does not');
    const receiveBytes = line.hexadecimal('rx_queue');
    counts.byState[state]!++;
    counts.sendBytes += sendBytes;
    counts.receiveBytes += receiveBytes;
    return true;
  });
}
