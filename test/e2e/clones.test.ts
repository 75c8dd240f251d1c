import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentProgram, eventually, ServerProgram, sampleIn, temporaryFolder } from '../support/programs.ts';

/** A /proc whose counter of context switches no real host has. */
function otherProc(folder: string): string {
  const proc = join(folder, 'proc');
  mkdirSync(proc);
  const lines = ['cpu  1 0 1 1 0 0 0 0 0 0', 'cpu0 1 0 1 1 0 0 0 0 0 0', 'intr 1', 'ctxt 12', 'btime 1700000000'];
  writeFileSync(join(proc, 'stat'), [...lines, 'processes 1', 'procs_running 1', 'procs_blocked 0', ''].join('\n'));
  return proc;
}

test('two hosts made from one image: one of them keeps the name, the other is refused', {
  timeout: 60_000,
}, async (context) => {
  const folder = temporaryFolder(context);
  mkdirSync(join(folder, 'etc'));
  writeFileSync(join(folder, 'etc', 'machine-id'), `${'0123456789abcdef'.repeat(2)}\n`);
  const server = await ServerProgram.start(context);
  const start = (...flags: string[]) =>
    AgentProgram.start(context, {
      ...{ name: 'web-1', port: server.port, schedule: '500ms' },
      flags: [
        '--rootfs',
        folder,
        ...['loadavg', 'meminfo', 'netdev', 'uname', 'vmstat'].flatMap((each) => ['--disable', each]),
        ...flags,
      ],
    });
  const agents = [await start(), await start('--procfs', otherProc(folder))];
  const isRefused = async (agent: AgentProgram) => /refused this agent \(name-taken\)/.test(await agent.status());
  const refused = await eventually(30_000, async () => {
    for (const agent of agents) if (await isRefused(agent)) return agent;
    throw new Error('neither is refused');
  });
  const other = agents.find((agent) => agent !== refused)!;
  assert.match(
    await refused.status(),
    /two hosts run as 'web-1' and have one machine-id, .*; give one of them another --name/,
  );
  assert.match(await other.status(), /connected for/);

  const isReal = async () =>
    sampleIn(await (await server.get('/metrics')).text(), 'node_context_switches_total{agent="web-1"}') !== 12;
  const before = await eventually(5000, isReal);
  for (let look = 0; look < 20; look++) {
    await delay(100);
    assert.equal(await isReal(), before, 'the series are of one host');
  }
  const { lines } = server.run;
  assert.equal(
    lines.filter((line) => /warning: peer .* is cut off \(name-taken\): two hosts run as/.test(line)).length,
    1,
  );
  assert.ok(lines.length < 12, lines.join('\n'));
  assert.ok((await server.metric('sysmon_server_cloned_identities_total')) >= 1);
  // Each of another kind: replaced, not stored, refused.
  for (const { run } of agents) {
    const warnings = run.lines.filter((line) => line.includes('warning'));
    assert.ok(warnings.length <= 3, warnings.join('\n'));
  }

  // The other is given a name of its own, or switched off.
  await other.kill('SIGTERM');
  process.kill(refused.run.pid, 'SIGHUP');
  await eventually(10_000, async () => assert.match(await refused.status(), /connected for/));
});
