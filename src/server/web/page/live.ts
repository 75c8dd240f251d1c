import type { Clock, Timer } from '../../../runtime/clock.ts';
import type { AgentRecord } from '../../delivery/agent-record.ts';
import type { Window } from '../../delivery/window.ts';
import type { ServerStatus } from '../../status.ts';
import type { StatusView } from '../api.ts';
import type { Reply } from '../reply.ts';
import { cellsOf, type FleetHost, fleetPage, type Joining, parseFleetQuery, problemsHtml } from './fleet.ts';
import { cpuTrend, hostView } from './hosts.ts';
import type { Point } from './spark.ts';

/** Where the changes of an open page go. */
export interface Viewer {
  /** Sends an event; false: it reads too slowly, and is cut off. */
  send(event: string): boolean;
}

export interface LiveFleetOptions {
  readonly clock: Clock;
  readonly status: StatusView;
  readonly records: ReadonlyMap<string, AgentRecord>;
  readonly plaintext: boolean;
  readonly joining: Joining;
}

/**
 * The fleet's pages that are open: each gets what has changed since it was rendered, cell by cell.
 *
 *     page, revision 7 ──events since 7──▶ viewer ◀── changes to 8, 9, … every few seconds
 *
 * A page is rendered of a revision, and asks for what came after it: the last few are kept. One that is older loads itself
 * again. While no page is open, nothing is computed and nothing held.
 */
export class LiveFleet {
  readonly #options: LiveFleetOptions;
  readonly #viewers = new Set<Viewer>();
  #revision = 0;
  #last: Look | undefined;
  /** The events of the last revisions. */
  #events: string[] = [];
  #timer: Timer | undefined;

  constructor(options: LiveFleetOptions) {
    this.#options = options;
  }

  get viewerCount(): number {
    return this.#viewers.size;
  }

  get hasRoom(): boolean {
    return this.#viewers.size < viewersMax;
  }

  /** The page at `/`, for this query. */
  page(query: string): Reply {
    const { clock, joining } = this.#options;
    const last = this.#last;
    const isFresh = last !== undefined && clock.monotonicMs() - last.atMs < freshMs;
    const { hosts, server, cells, problems } = isFresh ? last : this.#look();
    this.#wait();
    return fleetPage({
      ...{ server, hosts, joining, cells, problems },
      ...{ query: parseFleetQuery(query), revision: this.#revision, nowMs: clock.nowMs() },
    });
  }

  /** A page was opened that has all up to this revision. Returns what takes it away again. */
  open(viewer: Viewer, revision: number): () => void {
    this.#viewers.add(viewer);
    const missed = this.#revision - revision;
    if (missed >= 0 && missed <= this.#events.length) {
      for (const event of this.#events.slice(this.#events.length - missed)) viewer.send(event);
    } else viewer.send(eventText('stale', {}));
    this.#wait();
    return () => {
      this.#viewers.delete(viewer);
    };
  }

  stop(): void {
    this.#timer?.cancel();
    this.#viewers.clear();
  }

  /** While a page is open, or was just rendered and may open. */
  #wait(): void {
    this.#timer ??= this.#options.clock.after(everyMs, () => {
      this.#timer = undefined;
      if (this.#viewers.size === 0) {
        this.#last = undefined;
        this.#events = [];
        return;
      }
      this.#look();
      this.#wait();
    });
  }

  /** A new revision: what has changed goes to every page. */
  #look(): Look {
    const { clock, status, records, plaintext } = this.#options;
    const nowMs = clock.nowMs();
    const server = status.server();
    const words = status.problems;
    const hosts = status.agents().map((agent): FleetHost => {
      const record = records.get(agent.name);
      return { ...hostView(agent, record, words), trend: record === undefined ? [] : trendOf(record.host.window) };
    });
    const before = this.#last;
    const now: Look = {
      ...{ hosts, server, atMs: clock.monotonicMs() },
      cells: new Map(hosts.map((host) => [host.agent.name, cellsOf(host, nowMs)])),
      problems: problemsHtml(hosts, server, { words, plaintext }),
    };
    this.#last = now;
    this.#revision++;
    if (before === undefined) return now;
    const event = eventText('changes', { revision: this.#revision, ...changesOf(before, now) });
    this.#events = [...this.#events, event].slice(-eventsKept);
    for (const viewer of [...this.#viewers]) if (!viewer.send(event)) this.#viewers.delete(viewer);
    return now;
  }
}

/** What the pages show at one moment. */
interface Look extends Shown {
  readonly hosts: readonly FleetHost[];
  readonly server: ServerStatus;
  /** On the monotonic clock. */
  readonly atMs: number;
}

interface Shown {
  /** By host, column by column. */
  readonly cells: ReadonlyMap<string, readonly string[]>;
  readonly problems: string;
}

/** What a page needs to be up to date again. */
export interface Changes {
  /** By host, and in it by column. HTML. */
  readonly cells: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** HTML; undefined: as before. */
  readonly problems?: string;
  /** A host is new, or gone: the table is another one. */
  readonly isOther: boolean;
}

export function changesOf(before: Shown, now: Shown): Changes {
  const cells: Record<string, Record<string, string>> = {};
  for (const [name, row] of now.cells) {
    const rowBefore = before.cells.get(name);
    if (rowBefore === undefined) continue;
    const changed = [...row.entries()].filter(([column, cell]) => rowBefore[column] !== cell);
    if (changed.length > 0) cells[name] = Object.fromEntries(changed);
  }
  const isOther = before.cells.size !== now.cells.size || [...now.cells.keys()].some((name) => !before.cells.has(name));
  return { cells, isOther, ...(before.problems === now.problems ? {} : { problems: now.problems }) };
}

/** An event of a text/event-stream. */
export const eventText = (name: string, data: unknown): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

/** A trend changes with each chunk of a window: until then it is kept. */
function trendOf(window: Window): readonly Point[] {
  const known = trends.get(window);
  if (known !== undefined && known.chunkMs === window.newestChunkMs) return known.points;
  const points = cpuTrend(window);
  trends.set(window, { chunkMs: window.newestChunkMs, points });
  return points;
}

const trends = new WeakMap<Window, { readonly chunkMs: number | undefined; readonly points: readonly Point[] }>();

const everyMs = 5000;
// Pages that are asked for at once are of one revision.
const freshMs = 1000;
// As many as a page may take a minute to open.
const eventsKept = 12;
const viewersMax = 64;
