import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameSamples } from '../support/agents-record.ts';
import { command, eventually, freePort, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { SimulatedAgent } from '../support/simulated-agent.ts';

// A real Prometheus whose receipts confirm: it refuses a catch-up whole, and the server is killed between two scrapes.

const seriesCount = 100;
const agentCount = 3;
const scraper = 'a';
// One scrape of all agents, the server's own metrics, and some more.
const sampleLimit = 1500;

test('with receipts, a limit that a catch-up exceeds and a server that is killed lose nothing, and nothing comes twice', {
  skip: prometheusSkip,
  timeout: 180_000,
}, async (context) => {
  const port = await freePort();
  const server = await ServerProgram.start(context, ['--prometheus', `${scraper}=http://127.0.0.1:${port}`]);
  const prometheus = await Prometheus.start(context, {
    ...{ port, target: server.webPort, scraper, scrapeInterval: '1s', job: `    sample_limit: ${sampleLimit}\n` },
  });
  const agents = Array.from(
    { length: agentCount },
    (_, number) =>
      new SimulatedAgent({ name: `agent-${number}`, number, port: server.port, seriesCount, intervalMs: 1000 }),
  );
  context.after(() => {
    for (const agent of agents) agent.close();
  });
  const reports = async (count: number) => {
    for (let report = 0; report < count; report++) {
      const nowMs = Date.now();
      await Promise.all(agents.map((agent) => agent.report(nowMs)));
      await sleep(1000);
    }
  };
  const allAcked = () =>
    eventually(60_000, () => {
      for (const agent of agents) assert.equal(agent.ackedCount, agent.times.length, agent.options.name);
    });

  for (const agent of agents) await agent.connect();
  // The first answer is a catch-up itself.
  await reports(5);
  await allAcked();

  await prometheus.stop('SIGTERM');
  await reports(12);
  await prometheus.start();
  await reports(5);
  await allAcked();
  const refusal = new RegExp(
    `Prometheus '${scraper}' read answer \\d+ of \\d+ samples and did not store it: sample limit exceeded; ` +
      'giving it again in parts of at most \\d+ samples',
  );
  assert.ok(
    server.run.lines.some((line) => refusal.test(line)),
    server.run.lines.join('\n'),
  );

  for (let kill = 0; kill < 8; kill++) {
    await server.kill('SIGKILL');
    await server.start();
    for (const agent of agents) await agent.connectAgain();
    await reports(2);
  }
  await allAcked();

  for (const agent of agents) {
    const { name } = agent.options;
    assertSameSamples(await prometheus.raw(`{agent="${name}",__name__=~"simulated_.*"}`), agent.samples(), name);
  }
  for (const counter of ['out_of_order', 'duplicate_timestamp', 'out_of_bounds']) {
    assert.equal(await prometheus.metric(`prometheus_target_scrapes_sample_${counter}_total`), 0, counter);
  }
  assert.ok((await server.metric(`sysmon_server_receipts_total{scraper="${scraper}",outcome="confirmed"}`)) > 0);
});

for (const name of [scraper, 'addr/127.0.0.1']) {
  test(
    `with receipts of '${name}', an agent for which Prometheus refuses whole scrapes waits alone, and is named`,
    {
      skip: prometheusSkip,
      timeout: 180_000,
    },
    (context) => waitsAlone(context, name),
  );
}

async function waitsAlone(context: TestContext, scraper: string): Promise<void> {
  const port = await freePort();
  const server = await ServerProgram.start(context, ['--prometheus', `${scraper}=http://127.0.0.1:${port}`]);
  const prometheus = await Prometheus.start(context, {
    ...{
      port,
      target: server.webPort,
      scraper: scraper.startsWith('addr/') ? '' : scraper,
      scrapeInterval: '1s',
      job: '    label_value_length_limit: 62\n',
    },
  });
  const bad = 'x'.repeat(64);
  const agents = ['a', 'b', 'c', bad, 'd', 'e'].map(
    (name, number) => new SimulatedAgent({ name, number, port: server.port, seriesCount, intervalMs: 1000 }),
  );
  context.after(() => {
    for (const agent of agents) agent.close();
  });
  for (const agent of agents) await agent.connect();
  for (let report = 0; report < 25; report++) {
    const nowMs = Date.now();
    await Promise.all(agents.map((agent) => agent.report(nowMs)));
    await sleep(1000);
  }
  await eventually(60_000, () => {
    for (const agent of agents) {
      assert.equal(agent.ackedCount, agent.options.name === bad ? 0 : agent.times.length, agent.options.name);
    }
  });
  for (const agent of agents) {
    const { name } = agent.options;
    if (name === bad) continue;
    assertSameSamples(await prometheus.raw(`{agent="${name}",__name__=~"simulated_.*"}`), agent.samples(), name);
  }
  const line = new RegExp(
    `did not store it: label_value_length_limit exceeded .*; it had nothing but '${bad}', which waits`,
  );
  assert.ok(
    server.run.lines.some((each) => line.test(each)),
    server.run.lines.join('\n'),
  );
  const status = await command('server', 'status', '--control-socket', server.controlSocket);
  assert.match(
    status,
    new RegExp(`^ +scraper '${scraper}': it does not store reports of '${bad}', which alone wait`, 'm'),
  );
  assert.match(
    status,
    new RegExp(`^${scraper} +Prometheus 2\\.\\S+ +127\\.0\\.0\\.1 +all agents +\\d+ s ago +receipt `, 'm'),
  );
  await assert.rejects(
    command('server', 'forget-scraper', 'nobody', '--control-socket', server.controlSocket),
    new RegExp(`no scraper is named 'nobody': expected one of '${scraper}'`),
  );
  assert.equal(
    await command('server', 'forget-scraper', scraper, '--control-socket', server.controlSocket),
    `scraper '${scraper}' is forgotten: 1 cursor removed, ${agents[3]!.times.length} reports no longer held for it\n`,
  );
}
