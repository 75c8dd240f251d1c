import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockFile } from '../../src/runtime/files.ts';
import { temporaryFolder } from '../support/programs.ts';

test('who changes a file has it alone from reading to writing', async (context) => {
  const path = join(temporaryFolder(context), 'count');
  writeFileSync(path, '0');
  const increment = async () => {
    const file = await lockFile(path);
    try {
      const before = Number(readFileSync(path, 'utf8'));
      await new Promise((resolve) => setTimeout(resolve, 5));
      file.replace(`${before + 1}`, { mode: 0o640 });
    } finally {
      await file.release();
    }
  };
  await Promise.all(Array.from({ length: 8 }, increment));
  assert.equal(readFileSync(path, 'utf8'), '8');
  assert.equal(statSync(path).mode & 0o777, 0o640);
  assert.deepEqual(readdirSync(join(path, '..')), ['count'], 'nothing is left beside it');
});

test('a holder is waited for, and one that is killed holds nothing', async (context) => {
  const path = join(temporaryFolder(context), 'file');
  const module = new URL('../../src/runtime/files.js', import.meta.url).href;
  const code = `const { lockFile } = await import(${JSON.stringify(module)});
    await lockFile(${JSON.stringify(path)}); console.log('held'); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  let isHeld = true;
  const waiting = lockFile(path).then((file) => {
    assert.equal(isHeld, false, 'taken while another process had it');
    return file;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  isHeld = false;
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  assert.ok(existsSync(`${path}.lock.1`), 'it left its lock behind');
  await (await waiting).release();
  assert.deepEqual(readdirSync(join(path, '..')), []);
});

test('where another command does not end, the error says so', async (context) => {
  const path = join(temporaryFolder(context), 'file');
  const file = await lockFile(path);
  await assert.rejects(lockFile(path, 300), {
    code: 'held',
    message: `'${path}' has been locked by another command for 0.3 s: nothing is changed; try again when it has ended`,
  });
  await file.release();
});
