import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { test } from 'node:test';
import { settle } from '../../support/virtual-clock.ts';
import { bigAgent, type HttpHarness, readAll, scrapeText, until, withHttp } from './http-harness.ts';

test('what is no HTTP, or more than 16 KiB of headers, is refused with its status', () =>
  withHttp(async (world) => {
    const cases = [
      ['GET\r\n\r\n', 400],
      ['\x16\x03\x01\x02\x00\x01\x00', 400],
      ['GET /metrics HTTP/1.1\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'y'.repeat(17_000)}\r\n\r\n`, 431],
      [`GET /${'y'.repeat(17_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`, 431],
    ] as const;
    for (const [text, code] of cases) {
      const answer = await readAll(world.raw(text));
      assert.match(answer, new RegExp(`^HTTP/1.1 ${code} `), text.slice(0, 20));
      assert.match(answer, /\r\nConnection: close\r\n/i);
    }
    assert.equal(await world.own('sysmon_server_http_requests_total{route="other",code="431"}'), 2);
    const ample = await readAll(
      world.raw(`GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ${'y'.repeat(15_000)}\r\n\r\n`),
    );
    assert.match(ample, /^HTTP\/1.1 200 /);
  }));

test('garbage behind a request whose answer is under way does not get into that answer', () =>
  withHttp(async (world) => {
    bigAgent(world, 10);
    const socket = world.raw('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n\x00garbage\r\n\r\n');
    const answer = await readAll(socket);
    assert.doesNotMatch(answer, /400 Bad Request/);
  }));

test('a scrape is confirmed by the next one on its connection; over another one the same comes again', () =>
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
    assert.equal(world.count('confirmed'), 2);
    await one.scrape();
    await two.scrape();
    await settle();
    assert.equal(agent.acked, 2);
    assert.equal(world.count('confirmed'), 4);
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
    assert.equal(world.count('lost at once'), 1);
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
      next.write(
        `GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nUser-Agent: Prometheus/3.5.0\r\n\r\n`,
      );
      gone.destroy();
      const [first] = await once(next, 'data');
      assert.match(String(first), new RegExp(`test_value.* 0 ${ms}`));
      next.destroy();
      await until(() => world.count('lost at once') === 2 * round);
    }
    assert.equal(world.count('confirmed'), 0);
  }));

test('Connection: close confirms, and so does HTTP/1.0', () =>
  withHttp(async (world) => {
    const agent = world.connect('a');
    for (const [version, header] of [
      ['1.1', 'Connection: Close\r\n'],
      ['1.0', ''],
    ]) {
      agent.report();
      const text = `GET /metrics HTTP/${version}\r\nHost: localhost\r\n${header}X-Prometheus-Scrape-Timeout-Seconds: 10\r\nUser-Agent: Prometheus/3.5.0\r\n\r\n`;
      assert.match(await readAll(world.raw(text)), / 200 OK/);
      await settle();
      assert.equal(agent.acked, agent.maker.seq);
      await world.clock.advance(1000);
    }
    assert.equal(world.count('lost at once'), 0);
  }));

test('one name on two open connections: each is given everything, and it is logged', () =>
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
    const metrics =
      'GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nUser-Agent: Prometheus/3.5.0\r\n\r\n';
    const text = await readAll(
      world.raw(
        `${metrics}GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n${metrics}GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
      ),
    );
    const codes = [...text.matchAll(/^HTTP\/1.1 (\d+)/gm)].map(([, code]) => code);
    assert.deepEqual(codes, ['200', '200', '200', '404']);
    assert.equal([...text.matchAll(new RegExp(`^test_value.* 0 ${ms}$`, 'gm'))].length, 2);
    assert.ok(text.indexOf('healthy') > text.indexOf('test_value'));
    assert.equal(world.count('confirmed'), 1);
  }));

test('a client that goes while its requests wait leaves nothing behind', () =>
  withHttp(async (world) => {
    bigAgent(world, 20);
    const metrics =
      'GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nUser-Agent: Prometheus/3.5.0\r\n\r\n';
    const socket = world.raw(metrics.repeat(3));
    await once(socket, 'readable');
    socket.destroy();
    await until(() => world.count('lost aborted') === 1);
    for (let look = 0; look < 5; look++) await settle();
    assert.equal(world.count('lost aborted'), 1, 'those that waited have not begun');
    assert.equal(world.clock.timers, 0);
  }));

test('more than 32 requests that wait end the connection', () =>
  withHttp(async (world) => {
    const request = 'GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n';
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
      socket.write('GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n');
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

test('a connection that has not scraped is kept for a short time only', () =>
  withHttp(async (world) => {
    world.keepAliveOthersMs = 50;
    const server = await world.openAt([{ kind: 'tcp', address: '127.0.0.1', port: 0 }]);
    const open = (text: string) => {
      const socket = createConnection({ port: server.ports[0]!, host: '127.0.0.1' });
      socket.on('error', () => {}); // what becomes of it is what the test looks at
      socket.write(text);
      return socket.resume();
    };
    const scraper = open(scrapeText);
    const other = open('GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(other, 'end');
    assert.equal(scraper.readableEnded, false);
    scraper.destroy();
    other.destroy();
    await server.close(0);
  }));

/** A connection from another address of this host's loopback network. */
const from = (world: HttpHarness, localAddress: string): Socket => {
  const socket = createConnection({ port: world.port, host: '127.0.0.1', localAddress });
  socket.on('error', () => {}); // what becomes of it is what the test looks at
  return socket;
};

test('beyond 64 connections of an address, the one that has rested longest makes room', { timeout: 20_000 }, () =>
  withHttp(async (world) => {
    const open = async () => {
      const socket = from(world, '127.0.0.2');
      await once(socket, 'connect');
      await settle();
      await world.clock.advance(1);
      return socket;
    };
    // Whoever has scraped has rested longest, and stays all the same.
    const scraper = await open();
    scraper.write(scrapeText);
    await once(scraper, 'data');
    const [first, second] = [await open(), await open()];
    const sockets = Array.from({ length: 61 }, () => from(world, '127.0.0.2'));
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const ended = Promise.all([first, second].map((socket) => once(socket.resume(), 'end')));
    const more = [from(world, '127.0.0.2'), from(world, '127.0.0.2')];
    await ended;
    for (const socket of [scraper, ...more]) {
      socket.write('GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n');
      const [answer] = await once(socket, 'data');
      assert.match(String(answer), /200 OK/);
    }
    assert.equal(await world.own('sysmon_server_http_connections_refused_total'), 0);
    assert.deepEqual(world.warnings, [
      'an idle HTTP connection was closed for a new one from 127.0.0.2: 64 are open from there, which is the limit ' +
        'of an address; let clients close theirs, or keep fewer',
    ]);
    for (const socket of [scraper, ...sockets, ...more]) socket.destroy();
  }),
);

test('a connection is refused, counted and logged where all of its address are in use', { timeout: 20_000 }, () =>
  withHttp(async (world) => {
    bigAgent(world, 1);
    const sockets = Array.from({ length: 64 }, () => from(world, '127.0.0.2'));
    // Nobody reads: each has an answer under way.
    for (const socket of sockets) socket.write(scrapeText.repeat(20));
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    // One that is taken in all the same has come before the server has read all requests.
    while ((await world.own('sysmon_server_http_connections_refused_total')) === 0) {
      const refused = from(world, '127.0.0.2');
      refused.write(scrapeText.repeat(20));
      sockets.push(refused);
      await settle();
    }
    assert.match(world.warnings.at(-1)!, /^HTTP connection from 127\.0\.0\.2 is refused: 64 are open from there/);
    assert.equal((await world.client().get('/-/healthy')).code, 200, 'another address is answered');
    for (const socket of sockets) socket.destroy();
  }),
);

test('beyond 512 connections of all addresses, one that rests makes room', { timeout: 20_000 }, () =>
  withHttp(async (world) => {
    const first = from(world, '127.0.0.2');
    await once(first, 'connect');
    await settle();
    await world.clock.advance(1);
    const sockets = Array.from({ length: 511 }, (_, index) => from(world, `127.0.1.${1 + (index % 16)}`));
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const ended = once(first.resume(), 'end');
    assert.equal((await world.client().get('/-/healthy')).code, 200);
    await ended;
    for (const socket of sockets) socket.destroy();
  }),
);

test('a stop: requests under way are answered, what was read is confirmed, then everything is closed', async () => {
  await withHttp(async (world) => {
    const agent = world.connect('a');
    agent.report();
    const client = world.client();
    await client.scrape();
    const port = world.port;
    await world.stop();
    assert.equal(world.count('confirmed'), 1);
    assert.equal(world.count('lost at once'), 0);
    await assert.rejects(world.client().get('/'), { code: 'ECONNREFUSED' });
    // The port is free again.
    await world.listen(port);
    await assert.rejects(world.listen(port), { code: 'EADDRINUSE' });
  });
});

test('a stop: a client that does not answer the half-close may not have read what came before it, and gets it again', () =>
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
    assert.equal(world.count('confirmed'), 0);
    assert.equal(world.count('lost at rest'), 1);
  }));

test('Connection: close confirms nothing where the client never closes its own end', () =>
  withHttp(async (world) => {
    world.connect('a').report();
    const still = createConnection({ port: world.port, host: '127.0.0.1', allowHalfOpen: true });
    still.write(scrapeText.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    still.resume();
    // All of the answer has come, and the server's half-close.
    await once(still, 'end');
    await settle();
    assert.equal(world.count('confirmed'), 0);
    await world.clock.advance(1000);
    await until(() => world.count('lost at rest') === 1);
    still.destroy();
    assert.equal(world.count('confirmed'), 0);
  }));

test('a connection that has rested for too long is half-closed: what its client has read is confirmed', () =>
  withHttp(
    async (world) => {
      const agent = world.connect('a');
      agent.report();
      const client = world.raw(scrapeText);
      assert.match(await readAll(client), / 200 OK/);
      await settle();
      assert.equal(world.count('confirmed'), 1);
      assert.equal(world.count('lost at once'), 0);
      assert.equal(agent.acked, 1);
    },
    { keepAliveMs: 20 },
  ));

test('a client that closes by itself after a rest has read all; one that closes sooner may not have', () =>
  withHttp(async (world) => {
    // A second, and a hundredth of a millisecond for its sample.
    for (const [restMs, outcome] of [
      [1001, 'confirmed'],
      [1000, 'lost at once'],
    ] as const) {
      world.events.length = 0;
      world.connect('a').report();
      const client = world.raw(scrapeText.replace('/metrics', `/metrics?scraper=rests-${restMs}`));
      client.resume();
      await until(() => client.bytesRead > 0);
      // Until the answer is over on this side, too.
      await until(() => world.clock.timers === 0);
      await world.clock.advance(restMs);
      client.end();
      await until(() => world.count(outcome) === 1);
    }
  }));
