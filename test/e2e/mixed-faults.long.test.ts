import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentsRecord, assertSameSamples, type Samples, sampleCount } from '../support/agents-record.ts';
import { BacklogAgent } from '../support/backlog-agent.ts';
import { eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus, prometheusPrograms, prometheusSkip } from '../support/prometheus.ts';
import { Random } from '../support/random.ts';
import { Tap } from '../support/tap.ts';

// Twenty agents, of which five come back with what they made in 3 h, some with clocks that are an hour off; a Prometheus
// that scrapes each 2 s; and one fault after another, of eleven kinds. What is missing in the end has to be what the server
// says that it has assumed to be there.

const seed = process.env['SEED'] ?? String(Math.floor(Math.random() * 2 ** 31));
const second = 1000;
const hour = 3600 * second;
const scraper = 'one';
const window = '5h';
// A quarter of an hour more.
const outOfOrder = '5h15m';

describe('a backlog of 3 h, and one fault after another', { skip: prometheusSkip }, () => {
  for (const { name, path, skip } of prometheusPrograms) {
    test(name, { skip, timeout: 240_000 }, async (context) => {
      context.diagnostic(`SEED=${seed}`);
      const world = await MixedWorld.start(context, path);
      await world.goWrong();
      await world.compare();
    });
  }
});

class MixedWorld {
  readonly #context: TestContext;
  readonly #random = new Random(`${seed} mixed faults`);
  readonly record = new AgentsRecord();
  readonly server: ServerProgram;
  readonly prometheus: Prometheus;
  readonly #scraperLine: Tap;
  readonly #agents: { readonly agent: BacklogAgent; readonly line: Tap }[] = [];
  readonly #happened: string[] = [];

  static async start(context: TestContext, path: string): Promise<MixedWorld> {
    const server = await ServerProgram.start(context, ['--window', window, '--prometheus-out-of-order', outOfOrder]);
    const line = await Tap.open(context, { to: server.webPort });
    const prometheus = await Prometheus.start(context, {
      ...{ target: line.port, scraper, path, outOfOrder },
      ...{ scrapeInterval: '2s', scrapeTimeout: '2s' },
    });
    const world = new MixedWorld(context, server, prometheus, line);
    for (let number = 0; number < agentCount; number++) await world.#startAgent(number);
    await eventually(60 * second, async () => {
      const { scrapers } = (await server.agents()).server;
      assert.deepEqual(
        scrapers.filter(({ known }) => known).map((each) => each.scraper),
        [scraper],
      );
    });
    return world;
  }

  private constructor(context: TestContext, server: ServerProgram, prometheus: Prometheus, scraperLine: Tap) {
    this.#context = context;
    this.server = server;
    this.prometheus = prometheus;
    this.#scraperLine = scraperLine;
  }

  async #startAgent(number: number): Promise<void> {
    const line = await Tap.open(this.#context, { to: this.server.port, watch: () => this.record.connection() });
    const isBack = number < backCount;
    const agent = await BacklogAgent.start(this.#context, {
      ...{ name: `${isBack ? 'back' : 'here'}-${number}`, port: line.port, seriesCount: 22, intervalMs: 10 * second },
      awayMs: isBack ? 3 * hour : 0,
      wallAheadMs: [-hour, 0, hour, 0, 2 * second][number % 5]!,
    });
    this.#agents.push({ agent, line });
    if (!isBack) agent.comeBack();
  }

  /** Each fault is over before the next. The agents that were away come back in between. */
  async goWrong(): Promise<void> {
    const random = this.#random;
    const faults = random.shuffled(Object.entries(this.#faults()));
    const endMs = performance.now() + faultsMs;
    const back = this.#agents.slice(0, backCount);
    const coming = (async () => {
      for (const { agent } of back) {
        await sleep(random.between(0, 0.8) * (faultsMs / backCount));
        this.#note(`${agent.options.name} comes back`);
        agent.comeBack();
      }
    })();
    for (let at = 0; performance.now() < endMs; at++) {
      const [name, fault] = faults[at % faults.length]!;
      await sleep(random.between(0.2, 3) * second);
      this.#note(name);
      await fault();
    }
    await coming;
  }

  #note(text: string): void {
    this.#happened.push(`${new Date().toISOString()} ${text}`);
  }

  #faults(): Readonly<Record<string, () => Promise<void>>> {
    const { server, prometheus } = this;
    const random = this.#random;
    const line = this.#scraperLine;
    const seconds = (least: number, most: number) => sleep(random.between(least, most) * second);
    const agentLine = () => random.pick(this.#agents).line;
    return {
      'the server is killed': async () => {
        await server.kill('SIGKILL');
        await seconds(0, 2);
        await server.start();
      },
      'the server is stopped': async () => {
        await server.kill('SIGTERM');
        await server.start();
      },
      'the server loses its state': async () => {
        await server.kill('SIGKILL');
        rmSync(server.stateFile, { force: true });
        await server.start();
      },
      'Prometheus is killed': async () => {
        await prometheus.stop('SIGKILL');
        await seconds(0, 2);
        await prometheus.start();
      },
      'Prometheus stands still': async () => {
        prometheus.freeze();
        await seconds(1, 6);
        prometheus.thaw();
      },
      'Prometheus is restarted': async () => {
        await prometheus.stop('SIGTERM');
        await prometheus.start();
      },
      "an agent's line is cut": async () => {
        const cut = agentLine();
        cut.down();
        await seconds(0, 5);
        cut.up();
      },
      "an agent's line stalls": async () => {
        const stalled = agentLine();
        stalled.stall();
        await seconds(1, 6);
        stalled.up();
      },
      "the scraper's line is cut": async () => {
        line.cut();
      },
      'answers are lost': async () => {
        line.swallow('at once');
        await seconds(1, 2.5);
        line.stopSwallowing();
      },
      'answers are read, and then their connection is cut': async () => {
        line.endAtRest(random.between(0.05, 1.5) * second, random.pick(['close', 'reset'] as const));
        line.cut();
        await seconds(2, 5);
        line.endAtRest(hour, 'close');
        line.cut();
      },
    };
  }

  async compare(): Promise<void> {
    const { server, record, prometheus } = this;
    for (const { agent } of this.#agents) agent.stopSampling();
    await eventually(60 * second, () => {
      for (const { agent } of this.#agents) assert.equal(agent.waitingCount, 0, `${agent.options.name} has delivered`);
    });
    await eventually(30 * second, async () => {
      const [status] = (await server.agents()).server.scrapers;
      assert.equal(status?.backlogReports, 0);
    });
    record.check();
    for (const { agent } of this.#agents.slice(0, backCount)) {
      assert.ok(record.reportCount(agent.options.name) >= (3 * hour) / (10 * second), agent.options.name);
    }
    const expected = record.samples();
    const found = await this.#samples();
    const first = lacking(found, expected);
    if (sampleCount(first) > 0) {
      // What comes back had been stored: see prometheus-out-of-order.long.test.ts.
      await prometheus.stop('SIGTERM');
      await prometheus.start();
    }
    const isAssumed = this.#assumed();
    const excused = assertSameSamples(
      sampleCount(first) > 0 ? await this.#samples() : found,
      expected,
      `Prometheus, after ${this.#happened.join('; ')}`,
      isAssumed,
    );
    for (const line of excused > 0 ? [...this.#happened, ...this.#assumptions()] : []) this.#context.diagnostic(line);
    const back = sampleCount(first) - excused;
    this.#context.diagnostic(
      `${sampleCount(expected)} samples; ${back} were shown only after a restart of Prometheus, ${excused} were assumed to be there`,
    );
  }

  #samples(): Promise<Samples> {
    return this.prometheus.raw('{__name__=~"made_up_.*"}', '5h');
  }

  /** What the server says that it has assumed to be read: answers that were sent twice, up to a time. */
  #assumed(): (timeMs: number) => boolean {
    const untilMs = this.#assumptions().map((line) => Date.parse(/ up to (\S+), which/.exec(line)![1]!));
    return (timeMs) => timeMs <= Math.max(...untilMs);
  }

  #assumptions(): string[] {
    const { server } = this;
    return [...server.lines, ...server.run.lines].filter((line) =>
      /has not confirmed the reports of .* up to /.test(line),
    );
  }
}

/** The samples that are expected and not there. */
function lacking(actual: Samples, expected: Samples): Samples {
  const missing: Samples = new Map();
  for (const [series, points] of expected) {
    const got = actual.get(series);
    const left = new Map([...points].filter(([timeMs]) => got?.has(timeMs) !== true));
    if (left.size > 0) missing.set(series, left);
  }
  return missing;
}

const agentCount = 20;
const backCount = 5;
const faultsMs = 100 * second;
