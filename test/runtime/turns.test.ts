import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '../../src/runtime/turns.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

test('after a rest a burst at once, then at the rate; addresses take turns', async () => {
  const clock = new VirtualClock();
  const turns = new Turns({ clock, perSecond: 100, burst: 5 });
  const done: string[] = [];
  for (let at = 0; at < 1000; at++) turns.take('flood', () => done.push('flood'));
  assert.equal(done.length, 5);
  turns.take('honest', () => done.push('honest'));
  await clock.advance(100);
  assert.ok(done.includes('honest'), 'after at most one of the flood');
  await clock.advance(900);
  assert.ok(done.length >= 95 && done.length <= 107, `${done.length} in a second`);
  await clock.advance(20_000);
  assert.equal(done.length, 1001);
  await clock.advance(1000);
  turns.take('honest', () => done.push('again'));
  assert.equal(done.at(-1), 'again', 'without a timer');
});
