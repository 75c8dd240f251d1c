import type { Family } from '../model/family.ts';
import { type Schema, type SchemaBlock, sameFamily } from '../model/schema.ts';
import type { FamilyDeclaration } from '../protocol/message.ts';

/**
 * The schemas that connections, windows and agents hold, and what all of them take in memory. The hosts of a fleet say
 * much the same: families, and label values such as those of the CPUs, are held once for all that declare them, and
 * counted once, until the last schema that has them is released.
 */
export class SchemasInUse {
  readonly #schemas = new Map<Schema, SchemaUse>();
  readonly #families = new SharedParts<string, Family>(familyBytes);
  readonly #labelValues = new SharedParts<number, LabelValues>(labelValuesBytes);
  #blockCount = 0;

  /** About what it all takes. */
  get bytes(): number {
    const own = this.#schemas.size * schemaBytes + this.#blockCount * blockBytes;
    return own + this.#families.bytes + this.#labelValues.bytes;
  }

  /** The same declaration, of parts that are in use already where there are equal ones. */
  share({ family, seriesCount, labelValues }: FamilyDeclaration): FamilyDeclaration {
    return {
      family: this.#families.find(family.name, (each) => sameFamily(each, family)) ?? family,
      seriesCount,
      labelValues: this.#sharedLabelValues(labelValues),
    };
  }

  /** Somebody more holds the schema. What it has grown by counts from here on, too. */
  hold(schema: Schema): void {
    let use = this.#schemas.get(schema);
    if (use === undefined) {
      use = { count: 0, blockCount: 0 };
      this.#schemas.set(schema, use);
    }
    use.count++;
    for (; use.blockCount < schema.blocks.length; use.blockCount++) this.#add(schema.blocks[use.blockCount]!);
  }

  /** Somebody holds it no longer. */
  release(schema: Schema): void {
    const use = this.#schemas.get(schema);
    if (use === undefined) throw new Error('a schema is released that nobody holds');
    if (--use.count > 0) return;
    this.#schemas.delete(schema);
    for (let at = 0; at < use.blockCount; at++) this.#remove(schema.blocks[at]!);
  }

  #sharedLabelValues(labelValues: LabelValues): LabelValues {
    if (labelValues.length === 0) return noLabelValues;
    return this.#labelValues.find(hashOf(labelValues), (each) => sameTexts(each, labelValues)) ?? labelValues;
  }

  #add({ family, labelValues }: SchemaBlock): void {
    this.#blockCount++;
    this.#families.add(family.name, family);
    if (labelValues.length > 0) this.#labelValues.add(hashOf(labelValues), labelValues);
  }

  #remove({ family, labelValues }: SchemaBlock): void {
    this.#blockCount--;
    this.#families.remove(family.name, family);
    if (labelValues.length > 0) this.#labelValues.remove(hashOf(labelValues), labelValues);
  }
}

type LabelValues = readonly string[];

interface SchemaUse {
  /** How many hold it. */
  count: number;
  /** How many of its blocks are counted. */
  blockCount: number;
}

/** Parts of schemas by a key that equal ones have in common, each with how many blocks have it. */
class SharedParts<K, P extends object> {
  readonly #byKey = new Map<K, Set<P>>();
  readonly #uses = new Map<P, number>();
  readonly #bytesOf: (part: P) => number;
  bytes = 0;

  constructor(bytesOf: (part: P) => number) {
    this.#bytesOf = bytesOf;
  }

  /** One that is in use, if it is among those that are looked at. */
  find(key: K, isEqual: (part: P) => boolean): P | undefined {
    let left = candidatesMax;
    for (const part of this.#byKey.get(key) ?? []) {
      if (isEqual(part)) return part;
      if (--left === 0) break;
    }
    return undefined;
  }

  add(key: K, part: P): void {
    const uses = this.#uses.get(part) ?? 0;
    this.#uses.set(part, uses + 1);
    if (uses > 0) return;
    this.bytes += this.#bytesOf(part);
    const parts = this.#byKey.get(key);
    if (parts === undefined) this.#byKey.set(key, new Set([part]));
    else parts.add(part);
  }

  remove(key: K, part: P): void {
    const uses = this.#uses.get(part) ?? 0;
    if (uses > 1) {
      this.#uses.set(part, uses - 1);
      return;
    }
    this.#uses.delete(part);
    this.bytes -= this.#bytesOf(part);
    const parts = this.#byKey.get(key)!;
    if (parts.size === 1) this.#byKey.delete(key);
    else parts.delete(part);
  }
}

// Agents of a fleet that is being upgraded disagree in two or three ways. One that makes up texts with one hash gains no
// more than that its own are not shared.
const candidatesMax = 8;

const noLabelValues: LabelValues = Object.freeze([]);

function sameTexts(a: LabelValues, b: LabelValues): boolean {
  return a.length === b.length && a.every((text, at) => text === b[at]);
}

/** FNV-1a over the characters, and an end after each text: http://www.isthe.com/chongo/tech/comp/fnv/ */
function hashOf(texts: LabelValues): number {
  let hash = 0x811c9dc5;
  for (const text of texts) {
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
    hash = Math.imul(hash ^ 0x10000, 0x01000193);
  }
  return hash >>> 0;
}

// What the engine allocates, in 64 bits, and the places in the maps above.
const schemaBytes = 400;
// The block, its place in the schema's list, and its family's in the schema's map.
const blockBytes = 56 + 8 + 40;
const stringBytes = 24;
const partBytes = 120;

function familyBytes({ name, help, unit, labelNames }: Family): number {
  let bytes = partBytes + 120;
  for (const text of [name, help, unit, ...labelNames]) bytes += textBytes(text);
  return bytes;
}

function labelValuesBytes(labelValues: LabelValues): number {
  let bytes = partBytes;
  for (const text of labelValues) bytes += textBytes(text);
  return bytes;
}

/** A string with one character beyond Latin-1 has two bytes for each; and its place in a list. */
const textBytes = (text: string): number => 8 + stringBytes + (/[^\0-\xff]/.test(text) ? 2 : 1) * text.length;
