import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * How much memory this process and its control group may have, undefined where nothing limits it: MemoryMax= of its unit,
 * or of one of the slices around it, or the limit of a container. Control groups of version 1 are not asked.
 * https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
 */
export function memoryLimitBytes(read = readText): number | undefined {
  // `0::/system.slice/sysmon-agent.service`, in a container often `0::/`
  const group = /^0::(\/.*)$/m.exec(readOr('', read, '/proc/self/cgroup'))?.[1];
  if (group === undefined) return undefined;
  let least = Number.POSITIVE_INFINITY;
  for (let path = group; ; path = dirname(path)) {
    // `max`, or bytes; the root of all has no such file.
    const text = readOr('max', read, `/sys/fs/cgroup${path === '/' ? '' : path}/memory.max`);
    if (/^\d+\n?$/.test(text)) least = Math.min(least, Number(text));
    if (path === '/') return Number.isFinite(least) ? least : undefined;
  }
}

const readText = (path: string): string => readFileSync(path, 'utf8');

function readOr(otherwise: string, read: (path: string) => string, path: string): string {
  try {
    return read(path);
  } catch {
    // Not there, or not for us: nothing is known of a limit.
    return otherwise;
  }
}
