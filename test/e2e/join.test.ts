import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bundleOf, eventually, Program, ServerProgram, temporaryFolder } from '../support/programs.ts';
import { atTerminal } from '../support/pty.ts';

// A host joins: the programs as they are shipped, on loopback. What needs systemd is in test/lab/.

test('joining a server', { timeout: 120_000 }, async (context) => {
  const world = await World.start(context);
  await context.test('by standard input, and the agent is connected', () => byStandardInput(world));
  await context.test('the same line changes nothing, another one joins anew', () => again(world));
  await context.test('by a file, which is to be deleted', () => byFile(world));
  await context.test('what is wrong is said within seconds, and nothing is written', () => wrong(world));
  await context.test('checked only, as install.sh asks', () => checkOnly(world));
  await context.test('at a terminal: asked for, not shown', () => prompted(world));
  await context.test('at a terminal: Ctrl-C leaves it as it was', () => interrupted(world));
  await context.test('enroll: output that is not read, not written, or readable for others', () => outputs(world));
});

test('a host that has nothing', { timeout: 120_000 }, async (context) => {
  const world = await World.start(context, { isRelease: true });
  await context.test('installs by the command that enroll prints', () => fetched(world));
  await context.test('installs by the printed pipe through ssh', () => piped(world));
  await context.test('is not offered HTTP where it is switched off or has passwords', () => notOffered(world));
});

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly ms: number;
}

class World {
  readonly context: TestContext;
  readonly server: ServerProgram;
  readonly folder: string;
  readonly bundle: string;
  readonly options: readonly string[];

  private constructor(parts: Pick<World, 'context' | 'server' | 'folder' | 'bundle' | 'options'>) {
    this.context = parts.context;
    this.server = parts.server;
    this.folder = parts.folder;
    this.bundle = parts.bundle;
    this.options = parts.options;
  }

  /** `isRelease`: with a release archive beside the server's program. */
  static async start(context: TestContext, { isRelease = false } = {}): Promise<World> {
    const folder = temporaryFolder(context);
    const bundle = join(folder, 'server', 'sysmon-server.cjs');
    mkdirSync(join(folder, 'server', 'install'), { recursive: true });
    copyFileSync(bundleOf('server'), bundle);
    if (isRelease) makeRelease(folder);
    const fleetKeyFile = join(folder, 'fleet.key');
    writeFileSync(fleetKeyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o400 });
    writeFileSync(join(folder, 'revoked.json'), '{"version":1,"revoked":{}}');
    const server = await ServerProgram.start(context, ['--fleet-key-file', fleetKeyFile], { bundle });
    const { port, webPort } = server;
    const options = [
      ...['--fleet-key-file', fleetKeyFile, '--config.file', '/dev/null'],
      // As if all addresses were open, of which the hosts know this one.
      ...['--advertise', `127.0.0.1:${port}`, '--web.listen-address', `:${webPort}`],
    ];
    return new World({ context, server, folder, bundle, options });
  }

  enrollArgv(name: string, ...more: string[]): string[] {
    return [process.execPath, this.bundle, 'enroll', name, ...this.options, ...more];
  }

  async line(name: string): Promise<string> {
    const { out, err } = await run(this.enrollArgv(name));
    assert.match(out, /^sysmon-join-v1 \S+ \S+ [0-9a-f]{64}\n$/, err);
    assert.equal(err, '');
    return out;
  }

  /** What enroll prints at a terminal, as lines. */
  async shown(name: string, ...more: string[]): Promise<string[]> {
    const { shown, code } = await atTerminal(this.enrollArgv(name, ...more), [], bareEnv);
    assert.equal(code, 0, shown);
    return shown.split('\r\n');
  }

  host(name: string): Host {
    const folder = join(this.folder, name);
    mkdirSync(folder);
    return new Host(folder);
  }
}

/** Where an agent joins. It has no unit. */
class Host {
  readonly folder: string;
  readonly envFile: string;
  readonly keyFile: string;

  constructor(folder: string) {
    this.folder = folder;
    this.envFile = join(folder, 'agent.env');
    this.keyFile = join(folder, 'agent.key');
    writeFileSync(this.envFile, '');
  }

  argv(...more: string[]): string[] {
    return [process.execPath, bundleOf('agent'), 'join', '--config.file', this.envFile, ...more];
  }

  join(input: string, ...more: string[]): Promise<Ran> {
    return run(this.argv(...more), input);
  }

  get isUntouched(): boolean {
    return readFileSync(this.envFile, 'utf8') === '' && readdirSync(this.folder).length === 1;
  }
}

const bareEnv: NodeJS.ProcessEnv = { PATH: process.env['PATH'], LANG: 'C' };

function run([program = '', ...args]: readonly string[], input = '', env = bareEnv): Promise<Ran> {
  const start = performance.now();
  return new Promise((resolve) => {
    const child = execFile(program, args, { env }, (error, out, err) => {
      const code = error === null ? 0 : Number(error.code);
      resolve({ code, out, err, ms: performance.now() - start });
    });
    // Who does not read it may have ended before it is written.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

async function byStandardInput(world: World): Promise<void> {
  const host = world.host('h1');
  // As a mail and a terminal of Windows make it.
  const { code, out, err } = await host.join(`\uFEFF  ${(await world.line('web-9')).trim()} \r\n\r\n`);
  assert.deepEqual([code, err], [0, '']);
  assert.match(out, /this host has joined as 'web-9': start the agent with 'sysmon-agent run'/);
  assert.equal(statSync(host.keyFile).mode & 0o777, 0o400);
  const socket = join(host.folder, 'control.sock');
  const agent = new Program('sysmon-agent', process.execPath, [
    ...[bundleOf('agent'), 'run', '--config.file', host.envFile, '--control-socket', socket],
  ]);
  world.context.after(() => agent.kill('SIGKILL'));
  const waited = await eventually(20_000, async () => {
    const result = await run([
      ...[process.execPath, bundleOf('agent'), 'status', '--wait'],
      ...['--control-socket', socket, '--config.file', '/dev/null'],
    ]);
    assert.equal(result.code, 0, result.err);
    return result.out;
  });
  assert.match(
    waited,
    new RegExp(
      `^agent 'web-9' is connected to 127\\.0\\.0\\.1:${world.server.port}\\nthis host is '\\S+' and reports as 'web-9'\\n$`,
    ),
  );
  await agent.kill('SIGTERM');
}

async function again(world: World): Promise<void> {
  const host = world.host('h2');
  await host.join(await world.line('a2'));
  const files = () => [
    readFileSync(host.keyFile, 'utf8'),
    readFileSync(host.envFile, 'utf8'),
    statSync(host.keyFile).ino,
  ];
  const before = files();
  const same = await host.join(await world.line('a2'));
  assert.equal(same.code, 0, same.err);
  assert.match(same.out, /^nothing to change: this host has joined as 'a2'/);
  assert.deepEqual(files(), before);
  const other = await host.join(await world.line('a3'));
  assert.equal(other.code, 0, other.err);
  assert.match(other.err, /this host was 'a2' before: 'sudo sysmon-server revoke a2' on the server forgets that name/);
  assert.match(readFileSync(host.envFile, 'utf8'), /^SYSMON_NAME=a3$/m);
}

async function byFile(world: World): Promise<void> {
  const host = world.host('h3');
  const file = join(host.folder, 'line');
  writeFileSync(file, `\uFEFF${await world.line('b1')}`, 'utf16le');
  chmodSync(file, 0o644);
  const { code, err } = await host.join('', '--join-file', file);
  assert.equal(code, 0, err);
  assert.match(err, /'.*line' holds the key, and others on this host may read it: delete it/);
  const missing = await host.join('', '--join-file', join(host.folder, 'missing'));
  assert.equal(missing.code, 2);
  assert.match(missing.err, /--join-file: '.*missing' cannot be read: /);
}

async function wrong(world: World): Promise<void> {
  const host = world.host('h4');
  const right = await world.line('w1');
  const { port, webPort } = world.server;
  const at = (server: string) => right.replace(`127.0.0.1:${port}`, server);
  const nobody = right.replace(/:[0-9a-f]{8} /, ':00000000 ');
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port: silentPort } = silent.address() as AddressInfo; // of TCP
  const cases = [
    ['', 2, /no join line was given: run 'sudo sysmon-server enroll \S+' on the server/],
    ['hello\n', 2, /begins with another word/],
    [at(`127.0.0.1:${webPort}`), 1, /does not speak TLS: agents connect to another port, usually 9732; .* says where/],
    [at('no-such-host.invalid:9732'), 1, /name of no-such-host\.invalid:9732 cannot be resolved: .*SYSMON_ADVERTISE=/],
    [at('127.0.0.1:1'), 1, /127\.0\.0\.1:1 refused the connection: nothing listens there; is the server running/],
    [
      right.replace(/[0-9a-f]{64}/, 'ab'.repeat(32)),
      1,
      /does not know the key of 'w1:1:\w+': .*sysmon-server enroll w1/,
    ],
    [at(`127.0.0.1:${silentPort}`), 1, /did not answer within 3\.0 s; check the network, and .*9732\/tcp/],
    [nobody, 1, /does not know the key of 'w1:1:00000000'/],
  ] as const;
  const results = await Promise.all(cases.map(([input]) => host.join(input)));
  for (const [index, { code, err, out, ms }] of results.entries()) {
    const [input, expectedCode, expected] = cases[index]!;
    assert.match(err, expected, input);
    assert.deepEqual([code, out], [expectedCode, ''], err);
    assert.equal(err.split('\n').length, 2, 'one line');
    assert.doesNotMatch(err, /[0-9a-f]{32}| {4}at /);
    assert.ok(ms < 8000, `${ms} ms`);
  }
  assert.ok(host.isUntouched);
  silent.close();
  const { code, out } = await host.join(at(`no-such-host.invalid:9732,127.0.0.1:${port}`));
  assert.equal(code, 0, out);
  assert.match(readFileSync(host.envFile, 'utf8'), new RegExp(`^SYSMON_SERVER=127\\.0\\.0\\.1:${port}$`, 'm'));

  const fleetKeyFile = join(world.folder, 'fleet.key');
  const revoking = ['revoke', 'w1', '--control-socket', world.server.controlSocket, '--fleet-key-file', fleetKeyFile];
  const revoked = await run([process.execPath, world.bundle, ...revoking, '--config.file', '/dev/null']);
  assert.equal(revoked.code, 0, revoked.err);
  const refused = await world.host('h5').join(right);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /refused this agent \(revoked\): the key 'w1:1:\w+' has been revoked/);
}

async function checkOnly(world: World): Promise<void> {
  const host = world.host('h6');
  const line = await world.line('c1');
  const two = line.replace(' 127.0.0.1:', ' 127.0.0.1:1,127.0.0.1:');
  const checked = await host.join(two, '--check-only');
  assert.deepEqual([checked.code, checked.out], [0, line], checked.err);
  assert.ok(host.isUntouched);
  assert.equal((await host.join('', '--check-only')).code, 2, 'it has not joined yet');
  assert.equal((await host.join(line, '--no-restart', '--offline')).code, 0);
  const none = await host.join('', '--check-only');
  assert.deepEqual([none.code, none.out, none.err], [0, '', '']);
  // A line that is no join line is not thrown away either.
  assert.equal((await host.join('c1\n', '--check-only')).code, 2);
}

async function prompted(world: World): Promise<void> {
  const host = world.host('h7');
  const line = (await world.line('p1')).trim();
  // A blank line first, what some terminals put around a paste, a backspace, and the end of a line of Windows.
  const typed = `\r\u001b[200~${line}x\u007f\u001b[201~\r\n`;
  const { code, shown, isAsBefore } = await atTerminal(host.argv(), [['(it is not shown): ', typed]], bareEnv);
  assert.equal(code, 0, shown);
  assert.match(shown, /^The line that 'sudo sysmon-server enroll \S+' prints on the server \(it is not shown\): \r\n/);
  assert.match(shown, /this host has joined as 'p1'/);
  assert.doesNotMatch(shown, /[0-9a-f]{32}/);
  assert.ok(isAsBefore);
}

async function interrupted(world: World): Promise<void> {
  const host = world.host('h8');
  const cases = [
    ['\u0003', 130],
    ['sysmon-join\u0003', 130],
    ['\u0004', 2],
  ] as const;
  await Promise.all(
    cases.map(async ([typed, expected]) => {
      const { code, shown, isAsBefore } = await atTerminal(host.argv(), [['(it is not shown): ', typed]], bareEnv);
      assert.deepEqual([code, isAsBefore], [expected, true], shown);
      assert.doesNotMatch(shown, / {4}at /);
    }),
  );
  // Whatever ends it.
  const ended = await atTerminal(['timeout', '--foreground', '2', ...host.argv()], [], bareEnv);
  assert.deepEqual([ended.code, ended.isAsBefore], [124, true], ended.shown);
  assert.ok(host.isUntouched);
}

async function outputs(world: World): Promise<void> {
  const shell = (script: string) => run(['bash', '--norc', '-c', script, 'bash', ...world.enrollArgv('o1')]);
  const closed = await shell(`"$@" | true; exit "\${PIPESTATUS[0]}"`);
  assert.equal(closed.code, 1);
  assert.match(closed.err, /^sysmon-server: not all of the output was written: whoever reads it has ended\n$/);
  const full = await shell('"$@" >/dev/full');
  assert.equal(full.code, 1);
  assert.match(full.err, /^sysmon-server: not all of the output was written: ENOSPC.*\n$/);
  const file = join(world.folder, 'o1.line');
  const written = await shell(`umask 022; "$@" >${file}`);
  assert.equal(written.code, 0, written.err);
  assert.match(written.err, /is for you alone now \(mode 0600\); it holds the key: delete it/);
  assert.equal(statSync(file).mode & 0o777, 0o600);
}

const releaseFile = `sysmon-0.1.0-linux-${process.arch}.tar.gz`;

/** A release that says how it was installed. */
function makeRelease(folder: string): void {
  const name = releaseFile.replace('.tar.gz', '');
  mkdirSync(join(folder, name));
  const installer =
    '#!/bin/sh\nread -r first server id key\necho "$1 is installed with $first, $(printf %s $key | wc -c)"\n';
  writeFileSync(join(folder, name, 'install.sh'), installer, { mode: 0o755 });
  execOrFail('tar', ['-czf', join(folder, 'server', 'install', releaseFile), '-C', folder, name]);
}

function execOrFail(program: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
}

/** A PATH whose first folder holds these programs, as texts of shell. */
function pathWith(world: World, name: string, programs: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const folder = join(world.folder, name);
  mkdirSync(folder);
  for (const [program, text] of Object.entries({ sudo: 'exec "$@"', ...programs })) {
    writeFileSync(join(folder, program), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  return { ...bareEnv, PATH: `${folder}:${bareEnv['PATH']}` };
}

const indented = (lines: readonly string[], pattern: RegExp): string => {
  const found = lines.find((line) => line.startsWith('  ') && pattern.test(line));
  assert.ok(found !== undefined, lines.join('\n'));
  return found.trim();
};

async function fetched(world: World): Promise<void> {
  const lines = await world.shown('web-9');
  const line = lines.find((each) => each.startsWith('sysmon-join-v1 '));
  assert.ok(line !== undefined);
  const fetching = indented(lines, /\/install\//);
  assert.doesNotMatch(fetching, new RegExp(line.split(' ')[3]!), 'the key is not in the command');
  for (const [name, tools] of [
    ['curl', {}],
    ['wget', { curl: 'exit 127' }],
  ] as const) {
    assert.equal(spawnSync(name, ['--version']).status, 0, `${name} is missing: apt-get install ${name}`);
    for (const shell of ['sh', 'bash']) {
      const env = { ...pathWith(world, `${name}-${shell}`, tools), TMPDIR: emptyFolder(world) };
      const { code, out, err } = await run([shell, '-c', fetching], `${line}\n`, env);
      assert.deepEqual([code, out], [0, 'agent is installed with sysmon-join-v1, 64\n'], err);
      assert.deepEqual(readdirSync(env.TMPDIR), [], 'what was fetched and unpacked');
    }
  }
  const archive = join(world.folder, 'server', 'install', releaseFile);
  const bytes = readFileSync(archive);
  bytes[20]! ^= 1;
  writeFileSync(archive, bytes);
  const env = { ...pathWith(world, 'tampered', {}), TMPDIR: emptyFolder(world) };
  const tampered = await run(['sh', '-c', fetching], `${line}\n`, env);
  assert.notEqual(tampered.code, 0);
  assert.deepEqual(readdirSync(env.TMPDIR), []);
  assert.match(tampered.err, /FAILED|did NOT match/);
  assert.equal(tampered.out.includes('is installed'), false);
  bytes[20]! ^= 1;
  writeFileSync(archive, bytes);
}

async function piped(world: World): Promise<void> {
  const command = indented(await world.shown('web-9'), /\| ssh web-9 /);
  const [, ...args] = world.enrollArgv('web-9');
  for (const shell of ['sh', 'bash']) {
    const programs = {
      ssh: `shift; exec ${shell} -c "$1"`,
      'sysmon-server': `exec ${process.execPath} ${args.join(' ')}`,
    };
    const env = { ...pathWith(world, `ssh-${shell}`, programs), TMPDIR: emptyFolder(world) };
    const { code, out, err } = await run(['sh', '-c', command], '', env);
    assert.deepEqual([code, out], [0, 'agent is installed with sysmon-join-v1, 64\n'], err);
    assert.deepEqual(readdirSync(env.TMPDIR), []);
  }
}

const emptyFolder = (world: World): string => mkdtempSync(join(world.folder, 'tmp-'));

async function notOffered(world: World): Promise<void> {
  const url = `http://127.0.0.1:${world.server.webPort}/install/${releaseFile}`;
  const ask = () => fetch(url, { method: 'HEAD', headers: { connection: 'close' } });
  assert.equal((await ask()).status, 200);
  const off = await world.shown('web-9', '--web.install', 'off');
  assert.doesNotMatch(off.join('\n'), /http:|ssh web-9/);
  assert.match(off.join('\n'), /run 'sudo \.\/install\.sh agent' of a release/);

  const config = join(world.folder, 'web.yml');
  writeFileSync(config, `basic_auth_users: { prometheus: '$2y$10$${'a'.repeat(53)}' }\n`, { mode: 0o400 });
  const withPassword = await world.shown('web-9', '--web.config.file', config);
  assert.doesNotMatch(withPassword.join('\n'), /\/install\/\$f/);
  assert.match(withPassword.join('\n'), /\| ssh web-9 /);

  const closed = await ServerProgram.start(world.context, ['--web.install', 'off'], { bundle: world.bundle });
  const answer = await closed.get(`/install/${releaseFile}`);
  assert.equal(answer.status, 404);
  assert.ok(existsSync(join(world.folder, 'server', 'install', releaseFile)));
}
