import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureLog } from '../../../src/agent/uplink/failure-log.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const minuteMs = 60_000;

function world() {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const failures = new FailureLog({ log, clock });
  /** Fails every 10 s for so long; the minutes in which a line was logged. */
  const fail = async (minutes: number, reason = 'refused'): Promise<number[]> => {
    const logged: number[] = [];
    for (let tries = 0; tries < minutes * 6; tries++) {
      const before = log.lines.length;
      failures.failed(reason, `cannot connect: ${reason}`);
      if (log.lines.length > before) logged.push(clock.monotonicMs() / minuteMs);
      await clock.advance(10_000);
    }
    return logged;
  };
  return { clock, log, failures, fail };
}

test('the first failure, one after 10 min, then one an hour, each with how many were omitted', async () => {
  const { log, fail } = world();
  assert.deepEqual(await fail(200), [0, 10, 70, 130, 190]);
  assert.deepEqual(log.lines.slice(0, 3), [
    'warn: cannot connect: refused',
    'warn: cannot connect: refused (59 more since the last line)',
    'warn: cannot connect: refused (359 more since the last line)',
  ]);
});

test('another reason is logged after a minute, and is rare from there on', async () => {
  const { fail } = world();
  await fail(0.5);
  assert.deepEqual(await fail(20, 'timeout'), [1, 11]);
});

test('an outage after another is logged at once, but not within a minute of the last line', async () => {
  const { clock, failures, fail } = world();
  await fail(0.5);
  assert.equal(failures.isFailureLogged, true);
  failures.succeeded();
  assert.equal(failures.isFailureLogged, false);
  assert.deepEqual(await fail(12), [1, 11]);
  failures.succeeded();
  await clock.advance(minuteMs);
  assert.deepEqual(await fail(1), [13.5]);
});

test('a try that a person asks for is logged if it fails, whatever was logged before; the next are rare as ever', async () => {
  const { failures, fail } = world();
  await fail(0.5);
  failures.asked();
  assert.equal(failures.isFailureLogged, true);
  assert.deepEqual(await fail(20, 'tls'), [0.5, 10.5]);
});

test('reasons that take turns: each once, and after 10 min and an hour, at most one a minute', async () => {
  const { clock, log, failures } = world();
  const logged: string[] = [];
  for (let tries = 0; tries < 75 * 6; tries++) {
    const reason = ['refused', 'timeout', 'resolve'][tries % 3]!;
    const before = log.lines.length;
    failures.failed(reason, reason);
    if (log.lines.length > before) logged.push(`${reason} ${Math.floor(clock.monotonicMs() / minuteMs)}`);
    await clock.advance(10_000);
  }
  assert.deepEqual(logged, [
    ...['refused 0', 'timeout 1', 'resolve 2', 'refused 10', 'timeout 11', 'resolve 12'],
    ...['refused 70', 'timeout 71', 'resolve 72'],
  ]);
});
