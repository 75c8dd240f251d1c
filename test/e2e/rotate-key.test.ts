import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { eventually } from '../support/programs.ts';
import { atTerminal } from '../support/pty.ts';
import { Fleet } from './fleet.ts';

// The fleet key, replaced by commands, and reloads that say what is wrong; with the programs as they are shipped.

const secrets = /[0-9a-f]{64}/;

test('rotate-key: both keys, then the new one alone; who has the old one is said and asked about', {
  timeout: 60_000,
}, async (context) => {
  const fleet = await Fleet.start(context);
  const [web, db] = [await fleet.enroll('web-1'), await fleet.enroll('db-1')];
  const webAgent = await fleet.connect('web-1', web.keyFile);
  const dbAgent = await fleet.connect('db-1', db.keyFile);
  const oldId = web.identity.slice('web-1:1:'.length);
  await assert.rejects(fleet.command('rotate-key', '--finish'), /has one key, so there is no rotation to finish/);
  const mode = statSync(fleet.keyFile).mode;

  const begun = await fleet.command('rotate-key');
  const [, newId = ''] = /^the fleet key is ([0-9a-f]{8}) from now on; agents' keys of ([0-9a-f]{8}) are/.exec(begun)!;
  assert.match(begun, new RegExp(`keys of ${oldId} are still accepted\n2 agents have keys of ${oldId}: db-1, web-1\n`));
  assert.doesNotMatch(begun, secrets);
  assert.equal(statSync(fleet.keyFile).mode, mode);
  assert.equal(readFileSync(fleet.keyFile, 'utf8').trim().split('\n').length, 2);
  await assert.rejects(fleet.command('rotate-key'), /has two keys already: finish that rotation first/);
  assert.ok((await fleet.isConnected('web-1')) && (await fleet.isConnected('db-1')), 'no connection was ended');

  const next = await fleet.enroll('web-1');
  assert.equal(next.identity, `web-1:1:${newId}`);
  await webAgent.kill('SIGTERM');
  await fleet.connect('web-1', next.keyFile);
  const asked = new RegExp(
    `1 agent has a key of ${oldId}: db-1; agents that were away since .*; without the fleet key ${oldId} they are refused`,
  );
  await assert.rejects(fleet.command('rotate-key', '--finish'), (error: Error) => {
    assert.match(error.message, asked);
    assert.match(error.message, /: add --yes/);
    return true;
  });
  const argv = fleet.argv('rotate-key', '--finish');
  const declined = await atTerminal(argv, [['(yes or no) ', 'no\r']], process.env);
  assert.equal(declined.code, 2, declined.shown);
  assert.match(declined.shown.replaceAll('\r\n', ''), asked);
  assert.match(declined.shown, /nothing is changed/);
  assert.ok(await fleet.isConnected('db-1'));

  const finished = await atTerminal(argv, [['(yes or no) ', 'yes\r']], process.env);
  assert.equal(finished.code, 0, finished.shown);
  assert.match(
    finished.shown,
    new RegExp(`the fleet key ${oldId} is retired, ${newId} is the only one; 1 connection ended`),
  );
  await dbAgent.run.line(new RegExp(`refused this agent \\(revoked\\): the fleet key ${oldId} is retired`));
  await eventually(10_000, async () => assert.ok(await fleet.isConnected('web-1')));
  assert.equal(readFileSync(fleet.keyFile, 'utf8').trim().split('\n').length, 1);
  assert.doesNotMatch([...fleet.server.run.lines, finished.shown].join('\n'), secrets);
});

test('rotate-key without a server, and where the file cannot be written or the server has other keys', {
  timeout: 60_000,
}, async (context) => {
  const fleet = await Fleet.start(context);
  const before = readFileSync(fleet.keyFile, 'utf8');
  // A folder is in the way of what is written.
  mkdirSync(`${fleet.keyFile}.new`);
  await assert.rejects(fleet.command('rotate-key'), /fleet\.key' cannot be written: .*; run this as root/);
  rmSync(`${fleet.keyFile}.new`, { recursive: true });
  assert.equal(readFileSync(fleet.keyFile, 'utf8'), before);

  // What a restart would refuse, a reload refuses, too; then the key is as it was.
  rmSync(fleet.file, { force: true });
  writeFileSync(fleet.file, '{');
  await assert.rejects(
    fleet.command('rotate-key'),
    /the server does not reload: .*is damaged.*; '.*fleet\.key' is as it was/,
  );
  assert.equal(readFileSync(fleet.keyFile, 'utf8'), before);
  rmSync(fleet.file);

  chmodSync(fleet.keyFile, 0o600);
  writeFileSync(fleet.keyFile, `# ours\n${'ab'.repeat(32)}\n`);
  await assert.rejects(
    fleet.command('rotate-key'),
    /has fleet key [0-9a-f]{8}, and the running server [0-9a-f]{8}: run 'systemctl reload sysmon-server' first/,
  );
  await fleet.server.kill('SIGTERM');
  assert.match(await fleet.command('rotate-key'), /still accepted \(once the server runs: it does not run now\)/);
  assert.match(readFileSync(fleet.keyFile, 'utf8'), /^[0-9a-f]{64}\n# ours\n(?:ab){32}\n$/);
  await assert.rejects(fleet.command('rotate-key', '--yes'), /option '--yes' is 'true'.*: expected with --finish/);
  await assert.rejects(
    fleet.command('rotate-key', '--finish'),
    /the server is not running, so it cannot say which agents/,
  );
  assert.match(await fleet.command('rotate-key', '--finish', '--yes'), /is the only one; the server is not running/);
  assert.match(readFileSync(fleet.keyFile, 'utf8'), /^[0-9a-f]{64}\n# ours\n$/);
});

test('reload: says what it has read, fails with the reason, and names options that need a restart', {
  timeout: 60_000,
}, async (context) => {
  const fleet = await Fleet.start(context, { configFile: 'SYSMON_WINDOW=20m\n' });
  const reload = () => fleet.reloadByCommand();
  assert.match(await reload(), /^reloaded: fleet key [0-9a-f]{8}, 0 revocations; 0 connections ended\n/);
  writeFileSync(fleet.configFile, 'SYSMON_WINDOW=10m\n');
  assert.match(
    await reload(),
    /\nSYSMON_WINDOW has changed since the start: a restart applies it \('systemctl restart sysmon-server'\)\n/,
  );
  writeFileSync(fleet.configFile, 'SYSMON_WINDOW=soon\n');
  await assert.rejects(reload(), /option '--window' is 'soon'/);
  writeFileSync(fleet.configFile, '');
  const before = readFileSync(fleet.keyFile);
  chmodSync(fleet.keyFile, 0o600);
  writeFileSync(fleet.keyFile, 'abc\n');
  await assert.rejects(reload(), /expected one or two lines of 64 hex digits/);
  writeFileSync(fleet.keyFile, before);

  const { keyFile } = await fleet.enroll('web-1');
  const agent = await fleet.connect('web-1', keyFile);
  assert.match(await agent.reload(), /^reloaded: the key is 'web-1:1:[0-9a-f]{8}'\n$/);
  const other = await fleet.enroll('web-2');
  writeFileSync(keyFile, readFileSync(other.keyFile));
  await assert.rejects(
    agent.reload(),
    /option '--name' is 'web-1' .*: expected 'web-2', the name that the key in --key-file was made for/,
  );
  assert.ok(await fleet.isConnected('web-1'));
});
