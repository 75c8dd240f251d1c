import { ProtocolError, type ProtocolErrorCode, shown } from './errors.ts';

// Readers of the fields of a decoded message. Each throws a ProtocolError that names the field.

/** A field's name, as error messages have it; a function where it would be put together for each of many. */
export type FieldName = string | (() => string);

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
}

export const anyInteger: IntegerRange = { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER };
export const anyCount: IntegerRange = { min: 0, max: Number.MAX_SAFE_INTEGER };
export const positive: IntegerRange = { min: 1, max: Number.MAX_SAFE_INTEGER };

export function integer(value: unknown, what: FieldName, range: IntegerRange): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= range.min && value <= range.max) {
    return value + 0; // -0 becomes 0
  }
  const from = range.min === anyInteger.min ? '' : ` of ${range.min} or more`;
  const to = range.max === Number.MAX_SAFE_INTEGER ? '' : ` and at most ${range.max}`;
  throw bad(what, value, `an integer${from}${to}`);
}

export function string(value: unknown, what: FieldName): string {
  if (typeof value === 'string') return value;
  throw bad(what, value, 'a string');
}

/** A string whose UTF-8 is 1 byte or more and at most so long. */
export function shortString(value: unknown, what: FieldName, bytesMax: number): string {
  const text = string(value, what);
  const bytes = Buffer.byteLength(text);
  if (bytes >= 1 && bytes <= bytesMax) return text;
  throw refusal('bad-message', what, `${shown(text)} of ${bytes} bytes`, `1 to ${bytesMax} bytes`);
}

export function array(value: unknown, what: FieldName): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw bad(what, value, 'an array');
}

export function strings(value: unknown, what: FieldName): readonly string[] {
  const elements = array(value, what);
  for (const element of elements) string(element, what);
  // Each element has just been seen to be a string.
  return elements as readonly string[];
}

export function bad(what: FieldName, value: unknown, expected: string): ProtocolError {
  return refusal('bad-message', what, value === undefined ? 'missing' : shown(value), expected);
}

export function refusal(
  code: ProtocolErrorCode,
  what: FieldName,
  was: string | number,
  expected: string,
): ProtocolError {
  const name = typeof what === 'string' ? what : what();
  return new ProtocolError(code, `${name}: was ${was}, expected ${expected}`);
}
