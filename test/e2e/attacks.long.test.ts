import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Attack, attacks, beginAttack } from '../support/attacks.ts';
import { eventually, ServerProgram } from '../support/programs.ts';
import { SimulatedAgent } from '../support/simulated-agent.ts';

// What one agent, or one client of the HTTP port, does to all others: nothing. Beside each attack honest agents report and
// a scraper scrapes: nothing of theirs is missing, no scrape takes as long as its time-out, and the culprit is named.

const seriesCount = 20;
const agentCount = 3;
const reportEveryMs = 200;
const scrapeEveryMs = 400;
const attackMs = 2000;
const namedMs = 30_000;
const timeoutMs = 10_000;
const rssMiBMax = 600;

test('beside an attack nothing of the others is missing, and the culprit is named', {
  timeout: 300_000,
}, async (context) => {
  const flags = ['--memory-max', '32MiB', '--label-value-length-limit', '200'];
  const server = await ServerProgram.start(context, flags);
  const bystanders = await Bystanders.start(context, server);
  for (const attack of attacks) await context.test(attack.what, () => under(attack, server, bystanders));
  await context.test('what was held against whom is in the log', () =>
    eventually(15_000, () => {
      const log = server.run.lines.join('\n');
      for (const { agent, budget } of attacks) {
        if (agent === undefined) continue;
        assert.match(
          log,
          new RegExp(
            `agent '${agent}' .*(is cut off \\((limit|busy)\\)|is over its budget of ${budget})|refused .* '${agent}'`,
          ),
        );
      }
      assert.doesNotMatch(log, /honest-\d' .*(cut off|budget)|(dropped|refused) \d+ reports? of 'honest/);
    }),
  );
});

async function under(attack: Attack, server: ServerProgram, bystanders: Bystanders): Promise<void> {
  const { port, webPort } = server;
  const attacker = await beginAttack(attack, { port, webPort });
  const scrapes = await bystanders.scrapeFor(attackMs);
  // As long as it takes on a slow machine.
  const endMs = performance.now() + namedMs;
  while (!(await isNamed(attack, server)) && performance.now() < endMs)
    scrapes.push(...(await bystanders.scrapeFor(1)));
  const ended = once(attacker, 'exit');
  attacker.kill('SIGKILL');
  await ended;
  for (const ms of scrapes) assert.ok(ms < timeoutMs, `a scrape took ${ms.toFixed(0)} ms`);
  await bystanders.missNothing();
  assert.ok(rssMiB(server.run.pid) < rssMiBMax, `${rssMiB(server.run.pid).toFixed(0)} MiB`);
  assert.ok(await isNamed(attack, server), `${attack.agent} is not named for its ${attack.budget}`);
  for (const { name, overBudget, drops } of await agentsOf(server)) {
    if (name.startsWith('honest')) assert.deepEqual([overBudget, drops], [[], []], name);
  }
}

/** In `agents`, and by a metric. */
async function isNamed({ agent: name, budget }: Attack, server: ServerProgram): Promise<boolean> {
  if (name === undefined) return true;
  const agent = (await agentsOf(server)).find((each) => each.name === name);
  if (agent?.overBudget.some((each) => each.budget === budget) !== true) return false;
  return (await server.metric(`sysmon_server_agent_over_budget_total{agent="${name}",budget="${budget}"}`)) > 0;
}

interface Named {
  readonly name: string;
  readonly overBudget: readonly { readonly budget: string }[];
  readonly drops: readonly unknown[];
}

async function agentsOf(server: ServerProgram): Promise<readonly Named[]> {
  const reply = (await (await server.get('/api/v1/agents')).json()) as { agents: Named[] };
  return reply.agents;
}

/** Honest agents, and a scraper that has all of them. */
class Bystanders {
  readonly #server: ServerProgram;
  readonly #agents: readonly SimulatedAgent[];
  /** One connection, as Prometheus keeps it. */
  readonly #http = new Agent({ keepAlive: true, maxSockets: 1 });
  /** Series and time of each sample that was scraped. */
  readonly #seen = new Set<string>();

  private constructor(server: ServerProgram, agents: readonly SimulatedAgent[]) {
    this.#server = server;
    this.#agents = agents;
  }

  static async start(context: TestContext, server: ServerProgram): Promise<Bystanders> {
    const { port } = server;
    const agents = Array.from(
      { length: agentCount },
      (_, number) =>
        new SimulatedAgent({ name: `honest-${number}`, number, port, seriesCount, intervalMs: reportEveryMs }),
    );
    for (const agent of agents) await agent.connect();
    const bystanders = new Bystanders(server, agents);
    const reporting = setInterval(() => {
      for (const agent of agents) void agent.report(Date.now());
    }, reportEveryMs);
    context.after(() => {
      clearInterval(reporting);
      for (const agent of agents) agent.close();
      bystanders.#http.destroy();
    });
    await bystanders.#scrape();
    return bystanders;
  }

  /** How long each scrape took. */
  async scrapeFor(ms: number): Promise<number[]> {
    const startMs = performance.now();
    const took: number[] = [];
    while (performance.now() - startMs < ms) {
      const beganMs = performance.now();
      await this.#scrape();
      took.push(performance.now() - beganMs);
      await sleep(Math.max(0, beganMs + scrapeEveryMs - performance.now()));
    }
    return took;
  }

  /** What has been reported until now is scraped, with the next scrapes. */
  async missNothing(): Promise<void> {
    const made = this.#agents.map((agent) => ({ name: agent.options.name, times: [...agent.times] }));
    await eventually(timeoutMs, async () => {
      await this.#scrape();
      for (const { name, times } of made) {
        const missing = times.filter((timeMs) => !this.#seen.has(`${name} ${timeMs}`));
        assert.equal(missing.length, 0, `${missing.length} of ${times.length} reports of ${name} are missing`);
      }
    });
  }

  #scrape(): Promise<void> {
    const headers = {
      'User-Agent': 'Prometheus/3.5.0',
      'X-Prometheus-Scrape-Timeout-Seconds': String(timeoutMs / 1000),
    };
    const counts = new Map<string, number>();
    return new Promise((resolve, reject) => {
      const request = get(
        { port: this.#server.webPort, path: '/metrics?scraper=honest', agent: this.#http, headers },
        (response) => {
          response.setEncoding('latin1');
          let rest = '';
          response.on('data', (text: string) => {
            const lines = (rest + text).split('\n');
            rest = lines.pop()!;
            for (const line of lines) {
              const [, agent, timeMs] = /^simulated_\w+\{agent="(honest-\d)",.* (\d{13})$/.exec(line) ?? [];
              if (agent === undefined) continue;
              const key = `${agent} ${timeMs}`;
              counts.set(key, (counts.get(key) ?? 0) + 1);
            }
          });
          response.once('error', reject);
          response.once('end', () => {
            for (const [key, count] of counts) if (count === seriesCount) this.#seen.add(key);
            resolve();
          });
        },
      );
      request.once('error', reject);
    });
  }
}

function rssMiB(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
  return Number(kib) / 1024;
}
