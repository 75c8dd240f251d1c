// D-Bus messages: bytes in, messages out, no socket in sight. Little-endian is written, both are read.
// https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol
//
//     l | type | flags | 1 | body bytes | serial | a(yv) header fields, padded to 8 | body
//
// Each value is aligned to its own size, counted from the start of the message (so header and body each from a multiple of
// eight): u and i to 4, t and x and structs and dict entries to 8, strings and arrays to the 4 of their length.

/** `format`: the bytes are no message. `limit`: more than a bound allows. `refused`: the bus answered with an error. */
export type BusErrorCode = 'format' | 'limit' | 'refused' | 'closed' | 'timeout';

export class BusError extends Error {
  override readonly name = 'BusError';
  readonly code: BusErrorCode;
  constructor(code: BusErrorCode, what: string, options?: ErrorOptions) {
    super(what, options);
    this.code = code;
  }
}

/** A basic value, an array (a dict is one of pairs), or a struct. A variant is its value. Whole numbers up to 2^53 are exact. */
export type BusValue = string | number | boolean | readonly BusValue[];

export interface BusMessage {
  readonly type: 'call' | 'return' | 'error' | 'signal' | 'unknown';
  readonly serial: number;
  readonly replySerial: number | undefined;
  readonly path: string | undefined;
  readonly member: string | undefined;
  readonly interface: string | undefined;
  readonly errorName: string | undefined;
  readonly body: readonly BusValue[];
}

export interface MethodCall {
  readonly serial: number;
  readonly destination: string;
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  /** Strings alone: no method that is called here takes anything else. */
  readonly arguments?: readonly string[];
}

/** ListUnits of 10 000 units comes to some 3 MB. The specification allows 128 MiB. */
export const messageBytesMax = 16 * 1024 * 1024;
const valuesMax = 1_000_000;
const depthMax = 32;
const headerBytes = 16;
const types = ['unknown', 'call', 'return', 'error', 'signal'] as const;
const field = { path: 1, interface: 2, member: 3, errorName: 4, replySerial: 5, destination: 6, signature: 8 } as const;

export function encodeCall({
  serial,
  destination,
  path,
  interface: of,
  member,
  arguments: args = [],
}: MethodCall): Uint8Array {
  const body = new Writer();
  for (const each of args) body.string(each);
  const header = new Writer();
  header.bytes([0x6c, 1, 0, 1]);
  header.uint32(body.length);
  header.uint32(serial);
  header.array(8, () => {
    header.field(field.path, 'o', path);
    header.field(field.interface, 's', of);
    header.field(field.member, 's', member);
    header.field(field.destination, 's', destination);
    if (args.length > 0) header.field(field.signature, 'g', 's'.repeat(args.length));
  });
  header.align(8);
  return Buffer.concat([header.take(), body.take()]);
}

class Writer {
  #bytes = Buffer.alloc(256);
  length = 0;

  take(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  bytes(values: readonly number[]): void {
    this.#room(values.length);
    for (const value of values) this.#bytes[this.length++] = value;
  }

  uint32(value: number): void {
    this.align(4);
    this.#room(4);
    this.#bytes.writeUInt32LE(value, this.length);
    this.length += 4;
  }

  string(text: string): void {
    const bytes = Buffer.from(text);
    this.uint32(bytes.length);
    this.bytes([...bytes, 0]);
  }

  signature(text: string): void {
    const bytes = Buffer.from(text);
    this.bytes([bytes.length, ...bytes, 0]);
  }

  field(code: number, type: 'o' | 's' | 'g', text: string): void {
    this.align(8);
    this.bytes([code]);
    this.signature(type);
    if (type === 'g') this.signature(text);
    else this.string(text);
  }

  array(alignment: number, write: () => void): void {
    this.uint32(0);
    const lengthAt = this.length - 4;
    this.align(alignment);
    const start = this.length;
    write();
    this.#bytes.writeUInt32LE(this.length - start, lengthAt);
  }

  align(to: number): void {
    while (this.length % to !== 0) this.bytes([0]);
  }

  #room(count: number): void {
    if (this.length + count <= this.#bytes.length) return;
    const larger = Buffer.alloc(2 * (this.length + count));
    this.#bytes.copy(larger);
    this.#bytes = larger;
  }
}

/** Cuts a stream into messages, wherever it was cut. After an error it is of no more use. */
export class MessageDecoder {
  #chunks: Uint8Array[] = [];
  #length = 0;
  /** Of the message that is being waited for; undefined until its header is there. */
  #wanted: number | undefined;

  get bufferedBytes(): number {
    return this.#length;
  }

  push(chunk: Uint8Array): BusMessage[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    const messages: BusMessage[] = [];
    while (this.#length >= (this.#wanted ?? headerBytes)) {
      const bytes = this.#joined();
      this.#wanted ??= messageBytes(bytes);
      if (this.#length < this.#wanted) break;
      messages.push(decodeMessage(bytes.subarray(0, this.#wanted)));
      this.#chunks = [bytes.subarray(this.#wanted)];
      this.#length -= this.#wanted;
      this.#wanted = undefined;
    }
    return messages;
  }

  /** Joined once a header and once a message, not once a chunk. */
  #joined(): Buffer {
    const bytes =
      this.#chunks.length === 1
        ? Buffer.from(this.#chunks[0]!.buffer, this.#chunks[0]!.byteOffset, this.#chunks[0]!.length)
        : Buffer.concat(this.#chunks);
    this.#chunks = [bytes];
    return bytes;
  }
}

function messageBytes(bytes: Buffer): number {
  const isLittle = endianOf(bytes);
  if (bytes[3] !== 1) throw new BusError('format', `the protocol version is ${bytes[3]}, expected 1`);
  const body = isLittle ? bytes.readUInt32LE(4) : bytes.readUInt32BE(4);
  const fields = isLittle ? bytes.readUInt32LE(12) : bytes.readUInt32BE(12);
  const total = headerBytes + Math.ceil(fields / 8) * 8 + body;
  if (total > messageBytesMax)
    throw new BusError('limit', `a message of ${total} bytes, at most ${messageBytesMax} are read`);
  return total;
}

function endianOf(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0x6c && bytes[0] !== 0x42)
    throw new BusError('format', `a message begins with byte ${bytes[0]}, expected l or B`);
  return bytes[0] === 0x6c;
}

function decodeMessage(bytes: Buffer): BusMessage {
  const isLittle = endianOf(bytes);
  const reader = new Reader(bytes, isLittle);
  reader.at = 8;
  const serial = reader.uint32();
  const fields = new Map<number, BusValue>();
  for (const entry of reader.valuesOf('a(yv)')[0] as readonly (readonly [number, BusValue])[])
    fields.set(entry[0], entry[1]);
  reader.align(8);
  const bodyBytes = isLittle ? bytes.readUInt32LE(4) : bytes.readUInt32BE(4);
  if (reader.at + bodyBytes !== bytes.length)
    throw new BusError('format', 'the header does not end where its length says');
  const body = reader.valuesOf(textOf(fields, field.signature) ?? '');
  if (reader.at !== bytes.length)
    throw new BusError('format', `the body is ${bytes.length - reader.at} bytes longer than its signature`);
  const replySerial = fields.get(field.replySerial);
  return {
    ...{ type: types[bytes[1]!] ?? 'unknown', serial, body },
    replySerial: typeof replySerial === 'number' ? replySerial : undefined,
    path: textOf(fields, field.path),
    member: textOf(fields, field.member),
    interface: textOf(fields, field.interface),
    errorName: textOf(fields, field.errorName),
  };
}

function textOf(fields: ReadonlyMap<number, BusValue>, code: number): string | undefined {
  const value = fields.get(code);
  return typeof value === 'string' ? value : undefined;
}

const alignments: Readonly<Record<string, number>> = {
  ...{ y: 1, g: 1, v: 1, n: 2, q: 2, b: 4, i: 4, u: 4, s: 4, o: 4, a: 4, h: 4, x: 8, t: 8, d: 8, '(': 8, '{': 8 },
};

class Reader {
  at = 0;
  readonly #bytes: Buffer;
  readonly #isLittle: boolean;
  #values = 0;

  constructor(bytes: Buffer, isLittle: boolean) {
    this.#bytes = bytes;
    this.#isLittle = isLittle;
  }

  /** One value for each complete type of the signature. */
  valuesOf(signature: string): BusValue[] {
    const values: BusValue[] = [];
    for (let from = 0; from < signature.length; ) {
      const end = typeEnd(signature, from, 0);
      values.push(this.#value(signature, from, end, 0));
      from = end;
    }
    return values;
  }

  align(to: number): void {
    while (this.at % to !== 0) this.#skip(1);
  }

  uint32(): number {
    this.align(4);
    const at = this.#skip(4);
    return this.#isLittle ? this.#bytes.readUInt32LE(at) : this.#bytes.readUInt32BE(at);
  }

  #skip(count: number): number {
    const at = this.at;
    if (at + count > this.#bytes.length) throw new BusError('format', 'a value goes beyond the end of the message');
    this.at += count;
    return at;
  }

  /** The type is `signature` from `from` to `end`. */
  #value(signature: string, from: number, end: number, depth: number): BusValue {
    if (++this.#values > valuesMax) throw new BusError('limit', `more than ${valuesMax} values in a message`);
    if (depth > depthMax) throw new BusError('limit', `values nested deeper than ${depthMax}`);
    const type = signature[from]!;
    const alignment = alignments[type];
    if (alignment === undefined) throw new BusError('format', `the signature has ${JSON.stringify(type)}`);
    this.align(alignment);
    switch (type) {
      case 's':
      case 'o':
        return this.#text(this.uint32());
      case 'g':
        return this.#text(this.#bytes[this.#skip(1)]!);
      case 'a':
        return this.#array(signature, from + 1, end, depth);
      case 'v': {
        const inner = this.#text(this.#bytes[this.#skip(1)]!);
        if (inner === '' || typeEnd(inner, 0, 0) !== inner.length) {
          throw new BusError('format', `the signature of a variant is ${JSON.stringify(inner)}`);
        }
        return this.#value(inner, 0, inner.length, depth + 1);
      }
      case '(':
      case '{': {
        const values: BusValue[] = [];
        for (let at = from + 1; at < end - 1; ) {
          const next = typeEnd(signature, at, 0);
          values.push(this.#value(signature, at, next, depth + 1));
          at = next;
        }
        return values;
      }
      default:
        return this.#number(type);
    }
  }

  #array(signature: string, from: number, end: number, depth: number): BusValue {
    const length = this.uint32();
    this.align(alignments[signature[from]!] ?? 1);
    const stop = this.at + length;
    if (stop > this.#bytes.length) throw new BusError('format', 'an array goes beyond the end of the message');
    const values: BusValue[] = [];
    while (this.at < stop) values.push(this.#value(signature, from, end, depth + 1));
    if (this.at !== stop) throw new BusError('format', 'an array does not end where its length says');
    return values;
  }

  #text(length: number): string {
    const at = this.#skip(length + 1);
    if (this.#bytes[at + length] !== 0) throw new BusError('format', 'a string does not end with a zero byte');
    return this.#bytes.toString('utf8', at, at + length);
  }

  #number(type: string): number | boolean {
    const bytes = this.#bytes;
    const isLittle = this.#isLittle;
    switch (type) {
      case 'y':
        return bytes[this.#skip(1)]!;
      case 'n': {
        const at = this.#skip(2);
        return isLittle ? bytes.readInt16LE(at) : bytes.readInt16BE(at);
      }
      case 'q': {
        const at = this.#skip(2);
        return isLittle ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
      }
      case 'b':
        return this.uint32() === 1;
      case 'i': {
        const at = this.#skip(4);
        return isLittle ? bytes.readInt32LE(at) : bytes.readInt32BE(at);
      }
      case 'u':
      case 'h':
        return this.uint32();
      case 'x': {
        const at = this.#skip(8);
        return Number(isLittle ? bytes.readBigInt64LE(at) : bytes.readBigInt64BE(at));
      }
      case 't': {
        const at = this.#skip(8);
        return Number(isLittle ? bytes.readBigUInt64LE(at) : bytes.readBigUInt64BE(at));
      }
      default: {
        const at = this.#skip(8);
        return isLittle ? bytes.readDoubleLE(at) : bytes.readDoubleBE(at);
      }
    }
  }
}

/** Where the complete type that begins at `from` ends. */
function typeEnd(signature: string, from: number, depth: number): number {
  if (depth > depthMax) throw new BusError('limit', `types nested deeper than ${depthMax}`);
  const type = signature[from];
  if (type === 'a') return typeEnd(signature, from + 1, depth + 1);
  if (type !== '(' && type !== '{') {
    if (type === undefined || alignments[type] === undefined)
      throw new BusError('format', `the signature is ${JSON.stringify(signature)}`);
    return from + 1;
  }
  const close = type === '(' ? ')' : '}';
  let at = from + 1;
  if (signature[at] === close) throw new BusError('format', `the signature is ${JSON.stringify(signature)}`);
  while (signature[at] !== close) at = typeEnd(signature, at, depth + 1);
  return at + 1;
}
