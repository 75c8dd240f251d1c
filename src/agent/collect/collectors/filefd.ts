// /proc/sys/fs/file-nr: `1632	0	2466174`, one line: open files, files allocated and unused (0 since Linux 2.6), the most that
// there may be. https://www.kernel.org/doc/html/latest/admin-guide/sysctl/fs.html#file-max-file-nr
import type { Host } from '../proc/host.ts';
import { type CollectorRow, gauge, type Samples } from './collector.ts';

export const filefd: CollectorRow = {
  name: 'filefd',
  enabled: 'by default',
  description: 'open files of the whole host, from /proc/sys/fs/file-nr',
  options: [],
  create: () => ({ collect }),
};

const allocated = gauge('node_filefd_allocated', 'Files that are open, of all processes.');
const maximum = gauge('node_filefd_maximum', 'Files that may be open at a time, of all processes.');

function collect(host: Host, out: Samples): void {
  const text = host.read('proc/sys/fs/file-nr');
  text.firstLine();
  const open = text.unsigned('the number of open files');
  text.unsigned('the number of unused files');
  const most = text.unsigned('the largest number of files');
  out.sample(allocated, open);
  out.sample(maximum, most);
}
