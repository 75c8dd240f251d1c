import assert from 'node:assert/strict';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { program } from '../../src/agent/options.ts';
import { run } from '../../src/agent/run.ts';
import { readOptions, type Sources } from '../../src/runtime/options.ts';
import { FakeLifecycle } from '../support/fake-lifecycle.ts';
import { HandClock } from '../support/hand-clock.ts';
import { MemoryLog } from '../support/memory-log.ts';

/** A running agent whose server cannot be reached, on a host of its own. */
async function running(context: TestContext, ...argv: string[]) {
  return runningWith(context, argv, '');
}

/** `configText`: the file of options. */
async function runningWith(context: TestContext, argv: readonly string[], configText: string) {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-run-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const procfs = join(folder, 'proc');
  mkdirSync(procfs);
  for (const name of ['loadavg', 'stat', 'meminfo']) cpSync(join('/proc', name), join(procfs, name));
  const configFile = join(folder, 'agent.env');
  writeFileSync(configFile, configText);
  const clock = new HandClock();
  const log = new MemoryLog();
  const lifecycle = new FakeLifecycle();
  const sources: Sources = {
    argv: ['run', '--server', '127.0.0.1:1', '--procfs', procfs, '--spool-dir', join(folder, 'spool'), ...argv],
    env: { SYSMON_CONFIG_FILE: configFile, SYSMON_CONTROL_SOCKET: join(folder, 'control.sock') },
    readFile: (path) => readFileSync(path, 'utf8'),
  };
  const reread = () => readOptions(program, sources);
  const ended = run(reread(), { clock, log, lifecycle, reread });
  await Promise.race([lifecycle.readied, ended]);
  const stop = async () => {
    lifecycle.stop();
    await ended;
  };
  return { clock, log, lifecycle, procfs, configFile, stop };
}

/** Files of the folder that this process has open. */
function openBelow(folder: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      return []; // closed meanwhile: the one that lists
    }
  });
}

test('a reload opens the files of the kernel anew', async (context) => {
  const { lifecycle, log, procfs, stop } = await running(context);
  assert.ok(openBelow(procfs).length > 0, 'they are kept open');
  await lifecycle.reload();
  assert.deepEqual(openBelow(procfs), []);
  assert.equal(log.lines.at(-1), 'info: reloaded');
  await stop();
});

test('a reload names the options that have changed, for only a restart applies them', async (context) => {
  const { lifecycle, log, configFile, stop } = await runningWith(context, [], 'SYSMON_LABEL=site=north\n');
  writeFileSync(configFile, 'SYSMON_LABEL=site=south\n');
  await lifecycle.reload();
  assert.deepEqual(log.lines.slice(-2), [
    'info: reloaded',
    "warn: SYSMON_LABEL has changed since the start: a restart applies it ('systemctl restart sysmon-agent')",
  ]);
  await stop();
});

test('the watchdog is content as long as ticks come, and for two intervals and a minute without', async (context) => {
  const { clock, lifecycle, stop } = await running(context, '--schedule', '5s');
  assert.equal(lifecycle.isAlive(), true);
  // The timer of the next tick never fires.
  clock.pass(70_000);
  assert.equal(lifecycle.isAlive(), true);
  clock.pass(1);
  assert.equal(lifecycle.isAlive(), false);
  await stop();
});
