import type { Schema } from './schema.ts';

/**
 * One instant, in the order of its schema. The schema grows by appending; it is another object when it was begun anew.
 * The arrays are used again for the next instant: whoever keeps them copies them.
 */
export interface Recording {
  readonly schema: Schema;
  /** As long as `schema.seriesCount`; 0 where absent. */
  readonly sums: Float64Array;
  /** 1 where the series has a value at this instant, else 0. */
  readonly present: Uint8Array;
}
