import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Drops, dropReasons, dropText } from '../../../src/server/delivery/drops.ts';

const bounds = { windowMs: 1_800_000, memoryBytesMax: 512 * 1024 ** 2 };
const now = Date.UTC(2026, 0, 2);
const at = Date.UTC(2026, 0, 1);

test('drops are counted by reason, with the times of the oldest and the newest', () => {
  const drops = new Drops();
  for (const ms of [5000, 10_000, 1000]) drops.add('too_old', ms, now);
  drops.add('memory', 7, now, ['a']);
  const none = new Set<string>();
  const all = [
    { reason: 'too_old', count: 3, firstMs: 1000, lastMs: 10_000, droppedMs: now, scrapers: none },
    { reason: 'memory', count: 1, firstMs: 7, lastMs: 7, droppedMs: now, scrapers: new Set(['a']) },
  ];
  assert.deepEqual(drops.all, all);
  assert.deepEqual(drops.takeRefused(), [all[0]], 'the agent is told what was refused');
  assert.deepEqual(drops.takeRefused(), []);
  drops.add('too_old', 20_000, now + 1);
  assert.deepEqual(drops.takeRefused(), [
    { reason: 'too_old', count: 1, firstMs: 20_000, lastMs: 20_000, droppedMs: now + 1, scrapers: none },
  ]);
  assert.deepEqual(drops.all[0], { ...all[0], count: 4, lastMs: 20_000, droppedMs: now + 1 });
  for (const scrapers of [['a'], ['b', 'a']]) drops.add('memory', 8, now, scrapers);
  assert.deepEqual(drops.all[1], { ...all[1], count: 3, lastMs: 8, scrapers: new Set(['a', 'b']) });
});

test('a reason has a line a minute, with all since the last one', () => {
  const drops = new Drops();
  drops.add('too_old', 1, now);
  assert.equal(drops.takeUnlogged(0).length, 1);
  assert.deepEqual(drops.takeUnlogged(0), []);
  drops.add('too_old', 2, now);
  drops.add('too_old', 3, now);
  drops.add('age', 4, now);
  assert.deepEqual(
    drops.takeUnlogged(59_999).map(({ reason }) => reason),
    ['age'],
  );
  assert.deepEqual(drops.takeUnlogged(60_000), [
    { reason: 'too_old', count: 2, firstMs: 2, lastMs: 3, droppedMs: now, scrapers: new Set() },
  ]);
  assert.deepEqual(drops.takeUnlogged(600_000), [], 'nothing new');
});

test('the line has the agent, the number, the times, the reason and the remedy', () => {
  const line = (reason: (typeof dropReasons)[number], count = 369, scrapers = ['prometheus-a']) =>
    dropText('web-1', { reason, count, firstMs: at, lastMs: at + 1_845_000, scrapers: new Set(scrapers) }, bounds);
  assert.equal(
    line('too_old'),
    "refused 369 reports of 'web-1' of 2026-01-01T00:00:00.000Z to 2026-01-01T00:30:45.000Z: older than --window 30m; " +
      'raise --window to take a longer backlog',
  );
  assert.equal(
    line('age', 1),
    "dropped 1 report of 'web-1' of 2026-01-01T00:00:00.000Z that scraper 'prometheus-a' had not fetched: older than --window 30m; " +
      'raise --window or scrape more often',
  );
  for (const reason of dropReasons) assert.match(line(reason), /^(refused|dropped) 369 reports of 'web-1' of .*: .*; /);
  assert.match(line('memory'), /fill --memory-max 512MiB; raise it/);
  assert.match(line('age', 2, ['b', 'a']), / that scrapers 'a' and 'b' had not fetched: /);
  assert.match(line('age', 2, ['e', 'd', 'c', 'b', 'a']), / that scrapers 'a', 'b', 'c' and 2 more had not fetched: /);
});
