// npm start, as a person uses it: both programs work, Ctrl-C ends them, a port that is taken is named.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { portOf, serveLoopback, until } from '../support/sockets.ts';

// From build/test/scripts/.
const root = new URL('../../../', import.meta.url).pathname;

interface Started {
  readonly child: ChildProcess;
  readonly web: string;
  /** What it has printed. */
  text(): string;
  /** Its exit code, once its output has ended too: so no program that inherited it is left. */
  readonly ended: Promise<number | null>;
}

async function start(context: TestContext, ports: { agents?: number; web?: number } = {}): Promise<Started> {
  const { agents = await freePort(), web = await freePort() } = ports;
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-start-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const child = spawn(process.execPath, [join(root, 'scripts/start.mjs')], {
    cwd: tmpdir(), // it works from anywhere
    env: {
      ...process.env,
      SYSMON_LISTEN: `127.0.0.1:${agents}`,
      SYSMON_WEB_LISTEN_ADDRESS: `127.0.0.1:${web}`,
      SYSMON_STATE_DIR: folder,
      SYSMON_SPOOL_DIR: join(folder, 'spool'),
      SYSMON_CONTROL_SOCKET: join(folder, 'none', 'control.sock'),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  context.after(() => child.kill('SIGTERM'));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk) => {
      text += chunk;
    });
  }
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { child, web: `http://127.0.0.1:${web}`, text: () => text, ended };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const port = portOf(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Processes whose parent is this one, by /proc. */
function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        // The command may hold anything, brackets included; the parent is the second field after the last one.
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
      } catch {
        return false; // it has ended meanwhile
      }
    })
    .map(Number);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('both programs work, several Ctrl-C end both with 0, and nothing is left', async (context) => {
  const { child, web, text, ended } = await start(context);
  await until(() => text().includes('connected to') || child.exitCode !== null);
  assert.equal(child.exitCode, null, text());
  assert.match(text(), new RegExp(`page +${web}/\\n`));
  assert.match(text(), /prometheus --config\.file=prometheus\/prometheus\.yml/);
  assert.equal((await fetch(`${web}/metrics?timestamps=0`)).status, 200);
  const programs = childrenOf(child.pid ?? 0);
  assert.equal(programs.length, 2);
  // A terminal sends it to npm and to us, and npm sends it on.
  child.kill('SIGINT');
  child.kill('SIGINT');
  child.kill('SIGTERM');
  assert.equal(await ended, 0, text());
  assert.doesNotMatch(text(), /exited with|exiting at once/);
  assert.deepEqual(programs.filter(isAlive), []);
});

test('a port that is taken: named with its option, the rest ended, not 0', async (context) => {
  for (const which of ['agents', 'web'] as const) {
    const port = await serveLoopback(context, createServer());
    const { text, ended } = await start(context, { [which]: port });
    assert.equal(await ended, 1);
    const option = which === 'agents' ? '--listen' : '--web.listen-address';
    assert.match(
      text(),
      new RegExp(`another program uses 127\\.0\\.0\\.1:${port} \\(${option}\\): stop it, or start this one`),
    );
    assert.doesNotMatch(text(), /Ctrl-C/);
  }
});

test('beside another one: it names that and how to start beside it, and takes no health of it for its own', async (context) => {
  const first = await start(context);
  await until(() => first.text().includes('connected to') || first.child.exitCode !== null);
  const web = Number(new URL(first.web).port);
  const second = await start(context, { web });
  assert.equal(await second.ended, 1);
  assert.equal(
    second.text(),
    `sysmon: sysmon runs already at ${first.web}/: stop it, or start this one beside it: ` +
      "'SYSMON_LISTEN=127.0.0.1:9742 SYSMON_WEB_LISTEN_ADDRESS=127.0.0.1:9743 npm start'\n",
  );
  assert.equal(first.child.exitCode, null, first.text());
  first.child.kill('SIGTERM');
  assert.equal(await first.ended, 0);
});

test('an option on the command line is refused with how to set it', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(root, 'scripts/start.mjs'), '--web.listen-address', '127.0.0.1:9743'],
    { encoding: 'utf8' },
  );
  assert.equal(status, 2);
  assert.equal(
    stderr,
    "sysmon: npm start takes no options: set them in the environment, 'SYSMON_WEB_LISTEN_ADDRESS=127.0.0.1:9743 npm start'\n",
  );
});

test('one of the two dies: the other is ended, not 0', async (context) => {
  const { child, text, ended } = await start(context);
  await until(() => text().includes('connected to') || child.exitCode !== null);
  assert.equal(child.exitCode, null, text());
  const programs = childrenOf(child.pid ?? 0);
  assert.equal(programs.length, 2);
  process.kill(programs[0] ?? 0, 'SIGKILL');
  assert.equal(await ended, 1, text());
  assert.match(text(), /exited with SIGKILL; stopping/);
  assert.deepEqual(programs.filter(isAlive), []);
});
