import type { Clock } from '../../src/runtime/clock.ts';
import {
  DatabaseError,
  type ScraperDatabase,
  type StoredAnswers,
  type StoredQuestion,
} from '../../src/server/delivery/receipts.ts';
import { Host, Process } from './machine.ts';
import { dialVirtual, Line, type VirtualSocket } from './network.ts';
import { type ParsedSample, PrometheusModel, parseExposition, type Refusal } from './prometheus-model.ts';
import type { ServerNode } from './server-node.ts';
import type { Surroundings } from './surroundings.ts';
import type { Request } from './web-node.ts';

interface World extends Surroundings {
  readonly server: ServerNode;
  readonly onScrape: ((scrape: Scrape) => void) | undefined;
  checkBody(scraper: ScraperNode, samples: readonly ParsedSample[]): void;
  /** How long Prometheus takes to parse an answer. */
  parseMs(): number;
  stored(answerId: number): void;
  refusedWhole(answerId: number): void;
  /** A limit of its job: nothing of an answer is stored. */
  refusedBySize(answerId: number): void;
  refused(scraper: ScraperNode, reason: Refusal['reason'], sample: Refusal['sample']): void;
}

export interface ScraperPlan {
  /** Of the Prometheus; two may send the same `scraper=`. */
  readonly name: string;
  readonly scraper: string;
  /** Two may come from one, through a network that hides them. */
  readonly address: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly outOfOrderMs: number;
  readonly wallAheadMs: number;
  readonly samplesMax: number | undefined;
  /** Something on the way, or the scraper itself, ends a connection that has rested for so long. */
  readonly idle: { readonly afterMs: number; readonly by: 'close' | 'reset' } | undefined;
  /** A job for each: an agent's name, or "" for all. */
  readonly selections: readonly string[];
  readonly kind: ScraperKind;
  /** The server asks its database: how long that takes, and how often nothing comes back. */
  readonly receipts: { readonly latencyMs: readonly [number, number]; readonly lostShare: number } | undefined;
}

export type ScraperKind =
  /** It stores what it reads. */
  | { readonly kind: 'direct' }
  /** A proxy between it and the server reads answers that it has given up; `isSeen`: it says so in a header. */
  | { readonly kind: 'behind a proxy'; readonly isSeen: boolean }
  /** It reads an answer of more samples, stores nothing of it, and keeps the connection: a limit of its job. */
  | { readonly kind: 'refuses by size'; readonly samplesMax: number }
  /** Prometheus 2.53.0: of an answer it keeps the first sample of each series. */
  | { readonly kind: 'keeps the first' };

/** The number of an answer that is stored: of which series, and with which series of a probe. */
interface StoredNumber {
  readonly series: string;
  readonly atMs: number;
  readonly probe: string | undefined;
}

/** What a database was given of one scrape. The times are of the clock of its Prometheus, see `PrometheusModel`. */
export interface Scrape {
  readonly scraper: ScraperPlan;
  readonly atMs: number;
  readonly nowMs: number;
  /** Undefined where the scrape failed. */
  readonly body: string | undefined;
}

/** A Prometheus and its host. Its database survives whatever happens to it. */
export class ScraperNode {
  readonly plan: ScraperPlan;
  readonly host: Host;
  readonly line: Line;
  readonly database: PrometheusModel;
  readonly #world: World;
  readonly #jobs: readonly Job[];
  #process: Process | undefined;
  #runs = 0;
  #rests = 0;
  readonly #restingSince = new WeakMap<VirtualSocket, number>();
  /** The next answer is read whole and then thrown away, its connection closed. */
  discards = 0;
  /** The next answer is stored, and then its connection is cut. */
  cuts = 0;
  readonly #proxy: HttpProxy | undefined;
  /** What its database can be asked for: the numbers of answers, by its own clock. */
  readonly #numbers: (StoredNumber & { readonly number: number })[] = [];
  /** It was given newest values without times, for its database keeps none: its clock and the server's are far apart. */
  hasNewest = false;
  /** Of each selection, what its last scrape has failed with. */
  readonly #lastErrors = new Map<string, string>();
  /** Connections that rest, the one that was used last at the end: as Go keeps them, any job takes any. */
  #resting: VirtualSocket[] = [];
  scrapes = 0;
  failures = 0;
  /** Refused one by one, by reason. */
  readonly refused = new Map<string, number>();

  constructor(world: World, plan: ScraperPlan) {
    this.#world = world;
    this.plan = plan;
    this.host = new Host(plan.name, plan);
    this.line = new Line(`${plan.name}—server`, world.timeline, world.random(`line ${plan.name}`));
    this.database = new PrometheusModel(plan.outOfOrderMs);
    this.#proxy = plan.kind.kind === 'behind a proxy' ? new HttpProxy(world, this) : undefined;
    this.#jobs = plan.selections.map((selection) => new Job(world, this, selection));
  }

  get isRunning(): boolean {
    return this.#process?.isAlive === true;
  }

  get process(): Process | undefined {
    return this.isRunning ? this.#process : undefined;
  }

  start(): void {
    if (this.isRunning) return;
    const { timeline } = this.#world;
    const random = this.#world.random(`${this.plan.name} ${++this.#runs}`);
    const process = new Process(`${this.plan.name}.${this.#runs}`, this.host, timeline, random);
    this.#process = process;
    this.#resting = [];
    this.#world.trace(`${process.name}: starts`);
    for (const job of this.#jobs) job.run(process, random.between(0, this.plan.intervalMs));
  }

  /** SIGTERM or SIGKILL: to the server the same, its connections close. */
  kill(): void {
    if (!this.isRunning) return;
    this.#world.trace(`${this.#process!.name}: ends`);
    this.#process!.kill();
  }

  get proxy(): HttpProxy | undefined {
    return this.#proxy;
  }

  /** What a scrape came to; undefined: it was stored. */
  scraped(selection: string, error: string | undefined): void {
    if (error === undefined) this.#lastErrors.delete(selection);
    else this.#lastErrors.set(selection, error);
  }

  /** Of a scrape that is stored: the number of the answer, and the series of its probe. */
  storedNumber(number: number, stored: StoredNumber): void {
    this.#numbers.push({ ...stored, number });
  }

  /** Its query API, asked by this process. */
  databaseFor(process: Process): ScraperDatabase | undefined {
    const { receipts, name } = this.plan;
    if (receipts === undefined) return undefined;
    const random = this.#world.random(`database ${process.name} ${name}`);
    const { clock } = process;
    const asked = async () => {
      await clock.sleep(random.between(...receipts.latencyMs));
      const isLost = random.chance(receipts.lostShare);
      // Nobody listens, or nobody answers.
      if (this.isRunning && (isLost || this.line.isCut || this.#process!.isStopped)) await clock.sleep(askMsMax);
      if (isLost || !this.isRunning || this.line.isCut || this.#process!.isStopped) {
        throw new DatabaseError('unreachable', 'simulation: no answer');
      }
    };
    return {
      url: `http://${name}`,
      ask: async ({ serverId, backMs }: StoredQuestion): Promise<StoredAnswers> => {
        await asked();
        const sinceMs = this.#process!.clock.nowMs() - backMs;
        const isOwn = (series: string) => series.includes(`["server_id",${JSON.stringify(serverId)}]`);
        const shown = this.#numbers.filter(({ atMs, series }) => atMs >= sinceMs && isOwn(series));
        const timesOf = (series: string | undefined) => this.database.series.get(series ?? '')?.samples.keys() ?? [];
        return {
          numbers: new Set(shown.map(({ number }) => number)),
          probes: new Map(shown.map(({ number, probe }) => [number, new Set(timesOf(probe))])),
          ...{ program: 'Prometheus', version: '3.5.0', showsAfterMs: 0 },
        };
      },
      lastError: async (_scraper, selection) => {
        try {
          await asked();
        } catch {
          // Never rejects.
          return undefined;
        }
        return this.#lastErrors.get(selection);
      },
      stop() {},
    };
  }

  /** A connection to use again. */
  takeResting(): VirtualSocket | undefined {
    for (;;) {
      const socket = this.#resting.pop();
      if (socket === undefined || !socket.isOver) return socket;
    }
  }

  rest(socket: VirtualSocket): void {
    this.#resting.push(socket);
    const { idle } = this.plan;
    if (idle === undefined) return;
    const restingSince = ++this.#rests;
    this.#restingSince.set(socket, restingSince);
    this.#process!.clock.after(idle.afterMs, () => {
      const at = this.#resting.indexOf(socket);
      if (at < 0 || this.#restingSince.get(socket) !== restingSince) return;
      this.#resting.splice(at, 1);
      if (idle.by === 'close') socket.destroy();
      else socket.breakOff();
    });
  }

  dial(process: Process): Promise<VirtualSocket> {
    const { server } = this.#world;
    return dialVirtual({
      ...{ from: process, line: this.line, to: server.host, ports: server.ports, port: 'http' },
      timeoutMs: this.plan.timeoutMs,
    });
  }

  /** The job that scrapes this agent, and what the server knows it by. */
  keyFor(agent: string): string | undefined {
    const { selections, scraper } = this.plan;
    const selection = selections.find((each) => each === '' || each === agent);
    return selection === undefined ? undefined : JSON.stringify([scraper, selection]);
  }
}

/** One target of a Prometheus: a scrape each interval. */
class Job {
  readonly #world: World;
  readonly #node: ScraperNode;
  readonly #selection: string;

  constructor(world: World, node: ScraperNode, selection: string) {
    this.#world = world;
    this.#node = node;
    this.#selection = selection;
  }

  run(process: Process, offsetMs: number): void {
    const { intervalMs } = this.#node.plan;
    const { clock } = process;
    let dueMs = clock.monotonicMs() + offsetMs;
    const tick = async () => {
      await this.#scrape(process).catch((error: unknown) => this.#world.crashed(process, error));
      // Ticks that a scrape took, or that were slept through, are lost.
      while (dueMs <= clock.monotonicMs()) dueMs += intervalMs;
      clock.after(dueMs - clock.monotonicMs(), tick);
    };
    clock.after(offsetMs, tick);
  }

  async #scrape(process: Process): Promise<void> {
    const node = this.#node;
    const world = this.#world;
    const { timeoutMs } = node.plan;
    const { clock } = process;
    const atMs = clock.nowMs();
    node.scrapes++;
    const response = await this.#exchange(process, timeoutMs);
    if (typeof response === 'string') {
      node.failures++;
      this.#failed(atMs, response);
      world.trace(`${process.name}: a scrape fails: ${response}`);
      return;
    }
    if (node.discards > 0) {
      node.discards--;
      response.socket.destroy();
      this.#failed(atMs, 'thrown away');
      world.trace(`${process.name}: answer ${response.id} is thrown away`);
      return;
    }
    // Parsing takes its time, and what is not in the database by the end of a process never will be.
    await clock.sleep(world.parseMs());
    if (!process.isAlive) return;
    if (node.cuts > 0) {
      node.cuts--;
      response.socket.breakOff();
    } else if (node.proxy === undefined) node.rest(response.socket);
    if (response.status === 200) this.#store(response, atMs, clock.nowMs());
    else this.#failed(atMs, `status ${response.status}`);
  }

  #exchange(process: Process, timeoutMs: number): Promise<Response | string> {
    const node = this.#node;
    const { clock } = process;
    if (node.proxy !== undefined) return node.proxy.answer(this.#request(), clock, timeoutMs);
    const exchange = new Exchange(clock, timeoutMs);
    return exchange.run(node.takeResting(), () => node.dial(process), this.#request());
  }

  #store({ id, body }: Response, atMs: number, nowMs: number): void {
    const node = this.#node;
    const world = this.#world;
    const { kind } = node.plan;
    const all = parseExposition(body);
    world.checkBody(node, all);
    if (kind.kind === 'refuses by size' && all.length > kind.samplesMax) {
      world.refusedBySize(id);
      world.trace(`${node.plan.name}: answer ${id} has ${all.length} samples: nothing of it is stored`);
      return this.#failed(atMs, 'sample limit exceeded');
    }
    // What the server says of itself has other labels for each target, which the model has not.
    const isProbe = (series: string) => series.startsWith('sysmon_server_probe[');
    const samples = all.filter(({ series }) => isProbe(series) || !series.startsWith('sysmon_server_'));
    const verdict = node.database.scraped(samples, { atMs, nowMs });
    world.onScrape?.({ scraper: node.plan, atMs, nowMs, body });
    node.scraped(this.#selection, verdict.isFailed ? 'out of bounds' : undefined);
    if (verdict.isFailed) {
      // Prometheus keeps the connection: to the server this answer has arrived.
      node.failures++;
      world.refusedWhole(id);
      world.trace(`${node.plan.name}: answer ${id} has a sample that is too old: nothing of it is stored`);
      return;
    }
    world.stored(id);
    const answer = all.find(({ series }) => series.startsWith('sysmon_server_answer['));
    const probe = all.find(({ series }) => isProbe(series))?.series;
    if (answer !== undefined) node.storedNumber(answer.value, { series: answer.series, atMs, probe });
    for (const { reason, sample } of verdict.refused) {
      node.refused.set(reason, (node.refused.get(reason) ?? 0) + 1);
      world.refused(node, reason, sample);
    }
    world.trace(`${node.plan.name}: answer ${id}, ${verdict.stored} samples stored, ${verdict.refused.length} refused`);
  }

  #request(): Request {
    const { name: from, scraper, timeoutMs, samplesMax } = this.#node.plan;
    const parameters = new URLSearchParams({ scraper });
    if (this.#selection !== '') parameters.set('agent', this.#selection);
    if (samplesMax !== undefined) parameters.set('max', String(samplesMax));
    const { kind } = this.#node.plan;
    const headers = {
      'user-agent': kind.kind === 'keeps the first' ? 'Prometheus/2.53.0' : 'Prometheus/3.5.0',
      ...(kind.kind === 'behind a proxy' && kind.isSeen && { via: '1.1 proxy' }),
      'x-prometheus-scrape-timeout-seconds': String(timeoutMs / 1000),
    };
    return { from, query: parameters.toString(), headers };
  }

  #failed(atMs: number, error: string): void {
    this.#node.scraped(this.#selection, error);
    this.#node.database.failed(atMs);
    this.#world.onScrape?.({ scraper: this.#node.plan, atMs, nowMs: atMs, body: undefined });
  }
}

/**
 * What stands between a scraper and the server, and never fails: it has connections of its own, and reads each answer to
 * its end, also when its client has gone.
 */
class HttpProxy {
  readonly #node: ScraperNode;
  readonly #process: Process;
  #resting: VirtualSocket[] = [];

  constructor(world: World, node: ScraperNode) {
    this.#node = node;
    const { plan } = node;
    const host = new Host(`proxy of ${plan.name}`, plan);
    this.#process = new Process(host.name, host, world.timeline, world.random(host.name));
  }

  /** What its client gets before it gives up, by its own clock. */
  async answer(request: Request, clock: Clock, timeoutMs: number): Promise<Response | string> {
    const answered = this.#ask(request);
    const late = clock.sleep(timeoutMs).then(() => 'no whole answer in time');
    const response = await Promise.race([answered, late]);
    // It is its client's turn: one that was killed, or stands still, knows nothing of it.
    await clock.sleep(0.5);
    return response;
  }

  async #ask(request: Request): Promise<Response | string> {
    const idle = this.#resting.pop();
    const exchange = new Exchange(this.#process.clock, proxyTimeoutMs);
    const response = await exchange.run(idle, () => this.#node.dial(this.#process), request);
    if (typeof response !== 'string') this.#resting.push(response.socket);
    return response;
  }
}

interface Response {
  readonly status: number;
  readonly id: number;
  readonly body: string;
  readonly socket: VirtualSocket;
}

// Of query-api.ts.
const askMsMax = 5000;
// proxy_read_timeout of nginx.
const proxyTimeoutMs = 60_000;

/** One request and its answer, before a deadline. */
class Exchange {
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  #socket: VirtualSocket | undefined;
  #isLate = false;
  #giveUp: (() => void) | undefined;

  constructor(clock: Clock, timeoutMs: number) {
    this.#clock = clock;
    this.#deadlineMs = timeoutMs;
  }

  /** Resolves to what went wrong where there is no answer. */
  async run(
    idle: VirtualSocket | undefined,
    dial: () => Promise<VirtualSocket>,
    request: Request,
  ): Promise<Response | string> {
    const late = new Promise<string>((resolve) => {
      this.#giveUp = () => resolve('no whole answer in time');
    });
    const deadline = this.#clock.after(this.#deadlineMs, () => {
      this.#isLate = true;
      this.#socket?.destroy();
      this.#giveUp!();
    });
    try {
      return await Promise.race([late, this.#tryBoth(idle, dial, request)]);
    } finally {
      deadline.cancel();
    }
  }

  /** Go's client sends a request again that found its kept connection dead before any byte of an answer. */
  async #tryBoth(
    idle: VirtualSocket | undefined,
    dial: () => Promise<VirtualSocket>,
    request: Request,
  ): Promise<Response | string> {
    if (idle !== undefined && !idle.isOver) {
      const response = await this.#ask(idle, request);
      if (response !== 'nothing came') return response;
    }
    if (this.#isLate) return 'late';
    try {
      const socket = await dial();
      if (this.#isLate) {
        socket.destroy();
        return 'late';
      }
      return await this.#ask(socket, request);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  async #ask(socket: VirtualSocket, request: Request): Promise<Response | string> {
    this.#socket = socket;
    const chunks: Buffer[] = [];
    try {
      await socket.write(Buffer.from(`${JSON.stringify(request)}\n`));
      // Not `for await`: that would end the iteration, and the connection is kept.
      const iterator = socket[Symbol.asyncIterator]();
      for (;;) {
        const { done, value } = await iterator.next();
        if (done === true) break;
        chunks.push(Buffer.from(value));
        if (value.at(-1) === 0) return parseResponse(Buffer.concat(chunks), socket);
      }
    } catch (error) {
      if (chunks.length === 0) return 'nothing came';
      return error instanceof Error ? error.message : String(error);
    } finally {
      this.#socket = undefined;
    }
    return chunks.length === 0 ? 'nothing came' : 'the answer ended in its middle';
  }
}

function parseResponse(bytes: Buffer, socket: VirtualSocket): Response {
  const text = bytes.toString('utf8', 0, bytes.length - 1);
  const end = text.indexOf('\n');
  const { status, id } = JSON.parse(text.slice(0, end)) as { status: number; id: number };
  return { status, id, body: text.slice(end + 1), socket };
}
