import type { Schema } from '../../model/schema.ts';
import { hostSourceName, type StreamId } from '../../model/source.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { AgentBatch } from '../exposition/exposition.ts';
import type { StreamRecord } from './agent-record.ts';
import type { Cursor } from './cursor.ts';
import type { Positions } from './scraper.ts';
import type { WindowRun, WindowSize } from './window.ts';

/** What bounds an answer. */
export interface AnswerBounds {
  readonly samplesMax: number;
  /** Up to which a report is given that is larger than `samplesMax` by itself, if it is the first. */
  readonly firstSamplesMax: number;
  /** Bytes of text, about. */
  readonly bytesMax: number;
  /** Of each stream. */
  readonly reportsMax: number;
}

/** What an answer will give. Nothing is decoded yet. */
export interface AnswerPlan {
  readonly parts: readonly PlannedPart[];
  readonly samples: number;
  /** Samples of the reports made since this scraper's last scrape, whether they are given or have to wait. */
  readonly arrivedSamples: number;
  /** Reports that wait for the next scrape. */
  readonly backlogReports: number;
  /** Reports that this scraper has not had and can no longer be given: at the old end of the window. */
  readonly skippedReports: number;
  /** A report of each of these is larger than an answer may be. */
  readonly tooLarge: readonly StreamId[];
}

interface PlannedPart {
  readonly stream: StreamId;
  readonly record: StreamRecord;
  /** Up to here all is in other answers. */
  readonly fromMs: number;
  readonly afterMs: number;
  readonly untilMs: number;
  /** How many reports, oldest first; 0: the newest that the scraper has had is given once more. */
  readonly count: number;
  readonly samples: number;
}

/** A stream while an answer is planned. */
interface Candidate {
  readonly stream: StreamId;
  readonly record: StreamRecord;
  readonly fromMs: number;
  readonly afterMs: number;
  readonly untilMs: number;
  readonly sizes: Iterator<WindowSize>;
  /** How many reports wait, whether they fit or not. */
  readonly waiting: number;
  count: number;
  samples: number;
}

/**
 * What a scraper is given: all that it has not had, each stream oldest first, in rounds of one report of each, so that
 * after an outage all of them come back together. Only a stream whose next report does not fit waits, and with the next
 * scrape it comes first. A stream with nothing new gives its newest report again, so that it does not go stale: same time,
 * same value, and Prometheus takes it in silence.
 *
 * What the scraper may have already, and is over a minute old, comes without anything newer of its stream: with an
 * out-of-order window, Prometheus refuses a whole scrape for one sample that is too old.
 */
export function planAnswer(
  records: readonly StreamRecord[],
  cursor: Cursor,
  bounds: AnswerBounds,
  times: {
    readonly nowMs: number;
    readonly monotonicMs: number;
    /** Nothing older is given: it would be too old when it gets there. */
    readonly notBeforeMs: number;
    readonly lastScrapeMs: number;
  },
): AnswerPlan {
  const { nowMs, notBeforeMs, lastScrapeMs } = times;
  let arrivedSamples = 0;
  let skippedReports = 0;
  const candidates: Candidate[] = [];
  for (const record of records) {
    const { window } = record;
    const stream = record.id;
    const skipped = window.countAfter(cursor.next(stream, nowMs).afterMs, notBeforeMs);
    if (skipped > 0) {
      skippedReports += skipped;
      cursor.pass(stream, window.receipt(notBeforeMs)?.timeMs ?? notBeforeMs);
    }
    const next = cursor.next(stream, nowMs);
    const afterMs = Math.max(next.afterMs, notBeforeMs);
    arrivedSamples += window.countAfter(lastScrapeMs, nowMs) * (window.newestSize?.samples ?? 0);
    const waiting = window.countAfter(afterMs, nowMs);
    const sentMs = Math.min(cursor.sentMs(stream), next.untilMs);
    const isOld = window.countAfter(afterMs, Math.min(sentMs, nowMs - oldMs)) > 0;
    const untilMs = isOld ? sentMs : next.untilMs;
    const sizes = window.sizesAfter(afterMs, untilMs);
    candidates.push({ stream, record, fromMs: next.afterMs, afterMs, untilMs, sizes, waiting, count: 0, samples: 0 });
  }
  const shared = share(candidates, cursor, bounds);
  let { samples } = shared;
  const parts: PlannedPart[] = [];
  let backlogReports = 0;
  for (const candidate of candidates) {
    const { stream, record, waiting, count } = candidate;
    backlogReports += waiting - count;
    if (count === 0) {
      // One of which something waits gives no report again that the scraper may have newer ones of.
      const hasAll = cursor.hasAll(stream, { isWaiting: waiting > 0, afterMs: candidate.afterMs });
      const size = record.window.newestSize?.samples ?? 0;
      if (!hasAll || !record.up(times.monotonicMs) || samples + size > bounds.samplesMax) continue;
      samples += size;
    }
    parts.push(candidate);
  }
  return { parts, samples: shared.samples, arrivedSamples, backlogReports, skippedReports, tooLarge: shared.tooLarge };
}

/** Shares out the bounds, those first that have waited longest. Looks no further into a window than the bounds reach. */
function share(
  candidates: readonly Candidate[],
  { waitingSince, scrapes }: Cursor,
  { samplesMax, firstSamplesMax, bytesMax, reportsMax }: AnswerBounds,
): { readonly samples: number; readonly tooLarge: readonly StreamId[] } {
  const since = ({ stream }: Candidate) => waitingSince.get(stream) ?? Infinity;
  let left = waitingSince.size === 0 ? candidates : [...candidates].sort((a, b) => compare(since(a), since(b)));
  const tooLarge: StreamId[] = [];
  let samples = 0;
  let bytes = 0;
  for (let round = 0; round < reportsMax && left.length > 0; round++) {
    left = left.filter((candidate) => {
      const { stream, record } = candidate;
      const next = candidate.sizes.next();
      if (next.done === true) {
        if (candidate.count === 0) waitingSince.delete(stream);
        return false;
      }
      const size = next.value.samples;
      const sizeBytes = bytesMax === Infinity ? 0 : size * sampleBytes(next.value.schema, record);
      const most = samples === 0 ? Math.max(samplesMax, firstSamplesMax) : samplesMax;
      if (samples + size > most || bytes + sizeBytes > bytesMax) {
        if (candidate.count === 0 && !waitingSince.has(stream)) waitingSince.set(stream, scrapes);
        if (size > Math.max(samplesMax, firstSamplesMax) || sizeBytes > bytesMax) tooLarge.push(stream);
        return false;
      }
      samples += size;
      bytes += sizeBytes;
      candidate.samples += size;
      if (candidate.count++ === 0) waitingSince.delete(stream);
      return true;
    });
  }
  return { samples, tooLarge };
}

/** What a plan comes to, decoded. Between large parts the event loop turns, so that agents are heard. */
export async function readAnswer(
  { parts }: AnswerPlan,
  notBeforeMs: number,
  turn: () => Promise<void>,
): Promise<{ readonly batches: readonly AgentBatch[]; readonly from: Positions; readonly until: Positions }> {
  const batches: AgentBatch[] = [];
  const from = new Map<StreamId, number>();
  const until = new Map<StreamId, number>();
  let sinceTurn = 0;
  for (const { stream, record, fromMs, afterMs, untilMs, count, samples } of parts) {
    if (count === 0) {
      // Not what has come since the plan was made: it may have older ones before it, and Prometheus would refuse those then.
      const newest = record.window.newest(Math.min(afterMs, untilMs));
      if (newest !== undefined && newest.reports[0]!.timeMs > notBeforeMs) batches.push(batchOf(record, [newest]));
      continue;
    }
    const runs = record.window.read(afterMs, untilMs, count);
    const last = runs.at(-1)?.reports.at(-1);
    // Evicted meanwhile.
    if (last === undefined) continue;
    batches.push(batchOf(record, runs));
    if (fromMs !== -Infinity) from.set(stream, fromMs);
    until.set(stream, last.timeMs);
    sinceTurn += samples;
    if (sinceTurn > samplesATurn) {
      sinceTurn = 0;
      await turn();
    }
  }
  return { batches, from, until };
}

/** The newest values of the streams that are up: for curl, and for scrapers that want no timestamps. */
export function takeNewest({ clock }: { readonly clock: Clock }, streams: readonly StreamRecord[]): AgentBatch[] {
  const nowMs = clock.nowMs();
  const monotonicMs = clock.monotonicMs();
  const batches: AgentBatch[] = [];
  for (const stream of streams) {
    const newest = stream.up(monotonicMs) ? stream.window.newest(nowMs) : undefined;
    if (newest !== undefined) batches.push(batchOf(stream, [newest]));
  }
  return batches;
}

const batchOf = ({ agent, sourceName }: StreamRecord, runs: readonly WindowRun[]): AgentBatch => ({
  agent: agent.id,
  sourceName,
  runs,
});

/** The text of one sample of a stream, on average, with a value and a time that are longer than most. */
function sampleBytes(schema: Schema, { agent, sourceName, labels }: StreamRecord): number {
  let own = `agent="${agent.id}",`.length;
  if (sourceName !== hostSourceName) own += `source="${sourceName}",`.length;
  for (const [name, value] of labels) own += name.length + value.length + 4;
  return seriesBytes(schema) + own + valueAndTimeBytes;
}

/** Names and labels of one series of a schema, on average. */
function seriesBytes(schema: Schema): number {
  const { seriesCount } = schema;
  const known = seriesBytesKnown.get(schema);
  if (known?.seriesCount === seriesCount) return known.bytes;
  let total = 0;
  for (const { family, suffix, labelNames, seriesCount: count, labelValues } of schema.groups) {
    let names = family.name.length + suffix.length;
    for (const name of labelNames) names += name.length + 4;
    total += names * count;
    for (const value of labelValues) total += Buffer.byteLength(value);
  }
  const bytes = seriesCount === 0 ? 0 : Math.ceil(total / seriesCount);
  seriesBytesKnown.set(schema, { seriesCount, bytes });
  return bytes;
}

const seriesBytesKnown = new WeakMap<Schema, { readonly seriesCount: number; readonly bytes: number }>();

// A space, 17 digits with their point, exponent and sign; a space, 13 digits of milliseconds, the line's end, the braces.
const valueAndTimeBytes = 1 + 24 + 1 + 13 + 1 + 2;

const compare = (a: number, b: number): number => (a === b ? 0 : a - b);

// Given for the second time, it is out of order. An out-of-order window is longer, or of no use.
const oldMs = 60_000;
// About 10 ms of decoding.
const samplesATurn = 100_000;
