import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PoisonReports } from '../../../src/agent/uplink/poison.ts';

const report = (seq: number) => ({ epoch: 1, seq });

/** Connections one after another, each with the first report that the server lacks and the code with which it ends. */
function treatments(connections: readonly (readonly [seq: number, code: string, hasSent?: boolean])[]): string[] {
  const poison = new PoisonReports();
  return connections.map(([seq, code, hasSent = true]) => {
    const treatment = poison.begins(report(seq));
    poison.ended(code, hasSent);
    return treatment.kind === 'send' ? 'send' : `${treatment.kind} ${treatment.report.seq} (${treatment.code})`;
  });
}

test('a report after which the connection ends three times in a row is dropped', () => {
  assert.deepEqual(
    treatments([
      [7, 'internal'],
      [7, 'internal'],
      [7, 'internal'],
      [7, 'reset'],
      [8, 'reset'],
    ]),
    ['send', 'send', 'suspect 7 (internal)', 'drop 7 (internal)', 'send'],
  );
});

test('the server gets further, or the connection ends otherwise: it is not the same report, or not three in a row', () => {
  assert.deepEqual(
    treatments([
      [7, 'internal'],
      [9, 'internal'],
      [12, 'internal'],
      [12, 'reset'],
      [12, 'internal'],
      [12, 'internal'],
      [12, 'internal'],
      [12, 'reset'],
    ]),
    ['send', 'send', 'send', 'suspect 12 (internal)', 'send', 'send', 'suspect 12 (internal)', 'drop 12 (internal)'],
  );
});

test('a connection on which no report was sent says nothing of one', () => {
  assert.deepEqual(
    treatments([
      [7, 'internal', false],
      [7, 'internal', false],
      [7, 'internal'],
      [7, 'refused', false],
      [7, 'internal'],
    ]),
    ['send', 'send', 'send', 'send', 'send'],
  );
});

test('a step of the clock explains why the connection ended', () => {
  const poison = new PoisonReports();
  for (let time = 0; time < 5; time++) {
    poison.ended('clock', true);
    poison.clockStepped();
    assert.deepEqual(poison.begins(report(1)), { kind: 'send' });
  }
  assert.deepEqual(poison.dropped, []);
});
