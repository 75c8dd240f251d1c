import type { Log } from '../../src/runtime/log.ts';
import type { ReceivedReport } from '../../src/server/delivery/store.ts';
import { Random } from '../support/random.ts';
import { AgentNode, nameOf } from './agent-node.ts';
import { isFarOff, judge } from './judge.ts';
import type { Process } from './machine.ts';
import type { Line } from './network.ts';
import { type Fault, makePlan, type Plan } from './plan.ts';
import type { ParsedSample, Refusal } from './prometheus-model.ts';
import { type Scrape, ScraperNode } from './scraper-node.ts';
import { ServerNode } from './server-node.ts';
import { Timeline } from './timeline.ts';

export interface Outcome {
  readonly seed: number;
  /** Why it lies beyond the stated bounds; empty: within them. */
  readonly beyond: readonly string[];
  /** What must never happen. */
  readonly violations: readonly string[];
  readonly reports: number;
  /** Reports that some Prometheus lacks, by what explains it. */
  readonly missing: ReadonlyMap<string, number>;
  readonly counts: Readonly<Record<string, number>>;
  /** Stands for all that happened: the same for the same seed. */
  readonly traceHash: string;
  readonly events: number;
}

export interface WorldOptions {
  readonly seed: number;
  /** Called with each line of the trace. */
  readonly onTrace?: (line: string) => void;
  /** Called with each scrape that a database was given something of, in their order: for who wants to give it again. */
  readonly onScrape?: (scrape: Scrape) => void;
  /** Instead of the seed's own plan. */
  readonly plan?: Plan;
}

/** One history: agents, a server, one or two Prometheus, the lines between them, and what goes wrong. */
export class World {
  readonly plan: Plan;
  readonly timeline = new Timeline();
  readonly agents: readonly AgentNode[];
  readonly server: ServerNode;
  readonly scrapers: readonly ScraperNode[];
  readonly onScrape: ((scrape: Scrape) => void) | undefined;
  readonly #onTrace: ((line: string) => void) | undefined;
  readonly #beyond = new Set<string>();
  readonly #violations: string[] = [];
  readonly #parsing: Random;
  readonly #byName: ReadonlyMap<string, AgentNode>;
  #hash = 0;
  readonly #stateWrites: number[] = [];
  readonly #serverEnds: number[] = [];
  readonly ends = new Map<string, number>();
  /** What a Prometheus has refused, by series and time. */
  readonly #refusals = new Map<ScraperNode, Map<string, string>>();

  constructor({ seed, onTrace, onScrape, plan = makePlan(seed) }: WorldOptions) {
    this.plan = plan;
    this.onScrape = onScrape;
    this.#onTrace = onTrace;
    this.#parsing = this.random('parsing');
    this.server = new ServerNode(this, plan.server);
    this.agents = plan.agents.map((agent) => new AgentNode(this, agent));
    this.scrapers = plan.scrapers.map((scraper) => new ScraperNode(this, scraper));
    this.#byName = new Map(this.agents.map((agent) => [agent.plan.name, agent]));
  }

  get lines(): readonly Line[] {
    return [...this.agents, ...this.scrapers].map(({ line }) => line);
  }

  get stateWrites(): readonly number[] {
    return this.#stateWrites;
  }

  get serverEnds(): readonly number[] {
    return this.#serverEnds;
  }

  random(name: string): Random {
    return new Random(`${this.plan.seed} ${name}`);
  }

  async run(): Promise<Outcome> {
    const { timeline, plan } = this;
    const crash = (error: unknown) => this.violated(`a promise was rejected and nobody looked: ${stackOf(error)}`);
    process.on('unhandledRejection', crash);
    try {
      this.#describe();
      timeline.at(plan.startMs.server, () => this.server.start());
      for (const [at, agent] of this.agents.entries()) timeline.at(plan.startMs.agents[at]!, () => agent.start());
      for (const [at, scraper] of this.scrapers.entries()) {
        timeline.at(plan.startMs.scrapers[at]!, () => scraper.start());
      }
      for (const fault of plan.faults) timeline.at(fault.atMs, () => this.#happen(fault));
      timeline.at(plan.historyMs, () => this.#putRight());
      timeline.at(plan.historyMs + lastSamplesMs, () => {
        for (const agent of this.agents) agent.stopSampling();
      });
      const endMs = plan.historyMs + lastSamplesMs;
      const isHopeless = () => this.#violations.length >= violationsMax;
      await timeline.run(endMs + settleMsMin, isHopeless);
      const isOver = () => isHopeless() || this.agents.every(({ spool }) => spool?.waitingCount === 0);
      await timeline.run(endMs + settleMsMax, isOver);
    } catch (error) {
      this.violated(stackOf(error));
    } finally {
      process.off('unhandledRejection', crash);
    }
    const { missing, counts } = judge(this);
    return {
      ...{ seed: plan.seed, beyond: [...this.#beyond], violations: this.#violations, missing, counts },
      reports: this.agents.reduce((sum, { reports }) => sum + reports.length, 0),
      traceHash: (this.#hash >>> 0).toString(16).padStart(8, '0'),
      events: timeline.events,
    };
  }

  trace(line: string): void {
    const text = `${(this.timeline.nowMs / 1000).toFixed(3)} ${line}`;
    for (let at = 0; at < text.length; at++) this.#hash = Math.imul(this.#hash ^ text.charCodeAt(at), 16777619);
    this.#onTrace?.(text);
  }

  logOf({ name }: Process): Log {
    const at = (level: string) => (text: string) => this.trace(`${name} ${level}: ${text}`);
    return { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') };
  }

  /** What an agent measures of the server's clock may change: it is set in this history, or answers are slow. */
  get isClockUnsure(): boolean {
    return this.plan.faults.some(({ kind }) => /server clock|line (?:slow|cut|narrow)|paused|power/.test(kind));
  }

  get isWithin(): boolean {
    return this.#beyond.size === 0;
  }

  /** This history is outside of what is promised. */
  beyond(why: string): void {
    if (!this.#beyond.has(why)) this.trace(`BEYOND ${why}`);
    this.#beyond.add(why);
  }

  violated(what: string): void {
    this.trace(`VIOLATION ${what}`);
    if (this.#violations.length < violationsMax) this.#violations.push(what);
  }

  crashed(process: Process, error: unknown): void {
    this.violated(`${process.name} has crashed: ${stackOf(error)}`);
  }

  parseMs(): number {
    return this.#parsing.between(1, this.#parsing.chance(0.1) ? 500 : 20);
  }

  ended(reason: string): void {
    this.ends.set(reason, (this.ends.get(reason) ?? 0) + 1);
  }

  stateWritten(composedMs: number): void {
    this.#stateWrites.push(composedMs);
  }

  serverEnded(): void {
    this.#serverEnds.push(this.timeline.nowMs);
  }

  /** A report has reached the server, perhaps again. */
  received(agentName: string, report: ReceivedReport, outcome: string): void {
    const agent = this.#byName.get(agentName);
    const sampled = agent?.report(report.epoch, report.seq);
    if (sampled === undefined) {
      this.violated(`report ${report.seq} of epoch ${report.epoch} came as one of '${agentName}', which never made it`);
      return;
    }
    const { nowMs } = this.timeline;
    if (sampled.serverMs !== undefined && sampled.serverMs !== report.timeMs) {
      // One that was too far ahead was refused, so that the agent measures again: to some milliseconds.
      if (!this.isClockUnsure && sampled.outcome !== 'too_far_ahead') {
        this.violated(`report ${nameOf(sampled)} came with time ${sampled.serverMs}, and again with ${report.timeMs}`);
      }
    }
    sampled.serverMs = report.timeMs;
    sampled.receivedMs ??= nowMs;
    if (outcome === 'duplicate') return;
    sampled.outcome = outcome;
    if (outcome === 'stored') sampled.stored.push({ serverMs: report.timeMs, atMs: nowMs, run: sampled.agent.runs });
    else sampled.refusedAs ??= outcome;
  }

  /** Prometheus has stored an answer. */
  stored(answerId: number): void {
    const answer = this.server.answers[answerId];
    if (answer !== undefined) answer.storedMs ??= this.timeline.nowMs;
  }

  refusedWhole(answerId: number): void {
    const answer = this.server.answers[answerId];
    if (answer !== undefined) answer.isRefusedWhole = true;
  }

  refusedBySize(answerId: number): void {
    const answer = this.server.answers[answerId];
    if (answer !== undefined) answer.isRefusedBySize = true;
  }

  refused(scraper: ScraperNode, reason: Refusal['reason'], sample: Refusal['sample']): void {
    const refusals = this.#refusals.get(scraper) ?? new Map<string, string>();
    this.#refusals.set(scraper, refusals);
    refusals.set(`${sample.series} ${sample.timeMs}`, reason);
    const stored = scraper.database.series.get(sample.series)?.samples.get(sample.timeMs);
    if (reason === 'duplicate' || (stored !== undefined && !Object.is(stored, sample.value))) {
      this.violated(`${scraper.plan.name} is given another value for ${sample.series} at ${sample.timeMs}`);
    }
  }

  refusalOf(scraper: ScraperNode, series: string, timeMs: number): string | undefined {
    return this.#refusals.get(scraper)?.get(`${series} ${timeMs}`);
  }

  /** Each series' times rise in a body, and only `up` has none. */
  checkBody(scraper: ScraperNode, samples: readonly ParsedSample[]): void {
    const newest = new Map<string, number>();
    const isStateless = scraper.plan.kind.kind === 'keeps the first';
    for (const { series, timeMs } of samples) {
      if (isStateless && timeMs !== undefined) {
        this.violated(`${scraper.plan.name} is given ${series} with a time, of which it keeps the first`);
      }
      if (timeMs === undefined && isStateless) {
        if (newest.has(series)) this.violated(`${scraper.plan.name} is given ${series} twice`);
        newest.set(series, 0);
        continue;
      }
      if (timeMs === undefined) {
        if (series.startsWith('sysmon_')) continue;
        // A probe shows that its database refuses all times.
        if (scraper.plan.receipts !== undefined && isFarOff(this)) scraper.hasNewest = true;
        else this.violated(`${scraper.plan.name} is given ${series} without a time`);
        continue;
      }
      if (timeMs <= (newest.get(series) ?? Number.NEGATIVE_INFINITY)) {
        this.violated(`${scraper.plan.name} is given ${series} at ${timeMs} after ${newest.get(series)}`);
      }
      newest.set(series, timeMs);
    }
  }

  #describe(): void {
    const { agents, server, scrapers, faults } = this.plan;
    this.trace(`server ${JSON.stringify(server)}`);
    for (const agent of agents) this.trace(`agent ${JSON.stringify(agent)}`);
    for (const scraper of scrapers) this.trace(`scraper ${JSON.stringify(scraper)}`);
    for (const fault of faults) this.trace(`fault ${JSON.stringify(fault)}`);
  }

  #happen(fault: Fault): void {
    const { atMs, forMs, kind, which, size } = fault;
    const agent = this.agents[which % this.agents.length]!;
    const scraper = this.scrapers[which % this.scrapers.length]!;
    this.trace(`FAULT ${kind}${kind.startsWith('server') ? '' : ` ${which + 1}`}, for ${forMs} ms, size ${size}`);
    const later = (undo: () => void) => this.timeline.at(atMs + forMs, undo);
    const { server } = this;
    switch (kind) {
      case 'agent line cut':
      case 'scraper line cut': {
        const { line } = kind === 'agent line cut' ? agent : scraper;
        line.cut();
        return void later(() => line.heal());
      }
      case 'agent line reset':
        return agent.line.reset();
      case 'scraper line reset':
        return scraper.line.reset();
      case 'agent line slow':
      case 'scraper line slow': {
        const { line } = kind === 'agent line slow' ? agent : scraper;
        line.latencyMs = [size / 2, size];
        return void later(() => line.restore());
      }
      case 'agent line narrow':
      case 'scraper line narrow': {
        const { line } = kind === 'agent line narrow' ? agent : scraper;
        line.bufferBytes = size;
        return void later(() => line.restore());
      }
      case 'server killed':
        server.kill();
        return void later(() => server.start());
      case 'server loses its state':
        server.kill();
        server.volume.lose();
        return void later(() => server.start());
      case 'server stopped':
        server.stop();
        return void later(() => this.#startSoon(server));
      case 'server paused':
        return this.#pause(server.process, later);
      case 'server without power':
        server.cutPower();
        return void later(() => server.boot());
      case 'server disk broken':
        server.volume.isBroken = true;
        return void later(() => {
          server.volume.isBroken = false;
        });
      case 'server clock':
        return server.host.setClock(this.timeline.nowMs, size);
      case 'agent killed':
        agent.kill();
        return void later(() => agent.start());
      case 'agent stopped':
        agent.stop();
        return void later(() => this.#startSoon(agent));
      case 'agent paused':
        return this.#pause(agent.process, later);
      case 'agent without power':
        agent.cutPower();
        return void later(() => agent.boot());
      case 'agent disk full':
        agent.volume.fault(this.timeline.nowMs, { roomBytes: size });
        return void later(() => agent.volume.heal(this.timeline.nowMs));
      case 'agent disk broken':
      case 'agent disk stalled':
        agent.volume.fault(this.timeline.nowMs, kind === 'agent disk broken' ? 'broken' : 'stalled');
        return void later(() => agent.volume.heal(this.timeline.nowMs));
      case 'agent address dead':
        agent.killAddress();
        return void later(() => agent.healAddress());
      case 'agent trips a bug':
        server.bugs.set(agent.plan.name, size);
        return;
      case 'agent clock':
        return agent.host.setClock(this.timeline.nowMs, size);
      case 'scraper killed':
        scraper.kill();
        return void later(() => scraper.start());
      case 'scraper paused':
        return this.#pause(scraper.process, later);
      case 'scraper discards':
        scraper.discards++;
        return;
      case 'scraper cuts':
        scraper.cuts++;
        return;
    }
  }

  #pause(process: Process | undefined, later: (undo: () => void) => unknown): void {
    if (process === undefined) return;
    process.stop();
    later(() => process.resume());
  }

  /** One that is still stopping is started when it has ended. */
  #startSoon(node: { readonly isRunning: boolean; start(): void }): void {
    if (node.isRunning) this.timeline.after(500, () => this.#startSoon(node));
    else node.start();
  }

  /** Nothing is wrong any more. What was stopping ends, and everything that is not there is started. */
  #putRight(): void {
    this.trace('everything is put right');
    const { server, agents, scrapers, lines } = this;
    for (const line of lines) {
      line.restore();
      line.heal();
    }
    server.volume.isBroken = false;
    server.bugs.clear();
    for (const agent of agents) {
      agent.volume.heal(this.timeline.nowMs);
      agent.healAddress();
      agent.process?.resume();
      if (!agent.host.isUp) agent.boot();
      this.#startAfterAll(agent);
    }
    for (const scraper of scrapers) {
      scraper.discards = 0;
      scraper.cuts = 0;
      scraper.process?.resume();
      scraper.start();
    }
    server.process?.resume();
    if (!server.host.isUp) server.boot();
    this.#startAfterAll(server);
  }

  /** It may be stopping at this moment, and it may be started by a fault's end too: whoever comes first. */
  #startAfterAll(node: { readonly isRunning: boolean; start(): void }): void {
    for (let ms = 0; ms < startWithinMs; ms += 1000) {
      this.timeline.after(ms, () => {
        if (!node.isRunning) node.start();
      });
    }
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const violationsMax = 10;
// The longest interval, and what a stopping program takes.
const lastSamplesMs = 20_000;
// A few scrapes, also of the Prometheus that nobody waits for yet.
const settleMsMin = 60_000;
// Silence, backoff, a retransmission's minute; and a connection of a scraper whose FIN was lost, which the server
// keeps for 310 s, and its cursor until then.
const settleMsMax = 420_000;
const startWithinMs = 15_000;
