import type { AgentId } from '../../model/agent-id.ts';
import { hostSourceName } from '../../model/source.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { AgentBatch } from '../exposition/exposition.ts';
import type { Given, Scrape } from './cursors.ts';
import type { AgentRecord, Store } from './store.ts';
import type { WindowRun } from './window.ts';

/** What one scrape is given. */
export interface Taken extends Given {
  readonly batches: readonly AgentBatch[];
  readonly samples: number;
  /** Reports that wait for the next scrape. */
  readonly backlogReports: number;
  /** Reports that this scraper has not had and can no longer be given: at the old end of the window. */
  readonly skippedReports: number;
}

export interface TakeOptions {
  readonly clock: Clock;
  readonly store: Store;
  readonly windowMs: number;
  /** Lets the event loop turn, so that agents are heard while a large scrape is put together. */
  turn(): Promise<void>;
}

/**
 * Everything that a scraper has not had, oldest first, up to about `samplesMax` samples: round after round one report of
 * each agent, so that after an outage all of them come back together; one report of each at the least. An agent without
 * anything new gives its newest report again, so that it does not go stale: same time, same value, and Prometheus takes
 * it in silence.
 *
 * What the scraper may have already, and is no longer new, comes alone, and all else with the next scrape: with a small
 * out-of-order window, Prometheus refuses a whole scrape for one old sample that it has.
 */
export async function takeNew(
  options: TakeOptions,
  agents: readonly AgentRecord[],
  scrape: Scrape,
  samplesMax: number,
): Promise<Taken> {
  const { clock, store, windowMs, turn } = options;
  const nowMs = clock.nowMs();
  // With an out-of-order window, Prometheus refuses a whole scrape for one sample that is too old when it gets there.
  const notBeforeMs = nowMs - windowMs + Math.min(scrape.timeoutMs + arrivalMarginMs, windowMs / 10);
  const lastScrapeMs = nowMs - (scrape.sinceLastMs ?? 0);
  const waiting: Waiting[] = [];
  const taken = new Map<AgentId, number>();
  let skippedReports = 0;
  let arrivedSamples = 0;
  let isOldAlone = false;
  for (const agent of agents) {
    store.evictByAge(agent, nowMs);
    const { window } = agent;
    const hadMs = scrape.afterMs(agent.id);
    const afterMs = Math.max(hadMs, notBeforeMs);
    const skipped = window.countAfter(hadMs, notBeforeMs);
    if (skipped > 0) {
      skippedReports += skipped;
      // The cursor passes over them, or the next scrape would count them again.
      taken.set(agent.id, window.receipt(notBeforeMs)?.timeMs ?? notBeforeMs);
    }
    const sizes = [...window.sizesAfter(afterMs, nowMs)];
    arrivedSamples += window.countAfter(lastScrapeMs, nowMs) * (sizes.at(-1) ?? 0);
    const offeredMs = Math.min(scrape.offeredMs(agent.id), nowMs);
    const isOld = window.countAfter(afterMs, Math.min(offeredMs, nowMs - oldMs)) > 0;
    isOldAlone ||= isOld;
    waiting.push({ agent, afterMs, sizes, oldCount: isOld ? window.countAfter(afterMs, offeredMs) : 0, count: 0 });
  }
  const samples = share(waiting, isOldAlone, samplesMax);
  const batches: AgentBatch[] = [];
  const monotonicMs = clock.monotonicMs();
  let backlogReports = 0;
  let sinceTurn = 0;
  for (const { agent, afterMs, sizes, count } of waiting) {
    backlogReports += sizes.length - count;
    if (count === 0) {
      // Not what has come since the first loop: it may have older ones before it, and Prometheus would refuse those then.
      // Nor what is older than the scraper may have: that is given when its turn comes.
      const isNewest = sizes.length === 0 || scrape.offeredMs(agent.id) <= afterMs;
      const newest = isNewest && agent.up(monotonicMs) ? agent.window.newest(Math.min(nowMs, afterMs)) : undefined;
      if (newest !== undefined && newest.reports[0]!.timeMs > notBeforeMs) batches.push(batchOf(agent, [newest]));
      continue;
    }
    const runs = agent.window.read(afterMs, nowMs, count);
    const last = runs.at(-1)?.reports.at(-1);
    if (last === undefined) continue;
    batches.push(batchOf(agent, runs));
    taken.set(agent.id, last.timeMs);
    sinceTurn += count * (sizes[0] ?? 0);
    if (sinceTurn > samplesATurn) {
      sinceTurn = 0;
      await turn();
    }
  }
  return { batches, taken, samples, arrivedSamples, backlogReports, skippedReports };
}

/** The newest values of the agents that are up: for curl, and for scrapers that want no timestamps. */
export function takeNewest(options: Pick<TakeOptions, 'clock'>, agents: readonly AgentRecord[]): AgentBatch[] {
  const nowMs = options.clock.nowMs();
  const monotonicMs = options.clock.monotonicMs();
  const batches: AgentBatch[] = [];
  for (const agent of agents) {
    const newest = agent.up(monotonicMs) ? agent.window.newest(nowMs) : undefined;
    if (newest !== undefined) batches.push(batchOf(agent, [newest]));
  }
  return batches;
}

const batchOf = ({ id }: AgentRecord, runs: readonly WindowRun[]): AgentBatch => ({
  agent: id,
  sourceName: hostSourceName,
  runs,
});

interface Waiting {
  readonly agent: AgentRecord;
  readonly afterMs: number;
  /** The series of each report that waits, oldest first. */
  readonly sizes: readonly number[];
  /** How many of them, from the oldest on, the scraper may have already, the first of them for long; 0: none. */
  readonly oldCount: number;
  /** How many of them this scrape gets. */
  count: number;
}

/** Shares out `samplesMax` in rounds of one report an agent. Returns the samples given. */
function share(waiting: readonly Waiting[], isOldAlone: boolean, samplesMax: number): number {
  const wanted = ({ oldCount, sizes }: Waiting) => (isOldAlone ? oldCount : sizes.length);
  let samples = 0;
  let left = waiting.filter((agent) => wanted(agent) > 0);
  for (let round = 0; left.length > 0; round++) {
    for (const agent of left) {
      const size = agent.sizes[round]!;
      if (round > 0 && samples + size > samplesMax) return samples;
      samples += size;
      agent.count++;
    }
    left = left.filter((agent) => wanted(agent) > round + 1);
  }
  return samples;
}

// From the answer's first byte to the moment in which Prometheus appends its samples: within the scrape's timeout, and
// ten seconds for two clocks that are not the same.
const arrivalMarginMs = 10_000;
// Given for the second time, it is out of order. An out-of-order window is longer, or of no use.
const oldMs = 60_000;
// About 10 ms of decoding.
const samplesATurn = 100_000;
