import type { Clock, Timer } from '../../../runtime/clock.ts';
import type { AgentRecord } from '../../delivery/agent-record.ts';
import type { Window } from '../../delivery/window.ts';
import type { StatusView } from '../api.ts';
import type { Reply } from '../reply.ts';
import {
  cellsOf,
  type FleetHost,
  type FleetQuery,
  fleetPage,
  type Joining,
  type Parts,
  parseFleetQuery,
  partsOf,
  rowHtml,
  type Table,
  tableOf,
  urlOf,
} from './fleet.ts';
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
 * again. Pages of one query share a view: which hosts it has, in which order, and what they are sent. While no page is open,
 * nothing is computed, and a minute later nothing held.
 */
export class LiveFleet {
  readonly #options: LiveFleetOptions;
  /** By the URLs of their queries. */
  readonly #views = new Map<string, View>();
  #revision = 0;
  #last: Look | undefined;
  /** The events of the last revisions, but for the order of hosts. */
  #events: string[] = [];
  #timer: Timer | undefined;
  /** When a page was rendered last, which may open. On the monotonic clock. */
  #renderedMs = -Infinity;

  constructor(options: LiveFleetOptions) {
    this.#options = options;
  }

  get viewerCount(): number {
    let count = 0;
    for (const { viewers } of this.#views.values()) count += viewers.size;
    return count;
  }

  get hasRoom(): boolean {
    return this.viewerCount < viewersMax;
  }

  /** The page at `/`, for this query. */
  page(query: string): Reply {
    const { clock, joining } = this.#options;
    const last = this.#last;
    const isFresh = last !== undefined && clock.monotonicMs() - last.atMs < freshMs;
    const look = isFresh ? last : this.#look();
    this.#renderedMs = clock.monotonicMs();
    this.#wait();
    const { cells, parts } = look;
    const parsed = parseFleetQuery(query);
    return fleetPage({
      ...{ cells, parts, joining, query: parsed },
      ...{ table: look.table(parsed), revision: this.#revision },
    });
  }

  /** A page of this query was opened that has all up to this revision. Returns what takes it away again. */
  open(viewer: Viewer, { revision, query: text }: { readonly revision: number; readonly query: string }): () => void {
    const query = parseFleetQuery(text);
    const key = urlOf(query);
    const table = this.#last?.table(query);
    const view = this.#views.get(key) ?? { query, viewers: new Set(), table };
    this.#views.set(key, view);
    view.viewers.add(viewer);
    const missed = this.#revision - revision;
    if (table === undefined || !(missed >= 0 && missed <= this.#events.length)) viewer.send(eventText('stale', {}));
    else if (missed > 0) {
      for (const event of this.#events.slice(-missed)) viewer.send(event);
      const changes: Changes = { revision: this.#revision, cells: {}, parts: {}, table: { ...table, rows: {} } };
      viewer.send(eventText('changes', changes));
    }
    this.#wait();
    return () => {
      view.viewers.delete(viewer);
      if (view.viewers.size === 0 && this.#views.get(key) === view) this.#views.delete(key);
    };
  }

  stop(): void {
    this.#timer?.cancel();
    this.#views.clear();
  }

  /** While a page is open, or was just rendered and may open. */
  #wait(): void {
    this.#timer ??= this.#options.clock.after(everyMs, () => {
      this.#timer = undefined;
      if (this.viewerCount > 0) this.#look();
      else if (this.#options.clock.monotonicMs() - this.#renderedMs >= openingMs) {
        this.#last = undefined;
        this.#events = [];
        return;
      }
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
      atMs: clock.monotonicMs(),
      cells: new Map(hosts.map((host) => [host.agent.name, cellsOf(host, nowMs)])),
      parts: partsOf(hosts, server, { words, plaintext, nowMs }),
      table: (query) => tableOf(hosts, query, nowMs),
    };
    this.#last = now;
    this.#revision++;
    if (before === undefined) return now;
    const changes: Changes = { revision: this.#revision, ...changesOf(before, now) };
    const event = eventText('changes', changes);
    this.#events = [...this.#events, event].slice(-eventsKept);
    for (const [key, view] of this.#views) {
      const own = changesOfView(view, { table: now.table(view.query), cells: now.cells, changes });
      const text = own === changes ? event : eventText('changes', own);
      for (const viewer of [...view.viewers]) if (!viewer.send(text)) view.viewers.delete(viewer);
      if (view.viewers.size === 0) this.#views.delete(key);
    }
    return now;
  }
}

/** The open pages of one query. */
interface View {
  readonly query: FleetQuery;
  readonly viewers: Set<Viewer>;
  /** What they show; undefined: they were sent to load themselves again. */
  table: Table | undefined;
}

/** What the pages show at one moment. */
interface Look extends Shown {
  /** On the monotonic clock. */
  readonly atMs: number;
  table(query: FleetQuery): Table;
}

interface Shown {
  /** By host, column by column. */
  readonly cells: ReadonlyMap<string, readonly string[]>;
  readonly parts: Parts;
}

/** What a page needs to be up to date again. */
export interface Changes {
  readonly revision: number;
  /** By host, and in it by column. HTML. */
  readonly cells: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Those that are not as before. */
  readonly parts: Partial<Parts>;
  /** Undefined: as before. */
  readonly table?: Table & {
    /** Of the hosts that it did not have, as far as they are known. HTML. */
    readonly rows: Readonly<Record<string, string>>;
  };
}

export function changesOf(before: Shown, now: Shown): Pick<Changes, 'cells' | 'parts'> {
  const cells: Record<string, Record<string, string>> = {};
  for (const [name, row] of now.cells) {
    const rowBefore = before.cells.get(name);
    if (rowBefore === undefined) continue;
    const changed = [...row.entries()].filter(([column, cell]) => rowBefore[column] !== cell);
    if (changed.length > 0) cells[name] = Object.fromEntries(changed);
  }
  const parts = Object.entries(now.parts).filter(([id, html]) => before.parts[id as keyof Parts] !== html);
  return { cells, parts: Object.fromEntries(parts) };
}

/** Of what has changed, what pages of this query show. They have it from now on. */
function changesOfView(
  view: View,
  { table, cells, changes }: { readonly table: Table; readonly changes: Changes } & Pick<Shown, 'cells'>,
): Changes {
  const before = view.table;
  view.table = table;
  const { names, of } = table;
  const isSame = before !== undefined && hasSameNames(before, table) && (names.length > 0 || before.of === of);
  if (isSame && names.length === of) return changes;
  const had = new Set(before?.names);
  const own = names.filter((name) => had.has(name) && changes.cells[name] !== undefined);
  const isNew = names.filter((name) => !had.has(name));
  return {
    ...changes,
    cells: Object.fromEntries(own.map((name) => [name, changes.cells[name]!])),
    ...(isSame
      ? {}
      : {
          table: { ...table, rows: Object.fromEntries(isNew.map((name) => [name, rowHtml(name, cells.get(name)!)])) },
        }),
  };
}

const hasSameNames = (a: Table, b: Table): boolean =>
  a.names.length === b.names.length && a.names.every((name, at) => name === b.names[at]);

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
// So long a page may take to open.
const openingMs = 60_000;
const eventsKept = openingMs / everyMs;
const viewersMax = 64;
