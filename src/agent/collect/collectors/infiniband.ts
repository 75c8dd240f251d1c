// /sys/class/infiniband/DEVICE/{board_id,fw_ver,hca_type}, of which a driver may have none; ports/N/state and phys_state, such
// as `4: ACTIVE`; ports/N/rate, such as `2.5 Gb/sec (1X SDR)`. ports/N/counters: one number a file, or `N/A (no PMA)`; counters
// of data in words of four bytes. ports/N/counters_ext: their 64 bits before Linux 4.5. ports/N/hw_counters: those of the driver,
// which it reads from the device at most once in `lifespan` milliseconds.
// https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-class-infiniband
// https://enterprise-support.nvidia.com/s/article/understanding-mlx5-linux-counters-and-status-parameters
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
} from './collector.ts';

const include = patternOption('infiniband.device-include', '', 'InfiniBand devices to collect. Empty: all.');
const exclude = patternOption('infiniband.device-exclude', '', 'InfiniBand devices to leave out. Empty: none.');

export const infiniband: CollectorRow = {
  name: 'infiniband',
  enabled: 'by default',
  description: 'state, traffic and errors of the ports of InfiniBand and RoCE devices, from /sys/class/infiniband',
  options: [include, exclude],
  lane: 'slow',
  create: (context) => new Infiniband(new NameFilter(context.option(include), context.option(exclude))),
};

const info = gauge('node_infiniband_info', 'Always 1; board, firmware and type of an InfiniBand device as labels.', {
  labels: ['device', 'board_id', 'firmware_version', 'hca_type'],
});
const labels = ['device', 'port'];
const state = gauge('node_infiniband_state_id', 'State of the port: 1 down, 2 init, 3 armed, 4 active, 5 deferred.', {
  labels,
});
const physicalState = gauge(
  'node_infiniband_physical_state_id',
  'State of the physical link: 1 sleep, 2 polling, 3 disabled, 4 training, 5 up, 6 recovery, 7 test.',
  { labels },
);
const rate = gauge('node_infiniband_rate_bytes_per_second', 'Speed of the port, in bytes a second.', { labels });
const lifespan = gauge(
  'node_infiniband_lifespan_seconds',
  'How old a counter of the hardware may be when it is read, in seconds.',
  { labels, divisor: 1000 },
);

interface Counter {
  readonly family: SampledFamily;
  /** What one of its units is. */
  readonly factor: number;
}

const wordBytes = 4;

/** By folder, and the name of the file. */
const counters: readonly (readonly [folder: string, ReadonlyMap<string, Counter>])[] = [
  [
    'counters',
    new Map([
      count('VL15_dropped', 'vl15_dropped', 'Packets of the management lane that were dropped for want of room.'),
      count(
        'excessive_buffer_overrun_errors',
        'excessive_buffer_overrun_errors',
        'Times that buffers overran in several flow control periods in a row.',
      ),
      count('link_downed', 'link_downed', 'Times that the link went down because it could not recover from an error.'),
      count('link_error_recovery', 'link_error_recovery', 'Times that the link recovered from an error.'),
      count(
        'local_link_integrity_errors',
        'local_link_integrity_errors',
        'Times that errors of the physical link were more than the threshold.',
      ),
      count('multicast_rcv_packets', 'multicast_packets_received', 'Multicast packets received, also wrong ones.'),
      count('multicast_xmit_packets', 'multicast_packets_transmitted', 'Multicast packets sent, also wrong ones.'),
      count(
        'port_rcv_constraint_errors',
        'port_constraint_errors_received',
        'Packets that the port of the switch received and discarded.',
      ),
      words('port_rcv_data', 'port_data_received_bytes', 'Bytes received.'),
      count(
        'port_rcv_discards',
        'port_discards_received',
        'Packets received and discarded because the port is down or congested.',
      ),
      count('port_rcv_errors', 'port_errors_received', 'Packets received with an error.'),
      count('port_rcv_packets', 'port_packets_received', 'Packets received, also wrong ones.'),
      count(
        'port_rcv_remote_physical_errors',
        'port_receive_remote_physical_errors',
        'Packets received that another device had marked as bad.',
      ),
      count(
        'port_rcv_switch_relay_errors',
        'port_receive_switch_relay_errors',
        'Packets received that the switch could not pass on.',
      ),
      count(
        'port_xmit_constraint_errors',
        'port_constraint_errors_transmitted',
        'Packets that the port of the switch did not send.',
      ),
      words('port_xmit_data', 'port_data_transmitted_bytes', 'Bytes sent.'),
      count(
        'port_xmit_discards',
        'port_discards_transmitted',
        'Packets that were to be sent and were discarded because the port is down or congested.',
      ),
      count('port_xmit_packets', 'port_packets_transmitted', 'Packets sent, also wrong ones.'),
      count('port_xmit_wait', 'port_transmit_wait', 'Ticks during which there were data to send and none was sent.'),
      count('symbol_error', 'symbol_error', 'Small errors of the physical link.'),
      count('unicast_rcv_packets', 'unicast_packets_received', 'Unicast packets received, also wrong ones.'),
      count('unicast_xmit_packets', 'unicast_packets_transmitted', 'Unicast packets sent, also wrong ones.'),
    ]),
  ],
  [
    'counters_ext',
    new Map([
      count(
        'port_multicast_rcv_packets',
        'legacy_multicast_packets_received',
        'Multicast packets received, from before Linux 4.5.',
      ),
      count(
        'port_multicast_xmit_packets',
        'legacy_multicast_packets_transmitted',
        'Multicast packets sent, from before Linux 4.5.',
      ),
      words('port_rcv_data_64', 'legacy_data_received_bytes', 'Bytes received, from before Linux 4.5.'),
      count('port_rcv_packets_64', 'legacy_packets_received', 'Packets received, from before Linux 4.5.'),
      count(
        'port_unicast_rcv_packets',
        'legacy_unicast_packets_received',
        'Unicast packets received, from before Linux 4.5.',
      ),
      count(
        'port_unicast_xmit_packets',
        'legacy_unicast_packets_transmitted',
        'Unicast packets sent, from before Linux 4.5.',
      ),
      words('port_xmit_data_64', 'legacy_data_transmitted_bytes', 'Bytes sent, from before Linux 4.5.'),
      count('port_xmit_packets_64', 'legacy_packets_transmitted', 'Packets sent, from before Linux 4.5.'),
    ]),
  ],
  [
    'hw_counters',
    new Map([
      count('duplicate_request', 'duplicate_requests_packets', 'Requests that came twice.'),
      count('implied_nak_seq_err', 'implied_nak_seq_errors', 'Answers to a read that skipped packets.'),
      count('local_ack_timeout_err', 'local_ack_timeout_errors', 'Times that no acknowledgement came in time.'),
      count('np_cnp_sent', 'np_cnp_packets_sent', 'Notifications of congestion that were sent.'),
      count(
        'np_ecn_marked_roce_packets',
        'np_ecn_marked_roce_packets_received',
        'RoCE packets received with the mark of congestion.',
      ),
      count('out_of_buffer', 'out_of_buffer_drops', 'Packets dropped because the queue had no work request.'),
      count('out_of_sequence', 'out_of_sequence_packets_received', 'Packets that were received out of order.'),
      count('packet_seq_err', 'packet_sequence_errors', 'Refusals received because packets came out of order.'),
      count('req_cqe_error', 'req_cqes_errors', 'Requests that completed with an error.'),
      count(
        'req_cqe_flush_error',
        'req_cqes_flush_errors',
        'Requests that completed with an error because they were flushed.',
      ),
      count(
        'req_remote_access_errors',
        'req_remote_access_errors',
        'Requests that the other side refused for want of access.',
      ),
      count(
        'req_remote_invalid_request',
        'req_remote_invalid_request_errors',
        'Requests that the other side called invalid.',
      ),
      count('resp_cqe_error', 'resp_cqes_errors', 'Answers that completed with an error.'),
      count(
        'resp_cqe_flush_error',
        'resp_cqes_flush_errors',
        'Answers that completed with an error because they were flushed.',
      ),
      count(
        'resp_local_length_error',
        'resp_local_length_errors',
        'Requests received that were longer than there was room for.',
      ),
      count(
        'resp_remote_access_errors',
        'resp_remote_access_errors',
        'Requests received that were refused for want of access.',
      ),
      count(
        'rnr_nak_retry_err',
        'rnr_nak_retry_packets_received',
        'Refusals received because the other side was not ready.',
      ),
      count('roce_adp_retrans', 'roce_adp_retransmits', 'Adaptive retransmissions of RoCE.'),
      count(
        'roce_adp_retrans_to',
        'roce_adp_retransmits_timeout',
        'Adaptive retransmissions of RoCE that ran into their time-out.',
      ),
      count('roce_slow_restart', 'roce_slow_restart_used', 'Times that a slow restart of RoCE was used.'),
      count(
        'roce_slow_restart_cnps',
        'roce_slow_restart_cnps',
        'Notifications of congestion that a slow restart of RoCE sent.',
      ),
      count('roce_slow_restart_trans', 'roce_slow_restart', 'Times that RoCE went over to a slow restart.'),
      count(
        'rp_cnp_handled',
        'rp_cnp_packets_handled',
        'Notifications of congestion that were received and slowed the sender.',
      ),
      count(
        'rp_cnp_ignored',
        'rp_cnp_ignored_packets_received',
        'Notifications of congestion that were received and ignored.',
      ),
      count('rx_atomic_requests', 'rx_atomic_requests', 'Atomic requests received.'),
      count('rx_dct_connect', 'rx_dct_connect_requests', 'Connection requests received for dynamic connections.'),
      count('rx_icrc_encapsulated', 'rx_icrc_encapsulated_errors', 'RoCE packets received with a wrong checksum.'),
      count('rx_read_requests', 'rx_read_requests', 'Read requests received.'),
      count('rx_write_requests', 'rx_write_requests', 'Write requests received.'),
    ]),
  ],
];

function count(file: string, name: string, help: string, factor = 1): [string, Counter] {
  return [file, { family: counter(`node_infiniband_${name}_total`, help, { labels }), factor }];
}

function words(file: string, name: string, help: string): [string, Counter] {
  return count(file, name, help, wordBytes);
}

const folder = 'sys/class/infiniband';
const bytesOfTenthGigabit = 12_500_000;

class Infiniband implements Collector {
  readonly #filter: NameFilter;
  readonly #labels = new LabelLists();

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    for (const device of host.devices(folder)) {
      if (!this.#filter.keeps(device)) continue;
      const texts = ['board_id', 'fw_ver', 'hca_type'].map((file) => host.rareText(`${folder}/${device}/${file}`));
      // One that has gone since it was listed has nothing of all this.
      if (texts.some((text) => text !== undefined)) {
        out.sampleLabels(info, 1, this.#labels.of(device, ...texts.map((text) => text ?? '')));
      }
      for (const port of host.attributes(`${folder}/${device}/ports`, /^\d+$/)) {
        collectPort(host, out, device, port);
      }
    }
    this.#labels.endCollection();
  }
}

function collectPort(host: Host, out: Samples, device: string, port: string): void {
  const at = `${folder}/${device}/ports/${port}`;
  const stateId = host.value(`${at}/state`, parseState);
  if (stateId !== undefined) out.sample(state, stateId, device, port);
  const physicalStateId = host.value(`${at}/phys_state`, parseState);
  if (physicalStateId !== undefined) out.sample(physicalState, physicalStateId, device, port);
  const bytes = host.rareValue(`${at}/rate`, parseRate);
  if (bytes !== undefined) out.sample(rate, bytes, device, port);
  const milliseconds = host.rareValue(`${at}/hw_counters/lifespan`, parseCount);
  if (milliseconds !== undefined) out.sample(lifespan, milliseconds, device, port);
  for (const [name, known] of counters) {
    // Which of them there are, the driver says.
    for (const file of host.attributes(`${at}/${name}`)) {
      const one = known.get(file);
      const units = one && host.value(`${at}/${name}/${file}`, parseCount);
      if (units !== undefined) out.sample(one!.family, units * one!.factor, device, port);
    }
  }
}

/** One digit before a colon, where a hexadecimal number may end. */
function parseState(text: KernelText): number {
  return text.hexadecimal('the number of the state');
}

/** In bytes a second. The kernel prints half gigabits, and no other part. */
function parseRate(text: KernelText): number {
  const word = text.word('the rate');
  const match = /^(\d{1,6})(?:\.(\d))?$/.exec(word);
  if (match === null) throw text.error(`the rate is ${JSON.stringify(word)}, expected gigabits a second`);
  const [, whole = '', tenths = '0'] = match;
  return (text.wholeNumber(whole, 'the rate') * 10 + text.wholeNumber(tenths, 'the rate')) * bytesOfTenthGigabit;
}

/** Undefined where the device does not count it. */
function parseCount(text: KernelText): number | undefined {
  return text.skip('N/A') ? undefined : text.unsigned('the count');
}
