import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { program as agent } from '../../src/agent/options.ts';
import { envFileText } from '../../src/runtime/option-help.ts';
import { type OptionRows, type Program, readOptions } from '../../src/runtime/options.ts';
import { program as server } from '../../src/server/options.ts';
import { rootFile } from '../support/files.ts';
import { skipHere } from '../support/installed.ts';
import { deadLinks } from '../support/links.ts';
import { bundleOf } from '../support/programs.ts';

// What needs no root; the rest is in test/lab/.

const install = (...args: string[]) => installFrom(rootFile('.'), args);

function installFrom(folder: string, args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync('sh', [join(folder, 'install.sh'), ...args], {
    encoding: 'utf8',
    input: '',
  });
  return { code: status, out: stdout, err: stderr };
}

test('help says how, and is no error', () => {
  const { code, out } = install('--help');
  assert.equal(code, 0);
  for (const word of ['server', 'agent', 'uninstall', '--purge', '--join-file', '--root', '--prefix']) {
    assert.ok(out.includes(word), word);
  }
});

for (const [args, expected] of [
  [[], /nothing to do: expected server, agent or uninstall/],
  [['sever'], /'sever' is not an argument of install.sh/],
  [['server', 'agent'], /'server' and 'agent' are given/],
  [['agent', '--purge'], /'--purge' does not belong to 'agent'/],
  [['uninstall', 'agent', 'server'], /'agent' and 'server' are given/],
  [['uninstall', '--yes'], /'--yes' does not belong to 'uninstall': expected with uninstall --purge/],
  [['uninstall', '--downgrade'], /'--downgrade' does not belong to 'uninstall'/],
  [['server', '--join-file', 'x'], /'--join-file' does not belong to 'server'/],
  [['server', '--root'], /'--root' has no value/],
  [['server', '--root='], /'--root' is empty/],
  [['server', '--root', 'here'], /'--root' is 'here': expected an absolute path/],
  [['server', '--prefix', '/a b'], /'--prefix' is '\/a b': expected a path of/],
] as const) {
  test(`wrong use: ${args.join(' ') || 'nothing'}`, () => {
    const { code, out, err } = install(...args);
    assert.equal(code, 2);
    assert.equal(out, '');
    assert.match(err, expected);
    assert.equal(err.split('\n').length, 2, err);
  });
}

test('a join line on the command line is refused, and not repeated', () => {
  const key = '0123456789abcdef'.repeat(4);
  for (const args of [
    [`sysmon-join-v1 host:9732 web-1:1:01234567 ${key}`],
    ['sysmon-join-v1', 'host:9732', 'id', key],
  ]) {
    const { code, err } = install('agent', ...args);
    assert.equal(code, 2);
    assert.match(err, /seen by ps/);
    assert.ok(!err.includes(key));
  }
});

const programs: Record<string, Program<OptionRows>> = { agent, server };
for (const [side, program] of Object.entries(programs)) {
  test(`systemd/${side}.env is what the options say, and is taken as it is`, () => {
    const text = readFileSync(rootFile(`systemd/${side}.env`), 'utf8');
    assert.equal(text, envFileText(program), "run 'npm run build', which writes it");
    const options = readOptions(program, { argv: [], env: {}, readFile: () => text });
    assert.deepEqual(options.changed, []);
  });
}

for (const side of ['agent', 'server'] as const) {
  // Of an option '--env-file' Node would say that the file is not found, and exit with 9, after which a unit restarts it.
  test(`sysmon-${side}: a file of options that is missing is refused by the program itself, with 2`, () => {
    const { status, stderr } = spawnSync(process.execPath, [bundleOf(side), 'check', '--config.file', '/none.env'], {
      encoding: 'utf8',
    });
    assert.equal(status, 2);
    assert.match(
      stderr,
      /option '--config\.file' is '\/none\.env' \(by the command line\): expected a readable file: /,
    );
  });
}

for (const side of ['agent', 'server'] as const) {
  // NodeSource's package may be replaced by Debian's older one after an install.
  test(`sysmon-${side} on an older Node.js: one line, and 2, after which systemd does not start it again`, () => {
    const older = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.4' } });";
    const { status, stderr, stdout } = spawnSync(
      process.execPath,
      ['-e', `${older} require(process.argv[1])`, bundleOf(side), 'run'],
      { encoding: 'utf8' },
    );
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^sysmon: Node\.js 18\.20\.4 \(\S+\) is too old: 20\.15 or newer is needed\n$/);
  });
}

test('a unit whose Node.js has been removed: one line, and 2, after which systemd does not start it again', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-start-'));
  context.after(() => rmSync(folder, { recursive: true }));
  cpSync(rootFile('systemd/start'), join(folder, 'start'));
  const start = () => spawnSync('sh', [join(folder, 'start'), '-p', '6 * 7'], { encoding: 'utf8' });
  symlinkSync(process.execPath, join(folder, 'node'));
  assert.equal(start().stdout, '42\n');
  rmSync(join(folder, 'node'));
  symlinkSync('/usr/none/node', join(folder, 'node'));
  const { status, stderr } = start();
  assert.equal(status, 2);
  assert.equal(stderr, 'there is no Node.js at /usr/none/node: install it again, or run install.sh of a release\n');
});

/** A release of what is built, which needs no build of its own. */
function releaseFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-release-'));
  for (const part of ['install.sh', 'LICENSE', 'README.md', 'CHANGELOG.md', 'SECURITY.md']) {
    cpSync(rootFile(part), join(folder, part));
  }
  for (const part of ['docs', 'examples', 'prometheus', 'systemd', 'dist']) {
    cpSync(rootFile(part), join(folder, part), { recursive: true });
  }
  const { version } = JSON.parse(readFileSync(rootFile('package.json'), 'utf8')) as { version: string };
  writeFileSync(join(folder, 'VERSION'), `${version}\n`);
  return folder;
}

const release = releaseFolder();
after(() => rmSync(release, { recursive: true }));

describe('staged below a folder for packagers', () => {
  const root = mkdtempSync(join(tmpdir(), 'sysmon-install-'));
  after(() => rmSync(root, { recursive: true }));
  const install = (...args: string[]) => installFrom(release, args);
  const staged = () => readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
  const read = (path: string) => readFileSync(join(root, path), 'utf8');

  test('both programs, with another prefix', () => {
    for (const role of ['server', 'agent']) {
      // From the clone and from the release: the same files.
      const from = role === 'server' ? rootFile('.') : release;
      const { code, out, err } = installFrom(from, [role, '--root', root, '--prefix=/usr']);
      assert.equal(code, 0, err + out);
    }
    const files = staged();
    for (const role of ['agent', 'server']) {
      for (const file of [
        `usr/bin/sysmon-${role}`,
        `usr/lib/systemd/system/sysmon-${role}.service`,
        `usr/lib/sysusers.d/sysmon-${role}.conf`,
        `etc/sysmon/${role}.env`,
      ]) {
        assert.ok(files.includes(file), file);
      }
      const unit = read(`usr/lib/systemd/system/sysmon-${role}.service`);
      assert.match(unit, /^ExecStart=\/bin\/sh \/usr\/lib\/sysmon\/current\/start --/m);
      assert.doesNotMatch(unit, /\/usr\/local/);
      assert.match(read(`usr/bin/sysmon-${role}`), /^lib=\/usr\/lib\/sysmon\/current$/m);
      assert.equal(statSync(join(root, `usr/bin/sysmon-${role}`)).mode & 0o777, 0o755);
    }
    assert.equal(readlinkSync(join(root, 'usr/lib/sysmon/current/node')), '/usr/bin/node');
    assert.match(read('etc/sysmon/server.env'), /^SYSMON_FLEET_KEY_FILE=\/etc\/sysmon\/fleet\.key$/m);
    assert.match(read('etc/sysmon/agent.env'), /^SYSMON_SPOOL_DIR=\/var\/lib\/sysmon-agent$/m);
    assert.ok(!files.some((file) => file.endsWith('.key') || file.endsWith('.part')));
    assert.equal(readdirSync(join(root, 'usr/lib/sysmon/releases')).length, 1);
    const documents = join(root, 'usr/lib/sysmon/current/doc');
    assert.ok(readFileSync(join(documents, 'README.md'), 'utf8').includes('](operating.md)'));
    assert.deepEqual(deadLinks(documents), []);
  });

  test('a second time nothing changes, and a file of yours stays', () => {
    writeFileSync(join(root, 'etc/sysmon/agent.env'), 'SYSMON_SERVER=mine:1\n');
    const before = staged();
    assert.match(install('agent', '--root', root, '--prefix', '/usr').out, /nothing to change/);
    assert.deepEqual(staged(), before);
    assert.equal(read('etc/sysmon/agent.env'), 'SYSMON_SERVER=mine:1\n');
  });

  test('a second time in another locale nothing changes either', (context) => {
    const locales = mkdtempSync(join(tmpdir(), 'sysmon-locales-'));
    context.after(() => rmSync(locales, { recursive: true }));
    const made = join(locales, 'en_US.UTF-8');
    if (spawnSync('localedef', ['--no-archive', '-i', 'en_US', '-f', 'UTF-8', made]).status !== 0) {
      return skipHere(context, 'localedef cannot make en_US: apt-get install locales');
    }
    const env = { ...process.env, LC_ALL: 'en_US.UTF-8', LOCPATH: locales };
    const sorted = spawnSync('sort', { encoding: 'utf8', env, input: 'a-b\naa\na-c\n' }).stdout;
    assert.equal(sorted, 'aa\na-b\na-c\n', 'a locale whose order is another than that of C');
    const before = staged();
    const { stdout } = spawnSync('sh', [rootFile('install.sh'), 'agent', '--root', root, '--prefix', '/usr'], {
      ...{ encoding: 'utf8', env, input: '' },
    });
    assert.match(stdout, /nothing to change/);
    assert.deepEqual(staged(), before);
  });

  test('the newer program that nobody named stays, unless that is said', () => {
    const current = join(root, 'usr/lib/sysmon/current');
    const kept = readlinkSync(current);
    rmSync(current);
    symlinkSync('releases/99.1.0-0123456789', current);
    const refused = install('agent', '--root', root, '--prefix', '/usr');
    assert.equal(refused.code, 2);
    assert.match(refused.err, /sysmon-server 99\.1\.0 is on this host too, .* or --downgrade/);
    assert.equal(readlinkSync(current), 'releases/99.1.0-0123456789');
    assert.equal(install('agent', '--root', root, '--prefix', '/usr', '--downgrade').code, 0);
    assert.equal(readlinkSync(current), kept);
  });

  test('one of both gone, the other stays whole', () => {
    const before = staged();
    const { out } = install('uninstall', 'server', '--root', root, '--prefix', '/usr');
    assert.match(out, /sysmon-server is removed[\s\S]*kept: \S+server\.env;/);
    const gone = before.filter((file) => !staged().includes(file));
    assert.deepEqual(gone, [
      'usr/bin/sysmon-server',
      'usr/lib/systemd/system/sysmon-server.service',
      'usr/lib/sysusers.d/sysmon-server.conf',
    ]);
    assert.equal(install('uninstall', 'server', '--root', root, '--prefix', '/usr', '--purge').code, 0);
    assert.ok(!staged().includes('etc/sysmon/server.env'));
    assert.ok(staged().includes('etc/sysmon/agent.env'));
    assert.equal(install('server', '--root', root, '--prefix', '/usr').code, 0);
  });

  test('the fleet key is not destroyed without a yes', () => {
    writeFileSync(join(root, 'etc/sysmon/fleet.key'), 'a key\n');
    const refused = install('uninstall', '--root', root, '--prefix', '/usr', '--purge');
    assert.equal(refused.code, 2);
    assert.match(refused.err, /this destroys the fleet key \S+fleet\.key: .*; add --yes/);
    assert.ok(staged().includes('usr/bin/sysmon-server'), 'nothing was removed');
    rmSync(join(root, 'etc/sysmon/fleet.key'));
  });

  test('and gone again', () => {
    assert.match(install('uninstall', '--root', root, '--prefix', '/usr').out, /kept: /);
    assert.deepEqual(
      staged().filter((file) => file.includes('sysmon')),
      ['etc/sysmon', 'etc/sysmon/agent.env', 'etc/sysmon/server.env'],
    );
    assert.equal(install('uninstall', '--root', root, '--prefix', '/usr', '--purge').code, 0);
    assert.deepEqual(
      staged().filter((file) => file.includes('sysmon')),
      [],
    );
  });
});

test('a prefix of its own: units where systemd reads them, and all of it gone again, also where a link leads to', () => {
  const root = mkdtempSync(join(tmpdir(), 'sysmon-install-'));
  try {
    mkdirSync(join(root, 'data'));
    mkdirSync(join(root, 'etc'));
    symlinkSync(join(root, 'data'), join(root, 'etc/sysmon'));
    const { code, err } = installFrom(release, ['agent', '--root', root, '--prefix', '/opt/sysmon']);
    assert.equal(code, 0, err);
    const unit = readFileSync(join(root, 'etc/systemd/system/sysmon-agent.service'), 'utf8');
    assert.match(unit, /^ExecStart=\/bin\/sh \/opt\/sysmon\/lib\/sysmon\/current\/start --/m);
    assert.ok(existsSync(join(root, 'etc/sysusers.d/sysmon-agent.conf')));
    writeFileSync(join(root, 'data/agent.key'), 'a key\n');
    assert.equal(installFrom(release, ['uninstall', '--root', root, '--prefix', '/opt/sysmon', '--purge']).code, 0);
    assert.deepEqual(
      readdirSync(root, { recursive: true, encoding: 'utf8' }).sort(),
      ['data', 'etc', 'etc/systemd', 'etc/systemd/system', 'etc/sysusers.d', 'opt'].filter((path) =>
        existsSync(join(root, path)),
      ),
    );
    assert.ok(!existsSync(join(root, 'data/agent.key')));
  } finally {
    rmSync(root, { recursive: true });
  }
});
