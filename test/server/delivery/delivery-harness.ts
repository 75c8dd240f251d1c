import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import type { EpochSeq } from '../../../src/protocol/messages.ts';
import type { AgentRecord } from '../../../src/server/delivery/agent-record.ts';
import type { CursorChange } from '../../../src/server/delivery/cursors.ts';
import { Delivery } from '../../../src/server/delivery/delivery.ts';
import type { ReceiptEvent, ScraperDatabase } from '../../../src/server/delivery/receipts.ts';
import type { Scrape, ScrapeConnection } from '../../../src/server/delivery/scraper.ts';
import type { StateDisk } from '../../../src/server/delivery/state-file.ts';
import { beginOf } from '../../support/groups.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';
import { connect, hostOf, timeoutMs, windowMs } from './cursors-harness.ts';
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
  /** Another one after each boot of its host. */
  bootId = 'boot 1';
  /** Called when a scrape that is being put together lets the event loop turn. */
  onTurn: () => void = () => {};
  onCursorChange: (change: CursorChange) => void = () => {};
  delivery: Delivery;

  /** Those whose receipts confirm. */
  readonly databases = new Map<string, ScraperDatabase>();
  readonly receiptEvents: ReceiptEvent[] = [];

  readonly #memoryBytesMax: number;

  constructor(
    options: { disk?: MemoryState | undefined; memoryBytesMax?: number | undefined } = { disk: new MemoryState() },
  ) {
    this.disk = options.disk;
    this.#memoryBytesMax = options.memoryBytesMax ?? memoryBytesMax;
    this.delivery = this.#start();
  }

  /** Killed and started again: what was not written is gone. */
  restart(): void {
    this.delivery.stop();
    this.delivery = this.#start();
  }

  count(event: string): number {
    return this.events.filter((seen) => seen === event).length;
  }

  /** An agent that has connected; what it is told. */
  connect(name: string): TestAgent {
    return new TestAgent(this, agentId(name)!);
  }

  async open(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<Scrape> {
    const { name = 'p', selection = [], ...bounds } = options;
    const scrape = await this.delivery.openScrape({
      ...{ name: { space: 'param', text: name }, selection, connection, timeoutMs },
      ...bounds,
    });
    if (scrape === undefined) throw new Error('no cursor');
    return scrape;
  }

  /** A whole scrape; gives the times of each agent's reports that it took. The file has been written, if it can be. */
  async scrape(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<Record<string, number[]>> {
    const scrape = await this.open(connection, options);
    scrape.finish();
    await settle();
    return timesOf(scrape);
  }

  /** A scrape over a connection that ends with it, all read: it is confirmed at once. */
  async scrapeAll(options: ScrapeOptions = {}): Promise<Record<string, number[]>> {
    const connection = connect();
    const times = await this.scrape(connection, options);
    await this.end(connection, 'half-closed');
    return times;
  }

  /** The connection ends, and what follows from it has happened. */
  async end(connection: ScrapeConnection, kind: 'half-closed' | 'reset' = 'reset'): Promise<void> {
    this.delivery.connectionEvent(connection, { kind });
    await settle();
  }

  #start(): Delivery {
    return new Delivery({
      databases: this.databases,
      onReceiptEvent: (_, event) => this.receiptEvents.push(event),
      clock: this.clock,
      random: Math.random,
      hostBoot: { id: this.bootId, uptimeMs: () => this.clock.monotonicMs() },
      windowMs,
      disk: this.disk,
      store: {
        memoryBytesMax: this.#memoryBytesMax,
        forgetAfterMs: 24 * 3_600_000,
        onReport: (outcome) => this.events.push(outcome),
        onEvict: (reason, unscraped) => this.events.push(`evicted ${reason}${unscraped ? ' unscraped' : ''}`),
      },
      lookAtClock: () => {},
      turn: async () => this.onTurn(),
      onCursorChange: (change) => {
        this.events.push(change.kind === 'lost' ? `lost ${change.how}` : change.kind);
        this.onCursorChange(change);
      },
      onStateWritten: () => this.events.push('written'),
      onStateError: (error) => this.events.push(`state: ${error instanceof Error ? error.message : error}`),
    });
  }
}

export interface ScrapeOptions {
  readonly name?: string;
  readonly selection?: readonly AgentId[];
  readonly samplesMax?: number;
  readonly bytesMax?: number;
  readonly reportsMax?: number;
  readonly takesAnyOrder?: boolean;
}

/** Times of the new reports that a scrape gives, of each agent that gives any. */
export function timesOf({ batches, until }: Scrape): Record<string, number[]> {
  const entries = batches
    .filter(({ agent }) => until.has(hostOf(agent)))
    .map(({ agent, runs }) => [agent, runs.flatMap(({ reports }) => reports.map(({ timeMs }) => timeMs))]);
  return Object.fromEntries(entries);
}

export class TestAgent {
  readonly record: AgentRecord;
  readonly maker: ReportMaker;
  readonly acks: EpochSeq[] = [];
  readonly disconnect: () => void;
  readonly #harness: Pick<DeliveryHarness, 'clock' | 'delivery'>;

  constructor(
    harness: Pick<DeliveryHarness, 'clock' | 'delivery'>,
    id: AgentId,
    maker = new ReportMaker(),
    offsetMs = 0,
  ) {
    this.#harness = harness;
    this.maker = maker;
    const { delivery } = harness;
    this.record = delivery.store.agent(id);
    delivery.begin(this.record, beginOf({ epoch: maker.epoch, labels: maker.labels, offsetMs }));
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
    this.#harness.delivery.store.receive(this.record.host, { ...report, follows: false });
    return timeMs;
  }

  /** The connection after a restart, in the same epoch, whose times may have to be moved by then. */
  reconnect({ offsetMs = 0 } = {}): TestAgent {
    return new TestAgent(this.#harness, this.record.id, this.maker, offsetMs);
  }

  /** Which epoch this server knows up to which report: what a welcome says. */
  get last(): [number, number][] {
    return [...this.record.epochs];
  }
}
