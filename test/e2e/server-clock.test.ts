import assert from 'node:assert/strict';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { bundleOf, freePort, Program, temporaryFolder } from '../support/programs.ts';
import { type SteppedClock, steppedClocks } from '../support/stepped-clock.ts';

// A server's clock that is wrong and is set while agents report: a host without a clock of its own, a virtual machine
// that was paused. The agent's clock is right all the time, and says so in node_time_seconds.

const phaseMs = 9000;
const cases: Readonly<Record<string, readonly number[]>> = {
  'two hours behind, then right': [-7_200_000, 0],
  'right, then set back by 12 s': [0, -12_000],
  'an hour ahead, then right': [3_600_000, 0],
  'right, five minutes behind, right again': [0, -300_000, 0],
};

test("a step of the server's clock: samples go on within seconds, with right times, and none is lost", {
  concurrency: 4,
}, async (context) => {
  const clocks = steppedClocks(context, temporaryFolder(context));
  if (clocks === undefined) return;
  const parts = Object.entries(cases).map(([name, offsetsMs], index) =>
    context.test(name, (part) => run(part, clocks(`server-${index}`), offsetsMs)),
  );
  await Promise.all(parts);
});

async function run(context: TestContext, clock: SteppedClock, offsetsMs: readonly number[]): Promise<void> {
  clock.set(offsetsMs[0]!);
  const programs = await start(context, clock);
  try {
    await follow(clock, offsetsMs, programs);
  } finally {
    programs.scraper.close();
    await Promise.all([programs.server.kill('SIGKILL'), programs.agent.kill('SIGKILL')]);
  }
}

async function follow(
  clock: SteppedClock,
  offsetsMs: readonly number[],
  { server, agent, scraper }: Programs,
): Promise<void> {
  for (const [index, offsetMs] of offsetsMs.entries()) {
    clock.set(offsetMs);
    const before = new Set(scraper.samples.keys());
    const endMs = performance.now() + phaseMs;
    while (performance.now() < endMs) {
      await delay(1000);
      await scraper.scrape();
    }
    const added = [...scraper.samples].filter(([value]) => !before.has(value));
    assert.ok(added.length >= 4, `phase ${index}: ${added.length} new samples`);
    const [, newestMs] = added.at(-1)!;
    const aheadMs = newestMs - (Date.now() + offsetMs);
    assert.ok(Math.abs(aheadMs) <= 3500, `phase ${index}: the last sample is ${aheadMs} ms from the server's clock`);
  }
  // What was sampled, by the agent's own clock: each second once at the least.
  const seconds = new Set([...scraper.samples.keys()].map(Math.round));
  const first = Math.min(...seconds);
  const last = Math.max(...seconds);
  const missing = Array.from({ length: last - first }, (_, index) => first + index).filter((s) => !seconds.has(s));
  assert.deepEqual(missing, [], `of ${last - first} seconds\n${server.lines.join('\n')}\n${agent.lines.join('\n')}`);
  const steps = offsetsMs.length - 1;
  assert.equal(server.lines.filter((line) => /the clock of this host was set/.test(line)).length, steps);
  assert.equal(agent.lines.filter((line) => /the clock of '.*' was set/.test(line)).length, steps);
  assert.match(await scraper.scrape(), new RegExp(`^sysmon_server_clock_steps_total ${steps}$`, 'm'));
}

interface Programs {
  readonly server: Program;
  readonly agent: Program;
  readonly scraper: Scraper;
}

async function start(context: TestContext, clock: SteppedClock): Promise<Programs> {
  const folder = temporaryFolder(context);
  const [port, webPort] = [await freePort(), await freePort()];
  const env = { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' };
  const server = new Program(
    'sysmon-server',
    process.execPath,
    [
      ...[bundleOf('server'), 'run', '--listen', `127.0.0.1:${port}`, '--web.listen-address', `127.0.0.1:${webPort}`],
      ...['--state-dir', folder, '--control-socket', join(folder, 'server.sock')],
    ],
    { env: { ...env, ...clock.env } },
  );
  await server.line(/agents on/);
  const agent = new Program(
    'sysmon-agent',
    process.execPath,
    [
      ...[bundleOf('agent'), 'run', '--server', `127.0.0.1:${port}`, '--name', 'a1', '--schedule', '1s'],
      ...['--control-socket', join(folder, 'agent.sock')],
    ],
    { env },
  );
  await agent.line(/connected to/);
  return { server, agent, scraper: new Scraper(webPort) };
}

/** Scrapes over one connection, as Prometheus does. */
class Scraper {
  /** Timestamps in milliseconds by `node_time_seconds`: after a step back two samples can have one timestamp. */
  readonly samples = new Map<number, number>();
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #url: string;

  constructor(port: number) {
    this.#url = `http://127.0.0.1:${port}/metrics`;
  }

  async scrape(): Promise<string> {
    const headers = { 'X-Prometheus-Scrape-Timeout-Seconds': '5', 'User-Agent': 'Prometheus/3.5.3' };
    const text = await new Promise<string>((resolve, reject) => {
      get(this.#url, { agent: this.#agent, headers }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk;
        });
        response.once('end', () => resolve(body)).once('error', reject);
      }).once('error', reject);
    });
    for (const [, value, timeMs] of text.matchAll(/^node_time_seconds\{agent="a1"\} (\S+) (\d+)$/gm)) {
      this.samples.set(Number(value), Number(timeMs));
    }
    return text;
  }

  close(): void {
    this.#agent.destroy();
  }
}
