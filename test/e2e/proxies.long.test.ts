import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sampleCount } from '../support/agents-record.ts';
import { skipWithout } from '../support/installed.ts';
import { eventually, freePort } from '../support/programs.ts';
import { Prometheus } from '../support/prometheus.ts';
import { ProxyProgram } from '../support/proxies.ts';
import { Tap } from '../support/tap.ts';
import { leanAgent, ScrapeWorld } from './scrape-world.ts';

// A real Prometheus behind what stands between it and the server in the field.

interface Way {
  readonly name: string;
  readonly scrapeSeconds: number;
  /** A port that leads to the server's. */
  readonly open: (context: TestContext, to: number) => Promise<Passage>;
  /** It reads an answer whose client has gone; what its client has not read is lost. */
  readonly readsForItself?: true;
  /** The server sees that it is there. */
  readonly isSeen?: true;
  /** Whether an answer's connection is reset before the next request. */
  readonly resetsIdle?: 'always' | 'at times';
  /** At most so many samples are given again for each that is made; 0.6: what a server that is killed has given last. */
  readonly repeats?: number;
}

interface Passage {
  readonly port: number;
  readonly proxy?: ProxyProgram;
}

const through = (proxy: ProxyProgram): Passage => ({ port: proxy.port, proxy });

const ways: readonly Way[] = [
  {
    name: 'nginx as it comes',
    scrapeSeconds: 2,
    open: async (context, to) => through(await ProxyProgram.nginx(context, { to })),
    readsForItself: true,
    isSeen: true,
  },
  {
    name: 'nginx with a keep-alive upstream',
    scrapeSeconds: 2,
    open: async (context, to) => through(await ProxyProgram.nginx(context, { to, keepAlive: '60s' })),
    readsForItself: true,
  },
  {
    name: 'nginx with a keep-alive upstream that closes idle connections',
    scrapeSeconds: 4,
    open: async (context, to) => through(await ProxyProgram.nginx(context, { to, keepAlive: '2s' })),
    readsForItself: true,
  },
  {
    name: 'HAProxy, mode http',
    scrapeSeconds: 2,
    open: async (context, to) => through(await ProxyProgram.haproxy(context, { to, mode: 'http' })),
    // Every 5 s it closes half of those that were not needed meanwhile.
    resetsIdle: 'at times',
    isSeen: true,
  },
  {
    name: 'HAProxy, mode http, that resets idle connections',
    scrapeSeconds: 4,
    open: async (context, to) =>
      through(await ProxyProgram.haproxy(context, { to, mode: 'http', server: 'pool-purge-delay 1s' })),
    resetsIdle: 'always',
    isSeen: true,
    repeats: 2,
  },
  {
    name: 'HAProxy, mode http, http-reuse never',
    scrapeSeconds: 2,
    open: async (context, to) =>
      through(await ProxyProgram.haproxy(context, { to, mode: 'http', backend: 'http-reuse never' })),
    isSeen: true,
  },
  {
    name: 'HAProxy, mode tcp, with a short idle time-out',
    scrapeSeconds: 4,
    open: async (context, to) => through(await ProxyProgram.haproxy(context, { to, mode: 'tcp', clientTimeout: '2s' })),
  },
  {
    name: 'a line that closes idle connections, as the client itself does after 5 min',
    scrapeSeconds: 4,
    open: async (context, to) => {
      const line = await Tap.open(context, { to });
      line.endAtRest(2000, 'close');
      return line;
    },
  },
];

const skip = skipWithout('/usr/bin/prometheus', '/usr/sbin/nginx', '/usr/sbin/haproxy');

describe('through proxies and lines', { concurrency: 8, skip, timeout: 600_000 }, () => {
  for (const way of ways) {
    test(`${way.name}, without receipts`, (context) => throughFaults(context, way, { receipts: false }));
    test(`${way.name}, with receipts`, (context) => throughFaults(context, way, { receipts: true }));
  }
});

async function throughFaults(context: TestContext, way: Way, { receipts }: { receipts: boolean }): Promise<void> {
  const { scrapeSeconds } = way;
  const port = await freePort();
  const world = await ScrapeWorld.start(context, {
    ...{ agents: { a: leanAgent, b: leanAgent }, scrapeSeconds },
    server: receipts ? ['--prometheus', `one=http://127.0.0.1:${port}`] : [],
  });
  const passage = await way.open(context, world.server.webPort);
  const line = await Tap.open(context, { to: passage.port });
  const prometheus = await Prometheus.start(context, {
    ...{ target: line.port, port, scraper: 'one', scrapeInterval: `${scrapeSeconds}s` },
  });
  await world.begin(prometheus);
  await sleep(5000);
  await world.cutAgents(8);
  await world.killServer();
  const repeated = await prometheus.metric('prometheus_target_scrapes_sample_out_of_order_total');
  const madeSoFar = sampleCount(world.record.samples());
  world.note(`${repeated} of ${madeSoFar} samples were given again and refused as out of order`);
  assert.ok(repeated < madeSoFar * (receipts ? 0.6 : (way.repeats ?? 0.6)), 'how many samples are given again');
  // Whatever stands in between has read an answer, and Prometheus has not.
  await world.mayLose(async () => {
    line.swallow('at once');
    await eventually(30_000, () => assert.ok(line.swallowed >= 1));
    line.stopSwallowing();
  });
  await world.mayLose(async () => {
    await prometheus.stop('SIGKILL');
    await sleep(6000);
    await prometheus.start();
  });
  const { proxy } = passage;
  if (proxy !== undefined) {
    await world.mayLose(async () => {
      await proxy.kill('SIGKILL');
      await sleep(1000);
      await proxy.start();
    });
  }
  const { missingMs } = await world.settle(prometheus);
  if (receipts || !way.readsForItself) assert.equal(missingMs.length, 0, 'samples that are missing');
  else {
    assert.ok(missingMs.length > 0, 'the answer that only the proxy has read is missing');
    world.assertOfLossy(missingMs);
  }
  const logged = (words: string) => world.serverLines.some((each) => each.includes(`scraper 'one' ${words}`));
  assert.equal(logged('connects through an HTTP proxy'), !receipts && way.isSeen === true, 'a proxy is warned of');
  const never = logged('has not confirmed the reports of');
  if (receipts || way.resetsIdle !== 'at times') {
    assert.equal(never, !receipts && way.resetsIdle === 'always', 'answers that are never confirmed are warned of');
  }
}
