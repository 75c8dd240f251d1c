import type { Family, MetricType } from './family.ts';

/**
 * Series of one family that have one suffix and the same label names, wherever in a schema they stand. Schemas that have
 * an equal group may share it.
 *
 *     http_seconds, histogram ──┬─ _bucket  path, le   {/a, 0.1} {/a, 1} {/a, +Inf} …
 *                               ├─ _sum     path       {/a} …
 *                               └─ _count   path       {/a} …
 */
export interface SeriesGroup {
  readonly family: Family;
  /** Behind the family's name: one of {@link suffixesOf} its type. */
  readonly suffix: string;
  readonly labelNames: readonly string[];
  readonly seriesCount: number;
  /** Flat, series after series: `seriesCount × labelNames.length` strings. */
  readonly labelValues: readonly string[];
}

/** A suffix, and the label that its series have and those of the family's other suffixes do not. */
export interface Suffix {
  readonly suffix: string;
  readonly ownLabel?: string;
}

const plain: readonly Suffix[] = [{ suffix: '' }];
const suffixes: Readonly<Record<MetricType, readonly Suffix[]>> = {
  counter: plain,
  gauge: plain,
  untyped: plain,
  histogram: [{ suffix: '_bucket', ownLabel: 'le' }, { suffix: '_sum' }, { suffix: '_count' }],
  summary: [{ suffix: '', ownLabel: 'quantile' }, { suffix: '_sum' }, { suffix: '_count' }],
};

/** https://prometheus.io/docs/instrumenting/exposition_formats/#histograms-and-summaries */
export function suffixesOf(type: MetricType): readonly Suffix[] {
  return suffixes[type];
}

export function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

/** Different for different texts, whatever is in them: each follows its length. */
export function textsKey(texts: readonly string[], from = 0, to = texts.length): string {
  let key = '';
  for (let at = from; at < to; at++) key += `${texts[at]!.length}:${texts[at]}`;
  return key;
}
