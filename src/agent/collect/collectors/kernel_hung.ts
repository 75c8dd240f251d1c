// /proc/sys/kernel/hung_task_detect_count: one number, since Linux 6.13, where the kernel looks for hung tasks.
// https://www.kernel.org/doc/html/latest/admin-guide/sysctl/kernel.html#hung-task-detect-count
import type { Host } from '../proc/host.ts';
import { type CollectorRow, counter, type Samples } from './collector.ts';

export const kernel_hung: CollectorRow = {
  name: 'kernel_hung',
  enabled: 'by default',
  description: 'tasks that were found hanging in the kernel, from /proc/sys/kernel/hung_task_detect_count',
  options: [],
  create: () => ({ collect }),
};

const hungTasks = counter(
  'node_kernel_hung_tasks_total',
  'Tasks that the kernel found waiting without a break for longer than kernel.hung_task_timeout_secs (120 s).',
);

function collect(host: Host, out: Samples): void {
  const text = host.read('proc/sys/kernel/hung_task_detect_count');
  text.firstLine();
  out.sample(hungTasks, text.unsigned('the number of tasks'));
}
