import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CollectorRow } from '../../src/agent/collect/collectors/collector.ts';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { AgentsRecord, seriesKey } from '../support/agents-record.ts';
import { wholeHost } from '../support/collect-fixture.ts';
import { filesRead } from '../support/files-read.ts';
import type { FixtureTree } from '../support/fixture-proc.ts';
import { skipHere } from '../support/installed.ts';
import { bundleOf, eventually, Program, ServerProgram, temporaryFolder } from '../support/programs.ts';
import { Tap } from '../support/tap.ts';

// A sensor and a file system that never answer: a FIFO that nobody writes to, for the agent opens attributes to read them;
// and a FUSE mount whose server hangs. Then a file of each collector that reads sysfs: where a FIFO is in its place, all that the
// agent gives is what it gives where a folder is, which is an error at once.

interface Trouble {
  readonly fifos: number;
  readonly mounts: number;
  /** deaf, by default: the server takes no question. mute: it takes all, and then no thread that asked can be killed. */
  readonly server?: 'deaf' | 'mute';
  /** Further FIFOs, one for each of these collectors. */
  readonly collectors?: readonly CollectorRow[];
}

const sysfsFiles = readSysfsFiles();
const inSysfs = collectorRows.filter(({ name }) => sysfsFiles.get(name) !== undefined);
const [slow, fast] = [inSysfs.filter(({ lane }) => lane === 'slow'), inSysfs.filter(({ lane }) => lane === undefined)];
// Eight late reads are the most that an agent has at a time.
const collectorsMax = 6;
const slowGroups = Array.from({ length: Math.ceil(slow.length / collectorsMax) }, (_, at) =>
  slow.slice(at * collectorsMax, (at + 1) * collectorsMax),
);

describe('what never answers', { concurrency: true, timeout: 180_000 }, () => {
  test('a FIFO under --sysfs costs its own series alone', (context) => live(context, { fifos: 1, mounts: 0 }));
  test('a FUSE mount under --rootfs costs its own series alone', (context) => live(context, { fifos: 0, mounts: 1 }));
  test('two FIFOs and two mounts are no worse', (context) => live(context, { fifos: 2, mounts: 2 }));
  test('an agent stops in good order though the kernel does not let its thread go', stopBesideMute);
});

// One after another: each is two agents with all collectors.
describe('a file of each collector that reads sysfs never answers', { timeout: 600_000 }, () => {
  for (const collectors of [...slowGroups, fast]) {
    test(collectors.map(({ name }) => name).join(', '), (context) =>
      live(context, { fifos: 0, mounts: 0, collectors }),
    );
  }
});

async function live(context: TestContext, trouble: Trouble): Promise<void> {
  const world = await startWorld(context, trouble);
  if (world === undefined) return;
  const { hung, twin, tap } = world;

  const texts = [...fifoPaths(trouble), ...hungFiles(trouble), ...mountPoints(trouble)];
  for (const text of texts) await hung.program.line(new RegExp(`'\\S+${text}' has not answered for 5s`));
  await delay(texts.length > 0 ? 3000 : 10_000);

  // Whoever has no such device has the same series.
  const missing = difference(newestSeries(twin), newestSeries(hung));
  const more = difference(newestSeries(hung), newestSeries(twin));
  assert.deepEqual(missing, seriesLost(trouble));
  assert.deepEqual(more, seriesOfErrors(trouble));
  const late = (collector: string) => newestValue(hung, 'sysmon_agent_reads_late', { collector });
  for (const { name, lane } of trouble.collectors ?? []) {
    if (lane === 'slow') continue;
    assert.match(hung.program.lines.join('\n'), new RegExp(`${sysfsFiles.get(name)}' cannot be read`), name);
  }
  if (trouble.collectors === undefined) assert.equal(late('thermal_zone'), trouble.fifos);
  assert.equal(late('filesystem'), trouble.mounts);

  // A report each second, and each is acknowledged.
  assert.ok(hung.record.times(hung.name).length >= 8);
  const [gapMs, twinGapMs] = [longestGapMs(hung), longestGapMs(twin)];
  assert.ok(gapMs < twinGapMs + 2000, `a gap of ${gapMs} ms, where the other agent's longest is ${twinGapMs} ms`);
  const waiting = newestValue(hung, 'sysmon_agent_spool_reports');
  assert.ok(waiting <= 3, `${waiting} reports wait to be acknowledged`);
  assert.equal(tap.connections, 1);

  // A cable that is pulled: only an unanswered ping tells.
  const pulledMs = performance.now();
  tap.stall();
  await hung.program.line(/lost '127\.0\.0\.1:\d+'/);
  const silentMs = performance.now() - pulledMs;
  assert.ok(silentMs > 15_000 && silentMs < 27_000, `it noticed after ${silentMs} ms`);
  tap.up();
  const upMs = performance.now();
  await eventually(15_000, () => {
    assert.ok(newestValue(hung, 'sysmon_agent_reconnects_total') >= 1, 'no connection again');
    assert.ok(newestValue(hung, 'sysmon_agent_spool_reports') <= 3, 'reports wait');
  });
  context.diagnostic(
    `pinged, lost after ${Math.round(silentMs)} ms, back ${Math.round(performance.now() - upMs)} ms later`,
  );
  hung.record.check();

  const stoppingMs = performance.now();
  const ending = await hung.program.kill('SIGTERM');
  const stoppedMs = performance.now() - stoppingMs;
  // No exit code: exit() would wait for the thread.
  const expected = texts.length > 0 ? { code: null, signal: 'SIGTERM' } : { code: 0, signal: null };
  assert.deepEqual(ending, expected, hung.program.lines.join('\n'));
  assert.ok(stoppedMs <= 5000, `it stopped after ${stoppedMs} ms`);
  for (const text of texts) {
    const said = hung.program.lines.filter((line) => line.includes(`${text}' has not answered`));
    assert.equal(said.length, 1, said.join('\n'));
  }
}

/** Nobody can end such a process; but systemd and the server are told, and nothing is lost. */
async function stopBesideMute(context: TestContext): Promise<void> {
  const world = await startWorld(context, { fifos: 0, mounts: 1, server: 'mute' });
  if (world === undefined) return;
  const { hung, holder } = world;
  await hung.program.line(/has not answered for 5s/);
  const stoppingMs = performance.now();
  const ended = hung.program.kill('SIGTERM');
  await hung.program.line(/not waiting for '.*\/srv\/hung0', which does not answer/);
  assert.ok(performance.now() - stoppingMs <= 5000);
  assert.match(hung.program.lines.join('\n'), /stopped; [0-3] unacknowledged reports? in the spool/);
  await eventually(5000, () => {
    const status = readFileSync(`/proc/${hung.program.pid}/status`, 'utf8');
    assert.match(status, /^State:\s+Z/m, 'all its threads but one are gone');
  });
  await holder!.kill('SIGKILL');
  assert.deepEqual(await ended, { code: null, signal: 'SIGTERM' });
}

/** Between two reports of it. */
function longestGapMs({ record, name }: RecordedAgent): number {
  const times = record.times(name);
  return Math.max(...times.slice(1).map((timeMs, at) => timeMs - times[at]!));
}

interface RecordedAgent {
  readonly name: string;
  readonly program: Program;
  readonly record: AgentsRecord;
  /** Where its /proc and /sys are: some labels have paths. */
  readonly hostFolder: string;
}

/** An agent in trouble, and one on a host that is otherwise the same; undefined, and skipped, where this machine cannot. */
async function startWorld(context: TestContext, trouble: Trouble) {
  const reason = trouble.mounts > 0 ? whyNoMount(context) : undefined;
  if (reason !== undefined) return skipHere(context, `no FUSE mount in a namespace of its own: ${reason}`);
  const server = await ServerProgram.start(context);
  startScraper(context, server.webPort);
  const [healthyTree, tree] = [hostWith(context, trouble), hostWith(context, trouble)];
  for (const fifo of [...fifoPaths(trouble), ...filesOfCollectors(trouble)]) {
    rmSync(tree.path(fifo));
    execFileSync('mkfifo', [tree.path(fifo)]);
  }
  for (const file of filesOfCollectors(trouble)) {
    rmSync(healthyTree.path(file));
    mkdirSync(healthyTree.path(file));
  }
  const holder = await startHolder(context, {
    kind: trouble.server ?? 'deaf',
    paths: mountPoints(trouble).map((point) => tree.path(`root${point}`)),
  });
  const start = async (name: string, { roots, folder: hostFolder }: FixtureTree, within?: Program) => {
    const record = new AgentsRecord();
    const tap = await Tap.open(context, { to: server.port, watch: () => record.connection() });
    const folder = temporaryFolder(context);
    const argv = [
      ...[process.execPath, bundleOf('agent'), 'run', '--name', name, '--schedule=1s'],
      ...[`--server=127.0.0.1:${tap.port}`, '--control-socket', join(folder, 'agent.sock'), '--spool-dir', folder],
      ...Object.entries(roots).map(([root, path]) => `--${root}=${path}`),
      ...(trouble.collectors ?? []).map((row) => `--enable=${row.name}`),
    ];
    const [file, ...rest] = within === undefined ? argv : ['nsenter', `--mount=/proc/${within.pid}/ns/mnt`, ...argv];
    const env = { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' };
    const program = new Program(`sysmon-agent ${name}`, file!, rest, { env });
    // Without the file system's server the thread comes back, and the process can end.
    context.after(async () => {
      await within?.kill('SIGKILL');
      await program.kill('SIGKILL');
    });
    await program.line(/series every/);
    return { name, program, record, tap, hostFolder };
  };
  const twin = await start('twin', healthyTree);
  const hung = await start('hung', tree, holder);
  return { twin, hung, tap: hung.tap, holder };
}

/** As a Prometheus: what it has read is acknowledged. */
function startScraper(context: TestContext, port: number): void {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const headers = { 'user-agent': 'Prometheus/3.5.0', 'x-prometheus-scrape-timeout-seconds': '5' };
  let timer: NodeJS.Timeout | undefined;
  let isOver = false;
  const again = () => {
    if (!isOver) timer = setTimeout(scrape, 250);
  };
  const scrape = () => {
    get({ host: '127.0.0.1', port, path: '/metrics?scraper=reader', headers, agent }, (response) => {
      response.resume().once('close', again);
    }).once('error', again);
  };
  scrape();
  context.after(() => {
    isOver = true;
    clearTimeout(timer);
    agent.destroy();
  });
}

function hostWith(context: TestContext, trouble: Trouble) {
  const tree = wholeHostWithArray();
  context.after(() => tree.remove());
  const mounts = mountPoints(trouble).map(
    (point, at) => `${900 + at} 27 0:${90 + at} / ${point} rw,relatime - fuse hung rw,user_id=0,group_id=0\n`,
  );
  const path = tree.path('proc/1/mountinfo');
  writeFileSync(path, readFileSync(path, 'utf8') + mounts.join(''));
  for (const point of mountPoints(trouble)) mkdirSync(tree.path(`root${point}`), { recursive: true });
  return tree;
}

/** The whole host has no array of disks. */
function wholeHostWithArray(): FixtureTree {
  const tree = wholeHost('Linux 6.18');
  tree.write(
    'proc/mdstat',
    'Personalities : [raid1]\nmd0 : active raid1 sdb1[1] sda1[0]\n      1000 blocks [2/2] [UU]\n      \nunused devices: <none>\n',
  );
  tree.write('sys/block/md0/md/raid_disks', '2\n');
  tree.write('sys/block/md0/md/degraded', '0\n');
  return tree;
}

/** By collector, the first file of sysfs that it reads, if there is one. */
function readSysfsFiles(): ReadonlyMap<string, string | undefined> {
  const tree = wholeHostWithArray();
  try {
    return new Map(
      collectorRows.map(({ name }) => [name, filesRead(name, tree).find((file) => file.startsWith('sys/'))]),
    );
  } finally {
    tree.remove();
  }
}

function filesOfCollectors({ collectors = [] }: Trouble): string[] {
  return [...new Set(collectors.map(({ name }) => sysfsFiles.get(name)!))];
}

/** Those that the agent waits for. */
function hungFiles({ collectors = [] }: Trouble): string[] {
  return filesOfCollectors({ fifos: 0, mounts: 0, collectors: collectors.filter(({ lane }) => lane === 'slow') });
}

const inNamespace = ['--mount', '--propagation', 'private'];
const script = fileURLToPath(new URL('../support/hung-file-systems.js', import.meta.url));

/** What holds the mounts: they end with it. */
async function startHolder(
  context: TestContext,
  { kind, paths }: { readonly kind: string; readonly paths: readonly string[] },
): Promise<Program | undefined> {
  if (paths.length === 0) return undefined;
  const holder = new Program('hung file systems', 'unshare', [
    ...inNamespace,
    process.execPath,
    script,
    kind,
    ...paths,
  ]);
  context.after(() => holder.kill('SIGKILL'));
  await holder.line(/^mounted/);
  return holder;
}

/** Why this machine does not let a test mount a file system of its own; undefined where it does. */
function whyNoMount(context: TestContext): string | undefined {
  const { status, error, stderr } = spawnSync(
    'unshare',
    [...inNamespace, 'timeout', '-s', 'KILL', '5', process.execPath, script, 'once', temporaryFolder(context)],
    { encoding: 'utf8' },
  );
  return status === 0 ? undefined : (error?.message ?? (stderr.trim() || `unshare ended with ${status}`));
}

/** Attributes of the whole host. */
function fifoPaths({ fifos }: Trouble): string[] {
  return zones.slice(0, fifos).map(({ zone }) => `sys/class/thermal/thermal_zone${zone}/temp`);
}

const zones = [
  { zone: '9', type: 'gpu-thermal' },
  { zone: '10', type: 'soc thermal' },
];

function mountPoints({ mounts }: Trouble): string[] {
  return Array.from({ length: mounts }, (_, at) => `/srv/hung${at}`);
}

function seriesLost(trouble: Trouble): string[] {
  const temperatures = zones.slice(0, trouble.fifos).map((labels) => seriesKey('node_thermal_zone_temp', labels));
  const ofMounts = mountPoints(trouble).flatMap((mountpoint, at) => [
    ...['size_bytes', 'free_bytes', 'avail_bytes', 'files', 'files_free', 'readonly', 'device_error'].map((what) =>
      seriesKey(`node_filesystem_${what}`, { device: 'hung', mountpoint, fstype: 'fuse' }),
    ),
    seriesKey('node_filesystem_mount_info', { device: 'hung', major: '0', minor: `${90 + at}`, mountpoint }),
  ]);
  return [...temperatures, ...ofMounts].sort();
}

function seriesOfErrors(trouble: Trouble): string[] {
  return mountPoints(trouble)
    .flatMap((mountpoint) => {
      const labels = { device: 'hung', mountpoint, fstype: 'fuse', device_error: 'mountpoint timeout' };
      return ['readonly', 'device_error'].map((what) => seriesKey(`node_filesystem_${what}`, labels));
    })
    .sort();
}

/** The series of an agent's newest report. */
function newestSeries({ name, record, hostFolder }: RecordedAgent): Set<string> {
  const timeMs = record.times(name).at(-1)!;
  const present = [...record.samples()].filter(([, values]) => values.has(timeMs));
  const bare = (series: string) =>
    series.replace(`agent="${name}",`, '').replace(`{agent="${name}"}`, '{}').replaceAll(hostFolder, '');
  // The reason of a failure is another with a FIFO than with a folder.
  const isFailure = (series: string) => series.startsWith('sysmon_agent_collector_failed{');
  return new Set(present.map(([series]) => bare(series)).filter((series) => !isFailure(series)));
}

function newestValue({ name, record }: RecordedAgent, series: string, labels: Readonly<Record<string, string>> = {}) {
  const value = record
    .samples()
    .get(seriesKey(series, { agent: name, ...labels }))
    ?.get(record.times(name).at(-1)!);
  assert.ok(value !== undefined, `the newest report has no ${series}`);
  return value;
}

function difference(those: ReadonlySet<string>, others: ReadonlySet<string>): string[] {
  return [...those].filter((each) => !others.has(each)).sort();
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
