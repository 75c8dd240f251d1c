import assert from 'node:assert/strict';
import { test } from 'node:test';
import { every } from '../../src/agent/collect/schedule.ts';
import { Agent } from '../../src/agent/wire-up.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { RecordingMaker } from '../support/recordings.ts';
import { ScriptedServer } from '../support/scripted-server.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

// What of an agent's CPU is not its collectors' is, for the most part, what wakes the process: timers, answers of the disk,
// and bytes of the server. So what a report costs of each is fixed here. Whoever raises a number says what it buys.
test('what ten minutes at 5 s cost: timers, calls of the disk, writes to the server', async () => {
  const clock = new VirtualClock();
  const server = new ScriptedServer(clock);
  const disk = new MemoryDisk();
  const maker = new RecordingMaker();
  let made = 0;
  const agent = new Agent({
    settings: {
      ...{ address: 'server:9732', agentName: 'a', labels: [], schedule: every(5000), spoolDir: '/spool' },
      bounds: { bytesMax: 64 * 1024 * 1024, ageMsMax: 24 * 3600 * 1000 },
    },
    ...{ clock, disk, boot: { bootMs: () => clock.monotonicMs() }, dial: server.dial, hostId: 'host' },
    newSampler: () => ({
      sample: async () => maker.make([made++, made % 7, 5]),
      failures: [],
      absent: [],
      pendingReads: [],
      close() {},
    }),
    ...{ log: new MemoryLog(), random: () => 0.5 },
  });
  await agent.start();
  await clock.advance(62_500);

  const counts = () => ({
    timersFired: clock.firedCount,
    timersSet: clock.setCount,
    writesToServer: server.writeCount,
    ...{ pings: server.pings, ...disk.callCounts },
  });
  const before = counts();
  for (let tenSeconds = 0; tenSeconds < 60; tenSeconds++) {
    await clock.advance(10_000);
    server.acknowledgeAll();
  }
  const after = counts();
  const { timersSet, ...cost } = Object.fromEntries(
    Object.entries(after).map(([name, n]) => [name, n - before[name as keyof typeof before]]),
  );
  const reports = 120;
  assert.deepEqual(cost, {
    // The tick, and that the report's time to go out has come.
    timersFired: 2 * reports,
    // A ping goes along with every other report.
    ...{ writesToServer: reports, pings: reports / 2 },
    // One call of the disk a report: every other one syncs, too. The acknowledgement is saved every five minutes.
    ...{ write: reports / 2, writeSynced: reports / 2, sync: 0, replace: 2 },
    ...{ list: 0, read: 0, truncate: 0, remove: 0 },
  });
  // Those two; and for every two reports one that syncs the first if no second comes, and two of the keep-alive.
  assert.ok(timersSet! <= 3.5 * reports + 2, `${timersSet} timers for ${reports} reports`);
  const stopped = agent.stop();
  await clock.advance(5000);
  await stopped;
});
