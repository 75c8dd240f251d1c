import type { Sums } from './report.ts';
import type { Schema } from './schema.ts';

/**
 * One instant, in the order of its schema. The schema grows by appending; a new schema is another object. The arrays
 * are used again for the next instant: copy what you keep.
 */
export interface Recording extends Sums {
  readonly schema: Schema;
}
