import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectPlain, type Socket } from 'node:net';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { hashSync } from 'bcryptjs';
import { sansOf } from '../../../src/server/web/secure.ts';
import { readWebConfig, WebConfigFile } from '../../../src/server/web/web-config-file.ts';
import { authority, type Certificate } from '../../support/certificates.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { temporaryFolder } from '../../support/programs.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';
import { type HttpHarness, readAll, scrapeHeaders, scrapeText, until, withHttp } from './http-harness.ts';

const hash = hashSync('secret', 4);

function configFile(context: TestContext, text: string): string {
  const file = join(temporaryFolder(context), 'web.yml');
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

const tlsText = ({ certFile, keyFile }: Certificate, more = '') =>
  `tls_server_config:\n  cert_file: ${certFile}\n  key_file: ${keyFile}\n${more}`;

function withConfig(context: TestContext, text: string, run: (world: HttpHarness) => Promise<void>): Promise<void> {
  return withHttp(async (world) => {
    world.config.current = readWebConfig(configFile(context, text));
    await run(world);
  });
}

/** Resolves when the server has taken the connection for its own; with TLS 1.3 its refusal comes behind the handshake. */
async function secure(world: HttpHarness, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port: world.port, servername: 'localhost', ...options });
  socket.on('error', () => {}); // what becomes of it is what the test looks at
  await once(socket, 'secureConnect');
  return socket;
}

const request = (head = '', path = '/-/healthy') =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${head}Connection: close\r\n\r\n`;

/** What the server answers over a TLS connection of its own; empty where it refuses the client. */
async function ask(world: HttpHarness, options: ConnectionOptions, text = request()): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port: world.port, servername: 'localhost', ...options });
  socket.on('error', () => {});
  socket.on('secureConnect', () => socket.write(text));
  return readAll(socket);
}

const basic = (login: string) => `Authorization: Basic ${Buffer.from(login).toString('base64')}\r\n`;

/** One answer over a connection that stays open. */
async function answered(socket: Socket): Promise<string> {
  let text = '';
  const take = (chunk: Buffer) => {
    text += chunk;
  };
  socket.on('data', take);
  socket.write(scrapeText);
  await until(() => text.includes('\r\n0\r\n\r\n'));
  socket.removeListener('data', take);
  return text;
}

test('TLS: a scrape, ALPN, versions, ciphers and curves as the file says', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const server = made.issue('DNS:localhost');
  const more =
    '  min_version: TLS12\n  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  curve_preferences: [CurveP384]\n';
  const ca = readFileSync(made.file);
  await withConfig(context, tlsText(server, more), async (world) => {
    const socket = await secure(world, { ca, ALPNProtocols: ['h2', 'http/1.1'] });
    assert.equal(socket.alpnProtocol, 'http/1.1');
    assert.equal(socket.getProtocol(), 'TLSv1.2');
    assert.equal(socket.getCipher().standardName, 'TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384');
    assert.equal((socket.getEphemeralKeyInfo() as { name?: string }).name, 'secp384r1');
    socket.destroy();
    assert.equal(await ask(world, { ca, minVersion: 'TLSv1.3' }), '');
    assert.equal(await ask(world, { ca, ecdhCurve: 'X25519' }), '');
  });
  await withConfig(context, tlsText(server), async (world) => {
    const agent = world.connect('a');
    const ms = agent.report();
    const socket = await secure(world, { ca });
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    assert.match(await answered(socket), new RegExp(`test_value.* 0 ${ms}`));
    assert.equal(agent.acked, 0);
    await answered(socket);
    await settle();
    assert.equal(agent.acked, 1);
    socket.destroy();
  });
});

test('a client without TLS, or that says nothing, is refused, counted and logged', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  await withConfig(context, tlsText(made.issue('DNS:localhost')), async (world) => {
    assert.doesNotMatch(await readAll(world.raw(request())), /healthy/);
    await until(() => world.warnings.length === 1);
    assert.equal(
      world.warnings[0],
      'no TLS with 127.0.0.1 on the HTTP port: it speaks HTTP without TLS: its URL needs https',
    );
    // A check of the port is no event.
    const check = connectPlain({ host: '127.0.0.1', port: world.port });
    await once(check, 'connect');
    check.end();
    await once(check.resume(), 'close');
    const silent = connectPlain({ host: '127.0.0.1', port: world.port });
    await once(silent, 'connect');
    const closed = once(silent, 'close');
    await until(() => world.clock.timers > 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await world.clock.advance(10_000);
    await closed;
    assert.equal(await world.own('sysmon_server_http_connections_refused_total'), 2);
  });
});

test('client certificates, by each client_auth_type', { timeout: 60_000 }, async (context) => {
  const [made, other] = [authority(context), authority(context)];
  if (made === undefined || other === undefined) return;
  const server = made.issue('DNS:localhost');
  const ca = readFileSync(made.file);
  const good = made.issue('DNS:prometheus.example,URI:spiffe://a/b');
  const foreign = other.issue('DNS:prometheus.example');
  const clients = { none: {}, good, foreign } as const;
  const cases = [
    ['RequestClientCert', [], { none: true, good: true, foreign: true }],
    ['RequireAnyClientCert', [], { none: false, good: true, foreign: true }],
    ['VerifyClientCertIfGiven', [], { none: true, good: true, foreign: false }],
    ['RequireAndVerifyClientCert', [], { none: false, good: true, foreign: false }],
    ['RequireAndVerifyClientCert', ['nobody', 'spiffe://a/b'], { none: false, good: true, foreign: false }],
    ['RequireAndVerifyClientCert', ['nobody'], { none: false, good: false, foreign: false }],
  ] as const;
  for (const [type, sans, expected] of cases) {
    const more = `  client_auth_type: ${type}\n  client_ca_file: ${made.file}\n  client_allowed_sans: [${sans.join(', ')}]\n`;
    await withConfig(context, tlsText(server, more), async (world) => {
      for (const [name, isTaken] of Object.entries(expected)) {
        const client = clients[name as keyof typeof clients];
        const text = await ask(world, { ca, ...client });
        assert.equal(/healthy/.test(text), isTaken, `${type} [${sans}] ${name}`);
      }
      if (Object.values(expected).includes(false)) {
        await until(() => world.warnings.length > 0);
        assert.match(world.warnings[0]!, /^no TLS with 127\.0\.0\.1 on the HTTP port: \S/);
      }
    });
  }
});

test('the scraper is called after scraper=, else its user, else the name in its certificate', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const client = made.issue('DNS:one.example,DNS:two.example');
  const ca = readFileSync(made.file);
  const scrape = (path: string, head = '') =>
    request(
      `${Object.entries(scrapeHeaders)
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join('')}${head}`,
      path,
    );
  const more = (auth: string, sans = '') =>
    tlsText(
      made.issue('DNS:localhost'),
      `  client_auth_type: ${auth}\n  client_ca_file: ${made.file}\n  client_allowed_sans: [${sans}]\n`,
    );
  const nameOf = async (world: HttpHarness, options: ConnectionOptions, path = '/metrics', head = '') => {
    await ask(world, { ca, ...options }, scrape(path, head));
    return /^info: scraper '([^']*)'/.exec(
      world.log.lines.findLast((line) => line.startsWith('info: scraper')) ?? '',
    )?.[1];
  };
  await withConfig(context, more('VerifyClientCertIfGiven'), async (world) => {
    assert.equal(await nameOf(world, {}), 'addr/127.0.0.1');
    assert.equal(await nameOf(world, client), 'user/one.example');
    assert.equal(await nameOf(world, client, '/metrics?scraper=own'), 'own');
  });
  await withConfig(context, more('RequireAndVerifyClientCert', 'nobody, two.example'), async (world) => {
    assert.equal(await nameOf(world, client), 'user/two.example');
  });
  // What no authority has signed is anybody's text.
  await withConfig(context, more('RequireAnyClientCert', 'one.example'), async (world) => {
    const forged = authority(context)!.issue('DNS:one.example');
    assert.equal(await nameOf(world, forged), 'addr/127.0.0.1');
  });
  const anybody = tlsText(made.issue('DNS:localhost'), '  client_auth_type: RequireAnyClientCert\n');
  await withConfig(context, anybody, async (world) => {
    assert.equal(await nameOf(world, client), 'addr/127.0.0.1');
  });
  await withConfig(context, `${more('VerifyClientCertIfGiven')}basic_auth_users: {alice: ${hash}}\n`, async (world) => {
    assert.equal(await nameOf(world, client, '/metrics', basic('alice:secret')), 'user/alice');
  });
});

test('the end of TLS confirms nothing, a FIN behind it does', { timeout: 60_000 }, async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const ca = readFileSync(made.file);
  await withConfig(context, tlsText(made.issue('DNS:localhost')), async (world) => {
    const agent = world.connect('a');
    agent.report();
    // As Go closes an idle connection: close_notify, and a FIN at once.
    const closing = await secure(world, { ca });
    await answered(closing);
    await world.clock.advance(2000);
    closing.end();
    await until(() => world.count('confirmed') === 1);
    await settle();
    assert.equal(agent.acked, 1);
    // As it closes one whose answer it has not read: close_notify, and then a reset.
    agent.report();
    const raw = connectPlain({ host: '127.0.0.1', port: world.port });
    const bytes = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _, done) => void raw.write(chunk, () => done()),
    });
    raw.on('data', (chunk) => bytes.push(chunk));
    raw.on('error', () => {});
    const unread = connect({ socket: bytes, ca, servername: 'localhost' });
    await once(unread, 'secureConnect');
    await answered(unread);
    await world.clock.advance(2000);
    const timers = world.clock.timers;
    const sentBytes = raw.bytesWritten;
    unread.end();
    await until(() => raw.bytesWritten > sentBytes && world.clock.timers > timers);
    raw.resetAndDestroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await world.clock.advance(20);
    await until(() => world.count('lost at rest') === 1);
    assert.equal(world.count('confirmed'), 1);
    assert.equal(agent.acked, 1);
  });
});

test('a client that answers our close over TLS has read the answer', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const ca = readFileSync(made.file);
  await withConfig(context, tlsText(made.issue('DNS:localhost')), async (world) => {
    const agent = world.connect('a');
    const ms = agent.report();
    const text = await ask(world, { ca }, scrapeText.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    assert.match(text, new RegExp(`test_value.* 0 ${ms}`));
    for (let step = 0; step < 40 && world.count('confirmed') === 0; step++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      await world.clock.advance(20);
    }
    assert.equal(world.count('confirmed'), 1);
    await settle();
    assert.equal(agent.acked, 1);
  });
});

test('passwords: everything asks for them, wrong ones are counted and logged once a minute', async (context) => {
  await withConfig(context, `basic_auth_users: {alice: ${hash}}\n`, async (world) => {
    for (const path of ['/', '/metrics', '/api/v1/agents', '/-/healthy', '/-/ready', '/nothing']) {
      const text = await readAll(world.raw(request('', path)));
      assert.match(text, /^HTTP\/1\.1 401 /, path);
      assert.match(text, /\r\nWWW-Authenticate: Basic realm="sysmon", charset="UTF-8"\r\n/, path);
    }
    assert.match(await readAll(world.raw(request(basic('alice:secret')))), /^HTTP\/1\.1 200 /);
    for (const wrong of [basic('alice:wrong'), basic('bob:secret'), basic('alice'), 'Authorization: Bearer x\r\n']) {
      assert.match(await readAll(world.raw(request(wrong))), /^HTTP\/1\.1 401 /, wrong);
    }
    assert.equal(await world.own('sysmon_server_http_requests_total{route="other",code="401"}'), 10);
    assert.deepEqual(world.warnings, [
      'HTTP request from 127.0.0.1 is refused: it names no user; see basic_auth_users in --web.config.file',
    ]);
    await world.clock.advance(60_000);
    await readAll(world.raw(request(basic('alice:wrong'))));
    assert.match(world.warnings[1]!, /the password of user 'alice' is wrong; .* \(and 9 more like it\)$/);
    await world.clock.advance(60_000);
    await readAll(world.raw(request(basic('my password:x'))));
    assert.match(world.warnings[2]!, /is refused: its user is wrong; /);
  });
});

test('headers of the file are in every answer', async (context) => {
  const text = 'http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=1\n    X-Frame-Options: deny\n';
  await withConfig(context, text, async (world) => {
    for (const path of ['/-/healthy', '/metrics', '/nothing']) {
      const answer = await readAll(world.raw(request('', path)));
      assert.match(answer, /\r\nX-Frame-Options: deny\r\nStrict-Transport-Security: max-age=1\r\n/, path);
      assert.match(answer, /\r\nX-Content-Type-Options: nosniff\r\n/, path);
    }
  });
});

test('a file that changes is read again; a wrong one leaves the present one and is logged once', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const [clock, log] = [new VirtualClock(), new MemoryLog()];
  const [first, second] = [made.issue('DNS:localhost'), made.issue('DNS:localhost')];
  const folder = temporaryFolder(context);
  const [path, cert, key] = ['web.yml', 'cert', 'key'].map((name) => join(folder, name)) as [string, string, string];
  writeFileSync(cert, first.cert);
  writeFileSync(key, first.key, { mode: 0o600 });
  writeFileSync(path, 'tls_server_config: {cert_file: cert, key_file: key}\n');
  const watched = new WebConfigFile(path, readWebConfig(path), { clock, log });
  const present = watched.current;
  await clock.advance(60_000);
  assert.equal(watched.current, present);
  writeFileSync(cert, second.cert);
  await clock.advance(60_000);
  assert.equal(watched.current, present);
  assert.equal(log.lines.length, 1);
  assert.match(
    log.lines[0]!,
    /^error: --web\.config\.file: '.*web\.yml', tls_server_config: .*mismatch; keeping the present/,
  );
  writeFileSync(key, second.key);
  await clock.advance(4000);
  assert.notEqual(watched.current, present);
  assert.equal(watched.current.tls?.options.cert, second.cert);
  assert.match(log.lines[1]!, /^info: reloaded '.*web\.yml': HTTP by TLS$/);
  writeFileSync(path, 'tls_server_config: {cert_file: nothing, key_file: key}\n');
  watched.reload();
  watched.reload();
  assert.equal(log.lines.length, 3);
  assert.match(log.lines[2]!, /nothing': there is no such file; keeping the present/);
  watched.stop();
  assert.equal(clock.timers, 0);
});

test('a certificate that is renewed counts for new connections, open ones go on', async (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const ca = readFileSync(made.file);
  await withConfig(context, tlsText(made.issue('DNS:localhost')), async (world) => {
    const open = await secure(world, { ca });
    const before = open.getPeerX509Certificate()!.serialNumber;
    await answered(open);
    world.config.current = readWebConfig(configFile(context, tlsText(made.issue('DNS:localhost'))));
    const next = await secure(world, { ca });
    assert.notEqual(next.getPeerX509Certificate()!.serialNumber, before);
    await answered(open);
    for (const socket of [open, next]) socket.destroy();
  });
});

test('keys and passwords that others can read are refused', (context) => {
  const made = authority(context);
  if (made === undefined) return;
  const folder = temporaryFolder(context);
  const path = join(folder, 'web.yml');
  const write = (text: string, mode: number) => writeFileSync(path, text, { mode });
  write(`basic_auth_users: {alice: ${hash}}\n`, 0o644);
  assert.throws(() => readWebConfig(path), /its mode is 0644, so others can read or change it; run 'chmod 0440 /);
  const { certFile, key } = made.issue('DNS:localhost');
  writeFileSync(join(folder, 'key'), key, { mode: 0o644 });
  write(`tls_server_config: {cert_file: ${certFile}, key_file: key}\n`, 0o644);
  assert.throws(() => readWebConfig(path), /key': its mode is 0644/);
});

test('the names of a certificate', () => {
  assert.deepEqual(sansOf('DNS:a.example, IP Address:127.0.0.1, URI:"x, y", email:a@b, DirName:CN=z, DNS:c'), [
    ...['a.example', '127.0.0.1', 'x, y', 'a@b', 'c'],
  ]);
  assert.deepEqual(sansOf('IP Address:2001:DB8:0:0:0:0:0:1'), ['2001:db8::1']);
  assert.deepEqual(sansOf(''), []);
});
