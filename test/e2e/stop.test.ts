import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bundleOf, type Ending, eventually, freePort, Program, temporaryFolder } from '../support/programs.ts';

// SIGTERM ends both programs within 5 s, whatever hangs.

const programs = ['agent', 'server'] as const;

for (const name of programs) {
  test(`${name}: a systemd-notify that takes 2 s is waited for; the end is in good order`, async (context) => {
    const { ending, ms, program } = await stopped(context, name, { notifySeconds: 2 });
    assert.deepEqual(ending, { code: 0, signal: null }, program.lines.join('\n'));
    assert.ok(ms >= 1900 && ms <= 5000, `${ms} ms`);
  });

  test(`${name}: a systemd-notify that takes longer than a stop may is ended`, async (context) => {
    const { ending, ms, program } = await stopped(context, name, { notifySeconds: 30 });
    assert.deepEqual(ending, { code: 0, signal: null }, program.lines.join('\n'));
    assert.ok(ms >= 4000 && ms <= 5000, `${ms} ms`);
    assert.doesNotMatch(program.lines.join('\n'), /hangs/);
  });

  test(`${name}: a system call that hangs is left behind, by an end that systemd takes for good`, async (context) => {
    const { ending, ms, program } = await stopped(context, name, { hangs: true });
    // No exit code: exit() waits for the thread. systemd.service(5): SIGTERM is a clean end, as exit code 0 is.
    assert.deepEqual(ending, { code: null, signal: 'SIGTERM' }, program.lines.join('\n'));
    assert.ok(ms <= 5000, `${ms} ms`);
    assert.match(program.lines.at(-1)!, /shutdown blocked for 4\.8 s by a pending system call; exiting without it/);
  });
}

test('server: systemd hears within seconds that an agent is up; an end without a state folder claims no cursors', async (context) => {
  const folder = temporaryFolder(context);
  const [port, webPort] = [await freePort(), await freePort()];
  const [stateDir, notify, heard] = ['state', 'systemd-notify', 'heard'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  mkdirSync(stateDir);
  writeFileSync(notify, `#!/bin/sh\necho "$@" >>${heard}\n`, { mode: 0o755 });
  const env = { PATH: `${folder}:${process.env['PATH']}`, SYSMON_CONFIG_FILE: '/dev/null' };
  const start = (name: (typeof programs)[number], argv: readonly string[], more: NodeJS.ProcessEnv) => {
    const control = ['--control-socket', join(folder, `${name}.sock`)];
    const program = new Program(name, process.execPath, [bundleOf(name), 'run', ...control, ...argv], {
      env: { ...env, ...more },
    });
    context.after(() => program.kill('SIGKILL'));
    return program;
  };
  const ports = [`--listen=127.0.0.1:${port}`, `--web.listen-address=127.0.0.1:${webPort}`];
  const server = start('server', [...ports, '--state-dir', stateDir], { NOTIFY_SOCKET: join(folder, 'notify') });
  await server.line(/agents on/);
  const agent = start('agent', [`--server=127.0.0.1:${port}`, '--name=a1', '--schedule=1s'], {});
  await agent.line(/connected to/);
  const connectedMs = performance.now();
  await eventually(15_000, () => assert.match(readFileSync(heard, 'utf8'), /STATUS=1 of 1 agents up/));
  assert.ok(performance.now() - connectedMs < 11_000, 'a look every 5 s, and a line every 5 s');

  rmSync(stateDir, { recursive: true });
  const headers = { 'X-Prometheus-Scrape-Timeout-Seconds': '5', 'User-Agent': 'Prometheus/3.5.0' };
  for (let scrape = 0; scrape < 2; scrape++) {
    assert.equal((await (await fetch(`http://127.0.0.1:${webPort}/metrics`, { headers })).text()).length > 0, true);
  }
  await server.kill('SIGTERM');
  const said = server.lines.join('\n');
  assert.match(said, /the cursors in '.*state' cannot be written: .*; nothing is acknowledged until they can be/);
  assert.match(server.lines.at(-1)!, /stopped; 1 connection of agents ended$/);
  assert.doesNotMatch(said, /cursors written/);
});

interface Trouble {
  /** What takes the place of systemd-notify takes so long, once the program stops. */
  readonly notifySeconds?: number;
  /** One of the threads for system calls never comes back: it opens a pipe that nobody writes to. */
  readonly hangs?: boolean;
}

/** Starts a program in trouble and stops it: how it ended, and after how long. */
async function stopped(
  context: TestContext,
  name: (typeof programs)[number],
  { notifySeconds, hangs }: Trouble,
): Promise<{ ending: Ending; ms: number; program: Program }> {
  const folder = temporaryFolder(context);
  const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' };
  if (notifySeconds !== undefined) {
    const notify = join(folder, 'systemd-notify');
    writeFileSync(notify, `#!/bin/sh\n[ "$1" != STOPPING=1 ] || exec sleep ${notifySeconds}\n`);
    chmodSync(notify, 0o755);
    env['PATH'] = `${folder}:${env['PATH']}`;
    env['NOTIFY_SOCKET'] = join(folder, 'notify');
  }
  if (hangs === true) {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const preload = join(folder, 'hang.cjs');
    writeFileSync(preload, `require('node:fs').open(${JSON.stringify(pipe)}, 'r', () => {});\n`);
    env['NODE_OPTIONS'] = `--require=${preload}`;
  }
  const argv = {
    agent: ['--server=127.0.0.1:9', '--spool-dir', join(folder, 'spool')],
    server: [`--listen=127.0.0.1:${await freePort()}`, `--web.listen-address=127.0.0.1:${await freePort()}`],
  }[name];
  const program = new Program(
    `sysmon-${name}`,
    process.execPath,
    [bundleOf(name), 'run', '--control-socket', join(folder, 'control.sock'), ...argv],
    { env },
  );
  context.after(() => program.kill('SIGKILL'));
  await program.line(name === 'agent' ? /series every/ : /agents on/);
  const startMs = performance.now();
  const ending = await program.kill('SIGTERM');
  return { ending, ms: performance.now() - startMs, program };
}
