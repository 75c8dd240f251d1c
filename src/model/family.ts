/** The metric types of Prometheus's text format. */
export const metricTypes = ['counter', 'gauge', 'untyped', 'histogram', 'summary'] as const;
export type MetricType = (typeof metricTypes)[number];

/**
 * What is measured: one name of Prometheus's data model with its HELP and TYPE. Which series it has is said by groups of
 * them (series.ts).
 *
 * A series' value is `sum / divisor`. The kernel counts in whole numbers (USER_HZ ticks, hundredths, KiB); keeping the
 * whole number and dividing once, at the very end, is exact, and whole numbers make small deltas on the wire.
 */
export interface Family {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
  /** A whole number from 1 to 2^31. */
  readonly divisor: number;
}

/** Equal in every field. */
export function sameFamily(a: Family, b: Family): boolean {
  return a === b || (a.name === b.name && a.type === b.type && a.help === b.help && a.divisor === b.divisor);
}

/** The number that Prometheus sees. */
export function seriesValue(sum: number, divisor: number): number {
  return divisor === 1 ? sum : sum / divisor;
}
