import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameSamples, sampleCount } from '../support/agents-record.ts';
import { eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { SimulatedAgent } from '../support/simulated-agent.ts';

// An agent comes back after 3 h and delivers all of it, beside one that was there all the time. The times are simulated,
// the 3 h are sent in seconds; the server, Prometheus and what it takes for too old are real.

const everyMs = 5000;
const awayMs = 3 * 3_600_000;
const stockWindowMs = 30 * 60_000;
const scraper = 'one';

describe('a backlog of 3 h', { concurrency: true, skip: prometheusSkip, timeout: 300_000 }, () => {
  test('with a stock Prometheus, what is older than the window is dropped and counted, and nothing fails', async (context) => {
    const { server, prometheus, back, spared, sentAtMs } = await deliver(context, {});
    const dropped = await droppedReports(server);
    // Each that was older than the window when it came, and of those that came to its end later no more than a few.
    const older = back.times.filter((ms) => ms < sentAtMs - stockWindowMs).length;
    assert.ok(dropped >= older && dropped < older + 60, `${dropped} reports were dropped, ${older} were older`);
    const arrived = back.times.slice(dropped);
    assertSameSamples(
      await prometheus.raw('{agent="back",__name__=~"simulated_.*"}', '4h'),
      back.samples(arrived),
      `a stock Prometheus, of the ${back.times.length} reports of which ${dropped} were dropped and counted,`,
    );
    assertSameSamples(
      await prometheus.raw('{agent="spared",__name__=~"simulated_.*"}', '4h'),
      spared.samples(),
      'the agent beside it',
    );
    context.diagnostic(`${dropped} of ${back.times.length} reports were too old, ${arrived.length} have arrived`);
  });

  test('with an out-of-order window of 6 h, and a window of 15 min less, all of it arrives', async (context) => {
    const { server, prometheus, back, spared } = await deliver(context, { outOfOrder: '6h' });
    assert.equal(await droppedReports(server), 0);
    for (const agent of [back, spared]) {
      const samples = await prometheus.raw(`{agent="${agent.options.name}",__name__=~"simulated_.*"}`, '4h');
      assertSameSamples(samples, agent.samples(), `agent '${agent.options.name}'`);
      context.diagnostic(`all ${sampleCount(samples)} samples of agent '${agent.options.name}'`);
    }
  });
});

interface Delivered {
  readonly server: ServerProgram;
  readonly prometheus: Prometheus;
  readonly back: SimulatedAgent;
  readonly spared: SimulatedAgent;
  /** When the backlog began to be sent. */
  readonly sentAtMs: number;
}

async function deliver(context: TestContext, { outOfOrder }: { outOfOrder?: string }): Promise<Delivered> {
  const flags = outOfOrder === undefined ? [] : ['--window', '5h45m', '--prometheus-out-of-order', outOfOrder];
  const server = await ServerProgram.start(context, flags);
  const options = { port: server.port, intervalMs: everyMs };
  const spared = new SimulatedAgent({ ...options, name: 'spared', number: 1, seriesCount: 100 });
  const back = new SimulatedAgent({ ...options, name: 'back', number: 2, seriesCount: 200 });
  await spared.connect();
  const live = liveReports([spared]);
  context.after(async () => {
    await live.stop();
    spared.close();
    back.close();
  });
  const prometheus = await Prometheus.start(context, {
    target: server.webPort,
    scraper,
    ...(outOfOrder !== undefined && { outOfOrder }),
  });
  // The database has a newest sample, and a past.
  await eventually(60_000, async () => assert.ok((await prometheus.raw('{agent="spared"}')).size > 0));

  await back.connect();
  const nowMs = Date.now();
  for (let ms = nowMs - awayMs; ms <= nowMs; ms += everyMs) await back.report(ms);
  await back.ping();
  live.add(back);
  // While reports come there is always one that is not confirmed; but none that a scrape had to leave for the next.
  await eventually(120_000, async () => {
    assert.ok((await prometheus.raw('{agent="back"}')).size > 0);
    assert.equal(await server.metric(`sysmon_server_scrape_backlog_reports{scraper="${scraper}",selection=""}`), 0);
  });
  await live.stop();
  await eventually(60_000, async () => {
    await caughtUp(server, back, 0);
    for (const agent of [back, spared]) assert.equal(agent.ackedCount, agent.times.length, 'all reports are freed');
  });
  assert.deepEqual(prometheus.warnings, []);
  const [up] = await prometheus.values('min_over_time(up[1h])');
  assert.equal(up, 1, 'no scrape has failed');
  return { server, prometheus, back, spared, sentAtMs: nowMs };
}

async function caughtUp(server: ServerProgram, back: SimulatedAgent, waitingMax: number): Promise<void> {
  const { server: status, agents } = await server.agents();
  const waiting = status.scrapers.find((each) => each.scraper === scraper)?.backlogReports ?? Infinity;
  assert.ok(waiting <= waitingMax, `${waiting} reports wait`);
  const newest = agents.find(({ name }) => name === back.options.name)?.newestAt;
  assert.ok(newest !== undefined && Date.parse(newest) >= back.times.at(-1)! - everyMs);
}

/** Reports of now, every 5 s, of each agent. */
function liveReports(agents: SimulatedAgent[]) {
  const stopping = new AbortController();
  const running = (async () => {
    while (!stopping.signal.aborted) {
      for (const agent of agents) await agent.report(Date.now());
      // Sooner when it is told to stop.
      await sleep(everyMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
    for (const agent of agents) await agent.ping();
  })();
  // Whoever stops it is told.
  running.catch(() => {});
  return {
    add: (agent: SimulatedAgent) => void agents.push(agent),
    stop(): Promise<void> {
      stopping.abort();
      return running;
    },
  };
}

/** What the server says that it has dropped, always the oldest: nothing for any other reason than its age. */
async function droppedReports(server: ServerProgram): Promise<number> {
  const outcome = (name: string) => server.metric(`sysmon_server_reports_total{outcome="${name}"}`);
  for (const name of ['duplicate', 'not_newer', 'too_far_ahead']) assert.equal(await outcome(name), 0, name);
  // When they came, or at the end of the window while they waited for a scrape.
  return (await outcome('too_old')) + (await server.metric('sysmon_server_unscraped_reports_lost_total{reason="age"}'));
}
