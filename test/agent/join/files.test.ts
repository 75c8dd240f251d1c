import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { joinFiles, withOptions } from '../../../src/agent/join/files.ts';
import { readKeyFile } from '../../../src/agent/key-file.ts';
import { temporaryFolder } from '../../support/programs.ts';

const server = { host: '2001:db8::7', port: 9732 };
const key = { identity: 'web-9:1:5c9e0b3a', agentName: 'web-9', key: Buffer.alloc(32, 0xa7) };

function places(scope: TestContext) {
  const folder = temporaryFolder(scope);
  return {
    folder,
    ...{ keyFile: join(folder, 'agent.key'), envFile: join(folder, 'agent.env'), group: 'no-such-group' },
  };
}

const env = (text: string) => withOptions(text, { SYSMON_SERVER: 's:1', SYSMON_NAME: 'a' });

test('options: in the place of the line that sets them, or documents them, else at the end', () => {
  assert.equal(env(''), 'SYSMON_SERVER=s:1\nSYSMON_NAME=a\n');
  assert.equal(
    env('# doc\n#SYSMON_SERVER=127.0.0.1:9732\n\n#SYSMON_NAME=\nSYSMON_LABEL=x=y\n'),
    '# doc\nSYSMON_SERVER=s:1\n\nSYSMON_NAME=a\nSYSMON_LABEL=x=y\n',
  );
  assert.equal(
    env('#SYSMON_SERVER=127.0.0.1:9732\nSYSMON_NAME=b\n SYSMON_SERVER = old:1'),
    '#SYSMON_SERVER=127.0.0.1:9732\nSYSMON_NAME=a\nSYSMON_SERVER=s:1\n',
  );
});

test('options: the last line of a name counts, so no other may stay behind it', () => {
  assert.equal(env('SYSMON_SERVER=x:1\nA=1\nSYSMON_SERVER=y:1\n'), 'SYSMON_SERVER=s:1\nA=1\nSYSMON_NAME=a\n');
  assert.equal(env('SYSMON_SERVER=x:1\nA=1\nSYSMON_SERVER=s:1\n'), 'SYSMON_SERVER=s:1\nA=1\nSYSMON_NAME=a\n');
});

test('options: one that says the same stays as it is written', () => {
  const text = '  SYSMON_SERVER = s:1\nSYSMON_NAME=a\n';
  assert.equal(env(text), text);
});

test('a key that its owner alone can read, whatever the umask; a second time nothing changes', (context) => {
  const where = places(context);
  writeFileSync(where.envFile, 'SYSMON_LABEL=a=b\n', { mode: 0o640 });
  chmodSync(where.envFile, 0o640);
  const mask = process.umask(0);
  try {
    joinFiles(where, server, key).write();
  } finally {
    process.umask(mask);
  }
  assert.equal(statSync(where.keyFile).mode & 0o777, 0o400);
  assert.deepEqual(readKeyFile(where.keyFile), key);
  assert.equal(statSync(where.envFile).mode & 0o777, 0o640);
  assert.equal(
    readFileSync(where.envFile, 'utf8'),
    `SYSMON_LABEL=a=b\nSYSMON_SERVER=[2001:db8::7]:9732\nSYSMON_NAME=web-9\nSYSMON_KEY_FILE=${where.keyFile}\n`,
  );
  assert.deepEqual(readdirSync(where.folder).sort(), ['agent.env', 'agent.key']);
  const again = joinFiles(where, server, key);
  assert.equal(again.changed, false);
  assert.equal(again.nameBefore, 'web-9');
  // A key that others can read is not the same.
  chmodSync(where.keyFile, 0o444);
  assert.equal(joinFiles(where, server, key).changed, true);
});

test('undone, all is as it was', (context) => {
  const where = places(context);
  const first = joinFiles(where, server, key);
  assert.equal(first.nameBefore, undefined);
  first.write()();
  assert.deepEqual(readdirSync(where.folder), []);

  first.write();
  const before = [where.keyFile, where.envFile].map((path) => [readFileSync(path, 'utf8'), statSync(path).mode]);
  const other = { ...key, identity: 'db-1:1:5c9e0b3a', agentName: 'db-1' };
  const undo = joinFiles(where, { host: 't', port: 1 }, other).write();
  assert.match(readFileSync(where.keyFile, 'utf8'), /db-1/);
  undo();
  assert.deepEqual(
    [where.keyFile, where.envFile].map((path) => [readFileSync(path, 'utf8'), statSync(path).mode]),
    before,
  );
});

test('where the second file cannot be written, the first is as it was', (context) => {
  const where = places(context);
  mkdirSync(`${where.envFile}.part`);
  mkdirSync(`${where.envFile}.part/full`);
  assert.throws(() => joinFiles(where, server, key).write(), /'.*agent\.env' cannot be written: /);
  assert.equal(existsSync(where.keyFile), false);
});

test('a link to the options stays one', (context) => {
  const where = places(context);
  const real = join(where.folder, 'real.env');
  writeFileSync(real, '');
  symlinkSync(real, where.envFile);
  joinFiles(where, server, key).write();
  assert.match(readFileSync(real, 'utf8'), /SYSMON_NAME=web-9/);
});
