import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../src/model/agent-id.ts';
import { hostSourceName, streamId } from '../../src/model/source.ts';
import { onceAMinute } from '../../src/runtime/log.ts';
import { Cursor, losses } from '../../src/server/delivery/cursor.ts';
import { type CursorChange, Scraper } from '../../src/server/delivery/cursors.ts';
import { Receipts } from '../../src/server/delivery/receipts.ts';
import { Registry, ServerMetrics } from '../../src/server/own-metrics.ts';
import { receiptQuestion, scraperChanged } from '../../src/server/scraper-changes.ts';
import { KnownScrapers } from '../../src/server/web/known-scrapers.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { VirtualDatabase } from '../support/virtual-database.ts';

const scraper = new Scraper({ space: 'param', text: 'p' });
const byAddress = new Scraper({ space: 'addr', text: '::1' });

function harness() {
  const log = new MemoryLog();
  const clock = new VirtualClock();
  const gauges = {
    ...{ agentsUp: 0, agentsDown: 0, agentsConnected: 0, agentsRetiringKey: 0 },
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
    ['unconfirmed', 4],
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

test('an answer that was refused is logged with its reason, and what is given next', async () => {
  const { log, metrics, change } = harness();
  const refused = {
    kind: 'refused',
    scraper,
    number: 4711,
    samples: 4000,
    nextSamplesMax: 2000,
    blocked: undefined,
  } as const;
  change({ ...refused, why: 'sample limit exceeded' });
  change({ ...refused, why: 'body size limit exceeded' });
  assert.deepEqual(log.lines, [
    "warn: Prometheus 'p' read answer 4711 of 4000 samples and did not store it: sample limit exceeded; giving it again " +
      'in parts of at most 2000 samples',
  ]);
  log.lines.length = 0;
  const stream = streamId(agentId('web-1')!, hostSourceName);
  change({ ...refused, why: 'label_limit exceeded', blocked: stream });
  assert.match(
    log.lines[0]!,
    /: label_limit exceeded; it had nothing but 'web-1', which waits from now on .*: raise that limit/,
  );
  assert.ok((await metrics.text([])).includes('sysmon_server_receipts_total{scraper="p",outcome="refused"} 3\n'));
});

test('a refusal without a reason asks for the likeliest one', () => {
  const { log, change } = harness();
  const blocked = undefined;
  change({ kind: 'refused', scraper, number: 1, samples: 5, nextSamplesMax: 2, why: undefined, blocked });
  assert.match(
    log.lines[0]!,
    /^warn: Prometheus 'p' has not stored answer 1 of 5 samples, and does not say why \(another program .*\); giving/,
  );
});

test('a database that does not answer: a line at the second time, after 10 min, then each hour; and one when it answers', async () => {
  const { log, metrics } = harness();
  const clock = new VirtualClock();
  const database = new VirtualDatabase(clock);
  database.isDown = true;
  const name = { space: 'param', text: 'prometheus-a' } as const;
  const databases = new Map([['prometheus-a', database]]);
  const receipts = new Receipts({
    ...{ clock, databases, serverId: () => '', oldestUnknownMs: () => 0, hasProbe: () => false, onStored: () => {} },
    onEvent: (of, event) => receiptQuestion(of, event, { metrics, log, databases }),
  });
  receipts.of(name)!.sent();
  await clock.advance(101);
  await clock.advance(2);
  assert.deepEqual(log.lines, []);
  await clock.advance(3 * 3_600_000);
  assert.equal(log.lines.length, 4);
  assert.match(
    log.lines[0]!,
    /^warn: Prometheus 'prometheus-a' at http:\/\/192\.0\.2\.9:9090 does not say which answers it has stored: connect ECONNREFUSED; nothing that it scrapes is confirmed/,
  );
  assert.match(log.lines[1]!, / does not say for 10 min which /);
  assert.match(log.lines[2]!, / does not say for 60 min which /);
  assert.match(log.lines[3]!, / does not say for 2 h which /);
  database.isDown = false;
  await clock.advance(40_000);
  assert.equal(log.lines[4], "info: Prometheus 'prometheus-a' at http://192.0.2.9:9090 answers again");
  receipts.stop();
  assert.equal(clock.timers, 0);
  assert.ok(database.isStopped);
});
