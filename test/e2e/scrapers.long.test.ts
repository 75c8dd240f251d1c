import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sampleCount } from '../support/agents-record.ts';
import { skipWithout } from '../support/installed.ts';
import { eventually, freePort, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusPrograms } from '../support/prometheus.ts';
import { SimulatedAgent } from '../support/simulated-agent.ts';
import { Tap } from '../support/tap.ts';
import { VictoriaMetrics, Vmagent } from '../support/victoria-metrics.ts';
import { leanAgent, ScrapeWorld } from './scrape-world.ts';

// Real scrapers other than one Prometheus with one target and no limits.

const scrapeSeconds = 2;
const scrapeInterval = `${scrapeSeconds}s`;
const agents = { a: leanAgent, b: leanAgent };

/** By its API the database says what it has stored. */
const receiptsOf = (name: string, port: number, receipts: boolean): string[] =>
  receipts ? ['--prometheus', `${name}=http://127.0.0.1:${port}`] : [];

const withOrWithout = [false, true];
const words = (receipts: boolean) => (receipts ? 'with receipts' : 'without receipts');

const victoriaSkip = skipWithout('/usr/bin/victoria-metrics', '/usr/bin/vmagent');

describe('VictoriaMetrics and vmagent', { concurrency: 12, skip: victoriaSkip, timeout: 600_000 }, () => {
  for (const receipts of withOrWithout) {
    test(`VictoriaMetrics that scrapes by itself, ${words(receipts)}`, async (context) => {
      const port = await freePort();
      const server = receiptsOf('vmagent', port, receipts);
      const world = await ScrapeWorld.start(context, { agents, server, scrapeSeconds, showsAfterSeconds: 5 });
      const line = await Tap.open(context, { to: world.server.webPort });
      const victoria = await VictoriaMetrics.start(context, { port, target: line.port, scrapeInterval });
      await world.begin(victoria);
      await sleep(5000);
      await world.cutAgents(8);
      await world.killServer();
      await world.disturb(async () => {
        await victoria.stop('SIGTERM');
        await sleep(6000);
        await victoria.start();
      });
      await world.disturb(async () => {
        line.swallow('at once');
        await eventually(30_000, () => assert.ok(line.swallowed >= 1));
        line.stopSwallowing();
      });
      await sleep(5000);
      assert.equal((await world.settle(victoria)).missingMs.length, 0, 'samples that are missing');
      world.note(`${(await victoria.stored()).repeated} samples are stored twice`);
    });

    test(`vmagent that writes to VictoriaMetrics, ${words(receipts)}`, async (context) => {
      const victoria = await VictoriaMetrics.start(context);
      const server = receiptsOf('vmagent', victoria.port, receipts);
      const world = await ScrapeWorld.start(context, { agents, server, scrapeSeconds, showsAfterSeconds: 5 });
      const line = await Tap.open(context, { to: world.server.webPort });
      const vmagent = await Vmagent.start(context, { to: victoria, target: line.port, scrapeInterval });
      await world.begin(victoria);
      await sleep(5000);
      await world.cutAgents(8);
      await world.killServer();
      await world.mayLose(async () => {
        await vmagent.stop('SIGTERM');
        await sleep(6000);
        await vmagent.start();
      });
      // What it has scraped meanwhile waits in its own queue.
      await world.mayLose(async () => {
        await victoria.stop('SIGTERM');
        await sleep(4000);
        await victoria.start();
      });
      await sleep(5000);
      const { missingMs } = await world.settle(victoria);
      // What it has read and not yet written when it stops counts as read.
      if (receipts) assert.equal(missingMs.length, 0, 'samples that are missing');
      else world.assertOfLossy(missingMs);
      world.note(`${(await victoria.stored()).repeated} samples are stored twice`);
    });

    test(`an answer that VictoriaMetrics finds too large, ${words(receipts)}`, async (context) => {
      const port = await freePort();
      const server = receiptsOf('vmagent', port, receipts);
      const world = await ScrapeWorld.start(context, { agents, server, scrapeSeconds, showsAfterSeconds: 5 });
      const victoria = await VictoriaMetrics.start(context, {
        ...{
          port,
          target: world.server.webPort,
          scrapeInterval,
          flags: ['-promscrape.maxScrapeSize=128KB', '-promscrape.disableCompression'],
        },
      });
      await world.begin(victoria);
      await sleep(5000);
      await world.mayLose(() => world.cutAgents(12));
      await sleep(5000);
      // It reads no further than to its limit, and closes the connection: then answers become smaller.
      assert.ok(victoria.lines.some((each) => each.includes('maxScrapeSize')));
      assert.equal((await world.settle(victoria)).missingMs.length, 0, 'samples that are missing');
    });
  }
});

for (const { name, path, skip } of prometheusPrograms) {
  test(`${name} in agent mode, which writes to VictoriaMetrics: what it is given is stored`, {
    skip: skip || victoriaSkip,
    timeout: 240_000,
  }, async (context) => {
    const victoria = await VictoriaMetrics.start(context);
    const world = await ScrapeWorld.start(context, { agents, scrapeSeconds, showsAfterSeconds: 5 });
    const prometheus = await Prometheus.start(context, {
      ...{ path, target: world.server.webPort, scrapeInterval, agentTo: `${victoria.url}/api/v1/write` },
    });
    const startedMs = Date.now();
    await world.begin(victoria);
    await sleep(5000);
    await world.disturb(async () => {
      prometheus.freeze();
      await sleep(20_000);
      prometheus.thaw();
    });
    await world.cutAgents(8);
    await world.killServer();
    await sleep(5000);
    const { missingMs } = await world.settle(victoria);
    // It sends nothing that is older than its own start.
    const others = missingMs.filter((ms) => ms >= startedMs);
    assert.deepEqual(others, [], `${missingMs.length} samples are missing`);
    const outOfOrder = await prometheus.metric('prometheus_target_scrapes_sample_out_of_order_total');
    const { repeated } = await victoria.stored();
    world.note(`${outOfOrder} samples out of order, ${repeated} stored twice`);
  });
}

test('what an outage leaves comes in answers below the 16 MiB that VictoriaMetrics takes', {
  skip: victoriaSkip,
  timeout: 300_000,
}, async (context) => {
  const server = await ServerProgram.start(context);
  const [seriesCount, reports] = [2500, 40];
  const beganMs = Date.now() - reports * 1000;
  const names = ['f0', 'f1', 'f2', 'f3'];
  await Promise.all(
    names.map(async (name, number) => {
      const agent = new SimulatedAgent({ name, number, port: server.port, seriesCount, intervalMs: 1000 });
      context.after(() => agent.close());
      await agent.connect();
      for (let report = 0; report < reports; report++) await agent.report(beganMs + report * 1000);
      await agent.ping();
    }),
  );
  // 400 000 samples, which are some 30 MB of text.
  const victoria = await VictoriaMetrics.start(context, {
    // A sample that is repeated counts once.
    ...{ target: server.webPort, scrapeInterval: '5s', flags: ['-dedup.minScrapeInterval=1ms'] },
  });
  await eventually(200_000, async () => {
    for (const name of names) {
      const stored = await victoria.values(`sum(count_over_time({agent="${name}",__name__=~"simulated_.*"}[10m]))`);
      assert.deepEqual(stored, [seriesCount * reports], `what is stored of '${name}'`);
    }
  });
  assert.deepEqual(
    victoria.lines.filter((line) => line.includes('maxScrapeSize')),
    [],
  );
});

const prometheusSkip = skipWithout('/usr/bin/prometheus');

/** The usual answer is below each, and what comes after an outage is above it. */
const catchUpLimits = { sample_limit: '1100', body_size_limit: '90KB' };

// What is newer waits so long for a receipt.
const lateBySeconds = (receipts: boolean) => (receipts ? 30 : 4);

describe('limits of a job', { concurrency: 12, skip: prometheusSkip, timeout: 600_000 }, () => {
  for (const receipts of withOrWithout) {
    for (const [limit, value] of Object.entries(catchUpLimits)) {
      test(`${limit} exceeded by a catch-up, ${words(receipts)}`, async (context) => {
        const port = await freePort();
        const server = receiptsOf('one', port, receipts);
        const world = await ScrapeWorld.start(context, {
          agents,
          server,
          scrapeSeconds,
          showsAfterSeconds: lateBySeconds(receipts),
        });
        const options = { target: world.server.webPort, scraper: 'one', scrapeInterval, port };
        const prometheus = await Prometheus.start(context, { ...options, job: `    ${limit}: ${value}\n` });
        // The first answer has all since the agents' start.
        await world.mayLose(() => world.begin(prometheus), 0);
        await sleep(5000);
        await world.mayLose(() => world.cutAgents(12));
        await sleep(5000);
        assert.ok((await refusedScrapes(prometheus)) > 0, 'Prometheus has refused an answer');
        const { missingMs } = await world.settle(prometheus);
        if (receipts) return assert.equal(missingMs.length, 0, 'samples that are missing');
        assert.ok(missingMs.length > 0, 'what it has read and refused is missing');
        world.assertOfLossy(missingMs);
      });
    }

    for (const [limit, value, flags] of [
      ['sample_limit', '700', ['--vmstat.fields', '.', '--stat.softirq', 'true']],
      ['label_value_length_limit', '100', [...leanAgent, '--label', `note=EOF ${'x'.repeat(120)}`]],
    ] as const) {
      test(`${limit} exceeded by one agent, ${words(receipts)}`, (context) =>
        oneAgentExceeds(context, { limit, value, flags, receipts }));
    }
  }
});

const fewSeries = { a: [...leanAgent, '--disable', 'cpu'], b: [...leanAgent, '--disable', 'cpu'] };

async function oneAgentExceeds(
  context: TestContext,
  { limit, value, flags, receipts }: { limit: string; value: string; flags: readonly string[]; receipts: boolean },
): Promise<void> {
  const port = await freePort();
  const server = receiptsOf('one', port, receipts);
  const world = await ScrapeWorld.start(context, {
    ...{ agents: fewSeries, server, scrapeSeconds, showsAfterSeconds: lateBySeconds(receipts) },
  });
  const options = { target: world.server.webPort, scraper: 'one', scrapeInterval, port };
  const prometheus = await Prometheus.start(context, { ...options, job: `    ${limit}: ${value}\n` });
  // The first answer has all since the agents' start.
  await world.mayLose(() => world.begin(prometheus), 0);
  await sleep(8000);
  await world.mayLose(async () => {
    await world.startAgent('odd', flags);
    await eventually(30_000, async () => assert.ok((await refusedScrapes(prometheus)) > 0));
    await sleep(15_000);
    await prometheus.reload(options);
  });
  await sleep(5000);
  const { missingMs } = await world.settle(prometheus);
  if (receipts) return assert.equal(missingMs.length, 0, 'samples that are missing');
  assert.ok(missingMs.length > 0, 'what it has read and refused is missing');
  world.assertOfLossy(missingMs);
}

async function refusedScrapes(prometheus: Prometheus): Promise<number> {
  let count = 0;
  for (const what of ['s_exceeded_sample_limit', 's_exceeded_body_size_limit', '_pool_exceeded_label_limits']) {
    count += await prometheus.metric(`prometheus_target_scrape${what}_total`);
  }
  return count;
}

describe('several targets of one Prometheus', { concurrency: 12, skip: prometheusSkip, timeout: 600_000 }, () => {
  for (const receipts of withOrWithout) {
    for (const count of [2, 5]) {
      test(`${count} targets by agent that overlap, ${words(receipts)}`, async (context) => {
        const names = Array.from({ length: count }, (_, at) => `a${at}`);
        const port = await freePort();
        const world = await ScrapeWorld.start(context, {
          agents: Object.fromEntries(names.map((name) => [name, leanAgent])),
          server: receiptsOf('one', port, receipts),
          scrapeSeconds,
          // What a killed Prometheus has left unconfirmed comes three times more before anything newer.
          showsAfterSeconds: Math.max(lateBySeconds(receipts), 6 * scrapeSeconds),
        });
        // Each answer is under way for as long as most scrapes take.
        const line = await Tap.open(context, { to: world.server.webPort, delayMs: 300 });
        const prometheus = await Prometheus.start(context, {
          ...{ target: line.port, scraper: 'one', scrapeInterval, port, agents: names },
        });
        await world.begin(prometheus);
        await sleep(10_000);
        const repeated = await prometheus.metric('prometheus_target_scrapes_sample_out_of_order_total');
        const made = sampleCount(world.record.samples());
        assert.ok(repeated < made / 2, `${repeated} of ${made} samples were given again`);
        await world.cutAgents(8);
        await world.killServer();
        await world.disturb(async () => {
          await prometheus.stop('SIGKILL');
          await sleep(6000);
          await prometheus.start();
        });
        await sleep(5000);
        assert.equal((await world.settle(prometheus)).missingMs.length, 0, 'samples that are missing');
        const conflicts = world.serverLines.filter((each) => /two connections|too many/.test(each));
        assert.deepEqual(conflicts, []);
        const { scrapers } = (await world.server.agents()).server;
        assert.deepEqual(scrapers.map(({ selection }) => selection).sort(), names, 'a cursor for each target');
      });
    }
  }
});
