import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statedLosses } from './judge.ts';
import { type Outcome, World } from './world.ts';

// One seed is one history: `npm run simulate -- --from SEED --seeds 1 --trace` shows it alone, event by event.
const onlySeed = process.env['SEED'] === undefined ? undefined : Number(process.env['SEED']);

/** The histories of `count` seeds from the first one on, in a file each time, for files run side by side. */
export function testHistories({ first, count }: { readonly first: number; readonly count: number }): void {
  const all = Array.from({ length: count }, (_, at) => first + at);
  const seeds = onlySeed === undefined ? all : all.filter((seed) => seed === onlySeed);
  if (seeds.length > 0) testSeeds(seeds);
}

function testSeeds(seeds: readonly number[]): void {
  test('whatever is cut, killed, full, torn, late or wrong: what was sampled is stored, or dropped and counted', async (context) => {
    const outcomes: Outcome[] = [];
    for (const seed of seeds) {
      const outcome = await new World({ seed }).run();
      assert.deepEqual(outcome.violations, [], `SEED=${seed}`);
      outcomes.push(outcome);
    }
    const within = outcomes.filter(({ beyond }) => beyond.length === 0);
    const total = (what: string) => outcomes.reduce((sum, { counts }) => sum + (counts[what] ?? 0), 0);
    context.diagnostic(`${outcomes.length} histories, ${within.length} within the bounds`);
    context.diagnostic(
      `${outcomes.reduce((sum, { reports }) => sum + reports, 0)} reports, ${total('scrapes')} scrapes`,
    );
    if (seeds.length === 1) return;
    // Of thousands 90 % are; of few it may be two standard deviations less.
    const least = 0.9 * outcomes.length - 2 * Math.sqrt(0.09 * outcomes.length);
    assert.ok(within.length >= least, `${within.length} of ${outcomes.length} are within the bounds`);
    for (const { seed, missing } of within) {
      const why = [...missing.keys()].filter((reason) => !statedLosses.has(reason));
      assert.deepEqual(why, [], `SEED=${seed}: within the bounds nothing is missing`);
    }
    // The faults have done something, or this would prove little.
    for (const what of ['failed scrapes', 'rolled back', 'server ends', 'duplicates', 'bugs met', 'late ticks']) {
      assert.ok(total(what) > seeds.length / 10, `only ${total(what)} times: ${what}`);
    }
  });
}
