import { numberText } from '../../model/text-format.ts';

/**
 * Numbers as Prometheus reads them, in the shortest digits that read back as the same double: what `String()` gives,
 * and `NaN`, `+Inf`, `-Inf`. A scrape of a fleet prints half a million, and nearly all of them are whole numbers or
 * have a few decimals: those are written digit by digit, without a string.
 */

/** The most bytes of a number: `-0.0000012345678901234567`, the last before the exponent, has 25 characters. */
export const numberBytesMax = 25;

/** k where `divisor` is 10^k and at most 10^9, else -1: an argument of {@link writeQuotient}. */
export function decimalsOf(divisor: number): number {
  return powersOfTen.indexOf(divisor);
}

/** Writes `sum / divisor` at `at`, and returns where it ends. `decimals` is {@link decimalsOf} the divisor. */
export function writeQuotient(view: DataView, at: number, sum: number, divisor: number, decimals: number): number {
  // Up to 15 digits the decimal fraction is the shortest text: no two of them read as the same double.
  if (decimals > 0 && Math.floor(sum) === sum && sum < digitsMax && sum > -digitsMax) {
    return writeDecimal(view, at, sum, decimals);
  }
  return writeNumber(view, at, divisor === 1 ? sum : sum / divisor);
}

/** Writes a number at `at`, and returns where it ends. */
export function writeNumber(view: DataView, at: number, value: number): number {
  if (Math.floor(value) === value && value <= Number.MAX_SAFE_INTEGER && value >= -Number.MAX_SAFE_INTEGER) {
    return writeWhole(view, at, value);
  }
  const size = Math.abs(value);
  if (size < 1e9) {
    // As many decimals as fit into 15 digits. The scaled number may have been rounded: dividing it again shows it.
    const decimals = size < 1e6 ? 9 : 6;
    const power = powersOfTen[decimals]!;
    const scaled = Math.round(value * power);
    if (scaled / power === value) return writeDecimal(view, at, scaled, decimals);
  }
  return writeText(view, at, numberText(value));
}

const powersOfTen = [1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const digitsMax = 1e15;

function writeText(view: DataView, at: number, text: string): number {
  for (let index = 0; index < text.length; index++) view.setUint8(at++, text.charCodeAt(index));
  return at;
}

/** A whole number of at most 2^53 - 1. */
function writeWhole(view: DataView, at: number, value: number): number {
  let rest = value;
  if (rest < 0) {
    view.setUint8(at++, minus);
    rest = -rest;
  }
  if (rest < 1e9) return writeInt32(view, at, rest | 0);
  // Never rounded up to the next whole number: below 2^53 the quotient is at least 1e-9 away from it.
  const high = Math.floor(rest / 1e9);
  return writePadded(view, writeInt32(view, at, high | 0), (rest - high * 1e9) | 0, 9);
}

/** `scaled / 10^decimals` for a whole number below 10^15 and 1 to 9 decimals. */
function writeDecimal(view: DataView, at: number, scaled: number, decimals: number): number {
  const power = powersOfTen[decimals]!;
  const size = Math.abs(scaled);
  const whole = Math.floor(size / power);
  let fraction = (size - whole * power) | 0;
  // String() goes over to an exponent below 0.000001.
  if (whole === 0 && fraction !== 0 && fraction * 1e6 < power) return writeText(view, at, String(scaled / power));
  let end = writeWhole(view, scaled < 0 ? writeMinus(view, at) : at, whole);
  if (fraction === 0) return end;
  let digits = decimals;
  for (let shorter = (fraction / 10) | 0; shorter * 10 === fraction; shorter = (fraction / 10) | 0) {
    fraction = shorter;
    digits--;
  }
  view.setUint8(end++, point);
  return writePadded(view, end, fraction, digits);
}

function writeMinus(view: DataView, at: number): number {
  view.setUint8(at, minus);
  return at + 1;
}

/** 0 to 10^9 - 1. */
function writeInt32(view: DataView, at: number, value: number): number {
  return writePadded(view, at, value, digitCount(value));
}

function digitCount(value: number): number {
  if (value < 1e4) return value < 1e2 ? (value < 10 ? 1 : 2) : value < 1e3 ? 3 : 4;
  if (value < 1e7) return value < 1e5 ? 5 : value < 1e6 ? 6 : 7;
  return value < 1e8 ? 8 : 9;
}

/** Exactly `digits` digits, with zeros in front, two at a time from the end. */
function writePadded(view: DataView, at: number, value: number, digits: number): number {
  const end = at + digits;
  let rest = value;
  let to = end;
  while (to - at >= 2) {
    const hundreds = (rest / 100) | 0;
    to -= 2;
    view.setUint16(to, digitPairs[rest - hundreds * 100]!, true);
    rest = hundreds;
  }
  if (to > at) view.setUint8(at, zero + rest);
  return end;
}

const zero = 0x30;
const minus = 0x2d;
const point = 0x2e;

/** The two digits of 0 to 99, the first one in the low byte. */
const digitPairs = Uint16Array.from({ length: 100 }, (_, value) => {
  const tens = Math.floor(value / 10);
  return zero + tens + ((zero + value - tens * 10) << 8);
});
