import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { assertSameSamples } from '../support/agents-record.ts';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { makePlan, type Plan } from './plan.ts';
import { type PrometheusModel, parseExposition } from './prometheus-model.ts';
import { type Answer, type Comparison, holdModel, ScriptedTarget, samplesOf } from './real-prometheus.ts';
import type { Scrape, ScraperPlan } from './scraper-node.ts';
import { World } from './world.ts';

// The verdicts of the simulation are worth what its model of Prometheus is. Here a real one is given what the databases
// of some histories were given, answer by answer, and two things are compared:
//
// 1. Real and model, both fed this replay. A replay takes half a minute of today where the history took ten of its own,
//    so `up` and the head's newest time are elsewhere, seen from the samples, than they were in the history: a model is
//    fed the same bodies at the real one's times. This holds wherever the history is moved to.
// 2. Real and history, that is the model that lived in it. What was refused there for its series' newest sample is
//    refused wherever the history lies; what is refused for the head's newest time is not. So this is compared where the
//    history ends as the replay begins: all of it is then within the hour and the window, as it was.
//
// What no history has is another value for a sample that is there: one replay changes values.

test('a real Prometheus stores of a history what the simulation says', {
  skip: prometheusSkip,
  concurrency: true,
}, async (context) => {
  const { withoutWindow, withWindow, pair } = await findHistories();
  const replays: Replay[] = [
    {
      name: 'without a window: what comes again late is out of order',
      history: withoutWindow,
      isProvoked: ({ refused }) => refused['out of order'] > 0,
    },
    {
      name: 'with a window: what comes again late is taken',
      history: withWindow,
      isProvoked: ({ outOfOrderTaken }) => outOfOrderTaken > 0,
    },
    ...pair.map((history, at) => ({
      name: `two Prometheus of one history, the ${['first', 'second'][at]}`,
      history,
      isProvoked: ({ refused, outOfOrderTaken }: Comparison) =>
        refused['out of order'] + outOfOrderTaken > 0 === history.lateAgain.length > 0,
    })),
    {
      // A server that did this would have violated its history: this says that the model would have seen it.
      name: 'without a window: the newest again, with another value',
      history: withoutWindow,
      change: newestAgainChanged,
      isProvoked: ({ refused }) => refused.duplicate > 0,
    },
    {
      name: 'without a window, half of the history more than an hour ago',
      history: withoutWindow,
      headAhead: { ms: hourMs, ofScrape: Math.floor(withoutWindow.scrapes.length / 2) },
      isProvoked: ({ refused, samples }) => refused['out of bounds'] > 0 && samples > 0,
    },
    {
      name: 'with a window, half of the history more than an hour ago: whole scrapes are refused',
      history: withWindow,
      headAhead: { ms: hourMs, ofScrape: Math.floor(withWindow.scrapes.length / 2) },
      isProvoked: ({ refusedWhole, samples }) => refusedWhole > 0 && samples > 0,
    },
    {
      name: 'with a window, that has passed when something comes again: in order is taken, the others refuse the scrape',
      history: withWindow,
      headAhead: { ms: withWindow.plan.outOfOrderMs, ofScrape: middle(withWindow.lateAgain) },
      isProvoked: ({ refusedWhole, samples }) => refusedWhole > 0 && samples > 0,
    },
  ];
  await Promise.all(replays.map((replay) => context.test(replay.name, (context) => run(context, replay))));
});

interface Replay {
  readonly name: string;
  readonly history: History;
  /** Where the history lies: this scrape of it so long before the replay begins. Without it, the last one at that moment. */
  readonly headAhead?: { readonly ms: number; readonly ofScrape: number };
  /** Makes other bodies of those of the history. */
  readonly change?: () => (body: string) => string;
  /** A replay that provokes nothing compares nothing. */
  readonly isProvoked: (comparison: Comparison) => boolean;
}

async function run(context: TestContext, { history, headAhead, change, isProvoked }: Replay): Promise<void> {
  const { plan, scrapes, seed } = history;
  let movedMs = 0;
  function* script(): Generator<Answer> {
    const { ms, ofScrape } = headAhead ?? { ms: 0, ofScrape: scrapes.length - 1 };
    movedMs = Date.now() - ms - scrapes[ofScrape]!.atMs;
    const changed = change?.() ?? ((body: string) => body);
    for (const { body } of scrapes) yield body === undefined ? undefined : changed(moved(body, movedMs));
  }
  const target = new ScriptedTarget(script());
  const prometheus = await Prometheus.start(context, {
    target: await target.serve(context),
    scrapeInterval: '200ms',
    ...(plan.outOfOrderMs > 0 && { outOfOrder: `${plan.outOfOrderMs / 1000}s` }),
  });
  const comparison = await holdModel(prometheus, target, { outOfOrderMs: plan.outOfOrderMs, prefix: 'sim_' });
  const { refused, refusedWhole, outOfOrderTaken, samples } = comparison;
  context.diagnostic(
    `seed ${seed}, ${plan.name}: ${comparison.scrapes.length} scrapes, ${target.lost} of them late; ${samples} samples, ` +
      `${outOfOrderTaken} taken out of order; refused ${refusedWhole} whole, and ${JSON.stringify(refused)}`,
  );
  assert.ok(isProvoked(comparison), 'there was something to compare');
  if (headAhead !== undefined || change !== undefined) return;
  // The model of the replay has what the real one has: that was compared.
  assertSameSamples(
    samplesOf(comparison.model, 'sim_'),
    samplesOf(history.database, 'sim_', movedMs),
    'Prometheus (actual) and the history (expected)',
  );
  assert.equal(refusedWhole, 0, 'as in the history');
  // What was late is given again, and this Prometheus may have had it.
  if (target.lost === 0)
    assert.deepEqual(new Map(Object.entries(refused).filter(([, count]) => count > 0)), history.refused);
}

/** The samples of a body with another time or value. */
function retold(body: string, sample: (series: string, value: string, timeMs: number) => string): string {
  // What has no time, `sysmon_agent_up`, stays as it is: it is of its scrape.
  return body.replace(/^(?!#)(.*\}) (\S+) (\d+)$/gm, (_, series: string, value: string, time: string) =>
    sample(series, value, Number(time)),
  );
}

const moved = (body: string, byMs: number): string =>
  retold(body, (series, value, timeMs) => `${series} ${value} ${timeMs + byMs}`);

function newestAgainChanged(): (body: string) => string {
  const newest = new Map<string, number>();
  return (body) =>
    retold(body, (series, value, timeMs) => {
      if (newest.get(series) === timeMs) return `${series} ${value === '7' ? '8' : '7'} ${timeMs}`;
      newest.set(series, Math.max(timeMs, newest.get(series) ?? 0));
      return `${series} ${value} ${timeMs}`;
    });
}

/** What one Prometheus of a history was given, and what came of it there. */
interface History {
  readonly seed: number;
  readonly plan: ScraperPlan;
  readonly scrapes: readonly Scrape[];
  readonly database: PrometheusModel;
  readonly refused: ReadonlyMap<string, number>;
  /** The scrapes that had a sample older than the newest of its series. */
  readonly lateAgain: readonly number[];
  /** Samples that were the newest of their series, again. */
  readonly newestAgain: number;
  /** From the oldest sample to the last scrape. */
  readonly spanMs: number;
}

/**
 * By what is in their bodies: any change to what a seed draws makes other histories of the same seeds, and what the model
 * says of them is what is in question.
 */
async function findHistories(): Promise<{ withoutWindow: History; withWindow: History; pair: readonly History[] }> {
  let withoutWindow: History | undefined;
  let withWindow: History | undefined;
  let pair: readonly History[] | undefined;
  for (let seed = 1; seed <= seedsMax; seed++) {
    const plan = makePlan(seed);
    if (!isReplayable(plan)) continue;
    const histories = await historiesOf(plan);
    // Within the hour and the window at any time of the replay, which is what the second comparison needs.
    if (histories.some(({ spanMs }) => spanMs > spanMsMax)) continue;
    withoutWindow ??= histories.find(
      ({ plan, lateAgain, newestAgain }) => plan.outOfOrderMs === 0 && lateAgain.length > 0 && newestAgain > 0,
    );
    withWindow ??= histories.find(({ plan, lateAgain }) => plan.outOfOrderMs > 0 && lateAgain.length > 0);
    if (histories.length === 2 && histories.some(({ lateAgain }) => lateAgain.length > 0)) pair ??= histories;
    if (withoutWindow && withWindow && pair) return { withoutWindow, withWindow, pair };
  }
  throw new Error(`the histories that are wanted are not among the seeds up to ${seedsMax}`);
}

/** One target to a Prometheus, as here; few scrapes; and a server whose clock says about when it was. */
const isReplayable = ({ scrapers, server, faults }: Plan): boolean =>
  scrapers.every(({ selections, intervalMs }) => selections.length === 1 && intervalMs >= 5000) &&
  Math.abs(server.wallAheadMs) < clockErrorMsMax &&
  faults.every(({ kind, size }) => kind !== 'server clock' || Math.abs(size) < clockErrorMsMax);

async function historiesOf(plan: Plan): Promise<History[]> {
  const recorded = new Map<ScraperPlan, Scrape[]>(plan.scrapers.map((scraper) => [scraper, []]));
  const world = new World({ seed: plan.seed, plan, onScrape: (scrape) => recorded.get(scrape.scraper)!.push(scrape) });
  const { violations } = await world.run();
  assert.deepEqual(violations, [], `SEED=${plan.seed}`);
  return world.scrapers.map(({ plan: scraper, database, refused }) => {
    const scrapes = recorded.get(scraper)!;
    return { seed: plan.seed, plan: scraper, scrapes, database, refused, ...whatComesAgain(scrapes) };
  });
}

function whatComesAgain(scrapes: readonly Scrape[]): Pick<History, 'lateAgain' | 'newestAgain' | 'spanMs'> {
  const newest = new Map<string, number>();
  const lateAgain: number[] = [];
  let newestAgain = 0;
  let oldestMs = Number.POSITIVE_INFINITY;
  for (const [at, { body = '' }] of scrapes.entries()) {
    let isLate = false;
    for (const { series, timeMs } of parseExposition(body)) {
      if (timeMs === undefined) continue;
      oldestMs = Math.min(oldestMs, timeMs);
      const newestMs = newest.get(series) ?? Number.NEGATIVE_INFINITY;
      if (timeMs < newestMs) isLate = true;
      else if (timeMs === newestMs) newestAgain++;
      else newest.set(series, timeMs);
    }
    if (isLate) lateAgain.push(at);
  }
  return { lateAgain, newestAgain, spanMs: scrapes.at(-1)!.atMs - oldestMs };
}

const middle = (numbers: readonly number[]): number => numbers[Math.floor(numbers.length / 2)]!;

const seedsMax = 300;
const clockErrorMsMax = 60_000;
// Five minutes less than the window of those that have one.
const spanMsMax = 25 * 60_000;
// What the head takes in order reaches back so far.
const hourMs = 3_600_000;
