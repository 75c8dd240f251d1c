import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import type { EpochSeq } from '../../../src/protocol/messages.ts';
import type { Scrape, ScrapeConnection, Scraper } from '../../../src/server/delivery/cursors.ts';
import { Delivery } from '../../../src/server/delivery/delivery.ts';
import { type Taken, takeNew } from '../../../src/server/delivery/scrape.ts';
import type { StateDisk } from '../../../src/server/delivery/state-file.ts';
import type { AgentRecord } from '../../../src/server/delivery/store.ts';
import { beginOf } from '../../support/groups.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';
import { connect, timeoutMs, windowMs } from './cursors-harness.ts';
import { ReportMaker } from './report-maker.ts';

/** One file in memory that can be slow, fail, and be damaged. */
export class MemoryState implements StateDisk {
  text: string | undefined;
  isFailing = false;
  /** Writes wait until {@link release}. */
  isHeld = false;
  writes = 0;
  onWrite = (): void => {};
  #waiting: (() => void)[] = [];

  read(): string | undefined {
    return this.text;
  }

  async write(text: string): Promise<void> {
    if (this.isHeld) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.isFailing) throw new Error('ENOSPC');
    this.text = text;
    this.writes++;
    this.onWrite();
  }

  release(): void {
    this.isHeld = false;
    for (const resolve of this.#waiting) resolve();
    this.#waiting = [];
  }
}

export const memoryBytesMax = 64 * 1024 * 1024;

/** A server without sockets: agents put reports in, scrapers take them out. */
export class DeliveryHarness {
  readonly clock = new VirtualClock();
  readonly events: string[] = [];
  readonly disk: MemoryState | undefined;
  /** Called when a scrape that is being put together lets the event loop turn. */
  onTurn: () => void = () => {};
  onForgotten: (scraper: Scraper) => void = () => {};
  delivery: Delivery;

  constructor(options: { disk?: MemoryState | undefined } = { disk: new MemoryState() }) {
    this.disk = options.disk;
    this.delivery = this.#start();
  }

  /** Killed and started again: what was not written is gone. */
  restart(): void {
    this.delivery = this.#start();
  }

  count(event: string): number {
    return this.events.filter((seen) => seen === event).length;
  }

  /** An agent that has connected; what it is told. */
  connect(name: string): TestAgent {
    return new TestAgent(this, agentId(name)!);
  }

  async open(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<{ scrape: Scrape; taken: Taken }> {
    const { name = 'p', selection = '', samplesMax } = options;
    const { cursors, store } = this.delivery;
    const scrape = await cursors.open({ name, selection, connection, timeoutMs });
    if (scrape === undefined) throw new Error('no cursor');
    const agents = [...store.agents.values()].filter(({ id }) => selection === '' || id === selection);
    const take = { clock: this.clock, store, windowMs, turn: async () => this.onTurn() };
    return { scrape, taken: await takeNew(take, agents, scrape, samplesMax ?? scrape.samplesMax) };
  }

  /** A whole scrape; gives the times of each agent's reports that it took. The file has been written, if it can be. */
  async scrape(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<Record<string, number[]>> {
    const { scrape, taken } = await this.open(connection, options);
    scrape.finish(taken);
    await settle();
    return timesOf(taken);
  }

  /** A scrape over a connection that ends with it, all read: it is committed at once. */
  async scrapeAll(options: ScrapeOptions = {}): Promise<Record<string, number[]>> {
    const connection = connect();
    const times = await this.scrape(connection, options);
    this.delivery.cursors.closed(connection, { isAllRead: true });
    await settle();
    return times;
  }

  #start(): Delivery {
    return new Delivery({
      clock: this.clock,
      windowMs,
      disk: this.disk,
      store: {
        memoryBytesMax,
        forgetAfterMs: 24 * 3_600_000,
        onReport: (outcome) => this.events.push(outcome),
        onEvict: (reason, unscraped) => this.events.push(`evicted ${reason}${unscraped ? ' unscraped' : ''}`),
      },
      cursors: {
        turn: async () => {
          await new Promise((resolve) => setImmediate(resolve));
          await new Promise((resolve) => setImmediate(resolve));
        },
        delivered: () => true,
        onRollBack: (_scraper, kind) => this.events.push(`rolled back ${kind}`),
        onConflict: () => this.events.push('conflict'),
        onForgotten: (scraper) => this.onForgotten(scraper),
        onCommitted: () => this.events.push('committed'),
      },
      onStateWritten: () => this.events.push('written'),
      onStateError: (error) => this.events.push(`state: ${error instanceof Error ? error.message : error}`),
    });
  }
}

export interface ScrapeOptions {
  readonly name?: string;
  readonly selection?: string;
  readonly samplesMax?: number;
}

/** Times of the reports that a scrape has taken, of each agent that gave any. */
export function timesOf(taken: Taken): Record<string, number[]> {
  const entries = taken.batches
    .filter(({ agent }) => taken.taken.has(agent))
    .map(({ agent, runs }) => [agent, runs.flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs))]);
  return Object.fromEntries(entries);
}

export class TestAgent {
  readonly record: AgentRecord;
  readonly maker: ReportMaker;
  readonly acks: EpochSeq[] = [];
  readonly disconnect: () => void;
  readonly #harness: DeliveryHarness;

  constructor(harness: DeliveryHarness, id: AgentId, maker = new ReportMaker()) {
    this.#harness = harness;
    this.maker = maker;
    const { delivery } = harness;
    this.record = delivery.store.agent(id);
    delivery.store.begin(this.record, beginOf({ epoch: maker.epoch, labels: maker.labels }));
    this.disconnect = delivery.connect(this.record, (ack) => this.acks.push(ack));
    const ack = delivery.ack(this.record);
    if (ack !== undefined) this.acks.push(ack);
  }

  /** The newest sequence number of this epoch that it may forget; 0 for none. */
  get acked(): number {
    const last = this.acks.at(-1);
    return last?.epoch === this.maker.epoch ? last.seq : 0;
  }

  /** A report of now, or of another time. */
  report(timeMs = this.#harness.clock.nowMs()): number {
    const report = this.maker.make(timeMs, [this.maker.seq]);
    this.#harness.delivery.store.receive(this.record, { ...report, follows: false });
    return timeMs;
  }

  /** The connection after a restart, in the same epoch. */
  reconnect(): TestAgent {
    return new TestAgent(this.#harness, this.record.id, this.maker);
  }

  /** Which epoch this server knows up to which report: what a welcome says. */
  get last(): [number, number][] {
    return [...this.record.epochs];
  }
}
