import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeMessage } from '../../../src/protocol/codec.ts';
import { encodeKey } from '../../../src/protocol/delta.ts';
import { limits } from '../../../src/protocol/limits.ts';
import { SchemasInUse } from '../../../src/server/delivery/schemas.ts';
import type { ReceivedReport } from '../../../src/server/delivery/store.ts';
import {
  type AppendedReport,
  isBefore,
  type Receipt,
  Window,
  type WindowRun,
} from '../../../src/server/delivery/window.ts';
import { growSchema, ReportMaker, testSchema, type Values, valuesOf } from './report-maker.ts';

/** As the store does, of a report that comes so late. */
function append(window: Window, report: ReceivedReport, lateMs = 0): void {
  const key = report.key || !report.follows || window.needsKey(report);
  const pairs = encodeKey(report);
  const payload = encodeMessage({
    kind: 'report',
    key: true,
    source: 0,
    seq: report.seq,
    timeMs: report.timeMs,
    pairs,
  });
  const nowMs = report.timeMs + lateMs;
  window.append(report, { arrival: 0, nowMs, key, payload: key && !report.key ? payload : report.payload });
}

interface Row {
  readonly chunk: number;
  readonly report: ReceivedReport;
  /** When it came, by the wall clock as it was then. */
  readonly cameMs: number;
  /** By how much the wall clock was set since. */
  readonly steppedMs: number;
}

/** A window as an array of reports, each with the number of its chunk. */
class Model {
  readonly window = new Window(new SchemasInUse());
  readonly maker = new ReportMaker({ schema: testSchema(3) });
  rows: Row[] = [];
  nowMs = 1_000_000;
  /** Runs that were read, with what they said then: later appends must not reach them. */
  readonly read: { runs: WindowRun[]; saw: unknown }[] = [];
  #chunk = 0;

  append(dtMs: number, values: Values, options: { key?: boolean; follows?: boolean; lateMs?: number }): void {
    this.nowMs += dtMs;
    const all = Array.from({ length: this.maker.schema.seriesCount }, (_, series) => values[series % values.length]);
    const report = this.maker.make(this.nowMs, all, options);
    if (report.key || !report.follows || this.window.needsKey(report)) this.#chunk++;
    // The arrays of the epoch are used on: what is held must be a copy.
    const sums = report.sums.slice();
    const present = report.present.slice();
    const { lateMs = 0 } = options;
    append(this.window, { ...report, sums, present }, lateMs);
    sums.fill(Number.NaN);
    present.fill(0);
    this.rows.push({ chunk: this.#chunk, report, cameMs: this.nowMs + lateMs, steppedMs: 0 });
  }

  evictBefore(ms: number): void {
    const evicted: number[] = [];
    const receipt = this.window.evictBefore(ms, (timeMs) => evicted.push(timeMs));
    const kept = this.rows.findIndex(({ report, steppedMs }) => report.timeMs + steppedMs >= ms);
    this.#checkEvicted(kept < 0 ? this.rows.length : kept, evicted, receipt);
  }

  /** The wall clock is set, and what is newer than that, and a while more, is forgotten. */
  step(deltaMs: number, moreMs: number): void {
    const untilMs = Math.min(this.nowMs, this.nowMs + deltaMs) - moreMs;
    this.window.forgetAfter(untilMs);
    this.window.clockStepped(deltaMs);
    this.rows = this.rows
      .filter(({ report }) => report.timeMs <= untilMs)
      .map((row) => ({ ...row, steppedMs: row.steppedMs + deltaMs }));
    this.nowMs += deltaMs;
    this.maker.breakChain();
  }

  evictOldestChunk(): void {
    const evicted: number[] = [];
    const receipt = this.window.evictOldestChunk((timeMs) => evicted.push(timeMs));
    const oldest = this.rows[0]?.chunk;
    this.#checkEvicted(this.rows.filter(({ chunk }) => chunk === oldest).length, evicted, receipt);
  }

  check(afterMs: number, untilMs: number, reportsMax: number): void {
    const { window, rows } = this;
    const times = rows.map(({ report }) => report.timeMs);
    assert.equal(window.reportCount, rows.length);
    assert.equal(window.oldestMs, times[0]);
    assert.equal(window.oldestAgedMs, rows[0] && rows[0].report.timeMs + rows[0].steppedMs);
    assert.equal(window.newestMs, times.at(-1));
    if (rows.length === 0) assert.equal(window.bytes, 0);
    else assert.ok(window.bytes > rows.length * 24, `${window.bytes} bytes`);
    const between = rows.filter(({ report }) => report.timeMs > afterMs && report.timeMs <= untilMs);
    assert.equal(window.countAfter(afterMs, untilMs), between.length);
    assert.equal(window.countAfter(afterMs), rows.filter(({ report }) => report.timeMs > afterMs).length);
    assert.deepEqual(
      [...window.sizesAfter(afterMs, untilMs)],
      between.map(({ report }) => ({
        samples: report.present.filter((isHere) => isHere === 1).length,
        series: report.present.length,
        schema: report.schema,
      })),
    );
    assert.equal(
      window.timeAfter(afterMs),
      times.find((ms) => ms > afterMs),
    );
    const oldest = rows.find(({ report }) => report.timeMs > afterMs);
    const cameMs = oldest && oldest.cameMs + oldest.steppedMs;
    assert.ok(
      Math.abs((window.cameAfter(afterMs) ?? 0) - (cameMs ?? 0)) <= 1000,
      `${window.cameAfter(afterMs)}, ${cameMs}`,
    );
    const upTo = rows.findLast(({ report }) => report.timeMs <= untilMs)?.report;
    assert.deepEqual(window.receipt(untilMs), upTo && receiptOf(upTo));
    const after = rows.find(({ report }) => report.timeMs > afterMs)?.report;
    assert.deepEqual(window.receiptAfter(afterMs), after && receiptOf(after));
    for (const other of rows.map(({ report }) => receiptOf(report))) {
      const before = rows.findLast(({ report }) => report.timeMs <= untilMs && isBefore(receiptOf(report), other));
      assert.deepEqual(window.receiptBefore(other, untilMs), before && receiptOf(before.report));
    }
    const newest = window.newest(untilMs);
    assert.deepEqual(newest && saw([newest]), upTo && expected([upTo]));
    const runs = window.read(afterMs, untilMs, reportsMax);
    assert.deepEqual(saw(runs), expected(between.slice(0, reportsMax).map(({ report }) => report)));
    this.read.push({ runs, saw: saw(runs) });
    if (newest !== undefined) this.read.push({ runs: [newest], saw: saw([newest]) });
  }

  #checkEvicted(count: number, evicted: readonly number[], receipt: unknown): void {
    const gone = this.rows.slice(0, count).map(({ report }) => report);
    assert.deepEqual(
      evicted,
      gone.map(({ timeMs }) => timeMs),
    );
    const last = gone.at(-1);
    assert.deepEqual(receipt, last && { epoch: last.epoch, seq: last.seq, timeMs: last.timeMs, arrival: 0 });
    this.rows = this.rows.slice(count);
  }
}

function saw(runs: readonly WindowRun[]): unknown[] {
  return runs.flatMap(({ schema, reports }) =>
    reports.map((report) => ({ schema, seq: report.seq, timeMs: report.timeMs, values: valuesOf(report) })),
  );
}

function expected(reports: readonly ReceivedReport[]): unknown[] {
  return reports.map((report) => ({
    schema: report.schema,
    seq: report.seq,
    timeMs: report.timeMs,
    values: valuesOf(report),
  }));
}

const receiptOf = ({ epoch, seq, timeMs }: AppendedReport): Receipt => ({ epoch, seq, timeMs, arrival: 0 });

const value = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: -3, max: 1000 }) },
  { weight: 1, arbitrary: fc.constantFrom(undefined, Number.NaN, Infinity, -Infinity, 2 ** 53, 0.1, 2 ** 64) },
);
const command = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      dtMs: fc.integer({ min: 1, max: 20_000 }),
      values: fc.array(value, { minLength: 1, maxLength: 6 }),
      options: fc.record(
        { key: fc.boolean(), follows: fc.boolean(), lateMs: fc.constantFrom(200, 900, 1100, 9_000, 500_000) },
        { requiredKeys: [] },
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('grow' as const), series: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('begin' as const), series: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('epoch' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('evict' as const), ageMs: fc.integer({ min: 0, max: 99_999 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('evictChunk' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('step' as const),
      deltaMs: fc.integer({ min: -50_000, max: 50_000 }),
      moreMs: fc.integer({ min: 0, max: 50_000 }),
    }),
  },
);
const look = fc.record({
  afterMs: fc.oneof(fc.constant(Infinity), fc.integer({ min: -10, max: 99_999 })),
  forMs: fc.integer({ min: 0, max: 99_999 }),
  reportsMax: fc.integer({ min: 0, max: 20 }),
});

test('a window is an array of reports, whatever is appended, evicted and read', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(command, look), { maxLength: 60 }), (history) => {
      const model = new Model();
      for (const [step, { afterMs, forMs, reportsMax }] of history) {
        switch (step.do) {
          case 'append':
            model.append(step.dtMs, step.values, step.options);
            break;
          case 'grow':
            growSchema(model.maker.schema, step.series);
            break;
          case 'begin':
            model.maker.schema = testSchema(step.series);
            model.maker.breakChain();
            break;
          case 'epoch':
            model.maker.epoch++;
            model.maker.breakChain();
            break;
          case 'evict':
            model.evictBefore(model.nowMs - step.ageMs);
            break;
          case 'evictChunk':
            model.evictOldestChunk();
            break;
          case 'step':
            model.step(step.deltaMs, step.moreMs);
            break;
        }
        model.check(model.nowMs - afterMs, model.nowMs - afterMs + forMs, reportsMax);
      }
      for (const { runs, saw: before } of model.read) assert.deepEqual(saw(runs), before);
      model.evictBefore(Infinity);
      assert.equal(model.window.bytes, 0);
    }),
    { numRuns: 300 },
  );
});

test('what was read stays as it is, whatever comes and goes meanwhile', () => {
  const window = new Window(new SchemasInUse());
  const maker = new ReportMaker();
  append(window, maker.make(1, [1]));
  append(window, maker.make(2, [2]));
  const read = window.read(0, 2, 9);
  const newest = [window.newest(2)!];
  for (let at = 3; at <= 20; at++) append(window, maker.make(at, [at]));
  window.clear();
  const values = (runs: WindowRun[]) => saw(runs).map((report) => (report as { values: Values }).values);
  assert.deepEqual([values(read), values(newest)], [[[1], [2]], [[2]]]);
});

test('what is read in steps is what was there, whatever comes and goes between two steps', () => {
  const make = (reports: number) => {
    const window = new Window(new SchemasInUse());
    const maker = new ReportMaker();
    const add = (at: number) => append(window, maker.make(at, [at], { key: at % 10 === 1 }));
    for (let at = 1; at <= reports; at++) add(at);
    return { window, add };
  };
  const happenings: Readonly<Record<string, (world: ReturnType<typeof make>, at: number) => void>> = {
    nothing: () => {},
    'reports come': ({ add }, at) => add(100 + at),
    'reports are evicted': ({ window }, at) => window.evictBefore(at),
    'the memory is full': ({ window }) => window.evictOldestChunk(),
  };
  for (const [what, happens] of Object.entries(happenings)) {
    for (const [afterMs, untilMs, max] of [
      [0, 40, 99],
      [5, 35, 20],
      [12, 40, 1],
      [37, 40, 9],
    ] as const) {
      const world = make(40);
      const expected = saw(world.window.read(afterMs, untilMs, max));
      const steps = world.window.reading(afterMs, untilMs, max);
      let runs: WindowRun[] | undefined;
      for (let at = 1; runs === undefined; at++) {
        const step = steps.next();
        if (step.done === true) runs = step.value;
        else {
          assert.ok(step.value > 0);
          happens(world, at);
        }
      }
      assert.deepEqual(saw(runs), expected, `${what}, after ${afterMs}`);
    }
  }
  // Reports that an agent sends again with other times are not given.
  const { window } = make(40);
  const steps = window.reading(0, 40, 99);
  steps.next();
  window.forgetAfter(25);
  let step = steps.next();
  while (step.done !== true) step = steps.next();
  assert.equal(saw(step.value).length, 25);
});

test('what a page shows of a window is bounded, however many and large its reports are', () => {
  const made = ({ series, reports, key }: { series: number; reports: number; key: boolean }) => {
    const window = new Window(new SchemasInUse());
    const maker = new ReportMaker({ schema: testSchema(series) });
    const values: Values = Array(series).fill(undefined);
    const first = maker.make(1, values, { key });
    append(window, first);
    for (let at = 2; at <= reports; at++) append(window, { ...maker.make(at, values, { key }), follows: true });
    return [[...window.history()].length, [...window.sparse()].length, [...window.history()].at(-1)!.timeMs];
  };
  assert.deepEqual(made({ series: 10, reports: 300, key: false }), [300, 5, 300]);
  assert.deepEqual(made({ series: 10, reports: 721, key: false }), [13, 13, 721]);
  assert.deepEqual(made({ series: 4000, reports: 300, key: false }), [5, 5, 241], 'of 1 200 000 series');
  assert.deepEqual(made({ series: 10, reports: 1500, key: true }), [500, 500, 1500]);
  assert.deepEqual(made({ series: 4000, reports: 300, key: true }), [150, 150, 300]);
});

test('a chunk holds at most as many reports as an agent may send without a key', () => {
  const window = new Window(new SchemasInUse());
  const maker = new ReportMaker();
  for (let at = 1; at <= limits.reportsPerKeyMax; at++) append(window, maker.make(at, [at]));
  const next = maker.make(1000, [1000]);
  assert.equal(next.key, false);
  assert.equal(window.needsKey(next), true);
});

test('a delta cannot follow what is of another schema, series count or epoch, or nothing', () => {
  const window = new Window(new SchemasInUse());
  const maker = new ReportMaker({ schema: testSchema(2) });
  const first = maker.make(1, [1, 2]);
  assert.equal(window.needsKey(first), true);
  append(window, first);
  assert.equal(window.needsKey(first), false);
  assert.equal(window.needsKey({ ...first, schema: testSchema(2) }), true);
  assert.equal(window.needsKey({ ...first, sums: new Float64Array(3) }), true);
  assert.equal(window.needsKey({ ...first, epoch: 2 }), true);
  window.evictOldestChunk();
  assert.equal(window.needsKey(first), true);
});

test('a chunk in which reports have been evicted still takes deltas', () => {
  const window = new Window(new SchemasInUse());
  const maker = new ReportMaker();
  for (let at = 1; at <= 3; at++) append(window, maker.make(at, [at * 10]));
  window.evictBefore(3);
  const next = maker.make(4, [40]);
  assert.equal(window.needsKey(next), false);
  append(window, next);
  assert.deepEqual(
    saw(window.read(0, 9, 9)).map((report) => (report as { values: Values }).values),
    [[30], [40]],
  );
});

test('a schema is counted once for all chunks that share it, and until the last of them is gone', () => {
  const schemas = new SchemasInUse();
  const window = new Window(schemas);
  const maker = new ReportMaker({ schema: testSchema(1000) });
  const values = Array.from({ length: 1000 }, () => 1);
  append(window, maker.make(1, values));
  const oneBytes = schemas.bytes;
  assert.ok(oneBytes > 1000 * 24);
  append(window, maker.make(2, values, { key: true }));
  assert.equal(schemas.bytes, oneBytes);
  growSchema(maker.schema, 1000, 'more_value');
  append(window, maker.make(3, [...values, ...values]));
  assert.ok(schemas.bytes > 1.9 * oneBytes);
  window.evictOldestChunk();
  window.evictOldestChunk();
  assert.ok(schemas.bytes > 1.9 * oneBytes);
  window.evictOldestChunk();
  assert.deepEqual([window.bytes, schemas.bytes], [0, 0]);
});

test('a window that is cleared holds nothing any more', () => {
  const schemas = new SchemasInUse();
  const window = new Window(schemas);
  for (const epoch of [1, 2]) append(window, new ReportMaker({ epoch, schema: testSchema(3) }).make(epoch, [1, 2, 3]));
  window.clear();
  assert.deepEqual([window.bytes, window.reportCount, schemas.bytes], [0, 0, 0]);
});

test('a sample takes at most 1.5 bytes, an hour of a host with 800 series held', () => {
  const series = 800;
  const window = new Window(new SchemasInUse());
  const maker = new ReportMaker({ schema: testSchema(series) });
  const values = Array.from({ length: series }, (_, at) => 1000 * at);
  const reports = 720;
  // As on a host at 5 s: a quarter of the series are counters that go on, a twentieth gauges that jump, the others rest.
  for (let report = 1; report <= reports; report++) {
    for (let at = 0; at < series; at++) {
      if (at % 4 === 0) values[at]! += (at * 7 + report * 13) % 5000;
      else if (at % 20 === 1) values[at] = (at * 7919 + report * 104_729) % 1_000_000;
    }
    append(window, maker.make(report * 5000, values, { key: report % limits.reportsPerKeyMax === 1 }));
  }
  const bytesASample = window.bytes / (reports * series);
  assert.ok(bytesASample <= 1.5, `${bytesASample} bytes a sample`);
});
