import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import { Cursors, type Scrape, type ScrapeConnection } from '../../../src/server/delivery/cursors.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

export const windowMs = 30 * 60_000;
export const timeoutMs = 10_000;
export const minuteMs = 60_000;

export const agentA = agentId('a')!;
export const agentB = agentId('b')!;

/** Cursors over agents whose reports are only times, and what became of them. */
export class CursorsHarness {
  readonly clock = new VirtualClock();
  readonly reports = new Map<AgentId, number[]>();
  /** Connections whose peer's kernel has not confirmed what was sent. */
  readonly undelivered = new Set<ScrapeConnection>();
  readonly events: string[] = [];
  /** Happens in the next turn of the event loop that is waited for. */
  inTurn: (() => unknown) | undefined;
  cursors = this.restarted();

  /** A new server; nothing is restored. */
  restarted(): Cursors {
    return new Cursors({
      clock: this.clock,
      windowMs,
      turn: async () => {
        const { inTurn } = this;
        this.inTurn = undefined;
        await inTurn?.();
        await new Promise<void>((resolve) => setImmediate(resolve));
      },
      delivered: (connection) => !this.undelivered.has(connection),
      newAgents: (selection) => [...this.reports.keys()].filter((id) => selection === '' || selection === id),
      onChanged: () => this.events.push('changed'),
      onCommitted: ({ name }) => this.events.push(`committed ${name}`),
      onRollBack: ({ name }, kind) => this.events.push(`rolled back ${name} ${kind}`),
      onConflict: ({ name }) => this.events.push(`conflict ${name}`),
      onForgotten: ({ name }) => this.events.push(`forgotten ${name}`),
    });
  }

  /** How often this was seen. */
  count(event: string): number {
    return this.events.filter((seen) => seen === event).length;
  }

  /** A report of an agent, now. */
  report(agent: AgentId = agentA): number {
    const ms = this.clock.nowMs();
    this.reports.set(agent, [...(this.reports.get(agent) ?? []), ms]);
    return ms;
  }

  async open(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<OpenScrape> {
    const { name = 'p', selection = '' } = options;
    const scrape = await this.cursors.open({ name, selection, connection, timeoutMs });
    if (scrape === undefined) throw new Error('no cursor');
    return new OpenScrape(scrape, this.reports, options.reportsMax ?? Infinity);
  }

  /** A whole scrape. Gives the reports of agent a, as the others'. */
  async scrape(connection: ScrapeConnection, options: ScrapeOptions = {}): Promise<number[]> {
    const open = await this.open(connection, options);
    open.finish();
    return open.given.get(agentA) ?? [];
  }

  /** A whole scrape over a connection that ends with it, all read. */
  async scrapeOnce(options: ScrapeOptions = {}): Promise<void> {
    const connection = connect();
    await this.scrape(connection, options);
    this.cursors.closed(connection, { isAllRead: true });
  }
}

export interface ScrapeOptions {
  readonly name?: string;
  readonly selection?: string;
  /** Of each agent. */
  readonly reportsMax?: number;
}

/** A scrape for which the reports have been taken. */
export class OpenScrape {
  readonly scrape: Scrape;
  readonly given = new Map<AgentId, number[]>();

  constructor(scrape: Scrape, reports: ReadonlyMap<AgentId, readonly number[]>, reportsMax: number) {
    this.scrape = scrape;
    for (const [agent, times] of reports) {
      const after = times.filter((ms) => ms > scrape.afterMs(agent)).slice(0, reportsMax);
      if (after.length > 0) this.given.set(agent, after);
    }
  }

  finish(arrivedSamples = 0): void {
    const taken = new Map<AgentId, number>();
    for (const [agent, times] of this.given) taken.set(agent, times.at(-1)!);
    this.scrape.finish({ taken, arrivedSamples });
  }
}

export const connect = (): ScrapeConnection => ({ closed: false });
