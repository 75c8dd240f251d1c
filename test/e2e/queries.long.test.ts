import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { asked, dashboardQueries, ruleFiles, rulesOf, selectorsOf } from '../prometheus/queries.ts';
import { wholeHost } from '../support/collect-fixture.ts';
import { fixtureFile } from '../support/files.ts';
import { AgentProgram, eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusPath, prometheusPrograms } from '../support/prometheus.ts';

// Every query of the dashboards and rules that are shipped, and every metric of Grafana's dashboard 1860, asked of a real
// Prometheus that the programs have filled: with an agent on this machine, and one on the files of the fixtures.

/** Metrics that need not be there, with what they need. */
const absent: readonly (readonly [metrics: RegExp, reason: string])[] = [
  [/^node_(?:bonding|md|zfs|edac)_/, 'a bond, an array, a pool, or a memory controller that reports errors'],
  [/^(?:node_hwmon_|agent_chip_sensor:|node_cooling_device_|node_power_supply_)/, 'a machine with sensors'],
  [/^node_cpu_scaling_/, 'a machine that may choose its frequency'],
  [/^node_pressure_irq_|^node_memory_HardwareCorrupted_/, 'a kernel that is built with it'],
  [/^node_systemd_/, 'a host that systemd runs'],
  [/^node_timex_/, 'a host with an NTP client; and for most of them adjtimex(), for which Node.js has no call'],
  [/^node_reboot_required$|^apt_/, "a text file that Debian's collectors write"],
  [/^node_netstat_Tcp_MaxConn$/, 'node_exporter does not give it either, unless its filter of fields is another'],
  [/^node_kernel_hung_tasks$/, 'node_exporter calls it node_kernel_hung_tasks_total, and gives it since Linux 6.13'],
  [/^process_/, "of node_exporter's own process; the agent's are sysmon_agent_cpu_seconds_total and its like"],
  [
    /^sysmon_server_(?:agent_over_budget|agent_reports_dropped|answers_assumed|connections_(?:ended|refused)|receipts|scraper_conflicts)_total$/,
    'its first event',
  ],
];

/** Queries that find nothing where all is well. */
const quiet: readonly (readonly [where: RegExp, reason: string])[] = [
  [/: (?:Dropped by agents|Refused or evicted)$/, 'nothing is dropped'],
  [/: annotation Filled afterwards$/, 'see the outage below'],
  [/: annotation Down$/, 'no host is down'],
  [/: annotation Alerts$/, 'no alert fires within half a minute'],
];

/** Selectors of rules that find nothing where all is well. */
const unseen: readonly (readonly [selector: RegExp, reason: string])[] = [
  [/^sysmon_server_agent_over_budget_total\{/, 'an agent that has too much; on a busy machine only its turns are long'],
];

const agents = ['this-machine', 'fixture'] as const;

for (const { name, path, skip } of prometheusPrograms) {
  test(`${name}: what is shipped asks for what is there`, { skip, timeout: 300_000 }, async (context) => {
    const { prometheus, server } = await fill(context, path);
    const names = new Set(await prometheus.api<readonly string[]>('label/__name__/values'));
    await context.test('the metrics of dashboards and rules', () => {
      const exprs = [...dashboardQueries, ...ruleFiles.flatMap(rulesOf)].flatMap(({ expr }) => selectorsOf(expr));
      checkMetrics(new Set(exprs.map(({ metric }) => metric)), names);
    });
    await context.test('the metrics of dashboard 1860', () => {
      const metrics = readFileSync(fixtureFile('dashboard-1860.txt'), 'utf8').trim().split('\n');
      assert.ok(metrics.length > 200);
      checkMetrics(new Set(metrics), names);
    });
    await context.test('what is recorded is there', () => {
      checkMetrics(new Set(rulesOf(ruleFiles[0]!).map(({ record }) => record!)), names);
    });
    await context.test('every selector of the rules finds data', () => everySelector(prometheus, names));
    await context.test('every query of the dashboards finds data', () => everyQuery(prometheus, names));
    await context.test('every rule is evaluated without an error', () => everyRule(prometheus));
    await context.test('no alert about sysmon itself', async () => {
      const { alerts } = await prometheus.api<{ alerts: readonly { labels: { alertname: string } }[] }>('alerts');
      const found = alerts.map(({ labels }) => labels.alertname).filter((alert) => alert.startsWith('Sysmon'));
      assert.deepEqual(found, []);
    });
    await context.test('an outage that is filled afterwards is marked as such', () => outage(prometheus, server));
  });
}

async function everyRule(prometheus: Prometheus): Promise<void> {
  const { groups } = await prometheus.api<{ groups: readonly { rules: readonly RuleState[] }[] }>('rules');
  const states = groups.flatMap(({ rules }) => rules);
  assert.equal(states.length, ruleFiles.flatMap(rulesOf).length);
  for (const { name, health, lastError } of states) assert.equal(health, 'ok', `${name}: ${lastError}`);
}

/** What an alert compares is there, whether it fires or not: no matcher is of a label or a value that does not exist. */
async function everySelector(prometheus: Prometheus, names: ReadonlySet<string>): Promise<void> {
  const selectors = new Set<string>();
  for (const { expr } of ruleFiles.flatMap(rulesOf)) {
    // Metrics that are not there are in the list above.
    for (const { metric, matchers } of selectorsOf(expr))
      if (names.has(metric)) selectors.add(`${metric}{${matchers}}`);
  }
  const empty: string[] = [];
  for (const selector of selectors) {
    if ((await prometheus.values(selector)).length === 0) empty.push(selector);
  }
  assert.deepEqual(
    empty.filter((selector) => !unseen.some(([pattern]) => pattern.test(selector))),
    [],
  );
  assert.ok(selectors.size - empty.length > 60, `${selectors.size - empty.length} selectors found data`);
}

/** The server is away for 100 s. While it is, nothing is marked; afterwards there are reports of that time. */
async function outage(prometheus: Prometheus, server: ServerProgram): Promise<void> {
  const annotation = dashboardQueries.find(({ where }) => where === 'fleet.json: annotation Filled afterwards')!;
  const query = asked(annotation.expr, { agent: agents.join('|'), range: '1m' });
  await server.kill('SIGKILL');
  const fromMs = Date.now();
  await new Promise((resolve) => setTimeout(resolve, 100_000));
  const span = { fromMs: fromMs + 70_000, toMs: fromMs + 90_000, stepMs: 5000 };
  assert.equal((await prometheus.range(query, span)).size, 0);
  await server.start();
  await eventually(60_000, async () => {
    const marked = await prometheus.range(query, span);
    assert.deepEqual(
      [...marked.values()].map((points) => points.size),
      agents.map(() => 5),
    );
  });
  const before = { fromMs: fromMs - 20_000, toMs: fromMs - 5000, stepMs: 5000 };
  assert.equal((await prometheus.range(query, before)).size, 0);
}

interface RuleState {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
}

async function fill(context: TestContext, path: string): Promise<{ prometheus: Prometheus; server: ServerProgram }> {
  const server = await ServerProgram.start(context);
  const tree = wholeHost('Linux 6.18');
  context.after(() => tree.remove());
  const { procfs, sysfs, rootfs, udev } = tree.roots;
  keepDisksBusy(context, join(procfs, 'diskstats'));
  const off = collectorRows.filter(({ enabled }) => enabled !== 'by default').map(({ name }) => name);
  const enable = off.flatMap((name) => ['--enable', name]);
  const roots = ['--procfs', procfs, '--sysfs', sysfs, '--rootfs', rootfs, '--udev', udev];
  for (const name of agents) {
    const flags = [...enable, '--label', 'rack=7', ...(name === 'fixture' ? roots : [])];
    await AgentProgram.start(context, { name, port: server.port, schedule: '1s', flags });
  }
  const prometheus = await Prometheus.start(context, {
    ...{ path, target: server.webPort, scrapeInterval: '1s', rulesEvery: '2s' },
    ...(path !== prometheusPath && { rulesOffset: '2s' }),
  });
  await eventually(60_000, async () => {
    for (const agent of agents) {
      // Not its reports: the first scrape has some of before, which count as filled afterwards.
      const [count] = await prometheus.values(`count_over_time(sysmon_agent_up{agent="${agent}"}[5m])`);
      assert.ok((count ?? 0) >= 30, `Prometheus has scraped agent '${agent}' ${count ?? 0} times`);
    }
  });
  return { prometheus, server };
}

/** Each disk of the fixture that has ever read serves a read and a write a second: this machine's may serve none for minutes. */
function keepDisksBusy(context: TestContext, path: string): void {
  let lines = readFileSync(path, 'latin1').split('\n');
  assert.ok(lines.some(hasRead), path);
  // In place, as the agent keeps the file open. Nothing of before stays behind it: numbers only grow.
  const fd = openSync(path, 'r+');
  const timer = setInterval(() => {
    lines = lines.map((line) => (hasRead(line) ? withRequests(line) : line));
    writeSync(fd, lines.join('\n'), 0);
  }, 1000);
  context.after(() => {
    clearInterval(timer);
    closeSync(fd);
  });
}

const hasRead = (line: string): boolean => /^ *\d+ +\d+ \S+ [1-9]/.test(line);

/** After major, minor and name: reads, merged, sectors, ms, and the same of writes. */
function withRequests(line: string): string {
  const grows = [0, 0, 0, 1, 0, 8, 2, 1, 0, 8, 2];
  let at = 0;
  return line.replace(/\S+/g, (column) => {
    const by = grows[at++] ?? 0;
    return by === 0 ? column : String(Number(column) + by);
  });
}

function checkMetrics(wanted: ReadonlySet<string>, names: ReadonlySet<string>): void {
  const missing = [...wanted].filter((name) => !names.has(name) && !absent.some(([metrics]) => metrics.test(name)));
  assert.deepEqual(missing.sort(), []);
}

async function everyQuery(prometheus: Prometheus, names: ReadonlySet<string>): Promise<void> {
  const empty: string[] = [];
  let found = 0;
  for (const { where, expr } of dashboardQueries) {
    const counts = await Promise.all(
      agents.map(async (agent) => (await prometheus.values(asked(expr, { agent, range: '20s' }))).length),
    );
    if (counts.some((count) => count > 0)) found++;
    else if (!selectorsOf(expr).every(({ metric }) => names.has(metric)))
      continue; // its metrics are in the list above
    else if (!quiet.some(([pattern]) => pattern.test(where))) empty.push(`${where}: ${expr}`);
  }
  assert.deepEqual(empty, []);
  assert.ok(found > 60, `${found} queries found data`);
}
