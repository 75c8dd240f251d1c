/** The sums of all series of a schema at one instant, and which of them are there: the arrays are equally long. */
export interface Sums {
  readonly sums: Float64Array;
  /** 0 where a series is absent; its sum is then 0. Absent is not zero, and NaN is a value like any other. */
  readonly present: Uint8Array;
}

/** One instant of one source. `sums[i]` is the sum of series `i` of the schema (its value is `sum / divisor`). */
export interface Report extends Sums {
  /** Counts within one epoch of an agent, from 1, over all its sources. */
  readonly seq: number;
  /** Wall clock, milliseconds since 1970. */
  readonly timeMs: number;
}
