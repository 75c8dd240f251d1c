import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prometheus, prometheusPrograms } from '../support/prometheus.ts';
import { portOf } from '../support/sockets.ts';

// Nothing of ours is here: a Prometheus with an out-of-order window, and exporters that give it the past of one new target
// after another, as agents do that come back. Prometheus 2.42 and 2.53.3 were seen to show only a part of what was given in
// the moment in which they began to compact what was out of order, each two hours or after a restart; their log has
// "Overlapping blocks found during reloadBlocks" then. All of it was stored: after a restart it is there.

const second = 1000;
const hour = 3600 * second;
const stepMs = 10 * second;
const reports = 1080;
const seriesCount = 10;

for (const { name, path, skip } of prometheusPrograms) {
  test(`what ${name} shows of samples that it is given while it compacts`, {
    skip,
    timeout: 240_000,
  }, async (context) => {
    const exporter = await Exporter.open(context);
    const prometheus = await Prometheus.start(context, {
      // As many targets, each at its own moment of a second.
      ...{ target: exporter.port, agents: ['a', 'b', 'c', 'd', 'e'], path },
      ...{ scraper: 'none', scrapeInterval: '1s', outOfOrder: '6h' },
    });
    // Three hours after the oldest sample of its head it compacts that, and then what is out of order.
    await prometheus.line(/out-of-order compaction completed/);
    await sleep(10 * second);
    exporter.isDone = true;
    await sleep(3 * second);
    const shown = await countsOf(prometheus);
    await prometheus.stop('SIGTERM');
    await prometheus.start();
    const stored = await countsOf(prometheus);
    const whole = [...stored].filter(([, count]) => count === reports * seriesCount);
    assert.ok(whole.length > 20, `${whole.length} of ${exporter.given} were stored whole`);
    // A scrape that took longer than its second has failed, and is not there at all.
    assert.equal(whole.length, stored.size, 'a scrape is stored whole, or not at all');
    const partly = [...stored].flatMap(([agent, count]) => {
      const before = shown.get(agent) ?? 0;
      return before === count ? [] : [`${count - before} of ${count} samples of '${agent}'`];
    });
    context.diagnostic(
      `${whole.length} pasts were stored; not shown before the restart: ${partly.join(', ') || 'nothing'}`,
    );
  });
}

/** How many samples there are of each past. */
async function countsOf(prometheus: Prometheus): Promise<Map<string, number>> {
  const { result } = await prometheus.api<{ result: { metric: { agent: string }; value: [number, string] }[] }>(
    'query',
    {
      query: 'sum by (agent) (count_over_time(past[5h]))',
      time: String(Date.now() / 1000 + 60),
    },
  );
  return new Map(result.map(({ metric, value }) => [metric.agent, Number(value[1])]));
}

/** Gives the past of another agent with each request; with the first the oldest sample of all, in order. */
class Exporter {
  readonly #server: Server;
  given = 0;
  isDone = false;

  private constructor() {
    this.#server = createServer((_, response) => {
      response.setHeader('content-type', 'text/plain; version=0.0.4');
      response.end(this.#text());
    });
  }

  static async open(context: TestContext): Promise<Exporter> {
    const exporter = new Exporter();
    const server = exporter.#server;
    server.listen(0, '127.0.0.1');
    context.after(() => {
      server.closeAllConnections();
      server.close();
    });
    await once(server, 'listening');
    return exporter;
  }

  get port(): number {
    return portOf(this.#server);
  }

  #text(): string {
    const nowMs = Math.floor(Date.now() / stepMs) * stepMs;
    const number = this.given++;
    const lines: string[] = [];
    // Prometheus compacts its head 40 s from now.
    if (number === 0)
      for (let ms = nowMs - 3 * hour + 40 * second; ms <= nowMs; ms += stepMs) lines.push(`first 1 ${ms}`);
    else if (!this.isDone) {
      for (let series = 0; series < seriesCount; series++) {
        for (let report = reports; report > 0; report--) {
          lines.push(`past{agent="${number}",series="${series}"} ${report} ${nowMs - report * stepMs}`);
        }
      }
    }
    return `${lines.join('\n')}\n`;
  }
}
