import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import { hostSourceName, type Labels, type StreamId } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import { escapedBytes, labelOverheadBytes } from '../../protocol/text-size.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { AgentBatch } from '../exposition/exposition.ts';
import type { AgentRecord, StreamRecord } from './agent-record.ts';
import { type Amount, bytesMaxDefault, type Cursor, decodedBytesMaxDefault, samplesMaxDefault } from './cursor.ts';
import type { Positions } from './scraper.ts';
import { decodedBytes, decodedSeriesBytes, type WindowRun, type WindowSize } from './window.ts';

/** What bounds an answer. */
export interface AnswerBounds {
  readonly samplesMax: number;
  /** Up to which a report is given that is larger than `samplesMax` by itself, if it is the first. */
  readonly firstSamplesMax: number;
  /** Bytes of text, about. */
  readonly bytesMax: number;
  /** Bytes of memory. A first report that is larger by itself is given all the same. */
  readonly decodedBytesMax: number;
  /** Of each stream. */
  readonly reportsMax: number;
}

/** What an answer will give. Nothing is decoded yet. */
export interface AnswerPlan {
  readonly parts: readonly PlannedPart[];
  /** How many of them are new to the scraper. */
  readonly reports: number;
  /** Streams that are left out because answers are refused, probably for one of them. */
  readonly withheld: ReadonlySet<StreamId>;
  /** All others, also those of which the answer has nothing but `sysmon_agent_up`, which has labels, too. */
  readonly given: readonly StreamId[];
  readonly samples: number;
  /** Samples and bytes of the reports made since this scraper's last scrape, whether they are given or have to wait. */
  readonly arrived: Amount;
  /** Reports that wait for the next scrape. */
  readonly backlogReports: number;
  /** Reports that this scraper has not had and can no longer be given: at the old end of the window. */
  readonly skippedReports: number;
  /** A report of each of these is larger than an answer may be. */
  readonly tooLarge: readonly StreamId[];
  /** Agents of which reports wait while most others are given all that they have. */
  readonly beyondShare: readonly BeyondShare[];
  /** The agent that takes most of the answer, of several. */
  readonly dominant: AgentRecord | undefined;
  readonly bytes: number;
  /** Memory of its reports, those that are given once more included. */
  readonly decodedBytes: number;
}

export interface BeyondShare {
  readonly agent: AgentRecord;
  /** Reports that wait. */
  readonly reports: number;
  readonly given: Amount;
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
}

/**
 * What a scraper is given: all that it has not had, each stream oldest first, in rounds of one report of each, so that
 * after an outage all of them come back together. An agent with more than its share of the answer waits, the others do
 * not; what they leave is given to those that wait, the one that has waited longest first. A stream with nothing new gives
 * its newest report again, so that it does not go stale: same time, same value, and Prometheus takes it in silence.
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
  const arrivals = new Arrivals(nowMs - lastScrapeMs);
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
    const next = nextOf(record, cursor, nowMs);
    const afterMs = Math.max(next.afterMs, notBeforeMs);
    arrivals.add(record, window.countAfter(lastScrapeMs, nowMs));
    const waiting = window.countAfter(afterMs, nowMs);
    const sentMs = Math.min(cursor.sentMs(stream), next.untilMs);
    const isOld = window.countAfter(afterMs, Math.min(sentMs, nowMs - oldMs)) > 0;
    const untilMs = isOld ? sentMs : next.untilMs;
    const sizes = window.sizesAfter(afterMs, untilMs);
    candidates.push({ stream, record, fromMs: next.afterMs, afterMs, untilMs, sizes, waiting, count: 0 });
  }
  // One that is alone keeps nothing from others.
  const suspicious = candidates.length > 1 ? candidates.map(({ stream }) => stream) : [];
  const { isolation } = cursor;
  const withheld = new Set(isolation.withheld(suspicious, { nowMs: times.monotonicMs, turn: cursor.scrapes }));
  const chosen = candidates.filter(({ stream }) => !withheld.has(stream));
  const shared = share(chosen, cursor, bounds);
  // A suspect whose reports do not fit is tried with them, later.
  for (const { stream, waiting, count } of chosen) {
    if (waiting > 0 && count === 0 && isolation.suspects(stream)) withheld.add(stream);
  }
  const given = candidates.map(({ stream }) => stream).filter((stream) => !withheld.has(stream));
  let { samples, decodedBytes: decoded } = shared;
  const parts: PlannedPart[] = [];
  let backlogReports = 0;
  for (const candidate of candidates) {
    const { stream, record, waiting, count } = candidate;
    backlogReports += waiting - count;
    if (withheld.has(stream)) continue;
    if (count === 0) {
      // One of which something waits gives no report again that the scraper may have newer ones of.
      const hasAll = cursor.hasAll(stream, { isWaiting: waiting > 0, afterMs: candidate.afterMs });
      const { samples: size, series } = record.window.newestSize ?? nothing;
      if (!hasAll || !record.up(times.monotonicMs) || samples + size > bounds.samplesMax) continue;
      samples += size;
      decoded += decodedBytes(series);
    }
    parts.push(candidate);
  }
  const { arrived } = arrivals;
  const reports = parts.reduce((sum, { count }) => sum + count, 0);
  return { parts, arrived, backlogReports, skippedReports, withheld, given, reports, ...shared, decodedBytes: decoded };
}

const nothing = { samples: 0, series: 0 };

/**
 * What comes next of a stream. A gap before later answers that holds no report, because these were evicted or the clock was
 * set, is passed: reports come oldest first, so nothing can come into it once there is a newer one.
 */
function nextOf({ id, window, newestMs }: StreamRecord, cursor: Cursor, nowMs: number): ReturnType<Cursor['next']> {
  for (;;) {
    const next = cursor.next(id, nowMs);
    const isEmptyGap =
      next.afterMs < next.untilMs &&
      next.untilMs < Math.min(nowMs, newestMs) &&
      window.countAfter(next.afterMs, next.untilMs) === 0;
    if (!isEmptyGap) return next;
    cursor.pass(id, next.untilMs);
  }
}

/**
 * What has been made since the last scrape. Answers grow with it, so each agent counts with no more than all the series
 * that it may have every five seconds: three times that is what it may have all the time, if it is alone.
 */
class Arrivals {
  readonly #most: Amount;
  readonly #byAgent = new Map<AgentRecord, AgentShare>();

  constructor(sinceMs: number) {
    this.#most = {
      samples: Math.max(samplesMaxDefault / 3, (limits.seriesMax * sinceMs) / 5000),
      bytes: Math.max(bytesMaxDefault / 3, (limits.reportTextBytesMax * sinceMs) / 5000),
      decodedBytes: Math.max(decodedBytesMaxDefault / 3, (limits.seriesMax * decodedSeriesBytes * sinceMs) / 5000),
    };
  }

  add({ agent, window, labels, sourceName }: StreamRecord, reports: number): void {
    const size = window.newestSize;
    if (reports === 0 || size === undefined) return;
    const own = this.#byAgent.get(agent) ?? new AgentShare();
    this.#byAgent.set(agent, own);
    own.add(amountOf(size, rest(agent.id, sourceName, labels)), reports);
  }

  get arrived(): Amount {
    const sum = new AgentShare();
    for (const own of this.#byAgent.values()) {
      sum.add({
        samples: Math.min(own.samples, this.#most.samples),
        bytes: Math.min(own.bytes, this.#most.bytes),
        decodedBytes: Math.min(own.decodedBytes, this.#most.decodedBytes),
      });
    }
    return sum;
  }
}

/** Shares out the bounds. Looks no further into a window than they reach. */
function share(
  candidates: readonly Candidate[],
  { waitingSince, scrapes }: Cursor,
  bounds: AnswerBounds,
): Pick<AnswerPlan, keyof Amount | 'tooLarge' | 'beyondShare' | 'dominant'> {
  const takers = candidates.filter((candidate) => candidate.waiting > 0).map((candidate) => new Taker(candidate));
  for (const { stream, waiting } of candidates) if (waiting === 0) waitingSince.delete(stream);
  const agents = new Map<AgentRecord, AgentShare>();
  for (const taker of takers) {
    const own = agents.get(taker.agent) ?? new AgentShare();
    own.waiting += taker.candidate.waiting;
    agents.set(taker.agent, own);
    taker.own = own;
  }
  const total = new AgentShare();
  const tooLarge: StreamId[] = [];
  /** A report of each taker in turn, of those that take more the next, as long as each stays within these bounds. */
  const rounds = (from: readonly Taker[], ofAgent: Amount) => {
    let left = from;
    while (left.length > 0) {
      left = left.filter((taker) => {
        const next = taker.candidate.count < bounds.reportsMax ? taker.next() : undefined;
        return next !== undefined && taker.own.has(next, ofAgent) && take(taker, next);
      });
    }
  };
  const { bytesMax, samplesMax, decodedBytesMax } = bounds;
  const all: Amount = { samples: samplesMax, bytes: bytesMax, decodedBytes: decodedBytesMax };
  const firstSamplesMax = Math.max(samplesMax, bounds.firstSamplesMax);
  const take = (taker: Taker, next: Amount): boolean => {
    const most = total.reports === 0 ? { ...all, samples: firstSamplesMax, decodedBytes: Infinity } : all;
    if (!total.has(next, most)) return false;
    total.add(next);
    taker.own.add(next);
    taker.take();
    return true;
  };
  const since = ({ candidate: { stream } }: Taker) => waitingSince.get(stream) ?? Infinity;
  const byWaiting = waitingSince.size === 0 ? takers : [...takers].sort((a, b) => compare(since(a), since(b)));
  const [first] = byWaiting;
  // However many others have a backlog, one that waits for long gets on.
  if (first !== undefined && scrapes - since(first) >= scrapesToWait) {
    const next = first.next();
    if (next !== undefined) take(first, next);
  }
  const { size } = agents;
  rounds(byWaiting, { samples: samplesMax / size, bytes: bytesMax / size, decodedBytes: decodedBytesMax / size });
  rounds(byWaiting, everything);
  for (const taker of takers) {
    const { count, stream } = taker.candidate;
    const next = taker.next();
    taker.own.isLimited ||= next !== undefined;
    if (count > 0 || next === undefined) {
      waitingSince.delete(stream);
      continue;
    }
    if (!waitingSince.has(stream)) waitingSince.set(stream, scrapes);
    if (next.samples > firstSamplesMax || next.bytes > bytesMax) tooLarge.push(stream);
  }
  const { samples, bytes, decodedBytes } = total;
  const isMost = (own: AgentShare) => (own.bytes + own.decodedBytes) * 2 > bytes + decodedBytes;
  return {
    ...{ samples, bytes, decodedBytes, tooLarge },
    beyondShare: bounds.reportsMax === Infinity ? beyondShare(agents) : [],
    dominant: agents.size < 2 ? undefined : [...agents.keys()].find((each) => isMost(agents.get(each)!)),
  };
}

function beyondShare(agents: ReadonlyMap<AgentRecord, AgentShare>): BeyondShare[] {
  const waiting = [...agents].filter(([, { isLimited }]) => isLimited);
  if (waiting.length * 2 >= agents.size) return [];
  return waiting.map(([agent, own]) => ({
    ...{ agent, reports: own.waiting - own.reports, given: own },
  }));
}

/** What one agent is given, or all. */
class AgentShare implements Amount {
  samples = 0;
  bytes = 0;
  decodedBytes = 0;
  reports = 0;
  waiting = 0;
  /** The next report did not fit. */
  isLimited = false;

  has({ samples, bytes, decodedBytes }: Amount, most: Amount): boolean {
    return (
      this.samples + samples <= most.samples &&
      this.bytes + bytes <= most.bytes &&
      this.decodedBytes + decodedBytes <= most.decodedBytes
    );
  }

  /** So many reports of this size. */
  add({ samples, bytes, decodedBytes }: Amount, reports = 1): void {
    this.samples += reports * samples;
    this.bytes += reports * bytes;
    this.decodedBytes += reports * decodedBytes;
    this.reports += reports;
  }
}

const everything: Amount = { samples: Infinity, bytes: Infinity, decodedBytes: Infinity };

/** A candidate, and the size of its next report. */
class Taker {
  readonly candidate: Candidate;
  own = new AgentShare();
  readonly #restBytes: number;
  #next: Amount | undefined;

  constructor(candidate: Candidate) {
    this.candidate = candidate;
    const { agent, sourceName, labels } = candidate.record;
    this.#restBytes = rest(agent.id, sourceName, labels);
  }

  get agent(): AgentRecord {
    return this.candidate.record.agent;
  }

  /** Undefined after the last. */
  next(): Amount | undefined {
    if (this.#next !== undefined) return this.#next;
    const { done, value } = this.candidate.sizes.next();
    if (done === true) return undefined;
    this.#next = amountOf(value, this.#restBytes);
    return this.#next;
  }

  /** The next is given. */
  take(): void {
    this.candidate.count++;
    this.#next = undefined;
  }
}

/** What a plan comes to, decoded. Amid large parts the event loop turns, so that agents are heard. */
export async function readAnswer(
  { parts }: AnswerPlan,
  notBeforeMs: number,
  turn: () => Promise<void>,
): Promise<{ readonly batches: readonly AgentBatch[]; readonly from: Positions; readonly until: Positions }> {
  const batches: AgentBatch[] = [];
  const from = new Map<StreamId, number>();
  const until = new Map<StreamId, number>();
  const steps = new Steps(turn);
  for (const { stream, record, fromMs, afterMs, untilMs, count } of parts) {
    if (count === 0) {
      // Not what has come since the plan was made: it may have older ones before it, and Prometheus would refuse those then.
      const newest = await steps.all(record.window.readingNewest(Math.min(afterMs, untilMs)));
      if (newest !== undefined && newest.reports[0]!.timeMs > notBeforeMs) batches.push(batchOf(record, [newest]));
      continue;
    }
    const runs = await steps.all(record.window.reading(afterMs, untilMs, count));
    const last = runs.at(-1)?.reports.at(-1);
    // Evicted meanwhile.
    if (last === undefined) continue;
    batches.push(batchOf(record, runs));
    if (fromMs !== -Infinity) from.set(stream, fromMs);
    until.set(stream, last.timeMs);
  }
  return { batches, from, until };
}

/** The newest values of the streams that are up: for curl, and for scrapers that want no timestamps. */
export async function takeNewest(
  { clock, turn }: { readonly clock: Clock; turn(): Promise<void> },
  streams: readonly StreamRecord[],
): Promise<AgentBatch[]> {
  const steps = new Steps(turn);
  const nowMs = clock.nowMs();
  const monotonicMs = clock.monotonicMs();
  const batches: AgentBatch[] = [];
  for (const stream of streams) {
    const newest = stream.up(monotonicMs) ? await steps.all(stream.window.readingNewest(nowMs)) : undefined;
    if (newest !== undefined) batches.push(batchOf(stream, [newest]));
  }
  return batches;
}

/** Does what windows do in steps, and lets the event loop turn after many of them. */
class Steps {
  readonly #turn: () => Promise<void>;
  #left = stepsATurn;

  constructor(turn: () => Promise<void>) {
    this.#turn = turn;
  }

  async all<T>(steps: Generator<number, T>): Promise<T> {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      this.#left -= step.value;
      if (this.#left >= 0) continue;
      this.#left = stepsATurn;
      await this.#turn();
    }
  }
}

const batchOf = ({ agent, sourceName }: StreamRecord, runs: readonly WindowRun[]): AgentBatch => ({
  agent: agent.id,
  sourceName,
  runs,
});

/** What a line has beside the name and the series' own labels. */
function rest(agent: AgentId, sourceName: string, labels: Labels): number {
  let bytes = `agent="${agent}",`.length + valueAndTimeBytes;
  if (sourceName !== hostSourceName) bytes += `source="${sourceName}",`.length;
  for (const [name, value] of labels) bytes += name.length + value.length + 4;
  return bytes;
}

const amountOf = (size: WindowSize, restBytes: number): Amount => ({
  samples: size.samples,
  bytes: reportBytes(size, restBytes),
  decodedBytes: decodedBytes(size.series),
});

/** The text of a report at most: of one that lacks series, as much as its longest would come to. */
function reportBytes({ samples, schema }: WindowSize, restBytes: number): number {
  const { total, longest } = seriesBytes(schema);
  return samples * restBytes + Math.min(total, samples * longest);
}

interface SeriesBytes {
  readonly seriesCount: number;
  /** Names and labels of all series, and of the longest. */
  readonly total: number;
  readonly longest: number;
}

function seriesBytes(schema: Schema): SeriesBytes {
  const { seriesCount } = schema;
  const known = seriesBytesKnown.get(schema);
  if (known?.seriesCount === seriesCount) return known;
  let total = 0;
  let longest = 0;
  for (const { family, suffix, labelNames, seriesCount: count, labelValues } of schema.groups) {
    let names = family.name.length + suffix.length;
    for (const name of labelNames) names += name.length + labelOverheadBytes;
    const width = labelNames.length;
    for (let series = 0; series < count; series++) {
      let bytes = names;
      for (let at = series * width; at < (series + 1) * width; at++) bytes += escapedBytes(labelValues[at]!);
      total += bytes;
      longest = Math.max(longest, bytes);
    }
  }
  const bytes = { seriesCount, total, longest };
  seriesBytesKnown.set(schema, bytes);
  return bytes;
}

const seriesBytesKnown = new WeakMap<Schema, SeriesBytes>();

// A space, 17 digits with their point, exponent and sign; a space, 13 digits of milliseconds, the line's end, the braces.
const valueAndTimeBytes = 1 + 24 + 1 + 13 + 1 + 2;

// Of those that wait for room in an answer, the first is served after so many scrapes in any case.
const scrapesToWait = 4;

const compare = (a: number, b: number): number => (a === b ? 0 : a - b);

// Given for the second time, it is out of order. An out-of-order window is longer, or of no use.
const oldMs = 60_000;
// Series, or bytes of what is decoded: about 10 ms.
const stepsATurn = 100_000;
