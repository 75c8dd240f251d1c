import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { Program } from './programs.ts';

/**
 * Two network namespaces, and a line between them that delays every packet: as by satellite, or from another continent.
 * The near end has 10.98.0.1 and fd98::1, the far one 10.98.0.2 and fd98::2; nobody has the other addresses.
 */
export interface SlowLine {
  /** To be put before a command that runs there. */
  readonly near: readonly string[];
  readonly far: readonly string[];
}

/** Undefined where it cannot be had here, and the test has been skipped; with CI=true that is a failure. */
export async function slowLine(
  context: TestContext,
  { delayMs, hosts }: { readonly delayMs: number; readonly hosts: string },
): Promise<SlowLine | undefined> {
  const missing = missingHere();
  if (missing !== undefined) {
    return skipHere(context, `a slow line cannot be made: ${missing}`);
  }
  const [near, far] = [`sysmon-near-${process.pid}`, `sysmon-far-${process.pid}`];
  // What `ip netns exec` shows as /etc/hosts.
  const etc = `/etc/netns/${near}`;
  context.after(() => {
    for (const name of [near, far]) spawnSync('ip', ['netns', 'del', name]);
    rmSync(etc, { recursive: true, force: true });
  });
  for (const name of [near, far]) execFileSync('ip', ['netns', 'add', name]);
  mkdirSync(etc, { recursive: true });
  writeFileSync(`${etc}/hosts`, `127.0.0.1 localhost\n${hosts}\n`);
  const line = new Program('the line', 'python3', ['-c', lineScript, near, far, String(delayMs)]);
  context.after(() => line.kill('SIGKILL'));
  await line.line(/^up$/);
  return { near: ['ip', 'netns', 'exec', near], far: ['ip', 'netns', 'exec', far] };
}

function missingHere(): string | undefined {
  if (process.getuid?.() !== 0) return 'it needs root';
  for (const tool of ['ip', 'python3']) {
    if (spawnSync('which', [tool]).status !== 0) return `'${tool}' is missing: apt-get install iproute2 python3`;
  }
  if (!existsSync('/dev/net/tun')) return '/dev/net/tun is missing';
  const probe = `sysmon-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', probe], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'del', probe]);
  return made.status === 0 ? undefined : `no network namespaces: ${made.stderr.trim()}`;
}

// A tun device at each end, and a queue by time between them.
const lineScript = `
import ctypes, fcntl, heapq, os, select, struct, subprocess, sys, time
near, far, delay = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, TUNSETIFF, IFF_TUN_NO_PI = 0x40000000, 0x400454ca, 0x1001
def device(namespace):
    home = os.open('/proc/self/ns/net', os.O_RDONLY)
    there = os.open('/var/run/netns/' + namespace, os.O_RDONLY)
    assert libc.setns(there, CLONE_NEWNET) == 0
    fd = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH', b'line', IFF_TUN_NO_PI))
    assert libc.setns(home, CLONE_NEWNET) == 0
    return fd
a, b = device(near), device(far)
for namespace, number in ((near, 1), (far, 2)):
    for command in (f'addr add 10.98.0.{number}/24 dev line', f'addr add fd98::{number}/64 dev line nodad',
                    'link set line up', 'link set lo up'):
        subprocess.check_call(['ip', '-n', namespace, *command.split()])
print('up', flush=True)
under_way, count = [], 0
while True:
    wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
    for fd in select.select([a, b], [], [], wait)[0]:
        while True:
            try: packet = os.read(fd, 65536)
            except BlockingIOError: break
            count += 1
            heapq.heappush(under_way, (time.monotonic() + delay, count, b if fd == a else a, packet))
    while under_way and under_way[0][0] <= time.monotonic():
        try: os.write(*heapq.heappop(under_way)[2:])
        except OSError: pass
`;

import { skipHere } from './installed.ts';
