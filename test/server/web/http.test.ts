import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { test } from 'node:test';
import { scrapersMax } from '../../../src/server/delivery/cursors.ts';
import { settle } from '../../support/virtual-clock.ts';
import { connect, timeoutMs } from '../delivery/cursors-harness.ts';
import type { TestAgent } from '../delivery/delivery-harness.ts';
import { testSchema } from '../delivery/report-maker.ts';
import { type HttpHarness, readAll, samplesOf, scrapeHeaders, until, withHttp } from './http-harness.ts';

const textType = 'text/plain; charset=utf-8';
const expositionType = 'text/plain; version=0.0.4; charset=utf-8';

/** An agent whose reports are a megabyte of text each. */
function bigAgent(world: HttpHarness, reports: number): TestAgent {
  const agent = world.connect('big');
  agent.maker.schema = testSchema(20_000);
  const nowMs = world.clock.nowMs();
  for (let report = reports; report > 0; report--) {
    const values = Array.from({ length: 20_000 }, (_, series) => series);
    const made = agent.maker.make(nowMs - report * 1000, values);
    world.delivery.store.receive(agent.record, { ...made, follows: false });
  }
  return agent;
}

test('every route answers with its type, and lets nobody guess another', () =>
  withHttp(async (world) => {
    const client = world.client();
    const routes = [
      ['/', 'text/html; charset=utf-8'],
      ['/metrics', expositionType],
      ['/api/v1/agents', 'application/json; charset=utf-8'],
      ['/-/healthy', textType],
      ['/-/ready', textType],
    ] as const;
    for (const [path, type] of routes) {
      const answer = await client.get(path);
      assert.equal(answer.code, 200, path);
      assert.equal(answer.headers['content-type'], type, path);
      assert.equal(answer.headers['x-content-type-options'], 'nosniff', path);
      assert.ok(answer.text.length > 0, path);
      const head = await client.get(path, {}, 'HEAD');
      assert.equal(head.code, 200, path);
      assert.equal(head.headers['content-type'], type, path);
      assert.equal(head.text, '', path);
      const post = await client.get(path, { 'Content-Length': '0' }, 'POST');
      assert.equal(post.code, 405, path);
      assert.equal(post.headers.allow, 'GET, HEAD', path);
      assert.equal(post.text, 'POST is not allowed here, GET is\n');
    }
    assert.equal(await world.own('sysmon_server_http_requests_total{route="/metrics",code="405"}'), 1);
    assert.equal(await world.own('sysmon_server_http_requests_total{route="/-/ready",code="200"}'), 2);
  }));

test('a path that is none is told in plain text, without echoing much of it', () =>
  withHttp(async (world) => {
    const client = world.client();
    const answer = await client.get(`/<b>${'x'.repeat(500)}?y`);
    assert.equal(answer.code, 404);
    assert.equal(answer.headers['content-type'], textType);
    assert.equal(answer.text, `no such page: /<b>${'x'.repeat(196)}\n`);
    assert.equal((await client.get('/metrics/')).code, 404);
    assert.equal((await client.get('//metrics')).code, 404);
    assert.equal(await world.own('sysmon_server_http_requests_total{route="other",code="404"}'), 3);
  }));

test('a target may be a whole URL; one that is nonsense is answered, too', () =>
  withHttp(async (world) => {
    const targets = [
      ['http://example.com:9733/-/healthy?x=1', 200],
      ['HTTP://x/-/healthy', 200],
      ['http://example.com', 200],
      ['http://[/', 200],
      ['*', 404],
      ['/%zz?%zz', 404],
      ['/-/healthy?%ff=%', 200],
      ['http://a:99999999/-/healthy', 200],
    ] as const;
    for (const [target, code] of targets) {
      const socket = world.raw(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      assert.match(await readAll(socket), new RegExp(`^HTTP/1.1 ${code} `), target);
    }
  }));

test('what is no HTTP, or more than 16 KiB of headers, is refused with its status', () =>
  withHttp(async (world) => {
    const cases = [
      ['GET\r\n\r\n', 400],
      ['\x16\x03\x01\x02\x00\x01\x00', 400],
      ['GET /metrics HTTP/1.1\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(17_000)}\r\n\r\n`, 431],
      [`GET /${'y'.repeat(17_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431],
    ] as const;
    for (const [text, code] of cases) {
      const answer = await readAll(world.raw(text));
      assert.match(answer, new RegExp(`^HTTP/1.1 ${code} `), text.slice(0, 20));
      assert.match(answer, /\r\nConnection: close\r\n/i);
    }
    assert.equal(await world.own('sysmon_server_http_requests_total{route="other",code="431"}'), 2);
    const ample = await readAll(
      world.raw(`GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ${'y'.repeat(15_000)}\r\n\r\n`),
    );
    assert.match(ample, /^HTTP\/1.1 200 /);
  }));

test('garbage behind a request whose answer is under way does not get into that answer', () =>
  withHttp(async (world) => {
    bigAgent(world, 10);
    const socket = world.raw('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n\x00garbage\r\n\r\n');
    const answer = await readAll(socket);
    assert.doesNotMatch(answer, /400 Bad Request/);
  }));

test('ready says whether it is', () =>
  withHttp(async (world) => {
    world.isReady = false;
    const answer = await world.client().get('/-/ready');
    assert.deepEqual([answer.code, answer.text], [503, 'not ready yet\n']);
    assert.equal((await world.client().get('/-/healthy')).code, 200);
  }));

test('the page: a policy that allows nothing, and nothing that a peer said is markup', () =>
  withHttp(async (world) => {
    world.connect('web-1').report();
    await world.scrapeAll({ name: `<script>"'&` });
    const { headers, text } = await world.client().get('/');
    assert.match(headers['content-security-policy'] as string, /^default-src 'none'; style-src 'sha256-[^']+'; frame/);
    assert.equal(headers['x-frame-options'], 'DENY');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.equal(headers['cache-control'], 'no-store');
    assert.ok(text.includes('<td>web-1</td><td class="up">up</td>'));
    assert.ok(text.includes('<td>&lt;script&gt;&quot;&#39;&amp;</td>'));
    assert.doesNotMatch(text, /<script/);
    assert.doesNotMatch(text, /class="note"/);
  }));

test('the agents as JSON', () =>
  withHttp(async (world) => {
    const b = world.connect('b');
    const a = world.connect('a');
    a.record.labels = [['site', 'x']];
    a.record.peer = '192.0.2.1:1';
    const ms = a.report();
    b.report();
    await world.scrapeAll({ selection: 'a' });
    a.report(ms + 1);
    const { server, agents } = JSON.parse((await world.client().get('/api/v1/agents')).text);
    assert.deepEqual(server.agents, { known: 2, up: 2, connected: 1 });
    assert.deepEqual(
      agents.map(({ name, unscrapedReports }: { name: string; unscrapedReports: number | null }) => [
        name,
        unscrapedReports,
      ]),
      [
        ['a', 1],
        ['b', null],
      ],
    );
    assert.equal(agents[0].newestAt, new Date(ms + 1).toISOString());
    assert.deepEqual(agents[0].labels, { site: 'x' });
    assert.equal(server.scrapers[0].selection, 'a');
    // Not yet due: its time is ahead.
    assert.equal(server.scrapers[0].backlogReports, 0);
  }));

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
    for (const name of ['nobody', '', 'a b']) {
      const answer = await client.get(`/metrics?agent=${encodeURIComponent(name)}`, scrapeHeaders);
      assert.deepEqual([answer.code, answer.text], [404, `no agent named '${name}' is known\n`]);
    }
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
    assert.equal(await world.own('sysmon_server_scrape_backlog_reports{scraper="127.0.0.1",selection=""}'), 4);
    assert.deepEqual(await client.scrape('?max=3'), [`a 1 ${nowMs - 2}`, `a 2 ${nowMs - 1}`, `b 1 ${nowMs - 2}`]);
    assert.deepEqual(await client.scrape(), [`a 2 ${nowMs - 1}`, `b 2 ${nowMs - 1}`]);
    assert.equal(await world.own('sysmon_server_scrape_backlog_reports{scraper="127.0.0.1",selection=""}'), 0);
    for (const max of ['0', '-1', '1.5', '', 'x', '10000001', '100000000000']) {
      const answer = await client.get(`/metrics?max=${max}`, scrapeHeaders);
      assert.equal(answer.code, 400, max);
      assert.match(answer.text, /^max=.*: expected a whole number of samples, 1 to 10000000\n$/);
    }
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
      [unnamed, '?scraper='],
    ] as const) {
      assert.deepEqual(await client.scrape(query), [agentLine]);
    }
    assert.deepEqual(
      [...world.delivery.cursors.scrapers].map(({ name }) => name),
      ['one', 'two', '127.0.0.1'],
    );
    await world.client().scrape(`?scraper=${'x'.repeat(500)}`);
    assert.equal([...world.delivery.cursors.scrapers].at(-1)?.name, 'x'.repeat(128));
  }));

test('a scrape is committed by the next one on its connection; over another one the same comes again', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    agent.report();
    const [one, two] = [world.client(), world.client()];
    await one.scrape();
    assert.equal(agent.acked, 0);
    await one.scrape();
    await settle();
    assert.equal(agent.acked, 1);
    await world.clock.advance(1000);
    const ms = agent.report();
    await one.scrape();
    assert.equal(agent.acked, 1);
    assert.deepEqual(await two.scrape(), [`a 1 ${ms}`]);
    assert.equal(world.count('committed'), 2);
    await one.scrape();
    await two.scrape();
    await settle();
    assert.equal(agent.acked, 2);
    assert.equal(world.count('committed'), 4);
    assert.equal(await world.own('sysmon_server_scrape_rollbacks_total{kind="unconfirmed"}'), 0);
  }));

test('a connection that ends after its scrape rolls back; the next is given the same', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const ms = agent.report();
    const gone = world.client();
    const agentLine = `a 0 ${ms}`;
    assert.deepEqual(await gone.scrape(), [agentLine]);
    gone.destroy();
    // At once: the close and this request may be seen in one turn.
    const next = world.client();
    assert.deepEqual(await next.scrape(), [agentLine]);
    assert.equal(world.count('rolled back unconfirmed'), 1);
    assert.equal(world.count('conflict'), 0);
    assert.equal(agent.acked, 0);
  }));

test('a paused server finds the close and the next request at once, and rolls back', () =>
  withHttp(async (world) => {
    const ms = world.connect('a').report();
    for (let round = 1; round <= 5; round++) {
      const gone = world.client();
      await gone.scrape();
      const next = world.raw();
      await once(next, 'connect');
      await settle();
      // From here on nothing is read until both have been sent: the whole process is what pauses.
      next.write(`GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n`);
      gone.destroy();
      const [first] = await once(next, 'data');
      assert.match(String(first), new RegExp(`test_value.* 0 ${ms}`));
      next.destroy();
      await until(() => world.count('rolled back unconfirmed') === 2 * round);
    }
    assert.equal(world.count('committed'), 0);
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
    const head = 'GET /metrics?max=10000000 HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n';
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
    const socket = world.raw('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20));
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

test('Connection: close commits, and so does HTTP/1.0', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    for (const [version, header] of [
      ['1.1', 'Connection: Close\r\n'],
      ['1.0', ''],
    ]) {
      agent.report();
      const text = `GET /metrics HTTP/${version}\r\nHost: x\r\n${header}X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n`;
      assert.match(await readAll(world.raw(text)), / 200 OK/);
      await settle();
      assert.equal(agent.acked, agent.maker.seq);
      await world.clock.advance(1000);
    }
    assert.equal(world.count('rolled back unconfirmed'), 0);
  }));

test('one name on two open connections: each is given everything, and it is told', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const [one, two] = [world.client(), world.client()];
    agent.report();
    await one.scrape();
    await two.scrape();
    for (let round = 1; round < 4; round++) {
      await world.clock.advance(1000);
      const ms = agent.report();
      assert.deepEqual(await one.scrape(), [`a ${round} ${ms}`]);
      assert.deepEqual(await two.scrape(), [`a ${round} ${ms}`]);
    }
    assert.equal(world.count('conflict'), 1);
  }));

test('requests that are sent before the answer to the last are answered in order', () =>
  withHttp(async (world) => {
    const ms = world.connect('a').report();
    const metrics = 'GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n';
    const text = await readAll(
      world.raw(
        `${metrics}GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n${metrics}GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
      ),
    );
    const codes = [...text.matchAll(/^HTTP\/1.1 (\d+)/gm)].map(([, code]) => code);
    assert.deepEqual(codes, ['200', '200', '200', '404']);
    assert.equal([...text.matchAll(new RegExp(`^test_value.* 0 ${ms}$`, 'gm'))].length, 2);
    assert.ok(text.indexOf('healthy') > text.indexOf('test_value'));
    assert.equal(world.count('committed'), 1);
  }));

test('a client that goes while its requests wait leaves nothing behind', () =>
  withHttp(async (world) => {
    bigAgent(world, 20);
    const metrics = 'GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n';
    const socket = world.raw(metrics.repeat(3));
    await once(socket, 'readable');
    socket.destroy();
    await until(() => world.count('rolled back aborted') === 3);
    assert.equal(world.clock.timers, 0);
  }));

test('more than 32 requests that wait end the connection', () =>
  withHttp(async (world) => {
    const request = 'GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n';
    const few = await readAll(
      world.raw(`${request.repeat(31)}${request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')}`),
    );
    assert.equal([...few.matchAll(/healthy\n/g)].length, 32);
    const many = await readAll(world.raw(request.repeat(40)));
    assert.ok([...many.matchAll(/healthy\n/g)].length < 40);
  }));

test('one connection may ask as often as it likes, one after the other', () =>
  withHttp(async (world) => {
    const socket = world.raw();
    for (let request = 0; request < 100; request++) {
      socket.write('GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n');
      const [answer] = await once(socket, 'data');
      assert.match(String(answer), /^HTTP\/1.1 200 OK/);
    }
    socket.destroy();
    const warnings: Error[] = [];
    const warned = (warning: Error) => warnings.push(warning);
    process.on('warning', warned);
    const client = world.client();
    for (let request = 0; request < 20; request++) await client.scrape();
    await settle();
    process.removeListener('warning', warned);
    assert.deepEqual(warnings, [], 'no listener is left behind by an answer');
    assert.equal(client.connections, 1);
  }));

test('connections are kept for 310 s, longer than Prometheus does', () =>
  withHttp(async (world) => {
    const { headers } = await world.client().get('/-/healthy', { Connection: 'keep-alive' });
    assert.equal(headers['keep-alive'], 'timeout=310');
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
    assert.deepEqual(
      world.warnings.map(([key]) => key),
      ['names'],
    );
    assert.match(world.warnings[0]![1], /scraper 'late' gets the newest values only: 32 scraper names are in use/);
  }));

test('connections beyond 512 are refused, counted and told; one that ends makes room', { timeout: 20_000 }, () =>
  withHttp(async (world) => {
    const sockets = Array.from({ length: 512 }, () => world.raw());
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const refused = world.raw();
    refused.resume();
    await once(refused, 'close');
    assert.equal(await world.own('sysmon_server_http_connections_refused_total'), 1);
    assert.deepEqual(
      world.warnings.map(([key]) => key),
      ['http connections'],
    );
    sockets.pop()!.destroy();
    await until(() => sockets.length === 511);
    let code = 0;
    while (code !== 200) {
      // The server has to see the close first.
      code = await world
        .client()
        .get('/-/healthy')
        .then(
          (answer) => answer.code,
          () => 0,
        );
    }
    for (const socket of sockets) socket.destroy();
  }),
);

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
    assert.match(world.warnings[0]!.join(), /^rare 127.0.0.1,.* comes every 15 s, agent 'a' reports every 5 s: /);
    agent.record.intervalMs = 150_000;
    await client.scrape();
    assert.match(world.warnings[1]!.join(), /^sparse a,agent 'a' reports every 150 s: Prometheus looks back 5 min/);
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

test('a stop: requests under way are answered, what was read is committed, then everything is closed', async () => {
  await withHttp(async (world) => {
    const agent = world.connect('a');
    agent.report();
    const client = world.client();
    await client.scrape();
    const port = world.port;
    await world.stop();
    assert.equal(world.count('committed'), 1);
    assert.equal(world.count('rolled back unconfirmed'), 0);
    await assert.rejects(world.client().get('/'), { code: 'ECONNREFUSED' });
    // The port is free again.
    await world.listen(port);
    await assert.rejects(world.listen(port), { code: 'EADDRINUSE' });
  });
});

const scrapeText = 'GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n';

test('a stop: who does not answer the goodbye may not have read what came before it, and gets it again', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    // It reads, and does not close: as a process that stands still, whose kernel reads.
    const still = createConnection({ port: world.port, host: '127.0.0.1', allowHalfOpen: true });
    still.write(scrapeText);
    await once(still, 'data');
    still.resume();
    await settle();
    await world.stop(1000);
    still.destroy();
    assert.equal(world.count('committed'), 0);
    assert.equal(world.count('rolled back unconfirmed'), 1);
  }));

test('Connection: close commits nothing where the client never closes its own end', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const still = createConnection({ port: world.port, host: '127.0.0.1', allowHalfOpen: true });
    still.write(scrapeText.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    still.resume();
    // All of the answer has come, and the server's goodbye.
    await once(still, 'end');
    await settle();
    assert.equal(world.count('committed'), 0);
    await world.clock.advance(1000);
    await until(() => world.count('rolled back unconfirmed') === 1);
    still.destroy();
    assert.equal(world.count('committed'), 0);
  }));

test('a connection that has rested for too long is ended with a goodbye: what its client has read is committed', () =>
  withHttp(
    async (world) => {
      const agent = world.connect('a');
      agent.report();
      const client = world.raw(scrapeText);
      assert.match(await readAll(client), / 200 OK/);
      await settle();
      assert.equal(world.count('committed'), 1);
      assert.equal(world.count('rolled back unconfirmed'), 0);
      assert.equal(agent.acked, 1);
    },
    { keepAliveMs: 20 },
  ));

function minutes(count: number): number {
  return count * 60_000;
}
