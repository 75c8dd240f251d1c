import { hostSourceName, parseStreamId, streamId } from '../../src/model/source.ts';
import { runEvery } from '../../src/runtime/clock.ts';
import type { Connection } from '../../src/runtime/connection.ts';
import type { Listener, ListenOptions } from '../../src/runtime/listen.ts';
import type { Delivery } from '../../src/server/delivery/delivery.ts';
import type { ScraperDatabase } from '../../src/server/delivery/receipts.ts';
import type { ScrapeConnection } from '../../src/server/delivery/scraper.ts';
import type { ReceivedReport } from '../../src/server/delivery/store.ts';
import type { WebOptions, WebServer } from '../../src/server/web/listener.ts';
import { noWebConfig } from '../../src/server/web/web-config-file.ts';
import { Server } from '../../src/server/wire-up.ts';
import { serverSettings } from '../support/server-settings.ts';
import { StateVolume } from './disk.ts';
import { Host, Process } from './machine.ts';
import { type Line, Ports, type VirtualSocket } from './network.ts';
import type { Surroundings } from './surroundings.ts';
import { openVirtualWeb, type Request } from './web-node.ts';

interface World extends Surroundings {
  readonly scrapers: readonly {
    readonly plan: { readonly scraper: string };
    databaseFor(process: Process): ScraperDatabase | undefined;
  }[];
  readonly lines: readonly Line[];
  received(agentName: string, report: ReceivedReport, outcome: string): void;
  /** A connection of an agent was ended by the server. */
  ended(reason: string): void;
  stateWritten(composedMs: number): void;
  serverEnded(): void;
}

export interface ServerPlan {
  readonly windowMs: number;
  readonly memoryBytesMax: number;
  readonly wallAheadMs: number;
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
  /** Nothing but the end of its connection has said that it was read. */
  isConfirmedByEnd: boolean;
  /** Its Prometheus refused all of it for one sample that was too old. */
  isRefusedWhole: boolean;
  /** Or for a limit of its job. */
  isRefusedBySize: boolean;
}

interface Asked {
  readonly socket: VirtualSocket;
  readonly request: Request;
  answer: Answer | undefined;
}

interface Run {
  readonly process: Process;
  readonly server: Server;
  /** Everything that was accepted and has not ended. */
  readonly sockets: Set<VirtualSocket>;
  isStopping: boolean;
}

/** The server and its host: what ships, over virtual ports. HTTP is messages over a virtual connection. */
export class ServerNode {
  readonly plan: ServerPlan;
  readonly host: Host;
  readonly ports = new Ports();
  readonly volume: StateVolume;
  readonly answers: Answer[] = [];
  readonly outcomes = new Map<string, number>();
  unscrapedEvictions = 0;
  skippedReports = 0;
  conflicts = 0;
  /** How often in a row the server meets a bug in what this agent reports. */
  readonly bugs = new Map<string, number>();
  bugsMet = 0;
  /** How often something was given twice, never confirmed, and counted as read. */
  assumptions = 0;
  readonly #world: World;
  /** The last request over each connection, and the answer to it once that is opened. */
  readonly #asked = new WeakMap<ScrapeConnection, Asked>();
  #run: Run | undefined;
  #runs = 0;

  constructor(world: World, plan: ServerPlan) {
    this.#world = world;
    this.plan = plan;
    this.host = new Host('server', plan);
    this.volume = new StateVolume(world.random('server disk'));
  }

  get isRunning(): boolean {
    return this.#run?.process.isAlive === true;
  }

  get process(): Process | undefined {
    return this.isRunning ? this.#run!.process : undefined;
  }

  get delivery(): Delivery | undefined {
    return this.isRunning ? this.#run!.server.delivery : undefined;
  }

  start(): void {
    if (this.isRunning || !this.host.isUp) return;
    const world = this.#world;
    const process = new Process(`server.${++this.#runs}`, this.host, world.timeline, world.random('server inbox'));
    const { clock } = process;
    const log = world.logOf(process);
    const random = world.random(`server ${this.#runs}`);
    log.info(`starts, ${this.volume.hasFile ? 'with' : 'without'} a file from before`);
    const sockets = new Set<VirtualSocket>();
    const server = new Server({
      settings: serverSettings({ windowMs: this.plan.windowMs, memoryBytesMax: this.plan.memoryBytesMax }),
      ...{ clock, log, random: () => random.next(), boot: { bootMs: () => clock.monotonicMs() } },
      hostBoot: { id: `boot ${this.host.boot}`, uptimeMs: () => world.timeline.nowMs },
      webConfig: { current: noWebConfig },
      databases: new Map(
        world.scrapers.flatMap((scraper) => {
          const database = scraper.databaseFor(process);
          return database === undefined ? [] : [[scraper.plan.scraper, database] as const];
        }),
      ),
      disk: this.volume.openBy(process, (composedMs) => world.stateWritten(composedMs)),
      // On a virtual clock nothing takes time, so no connection waits for its turn.
      loop: { turn: () => process.turn(), next: (callback) => void clock.after(0, callback) },
      listen: (options) => this.#listen(process, sockets, options),
      openWeb: (options) => this.#openWeb(process, sockets, options),
    });
    this.#run = { process, server, sockets, isStopping: false };
    this.#watch(this.#run);
    server.start().catch((error: unknown) => world.crashed(process, error));
  }

  /** SIGTERM. */
  stop(): void {
    const run = this.#run;
    if (run === undefined || !run.process.isAlive || run.isStopping) return;
    run.isStopping = true;
    this.#world.trace(`${run.process.name}: SIGTERM`);
    run.process.deliver(run, () => {
      run.process.clock.after(stopMsMax, () => this.#end('stopped, with something that hung'));
      run.server.stop().then(
        () => {
          if (run.process.isAlive) this.#end('stopped');
        },
        (error: unknown) => this.#world.crashed(run.process, error),
      );
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

  #end(how: string): void {
    const run = this.#run!;
    this.#world.trace(`${run.process.name}: ${how}`);
    run.process.kill();
    this.#world.serverEnded();
  }

  async #listen(process: Process, sockets: Set<VirtualSocket>, { onConnection }: ListenOptions): Promise<Listener> {
    const open = new Set<Connection>();
    const { close } = this.ports.listen('frames', process, (socket) => {
      sockets.add(socket);
      open.add(socket);
      onConnection(socket);
    });
    return {
      port: 0,
      get connections() {
        return open.size;
      },
      async close() {
        close();
        for (const socket of open) socket.destroy();
      },
    };
  }

  async #openWeb(process: Process, sockets: Set<VirtualSocket>, options: WebOptions): Promise<WebServer> {
    return openVirtualWeb(process, this.ports, options, {
      opened: (socket) => sockets.add(socket),
      asked: (connection, asked) => this.#asked.set(connection, { ...asked, answer: undefined }),
      answerId: (connection) => this.#asked.get(connection)?.answer?.id ?? -1,
      crashed: (error) => this.#world.crashed(process, error),
    });
  }

  /** What the parts of the server do, seen as they do it. */
  #watch(run: Run): void {
    const world = this.#world;
    const { process, server } = run;
    const { store } = server.delivery;
    const receive = store.receive.bind(store);
    store.receive = (stream, report) => {
      this.#meetBug(run, stream.agent.id);
      return receive(stream, report);
    };
    spy(store, 'receive', (outcome, { agent }, report) => {
      this.#count(outcome);
      world.received(agent.id, report, outcome);
      if (store.windowBytes > this.plan.memoryBytesMax) {
        world.violated(`the windows hold ${store.windowBytes} of ${this.plan.memoryBytesMax} bytes`);
      }
    });
    this.#watchScrapes(server.delivery);
    const { metrics } = server;
    spy(metrics, 'skipped', (_, reports) => {
      this.skippedReports += reports;
    });
    spy(metrics, 'ended', (_, reason) => world.ended(reason));
    spy(metrics, 'unknownFrame', () => world.violated('an unknown kind of frame'));
    spy(metrics, 'clones', () => world.violated('a host on a bad line was taken for two hosts with one identity'));
    spy(metrics, 'evicted', (_, _reason, unscraped) => {
      if (unscraped) this.unscrapedEvictions++;
    });
    spy(metrics, 'rollback', (_, kind) => {
      this.#count('rollback');
      world.trace(`${process.name}: rolled back, ${kind}`);
    });
    spy(metrics, 'answerAssumed', (_, name) => {
      this.assumptions++;
      world.trace(`${process.name}: what was given to '${name}' twice counts as read`);
    });
    spy(metrics, 'conflict', (_, name) => {
      this.conflicts++;
      world.trace(`${process.name}: two scrape as '${name}'`);
    });
    runEvery(process.clock, 10_000, () => this.#checkBounds(run));
  }

  /** Throws where a bug is due; then no other connection may end. */
  #meetBug({ process, sockets }: Run, agentName: string): void {
    const left = this.bugs.get(agentName) ?? 0;
    if (left === 0) return;
    this.bugs.set(agentName, left - 1);
    this.bugsMet++;
    const others = [...sockets].filter((socket) => !socket.isOver && socket.peerAddress !== agentName);
    this.#world.trace(`${process.name}: meets a bug in a report of '${agentName}'`);
    this.#world.timeline.after(0, () => {
      const ended = others.filter((socket) => socket.isOver);
      for (const { peer } of ended)
        this.#world.violated(`a bug in a report of '${agentName}' has ended that of ${peer}`);
    });
    throw new Error('simulation: a bug');
  }

  #count(what: string): void {
    this.outcomes.set(what, (this.outcomes.get(what) ?? 0) + 1);
  }

  #checkBounds({ sockets, process }: Run): void {
    for (const socket of sockets) {
      const { unsentBytes, peer } = socket;
      if (socket.isOver) sockets.delete(socket);
      if (unsentBytes > unsentBytesMax) this.#world.violated(`${process.name} holds ${unsentBytes} bytes for ${peer}`);
    }
  }

  /** Every answer, from its beginning to the end of its connection. */
  #watchScrapes(delivery: Delivery): void {
    spy(delivery, 'openScrape', (opening, { name, selection, connection }) => {
      const asked = this.#asked.get(connection)!;
      const key = JSON.stringify([name.text, selection.join(',')]);
      const answer = this.#answer(asked.socket, asked.request.from, key);
      asked.answer = answer;
      void opening.then((scrape) => {
        if (scrape === undefined) return;
        answer.given = new Map(
          scrape.batches.flatMap(({ agent, runs }) => {
            const untilMs = scrape.until.get(streamId(agent, hostSourceName));
            return untilMs === undefined ? [] : [[agent, [runs[0]!.reports[0]!.timeMs - 1, untilMs]]];
          }),
        );
        spy(scrape, 'finish', () => {
          answer.finishedMs = this.#world.timeline.nowMs;
        });
      });
    });
    spy(delivery, 'connectionEvent', (_, connection, { kind }) => {
      const { socket } = this.#asked.get(connection) ?? {};
      const last = this.answers.findLast((answer) => answer.socket === socket);
      if (last !== undefined && kind !== 'reset') last.isConfirmedByEnd = isConfirmed(delivery, last);
    });
  }

  #answer(socket: VirtualSocket, from: string, key: string): Answer {
    const answer: Answer = {
      ...{ id: this.answers.length, key, from, startedMs: this.#world.timeline.nowMs, socket },
      ...{
        finishedMs: undefined,
        given: new Map(),
        storedMs: undefined,
        isConfirmedByEnd: false,
        isRefusedWhole: false,
        isRefusedBySize: false,
      },
    };
    this.answers.push(answer);
    this.#world.trace(`server: answer ${answer.id} to ${from}, ${key}, over ${socket.peer}`);
    return answer;
  }
}

/** Whether some cursor has passed all that the answer gave. */
function isConfirmed({ scrapers }: Delivery, { given }: Answer): boolean {
  const cursors = [...scrapers].flatMap((scraper) => [...scraper.all()]);
  return cursors.some((cursor) =>
    [...given].every(([agent, [, untilMs]]) => cursor.positionMs(parseStreamId(agent)!.id) >= untilMs),
  );
}

/** Calls `after` with what the method has returned, and what it was given. */
function spy<T, K extends keyof T>(
  object: T,
  name: K,
  after: T[K] extends (...given: infer A) => infer R ? (returned: R, ...given: A) => void : never,
): void {
  const method = (object[name] as (...given: unknown[]) => unknown).bind(object);
  const see = after as (returned: unknown, ...given: unknown[]) => void;
  object[name] = ((...given: unknown[]) => {
    const returned = method(...given);
    see(returned, ...given);
    return returned;
  }) as T[K];
}

// Of lifecycle.ts.
const stopMsMax = 4800;
// Of connection.ts, and one frame more; an answer's slice is 64 KiB and some.
const unsentBytesMax = 256 * 1024;
