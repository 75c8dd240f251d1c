import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { AgentsRecord, assertSameSamples, type Samples, sampleCount } from '../support/agents-record.ts';
import { AgentProgram, eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus } from '../support/prometheus.ts';
import { largestError, ratesOf } from '../support/prometheus-rate.ts';
import { Tap } from '../support/tap.ts';

export interface AgentOnLine {
  readonly program: AgentProgram;
  readonly line: Tap;
}

export interface ScraperOnLine {
  readonly name: string;
  readonly prometheus: Prometheus;
  readonly line: Tap;
}

export interface WorldOptions {
  /** The schedule of each agent, by its name. */
  readonly agents: Readonly<Record<string, string>>;
  /** The interval of each Prometheus, by its name. */
  readonly scrapers: Readonly<Record<string, string>>;
  readonly scrapeTimeout?: string;
}

/** The programs as they are shipped and real Prometheus servers, each on a line of its own that can be broken. */
export class World {
  readonly #context: TestContext;
  readonly record = new AgentsRecord();
  readonly server: ServerProgram;
  readonly agents: AgentOnLine[] = [];
  readonly scrapers: ScraperOnLine[] = [];

  private constructor(context: TestContext, server: ServerProgram) {
    this.#context = context;
    this.server = server;
  }

  static async start(context: TestContext, options: WorldOptions): Promise<World> {
    const world = new World(context, await ServerProgram.start(context));
    await Promise.all([
      ...Object.entries(options.agents).map(([name, schedule]) => world.#startAgent(name, schedule)),
      ...Object.entries(options.scrapers).map(([name, interval]) =>
        world.#startPrometheus(name, interval, options.scrapeTimeout ?? interval),
      ),
    ]);
    // From its first whole answer on acks wait for a scraper; what breaks before that is not promised to it.
    await eventually(60_000, async () => {
      const { server, agents } = await world.server.agents();
      const known = server.scrapers.filter((scraper) => scraper.known).map(({ scraper }) => scraper);
      assert.deepEqual(known.sort(), Object.keys(options.scrapers).sort(), 'the scrapers that are known');
      assert.deepEqual(agents.map(({ name }) => name).sort(), Object.keys(options.agents).sort());
    });
    return world;
  }

  async #startAgent(name: string, schedule: string): Promise<void> {
    const line = await Tap.open(this.#context, { to: this.server.port, watch: () => this.record.connection() });
    const program = await AgentProgram.start(this.#context, { name, port: line.port, schedule });
    this.agents.push({ program, line });
  }

  async #startPrometheus(name: string, scrapeInterval: string, scrapeTimeout: string): Promise<void> {
    const line = await Tap.open(this.#context, { to: this.server.webPort });
    const options = { target: line.port, scraper: name, scrapeInterval, scrapeTimeout };
    this.scrapers.push({ name, prometheus: await Prometheus.start(this.#context, options), line });
  }

  /**
   * The end of a scenario, with every line whole and every program running: agents deliver what they have and stop, each
   * Prometheus scrapes what is left. Then every sample that the agents sent has to be in each of them, and nothing else.
   * `mayAssume`: two faults in a row may have lost both answers in which a sample was given; the server logs what it assumes.
   */
  async settle({ mayAssume = false } = {}): Promise<void> {
    const { server, record } = this;
    await eventually(120_000, async () => {
      const { agents } = await server.agents();
      const connected = agents.filter((agent) => agent.connected).map(({ name }) => name);
      assert.deepEqual(connected, this.agents.map(({ program }) => program.name).sort(), 'the agents are back');
    });
    await Promise.all(this.agents.map((agent) => this.#stopAgent(agent)));
    await eventually(120_000, async () => {
      const { scrapers } = (await server.agents()).server;
      for (const { name } of this.scrapers) {
        const status = scrapers.find(({ scraper }) => scraper === name);
        assert.equal(status?.backlogReports, 0, `what scraper '${name}' has not had`);
      }
    });
    record.check();
    const expected = record.samples();
    const whole: ScraperOnLine[] = [];
    for (const scraper of this.scrapers) {
      const { name, prometheus } = scraper;
      const assumedMs = mayAssume ? this.#assumedMs(name) : [];
      const lacks = assertSameSamples(await prometheus.agentSamples(), expected, `Prometheus '${name}'`, (timeMs) =>
        assumedMs.some((untilMs) => timeMs <= untilMs && timeMs > untilMs - assumedSpanMs),
      );
      if (lacks === 0) whole.push(scraper);
      else this.note(`Prometheus '${name}': ${lacks} samples of answers that count as read are missing`);
    }
    const reports = record.agents.map((agent) => `${agent} ${record.reportCount(agent)}`).join(', ');
    this.note(`all ${sampleCount(expected)} samples in ${whole.length} Prometheus; reports: ${reports}`);
    this.note(`reports sent again: ${record.sentAgain}`);
    for (const { prometheus } of whole) await this.#compareRates(prometheus, expected);
    for (const { name, prometheus } of this.scrapers) {
      if (prometheus.warnings.length > 0) this.note(`Prometheus '${name}': ${prometheus.warnings.join('\n')}`);
    }
  }

  /**
   * Up to when the server has assumed, as it logs, that a scraper has what was sent to it twice and never confirmed. If both
   * answers were lost, as two faults in a row can do, these samples are missing.
   */
  #assumedMs(scraper: string): number[] {
    const { server } = this;
    const pattern = new RegExp(
      `scraper '${scraper}' has not confirmed the reports of .* up to (\\S+), which were sent`,
    );
    return [...server.lines, ...server.run.lines].flatMap((line) => {
      const match = pattern.exec(line);
      return match === null ? [] : [Date.parse(match[1]!)];
    });
  }

  /** A line for whoever reads the results. */
  note(text: string): void {
    this.#context.diagnostic(text);
  }

  async #stopAgent({ program }: AgentOnLine): Promise<void> {
    // The server may hold a connection for alive that the agent has left.
    await eventually(60_000, async () => {
      const { link } = await program.statusJson();
      assert.ok(link.state === 'connected' && link.unsentReports === 0, `${program.name} is ${JSON.stringify(link)}`);
    });
    const lastMs = await program.lastReportMs();
    assert.deepEqual(await program.kill('SIGTERM'), { code: 0, signal: null });
    const times = this.record.times(program.name);
    assert.ok(times.includes(lastMs), `agent '${program.name}' has not sent its report of ${lastMs}`);
  }

  /** `rate()` over history: of what Prometheus has, and of what the agents sent. */
  async #compareRates(prometheus: Prometheus, expected: Samples): Promise<void> {
    const times = this.record.agents.flatMap((agent) => this.record.times(agent));
    // Odd milliseconds, in which no sample was taken: whether one on the edge of a range counts changed with Prometheus 3.
    const edge = (ms: number) => Math.floor(ms / 1000) * 1000 + 777;
    const span = { fromMs: edge(Math.min(...times)), toMs: edge(Math.max(...times)), stepMs: 5000 };
    let compared = 0;
    let error = 0;
    for (const family of rateFamilies) {
      const rates = ratesOf(expected, family, { ...span, rangeMs: 60_000 });
      const found = await prometheus.range(`rate(${family}{agent!=""}[1m])`, span);
      error = Math.max(error, largestError(found, rates));
      compared += sampleCount(rates);
    }
    assert.ok(compared > 100, `only ${compared} rates were compared`);
    this.note(`rate() over history: ${compared} values, largest error ${(error * 100).toFixed(2)} % (${error})`);
    assert.ok(error < 1e-9, `the largest error of a rate over history is ${error}`);
  }
}

// What two scrapes in a row have of reports, with the backlog of the longest fault between.
const assumedSpanMs = 60_000;

// The last one begins again with each start of its agent.
const rateFamilies = [
  'node_cpu_seconds_total',
  'node_context_switches_total',
  'node_network_receive_bytes_total',
  'sysmon_agent_reports_sampled_total',
];
