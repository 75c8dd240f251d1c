import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** build/bench/support/ → the folder of the bundles. */
export const dist = fileURLToPath(new URL('../../../dist/', import.meta.url));

/** What the unit gives to Node: it stands between node and the program. */
export function unitFlags(program: UnitName): string[] {
  const unit = unitText(program);
  const flags = /^ExecStart=\/bin\/sh \S+\/start (.*) \S+\.cjs run$/m.exec(unit)?.[1];
  if (flags === undefined) throw new Error(`${program}.service: its ExecStart is not the one that is known`);
  return flags.split(' ');
}

/** The environment that the unit sets. */
export function unitEnvironment(program: UnitName): Record<string, string> {
  const lines = unitText(program).matchAll(/^Environment=(.*)$/gm);
  const pairs = [...lines].flatMap(([, line]) => line!.split(' ')).map((pair) => pair.split('='));
  return Object.fromEntries(pairs);
}

type UnitName = 'sysmon-agent' | 'sysmon-server';

function unitText(program: UnitName): string {
  return readFileSync(new URL(`../../../systemd/${program}.service`, import.meta.url), 'utf8');
}

/** Programs and a folder that end with the measurement. */
export class Workshop {
  readonly folder = mkdtempSync(join(tmpdir(), 'sysmon-bench-'));
  readonly #children: ChildProcess[] = [];

  /** A program whose errors go to ours. Returns its process. */
  start(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): number {
    const child = spawn(program, args, {
      env: { PATH: process.env.PATH, ...env },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (child.pid === undefined) throw new Error(`cannot start '${program}'`);
    return this.adopt(child).pid!;
  }

  /** A child that was started otherwise. */
  adopt<T extends ChildProcess>(child: T): T {
    this.#children.push(child);
    return child;
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.map(end));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** With a workshop, which is closed whatever happens. */
export async function inWorkshop<T>(work: (workshop: Workshop) => Promise<T>): Promise<T> {
  const workshop = new Workshop();
  try {
    return await work(workshop);
  } finally {
    await workshop.close();
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const overdue = setTimeout(() => child.kill('SIGKILL'), 8000);
  await ended;
  clearTimeout(overdue);
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('a listening server has a port');
  return address.port;
}

const triesMax = 600;

/** Looks ten times a second until it is so; `what` is what did not come within a minute. */
export async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < triesMax; tries++) {
    // Refused until it listens.
    if (await isSo().catch(() => false)) return;
    await delay(100);
  }
  throw new Error(`${what}: not within a minute`);
}

/**
 * Nanoseconds on a processor, of each thread: /proc/PID/stat counts in ticks of 10 ms, twice what a collection takes.
 * https://www.kernel.org/doc/html/latest/scheduler/sched-stats.html
 */
export function cpuMsOf(pid: number): number {
  let nanoseconds = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  }
  return nanoseconds / 1e6;
}

/** For how long its main thread was ready to run, and something else had the processors. */
export function waitedMsOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6;
}

export function memoryOf(pid: number): { readonly rssMiB: number; readonly anonymousMiB: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const mebibytes = (field: string) => Number(new RegExp(`^${field}: +(\\d+) kB$`, 'm').exec(text)?.[1]) / 1024;
  return { rssMiB: mebibytes('Rss'), anonymousMiB: mebibytes('Anonymous') };
}

/** The most that it ever had resident. */
export function peakMiBOf(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
