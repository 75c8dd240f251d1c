import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../src/model/agent-id.ts';
import { AgentsLog } from '../../src/server/agents-log.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { DeliveryHarness } from './delivery/delivery-harness.ts';
import { ReportMaker } from './delivery/report-maker.ts';

const windowMs = 30 * 60_000;

class World extends DeliveryHarness {
  readonly log = new MemoryLog();
  readonly agentsLog = new AgentsLog({ log: this.log, windowMs, memoryBytesMax: 512 * 1024 ** 2 });
  readonly makers = new Map<string, ReportMaker>();

  report(name: string, timeMs = this.clock.nowMs()): void {
    const agent = this.delivery.store.agent(agentId(name)!);
    agent.host.intervalMs = 5000;
    const maker = this.makers.get(name) ?? new ReportMaker();
    this.makers.set(name, maker);
    this.delivery.store.receive(agent.host, maker.make(timeMs, [1]));
  }

  /** Looks every 10 s, as the server does. */
  async pass(ms: number, ...reporting: string[]): Promise<void> {
    for (let passed = 0; passed < ms; passed += 5000) {
      await this.clock.advance(5000);
      for (const name of reporting) this.report(name);
      if (passed % 10_000 === 0) this.agentsLog.look(this.delivery.store.agents, this.clock.monotonicMs());
    }
  }
}

test('an agent that goes down and comes back: a line for each', async () => {
  const world = new World();
  await world.pass(60_000, 'db-1', 'web-1');
  assert.deepEqual(world.log.lines, []);
  await world.pass(60_000, 'web-1');
  assert.deepEqual(world.log.lines, ["warn: agent 'db-1' is down: no report for 25 s"]);
  for (let back = 9; back >= 0; back--) world.report('db-1', world.clock.nowMs() - back * 5000);
  await world.pass(20_000, 'web-1', 'db-1');
  assert.deepEqual(world.log.lines.slice(1), ["info: agent 'db-1' is back after 65 s, 11 reports"]);
});

test('one that has not reported since the start, or is known to be down, is no news', async () => {
  const world = new World();
  world.delivery.store.agent(agentId('old')!);
  await world.pass(600_000);
  assert.deepEqual(world.log.lines, []);
  await world.pass(10_000, 'old');
  await world.pass(600_000);
  assert.equal(world.log.lines.length, 1);
});

test('a line between two sites that is cut is one line', async () => {
  const world = new World();
  const names = Array.from({ length: 8 }, (_, index) => `web-${index}`);
  await world.pass(30_000, ...names);
  await world.pass(60_000);
  assert.deepEqual(world.log.lines, [
    "warn: 8 agents are down, none with a report of late: 'web-0', 'web-1', 'web-2', 'web-3', 'web-4', …",
  ]);
});

test('reports that come and are refused: the agent is not called down, its reports are called refused', async () => {
  const world = new World();
  await world.pass(30_000, 'db-1');
  for (let round = 0; round < 24; round++) {
    world.report('db-1', world.clock.nowMs() - windowMs - 60_000);
    await world.pass(5000);
  }
  assert.equal(world.log.lines.length, 2, world.log.lines.join('\n'));
  for (const line of world.log.lines) assert.match(line, /^warn: refused \d+ reports? of 'db-1' of .*/);
});

test('an agent that is forgotten is forgotten here too', async () => {
  const world = new World();
  await world.pass(30_000, 'db-1');
  world.delivery.forget(agentId('db-1')!);
  await world.pass(600_000);
  assert.deepEqual(world.log.lines, []);
});

test('an agent over a budget has a line a minute for each budget, with its name and how often', async () => {
  const world = new World();
  await world.pass(30_000, 'evil', 'web-1');
  const { excesses } = world.delivery.store.agent(agentId('evil')!);
  for (let time = 0; time < 3; time++) excesses.add('memory', `it takes ${time} MiB`, world.clock.nowMs());
  excesses.count('messages', 'logged where it happened', world.clock.nowMs());
  await world.pass(10_000, 'evil', 'web-1');
  excesses.add('memory', 'it takes 9 MiB', world.clock.nowMs());
  await world.pass(40_000, 'evil', 'web-1');
  assert.deepEqual(world.log.lines, [
    "warn: agent 'evil' is over its budget of memory: it takes 2 MiB (3 times since the last such line)",
  ]);
  await world.pass(30_000, 'evil', 'web-1');
  assert.deepEqual(world.log.lines.slice(1), ["warn: agent 'evil' is over its budget of memory: it takes 9 MiB"]);
});
