import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../../support/programs.ts';
import { settle } from '../../support/virtual-clock.ts';
import { HttpHarness, readAll, samplesOf, scrapeText, until, withHttp } from './http-harness.ts';

test('a scrape over a unix socket, beside one over TCP; the socket goes with the server', (context) =>
  withHttp(async (world) => {
    const path = join(temporaryFolder(context), 'web.sock');
    const server = await world.openAt([
      { kind: 'unix', path },
      { kind: 'tcp', address: '127.0.0.1', port: 0 },
    ]);
    assert.equal(statSync(path).mode & 0o777, 0o660);
    assert.equal(server.ports[0], 0);
    assert.notEqual(server.ports[1], 0);
    const agent = world.connect('a');
    const ms = agent.report();
    const socket = connect(path);
    let first = '';
    socket.on('data', (chunk) => {
      first += chunk;
    });
    socket.write(scrapeText);
    await until(() => first.includes('\r\n0\r\n\r\n'));
    assert.deepEqual(samplesOf(first), [`a 0 ${ms}`]);
    const text = readAll(socket);
    assert.match(world.log.lines[0]!, /^info: scraper 'addr\/unix' \(unix, Prometheus 3\.5\.0\) gets every report/);
    socket.write(scrapeText.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    await text;
    await settle();
    assert.equal(agent.acked, 1);
    const closed = server.close(2000);
    await world.clock.advance(2000);
    await closed;
    assert.equal(existsSync(path), false);
  }));

test('a unix socket that nobody answers is replaced; anything else stays, and is named', async (context) => {
  const world = new HttpHarness();
  const folder = temporaryFolder(context);
  const path = join(folder, 'web.sock');
  const open = (at: string) => world.openAt([{ kind: 'unix', path: at }]);
  // As a killed server leaves it.
  spawnSync(process.execPath, [
    '-e',
    `require('net').createServer().listen('${path}', () => process.kill(process.pid, 'SIGKILL'))`,
  ]);
  assert.ok(existsSync(path));
  await (await open(path)).close(0);
  const other = createServer().listen(path);
  await until(() => other.listening);
  await assert.rejects(open(path), {
    name: 'ListenError',
    message: `cannot listen on unix:${path}: another program answers there`,
  });
  other.close();
  writeFileSync(join(folder, 'file'), 'x');
  await assert.rejects(open(join(folder, 'file')), /file: it is there and is no socket$/);
  await assert.rejects(open(join(folder, 'none', 'web.sock')), /web\.sock: its folder does not exist$/);
  await world.close();
});

test('where one address cannot be had, none stays open', async (context) => {
  const world = new HttpHarness();
  const folder = temporaryFolder(context);
  const path = join(folder, 'web.sock');
  await assert.rejects(
    world.openAt([
      { kind: 'unix', path },
      { kind: 'unix', path: join(folder, 'none', 'x') },
    ]),
  );
  assert.equal(existsSync(path), false);
  await world.close();
});
