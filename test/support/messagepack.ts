/**
 * A MessagePack writer that shares nothing with the one under test, for every form of every type: the shortest by
 * {@link pack}, any other by its own function. https://github.com/msgpack/msgpack/blob/master/spec.md
 */
export type Packable = null | boolean | number | string | Uint8Array | readonly Packable[];

/** The shortest form; a whole number beyond 32 bits as a double. Bytes in an array of their own stand as they are. */
export function pack(value: Packable): Uint8Array {
  if (value === null) return bytes(0xc0);
  if (typeof value === 'boolean') return bytes(value ? 0xc3 : 0xc2);
  if (typeof value === 'number') return packNumber(value);
  if (typeof value === 'string') return packString(value);
  if (value instanceof Uint8Array) return value;
  return new Uint8Array(Buffer.concat([arrayHeader(value.length), ...value.map(pack)]));
}

export function bytes(...values: number[]): Uint8Array {
  return new Uint8Array(values);
}

export function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

export function repeat(part: Uint8Array, count: number): Uint8Array {
  return new Uint8Array(Buffer.alloc(part.length * count, part));
}

export function arrayHeader(count: number): Uint8Array {
  if (count < 16) return bytes(0x90 | count);
  return count < 2 ** 16 ? join(bytes(0xdc), unsigned(count, 2)) : array32(count);
}

export function array32(count: number): Uint8Array {
  return join(bytes(0xdd), unsigned(count, 4));
}

/** Every form in which MessagePack can write this whole number. */
export function integerForms(value: number): Uint8Array[] {
  const forms: Uint8Array[] = [];
  if (value >= -32 && value < 128) forms.push(bytes(value & 0xff));
  for (const [log2, size] of [1, 2, 4, 8].entries()) {
    const bits = BigInt(size * 8);
    const whole = BigInt(value);
    if (whole >= 0n && whole < 1n << bits) forms.push(join(bytes(0xcc + log2), unsigned(whole, size)));
    const half = 1n << (bits - 1n);
    const twos = BigInt.asUintN(size * 8, whole);
    if (whole >= -half && whole < half) forms.push(join(bytes(0xd0 + log2), unsigned(twos, size)));
  }
  forms.push(float64(value));
  return forms;
}

export function float64(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(9));
  view.setUint8(0, 0xcb);
  view.setFloat64(1, value);
  return new Uint8Array(view.buffer);
}

export function uint64(value: bigint): Uint8Array {
  return join(bytes(0xcf), unsigned(value, 8));
}

/** A string with a length of 1, 2 or 4 bytes, whatever its own. */
export function longString(content: Uint8Array, lengthBytes: 1 | 2 | 4): Uint8Array {
  const token = { 1: 0xd9, 2: 0xda, 4: 0xdb }[lengthBytes];
  return join(bytes(token), unsigned(content.length, lengthBytes), content);
}

function packNumber(value: number): Uint8Array {
  if (!Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 32) return float64(value);
  if (value >= -32 && value < 128) return bytes(value & 0xff);
  if (value >= 0) {
    const size = value < 2 ** 8 ? 1 : value < 2 ** 16 ? 2 : 4;
    return join(bytes({ 1: 0xcc, 2: 0xcd, 4: 0xce }[size]), unsigned(value, size));
  }
  const size = value >= -(2 ** 7) ? 1 : value >= -(2 ** 15) ? 2 : 4;
  return join(bytes({ 1: 0xd0, 2: 0xd1, 4: 0xd2 }[size]), unsigned(value >>> 0, 4).subarray(4 - size));
}

function packString(value: string): Uint8Array {
  const content = new Uint8Array(Buffer.from(value));
  if (content.length < 32) return join(bytes(0xa0 | content.length), content);
  return longString(content, content.length < 2 ** 8 ? 1 : content.length < 2 ** 16 ? 2 : 4);
}

function unsigned(value: number | bigint, size: number): Uint8Array {
  const all = Buffer.alloc(8);
  all.writeBigUInt64BE(BigInt(value));
  return all.subarray(8 - size);
}
