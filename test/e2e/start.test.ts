import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { rootFile } from '../support/files.ts';
import { eventually, freePort, isTaken, Program, temporaryFolder } from '../support/programs.ts';

// `npm start`, on ports and in folders of its own. What else may happen to it is in test/scripts/start.test.ts.

interface Start {
  readonly program: Program;
  readonly port: number;
  readonly webPort: number;
  /** All that came of it and lives. */
  processes(): number[];
}

async function npmStart(context: TestContext): Promise<Start> {
  const [port, webPort] = [await freePort(), await freePort()];
  const folder = temporaryFolder(context);
  const program = new Program('npm start', 'npm', ['start', '--silent'], {
    cwd: rootFile(''),
    ownGroup: true,
    env: {
      PATH: process.env['PATH'],
      HOME: folder,
      SYSMON_LISTEN: `127.0.0.1:${port}`,
      SYSMON_WEB_LISTEN_ADDRESS: `127.0.0.1:${webPort}`,
      SYSMON_STATE_DIR: folder,
      SYSMON_SPOOL_DIR: join(folder, 'spool'),
      SYSMON_SCHEDULE: '1s',
    },
  });
  const processes = () => processesWith(`SYSMON_STATE_DIR=${folder}`);
  context.after(() => {
    for (const pid of processes()) process.kill(pid, 'SIGKILL');
  });
  return { program, port, webPort, processes };
}

/** The processes that have this in their environment: it is inherited, whoever the parent is by now. */
function processesWith(assignment: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => environmentOf(name).includes(assignment))
    .map(Number);
}

function environmentOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  } catch {
    return []; // it has ended, or is another user's
  }
}

test('npm start runs both programs, says where to look, and leaves nothing behind on Ctrl-C', async (context) => {
  const { program, port, webPort, processes } = await npmStart(context);
  await program.line(/Ctrl-C stops both programs/);
  await program.line(new RegExp(`its target is 127\\.0\\.0\\.1:${webPort}`));
  for (const path of ['/', '/metrics', '/api/v1/agents']) {
    assert.ok(
      program.lines.some((line) => line.endsWith(`http://127.0.0.1:${webPort}${path}`)),
      `it says where ${path} is`,
    );
  }
  await eventually(30_000, async () => {
    const text = await (
      await fetch(`http://127.0.0.1:${webPort}/metrics`, { headers: { connection: 'close' } })
    ).text();
    assert.match(text, new RegExp(`^node_load1{agent="${hostname()}"} `, 'm'));
  });
  const count = processes().length;
  assert.ok(count >= 3, `npm, the two programs and what runs them: ${count} processes`);

  await program.killGroup('SIGINT');
  const printed = program.lines.join('\n');
  assert.match(printed, /sysmon-server: stopped; [01] connections? of agents ended/);
  assert.match(printed, /sysmon-agent: stopped/);
  assert.doesNotMatch(printed, /exited with/);
  for (const name of ['sysmon-agent', 'sysmon-server']) {
    // What follows the program's name does not begin with it once more.
    assert.match(printed, new RegExp(`^${name}: version \\d+\\.\\d+\\.\\d+: `, 'm'));
    assert.doesNotMatch(printed, new RegExp(`^(?:sysmon(?:-\\w+)?: )+${name}: `, 'm'));
  }
  // npm may die of the signal before what it started has ended.
  await eventually(15_000, () => assert.deepEqual(processes(), []));
  assert.equal(await isTaken(port), false);
  assert.equal(await isTaken(webPort), false);
});
