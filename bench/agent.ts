import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { selectCollectors } from '../src/agent/collect/collectors/index.ts';
import type { BenchRow } from './row.ts';
import {
  cpuMsOf,
  dist,
  freePort,
  inWorkshop,
  median,
  memoryOf,
  unitFlags,
  until,
  type Workshop,
} from './support/processes.ts';

const intervalMs = 5000;
// Compiling and the first collections are not what an agent costs from day to day.
const warmUpIntervals = 4;
const collectors = selectCollectors({ enable: [], disable: [] }).map(({ name }) => name);
const nodeExporterPath = '/usr/bin/prometheus-node-exporter';

/**
 * What the agent costs its host: the bundle as the unit runs it, over TLS to a server on the loopback, beside Debian's
 * node_exporter with the same collectors, scraped as often, in the same minutes. SYSMON_BENCH_SECONDS is how long, 90 by
 * default; the processor's time of an interval is the median over those after the first 20 s.
 */
export async function rows(): Promise<BenchRow[]> {
  const seconds = Number(process.env.SYSMON_BENCH_SECONDS ?? 90);
  const intervals = Math.max(1, Math.round((seconds * 1000) / intervalMs) - warmUpIntervals);
  return inWorkshop(async (workshop) => {
    const { agent, seriesCount } = await startAgent(workshop);
    const exporter = await startNodeExporter(workshop);
    const costs = await watch({ agent, exporter, intervals });
    return rowsOf(costs, seriesCount);
  });
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

async function startAgent(workshop: Workshop): Promise<{ readonly agent: number; readonly seriesCount: number }> {
  const { folder } = workshop;
  const [port, webPort] = [await freePort(), await freePort()];
  const fleetKeyFile = join(folder, 'fleet.key');
  const keyFile = join(folder, 'agent.key');
  writeFileSync(fleetKeyFile, `${'5a'.repeat(32)}\n`, { mode: 0o400 });
  // Two commands take them, and one not all of them: in the environment that is no matter.
  const serverEnv = {
    SYSMON_CONFIG_FILE: '/dev/null',
    SYSMON_LOG_LEVEL: 'warn',
    SYSMON_LISTEN: `127.0.0.1:${port}`,
    SYSMON_WEB_LISTEN_ADDRESS: `127.0.0.1:${webPort}`,
    SYSMON_FLEET_KEY_FILE: fleetKeyFile,
    SYSMON_STATE_DIR: join(folder, 'server'),
    SYSMON_CONTROL_SOCKET: join(folder, 'server.sock'),
  };
  for (const name of ['server', 'spool']) mkdirSync(join(folder, name));
  const server = join(dist, 'sysmon-server.cjs');
  workshop.start(process.execPath, [server, 'run'], serverEnv);
  const joinLine = execFileSync(process.execPath, [server, 'enroll', 'bench'], { env: serverEnv, encoding: 'utf8' });
  const [, , identity, key] = joinLine.trim().split(' ');
  writeFileSync(keyFile, `sysmon-key-v1 ${identity} ${key}\n`, { mode: 0o400 });

  const web = `http://127.0.0.1:${webPort}`;
  await until('what was started', async () => (await fetch(`${web}/-/healthy`)).ok);
  const agent = workshop.start(
    process.execPath,
    [
      ...unitFlags('sysmon-agent'),
      join(dist, 'sysmon-agent.cjs'),
      'run',
      '--config.file=/dev/null',
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
  await until('what was started', async () => {
    const text = await (await fetch(`${web}/metrics?timestamps=0&agent=bench`)).text();
    seriesCount = text.split('\n').filter((line) => line.includes('agent="bench"')).length;
    return seriesCount > 10;
  });
  return { agent, seriesCount };
}

async function startNodeExporter(workshop: Workshop): Promise<{ pid: number; address: string } | undefined> {
  try {
    readFileSync(nodeExporterPath);
  } catch {
    // Without it the agent's own numbers are still worth a row.
    return undefined;
  }
  const address = `127.0.0.1:${await freePort()}`;
  const flags = [`--web.listen-address=${address}`, '--log.level=error', '--collector.disable-defaults'];
  // Debian's version does not have all of them.
  const help = spawnSync(nodeExporterPath, ['--help'], { encoding: 'utf8' });
  const known = collectors.filter((name) => new RegExp(`collector\\.${name}\\s`).test(help.stdout + help.stderr));
  const pid = workshop.start(nodeExporterPath, [...flags, ...known.map((name) => `--collector.${name}`)]);
  await until('what was started', async () => (await fetch(`http://${address}/`)).ok);
  return { pid, address };
}
