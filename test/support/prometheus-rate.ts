import assert from 'node:assert/strict';
import type { Samples } from './agents-record.ts';

/**
 * What Prometheus makes of `rate(series[range])` at an instant, or undefined where it makes nothing of it: the increase
 * between the first and the last sample of the range, counter resets put right, extended to the edges of the range.
 * https://github.com/prometheus/prometheus/blob/v2.42.0/promql/functions.go (extrapolatedRate)
 */
function rateAt(points: readonly (readonly [ms: number, value: number])[], atMs: number, rangeMs: number) {
  const inside = points.filter(([ms]) => ms >= atMs - rangeMs && ms <= atMs);
  const [first, last] = [inside[0], inside.at(-1)];
  if (inside.length < 2 || first === undefined || last === undefined) return undefined;
  let increase = last[1] - first[1];
  for (let at = 1; at < inside.length; at++) {
    if (inside[at]![1] < inside[at - 1]![1]) increase += inside[at - 1]![1];
  }
  const sampled = (last[0] - first[0]) / 1000;
  const between = sampled / (inside.length - 1);
  let toStart = (first[0] - (atMs - rangeMs)) / 1000;
  const toEnd = (atMs - last[0]) / 1000;
  // A counter was never below 0: the line is not carried on beyond that.
  if (increase > 0 && first[1] >= 0) toStart = Math.min(toStart, sampled * (first[1] / increase));
  const threshold = between * 1.1;
  const extended = sampled + (toStart < threshold ? toStart : between / 2) + (toEnd < threshold ? toEnd : between / 2);
  return increase * (extended / sampled / (rangeMs / 1000));
}

/** `rate(family[range])` of these samples, at the same instants as a range query with this span. */
export function ratesOf(
  samples: Samples,
  family: string,
  { rangeMs, fromMs, toMs, stepMs }: { rangeMs: number; fromMs: number; toMs: number; stepMs: number },
): Samples {
  const rates: Samples = new Map();
  for (const [series, points] of samples) {
    if (!series.startsWith(`${family}{`)) continue;
    const ordered = [...points].sort(([a], [b]) => a - b);
    const values = new Map<number, number>();
    for (let atMs = fromMs; atMs <= toMs; atMs += stepMs) {
      const rate = rateAt(ordered, atMs, rangeMs);
      if (rate !== undefined) values.set(atMs, rate);
    }
    // What `rate` gives has no name.
    if (values.size > 0) rates.set(series.slice(family.length), values);
  }
  return rates;
}

/** The largest relative difference of two sets. Throws where one has a value that the other has not. */
export function largestError(found: Samples, expected: Samples): number {
  let largest = 0;
  assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort(), 'the series that have a rate');
  for (const [series, points] of expected) {
    const values = found.get(series)!;
    assert.deepEqual([...values.keys()], [...points.keys()], `the instants at which ${series} has a rate`);
    for (const [ms, rate] of points) {
      if (values.get(ms) !== rate) largest = Math.max(largest, Math.abs(values.get(ms)! / rate - 1));
    }
  }
  return largest;
}
