import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { Random } from '../support/random.ts';
import { holdModel, ScriptedTarget } from './real-prometheus.ts';

// The simulation is worth what its model of Prometheus is: the same bodies, served to a real one, must leave the same
// samples behind, refused ones left out, and nothing of a scrape that is refused as a whole. Here they are made up, so
// that everything is refused; prometheus-replay.test.ts serves those of histories.

const scrapes = 16;
const outOfOrderMs = 60_000;

test(
  'the model stores what a real Prometheus stores, without an out-of-order window',
  { skip: prometheusSkip },
  (context) => compare(context, { seed: 1, outOfOrderMs: 0 }),
);

test(
  'the model stores what a real Prometheus stores, with an out-of-order window',
  { skip: prometheusSkip },
  (context) => compare(context, { seed: 2, outOfOrderMs }),
);

async function compare(
  context: TestContext,
  { seed, outOfOrderMs }: { seed: number; outOfOrderMs: number },
): Promise<void> {
  const target = new ScriptedTarget(bodies(new Random(`bodies ${seed}`), outOfOrderMs > 0));
  const prometheus = await Prometheus.start(context, {
    target: await target.serve(context),
    scrapeInterval: '500ms',
    ...(outOfOrderMs > 0 && { outOfOrder: `${outOfOrderMs / 1000}s` }),
  });
  const { refused, refusedWhole } = await holdModel(prometheus, target, { outOfOrderMs, prefix: 'probe' });
  context.diagnostic(`${refusedWhole} scrapes refused whole; one by one: ${JSON.stringify(refused)}`);
  // A script that provokes nothing compares nothing.
  if (outOfOrderMs > 0) assert.ok(refusedWhole > 0 && refusedWhole < scrapes);
  else for (const [reason, count] of Object.entries(refused)) assert.ok(count > 0, reason);
}

/** What each scrape gets: mostly what is new, and now and then what a Prometheus refuses. */
function* bodies(random: Random, hasWindow: boolean): Generator<string> {
  for (let scrape = 0; scrape < scrapes; scrape++) {
    const lines = ['# TYPE probe untyped'];
    for (let series = 0; series < 8; series++) {
      // Whole seconds, so that equal times happen.
      const nowMs = Math.floor(Date.now() / 1000) * 1000;
      const timeMs = nowMs + offsetMs(random, hasWindow);
      // With a window, of two values at one time either may be the one that is shown; the server never gives two.
      const value = hasWindow ? ((timeMs / 1000 + series) % 3) + 1 : Math.floor(random.between(1, 4));
      lines.push(`probe{agent="m",series="${series}"} ${value} ${timeMs}`);
    }
    yield `${lines.join('\n')}\n`;
  }
}

function offsetMs(random: Random, hasWindow: boolean): number {
  const dice = random.between(0, 100);
  if (dice < 60) return 0;
  if (dice < 75) return -2000;
  if (dice < 90) return -20_000;
  // With a window, one of these fails the scrape: often enough as it is.
  if (hasWindow) return dice < 96 ? -40_000 : -130_000;
  return dice < 95 ? -70 * 60_000 : 11 * 60_000;
}
