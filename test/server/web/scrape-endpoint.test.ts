import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { scrapersMax } from '../../../src/server/delivery/cursors.ts';
import { settle } from '../../support/virtual-clock.ts';
import { connect, timeoutMs } from '../delivery/cursors-harness.ts';
import { bigAgent, minutes, samplesOf, scrapeHeaders, scrapeText, until, withHttp } from './http-harness.ts';

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
    assert.deepEqual([...world.delivery.cursors.scrapers], []);
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

test('max= bounds a scrape, one report of each agent at the least; what is left comes next', () =>
  withHttp(async (world) => {
    const nowMs = world.clock.nowMs();
    for (const name of ['a', 'b']) {
      const agent = world.connect(name);
      for (const ageMs of [3, 2, 1]) agent.report(nowMs - ageMs);
    }
    const client = world.client();
    assert.deepEqual(await client.scrape('?max=1'), [`a 0 ${nowMs - 3}`, `b 0 ${nowMs - 3}`]);
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
      [...world.delivery.cursors.scrapers].map(({ name }) => name),
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
      await until(() => world.count('rolled back aborted') === 1);
      assert.equal(world.count('committed'), 0);
    }
    assert.equal(await world.own('sysmon_server_scrapes_total{outcome="aborted"}'), 2);
    const { text } = await world.client().get('/metrics?max=10000000', scrapeHeaders);
    assert.equal([...text.matchAll(/^test_value/gm)].length, 20 * 20_000);
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
      assert.equal(world.count('rolled back aborted'), 0);
      await world.clock.advance(1);
      await until(() => world.count('rolled back aborted') === 1);
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

test('the 33rd name gets the newest values, without timestamps, and it is told', () =>
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
    assert.match(world.warnings[0]!, /^scraper 'addr\/127.0.0.1' comes every 15 s, agent 'a' reports every 5 s: /);
    agent.record.intervalMs = 150_000;
    await client.scrape();
    assert.match(world.warnings[1]!, /^agent 'a' reports every 150 s: Prometheus looks back 5 min/);
    // After a long break Prometheus was away, rather than slow.
    await world.clock.advance(minutes(6));
    agent.record.intervalMs = 5000;
    agent.report();
    await client.scrape();
    assert.equal(world.warnings.length, 2);
  }));

test('what is shown by scraper goes with the scraper', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const client = world.client();
    await client.scrape('?scraper=gone');
    const backlog = 'sysmon_server_scrape_backlog_reports{scraper="gone",selection=""}';
    assert.equal(await world.own(backlog), 0);
    client.destroy();
    await until(() => world.count('rolled back unconfirmed') === 1);
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
    assert.ok(agent.record.window.reportCount === 1 && agent.record.window.oldestMs === oldMs);
    await world.clock.advance(minutes(1));
    world.delivery.tidy();
    assert.equal(world.count('evicted age'), 1);
    assert.equal(world.count('evicted age unscraped'), 0);
  }));
