import type { Sums } from '../../../src/model/report.ts';
import { Schema } from '../../../src/model/schema.ts';
import type { Labels } from '../../../src/model/source.ts';
import { encodeMessage } from '../../../src/protocol/codec.ts';
import { encodeDelta, encodeKey } from '../../../src/protocol/delta.ts';
import type { ReceivedReport } from '../../../src/server/delivery/store.ts';
import { addGroup, type LabelledFamily } from '../../support/groups.ts';

/** A gauge with one label, `series`. */
export function testFamily(name = 'test_value'): LabelledFamily {
  return { name, type: 'gauge', help: 'A value.', divisor: 1, labelNames: ['series'] };
}

/** A schema of one family with series `s0`, `s1`, …. */
export function testSchema(series: number, name?: string): Schema {
  const schema = new Schema();
  growSchema(schema, series, name);
  return schema;
}

export function growSchema(schema: Schema, series: number, name?: string): void {
  const from = schema.seriesCount;
  addGroup(
    schema,
    testFamily(name),
    Array.from({ length: series }, (_, index) => `s${from + index}`),
  );
}

/** An absent series is undefined. */
export type Values = readonly (number | undefined)[];

export function sumsOf(values: Values): Sums {
  return {
    sums: Float64Array.from(values, (value) => value ?? 0),
    present: Uint8Array.from(values, (value) => (value === undefined ? 0 : 1)),
  };
}

/** The other way round. */
export function valuesOf({ sums, present }: Sums): Values {
  return Array.from(sums, (sum, series) => (present[series] === 0 ? undefined : sum));
}

/** Makes reports as an epoch of an agent sends them, and as its connection on the server decodes them. */
export class ReportMaker {
  epoch: number;
  seq = 0;
  schema: Schema;
  labels: Labels = [];
  #before: Sums | undefined;

  constructor(options: { epoch?: number; schema?: Schema } = {}) {
    this.epoch = options.epoch ?? 1;
    this.schema = options.schema ?? testSchema(1);
  }

  /** A delta where it can be one, and says that it follows the report before; `key` and `follows` say otherwise. */
  make(timeMs: number, values: Values, options: { key?: boolean; follows?: boolean } = {}): ReceivedReport {
    const next = sumsOf(values);
    const before = this.#before;
    const key = options.key === true || before === undefined || before.sums.length !== next.sums.length;
    const pairs = key ? encodeKey(next) : encodeDelta(before, next);
    this.#before = next;
    const seq = ++this.seq;
    const payload = encodeMessage({ kind: 'report', key, source: 0, seq, timeMs, pairs });
    const follows = options.follows ?? !key;
    const { schema, labels, epoch } = this;
    return { schema, labels, epoch, seq, timeMs, key, payload, ...next, follows };
  }

  /** What comes next is a key: after a begin, a schema. */
  breakChain(): void {
    this.#before = undefined;
  }
}
