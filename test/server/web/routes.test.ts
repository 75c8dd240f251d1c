import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOurHost, type Route, routed, targetOf } from '../../../src/server/web/routes.ts';
import { until } from '../../support/sockets.ts';
import { readAll, withHttp } from './http-harness.ts';
import { schemaOf } from './page/host-reports.ts';

const textType = 'text/plain; charset=utf-8';
const expositionType = 'text/plain; version=0.0.4; charset=utf-8';

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

test('a path that is none is answered in plain text, without echoing much of it', () =>
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
      const socket = world.raw(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      assert.match(await readAll(socket), new RegExp(`^HTTP/1.1 ${code} `), target);
    }
  }));

test('ready says whether it is', () =>
  withHttp(async (world) => {
    world.isReady = false;
    const answer = await world.client().get('/-/ready');
    assert.deepEqual([answer.code, answer.text], [503, 'not ready yet\n']);
    assert.equal((await world.client().get('/-/healthy')).code, 200);
  }));

test('the page of a server without agents says how a host joins', async () => {
  for (const [joining, expected] of [
    [{ kind: 'by-key' }, 'Run <code>sudo sysmon-server enroll NAME</code> on the host of the server'],
    [
      { kind: 'without-key', isLoopback: true, port: 19732 },
      '<code>sysmon-agent --server 127.0.0.1:19732</code> on the host of the server: without a fleet key no other one',
    ],
    [
      { kind: 'without-key', isLoopback: false, port: 19732 },
      '<code>sysmon-agent --server HOST:19732</code> on a host, where HOST is the name of the server',
    ],
  ] as const) {
    await withHttp(
      async (world) => {
        const { text } = await world.client().get('/');
        assert.ok(text.includes(expected), text);
      },
      { joining },
    );
  }
});

test('pages: a policy that allows nothing from elsewhere, and nothing that a peer said is markup', () =>
  withHttp(async (world) => {
    const agent = world.connect('web-1');
    agent.record.host.labels = [['<b>', '<i>']];
    agent.report();
    await world.scrapeAll({ name: `<script>"'&` });
    for (const path of [
      '/',
      '/scrapers',
      '/agents/web-1',
      '/agents/web-1?series=%3Cb%3E',
      '/?q=%3Cb%3E&label=%22%3E%3Cb%3E',
    ]) {
      const { headers, text } = await world.client().get(path);
      const policy = headers['content-security-policy'] as string;
      assert.match(
        policy,
        /^default-src 'none'; style-src 'sha256-[^']+' 'self'; script-src 'self'; connect-src 'self'; /,
        path,
      );
      assert.equal(headers['x-frame-options'], 'DENY');
      assert.equal(headers['referrer-policy'], 'no-referrer');
      assert.equal(headers['cache-control'], 'no-store');
      assert.doesNotMatch(text.replaceAll(/<script src="\/assets\/\w+\.js" defer>/g, ''), /<script|<b>|<i>/, path);
    }
    assert.match((await world.client().get('/')).text, /<tr data-host="web-1">/);
    assert.match((await world.client().get('/scrapers')).text, /<td>&lt;script&gt;&quot;&#39;&amp;/);
  }));

test('a page of a host that nobody knows, and an asset that there is none of', () =>
  withHttp(async (world) => {
    for (const path of ['/agents/nobody', '/api/v1/charts/nobody', '/agents/', '/assets/none.js', '/assets/toString']) {
      assert.equal((await world.client().get(path)).code, 404, path);
    }
  }));

test('assets have their types, and are compressed', () =>
  withHttp(async (world) => {
    for (const [name, type] of [
      ['fleet.js', 'text/javascript'],
      ['agent.js', 'text/javascript'],
      ['uPlot.css', 'text/css'],
    ] as const) {
      const { code, headers } = await world.client().get(`/assets/${name}`, { 'Accept-Encoding': 'gzip' });
      assert.deepEqual([code, headers['content-type']], [200, `${type}; charset=utf-8`], name);
      if (name === 'agent.js') assert.equal(headers['content-encoding'], 'gzip');
    }
  }));

test('charts as JSON: what is not known is null, and a chart of nothing is left out', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    const metrics = { node_memory_MemTotal_bytes: 100, node_memory_MemAvailable_bytes: 25 };
    agent.maker.schema = schemaOf(metrics);
    for (const ms of [0, 1000, 2000]) {
      const report = agent.maker.make(world.clock.nowMs() + ms - 2000, Object.values(metrics), { key: true });
      world.delivery.store.receive(agent.record.host, { ...report, follows: false });
    }
    const { times, values } = JSON.parse((await world.client().get('/api/v1/charts/a')).text);
    assert.equal(times.length, 2);
    assert.deepEqual(values, { memory: [0.75, 0.75] });
    const page = (await world.client().get('/agents/a?series=memtotal')).text;
    assert.match(page, /node_memory_MemTotal_bytes\{agent=&quot;a&quot;\}<\/code><td class=n>100/);
    assert.match(page, /1 series found/);
    assert.match(page, /aria-label="Memory in use: 75 %"/);
    const live = JSON.parse((await world.client().get('/live/a?series=memtotal')).text);
    assert.deepEqual(live.charts, { times, values });
    assert.match(live.parts.tables, /1 series found/);
    assert.equal((await world.client().get('/live/b')).code, 404);
  }));

test('the changes of the page are a stream of events', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const { text } = await world.client().get('/');
    const revision = /data-revision=(\d+)/.exec(text)![1];
    const socket = world.raw(`GET /events?revision=${revision} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    let received = '';
    socket.on('data', (data) => (received += data));
    await until(() => received.includes('text/event-stream'));
    await world.clock.advance(15_000);
    await until(() => received.includes('event: changes') && received.includes(': \n'));
    socket.destroy();
  }));

test('the agents as JSON', () =>
  withHttp(async (world) => {
    const b = world.connect('b');
    const a = world.connect('a');
    a.record.host.labels = [['site', 'x']];
    a.record.peer = '192.0.2.1:1';
    const ms = a.report();
    b.report();
    await world.scrapeAll({ selection: [a.record.id] });
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
    assert.deepEqual(
      agents.map(({ unscrapedBy }: { unscrapedBy: unknown }) => unscrapedBy),
      [[{ scraper: server.scrapers[0].scraper, reports: 1 }], []],
    );
    assert.equal(agents[0].newestAt, new Date(ms + 1).toISOString());
    assert.deepEqual(agents[0].labels, { site: 'x' });
    assert.equal(server.scrapers[0].selection, 'a');
    // Not yet due: its time is ahead.
    assert.equal(server.scrapers[0].backlogReports, 0);
  }));

test('an exact path, or a prefix and what is behind it', () => {
  const routes: Route[] = [
    { path: '/a', answer: () => ({ code: 200, type: 'text/plain', body: 'a' }) },
    { path: '/a/*', answer: ({ rest }) => ({ code: 200, type: 'text/plain', body: `behind a: ${rest}` }) },
    { path: '/m', answer: 'metrics' },
    { path: '/f/*', answer: 'archive' },
  ];
  const answered = (path: string, method = 'GET') => {
    const answer = routed(routes, { method, path });
    if (answer.kind === 'archive') return [answer.route, `archive ${answer.file}`];
    return [answer.route, answer.kind === 'reply' ? answer.reply.body : answer.kind];
  };
  assert.deepEqual(answered('/a'), ['/a', 'a']);
  assert.deepEqual(answered('/a/'), ['/a/*', 'behind a: ']);
  assert.deepEqual(answered('/a/b/c'), ['/a/*', 'behind a: b/c']);
  assert.deepEqual(answered('/m'), ['/m', 'metrics']);
  assert.deepEqual(answered('/f/x.tar.gz'), ['/f/*', 'archive x.tar.gz']);
  assert.deepEqual(answered('/f/x.tar.gz', 'POST'), ['/f/*', 'POST is not allowed here, GET is\n']);
  assert.deepEqual(answered('/m', 'PUT'), ['/m', 'PUT is not allowed here, GET is\n']);
  assert.deepEqual(answered('/ab'), ['other', 'no such page: /ab\n']);
  assert.deepEqual(targetOf('http://x:1/a?b?c'), { path: '/a', query: 'b?c' });
});

test('one agent as JSON', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    world.connect('b');
    const client = world.client();
    const { agents } = JSON.parse((await client.get('/api/v1/agents')).text);
    assert.deepEqual(JSON.parse((await client.get('/api/v1/agents/a')).text), agents[0]);
    const unknown = await client.get('/api/v1/agents/c');
    assert.deepEqual([unknown.code, unknown.text], [404, "no agent named 'c' is known\n"]);
  }));

test('a Host header names this server, or the request is refused', () => {
  const names = new Set(['sysmon.example', 'box']);
  for (const host of [
    ...['127.0.0.1', '127.0.0.1:9733', '192.0.2.1:80', '[::1]', '[2001:db8::7]:9733', '[fe80::1%eth0]:9733'],
    ...['localhost', 'LOCALHOST:9733', 'localhost.', 'box', 'box:9733', 'Sysmon.Example:9733', 'sysmon.example.'],
  ]) {
    assert.equal(isOurHost(host, names), true, host);
  }
  for (const host of [
    ...['evil.example', 'evil.example:9733', 'box.evil.example', 'localhost.evil.example', '127.0.0.1.evil.example'],
    ...['', ':9733', '[]', '[localhost]', '[127.0.0.1]', '::1', 'box:9733:1', 'box/x', '1.2.3', '2130706433', 'a b'],
  ]) {
    assert.equal(isOurHost(host, names), false, host);
  }
});

test('a request for another host is refused, and the log says how to allow it', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const client = world.client();
    for (const path of ['/', '/metrics', '/api/v1/agents', '/-/ready', '/x']) {
      const answer = await client.get(path, { Host: 'evil.example:9733' });
      assert.equal(answer.code, 421, path);
      assert.match(answer.text, /^'evil\.example:9733' is not a name of this server: /);
    }
    assert.deepEqual(world.warnings, [
      "HTTP request of 127.0.0.1 for host 'evil.example:9733' is refused: give that name with --web.host if it is this server's",
    ]);
    assert.equal(await world.own('sysmon_server_http_requests_total{route="other",code="421"}'), 5);
    assert.equal((await client.get('/-/ready', { Host: 'sysmon.example:9733' })).code, 200);
    const noHost = world.raw('GET /-/ready HTTP/1.0\r\n\r\n');
    assert.match(await readAll(noHost), /^HTTP\/1.1 200 /);
  }));
