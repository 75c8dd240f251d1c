import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { program as agent } from '../../src/agent/options.ts';
import { envFileText } from '../../src/runtime/option-help.ts';
import { type OptionRows, type Program, readOptions } from '../../src/runtime/options.ts';
import { program as server } from '../../src/server/options.ts';
import { rootFile } from '../support/files.ts';
import { bundleOf } from '../support/programs.ts';

// What needs no root; the rest is in test/lab/.

function install(...args: string[]) {
  const { status, stdout, stderr } = spawnSync('sh', [rootFile('install.sh'), ...args], {
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

describe('staged below a folder for packagers', () => {
  const root = mkdtempSync(join(tmpdir(), 'sysmon-install-'));
  after(() => rmSync(root, { recursive: true }));
  const staged = () => readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
  const read = (path: string) => readFileSync(join(root, path), 'utf8');

  test('both programs, with another prefix', () => {
    for (const role of ['server', 'agent']) {
      const { code, out, err } = install(role, '--root', root, '--prefix=/usr');
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
      assert.match(unit, /^ExecStart=\/usr\/lib\/sysmon\/current\/node /m);
      assert.doesNotMatch(unit, /\/usr\/local/);
      assert.match(read(`usr/bin/sysmon-${role}`), /^exec \/usr\/lib\/sysmon\/current\/node /m);
      assert.equal(statSync(join(root, `usr/bin/sysmon-${role}`)).mode & 0o777, 0o755);
    }
    assert.equal(readlinkSync(join(root, 'usr/lib/sysmon/current/node')), '/usr/bin/node');
    assert.match(read('etc/sysmon/server.env'), /^SYSMON_FLEET_KEY_FILE=\/etc\/sysmon\/fleet\.key$/m);
    assert.match(read('etc/sysmon/agent.env'), /^SYSMON_SPOOL_DIR=\/var\/lib\/sysmon-agent$/m);
    assert.ok(!files.some((file) => file.endsWith('.key') || file.endsWith('.part')));
    assert.equal(readdirSync(join(root, 'usr/lib/sysmon/releases')).length, 1);
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
      assert.notEqual(process.env['CI'], 'true', 'localedef cannot make en_US: apt-get install locales');
      return context.skip('localedef cannot make en_US: apt-get install locales');
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
