import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { selectCollectors } from '../src/agent/collect/collectors/index.ts';
import type { HostRoots } from '../src/agent/collect/proc/host.ts';
import type { BenchRow } from './row.ts';
import { makeLargeHost } from './support/large-host.ts';
import {
  cpuMsOf,
  dist,
  freePort,
  inWorkshop,
  median,
  memoryOf,
  unitEnvironment,
  unitFlags,
  until,
  type Workshop,
} from './support/processes.ts';
import { startWake } from './support/wake-sink.ts';

const intervalMs = 5000;
// An agent runs for months: what V8 compiles and learns in its first two minutes is not what it costs from day to day.
const warmUpIntervals = 24;
const collectors = selectCollectors({ enable: [], disable: [] }).map(({ name }) => name);
const nodeExporterPath = '/usr/bin/prometheus-node-exporter';

/** What is collected, and what a collection of it may cost beside node_exporter's. */
interface Subject {
  readonly name: string;
  /** Not this host's. */
  readonly roots?: HostRoots;
  /** Between two collections, which are counted. */
  readonly move?: (round: number) => void;
  readonly cpuTarget: number;
}

/**
 * What the agent costs its host: the bundle as the unit runs it, over TLS to a server on the loopback, beside Debian's
 * node_exporter with the same collectors, scraped as often, in the same minutes. First on this host, then on a large one,
 * which is made of files. SYSMON_BENCH_SECONDS is how long each, 240 by default; the processor's time of an interval and
 * the memory are the medians after the first two minutes.
 */
export async function rows(): Promise<BenchRow[]> {
  const small = await measure({ name: 'this host', cpuTarget: 0.5 });
  const { tree, move } = makeLargeHost();
  try {
    return [...small, ...(await measure({ name: 'large host', roots: tree.roots, move, cpuTarget: 0.4 }))];
  } finally {
    tree.remove();
  }
}

function measure(subject: Subject): Promise<BenchRow[]> {
  const seconds = Number(process.env.SYSMON_BENCH_SECONDS ?? 240);
  const intervals = Math.max(1, Math.round((seconds * 1000) / intervalMs) - warmUpIntervals);
  return inWorkshop(async (workshop) => {
    const agent = await startAgent(workshop, subject);
    const exporter = await startNodeExporter(workshop, subject);
    // After two collections it has its files open.
    const before = await agent.look();
    await delay(2 * intervalMs);
    const { reports, sentBytes } = await agent.look();
    const bytes = Math.round((sentBytes - before.sentBytes) / (reports - before.reports));
    const wake = await startWake(workshop, agent.pid, { intervalMs, bytes, flags: unitFlags('sysmon-agent') });
    try {
      return rowsOf(subject, await watch({ subject, agent, exporter, wake, intervals }));
    } finally {
      wake.close();
    }
  });
}

interface Costs {
  readonly agent: Cost;
  /** Of a process that reads as many files, and does nothing with them. */
  readonly wake: { readonly cpuMs: readonly number[]; readonly files: number };
  readonly exporter: Cost | undefined;
  /** Of the agent. */
  readonly seriesCount: number;
  readonly bytesPerSample: number;
}
interface Cost {
  /** Of each interval, all threads, user and system. */
  readonly cpuMs: readonly number[];
  readonly rssMiB: number;
  readonly anonymousMiB: number;
}

function rowsOf(subject: Subject, { agent, exporter, wake, seriesCount, bytesPerSample }: Costs): BenchRow[] {
  // Node 20 is the smallest; those after it start with more.
  const [rssTarget, anonymousTarget] = Number(process.versions.node.split('.')[0]) < 22 ? [2.6, 1.8] : [3.0, 2.7];
  const what = `agent, ${subject.name}, ${seriesCount} series at ${intervalMs / 1000} s`;
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
  const wakeMs = median(wake.cpuMs);
  return [
    row('CPU a collection', cpu, 'ms', subject.cpuTarget),
    {
      what: `${what}: floor, to wake, read the ${wake.files} files that it has open, send and write as many bytes`,
      measured: `${wakeMs.toFixed(1)} ms; the agent ${(cpu(agent) / wakeMs).toFixed(1)} x that`,
      target: '',
      ok: undefined,
    },
    row('resident memory', (cost) => cost.rssMiB, 'MiB', rssTarget),
    row('anonymous memory', (cost) => cost.anonymousMiB, 'MiB', anonymousTarget),
    {
      what: `${what}: line, bytes a sample`,
      measured: bytesPerSample.toFixed(2),
      target: '<= 1.0',
      ok: bytesPerSample <= 1,
    },
  ];
}

/**
 * Both at once, the scrape half an interval after the agent's collection, so that neither waits for the other. After it the
 * host moves.
 */
async function watch(options: {
  readonly subject: Subject;
  readonly agent: StartedAgent;
  readonly exporter: { readonly pid: number; readonly address: string } | undefined;
  readonly wake: { readonly pid: number; readonly files: number };
  readonly intervals: number;
}): Promise<Costs> {
  const { subject, agent, exporter, wake, intervals } = options;
  const agentMs: number[] = [];
  const wakeMs: number[] = [];
  const exporterMs: number[] = [];
  const agentMemory: Memory[] = [];
  const exporterMemory: Memory[] = [];
  let first = await agent.look();
  await delay(intervalMs * 1.5 - (Date.now() % intervalMs));
  for (let interval = 0; interval < warmUpIntervals + intervals; interval++) {
    if (interval === warmUpIntervals) first = await agent.look();
    const before = { agent: cpuMsOf(agent.pid), exporter: exporter && cpuMsOf(exporter.pid), wake: cpuMsOf(wake.pid) };
    if (exporter !== undefined) await (await fetch(`http://${exporter.address}/metrics`)).text();
    subject.move?.(interval + 1);
    await delay(intervalMs - ((Date.now() - intervalMs / 2) % intervalMs));
    if (interval < warmUpIntervals) continue;
    agentMs.push(cpuMsOf(agent.pid) - before.agent);
    wakeMs.push(cpuMsOf(wake.pid) - before.wake);
    agentMemory.push(memoryOf(agent.pid));
    if (exporter === undefined) continue;
    exporterMs.push(cpuMsOf(exporter.pid) - before.exporter!);
    exporterMemory.push(memoryOf(exporter.pid));
  }
  const last = await agent.look();
  return {
    agent: { cpuMs: agentMs, ...medianOf(agentMemory) },
    exporter: exporter && { cpuMs: exporterMs, ...medianOf(exporterMemory) },
    wake: { cpuMs: wakeMs, files: wake.files },
    seriesCount: last.seriesCount,
    bytesPerSample: (last.sentBytes - first.sentBytes) / ((last.reports - first.reports) * last.seriesCount),
  };
}

type Memory = ReturnType<typeof memoryOf>;

function medianOf(memory: readonly Memory[]): Memory {
  return {
    rssMiB: median(memory.map(({ rssMiB }) => rssMiB)),
    anonymousMiB: median(memory.map(({ anonymousMiB }) => anonymousMiB)),
  };
}

interface StartedAgent {
  readonly pid: number;
  /** What its newest report says, as the server shows it. */
  look(): Promise<{ readonly seriesCount: number; readonly sentBytes: number; readonly reports: number }>;
}

async function startAgent(workshop: Workshop, { roots }: Subject): Promise<StartedAgent> {
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
  const pid = workshop.start(
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
      ...Object.entries(roots ?? {}).map(([name, path]) => `--${name}=${path}`),
    ],
    unitEnvironment('sysmon-agent'),
  );
  const look = async () => {
    const text = await (await fetch(`${web}/metrics?timestamps=0&agent=bench`)).text();
    const counterOf = (name: string) => Number(new RegExp(`^${name}{agent="bench"} (\\S+)$`, 'm').exec(text)?.[1]);
    return {
      seriesCount: text.match(/^\w+{agent="bench"/gm)?.length ?? 0,
      sentBytes: counterOf('sysmon_agent_sent_bytes_total'),
      reports: counterOf('sysmon_agent_reports_sampled_total'),
    };
  };
  await until('what was started', async () => (await look()).seriesCount > 10);
  return { pid, look };
}

async function startNodeExporter(
  workshop: Workshop,
  { roots }: Subject,
): Promise<{ pid: number; address: string } | undefined> {
  try {
    readFileSync(nodeExporterPath);
  } catch {
    // Without it the agent's own numbers are still worth a row.
    return undefined;
  }
  const address = `127.0.0.1:${await freePort()}`;
  const flags = [
    `--web.listen-address=${address}`,
    '--log.level=error',
    '--collector.disable-defaults',
    ...(roots === undefined ? [] : exporterRoots(roots)),
  ];
  // Debian's version does not have all of them.
  const help = spawnSync(nodeExporterPath, ['--help'], { encoding: 'utf8' });
  const known = collectors.filter((name) => new RegExp(`collector\\.${name}\\s`).test(help.stdout + help.stderr));
  const pid = workshop.start(nodeExporterPath, [...flags, ...known.map((name) => `--collector.${name}`)]);
  await until('what was started', async () => (await fetch(`http://${address}/`)).ok);
  return { pid, address };
}

/** By netlink it would ask the kernel, and not the files. */
function exporterRoots({ procfs, sysfs, rootfs, udev }: HostRoots): string[] {
  const paths = { procfs, sysfs, rootfs, 'udev.data': udev };
  return ['--no-collector.netdev.netlink', ...Object.entries(paths).map(([name, path]) => `--path.${name}=${path}`)];
}
