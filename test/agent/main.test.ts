import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { wholeHost } from '../support/collect-fixture.ts';
import { keyFileText } from '../support/key-file.ts';

const main = new URL('../../src/agent/main.js', import.meta.url).pathname;
const root = mkdtempSync(join(tmpdir(), 'sysmon-agent-'));
const children: ChildProcess[] = [];
after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

/** No option of this machine. */
const env = { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' };

function agent(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...argv], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

function start(...argv: string[]): { child: ChildProcess; line: (pattern: RegExp) => Promise<string> } {
  const child = spawn(process.execPath, [main, 'run', ...argv], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  const seen: string[] = [];
  const reader = createInterface(child.stderr!);
  reader.on('line', (line) => seen.push(line));
  const line = async (pattern: RegExp): Promise<string> => {
    for (;;) {
      const found = seen.find((each) => pattern.test(each));
      if (found !== undefined) return found;
      await once(reader, 'line');
    }
  };
  return { child, line };
}

const nobody = ['--server', '127.0.0.1:1'];

test('wrong use ends with 2 and says the option, what it was and what was expected', async () => {
  const key = join(root, 'agent.key');
  writeFileSync(key, keyFileText('web-1:1:5c9e0b3a', Buffer.alloc(32, 0xa7)));
  chmodSync(key, 0o644);
  const good = join(root, 'good.key');
  writeFileSync(good, keyFileText('web-1:1:5c9e0b3a', Buffer.alloc(32, 0xa7)));
  chmodSync(good, 0o400);
  const file = join(root, 'file');
  writeFileSync(file, '');
  const labels = Array.from({ length: 33 }, (_, index) => ['--label', `l${index}=x`]).flat();
  const wrong: [argv: string[], stderr: RegExp][] = [
    [['fly'], /unknown command 'fly'/],
    [['run', '--sever', 'x'], /unknown option '--sever', did you mean '--server'/],
    [['run', '--server', 'a b'], /option '--server' is 'a b'/],
    [['run', '--name', 'web 1'], /option '--name' is 'web 1' .*expected 1 to 128 characters/],
    [['run', '--schedule', 'often'], /option '--schedule' is 'often' .*expected/],
    [['run', '--schedule', '1ms'], /option '--schedule' is '1ms' .*expected/],
    [['run', '--label', 'agent=x'], /option '--label' is 'agent=x' .*expected NAME=VALUE/],
    [['run', '--label', 'a=1', '--label', 'a=2'], /option '--label' .*expected each name once/],
    [['run', ...labels], /option '--label' .*expected at most 32/],
    [
      ['run', '--label', `${'n'.repeat(129)}=x`],
      /option '--label' .*expected names of at most 128 bytes, 'n+' has 129/,
    ],
    [
      ['run', '--label', `rack=${'v'.repeat(513)}`],
      /'--label' .*expected values of at most 512 bytes, that of 'rack' has 513/,
    ],
    [['run', '--label', `a=${'x'.repeat(5000)}`], /option '--label' .*expected labels that are \d+ bytes shorter/],
    [['run', '--key-file', join(root, 'missing')], /--key-file: key file '.*missing': there is no such file/],
    [['run', '--key-file', key], /--key-file: .*chmod 0440/],
    [['run', '--key-file', good, '--name', 'web-2'], /option '--name' is 'web-2' .*expected 'web-1'/],
    [['run', '--spool-dir', file], /--spool-dir: '.*file' cannot be written/],
    [['run', '--spool.max-bytes', '1'], /option '--spool.max-bytes' is '1' .*expected at least 1MiB/],
    [['run', '--enable', 'everything'], /option '--enable' is 'everything' .*expected one of/],
    [['collect', '--json'], /option '--json' does not belong to 'sysmon-agent collect'/],
  ];
  const outcomes = await Promise.all(wrong.map(([argv]) => agent(...argv)));
  for (const [index, { code, stderr, stdout }] of outcomes.entries()) {
    const [argv, expected] = wrong[index]!;
    assert.match(stderr, expected, argv.join(' '));
    assert.equal(code, 2, argv.join(' '));
    assert.equal(stdout, '');
    assert.doesNotMatch(stderr, /a7a7| {4}at /, 'neither a key nor a stack');
  }
});

test('help, version, collect and check print to stdout and end with 0', async () => {
  const [help, version, collected, listed, checked] = await Promise.all([
    agent('run', '--help'),
    agent('--version'),
    agent('collect', '--disable', 'cpu'),
    agent('collect', '--list'),
    agent('check', '--offline', '--spool-dir', join(root, 'not', 'made'), '--name', 'web-1'),
  ]);
  for (const each of [help, version, collected, listed, checked]) assert.equal(each.code, 0, each.stderr);
  for (const name of ['--server HOST:PORT', '--spool.max-age', '--netdev.device-exclude'])
    assert.ok(help.stdout.includes(name));
  assert.match(version.stdout, /^sysmon-agent \S+\n$/);
  assert.match(collected.stdout, /^# TYPE node_memory_MemTotal_bytes gauge\nnode_memory_MemTotal_bytes \d+$/m);
  assert.match(collected.stdout, /^sysmon_agent_build_info\{/m);
  assert.doesNotMatch(collected.stdout, /node_cpu_seconds_total/);
  for (const { name, enabled, description, options } of collectorRows) {
    const state = enabled === 'by default' ? 'on' : 'off';
    assert.ok(listed.stdout.includes(`${name} (${state} by default): ${description}\n`), name);
    for (const option of options)
      assert.match(listed.stdout, new RegExp(`^  --${option.name} [A-Z]\\S*\n {8}[A-Z]`, 'm'));
  }
  assert.match(checked.stdout, /the options are valid: agent 'web-1' to 127.0.0.1:9732 without a key, \d+ series/);
  assert.ok(!readdirSync(root).includes('not'), 'looking makes nothing');
});

test('run: samples without a server, answers status, and ends with 0 at SIGTERM; what waits is there after it', async () => {
  const spool = join(root, 'spool');
  const socket = join(root, 'control.sock');
  const { child, line } = start(
    ...nobody,
    '--name',
    'web-1',
    '--schedule',
    '100ms',
    '--spool-dir',
    spool,
    '--control-socket',
    socket,
  );
  await line(/'web-1' to 127.0.0.1:1 without a key, \d+ series every 100ms/);
  await line(/warning: cannot connect to '127.0.0.1:1'/);
  const [json, text, second] = await Promise.all([
    agent('status', '--json', '--control-socket', socket),
    agent('status', '--control-socket', socket),
    agent('run', ...nobody, '--spool-dir', spool),
  ]);
  const status = JSON.parse(json.stdout);
  assert.equal(status.name, 'web-1');
  assert.equal(status.spool.folder, spool);
  assert.ok(status.spool.reports > 0);
  assert.match(text.stdout, /^agent +'web-1'/m);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /in use by another sysmon-agent/);

  child.kill('SIGHUP');
  await line(/reloaded/);
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
  const stopped = await line(/stopped; \d+ unacknowledged reports? in the spool/);
  const waiting = Number(/(\d+) unacknowledged/.exec(stopped)?.[1]);
  assert.deepEqual(readdirSync(spool), ['000000000001.spool'], 'neither lock nor probe');

  const again = start(...nobody, '--spool-dir', spool, '--schedule', '100ms');
  const started = await again.line(/series every/);
  assert.equal(Number(/(\d+) reports? waiting/.exec(started)?.[1]), waiting + 1);
  again.child.kill('SIGKILL');

  const gone = await agent('status', '--control-socket', socket);
  assert.equal(gone.code, 1);
  assert.ok(gone.stderr.includes(socket), gone.stderr);
  assert.doesNotMatch(gone.stderr, / {4}at /);
});

test('SIGHUP opens the files of the kernel anew', { timeout: 60_000 }, async () => {
  const tree = wholeHost('Linux 6.12');
  const { procfs, sysfs, rootfs } = tree.roots;
  const socket = join(root, 'reload.sock');
  // Devices are read in time, or an interval later: their series come and go while this machine is busy.
  const slow = collectorRows.filter(({ lane }) => lane === 'slow');
  const { child, line } = start(
    ...nobody,
    ...slow.flatMap(({ name }) => ['--disable', name]),
    ...['--schedule', '100ms', '--control-socket', socket, '--procfs', procfs, '--sysfs', sysfs, '--rootfs', rootfs],
  );
  await line(/series every 100ms/);
  const seriesCount = async () =>
    JSON.parse((await agent('status', '--json', '--control-socket', socket)).stdout).series;
  const before = await seriesCount();
  // Another file under the same name, as when lxcfs is mounted anew: the descriptors that were kept read the old one.
  const content = readFileSync(tree.path('proc/net/dev'), 'utf8');
  tree.write('proc/net/new', `${content}  eth9: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n`);
  renameSync(tree.path('proc/net/new'), tree.path('proc/net/dev'));
  assert.equal(await seriesCount(), before);
  child.kill('SIGHUP');
  await line(/reloaded/);
  while ((await seriesCount()) === before);
  assert.equal(await seriesCount(), before + 16);
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
  tree.remove();
});

test('a cron expression is understood', async () => {
  const { child, line } = start(...nobody, '--schedule', '*/10 * * * * *');
  await line(/series every 10s/);
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});
