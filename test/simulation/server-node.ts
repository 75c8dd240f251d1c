import { agentId } from '../../src/model/agent-id.ts';
import type { Timer } from '../../src/runtime/clock.ts';
import { Delivery } from '../../src/server/delivery/delivery.ts';
import { takeNew, takeNewest } from '../../src/server/delivery/scrape.ts';
import type { AgentBatch } from '../../src/server/exposition/exposition.ts';
import { Exposition } from '../../src/server/exposition/exposition.ts';
import { Admission } from '../../src/server/ingest/admission.ts';
import { AgentConnection } from '../../src/server/ingest/connection.ts';
import { FairShare } from '../../src/server/ingest/scheduler.ts';
import { StateVolume } from './disk.ts';
import { Host, Process } from './machine.ts';
import { Ports, type VirtualSocket } from './network.ts';
import type { World } from './world.ts';

export interface ServerPlan {
  readonly windowMs: number;
  readonly memoryBytesMax: number;
  readonly wallAheadMs: number;
}

/** A scrape's request as it travels. */
export interface Request {
  /** Which Prometheus asks: for the simulation's eyes only. */
  readonly from: string;
  readonly name: string;
  readonly selection: string;
  readonly timeoutMs: number;
  readonly samplesMax: number | undefined;
}

/** What is known of one answer, by both ends: the simulation sees everything. */
export interface Answer {
  readonly id: number;
  readonly from: string;
  readonly key: string;
  readonly startedMs: number;
  readonly socket: VirtualSocket;
  /** The last byte went to the kernel. */
  finishedMs: number | undefined;
  /** Of each agent: given are the reports after the first time and up to the second. */
  given: ReadonlyMap<string, readonly [afterMs: number, untilMs: number]>;
  /** Stored by its Prometheus. */
  storedMs: number | undefined;
  /** Nothing but its connection's end, after the server's goodbye, has said that it was read. */
  isReadByGoodbye: boolean;
  /** Its Prometheus refused all of it for one sample that was too old. */
  isRefusedWhole: boolean;
}

interface Run {
  readonly process: Process;
  readonly delivery: Delivery;
  readonly running: Set<Promise<void>>;
  readonly sockets: Set<VirtualSocket>;
  readonly scraped: Set<HttpConnection>;
  readonly listeners: { close(): void }[];
  isStopping: boolean;
}

/** The server and its host, wired as `run.ts` wires it, with HTTP as messages over a virtual connection. */
export class ServerNode {
  readonly plan: ServerPlan;
  readonly host = new Host('server');
  readonly ports = new Ports();
  readonly volume: StateVolume;
  readonly answers: Answer[] = [];
  readonly outcomes = new Map<string, number>();
  unscrapedEvictions = 0;
  skippedReports = 0;
  conflicts = 0;
  /** When two of one name were first seen at work. */
  sharedSinceMs = Number.POSITIVE_INFINITY;
  readonly #world: World;
  #run: Run | undefined;
  #runs = 0;

  constructor(world: World, plan: ServerPlan) {
    this.#world = world;
    this.plan = plan;
    this.host.wallAheadMs = plan.wallAheadMs;
    this.volume = new StateVolume(world.random('server disk'));
  }

  get isRunning(): boolean {
    return this.#run?.process.isAlive === true;
  }

  get process(): Process | undefined {
    return this.isRunning ? this.#run!.process : undefined;
  }

  get delivery(): Delivery | undefined {
    return this.isRunning ? this.#run!.delivery : undefined;
  }

  start(): void {
    if (this.isRunning || !this.host.isUp) return;
    const world = this.#world;
    const process = new Process(`server.${++this.#runs}`, this.host, world.timeline, world.random('server inbox'));
    const { clock } = process;
    const log = world.logOf(process);
    log.info(`starts, ${this.volume.hasFile ? 'with' : 'without'} a file from before`);
    const delivery = this.#delivery(process);
    const admission = new Admission({ clock, log, isRevoked: () => false, onClones: () => {} });
    // On a virtual clock nothing takes time, so nobody waits.
    const fairShare = new FairShare({ clock, nextTurn: (callback) => void clock.after(0, callback) });
    const run: Run = {
      ...{ process, delivery, running: new Set(), sockets: new Set(), scraped: new Set(), isStopping: false },
      listeners: [],
    };
    this.#run = run;
    const exposition = new Exposition({ onDisagreement: () => {} });
    run.listeners.push(
      this.ports.listen('frames', process, (socket) => {
        const agent = new AgentConnection(socket, {
          ...{ clock, log, delivery, admission, fairShare },
          warn: (_key, line) => log.warn(line),
          onEnd: (reason) => world.ended(reason),
          onUnknown: () => world.violated('an unknown kind of frame'),
        });
        run.sockets.add(socket);
        const ended = agent.run().catch((error: unknown) => world.crashed(process, error));
        run.running.add(ended);
        void ended.then(() => {
          run.running.delete(ended);
          run.sockets.delete(socket);
        });
      }),
      this.ports.listen('http', process, (socket) => {
        if (run.isStopping) return socket.destroy();
        run.sockets.add(socket);
        const connection = new HttpConnection(this, run, exposition, socket);
        run.scraped.add(connection);
        void connection
          .run()
          .catch((error: unknown) => world.crashed(process, error))
          .then(() => {
            run.sockets.delete(socket);
            run.scraped.delete(connection);
          });
      }),
    );
    const keepHouse = () => {
      delivery.tidy();
      this.#checkBounds(run);
      clock.after(10_000, keepHouse);
    };
    clock.after(10_000, keepHouse);
  }

  /** SIGTERM, as `run.ts` ends. */
  stop(): void {
    const run = this.#run;
    if (run === undefined || !run.process.isAlive || run.isStopping) return;
    run.isStopping = true;
    this.#world.trace(`${run.process.name}: SIGTERM`);
    run.process.deliver(run, () => {
      void this.#close(run).catch((error: unknown) => this.#world.crashed(run.process, error));
    });
  }

  kill(): void {
    if (this.isRunning) this.#end('killed');
  }

  cutPower(): void {
    if (!this.host.isUp) return;
    this.host.isUp = false;
    this.host.boot++;
    for (const line of this.#world.lines) {
      for (const socket of [...line.sockets]) if (socket.host === this.host) socket.vanish();
    }
    if (this.isRunning) this.#end('without power');
  }

  boot(): void {
    this.host.isUp = true;
    for (const line of this.#world.lines) line.retryAll();
    this.start();
  }

  async #close(run: Run): Promise<void> {
    const { process, delivery, sockets, running, listeners, scraped } = run;
    const goodbyes = Promise.all([...scraped].map((connection) => connection.leave()));
    await Promise.race([goodbyes, process.clock.sleep(httpGraceMs)]);
    for (const { close } of listeners) close();
    for (const socket of [...sockets]) socket.destroy();
    await Promise.all(running);
    await delivery.flush();
    if (process.isAlive) this.#end('stopped');
  }

  #end(how: string): void {
    const run = this.#run!;
    this.#world.trace(`${run.process.name}: ${how}`);
    run.process.kill();
    this.#world.serverEnded();
  }

  #delivery(process: Process): Delivery {
    const world = this.#world;
    const count = (what: string) => this.outcomes.set(what, (this.outcomes.get(what) ?? 0) + 1);
    const delivery = new Delivery({
      clock: process.clock,
      windowMs: this.plan.windowMs,
      disk: this.volume.openBy(process, (composedMs) => world.stateWritten(composedMs)),
      store: {
        memoryBytesMax: this.plan.memoryBytesMax,
        forgetAfterMs: 24 * 3_600_000,
        onReport: count,
        onEvict: (_reason, unscraped) => {
          if (unscraped) this.unscrapedEvictions++;
        },
      },
      cursors: {
        turn: () => process.turn(),
        delivered: (connection) => sockets.get(connection)?.isDelivered ?? true,
        onCommitted: () => {},
        onRollBack: ({ name }, kind) => {
          count('rollback');
          world.trace(`${process.name}: rolled back for '${name}', ${kind}`);
        },
        onConflict: ({ name }) => {
          this.conflicts++;
          this.sharedSinceMs = Math.min(this.sharedSinceMs, world.timeline.nowMs);
          world.trace(`${process.name}: two scrape as '${name}'`);
        },
        onForgotten: () => {},
      },
      onStateWritten: () => {},
      onStateError: (error) => world.trace(`${process.name}: state file: ${String(error)}`),
    });
    const { store } = delivery;
    const receive = store.receive.bind(store);
    store.receive = (agent, report) => {
      const outcome = receive(agent, report);
      world.received(agent.id, report, outcome);
      if (store.windowBytes > this.plan.memoryBytesMax) {
        world.violated(`the windows hold ${store.windowBytes} of ${this.plan.memoryBytesMax} bytes`);
      }
      return outcome;
    };
    return delivery;
  }

  #checkBounds({ sockets, process }: Run): void {
    for (const { unsentBytes, peer } of sockets) {
      if (unsentBytes > unsentBytesMax) this.#world.violated(`${process.name} holds ${unsentBytes} bytes for ${peer}`);
    }
  }

  /** The last answer on this connection counts as read. */
  goodbyeAnswered(socket: VirtualSocket): void {
    const last = this.answers.findLast((answer) => answer.socket === socket);
    if (last !== undefined) last.isReadByGoodbye = true;
  }

  /** The beginning of an answer. Called by the connection that gives it. */
  answer(socket: VirtualSocket, request: Request): Answer {
    const key = JSON.stringify([request.name, request.selection]);
    const answer: Answer = {
      ...{ id: this.answers.length, key, from: request.from, startedMs: this.#world.timeline.nowMs, socket },
      ...{
        finishedMs: undefined,
        given: new Map(),
        storedMs: undefined,
        isReadByGoodbye: false,
        isRefusedWhole: false,
      },
    };
    this.answers.push(answer);
    this.#world.trace(`server: answer ${answer.id} to ${request.from} '${request.selection}' over ${socket.peer}`);
    return answer;
  }

  get world(): World {
    return this.#world;
  }
}

/** The socket of each connection that scrapes come over. */
const sockets = new WeakMap<object, VirtualSocket>();

/** What `http.ts` does for `/metrics`, without HTTP: a line in, a line and a body out, a zero byte at the end. */
class HttpConnection {
  readonly #node: ServerNode;
  readonly #run: Run;
  readonly #exposition: Exposition;
  readonly #socket: VirtualSocket;
  readonly #scraper = { closed: false };
  #tail: Promise<void> = Promise.resolve();
  #idle: Timer | undefined;
  #goodbye: Promise<void> | undefined;

  constructor(node: ServerNode, run: Run, exposition: Exposition, socket: VirtualSocket) {
    this.#node = node;
    this.#run = run;
    this.#exposition = exposition;
    this.#socket = socket;
    sockets.set(this.#scraper, socket);
  }

  async run(): Promise<void> {
    let text = '';
    this.#restUntilTooLong();
    try {
      for await (const chunk of this.#socket) {
        text += Buffer.from(chunk).toString('latin1');
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          const request = JSON.parse(text.slice(0, end)) as Request;
          text = text.slice(end + 1);
          this.#idle?.cancel();
          this.#tail = this.#tail.then(() => this.#answer(request)).finally(() => this.#restUntilTooLong());
          this.#tail.catch(() => {});
        }
      }
    } catch {
      // It broke: for the cursors that is the same as a goodbye.
    }
    await this.#goodbye;
    const isAllRead = this.#goodbye !== undefined && this.#socket.hasPeerEnded && this.#socket.isDelivered;
    if (isAllRead) this.#node.goodbyeAnswered(this.#socket);
    this.#run.delivery.cursors.closed(this.#scraper, { isAllRead });
    this.#socket.destroy();
    await this.#tail;
    this.#idle?.cancel();
  }

  #restUntilTooLong(): void {
    this.#idle?.cancel();
    this.#idle = this.#run.process.clock.after(keepAliveMs, () => void this.leave());
  }

  /** After what is under way, a goodbye; whether it is answered in time decides what the last answer counts as. */
  async leave(): Promise<void> {
    await this.#tail.catch(() => {});
    if (this.#socket.hasPeerEnded || this.#socket.isOver) return;
    this.#goodbye ??= this.#socket.end(goodbyeMs);
    await this.#goodbye;
  }

  async #answer(request: Request): Promise<void> {
    const { delivery, process } = this.#run;
    const { clock } = process;
    const { windowMs } = this.#node.plan;
    const { store } = delivery;
    const id = agentId(request.selection);
    const one = id === undefined ? undefined : store.agents.get(id);
    if (request.selection !== '' && one === undefined) return void (await this.#send(404, -1, []));
    const agents = one === undefined ? [...store.agents.values()] : [one];
    const answer = this.#node.answer(this.#socket, request);
    const scrape = await delivery.cursors.open({ ...request, connection: this.#scraper });
    if (scrape === undefined) {
      await this.#send(200, -1, this.#body(takeNewest({ clock }, agents), false), request.timeoutMs);
      return;
    }
    const after = new Map(agents.map((agent) => [agent.id as string, scrape.afterMs(agent.id)]));
    let isSent = false;
    const turn = () => process.turn();
    const taken = await takeNew(
      { clock, store, windowMs, turn },
      agents,
      scrape,
      request.samplesMax ?? scrape.samplesMax,
    );
    this.#node.skippedReports += taken.skippedReports;
    answer.given = new Map(
      [...taken.taken].map(([agent, untilMs]) => [
        agent,
        [after.get(agent) ?? Number.NEGATIVE_INFINITY, untilMs] as const,
      ]),
    );
    try {
      isSent = await this.#send(200, answer.id, this.#body(taken.batches, true), request.timeoutMs);
    } finally {
      if (isSent) {
        answer.finishedMs = this.#node.world.timeline.nowMs;
        scrape.finish(taken);
      } else scrape.abort();
    }
  }

  *#body(batches: readonly AgentBatch[], timestamps: boolean): Generator<Uint8Array> {
    for (const slice of this.#exposition.render(batches, { timestamps })) if (slice.length > 0) yield slice;
    const monotonicMs = this.#run.process.clock.monotonicMs();
    for (const agent of this.#run.delivery.store.agents.values()) {
      yield Buffer.from(`sysmon_agent_up{agent="${agent.id}"} ${agent.up(monotonicMs) ? 1 : 0}\n`);
    }
  }

  /** Resolves to whether all of it is with the kernel. */
  async #send(status: number, id: number, body: Iterable<Uint8Array>, timeoutMs = 0): Promise<boolean> {
    const deadline = this.#run.process.clock.after(timeoutMs + 2000, () => this.#socket.destroy());
    try {
      await this.#socket.write(Buffer.from(`${JSON.stringify({ status, id })}\n`));
      for (const slice of body) {
        await this.#socket.write(slice);
        await this.#run.process.turn();
      }
      await this.#socket.write(Buffer.of(0));
      return true;
    } catch {
      return false;
    } finally {
      deadline.cancel();
    }
  }
}

// Of http.ts.
const keepAliveMs = 310_000;
const goodbyeMs = 1000;
// Of run.ts.
const httpGraceMs = 2000;
// Of connection.ts, and one frame more; an answer's slice is 64 KiB and some.
const unsentBytesMax = 256 * 1024;
