// Runs in network and mount namespaces of its own (test/agent/collect/collectors/namespace.test.ts): makes network devices,
// collects, takes some away and brings one back, and prints what was seen as JSON.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { Host } from '../../src/agent/collect/proc/host.ts';
import type { Recording } from '../../src/model/recording.ts';
import { newCollector, OneCollector } from './collect-fixture.ts';

/** What this probe prints. */
export interface ProbeResult {
  readonly kind: string;
  readonly oneReadBytes: number;
  readonly all: DeviceCounts;
  readonly without: DeviceCounts;
  readonly back: DeviceCounts;
}
/** How many series each device has. */
export type DeviceCounts = Readonly<Record<string, number>>;

const deviceCount = 150;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Kernels differ in which kinds of device they can make. */
function kindOfDevice(): string {
  for (const kind of ['dummy', 'ifb', 'bridge']) {
    try {
      ip('link', 'add', 'device0', 'type', kind);
      return kind;
    } catch {
      // The next kind may do.
    }
  }
  throw new Error('this kernel makes no dummy, ifb or bridge devices');
}

function bytesOfOneRead(path: string): number {
  const fd = openSync(path, 'r');
  try {
    return readSync(fd, new Uint8Array(1024 * 1024), 0, 1024 * 1024, 0);
  } finally {
    closeSync(fd);
  }
}

function devicesOf({ schema, present }: Recording): DeviceCounts {
  const counts: Record<string, number> = {};
  for (const { firstSeries, labelValues } of schema.blocks) {
    labelValues.forEach((device, at) => {
      if (present[firstSeries + at] === 1) counts[device] = (counts[device] ?? 0) + 1;
    });
  }
  return counts;
}

const kind = kindOfDevice();
for (let at = 1; at < deviceCount; at++) ip('link', 'add', `device${at}`, 'type', kind);
const host = new Host();
const netdev = new OneCollector(newCollector('netdev'));
const all = devicesOf(netdev.collect(host));
const oneReadBytes = bytesOfOneRead('/proc/net/dev');
ip('link', 'del', 'device7');
ip('link', 'del', 'device8');
ip('link', 'add', 'device8', 'type', kind);
const without = devicesOf(netdev.collect(host));
ip('link', 'add', 'device7', 'type', kind);
const back = devicesOf(netdev.collect(host));
const result: ProbeResult = { kind, oneReadBytes, all, without, back };
console.log(JSON.stringify(result));
