import type { AgentId } from '../../model/agent-id.ts';
import { agentId } from '../../model/agent-id.ts';
import type { EpochSeq } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import { Cursors, type ScrapeConnection as CursorsConnection, type CursorsOptions, type Scraper } from './cursors.ts';
import { takeNew } from './scrape.ts';
import type { ConnectionEvent, Scrape, ScrapeConnection, ScrapeRequest } from './scraper.ts';
import { parseState, type SavedAgent, type SavedState, type StateDisk, StateFile } from './state-file.ts';
import { type AgentRecord, Store, type StoreOptions } from './store.ts';

/**
 * The promise of the whole program in one place: an agent is told that a report has arrived when every known scraper has
 * it and the disk knows so, or when it was evicted, or when nobody scrapes. So a server that is killed loses nothing:
 * agents send again what was not scraped.
 *
 *     report ─▶ window ─▶ scrape ─▶ cursors ─▶ file ─▶ ack
 */
export class Delivery {
  readonly store: Store;
  readonly cursors: Cursors;
  readonly #options: DeliveryOptions;
  readonly #file: StateFile | undefined;
  readonly #live = new Map<AgentId, Acknowledge>();
  /** Up to when the file says that the scrapers had an agent's reports. */
  readonly #durableMs = new Map<AgentId, number>();
  readonly #ackFromMonotonicMs: number;
  readonly #connections = new WeakMap<ScrapeConnection, CursorsConnection>();

  constructor(options: DeliveryOptions) {
    this.#options = options;
    const { clock, windowMs } = options;
    this.store = new Store({
      ...options.store,
      clock,
      windowMs,
      wantedAfterMs: (agent, reason) => this.cursors.wantedAfterMs(agent, reason),
      onReceived: (agent) => this.#acknowledge(agent),
    });
    this.cursors = new Cursors({
      ...options.cursors,
      clock,
      windowMs,
      newAgents: (selection) => this.#withReports(selection),
      onChanged: () => this.#file?.changed(),
      onCommitted: (scraper, taken) => {
        options.cursors.onCommitted(scraper);
        for (const id of taken.keys()) this.#acknowledgeId(id);
      },
    });
    const { disk } = options;
    if (disk !== undefined) {
      this.#file = new StateFile({
        disk,
        compose: () => this.#compose(),
        onError: (error) => options.onStateError(error),
      });
    }
    this.#restore();
    this.#ackFromMonotonicMs = clock.monotonicMs() + ackHoldMs;
  }

  /** An agent is connected: `acknowledge` is called whenever there is more to acknowledge. Returns what undoes it. */
  connect(agent: AgentRecord, acknowledge: Acknowledge): () => void {
    this.#live.set(agent.id, acknowledge);
    return () => {
      if (this.#live.get(agent.id) === acknowledge) this.#live.delete(agent.id);
    };
  }

  /** What this agent may be told now. */
  ack(agent: AgentRecord): EpochSeq | undefined {
    return agent.ack(this.#ackMs(agent.id));
  }

  /**
   * Begins a scrape and puts together what this scraper has not had. Undefined when there are as many scrapers as there
   * may be: that one gets the newest values instead.
   */
  async openScrape(request: ScrapeRequest): Promise<Scrape | undefined> {
    const { clock, windowMs, turn } = { ...this.#options, ...this.#options.cursors };
    const selection = [...request.selection].sort().join(',');
    const connection = this.#connection(request.connection);
    const { timeoutMs } = request;
    const open = await this.cursors.open({ name: request.name.text, selection, connection, timeoutMs });
    if (open === undefined) return undefined;
    const agents = [...this.store.agents.values()].filter(
      ({ id }) => request.selection.length === 0 || request.selection.includes(id),
    );
    const samplesMax = request.samplesMax ?? open.samplesMax;
    const taken = await takeNew({ clock, store: this.store, windowMs, turn }, agents, open, samplesMax);
    return { ...taken, intervalMs: open.intervalMs, finish: () => open.finish(taken), abort: () => open.abort() };
  }

  /** A connection over which scrapes came has ended. Whichever event comes first counts. */
  connectionEvent(connection: ScrapeConnection, event: ConnectionEvent): void {
    this.cursors.closed(this.#connection(connection), { isAllRead: event.kind === 'half-closed' });
  }

  #connection(connection: ScrapeConnection): CursorsConnection {
    const known = this.#connections.get(connection) ?? { closed: false };
    this.#connections.set(connection, known);
    return known;
  }

  /** What has left the windows, cursors out of use, agents long gone. Called once in a while. */
  tidy(): void {
    const forgotten = this.store.tidy();
    this.#forgotten(forgotten);
    // Cursors that have just stopped to hold acks, and a first wait that is over, give no event of their own.
    for (const agent of this.store.agents.values()) this.#acknowledge(agent);
  }

  /** At once: its reports, its cursors' positions. */
  forget(id: AgentId): void {
    this.store.forget(id);
    this.#forgotten([id]);
  }

  /** Resolves when what is known is on disk. */
  async flush(): Promise<void> {
    this.#file?.changed();
    await this.#file?.flush();
  }

  #forgotten(ids: readonly AgentId[]): void {
    this.cursors.tidy(ids);
    for (const id of ids) this.#durableMs.delete(id);
    if (ids.length > 0) this.#file?.changed();
  }

  #withReports(selection: string): AgentId[] {
    const ids: AgentId[] = [];
    for (const { id, window } of this.store.agents.values()) {
      if (window.reportCount > 0 && (selection === '' || selection === id)) ids.push(id);
    }
    return ids;
  }

  #ackMs(id: AgentId): number {
    const committedMs = this.#sureMs(this.cursors.committedMs(id));
    if (this.#file === undefined || !Number.isFinite(committedMs)) return committedMs;
    return Math.min(committedMs, this.#durableMs.get(id) ?? -Infinity);
  }

  /** Infinity says that nobody scrapes, as far as is known: for a while after the start, that is no knowledge. */
  #sureMs(committedMs: number): number {
    const isSure = committedMs !== Infinity || this.#options.clock.monotonicMs() >= this.#ackFromMonotonicMs;
    return isSure ? committedMs : -Infinity;
  }

  #acknowledgeId(id: AgentId): void {
    const agent = this.store.agents.get(id);
    if (agent !== undefined) this.#acknowledge(agent);
  }

  #acknowledge(agent: AgentRecord): void {
    const acknowledge = this.#live.get(agent.id);
    if (acknowledge === undefined) return;
    const ack = this.ack(agent);
    if (ack !== undefined) acknowledge(ack);
  }

  #compose(): { state: SavedState; onSaved: () => void } {
    const savedMs = new Map<AgentId, number>();
    const agents: SavedAgent[] = [];
    for (const agent of this.store.agents.values()) {
      const ms = this.#sureMs(this.cursors.savedMs(agent.id));
      savedMs.set(agent.id, ms);
      agents.push(savedAgent(agent, ms));
    }
    return {
      state: { savedAtMs: this.#options.clock.nowMs(), cursors: this.cursors.save(), agents },
      onSaved: () => {
        this.#options.onStateWritten();
        for (const [id, ms] of savedMs) {
          // Of a scraper that has come since, a file in which nobody scrapes says nothing.
          if (Number.isFinite(ms)) this.#durableMs.set(id, ms);
          else this.#durableMs.delete(id);
        }
        for (const agent of this.store.agents.values()) this.#acknowledge(agent);
      },
    };
  }

  /** From the file of the server before. One that cannot be understood is reported, and counts as none. */
  #restore(): void {
    let state: SavedState;
    try {
      const text = this.#options.disk?.read();
      if (text === undefined) return;
      state = parseState(text);
    } catch (error) {
      return this.#options.onStateError(error);
    }
    this.cursors.restore(state.cursors);
    for (const saved of state.agents) {
      const id = agentId(saved.name);
      if (id === undefined) continue;
      const agent = this.store.agent(id);
      agent.reportAtMs = saved.reportAtMs;
      if (saved.committedMs !== undefined) {
        agent.newestMs = saved.committedMs;
        this.#durableMs.set(id, saved.committedMs);
      }
      for (const [epoch, seq] of saved.epochs) {
        agent.epochs.set(epoch, seq);
        agent.evicted = { epoch, seq, timeMs: agent.newestMs };
      }
    }
  }
}

export type Acknowledge = (ack: EpochSeq) => void;

export interface DeliveryOptions {
  readonly clock: Clock;
  readonly windowMs: number;
  /** Where cursors are kept; undefined: in memory alone. */
  readonly disk: StateDisk | undefined;
  readonly store: Pick<StoreOptions, 'memoryBytesMax' | 'forgetAfterMs' | 'onReport' | 'onEvict'>;
  readonly cursors: Pick<CursorsOptions, 'turn' | 'delivered' | 'onRollBack' | 'onConflict' | 'onForgotten'> & {
    onCommitted(scraper: Scraper): void;
  };
  onStateWritten(): void;
  /** The file could not be read, or not be written: acks wait until it can. */
  onStateError(error: unknown): void;
}

// A scraper that was there may not have come yet, without a file from before or after a long rest: three scrapes at 15 s.
const ackHoldMs = 45_000;

/** What of this agent every known scraper had: up to `hadMs`. */
function savedAgent(agent: AgentRecord, hadMs: number): SavedAgent {
  const ack = agent.ack(hadMs);
  const epochs: [number, number][] = [];
  if (ack !== undefined) {
    for (const [epoch, seq] of agent.epochs) {
      if (epoch === ack.epoch) break;
      // Begun before it, so all of it was had before it.
      if (agent.epochs.has(ack.epoch)) epochs.push([epoch, seq]);
    }
    epochs.push([ack.epoch, ack.seq]);
  }
  const had = agent.window.receipt(hadMs) ?? agent.evicted;
  const committedMs = agent.window.reportCount === 0 ? agent.newestMs : (had?.timeMs ?? -Infinity);
  return {
    name: agent.id,
    reportAtMs: agent.reportAtMs,
    ...(Number.isFinite(committedMs) ? { committedMs } : {}),
    epochs,
  };
}
