import { type Family, sameFamily } from './family.ts';
import { type SeriesGroup, sameTexts } from './series.ts';

/** A group and its place: series `firstSeries` to `firstSeries + seriesCount - 1` of the schema. */
export interface SchemaBlock extends SeriesGroup {
  readonly firstSeries: number;
}

/**
 * Groups of series, in the order in which they were declared. It only grows: a series' id is its position, and a report
 * lines up with the first `report.sums.length` series. To begin again take a new Schema; this one is never cleared.
 */
export class Schema {
  readonly groups: SeriesGroup[] = [];
  /** By name. Made when it is asked for: it takes more memory than the list of groups. */
  #families: Map<string, Family> | undefined;
  #seriesCount = 0;

  get seriesCount(): number {
    return this.#seriesCount;
  }

  family(name: string): Family | undefined {
    this.#families ??= new Map(this.groups.map(({ family }) => [family.name, family]));
    return this.#families.get(name);
  }

  /** Frees what only declaring needs, because nothing is likely to be declared soon. */
  compact(): void {
    this.#families = undefined;
  }

  /** The groups with their places; a new list each time. */
  get blocks(): SchemaBlock[] {
    let firstSeries = 0;
    return this.groups.map((group) => {
      const block = { ...group, firstSeries };
      firstSeries += group.seriesCount;
      return block;
    });
  }

  /**
   * Appends series. A family that is named again must be the same object or equal in every field. The group is this
   * schema's, too, even where other schemas have it, unless its family is an equal one of another object.
   */
  add(group: SeriesGroup): void {
    const known = this.family(group.family.name);
    if (known === undefined) this.#families!.set(group.family.name, group.family); // family() has made it
    this.groups.push(known === undefined || known === group.family ? group : { ...group, family: known });
    this.#seriesCount += group.seriesCount;
  }

  /**
   * Whether `other` says the same as this one from `fromSeries` on, as far as both go: then this one can serve for both,
   * with {@link extend}. An agent that dials again declares what it declared before, and a server that kept each
   * declaration would soon hold hundreds of equal ones.
   */
  agrees(other: Schema, fromSeries = 0): boolean {
    if (other === this) return true;
    const theirs = seriesFrom(other, fromSeries);
    for (const own of seriesFrom(this, fromSeries)) {
      const next = theirs.next();
      if (next.done === true) return true;
      if (!sameSeries(own, next.value)) return false;
    }
    if (other.seriesCount <= this.#seriesCount) return true;
    const { at } = placeOf(other, this.#seriesCount);
    return other.groups.slice(at).every(({ family }) => {
      const known = this.family(family.name);
      return known === undefined || sameFamily(known, family);
    });
  }

  /** Appends what `other`, which agrees with this one, has beyond the end of this one. */
  extend(other: Schema): void {
    if (other.seriesCount <= this.#seriesCount) return;
    const { at, index } = placeOf(other, this.#seriesCount);
    const added = other.groups.slice(at);
    for (const [place, group] of added.entries()) this.add(place === 0 && index > 0 ? groupFrom(group, index) : group);
  }
}

/** What is left of a group without its first series. */
function groupFrom(group: SeriesGroup, index: number): SeriesGroup {
  return {
    ...group,
    seriesCount: group.seriesCount - index,
    labelValues: group.labelValues.slice(index * group.labelNames.length),
  };
}

interface SeriesPlace {
  readonly group: SeriesGroup;
  /** Which of the group's series. */
  readonly index: number;
}

/** Which group holds this series, and as which of its own; past the end of the schema, `groups.length`. */
function placeOf({ groups }: Schema, series: number): { at: number; index: number } {
  let index = series;
  let at = 0;
  while (at < groups.length && index >= groups[at]!.seriesCount) index -= groups[at++]!.seriesCount;
  return { at, index };
}

function* seriesFrom(schema: Schema, fromSeries: number): Generator<SeriesPlace, undefined> {
  const from = placeOf(schema, fromSeries);
  for (let at = from.at; at < schema.groups.length; at++) {
    const group = schema.groups[at]!;
    for (let index = at === from.at ? from.index : 0; index < group.seriesCount; index++) yield { group, index };
  }
  return undefined;
}

function sameSeries(a: SeriesPlace, b: SeriesPlace): boolean {
  const width = a.group.labelNames.length;
  if (a.group.suffix !== b.group.suffix || !sameFamily(a.group.family, b.group.family)) return false;
  if (!sameTexts(a.group.labelNames, b.group.labelNames)) return false;
  for (let at = 0; at < width; at++) {
    if (a.group.labelValues[a.index * width + at] !== b.group.labelValues[b.index * width + at]) return false;
  }
  return true;
}
