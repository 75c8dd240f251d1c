import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { bundleOf, command, temporaryFolder } from '../support/programs.ts';
import { Fleet } from './fleet.ts';

// What was revoked stays revoked, whatever becomes of the file; with the programs as they are shipped.

const refused = /refused this agent \(revoked\)/;

test('a revocation outlives its file, a reload, and a failed write', { timeout: 60_000 }, async (context) => {
  const fleet = await Fleet.start(context);
  const { server } = fleet;
  await server.run.line(
    /warning: '.*revoked\.json' is missing, so no key is refused: .* 'sysmon-server enroll' makes an/,
  );
  const check = () => command('server', 'check', '--fleet-key-file', join(fleet.folder, 'fleet.key'));
  assert.match(await check(), /\n'.*revoked\.json' is missing, so no key is refused/);
  const first = await fleet.enroll('web-1');
  assert.doesNotMatch(await check(), /is missing/);
  assert.deepEqual(fleet.revoked, {}, 'made by the first enrolment');
  const agent = await fleet.connect('web-1', first.keyFile);
  assert.equal(
    await fleet.revoke('web-1'),
    "the key of generation 1 of agent 'web-1' is revoked; 1 connection ended\n",
  );
  await agent.run.line(refused);
  assert.deepEqual(fleet.revoked, { 'web-1': 1 });
  assert.equal(statSync(fleet.file).mode & 0o777, 0o644);

  rmSync(fleet.file);
  assert.match(await fleet.reload(), /, 1 revocation; 0 connections ended/);
  await server.run.line(/warning: '.*' is missing: keeping the 1 revocation in memory; restore it/);
  await agent.kill('SIGTERM');
  const thief = await fleet.connect('web-1', first.keyFile);
  assert.ok(thief.run.lines.some((line) => refused.test(line)));
  assert.match((await fleet.enroll('web-1')).identity, /^web-1:2:/, 'never the revoked key again');
  assert.deepEqual(fleet.revoked, { 'web-1': 1 }, 'from the memory of the server');

  // A folder is in the way of what is written.
  mkdirSync(`${fleet.file}.new`);
  const words =
    /revoked\.json' cannot be written: .*; the key of agent 'db-1' is refused until the server's next start/;
  const db = await fleet.enroll('db-1');
  const dbAgent = await fleet.connect('db-1', db.keyFile);
  await assert.rejects(fleet.revoke('db-1'), words);
  await dbAgent.run.line(refused);
  assert.match(await fleet.reload(), /, 2 revocations; 0 connections ended/);
  assert.equal(await fleet.isConnected('db-1'), false);
  rmSync(`${fleet.file}.new`, { recursive: true });
  assert.match(await fleet.revoke('db-1'), /generation 2 of agent 'db-1' is revoked; 0 connections ended\n$/);

  await server.kill('SIGTERM');
  assert.match(await fleet.revoke('old'), /generation 1 .* the server is not running, and will refuse it once it is/);
  await server.start();
  assert.deepEqual(fleet.revoked, { 'web-1': 1, 'db-1': 2, old: 1 });
  assert.match((await fleet.enroll('db-1')).identity, /^db-1:3:/);
  assert.match(await fleet.reload(), /, 3 revocations;/);
});

test('an agent whose key is newer than a restored file is cut off by one revocation', {
  timeout: 60_000,
}, async (context) => {
  const fleet = await Fleet.start(context);
  await fleet.enroll('web-1');
  await fleet.revoke('web-1');
  const second = await fleet.enroll('web-1');
  assert.match(second.identity, /^web-1:2:/);
  await fleet.server.kill('SIGTERM');
  rmSync(fleet.file);
  await fleet.server.start();
  const agent = await fleet.connect('web-1', second.keyFile);
  assert.match(await fleet.revoke('web-1'), /the key of generation 2 of agent 'web-1' is revoked; 1 connection ended/);
  await agent.run.line(refused);
  assert.deepEqual(fleet.revoked, { 'web-1': 2 });
});

test('a name that nobody has, and a place that cannot be written', { timeout: 60_000 }, async (context) => {
  const fleet = await Fleet.start(context);
  const { keyFile } = await fleet.enroll('web-1');
  const agent = await fleet.connect('web-1', keyFile);
  assert.match(
    await fleet.revoke('web1'),
    /0 connections ended\nno agent named 'web1' is known: check the name with 'sysmon-server agents'\n$/,
  );
  const nowhere = join(fleet.folder, 'none', 'revoked.json');
  await assert.rejects(
    fleet.revoke('web-1', '--revocations-file', nowhere),
    /none\/revoked\.json' cannot be written: /,
  );
  assert.equal(await fleet.isConnected('web-1'), true);
  assert.ok(!agent.run.lines.some((line) => refused.test(line)));
});

test('revocations that run at once are all kept, with the server and without', { timeout: 60_000 }, async (context) => {
  const fleet = await Fleet.start(context);
  const names = (prefix: string) => Array.from({ length: 6 }, (_, at) => `${prefix}-${at}`);
  const revokeAll = async (prefix: string) => {
    for (const said of await Promise.all(names(prefix).map((name) => fleet.revoke(name)))) {
      assert.match(said, /^the key of generation 1 of agent '.*' is revoked; /);
    }
  };
  await revokeAll('on');
  await fleet.server.kill('SIGTERM');
  // One that was killed has left its lock and a part of a file behind.
  writeFileSync(`${fleet.file}.lock.1`, '');
  writeFileSync(`${fleet.file}.new`, '{');
  await revokeAll('off');
  const kept = Object.fromEntries([...names('on'), ...names('off')].map((name) => [name, 1]));
  assert.deepEqual(fleet.revoked, kept);
  assert.deepEqual(
    readdirSync(fleet.folder).filter((name) => name.startsWith('revoked.json.')),
    [],
  );
});

test("root follows no link in another user's folder", { skip: process.getuid?.() !== 0 && 'needs root' }, (context) => {
  const folder = temporaryFolder(context);
  chmodSync(folder, 0o755);
  const nobody = 65_534;
  const [state, target] = [join(folder, 'state'), join(folder, 'shadow')];
  writeFileSync(join(folder, 'fleet.key'), `${randomBytes(32).toString('hex')}\n`, { mode: 0o400 });
  writeFileSync(target, 'secret', { mode: 0o600 });
  mkdirSync(state);
  const planted = ['revoked.json', 'revoked.json.new'].map((name) => join(state, name));
  const revoke = () =>
    spawnSync(
      process.execPath,
      [
        ...[bundleOf('server'), 'revoke', 'web-1', '--fleet-key-file', join(folder, 'fleet.key')],
        ...['--revocations-file', planted[0]!, '--control-socket', join(folder, 'none.sock')],
      ],
      { encoding: 'utf8', env: { SYSMON_CONFIG_FILE: '/dev/null' } },
    );
  // The first is where the file is expected, so it is read; what it leads to is no file of revocations.
  symlinkSync(target, planted[0]!);
  assert.match(revoke().stderr, /revoked\.json' is damaged/);
  rmSync(planted[0]!);
  symlinkSync(target, planted[1]!);
  spawnSync('chown', ['-hR', `${nobody}:${nobody}`, state]);
  const { status, stderr } = revoke();
  assert.equal(status, 0, stderr);
  assert.equal(readFileSync(target, 'utf8'), 'secret');
  const { uid, gid } = statSync(target);
  assert.deepEqual([uid, gid], [0, 0]);
  assert.deepEqual(readdirSync(state), ['revoked.json']);
  const written = statSync(planted[0]!);
  assert.deepEqual([written.uid, written.gid], [nobody, nobody], 'written with the rights of the owner of the folder');
});
