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
  readonly #families = new Map<string, Family>();
  #seriesCount = 0;

  get seriesCount(): number {
    return this.#seriesCount;
  }

  family(name: string): Family | undefined {
    return this.#families.get(name);
  }

  /** Appends series of a family. A family that is named again must be the same object or equal in every field. */
  append(family: Family, seriesCount: number, labelValues: readonly string[]): SchemaBlock {
    const known = this.#families.get(family.name);
    if (known === undefined) this.#families.set(family.name, family);
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
}
