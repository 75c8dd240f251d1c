import type { Report } from '../../model/report.ts';
import type { Schema } from '../../model/schema.ts';
import type { Labels } from '../../model/source.ts';
import { decodeAgentMessage, writeBareReport } from '../../protocol/codec.ts';
import { applyPairs } from '../../protocol/delta.ts';
import { limits } from '../../protocol/limits.ts';
import type { HeldSchemas } from './schemas.ts';

/**
 * One source's reports in order of time, newest last, encoded as they were received: a chunk is a key report and the
 * deltas after it, about a byte a sample, and is decoded for a scrape. The few newest are also kept decoded, because
 * these are what a scraper that keeps up needs.
 *
 *     chunk              chunk                    chunk (open)          newest
 *     [key δ δ δ δ δ δ]  [key δ δ δ δ δ δ δ δ δ]  [key δ δ δ]           [decoded decoded decoded]
 *      ^ first: reports before it have been evicted, and are kept only to decode those after it
 *
 * Times rise strictly, so a time is a position: "after 12:00:05.003" is all that a cursor has to hold.
 */
export class Window {
  readonly #schemas: SchemaHolders;
  readonly #chunks: Chunk[] = [];
  readonly #newest: HeldReport[] = [];
  #bytes = 0;
  #reportCount = 0;

  /** `schemas` counts the schemas that the windows of its agent need. */
  constructor(schemas: SchemaHolders) {
    this.#schemas = schemas;
  }

  /** Reports that can be read. */
  get reportCount(): number {
    return this.#reportCount;
  }

  /** Memory of this window without its schemas: encoded reports, decoded ones, and the bookkeeping of both. */
  get bytes(): number {
    return this.#bytes;
  }

  get newestMs(): number | undefined {
    return this.#chunks.at(-1)?.timesMs.at(-1);
  }

  get oldestMs(): number | undefined {
    const chunk = this.#chunks[0];
    return chunk?.timesMs[chunk.first];
  }

  /**
   * Appends a report that is newer than all others: the caller has checked that. A delta must follow the newest report,
   * or be passed as a key instead (see {@link needsKey}).
   */
  append(report: AppendedReport, as: AppendedAs): void {
    let chunk = this.#chunks.at(-1);
    if (as.key || chunk === undefined) {
      if (chunk !== undefined) this.#bytes += chunk.close();
      chunk = new Chunk(report, as.arrival);
      this.#schemas.hold(chunk.schema);
      this.#chunks.push(chunk);
      this.#bytes += chunkOverheadBytes;
    }
    this.#bytes += chunk.append(report, as);
    this.#reportCount++;
    const oldest = this.#newest.length < newestHeldMax ? undefined : this.#newest.shift();
    if (oldest !== undefined) this.#bytes -= heldBytes(oldest);
    const next: HeldReport = {
      schema: report.schema,
      labels: report.labels,
      seq: report.seq,
      timeMs: report.timeMs,
      sums: report.sums.slice(),
      present: report.present.slice(),
    };
    this.#newest.push(next);
    this.#bytes += heldBytes(next);
  }

  /** Whether the next report has to be a key, whatever its agent sent. */
  needsKey(report: Pick<AppendedReport, 'schema' | 'labels' | 'epoch' | 'sums'>): boolean {
    const chunk = this.#chunks.at(-1);
    return (
      chunk === undefined ||
      chunk.schema !== report.schema ||
      chunk.labels !== report.labels ||
      chunk.seriesCount !== report.sums.length ||
      chunk.epoch !== report.epoch ||
      chunk.timesMs.length >= limits.reportsPerKeyMax
    );
  }

  /** Reports with `afterMs < time ≤ untilMs`, oldest first: how many samples each has, for planning a scrape. */
  *sizesAfter(afterMs: number, untilMs: number): Generator<WindowSize> {
    for (let at = this.#chunkAfter(afterMs); at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at]!;
      const to = firstAfter(chunk.timesMs, untilMs);
      for (let index = Math.max(chunk.first, firstAfter(chunk.timesMs, afterMs)); index < to; index++) {
        yield chunk.sizeAt(index);
      }
    }
  }

  /** How many reports have `afterMs < time ≤ untilMs`. */
  countAfter(afterMs: number, untilMs = Infinity): number {
    let count = 0;
    for (let at = this.#chunkUpTo(untilMs); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      const from = Math.max(chunk.first, firstAfter(chunk.timesMs, afterMs));
      const to = firstAfter(chunk.timesMs, untilMs);
      if (to > from) count += to - from;
      if (from > chunk.first) break;
    }
    return count;
  }

  /** The time of the oldest report after `afterMs`. */
  timeAfter(afterMs: number): number | undefined {
    const chunk = this.#chunks[this.#chunkAfter(afterMs)];
    return chunk?.timesMs[Math.max(chunk.first, firstAfter(chunk.timesMs, afterMs))];
  }

  /** When the oldest report after `afterMs` came, to a second, by the wall clock as it is set now. */
  cameAfter(afterMs: number): number | undefined {
    const chunk = this.#chunks[this.#chunkAfter(afterMs)];
    return chunk?.cameMs(Math.max(chunk.first, firstAfter(chunk.timesMs, afterMs)));
  }

  /**
   * The oldest `reportsMax` reports with `afterMs < time ≤ untilMs`, decoded, in runs that share a schema and labels. What is
   * read stays as it is, whatever comes and goes meanwhile: an answer is rendered over many turns.
   */
  read(afterMs: number, untilMs: number, reportsMax: number): WindowRun[] {
    return inOneGo(this.reading(afterMs, untilMs, reportsMax));
  }

  /**
   * The same in steps, each of a report at most, between which reports may come and go. Yields how much a step was: series, or
   * bytes of what had to be decoded.
   */
  *reading(afterMs: number, untilMs: number, reportsMax: number): Generator<number, WindowRun[]> {
    const parts: { readonly chunk: Chunk; readonly from: number; readonly to: number }[] = [];
    let left = reportsMax;
    const chunks = this.#chunks;
    for (let at = this.#chunkAfter(afterMs); at < chunks.length && left > 0; at++) {
      const chunk = chunks[at]!;
      const from = Math.max(chunk.first, firstAfter(chunk.timesMs, afterMs));
      const to = Math.min(firstAfter(chunk.timesMs, untilMs), from + left);
      if (to <= from) continue;
      parts.push({ chunk, from, to });
      left -= to - from;
    }
    const runs: WindowRun[] = [];
    for (const { chunk, from, to } of parts) {
      const reports = yield* this.#decode(chunk, from, to);
      const last = runs.at(-1);
      if (last?.schema === chunk.schema && last.labels === chunk.labels) last.reports.push(...reports);
      else if (reports.length > 0) runs.push({ schema: chunk.schema, labels: chunk.labels, reports });
    }
    return runs;
  }

  /** The newest report with `time ≤ untilMs`. */
  newest(untilMs: number): WindowRun | undefined {
    return inOneGo(this.readingNewest(untilMs));
  }

  /** The same in steps, as {@link reading}. */
  *readingNewest(untilMs: number): Generator<number, WindowRun | undefined> {
    for (let at = this.#newest.length - 1; at >= 0; at--) {
      const held = this.#newest[at]!;
      if (held.timeMs <= untilMs) return { schema: held.schema, labels: held.labels, reports: [held] };
    }
    for (let at = this.#chunkUpTo(untilMs); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      const index = firstAfter(chunk.timesMs, untilMs) - 1;
      if (index < chunk.first) continue;
      const reports = yield* this.#decode(chunk, index, index + 1);
      return reports.length === 0 ? undefined : { schema: chunk.schema, labels: chunk.labels, reports };
    }
    return undefined;
  }

  /** The few newest reports, oldest first. */
  get recent(): readonly StampedReport[] {
    return this.#newest;
  }

  /**
   * A report of each chunk, oldest first, at the cost of one decoded report each: what the last hour was like. Of every
   * second chunk, third, … where those are more than a page may cost.
   */
  *sparse(): Generator<StampedReport> {
    const chunks = this.#chunks;
    const series = chunks.reduce((sum, { seriesCount }) => sum + seriesCount, 0);
    const every = Math.ceil(Math.max(1, chunks.length / historyReportsMax, series / historySeriesMax));
    for (let at = (chunks.length - 1) % every; at < chunks.length; at += every) {
      const chunk = chunks[at]!;
      if (chunk.first === 0) yield { ...inOneGo(chunk.decode(0, 1))[0]!, schema: chunk.schema };
    }
  }

  /** All reports, oldest first, where they are no more than a page may cost; else those of {@link sparse}. */
  history(): Iterable<StampedReport> {
    const series = this.#chunks.reduce((sum, chunk) => sum + chunk.reportCount * chunk.seriesCount, 0);
    if (this.#reportCount > historyReportsMax || series > historySeriesMax) return this.sparse();
    return this.read(-Infinity, Infinity, historyReportsMax).flatMap(({ schema, reports }) =>
      reports.map((report) => ({ ...report, schema })),
    );
  }

  /** When {@link sparse} last got one more: the time of its newest. */
  get newestChunkMs(): number | undefined {
    return this.#chunks.at(-1)?.timesMs[0];
  }

  /** Size of the newest report; undefined if there is none. */
  get newestSize(): WindowSize | undefined {
    const chunk = this.#chunks.at(-1);
    return chunk?.sizeAt(chunk.timesMs.length - 1);
  }

  /** The newest report with `time ≤ untilMs`, which an ack for that time may name. */
  receipt(untilMs: number): Receipt | undefined {
    for (let at = this.#chunkUpTo(untilMs); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      const index = firstAfter(chunk.timesMs, untilMs) - 1;
      if (index >= chunk.first) {
        return chunk.receipt(index);
      }
    }
    return undefined;
  }

  /** The oldest report after `untilMs`. */
  receiptAfter(untilMs: number): Receipt | undefined {
    const chunk = this.#chunks[this.#chunkAfter(untilMs)];
    return chunk?.receipt(Math.max(chunk.first, firstAfter(chunk.timesMs, untilMs)));
  }

  /** The newest report with `time ≤ untilMs` that came before another one of its agent. */
  receiptBefore(other: Receipt, untilMs: number): Receipt | undefined {
    for (let at = this.#chunkUpTo(untilMs); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      for (let index = firstAfter(chunk.timesMs, untilMs) - 1; index >= chunk.first; index--) {
        const receipt = chunk.receipt(index);
        if (isBefore(receipt, other)) return receipt;
      }
    }
    return undefined;
  }

  /** When the oldest report was made, by the wall clock as it is set now. */
  get oldestAgedMs(): number | undefined {
    const chunk = this.#chunks[0];
    return chunk && chunk.timesMs[chunk.first]! + chunk.steppedMs;
  }

  /** The wall clock was set by so much: reports keep their times, and get no older by it. */
  clockStepped(deltaMs: number): void {
    for (const chunk of this.#chunks) chunk.steppedMs += deltaMs;
  }

  /** Forgets what is newer than `ms`: its agent sends it again. */
  forgetAfter(ms: number): void {
    while (this.#newest.length > 0 && this.#newest.at(-1)!.timeMs > ms) {
      this.#bytes -= heldBytes(this.#newest.pop()!);
    }
    for (let chunk = this.#chunks.at(-1); chunk !== undefined; chunk = this.#chunks.at(-1)) {
      const to = Math.max(chunk.first, firstAfter(chunk.timesMs, ms));
      this.#reportCount -= chunk.timesMs.length - to;
      if (to > chunk.first) {
        this.#bytes += chunk.cut(to);
        return;
      }
      this.#chunks.pop();
      this.#bytes -= chunk.bytes + chunkOverheadBytes;
      this.#schemas.release(chunk.schema);
      // It may be amid a reading.
      chunk.cut(0);
    }
  }

  /**
   * Evicts what was made before `ms`, by the wall clock as it is set now. Memory is freed by whole chunks. Returns the
   * last report that was evicted.
   */
  evictBefore(ms: number, onEvict?: (timeMs: number) => void): Receipt | undefined {
    let evicted: Receipt | undefined;
    while (this.#chunks.length > 0) {
      const chunk = this.#chunks[0]!;
      const to = firstAtOrAfter(chunk.timesMs, ms - chunk.steppedMs);
      if (to <= chunk.first) break;
      evicted = this.#evictTo(chunk, to, onEvict);
      if (to < chunk.timesMs.length) break;
    }
    return evicted;
  }

  /** Frees everything. */
  clear(): void {
    while (this.#chunks.length > 0) this.evictOldestChunk();
  }

  /** Evicts the oldest chunk, which frees memory at once. */
  evictOldestChunk(onEvict?: (timeMs: number) => void): Receipt | undefined {
    const chunk = this.#chunks[0];
    return chunk === undefined ? undefined : this.#evictTo(chunk, chunk.timesMs.length, onEvict);
  }

  #evictTo(chunk: Chunk, to: number, onEvict?: (timeMs: number) => void): Receipt {
    for (let index = chunk.first; index < to; index++) onEvict?.(chunk.timesMs[index]!);
    this.#reportCount -= to - chunk.first;
    const evicted = chunk.receipt(to - 1);
    chunk.first = to;
    if (to === chunk.timesMs.length) {
      this.#chunks.shift();
      this.#bytes -= chunk.bytes + chunkOverheadBytes;
      this.#schemas.release(chunk.schema);
    }
    while (this.#newest.length > 0 && this.#newest[0]!.timeMs <= evicted.timeMs) {
      this.#bytes -= heldBytes(this.#newest.shift()!);
    }
    return evicted;
  }

  /** The first chunk that ends after `ms`. */
  #chunkAfter(ms: number): number {
    return firstIndex(this.#chunks, (chunk) => chunk.timesMs.at(-1)! > ms);
  }

  /** The last chunk that may hold something up to `ms`, or -1. */
  #chunkUpTo(ms: number): number {
    return Math.min(this.#chunkAfter(ms), this.#chunks.length - 1);
  }

  *#decode(chunk: Chunk, from: number, to: number): Generator<number, Report[]> {
    const oldestHeld = this.#newest[0];
    if (oldestHeld !== undefined && chunk.timesMs[from]! >= oldestHeld.timeMs) {
      const start = this.#newest.findIndex((held) => held.timeMs === chunk.timesMs[from]);
      const reports = this.#newest.slice(start, start + to - from);
      yield reports.length * chunk.seriesCount;
      return reports;
    }
    return yield* chunk.decode(from, to);
  }
}

type SchemaHolders = Pick<HeldSchemas, 'hold' | 'release'>;

/** The size of a report. */
export interface WindowSize {
  /** Absent series have none. */
  readonly samples: number;
  /** Absent ones too: when it is decoded, each takes memory. */
  readonly series: number;
  readonly schema: Schema;
}

/** The memory of a decoded report: a number of 8 bytes and a mark of presence for each series, and its objects. */
export const decodedBytes = (series: number): number => series * decodedSeriesBytes + decodedReportBytes;

export const decodedSeriesBytes = 9;
// Measured: one of five series takes 670 bytes beside them.
const decodedReportBytes = 650;

/** The result of what is done in steps, without a pause between them. */
function inOneGo<T>(steps: Generator<unknown, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

export interface WindowRun {
  readonly schema: Schema;
  /** Of the begin that the reports came after. */
  readonly labels: Labels;
  readonly reports: Report[];
}

/** A report that was received, by what an ack can say of it. */
export interface Receipt {
  readonly epoch: number;
  readonly seq: number;
  readonly timeMs: number;
  /** Counts as the reports come; that of the key that it stands behind. */
  readonly arrival: number;
}

/**
 * Whether a report came before another one of its agent: numbers count within an epoch, and epochs come one after
 * another.
 */
export function isBefore(a: Receipt, b: Receipt): boolean {
  return a.epoch === b.epoch ? a.seq < b.seq : a.arrival < b.arrival;
}

export interface AppendedReport {
  readonly schema: Schema;
  /** Of the source's begin: one object for all reports of one list of labels, as far as that is known. */
  readonly labels: Labels;
  readonly epoch: number;
  readonly seq: number;
  /** On the server's clock: the epoch's offset has been added. */
  readonly timeMs: number;
  /** As long as the schema was when the report came. Copied. */
  readonly sums: Float64Array;
  readonly present: Uint8Array;
}

/** How it is stored. */
export interface AppendedAs {
  /** Counts as the reports of all agents come. */
  readonly arrival: number;
  /** When it came, on the wall clock. */
  readonly nowMs: number;
  readonly key: boolean;
  /** A frame's payload. Copied. */
  readonly payload: Uint8Array;
}

/** A report with the schema that says what its sums are. */
export interface StampedReport extends Report {
  readonly schema: Schema;
}

/** Its arrays are never written again: whoever reads it may keep it. */
interface HeldReport extends StampedReport {
  readonly labels: Labels;
}

// An agent at 5 s and a scraper at 15 s: three reports a scrape, and one more for the one that came meanwhile.
const newestHeldMax = 4;
// Measured: a chunk of one report takes 950 to 1100 bytes beside its payload, mostly as three short arrays.
const chunkOverheadBytes = 1000;
// Three numbers in arrays of doubles.
const entryBytes = 24;
const countBytes = 8;
// Of a page's charts: an hour at 5 s; and of a host of 2900 series half an hour, some 30 ms of decoding.
const historyReportsMax = 720;
const historySeriesMax = 1 << 20;

const heldBytes = (held: HeldReport): number => held.sums.byteLength + held.present.byteLength + 200;

/** A key report and the deltas that follow it, of one epoch and one schema. */
class Chunk {
  readonly schema: Schema;
  readonly labels: Labels;
  readonly #arrival: number;
  /** Constant within a chunk: after a schema frame comes a key, and a key opens a chunk. */
  readonly seriesCount: number;
  readonly epoch: number;
  readonly seqs: number[] = [];
  readonly timesMs: number[] = [];
  /** How many samples each report has, if not all have the same number. */
  #samples: number[] | undefined;
  #samplesOfAll = 0;
  /** How late each report came, if not all came as late, to a second: those of a backlog are older and older. */
  #lateMs: number[] | undefined;
  #lateMsOfAll = 0;
  readonly #ends: number[] = [];
  #payloads = Buffer.allocUnsafeSlow(payloadBytesFirst);
  /** The first report that is not evicted. */
  first = 0;
  /** By how much the wall clock was set since it was opened. */
  steppedMs = 0;

  constructor(key: AppendedReport, arrival: number) {
    this.schema = key.schema;
    this.labels = key.labels;
    this.#arrival = arrival;
    this.seriesCount = key.sums.length;
    this.epoch = key.epoch;
  }

  get bytes(): number {
    const counts = (this.#samples?.length ?? 0) + (this.#lateMs?.length ?? 0);
    return this.#payloads.length + this.seqs.length * entryBytes + counts * countBytes;
  }

  /** Of those that are not evicted. */
  get reportCount(): number {
    return this.timesMs.length - this.first;
  }

  sizeAt(index: number): WindowSize {
    const samples = this.#samples?.[index] ?? this.#samplesOfAll;
    return { samples, series: this.seriesCount, schema: this.schema };
  }

  cameMs(index: number): number {
    return this.timesMs[index]! + (this.#lateMs?.[index] ?? this.#lateMsOfAll) + this.steppedMs;
  }

  receipt(index: number): Receipt {
    return { epoch: this.epoch, seq: this.seqs[index]!, timeMs: this.timesMs[index]!, arrival: this.#arrival };
  }

  /** Returns by how many bytes it grew. */
  append(report: AppendedReport, { payload: whole, nowMs }: AppendedAs): number {
    const before = this.seqs.length === 0 ? 0 : this.bytes;
    const start = this.#ends.at(-1) ?? 0;
    const endMost = start + whole.length;
    if (endMost > this.#payloads.length) this.#resize(Math.max(endMost, Math.ceil(this.#payloads.length * 1.5)));
    const end = writeBareReport(this.#payloads, start, whole);
    this.#ends.push(end);
    this.seqs.push(report.seq);
    this.timesMs.push(report.timeMs);
    this.#countSamples(presentCount(report.present));
    this.#countLate(nowMs - this.steppedMs - report.timeMs);
    return this.bytes - before;
  }

  /** Of the report that has just come. */
  #countSamples(samples: number): void {
    if (this.seqs.length === 1) this.#samplesOfAll = samples;
    else if (samples !== this.#samplesOfAll) this.#samples ??= Array(this.seqs.length - 1).fill(this.#samplesOfAll);
    this.#samples?.push(samples);
  }

  /** Of the report that has just come. */
  #countLate(lateMs: number): void {
    if (this.seqs.length === 1) this.#lateMsOfAll = lateMs;
    else if (Math.abs(lateMs - this.#lateMsOfAll) > lateMsIgnored) {
      this.#lateMs ??= Array(this.seqs.length - 1).fill(this.#lateMsOfAll);
    }
    this.#lateMs?.push(lateMs);
  }

  /** Forgets the reports from `to` on. Returns the change in bytes. */
  cut(to: number): number {
    const before = this.bytes;
    this.seqs.length = this.timesMs.length = this.#ends.length = to;
    if (this.#samples !== undefined) this.#samples.length = to;
    if (this.#lateMs !== undefined) this.#lateMs.length = to;
    return this.bytes - before;
  }

  /** The chunk is complete: frees what was allocated ahead. Returns the change in bytes. */
  close(): number {
    const before = this.bytes;
    this.#resize(this.#ends.at(-1) ?? 0);
    return this.bytes - before;
  }

  /**
   * Reports `from` up to `to`, decoded through all before them, those that are still there. Yields after each how much that
   * was: its series, or its bytes.
   */
  *decode(from: number, to: number): Generator<number, Report[]> {
    const sums = new Float64Array(this.seriesCount);
    const present = new Uint8Array(this.seriesCount);
    const reports: Report[] = [];
    for (let index = 0; index < Math.min(to, this.seqs.length); index++) {
      const payload = this.#payloads.subarray(this.#ends[index - 1] ?? 0, this.#ends[index]);
      const message = decodeAgentMessage(payload);
      if (message.kind !== 'report') throw new Error(`a window holds a '${message.kind}' where a report should be`);
      applyPairs({ sums, present }, this.seriesCount, message.key, message.pairs);
      if (index >= from) {
        reports.push({
          seq: this.seqs[index]!,
          timeMs: this.timesMs[index]!,
          sums: sums.slice(),
          present: present.slice(),
        });
      }
      yield index < from ? payload.length : Math.max(payload.length, this.seriesCount);
    }
    return reports;
  }

  #resize(bytes: number): void {
    const grown = Buffer.allocUnsafeSlow(bytes);
    grown.set(this.#payloads.subarray(0, Math.min(bytes, this.#ends.at(-1) ?? 0)));
    this.#payloads = grown;
  }
}

// Of an agent that is punctual, nothing is kept.
const lateMsIgnored = 1000;
// The key report of a small host. Grows by half each time.
const payloadBytesFirst = 1024;

function presentCount(present: Uint8Array): number {
  // The usual case, which is ten times as fast.
  if (!present.includes(0)) return present.length;
  let count = 0;
  for (let series = 0; series < present.length; series++) count += present[series]!;
  return count;
}

/** The first index whose time is over `ms`. */
const firstAfter = (timesMs: readonly number[], ms: number): number => firstIndex(timesMs, (time) => time > ms);

const firstAtOrAfter = (timesMs: readonly number[], ms: number): number => firstIndex(timesMs, (time) => time >= ms);

/** The first of a list that is so, as are all after it; the length of the list where none is. */
function firstIndex<T>(list: readonly T[], isSo: (one: T) => boolean): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isSo(list[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
