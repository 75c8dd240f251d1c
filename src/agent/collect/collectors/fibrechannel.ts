// /sys/class/fc_host/hostN: one attribute a file; `port_id`, `port_name` and `fabric_name` are hexadecimal. A driver leaves out
// what it does not know. statistics/NAME: a number in hexadecimal; one that the adapter does not count is 2^64-1. For each the
// driver may ask the adapter, which takes milliseconds.
// https://docs.kernel.org/scsi/scsi_fc_transport.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/drivers/scsi/scsi_transport_fc.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
} from './collector.ts';

export const fibrechannel: CollectorRow = {
  name: 'fibrechannel',
  enabled: 'by default',
  description: 'state, traffic and errors of Fibre Channel adapters, from /sys/class/fc_host',
  options: [],
  lane: 'slow',
  create: () => new FibreChannel(),
};

const labels = ['fc_host'];
/** Those that change with the link are read each time. */
const changing = ['speed', 'port_state', 'port_type', 'port_id', 'fabric_name'];
const fixed = ['port_name', 'symbolic_name', 'supported_classes', 'supported_speeds', 'dev_loss_tmo'];
const info = gauge(
  'node_fibrechannel_info',
  'Always 1; names, state and speeds of a Fibre Channel adapter as labels.',
  {
    labels: [...labels, ...changing, ...fixed],
  },
);

const statistics: readonly (readonly [file: string, SampledFamily])[] = [
  count('dumped_frames', 'dumped_frames', 'Frames that the host had no room for.'),
  count('error_frames', 'error_frames', 'Frames with errors.'),
  count('invalid_crc_count', 'invalid_crc', 'Frames with a wrong checksum.'),
  count('rx_frames', 'rx_frames', 'Frames received.'),
  count('rx_words', 'rx_words', 'Words of four bytes received.'),
  count('tx_frames', 'tx_frames', 'Frames sent.'),
  count('tx_words', 'tx_words', 'Words of four bytes sent.'),
  count('seconds_since_last_reset', 'seconds_since_last_reset', 'Seconds since the counters were reset.'),
  count('invalid_tx_word_count', 'invalid_tx_words', 'Invalid words on the link.'),
  count('link_failure_count', 'link_failure', 'Times that the link failed.'),
  count('loss_of_sync_count', 'loss_of_sync', 'Times that the link lost its synchronization.'),
  count('loss_of_signal_count', 'loss_of_signal', 'Times that the link lost its signal.'),
  count('nos_count', 'nos', 'Times that the other side said that it is not operational.'),
  count('fcp_packet_aborts', 'fcp_packet_aborts', 'Packets of SCSI that were aborted.'),
];

function count(file: string, name: string, help: string): readonly [string, SampledFamily] {
  return [file, counter(`node_fibrechannel_${name}_total`, help, { labels })];
}

const folder = 'sys/class/fc_host';
/** 2^64-1 is this double. */
const notCounted = 2 ** 64;

class FibreChannel implements Collector {
  readonly #labels = new LabelLists();

  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder)) {
      const at = `${folder}/${name}`;
      const texts = [
        ...changing.map((file) => host.value(`${at}/${file}`, parseText, '')),
        ...fixed.map((file) => host.rareValue(`${at}/${file}`, parseText, '')),
      ];
      // One that has gone since it was listed has nothing of all this.
      if (texts.some((text) => text !== undefined)) {
        out.sampleLabels(info, 1, this.#labels.of(name, ...texts.map((text) => text ?? '')));
      }
      for (const [file, family] of statistics) {
        const value = host.value(`${at}/statistics/${file}`, parseCount);
        if (value !== undefined && value < notCounted) out.sample(family, value, name);
      }
    }
    this.#labels.endCollection();
  }
}

function parseText(text: KernelText): string {
  text.skip('0x');
  return text.rest();
}

function parseCount(text: KernelText): number {
  text.skip('0x');
  return text.hexadecimal('the count');
}
