import type { Family } from './family.ts';

/** A run of series of one family: series `firstSeries` to `firstSeries + seriesCount - 1` of the schema. */
export interface SchemaBlock {
  readonly family: Family;
  readonly firstSeries: number;
  readonly seriesCount: number;
  /** Flat, series after series: `seriesCount × family.labelNames.length` strings. */
  readonly labelValues: readonly string[];
}

/**
 * Families and series labels, in the order in which they were declared. It only grows: a series' id is its position,
 * and a report lines up with the first `report.sums.length` series. Begun anew by an empty Schema, never by clearing.
 */
export class Schema {
  readonly blocks: SchemaBlock[] = [];
  /** By name. Made when it is asked for: it takes as much memory as all blocks. */
  #families: Map<string, Family> | undefined;
  #seriesCount = 0;

  get seriesCount(): number {
    return this.#seriesCount;
  }

  family(name: string): Family | undefined {
    this.#families ??= new Map(this.blocks.map(({ family }) => [family.name, family]));
    return this.#families.get(name);
  }

  /** Lets go of what only declaring needs, because nothing is likely to be declared soon. */
  settle(): void {
    this.#families = undefined;
  }

  /** Appends series of a family. A family that is named again must be the same object or equal in every field. */
  append(family: Family, seriesCount: number, labelValues: readonly string[]): SchemaBlock {
    const known = this.family(family.name);
    if (known === undefined) this.#families!.set(family.name, family); // family() has made it
    const block: SchemaBlock = {
      family: known ?? family,
      firstSeries: this.#seriesCount,
      seriesCount,
      labelValues,
    };
    this.blocks.push(block);
    this.#seriesCount += seriesCount;
    return block;
  }

  /**
   * Whether `other` says the same as this one from `fromSeries` on, as far as both go. If so, what `other` has beyond the
   * end of this one is appended here, so that this one can stand for both: an agent that dials again declares what it
   * declared before, and a server that kept each declaration would soon hold hundreds of equal ones.
   */
  adopt(other: Schema, fromSeries = 0): boolean {
    const theirs = seriesFrom(other, fromSeries);
    for (const own of seriesFrom(this, fromSeries)) {
      const next = theirs.next();
      if (next.done === true) return true;
      if (!sameFamily(own.family, next.value.family) || !sameLabels(own, next.value)) return false;
    }
    if (other.seriesCount <= this.#seriesCount) return true;
    const from = this.#seriesCount;
    const added = other.blocks.slice(blockOf(other, from));
    for (const { family } of added) {
      const known = this.family(family.name);
      if (known !== undefined && !sameFamily(known, family)) return false;
    }
    for (const block of added) {
      const skip = Math.max(0, from - block.firstSeries);
      // As a whole it is the same object, which other schemas may have, too.
      const labelValues =
        skip === 0 ? block.labelValues : block.labelValues.slice(skip * block.family.labelNames.length);
      this.append(block.family, block.seriesCount - skip, labelValues);
    }
    return true;
  }
}

interface SeriesPlace {
  readonly family: Family;
  readonly block: SchemaBlock;
  /** Which of the block's series. */
  readonly index: number;
}

/** The place in `blocks` of the block that holds this series, or would: `blocks.length` past the end. */
function blockOf(schema: Schema, series: number): number {
  let low = 0;
  let high = schema.blocks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const block = schema.blocks[middle]!;
    if (block.firstSeries + block.seriesCount > series) high = middle;
    else low = middle + 1;
  }
  return low;
}

function* seriesFrom(schema: Schema, fromSeries: number): Generator<SeriesPlace, undefined> {
  for (let at = blockOf(schema, fromSeries); at < schema.blocks.length; at++) {
    const block = schema.blocks[at]!;
    for (let index = Math.max(0, fromSeries - block.firstSeries); index < block.seriesCount; index++) {
      yield { family: block.family, block, index };
    }
  }
  return undefined;
}

/** Equal in every field that Prometheus or the arithmetic sees. */
export function sameFamily(a: Family, b: Family): boolean {
  return (
    a === b ||
    (a.name === b.name &&
      a.type === b.type &&
      a.help === b.help &&
      a.unit === b.unit &&
      a.divisor === b.divisor &&
      a.labelNames.length === b.labelNames.length &&
      a.labelNames.every((name, at) => name === b.labelNames[at]))
  );
}

function sameLabels(a: SeriesPlace, b: SeriesPlace): boolean {
  const width = a.family.labelNames.length;
  for (let at = 0; at < width; at++) {
    if (a.block.labelValues[a.index * width + at] !== b.block.labelValues[b.index * width + at]) return false;
  }
  return true;
}
