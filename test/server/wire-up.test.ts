import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../src/model/agent-id.ts';
import { ListenError } from '../../src/runtime/listen.ts';
import type { ScrapeConnection } from '../../src/server/delivery/scraper.ts';
import { noWebConfig } from '../../src/server/web/web-config-file.ts';
import { Server, type ServerParts } from '../../src/server/wire-up.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { serverSettings } from '../support/server-settings.ts';
import { settle, VirtualClock } from '../support/virtual-clock.ts';
import { MemoryState, TestAgent } from './delivery/delivery-harness.ts';

/** A server whose ports are opened and closed without a network; `events` says in which order. */
function wired(parts: Partial<ServerParts> = {}, clock = new VirtualClock()) {
  const log = new MemoryLog();
  const events: string[] = [];
  const disk = new MemoryState();
  disk.onWrite = () => events.push('written');
  const server = new Server({
    settings: serverSettings(),
    ...{ webConfig: { current: noWebConfig }, databases: new Map() },
    ...{ clock, log, random: Math.random, disk, boot: { bootMs: () => clock.monotonicMs() }, hostBoot: undefined },
    loop: { turn: () => settle(), next: (callback) => void clock.after(0, callback) },
    async listen() {
      events.push('agents open');
      return { port: 1, connections: 0, close: async () => void events.push('agents closed') };
    },
    async openWeb({ isReady }) {
      events.push('web open', isReady() ? 'ready' : 'not ready');
      return { ports: [2], close: async () => void events.push('web closed', isReady() ? 'ready' : 'not ready') };
    },
    ...parts,
  });
  return { clock, log, events, server };
}

test('the ports open, then it is ready; a stop closes them and writes what their ends have said', async () => {
  const { clock, events, server } = wired();
  assert.deepEqual(await server.start(), { agentsPort: 1, webPorts: [2] });
  assert.deepEqual(events, ['web open', 'not ready', 'agents open']);
  events.length = 0;
  assert.deepEqual(await server.stop(), { ended: 0 });
  assert.deepEqual(events, ['agents closed', 'web closed', 'ready', 'written']);
  assert.equal(clock.timers, 0);
});

test('an address that cannot be had names its option, and nothing stays open', async () => {
  const taken = new ListenError('EADDRINUSE', 'cannot listen on 192.0.2.1:9732: the port is taken by another program');
  const agents = wired({ listen: () => Promise.reject(taken) });
  await assert.rejects(agents.server.start(), /taken by another program; choose another with --listen$/);
  assert.deepEqual(agents.events.slice(0, 3), ['web open', 'not ready', 'web closed']);
  assert.equal(agents.clock.timers, 0);
  const web = wired({
    openWeb: () => Promise.reject(new ListenError('EACCES', 'cannot listen on :9733: privileges are needed')),
  });
  await assert.rejects(web.server.start(), /9733: privileges are needed; choose another with --web.listen-address$/);
  assert.ok(!web.events.includes('agents open'));
});

test('every ten seconds what is old goes; a bug in it is not swallowed', async () => {
  const { clock, server } = wired();
  let calls = 0;
  server.delivery.tidy = () => {
    if (++calls === 3) throw new Error('a bug');
  };
  await server.start();
  await clock.advance(29_999);
  assert.equal(calls, 2);
  await assert.rejects(clock.advance(1), /a bug/);
  await server.stop();
});

test('a report that leaves the window before its scraper has fetched it is logged, with the remedy', async () => {
  const { clock, log, server } = wired();
  const { delivery } = server;
  await server.start();
  const agent = new TestAgent({ clock, delivery }, agentId('web-1')!);
  const name = { space: 'param', text: 'prometheus-a' } as const;
  const connection = { address: '192.0.2.9' };
  const open = async () => (await delivery.openScrape({ name, selection: [], connection, timeoutMs: 10_000 }))!;
  for (let scrape = 0; scrape < 2; scrape++) {
    agent.report();
    (await open()).finish();
    await clock.advance(5000);
  }
  const lostMs = agent.report();
  // That scraper comes, and does not read its answer.
  await clock.advance(15 * 60_000);
  (await open()).abort();
  await clock.advance(14 * 60_000);
  log.lines.length = 0;
  await clock.advance(2 * 60_000);
  assert.deepEqual(
    log.lines.filter((line) => line.includes('fetched')),
    [
      `warn: dropped 1 report of 'web-1' of ${new Date(lostMs).toISOString()} that scraper 'prometheus-a' had not fetched: ` +
        'older than --window 30m; raise --window or scrape more often',
    ],
  );
  const dropped = /^sysmon_server_agent_reports_dropped_total\{agent="web-1",reason="age"\} 1$/m;
  for (let scrape = 0; scrape < 2; scrape++) assert.match(await server.metrics.text([]), dropped);
  await server.stop();
});

test('a Prometheus that was tried for a minute delays acks for a window, and is no reason for a warning', async () => {
  const { clock, log, server } = wired();
  const { delivery } = server;
  await server.start();
  const agent = new TestAgent({ clock, delivery }, agentId('web-1')!);
  const scrape = async (text: string, connection: ScrapeConnection) => {
    const name = { space: 'param', text } as const;
    const opening = delivery.openScrape({ name, selection: [], connection, timeoutMs: 10_000 });
    (await opening)!.finish();
  };
  const [steady, tried] = [{ address: '192.0.2.9' }, { address: '192.0.2.10' }];
  for (let at = 0; at < 2 * 60 * 4; at++) {
    agent.report();
    await scrape('steady', steady);
    if (at < 4) await scrape('tried', tried);
    await clock.advance(15_000);
    if (at !== 20) continue;
    assert.ok(agent.acked < 10, 'it may come back');
    assert.match(
      server
        .status()
        .scrapers.find(({ scraper }) => scraper === 'tried')!
        .problems.join(),
      /^it has not scraped for 5 min, and agents keep reports for it; if it is gone for good: /,
    );
  }
  delivery.tidy();
  assert.ok(agent.acked > 2 * 60 * 4 - 5);
  assert.deepEqual(
    log.lines.filter((line) => line.startsWith('warn')),
    [],
  );
  assert.deepEqual(server.status().scrapers.find(({ scraper }) => scraper === 'tried')?.problems, [
    'it has not scraped for 119 min, and nothing is held for it any more; if it is gone for good: sysmon-server forget-scraper tried',
  ]);
  await server.stop();
});

test('a Prometheus that is given another name holds nothing under the one before, also after a power cut, and nothing counts as lost', async () => {
  const clock = new VirtualClock();
  const parts = { disk: new MemoryState(), settings: { ...serverSettings(), stateDir: '/state' } };
  const everyMs = 15_000;
  const reports = (minutes: number) => (minutes * 60_000) / everyMs;
  // A reload of Prometheus keeps its connection.
  const connection = { address: '192.0.2.9' };
  const unnamed = { space: 'addr', text: '192.0.2.9' } as const;
  const named = { space: 'param', text: 'prometheus-a' } as const;
  for (const { minutes, from } of [
    { minutes: 81, from: reports(5) },
    { minutes: 60, from: 0 },
  ]) {
    const { log, server } = wired(parts, clock);
    const { delivery } = server;
    await server.start();
    const agent = new TestAgent({ clock, delivery }, agentId('web-1')!);
    for (let at = 0; at < reports(minutes); at++) {
      agent.report();
      const name = at < from ? unnamed : named;
      (await delivery.openScrape({ name, selection: [], connection, timeoutMs: 10_000 }))!.finish();
      await clock.advance(everyMs);
    }
    await settle();
    assert.ok(agent.acked > reports(minutes) - 5, `${agent.acked} of ${reports(minutes)} acknowledged`);
    assert.deepEqual(
      log.lines.filter((line) => line.startsWith('warn')),
      [],
    );
    assert.doesNotMatch(await server.metrics.text([]), /^sysmon_server_unscraped_reports_lost_total.* [^0]/m);
    const known = server.status().scrapers.filter((scraper) => scraper.known);
    assert.deepEqual(
      known.map(({ scraper }) => scraper),
      ['prometheus-a'],
    );
    // The power is cut: no stop.
  }
});

test('a scraper is forgotten at once: what was held for it is acknowledged; an unknown name lists the known ones', async () => {
  const { clock, log, server } = wired();
  const { delivery } = server;
  await server.start();
  const unknown = () => server.forgetScraper('gone');
  assert.throws(unknown, new Error("no scraper is named 'gone': no scraper has a cursor"));
  const agent = new TestAgent({ clock, delivery }, agentId('web-1')!);
  const connection = { address: '192.0.2.9' };
  const scrape = async (space: 'param' | 'user', text: string) => {
    const opening = delivery.openScrape({ name: { space, text }, selection: [], connection, timeoutMs: 10_000 });
    (await opening)!.finish();
  };
  await scrape('user', 'gone');
  for (let at = 0; at < 3; at++) {
    if (at === 1) agent.report();
    await scrape('param', 'steady');
    await clock.advance(1000);
  }
  await clock.advance(50_000);
  assert.equal(agent.acked, 0);
  assert.throws(unknown, new Error("no scraper is named 'gone': expected one of 'user/gone', 'steady'"));
  assert.deepEqual(server.forgetScraper('user/gone'), { cursors: 1, freedReports: 1 });
  await settle();
  assert.equal(agent.acked, 1);
  assert.equal(
    log.lines.at(-1),
    "info: scraper 'user/gone' is forgotten: 1 cursor removed, 1 report no longer held for it",
  );
  await server.stop();
});

test('the clock is set: whoever looks first, a scrape too, finds nothing old; positions and acks follow', async () => {
  for (const stepMs of [7_200_000, -7_200_000]) {
    const { clock, log, server } = wired();
    const { delivery } = server;
    await server.start();
    const agent = new TestAgent({ clock, delivery }, agentId('web-1')!);
    const name = { space: 'param', text: 'prometheus-a' } as const;
    const connection = { address: '192.0.2.9' };
    const open = async () => (await delivery.openScrape({ name, selection: [], connection, timeoutMs: 10_000 }))!;
    agent.report();
    (await open()).finish();
    await clock.advance(5000);
    (await open()).finish();
    const { drops } = agent.record;
    for (let report = 0; report < 3; report++) {
      agent.report();
      await clock.advance(1000);
    }
    clock.step(stepMs);
    (await open()).finish();
    assert.deepEqual(drops.all, [], 'it is not older by that');
    assert.equal(server.status().clock.steps, 1);
    const steps = log.lines.filter((line) =>
      /the clock of this host was set (forwards|back) by 7200.0 s; 0 conn/.test(line),
    );
    assert.equal(steps.length, 1, log.lines.join('\n'));
    // Of what was not acknowledged nothing is known any more: it comes again, and is given.
    assert.equal(agent.record.received?.seq, 1);
    await server.stop();
  }
});

test('a damaged file of cursors is logged once, and the server starts without it', async () => {
  const disk = new MemoryState();
  disk.text = '{"version":1,';
  const { log, server } = wired({ disk, settings: { ...serverSettings(), stateDir: '/state' } });
  await server.start();
  assert.deepEqual(log.lines, [
    "warn: '/state/cursors.json' is damaged (not JSON): starting without it, so some samples are scraped twice",
  ]);
  await server.stop();
});
