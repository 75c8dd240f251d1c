import { agentId, agentIdRule } from '../model/agent-id.ts';
import { type Family, metricTypes } from '../model/family.ts';
import { type SeriesGroup, suffixesOf } from '../model/series.ts';
import { hostSourceId, hostSourceName, isSourceName, type Labels } from '../model/source.ts';
import { ProtocolError, shown } from './errors.ts';
import {
  anyCount,
  anyInteger,
  array,
  bad,
  type IntegerRange,
  integer,
  positive,
  refusal,
  shortString,
  string,
  strings,
} from './fields.ts';
import { limits } from './limits.ts';
import { isLabelName } from './names.ts';

/** The version of the wire that this program speaks. */
export const protocolVersion = 1;

/**
 * A kind of message: its numbers on the wire, what its frame may hold, how it is read and written. Adding a row to one of
 * the two tables below adds a message, and the compiler lists the places that have to handle it ({@link Handlers}).
 */
interface MessageKind<M extends Message> {
  /** What stands first in the payload; the first of them where there are several. */
  readonly numbers: readonly [number, ...number[]];
  readonly payloadBytesMax: number;
  /** The bytes of one string; undefined where the kind has none at all. */
  readonly stringBytesMax: number | undefined;
  /** `fields` has been decoded and is otherwise unchecked; its first is one of the numbers. */
  read(fields: readonly unknown[]): M;
  /** The fields, the number first. */
  write(message: M): readonly unknown[];
}

interface Message {
  readonly kind: string;
}

/** The first message: who connects. */
export interface Hello {
  readonly kind: 'hello';
  readonly version: number;
  readonly agentName: string;
  readonly hostId: string;
  /** For people: `sysmon-agent 0.1.0`. */
  readonly software: string;
}

/** A source's reports of an epoch come next. Its schema and sums are empty, and so are all others' if the epoch is new. */
export interface Begin {
  readonly kind: 'begin';
  /** One run of an agent on one clock: a random integer of 53 bits. */
  readonly epoch: number;
  readonly source: number;
  readonly name: string;
  readonly intervalMs: number;
  /** On every series of the source. */
  readonly labels: Labels;
  /** What is added to the times of this epoch. */
  readonly offsetMs: number;
}

/** Series that the source's reports have from now on, behind those declared before. */
export interface SchemaMessage {
  readonly kind: 'schema';
  readonly source: number;
  readonly groups: readonly SeriesGroup[];
}

export interface ReportMessage {
  readonly kind: 'report';
  /** A key report first makes every series present with sum 0. */
  readonly key: boolean;
  readonly source: number;
  readonly seq: number;
  readonly timeMs: number;
  readonly pairs: Pairs;
}

/** A skip, then a delta, a sum, or nil for absent (README.md, reports). */
export type Pairs = readonly (number | null)[];

export interface Ping {
  readonly kind: 'ping';
  readonly nonce: number;
  /** Reports in the agent's spool that are not acknowledged. */
  readonly spoolReports: number;
  /** Reports that the agent has dropped since it was started. */
  readonly droppedReports: number;
}

export interface Welcome {
  readonly kind: 'welcome';
  readonly version: number;
  readonly epochs: readonly EpochSeq[];
  readonly nowMs: number;
}

export interface EpochSeq {
  readonly epoch: number;
  /** The last report received of it, 0 for none. */
  readonly seq: number;
}

export interface Ack {
  readonly kind: 'ack';
  readonly epoch: number;
  readonly seq: number;
}

export interface ErrorMessage {
  readonly kind: 'error';
  readonly code: string;
  readonly text: string;
}

export interface Pong {
  readonly kind: 'pong';
  readonly nonce: number;
  readonly nowMs: number;
}

/** Reports that were received and not stored, since the last such message. */
export interface Refused {
  readonly kind: 'refused';
  readonly reason: string;
  readonly count: number;
  /** The times of the oldest and the newest of them. */
  readonly firstMs: number;
  readonly lastMs: number;
  /** The reason, for people. */
  readonly text: string;
}

/** A kind that this version does not know: checked like any other, then skipped. */
export interface Unknown {
  readonly kind: 'unknown';
  readonly number: number;
}

/** What agents send. */
export const agentKinds = {
  hello: kind<Hello>({
    numbers: [1],
    payloadBytesMax: limits.helloBytesMax,
    stringBytesMax: limits.helloBytesMax,
    read(fields) {
      // Before all else: what the other fields of another version mean is not ours to judge.
      const version = integer(fields[1], 'hello version', anyInteger);
      if (version < 1) throw new ProtocolError('version', `hello version: was ${version}, expected 1 or more`);
      const agentName = string(fields[2], 'hello agentName');
      if (agentId(agentName) === undefined) throw bad('hello agentName', agentName, agentIdRule);
      const hostId = shortString(fields[3], 'hello hostId', limits.hostIdBytesMax);
      const software = shortString(fields[4], 'hello software', limits.softwareBytesMax);
      return { kind: 'hello', version, agentName, hostId, software };
    },
    write: ({ version, agentName, hostId, software }) => [1, version, agentName, hostId, software],
  }),
  begin: kind<Begin>({
    numbers: [2],
    payloadBytesMax: limits.smallFrameBytesMax,
    stringBytesMax: limits.stringBytesMax,
    read(fields) {
      const epoch = integer(fields[1], 'begin epoch', anyCount);
      const source = integer(fields[2], 'begin source', anyCount);
      const name = string(fields[3], 'begin name');
      if (!isSourceName(source, name)) {
        const other = `1 to ${limits.sourceNameCharactersMax} characters of A-Z a-z 0-9 . _ -, and not '${hostSourceName}'`;
        throw bad('begin name', name, source === hostSourceId ? `'${hostSourceName}' for source 0` : other);
      }
      return {
        ...{ kind: 'begin', epoch, source, name },
        intervalMs: integer(fields[4], 'begin intervalMs', intervals),
        labels: readLabels(array(fields[5], 'begin labels')),
        offsetMs: integer(fields[6], 'begin offsetMs', anyInteger),
      };
    },
    write: ({ epoch, source, name, intervalMs, labels, offsetMs }) => [
      ...[2, epoch, source, name, intervalMs],
      labels.flat(),
      offsetMs,
    ],
  }),
  schema: kind<SchemaMessage>({
    numbers: [3],
    payloadBytesMax: limits.schemaFrameBytesMax,
    stringBytesMax: limits.stringBytesMax,
    read(fields) {
      const source = integer(fields[1], 'schema source', anyCount);
      const groups: SeriesGroup[] = [];
      for (let at = 2; at < fields.length; at++) readFamily(array(fields[at], `schema family ${at - 1}`), groups);
      return { kind: 'schema', source, groups };
    },
    write: ({ source, groups }) => [3, source, ...familyArrays(groups)],
  }),
  report: kind<ReportMessage>({
    numbers: [4, 5],
    payloadBytesMax: limits.reportFrameBytesMax,
    stringBytesMax: undefined,
    read(fields) {
      const source = integer(fields[1], 'report source', anyCount);
      const seq = integer(fields[2], 'report seq', positive);
      const timeMs = integer(fields[3], 'report timeMs', anyCount);
      const pairs = fields.slice(4);
      for (let at = 0; at < pairs.length; at++) {
        const element = pairs[at];
        if (typeof element !== 'number' && element !== null) {
          throw bad(`report pair ${at >> 1}`, element, 'a skip and a delta, each an integer, a number or nil');
        }
      }
      // Each element has just been seen to be a number or null.
      return { kind: 'report', key: fields[0] === 5, source, seq, timeMs, pairs: pairs as unknown as Pairs };
    },
    // Not a spread, which goes over each element in JavaScript.
    write: ({ key, source, seq, timeMs, pairs }) =>
      ([key ? 5 : 4, source, seq, timeMs] as (number | null)[]).concat(pairs),
  }),
  ping: kind<Ping>({
    numbers: [6],
    payloadBytesMax: limits.smallFrameBytesMax,
    // Text is legal in the fields that a later version may add.
    stringBytesMax: limits.stringBytesMax,
    read: (fields) => ({
      kind: 'ping',
      nonce: integer(fields[1], 'ping nonce', anyInteger),
      spoolReports: integer(fields[2], 'ping spoolReports', anyCount),
      droppedReports: integer(fields[3], 'ping droppedReports', anyCount),
    }),
    write: ({ nonce, spoolReports, droppedReports }) => [6, nonce, spoolReports, droppedReports],
  }),
};

const toAgent = {
  payloadBytesMax: limits.agentBoundFrameBytesMax,
  stringBytesMax: limits.agentBoundFrameBytesMax,
};

/** What servers send. */
export const serverKinds = {
  welcome: kind<Welcome>({
    numbers: [1],
    ...toAgent,
    read: (fields) => ({
      kind: 'welcome',
      version: integer(fields[1], 'welcome version', positive),
      epochs: readEpochs(array(fields[2], 'welcome epochs')),
      nowMs: integer(fields[3], 'welcome nowMs', anyCount),
    }),
    write: ({ version, epochs, nowMs }) => [1, version, epochs.flatMap(({ epoch, seq }) => [epoch, seq]), nowMs],
  }),
  ack: kind<Ack>({
    numbers: [2],
    ...toAgent,
    read: (fields) => ({
      kind: 'ack',
      epoch: integer(fields[1], 'ack epoch', anyCount),
      seq: integer(fields[2], 'ack seq', anyCount),
    }),
    write: ({ epoch, seq }) => [2, epoch, seq],
  }),
  error: kind<ErrorMessage>({
    numbers: [3],
    ...toAgent,
    read: (fields) => ({
      kind: 'error',
      code: string(fields[1], 'error code'),
      text: string(fields[2], 'error text'),
    }),
    // What an error quotes came from the peer; cut, so that the frame to an agent keeps within its bound.
    write: ({ code, text }) => [3, code, text.slice(0, errorTextCharactersMax)],
  }),
  pong: kind<Pong>({
    numbers: [4],
    ...toAgent,
    read: (fields) => ({
      kind: 'pong',
      nonce: integer(fields[1], 'pong nonce', anyInteger),
      nowMs: integer(fields[2], 'pong nowMs', anyCount),
    }),
    write: ({ nonce, nowMs }) => [4, nonce, nowMs],
  }),
  refused: kind<Refused>({
    numbers: [5],
    ...toAgent,
    read: (fields) => ({
      kind: 'refused',
      reason: string(fields[1], 'refused reason'),
      count: integer(fields[2], 'refused count', positive),
      firstMs: integer(fields[3], 'refused firstMs', anyInteger),
      lastMs: integer(fields[4], 'refused lastMs', anyInteger),
      text: string(fields[5], 'refused text'),
    }),
    write: ({ reason, count, firstMs, lastMs, text }) => [5, reason, count, firstMs, lastMs, text],
  }),
};

const errorTextCharactersMax = 1000;

type MessageOf<Table> = {
  [K in keyof Table]: Table[K] extends { read(fields: readonly unknown[]): infer M } ? M : never;
}[keyof Table];

export type AgentMessage = MessageOf<typeof agentKinds> | Unknown;
export type ServerMessage = MessageOf<typeof serverKinds> | Unknown;

/** A function for each kind of message: a kind without one does not compile. */
export type Handlers<M extends Message, More extends readonly unknown[] = []> = {
  readonly [K in M['kind']]: (message: Extract<M, { readonly kind: K }>, ...more: More) => void;
};

/** Calls the handler of the message's kind. */
export function handle<M extends Message, More extends readonly unknown[]>(
  handlers: Handlers<M, More>,
  message: M,
  ...more: More
): void {
  // The type of the table says that the handler of a kind takes the messages of that kind.
  const handler = handlers[message.kind as M['kind']] as (message: M, ...more: More) => void;
  handler(message, ...more);
}

/** The rows of a table by their numbers, with their names, and the bounds of numbers that it does not have. */
export interface KindTable<M extends Message = Message> {
  readonly byNumber: readonly (NamedKind<M> | undefined)[];
  readonly unknown: KindBounds;
}

/** What one kind of message may hold. */
export interface KindBounds {
  /** For error messages: `hello`, `report`. */
  readonly name: string;
  readonly payloadBytesMax: number;
  readonly stringBytesMax: number | undefined;
}

interface NamedKind<M extends Message> extends KindBounds {
  read(fields: readonly unknown[]): M;
}

/** What a server takes from an agent. */
export const agentTable = kindTable<MessageOf<typeof agentKinds>>(agentKinds, {
  name: 'unknown kind',
  payloadBytesMax: limits.unknownFrameBytesMax,
  stringBytesMax: limits.stringBytesMax,
});

/** What an agent takes from a server. */
export const serverTable = kindTable<MessageOf<typeof serverKinds>>(serverKinds, { name: 'unknown kind', ...toAgent });

function kindTable<M extends Message>(
  rows: Readonly<Record<string, MessageKind<M>>>,
  unknown: KindBounds,
): KindTable<M> {
  const byNumber: NamedKind<M>[] = [];
  for (const [name, row] of Object.entries(rows)) {
    const { payloadBytesMax, stringBytesMax, read } = row;
    for (const number of row.numbers) byNumber[number] = { name, payloadBytesMax, stringBytesMax, read };
  }
  return { byNumber, unknown };
}

function kind<M extends Message>(row: MessageKind<M>): MessageKind<M> {
  return row;
}

const intervals: IntegerRange = { min: limits.intervalMsMin, max: Number.MAX_SAFE_INTEGER };

function readLabels(flat: readonly unknown[]): Labels {
  if (flat.length % 2 !== 0) {
    throw refusal('bad-message', 'begin labels', `${flat.length} strings`, 'names and values in turn');
  }
  const count = flat.length / 2;
  if (count > limits.labelsMax) {
    throw new ProtocolError('limit', `begin labels: ${count} pairs, at most ${limits.labelsMax} are allowed`);
  }
  const pairs: [string, string][] = [];
  const names = new Set<string>();
  let bytes = 0;
  for (let at = 0; at < flat.length; at += 2) {
    const name = string(flat[at], 'begin label name');
    const value = string(flat[at + 1], `begin label ${shown(name)}`);
    if (!isLabelName(name) || name === 'source') {
      const expected =
        "a label name of Prometheus's without '__' in front, and not 'agent', 'source', 'job' or 'instance'";
      throw refusal('bad-label', 'begin label name', shown(name), expected);
    }
    if (names.has(name)) throw new ProtocolError('bad-label', `begin label ${shown(name)}: given twice`);
    names.add(name);
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value);
    pairs.push([name, value]);
  }
  if (bytes > limits.labelsBytesMax) {
    throw new ProtocolError('limit', `begin labels: ${bytes} bytes, at most ${limits.labelsBytesMax} are allowed`);
  }
  return pairs;
}

/** Appends the family's groups: `[name, type, help, divisor, group…]`. */
function readFamily(fields: readonly unknown[], groups: SeriesGroup[]): void {
  const name = string(fields[0], 'schema family name');
  const field = (rest: string) => () => `schema family ${shown(name)}${rest}`;
  const type = string(fields[1], field(', type'));
  const help = string(fields[2], field(', help'));
  const divisor = integer(fields[3], field(', divisor'), anyInteger);
  const metricType = metricTypes.find((known) => known === type);
  if (metricType === undefined) throw refusal('schema', field(', type'), shown(type), metricTypes.join(' or '));
  if (divisor < 1 || divisor > limits.divisorMax) {
    throw refusal('schema', field(', divisor'), divisor, `1 to ${limits.divisorMax}`);
  }
  // A family without a series says nothing, and each would cost memory that no count of series bounds.
  if (fields.length < 5) throw refusal('schema', field(', groups'), 'missing', '1 or more');
  const family: Family = { name, type: metricType, help, divisor };
  for (let at = 4; at < fields.length; at++) groups.push(readGroup(family, fields[at], at - 3));
}

/** `[suffix, labelNames, seriesCount, labelValues]`; `number` counts the family's groups, for error messages. */
function readGroup(family: Family, value: unknown, number: number): SeriesGroup {
  const field = (rest: string) => () => `schema family ${shown(family.name)}, group ${number}${rest}`;
  const fields = array(value, field(''));
  if (fields.length !== groupFieldCount) {
    throw refusal('bad-message', field(''), `${fields.length} fields`, `${groupFieldCount}`);
  }
  const suffix = string(fields[0], field(', suffix'));
  const labelNames = strings(fields[1], field(', labelNames'));
  const seriesCount = integer(fields[2], field(', seriesCount'), anyInteger);
  const labelValues = strings(fields[3], field(', labelValues'));
  const known = suffixesOf(family.type);
  if (!known.some((each) => each.suffix === suffix)) {
    const expected = known.map((each) => JSON.stringify(each.suffix)).join(' or ');
    throw refusal('schema', field(', suffix'), shown(suffix), `${expected} for a ${family.type}`);
  }
  if (seriesCount < 1) throw refusal('schema', field(', seriesCount'), seriesCount, '1 or more');
  const expectedValues = seriesCount * labelNames.length;
  if (labelValues.length !== expectedValues) {
    const expected = `${expectedValues}: ${seriesCount} series of ${labelNames.length} labels`;
    throw refusal('schema', field(', labelValues'), `${labelValues.length} strings`, expected);
  }
  return { family, suffix, labelNames, seriesCount, labelValues };
}

const groupFieldCount = 4;

/** Groups one after another that have one family object stand in one array. */
function familyArrays(groups: readonly SeriesGroup[]): unknown[][] {
  const arrays: unknown[][] = [];
  let last: Family | undefined;
  for (const { family, suffix, labelNames, seriesCount, labelValues } of groups) {
    const { name, type, help, divisor } = family;
    if (family !== last) arrays.push([name, type, help, divisor]);
    last = family;
    arrays.at(-1)!.push([suffix, labelNames, seriesCount, labelValues]);
  }
  return arrays;
}

function readEpochs(flat: readonly unknown[]): EpochSeq[] {
  if (flat.length % 2 !== 0) {
    throw refusal('bad-message', 'welcome epochs', `${flat.length} elements`, 'epochs and seqs in turn');
  }
  const epochs: EpochSeq[] = [];
  for (let at = 0; at < flat.length; at += 2) {
    epochs.push({
      epoch: integer(flat[at], 'welcome epoch', anyCount),
      seq: integer(flat[at + 1], 'welcome seq', anyCount),
    });
  }
  return epochs;
}
