import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { archivesIn } from '../../../src/server/web/archives.ts';
import { temporaryFolder } from '../../support/programs.ts';
import { readAll, withHttp } from './http-harness.ts';

const file = 'sysmon-0.1.0-linux-x64.tar.gz';

function folderWith(scope: TestContext, bytes = 3_000_000): { folder: string; content: Buffer } {
  const folder = temporaryFolder(scope);
  const content = randomBytes(bytes);
  writeFileSync(join(folder, file), content);
  return { folder, content };
}

test('releases by their names, and nothing else', (context) => {
  const { folder } = folderWith(context, 1);
  for (const name of ['sysmon-0.1.0-linux-arm64.tar.gz', 'fleet.key', 'SHA256SUMS', 'sysmon-1-linux-mips.tar.gz']) {
    writeFileSync(join(folder, name), '');
  }
  mkdirSync(join(folder, 'sysmon-2-linux-x64.tar.gz'));
  symlinkSync('/etc/passwd', join(folder, 'sysmon-3-linux-x64.tar.gz'));
  assert.deepEqual(
    archivesIn(folder).map((archive) => [archive.file, archive.architecture]),
    [
      ['sysmon-0.1.0-linux-arm64.tar.gz', 'arm64'],
      [file, 'x64'],
    ],
  );
  assert.deepEqual(archivesIn(join(folder, 'missing')), []);
});

test('GET gives a release whole, HEAD its length, and other paths nothing', async (context) => {
  const { folder, content } = folderWith(context);
  writeFileSync(join(folder, 'other'), 'treasure');
  const [linked, aFolder, aFifo, later] = [2, 3, 4, 5].map((version) => file.replace('0.1.0', `0.${version}.0`));
  symlinkSync(join(folder, 'other'), join(folder, linked!));
  mkdirSync(join(folder, aFolder!));
  execFileSync('mkfifo', [join(folder, aFifo!)]);
  await withHttp(
    async (world) => {
      const url = (path: string) => `http://127.0.0.1:${world.port}${path}`;
      const bare = { headers: { connection: 'close' } };
      const answer = await fetch(url(`/install/${file}`), bare);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'application/gzip');
      assert.ok(content.equals(Buffer.from(await answer.arrayBuffer())));
      const head = await fetch(url(`/install/${file}`), { ...bare, method: 'HEAD' });
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(content.length)]);
      for (const path of [
        '',
        'other',
        '../other',
        '%2e%2e/other',
        `${file}/`,
        `./${file}`,
        `x/${file}`,
        `${file}%00`,
        linked,
        aFolder,
        aFifo,
        later,
      ]) {
        const got = await readAll(
          world.raw(`GET /install/${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`),
        );
        assert.match(got, /^HTTP\/1\.1 404 /, path);
        assert.doesNotMatch(got, /treasure/);
      }
      assert.equal((await fetch(url(`/install/${file}`), { ...bare, method: 'PUT', body: '' })).status, 405);
      // An upgrade replaces them while the server runs.
      renameSync(join(folder, file), join(folder, later!));
      assert.equal((await fetch(url(`/install/${file}`), bare)).status, 404);
      assert.equal((await fetch(url(`/install/${later}`), bare)).status, 200);
    },
    { archiveFolder: folder },
  );
});

test('without a folder there is nothing to fetch', async () => {
  await withHttp(async (world) => {
    const url = `http://127.0.0.1:${world.port}/install/${file}`;
    assert.equal((await fetch(url, { headers: { connection: 'close' } })).status, 404);
  });
});

test('two at a time for an address; one that takes nothing for half a minute is cut off', async (context) => {
  // More than what the sockets of both ends hold.
  const { folder } = folderWith(context, 64_000_000);
  await withHttp(
    async (world) => {
      const ask = `GET /install/${file} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
      const slow = [world.raw(ask), world.raw(ask)];
      const ended = slow.map((socket) => once(socket, 'close'));
      // The head has come, and nothing is read behind it.
      await Promise.all(slow.map((socket) => once(socket, 'readable')));
      const third = await readAll(world.raw(ask.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')));
      assert.match(third, /^HTTP\/1\.1 503 [\s\S]*Retry-After: 60\r\n/);
      // The first look finds what has gone into the sockets.
      for (let look = 0; look < 3; look++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        await world.clock.advance(30_000);
      }
      for (const socket of slow) socket.resume();
      await Promise.all(ended);
      const head = await readAll(
        world.raw(ask.replace('GET', 'HEAD').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')),
      );
      assert.match(head, /^HTTP\/1\.1 200 /, 'there is room again');
    },
    { archiveFolder: folder },
  );
});
