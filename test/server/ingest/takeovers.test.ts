import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Takeovers } from '../../../src/server/ingest/takeovers.ts';

const minuteMs = 60_000;

/** What each connection stored, and whether the next one was allowed 10 s later. */
function takeovers(...connections: readonly (readonly number[])[]): string {
  const takeover = new Takeovers();
  return connections
    .map((epochs, at) => {
      for (const epoch of epochs) takeover.stored(epoch);
      return takeover.isAllowed(at * 10_000) ? 'yes' : 'no';
    })
    .join(' ');
}

test('by turns: each of two or three hosts stores what is new of its own epoch', () => {
  assert.equal(takeovers([1], [2], [1], [2], [2]), 'yes yes yes no no');
  assert.equal(takeovers([1], [2], [3], [1], [2]), 'yes yes yes no no');
  assert.equal(takeovers([1], [2], [], [], [1], []), 'yes yes yes yes no no', 'a host that was too slow to report');
});

test('no turns: one host whose agent is restarted, or that stores nothing', () => {
  assert.equal(takeovers([1], [1], [1], [1], [1], [1]), 'yes yes yes yes yes yes');
  assert.equal(takeovers([1], [2], [3], [4], [5], [6]), 'yes yes yes yes yes yes');
  assert.equal(takeovers([1, 2], [2], [2, 3], [3], [3, 4], [4]), 'yes yes yes yes yes yes');
  assert.equal(takeovers([], [], [], [], [], []), 'yes yes yes yes yes yes');
});

test('by turns, but rarely: allowed', () => {
  const takeover = new Takeovers();
  for (let time = 0; time < 10; time++) {
    takeover.stored(time % 2);
    assert.equal(takeover.isAllowed(time * 25_000), true);
  }
});

test('refused as long as the other tries at least every five minutes', () => {
  const takeover = new Takeovers();
  for (const epoch of [1, 2, 1]) {
    takeover.stored(epoch);
    assert.equal(takeover.isAllowed(0), true);
  }
  let nowMs = 1;
  for (; nowMs < 60 * minuteMs; nowMs += 5 * minuteMs - 1) assert.equal(takeover.isAllowed(nowMs), false);
  assert.equal(takeover.isAllowed(nowMs + 1), true);
});
