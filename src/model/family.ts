/** The metric types that travel: histograms of text files travel as their parts, untyped. */
export const metricTypes = ['counter', 'gauge', 'untyped'] as const;
export type MetricType = (typeof metricTypes)[number];

/**
 * What is measured: one name of Prometheus's data model with its HELP and TYPE.
 *
 * A series' value is `sum / divisor`. The kernel counts in whole numbers (USER_HZ ticks, hundredths, KiB); keeping the
 * whole number and dividing once, at the very end, is exact, and whole numbers make small deltas on the wire.
 */
export interface Family {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
  /** The base unit (`seconds`, `bytes`), or "" where there is none. */
  readonly unit: string;
  /** A whole number from 1 to 2^31. */
  readonly divisor: number;
  readonly labelNames: readonly string[];
}

/** The number that Prometheus sees. */
export function seriesValue(sum: number, divisor: number): number {
  return divisor === 1 ? sum : sum / divisor;
}
