// msgpackr/pack is the library without its native addon: 3 to 6 MiB less, and no native code on a peer's bytes. The
// addon only ever comes with the package's main entry.
import { Packr, Unpackr } from 'msgpackr/pack';
import { shown } from './errors.ts';
import { agentMessageBounds, type Guarded, guard, serverMessageBounds } from './guard.ts';
import { limits } from './limits.ts';
import type { AgentMessage, FamilyDeclaration, ServerMessage } from './message.ts';
import { agentKinds, parseAgentMessage, parseServerMessage, serverKinds } from './parse.ts';

// Only arrays, and what stands in them, go in and come out: the guard sees to the one, messageArray to the other. The
// settings are a second lock on the same door.
const options = {
  useRecords: false,
  mapsAsObjects: true,
  structuredClone: false,
  moreTypes: false,
  int64AsType: 'number',
} as const;
const packer = new Packr(options);
const unpacker = new Unpackr(options);

/** A payload, without its header, in an array of its own: what `pack` returns is a slice of a buffer that it uses on. */
export function encodeMessage(message: AgentMessage | ServerMessage): Uint8Array {
  return new Uint8Array(packer.pack(messageArray(message)));
}

/** As a server reads: guarded, decoded, each field checked. Throws FrameError and ProtocolError, nothing else. */
export function decodeAgentMessage(payload: Uint8Array): AgentMessage {
  const guarded = guard(payload, agentMessageBounds);
  if (guarded.kind > agentKinds.ping) return { kind: 'unknown', number: guarded.kind };
  return parseAgentMessage(unpack(payload, guarded));
}

/** As an agent reads. */
export function decodeServerMessage(payload: Uint8Array): ServerMessage {
  const guarded = guard(payload, serverMessageBounds);
  if (guarded.kind > serverKinds.pong) return { kind: 'unknown', number: guarded.kind };
  return parseServerMessage(unpack(payload, guarded));
}

/**
 * The payloads of schema frames that declare these families in this order, each within the bounds of a schema frame. A
 * family with more series than one frame holds goes over several, as a family that is named again.
 */
export function encodeSchema(families: readonly FamilyDeclaration[]): Uint8Array[] {
  return [...schemaFrames(families)].map((part) => encodeMessage({ kind: 'schema', families: part }));
}

function messageArray(message: AgentMessage | ServerMessage): unknown[] {
  switch (message.kind) {
    case 'hello': {
      const { version, agentName, hostId, labels, intervalMs } = message;
      return [agentKinds.hello, version, agentName, hostId, labels.flat(), intervalMs];
    }
    case 'begin':
      return [agentKinds.begin, message.epoch, message.offsetMs];
    case 'schema':
      return [agentKinds.schema, ...message.families.map(familyArray)];
    case 'report': {
      // Not a spread, which goes over each element in JavaScript.
      const { key, seq, timeMs, pairs } = message;
      return ([key ? agentKinds.key : agentKinds.report, seq, timeMs] as (number | null)[]).concat(pairs);
    }
    case 'ping':
      return [agentKinds.ping, message.nonce];
    case 'welcome': {
      const epochs = message.epochs.flatMap(({ epoch, seq }) => [epoch, seq]);
      return [serverKinds.welcome, message.version, epochs, message.nowMs];
    }
    case 'ack':
      return [serverKinds.ack, message.epoch, message.seq];
    case 'error':
      // What an error quotes came from the peer; cut, so that the frame to an agent keeps within its bound.
      return [serverKinds.error, message.code, message.text.slice(0, errorTextCharactersMax)];
    case 'pong':
      return [serverKinds.pong, message.nonce, message.nowMs];
    case 'unknown':
      return [message.number];
  }
}

const errorTextCharactersMax = 1000;

function familyArray({ family, seriesCount, labelValues }: FamilyDeclaration): unknown[] {
  const { name, type, help, unit, divisor, labelNames } = family;
  return [name, type, help, unit, divisor, labelNames, seriesCount, labelValues];
}

function* schemaFrames(families: readonly FamilyDeclaration[]): Generator<FamilyDeclaration[]> {
  let frame: FamilyDeclaration[] = [];
  let bytesLeft = emptyFrameBytes;
  for (const declaration of families) {
    let from = 0; // the first series that is in no frame yet
    while (from < declaration.seriesCount) {
      const part = partThatFits(declaration, from, bytesLeft);
      if (part === undefined) {
        const name = shown(declaration.family.name);
        if (frame.length === 0) throw new RangeError(`schema family ${name}: one series is more than a frame holds`);
        yield frame;
        frame = [];
        bytesLeft = emptyFrameBytes;
      } else {
        frame.push(part.declaration);
        bytesLeft = part.bytesLeft;
        from += part.declaration.seriesCount;
      }
    }
  }
  if (frame.length > 0) yield frame;
}

// Less the message's own array and its kind. The number of values in a frame needs no count of its own: each value is a
// byte at least, and there may be as many values as bytes.
const emptyFrameBytes = limits.schemaFrameBytesMax - 6;

/** As many series, from one on, as there is room for: undefined for none. */
function partThatFits({ family, seriesCount, labelValues }: FamilyDeclaration, from: number, roomBytes: number) {
  const width = family.labelNames.length;
  let bytesLeft = roomBytes - familyBytes(family);
  let to = from;
  while (to < seriesCount) {
    const seriesBytes = stringsBytes(labelValues, to * width, (to + 1) * width);
    if (seriesBytes > bytesLeft) break;
    bytesLeft -= seriesBytes;
    to++;
  }
  if (to === from) return undefined;
  const part = { family, seriesCount: to - from, labelValues: labelValues.slice(from * width, to * width) };
  return { declaration: part, bytesLeft };
}

function familyBytes({ name, type, help, unit, labelNames }: FamilyDeclaration['family']): number {
  const texts = [name, type, help, unit, ...labelNames];
  // An array of eight, two that may be long, and two integers of at most 5 bytes.
  return 1 + 5 + 5 + 5 + 5 + stringsBytes(texts, 0, texts.length);
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
