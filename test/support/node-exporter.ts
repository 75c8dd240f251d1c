import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { HostRoots } from '../../src/agent/collect/proc/host.ts';

export const nodeExporterPath = '/usr/bin/prometheus-node-exporter';

/** A reason to skip a test that needs node_exporter; none where it must be there. */
export const nodeExporterSkip =
  !existsSync(nodeExporterPath) &&
  process.env.CI !== 'true' &&
  `no ${nodeExporterPath}: apt-get install prometheus-node-exporter`;

/** Its collectors, and their options: `netdev.device-exclude`. */
export function nodeExporterNames(): ReadonlySet<string> {
  const { stdout, stderr } = spawnSync(nodeExporterPath, ['--help'], { encoding: 'utf8' });
  const found = `${stdout}${stderr}`.matchAll(/--(?:\[no-\])?collector\.([\w.-]+)/g);
  return new Set([...found].map(([, name]) => name!));
}

// Debian leaves lo out by default.
const exclude = '--collector.netdev.device-exclude';

export interface NodeExporter {
  readonly process: ChildProcess;
  /** Its metrics, as text. */
  scrape(): Promise<string>;
  stop(): Promise<void>;
}

/** Debian's node_exporter with these collectors alone, on a free port of the loopback. */
export async function startNodeExporter(options: {
  readonly collectors: readonly string[];
  readonly roots?: HostRoots;
  readonly flags?: readonly string[];
  /** Ask the kernel by netlink, and not /proc/net/dev, which alone can be a fixture. */
  readonly netlink?: boolean;
}): Promise<NodeExporter> {
  const { roots, flags = [] } = options;
  const filters = flags.some((flag) => flag.startsWith(exclude)) ? [] : [`${exclude}=`];
  const child = spawn(
    nodeExporterPath,
    [
      '--web.listen-address=127.0.0.1:0',
      '--web.disable-exporter-metrics',
      '--collector.disable-defaults',
      ...filters,
      options.netlink ? '--collector.netdev.netlink' : '--no-collector.netdev.netlink',
      ...options.collectors.map((name) => `--collector.${name}`),
      ...(roots === undefined
        ? []
        : [
            `--path.procfs=${roots.procfs}`,
            `--path.sysfs=${roots.sysfs}`,
            `--path.rootfs=${roots.rootfs}`,
            `--path.udev.data=${roots.udev}`,
          ]),
      ...flags,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const address = await listeningAddress(child);
  return {
    process: child,
    async scrape() {
      const response = await fetch(`http://${address}/metrics`);
      if (response.status !== 200) throw new Error(`node_exporter answered ${response.status}`);
      return await response.text();
    },
    stop: () => stop(child),
  };
}

/** It says in its log which port the kernel has chosen. */
function listeningAddress(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log += text;
      const match = /[Ll]istening on"? address=(\S+)/.exec(log);
      if (match !== null) resolve(match[1]!);
    });
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`node_exporter ended: ${log}`)));
  });
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.removeAllListeners('exit');
    child.once('exit', () => resolve());
    child.kill('SIGKILL');
  });
}

export interface ParsedMetrics {
  readonly types: ReadonlyMap<string, string>;
  /** `name{a="1",b="2"}`, labels by name, → value. */
  readonly values: ReadonlyMap<string, number>;
}

/** Text of the exposition format, for comparing two. Label values hold no `",` here. */
export function parseMetrics(text: string): ParsedMetrics {
  const types = new Map<string, string>();
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type !== null) types.set(type[1]!, type[2]!);
    if (line === '' || line.startsWith('#')) continue;
    const end = line.lastIndexOf(' ');
    const match = /^([^{]+)(?:\{(.*)\})?$/.exec(line.slice(0, end))!;
    const all = match[2] === undefined ? [] : match[2].split(/,(?=[A-Za-z_]+=")/).sort();
    // An empty label is none.
    const labels = all.filter((label) => !label.endsWith('=""'));
    values.set(`${match[1]}{${labels.join(',')}}`, Number(line.slice(end + 1)));
  }
  return { types, values };
}
