// How many files of the kernel stay open between two collections: a share of what the process may have open.
// https://man7.org/linux/man-pages/man5/proc_pid_limits.5.html
//     Limit                     Soft Limit           Hard Limit           Units
//     Max open files            4096                 4096                 files
import { readFileSync } from 'node:fs';

export interface KeptFiles {
  /** Of those that are read when they are asked for, and of those in the slow lane. Beyond, a file is opened for each read. */
  readonly fast: number;
  readonly slow: number;
}

/**
 * To open and close a file for each read costs half as much again as all the rest of it, and a host of 500 interfaces has
 * thousands. But an open file of sysfs holds a page of the kernel's memory, so there is a bound however many there may be.
 */
const most: KeptFiles = { fast: 4096, slow: 6144 };
// Node raises its limit to the hard one, which is 4096 on the smallest systems.
const limitMin = 4096;

export function keptFiles(read: () => string = () => readFileSync('/proc/self/limits', 'utf8')): KeptFiles {
  const limit = Math.max(limitMin, openFilesMax(read));
  return { fast: Math.min(most.fast, Math.floor(limit / 2)), slow: Math.min(most.slow, Math.floor(limit / 4)) };
}

function openFilesMax(read: () => string): number {
  try {
    const soft = /^Max open files +(\d+|unlimited) /m.exec(read())?.[1];
    return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft ?? 0);
  } catch {
    // Without /proc nothing is known of it.
    return 0;
  }
}
