import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBacklogPlan } from './backlog-plan.ts';
import { makePlan } from './plan.ts';
import { type Outcome, World } from './world.ts';

test('five agents come back with 3 h of reports while one thing after another goes wrong: nothing is missing', async (context) => {
  // A history takes seconds: `npm run simulate -- --backlog` runs others.
  const seed = Number(process.env['SEED'] ?? 1);
  const world = new World({ seed, plan: makeBacklogPlan(seed) });
  const { violations, beyond, missing, reports, counts } = await world.run();
  context.diagnostic(`${reports} reports, ${counts['scrapes']} scrapes`);
  assert.deepEqual([violations, beyond, [...missing]], [[], [], []], `SEED=${seed}`);
  const made = world.agents.map((agent) => agent.reports.length);
  assert.equal(made.filter((count) => count > 1080).length, 5, `reports: ${made}`);
  assert.ok(counts['server ends']! > 2 && counts['rolled back']! > 2, JSON.stringify(counts));
});

test('a disk that stalls for a minute costs no sample, no connection, and delays no report', async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const drawn = makePlan(seed);
    const bounds = { bytesMax: 64 * 2 ** 20, ageMsMax: 24 * 3_600_000 };
    const agents = drawn.agents.map((agent) => ({ ...agent, hasDisk: true, wallAheadMs: 0, bounds }));
    const faults = agents.map((_, which) => ({ ...stall, which }));
    const plan = { ...drawn, agents, faults, server: { ...drawn.server, wallAheadMs: 0 } };
    const world = new World({ seed, plan });
    const { violations, beyond } = await world.run();
    assert.deepEqual([violations, beyond, [...world.ends.keys()]], [[], [], []], `SEED=${seed}`);
    for (const { plan: agent, reports } of world.agents) {
      for (const [at, { atMs, receivedMs }] of reports.entries()) {
        const sinceMs = atMs - (reports[at - 1]?.atMs ?? atMs - agent.intervalMs);
        // The first but one comes with the interval's next multiple.
        assert.ok(at === 1 || Math.abs(sinceMs - agent.intervalMs) < 10, `${agent.name}: ${sinceMs} ms, SEED=${seed}`);
        if (atMs < stall.atMs) continue;
        assert.ok(
          receivedMs !== undefined && receivedMs - atMs < 2000,
          `${agent.name}: ${receivedMs}, made at ${atMs}`,
        );
      }
    }
  }
});

const stall = { kind: 'agent disk stalled', atMs: 150_000, forMs: 60_000, size: 0 } as const;

test('the same seed is the same history', async () => {
  for (const seed of [3, 14]) {
    const [first, second] = [await traceOf(seed), await traceOf(seed)];
    assert.equal(first.outcome.traceHash, second.outcome.traceHash);
    assert.deepEqual(first.lines, second.lines);
    assert.ok(first.lines.length > 100, 'a history of few events');
  }
  assert.notEqual((await traceOf(3)).outcome.traceHash, (await traceOf(14)).outcome.traceHash);
});

async function traceOf(seed: number): Promise<{ lines: string[]; outcome: Outcome }> {
  const lines: string[] = [];
  const outcome = await new World({ seed, onTrace: (line) => lines.push(line) }).run();
  return { lines, outcome };
}
