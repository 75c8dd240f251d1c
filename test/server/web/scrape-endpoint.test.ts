import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { Labels } from '../../../src/model/source.ts';
import { samplesMaxDefault } from '../../../src/server/delivery/cursor.ts';
import { scrapersMax } from '../../../src/server/delivery/cursors.ts';
import { serverStatus } from '../../../src/server/status.ts';
import { identify } from '../../../src/server/web/identify.ts';
import { type AnswerSink, ScrapeEndpoint } from '../../../src/server/web/scrape-endpoint.ts';
import { beginOf } from '../../support/groups.ts';
import { settle } from '../../support/virtual-clock.ts';
import { VirtualDatabase } from '../../support/virtual-database.ts';
import { connect, timeoutMs } from '../delivery/cursors-harness.ts';
import { ReportMaker, testSchema } from '../delivery/report-maker.ts';
import {
  bigAgent,
  HttpHarness,
  minutes,
  readAll,
  samplesOf,
  scrapeHeaders,
  scrapeText,
  until,
  withHttp,
} from './http-harness.ts';

test('without the header: the newest values, no timestamps, and nothing is taken', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    agent.report();
    agent.report(world.clock.nowMs() + 1);
    await world.clock.advance(1);
    const client = world.client();
    for (let look = 0; look < 2; look++) {
      assert.deepEqual(samplesOf((await client.get('/metrics')).text), ['a 1']);
      assert.deepEqual(samplesOf((await client.get('/metrics?timestamps=0', scrapeHeaders)).text), ['a 1']);
    }
    await client.get('/metrics', scrapeHeaders, 'HEAD');
    assert.deepEqual([...world.delivery.scrapers], []);
    for (const seconds of ['0', '-1', 'x', '', '3601', 'Infinity', 'NaN']) {
      const answer = await client.get('/metrics', { 'X-Prometheus-Scrape-Timeout-Seconds': seconds });
      assert.deepEqual(samplesOf(answer.text), ['a 1'], seconds);
    }
    await world.clock.advance(60_000);
    const down = (await client.get('/metrics')).text;
    assert.deepEqual(samplesOf(down), []);
    assert.match(down, /\nsysmon_agent_up\{agent="a"\} 0\n/);
  }));

test('with the header: each report once, with its time; then the newest again, until the agent is down', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const nowMs = world.clock.nowMs();
    for (const ageMs of [10_000, 5000, 0]) agent.report(nowMs - ageMs);
    const client = world.client();
    const times = [10_000, 5000, 0].map((ageMs) => nowMs - ageMs);
    assert.deepEqual(
      await client.scrape(),
      times.map((ms, report) => `a ${report} ${ms}`),
    );
    assert.deepEqual(await client.scrape(), [`a 2 ${nowMs}`]);
    await world.clock.advance(5000);
    agent.report();
    assert.deepEqual(await client.scrape(), [`a 3 ${nowMs + 5000}`]);
    await world.clock.advance(20_001);
    const { text } = await client.get('/metrics', scrapeHeaders);
    assert.deepEqual(samplesOf(text), []);
    assert.match(text, /\nsysmon_agent_up\{agent="a"\} 0\n/);
    assert.equal(client.connections, 1);
    assert.equal(await world.own('sysmon_server_scrapes_total{outcome="finished"}'), 4);
  }));

test('what is new of an agent that is down is given all the same', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const ms = agent.report();
    await world.clock.advance(minutes(1));
    assert.deepEqual(await world.client().scrape(), [`a 0 ${ms}`]);
  }));

test('gzip where it is accepted, the same text', () =>
  withHttp(async (world) => {
    bigAgent(world, 3);
    const plain = await world.client().get('/metrics?scraper=plain', scrapeHeaders);
    const gzipped = await world
      .client()
      .get('/metrics?scraper=gzip', { ...scrapeHeaders, 'Accept-Encoding': 'br, gzip' });
    assert.equal(plain.headers['content-encoding'], undefined);
    assert.equal(gzipped.headers['content-encoding'], 'gzip');
    assert.equal(gzipped.headers.vary, 'Accept-Encoding');
    const samples = (text: string) => text.split('\n').filter((line) => line.includes('test_value'));
    assert.equal(samples(plain.text).length, 60_002);
    assert.deepEqual(samples(gzipped.text), samples(plain.text));
  }));

test('with compression off nobody gets gzip, neither a scraper nor a page', () =>
  withHttp(
    async (world) => {
      world.connect('a').report();
      for (const path of ['/metrics?scraper=a', '/metrics', '/']) {
        const { code, headers } = await world.client().get(path, { ...scrapeHeaders, 'Accept-Encoding': 'gzip' });
        assert.deepEqual([code, headers['content-encoding']], [200, undefined], path);
      }
    },
    { compression: false },
  ));

test("the body ends with the server's own metrics; each family stands in one piece", () =>
  withHttp(async (world) => {
    world.connect('a').report();
    world.connect('b').report();
    const { text } = await world.client().get('/metrics', scrapeHeaders);
    const families = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
    assert.equal(new Set(families).size, families.length);
    assert.equal(families[0], 'test_value');
    assert.ok(families.includes('sysmon_server_agents'));
    assert.match(text, /\nsysmon_agent_up\{agent="a"\} 1\nsysmon_agent_up\{agent="b"\} 1\n/);
    assert.match(text, /\nsysmon_server_agents\{state="up"\} 2\n/);
    assert.ok(text.endsWith('\n'));
  }));

test('each source of an agent has its series and its sysmon_agent_up, with its labels', () =>
  withHttp(async (world) => {
    const { store } = world.delivery;
    const { record } = world.connect('a');
    const nowMs = world.clock.nowMs();
    const report = (name: string, source: number, labels: Labels, seq: number, timeMs: number) => {
      const begin = beginOf({ source, name, labels });
      const made = new ReportMaker({ schema: testSchema(1) }).make(timeMs, [seq]);
      return store.receive(store.begin(record, begin).stream, { ...made, labels, seq });
    };
    assert.equal(report('host', 0, [['rack', 'b "7"']], 1, nowMs), 'stored');
    assert.equal(report('redis', 1, [['tier', 'db']], 2, nowMs - 1), 'stored');
    assert.equal(report('nginx', 2, [], 3, nowMs - 1), 'stored');
    assert.equal(report('nginx', 2, [], 4, nowMs - 1), 'not_newer');
    const { text } = await world.client().get('/metrics', scrapeHeaders);
    const lines = text.split('\n').filter((line) => /^(test_value|sysmon_agent_up)/.test(line));
    assert.deepEqual(lines, [
      `test_value{agent="a",series="s0",rack="b \\"7\\""} 1 ${nowMs}`,
      `test_value{agent="a",source="redis",series="s0",tier="db"} 2 ${nowMs - 1}`,
      `test_value{agent="a",source="nginx",series="s0"} 3 ${nowMs - 1}`,
      'sysmon_agent_up{agent="a",rack="b \\"7\\""} 1',
      'sysmon_agent_up{agent="a",source="redis",tier="db"} 1',
      'sysmon_agent_up{agent="a",source="nginx"} 0',
    ]);
  }));

test('how late the newest report of an agent came, as of the scrape, while it is up', () =>
  withHttp(async (world) => {
    const [late, punctual] = ['late', 'punctual'].map((name) => world.connect(name));
    const lags = async () => {
      const text = (await world.client().get('/metrics', scrapeHeaders)).text;
      return text.split('\n').filter((line) => line.startsWith('sysmon_server_agent_lag_seconds'));
    };
    assert.deepEqual(await lags(), []);
    late!.report(world.clock.nowMs() - 400_000);
    punctual!.report(world.clock.nowMs() - 260);
    const lag = (name: string) => `sysmon_server_agent_lag_seconds{agent="${name}"}`;
    assert.deepEqual(await lags(), [`${lag('late')} 400`, `${lag('punctual')} 0.3`]);
    await world.clock.advance(5000);
    assert.deepEqual(await lags(), [`${lag('late')} 400`, `${lag('punctual')} 0.3`], 'that none comes is no lag');
    late!.report(world.clock.nowMs() - 399_000);
    punctual!.report(world.clock.nowMs() + 900);
    assert.deepEqual(await lags(), [`${lag('late')} 399`, `${lag('punctual')} 0`], 'a clock that is ahead is none');
    await world.clock.advance(60_000);
    assert.deepEqual(await lags(), [], 'both are down');
  }));

test('a restart of the server is no outage of its agents: they have no sysmon_agent_up until they are back', () =>
  withHttp(async (world) => {
    const agents = ['down', 'a', 'gone'].map((name) => world.connect(name));
    agents[0]!.report();
    await world.clock.advance(90_000);
    for (const agent of agents.slice(1)) agent.report();
    const up = async () => {
      const text = (await world.client().get('/metrics', scrapeHeaders)).text;
      return text.split('\n').filter((line) => line.startsWith('sysmon_agent_up'));
    };
    const [down, a, gone] = ['down', 'a', 'gone'].map((name) => `sysmon_agent_up{agent="${name}"}`);
    assert.deepEqual(await up(), [`${down} 0`, `${a} 1`, `${gone} 1`]);
    await world.clock.advance(1);

    world.restart();
    await world.close();
    await world.listen();
    assert.deepEqual(await up(), [`${down} 0`]);
    await world.clock.advance(30_000);
    agents[1]!.reconnect().report();
    assert.deepEqual((await up()).sort(), [`${a} 1`, `${down} 0`]);
    await world.clock.advance(30_000);
    assert.deepEqual((await up()).sort(), [`${a} 0`, `${down} 0`, `${gone} 0`]);
  }));

test('agent= selects one agent, with a cursor of its own', () =>
  withHttp(async (world) => {
    const ms = world.connect('a').report();
    world.connect('b').report();
    const client = world.client();
    assert.deepEqual(await client.scrape('?agent=b'), [`b 0 ${ms}`]);
    const { text } = await client.get('/metrics?agent=b', scrapeHeaders);
    assert.match(text, /sysmon_agent_up\{agent="b"\} 1/);
    assert.doesNotMatch(text, /agent="a"/);
    assert.deepEqual(await client.scrape(), [`a 0 ${ms}`, `b 0 ${ms}`]);
    const answer = await client.get('/metrics?agent=a&agent=nobody', scrapeHeaders);
    assert.deepEqual([answer.code, answer.text], [404, "no agent named 'nobody' is known\n"]);
  }));

test('max= is a maximum: who waits comes first with the next scrape, and then what is left', () =>
  withHttp(async (world) => {
    const nowMs = world.clock.nowMs();
    for (const name of ['a', 'b']) {
      const agent = world.connect(name);
      for (const ageMs of [3, 2, 1]) agent.report(nowMs - ageMs);
    }
    const client = world.client();
    assert.deepEqual(await client.scrape('?max=1'), [`a 0 ${nowMs - 3}`]);
    assert.equal(await world.own('sysmon_server_scrape_backlog_reports{scraper="addr/127.0.0.1",selection=""}'), 5);
    assert.deepEqual(await client.scrape('?max=1'), [`b 0 ${nowMs - 3}`]);
    assert.equal(await world.own('sysmon_server_scrape_backlog_reports{scraper="addr/127.0.0.1",selection=""}'), 4);
    assert.deepEqual(await client.scrape('?max=3'), [`a 1 ${nowMs - 2}`, `a 2 ${nowMs - 1}`, `b 1 ${nowMs - 2}`]);
    assert.deepEqual(await client.scrape(), [`a 2 ${nowMs - 1}`, `b 2 ${nowMs - 1}`]);
    assert.equal(await world.own('sysmon_server_scrape_backlog_reports{scraper="addr/127.0.0.1",selection=""}'), 0);
    assert.equal((await client.get('/metrics?max=10000000', scrapeHeaders)).code, 200);
  }));

test('a scraper is its address, or the name that it gives', () =>
  withHttp(async (world) => {
    const ms = world.connect('a').report();
    const agentLine = `a 0 ${ms}`;
    const [one, two, unnamed] = [world.client(), world.client(), world.client()];
    for (const [client, query] of [
      [one, '?scraper=one'],
      [two, '?scraper=two'],
      [unnamed, ''],
    ] as const) {
      assert.deepEqual(await client.scrape(query), [agentLine]);
    }
    assert.deepEqual(
      [...world.delivery.scrapers].map(({ name }) => name.text),
      ['one', 'two', '127.0.0.1'],
    );
  }));

test('a download that the client breaks off rolls back', () =>
  withHttp(async (world) => {
    bigAgent(world, 20);
    for (const headers of [scrapeHeaders, { ...scrapeHeaders, 'Accept-Encoding': 'gzip' }]) {
      world.events.length = 0;
      const client = world.client();
      const sent = client.request('/metrics', headers);
      sent.on('error', () => {}); // by the break
      sent.on('response', (response) => response.once('data', () => client.destroy()));
      sent.end();
      await until(() => world.count('lost aborted') === 1);
      assert.equal(world.count('confirmed'), 0);
    }
    assert.equal(await world.own('sysmon_server_scrapes_total{outcome="aborted"}'), 2);
    const { text } = await world.client().get('/metrics?scraper=other&max=10000000', scrapeHeaders);
    assert.equal([...text.matchAll(/^test_value/gm)].length, samplesMaxDefault, 'max= is a maximum, not a wish');
    assert.equal(world.clock.timers, 0, 'the deadlines are gone');
  }));

test('a client that does not read is cut 2 s after its own deadline, and the scrape rolls back', () =>
  withHttp(async (world) => {
    bigAgent(world, 20);
    const head = scrapeText.replace('/metrics', '/metrics?max=10000000').replace(/\r\n$/, '');
    for (const accept of ['', 'Accept-Encoding: identity\r\n']) {
      const socket = world.raw(`${head}${accept}\r\n`);
      await once(socket, 'readable');
      await world.clock.advance(timeoutMs + 1999);
      assert.equal(world.count('lost aborted'), 0);
      await world.clock.advance(1);
      await until(() => world.count('lost aborted') === 1);
      world.events.length = 0;
      socket.destroy();
    }
    assert.equal(world.clock.timers, 0);
  }));

test('a client that looks and does not read is cut after a minute', () =>
  withHttp(async (world) => {
    bigAgent(world, 1);
    // Without a header one report is all that there is: so many that the kernel does not take them all.
    const socket = world.raw('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(20));
    await once(socket, 'readable');
    let closed = false;
    socket.once('close', () => {
      closed = true;
    });
    for (let look = 0; look < 20; look++) await settle();
    await world.clock.advance(60_000);
    socket.resume();
    await until(() => closed);
  }));

test('the 33rd name gets the newest values, without timestamps, and it is logged', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    for (let name = 0; name < scrapersMax; name++) {
      const connection = connect();
      await world.scrape(connection, { name: `p${name}` });
    }
    assert.deepEqual(await world.client().scrape('?scraper=late'), ['a 0']);
    assert.equal(await world.own('sysmon_server_scraper_names_refused_total'), 1);
    assert.equal(world.warnings.length, 1);
    assert.match(world.warnings[0]!, /scraper 'late' gets the newest values only: 32 scraper names are in use/);
  }));

test('a long selection has a short name in the answers to all, and too many get the newest values', () =>
  withHttp(async (world) => {
    const names = Array.from({ length: 60 }, (_, at) => `host-number-${at}`);
    for (const name of names) world.connect(name).report();
    const query = (left: number) =>
      names
        .toSpliced(left, 1)
        .map((name) => `agent=${name}`)
        .join('&');
    const client = world.client();
    for (let left = 0; left < 5; left++) await client.get(`/metrics?scraper=z&${query(left)}`, scrapeHeaders);
    assert.equal(await world.own('sysmon_server_scraper_names_refused_total'), 1);
    assert.match(world.warnings.join('\n'), /scraper 'z' gets the newest values only: its selections .* too many/);
    await client.get('/metrics?scraper=z&agent=host-number-1', scrapeHeaders);
    const { text } = await client.get('/metrics?scraper=p', scrapeHeaders);
    const values = [...text.matchAll(/selection="([^"]*)"/g)].map(([, value]) => value!);
    assert.ok(values.includes('host-number-1'));
    assert.equal(new Set(values.filter((value) => /^59 agents, [0-9a-f]{12}$/.test(value))).size, 4);
    assert.ok(Math.max(...values.map(({ length }) => length)) <= 64);
    world.delivery.forgetScraper({ space: 'param', text: 'z' });
    assert.doesNotMatch((await client.get('/metrics?scraper=p', scrapeHeaders)).text, /scraper="z"/);
  }));

test('scrapes that are rarer than reports, and reports that are rare, are warned of', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const client = world.client();
    agent.report();
    await client.scrape();
    await world.clock.advance(5000);
    await client.scrape();
    assert.equal(world.warnings.length, 0);
    await world.clock.advance(15_000);
    agent.report();
    await client.scrape();
    assert.equal(world.warnings.length, 0, 'a scrape may have been missed');
    await world.clock.advance(15_000);
    agent.report();
    await client.scrape();
    assert.match(world.warnings[0]!, /^scraper 'addr\/127.0.0.1' scrapes every 15 s, agent 'a' reports every 5 s: /);
    agent.record.host.intervalMs = 150_000;
    await client.scrape();
    assert.match(world.warnings[1]!, /^agent 'a' reports every 150 s: Prometheus looks back 5 min/);
    // After a long break Prometheus was away, rather than slow.
    await world.clock.advance(minutes(6));
    agent.record.host.intervalMs = 5000;
    agent.report();
    await client.scrape();
    assert.equal(world.warnings.length, 2);
  }));

test('that scrapes are rarer than reports is said at first, and once a day', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const client = world.client();
    const scrapes = async (count: number) => {
      for (let scrape = 0; scrape < count; scrape++) {
        agent.report();
        await client.scrape();
        await world.clock.advance(15_000);
      }
    };
    const count = () =>
      world.warnings.filter((line) => line.startsWith("scraper 'addr/127.0.0.1' scrapes every 15 s")).length;
    await scrapes(20);
    assert.equal(count(), 1);
    await world.clock.advance(minutes(23 * 60));
    await scrapes(5);
    assert.equal(count(), 1);
    await world.clock.advance(minutes(60));
    await scrapes(5);
    assert.equal(count(), 2);
  }));

test('an answer with a probe alone has no label of an agent, for which it could be refused', () =>
  withHttp(async (world) => {
    const database = new VirtualDatabase(world.clock);
    database.answerMs = 0;
    world.databases.set('p', database);
    world.restart();
    world.connect('a').report();
    await world.close();
    await world.listen();
    const answer = async () => (await world.client().get('/metrics?scraper=p', scrapeHeaders)).text;
    const probe = await answer();
    assert.match(probe, /\nsysmon_server_probe\{/);
    assert.doesNotMatch(probe, /agent="a"|sysmon_agent_up/);
    assert.match(
      (await world.client().get('/metrics?scraper=q', scrapeHeaders)).text,
      /sysmon_agent_up\{agent="a"\} 1/,
    );
  }));

test('where receipts confirm, each answer has its number, and the log and a metric say so', () =>
  withHttp(async (world) => {
    const database = new VirtualDatabase(world.clock);
    database.answerMs = 0;
    database.isDown = true;
    world.databases.set('p', database);
    world.restart();
    world.connect('a').report();
    await world.close();
    await world.listen();
    const client = world.client();
    const numberIn = async (query: string, labels: string) => {
      const { text } = await client.get(`/metrics${query}`, { ...scrapeHeaders, Via: '1.1 x' });
      const found = new RegExp(
        `^# TYPE sysmon_server_answer gauge\\nsysmon_server_answer\\{${labels}\\} (\\d+)$`,
        'm',
      ).exec(text);
      assert.ok(found, text);
      return Number(found[1]);
    };
    const labels = `scraper="p",server_id="${world.delivery.serverId}"`;
    const first = await numberIn('?scraper=p', labels);
    const second = await numberIn('?scraper=p&agent=a', `${labels},selection="a"`);
    assert.equal(second, first + 1);
    assert.doesNotMatch((await client.get('/metrics?scraper=q', scrapeHeaders)).text, /sysmon_server_answer\{/);
    assert.doesNotMatch((await client.get('/metrics?scraper=p')).text, /sysmon_server_answer\{/, 'a person');
    const info = 'scraper="p",program="Prometheus",version="3.5.0",via="proxy",confirmed_by="receipt"';
    assert.equal(await world.own(`sysmon_server_scraper_info{${info}}`), 1);
    assert.deepEqual(world.warnings, [], 'a proxy does no harm');
    assert.ok(
      world.log.lines.some((line) =>
        /^info: scraper 'p' .*; its own API confirms what it has stored of an answer/.test(line),
      ),
      world.log.lines.join('\n'),
    );
    const [one] = serverStatus(world.status).scrapers;
    assert.equal(one?.confirmedBy, 'receipt');
    world.delivery.stop();
  }));

test('what is shown by scraper goes with the scraper', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const client = world.client();
    await client.scrape('?scraper=gone');
    const backlog = 'sysmon_server_scrape_backlog_reports{scraper="gone",selection=""}';
    assert.equal(await world.own(backlog), 0);
    client.destroy();
    await until(() => world.count('lost at once') === 1);
    await world.clock.advance(minutes(24 * 60 + 1));
    world.delivery.tidy();
    assert.equal(await world.own(backlog), undefined);
  }));

test('what is too old to arrive in time is passed over and counted once', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const client = world.client();
    await client.scrape();
    const oldMs = agent.report();
    await world.clock.advance(minutes(30) - 15_000);
    const lost = 'sysmon_server_unscraped_reports_lost_total{reason="age"}';
    for (let scrape = 0; scrape < 3; scrape++) {
      assert.deepEqual(await client.scrape(), []);
      await world.clock.advance(1000);
    }
    assert.equal(await world.own(lost), 1);
    await client.scrape();
    assert.ok(agent.record.host.window.reportCount === 1 && agent.record.host.window.oldestMs === oldMs);
    await world.clock.advance(minutes(1));
    world.delivery.tidy();
    assert.equal(world.count('evicted age'), 1);
    assert.equal(world.count('evicted age unscraped'), 0);
  }));

/** An answer whose reader takes nothing, or all, as the test says. */
class TestSink implements AnswerSink {
  text = '';
  code = 0;
  isLost = false;
  /** A slice is taken at once. */
  isRead = true;
  sentBytes = 0;
  readonly ended: Promise<'sent' | 'lost'>;
  #end: (how: 'sent' | 'lost') => void = () => {};
  #drain: () => void = () => {};

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  refuse(code: number, text: string): void {
    this.code = code;
    this.text = text;
    this.#end('sent');
  }

  begin(): void {
    this.code = 200;
  }

  write(slice: Uint8Array, onFree: () => void): boolean {
    this.text += Buffer.from(slice).toString();
    onFree();
    if (this.isRead) this.sentBytes += slice.length;
    return this.isRead;
  }

  drained(): Promise<void> {
    return Promise.race([
      new Promise<void>((resolve) => {
        this.#drain = resolve;
      }),
      this.ended.then(() => {}),
    ]);
  }

  finish(text: string): void {
    this.text += text;
    if (this.isRead) this.#end('sent');
  }

  cut(): void {
    this.isLost = true;
    this.#end('lost');
  }

  read(): void {
    this.isRead = true;
    this.#drain();
  }
}

/** Of a reader as fast as the kernel of the same host: a slice is always more than fits, and is taken before the loop turns. */
class FastSink extends TestSink {
  slices = 0;

  override write(slice: Uint8Array, onFree: () => void): boolean {
    this.slices++;
    super.write(slice, onFree);
    return false;
  }

  override drained(): Promise<void> {
    return Promise.resolve();
  }
}

/** The endpoint without HTTP. */
function endpointOf(world: HttpHarness, onTurn: () => void = () => {}) {
  const { clock, seldom, delivery, exposition, metrics, scrapers } = world;
  const endpoint = new ScrapeEndpoint({
    ...{ clock, seldom, delivery, exposition, metrics, scrapers },
    turn: async () => {
      onTurn();
      await settle();
    },
  });
  return (address: string, query = '', sink = new TestSink()) => {
    const headers = { 'x-prometheus-scrape-timeout-seconds': '3600', 'user-agent': 'Prometheus/3.5.0' };
    const request = identify({ method: 'GET', query, headers, address, httpVersion: '1.1' });
    if ('wrong' in request) throw new Error(request.wrong);
    const from = { connection: { address }, owner: address, proxy: undefined };
    return { sink, ended: endpoint.answer(request, from, sink) };
  };
}

test('three answers are made at a time, two of an address; a reader that is slow lets the next one in', async () => {
  const world = new HttpHarness();
  world.connect('a').report();
  const ask = endpointOf(world);
  const slow = () => Object.assign(new TestSink(), { isRead: false });
  const asked = ['1', '1', '1', '2', '2', '3'].map((address, index) =>
    ask(`192.0.2.${address}`, `scraper=p${index}`, slow()),
  );
  const codes = async () => {
    for (let look = 0; look < 10; look++) await settle();
    return asked.map(({ sink }) => sink.code).join(' ');
  };
  assert.equal(await codes(), '200 200 0 200 0 0');
  asked[0]!.sink.read();
  await asked[0]!.ended;
  assert.equal(await codes(), '200 200 200 200 0 0');
  await world.clock.advance(1000);
  assert.equal(await codes(), '200 200 200 200 200 200', 'whose readers take nothing hold nobody up');
  for (const { sink } of asked) sink.cut();
  await Promise.all(asked.map(({ ended }) => ended));
  assert.equal(world.clock.timers, 0);
});

test('readers that take each slice at once keep nobody else waiting: the event loop turns after each', async () => {
  const world = new HttpHarness();
  bigAgent(world, 1);
  let turns = 0;
  const ask = endpointOf(world, () => turns++);
  const sink = new FastSink();
  await ask('192.0.2.1', '', sink).ended;
  assert.ok(sink.slices >= 3, `${sink.slices} slices`);
  assert.ok(turns >= sink.slices, `${turns} turns for ${sink.slices} slices`);
  world.connect('small').report();
  turns = 0;
  for (let answer = 0; answer < 8; answer++) await ask('192.0.2.1', 'agent=small', new FastSink()).ended;
  assert.equal(turns, 8);
});

test('a reader that takes nothing is cut off after 15 s, and nobody has longer than 120 s', async () => {
  const world = new HttpHarness();
  world.connect('a').report();
  const ask = endpointOf(world);
  const nothing = ask('192.0.2.1', '', Object.assign(new TestSink(), { isRead: false }));
  await world.clock.advance(15_000);
  assert.equal(nothing.sink.isLost, false);
  await world.clock.advance(1000);
  assert.equal(nothing.sink.isLost, true);
  await nothing.ended;
  const notSent = (address: string, why: string) =>
    `an answer to scraper 'addr/${address}' (${address}) was not sent completely: ${why}; its reports are sent again`;
  assert.deepEqual(world.warnings, [notSent('192.0.2.1', 'its client reads less than 64 KiB a second')]);
  assert.equal(world.count('lost aborted'), 1);
  // One that says an hour, and reads slowly but steadily.
  const steady = ask('192.0.2.2', '', Object.assign(new TestSink(), { isRead: false }));
  for (let second = 1; second < 120; second++) {
    steady.sink.sentBytes += 64 * 1024;
    await world.clock.advance(1000);
  }
  assert.equal(steady.sink.isLost, false);
  await world.clock.advance(1000);
  assert.equal(steady.sink.isLost, true);
  await steady.ended;
  assert.equal(world.warnings.at(-1), notSent('192.0.2.2', 'it took longer than 120 s'));
  assert.equal(world.clock.timers, 0);
});

test('who gives up while it waits has moved nothing', async () => {
  const world = new HttpHarness();
  const ms = world.connect('a').report();
  const ask = endpointOf(world);
  const busy = [1, 2].map((index) =>
    ask('192.0.2.1', `scraper=p${index}`, Object.assign(new TestSink(), { isRead: false })),
  );
  const waits = ask('192.0.2.1', 'scraper=p3');
  await settle();
  waits.sink.cut();
  await waits.ended;
  assert.equal(waits.sink.code, 0);
  assert.deepEqual(world.warnings, [
    "an answer to scraper 'p3' (192.0.2.1) was not sent completely: its client closed the connection while others were " +
      'answered; its reports are sent again',
  ]);
  for (const { sink } of busy) sink.cut();
  await Promise.all(busy.map(({ ended }) => ended));
  const again = ask('192.0.2.1', 'scraper=p3');
  await again.ended;
  assert.deepEqual(samplesOf(again.sink.text), [`a 0 ${ms}`]);
});

const infoOf = (world: HttpHarness) =>
  world.log.lines.filter((line) => line.startsWith('info: scraper')).map((line) => line.slice('info: '.length));

test('the first answer of a scraper says in the log and in a metric who it is, what it is given and why', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const client = world.client();
    await client.scrape('?scraper=one');
    await client.scrape('?scraper=one');
    const by = (userAgent: string) => ({ ...scrapeHeaders, 'User-Agent': userAgent });
    await world.client().get('/metrics?scraper=vm', by('vm_promscrape'));
    await world.client().get('/metrics?scraper=old', by('Prometheus/2.53.0'));
    await world.clock.advance(minutes(1));
    await world.client().get('/metrics?scraper=old&timestamps=1', by('Prometheus/2.53.0'));
    await world.client().get('/metrics', { 'User-Agent': 'curl/8.5.0' });
    const confirmed = 'the next request on its connection, or an orderly end of it, confirms an answer';
    assert.deepEqual(infoOf(world), [
      "scraper 'one' (127.0.0.1, Prometheus 3.5.0) gets every report with timestamps (it keeps every sample with its " +
        `timestamp); ${confirmed}`,
      "scraper 'vm' (127.0.0.1, vm_promscrape) gets the newest values without timestamps (VictoriaMetrics and vmagent " +
        'ignore timestamps by default: set honor_timestamps: true there, and timestamps=1 and reports=many in its URL); ' +
        'reports in between are not sent',
      "scraper 'old' (127.0.0.1, Prometheus 2.53.0) gets the newest values without timestamps (this version keeps only the " +
        'first sample of a series in a scrape: upgrade to 2.53.3, or 2.54.1 or later); reports in between are not sent',
      "scraper 'old' (127.0.0.1, Prometheus 2.53.0) gets one report of each agent an answer, with timestamps (timestamps=1 " +
        `without reports=many); ${confirmed}`,
    ]);
    const info = (labels: string) => world.own(`sysmon_server_scraper_info{${labels}}`);
    assert.equal(
      await info('scraper="one",program="Prometheus",version="3.5.0",via="direct",confirmed_by="connection"'),
      1,
    );
    assert.equal(await info('scraper="vm",program="vm_promscrape",version="",via="direct",confirmed_by="none"'), 1);
    assert.equal(
      await info('scraper="old",program="Prometheus",version="2.53.0",via="direct",confirmed_by="connection"'),
      1,
    );
    assert.equal(
      await info('scraper="old",program="Prometheus",version="2.53.0",via="direct",confirmed_by="none"'),
      undefined,
      'it is not two',
    );
  }));

test('names that are made up fill neither the log nor the memory', () =>
  withHttp(async (world) => {
    const client = world.client();
    for (let name = 0; name < 200; name++) {
      await client.get(`/metrics?scraper=x${name}`, { ...scrapeHeaders, 'User-Agent': 'curl/8.5.0' });
    }
    assert.equal(infoOf(world).length, 64 + 1);
    const { text } = await client.get('/metrics');
    assert.equal([...text.matchAll(/^sysmon_server_scraper_info/gm)].length, 64);
  }));

test('who comes through a proxy is warned of, once an hour, with the remedy', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const client = world.client();
    for (let scrape = 0; scrape < 3; scrape++) {
      agent.report();
      await client.get('/metrics?scraper=p', { ...scrapeHeaders, 'X-Forwarded-For': '192.0.2.9' });
      await world.clock.advance(minutes(10));
    }
    const warning =
      "scraper 'p' connects through an HTTP proxy (a header X-Forwarded-For): what the proxy has read counts as scraped, so " +
      'samples are lost when Prometheus restarts or is slow; let it connect to this port directly, or name its API ' +
      'with --prometheus p=URL, and give each Prometheus behind the proxy a name of its own';
    assert.deepEqual(world.warnings, [warning]);
    const info = 'scraper="p",program="Prometheus",version="3.5.0",via="proxy",confirmed_by="connection"';
    assert.equal(await world.own(`sysmon_server_scraper_info{${info}}`), 1);
    await world.clock.advance(minutes(30));
    await client.get('/metrics?scraper=p', scrapeHeaders);
    assert.deepEqual(world.warnings, [warning]);
    assert.equal(await world.own(`sysmon_server_scraper_info{${info}}`), 1, 'it stays one who comes through a proxy');
    await client.get('/metrics?scraper=p', { ...scrapeHeaders, Via: '1.1 x' });
    assert.match(world.warnings[1]!, /a header Via.* \(and 2 more like it\)$/);
    const old = world.raw(scrapeText.replace('HTTP/1.1', 'HTTP/1.0').replace('/metrics', '/metrics?scraper=q'));
    await readAll(old);
    assert.match(world.warnings[2]!, /^scraper 'q' connects through an HTTP proxy \(HTTP\/1\.0 from a Prometheus\)/);
  }));

test('wrong parameters are answered with what is right, and take nothing', () =>
  withHttp(async (world) => {
    const ms = world.connect('a').report();
    const client = world.client();
    for (const query of ['agents=a', 'timestamps=false', 'max=1&max=2', 'scraper=%1b%5d0;x', 'scraper=']) {
      const answer = await client.get(`/metrics?${query}`, scrapeHeaders);
      assert.equal(answer.code, 400, query);
      assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
    }
    assert.deepEqual([...world.delivery.scrapers], []);
    assert.deepEqual(await client.scrape(), [`a 0 ${ms}`]);
  }));

test('several agents are selected by repeating agent=', () =>
  withHttp(async (world) => {
    for (const name of ['web-1', 'web-2', 'db']) world.connect(name).report();
    const { text } = await world.client().get('/metrics?agent=web-1&agent=web-2');
    assert.deepEqual(samplesOf(text), ['web-1 0', 'web-2 0']);
    assert.doesNotMatch(text, /agent="db"/);
  }));

test('an answer is not kept by anybody on its way; gzip;q=0 is no gzip', () =>
  withHttp(async (world) => {
    const { headers } = await world.client().get('/metrics', { ...scrapeHeaders, 'Accept-Encoding': 'gzip;q=0' });
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['content-encoding'], undefined);
  }));
