import { seriesValue } from '../../../model/family.ts';
import type { Schema, SchemaBlock } from '../../../model/schema.ts';
import type { StampedReport } from '../../delivery/window.ts';

/** One series of a report. */
export interface ReadSeries {
  readonly labels: ReadonlyMap<string, string>;
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

  /** All series that are there, by the names of their metrics. */
  *all(): Generator<ReadSeries & { readonly name: string; readonly help: string }> {
    for (const [name, blocks] of blocksOf(this.#report.schema)) {
      for (const block of blocks) {
        for (const series of this.#seriesOf(block)) yield { ...series, name, help: block.family.help };
      }
    }
  }

  *#seriesOf(block: SchemaBlock): Generator<ReadSeries> {
    const { family, firstSeries, seriesCount, labelNames, labelValues } = block;
    const { sums, present } = this.#report;
    const width = labelNames.length;
    for (let at = 0; at < seriesCount && firstSeries + at < sums.length; at++) {
      if (present[firstSeries + at] !== 1) continue;
      const labels = new Map(labelNames.map((label, index) => [label, labelValues[at * width + index]!]));
      yield { labels, value: seriesValue(sums[firstSeries + at]!, family.divisor) };
    }
  }
}

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
