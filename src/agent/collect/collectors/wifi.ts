// /proc/net/wireless: two lines of headings, then a line a wireless device: its state, the quality, level and noise of what
// it receives, and packets that were thrown away: wrong network, wrong key, wrong fragment, too many retries, other reasons.
//     Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
//      face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
//      wlan0: 0000   54.  -56.  -256        0      0      0     12      0        0
// A point behind a number says that it is new. The level is in dBm where it is negative.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/wireless/wext-proc.c
// Which of the station's numbers these are: net/wireless/wext-compat.c. It is a client's one access point; its address, and
// all else that node_exporter has from nl80211, is in no file.
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, counter, gauge, type Samples } from './collector.ts';

export const wifi: CollectorRow = {
  name: 'wifi',
  enabled: 'on request',
  description: 'signal and failed packets of wireless devices, from /proc/net/wireless',
  options: [],
  create: () => ({ collect }),
};

const labels = ['device'];
const signal = gauge('node_wifi_station_signal_dbm', 'Strength of what a wireless device receives, in dBm.', {
  labels,
});
const failed = counter('node_wifi_station_transmit_failed_total', 'Packets that a wireless device could not send.', {
  labels,
});

function collect(host: Host, out: Samples): void {
  host.read('proc/net/wireless').eachLine('a wireless device', (line) => {
    // A host without a wireless device has the headings alone.
    if (line.skip('Inter-|') || line.skip('face |')) return true;
    const device = line.keyToLastColon('the name of a device');
    line.hexadecimal('the state');
    signedWithPoint(line, 'the link');
    const level = signedWithPoint(line, 'the level');
    signedWithPoint(line, 'the noise');
    line.unsigned('nwid');
    line.unsigned('crypt');
    line.unsigned('frag');
    const retries = line.unsigned('retry');
    line.unsigned('misc');
    line.unsigned('the missed beacons');
    if (level < 0) out.sample(signal, level, device);
    out.sample(failed, retries, device);
    return true;
  });
}

function signedWithPoint(line: KernelText, what: string): number {
  const word = line.word(what);
  return line.wholeNumber(word.endsWith('.') ? word.slice(0, -1) : word, what);
}
