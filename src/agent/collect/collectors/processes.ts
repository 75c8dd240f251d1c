// /proc/PID/stat: `1 (systemd) S 0 1 …`; what stands in parentheses may have spaces and parentheses. The third field is the
// state, the twentieth the number of threads, each of which has a stat in /proc/PID/task.
// https://www.kernel.org/doc/html/latest/filesystems/proc.html#process-specific-subdirectories
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const processes: CollectorRow = {
  name: 'processes',
  enabled: 'on request',
  description: 'processes and threads by state, from a file of each in /proc: 15 µs for each process and thread',
  options: [],
  create: () => new Processes(),
};

const threads = gauge('node_processes_threads', 'Threads of all processes.');
const threadsMax = gauge('node_processes_max_threads', 'The most threads that there may be.');
const threadsByState = gauge('node_processes_threads_state', 'Threads in a state.', { labels: ['thread_state'] });
const byState = gauge('node_processes_state', 'Processes in a state.', { labels: ['state'] });
const pids = gauge('node_processes_pids', 'Processes.');
const pidsMax = gauge('node_processes_max_processes', 'The largest process number plus one.');

interface Stat {
  readonly state: string;
  readonly threadCount: number;
}

class Processes implements Collector {
  collect(host: Host, out: Samples): void {
    const states = new Map<string, number>();
    const threadStates = new Map<string, number>();
    let pidCount = 0;
    let threadCount = 0;
    for (const pid of host.devices('proc', /^\d+$/)) {
      const stat = readStat(host, `proc/${pid}/stat`);
      if (stat === undefined) continue; // it has ended meanwhile
      pidCount++;
      threadCount += stat.threadCount;
      count(states, stat.state);
      if (stat.threadCount === 1) count(threadStates, stat.state);
      else countThreads(host, pid, threadStates);
    }
    out.sample(threads, threadCount);
    out.sample(pids, pidCount);
    for (const [state, number] of states) out.sample(byState, number, state);
    for (const [state, number] of threadStates) out.sample(threadsByState, number, state);
    const threadLimit = host.value('proc/sys/kernel/threads-max', parseLimit);
    if (threadLimit !== undefined) out.sample(threadsMax, threadLimit);
    const pidLimit = host.value('proc/sys/kernel/pid_max', parseLimit);
    if (pidLimit !== undefined) out.sample(pidsMax, pidLimit);
  }
}

function countThreads(host: Host, pid: string, states: Map<string, number>): void {
  for (const thread of host.devicesIfThere(`proc/${pid}/task`, /^\d+$/)) {
    const stat = readStat(host, `proc/${pid}/task/${thread}/stat`);
    if (stat !== undefined) count(states, stat.state);
  }
}

function count(states: Map<string, number>, state: string): void {
  states.set(state, (states.get(state) ?? 0) + 1);
}

/** Undefined where the process or thread has ended. One that cannot be parsed would make the sums wrong: it throws. */
function readStat(host: Host, path: string): Stat | undefined {
  const text = host.passing(path);
  if (text === undefined) return undefined;
  text.firstLine();
  if (!text.skipPastLast(') ')) throw text.error('the name is not in parentheses');
  const state = text.word('the state');
  if (!/^[A-Za-z]$/.test(state)) throw text.error(`the state is '${state}', expected a letter`);
  for (let field = 4; field < 20; field++) text.skipWord();
  return { state, threadCount: text.unsigned('the number of threads') };
}

function parseLimit(text: KernelText): number {
  return text.unsigned('the limit');
}
