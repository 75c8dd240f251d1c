// /proc/sys/kernel/random/{entropy_avail,poolsize}: a number of bits each. Since Linux 5.18 both are 256 once the pool is full.
// https://www.kernel.org/doc/html/latest/admin-guide/sysctl/kernel.html#random
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const entropy: CollectorRow = {
  name: 'entropy',
  enabled: 'by default',
  description: 'the pool of random numbers, from /proc/sys/kernel/random',
  options: [],
  create: () => ({ collect }),
};

const available = gauge('node_entropy_available_bits', 'Bits of entropy in the pool.');
const poolSize = gauge('node_entropy_pool_size_bits', 'Bits that the pool can hold.');

const folder = 'proc/sys/kernel/random';
const files = [
  { path: `${folder}/entropy_avail`, family: available },
  { path: `${folder}/poolsize`, family: poolSize },
];

function collect(host: Host, out: Samples): void {
  let found = 0;
  for (const { path, family } of files) {
    const bits = host.value(path, parseBits);
    if (bits === undefined) continue;
    out.sample(family, bits);
    found++;
  }
  if (found === 0 && !host.exists(folder)) throw new NoDataError(host.path(folder), ' does not exist');
}

function parseBits(text: KernelText): number {
  return text.unsigned('the number of bits');
}
