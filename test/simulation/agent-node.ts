import { every, type Schedule } from '../../src/agent/collect/schedule.ts';
import type { SpoolEpoch } from '../../src/agent/spool/segment.ts';
import type { Spool, SpoolBounds } from '../../src/agent/spool/spool.ts';
import { Agent } from '../../src/agent/wire-up.ts';
import { dialInTurn, dialLastGood } from '../../src/runtime/dial.ts';
import { SpoolVolume } from './disk.ts';
import { Host, Process } from './machine.ts';
import { dialVirtual, Line } from './network.ts';
import type { ServerNode } from './server-node.ts';
import type { Surroundings } from './surroundings.ts';
import { type Instant, SeriesNames, SyntheticHost } from './synthetic-host.ts';

interface World extends Surroundings {
  readonly server: ServerNode;
  /** This history is outside of what is promised. */
  beyond(why: string): void;
}

export interface AgentPlan {
  readonly name: string;
  /** Of its host, where that is not called as its agent: of two hosts that were made from one image. */
  readonly hostName?: string;
  readonly intervalMs: number;
  readonly labels: readonly (readonly [string, string])[];
  readonly hasDisk: boolean;
  /** Of the server's name, as its host resolves it. */
  readonly addresses: readonly string[];
  readonly bounds: SpoolBounds;
  readonly wallAheadMs: number;
}

/** A report has come, and was stored by this time. */
export interface StoredTime {
  readonly serverMs: number;
  /** True time. */
  readonly atMs: number;
  /** Which run of the agent has sent it. */
  readonly run: number;
}

/** One report as it was made: what has to arrive. */
export interface SampledReport {
  readonly agent: AgentNode;
  readonly epoch: SpoolEpoch;
  readonly seq: number;
  /** Which run of the agent has made it. */
  readonly run: number;
  /** On the epoch's own clock. */
  readonly timeMs: number;
  /** True time, since the beginning of the history. */
  readonly atMs: number;
  readonly values: Instant;
  /** The times by which the server stored it, and when it did: more than one where its clock was set meanwhile. */
  readonly stored: StoredTime[];
  /** The last time by which it came, whatever became of it. */
  serverMs: number | undefined;
  receivedMs: number | undefined;
  /** What became of it there, the last time that it was not a duplicate. */
  outcome: string | undefined;
  /** Why it was refused there, the first time that it was: counted then, and too late for some when it is taken later. */
  refusedAs: string | undefined;
  /** The agent's process or host ended in a way that may have taken it along. */
  lostWith: string | undefined;
}

export function nameOf({ agent, epoch, seq }: SampledReport): string {
  return `${agent.plan.name} ${epoch.id}/${seq}`;
}

interface Run {
  readonly process: Process;
  readonly agent: Agent;
  readonly schedule: EndingSchedule;
  readonly started: Promise<void>;
  isStopping: boolean;
}

/** An agent and its host: started, killed, started again. The programs' own code from the sampler's recording on. */
export class AgentNode {
  readonly plan: AgentPlan;
  readonly host: Host;
  readonly line: Line;
  readonly #deadLine: Line;
  #deadAddress: string | undefined;
  #usedAddress: string;
  readonly volume = new SpoolVolume();
  readonly reports: SampledReport[] = [];
  readonly #world: World;
  readonly #synthetic: SyntheticHost;
  readonly #names: SeriesNames;
  #run: Run | undefined;
  #endedMs: number | undefined;
  /** Reports that the last run had not delivered at its end. */
  #leftWaiting = 0;
  #runs = 0;
  /** Of all runs. */
  #dropped = 0;
  readonly #givenUp: (readonly [firstMs: number, lastMs: number])[] = [];
  #lateTicks = 0;
  readonly #epochsOfRun = new Set<number>();
  readonly #compared = new Set<number>();
  readonly #byEpoch = new Map<number, SampledReport[]>();

  constructor(world: World, plan: AgentPlan) {
    this.#world = world;
    this.plan = plan;
    const { hostName = plan.name } = plan;
    this.host = new Host(hostName, plan);
    this.line = new Line(`${hostName}—server`, world.timeline, world.random(`line ${hostName}`));
    this.#deadLine = new Line(`${hostName}—nowhere`, world.timeline, world.random(`dead line ${hostName}`));
    this.#deadLine.cut();
    this.#usedAddress = plan.addresses[0]!;
    this.#synthetic = new SyntheticHost(world.random(`values ${hostName}`));
    this.#names = new SeriesNames(plan.name, plan.labels);
  }

  /** How often it was started. */
  get runs(): number {
    return this.#runs;
  }

  get isRunning(): boolean {
    return this.#run?.process.isAlive === true;
  }

  get process(): Process | undefined {
    return this.isRunning ? this.#run!.process : undefined;
  }

  get spool(): Spool | undefined {
    return this.isRunning ? this.#run!.agent.spool : undefined;
  }

  /** Whether the server's clock was ever compared with that of this epoch. */
  /** Whether the clock of an epoch was compared with the server's in the run that it is of. */
  hasOffset({ id }: SpoolEpoch): boolean {
    return this.#compared.has(id) || (this.#epochsOfRun.has(id) && this.#isFixed(id));
  }

  #isFixed(id: number): boolean {
    return this.spool?.receiver(serverAddress).offsetsMs.has(id) === true;
  }

  report(epoch: number, seq: number): SampledReport | undefined {
    return this.#byEpoch.get(epoch)?.[seq - 1];
  }

  /** Reports that were given up, over all runs, the present one included. */
  get droppedReports(): number {
    return this.#dropped + (this.isRunning ? droppedBy(this.#run!.agent) : 0);
  }

  get lateTicks(): number {
    return this.#lateTicks + (this.isRunning ? this.#run!.agent.counters.ticksLate : 0);
  }

  start(): void {
    if (this.isRunning || !this.host.isUp) return;
    const world = this.#world;
    const { name, intervalMs, labels, bounds, hasDisk } = this.plan;
    const { host } = this;
    const inbox = world.random(`${host.name} inbox`);
    const process = new Process(`${host.name}.${++this.#runs}`, host, world.timeline, inbox);
    const { clock } = process;
    const log = world.logOf(process);
    log.info('starts');
    const random = world.random(`${host.name} jitter ${this.#runs}`);
    const schedule = new EndingSchedule(intervalMs);
    const sample = this.#synthetic.sampler();
    let instant: Instant = new Map();
    const agent = new Agent({
      settings: { address: serverAddress, agentName: name, labels, schedule, bounds, spoolDir: undefined },
      ...{ clock, log, random: () => random.next(), hostId: `host-of-${name}` },
      boot: { bootMs: () => clock.monotonicMs() },
      disk: hasDisk ? this.volume.openBy(process, world.random(`disk ${process.name}`)) : undefined,
      dial: dialLastGood((options) =>
        dialInTurn({
          ...{ ...options, host: 'server', port: 9732, timeoutMs: dialTimeoutMs, clock },
          resolve: async () => this.plan.addresses,
          connect: ({ address, timeoutMs, signal }) =>
            dialVirtual({
              ...{ from: process, line: this.#lineTo(address), to: world.server.host, address, timeoutMs, signal },
              ...{ ports: world.server.ports, port: 'frames' },
            }),
        }),
      ),
      newSampler: () => ({
        async sample() {
          const recording = sample();
          instant = names.instant(recording);
          return recording;
        },
        failures: [],
        absent: [],
        pendingReads: [],
        close() {},
      }),
    });
    const names = this.#names;
    const { spool } = agent;
    const append = spool.append.bind(spool);
    spool.append = (recording, timeMs) => {
      const drops = append(recording, timeMs);
      this.#sampled(spool, instant);
      return drops;
    };
    const crashed = (error: unknown) => world.crashed(process, error);
    const startedMs = world.timeline.nowMs;
    const started = agent.start().then(({ failed }) => {
      const isLate = world.timeline.nowMs - startedMs >= loadMsMax;
      if (isLate && this.#leftWaiting > 0) this.#lostSince(0, 'a start from a disk that did not answer');
      failed.catch(crashed);
    }, crashed);
    this.#run = { process, agent, schedule, started, isStopping: false };
  }

  /** Its name has several addresses; from now on the one that was used last leads nowhere. */
  killAddress(): void {
    this.#deadAddress = this.#usedAddress;
    this.line.reset();
  }

  healAddress(): void {
    this.#deadAddress = undefined;
  }

  #lineTo(address: string): Line {
    if (address === this.#deadAddress) return this.#deadLine;
    this.#usedAddress = address;
    return this.line;
  }

  /** SIGTERM: what waits is sent, for a while; then it ends. */
  stop(): void {
    const run = this.#run;
    if (run === undefined || !run.process.isAlive || run.isStopping) return;
    run.isStopping = true;
    this.#world.trace(`${run.process.name}: SIGTERM`);
    run.process.deliver(run, () => {
      run.process.clock.after(stopMsMax, () => this.#end('stopped, with something that hung'));
      run.started
        .then(() => run.agent.stop())
        .then(
          () => {
            if (run.process.isAlive) this.#end('stopped');
          },
          (error: unknown) => this.#world.crashed(run.process, error),
        );
    });
  }

  /** SIGKILL, or a crash: what was written is written. */
  kill(): void {
    if (this.isRunning) this.#end('killed');
  }

  cutPower(): void {
    if (!this.host.isUp) return;
    const { random, timeline } = {
      random: this.#world.random(`power ${this.plan.name}`),
      timeline: this.#world.timeline,
    };
    this.host.isUp = false;
    this.host.boot++;
    for (const socket of [...this.line.sockets]) if (socket.host === this.host) socket.vanish();
    if (this.isRunning) this.#end('without power');
    const lastMs = this.#endedMs ?? timeline.nowMs;
    this.#synthetic.reboot();
    if (!this.plan.hasDisk) return;
    const lostBytes = this.volume.cutPower(random);
    this.#world.trace(`${this.plan.name}: ${lostBytes} bytes were not synced`);
    if (lostBytes === 0) return;
    const syncedMs = Math.min(lastMs, this.volume.badSinceMs(timeline.nowMs) ?? lastMs) - syncEveryMs;
    this.#lostSince(syncedMs, agentLosses[0]);
  }

  boot(): void {
    this.host.isUp = true;
    this.line.retryAll();
    this.start();
  }

  /** From now on nothing new; what is there is delivered. */
  stopSampling(): void {
    this.#run?.schedule.end();
  }

  /** Whether a report may be one that was given up, because the server failed on it three times. */
  gaveUp({ timeMs }: SampledReport): boolean {
    const ranges = [...this.#givenUp, ...(this.#run === undefined ? [] : givenUpBy(this.#run.agent))];
    return ranges.some(([firstMs, lastMs]) => timeMs >= firstMs && timeMs <= lastMs);
  }

  #sampled(spool: Spool, values: Instant): void {
    const epoch = spool.epoch!;
    const { lastSeq: seq, lastTimeMs: timeMs } = epoch;
    const { timeline } = this.#world;
    const report = { agent: this, epoch, seq, run: this.#runs, timeMs, atMs: timeline.nowMs, values };
    const sampled: SampledReport = {
      ...report,
      ...{
        stored: [],
        serverMs: undefined,
        receivedMs: undefined,
        outcome: undefined,
        refusedAs: undefined,
        lostWith: undefined,
      },
    };
    this.#checkGap();
    this.#epochsOfRun.add(epoch.id);
    this.reports.push(sampled);
    const ofEpoch = this.#byEpoch.get(epoch.id) ?? [];
    this.#byEpoch.set(epoch.id, ofEpoch);
    if (ofEpoch.push(sampled) !== seq) this.#world.violated(`${nameOf(sampled)} is number ${ofEpoch.length}`);
    const { bytesMax } = this.plan.bounds;
    if (spool.bytes > bytesMax)
      this.#world.violated(`${this.plan.name}: the spool holds ${spool.bytes} of ${bytesMax} bytes`);
  }

  /** Whatever hangs or fails outside, a report is made at each interval; each time that the clock is set may cost another. */
  #checkGap(): void {
    const { process } = this.#run!;
    const lastMs = this.reports.at(-1)?.atMs ?? 0;
    // The first report of a run waits until the spool has been read.
    if (lastMs < process.startedMs) return;
    const { nowMs } = this.#world.timeline;
    const sinceMs = Math.max(lastMs, process.runningSinceMs);
    const clocks = this.host.wallAheadBetween(sinceMs, nowMs).length;
    const { name, intervalMs } = this.plan;
    if (nowMs - sinceMs > (1 + clocks) * intervalMs)
      this.#world.violated(`${name} made no report for ${nowMs - sinceMs} ms`);
  }

  #end(how: string): void {
    const run = this.#run!;
    this.#world.trace(`${run.process.name}: ${how}, ${run.agent.spool.waitingCount} reports wait`);
    this.#dropped += droppedBy(run.agent);
    this.#lateTicks += run.agent.counters.ticksLate;
    this.#givenUp.push(...givenUpBy(run.agent));
    for (const id of this.#epochsOfRun) if (this.#isFixed(id)) this.#compared.add(id);
    this.#epochsOfRun.clear();
    const { unwrittenCount, waitingCount } = run.agent.spool;
    const unwritten = Math.min(unwrittenCount, waitingCount, this.reports.length);
    this.#leftWaiting = waitingCount;
    run.process.kill();
    this.#endedMs = this.#world.timeline.nowMs;
    if (unwritten > 0) this.#lostSince(this.reports.at(-unwritten)!.atMs, agentLosses[1]);
    if (!this.plan.hasDisk) this.#lostSince(0, 'the end of an agent without a spool on disk');
    const badSinceMs = this.volume.badSinceMs(this.#world.timeline.nowMs);
    if (this.plan.hasDisk && badSinceMs !== undefined) {
      this.#lostSince(badSinceMs, 'the end of an agent whose disk did not take it');
    }
  }

  #lostSince(ms: number, how: string): void {
    for (let at = this.reports.length - 1; at >= 0; at--) {
      const report = this.reports[at]!;
      if (report.atMs < ms) break;
      report.lostWith ??= how;
    }
    if (!agentLosses.includes(how)) this.#world.beyond(how);
  }
}

/** From the oldest to the newest report that a run gave up because the server failed on it three times. */
function givenUpBy(agent: Agent): (readonly [firstMs: number, lastMs: number])[] {
  return agent
    .status()
    .reportsRefused.filter(({ reason }) => reason === 'server_bug')
    .map(({ firstAt, lastAt }) => [Date.parse(firstAt), Date.parse(lastAt)]);
}

const droppedBy = ({ counters }: Agent): number =>
  Object.values(counters.reportsDropped).reduce((sum, reports) => sum + reports, 0);

/** What an agent may lose within the bounds: what was made in the 10 s between two syncs, or in the moment of its end. */
export const agentLosses: readonly [string, string] = [
  'a power cut before it was synced',
  'the end of an agent before it was written',
];

/** An interval's instants, of which there are no more after its end. */
class EndingSchedule implements Schedule {
  readonly intervalMs: number;
  #hasEnded = false;

  constructor(intervalMs: number) {
    this.intervalMs = intervalMs;
  }

  end(): void {
    this.#hasEnded = true;
  }

  nextAfter(nowMs: number): number {
    return this.#hasEnded ? Number.POSITIVE_INFINITY : every(this.intervalMs).nextAfter(nowMs);
  }
}

// Of run.ts.
const serverAddress = 'server:9732';
const dialTimeoutMs = 20_000;
// Of lifecycle.ts.
const stopMsMax = 4800;
// Of mirror.ts.
const loadMsMax = 20_000;
// And a report that was made in the moment of the sync.
const syncEveryMs = 11_000;
