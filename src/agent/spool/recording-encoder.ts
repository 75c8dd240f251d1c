import type { Recording } from '../../model/recording.ts';
import type { Sums } from '../../model/report.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceId } from '../../model/source.ts';
import { encodeMessage, encodeSchema } from '../../protocol/codec.ts';
import { encodeDelta, encodeKey } from '../../protocol/delta.ts';
import { limits } from '../../protocol/limits.ts';
import { frameKind, type SpooledFrame } from './segment.ts';

/** What the encoder has to send for a recording, compared with the one before. */
export type SchemaChange = 'none' | 'grown' | 'new';

/**
 * Recordings to frames, in the order in which they are made: what is new of the schema, then a key report or the
 * difference from the report before.
 */
export class RecordingEncoder {
  #schema: Schema | undefined;
  #declaredGroups = 0;
  #previous: { sums: Float64Array; present: Uint8Array } = { sums: new Float64Array(0), present: new Uint8Array(0) };
  #reportsSinceKey = 0;

  change(recording: Recording): SchemaChange {
    if (recording.schema !== this.#schema) return 'new';
    return recording.schema.groups.length === this.#declaredGroups ? 'none' : 'grown';
  }

  /** Forgets what was declared: the next recording comes with its whole schema and a key. */
  reset(): void {
    this.#schema = undefined;
  }

  encode(recording: Recording, place: { seq: number; timeMs: number }): SpooledFrame[] {
    const frames = this.#schemaFrames(recording);
    const next = sumsOf(recording);
    const key = frames.length > 0 || this.#reportsSinceKey >= limits.reportsPerKeyMax - 1;
    const pairs = key ? encodeKey(next) : encodeDelta(this.#previous, next);
    const payload = encodeMessage({ kind: 'report', key, source: hostSourceId, ...place, pairs });
    frames.push({ kind: key ? frameKind.key : frameKind.delta, ...place, payload });
    this.#reportsSinceKey = key ? 0 : this.#reportsSinceKey + 1;
    this.#keep(next);
    return frames;
  }

  #schemaFrames({ schema }: Recording): SpooledFrame[] {
    if (schema !== this.#schema) this.#declaredGroups = 0;
    const fresh = schema.groups.slice(this.#declaredGroups);
    // An empty schema: there is only a begin to send, and the report still has to be a key.
    if (schema !== this.#schema) this.#reportsSinceKey = limits.reportsPerKeyMax;
    this.#schema = schema;
    this.#declaredGroups = schema.groups.length;
    return encodeSchema(hostSourceId, fresh).map((payload) => ({ kind: frameKind.schema, seq: 0, timeMs: 0, payload }));
  }

  /** The recording's arrays are used again by the next tick, so the encoder has its own. */
  #keep({ sums, present }: Sums): void {
    if (this.#previous.sums.length !== sums.length) {
      this.#previous = { sums: sums.slice(), present: present.slice() };
    } else {
      this.#previous.sums.set(sums);
      this.#previous.present.set(present);
    }
  }
}

function sumsOf({ schema, sums, present }: Recording): Sums {
  const { seriesCount } = schema;
  if (sums.length < seriesCount || present.length < seriesCount) {
    throw new Error(`a recording of ${sums.length} sums and ${present.length} marks for ${seriesCount} series`);
  }
  if (sums.length === seriesCount && present.length === seriesCount) return { sums, present };
  return { sums: sums.subarray(0, seriesCount), present: present.subarray(0, seriesCount) };
}
