// Reads Prometheus's text format, version 0.0.4, which exporters answer with and which text files hold.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
//
//     # HELP http_seconds How long a request took.
//     # TYPE http_seconds histogram
//     http_seconds_bucket{path="/a",le="0.1"} 7
//     http_seconds_bucket{path="/a",le="+Inf"} 9
//     http_seconds_sum{path="/a"} 1.5
//     http_seconds_count{path="/a"} 9 1719835200000
import { type MetricType, metricTypes } from './family.ts';
import { sameTexts, suffixesOf, textsKey } from './series.ts';

/** A family as its comments declare it. Without a TYPE it is untyped, without a HELP its help is empty. */
export interface TextFamily {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
}

/** Series of a family with one suffix and the same label names, which are sorted. Labels without a value are left out. */
export interface TextGroup {
  readonly family: TextFamily;
  /** Behind the family's name: one of `suffixesOf` its type. */
  readonly suffix: string;
  readonly labelNames: readonly string[];
}

export interface TextSample {
  readonly group: TextGroup;
  readonly labelValues: readonly string[];
  readonly value: number;
  /** Milliseconds since 1970, undefined where the line has none. */
  readonly timestampMs: number | undefined;
  /** From 1. */
  readonly line: number;
}

export interface TextBounds {
  readonly samplesMax: number;
  /** Labels of a sample. */
  readonly labelsMax: number;
}

/** `format`: not in the format. `limit`: more than a bound allows. `duplicate`: a series that was there before. */
export type TextErrorCode = 'format' | 'limit' | 'duplicate';

/** Why a text is refused. The message does not name the line, because the caller names the file before it. */
export class TextError extends Error {
  override readonly name = 'TextError';
  readonly code: TextErrorCode;
  /** From 1; 0 for a text without any. */
  readonly line: number;
  constructor(code: TextErrorCode, line: number, what: string) {
    super(what);
    this.code = code;
    this.line = line;
  }
}

/**
 * Every sample of a text, in order. A text with anything wrong in it is a TextError: its writer was interrupted, or has a
 * bug, and half of what it says may be worse than nothing. The time is linear in the length of the text.
 */
export function parseText(text: string, bounds: TextBounds): TextSample[] {
  return new TextParser(text, bounds).parse();
}

interface DeclaredFamily extends TextFamily {
  type: MetricType;
  help: string;
  hasType: boolean;
  hasHelp: boolean;
  hasSamples: boolean;
  /** By suffix and label names. */
  readonly groups: Map<string, Group>;
}

interface Group extends TextGroup {
  readonly family: DeclaredFamily;
  /** By the values of its labels. */
  readonly seen: Set<string>;
}

// Each reads one kind of character, so none of them ever goes back.
const blanks = /[ \t]*/y;
const metricName = /[A-Za-z_:][A-Za-z0-9_:]*/y;
const labelName = /[A-Za-z_][A-Za-z0-9_]*/y;
const plain = /[^"\\\n]*/y;
const word = /[^ \t\n]+/y;
const decimal = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const whole = /^-?\d{1,16}$/;
// A double has at most 24 characters; 64 leave room for padding and keep `decimal` fast.
const numberCharactersMax = 64;
const shownCharactersMax = 40;
const nameCharactersMax = 1024;

class TextParser {
  readonly #text: string;
  readonly #bounds: TextBounds;
  readonly #families = new Map<string, DeclaredFamily>();
  readonly #samples: TextSample[] = [];
  #at = 0;
  #line = 0;
  /** Of the last sample: the next one is usually like it. */
  #last: Group | undefined;

  constructor(text: string, bounds: TextBounds) {
    this.#text = text;
    this.#bounds = bounds;
  }

  parse(): TextSample[] {
    const text = this.#text;
    if (text === '') throw new TextError('format', 0, 'it is empty');
    // A number that was cut in half would be a smaller number.
    if (!text.endsWith('\n')) {
      this.#line = linesOf(text) + 1;
      throw this.#error('it ends in the middle of the line');
    }
    while (this.#at < text.length) {
      this.#line++;
      this.#skipBlanks();
      if (this.#is('#')) this.#comment();
      else if (!this.#is('\n')) this.#sample();
      if (!this.#is('\n')) throw this.#error(`the line should end before ${this.#shown()}`);
      this.#at++;
    }
    return this.#samples;
  }

  #comment(): void {
    this.#at++;
    this.#skipBlanks();
    const keyword = this.#match(word);
    if (keyword === 'HELP') this.#help();
    else if (keyword === 'TYPE') this.#type();
    else this.#toLineEnd();
  }

  #help(): void {
    const family = this.#declared('HELP');
    if (family.hasHelp) throw this.#error(`a second HELP of '${family.name}'`);
    family.hasHelp = true;
    this.#skipBlanks();
    const start = this.#at;
    this.#toLineEnd();
    const help = this.#text.slice(start, this.#at);
    family.help = help.includes('\\') ? help.replaceAll(/\\[\\n]/g, (pair) => (pair === '\\n' ? '\n' : '\\')) : help;
  }

  #type(): void {
    const family = this.#declared('TYPE');
    this.#skipBlanks();
    const given = this.#match(word) ?? '';
    // Prometheus reads it so, too: some programs write GAUGE.
    const type = metricTypes.find((each) => each === given.toLowerCase());
    if (type === undefined)
      throw this.#error(`the type of '${family.name}' is ${quoted(given)}, expected one of ${metricTypes.join(', ')}`);
    if (family.hasType) throw this.#error(`a second TYPE of '${family.name}'`);
    if (family.hasSamples) throw this.#error(`the TYPE of '${family.name}' comes after its first sample`);
    family.hasType = true;
    family.type = type;
    this.#skipBlanks();
  }

  #declared(keyword: string): DeclaredFamily {
    this.#skipBlanks();
    return this.#familyNamed(this.#name(metricName, `the name behind ${keyword}`));
  }

  #sample(): void {
    const name = this.#name(metricName, 'the name of a metric');
    this.#skipBlanks();
    const labels = this.#is('{') ? this.#labels() : [];
    const { family, suffix } = this.#familyOf(name);
    const group = this.#groupOf(family, suffix, labels);
    const labelValues = labels.map(({ value }) => value);
    const key = textsKey(labelValues);
    if (group.seen.has(key)) throw this.#error(`'${name}' has this series twice`, 'duplicate');
    group.seen.add(key);
    this.#skipBlanks();
    const value = this.#number(this.#match(word) ?? '', `the value of '${name}'`);
    this.#skipBlanks();
    const timestampMs = this.#is('\n') ? undefined : this.#timestamp();
    if (this.#samples.length >= this.#bounds.samplesMax) {
      throw this.#error(`more than ${this.#bounds.samplesMax} samples`, 'limit');
    }
    family.hasSamples = true;
    this.#samples.push({ group, labelValues, value, timestampMs, line: this.#line });
  }

  /** Sorted by name, without those that have no value. */
  #labels(): Label[] {
    const labels: Label[] = [];
    let count = 0;
    this.#at++;
    this.#skipBlanks();
    while (!this.#is('}')) {
      const name = this.#name(labelName, 'the name of a label');
      if (name === '__name__') throw this.#error("no label may be named '__name__'");
      this.#skipBlanks();
      this.#expect('=', name);
      this.#skipBlanks();
      const value = this.#quoted(name);
      if (++count > this.#bounds.labelsMax) throw this.#error(`more than ${this.#bounds.labelsMax} labels`, 'limit');
      if (value !== '') labels.push({ name, value });
      this.#skipBlanks();
      if (this.#is('}')) break;
      this.#expect(',', name);
      this.#skipBlanks();
    }
    this.#at++;
    labels.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (let at = 1; at < labels.length; at++) {
      if (labels[at]!.name === labels[at - 1]!.name) throw this.#error(`the label '${labels[at]!.name}' comes twice`);
    }
    return labels;
  }

  #quoted(label: string): string {
    this.#expect('"', label);
    const first = this.#match(plain) ?? '';
    if (this.#is('"')) {
      this.#at++;
      return first;
    }
    const parts = [first];
    while (!this.#is('"')) {
      if (!this.#is('\\')) throw this.#error(`the value of the label '${label}' does not end`);
      const escaped = this.#text[this.#at + 1];
      if (escaped !== 'n' && escaped !== '\\' && escaped !== '"') {
        throw this.#error(
          `the value of the label '${label}' has ${JSON.stringify(this.#text.slice(this.#at, this.#at + 2))}, expected \\\\, \\" or \\n`,
        );
      }
      this.#at += 2;
      parts.push(escaped === 'n' ? '\n' : escaped, this.#match(plain) ?? '');
    }
    this.#at++;
    return parts.join('');
  }

  /** To which family a sample of this name belongs, and with which suffix. */
  #familyOf(name: string): { readonly family: DeclaredFamily; readonly suffix: string } {
    for (const suffix of ['_bucket', '_sum', '_count']) {
      if (!name.endsWith(suffix)) continue;
      const family = this.#families.get(name.slice(0, -suffix.length));
      if (family !== undefined && family.type !== 'untyped' && hasSuffix(family.type, suffix))
        return { family, suffix };
    }
    const family = this.#familyNamed(name);
    if (!hasSuffix(family.type, ''))
      throw this.#error(`'${name}' is a ${family.type}, expected ${name}_bucket, _sum or _count`);
    return { family, suffix: '' };
  }

  #familyNamed(name: string): DeclaredFamily {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = {
        name,
        type: 'untyped',
        help: '',
        hasType: false,
        hasHelp: false,
        hasSamples: false,
        groups: new Map(),
      };
      this.#families.set(name, family);
    }
    return family;
  }

  #groupOf(family: DeclaredFamily, suffix: string, labels: readonly Label[]): Group {
    const last = this.#last;
    const labelNames = labels.map(({ name }) => name);
    const isLast = last?.family === family && last.suffix === suffix && sameTexts(last.labelNames, labelNames);
    const group = isLast ? last : this.#newGroup(family, suffix, labelNames);
    const own = ownLabelOf(family.type, suffix);
    for (const { name, value } of labels) {
      if (name === own && value !== '+Inf' && !isDecimal(value)) {
        throw this.#error(`the label '${own}' of '${family.name}' is ${quoted(value)}, expected a number`);
      }
    }
    this.#last = group;
    return group;
  }

  #newGroup(family: DeclaredFamily, suffix: string, labelNames: readonly string[]): Group {
    const key = textsKey([suffix, ...labelNames]);
    const known = family.groups.get(key);
    if (known !== undefined) return known;
    for (const each of suffixesOf(family.type)) {
      if (each.ownLabel === undefined || labelNames.includes(each.ownLabel) === (each.suffix === suffix)) continue;
      const what = each.suffix === suffix ? 'lacks' : 'has';
      throw this.#error(`'${family.name}${suffix}' of a ${family.type} ${what} the label '${each.ownLabel}'`);
    }
    const group = { family, suffix, labelNames, seen: new Set<string>() };
    family.groups.set(key, group);
    return group;
  }

  #number(given: string, what: string): number {
    if (isDecimal(given)) return Number(given);
    switch (given.toLowerCase().replace(/^[+-]/, '')) {
      case 'inf':
      case 'infinity':
        return given.startsWith('-') ? -Infinity : Infinity;
      case 'nan':
        return Number.NaN;
      default:
        throw this.#error(`${what} is ${given === '' ? 'missing' : `${quoted(given)}, expected a number`}`);
    }
  }

  #timestamp(): number {
    const given = this.#match(word) ?? '';
    if (given.length > 17 || !whole.test(given)) {
      throw this.#error(`the timestamp is ${quoted(given)}, expected milliseconds since 1970`);
    }
    this.#skipBlanks();
    return Number(given);
  }

  #name(pattern: RegExp, what: string): string {
    const name = this.#match(pattern);
    if (name === undefined) throw this.#error(`${what} is missing before ${this.#shown()}`);
    if (name.length > nameCharactersMax) throw this.#error(`${what} has ${name.length} characters`, 'limit');
    return name;
  }

  #expect(character: string, label: string): void {
    if (!this.#is(character)) throw this.#error(`the label '${label}' is not followed by ${character}`);
    this.#at++;
  }

  #is(character: string): boolean {
    return this.#text[this.#at] === character;
  }

  #skipBlanks(): void {
    const code = this.#text.charCodeAt(this.#at);
    if (code === 0x20 || code === 0x09) this.#match(blanks);
  }

  #toLineEnd(): void {
    this.#at = this.#text.indexOf('\n', this.#at);
  }

  /** Undefined, and no step, where it does not match here. */
  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#text)) return undefined;
    const start = this.#at;
    this.#at = pattern.lastIndex;
    return this.#text.slice(start, this.#at);
  }

  /** What comes next in the line. */
  #shown(): string {
    const end = this.#text.indexOf('\n', this.#at);
    return end === this.#at
      ? 'the end of the line'
      : quoted(this.#text.slice(this.#at, Math.min(end, this.#at + shownCharactersMax + 1)));
  }

  #error(what: string, code: TextErrorCode = 'format'): TextError {
    return new TextError(code, this.#line, what);
  }
}

interface Label {
  readonly name: string;
  readonly value: string;
}

function isDecimal(text: string): boolean {
  return text.length <= numberCharactersMax && decimal.test(text);
}

function hasSuffix(type: MetricType, suffix: string): boolean {
  return suffixesOf(type).some((each) => each.suffix === suffix);
}

function ownLabelOf(type: MetricType, suffix: string): string | undefined {
  return suffixesOf(type).find((each) => each.suffix === suffix)?.ownLabel;
}

function quoted(text: string): string {
  return text.length <= shownCharactersMax
    ? JSON.stringify(text)
    : `${JSON.stringify(text.slice(0, shownCharactersMax))}…`;
}

function linesOf(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count++;
  return count;
}
