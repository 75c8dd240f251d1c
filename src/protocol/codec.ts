// msgpackr/pack is the library without its native addon: 3 to 6 MiB less, and no native code on a peer's bytes. The
// addon only ever comes with the package's main entry.
import { Packr, Unpackr } from 'msgpackr/pack';
import type { Family } from '../model/family.ts';
import type { SeriesGroup } from '../model/series.ts';
import { shown } from './errors.ts';
import { array, integer, positive } from './fields.ts';
import { type Guarded, guard, scalarEnd } from './guard.ts';
import { limits } from './limits.ts';
import {
  type AgentMessage,
  agentKinds,
  agentTable,
  type KindTable,
  type ServerMessage,
  serverKinds,
  serverTable,
  type Unknown,
} from './messages.ts';

// Only arrays, and what stands in them, go in and come out: the guard sees to the one, the table of messages to the
// other. The settings are a second lock on the same door.
const options = {
  useRecords: false,
  mapsAsObjects: true,
  structuredClone: false,
  moreTypes: false,
  int64AsType: 'number',
} as const;
const packer = new Packr(options);
const unpacker = new Unpackr(options);

/**
 * A payload, without its header, in an array of its own: what `pack` returns is a slice of a buffer that it uses on.
 */
export function encodeMessage(message: AgentMessage | ServerMessage): Uint8Array {
  return new Uint8Array(packer.pack(fieldsOf(message)));
}

const kinds = { ...agentKinds, ...serverKinds };

function fieldsOf(message: AgentMessage | ServerMessage): readonly unknown[] {
  if (message.kind === 'unknown') return [message.number];
  const kind: { write(message: AgentMessage | ServerMessage): readonly unknown[] } = kinds[message.kind];
  return kind.write(message);
}

/** As a server reads: guarded, decoded, each field checked. Throws FrameError and ProtocolError, nothing else. */
export function decodeAgentMessage(payload: Uint8Array): AgentMessage {
  return decode(payload, agentTable);
}

/** As an agent reads. */
export function decodeServerMessage(payload: Uint8Array): ServerMessage {
  return decode(payload, serverTable);
}

function decode<M extends { readonly kind: string }>(payload: Uint8Array, table: KindTable<M>): M | Unknown {
  const guarded = guard(payload, table);
  const kind = table.byNumber[guarded.kind];
  if (kind !== undefined) return kind.read(array(unpack(payload, guarded), 'message'));
  return { kind: 'unknown', number: integer(guarded.kind, 'message kind', positive) };
}

/**
 * Writes a report's payload without its source, number and time, for a caller that keeps these elsewhere: it is decoded
 * as number 1 of source 0 at time 0. These are a dozen bytes of a report that has some hundreds. Returns where it ends.
 */
export function writeBareReport(to: Uint8Array, start: number, payload: Uint8Array): number {
  const arrayEnd = payload[0] === 0xdd ? 5 : payload[0] === 0xdc ? 3 : 1;
  const sourceAt = scalarEnd(payload, arrayEnd);
  const pairsAt = scalarEnd(payload, scalarEnd(payload, scalarEnd(payload, sourceAt)));
  let at = start;
  for (let from = 0; from < sourceAt; from++) to[at++] = payload[from]!;
  to[at++] = 0;
  to[at++] = 1;
  to[at++] = 0;
  to.set(payload.subarray(pairsAt), at);
  return at + payload.length - pairsAt;
}

/**
 * The payloads of schema frames that declare these groups of a source in this order, each within the bounds of a schema
 * frame. A group with more series than one frame holds goes over several, as a family that is named again.
 */
export function encodeSchema(source: number, groups: readonly SeriesGroup[]): Uint8Array[] {
  return [...schemaFrames(groups)].map((part) => encodeMessage({ kind: 'schema', source, groups: part }));
}

function* schemaFrames(groups: readonly SeriesGroup[]): Generator<SeriesGroup[]> {
  let frame: SeriesGroup[] = [];
  let bytesLeft = emptyFrameBytes;
  for (const group of groups) {
    let from = 0; // the first series that is in no frame yet
    while (from < group.seriesCount) {
      const isNamed = frame.at(-1)?.family === group.family;
      const part = partThatFits(group, from, bytesLeft - (isNamed ? 0 : familyBytes(group.family)));
      if (part === undefined) {
        const name = shown(group.family.name);
        if (frame.length === 0) throw new RangeError(`schema family ${name}: one series is more than a frame holds`);
        yield frame;
        frame = [];
        bytesLeft = emptyFrameBytes;
      } else {
        frame.push(part.group);
        bytesLeft = part.bytesLeft;
        from += part.group.seriesCount;
      }
    }
  }
  if (frame.length > 0) yield frame;
}

// Less the message's own array, its kind and its source. The number of values in a frame needs no count of its own:
// each value is a byte at least, and there may be as many values as bytes.
const emptyFrameBytes = limits.schemaFrameBytesMax - 5 - 1 - 9;

/** As many series, from one on, as there is room for: undefined for none. */
function partThatFits(group: SeriesGroup, from: number, roomBytes: number) {
  const { labelValues } = group;
  const width = group.labelNames.length;
  let bytesLeft = roomBytes - groupBytes(group);
  let to = from;
  while (to < group.seriesCount) {
    const seriesBytes = stringsBytes(labelValues, to * width, (to + 1) * width);
    if (seriesBytes > bytesLeft) break;
    bytesLeft -= seriesBytes;
    to++;
  }
  if (to === from) return undefined;
  const part = { ...group, seriesCount: to - from, labelValues: labelValues.slice(from * width, to * width) };
  return { group: part, bytesLeft };
}

// Each array that may be long takes 5 bytes before its elements, and each integer at most 5.

function familyBytes({ name, type, help }: Family): number {
  return 5 + stringsBytes([name, type, help], 0, 3) + 5;
}

function groupBytes({ suffix, labelNames }: SeriesGroup): number {
  return 1 + stringsBytes([suffix], 0, 1) + 5 + stringsBytes(labelNames, 0, labelNames.length) + 5 + 5;
}

function stringsBytes(texts: readonly string[], from: number, to: number): number {
  let bytes = 0;
  for (let at = from; at < to; at++) {
    const textBytes = Buffer.byteLength(texts[at]!);
    if (textBytes > limits.stringBytesMax) {
      const text = `${shown(texts[at])} of ${textBytes} bytes`;
      throw new RangeError(`schema: a string was ${text}, expected at most ${limits.stringBytesMax}`);
    }
    bytes += (textBytes < 32 ? 1 : textBytes < 256 ? 2 : 3) + textBytes;
  }
  return bytes;
}

function unpack(payload: Uint8Array, guarded: Guarded): unknown {
  return unpacker.unpack(guarded.byteOrderMarks.length === 0 ? payload : doubleMarks(payload, guarded.byteOrderMarks));
}

/**
 * The decoder reads longer strings with a `TextDecoder`, which takes U+FEFF off their front. Where a string starts with
 * one it gets a second, so that the right one is left.
 */
function doubleMarks(payload: Uint8Array, stringStarts: readonly number[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let from = 0;
  for (const start of stringStarts) {
    const { textStart, textBytes } = stringHeader(payload, start);
    const header = new Uint8Array(5 + mark.length);
    header[0] = 0xdb; // str 32
    new DataView(header.buffer).setUint32(1, textBytes + mark.length);
    header.set(mark, 5);
    parts.push(payload.subarray(from, start), header);
    from = textStart;
  }
  parts.push(payload.subarray(from));
  return Buffer.concat(parts);
}

const mark = [0xef, 0xbb, 0xbf];

/** Of a string that the guard let by, too long for the form of one byte. */
function stringHeader(payload: Uint8Array, start: number): { textStart: number; textBytes: number } {
  const lengthBytes = payload[start] === 0xd9 ? 1 : payload[start] === 0xda ? 2 : 4;
  const textStart = start + 1 + lengthBytes;
  let textBytes = 0;
  for (let at = start + 1; at < textStart; at++) textBytes = textBytes * 256 + payload[at]!;
  return { textStart, textBytes };
}
