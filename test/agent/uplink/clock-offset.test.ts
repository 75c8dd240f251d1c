import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Agreement,
  type ClockStep,
  compare,
  offsetMeasured,
  offsetOfNext,
  serverAheadMs,
} from '../../../src/agent/uplink/clock-offset.ts';

test('a measurement is taken to the middle of its round trip; a slow one tells nothing', () => {
  assert.equal(serverAheadMs({ sentAtMs: 1000, receivedAtMs: 1400, serverMs: 51_200 }), 50_000);
  assert.equal(serverAheadMs({ sentAtMs: 1000, receivedAtMs: 2000, serverMs: 1000 }), -500);
  assert.equal(serverAheadMs({ sentAtMs: 1000, receivedAtMs: 2001, serverMs: 1000 }), undefined);
});

/** What a server's clock is taken for, and measurements one after another. */
function compared(knownMs: number, measuredMs: readonly number[], before: Agreement = { kind: 'agreed' }): string[] {
  let agreement = before;
  return measuredMs.map((ms) => {
    const result: Agreement | ClockStep = compare(agreement, knownMs, ms);
    if (result.kind !== 'stepped') {
      agreement = result;
      return result.kind;
    }
    return `stepped by ${result.byMs} to ${result.aheadMs}`;
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

test('an offset of up to 2 s is 0', () => {
  assert.deepEqual(
    [0, 1999.6, 2000.4, 2001, -2000, -2001].map((aheadMs) => offsetMeasured(1000, 1000 + aheadMs)),
    [0, 0, 0, 2001, 0, -2001],
  );
});

test("the next epoch carries the last one's offset on; what is measured may set times forwards alone", () => {
  assert.equal(offsetOfNext(5000, undefined, 8000), 3000);
  assert.equal(offsetOfNext(5000, 6900, 8000), 3000, 'by itself that would be no offset: times would go back by 3 s');
  assert.equal(offsetOfNext(5000, 8100, 8000), 3100);
  assert.equal(offsetOfNext(5000, 5500, 4500), 0);
});
