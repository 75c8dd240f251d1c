import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { AgentsRecord, type Samples, sampleCount } from '../support/agents-record.ts';
import { AgentProgram, eventually, ServerProgram } from '../support/programs.ts';
import { Tap } from '../support/tap.ts';
import type { AgentOnLine } from './world.ts';

/** What stores samples, whatever it scrapes with: a Prometheus, or VictoriaMetrics. */
export interface Database {
  values(query: string): Promise<number[]>;
  agentSamples(): Promise<Samples>;
}

const few = new Set(['cpu', 'loadavg', 'stat', 'time', 'uname']);

/** For an agent of some 80 series on any host: limits of jobs in the tests are by these. */
export const leanAgent = collectorRows
  .filter(({ name, enabled }) => enabled === 'by default' && !few.has(name))
  .flatMap(({ name }) => ['--disable', name]);

export interface ScrapeWorldOptions {
  /** More options of each agent, by its name. */
  readonly agents: Readonly<Record<string, readonly string[]>>;
  readonly server?: readonly string[];
  readonly scrapeSeconds: number;
  /** How long after a scrape the database may not show it yet. */
  readonly showsAfterSeconds?: number;
}

/** What became of the samples. */
export interface Outcome {
  readonly made: number;
  /** Times of samples that are not stored. */
  readonly missingMs: readonly number[];
}

/**
 * A server, agents that report each second over lines that can be cut, and somebody who scrapes in whatever way: what is
 * stored in the end is held against what the agents have sent. Meanwhile it looks whether new data flow while `up` is 1.
 */
export class ScrapeWorld {
  readonly record = new AgentsRecord();
  readonly server: ServerProgram;
  readonly agents: AgentOnLine[] = [];
  readonly #context: TestContext;
  readonly #scrapeSeconds: number;
  readonly #showsAfterSeconds: number;
  /** Until then, on the monotonic clock, new data need not flow. */
  #disturbedUntilMs = 0;
  readonly #blackouts: string[] = [];
  #looks = 0;
  #watched: readonly string[] = [];
  readonly #ended = new AbortController();

  private constructor(context: TestContext, server: ServerProgram, options: ScrapeWorldOptions) {
    this.#context = context;
    this.server = server;
    this.#scrapeSeconds = options.scrapeSeconds;
    this.#showsAfterSeconds = options.showsAfterSeconds ?? 0;
  }

  static async start(context: TestContext, options: ScrapeWorldOptions): Promise<ScrapeWorld> {
    const server = await ServerProgram.start(context, options.server);
    const world = new ScrapeWorld(context, server, options);
    await Promise.all(Object.entries(options.agents).map(([name, flags]) => world.startAgent(name, flags)));
    return world;
  }

  async startAgent(name: string, flags: readonly string[]): Promise<AgentOnLine> {
    const line = await Tap.open(this.#context, { to: this.server.port, watch: () => this.record.connection() });
    const program = await AgentProgram.start(this.#context, {
      ...{ name, port: line.port, schedule: '1s' },
      flags,
    });
    const agent = { program, line };
    this.agents.push(agent);
    return agent;
  }

  /** Waits until something is stored of each agent. From then on it looks whether new data of these flow. */
  async begin(database: Database): Promise<void> {
    await eventually(60_000, async () => {
      for (const { program } of this.agents) {
        const [count = 0] = await database.values(`count_over_time(node_time_seconds{agent="${program.name}"}[1m])`);
        assert.ok(count >= 2, `${count} reports of '${program.name}' are stored`);
      }
    });
    this.#watched = this.agents.map(({ program }) => program.name);
    this.#disturbedUntilMs = performance.now();
    const watch = this.#watch(database);
    this.#context.after(() => {
      this.#ended.abort();
      return watch;
    });
  }

  /** Something breaks, and is whole again when `fault` resolves. The next few scrapes may be late. */
  async disturb(fault: () => Promise<void>): Promise<void> {
    this.#disturbedUntilMs = Infinity;
    await fault();
    // What the last few scrapes have given may not be confirmed yet.
    await this.#allIsGiven(4 * this.#scrapeSeconds * this.agents.length);
    this.#disturbedUntilMs = performance.now() + 2 * this.#scrapeSeconds * 1000;
    await sleep(2 * this.#scrapeSeconds * 1000);
  }

  /** A fault by which a scraper may lose what was given to it shortly before, and meanwhile. */
  async mayLose(fault: () => Promise<void>, fromMs = Date.now() - 2 * this.#scrapeSeconds * 1000): Promise<void> {
    await this.disturb(fault);
    this.#lossy.push([fromMs, Date.now()]);
  }
  readonly #lossy: (readonly [fromMs: number, toMs: number])[] = [];

  /** Only faults that may lose something have lost it. */
  assertOfLossy(missingMs: readonly number[]): void {
    const others = missingMs.filter((ms) => !this.#lossy.some(([fromMs, toMs]) => fromMs <= ms && ms <= toMs));
    const time = (ms: number) => new Date(ms).toISOString();
    const faults = this.#lossy.map(([fromMs, toMs]) => `${time(fromMs)} to ${time(toMs)}`).join(', ');
    assert.deepEqual(
      [...new Set(others)].sort().map(time),
      [],
      `samples are missing that no fault explains: ${faults}`,
    );
  }

  /** Every agent's line is down for a while, so that a backlog comes. */
  cutAgents(seconds: number): Promise<void> {
    return this.disturb(async () => {
      for (const { line } of this.agents) line.down();
      await sleep(seconds * 1000);
      for (const { line } of this.agents) line.up();
      await this.#agentsAreBack();
    });
  }

  killServer(): Promise<void> {
    return this.disturb(async () => {
      await this.server.kill('SIGKILL');
      await sleep(500);
      await this.server.start();
      await this.#agentsAreBack();
    });
  }

  /** Agents deliver what they have, and stop; the rest is scraped; then what is stored is compared. Nothing may be wrong. */
  async settle(database: Database): Promise<Outcome> {
    this.#disturbedUntilMs = Infinity;
    await this.#agentsAreBack();
    for (const { program } of this.agents) {
      assert.deepEqual(await program.kill('SIGTERM'), { code: 0, signal: null });
    }
    this.record.check();
    const expected = this.record.samples();
    await this.#allIsGiven(0);
    // Some scrapes more: what is given again, and what a remote write takes.
    let outcome = compared(await database.agentSamples(), expected);
    for (let scrapes = 0; scrapes < 4 + this.#showsAfterSeconds && outcome.missingMs.length > 0; scrapes++) {
      await sleep(this.#scrapeSeconds * 1000);
      outcome = compared(await database.agentSamples(), expected);
    }
    this.note(`${outcome.missingMs.length} of ${outcome.made} samples are missing`);
    assert.ok(this.#looks > 1, `only ${this.#looks} looks at what is stored while up was 1`);
    assert.deepEqual(this.#blackouts, [], 'new data flow whenever up is 1');
    return outcome;
  }

  note(text: string): void {
    this.#context.diagnostic(text);
  }

  /** What the server has logged, in all its runs. */
  get serverLines(): string[] {
    return [...this.server.lines, ...this.server.run.lines];
  }

  /** No scraper lacks more than so many reports. */
  async #allIsGiven(reportsMax: number): Promise<void> {
    await eventually(150_000, async () => {
      const { scrapers } = (await this.server.agents()).server;
      const lack = scrapers.filter(({ backlogReports }) => backlogReports > reportsMax);
      const text = () => `${JSON.stringify(scrapers)}\n${this.serverLines.slice(-20).join('\n')}`;
      assert.ok(scrapers.length > 0 && lack.length === 0, `has everything been given? ${text()}`);
    });
  }

  async #agentsAreBack(): Promise<void> {
    await eventually(60_000, async () => {
      const { agents } = await this.server.agents();
      const connected = agents.filter((agent) => agent.connected).map(({ name }) => name);
      assert.deepEqual(connected.sort(), this.agents.map(({ program }) => program.name).sort(), 'the agents are back');
    });
  }

  /** Each second, until the end of the test. */
  async #watch(database: Database): Promise<void> {
    const { signal } = this.#ended;
    const isCalm = () => !signal.aborted && performance.now() > this.#disturbedUntilMs;
    while (!signal.aborted) {
      await sleep(1000, undefined, { signal }).catch(() => {}); // it is over
      try {
        if (isCalm()) this.#look(await this.#newestSeconds(database), isCalm());
      } catch (error) {
        // Something was broken in the middle of it.
        if (isCalm()) throw error;
      }
    }
  }

  /** When the newest stored report of each agent was made; none where a scrape has failed of late. */
  async #newestSeconds(database: Database): Promise<ReadonlyMap<string, number>> {
    const newest = new Map<string, number>();
    const ups = await database.values(`min_over_time(up{job="sysmon"}[${3 * this.#scrapeSeconds}s])`);
    if (ups.length === 0 || ups.some((up) => up !== 1)) return newest;
    for (const agent of this.#watched) {
      const query = `max(last_over_time(node_time_seconds{agent="${agent}"}[10m]))`;
      newest.set(agent, (await database.values(query))[0] ?? 0);
    }
    return newest;
  }

  #look(newest: ReadonlyMap<string, number>, isCalm: boolean): void {
    if (!isCalm) return;
    // Each report is made within a second; one scrape of them may have been lost.
    const lateSeconds = 3 * this.#scrapeSeconds + 2 + this.#showsAfterSeconds;
    for (const [agent, seconds] of newest) {
      this.#looks++;
      const age = Date.now() / 1000 - seconds;
      if (age > lateSeconds)
        this.#blackouts.push(`up is 1, and the newest report of '${agent}' is ${age.toFixed(1)} s old`);
    }
  }
}

/** Throws where something is stored that nobody has sent. */
function compared(actual: Samples, expected: Samples): Outcome {
  const missingMs: number[] = [];
  const wrong: string[] = [];
  for (const [series, points] of expected) {
    for (const [timeMs, value] of points) {
      const found = actual.get(series)?.get(timeMs);
      if (found === undefined) missingMs.push(timeMs);
      // VictoriaMetrics keeps 15 digits or so.
      else if (Math.abs(found - value) > Math.abs(value) * 1e-12)
        wrong.push(`${series} at ${timeMs}: ${found}, not ${value}`);
    }
  }
  for (const [series, points] of actual) {
    for (const timeMs of points.keys()) {
      if (expected.get(series)?.has(timeMs) !== true) wrong.push(`${series} at ${timeMs}: of no agent`);
    }
  }
  assert.deepEqual(wrong.slice(0, 10), [], `${wrong.length} samples are stored that no agent has sent`);
  return { made: sampleCount(expected), missingMs };
}
