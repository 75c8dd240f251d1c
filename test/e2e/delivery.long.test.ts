import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../support/programs.ts';
import { prometheusSkip } from '../support/prometheus.ts';
import { Random } from '../support/random.ts';
import { World } from './world.ts';

// What is promised, with a real Prometheus: whatever breaks, every sample arrives, with the time and the value that it
// had. The scenarios break things side by side, each with programs and ports of its own.

const second = 1000;

// What breaks, in which order and for how long; `SEED=… npm run test:long -- delivery` has the same again.
const seed = process.env['SEED'] ?? String(Math.floor(Math.random() * 2 ** 31));

/** The faults of one part of a scenario: what the others draw does not change them. */
function faultsOf(context: TestContext, part = ''): Random {
  context.diagnostic(`SEED=${seed}`);
  return new Random(`${seed} ${context.name} ${part}`);
}

describe('everything arrives', { concurrency: true, skip: prometheusSkip, timeout: 600_000 }, () => {
  test('(a) steady, with two Prometheus servers', async (context) => {
    const world = await World.start(context, {
      agents: { a1: '1s', a5: '5s', a15: '15s' },
      scrapers: { one: '5s', two: '5s' },
    });
    await sleep(100 * second);
    await world.settle();
    for (const { prometheus } of world.scrapers) {
      assert.deepEqual(prometheus.warnings, []);
      for (const reason of ['out_of_order', 'duplicate_timestamp', 'out_of_bounds']) {
        assert.equal(await prometheus.metric(`prometheus_target_scrapes_sample_${reason}_total`), 0, reason);
      }
    }
    assert.equal(await world.server.metric('sysmon_server_scrape_rollbacks_total{kind="unconfirmed"}'), 0);
    assert.equal(world.record.sentAgain, 0);
  });

  test('(b) the line is cut for 60 s', async (context) => {
    const world = await World.start(context, {
      agents: { pulled: '1s', refused: '5s' },
      scrapers: { one: '5s' },
    });
    await sleep(15 * second);
    const [pulled, refused] = [world.agents[0]!, world.agents[1]!];
    pulled.line.stall();
    refused.line.down();
    await sleep(60 * second);
    pulled.line.up();
    refused.line.up();
    await sleep(10 * second);
    await world.settle();
    for (const { line } of world.agents) assert.ok(line.connections > 1);
  });

  test('(c) the server is killed ten times', async (context) => {
    const faults = faultsOf(context);
    const world = await World.start(context, {
      agents: { a1: '1s', a5: '5s' },
      scrapers: { one: '5s', two: '2s' },
    });
    for (let kill = 0; kill < 10; kill++) {
      await sleep(faults.between(1, 12) * second);
      await world.server.kill('SIGKILL');
      await sleep(faults.between(0, 2) * second);
      await world.server.start();
    }
    await sleep(5 * second);
    await world.settle();
  });

  test('(c) the server is stopped and started again, as by an upgrade: nothing comes twice either', async (context) => {
    const faults = faultsOf(context);
    const world = await World.start(context, { agents: { a1: '1s', a5: '5s' }, scrapers: { one: '5s', two: '2s' } });
    for (let stop = 0; stop < 6; stop++) {
      await sleep(faults.between(3, 9) * second);
      assert.deepEqual(await world.server.kill('SIGTERM'), { code: 0, signal: null });
      await world.server.start();
      // Of this run of the server alone.
      assert.equal(await world.server.metric('sysmon_server_scrape_rollbacks_total{kind="restart"}'), 0);
    }
    await sleep(5 * second);
    await world.settle();
    for (const { prometheus } of world.scrapers) assert.deepEqual(prometheus.warnings, []);
  });

  test('(d) an agent is killed and started again', async (context) => {
    const faults = faultsOf(context);
    const world = await World.start(context, { agents: { killed: '1s', spared: '1s' }, scrapers: { one: '5s' } });
    const { program } = world.agents.find((agent) => agent.program.name === 'killed')!;
    const seenMs: number[] = [];
    for (let kill = 0; kill < 6; kill++) {
      await sleep(faults.between(2, 8) * second);
      seenMs.push(await program.lastReportMs());
      await program.kill('SIGKILL');
      await sleep(faults.between(0, 2) * second);
      await program.start();
    }
    await sleep(5 * second);
    await world.settle();
    // Also a report that no server had heard of: it was on disk.
    const times = world.record.times('killed');
    for (const ms of seenMs) assert.ok(times.includes(ms), `the report of ${ms}`);
    assert.equal(world.record.epochCount('killed'), 7);
  });

  test('(e) Prometheus is away for 60 s', async (context) => {
    const world = await World.start(context, {
      agents: { a1: '1s', a5: '5s' },
      scrapers: { ended: '5s', killed: '5s' },
    });
    await sleep(15 * second);
    const signals = { ended: 'SIGTERM', killed: 'SIGKILL' } as const;
    await Promise.all(
      world.scrapers.map(async ({ name, prometheus }) => {
        await prometheus.stop(signals[name as keyof typeof signals]);
        await sleep(60 * second);
        await prometheus.start();
      }),
    );
    await sleep(10 * second);
    await world.settle();
  });

  test('(f) answers are swallowed after the server has sent them', async (context) => {
    const faults = faultsOf(context);
    const world = await World.start(context, {
      agents: { a1: '1s', a5: '5s' },
      scrapers: { one: '3s' },
      scrapeTimeout: '2s',
    });
    const { line } = world.scrapers[0]!;
    for (let count = 1; count <= 12; count++) {
      // One is read between two: what is lost twice in a row counts as read.
      await sleep(faults.between(4, 9) * second);
      line.swallow(count % 2 === 0 ? 'at once' : 'by the client');
      await eventually(60 * second, () => assert.ok(line.swallowed >= count));
      line.stopSwallowing();
    }
    await sleep(5 * second);
    await world.settle();
    const rollbacks = await world.server.metric('sysmon_server_scrape_rollbacks_total{kind="unconfirmed"}');
    assert.ok(rollbacks >= 12, `${rollbacks} of ${line.swallowed} answers were taken back`);
  });

  test('(f) answers come to a Prometheus that stands still, and gives up when it moves again', async (context) => {
    const faults = faultsOf(context);
    const world = await World.start(context, { agents: { a1: '1s', a5: '5s' }, scrapers: { one: '5s' } });
    const { line, prometheus } = world.scrapers[0]!;
    for (let freeze = 0; freeze < 5; freeze++) {
      // A request waits on the line by then, more often than not; its answer finds nobody.
      line.stall();
      await sleep(faults.between(2, 4.5) * second);
      prometheus.freeze();
      line.up();
      await sleep(faults.between(6, 14) * second);
      prometheus.thaw();
      await sleep(faults.between(3, 8) * second);
    }
    await world.settle();
  });

  for (const by of ['close', 'reset'] as const) {
    test(`(f) connections end when they rest, by a ${by}`, async (context) => {
      const world = await World.start(context, { agents: { a1: '1s', a5: '5s' }, scrapers: { one: '5s' } });
      const { line } = world.scrapers[0]!;
      line.endAtRest(2 * second, by);
      line.cut();
      await sleep(60 * second);
      await world.settle();
      const metrics = await (await world.server.get('/metrics')).text();
      const assumed = Number(/^sysmon_server_answers_assumed_total\{scraper="one"\} (\d+)$/m.exec(metrics)?.[1] ?? 0);
      context.diagnostic(`${line.connections} connections, ${assumed} answers that count as read`);
      assert.ok(line.connections > 10);
      assert.equal(assumed > 5, by === 'reset');
    });
  }

  test('(g) all at once', async (context) => {
    const world = await World.start(context, {
      agents: { a1: '1s', a2: '2s', a5: '5s' },
      scrapers: { one: '5s', two: '2s' },
      scrapeTimeout: '2s',
    });
    const end = performance.now() + 100 * second;
    const untilTheEnd = async (part: string, happen: (faults: Random) => Promise<void>) => {
      const faults = faultsOf(context, part);
      while (performance.now() < end) {
        await sleep(faults.between(2, 15) * second);
        await happen(faults);
      }
    };
    await Promise.all([
      ...world.agents.map(({ program, line }) =>
        untilTheEnd(program.name, async (faults) => {
          const fault = faults.next();
          if (fault < 0.3) {
            await program.kill('SIGKILL');
            await sleep(faults.between(0, 5) * second);
            await program.start();
          } else if (fault < 0.6) {
            line.cut();
          } else {
            if (fault < 0.8) line.down();
            else line.stall();
            await sleep(faults.between(1, 30) * second);
            line.up();
          }
        }),
      ),
      ...world.scrapers.map(({ name, prometheus, line }) =>
        untilTheEnd(name, async (faults) => {
          const fault = faults.next();
          if (fault < 0.3) {
            await prometheus.stop(fault < 0.15 ? 'SIGTERM' : 'SIGKILL');
            await sleep(faults.between(0, 20) * second);
            await prometheus.start();
          } else if (fault < 0.7) {
            line.swallow(fault < 0.5 ? 'at once' : 'by the client');
            await sleep(faults.between(1, 5) * second);
            line.stopSwallowing();
          } else if (fault < 0.85) {
            prometheus.freeze();
            await sleep(faults.between(1, 10) * second);
            prometheus.thaw();
          } else line.cut();
        }),
      ),
      untilTheEnd('server', async (faults) => {
        await world.server.kill('SIGKILL');
        await sleep(faults.between(0, 5) * second);
        await world.server.start();
      }),
    ]);
    await world.settle({ mayAssume: true });
  });
});
