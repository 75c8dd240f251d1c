import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Agreement,
  type ClockStep,
  compare,
  offsetMeasured,
  offsetOfNext,
  type ServerAhead,
  ServerClock,
  serverAhead,
} from '../../../src/agent/uplink/clock-offset.ts';

test('a measurement is taken to the middle of its round trip; a slow one is not exact', () => {
  assert.deepEqual(serverAhead({ sentAtMs: 1000, receivedAtMs: 1400, serverMs: 51_200 }), {
    aheadMs: 50_000,
    errorMs: 200,
    isExact: true,
  });
  assert.equal(serverAhead({ sentAtMs: 1000, receivedAtMs: 2000, serverMs: 1000 }).isExact, true);
  assert.equal(serverAhead({ sentAtMs: 1000, receivedAtMs: 2001, serverMs: 1000 }).isExact, false);
});

const quick = (aheadMs: number): ServerAhead => ({ aheadMs, errorMs: 100, isExact: true });

/** What a server's clock is taken for, and measurements one after another. */
function compared(knownMs: number, measuredMs: readonly number[], before: Agreement = { kind: 'agreed' }): string[] {
  let agreement = before;
  return measuredMs.map((ms) => {
    const result: Agreement | ClockStep = compare(agreement, { usedMs: knownMs, measuredMs: knownMs }, quick(ms));
    if (result.kind !== 'stepped') {
      agreement = result;
      return result.kind;
    }
    return `stepped by ${result.byMs} to ${result.measured.aheadMs}`;
  });
}

test('what is within 2 s of the last one agrees', () => {
  assert.deepEqual(compared(10_000, [8000, 12_000, 10_000]), ['agreed', 'agreed', 'agreed']);
});

test('a contradiction counts when the next measurement repeats it', () => {
  assert.deepEqual(compared(0, [2001, 3000.4]), ['contradicted', 'stepped by 3000 to 3000.4']);
  assert.deepEqual(compared(0, [-7_200_000, -7_200_000]), ['contradicted', 'stepped by -7200000 to -7200000']);
});

test('one that is not repeated is forgotten, and one that is contradicted itself begins anew', () => {
  assert.deepEqual(compared(0, [5000, 0, 5000]), ['contradicted', 'agreed', 'contradicted']);
  assert.deepEqual(compared(0, [5000, 9000, 9000]), ['contradicted', 'contradicted', 'stepped by 9000 to 9000']);
});

test('a doubt of the server counts as the first contradiction, and as nothing where the next one agrees', () => {
  assert.deepEqual(compared(0, [5000], { kind: 'doubted' }), ['stepped by 5000 to 5000']);
  assert.deepEqual(compared(0, [1000, 5000], { kind: 'doubted' }), ['agreed', 'contradicted']);
});

test('a slow round trip shows a step that is larger than its own error', () => {
  const slow = (aheadMs: number): ServerAhead => ({ aheadMs, errorMs: 3000, isExact: false });
  const known = { usedMs: 0, measuredMs: 0 };
  assert.equal(compare({ kind: 'doubted' }, known, slow(5000)).kind, 'agreed');
  assert.equal(compare({ kind: 'doubted' }, known, slow(5001)).kind, 'stepped');
  assert.equal(compare({ kind: 'contradicted', measured: slow(60_000) }, known, slow(68_000)).kind, 'stepped');
  assert.equal(compare({ kind: 'contradicted', measured: slow(60_000) }, known, slow(68_001)).kind, 'contradicted');
});

test("a server's clock: contradicted, measured again, stepped; then agreed by what is known anew", () => {
  const server = new ServerClock();
  assert.equal(server.isAgreed, true);
  assert.equal(server.compare(0, quick(60_000)), undefined);
  assert.equal(server.isAgreed, false);
  assert.equal(server.compare(0, quick(60_000))?.byMs, 60_000);
  assert.equal(server.isAgreed, true);
  assert.equal(server.compare(60_000, quick(60_000)), undefined);
  server.doubt();
  assert.equal(server.isAgreed, false);
  assert.equal(server.compare(60_000, quick(60_100)), undefined);
  assert.equal(server.isAgreed, true);
});

test('a clock that is off by just what is ignored was not set when it is found a little further off', () => {
  const server = new ServerClock();
  server.fixed(quick(1999));
  for (const aheadMs of [2001, 2010, 3999, 0, -2000]) assert.equal(server.compare(0, quick(aheadMs)), undefined);
  assert.equal(server.isAgreed, true);
  assert.equal(server.compare(0, quick(4000)), undefined);
  assert.equal(server.isAgreed, false);
  assert.equal(server.compare(0, quick(4000))?.byMs, 4000);
  assert.equal(server.compare(4000, quick(5999)), undefined);
  assert.equal(server.isAgreed, true, 'the offsets are fixed by what was measured last');
});

test('an offset of up to 2 s is 0, and one that a slow round trip alone may have made', () => {
  assert.deepEqual(
    [0, 2000, 2001, -2000, -2001].map((aheadMs) => offsetMeasured(1000, quick(1000 + aheadMs))),
    [0, 0, 2001, 0, -2001],
  );
  const slow = (aheadMs: number): ServerAhead => ({ aheadMs, errorMs: 3000, isExact: false });
  assert.deepEqual(
    [5000, -5000, 5001, 60_000].map((aheadMs) => offsetMeasured(1000, slow(1000 + aheadMs))),
    [0, 0, 5001, 60_000],
  );
});

test("the next epoch carries the last one's offset on; what is measured may set times forwards alone", () => {
  const slow: ServerAhead = { aheadMs: 60_000, errorMs: 3000, isExact: false };
  assert.equal(offsetOfNext(5000, slow, 8000), 3000);
  assert.equal(offsetOfNext(5000, quick(6900), 8000), 3000, 'by itself no offset: times would go back by 3 s');
  assert.equal(offsetOfNext(5000, quick(8100), 8000), 3100);
  assert.equal(offsetOfNext(5000, quick(5500), 4500), 0);
  assert.equal(offsetOfNext(5000, quick(5500), 5050), 0, 'less than the shortest interval is no step back');
  assert.equal(offsetOfNext(5000, quick(5500), 5051), 51);
});
