import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makePlan } from './plan.ts';
import { type Outcome, World } from './world.ts';

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
