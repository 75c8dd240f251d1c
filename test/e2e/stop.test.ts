import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bundleOf, type Ending, freePort, Program, temporaryFolder } from '../support/programs.ts';

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
