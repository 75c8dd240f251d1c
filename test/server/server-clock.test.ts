import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../src/model/agent-id.ts';
import { AgentRecord } from '../../src/server/delivery/agent-record.ts';
import { SchemasInUse } from '../../src/server/delivery/schemas.ts';
import { commonOffset, ServerClock } from '../../src/server/server-clock.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

test('an offset is common when more than half of three or more agents have it, within 2 s', () => {
  assert.equal(commonOffset([]), undefined);
  assert.equal(commonOffset([3_600_000, 3_600_000]), undefined, 'two are too few');
  assert.deepEqual(commonOffset([3_600_000, 0, 3_601_000]), { offsetMs: 3_600_000, count: 2, of: 3 });
  assert.equal(commonOffset([3_600_000, 0, -3_600_000]), undefined, 'each its own');
  assert.equal(commonOffset([0, 0, 5000, 1000]), undefined, 'most agree with the server');
  assert.deepEqual(commonOffset([-9000, -9000, -9000, 0, 0]), { offsetMs: -9000, count: 3, of: 5 });
});

function world() {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const serverClock = new ServerClock({ clock, boot: { bootMs: () => clock.monotonicMs() }, log });
  const agents = (...offsetsMs: number[]) =>
    offsetsMs.map((offsetMs, index) => {
      const agent = new AgentRecord(agentId(`a${index}`)!, clock.nowMs(), new SchemasInUse());
      agent.peer = '192.0.2.1:40000';
      agent.host.offsetMs = offsetMs;
      return agent;
    });
  return { clock, log, serverClock, agents };
}

test('steps are counted and shown', async () => {
  const { clock, serverClock } = world();
  assert.deepEqual(serverClock.status, { steps: 0 });
  assert.equal(serverClock.look(), 0);
  clock.step(-12_000);
  assert.equal(serverClock.look(), -12_000);
  assert.equal(serverClock.look(), 0);
  const at = new Date(clock.nowMs()).toISOString();
  await clock.advance(60_000);
  assert.deepEqual(serverClock.status, { steps: 1, lastStep: { at, seconds: -12 } });
});

test('most agents against the server: logged once, shown, and logged when it is over', () => {
  const { log, serverClock, agents } = world();
  serverClock.compare(agents(3_600_000, 3_600_400, 0));
  serverClock.compare(agents(3_600_000, 3_600_300, 0));
  assert.deepEqual(log.lines, [
    'warn: the clock of this host is 3600.0 s ahead of those of 2 of 3 agents: it is probably the one that is wrong, and ' +
      'samples get its time; is NTP on here? (timedatectl)',
  ]);
  assert.deepEqual(serverClock.status.aheadOfAgents, { seconds: 3600, agents: 2, of: 3 });
  const [gone, ...others] = agents(3_600_000, 3_600_000, 0, 0);
  gone!.peer = undefined;
  serverClock.compare([gone!, ...others]);
  assert.deepEqual(log.lines.slice(1), ["info: the clock of this host agrees with most agents' again"]);
  assert.equal(serverClock.status.aheadOfAgents, undefined);
});
