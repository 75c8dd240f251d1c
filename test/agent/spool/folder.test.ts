import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkSpoolAccess, openSpoolFolder, SpoolFolderError } from '../../../src/agent/spool/folder.ts';

const root = mkdtempSync(join(tmpdir(), 'sysmon-spool-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('the folder is made, written, read, cut, listed and given back', async () => {
  const path = join(root, 'deep', 'in', 'x'.repeat(120));
  const { disk, close } = await openSpoolFolder(path);
  disk.write('a', 0, Buffer.from('hello'));
  disk.write('b', 0, Buffer.from('other'));
  disk.write('a', 5, Buffer.from(' world'));
  disk.sync('a');
  disk.truncate('a', 7);
  assert.equal(Buffer.from(disk.read('a')).toString(), 'hello w');
  assert.deepEqual([...disk.list()].sort(), ['a', 'b', 'lock.1']);
  disk.remove('a');
  disk.remove('a');
  assert.throws(() => disk.read('a'), /ENOENT/);
  await close();
  assert.deepEqual(readdirSync(path), ['b']);
  const again = await openSpoolFolder(path);
  assert.equal(Buffer.from(again.disk.read('b')).toString(), 'other');
  await again.close();
});

test('a second one on the same folder is refused, as long as the first lives', async () => {
  const path = join(root, 'shared');
  const first = await openSpoolFolder(path);
  await assert.rejects(openSpoolFolder(path), (error) => {
    assert.ok(error instanceof SpoolFolderError);
    assert.equal(error.code, 'locked');
    assert.match(error.message, /in use by another sysmon-agent/);
    assert.ok(error.message.includes(path));
    return true;
  });
  await first.close();
  await (await openSpoolFolder(path)).close();
});

test('the lock of a holder that was killed is taken over; of many that start at once one gets it', async () => {
  const path = join(root, 'killed');
  const module = new URL('../../../src/agent/spool/folder.js', import.meta.url).href;
  const code = `const { openSpoolFolder } = await import(${JSON.stringify(module)});
    await openSpoolFolder(${JSON.stringify(path)}); console.log('held'); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  await assert.rejects(openSpoolFolder(path), { code: 'locked' });
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  assert.ok(existsSync(join(path, 'lock.1')), 'it left its lock behind');

  const starts = await Promise.allSettled(Array.from({ length: 5 }, () => openSpoolFolder(path)));
  const held = starts.filter((start) => start.status === 'fulfilled');
  assert.equal(held.length, 1);
  await held[0]!.value.close();
  assert.deepEqual(readdirSync(path), []);
});

test('a folder that cannot be written is refused with its name and the reason', async (t) => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  assert.throws(() => checkSpoolAccess(file), { code: 'access', message: /--spool-dir: '.*file' cannot be written/ });
  assert.throws(() => checkSpoolAccess(join(file, 'below')), { code: 'access' });
  await assert.rejects(openSpoolFolder(join(file, 'below')), { code: 'access' });
  checkSpoolAccess(join(root, 'missing', 'below'));
  assert.ok(!existsSync(join(root, 'missing')), 'looking makes nothing');
  if (process.getuid?.() === 0) return t.diagnostic('permissions are not tried: root may write everywhere');
  const closed = join(root, 'closed');
  mkdirSync(closed);
  chmodSync(closed, 0o500);
  await assert.rejects(openSpoolFolder(closed), { code: 'access', message: /EACCES/ });
});
