import { agentId } from '../../model/agent-id.ts';
import { hostSourceName, isSourceName, parseStreamId, type StreamId } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import type { SavedAnswer, SavedCursor, SavedReceipt } from './cursors.ts';
import type { Positions } from './scraper.ts';

/** What a server knows after a restart: the cursors, and of each agent what the scrapers have. */
export interface SavedState {
  readonly savedAtMs: number;
  /** By what clock all times are; undefined where the host does not tell one boot from another. */
  readonly clock?: SavedClock;
  /** See `Delivery.serverId`. */
  readonly serverId: string;
  readonly cursors: readonly SavedCursor[];
  readonly agents: readonly SavedAgent[];
}

/** The wall clock when the state was written, measured by what no step of it changes. */
export interface SavedClock {
  readonly bootId: string;
  /** Wall clock minus uptime. */
  readonly aheadOfUptimeMs: number;
}

export interface SavedAgent {
  readonly name: string;
  /** When its last report came. */
  readonly reportAtMs: number;
  /** By source, the time of the newest report that every known scraper has. */
  readonly committedMs: readonly (readonly [source: string, ms: number])[];
  /** Of each epoch, in order: the last report that every known scraper has. */
  readonly epochs: readonly (readonly [epoch: number, seq: number])[];
  /** Of each epoch, what was added to its times. */
  readonly offsetsMs: readonly (readonly [epoch: number, offsetMs: number])[];
}

/** The file on disk; the simulation's is full at times, and loses what was not synced. */
export interface StateDisk {
  /** The file's text, or undefined if there is no file. Throws what is wrong with the file. */
  read(): string | undefined;
  /** Replaces the whole file, synced: it always has either the old text or the new. */
  write(text: string): Promise<void>;
}

/** The file exists and is damaged. */
export class StateFileError extends Error {
  override readonly name = 'StateFileError';
  readonly code = 'format';
}

const formatVersion = 4;

/** Writes the state when it has changed, one write at a time: changes during a write share the next one. */
export class StateFile {
  readonly #disk: StateDisk;
  readonly #compose: () => { readonly state: SavedState; readonly onSaved: () => void };
  readonly #onError: (error: unknown) => void;
  #changed = false;
  #writing: Promise<void> | undefined;

  constructor(options: {
    readonly disk: StateDisk;
    /** What is to be written, as of now, and what follows once it is on disk. */
    compose(): { readonly state: SavedState; readonly onSaved: () => void };
    /** A write failed. The next change tries again. */
    onError(error: unknown): void;
  }) {
    this.#disk = options.disk;
    this.#compose = options.compose;
    this.#onError = options.onError;
  }

  changed(): void {
    this.#changed = true;
    this.#writing ??= this.#write();
  }

  /** Resolves when everything up to now is on disk, or could not be written. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    // Changes of the same turn go into the same write.
    await Promise.resolve();
    while (this.#changed) {
      this.#changed = false;
      const { state, onSaved } = this.#compose();
      try {
        await this.#disk.write(encodeState(state));
        onSaved();
      } catch (error) {
        this.#onError(error);
        break;
      }
    }
    this.#writing = undefined;
  }
}

/** By how much the wall clock was set between two moments of one boot; 0 where it was not, or where nobody can tell. */
export function stepBetween(before: SavedClock | undefined, now: SavedClock | undefined): number {
  if (before === undefined || before.bootId !== now?.bootId) return 0;
  const stepMs = Math.round(now.aheadOfUptimeMs - before.aheadOfUptimeMs);
  return Math.abs(stepMs) > limits.clockOffsetIgnoredMs ? stepMs : 0;
}

/**
 * The state by a wall clock that was set by `stepMs` since it was written. `positionsMs`, at most 0: what positions are
 * moved by, so that none is ahead of what agents send again.
 */
export function stateByClock(
  state: SavedState,
  { stepMs, positionsMs }: { readonly stepMs: number; readonly positionsMs: number },
): SavedState {
  const moved = (times: Positions) => new Map([...times].map(([stream, ms]) => [stream, ms + positionsMs]));
  return {
    ...state,
    savedAtMs: state.savedAtMs + stepMs,
    cursors: state.cursors.map((cursor) => ({
      ...cursor,
      seenAtMs: cursor.seenAtMs + stepMs,
      positions: moved(cursor.positions),
      // Which reports are between two times by the clock before, nobody can tell: what has a receipt is given again.
      unconfirmed: cursor.unconfirmed
        .filter(({ receipt }) => receipt === undefined)
        .map(({ until, receipt }) => ({ until: moved(until), receipt })),
    })),
    agents: state.agents.map((agent) => ({
      ...agent,
      reportAtMs: agent.reportAtMs + stepMs,
      committedMs: agent.committedMs.map(([source, ms]) => [source, ms + positionsMs]),
      offsetsMs: agent.offsetsMs.map(([epoch, ms]) => [epoch, ms + stepMs]),
    })),
  };
}

export function encodeState(state: SavedState): string {
  const { savedAtMs, clock, serverId, cursors, agents } = state;
  const written = cursors.map(({ scraper: { space, text }, positions, unconfirmed, ...cursor }) => ({
    ...{ space, scraper: text, ...cursor },
    positions: Object.fromEntries(positions),
    unconfirmed: unconfirmed.map(({ until, receipt }) => ({
      until: Object.fromEntries(until),
      ...(receipt === undefined ? {} : { receipt: { ...receipt, from: Object.fromEntries(receipt.from) } }),
    })),
  }));
  return `${JSON.stringify({ version: formatVersion, savedAtMs, clock, serverId, cursors: written, agents })}\n`;
}

/** The state in a file's text. Throws a StateFileError that names the field. */
export function parseState(text: string): SavedState {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new StateFileError('not JSON', { cause: error });
  }
  const root = record(json, 'the file');
  if (root['version'] !== formatVersion) {
    throw new StateFileError(`'version' is ${JSON.stringify(root['version'])}, expected ${formatVersion}`);
  }
  return {
    savedAtMs: number(root['savedAtMs'], 'savedAtMs'),
    ...(root['clock'] !== undefined && { clock: parseClock(root['clock']) }),
    serverId: serverId(root['serverId'], 'serverId'),
    cursors: list(root['cursors'], 'cursors').map((value, at) => parseCursor(value, `cursors[${at}]`)),
    agents: list(root['agents'], 'agents').map((value, at) => parseAgent(value, `agents[${at}]`)),
  };
}

function parseClock(value: unknown): SavedClock {
  const clock = record(value, 'clock');
  return {
    bootId: string(clock['bootId'], 'clock.bootId'),
    aheadOfUptimeMs: number(clock['aheadOfUptimeMs'], 'clock.aheadOfUptimeMs'),
  };
}

function parseCursor(value: unknown, field: string): SavedCursor {
  const cursor = record(value, field);
  const space = spaces.find((each) => each === cursor['space']);
  if (space === undefined) throw new StateFileError(`${field}.space is none of ${spaces.join(', ')}`);
  return {
    scraper: { space, text: string(cursor['scraper'], `${field}.scraper`) },
    selection: string(cursor['selection'], `${field}.selection`),
    address: string(cursor['address'], `${field}.address`),
    seenAtMs: number(cursor['seenAtMs'], `${field}.seenAtMs`),
    isKnown: boolean(cursor['isKnown'], `${field}.isKnown`),
    positions: times(cursor['positions'], `${field}.positions`),
    unconfirmed: list(cursor['unconfirmed'], `${field}.unconfirmed`).map((answer, at) =>
      parseAnswer(answer, `${field}.unconfirmed[${at}]`),
    ),
  };
}

function parseAnswer(value: unknown, field: string): SavedAnswer {
  const { until, receipt } = record(value, field);
  return {
    until: times(until, `${field}.until`),
    receipt: receipt === undefined ? undefined : parseReceipt(receipt, `${field}.receipt`),
  };
}

function parseReceipt(value: unknown, field: string): SavedReceipt {
  const { numbers, from, samples, reports, sentAtMs, isStored } = record(value, field);
  return {
    numbers: list(numbers, `${field}.numbers`).map((each, at) => count(each, `${field}.numbers[${at}]`)),
    from: times(from, `${field}.from`),
    samples: count(samples, `${field}.samples`),
    reports: count(reports, `${field}.reports`),
    sentAtMs: number(sentAtMs, `${field}.sentAtMs`),
    isStored: boolean(isStored, `${field}.isStored`),
  };
}

const spaces = ['param', 'user', 'addr'] as const;

/** By stream. */
function times(value: unknown, field: string): Positions {
  const entries = Object.entries(record(value, field));
  return new Map(entries.map(([id, ms]) => [stream(id, field), number(ms, `${field}.${id}`)]));
}

function parseAgent(value: unknown, field: string): SavedAgent {
  const agent = record(value, field);
  return {
    name: name(string(agent['name'], `${field}.name`), `${field}.name`),
    reportAtMs: number(agent['reportAtMs'], `${field}.reportAtMs`),
    committedMs: list(agent['committedMs'], `${field}.committedMs`).map((pair, at) => {
      const [source, ms] = list(pair, `${field}.committedMs[${at}]`);
      return [
        sourceName(source, `${field}.committedMs[${at}][0]`),
        number(ms, `${field}.committedMs[${at}][1]`),
      ] as const;
    }),
    epochs: list(agent['epochs'], `${field}.epochs`).map((pair, at) => {
      const [epoch, seq] = list(pair, `${field}.epochs[${at}]`);
      return [count(epoch, `${field}.epochs[${at}][0]`), count(seq, `${field}.epochs[${at}][1]`)] as const;
    }),
    offsetsMs: list(agent['offsetsMs'], `${field}.offsetsMs`).map((pair, at) => {
      const [epoch, ms] = list(pair, `${field}.offsetsMs[${at}]`);
      return [count(epoch, `${field}.offsetsMs[${at}][0]`), number(ms, `${field}.offsetsMs[${at}][1]`)] as const;
    }),
  };
}

function record(value: unknown, field: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new StateFileError(`${field} is no object`);
}

function list(value: unknown, field: string): unknown[] {
  if (Array.isArray(value)) return value;
  throw new StateFileError(`${field} is no list`);
}

function number(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new StateFileError(`${field} is no number`);
}

function count(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new StateFileError(`${field} is no whole number`);
}

function boolean(value: unknown, field: string): boolean {
  if (typeof value === 'boolean') return value;
  throw new StateFileError(`${field} is neither true nor false`);
}

function string(value: unknown, field: string): string {
  if (typeof value === 'string') return value;
  throw new StateFileError(`${field} is no string`);
}

function serverId(value: unknown, field: string): string {
  const id = string(value, field);
  if (/^[0-9a-f]{16}$/.test(id)) return id;
  throw new StateFileError(`${field}: '${id}' is no server's id`);
}

function sourceName(value: unknown, field: string): string {
  const name = string(value, field);
  if (name === hostSourceName || isSourceName(1, name)) return name;
  throw new StateFileError(`${field}: '${name}' is no source's name`);
}

function name(value: string, field: string): string {
  const id = agentId(value);
  if (id === undefined) throw new StateFileError(`${field}: '${value}' is no agent's name`);
  return id;
}

function stream(text: string, field: string): StreamId {
  const parsed = parseStreamId(text);
  if (parsed === undefined) throw new StateFileError(`${field}: '${text}' is no stream's name`);
  return parsed.id;
}
