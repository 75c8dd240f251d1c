import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { BenchRow } from './row.ts';

const intervalMs = 5000;
// Compiling and the first collections are not what an agent costs from day to day.
const warmUpIntervals = 4;
const collectors = ['cpu', 'loadavg', 'meminfo', 'netdev', 'stat', 'time', 'uname'];
const nodeExporterPath = '/usr/bin/prometheus-node-exporter';
const dist = fileURLToPath(new URL('../../dist/', import.meta.url));

/**
 * What the agent costs its host: the bundle as the unit runs it, over TLS to a server on the loopback, beside Debian's
 * node_exporter with the same collectors, scraped as often, in the same minutes. SYSMON_BENCH_SECONDS is how long, 90 by
 * default; the processor's time of an interval is the median over those after the first 20 s.
 */
export async function rows(): Promise<BenchRow[]> {
  const seconds = Number(process.env.SYSMON_BENCH_SECONDS ?? 90);
  const intervals = Math.max(1, Math.round((seconds * 1000) / intervalMs) - warmUpIntervals);
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-bench-'));
  const children: ChildProcess[] = [];
  try {
    const { agent, seriesCount } = await startAgent(folder, children);
    const exporter = await startNodeExporter(children);
    const costs = await watch({ agent, exporter, intervals });
    return rowsOf(costs, seriesCount);
  } finally {
    await Promise.all(children.map(end));
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Costs {
  readonly agent: Cost;
  readonly exporter: Cost | undefined;
}
interface Cost {
  /** Of each interval, all threads, user and system. */
  readonly cpuMs: readonly number[];
  readonly rssMiB: number;
  readonly anonymousMiB: number;
}

function rowsOf({ agent, exporter }: Costs, seriesCount: number): BenchRow[] {
  // Node 20 is the smallest; those after it start with more.
  const [rssTarget, anonymousTarget] = Number(process.versions.node.split('.')[0]) < 22 ? [2.6, 1.8] : [3.0, 2.7];
  const what = `agent, ${seriesCount} series at ${intervalMs / 1000} s`;
  const ratio = (of: (cost: Cost) => number) => (exporter === undefined ? undefined : of(agent) / of(exporter));
  const beside = (of: (cost: Cost) => number, unit: string) => {
    const own = `${of(agent).toFixed(1)} ${unit}`;
    const yardstick = exporter && `${ratio(of)!.toFixed(2)} x node_exporter's ${of(exporter).toFixed(1)}`;
    return `${own}, ${yardstick ?? `no ${nodeExporterPath} to compare`}`;
  };
  const cpu = (cost: Cost) => median(cost.cpuMs);
  const row = (name: string, of: (cost: Cost) => number, unit: string, target: number): BenchRow => {
    const times = ratio(of);
    return {
      what: `${what}: ${name}`,
      measured: beside(of, unit),
      target: `<= ${target} x node_exporter`,
      ok: times === undefined ? undefined : times <= target,
    };
  };
  return [
    row('CPU a collection', cpu, 'ms', 0.5),
    row('resident memory', (cost) => cost.rssMiB, 'MiB', rssTarget),
    row('anonymous memory', (cost) => cost.anonymousMiB, 'MiB', anonymousTarget),
  ];
}

/** Both at once, the scrape half an interval after the agent's collection, so that neither waits for the other. */
async function watch(options: {
  readonly agent: number;
  readonly exporter: { readonly pid: number; readonly address: string } | undefined;
  readonly intervals: number;
}): Promise<Costs> {
  const { agent, exporter, intervals } = options;
  const agentMs: number[] = [];
  const exporterMs: number[] = [];
  await delay(intervalMs * 1.5 - (Date.now() % intervalMs));
  for (let interval = 0; interval < warmUpIntervals + intervals; interval++) {
    const before = { agent: cpuMsOf(agent), exporter: exporter && cpuMsOf(exporter.pid) };
    if (exporter !== undefined) await (await fetch(`http://${exporter.address}/metrics`)).text();
    await delay(intervalMs - ((Date.now() - intervalMs / 2) % intervalMs));
    if (interval < warmUpIntervals) continue;
    agentMs.push(cpuMsOf(agent) - before.agent);
    if (exporter !== undefined) exporterMs.push(cpuMsOf(exporter.pid) - before.exporter!);
  }
  return {
    agent: { cpuMs: agentMs, ...memoryOf(agent) },
    exporter: exporter && { cpuMs: exporterMs, ...memoryOf(exporter.pid) },
  };
}

async function startAgent(
  folder: string,
  children: ChildProcess[],
): Promise<{ readonly agent: number; readonly seriesCount: number }> {
  const [port, webPort] = [await freePort(), await freePort()];
  const fleetKeyFile = join(folder, 'fleet.key');
  const keyFile = join(folder, 'agent.key');
  writeFileSync(fleetKeyFile, `${'5a'.repeat(32)}\n`, { mode: 0o400 });
  // Two commands take them, and one not all of them: in the environment that is no matter.
  const serverEnv = {
    SYSMON_ENV_FILE: '/dev/null',
    SYSMON_LOG_LEVEL: 'warn',
    SYSMON_LISTEN: `127.0.0.1:${port}`,
    SYSMON_WEB_LISTEN_ADDRESS: `127.0.0.1:${webPort}`,
    SYSMON_FLEET_KEY_FILE: fleetKeyFile,
    SYSMON_STATE_DIR: join(folder, 'server'),
    SYSMON_CONTROL_SOCKET: join(folder, 'server.sock'),
  };
  for (const name of ['server', 'spool']) mkdirSync(join(folder, name));
  const server = join(dist, 'sysmon-server.cjs');
  start(children, process.execPath, [server, 'run'], serverEnv);
  const joinLine = execFileSync(process.execPath, [server, 'enroll', 'bench'], { env: serverEnv, encoding: 'utf8' });
  const [, , identity, key] = joinLine.trim().split(' ');
  writeFileSync(keyFile, `sysmon-key-v1 ${identity} ${key}\n`, { mode: 0o400 });

  const web = `http://127.0.0.1:${webPort}`;
  await until(async () => (await fetch(`${web}/-/healthy`)).ok);
  const agent = start(
    children,
    process.execPath,
    [
      '--no-opt',
      '--max-semi-space-size=1',
      join(dist, 'sysmon-agent.cjs'),
      'run',
      '--env-file=/dev/null',
      '--log.level=warn',
      `--server=127.0.0.1:${port}`,
      `--key-file=${keyFile}`,
      `--spool-dir=${join(folder, 'spool')}`,
      `--control-socket=${join(folder, 'agent.sock')}`,
      `--schedule=${intervalMs}ms`,
    ],
    { MALLOC_ARENA_MAX: '1', UV_THREADPOOL_SIZE: '4' },
  );
  let seriesCount = 0;
  await until(async () => {
    const text = await (await fetch(`${web}/metrics?timestamps=0&agent=bench`)).text();
    seriesCount = text.split('\n').filter((line) => line.includes('agent="bench"')).length;
    return seriesCount > 10;
  });
  return { agent, seriesCount };
}

async function startNodeExporter(children: ChildProcess[]): Promise<{ pid: number; address: string } | undefined> {
  try {
    readFileSync(nodeExporterPath);
  } catch {
    // Without it the agent's own numbers are still worth a row.
    return undefined;
  }
  const address = `127.0.0.1:${await freePort()}`;
  const flags = [`--web.listen-address=${address}`, '--log.level=error', '--collector.disable-defaults'];
  const pid = start(children, nodeExporterPath, [...flags, ...collectors.map((name) => `--collector.${name}`)], {});
  await until(async () => (await fetch(`http://${address}/`)).ok);
  return { pid, address };
}

function start(children: ChildProcess[], program: string, args: string[], env: Record<string, string>): number {
  const child = spawn(program, args, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  children.push(child);
  if (child.pid === undefined) throw new Error(`cannot start '${program}'`);
  return child.pid;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const overdue = setTimeout(() => child.kill('SIGKILL'), 8000);
  await ended;
  clearTimeout(overdue);
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('a listening server has a port');
  return address.port;
}

const triesMax = 300;

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < triesMax; tries++) {
    // Refused until it listens.
    if (await isSo().catch(() => false)) return;
    await delay(100);
  }
  throw new Error('a program that the measurement needs did not start within half a minute');
}

/**
 * Nanoseconds on a processor, of each thread: /proc/PID/stat counts in ticks of 10 ms, twice what a collection takes.
 * https://www.kernel.org/doc/html/latest/scheduler/sched-stats.html
 */
function cpuMsOf(pid: number): number {
  let nanoseconds = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  }
  return nanoseconds / 1e6;
}

function memoryOf(pid: number): { readonly rssMiB: number; readonly anonymousMiB: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const mebibytes = (field: string) => Number(new RegExp(`^${field}: +(\\d+) kB$`, 'm').exec(text)?.[1]) / 1024;
  return { rssMiB: mebibytes('Rss'), anonymousMiB: mebibytes('Anonymous') };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
