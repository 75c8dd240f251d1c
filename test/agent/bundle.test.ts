import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentStatus } from '../../src/agent/status.ts';
import { askControl } from '../../src/runtime/control.ts';
import { rootFile } from '../support/files.ts';

const bundle = rootFile('dist/sysmon-agent.cjs');

/** The bundle alone in a folder, as it is installed: nothing that it could load from node_modules is near. */
function installed(t: TestContext): { readonly folder: string; readonly program: string } {
  assert.ok(existsSync(bundle), `${bundle} is not there: npm run build`);
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-bundle-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'sysmon-agent.cjs');
  copyFileSync(bundle, program);
  return { folder, program };
}

// One duration and one cron expression: the latter loads node-cron, from within the one file.
for (const schedule of ['500ms', '* * * * * *']) {
  test(`the bundle by itself collects at '${schedule}', and ends with 0`, async (t) => {
    const { folder, program } = installed(t);
    const socket = join(folder, 'control.sock');
    const child = spawn(
      process.execPath,
      [
        program,
        'run',
        '--config.file=/dev/null',
        // Nobody listens on the discard port: reports wait, and can be counted.
        '--server=127.0.0.1:9',
        `--control-socket=${socket}`,
        `--schedule=${schedule}`,
      ],
      { cwd: folder, env: {}, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    t.after(() => child.kill('SIGKILL'));
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    const ended = once(child, 'exit');

    // The first collection is at the start; those after it are the schedule's.
    let reports = 0;
    while (reports < 3) {
      assert.equal(child.exitCode, null, log);
      await delay(100);
      const answer = await askControl(socket, 'GET status').catch(() => undefined);
      reports = (answer as { agent: AgentStatus } | undefined)?.agent.spool.reports ?? 0;
    }
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null], log);
  });
}
