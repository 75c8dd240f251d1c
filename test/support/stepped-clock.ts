import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { skipHere } from './installed.ts';

/** The wall clock of one program, which a test sets while it runs. Its monotonic clock is as it was. */
export interface SteppedClock {
  /** For the program's environment. */
  readonly env: NodeJS.ProcessEnv;
  /** From now on the wall clock is off by so much. */
  set(offsetMs: number): void;
}

/** Undefined where it cannot be made here, and the test has been skipped; with CI=true that is a failure. */
export function steppedClocks(context: TestContext, folder: string): ((name: string) => SteppedClock) | undefined {
  if (spawnSync('gcc', ['--version']).status !== 0) {
    return skipHere(context, "'gcc' is missing: apt-get install gcc libc6-dev");
  }
  const library = join(folder, 'clock.so');
  execFileSync('gcc', ['-shared', '-fPIC', '-O2', '-x', 'c', '-o', library, '-'], { input: source });
  return (name) => {
    const path = join(folder, `${name}.clock`);
    writeFileSync(path, offsetBytes(0));
    return {
      env: { LD_PRELOAD: library, SYSMON_TEST_CLOCK: path },
      set(offsetMs) {
        // In place: the program has mapped the file.
        const file = openSync(path, 'r+');
        writeSync(file, offsetBytes(offsetMs));
        closeSync(file);
      },
    };
  };
}

function offsetBytes(ms: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(ms));
  return bytes;
}

const source = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long *offset, none;
static void add(struct timespec *t) {
  if (!offset) {
    const char *path = getenv("SYSMON_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    offset = fd < 0 ? &none : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
  }
  long long ns = t->tv_nsec + (*offset % 1000) * 1000000LL;
  t->tv_sec += *offset / 1000;
  if (ns < 0) { ns += 1000000000; t->tv_sec--; }
  if (ns >= 1000000000) { ns -= 1000000000; t->tv_sec++; }
  t->tv_nsec = ns;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
  int result = syscall(SYS_clock_gettime, clock, t);
  if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add(t);
  return result;
}
int gettimeofday(struct timeval *restrict value, void *restrict zone) {
  struct timespec t;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &t);
  value->tv_sec = t.tv_sec;
  value->tv_usec = t.tv_nsec / 1000;
  return 0;
}
`;
