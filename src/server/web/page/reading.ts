import { seriesValue } from '../../../model/family.ts';
import type { Schema, SchemaBlock } from '../../../model/schema.ts';
import type { StampedReport } from '../../delivery/window.ts';

/** The labels of one series, as a map has them. A map for each would take longer than what is asked of it. */
export class SeriesLabels implements Iterable<[name: string, value: string]> {
  readonly #block: SchemaBlock;
  readonly #at: number;

  /** `at`: which series of the block. */
  constructor(block: SchemaBlock, at: number) {
    this.#block = block;
    this.#at = at;
  }

  get(name: string): string | undefined {
    const { labelNames, labelValues } = this.#block;
    const index = labelNames.indexOf(name);
    return index === -1 ? undefined : labelValues[this.#at * labelNames.length + index];
  }

  *[Symbol.iterator](): Generator<[name: string, value: string]> {
    const { labelNames, labelValues } = this.#block;
    for (const [index, name] of labelNames.entries()) yield [name, labelValues[this.#at * labelNames.length + index]!];
  }
}

/** One series of a report. */
export interface ReadSeries {
  readonly labels: SeriesLabels;
  readonly value: number;
}

/** The values of one report, by name and labels. */
export class Reading {
  readonly timeMs: number;
  readonly #report: StampedReport;

  constructor(report: StampedReport) {
    this.#report = report;
    this.timeMs = report.timeMs;
  }

  /** Of a metric without labels, or the first of its series; undefined where there is none. */
  value(name: string): number | undefined {
    const { sums, present, schema } = this.#report;
    for (const { family, firstSeries, seriesCount } of blocksOf(schema).get(name) ?? []) {
      for (let series = firstSeries; series < Math.min(firstSeries + seriesCount, sums.length); series++) {
        if (present[series] === 1) return seriesValue(sums[series]!, family.divisor);
      }
    }
    return undefined;
  }

  /** The series of one metric that are there. */
  *series(name: string): Generator<ReadSeries> {
    for (const block of blocksOf(this.#report.schema).get(name) ?? []) yield* this.#seriesOf(block);
  }

  /** The series of one metric that are there and in an earlier report, with their values in both. */
  *seriesSince(before: Reading, name: string): Generator<ReadSeries & { readonly before: number }> {
    if (before.#report.schema === this.#report.schema) {
      const { sums, present } = before.#report;
      for (const block of blocksOf(this.#report.schema).get(name) ?? []) {
        for (const { labels, value, series } of this.#seriesOf(block)) {
          if (present[series] !== 1) continue;
          yield { labels, value, before: seriesValue(sums[series]!, block.family.divisor) };
        }
      }
      return;
    }
    const values = new Map<string, number>();
    for (const { labels, value } of before.series(name)) values.set(keyOf(labels), value);
    for (const { labels, value } of this.series(name)) {
      const known = values.get(keyOf(labels));
      if (known !== undefined) yield { labels, value, before: known };
    }
  }

  /** All series that are there, by the names of their metrics. */
  *all(): Generator<ReadSeries & { readonly name: string; readonly help: string }> {
    for (const [name, blocks] of blocksOf(this.#report.schema)) {
      for (const block of blocks) {
        for (const series of this.#seriesOf(block)) yield { ...series, name, help: block.family.help };
      }
    }
  }

  /** `series`: its number in the schema. */
  *#seriesOf(block: SchemaBlock): Generator<ReadSeries & { readonly series: number }> {
    const { family, firstSeries, seriesCount } = block;
    const { sums, present } = this.#report;
    for (let at = 0; at < seriesCount && firstSeries + at < sums.length; at++) {
      const series = firstSeries + at;
      if (present[series] !== 1) continue;
      yield { labels: new SeriesLabels(block, at), value: seriesValue(sums[series]!, family.divisor), series };
    }
  }
}

const keyOf = (labels: SeriesLabels): string => JSON.stringify([...labels]);

/** The blocks of a schema by the names of their metrics: family and suffix. */
function blocksOf(schema: Schema): ReadonlyMap<string, readonly SchemaBlock[]> {
  const known = knownBlocks.get(schema);
  // A schema only grows.
  if (known !== undefined && known.seriesCount === schema.seriesCount) return known.blocks;
  const blocks = new Map<string, SchemaBlock[]>();
  for (const block of schema.blocks) {
    const name = block.family.name + block.suffix;
    const those = blocks.get(name);
    if (those === undefined) blocks.set(name, [block]);
    else those.push(block);
  }
  knownBlocks.set(schema, { seriesCount: schema.seriesCount, blocks });
  return blocks;
}

const knownBlocks = new WeakMap<
  Schema,
  { readonly seriesCount: number; readonly blocks: ReadonlyMap<string, readonly SchemaBlock[]> }
>();
