import { FrameError, ProtocolError } from './errors.ts';
import { limits } from './limits.ts';
import type { KindBounds, KindTable } from './messages.ts';

/** What the guard has seen of a payload that passed. */
export interface Guarded {
  readonly kind: number;
  /** Where strings start that a `TextDecoder` would take a byte order mark off: see codec.ts. Almost always empty. */
  readonly byteOrderMarks: readonly number[];
}

/**
 * Reads a payload once, before anything decodes it, and throws unless it is one array of nil, booleans, integers, doubles,
 * strings and arrays, within the bounds of its kind, and ends where the payload ends.
 *
 * No setting of the decoder makes it safe alone: it obeys records, extensions and references in any payload, and a few
 * hundred bytes can hold it for seconds. This pass is a loop, holds {@link limits.depthMax} counters, reads each byte at
 * most once, and allocates next to nothing.
 */
export function guard(payload: Uint8Array, table: KindTable): Guarded {
  const head = readHead(payload);
  const bounds = table.byNumber[head.kind] ?? table.unknown;
  if (payload.length > bounds.payloadBytesMax) throw tooLong(bounds, payload.length);
  return { kind: head.kind, byteOrderMarks: checkValues(payload, head, bounds) };
}

/** The start of a payload: how many values its array holds, the first of them, and where the second is. */
interface Head {
  readonly count: number;
  readonly kind: number;
  readonly end: number;
}

function readHead(payload: Uint8Array): Head {
  const arrayToken = tokenAt(payload, 0);
  const arrayShape = shapes[arrayToken]!;
  if ((arrayShape & isArray) === 0) throw badFrame(0, `${nameOf(arrayToken)}, expected an array`);
  const arrayEnd = 1 + (arrayShape & sizeMask);
  if (arrayEnd > payload.length) throw cut(1);
  const count = countAt(payload, arrayToken, 1, arrayEnd);
  if (count === 0 && arrayEnd < payload.length) throw behindEnd(payload, arrayEnd);
  if (count === 0) throw badKind('missing');

  const token = tokenAt(payload, arrayEnd);
  const shape = shapes[token]!;
  if ((shape & isRefused) !== 0) throw refused(arrayEnd, token);
  if ((shape & isNumber) === 0) throw badKind(nameOf(token));
  const end = arrayEnd + 1 + (shape & sizeMask);
  if (end > payload.length) throw cut(arrayEnd);
  const kind = integerAt(payload, token, arrayEnd + 1);
  if (kind === undefined) throw badKind('a number, but no integer');
  return { count, kind, end };
}

/** Reads what stands behind the kind, to the end. Returns where strings with a byte order mark start. */
function checkValues(payload: Uint8Array, head: Head, bounds: KindBounds): readonly number[] {
  const length = payload.length;
  let byteOrderMarks: number[] | undefined;
  let at = head.end;
  let valuesLeft: number = limits.frameValuesMax - 2; // less the array and the kind
  let depth = 1;
  let left = head.count - 1; // values still to come at this depth
  if (left > valuesLeft) throw tooMany(bounds);

  while (true) {
    while (left === 0) {
      if (depth > 1) left = lefts[--depth]!;
      else if (at < length) throw behindEnd(payload, at);
      else return byteOrderMarks ?? none;
    }
    left--;
    if (at >= length) throw cut(at);
    if (--valuesLeft < 0) throw tooMany(bounds);

    const start = at;
    const token = payload[at++]!;
    const shape = shapes[token]!;
    const headerEnd = at + (shape & sizeMask);
    if (headerEnd > length) throw cut(start);
    // Most of all there is: what a report is made of.
    if ((shape & isWhole) !== 0) {
      at = headerEnd;
      continue;
    }
    if ((shape & isRefused) !== 0) throw refused(start, token);
    const count = countAt(payload, token, at, headerEnd);
    at = headerEnd;

    if ((shape & isArray) !== 0) {
      if (depth === limits.depthMax) throw tooDeep(bounds);
      if (count > valuesLeft) throw tooMany(bounds);
      lefts[depth++] = left;
      left = count;
      continue;
    }
    if (bounds.stringBytesMax === undefined) throw badFrame(start, `a string, expected none in a ${bounds.name}`);
    if (count > bounds.stringBytesMax) throw tooLongString(bounds, count, bounds.stringBytesMax);
    at += count;
    if (at > length) throw cut(start);
    if (startsWithMark(payload, headerEnd, at) && count > bytesWithMarkMin) {
      byteOrderMarks ??= [];
      byteOrderMarks.push(start);
    }
  }
}

/** What is left at each depth above the present one. */
const lefts = new Int32Array(limits.depthMax);
const none: readonly number[] = [];

function tokenAt(payload: Uint8Array, at: number): number {
  if (at >= payload.length) throw cut(at);
  return payload[at]!;
}

/** How much there is of an array or string: it stands in the token, or in the bytes from `at` to `end` behind it. */
function countAt(payload: Uint8Array, token: number, at: number, end: number): number {
  if (at === end) return token < 0xa0 ? token & 0x0f : token & 0x1f;
  let count = 0;
  for (let i = at; i < end; i++) count = count * 256 + payload[i]!;
  return count;
}

/** The decoder reads shorter strings itself, and leaves the mark where it is. */
const bytesWithMarkMin = 64;

// What each first byte of a value announces. https://github.com/msgpack/msgpack/blob/master/spec.md#formats
const sizeMask = 0x0f; // bytes behind the token: the number, or the length of the string or array
const isWhole = 0x30; // a number, nil or boolean: nothing more to look at
const isNumber = 0x10;
const isPlain = 0x20;
const isArray = 0x40;
const isRefused = 0x80;
const isString = 0;

const shapes = new Uint8Array(256).map((_, token) => {
  if (token <= 0x7f || token >= 0xe0) return isNumber;
  if (token >= 0x90 && token <= 0x9f) return isArray;
  if (token >= 0xa0 && token <= 0xbf) return isString;
  switch (token) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return isPlain;
    case 0xcc: // uint 8
    case 0xd0: // int 8
      return isNumber | 1;
    case 0xcd: // uint 16
    case 0xd1: // int 16
      return isNumber | 2;
    case 0xce: // uint 32
    case 0xd2: // int 32
      return isNumber | 4;
    case 0xcb: // float 64
    case 0xcf: // uint 64
    case 0xd3: // int 64
      return isNumber | 8;
    case 0xd9: // str 8
      return isString | 1;
    case 0xda: // str 16
      return isString | 2;
    case 0xdb: // str 32
      return isString | 4;
    case 0xdc: // array 16
      return isArray | 2;
    case 0xdd: // array 32
      return isArray | 4;
    default: // maps, bin, ext, float 32, and 0xc1, which means nothing
      return isRefused;
  }
});

/** Where a number, nil or boolean ends that begins here, in a payload that the guard let by. */
export function scalarEnd(payload: Uint8Array, at: number): number {
  return at + 1 + (shapes[payload[at]!]! & sizeMask);
}

/** The number at a token, if it is whole and exact. Called once a payload, for its kind. */
function integerAt(payload: Uint8Array, token: number, at: number): number | undefined {
  if (token <= 0x7f) return token;
  if (token >= 0xe0) return token - 0x100;
  const size = shapes[token]! & sizeMask;
  const bytes = new DataView(new ArrayBuffer(8));
  for (let i = 0; i < size; i++) bytes.setUint8(8 - size + i, payload[at + i]!);
  const number = token === 0xcb ? bytes.getFloat64(0) : Number(wholeOf(bytes, size, token >= 0xd0));
  return Number.isSafeInteger(number) ? number : undefined;
}

function wholeOf(bytes: DataView, size: number, signed: boolean): bigint {
  const unsigned = bytes.getBigUint64(0);
  return signed ? BigInt.asIntN(size * 8, unsigned) : unsigned;
}

/**
 * Throws unless the bytes are UTF-8 as https://www.rfc-editor.org/rfc/rfc3629#section-4 has it: no overlong forms, no
 * surrogates, nothing above U+10FFFF. Returns whether they start with U+FEFF, the byte order mark.
 */
function startsWithMark(payload: Uint8Array, start: number, end: number): boolean {
  let marked = false;
  for (let at = start; at < end; ) {
    const lead = payload[at++]!;
    if (lead < 0x80) continue;
    const more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end - at < more) throw badUtf8(at - 1);
    // Only the second byte's range depends on the first.
    const second = payload[at++]!;
    const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) throw badUtf8(at - 2);
    let last = second;
    for (let i = 1; i < more; i++) {
      last = payload[at++]!;
      if ((last & 0xc0) !== 0x80) throw badUtf8(at - 2 - i);
    }
    if (lead === 0xef && second === 0xbb && last === 0xbf && at === start + 3) marked = true;
  }
  return marked;
}

function badFrame(at: number, was: string): FrameError {
  return new FrameError('bad-frame', `payload byte ${at}: was ${was}`);
}

function behindEnd(payload: Uint8Array, at: number): FrameError {
  return badFrame(at, `behind the end of the message, ${payload.length - at} bytes too many`);
}

function cut(at: number): FrameError {
  return new FrameError('bad-frame', `payload byte ${at}: the payload ends inside a value`);
}

function badUtf8(at: number): FrameError {
  return badFrame(at, 'not UTF-8');
}

function refused(at: number, token: number): FrameError {
  return badFrame(at, `${nameOf(token)}, expected nil, a boolean, an integer, a double, a string or an array`);
}

function badKind(was: string): ProtocolError {
  return new ProtocolError('bad-message', `message kind: was ${was}, expected an integer`);
}

function tooLong(bounds: KindBounds, bytes: number): ProtocolError {
  return new ProtocolError('limit', `${bounds.name}: ${bytes} bytes, at most ${bounds.payloadBytesMax} are allowed`);
}

function tooMany(bounds: KindBounds): ProtocolError {
  return new ProtocolError('limit', `${bounds.name}: more than ${limits.frameValuesMax} values`);
}

function tooDeep(bounds: KindBounds): ProtocolError {
  return new ProtocolError('limit', `${bounds.name}: arrays more than ${limits.depthMax} deep`);
}

function tooLongString(bounds: KindBounds, bytes: number, bytesMax: number): ProtocolError {
  return new ProtocolError('limit', `${bounds.name}: a string of ${bytes} bytes, at most ${bytesMax} are allowed`);
}

function nameOf(token: number): string {
  if (token <= 0x7f || token >= 0xe0) return 'an integer';
  if (token <= 0x8f || token === 0xde || token === 0xdf) return 'a map';
  if (token <= 0x9f || token === 0xdc || token === 0xdd) return 'an array';
  if (token <= 0xbf || (token >= 0xd9 && token <= 0xdb)) return 'a string';
  if (token === 0xc0) return 'nil';
  if (token === 0xc2 || token === 0xc3) return 'a boolean';
  if (token >= 0xc4 && token <= 0xc6) return 'bin';
  if ((token >= 0xc7 && token <= 0xc9) || (token >= 0xd4 && token <= 0xd8)) return 'an extension';
  if (token === 0xca) return 'a float32';
  if (token === 0xc1) return 'the unused 0xc1';
  return 'a number';
}
