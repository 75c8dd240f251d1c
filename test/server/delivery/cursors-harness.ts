import { type AgentId, agentId } from '../../../src/model/agent-id.ts';
import { hostSourceName, type StreamId, streamId } from '../../../src/model/source.ts';
import type { Cursor } from '../../../src/server/delivery/cursor.ts';
import { type CursorChange, Cursors, type OpenedCursor } from '../../../src/server/delivery/cursors.ts';
import type { ConnectionEvent, ScrapeConnection, ScraperName } from '../../../src/server/delivery/scraper.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

export const windowMs = 30 * 60_000;
export const timeoutMs = 10_000;
export const minuteMs = 60_000;

export const agentA = agentId('a')!;
export const agentB = agentId('b')!;
export const hostOf = (agent: AgentId): StreamId => streamId(agent, hostSourceName);

/** Cursors over agents whose reports are only times, and what became of them. */
export class CursorsHarness {
  readonly clock = new VirtualClock();
  agentCount = 2;
  readonly reports = new Map<AgentId, number[]>();
  readonly events: string[] = [];
  readonly changes: CursorChange[] = [];
  cursors = this.restarted();

  /** A new server; nothing is restored. */
  restarted(): Cursors {
    return new Cursors({ windowMs, nowMs: this.clock.monotonicMs(), agentCount: () => this.agentCount });
  }

  /** The same after a restart with what was saved. */
  restart(): void {
    const saved = this.cursors.save(this.clock.monotonicMs(), this.clock.nowMs());
    this.cursors = this.restarted();
    this.#note(this.cursors.restore(saved, this.clock.monotonicMs(), this.clock.nowMs()));
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

  /** Undefined where there is no room for the name. */
  tryOpen(connection: ScrapeConnection, options: ScrapeOptions = {}): OpenScrape | undefined {
    const { name = 'p', space = 'param', selection = '' } = options;
    const { opened, changes } = this.cursors.open(
      { name: { space, text: name }, selection, connection, timeoutMs },
      this.clock.monotonicMs(),
    );
    this.#note(changes);
    return opened === undefined ? undefined : new OpenScrape(this, opened, options.reportsMax ?? Infinity);
  }

  open(connection: ScrapeConnection, options: ScrapeOptions = {}): OpenScrape {
    const open = this.tryOpen(connection, options);
    if (open === undefined) throw new Error('no cursor');
    return open;
  }

  /** A whole scrape. Gives the reports of agent a, as the others'. */
  scrape(connection: ScrapeConnection, options: ScrapeOptions = {}): number[] {
    const open = this.open(connection, options);
    open.finish();
    return open.given.get(agentA) ?? [];
  }

  /** A whole scrape over a connection that ends with it, all read. */
  scrapeOnce(options: ScrapeOptions = {}): number[] {
    const connection = connect();
    const given = this.scrape(connection, options);
    this.end(connection, 'half-closed');
    return given;
  }

  /** How a connection ends. By a FIN with every byte acknowledged, where it is one. */
  end(connection: ScrapeConnection, kind: ConnectionEvent['kind'] = 'reset'): void {
    const event: ConnectionEvent = kind === 'fin' ? { kind, isAcknowledged: true } : { kind };
    this.#note(this.cursors.ended(connection, event, this.clock.monotonicMs()));
  }

  tidy(forgotten: readonly AgentId[] = []): void {
    this.#note(this.cursors.tidy(forgotten.map(hostOf), this.clock.monotonicMs()));
  }

  forget(name: ScraperName): void {
    this.#note(this.cursors.forget(name));
  }

  step(deltaMs: number): void {
    this.clock.step(deltaMs);
    this.#note(this.cursors.clockStepped(deltaMs, this.clock.monotonicMs()));
  }

  finish(opened: OpenedCursor, until: ReadonlyMap<StreamId, number>, samples: number): void {
    this.#note(this.cursors.finish(opened, { until, samples }, this.clock.monotonicMs()));
  }

  abort(opened: OpenedCursor): void {
    this.#note(this.cursors.abort(opened, this.clock.monotonicMs()));
  }

  /** What acks of this agent may go up to. */
  confirmedMs(agent: AgentId = agentA): number {
    return this.cursors.confirmedMs(hostOf(agent), agent, this.clock.monotonicMs());
  }

  sentMs(agent: AgentId = agentA): number {
    return this.cursors.sentMs(hostOf(agent), agent, this.clock.monotonicMs());
  }

  /** The cursors of a name, over all selections. */
  all(name = 'p'): Cursor[] {
    return [...this.cursors.scrapers].filter((each) => each.name.text === name).flatMap((each) => [...each.all()]);
  }

  #note(changes: readonly CursorChange[]): void {
    for (const change of changes) {
      this.changes.push(change);
      const name = change.scraper.name.text;
      if (change.kind === 'lost') this.events.push(`lost ${name} ${change.how}`);
      else if (change.kind === 'address taken over') this.events.push(`${name} took over ${change.from}`);
      else this.events.push(`${change.kind} ${name}`);
    }
  }
}

export interface ScrapeOptions {
  readonly name?: string;
  readonly space?: ScraperName['space'];
  readonly selection?: string;
  /** Of each agent. */
  readonly reportsMax?: number;
}

/** A scrape for which the reports have been taken. */
export class OpenScrape {
  readonly opened: OpenedCursor;
  readonly given = new Map<AgentId, number[]>();
  readonly #harness: CursorsHarness;

  constructor(harness: CursorsHarness, opened: OpenedCursor, reportsMax: number) {
    this.#harness = harness;
    this.opened = opened;
    for (const [agent, times] of harness.reports) {
      if (!opened.cursor.selects(agent)) continue;
      const after = times.filter((ms) => ms > opened.cursor.positionMs(hostOf(agent))).slice(0, reportsMax);
      if (after.length > 0) this.given.set(agent, after);
    }
  }

  get cursor(): Cursor {
    return this.opened.cursor;
  }

  finish({ samples = 0 } = {}): void {
    this.cursor.pace.arrived({ samples: 0, bytes: 0, decodedBytes: 0 });
    const until = new Map([...this.given].map(([agent, times]) => [hostOf(agent), times.at(-1)!] as const));
    this.#harness.finish(this.opened, until, samples);
  }

  abort(): void {
    this.#harness.abort(this.opened);
  }
}

export const connect = (address = '192.0.2.1'): ScrapeConnection => ({ address });
