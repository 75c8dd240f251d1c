// /proc/swaps: a line a device or file that is swapped to, below a heading; sizes in KiB. Without swap the heading alone.
//     Filename				Type		Size		Used		Priority
//     /dev/zram0                              partition	131068		176		100
// A name with a space has \040.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/mm/swapfile.c
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const swap: CollectorRow = {
  name: 'swap',
  enabled: 'on request',
  description: 'size and use of each swap device, from /proc/swaps',
  options: [],
  create: () => ({ collect }),
};

const labels = ['device', 'swap_type'];
const size = gauge('node_swap_size_bytes', 'Size of a swap device, in bytes.', { labels });
const used = gauge('node_swap_used_bytes', 'What of a swap device is in use, in bytes.', { labels });
const priority = gauge('node_swap_priority', 'Priority of a swap device: the highest is used first.', { labels });

function collect(host: Host, out: Samples): void {
  let hasHeading = false;
  host.read('proc/swaps').eachLine('a swap device', (line) => {
    // The heading counts: a host without swap has nothing else.
    if (line.skip('Filename')) {
      if (line.word('the second heading') !== 'Type') throw line.error('it is not the heading of /proc/swaps');
      hasHeading = true;
      return true;
    }
    const device = line.word('the name of a device');
    const type = line.word('the type of a device');
    const sizeKilobytes = line.unsigned('the size');
    const usedKilobytes = line.unsigned('the used size');
    const rank = line.signed('the priority');
    if (line.more()) throw line.error('it has more than five columns');
    out.sample(size, sizeKilobytes * 1024, device, type);
    out.sample(used, usedKilobytes * 1024, device, type);
    out.sample(priority, rank, device, type);
    return hasHeading;
  });
}
