import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameSamples } from '../support/agents-record.ts';
import { eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { SimulatedAgent } from '../support/simulated-agent.ts';

// A hundred agents come back at once after 5 min, and have 3 million samples to deliver while new ones are made. They are
// agents of the wire alone, in this process, with simulated times; the sockets, the server and Prometheus are real.

const agentCount = 100;
const seriesCount = 500;
const everyMs = 5000;
const awayMs = 5 * 60_000;
const scraper = 'one';

test('a fleet catches up, and no scrape takes too long', {
  skip: prometheusSkip,
  timeout: 420_000,
}, async (context) => {
  const server = await ServerProgram.start(context);
  const agents = Array.from(
    { length: agentCount },
    (_, number) =>
      new SimulatedAgent({ name: `agent-${number}`, number, port: server.port, seriesCount, intervalMs: everyMs }),
  );
  context.after(() => {
    for (const agent of agents) agent.close();
  });
  const each = (act: (agent: SimulatedAgent) => Promise<void>) => Promise.all(agents.map(act));
  // Twice the agents' interval, so that a machine that is busy with other things is not what fails a scrape.
  const prometheus = await Prometheus.start(context, { target: server.webPort, scraper, scrapeInterval: '10s' });

  // A scraper that was never seen starts in the past of the agents that are there, but no more than 5 min back.
  await eventually(60_000, async () => {
    const { scrapers } = (await server.agents()).server;
    assert.ok(scrapers.some((each) => each.scraper === scraper && each.known));
  });
  // Before the outage: the database gets to know the series.
  const backAtMs = Date.now();
  const goneAtMs = backAtMs - awayMs - 2 * everyMs;
  await each(async (agent) => {
    await agent.connect();
    await agent.report(goneAtMs);
    await agent.report(goneAtMs + everyMs);
    await agent.ping();
  });
  await eventually(60_000, () => caughtUp(server, goneAtMs));
  for (const agent of agents) agent.close();

  await each(async (agent) => {
    await agent.connect();
    for (let ms = backAtMs - awayMs; ms < backAtMs; ms += everyMs) await agent.report(ms);
    await agent.ping();
  });
  const startedAtMs = Date.now();
  let lastMs = 0;
  let rounds = 0;
  await eventually(60_000, async () =>
    assert.ok((await leftForTheNext(server)) > 0, 'the outage takes several scrapes'),
  );
  for (let isBehind = true; isBehind; rounds++) {
    assert.ok(rounds < 40, 'the fleet does not catch up');
    lastMs = Date.now();
    await each((agent) => agent.report(lastMs));
    await sleep(everyMs);
    isBehind = (await leftForTheNext(server)) > 0;
  }
  context.diagnostic(`caught up after ${((Date.now() - startedAtMs) / 1000).toFixed(0)} s, of new reports ${rounds}`);
  await eventually(60_000, () => caughtUp(server, lastMs));
  await eventually(30_000, () => {
    for (const agent of agents) assert.equal(agent.ackedCount, agent.times.length, agent.options.name);
  });

  const [up] = await prometheus.values('min_over_time(up[1h])');
  const [slowest] = await prometheus.values('max_over_time(scrape_duration_seconds[1h])');
  const [most] = await prometheus.values('max_over_time(scrape_samples_scraped[1h])');
  context.diagnostic(`the slowest scrape took ${slowest} s, the largest had ${most} samples`);
  assert.equal(up, 1, 'no scrape has failed');
  for (const agent of agents) {
    const { name } = agent.options;
    assertSameSamples(await prometheus.raw(`{agent="${name}",__name__=~"simulated_.*"}`), agent.samples(), name);
  }
  assert.deepEqual(prometheus.warnings, []);
});

/** Reports that the last scrape had no room for. */
function leftForTheNext(server: ServerProgram): Promise<number> {
  return server.metric(`sysmon_server_scrape_backlog_reports{scraper="${scraper}",selection=""}`);
}

async function caughtUp(server: ServerProgram, newestMs: number): Promise<void> {
  const { server: status, agents } = await server.agents();
  const behind = agents.filter(({ newestAt }) => newestAt === undefined || Date.parse(newestAt) < newestMs);
  assert.equal(behind.length, 0, `${behind.length} agents have not reported`);
  assert.equal(agents.length, agentCount);
  const own = status.scrapers.find((each) => each.scraper === scraper);
  assert.equal(own?.backlogReports, 0, `${own?.backlogReports} reports wait for the scraper`);
}
