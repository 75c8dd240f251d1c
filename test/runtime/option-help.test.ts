import assert from 'node:assert/strict';
import { test } from 'node:test';
import { envFileText, helpOrVersion, helpText } from '../../src/runtime/option-help.ts';
import {
  configFileOption,
  duration,
  flagOption,
  hostPort,
  listOption,
  type OptionRows,
  option,
  type Program,
  path,
  readOptions,
  text,
} from '../../src/runtime/options.ts';

const program = {
  name: 'sysmon-test',
  summary: 'Tests the help.',
  commands: [
    { name: 'run', help: 'Runs.' },
    { name: 'enroll', arguments: ['NAME'], help: 'Enrols.' },
  ],
  options: {
    server: option({
      name: 'server',
      placeholder: 'HOST:PORT',
      parse: hostPort(9732),
      default: '127.0.0.1:9732',
      help: 'Where the server listens; a rather long explanation that has to go over more than a single line of text.',
    }),
    name: option({
      name: 'name',
      placeholder: 'NAME',
      parse: text(),
      default: 'web-1',
      defaultHelp: "the host's name",
      help: 'Its name.',
    }),
    label: listOption({ name: 'label', placeholder: 'NAME=VALUE', parse: text(), help: 'A label.' }),
    plain: flagOption({ name: 'allow-plaintext', help: 'Takes plain connections.' }),
    out: option({
      name: 'out',
      placeholder: 'FILE',
      parse: path,
      default: '-',
      help: 'Where to.',
      commands: ['enroll'],
    }),
    json: flagOption({ name: 'json', help: 'As JSON.', commands: ['enroll'] }),
    every: option({ name: 'x.every', placeholder: 'DURATION', parse: duration(), default: '5s', help: 'How often.' }),
    configFile: configFileOption('/etc/test.env'),
  },
} as const satisfies Program<OptionRows>;

test('the help', () => {
  assert.equal(
    helpText(program),
    `Tests the help.

Usage: sysmon-test [COMMAND] [OPTION …]

  run          Runs. (default)
  enroll NAME  Enrols.

'sysmon-test help COMMAND' shows the options of one command.

Options; each can also be set in the environment, --config.file as SYSMON_CONFIG_FILE:

  --server HOST:PORT
        Where the server listens; a rather long explanation that has to go over more than a single
        line of text. Default: 127.0.0.1:9732
  --name NAME
        Its name. Default: the host's name
  --label NAME=VALUE
        A label. May be repeated; in the environment, commas separate the values.
  --allow-plaintext
        Takes plain connections.
  --out FILE
        Where to. Default: - (enroll)
  --json
        As JSON. (enroll)
  --x.every DURATION
        How often. Default: 5s
  --config.file FILE
        File of options, as SYSMON_NAME=VALUE lines. The command line and the environment take
        precedence. Default: /etc/test.env where it exists
  --help, -h
        Print this help.
  --version
        Print the version.
`,
  );
});

test('help and version go before everything else', () => {
  assert.equal(helpOrVersion(program, '1.2.3', ['--nonsense', '--help']), helpText(program));
  assert.equal(helpOrVersion(program, '1.2.3', ['-h']), helpText(program));
  assert.equal(helpOrVersion(program, '1.2.3', ['run', '--version']), 'sysmon-test 1.2.3\n');
  assert.equal(helpOrVersion(program, '1.2.3', ['enroll', '--', '--help']), undefined);
  assert.equal(helpOrVersion(program, '1.2.3', ['run']), undefined);
});

test('the help of one command has its options alone', () => {
  const help = helpOrVersion(program, '1.2.3', ['help', 'run'])!;
  assert.match(help, /^Runs\.\n\nUsage: sysmon-test run \[OPTION …\]\n/);
  const options = (text: string) => [...text.matchAll(/^ {2}--([a-z.-]+)/gm)].map(([, name]) => name);
  const all = ['server', 'name', 'label', 'allow-plaintext', 'x.every', 'config.file', 'help', 'version'];
  assert.deepEqual(options(help), all);
  assert.deepEqual(options(helpOrVersion(program, '', ['enroll', '--help'])!).sort(), [...all, 'out', 'json'].sort());
  assert.doesNotMatch(help, /\(enroll\)|\(run\)/);
  assert.equal(helpOrVersion(program, '', ['help', 'enroll', 'web-1']), helpOrVersion(program, '', ['enroll', '-h']));
  for (const argv of [['help'], ['help', 'nosuch'], ['--json', '--help']]) {
    assert.equal(helpOrVersion(program, '', argv), helpText(program));
  }
});

test('the environment file documents every option but switches of other commands', () => {
  const file = envFileText(program);
  assert.match(file, /\n# How often\. Default: 5s\n#SYSMON_X_EVERY=5s\n/);
  assert.match(file, /\n# Where to\. Default: - \(enroll\)\n#SYSMON_OUT=-\n/);
  assert.doesNotMatch(file, /SYSMON_JSON|SYSMON_CONFIG_FILE/);
  assert.equal(file.match(/^#SYSMON_/gm)?.length, 6);
});

test('the environment file changes nothing as it is, nor with each line switched on', () => {
  const file = envFileText(program);
  const read = (content: string) => readOptions(program, { argv: [], env: {}, readFile: () => content });
  assert.deepEqual(read(file).values, read('').values);
  const active = read(file.replace(/^#(?=SYSMON_)/gm, ''));
  assert.deepEqual(active.values, read('').values);
  assert.deepEqual(active.changed, []);
});
