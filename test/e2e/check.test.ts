import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { AgentProgram, bundleOf, command, freePort, ServerProgram, temporaryFolder } from '../support/programs.ts';

// What `check` finds, and who may look; with the programs as they are shipped.

interface Checked {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** `check` of a program, by `launcher` in front of it. */
function check(
  program: 'agent' | 'server',
  argv: readonly string[],
  launcher: readonly string[] = [],
): Promise<Checked> {
  const [file = '', ...rest] = [...launcher, process.execPath, bundleOf(program), 'check', ...argv];
  const child = spawn(file, rest, { env: { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' } });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    err += chunk;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })));
}

test('all that is wrong is named at once, a line each', async (context) => {
  const folder = temporaryFolder(context);
  const file = join(folder, 'server.env');
  writeFileSync(file, 'SYSMON_WINDOW=soon\nSYSMON_WINDOWS=30m\nnonsense\nSYSMON_LISTEN=127.0.0.1:1\n');
  const unread = await check('server', ['--config.file', file, '--memory-max', '1B']);
  assert.equal(unread.code, 2);
  assert.deepEqual(
    unread.err
      .trim()
      .split('\n')
      .map((line) => /^sysmon-server: .*(WINDOWS'|nonsense|--window'|--memory-max')/.exec(line)?.[1]),
    ["WINDOWS'", 'nonsense', "--window'", "--memory-max'"],
    unread.err,
  );
  writeFileSync(join(folder, 'key'), 'abc\n', { mode: 0o400 });
  const wrong = ['--fleet-key-file', join(folder, 'key'), '--state-dir', join(folder, 'none'), '--window', '2h'];
  const server = await check('server', wrong);
  assert.equal(server.code, 2);
  for (const part of [/--fleet-key-file '.*expected one or two lines/, /'--window' is '2h'/, /--state-dir '.*none'/]) {
    assert.match(server.err, part);
  }
  assert.equal(server.err.trim().split('\n').length, 3, server.err);
  const agent = await check('agent', [
    '--key-file',
    join(folder, 'none'),
    '--schedule',
    'x',
    '--spool-dir',
    '/dev/null/x',
  ]);
  assert.equal(agent.code, 2);
  for (const part of [/--key-file: .*none'/, /'--schedule' is 'x'/, /--spool-dir/]) assert.match(agent.err, part);
});

test('a port of another program is an error, one of the running server is not', {
  timeout: 60_000,
}, async (context) => {
  const server = await ServerProgram.start(context);
  const own = ['--control-socket', server.controlSocket, '--listen', `127.0.0.1:${server.port}`];
  const web = (port: number) => ['--web.listen-address', `127.0.0.1:${port}`];
  const right = await check('server', [...own, ...web(server.webPort)]);
  assert.equal(right.code, 0, right.err);
  const taken = await freePort();
  const other = createServer();
  context.after(() => void other.close());
  await new Promise<void>((resolve) => other.listen(taken, '127.0.0.1', resolve));
  const wrong = await check('server', [
    ...['--control-socket', server.controlSocket, '--listen', '192.0.2.1:9732', '--allow-plaintext', ...web(taken)],
    ...['--web.listen-address', 'unix:/none/web.sock'],
  ]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /cannot listen on 192\.0\.2\.1:9732: this host does not have the address; .* --listen$/m);
  assert.match(
    wrong.err,
    new RegExp(`cannot listen on 127\\.0\\.0\\.1:${taken}: another program uses the port; .* --web\\.listen`),
  );
  assert.match(wrong.err, /cannot listen on unix:\/none\/web\.sock: its folder does not exist/);
});

test('an agent asks its server, unless it is told not to', { timeout: 60_000 }, async (context) => {
  const server = await ServerProgram.start(context);
  const right = await check('agent', ['--server', `127.0.0.1:${server.port}`, '--name', 'web-1']);
  assert.equal(right.code, 0, right.err);
  assert.match(right.out, new RegExp(`^the server answers at 127\\.0\\.0\\.1:${server.port}$`, 'm'));
  assert.deepEqual((await server.agents()).agents, [], 'nothing was said there under the name');
  const away = ['--server', '127.0.0.1:1', '--name', 'web-1'];
  const wrong = await check('agent', away);
  assert.equal(wrong.code, 3, wrong.err);
  assert.match(
    wrong.out,
    /^server 127\.0\.0\.1:1: error: .* refused the connection: nothing listens there; is the server running/m,
  );
  assert.equal((await check('agent', [...away, '--offline'])).code, 0);
});

test('another user: each file and folder has the commands that correct it; who may look needs no key', {
  skip: process.getuid?.() !== 0 && 'needs root',
  timeout: 60_000,
}, async (context) => {
  const folder = temporaryFolder(context);
  chmodSync(folder, 0o755);
  const asNobody = ['setpriv', '--reuid', 'nobody', '--regid', 'nogroup', '--clear-groups'];
  const [env, key, closed] = [join(folder, 'agent.env'), join(folder, 'agent.key'), join(folder, 'closed')];
  writeFileSync(env, '', { mode: 0o600 });
  writeFileSync(key, '', { mode: 0o440 });
  mkdirSync(closed, { mode: 0o700 });
  const argv = ['--offline', '--name', 'web-1'];
  assert.match(
    (await check('agent', [...argv, '--config.file', env], asNobody)).err,
    new RegExp(`the user 'nobody' may not read it; run 'chmod 0644 ${env}'`),
  );
  assert.match(
    (await check('agent', [...argv, '--key-file', key], asNobody)).err,
    new RegExp(`the user 'nobody' may not read it; run 'chown root:nobody ${key} && chmod 0440 ${key}'`),
  );
  assert.match(
    (await check('agent', [...argv, '--key-file', join(closed, 'agent.key')], asNobody)).err,
    new RegExp(`the user 'nobody' may not enter '${closed}'; run 'chmod 0755 ${closed}'`),
  );

  // As the unit makes it: the group of the folder is that of the socket.
  const look = join(folder, 'look');
  mkdirSync(look);
  spawnSync('chgrp', ['nogroup', look]);
  chmodSync(look, 0o2750);
  const socket = ['--status-socket', join(look, 'status.sock')];
  const server = await ServerProgram.start(context, socket);
  await AgentProgram.start(context, { name: 'web-1', port: server.port, schedule: '1s' });
  const ask = (...words: string[]) => {
    const asked = [
      ...asNobody,
      process.execPath,
      bundleOf('server'),
      ...words,
      '--control-socket',
      server.controlSocket,
    ];
    const [file = '', ...rest] = asked;
    return spawnSync(file, rest, { encoding: 'utf8', env: { SYSMON_CONFIG_FILE: '/dev/null' } });
  };
  assert.match(ask('agents', ...socket).stdout, /web-1/);
  assert.equal(ask('status', ...socket).status, 0);
  for (const words of [['revoke', 'web-1', '--fleet-key-file', key], ['forget-scraper', 'x'], ['reload']]) {
    assert.equal(ask(...words).status, 1);
  }
  const denied = spawnSync(
    'setpriv',
    [
      ...['--reuid', 'nobody', '--regid', 'daemon', '--clear-groups', process.execPath, bundleOf('server'), 'status'],
      ...['--control-socket', server.controlSocket, ...socket],
    ],
    { encoding: 'utf8', env: { SYSMON_CONFIG_FILE: '/dev/null' } },
  );
  assert.equal(denied.status, 1);
  assert.match(denied.stderr, /only root and members of the group 'sysmon' may ask: 'sudo usermod -aG sysmon nobody'/);
  assert.match(await command('server', 'status', '--control-socket', server.controlSocket), /web-1|agents/);
});
