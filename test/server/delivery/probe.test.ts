import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Probe } from '../../../src/server/delivery/probe.ts';

const wallMs = 1_700_000_000_000;
const at = (nowMs: number) => ({ nowMs, wallMs: wallMs + nowMs });
const stored = (probe: Probe, number: number, timesMs: readonly number[], nowMs: number, showsAfterMs = 0) =>
  probe.stored(new Set([number]), new Map([[number, new Set(timesMs)]]), { nowMs, showsAfterMs });
const fresh = { isKnown: false, isFailing: false, nowMs: 0 };

test('two samples, a second apart, in the first answer; nothing else is given until they are found', () => {
  const probe = new Probe();
  assert.equal(probe.gives(fresh), 'probe');
  const timesMs = probe.due(7, at(0));
  assert.deepEqual(timesMs, [wallMs - 2000, wallMs - 1000]);
  assert.equal(probe.due(8, at(1000)), undefined, 'one at a time');
  assert.equal(probe.gives({ ...fresh, nowMs: 29_999 }), 'probe');
  assert.equal(probe.gives({ ...fresh, isFailing: true }), 'reports');
  assert.equal(probe.gives({ ...fresh, nowMs: 30_000 }), 'reports', 'new data always flow');
  assert.equal(stored(probe, 6, timesMs!, 100), undefined, 'another answer');
  assert.equal(stored(probe, 7, timesMs!, 100), 'all');
  assert.equal(probe.gives(fresh), 'reports');
  assert.equal(probe.due(9, at(24 * 3_600_000)), undefined);
  assert.ok(probe.due(9, at(24 * 3_600_000 + 100)) !== undefined, 'a job may change');
});

test('one of them, or none at its time; it is looked at again after some minutes', () => {
  for (const [count, keeps, gives] of [
    [1, 'one', 'one report'],
    [0, 'none', 'newest'],
  ] as const) {
    const probe = new Probe();
    const timesMs = probe.due(7, at(0))!;
    assert.equal(stored(probe, 7, [...timesMs.slice(0, count), wallMs], 100), keeps);
    assert.equal(probe.gives({ ...fresh, isKnown: true }), gives);
    assert.equal(probe.due(8, at(299_000)), undefined);
    const again = probe.due(8, at(301_000))!;
    assert.equal(probe.gives(fresh), gives, 'until more is known');
    assert.equal(stored(probe, 8, again, 301_100), 'all');
    assert.equal(probe.gives(fresh), 'reports');
  }
});

test('a database that shows samples late has its time', () => {
  const probe = new Probe();
  const timesMs = probe.due(7, at(0))!;
  assert.equal(stored(probe, 7, timesMs.slice(1), 14_999, 15_000), undefined);
  assert.equal(probe.sentAtMs, 0);
  assert.equal(stored(probe, 7, timesMs, 15_000, 15_000), 'all');
  assert.equal(probe.sentAtMs, undefined);
});

test('a scraper that was given reports before goes on being given them; a probe that never comes is sent again', () => {
  const probe = new Probe();
  assert.equal(probe.gives({ ...fresh, isKnown: true }), 'reports');
  assert.ok(probe.due(7, at(0)) !== undefined);
  assert.equal(probe.due(8, at(299_999)), undefined);
  assert.ok(probe.due(8, at(300_000)) !== undefined);
});
