import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { agentId } from '../../../src/model/agent-id.ts';
import { hostSourceName, type StreamId, streamId } from '../../../src/model/source.ts';
import { Isolation } from '../../../src/server/delivery/isolation.ts';

const streams = Array.from({ length: 40 }, (_, at) => streamId(agentId(`a${at}`)!, hostSourceName));

test('while nothing is refused, nothing is withheld', () => {
  const isolation = new Isolation();
  assert.equal(isolation.withheld(streams, { nowMs: 0, turn: 1 }).size, 0);
  isolation.stored(streams);
  assert.equal(isolation.withheld(streams, { nowMs: 0, turn: 2 }).size, 0);
});

test('what is refused with others is given apart from them, half of it; they go on with every second answer', () => {
  const isolation = new Isolation();
  const [first, rest] = [streams.slice(0, 8), streams.slice(8)];
  assert.equal(isolation.refused(first, 0), undefined);
  const given = (turn: number) => {
    const withheld = isolation.withheld(streams, { nowMs: 0, turn });
    return streams.filter((stream) => !withheld.has(stream));
  };
  assert.deepEqual(given(1), first.slice(0, 4));
  assert.deepEqual(given(2), rest);
  isolation.stored(first.slice(0, 4));
  assert.deepEqual(given(2), [...first.slice(0, 4), ...rest]);
  assert.deepEqual(given(3), first.slice(4));
  isolation.refused(first.slice(4), 0);
  assert.deepEqual(given(3), first.slice(4, 6));
  isolation.refused(first.slice(4, 6), 0);
  assert.deepEqual(given(5), first.slice(4, 5));
  assert.equal(isolation.refused(first.slice(4, 5), 0), first[4]);
  assert.deepEqual(isolation.blocked, [first[4]]);
  assert.deepEqual(given(7), first.slice(5, 6));
  isolation.stored(first.slice(5, 6));
  assert.deepEqual(given(7), first.slice(6));
});

test('one that is refused alone is tried again, after longer each time, until it is stored or gone', () => {
  const isolation = new Isolation();
  const [bad, other] = [streams[0]!, streams[1]!];
  let nowMs = 0;
  const tries: number[] = [];
  for (let turn = 0; turn < 4 * 3600; turn++, nowMs += 1000) {
    const withheld = isolation.withheld([bad, other], { nowMs, turn });
    if (withheld.has(bad)) continue;
    if (turn > 0) assert.ok(withheld.has(other), 'alone');
    assert.equal(isolation.refused([bad], nowMs), bad);
    tries.push(nowMs / 60_000);
  }
  const pauses = tries.slice(1).map((minute, at) => Math.round(minute - tries[at]!));
  assert.deepEqual(pauses.slice(0, 6), [1, 2, 4, 8, 10, 10]);
  assert.deepEqual(isolation.blocked, [bad]);
  isolation.stored([bad]);
  assert.deepEqual(isolation.blocked, []);
  isolation.refused([bad], nowMs);
  isolation.forget(bad);
  assert.equal(isolation.withheld([bad, other], { nowMs, turn: 1 }).size, 0);
});

test('whoever is to blame, and however many: all others get on, and those are blocked', () => {
  const some = fc.uniqueArray(fc.integer({ min: 0, max: streams.length - 1 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(some, fc.integer({ min: 4, max: streams.length }), (bad, atOnce) => {
      const isolation = new Isolation();
      const guilty = new Set(bad.map((at) => streams[at]!));
      const stored = new Map<StreamId, number>();
      const since = (stream: StreamId) => stored.get(stream) ?? 0;
      for (let turn = 0; turn < 300; turn++) {
        const withheld = isolation.withheld(streams, { nowMs: turn * 100, turn });
        // Those that wait longest come first.
        const given = streams.filter((stream) => !withheld.has(stream)).sort((a, b) => since(a) - since(b));
        given.splice(atOnce);
        assert.ok(given.length > 0, 'an answer is never empty for it');
        if (given.some((stream) => guilty.has(stream))) isolation.refused(given, turn * 100);
        else {
          isolation.stored(given);
          for (const stream of given) stored.set(stream, turn);
        }
      }
      assert.deepEqual(new Set(isolation.blocked), guilty);
      const late = streams.filter((stream) => !guilty.has(stream) && since(stream) < 280);
      assert.deepEqual(late, []);
    }),
    { numRuns: 200 },
  );
});
