import type { Family } from './family.ts';

/** A run of series of one family, wherever in a schema it stands: schemas that have an equal one may share it. */
export interface SchemaPart {
  readonly family: Family;
  readonly seriesCount: number;
  /** Flat, series after series: `seriesCount × family.labelNames.length` strings. */
  readonly labelValues: readonly string[];
}

/** A part and its place: series `firstSeries` to `firstSeries + seriesCount - 1` of the schema. */
export interface SchemaBlock extends SchemaPart {
  readonly firstSeries: number;
}

/**
 * Families and series labels, in the order in which they were declared. It only grows: a series' id is its position,
 * and a report lines up with the first `report.sums.length` series. Begun anew by an empty Schema, never by clearing.
 */
export class Schema {
  readonly parts: SchemaPart[] = [];
  /** By name. Made when it is asked for: it takes more memory than the list of parts. */
  #families: Map<string, Family> | undefined;
  #seriesCount = 0;

  get seriesCount(): number {
    return this.#seriesCount;
  }

  family(name: string): Family | undefined {
    this.#families ??= new Map(this.parts.map(({ family }) => [family.name, family]));
    return this.#families.get(name);
  }

  /** Lets go of what only declaring needs, because nothing is likely to be declared soon. */
  settle(): void {
    this.#families = undefined;
  }

  /** The parts with their places, put together anew each time. */
  get blocks(): SchemaBlock[] {
    let firstSeries = 0;
    return this.parts.map(({ family, seriesCount, labelValues }) => {
      const block = { family, seriesCount, labelValues, firstSeries };
      firstSeries += seriesCount;
      return block;
    });
  }

  /** Appends series of a family. A family that is named again must be the same object or equal in every field. */
  append(family: Family, seriesCount: number, labelValues: readonly string[]): void {
    this.add({ family, seriesCount, labelValues });
  }

  /** The same with a part that other schemas may have: it becomes this schema's, too, unless its family is named again. */
  add(part: SchemaPart): void {
    const { family, seriesCount, labelValues } = part;
    const known = this.family(family.name);
    if (known === undefined) this.#families!.set(family.name, family); // family() has made it
    this.parts.push(known === undefined || known === family ? part : { family: known, seriesCount, labelValues });
    this.#seriesCount += seriesCount;
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
      if (!sameFamily(own.part.family, next.value.part.family) || !sameLabels(own, next.value)) return false;
    }
    if (other.seriesCount <= this.#seriesCount) return true;
    const { at, index } = placeOf(other, this.#seriesCount);
    const added = other.parts.slice(at);
    for (const { family } of added) {
      const known = this.family(family.name);
      if (known !== undefined && !sameFamily(known, family)) return false;
    }
    for (const [place, part] of added.entries()) this.add(place === 0 && index > 0 ? partFrom(part, index) : part);
    return true;
  }
}

/** What is left of a part without its first series. */
function partFrom({ family, seriesCount, labelValues }: SchemaPart, index: number): SchemaPart {
  return {
    family,
    seriesCount: seriesCount - index,
    labelValues: labelValues.slice(index * family.labelNames.length),
  };
}

interface SeriesPlace {
  readonly part: SchemaPart;
  /** Which of the part's series. */
  readonly index: number;
}

/** Which part holds this series, and as which of its own; past the end of the schema, `parts.length`. */
function placeOf({ parts }: Schema, series: number): { at: number; index: number } {
  let index = series;
  let at = 0;
  while (at < parts.length && index >= parts[at]!.seriesCount) index -= parts[at++]!.seriesCount;
  return { at, index };
}

function* seriesFrom(schema: Schema, fromSeries: number): Generator<SeriesPlace, undefined> {
  const from = placeOf(schema, fromSeries);
  for (let at = from.at; at < schema.parts.length; at++) {
    const part = schema.parts[at]!;
    for (let index = at === from.at ? from.index : 0; index < part.seriesCount; index++) yield { part, index };
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
  const width = a.part.family.labelNames.length;
  for (let at = 0; at < width; at++) {
    if (a.part.labelValues[a.index * width + at] !== b.part.labelValues[b.index * width + at]) return false;
  }
  return true;
}
