import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkSpoolAccess, openSpoolFolder, SpoolFolderError } from '../../../src/agent/spool/folder.ts';
import { type Clock, realClock } from '../../../src/runtime/clock.ts';

import { eventually } from '../../support/programs.ts';

const root = mkdtempSync(join(tmpdir(), 'sysmon-spool-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('the folder is made, written, read, cut, listed and given back', async () => {
  const path = join(root, 'deep', 'in', 'x'.repeat(120));
  const { disk, close } = await openSpoolFolder(path, realClock);
  await disk.write('a', 0, Buffer.from('hello'));
  await disk.write('b', 0, Buffer.from('other'));
  await disk.write('a', 5, Buffer.from(' world'));
  await disk.sync('a');
  await disk.writeSynced('a', 6, Buffer.from('night'));
  await disk.write('a', 11, Buffer.from('!'));
  assert.equal(Buffer.from(await disk.read('a')).toString(), 'hello night!');
  assert.deepEqual(flagsOf(join(path, 'a')), ['O_DSYNC', 'none']);
  await disk.truncate('a', 7);
  assert.equal(Buffer.from(await disk.read('a')).toString(), 'hello n');
  await disk.writeSynced('new', 0, Buffer.from('made'));
  assert.equal(Buffer.from(await disk.read('new')).toString(), 'made');
  await disk.remove('new');
  await disk.replace('c', Buffer.from('a longer text'));
  await disk.replace('c', Buffer.from('short'));
  assert.equal(Buffer.from(await disk.read('c')).toString(), 'short');
  assert.deepEqual([...(await disk.list())].sort(), ['a', 'b', 'c', 'lock.1']);
  for (const name of ['a', 'a', 'c']) await disk.remove(name);
  await assert.rejects(disk.read('a'), /ENOENT/);
  await close();
  assert.deepEqual(readdirSync(path), ['b']);
  const again = await openSpoolFolder(path, realClock);
  assert.equal(Buffer.from(await again.disk.read('b')).toString(), 'other');
  await again.close();
});

/** How this process has a file open, a word for each descriptor. */
function flagsOf(path: string): string[] {
  const open = readdirSync('/proc/self/fd').filter((fd) => readlinkOf(fd) === path);
  const flags = open.map((fd) => /^flags:\t0(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '');
  return flags.map((octal) => (Number.parseInt(octal, 8) & constants.O_DSYNC ? 'O_DSYNC' : 'none')).sort();
}

function readlinkOf(fd: string): string | undefined {
  // The descriptor of the folder that was listed is closed by now.
  return existsSync(`/proc/self/fd/${fd}`) ? readlinkSync(`/proc/self/fd/${fd}`) : undefined;
}

test('folders in it are of others, and are not listed', async () => {
  const path = join(root, 'with-folder');
  const { disk, close } = await openSpoolFolder(path, realClock);
  mkdirSync(join(path, 'textfile'));
  writeFileSync(join(path, 'file'), '');
  const names = await disk.list();
  assert.ok(names.includes('file'));
  assert.ok(!names.includes('textfile'));
  await close();
});

test('a second one on the same folder is refused, as long as the first lives', async () => {
  const path = join(root, 'shared');
  const first = await openSpoolFolder(path, realClock);
  await assert.rejects(openSpoolFolder(path, realClock), (error) => {
    assert.ok(error instanceof SpoolFolderError);
    assert.equal(error.code, 'locked');
    assert.match(error.message, /in use by another sysmon-agent/);
    assert.ok(error.message.includes(path));
    return true;
  });
  await first.close();
  await (await openSpoolFolder(path, realClock)).close();
});

test('the lock of a holder that was killed is taken over; of many that start at once one gets it', async () => {
  const path = join(root, 'killed');
  const module = new URL('../../../src/agent/spool/folder.js', import.meta.url).href;
  const clock = new URL('../../../src/runtime/clock.js', import.meta.url).href;
  const code = `const { openSpoolFolder } = await import(${JSON.stringify(module)});
    const { realClock } = await import(${JSON.stringify(clock)});
    await openSpoolFolder(${JSON.stringify(path)}, realClock); console.log('held'); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  await assert.rejects(openSpoolFolder(path, realClock), { code: 'locked' });
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  assert.ok(existsSync(join(path, 'lock.1')), 'it left its lock behind');

  const starts = await Promise.allSettled(Array.from({ length: 5 }, () => openSpoolFolder(path, realClock)));
  const held = starts.filter((start) => start.status === 'fulfilled');
  assert.equal(held.length, 1);
  await held[0]!.value.close();
  assert.deepEqual(readdirSync(path), []);
});

test('a disk that does not answer is not waited for; what it gives later is given back', async () => {
  const path = join(root, 'late');
  // The time is over at once.
  const after: Clock['after'] = (_, callback) => {
    callback();
    return { cancel() {} };
  };
  await assert.rejects(openSpoolFolder(path, { ...realClock, after }), {
    code: 'timeout',
    message: /--spool-dir: '.*late' did not answer within 10s/,
  });
  await eventually(5000, async () => {
    await (await openSpoolFolder(path, realClock)).close();
    assert.deepEqual(readdirSync(path), []);
  });
});

test('a folder that cannot be written is refused with its name and the reason', async (t) => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  assert.throws(() => checkSpoolAccess(file), { code: 'access', message: /--spool-dir: '.*file' cannot be written/ });
  assert.throws(() => checkSpoolAccess(join(file, 'below')), { code: 'access' });
  await assert.rejects(openSpoolFolder(join(file, 'below'), realClock), { code: 'access' });
  checkSpoolAccess(join(root, 'missing', 'below'));
  assert.ok(!existsSync(join(root, 'missing')), 'looking makes nothing');
  if (process.getuid?.() === 0) return t.diagnostic('permissions are not tried: root may write everywhere');
  const closed = join(root, 'closed');
  mkdirSync(closed);
  chmodSync(closed, 0o500);
  await assert.rejects(openSpoolFolder(closed, realClock), { code: 'access', message: /EACCES/ });
});
