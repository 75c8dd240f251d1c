import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameSamples, type Samples, sampleCount, seriesKey } from '../support/agents-record.ts';
import type { Prometheus } from '../support/prometheus.ts';
import { serveLoopback } from '../support/sockets.ts';
import { PrometheusModel, parseExposition, type Refusal } from './prometheus-model.ts';

/** What was compared, so that a test can see that there was something to compare. */
export interface Comparison {
  readonly model: PrometheusModel;
  readonly scrapes: readonly RealScrape[];
  /** Samples that were refused one by one. */
  readonly refused: Readonly<Record<Refusal['reason'], number>>;
  /** Scrapes of which nothing was stored. */
  readonly refusedWhole: number;
  /** Samples older than the newest of their series that a window has let in, by Prometheus's own count. */
  readonly outOfOrderTaken: number;
  /** Samples whose times have to be equal, and their values. */
  readonly samples: number;
}

/**
 * Holds the model to a real Prometheus that has scraped the target: both were given the same bodies at the same times, so
 * they have stored the same samples of the families that begin with the prefix, and refused as many for the same reasons.
 */
export async function holdModel(
  prometheus: Prometheus,
  target: ScriptedTarget,
  { outOfOrderMs, prefix }: { readonly outOfOrderMs: number; readonly prefix: string },
): Promise<Comparison> {
  const scrapes = await target.scrapes(prometheus);
  const model = new PrometheusModel(outOfOrderMs);
  const refused = { 'out of order': 0, duplicate: 0, 'out of bounds': 0, 'too far ahead': 0 };
  let refusedWhole = 0;
  for (const [at, { atMs, body, isUp }] of scrapes.entries()) {
    if (body === undefined) {
      model.failed(atMs);
      continue;
    }
    const verdict = model.scraped(parseExposition(body), { atMs, nowMs: atMs });
    assert.equal(!verdict.isFailed, isUp, `scrape ${at + 1} of ${scrapes.length}: whether it is stored`);
    if (verdict.isFailed) refusedWhole++;
    for (const { reason } of verdict.refused) refused[reason]++;
  }
  const expected = samplesOf(model, prefix);
  const actual = await prometheus.raw(`{__name__=~"${prefix}.*"}`, '3h', Date.now() + 3_600_000);
  assertSameSamples(actual, expected, `Prometheus (actual) and its model (expected), ${scrapes.length} scrapes`);
  const counter = (reason: string) => prometheus.metric(`prometheus_target_scrapes_sample_${reason}_total`);
  assert.deepEqual(
    {
      'out of order': await counter('out_of_order'),
      duplicate: await counter('duplicate_timestamp'),
      'out of bounds': await counter('out_of_bounds'),
    },
    {
      'out of order': refused['out of order'],
      duplicate: refused.duplicate,
      // Prometheus counts both as one.
      'out of bounds': refused['out of bounds'] + refused['too far ahead'],
    },
    'what Prometheus has counted (actual) and its model (expected)',
  );
  const outOfOrderTaken = await prometheus.metric('prometheus_tsdb_head_out_of_order_samples_appended_total');
  return {
    model,
    outOfOrderTaken,
    scrapes,
    refused,
    refusedWhole,
    samples: sampleCount(expected),
  };
}

/** What a model has stored, by the names that the samples of a real one have; their times moved by so much. */
export function samplesOf({ series }: PrometheusModel, prefix: string, byMs = 0): Samples {
  const samples: Samples = new Map();
  for (const [name, { samples: stored }] of series) {
    if (!name.startsWith(prefix)) continue;
    const end = name.indexOf('[');
    // As `seriesName` of synthetic-host.ts writes it.
    const labels = JSON.parse(name.slice(end)) as [string, string][];
    const moved = [...stored].map(([timeMs, value]) => [timeMs + byMs, value] as const);
    samples.set(seriesKey(name.slice(0, end), Object.fromEntries(labels)), new Map(moved));
  }
  return samples;
}

/** What a scripted target gives to one scrape: a body; undefined: an error. */
export type Answer = string | undefined;

/** One scrape of a real Prometheus, by what its database says of it. */
export interface RealScrape {
  /** When it began, by its own clock. */
  readonly atMs: number;
  /** What it has read; undefined where that was nothing. */
  readonly body: string | undefined;
  /** Whether it has stored something of it. */
  readonly isUp: boolean;
}

interface Given {
  readonly answer: Answer;
  readonly body: string | undefined;
  readonly socket: Socket;
  /** Prometheus has not read it to its end. */
  isLost: boolean;
}

/**
 * What a real Prometheus scrapes: one answer of the script after the other, each until it is read, and empty ones when
 * the script is over. A scrape that is late on a busy machine takes nothing out of the script.
 */
export class ScriptedTarget {
  readonly #script: Iterator<Answer>;
  readonly #given: Given[] = [];
  /** The number of the first answer that is not of the script. */
  #over: number | undefined;

  /** The script is asked for an answer when a scrape wants it. */
  constructor(script: Iterable<Answer>) {
    this.#script = script[Symbol.iterator]();
  }

  async serve(context: TestContext): Promise<number> {
    const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => this.#answer(request, response));
    return serveLoopback(context, server);
  }

  /** How many answers were given once more. */
  get lost(): number {
    return this.#given.filter(({ isLost }) => isLost).length;
  }

  #answer({ socket }: IncomingMessage, response: ServerResponse): void {
    const last = this.#given.at(-1);
    // Prometheus keeps a connection whose answer it has read to its end, whatever it thinks of it; and no other.
    const isLost = last !== undefined && last.socket !== socket;
    if (isLost) last.isLost = true;
    const answer = isLost ? last.answer : this.#next();
    const number = this.#given.length;
    // At the end, so that a database begins with the sample with which the answer does.
    const body = answer === undefined ? undefined : `${answer}# TYPE ${marker} untyped\n${marker} ${number}\n`;
    this.#given.push({ answer, body, socket, isLost: false });
    response.statusCode = body === undefined ? 503 : 200;
    response.setHeader('Content-Type', 'text/plain; version=0.0.4');
    response.end(body);
  }

  #next(): Answer {
    const { done, value } = this.#script.next();
    if (done !== true) return value;
    this.#over ??= this.#given.length;
    return '';
  }

  /** All scrapes until the script was over, when they are stored. */
  async scrapes(prometheus: Prometheus): Promise<RealScrape[]> {
    while (!(await this.#isOver(prometheus))) await sleep(200);
    const ups = await timesOf(prometheus, 'up');
    const read = await timesOf(prometheus, 'scrape_samples_scraped');
    const numbers = await timesOf(prometheus, marker);
    const scrapes: RealScrape[] = [];
    let next = 0;
    for (const [atMs, up] of ups) {
      if (up === 0 && read.get(atMs) === 0) {
        scrapes.push({ atMs, body: undefined, isUp: false });
        continue;
      }
      // One that was read and refused as a whole has left no number.
      const number = up === 1 ? numbers.get(atMs)! : this.#given.findIndex((given, at) => at >= next && isRead(given));
      const passed = this.#given.slice(next, number).filter(isRead);
      assert.ok(number >= next && passed.length === 0, `which answer was read at ${atMs}: ${number}, after ${next}`);
      scrapes.push({ atMs, body: this.#given[number]!.body, isUp: up === 1 });
      if (number >= this.#over!) break;
      next = number + 1;
    }
    return scrapes;
  }

  async #isOver(prometheus: Prometheus): Promise<boolean> {
    const over = this.#over ?? Number.POSITIVE_INFINITY;
    return (await prometheus.values(marker)).some((number) => number >= over);
  }
}

const isRead = ({ body, isLost }: Given): boolean => body !== undefined && !isLost;

/** Numbers the answers, in the database, at the times of the scrapes. */
const marker = 'scripted_answer';

/** What is stored, by its time, of a series of the target itself. */
async function timesOf(prometheus: Prometheus, series: string): Promise<Map<number, number>> {
  const { result } = await prometheus.api<{ result: { values: [number, string][] }[] }>('query', {
    query: `${series}[3h]`,
  });
  return new Map(result[0]?.values.map(([seconds, value]) => [Math.round(seconds * 1000), Number(value)]));
}
