import type { Sums } from './report.ts';
import type { Schema } from './schema.ts';

/**
 * One instant, in the order of its schema. The schema grows by appending; it is another object when it was begun anew.
 * The arrays are used again for the next instant: whoever keeps them copies them.
 */
export interface Recording extends Sums {
  readonly schema: Schema;
}
