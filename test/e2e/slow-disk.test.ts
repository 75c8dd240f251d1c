import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AgentsRecord } from '../support/agents-record.ts';
import { AgentProgram, ServerProgram, temporaryFolder } from '../support/programs.ts';
import { Tap } from '../support/tap.ts';

// As a disk that is worn out, a network disk that is away for a while, a host whose neighbours write.
// Whatever makes a write safe takes long; a write alone goes to memory.
const slowSync = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd) { (void)fd; sleep(25); return 0; }
int fsync(int fd) { return fdatasync(fd); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  if (fcntl(fd, F_GETFL) & O_DSYNC) sleep(25);
  return syscall(SYS_pwrite64, fd, bytes, count, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return pwrite64(fd, bytes, count, offset); }
`;

const name = 'slow-disk';

const hasCompiler = spawnSync('gcc', ['--version']).status === 0;
const skip =
  hasCompiler || process.env['CI'] === 'true'
    ? false
    : 'a C compiler is missing: apt-get install --no-install-recommends gcc libc6-dev';

test('a disk that takes 25 s to sync costs no sample, no connection and no second of up', { skip }, async (context) => {
  const folder = temporaryFolder(context);
  const library = join(folder, 'slow-sync.so');
  writeFileSync(join(folder, 'slow-sync.c'), slowSync);
  execFileSync('gcc', ['-shared', '-fPIC', '-o', library, join(folder, 'slow-sync.c')]);

  const server = await ServerProgram.start(context);
  const record = new AgentsRecord();
  const tap = await Tap.open(context, { to: server.port, watch: () => record.connection() });
  const env = { LD_PRELOAD: library };
  const agent = await AgentProgram.start(context, { name, port: tap.port, schedule: '1s', env });

  await agent.run.line(/disk slow since/);
  const ups: string[] = [];
  for (let second = 0; second < 25; second++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const text = await (await server.get('/metrics')).text();
    ups.push(/^sysmon_agent_up\{agent="slow-disk".*\} (\d)$/m.exec(text)?.[1] ?? 'none');
  }
  assert.deepEqual([...new Set(ups)], ['1']);
  assert.match(await agent.status(), /^disk +slow since \d{4}-.*; \d+ reports? in memory only$/m);

  record.check();
  const times = record.times(name);
  assert.ok(times.length > 25, `${times.length} reports`);
  // A report each second. A busy machine may make one late, or miss an instant; a sync that is waited for takes 25 s.
  const gapsMs = times.slice(1).map((timeMs, at) => timeMs - times[at]!);
  assert.ok(Math.max(...gapsMs) < 3000, `a gap of ${Math.max(...gapsMs)} ms`);
  const spanSeconds = (times.at(-1)! - times[0]!) / 1000;
  assert.ok(times.length > 0.9 * spanSeconds, `${times.length} reports in ${spanSeconds} s`);
  assert.equal(tap.connections, 1);

  const stoppingMs = performance.now();
  await agent.kill('SIGTERM');
  const tookMs = performance.now() - stoppingMs;
  assert.ok(tookMs <= 5000, `it ended after ${tookMs} ms`);
  assert.equal(agent.lines.filter((line) => line.includes('disk slow')).length, 1);
});
