import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { AgentsRecord, assertSameSamples, sampleCount } from '../support/agents-record.ts';
import { wholeHost } from '../support/collect-fixture.ts';
import { AgentProgram, eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { Tap } from '../support/tap.ts';
import { readFourFiles } from './four-files.ts';

// /proc → agent → TCP → server → Prometheus, with the programs as they are shipped and a real Prometheus: an agent on this
// machine's /proc, and one on the files of a fixture, by a cron expression.

const real = 'this-machine';
const fixture = 'fixture';
const kernel = 'Linux 6.12';

interface World {
  readonly server: ServerProgram;
  readonly prometheus: Prometheus;
  readonly record: AgentsRecord;
  readonly agents: readonly AgentProgram[];
  readonly tap: Tap;
}

test('from /proc to Prometheus', { skip: prometheusSkip, timeout: 120_000 }, async (context) => {
  const world = await start(context);
  await context.test('every family of the four files, with its type', () => everyFamily(world));
  await context.test("a fixture's values", () => fixtureValues(world));
  await context.test("this machine's values", () => realValues(world));
  await context.test('the labels of an agent and of its series', () => labels(world));
  await context.test('every route', () => everyRoute(world));
  await context.test('Prometheus has nothing to complain of', () => noComplaints(world));
  await context.test('a server that is killed and comes back', () => killedServer(world));
  await context.test('both end in good order, and all samples are there', () => goodOrder(world));
});

async function start(context: TestContext): Promise<World> {
  const record = new AgentsRecord();
  const server = await ServerProgram.start(context);
  const tap = await Tap.open(context, { to: server.port, watch: () => record.connection() });
  const tree = wholeHost(kernel);
  context.after(() => tree.remove());
  const { procfs, sysfs, rootfs, udev } = tree.roots;
  const agents = await Promise.all([
    AgentProgram.start(context, { name: real, port: tap.port, schedule: '1s' }),
    AgentProgram.start(context, {
      name: fixture,
      port: tap.port,
      schedule: '* * * * * *',
      flags: [
        ...['--procfs', procfs, '--sysfs', sysfs, '--rootfs', rootfs, '--udev', udev],
        ...['--label', 'rack=7', '--label', 'device=a label of the series wins'],
      ],
    }),
  ]);
  const prometheus = await Prometheus.start(context, { target: server.webPort, scrapeInterval: '1s' });
  await eventually(30_000, async () => {
    const samples = await prometheus.raw('node_load1');
    for (const agent of [real, fixture]) {
      const [points] = [...samples].filter(([series]) => series.includes(agent)).map(([, each]) => each);
      assert.ok((points?.size ?? 0) >= 3, `Prometheus has ${points?.size ?? 0} reports of agent '${agent}'`);
    }
  });
  return { server, prometheus, record, agents, tap };
}

const fixtureFiles = (): ReadonlyMap<string, { value: number; type: string; family: string }> => {
  const tree = wholeHost(kernel);
  try {
    return readFourFiles(fixture, (file) => readFileSync(tree.path(`proc/${file}`), 'utf8'));
  } finally {
    tree.remove();
  }
};

const directRead = () => readFourFiles(real, (file) => readFileSync(`/proc/${file}`, 'utf8'));

async function everyFamily({ prometheus }: World): Promise<void> {
  const metadata = await prometheus.api<Record<string, readonly { type: string; help: string }[]>>('metadata');
  for (const direct of [directRead(), fixtureFiles()]) {
    const families = new Map([...direct.values()].map(({ family, type }) => [family, type]));
    assert.ok(families.size > 70, `only ${families.size} families were read directly`);
    for (const [family, type] of families) {
      assert.deepEqual(
        metadata[family]?.map((entry) => entry.type),
        [type],
        `${family}: its type in Prometheus`,
      );
      assert.notEqual(metadata[family]?.[0]?.help, '', `${family}: its help`);
    }
  }
}

async function fixtureValues({ prometheus }: World): Promise<void> {
  const samples = await prometheus.raw(`{agent="${fixture}"}`);
  const byFamily = new Map([...samples].map(([series, points]) => [withoutRack(series), points]));
  const direct = fixtureFiles();
  assert.ok(direct.size > 150, `only ${direct.size} series in the fixture`);
  for (const [series, { value }] of direct) {
    const points = byFamily.get(series);
    assert.ok(points !== undefined && points.size >= 3, `${series}: ${points?.size ?? 0} samples`);
    for (const found of points.values()) assert.equal(found, value, series);
  }
}

/** As it would be without the agent's own labels. */
function withoutRack(series: string): string {
  return series.replace(/,?device="a label of the series wins"|,?rack="7"/g, '').replace('{,', '{');
}

async function realValues({ prometheus }: World): Promise<void> {
  const beforeMs = Date.now();
  const before = directRead();
  const samples = await eventually(30_000, async () => {
    const found = await prometheus.raw(`{agent="${real}"}`);
    const times = [...found.get(`node_load1{agent="${real}"}`)!.keys()].filter((ms) => ms > beforeMs);
    assert.ok(times.length > 0, 'no report since the direct read');
    return { found, atMs: times[0]! };
  });
  const after = directRead();
  let compared = 0;
  for (const [series, { type, family, value, labels }] of before) {
    const end = after.get(series);
    if (end === undefined) continue; // a device that has gone
    const found = samples.found.get(series)?.get(samples.atMs);
    assert.ok(found !== undefined, `${series}: no sample`);
    compared++;
    // The kernel takes time back from these two now and then.
    const slack = /idle|iowait/.test(labels['mode'] ?? '') ? 1 : 0;
    if (type === 'counter') {
      assert.ok(found >= value - slack && found <= end.value + slack, `${series}: ${value} ≤ ${found} ≤ ${end.value}`);
    } else if (
      /^node_(boot_time|memory_MemTotal|memory_SwapTotal|memory_Hugepagesize|memory_VmallocTotal)/.test(family)
    ) {
      assert.equal(found, value, series);
    } else assert.ok(found >= 0, series);
  }
  assert.ok(compared > 80, `only ${compared} series were compared`);
}

async function labels({ prometheus }: World): Promise<void> {
  const samples = await prometheus.raw(`{agent="${fixture}",__name__=~"node_load1|node_network_receive_bytes_total"}`);
  const keys = [...samples.keys()];
  assert.ok(
    keys.includes(`node_load1{agent="${fixture}",device="a label of the series wins",rack="7"}`),
    keys.join('\n'),
  );
  assert.ok(keys.includes(`node_network_receive_bytes_total{agent="${fixture}",device="lo",rack="7"}`));
  assert.ok(keys.includes(`node_network_receive_bytes_total{agent="${fixture}",device="a\\\\b\\"c",rack="7"}`));
  assert.ok(keys.includes(`node_network_receive_bytes_total{agent="${fixture}",device="über0",rack="7"}`));
}

async function everyRoute({ server }: World): Promise<void> {
  const text = async (path: string) => {
    const response = await server.get(path);
    assert.equal(response.status, 200, path);
    return { body: await response.text(), type: response.headers.get('content-type') };
  };
  const page = await text('/');
  assert.match(page.type!, /^text\/html/);
  for (const name of [real, fixture]) assert.ok(page.body.includes(name), `the page shows '${name}'`);
  const metrics = await text('/metrics');
  assert.match(metrics.type!, /^text\/plain; version=0\.0\.4/);
  assert.match(metrics.body, new RegExp(`^sysmon_agent_up{agent="${real}"} 1$`, 'm'));
  assert.match(metrics.body, new RegExp(`^node_load15{agent="${real}"} [0-9.]+$`, 'm'));
  assert.match(metrics.body, /^sysmon_server_reports_total{outcome="stored"} [1-9]/m);
  assert.doesNotMatch((await text(`/metrics?agent=${fixture}`)).body, new RegExp(`agent="${real}"`));
  const { agents, server: status } = await server.agents();
  assert.deepEqual(
    agents.map(({ name, up, connected }) => ({ name, up, connected })),
    [fixture, real].map((name) => ({ name, up: true, connected: true })),
  );
  assert.deepEqual(
    status.scrapers.map(({ scraper, connections }) => ({ scraper, connections })),
    [{ scraper: 'prometheus', connections: 1 }],
  );
  assert.equal((await text('/-/healthy')).body, 'healthy\n');
  assert.equal((await text('/-/ready')).body, 'ready\n');
  assert.equal((await server.get('/metricz')).status, 404);
  assert.equal((await server.get('/metrics?agent=nobody')).status, 404);
  assert.equal((await server.get('/metrics?max=0')).status, 400);
  const posted = await fetch(`http://127.0.0.1:${server.webPort}/metrics`, {
    method: 'POST',
    headers: { connection: 'close' },
  });
  assert.equal(posted.status, 405);
}

async function noComplaints({ prometheus, server }: World): Promise<void> {
  assert.deepEqual(prometheus.warnings, []);
  assert.equal(await server.metric('sysmon_server_scrape_rollbacks_total{kind="unconfirmed"}'), 0);
  for (const counter of refusals) assert.equal(await prometheus.metric(counter), 0, counter);
}

const refusals = [
  'prometheus_target_scrapes_sample_out_of_order_total',
  'prometheus_target_scrapes_sample_duplicate_timestamp_total',
  'prometheus_target_scrapes_sample_out_of_bounds_total',
];

async function killedServer({ server, agents, record, tap }: World): Promise<void> {
  const connectionsBefore = tap.connections;
  await server.kill('SIGKILL');
  const killedAtMs = Date.now();
  // Long enough for two reports of each that no server hears.
  await eventually(30_000, async () => {
    for (const agent of agents) assert.ok((await agent.lastReportMs()) > killedAtMs + 1000);
  });
  const startedAtMs = Date.now();
  await server.start();
  await eventually(60_000, async () => {
    const reply = await server.agents();
    assert.equal(reply.agents.filter(({ up, connected }) => up && connected).length, 2, 'both are back');
  });
  assert.ok(tap.connections > connectionsBefore + 1);
  const window = await eventually(30_000, async () => {
    const headers = { 'X-Prometheus-Scrape-Timeout-Seconds': '10', 'User-Agent': 'Prometheus/3.5.0' };
    const body = await (await server.get('/metrics?scraper=probe', headers)).text();
    const lines = [...body.matchAll(/^node_load1{.*agent="([^"]+)".*} \S+ (\d+)$/gm)];
    assert.equal(new Set(lines.map(([, agent]) => agent)).size, 2, 'the windows hold reports of both');
    return lines.map(([, agent, ms]) => `${agent} ${ms}`);
  });
  for (const { name } of agents) {
    const meanwhile = record.times(name).filter((ms) => ms > killedAtMs && ms < startedAtMs);
    assert.ok(meanwhile.length >= 2, `agent '${name}': ${meanwhile.length} reports while the server was away`);
    for (const ms of meanwhile) assert.ok(window.includes(`${name} ${ms}`), `report of ${name} at ${ms}`);
  }
}

async function goodOrder({ server, agents, record, prometheus }: World): Promise<void> {
  for (const agent of agents) assert.deepEqual(await agent.kill('SIGTERM'), { code: 0, signal: null });
  await eventually(30_000, async () => {
    const { server: status } = await server.agents();
    const scraper = status.scrapers.find((each) => each.scraper === 'prometheus');
    assert.equal(scraper?.backlogReports, 0);
  });
  record.check();
  const expected = record.samples();
  assert.ok(sampleCount(expected) > 2000, `the agents sent ${sampleCount(expected)} samples`);
  assertSameSamples(await prometheus.agentSamples(), expected, 'Prometheus');
  assert.deepEqual(await server.kill('SIGTERM'), { code: 0, signal: null });
}
