import assert from 'node:assert';
import { type Family, metricTypes, sameFamily } from '../../model/family.ts';
import type { Recording } from '../../model/recording.ts';
import { Schema } from '../../model/schema.ts';
import { sameTexts } from '../../model/series.ts';
import { limits } from '../../protocol/limits.ts';
import { isLabelName, isMetricName, isReservedMetricName } from '../../protocol/names.ts';
import type { SampledFamily, Samples } from './collectors/collector.ts';

/** What became of samples that are not in a recording, for the agent's own metrics. */
export interface RecorderCounters {
  samplesDuplicate: number;
  samplesRefused: number;
  labelsCut: number;
  schemasBegun: number;
  /** At this instant, not since the start. */
  seriesLeftOut: number;
}

export interface RecorderOptions {
  readonly counters: RecorderCounters;
  readonly warn: (text: string) => void;
  /** Smaller in tests. */
  readonly seriesMax?: number;
  readonly schemaBytesMax?: number;
}

/** A collector's place in a recorder. */
export interface Part {
  readonly name: string;
  /** True where its series are not recorded, because the schema has no room for them. */
  readonly leftOut: boolean;
}

/**
 * Takes samples in the order in which they come, lines them up with a schema, and writes them into one array.
 *
 *     begin()   enter(cpu) sample … leave()   enter(disks) sample … abandon()   settle()   enter(own) …   end()
 *
 * Each part has a plan: the series that it gave the last time, in that order. A sample that equals the plan's next is
 * written and that is all; any other is looked up by its labels, and the plan is corrected. New series get their place
 * at `end`, family by family, so that a schema says a family once, and not once for each of its devices.
 */
export class Recorder implements Samples {
  readonly #counters: RecorderCounters;
  readonly #warn: (text: string) => void;
  readonly #room: Size;
  readonly #warned = new Set<string>();

  #schema = new Schema();
  #schemaBytes = 0;
  /** By id. */
  #series: Series[] = [];
  readonly #families = new Map<string, FamilySeries>();
  /** By the object that collectors pass, which is quicker to find than a name. */
  readonly #familiesByObject = new Map<SampledFamily, FamilySeries | undefined>();

  readonly #parts: PartState[] = [];
  #part: PartState | undefined;

  // Longer than the schema, so that it can grow.
  #sums = new Float64Array(capacityFirst);
  #present = new Uint8Array(capacityFirst);
  /** 1 where the series was present at some instant of this period. */
  #seen = new Uint8Array(capacityFirst);
  #instantsInPeriod = 0;
  #recording: Recording;

  constructor(options: RecorderOptions) {
    this.#counters = options.counters;
    this.#warn = options.warn;
    this.#room = {
      count: options.seriesMax ?? limits.seriesMax,
      bytes: options.schemaBytesMax ?? limits.schemaBytesMax,
    };
    this.#recording = this.#view();
  }

  /** Adds a part. One that is `required` is never left out: what the agent says about itself. */
  part(name: string, options: { readonly required?: boolean } = {}): Part {
    const part = new PartState(name, options.required ?? false);
    this.#parts.push(part);
    return part;
  }

  /** Starts an instant. */
  begin(): void {
    assert(this.#part === undefined, 'the last part was left');
    this.#sums.fill(0, 0, this.#schema.seriesCount);
    this.#present.fill(0, 0, this.#schema.seriesCount);
    for (const part of this.#parts) part.begin();
  }

  enter(part: Part): void {
    assert(part instanceof PartState && this.#part === undefined, 'a part is entered after the last was left');
    this.#part = part;
    part.cursor = 0;
  }

  /** The part has given all it has. */
  leave(): void {
    const part = this.#entered();
    part.plan.length = part.cursor;
    this.#part = undefined;
  }

  /** The part has failed: what it gave at this instant is taken back. */
  abandon(): void {
    const part = this.#entered();
    this.#takeBack(part, part.cursor);
    this.#part = undefined;
  }

  sample(family: SampledFamily, sum: number, label1?: string, label2?: string, label3?: string, label4?: string): void {
    const part = this.#part;
    const next = part?.plan[part.cursor];
    if (
      next !== undefined &&
      next.source === family &&
      next.label1 === label1 &&
      next.label2 === label2 &&
      next.label3 === label3 &&
      next.label4 === label4
    ) {
      this.#write(part!, next, sum);
    } else {
      this.#sampleAnew(new Series(family, label1, label2, label3, label4, undefined), sum);
    }
  }

  sampleLabels(family: SampledFamily, sum: number, labelValues: readonly string[]): void {
    const part = this.#entered();
    const next = part.plan[part.cursor];
    if (next !== undefined && next.source === family && sameTexts(next.labels, labelValues)) {
      this.#write(part, next, sum);
    } else {
      this.#sampleAnew(new Series(family, undefined, undefined, undefined, undefined, labelValues), sum);
    }
  }

  /**
   * After the last collector: decides what has room, so that the parts entered later can say at the same instant what was
   * left out. Whole parts go, the largest first, rather than whichever series come last.
   */
  settle(): void {
    const parts = this.#parts.filter((part) => !part.required);
    const limit = scale(this.#room, 1 - ownShare);
    if (this.#fits(limit) && parts.every((part) => !part.leftOut)) {
      this.#counters.seriesLeftOut = 0;
      return;
    }
    const sizes = new Map(parts.map((part) => [part, this.#sizeOf(part)]));
    const bySize = parts.toSorted((a, b) => share(sizes.get(b)!, limit) - share(sizes.get(a)!, limit));
    const used: Size = { count: 0, bytes: 0 };
    for (const part of parts) if (!part.leftOut) add(used, sizes.get(part)!, 1);
    for (const part of bySize) {
      if (share(used, limit) <= 1) break;
      if (part.leftOut) continue;
      add(used, sizes.get(part)!, -1);
      this.#leaveOut(part, sizes.get(part)!);
    }
    for (const part of bySize.toReversed()) {
      if (!part.leftOut || part.leftOutNow) continue;
      add(used, sizes.get(part)!, 1);
      // With room to spare, or it would come and go.
      part.returns = share(used, limit) <= returnShare;
      if (!part.returns) break;
      this.#warn(`the series of collector '${part.name}' fit again and are recorded from the next collection on`);
    }
    let seriesLeftOut = 0;
    for (const part of parts) if (part.leftOut) seriesLeftOut += sizes.get(part)!.count;
    this.#counters.seriesLeftOut = seriesLeftOut;
  }

  /** Ends the instant: new series get their places. */
  end(): Recording {
    assert(this.#part === undefined, 'the last part was left');
    if (!this.#fits(this.#room)) this.#beginAnew((series) => this.#present[series.id] === 1);
    this.#place(this.#parts.flatMap((part) => part.added));
    this.#countTheDead();
    const { schema, sums } = this.#recording;
    if (schema !== this.#schema || sums.length !== schema.seriesCount || sums.buffer !== this.#sums.buffer) {
      this.#recording = this.#view();
    }
    return this.#recording;
  }

  #entered(): PartState {
    assert(this.#part !== undefined, 'samples come between enter and leave');
    return this.#part;
  }

  #write(part: PartState, series: Series, sum: number): void {
    const { id } = series;
    const present = this.#present;
    if (id === pending ? series.given : present[id] === 1) {
      this.#duplicate(series);
      return;
    }
    if (id === pending) {
      series.given = true;
      series.sum = sum;
    } else {
      present[id] = 1;
      this.#sums[id] = sum;
    }
    part.plan[part.cursor++] = series;
  }

  /** Not where it was the last time: a series that stands elsewhere, or a new one. */
  #sampleAnew(candidate: Series, sum: number): void {
    const part = this.#entered();
    const family = this.#familyOf(candidate.source);
    if (family === undefined) {
      this.#counters.samplesRefused++;
      return;
    }
    assert(
      candidate.labels.length === family.family.labelNames.length,
      `a sample of '${family.family.name}' has ${candidate.labels.length} label values`,
    );
    this.#cutLabels(candidate);
    const key = keyOf(candidate.labels);
    const known = part.leftOut ? undefined : family.series.get(key);
    if (known !== undefined) {
      this.#write(part, known, sum);
    } else if (part.leftOut || part.added.length > this.#room.count) {
      // A part beyond the limit is left out anyhow: the rest of it is only counted, or it would fill the memory.
      part.count(candidate);
    } else {
      family.series.set(key, candidate);
      part.added.push(candidate);
      this.#write(part, candidate, sum);
    }
  }

  #duplicate(series: Series): void {
    this.#counters.samplesDuplicate++;
    const labels = series.labels.map((value, at) => `${series.source.labelNames[at]}=${JSON.stringify(value)}`);
    this.#warnOnce(
      `duplicate ${series.source.name}`,
      `'${series.source.name}{${labels.join(',')}}' came twice in one collection; keeping the first`,
    );
  }

  #familyOf(source: SampledFamily): FamilySeries | undefined {
    const known = this.#familiesByObject.get(source);
    if (known !== undefined || this.#familiesByObject.has(source)) return known;
    // A collector that makes its families anew each time is slow, and must not fill the memory.
    if (this.#familiesByObject.size > familyObjectsMax) this.#familiesByObject.clear();
    const family = this.#familyNamed(source);
    this.#familiesByObject.set(source, family);
    return family;
  }

  #familyNamed(source: SampledFamily): FamilySeries | undefined {
    const cut = { ...source, help: cutToBytes(source.help, limits.stringBytesMax) };
    const known = this.#families.get(source.name);
    const problem =
      known === undefined || (sameFamily(known.family, cut) && sameTexts(known.family.labelNames, cut.labelNames))
        ? problemOf(source)
        : 'another collector gives it a different type, help or labels';
    if (problem !== undefined) {
      this.#warnOnce(`refused ${source.name}`, `leaving out '${source.name}': ${problem}`);
      return undefined;
    }
    if (known !== undefined) return known;
    const family = new FamilySeries(cut);
    this.#families.set(source.name, family);
    return family;
  }

  #cutLabels(series: Series): void {
    for (let at = 0; at < series.labels.length; at++) {
      const value = series.labels[at]!;
      // A UTF-16 unit takes at most three bytes.
      if (value.length * 3 <= limits.labelValueBytesMax) continue;
      const cut = cutToBytes(value, limits.labelValueBytesMax);
      if (cut === value) continue;
      this.#counters.labelsCut++;
      series.replaceLabel(at, cut);
      const label = `${series.source.name}{${series.source.labelNames[at]}}`;
      this.#warnOnce(
        `cut ${label}`,
        `a value of '${label}' is longer than ${limits.labelValueBytesMax} bytes; cutting it`,
      );
    }
  }

  /** Whether what came new at this instant fits behind what is there. */
  #fits(room: Size): boolean {
    let count = this.#schema.seriesCount;
    let bytes = this.#schemaBytes;
    for (const part of this.#parts) {
      count += part.added.length;
      if (part.added.length > 0) bytes += bytesOf(part.added);
    }
    return count <= room.count && bytes <= room.bytes;
  }

  #sizeOf(part: PartState): Size {
    if (part.leftOut) return part.counted;
    return { count: part.plan.length + part.counted.count, bytes: bytesOf(part.plan) + part.counted.bytes };
  }

  #leaveOut(part: PartState, size: Size): void {
    this.#takeBack(part, part.plan.length);
    part.plan = [];
    part.leftOut = true;
    part.leftOutNow = true;
    this.#warn(
      `leaving out collector '${part.name}' with its ${size.count} series: ` +
        `a host may have ${this.#room.count} series that take ${this.#room.bytes} bytes to declare`,
    );
  }

  /** Makes absent what a part gave, the first `count` of its plan. */
  #takeBack(part: PartState, count: number): void {
    for (let at = 0; at < count; at++) {
      const { id } = part.plan[at]!;
      if (id === pending) continue;
      this.#present[id] = 0;
      this.#sums[id] = 0;
    }
    for (const series of part.added) this.#families.get(series.source.name)!.series.delete(keyOf(series.labels));
    // Those that have a place stay planned: mostly the same samples come the next time.
    if (part.added.length > 0) part.plan = part.plan.filter((series) => series.id !== pending);
    part.added = [];
  }

  /** Gives new series their places, each family's together. */
  #place(added: readonly Series[]): void {
    for (const [family, group] of byFamily(added)) this.#append(this.#families.get(family)!, group);
  }

  #append(family: FamilySeries, group: readonly Series[]): void {
    const labelValues: string[] = [];
    this.#makeRoomFor(this.#schema.seriesCount + group.length);
    let id = this.#schema.seriesCount;
    for (const series of group) {
      labelValues.push(...series.labels);
      this.#series.push(series);
      this.#sums[id] = series.given ? series.sum : 0;
      this.#present[id] = series.given ? 1 : 0;
      series.given = false;
      series.id = id++;
    }
    const { labelNames } = family.family;
    this.#schema.add({ family: family.declared, suffix: '', labelNames, seriesCount: group.length, labelValues });
    this.#schemaBytes += bytesOf(group);
  }

  /** An empty schema, and in it the series worth keeping with the values that they have. */
  #beginAnew(isKept: (series: Series) => boolean): void {
    const kept: Series[] = [];
    for (const series of this.#series) {
      if (isKept(series)) {
        kept.push(series);
        series.given = this.#present[series.id] === 1;
        series.sum = this.#sums[series.id]!;
      } else {
        this.#families.get(series.source.name)!.series.delete(keyOf(series.labels));
        series.id = gone;
      }
    }
    for (const part of this.#parts) part.plan = part.plan.filter((series) => series.id !== gone);
    for (const [name, family] of this.#families) if (family.series.size === 0) this.#families.delete(name);
    this.#familiesByObject.clear();
    this.#schema = new Schema();
    this.#schemaBytes = 0;
    this.#series = [];
    this.#place(kept);
    this.#startPeriod();
    this.#counters.schemasBegun++;
  }

  /**
   * A series is dead that was absent for a whole period. Begun anew, a schema without them makes reports smaller, but
   * itself has to travel once more: at a quarter of the series the one outweighs the other.
   */
  #countTheDead(): void {
    const count = this.#schema.seriesCount;
    for (let id = 0; id < count; id++) if (this.#present[id] === 1) this.#seen[id] = 1;
    if (++this.#instantsInPeriod < periodInstants) return;
    let dead = 0;
    for (let id = 0; id < count; id++) if (this.#seen[id] === 0) dead++;
    if (dead > 0 && dead >= count * deadShareMax) this.#beginAnew((series) => this.#seen[series.id] === 1);
    else this.#startPeriod();
  }

  #startPeriod(): void {
    this.#instantsInPeriod = 0;
    this.#seen.fill(0);
  }

  #makeRoomFor(count: number): void {
    if (count <= this.#sums.length) return;
    const capacity = Math.max(count, this.#sums.length * 2);
    const { sums, present, seen } = { sums: this.#sums, present: this.#present, seen: this.#seen };
    this.#sums = new Float64Array(capacity);
    this.#sums.set(sums);
    this.#present = new Uint8Array(capacity);
    this.#present.set(present);
    this.#seen = new Uint8Array(capacity);
    this.#seen.set(seen);
  }

  #view(): Recording {
    const count = this.#schema.seriesCount;
    return { schema: this.#schema, sums: this.#sums.subarray(0, count), present: this.#present.subarray(0, count) };
  }

  #warnOnce(key: string, text: string): void {
    if (this.#warned.has(key) || this.#warned.size >= warnedMax) return;
    this.#warned.add(key);
    this.#warn(text);
  }
}

/** The place of a series that has none yet, and of one that has lost it. */
const pending = -1;
const gone = -2;

class Series {
  /** As the collector passed them: what the next sample is compared with. */
  readonly source: SampledFamily;
  readonly label1: string | undefined;
  readonly label2: string | undefined;
  readonly label3: string | undefined;
  readonly label4: string | undefined;
  /** As they go into the schema. */
  labels: readonly string[];
  /** The series' id in the schema. */
  id = pending;
  /** While it has no place: whether it was given at this instant, and what. */
  given = false;
  sum = 0;

  constructor(
    source: SampledFamily,
    label1: string | undefined,
    label2: string | undefined,
    label3: string | undefined,
    label4: string | undefined,
    labels: readonly string[] | undefined,
  ) {
    this.source = source;
    this.label1 = label1;
    this.label2 = label2;
    this.label3 = label3;
    this.label4 = label4;
    this.labels = labels ?? [label1, label2, label3, label4].filter((label) => label !== undefined);
  }

  replaceLabel(at: number, value: string): void {
    this.labels = this.labels.with(at, value);
  }
}

class FamilySeries {
  readonly family: SampledFamily;
  /** The same as it goes into the schema. */
  readonly declared: Family;
  /** By `keyOf` their labels. */
  readonly series = new Map<string, Series>();

  constructor(family: SampledFamily) {
    const { name, type, help, divisor } = family;
    this.family = family;
    this.declared = { name, type, help, divisor };
  }
}

interface Size {
  count: number;
  bytes: number;
}

class PartState implements Part {
  readonly name: string;
  readonly required: boolean;
  leftOut = false;
  /** Since this instant. */
  leftOutNow = false;
  /** From the next instant on. */
  returns = false;
  /** What it gave the last time, in that order. */
  plan: Series[] = [];
  /** While it is entered: how far in the plan it is. */
  cursor = 0;
  /** What came new at this instant. */
  added: Series[] = [];
  /** What it gave that was not recorded. */
  counted: Size = { count: 0, bytes: 0 };

  constructor(name: string, required: boolean) {
    this.name = name;
    this.required = required;
  }

  begin(): void {
    if (this.returns) this.leftOut = false;
    this.returns = false;
    this.leftOutNow = false;
    this.added = [];
    this.counted = { count: 0, bytes: 0 };
  }

  count(series: Series): void {
    this.counted.count++;
    this.counted.bytes += labelBytes(series.labels);
  }
}

const capacityFirst = 1024;
// Five minutes at 5 s: a device that is away for a moment, or a collector that fails now and then, is not dead.
const periodInstants = 60;
const deadShareMax = 1 / 4;
// Of the limits, for what the agent says about itself: 1024 series.
const ownShare = 1 / 64;
const returnShare = 0.9;
const familyObjectsMax = 8192;
const warnedMax = 1000;

/** In the order in which the families come first. */
function byFamily(series: readonly Series[]): Map<string, Series[]> {
  const groups = new Map<string, Series[]>();
  for (const one of series) {
    const group = groups.get(one.source.name);
    if (group === undefined) groups.set(one.source.name, [one]);
    else group.push(one);
  }
  return groups;
}

/** Unequal for unequal labels: the lengths say where each ends, whatever characters they have. */
function keyOf(labels: readonly string[]): string {
  let key = '';
  for (const label of labels) key += `${label.length}:${label}`;
  return key;
}

/** At most what it takes to declare these series, each family once. */
function bytesOf(series: readonly Series[]): number {
  const families = new Set<string>();
  let bytes = 0;
  for (const { source, labels } of series) {
    bytes += labelBytes(labels);
    if (families.has(source.name)) continue;
    families.add(source.name);
    bytes += familyBytes(source);
  }
  return bytes;
}

// MessagePack puts 1 to 5 bytes before a string or an array, and a number takes up to 9.
const headerBytes = 5;

function labelBytes(labels: readonly string[]): number {
  let bytes = 0;
  for (const label of labels) bytes += headerBytes + Buffer.byteLength(label);
  return bytes;
}

function familyBytes(family: SampledFamily): number {
  const numbers = 2 * 9;
  return numbers + 5 * headerBytes + labelBytes([family.name, family.type, family.help, ...family.labelNames]);
}

/** How much of the limits this takes, by whichever it takes more of. */
function share(size: Size, limit: Size): number {
  return Math.max(size.count / limit.count, size.bytes / limit.bytes);
}

function add(to: Size, size: Size, factor: 1 | -1): void {
  to.count += factor * size.count;
  to.bytes += factor * size.bytes;
}

function scale(size: Size, factor: number): Size {
  return { count: Math.floor(size.count * factor), bytes: Math.floor(size.bytes * factor) };
}

/** Why a server would refuse the family, and with it everything from this agent. */
function problemOf(family: SampledFamily): string | undefined {
  const { name, type, divisor, labelNames } = family;
  if (!isMetricName(name) || name.length > limits.nameBytesMax) return 'not a name for a metric';
  if (isReservedMetricName(name)) return 'the name is reserved';
  if (!metricTypes.includes(type)) return `its type is '${type}', expected ${metricTypes.join(', ')}`;
  if (!Number.isInteger(divisor) || divisor < 1 || divisor > limits.divisorMax) return `its divisor is ${divisor}`;
  if (type === 'histogram' || type === 'summary') return `a ${type} has series of several names`;
  if (labelNames.length > limits.labelNamesMax) return `it has more than ${limits.labelNamesMax} labels`;
  for (const label of labelNames) {
    if (!isLabelName(label) || label.length > limits.nameBytesMax) return `no label may be called '${label}'`;
  }
  if (new Set(labelNames).size < labelNames.length) return 'two of its labels have one name';
  return undefined;
}

/** As much of the text as fits, without half a character at its end. */
function cutToBytes(text: string, bytesMax: number): string {
  if (Buffer.byteLength(text) <= bytesMax) return text;
  const bytes = Buffer.from(text);
  let end = bytesMax;
  // 10xxxxxx is the inside of a character.
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
