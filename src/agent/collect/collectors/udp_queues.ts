// /proc/net/udp and udp6: a heading, then a row a socket, in hexadecimal:
//      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
//     123: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 10222 2 000000006d5ef7f6 0
// https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const udp_queues: CollectorRow = {
  name: 'udp_queues',
  enabled: 'by default',
  description: 'bytes that wait in the queues of all UDP sockets, from /proc/net/udp and udp6',
  options: [],
  create: () => ({ collect }),
};

const queues = gauge(
  'node_udp_queues',
  'Memory that packets take which wait in UDP sockets to be sent or read, in bytes.',
  {
    labels: ['queue', 'ip'],
  },
);

const paths = ['proc/net/udp', 'proc/net/udp6'];
const versions = ['v4', 'v6'];

function collect(host: Host, out: Samples): void {
  host.readEach(paths, (text, at) => {
    const { sent, received } = sumQueues(text);
    out.sample(queues, sent, 'tx', versions[at]);
    out.sample(queues, received, 'rx', versions[at]);
  });
}

/** A row that cannot be read would make the sum too small: it costs all. */
function sumQueues(text: KernelText): { readonly sent: number; readonly received: number } {
  let sent = 0;
  let received = 0;
  let hasHeading = false;
  while (text.nextLine()) {
    if (!text.more()) continue;
    if (!hasHeading && text.skip('sl ')) hasHeading = true;
    // The number of the row, two addresses and a state come before the queues.
    else if (text.skipPast(': ') && text.skipWord() && text.skipWord() && text.skipWord()) {
      sent += text.hexadecimal('the queue for sending');
      if (!text.skip(':')) throw text.error('the queue for receiving is missing');
      received += text.hexadecimal('the queue for receiving');
    }
  }
  if (!hasHeading) throw text.error('the table has no heading');
  return { sent, received };
}
