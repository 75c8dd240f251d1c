/**
 * One instant of one host. `sums[i]` is the sum of series `i` of the schema (its value is `sum / divisor`);
 * `present[i]` is 0 where series `i` is absent at this instant, and `sums[i]` is then 0. Absent is not zero, and NaN is
 * a value like any other, hence the second array.
 */
export interface Report {
  /** Counts within one epoch, from 1. */
  readonly seq: number;
  /** Wall clock, milliseconds since 1970, on the epoch's own clock (PROTOCOL.md, Clocks). */
  readonly timeMs: number;
  readonly sums: Float64Array;
  readonly present: Uint8Array;
}
