import { type Family, sameFamily } from '../../model/family.ts';
import type { Schema } from '../../model/schema.ts';
import { type SeriesGroup, sameTexts } from '../../model/series.ts';

/**
 * The schemas of connections, windows and agents, and the memory of all of them. Hosts declare much the same: a family
 * with its series, or at least the family, or label values such as those of CPUs, are stored and counted once for all
 * schemas that have them, until the last of these is released.
 */
export class SchemasInUse {
  readonly #schemas = new Map<Schema, SchemaUse>();
  readonly #groups = new Shared<number, SeriesGroup>(groupHash, () => entryBytes + groupBytes);
  readonly #families = new Shared<string, Family>(({ name }) => name, familyBytes);
  readonly #labelNames = new Shared<number, readonly string[]>(hashOf, textsBytes);
  readonly #labelValues = new Shared<number, LabelValues>(hashOf, textsBytes);
  /** The last ones, which no schema may hold yet: the families of one collector tend to have the same. */
  #lastLabelNames: readonly string[] = noTexts;
  #lastLabelValues: LabelValues = noTexts;
  #placeCount = 0;
  readonly #released: ReleasedSchema[] = [];
  #releasedBytes = 0;

  /** About the memory of all; of schemas that {@link giveBack} has yet to take out, as if they shared nothing. */
  get bytes(): number {
    const own = this.#schemas.size * schemaBytes + this.#placeCount * placeBytes;
    const parts = this.#groups.bytes + this.#families.bytes + this.#labelNames.bytes + this.#labelValues.bytes;
    return Math.max(0, own + parts - Math.round(this.#releasedBytes));
  }

  /** The same declaration, with equal parts that are in use already instead of new ones. */
  share({ family, suffix, labelNames, seriesCount, labelValues }: SeriesGroup): SeriesGroup {
    const group: SeriesGroup = {
      family: this.#families.find(family, sameFamily) ?? family,
      suffix,
      labelNames: this.#sharedLabelNames(labelNames),
      seriesCount,
      labelValues: this.#sharedLabelValues(labelValues),
    };
    return this.#groups.find(group, sameGroup) ?? group;
  }

  /**
   * Adds a holder of the schema, and counts what the schema has grown by. Returns by how many bytes its own size has grown,
   * as if it shared nothing with others.
   */
  hold(schema: Schema): number {
    this.giveBack();
    let use = this.#schemas.get(schema);
    const before = use?.bytes ?? 0;
    if (use === undefined) {
      use = { count: 0, groupCount: 0, bytes: schemaBytes };
      this.#schemas.set(schema, use);
    }
    use.count++;
    for (; use.groupCount < schema.groups.length; use.groupCount++) {
      const group = schema.groups[use.groupCount]!;
      this.#add(group);
      use.bytes += ownBytes(group);
    }
    return use.bytes - before;
  }

  /** The size of a schema that is held, as if it shared nothing. */
  sizeOf(schema: Schema): number {
    return this.#schemas.get(schema)?.bytes ?? 0;
  }

  /** Removes a holder. Returns by how many bytes less it is held, which is its size after the last one. */
  release(schema: Schema): number {
    const use = this.#schemas.get(schema);
    if (use === undefined) throw new Error('a schema is released that nobody holds');
    if (--use.count > 0) return 0;
    this.#schemas.delete(schema);
    const { groupCount, bytes } = use;
    if (groupCount > 0) {
      const groupsBytes = bytes - schemaBytes;
      this.#released.push({ groups: schema.groups, count: groupCount, at: 0, groupBytes: groupsBytes / groupCount });
      this.#releasedBytes += groupsBytes;
    }
    this.giveBack();
    return use.bytes;
  }

  /**
   * Takes some groups of released schemas out of the maps. Those of most schemas go at once, but a frame of a few bytes may
   * release the most groups that there can be, which takes 100 ms. Is called with each frame that may declare or store
   * something, so that they are gone before as many have come again.
   */
  giveBack(): void {
    let left = givenBackAtOnce;
    for (let oldest = this.#released[0]; oldest !== undefined; oldest = this.#released[0]) {
      for (; oldest.at < oldest.count; oldest.at++) {
        if (left-- === 0) return;
        this.#remove(oldest.groups[oldest.at]!);
        this.#releasedBytes -= oldest.groupBytes;
      }
      this.#released.shift();
    }
    this.#releasedBytes = 0; // no rounding adds up
  }

  #sharedLabelNames(labelNames: readonly string[]): readonly string[] {
    if (labelNames.length === 0) return noTexts;
    if (sameTexts(this.#lastLabelNames, labelNames)) return this.#lastLabelNames;
    this.#lastLabelNames = this.#labelNames.find(labelNames, sameTexts) ?? labelNames;
    return this.#lastLabelNames;
  }

  #sharedLabelValues(labelValues: LabelValues): LabelValues {
    if (labelValues.length === 0) return noTexts;
    if (sameTexts(this.#lastLabelValues, labelValues)) return this.#lastLabelValues;
    this.#lastLabelValues = this.#labelValues.find(labelValues, sameTexts) ?? labelValues;
    return this.#lastLabelValues;
  }

  #add(group: SeriesGroup): void {
    this.#placeCount++;
    if (!this.#groups.add(group)) return;
    this.#families.add(group.family);
    if (group.labelNames.length > 0) this.#labelNames.add(group.labelNames);
    if (group.labelValues.length > 0) this.#labelValues.add(group.labelValues);
  }

  #remove(group: SeriesGroup): void {
    this.#placeCount--;
    if (!this.#groups.remove(group)) return;
    this.#families.remove(group.family);
    if (group.labelNames.length > 0) this.#labelNames.remove(group.labelNames);
    if (group.labelValues.length > 0) this.#labelValues.remove(group.labelValues);
  }
}

type LabelValues = readonly string[];

/** A schema that nobody holds any more. */
interface ReleasedSchema {
  readonly groups: readonly SeriesGroup[];
  /** How many of its groups were counted, and how many of them are not any more. */
  readonly count: number;
  at: number;
  /** Of one group on average, as if it shared nothing. */
  readonly groupBytes: number;
}

interface SchemaUse {
  /** How many hold it. */
  count: number;
  /** How many of its parts are counted. */
  groupCount: number;
  /** Its size, as if it shared nothing. */
  bytes: number;
}

/** The schemas that one agent holds: of its connection and of its windows. A schema belongs to one source of one agent. */
export class HeldSchemas {
  readonly #all: SchemasInUse;
  /** Their size, as if they shared nothing with those of others. */
  bytes = 0;

  constructor(all: SchemasInUse) {
    this.#all = all;
  }

  hold(schema: Schema): void {
    this.bytes += this.#all.hold(schema);
  }

  release(schema: Schema): void {
    this.bytes -= this.#all.release(schema);
  }

  sizeOf(schema: Schema): number {
    return this.#all.sizeOf(schema);
  }
}

/** Objects by a key that is the same for equal ones, each with a count of its uses. */
class Shared<K, T extends object> {
  readonly #byKey = new Map<K, Set<T>>();
  readonly #uses = new Map<T, number>();
  readonly #keyOf: (thing: T) => K;
  readonly #bytesOf: (thing: T) => number;
  bytes = 0;

  constructor(keyOf: (thing: T) => K, bytesOf: (thing: T) => number) {
    this.#keyOf = keyOf;
    this.#bytesOf = bytesOf;
  }

  /** An equal object that is in use, if one is found among a few. */
  find(thing: T, isEqual: (a: T, b: T) => boolean): T | undefined {
    let left = candidatesMax;
    for (const each of this.#byKey.get(this.#keyOf(thing)) ?? []) {
      if (isEqual(each, thing)) return each;
      if (--left === 0) break;
    }
    return undefined;
  }

  /** Whether it is the first use. */
  add(thing: T): boolean {
    const uses = this.#uses.get(thing) ?? 0;
    this.#uses.set(thing, uses + 1);
    if (uses > 0) return false;
    this.bytes += this.#bytesOf(thing);
    const key = this.#keyOf(thing);
    const things = this.#byKey.get(key);
    if (things === undefined) this.#byKey.set(key, new Set([thing]));
    else things.add(thing);
    return true;
  }

  /** Whether it was the last use. */
  remove(thing: T): boolean {
    const uses = this.#uses.get(thing) ?? 0;
    if (uses > 1) {
      this.#uses.set(thing, uses - 1);
      return false;
    }
    this.#uses.delete(thing);
    this.bytes -= this.#bytesOf(thing);
    const key = this.#keyOf(thing);
    const things = this.#byKey.get(key)!;
    if (things.size === 1) this.#byKey.delete(key);
    else things.delete(thing);
    return true;
  }
}

// Agents of different versions disagree in two or three ways. An agent that sends texts with one hash only achieves
// that its own are not shared.
const candidatesMax = 8;

const noTexts: LabelValues = Object.freeze([]);

/** Of groups whose families and label values are shared, so that equal ones are the same objects. */
function sameGroup(a: SeriesGroup, b: SeriesGroup): boolean {
  return (
    a.family === b.family &&
    a.suffix === b.suffix &&
    a.labelValues === b.labelValues &&
    a.seriesCount === b.seriesCount &&
    sameTexts(a.labelNames, b.labelNames)
  );
}

/** FNV-1a over the characters, and an end after each text: http://www.isthe.com/chongo/tech/comp/fnv/ */
function hashOf(texts: LabelValues, hashBefore = 0x811c9dc5): number {
  let hash = hashBefore;
  for (const text of texts) {
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
    hash = Math.imul(hash ^ 0x10000, 0x01000193);
  }
  return hash >>> 0;
}

const groupHash = ({ family, suffix, labelValues }: SeriesGroup): number =>
  hashOf([family.name, suffix], hashOf(labelValues));

// A millisecond. A schema frame declares some 400 groups at the most.
const givenBackAtOnce = 512;

// What V8 allocates, in 64 bits, and the places in the maps above.
const schemaBytes = 400;
// Places in the schema's list and, of the family, in its map.
const placeBytes = 8 + 40;
const groupBytes = 72;
const stringBytes = 24;
const entryBytes = 120;

/** A group that shares nothing. */
function ownBytes({ family, labelNames, labelValues }: SeriesGroup): number {
  const texts = labelNames.length === 0 ? 0 : textsBytes(labelNames) + textsBytes(labelValues);
  return placeBytes + entryBytes + groupBytes + familyBytes(family) + texts;
}

function familyBytes({ name, help }: Family): number {
  return entryBytes + 104 + textBytes(name) + textBytes(help);
}

function textsBytes(texts: readonly string[]): number {
  let bytes = entryBytes;
  for (const text of texts) bytes += textBytes(text);
  return bytes;
}

/** A string with one character beyond Latin-1 has two bytes for each; and its place in a list. */
const textBytes = (text: string): number => 8 + stringBytes + (/[^\0-\xff]/.test(text) ? 2 : 1) * text.length;
