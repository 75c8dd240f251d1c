import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { uptime } from 'node:os';
import { fileURLToPath } from 'node:url';
import { every } from '../../src/agent/collect/schedule.ts';
import { newAgentCounters } from '../../src/agent/own-metrics.ts';
import type { Spool } from '../../src/agent/spool/spool.ts';
import type { Link } from '../../src/agent/uplink/uplink.ts';
import { spoolAndLink } from '../../src/agent/wire-up.ts';
import { agentId } from '../../src/model/agent-id.ts';
import type { Recording } from '../../src/model/recording.ts';
import { bootClock, realClock } from '../../src/runtime/clock.ts';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import { dial } from '../../src/runtime/dial.ts';
import type { Log } from '../../src/runtime/log.ts';
import type { Psk } from '../../src/runtime/tls.ts';
import { agentKey, fleetKey, identityText } from '../../src/server/ingest/keys.ts';
import { firstSums, hostSchema, moveOn } from './host.ts';
import type { Workshop } from './processes.ts';
import { hostPlans, VariedHost } from './varied-host.ts';

export interface FleetPlan {
  readonly port: number;
  readonly agentCount: number;
  readonly intervalMs: number;
  /** 64 hex digits, or undefined for plain connections. */
  readonly fleetKeyHex: string | undefined;
  /** `varied`: hosts that the pages have something to show of. Else all are alike, in the proportions of a real one. */
  readonly hosts?: 'alike' | 'varied';
}

export interface FleetCounts {
  readonly reportsMade: number;
  readonly reportsWaiting: number;
  readonly reportsDropped: number;
  readonly connects: number;
}

type Command =
  /** Each agent makes this many reports, the last one so long ago and the others before it. */
  | { readonly kind: 'report'; readonly count: number; readonly agoMs: number }
  /** Each agent makes a report at every interval, all at the same instants, until `rest`. */
  | { readonly kind: 'run' }
  | { readonly kind: 'rest' }
  /** Every connection breaks, and none can be had until `connect`. */
  | { readonly kind: 'cut' }
  | { readonly kind: 'connect' }
  | { readonly kind: 'counts' };

/** Many agents in a process of their own: the agent's spool, link and encoder, over real sockets, on made-up values. */
export class Fleet {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(workshop: Workshop, plan: FleetPlan): Promise<Fleet> {
    const child = workshop.adopt(fork(fileURLToPath(import.meta.url), [JSON.stringify(plan)], { execArgv: [] }));
    const fleet = new Fleet(child);
    await fleet.counts();
    return fleet;
  }

  report({ count = 1, agoMs = 0 } = {}): Promise<FleetCounts> {
    return this.#ask({ kind: 'report', count, agoMs });
  }
  run(): Promise<FleetCounts> {
    return this.#ask({ kind: 'run' });
  }
  rest(): Promise<FleetCounts> {
    return this.#ask({ kind: 'rest' });
  }
  cut(): Promise<FleetCounts> {
    return this.#ask({ kind: 'cut' });
  }
  connect(): Promise<FleetCounts> {
    return this.#ask({ kind: 'connect' });
  }
  counts(): Promise<FleetCounts> {
    return this.#ask({ kind: 'counts' });
  }

  async #ask(command: Command): Promise<FleetCounts> {
    const answer = once(this.#child, 'message');
    this.#child.send(command);
    const [counts] = await answer;
    return counts as FleetCounts;
  }
}

/** The name of an agent of a fleet. */
export const agentName = (at: number): string => `web-${at}`;

/** The key of a name's first generation. */
export function pskOf(fleetKeyHex: string, name: string): Psk {
  const key = fleetKey(Buffer.from(fleetKeyHex, 'hex'));
  const identity = identityText({ name: agentId(name)!, generation: 1, fleetKeyId: key.id });
  return { identity, key: agentKey(key, identity) };
}

export interface LinkedSpoolPlan {
  readonly name: string;
  readonly hostId: string;
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly port: number;
  readonly intervalMs: number;
  /** 64 hex digits, or undefined for a plain connection. */
  readonly fleetKeyHex: string | undefined;
}

/** An agent's spool and its link to a server, without what collects. It has no connection until `connect`. */
export class LinkedSpool {
  readonly counters = newAgentCounters();
  readonly #spool: Spool;
  readonly #link: Link;
  #connection: Connection | undefined;
  #isCut = true;

  constructor({ name, hostId, labels, port, intervalMs, fleetKeyHex }: LinkedSpoolPlan) {
    const clock = realClock;
    const boot = bootClock(clock, () => uptime() * 1000);
    const { counters } = this;
    const address = `127.0.0.1:${port}`;
    const psk = fleetKeyHex === undefined ? undefined : pskOf(fleetKeyHex, name);
    const { spool, link } = spoolAndLink({
      settings: {
        ...{
          address,
          agentName: agentId(name)!,
          labels,
          schedule: every(intervalMs),
          spoolDir: undefined,
        },
        bounds: { bytesMax: 64 * 2 ** 20, ageMsMax: 86_400_000 },
      },
      ...{ clock, boot, counters, log: silent, random: Math.random, hostId, disk: undefined },
      dial: async (signal) => {
        if (this.#isCut) throw new ConnectionError('unreachable', 'the line is cut');
        this.#connection = await dial({ host: '127.0.0.1', port, psk, timeoutMs: 10_000, signal });
        return this.#connection;
      },
      // Both ends have one clock.
      onClockStep: () => {},
    });
    this.#spool = spool;
    this.#link = link;
    const epoch = Math.floor(Math.random() * 2 ** 53);
    this.#spool.begin({ epoch, baseMs: clock.nowMs() - boot.bootMs() });
    void this.#link.run(new AbortController().signal);
  }

  append(recording: Recording, timeMs: number): void {
    this.#spool.append(recording, timeMs);
    this.#link.appended();
  }

  cut(): void {
    this.#isCut = true;
    this.#connection?.destroy();
  }

  connect(): void {
    this.#isCut = false;
    this.#link.retryNow();
  }
}

/** One agent of a fleet, on made-up values. */
class Agent {
  readonly linked: LinkedSpool;
  readonly #host: { next(timeMs: number): Recording };

  constructor(at: number, { port, intervalMs, fleetKeyHex, hosts }: FleetPlan) {
    this.linked = new LinkedSpool({
      ...{ name: agentName(at), hostId: `host-${at}`, labels: [] },
      ...{ port, intervalMs, fleetKeyHex },
    });
    this.#host =
      hosts === 'varied'
        ? new VariedHost(hostPlans[at % hostPlans.length]!, { seed: at + 1, intervalMs })
        : new AlikeHost(at);
  }

  report(timeMs: number): void {
    this.linked.append(this.#host.next(timeMs), timeMs);
  }
}

class AlikeHost {
  readonly #schema = hostSchema();
  readonly #sums: Float64Array;
  readonly #present: Uint8Array;
  #round = 0;

  constructor(at: number) {
    this.#sums = firstSums(at);
    this.#present = new Uint8Array(this.#sums.length).fill(1);
  }

  next(): Recording {
    moveOn(this.#sums, this.#round++);
    return { schema: this.#schema, sums: this.#sums, present: this.#present };
  }
}

const silent: Log = { error() {}, warn() {}, info() {}, debug() {} };

function serve(plan: FleetPlan): void {
  const agents = Array.from({ length: plan.agentCount }, (_, at) => new Agent(at, plan));
  let timer: NodeJS.Timeout | undefined;
  const tickAtNextInstant = () => {
    const leftMs = plan.intervalMs - (Date.now() % plan.intervalMs);
    timer = setTimeout(() => {
      const nowMs = Date.now();
      for (const agent of agents) agent.report(nowMs);
      tickAtNextInstant();
    }, leftMs);
  };
  process.on('message', (command: Command) => {
    switch (command.kind) {
      case 'report': {
        const { count, agoMs } = command;
        const lastMs = Date.now() - agoMs;
        for (const agent of agents) {
          for (let back = count - 1; back >= 0; back--) agent.report(lastMs - back * plan.intervalMs);
        }
        break;
      }
      case 'run':
        tickAtNextInstant();
        break;
      case 'rest':
        clearTimeout(timer);
        break;
      case 'cut':
        for (const agent of agents) agent.linked.cut();
        break;
      case 'connect':
        for (const agent of agents) agent.linked.connect();
        break;
      case 'counts':
        break;
    }
    process.send!(countsOf(agents));
  });
  // Ended by whoever started it, or with it.
  process.on('disconnect', () => process.exit(0));
}

function countsOf(agents: readonly Agent[]): FleetCounts {
  const sum = (of: (counters: LinkedSpool['counters']) => number) =>
    agents.reduce((total, { linked }) => total + of(linked.counters), 0);
  return {
    reportsMade: sum(({ reportsSampled }) => reportsSampled),
    reportsWaiting: sum(({ spoolReports }) => spoolReports),
    reportsDropped: sum(({ reportsDropped: { full, age, disk } }) => full + age + disk),
    connects: sum(({ connects }) => connects),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve(JSON.parse(process.argv[2]!) as FleetPlan);
