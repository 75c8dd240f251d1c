import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prometheus, prometheusSkip } from '../support/prometheus.ts';
import { PrometheusModel, parseExposition } from './prometheus-model.ts';
import { Random } from './random.ts';

// The simulation is worth what its model of Prometheus is: the same bodies, served to a real one, must leave the same
// samples behind, refused ones left out, and nothing of a scrape that is refused as a whole.

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
  const bodies = new Bodies(new Random(`bodies ${seed}`), outOfOrderMs > 0);
  const port = await serve(context, bodies);
  const prometheus = await Prometheus.start(context, {
    target: port,
    scrapeInterval: '500ms',
    ...(outOfOrderMs > 0 && { outOfOrder: `${outOfOrderMs / 1000}s` }),
  });
  while (bodies.served.length < scrapes) await sleep(100);
  // One interval more, so that the last scripted one has been stored.
  await sleep(1200);
  const scrapeTimesMs = await scrapeTimes(prometheus);
  assert.ok(scrapeTimesMs.length >= scrapes, `${scrapeTimesMs.length} scrapes are stored of ${scrapes} served`);

  const model = new PrometheusModel(outOfOrderMs);
  let failed = 0;
  const reasons = new Set<string>();
  for (const [at, body] of bodies.served.entries()) {
    const atMs = scrapeTimesMs[at]!;
    const verdict = model.scraped(parseExposition(body), { atMs, nowMs: atMs });
    if (verdict.isFailed) failed++;
    for (const { reason } of verdict.refused) reasons.add(reason);
  }
  const stored = await prometheus.raw('probe', '3h', Date.now() + 3_600_000);
  const real = [...stored.values()].map((samples) => [...samples].sort(([a], [b]) => a - b));
  const expected = [...model.series]
    .filter(([series]) => series.startsWith('probe'))
    .map(([, { samples }]) => [...samples].sort(([a], [b]) => a - b));
  assert.deepEqual(sorted(real), sorted(expected));
  context.diagnostic(`${failed} scrapes refused whole; one by one: ${[...reasons].join(', ')}`);
  // A script that provokes nothing compares nothing.
  if (outOfOrderMs > 0) assert.ok(failed > 0 && failed < scrapes);
  else
    for (const reason of ['out of order', 'duplicate', 'out of bounds', 'too far ahead'])
      assert.ok(reasons.has(reason), reason);
}

const sorted = (series: (readonly (readonly [number, number])[])[]): unknown[] =>
  series.map((samples) => JSON.stringify(samples)).sort();

/** What each scrape gets: mostly what is new, and now and then what a Prometheus refuses. */
class Bodies {
  readonly served: string[] = [];
  readonly #random: Random;
  readonly #hasWindow: boolean;

  constructor(random: Random, hasWindow: boolean) {
    this.#random = random;
    this.#hasWindow = hasWindow;
  }

  next(): string {
    if (this.served.length >= scrapes) return '';
    const lines = ['# TYPE probe untyped'];
    for (let series = 0; series < 8; series++) {
      // Whole seconds, so that equal times happen.
      const nowMs = Math.floor(Date.now() / 1000) * 1000;
      const timeMs = nowMs + this.#offsetMs();
      lines.push(`probe{agent="m",series="${series}"} ${this.#value(series, timeMs)} ${timeMs}`);
    }
    const body = `${lines.join('\n')}\n`;
    this.served.push(body);
    return body;
  }

  /** With a window, of two values at one time either may be the one that is shown; the server never gives two. */
  #value(series: number, timeMs: number): number {
    return this.#hasWindow ? ((timeMs / 1000 + series) % 3) + 1 : Math.floor(this.#random.between(1, 4));
  }

  #offsetMs(): number {
    const dice = this.#random.between(0, 100);
    if (dice < 60) return 0;
    if (dice < 75) return -2000;
    if (dice < 90) return -20_000;
    // With a window, one of these fails the scrape: often enough as it is.
    if (this.#hasWindow) return dice < 96 ? -40_000 : -130_000;
    return dice < 95 ? -70 * 60_000 : 11 * 60_000;
  }
}

async function serve(context: TestContext, bodies: Bodies): Promise<number> {
  const server = createServer((_request, response) => {
    response.setHeader('Content-Type', 'text/plain; version=0.0.4');
    response.end(bodies.next());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => server.closeAllConnections());
  context.after(() => server.close());
  // Of a server that listens on a TCP port.
  return (server.address() as AddressInfo).port;
}

/** When each scrape began, as Prometheus counts it: the times of `up`. */
async function scrapeTimes(prometheus: Prometheus): Promise<number[]> {
  const { result } = await prometheus.api<{ result: { values: [number, string][] }[] }>('query', { query: 'up[10m]' });
  return (result[0]?.values ?? []).map(([seconds]) => Math.round(seconds * 1000));
}
