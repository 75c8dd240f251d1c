import { seriesName } from './synthetic-host.ts';

/** One line of a scrape's body. */
export interface ParsedSample {
  readonly series: string;
  readonly value: number;
  /** Undefined where the line has none: then it is of the scrape's own time. */
  readonly timeMs: number | undefined;
}

const prefixes = new Map<string, string>();

/** Text format 0.0.4 as the server prints it. Throws on anything else. */
export function parseExposition(text: string): ParsedSample[] {
  const samples: ParsedSample[] = [];
  const seenFamilies = new Set<string>();
  for (const line of text.split('\n')) {
    if (line === '') continue;
    if (line.startsWith('#')) {
      const [, word, family] = line.split(' ', 3);
      if (word === 'TYPE' && seenFamilies.has(family!)) throw new Error(`a family stands in two places: '${family}'`);
      if (word === 'TYPE') seenFamilies.add(family!);
      continue;
    }
    samples.push(parseLine(line));
  }
  return samples;
}

function parseLine(line: string): ParsedSample {
  // Neither a value nor a time has a brace.
  const end = line.lastIndexOf('}') + 1 || line.indexOf(' ');
  const prefix = line.slice(0, end);
  let series = prefixes.get(prefix);
  if (series === undefined) {
    series = parsePrefix(prefix);
    if (prefixes.size > prefixesMax) prefixes.clear();
    prefixes.set(prefix, series);
  }
  const [value, time, ...more] = line.slice(end + 1).split(' ');
  if (line[end] !== ' ' || value === undefined || more.length > 0) throw new Error(`no sample: '${line}'`);
  const timeMs = time === undefined ? undefined : Number(time);
  if (timeMs !== undefined && !Number.isSafeInteger(timeMs)) throw new Error(`no time: '${line}'`);
  return { series, value: parseValue(value, line), timeMs };
}

const prefixesMax = 20_000;

function parseValue(text: string, line: string): number {
  if (text === 'NaN') return Number.NaN;
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  const value = Number(text);
  if (text === '' || Number.isNaN(value)) throw new Error(`no value: '${line}'`);
  return value;
}

function parsePrefix(prefix: string): string {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?$/s.exec(prefix);
  if (match === null) throw new Error(`no series: '${prefix}'`);
  const labels: [string, string][] = [];
  let rest = match[2] ?? '';
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)/s.exec(rest);
    if (label === null) throw new Error(`no label: '${rest}' in '${prefix}'`);
    labels.push([label[1]!, label[2]!.replace(/\\(.)/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped))]);
    rest = rest.slice(label[0].length);
  }
  return seriesName(match[1]!, labels);
}

/** What became of the samples of one scrape. */
export interface Verdict {
  /** One sample was too old for the out-of-order window: nothing of this scrape is stored. */
  readonly isFailed: boolean;
  readonly stored: number;
  /** Refused one by one, the rest of the scrape being stored. */
  readonly refused: readonly Refusal[];
}

export interface Refusal {
  readonly reason: 'out of order' | 'duplicate' | 'out of bounds' | 'too far ahead';
  readonly sample: { readonly series: string; readonly timeMs: number; readonly value: number };
}

interface StoredSeries {
  maxMs: number;
  lastValue: number;
  readonly samples: Map<number, number>;
}

/**
 * Prometheus's head block: what it takes and what it refuses, by Prometheus 2.42 (tsdb/head_append.go, scrape/scrape.go).
 * A test holds it against a real one.
 */
export class PrometheusModel {
  readonly #outOfOrderMs: number;
  readonly series = new Map<string, StoredSeries>();
  #headMaxMs = Number.NEGATIVE_INFINITY;

  /** `outOfOrderMs`: 0 where none is set, as it is by default. */
  constructor(outOfOrderMs: number) {
    this.#outOfOrderMs = outOfOrderMs;
  }

  get headMaxMs(): number {
    return this.#headMaxMs;
  }

  /** A scrape that was read whole. `atMs`: when it began, on this Prometheus's clock; `nowMs`: now. */
  scraped(samples: readonly ParsedSample[], { atMs, nowMs }: { atMs: number; nowMs: number }): Verdict {
    const refused: Refusal[] = [];
    const accepted: { readonly series: string; readonly timeMs: number; readonly value: number }[] = [];
    let bounds = this.#bounds();
    for (const { series, value, timeMs = atMs } of samples) {
      const sample = { series, value, timeMs };
      if (timeMs > nowMs + aheadMsMax) {
        refused.push({ reason: 'too far ahead', sample });
        continue;
      }
      if (this.#headMaxMs === Number.NEGATIVE_INFINITY) this.#headMaxMs = timeMs;
      bounds ??= this.#bounds()!;
      const verdict = this.#appendable(sample, bounds);
      if (verdict === 'too old') {
        this.#report(atMs, 0);
        return { isFailed: true, stored: 0, refused: [] };
      }
      if (verdict === 'in order' || verdict === 'out of order, taken') accepted.push(sample);
      else refused.push({ reason: verdict, sample });
    }
    let stored = 0;
    let newestMs = Number.NEGATIVE_INFINITY;
    for (const sample of accepted) {
      const verdict = this.#appendable(sample, bounds!);
      // Within one scrape the order is looked at only here, and what is wrong is dropped without a word.
      if (verdict === 'in order') {
        if (this.#store(sample, true)) stored++;
        newestMs = Math.max(newestMs, sample.timeMs);
      } else if (verdict === 'out of order, taken' && this.#store(sample, false)) stored++;
    }
    this.#headMaxMs = Math.max(this.#headMaxMs, newestMs);
    this.#report(atMs, 1);
    return { isFailed: false, stored, refused };
  }

  /** A scrape that failed: nothing but `up` is stored. */
  failed(atMs: number): void {
    this.#report(atMs, 0);
  }

  #bounds(): { readonly validFromMs: number; readonly headMaxMs: number } | undefined {
    if (this.#headMaxMs === Number.NEGATIVE_INFINITY) return undefined;
    return { validFromMs: this.#headMaxMs - inOrderMsMax, headMaxMs: this.#headMaxMs };
  }

  #appendable(
    { series, timeMs, value }: { series: string; timeMs: number; value: number },
    { validFromMs, headMaxMs }: { validFromMs: number; headMaxMs: number },
  ): 'in order' | 'out of order, taken' | 'too old' | 'out of order' | 'duplicate' | 'out of bounds' {
    if (timeMs >= validFromMs) {
      const stored = this.series.get(series);
      if (stored === undefined || timeMs > stored.maxMs) return 'in order';
      if (timeMs === stored.maxMs) return Object.is(stored.lastValue, value) ? 'in order' : 'duplicate';
    }
    if (this.#outOfOrderMs > 0) return timeMs >= headMaxMs - this.#outOfOrderMs ? 'out of order, taken' : 'too old';
    return timeMs < validFromMs ? 'out of bounds' : 'out of order';
  }

  #store({ series, timeMs, value }: { series: string; timeMs: number; value: number }, inOrder: boolean): boolean {
    let stored = this.series.get(series);
    if (stored === undefined) {
      stored = { maxMs: Number.NEGATIVE_INFINITY, lastValue: 0, samples: new Map() };
      this.series.set(series, stored);
    }
    if (inOrder) {
      stored.maxMs = timeMs;
      stored.lastValue = value;
    }
    if (stored.samples.has(timeMs)) return false;
    stored.samples.set(timeMs, value);
    return true;
  }

  /** `up` and its like: at the scrape's own time, and so what moves the head's time on. */
  #report(atMs: number, value: number): void {
    const bounds = this.#bounds() ?? { validFromMs: Number.NEGATIVE_INFINITY, headMaxMs: atMs };
    if (this.#appendable({ series: 'up', timeMs: atMs, value }, bounds) !== 'in order') return;
    this.#store({ series: 'up', timeMs: atMs, value }, true);
    this.#headMaxMs = Math.max(this.#headMaxMs, atMs);
  }
}

// timeLimitAppender in scrape/manager.go.
const aheadMsMax = 10 * 60_000;
// Half of the head's chunk range of two hours.
const inOrderMsMax = 3_600_000;
