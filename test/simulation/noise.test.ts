import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AgentPlan } from './agent-node.ts';
import type { Fault, Plan } from './plan.ts';
import type { ScraperPlan } from './scraper-node.ts';
import { World } from './world.ts';

// How many lines the journals get, of the programs as they ship, in an hour of virtual time.

const agent: AgentPlan = {
  ...{ name: 'web-1', intervalMs: 15_000, labels: [['site', 'north']], hasDisk: true, addresses: ['192.0.2.1'] },
  ...{ bounds: { bytesMax: 64 * 2 ** 20, ageMsMax: 24 * 3_600_000 }, wallAheadMs: 700 },
};
const scraper: ScraperPlan = {
  ...{ name: 'prometheus-1', scraper: 'own-1', address: '192.0.2.2', selections: [''], idle: undefined },
  ...{ kind: { kind: 'direct' }, receipts: undefined, wallAheadMs: -300 },
  ...{ intervalMs: 15_000, timeoutMs: 10_000, outOfOrderMs: 0, samplesMax: undefined },
};

/** What is logged, of everything but the starts of processes, from a time on: each host's lines, in their order. */
async function hour(
  plan: Partial<Plan>,
  { Kind = World, fromSeconds = 120 }: { readonly Kind?: typeof World; readonly fromSeconds?: number } = {},
): Promise<{ readonly lines: ReadonlyMap<string, readonly string[]>; readonly violations: readonly string[] }> {
  const lines = new Map<string, string[]>();
  const onTrace = (line: string) => {
    const [, seconds, host = '', text = ''] = /^(\S+) (\S+)\.\d+ ((?:error|warn|info): .*)$/.exec(line) ?? [];
    if (text === '' || text.startsWith('info: starts') || Number(seconds) < fromSeconds || Number(seconds) > 3800)
      return;
    lines.set(host, [...(lines.get(host) ?? []), text]);
  };
  const world = new Kind({
    ...{ seed: 1, onTrace },
    plan: {
      ...{ seed: 1, agents: [agent], scrapers: [scraper], faults: [], historyMs: 3_800_000 },
      server: { windowMs: 30 * 60_000, memoryBytesMax: 512 * 2 ** 20, wallAheadMs: 0 },
      ...plan,
      startMs: {
        agents: (plan.agents ?? [agent]).map((_, at) => 1000 + 700 * at),
        server: 500,
        scrapers: [2000, 3000],
      },
    },
  });
  const { violations } = await world.run();
  return { lines, violations };
}

/** Something that lasts for an hour, from the third minute on. */
const forAnHour = (kind: Fault['kind'], which = 0): Fault => ({
  kind,
  atMs: 130_000,
  forMs: 3_600_000,
  which,
  size: 0,
});

test('nothing happens: not a line', async () => {
  const { lines, violations } = await hour({
    agents: [agent, { ...agent, name: 'web-2', intervalMs: 60_000 }],
    scrapers: [
      scraper,
      { ...scraper, name: 'prometheus-2', scraper: 'own-2', receipts: { latencyMs: [20, 1500], lostShare: 0 } },
    ],
  });
  assert.deepEqual(violations, []);
  assert.deepEqual([...lines], []);
});

for (const { what, fault, addresses = agent.addresses } of [
  { what: 'that is killed', fault: forAnHour('server killed') },
  { what: 'that is stopped', fault: forAnHour('server stopped') },
  { what: 'whose host has no power', fault: forAnHour('server without power') },
  { what: 'behind a line that is cut', fault: forAnHour('agent line cut') },
  { what: 'with two addresses', fault: forAnHour('server without power'), addresses: ['2001:db8::1', '192.0.2.1'] },
]) {
  test(`an hour without a server ${what}: a few lines, then rarely one`, async (context) => {
    const bounds = { bytesMax: 64 * 2 ** 20, ageMsMax: 24 * 3_600_000 };
    const { lines } = await hour({ agents: [{ ...agent, bounds, addresses }], faults: [fault] });
    const ofAgent = lines.get('web-1') ?? [];
    context.diagnostic(`${ofAgent.length} lines of the agent, ${lines.get('server')?.length ?? 0} of the server`);
    assert.ok(ofAgent.length >= 4 && ofAgent.length <= 12, ofAgent.join('\n'));
    assert.match(ofAgent[0]!, /^warn: lost 'server:9732': /);
    assert.equal(ofAgent.filter((line) => line.startsWith("info: connected to 'server:9732'")).length, 1);
    // Half an hour of reports is older than the window.
    assert.equal(ofAgent.filter((line) => line.startsWith("warn: 'server:9732' did not store ")).length, 1);
  });
}

test('a host that goes down: one warning, and one line with what came when it is back', async () => {
  const { lines } = await hour({ faults: [{ ...forAnHour('agent line cut'), forMs: 600_000 }], historyMs: 800_000 });
  const news = (lines.get('server') ?? []).filter((line) => / is down| is back/.test(line));
  assert.equal(news.length, 2, news.join('\n'));
  assert.match(news[0]!, /^warn: agent 'web-1' is down: no report for \d\d s$/);
  assert.match(news[1]!, /^info: agent 'web-1' is back after 10 min, 4\d reports$/);
  assert.ok(lines.get('server')!.length <= 5, lines.get('server')!.join('\n'));
});

test('two hosts that were made from one image: at most 60 lines an hour, together', async (context) => {
  /** What comes of one agent is what two have made. */
  class ClonedWorld extends World {
    override violated(): void {}
    override received(): void {}
  }
  const { lines } = await hour(
    { agents: [agent, { ...agent, hostName: 'web-2' }] },
    { Kind: ClonedWorld, fromSeconds: 0 },
  );
  const all = [...lines.values()].flat();
  context.diagnostic([...lines].map(([host, { length }]) => `${host}: ${length}`).join(', '));
  assert.ok(all.length <= 60, all.join('\n'));
  assert.ok(
    (lines.get('server') ?? []).some((line) => /two hosts run as 'web-1' and have one machine-id/.test(line)),
    all.join('\n'),
  );
});
