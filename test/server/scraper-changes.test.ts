import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../src/model/agent-id.ts';
import { hostSourceName, streamId } from '../../src/model/source.ts';
import { onceAMinute } from '../../src/runtime/log.ts';
import { Cursor, losses } from '../../src/server/delivery/cursor.ts';
import { type CursorChange, Scraper } from '../../src/server/delivery/cursors.ts';
import { Registry, ServerMetrics } from '../../src/server/own-metrics.ts';
import { scraperChanged } from '../../src/server/scraper-changes.ts';
import { KnownScrapers } from '../../src/server/web/known-scrapers.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

const scraper = new Scraper({ space: 'param', text: 'p' });
const byAddress = new Scraper({ space: 'addr', text: '::1' });

function harness() {
  const log = new MemoryLog();
  const clock = new VirtualClock();
  const gauges = {
    ...{ agentsUp: 0, agentsDown: 0, agentsConnected: 0 },
    ...{ windowBytes: 0, windowBytesMax: 0, windowReports: 0, clockSteps: 0, drops: [], excesses: [] },
  };
  const metrics = new ServerMetrics(new Registry(), { version: '1', gauges: () => gauges });
  const seldom = onceAMinute(log, clock);
  const scrapers = new KnownScrapers({ clock, seldom, metrics });
  const change = (...changes: CursorChange[]) => {
    for (const each of changes) scraperChanged(each, { metrics, log, seldom, scrapers });
  };
  return { log, metrics, change };
}

test('what was not confirmed is counted by its kind, and nobody has to do anything about it', async () => {
  const { log, metrics, change } = harness();
  change(
    { kind: 'confirmed', scraper, by: 'connection', streams: [] },
    ...losses.map((how) => ({ kind: 'lost' as const, scraper, how })),
  );
  const text = await metrics.text([]);
  for (const [kind, count] of [
    ['aborted', 1],
    ['unconfirmed', 3],
    ['restart', 1],
    ['clock', 1],
    ['refused', 1],
  ] as const) {
    assert.ok(text.includes(`sysmon_server_scrape_rollbacks_total{kind="${kind}"} ${count}\n`), kind);
  }
  assert.deepEqual(log.lines, []);
});

test('what is assumed, and who is mixed up with whom, is counted and logged with the remedy', async () => {
  const { log, metrics, change } = harness();
  const stream = streamId(agentId('web-1')!, hostSourceName);
  const cursor = new Cursor('', '192.0.2.1', 0);
  const assumed = [{ stream, afterMs: 0, untilMs: Date.UTC(2026, 0, 1) }];
  change(
    { kind: 'assumed', scraper, cursor, assumed },
    { kind: 'conflict', scraper },
    { kind: 'another address', scraper, address: '192.0.2.2', before: '192.0.2.1' },
    { kind: 'address taken over', scraper: byAddress, from: '127.0.0.1' },
  );
  const text = await metrics.text([]);
  assert.match(text, /^sysmon_server_answers_assumed_total\{scraper="p"\} 1$/m);
  assert.match(text, /^sysmon_server_scraper_conflicts_total\{scraper="p"\} 1$/m);
  const [first, second, third, fourth] = log.lines;
  assert.match(first!, /^warn: .*'p'.* 1 agent .*2026-01-01T00:00:00\.000Z.* idle time-out/);
  assert.match(second!, /^warn: two connections scrape as 'p' at once.*params: \{scraper: \[NAME\]\}/);
  assert.match(third!, /^warn: scraper 'p' .*192\.0\.2\.2.*192\.0\.2\.1.*name of its own/);
  assert.match(fourth!, /^info: scraper 'addr\/::1' .*'127\.0\.0\.1'/);
  change({ kind: 'forgotten', scraper, selection: '', isLast: true });
  assert.doesNotMatch(await metrics.text([]), /scraper="p"/);
});
