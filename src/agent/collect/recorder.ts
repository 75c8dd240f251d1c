import assert from 'node:assert';
import { type Family, sameFamily } from '../../model/family.ts';
import type { Recording } from '../../model/recording.ts';
import { Schema } from '../../model/schema.ts';
import { sameTexts, textsKey } from '../../model/series.ts';
import { limits } from '../../protocol/limits.ts';
import type { SampledFamily, Samples } from './collectors/collector.ts';
import { cutToBytes, declaredFamily, problemOf } from './family-rules.ts';
import { flatText } from './flat-text.ts';
import { shownOf } from './proc/names.ts';
import {
  addCost,
  type CostedSeries,
  costOf,
  fitsInto,
  labelBytesOf,
  noCost,
  SeriesBudget,
  type SeriesCost,
} from './series-budget.ts';

/** Samples that are not in a recording, by reason, for the agent's own metrics. */
export interface RecorderCounters {
  samplesDuplicate: number;
  samplesRefused: number;
  labelsCut: number;
  schemasBegun: number;
}

export interface RecorderOptions {
  readonly counters: RecorderCounters;
  readonly warn: (text: string) => void;
  /** By default what the protocol allows a host without labels. */
  readonly budget?: SeriesBudget;
}

/** A collector's place in a recorder. */
export interface Part {
  readonly name: string;
}

/**
 * Writes samples into one array, in the order of a schema, whatever the order in which collectors deliver them.
 *
 *     begin()   enter(cpu) sample … leave()   enter(disks) sample … abandon()   enter(own) … leave()   end()
 *
 * Each part has a plan: its series of the last time, in their order. A sample of the next series of the plan is written
 * to its place at once; any other is looked up by its labels, and the plan is corrected. New series get their places at
 * `end`, family by family, so that a schema declares a family once, not once for each of its devices.
 */
export class Recorder implements Samples {
  readonly #counters: RecorderCounters;
  readonly #warn: (text: string) => void;
  readonly #budget: SeriesBudget;
  readonly #warned = new Set<string>();

  #schema = new Schema();
  #schemaCost = noCost;
  /** By id. */
  #series: Series[] = [];
  /** By name, suffix and label names: a family of a text file may have series with other labels. */
  readonly #families = new Map<string, FamilySeries>();
  /** By the name that stands before the labels: to whom it belongs. */
  readonly #names = new Map<string, Family>();
  /** By the object that collectors pass: a faster key than the name. */
  readonly #familiesByObject = new Map<SampledFamily, FamilySeries | undefined>();

  readonly #parts: PartState[] = [];
  #part: PartState | undefined;

  // Longer than the schema, so that it can grow.
  #sums = new Float64Array(capacityFirst);
  #present = new Uint8Array(capacityFirst);
  /** 1 where the series was present at some instant of this period. */
  #seen = new Uint8Array(capacityFirst);
  #instantsInPeriod = 0;
  /** Of this instant, in the parts that are complete. */
  #sampleCount = 0;
  #recording: Recording;

  constructor(options: RecorderOptions) {
    this.#counters = options.counters;
    this.#warn = options.warn;
    this.#budget = options.budget ?? new SeriesBudget();
    this.#recording = this.#view();
  }

  /** Adds a part. The agent's own part does not count in the collectors' budget. */
  part(name: string, options: { readonly isOwn?: boolean } = {}): Part {
    const part = new PartState(name, options.isOwn ?? false);
    this.#parts.push(part);
    return part;
  }

  /** Starts an instant. */
  begin(): void {
    assert(this.#part === undefined, 'the last part was left');
    this.#sums.fill(0, 0, this.#schema.seriesCount);
    this.#present.fill(0, 0, this.#schema.seriesCount);
    this.#budget.begin();
    this.#sampleCount = 0;
    for (const part of this.#parts) part.added = [];
  }

  enter(part: Part): void {
    assert(part instanceof PartState && this.#part === undefined, 'a part is entered after the last was left');
    this.#part = part;
    part.cursor = 0;
  }

  /** The part is complete. Throws a SeriesBudgetError if it has too many series: then it has to be abandoned. */
  leave(): void {
    const part = this.#entered();
    if (part.cursor < part.plan.length) {
      part.plan.length = part.cursor;
      part.cost = undefined;
    }
    part.cost ??= costOf(part.plan);
    if (!part.isOwn) this.#budget.add(part.cost);
    this.#sampleCount += part.cursor;
    this.#part = undefined;
  }

  /** The part has failed: its samples of this instant are removed. */
  abandon(): void {
    const part = this.#entered();
    for (let at = 0; at < part.cursor; at++) {
      const { id } = part.plan[at]!;
      if (id === pending) continue;
      this.#present[id] = 0;
      this.#sums[id] = 0;
    }
    for (const series of part.added) series.home.series.delete(textsKey(series.labels));
    // Series that have a place stay in the plan: usually the same samples come the next time.
    if (part.added.length > 0) part.plan = part.plan.filter((series) => series.id !== pending);
    part.added = [];
    part.cost = undefined;
    this.#part = undefined;
  }

  sample(family: SampledFamily, sum: number, label1?: string, label2?: string): void {
    const part = this.#part;
    const next = part?.plan[part.cursor];
    if (next !== undefined && next.family === family && next.label1 === label1 && next.label2 === label2) {
      this.#write(part!, next, sum);
    } else if (label1 === undefined) {
      this.#sampleAnew(family, sum, []);
    } else {
      this.#sampleAnew(family, sum, label2 === undefined ? [label1] : [label1, label2]);
    }
  }

  sampleLabels(family: SampledFamily, sum: number, labelValues: readonly string[]): void {
    const part = this.#part;
    const next = part?.plan[part.cursor];
    if (next !== undefined && next.family === family && next.isPassed(labelValues)) {
      this.#write(part!, next, sum);
    } else {
      this.#sampleAnew(family, sum, labelValues);
    }
  }

  /** Ends the instant: new series get their places. */
  end(): Recording {
    assert(this.#part === undefined, 'the last part was left');
    const added = this.#parts.flatMap((part) => part.added);
    if (added.length > 0) {
      // What is present is within the budget: if the schema is full, series that are gone fill it.
      const cost = addCost(this.#schemaCost, costOf(added));
      if (!fitsInto(this.#budget.wire, cost)) this.#beginAnew((series) => this.#present[series.id] === 1);
      this.#place(added);
    }
    this.#collectDead();
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

  #write(part: PartState, series: Series, sum: number, given?: readonly string[]): void {
    const { id } = series;
    const present = this.#present;
    if (id === pending ? series.given !== undefined : present[id] === 1) {
      this.#duplicate(series, given);
      return;
    }
    if (id === pending) {
      series.given = { sum };
    } else {
      present[id] = 1;
      this.#sums[id] = sum;
    }
    part.plan[part.cursor++] = series;
  }

  /** A sample that is not the next of the plan: another series, or a new one. */
  #sampleAnew(source: SampledFamily, sum: number, given: readonly string[]): void {
    const part = this.#entered();
    const family = this.#familyOf(source);
    if (family === undefined) {
      this.#counters.samplesRefused++;
      return;
    }
    const { labelNames } = source;
    assert(given.length === labelNames.length, `a sample of '${source.name}' has ${given.length} label values`);
    part.cost = undefined;
    const labels = this.#shownLabels(source, given);
    const key = textsKey(labels);
    let series = family.series.get(key);
    if (series === undefined) {
      if (!part.isOwn) this.#budget.checkCount(part.cursor + 1);
      const textBytes = this.#budget.textBytesOf(source, labels);
      if (textBytes > limits.lineBytesMax) return this.#refuseLong(source);
      series = new Series(source, given, { home: family, labels, textBytes });
      family.series.set(flatText(key), series);
      part.added.push(series);
    }
    this.#write(part, series, sum, given);
  }

  #refuseLong({ name }: SampledFamily): void {
    this.#counters.samplesRefused++;
    this.#warnOnce(
      `long ${name}`,
      `leaving out a series of '${name}': its line would be longer than ${limits.lineBytesMax} bytes`,
    );
  }

  #duplicate(series: Series, given?: readonly string[]): void {
    this.#counters.samplesDuplicate++;
    if (given !== undefined && !series.isPassed(given)) return this.#warnAlike(series, given);
    const { family, labels } = series;
    const pairs = labels.map((value, at) => `${family.labelNames[at]}=${JSON.stringify(value)}`);
    this.#warnOnce(
      `duplicate ${family.name}`,
      `'${family.name}{${pairs.join(',')}}' came twice in one collection; keeping the first`,
    );
  }

  /** Once for the name, not for each of its families. */
  #warnAlike({ labels }: Series, given: readonly string[]): void {
    const shown = labels.find((label, at) => label !== given[at]) ?? '';
    const start = cutToBytes(shown, warnedBytesMax);
    this.#warnOnce(
      `alike ${start}`,
      `two names become the label '${start}', because they are no UTF-8 or too long; keeping the first`,
    );
  }

  #familyOf(source: SampledFamily): FamilySeries | undefined {
    const known = this.#familiesByObject.get(source);
    if (known !== undefined || this.#familiesByObject.has(source)) return known;
    // A collector that makes new family objects each time is slow, and must not fill the memory.
    if (this.#familiesByObject.size > familyObjectsMax) this.#familiesByObject.clear();
    const family = this.#familyNamed(source);
    this.#familiesByObject.set(source, family);
    return family;
  }

  #familyNamed(source: SampledFamily): FamilySeries | undefined {
    const family = new FamilySeries(source);
    const problem = this.#isTaken(family) ? otherDeclaration : problemOf(source, this.#budget.labels);
    if (problem !== undefined) {
      this.#warnOnce(`refused ${source.name}`, `leaving out '${source.name}': ${problem}`);
      return undefined;
    }
    const key = textsKey([source.name, family.suffix, ...source.labelNames]);
    const known = this.#families.get(key);
    if (known !== undefined) return known;
    this.#families.set(key, family);
    for (const name of family.names) this.#names.set(name, family.declared);
    return family;
  }

  /** Whether one of its names is that of another family, or of this one with another type or help. */
  #isTaken({ names, declared }: FamilySeries): boolean {
    return names.some((name) => {
      const owner = this.#names.get(name);
      return owner !== undefined && !sameFamily(owner, declared);
    });
  }

  #nameAnew(): void {
    this.#names.clear();
    for (const { names, declared } of this.#families.values())
      for (const name of names) this.#names.set(name, declared);
  }

  /** As they go into the schema: UTF-8, and not too long. */
  #shownLabels(family: SampledFamily, given: readonly string[]): readonly string[] {
    let labels = given;
    for (let at = 0; at < given.length; at++) {
      const shown = shownOf(given[at]!);
      const cut = cutToBytes(shown, limits.labelValueBytesMax);
      if (cut !== given[at]) labels = labels.with(at, cut);
      if (cut === shown) continue;
      this.#counters.labelsCut++;
      const label = `${family.name}{${family.labelNames[at]}}`;
      this.#warnOnce(
        `cut ${label}`,
        `a value of '${label}' is longer than ${limits.labelValueBytesMax} bytes; cutting it`,
      );
    }
    return labels;
  }

  /** Gives new series their places, each family's together. */
  #place(added: readonly Series[]): void {
    for (const [family, group] of byFamily(added)) this.#append(family, group);
  }

  #append({ declared, suffix, labelNames }: FamilySeries, group: readonly Series[]): void {
    const labelValues: string[] = [];
    this.#makeRoomFor(this.#schema.seriesCount + group.length);
    let id = this.#schema.seriesCount;
    for (const series of group) {
      labelValues.push(...series.labels);
      this.#series.push(series);
      this.#sums[id] = series.given?.sum ?? 0;
      this.#present[id] = series.given === undefined ? 0 : 1;
      series.given = undefined;
      series.id = id++;
    }
    this.#schema.add({ family: declared, suffix, labelNames, seriesCount: group.length, labelValues });
    this.#schemaCost = addCost(this.#schemaCost, costOf(group));
  }

  /** Begins a new schema with the series that are not dead and their present values. */
  #beginAnew(isKept: (series: Series) => boolean): void {
    const kept: Series[] = [];
    for (const series of this.#series) {
      if (isKept(series)) {
        kept.push(series);
        series.given = this.#present[series.id] === 1 ? { sum: this.#sums[series.id]! } : undefined;
      } else {
        series.home.series.delete(textsKey(series.labels));
        series.id = gone;
      }
    }
    for (const part of this.#parts) {
      part.plan = part.plan.filter((series) => series.id !== gone);
      part.cost = undefined;
    }
    for (const [key, family] of this.#families) if (family.series.size === 0) this.#families.delete(key);
    this.#nameAnew();
    this.#familiesByObject.clear();
    this.#schema = new Schema();
    this.#schemaCost = noCost;
    this.#series = [];
    this.#place(kept);
    this.#startPeriod();
    this.#counters.schemasBegun++;
  }

  /**
   * A series is dead if it was absent for a whole period. A new schema without dead series makes reports smaller, but
   * has to be sent: at a quarter of the series the gain is larger.
   */
  #collectDead(): void {
    const count = this.#schema.seriesCount;
    // Usually nothing is absent, and one call is quicker than a loop.
    if (this.#sampleCount === count) this.#seen.fill(1, 0, count);
    else for (let id = 0; id < count; id++) if (this.#present[id] === 1) this.#seen[id] = 1;
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

/** The place of a series that has none yet, or no more. */
const pending = -1;
const gone = -2;

class Series implements CostedSeries {
  readonly family: SampledFamily;
  readonly home: FamilySeries;
  /** The label values as the collector passed them, to compare the next sample with: of most series, which have two or less, */
  readonly label1: string | undefined;
  readonly label2: string | undefined;
  /** of the others. Forty thousand lists of one text or two would be a twentieth of the agent's memory. */
  readonly #many: readonly string[] | undefined;
  /** The label values as they go into the schema, where they are others. */
  readonly #shown: readonly string[] | undefined;
  readonly labelBytes: number;
  readonly textBytes: number;
  /** The series' id in the schema. */
  id = pending;
  /** While it has no place: its sample of this instant. */
  given: { readonly sum: number } | undefined;

  constructor(
    family: SampledFamily,
    passed: readonly string[],
    { home, labels, textBytes }: { home: FamilySeries; labels: readonly string[]; textBytes: number },
  ) {
    this.family = family;
    this.home = home;
    const isFew = passed.length <= 2;
    this.label1 = isFew ? passed[0] : undefined;
    this.label2 = isFew ? passed[1] : undefined;
    this.#many = isFew ? undefined : passed;
    this.#shown = labels === passed ? undefined : labels;
    this.labelBytes = labelBytesOf(labels);
    this.textBytes = textBytes;
  }

  /** Whether the collector has passed these label values. */
  isPassed(values: readonly string[]): boolean {
    if (this.#many !== undefined) return sameTexts(this.#many, values);
    switch (values.length) {
      case 0:
        return this.label1 === undefined;
      case 1:
        return this.label1 === values[0] && this.label2 === undefined;
      default:
        return this.label1 === values[0] && this.label2 === values[1] && values.length === 2;
    }
  }

  /** The label values as they go into the schema. */
  get labels(): readonly string[] {
    return this.#shown ?? this.#many ?? [this.label1, this.label2].filter((value) => value !== undefined);
  }
}

/** The series of a family that have one suffix and the same label names, by `textsKey` of their labels. */
class FamilySeries {
  readonly declared: Family;
  readonly suffix: string;
  readonly labelNames: readonly string[];
  readonly series = new Map<string, Series>();

  constructor(family: SampledFamily) {
    this.declared = declaredFamily(family);
    this.suffix = family.suffix ?? '';
    this.labelNames = family.labelNames;
  }

  /** What belongs to the family alone: its own name, and that of these series. */
  get names(): readonly string[] {
    const { name } = this.declared;
    return this.suffix === '' ? [name] : [name, name + this.suffix];
  }
}

const otherDeclaration = 'another collector gives it a different type or help, or has series of this name';

class PartState implements Part {
  readonly name: string;
  readonly isOwn: boolean;
  /** Its series of the last time, in their order. */
  plan: Series[] = [];
  /** Their cost, undefined if it has to be counted again. */
  cost: SeriesCost | undefined;
  /** Its position in the plan, while it is entered. */
  cursor = 0;
  /** Its series that are new at this instant. */
  added: Series[] = [];

  constructor(name: string, isOwn: boolean) {
    this.name = name;
    this.isOwn = isOwn;
  }
}

const capacityFirst = 1024;
// Five minutes at 5 s: longer than a device is away for a moment, or a collector fails now and then.
const periodInstants = 60;
const deadShareMax = 1 / 4;
const familyObjectsMax = 8192;
const warnedMax = 1000;
const warnedBytesMax = 200;

/** Families in the order of their first series. */
function byFamily(series: readonly Series[]): Map<FamilySeries, Series[]> {
  const groups = new Map<FamilySeries, Series[]>();
  for (const one of series) {
    const group = groups.get(one.home);
    if (group === undefined) groups.set(one.home, [one]);
    else group.push(one);
  }
  return groups;
}
