import { type CollectError, FormatError } from './errors.ts';
import { nameOf, shownOf } from './names.ts';

const newline = 0x0a;
const space = 0x20;
const tab = 0x09;
const zero = 0x30;
const colon = 0x3a;
const minus = 0x2d;
const lessThan = 0x3c;
const comma = 0x2c;
const open = 0x28;
const close = 0x29;

/**
 * The bytes of one kernel file, with a position that goes over them once: lines, and in a line words and numbers. A
 * word that was seen before is the same string again. The only place that parses a number.
 *
 * The agent runs without the optimizer, where a step of JavaScript costs ten times what it costs in a loop of C++. So
 * lines are found and prefixes compared in a string, a character a byte, by its built-in methods; digits, of which
 * there are few in a row, are looked at as bytes, which costs less than charCodeAt.
 *
 * The content stays valid until its file is read again.
 */
export class KernelText {
  /** The path as error messages show it. */
  path: string;
  readonly #words: Words;
  /** What was skipped because it could not be parsed, of all files of a host. */
  readonly #parseErrors: CollectError[];
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  /** Without a newline that was added. */
  #contentLength = 0;
  /** The content in Latin-1. */
  #text = '';
  #at = 0;
  #lineNumber = 0;
  /** Where the line's newline is, which ends every loop over digits or spaces. */
  #lineEnd = 0;
  /** By line, the text before its colon the last time, which is usually the same. */
  readonly #keys: ({ readonly key: string; readonly withColon: string } | undefined)[] = [];

  constructor(path: string, words = new Words(), parseErrors: CollectError[] = []) {
    this.path = path;
    this.#words = words;
    this.#parseErrors = parseErrors;
  }

  /** The buffer to read the file into; then call `filled`. */
  get room(): Uint8Array {
    return this.#bytes;
  }

  /**
   * The first bytes of `room` are the content; there is room for one more. It was read to its end: where the last line
   * has no newline (some drivers, a sandbox whose /proc is a program's, os-release written by hand), it is ended here.
   */
  filled(length: number): void {
    this.#length = length;
    this.#contentLength = length;
    if (length > 0 && this.#bytes[length - 1] !== newline) this.#bytes[this.#length++] = newline;
    this.#text = this.#bytes.toString('latin1', 0, this.#length);
    this.rewind();
  }

  /** Takes a copy, and makes room for it and a little more. */
  fill(bytes: Uint8Array, length: number): void {
    if (length >= this.#bytes.length) this.#bytes = newRoom(roomFor(length));
    this.#bytes.set(bytes.subarray(0, length));
    this.filled(length);
  }

  /** The same of bytes that are characters of Latin-1. */
  fillLatin1(content: string): void {
    if (content.length >= this.#bytes.length) this.#bytes = newRoom(roomFor(content.length));
    this.filled(this.#bytes.write(content, 'latin1'));
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether the line is the kernel's word for a value that it does not have. */
  saysUnknown(): boolean {
    return this.#bytes[this.#at] === lessThan && (this.skip('<unknown>') || this.skip('<unsupported>'));
  }

  rewind(): void {
    this.#at = 0;
    this.#lineNumber = 0;
    this.#lineEnd = 0;
  }

  /**
   * Reads the file line by line, each from its first character that is no space; blank lines are skipped. `read`
   * returns whether the line is of the kind that it looks for. It parses all of a line before it delivers samples: a
   * line that it cannot parse costs only its own series, and its FormatError becomes one of the host's parse errors. A
   * file without any line of this kind is a FormatError. Returns how many lines could not be parsed: what is a sum over
   * lines is wrong without one of them.
   */
  eachLine(kind: string, read: (line: this) => boolean): number {
    const errorsBefore = this.#parseErrors.length;
    let found = false;
    for (;;) {
      try {
        if (!this.nextLine()) break;
        const first = this.#bytes[this.#at];
        if (first === newline || ((first === space || first === tab) && !this.more())) continue;
        if (read(this)) found = true;
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        this.#parseErrors.push(error);
      }
    }
    if (found) return this.#parseErrors.length - errorsBefore;
    const [first] = this.#parseErrors.splice(errorsBefore);
    throw first ?? new FormatError(this.path, this.#length === 0 ? ' is empty' : ` has no line of ${kind}`);
  }

  /** Goes to the first line that is not blank: for files of one value. Where all are blank, to the last of them. */
  firstLine(): void {
    if (!this.nextLine()) throw new FormatError(this.path, ' is empty');
    while (!this.more() && this.nextLine());
  }

  /** Goes to the start of the next line; false after the last. */
  nextLine(): boolean {
    const start = this.#lineNumber === 0 ? 0 : this.#lineEnd + 1;
    if (start >= this.#length) return false;
    this.#lineNumber++;
    this.#at = start;
    this.#lineEnd = this.#text.indexOf('\n', start);
    return true;
  }

  /** Skips these ASCII characters; false if the rest of the line does not start with them. */
  skip(prefix: string): boolean {
    if (!this.#text.startsWith(prefix, this.#at)) return false;
    this.#at += prefix.length;
    return true;
  }

  /** Goes behind the next place in the line where this text is; false where there is none. */
  skipPast(text: string): boolean {
    const found = this.#text.indexOf(text, this.#at);
    if (found < 0 || found >= this.#lineEnd) return false;
    this.#at = found + text.length;
    return true;
  }

  /** Goes behind the last place in the line where this text is; false where there is none. */
  skipPastLast(text: string): boolean {
    const found = this.#text.lastIndexOf(text, this.#lineEnd - text.length);
    if (found < this.#at) return false;
    this.#at = found + text.length;
    return true;
  }

  /** Goes behind the next word; false where the line has no more. */
  skipWord(): boolean {
    if (!this.more()) return false;
    this.#at = this.#wordEnd();
    return true;
  }

  /** How many words are left of the line. */
  wordCount(): number {
    const at = this.#at;
    let count = 0;
    while (this.skipWord()) count++;
    this.#at = at;
    return count;
  }

  /** Whether there are spaces before the position: in `eachLine`, before the line. */
  isIndented(): boolean {
    const before = this.#bytes[this.#at - 1];
    return before === space || before === tab;
  }

  /** Whether the next byte is a digit. */
  isAtDigit(): boolean {
    return (this.#bytes[this.#at]! ^ zero) <= 9;
  }

  isAtHexadecimal(): boolean {
    return hexadecimalDigits[this.#bytes[this.#at]!]! < 16;
  }

  /** Goes to the next byte that is neither space nor tab; false where the line has no more. */
  more(): boolean {
    const bytes = this.#bytes;
    const end = this.#lineEnd;
    let at = this.#at;
    while (at < end && (bytes[at] === space || bytes[at] === tab)) at++;
    this.#at = at;
    return at < end;
  }

  /** The characters up to the next space, tab or end of line. `what` is for the error where there are none. */
  word(what: string): string {
    if (!this.more()) throw this.error(`${what} is missing`);
    const start = this.#at;
    const end = this.#wordEnd();
    this.#at = end;
    return this.#words.of(this.#bytes, start, end);
  }

  /** The line's last word. */
  lastWord(what: string): string {
    let end = this.#lineEnd;
    const bytes = this.#bytes;
    while (end > this.#at && (bytes[end - 1] === space || bytes[end - 1] === tab)) end--;
    const start = Math.max(this.#at, this.#text.lastIndexOf(' ', end - 1) + 1);
    if (start >= end) throw this.error(`${what} is missing`);
    this.#at = this.#lineEnd;
    return this.#words.of(bytes, start, end);
  }

  /** As `key`; undefined, and nothing is skipped, where the line has no colon. */
  keyIfThere(): string | undefined {
    const end = this.#text.indexOf(':', this.#at);
    return end < 0 || end >= this.#lineEnd ? undefined : this.key('the key');
  }

  /** The characters before the next colon, which is skipped. */
  key(what: string): string {
    if (this.#bytes[this.#at] === space) this.more();
    const line = this.#lineNumber;
    const start = this.#at;
    const known = this.#keys[line];
    if (known !== undefined && this.skip(known.withColon)) return known.key;
    const end = this.#text.indexOf(':', start);
    const key = this.#until(start, end < 0 ? this.#lineEnd : end, what);
    // One byte a character: what is no UTF-8 is half a surrogate pair, which Latin-1 has not, and is not found again.
    if (line < keysMax && key.length === end - start) this.#keys[line] = { key, withColon: `${key}:` };
    return key;
  }

  /** The characters before the line's last colon, which is skipped. */
  keyToLastColon(what: string): string {
    this.more();
    const start = this.#at;
    const end = this.#bytes.lastIndexOf(colon, this.#lineEnd - 1);
    return this.#until(start, end < start ? this.#lineEnd : end, what);
  }

  #until(start: number, end: number, what: string): string {
    if (end >= this.#lineEnd) throw this.error(`${what} should end with a colon and does not`);
    this.#at = end + 1;
    return this.#words.of(this.#bytes, start, end);
  }

  /**
   * A whole number from 0 to 2^64-1 in decimal digits, up to the next space or the end of the line. Above 2^53 it is
   * the nearest double.
   */
  unsigned(what: string): number {
    const bytes = this.#bytes;
    let at = this.#at;
    let byte = bytes[at]!;
    while (byte === space || byte === tab) byte = bytes[++at]!;
    const start = at;
    let value = 0;
    // Of all bytes, the digits alone become 0 to 9 by this.
    for (let digit = byte ^ zero; digit <= 9; digit = byte ^ zero) {
      value = value * 10 + digit;
      byte = bytes[++at]!;
    }
    if (at === start || (byte !== space && byte !== newline && byte !== tab)) throw this.#notWhole(what);
    if (at - start > exactDigits) value = this.#long(what, start, at);
    this.#at = at;
    return value;
  }

  /** The same with a minus sign, from -(2^63) on. */
  signed(what: string): number {
    this.more();
    const at = this.#at;
    const digit = this.#bytes[at + 1]! ^ zero;
    if (this.#bytes[at] !== minus || digit > 9) return this.unsigned(what);
    this.#at = at + 1;
    return 0 - this.unsigned(what);
  }

  /**
   * The whole number in hexadecimal digits, without `0x`, up to the next space, colon or end of the line. Above 2^53 it is
   * the nearest double.
   */
  hexadecimal(what: string): number {
    const bytes = this.#bytes;
    let at = this.#at;
    let byte = bytes[at]!;
    while (byte === space || byte === tab) byte = bytes[++at]!;
    const start = at;
    let value = 0;
    // Most numbers of the kernel's tables are zero.
    if (byte === zero && this.#text.startsWith('00000000', at)) {
      at += 8;
      byte = bytes[at]!;
    }
    for (let digit = hexadecimalDigits[byte]!; digit < 16; digit = hexadecimalDigits[byte]!) {
      value = value * 16 + digit;
      byte = bytes[++at]!;
    }
    const isEnded = byte === space || byte === newline || byte === tab || byte === colon;
    if (at === start || at - start > 16 || !isEnded) {
      if (!this.more()) throw this.error(`${what} is missing`);
      throw this.error(`${what} is ${this.#shown(this.#at, this.#wordEnd())}, expected a hexadecimal number`);
    }
    this.#at = at;
    return value;
  }

  /** As `unsigneds`, in hexadecimal digits. */
  hexadecimals(into: number[], whats: readonly string[]): number {
    let count = 0;
    while (count < whats.length && this.more()) {
      into[count] = this.hexadecimal(whats[count]!);
      count++;
    }
    return count;
  }

  /**
   * The whole numbers that follow, one for each of `whats` as far as there are as many. Returns how many there were.
   * Each is read as by `unsigned`, in one loop, because most numbers are in rows.
   */
  unsigneds(into: number[], whats: readonly string[]): number {
    const bytes = this.#bytes;
    let at = this.#at;
    let count = 0;
    for (; count < whats.length; count++) {
      let byte = bytes[at]!;
      while (byte === space || byte === tab) byte = bytes[++at]!;
      if (byte === newline) break;
      const start = at;
      let value = 0;
      for (let digit = byte ^ zero; digit <= 9; digit = byte ^ zero) {
        value = value * 10 + digit;
        byte = bytes[++at]!;
      }
      if (at - start > exactDigits || at === start || (byte !== space && byte !== newline && byte !== tab)) {
        this.#at = start;
        value = this.unsigned(whats[count]!);
      }
      into[count] = value;
    }
    this.#at = at;
    return count;
  }

  /** `(0, 2946, 3922)`, and nothing behind it: whole numbers. Returns how many there were. */
  unsignedsInParentheses(into: number[], what: string): number {
    this.more();
    const bytes = this.#bytes;
    const start = this.#at;
    const end = this.#trimmedEnd();
    let at = start;
    for (let count = 0; bytes[at] === (count === 0 ? open : comma) && at < end; ) {
      at++;
      while (bytes[at] === space) at++;
      const first = at;
      let value = 0;
      for (let digit = bytes[at]! ^ zero; digit <= 9; digit = bytes[++at]! ^ zero) value = value * 10 + digit;
      if (at === first || at - first > exactDigits) break;
      into[count++] = value;
      if (bytes[at] !== close || at + 1 !== end) continue;
      this.#at = end;
      return count;
    }
    throw this.error(`${what} is ${this.#shown(start, end)}, expected whole numbers in parentheses`);
  }

  /**
   * Of what is left of the line, the whole numbers in these columns, which ascend from 0. The other columns are passed
   * over. Returns how many there were.
   */
  columns(into: number[], columns: readonly number[], whats: readonly string[], sign: 'signed' | 'unsigned'): number {
    let column = 0;
    for (let index = 0; index < columns.length; index++) {
      for (; column < columns[index]!; column++) if (!this.skipWord()) return index;
      if (!this.more()) return index;
      into[index] = this[sign](whats[index]!);
      column++;
    }
    return columns.length;
  }

  /**
   * The whole number behind each of these starts of lines, which come in this order: for the few lines that are wanted
   * of a long file, once they are known. False where one is missing, or its number is none: the file has to be read
   * line by line then, which says why.
   */
  unsignedsBehind(starts: readonly string[], into: number[]): boolean {
    const bytes = this.#bytes;
    // The newline before the line; there is none before the first.
    let before = -1;
    for (let index = 0; index < starts.length; index++) {
      const start = starts[index]!;
      if (before >= 0 || !this.#text.startsWith(start)) {
        before = this.#text.indexOf(`\n${start}`, before);
        if (before < 0) return false;
      }
      const first = before + 1 + start.length;
      let at = first;
      let byte = bytes[at]!;
      let value = 0;
      for (let digit = byte ^ zero; digit <= 9; digit = byte ^ zero) {
        value = value * 10 + digit;
        byte = bytes[++at]!;
      }
      if (at === first || at - first > exactDigits || byte !== newline) return false;
      into[index] = value;
    }
    return true;
  }

  #notWhole(what: string): FormatError {
    if (!this.more()) return this.error(`${what} is missing`);
    return this.error(`${what} is ${this.#shown(this.#at, this.#wordEnd())}, expected a whole number`);
  }

  // Digit after digit would round again and again; Number() rounds once.
  #long(what: string, start: number, end: number): number {
    const value = Number(ascii(this.#bytes, start, end));
    if (value > 2 ** 64) throw this.error(`${what} is ${this.#shown(start, end)}, expected at most 2^64-1`);
    return value;
  }

  /** A number with two digits behind its point, as the kernel prints load averages, in hundredths: `0.12` is 12. */
  hundredths(what: string): number {
    return this.decimal(what, 2);
  }

  /** A number with so many digits behind its point, as a whole number of that place: with 3, `2445.406` is 2445406. */
  decimal(what: string, places: number): number {
    if (!this.more()) throw this.error(`${what} is missing`);
    const bytes = this.#bytes;
    const start = this.#at;
    const end = this.#wordEnd();
    const point = end - places - 1;
    let value = 0;
    for (let at = start; at < end; at++) {
      const digit = bytes[at]! - zero;
      const isDigit = digit >= 0 && digit <= 9;
      if (point <= start || end - start > exactDigits || (at === point ? bytes[at] !== 0x2e : !isDigit)) {
        const expected = `expected a number with ${places === 2 ? 'two' : places} digits behind its point`;
        throw this.error(`${what} is ${this.#shown(start, end)}, ${expected}`);
      }
      if (at !== point) value = value * 10 + digit;
    }
    this.#at = end;
    return value;
  }

  /** The whole number that this part of a word is, with or without a minus sign. */
  wholeNumber(part: string, what: string): number {
    if (!/^-?\d{1,20}$/.test(part)) throw this.error(`${what} is ${JSON.stringify(part)}, expected a whole number`);
    return Number(part);
  }

  /**
   * A size in a unit, as bcache and bcachefs print it, in bytes: `1.5k` is 1536, `-2M` is -2097152. `after`: what stands
   * behind the unit. `fraction`: what a digit behind the point is worth.
   */
  humanSize(what: string, { after = '', fraction = decimal }: HumanSizeOptions = {}): number {
    const start = this.more() ? this.#at : this.#lineEnd;
    const word = this.word(what);
    const size = word.endsWith(after) ? word.slice(0, word.length - after.length) : '';
    const match = /^(-?)(\d{1,15})(?:\.(\d{1,4}))?([kKMGTPE]?)$/.exec(size);
    if (match === null)
      throw this.error(`${what} is ${this.#shown(start, this.#at)}, expected a size such as 1.5k${after}`);
    const [, sign = '', whole = '', digits, unit = ''] = match;
    const factor = unit === '' ? 1 : 1024 ** ('kMGTPE'.indexOf(unit === 'K' ? 'k' : unit) + 1);
    const bytes = Math.trunc((Number(whole) + (digits === undefined ? 0 : fraction(digits))) * factor);
    return sign === '' ? bytes : 0 - bytes;
  }

  /** What is left of the line, without spaces around it. */
  rest(): string {
    this.more();
    const end = this.#trimmedEnd();
    const text = this.#words.of(this.#bytes, this.#at, end);
    this.#at = this.#lineEnd;
    return text;
  }

  /** What is left of the line, with the spaces at its end. */
  restWithSpaces(): string {
    const text = this.#words.of(this.#bytes, this.#at, this.#lineEnd);
    this.#at = this.#lineEnd;
    return text;
  }

  /** What is left of the line; it is not skipped. */
  peek(): string {
    return this.#text.slice(this.#at, this.#lineEnd);
  }

  /** The content as it is, for what is not text. */
  content(): Uint8Array {
    return this.#bytes.subarray(0, this.#contentLength);
  }

  /** A FormatError that names the file and the line. */
  error(what: string): FormatError {
    return new FormatError(this.path, `, line ${this.#lineNumber}: ${what}`);
  }

  /** Where the rest of the line ends, without spaces behind it. */
  #trimmedEnd(): number {
    let end = this.#lineEnd;
    while (end > this.#at && (this.#bytes[end - 1] === space || this.#bytes[end - 1] === tab)) end--;
    return end;
  }

  #wordEnd(): number {
    const bytes = this.#bytes;
    const end = this.#lineEnd;
    let at = this.#at;
    while (at < end && bytes[at] !== space && bytes[at] !== tab) at++;
    return at;
  }

  #shown(start: number, end: number): string {
    const cut = Math.min(end, start + shownBytesMax);
    return `${JSON.stringify(shownOf(nameOf(this.#bytes.subarray(start, cut))))}${cut < end ? '…' : ''}`;
  }
}

export interface HumanSizeOptions {
  readonly after?: string;
  fraction?(digits: string): number;
}

function decimal(digits: string): number {
  return Number(`0.${digits}`);
}

/**
 * Strings that were read before, found by their bytes: names, which need not be UTF-8 (names.ts). Two strings with one hash are no error: the later one is decoded
 * each time.
 */
export class Words {
  readonly #byHash = new Map<number, string>();

  of(bytes: Uint8Array, start: number, end: number): string {
    let hash = 0;
    for (let at = start; at < end; at++) hash = (Math.imul(hash, 31) + bytes[at]!) & 0x3fffffff;
    const known = this.#byHash.get(hash);
    if (known !== undefined && isAscii(known, bytes, start, end)) return known;
    const word = nameOf(bytes.subarray(start, end));
    if (known === undefined && word.length <= rememberedCharactersMax) {
      // Names come and go (containers): rather than to find out which are gone, it starts again.
      if (this.#byHash.size >= wordsMax) this.#byHash.clear();
      this.#byHash.set(hash, word);
    }
    return word;
  }
}

/** By byte; what is no digit is 255. */
const hexadecimalDigits = new Uint8Array(256).fill(255);
for (let digit = 0; digit < 16; digit++) {
  const text = digit.toString(16);
  hexadecimalDigits[text.charCodeAt(0)] = digit;
  hexadecimalDigits[text.toUpperCase().charCodeAt(0)] = digit;
}

// 999 999 999 999 999 is below 2^53.
const exactDigits = 15;
const keysMax = 256;
const shownBytesMax = 40;
const wordsMax = 8192;
const rememberedCharactersMax = 256;

/** Equal byte for byte: a word beyond ASCII is never equal and is decoded each time. */
function isAscii(word: string, bytes: Uint8Array, start: number, end: number): boolean {
  if (word.length !== end - start) return false;
  for (let index = 0; index < word.length; index++) {
    const byte = bytes[start + index]!;
    if (byte > 0x7f || word.charCodeAt(index) !== byte) return false;
  }
  return true;
}

function ascii(bytes: Uint8Array, start: number, end: number): string {
  let text = '';
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at]!);
  return text;
}

/** Grows in steps, so that a file that grows by a digit needs no new buffer. */
function roomFor(length: number): number {
  return length + (length >> 2) + 16;
}

/** A value has a few bytes, and there may be 20,000: they share Node's pools, for memory of its own takes 300 bytes more. */
function newRoom(bytes: number): Buffer {
  return bytes <= sharedRoomMax ? Buffer.allocUnsafe(bytes) : Buffer.allocUnsafeSlow(bytes);
}

const sharedRoomMax = 128;
