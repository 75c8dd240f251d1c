import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readSecretFile } from '../../src/runtime/secret-file.ts';
import { rootFile } from '../support/files.ts';

function secretFile(context: TestContext, mode: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-secret-'));
  context.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const path = join(folder, 'key');
  writeFileSync(path, 'secret');
  chmodSync(path, mode);
  return path;
}

test('a file of ours is read, one that others can read or change is refused', (context) => {
  for (const mode of [0o400, 0o600, 0o440, 0o640]) assert.equal(readSecretFile(secretFile(context, mode)), 'secret');
  for (const mode of [0o444, 0o460, 0o641]) {
    assert.throws(() => readSecretFile(secretFile(context, mode)), { code: 'mode', message: /run 'chmod 0440 / });
  }
});

test('a key in the place of the name of its file is not repeated', () => {
  const key = 'ab'.repeat(32);
  for (const path of [key, `/${key}`, `${key}${'c'.repeat(300)}`]) {
    assert.throws(
      () => readSecretFile(path),
      (error: Error) => /key file '.?\(hexadecimal digits\)'/.test(error.message) && !error.message.includes('abab'),
    );
  }
});

const rootTest = { skip: process.getuid?.() !== 0 && 'needs root, to give files to others' };

test('a file of another user is refused, also by root', rootTest, (context) => {
  const path = secretFile(context, 0o440);
  chownSync(path, 65_534, 0);
  assert.throws(() => readSecretFile(path), {
    code: 'owner',
    message: /belongs to user 65534, who .*run 'chown root /,
  });
});

test("a service reads what is root's and its group's, and refuses a group that it is not in", rootTest, (context) => {
  const path = secretFile(context, 0o440);
  const module = rootFile('build/src/runtime/secret-file.js');
  const readAs = (uid: number, gid: number, groups: number[]) => {
    // Nobody may look into the folder of the sources.
    const script = `import(${JSON.stringify(module)}).then(({ readSecretFile }) => {
      process.setgroups(${JSON.stringify(groups)}); process.setgid(${gid}); process.setuid(${uid});
      try { console.log(readSecretFile(${JSON.stringify(path)})); } catch (error) { console.log(error.code, error.message); }
    });`;
    return spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' }).stdout.trim();
  };
  const [service, users] = [33, 100];
  chownSync(path, 0, service);
  assert.equal(readAs(service, service, []), 'secret');
  chmodSync(path, 0o444);
  assert.match(readAs(service, service, []), /^mode .* run 'chmod 0440 /);
  chownSync(path, 0, 0);
  assert.match(readAs(service, service, []), /^mode .* run 'chown root:\S+ \S+ && chmod 0440 /, 'both in one message');
  chmodSync(path, 0o440);
  chownSync(path, 0, users);
  assert.match(readAs(service, service, []), /^unreadable .* may not read it; run 'chown root:\S+ \S+ && chmod 0440 /);
  // A person is not told to take a service's key away from it.
  assert.match(
    readAs(65_534, 65_534, []),
    /^unreadable .*: the user 'nobody' may not read it, only root .*; run this as root$/,
  );
  assert.equal(readAs(service, service, [users]), 'secret', 'its administrator has put it into that group');
  chownSync(path, 0, 0);
  assert.match(readAs(12_345, 12_345, []), /^unreadable .*: the user '12345' may not read it; run 'chown root:12345 /);
  chownSync(path, service, users);
  assert.match(readAs(service, service, []), /^owner .*group 100 can read it; run 'chgrp /);
});
