import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  boolean,
  bytes,
  choice,
  configFileOption,
  duration,
  flagOption,
  hostPort,
  listOption,
  type OptionRows,
  option,
  optional,
  type Program,
  path,
  readOptions,
  type Sources,
  text,
  UsageError,
} from '../../src/runtime/options.ts';

const program = {
  name: 'sysmon-test',
  summary: 'Tests.',
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
      help: 'The server.',
    }),
    maxBytes: option({
      name: 'spool.max-bytes',
      placeholder: 'BYTES',
      parse: bytes(),
      default: '64MiB',
      help: 'Its bound.',
    }),
    window: option({
      name: 'window',
      placeholder: 'DURATION',
      parse: duration({ minMs: 60_000 }),
      default: '30m',
      help: 'How long.',
      commands: ['run'],
    }),
    keyFile: optional({ name: 'key-file', placeholder: 'FILE', parse: path, default: '/etc/key', help: 'The key.' }),
    labels: listOption({
      name: 'label',
      placeholder: 'NAME=VALUE',
      parse: text(/^\w+=/, 'NAME=VALUE'),
      help: 'Labels.',
    }),
    plain: flagOption({ name: 'allow-plaintext', help: 'Plain.' }),
    detailed: option({
      name: 'detailed',
      placeholder: 'BOOLEAN',
      parse: boolean,
      bare: 'true',
      default: 'false',
      help: 'More.',
    }),
    level: option({
      name: 'log.level',
      placeholder: 'LEVEL',
      parse: choice(['error', 'info']),
      default: 'info',
      help: 'Level.',
    }),
    configFile: configFileOption('/etc/test.env'),
  },
} as const satisfies Program<OptionRows>;

function missing(name: string): never {
  throw Object.assign(new Error(`ENOENT: no such file '${name}'`), { code: 'ENOENT' });
}

function read({
  argv = [],
  env = {},
  files = {},
}: {
  argv?: string[];
  env?: Sources['env'];
  files?: Record<string, string>;
}) {
  return readOptions(program, { argv, env, readFile: (name) => files[name] ?? missing(name) });
}

function refused(sources: Parameters<typeof read>[0], expected: string) {
  assert.throws(
    () => read(sources),
    (error) => {
      assert.ok(error instanceof UsageError);
      assert.equal(error.message, expected);
      return true;
    },
  );
}

test('defaults', () => {
  const options = read({});
  assert.equal(options.command, 'run');
  assert.deepEqual(options.arguments, []);
  assert.deepEqual(options.values, {
    server: { host: '127.0.0.1', port: 9732 },
    maxBytes: 64 * 1024 * 1024,
    window: 1_800_000,
    keyFile: '/etc/key',
    labels: [],
    plain: false,
    detailed: false,
    level: 'info',
    configFile: '/etc/test.env',
  });
  assert.deepEqual(options.changed, []);
});

test('a flag goes before the environment, that before the file, that before the default', () => {
  const file = '/etc/test.env';
  const files = { [file]: 'SYSMON_WINDOW=2m\n' };
  assert.equal(read({ files }).values.window, 120_000);
  const env = { SYSMON_WINDOW: '3m' };
  assert.equal(read({ files, env }).values.window, 180_000);
  assert.equal(read({ files, env, argv: ['--window', '4m'] }).values.window, 240_000);
  assert.equal(read({ files, env, argv: ['--window=5m'] }).values.window, 300_000);
});

test('the values are typed', () => {
  const { values } = read({});
  const port: number = values.server.port;
  const key: string | undefined = values.keyFile;
  const labels: readonly string[] = values.labels;
  const level: 'error' | 'info' = values.level;
  assert.deepEqual([port, key, labels, level], [9732, '/etc/key', [], 'info']);
});

test('lists: repeated on the line, with commas in the environment', () => {
  assert.deepEqual(read({ argv: ['--label', 'a=1,2', '--label=b=3'] }).values.labels, ['a=1,2', 'b=3']);
  assert.deepEqual(read({ env: { SYSMON_LABEL: ' a=1, b=2 ,' } }).values.labels, ['a=1', 'b=2']);
  assert.deepEqual(read({ env: { SYSMON_LABEL: 'a=1' }, argv: ['--label', 'b=2'] }).values.labels, ['b=2']);
  assert.deepEqual(read({ env: { SYSMON_LABEL: '' } }).values.labels, []);
});

test('switches', () => {
  assert.equal(read({ argv: ['--allow-plaintext'] }).values.plain, true);
  assert.equal(
    read({ argv: ['--allow-plaintext=false'], env: { SYSMON_ALLOW_PLAINTEXT: 'true' } }).values.plain,
    false,
  );
  assert.equal(read({ env: { SYSMON_ALLOW_PLAINTEXT: '1' } }).values.plain, true);
  assert.deepEqual(read({ argv: ['--allow-plaintext', 'enroll', 'web'] }).arguments, ['web']);
});

test('an empty text is none where none is allowed', () => {
  assert.equal(read({ env: { SYSMON_KEY_FILE: '' } }).values.keyFile, undefined);
  refused(
    { env: { SYSMON_WINDOW: '' } },
    "option '--window' is '' (by SYSMON_WINDOW in the environment): expected a duration such as 5s, 1m30s or 24h",
  );
});

test('commands and their words', () => {
  assert.deepEqual(read({ argv: ['enroll', 'web-1'] }).arguments, ['web-1']);
  assert.deepEqual(read({ argv: ['enroll', '--', '--odd'] }).arguments, ['--odd']);
  refused({ argv: ['enrol', 'x'] }, "unknown command 'enrol', did you mean 'enroll'?: expected run, enroll");
  refused({ argv: ['enroll'] }, "NAME is missing: expected 'sysmon-test enroll NAME'");
  refused({ argv: ['run', 'x', 'y'] }, "'x,y' is too much: expected 'sysmon-test run'");
  refused(
    { argv: ['enroll', 'x', '--window', '2m'] },
    "option '--window' does not belong to 'sysmon-test enroll': expected with run",
  );
  // From the environment it is no mistake: the file serves all commands.
  assert.equal(read({ argv: ['enroll', 'x'], env: { SYSMON_WINDOW: '2m' } }).values.window, 120_000);
});

test('a value may be left out where the option says what it is then', () => {
  const detailed = (...argv: string[]) => read({ argv }).values.detailed;
  assert.deepEqual(
    [detailed('--detailed'), detailed('--detailed', '--window=1m'), detailed('run', '--detailed', '--')],
    [true, true, true],
  );
  assert.deepEqual([detailed(), detailed('--detailed', 'off'), detailed('--detailed=no')], [false, false, false]);
  refused(
    { argv: ['--detailed', 'run'] },
    "option '--detailed' is 'run' (by the command line): expected true or false",
  );
});

test('what is refused names the option, the value, where it was, and what was expected', () => {
  refused(
    { argv: ['--window', '5x'] },
    "option '--window' is '5x' (by the command line): expected a duration such as 5s, 1m30s or 24h",
  );
  refused(
    { files: { '/etc/test.env': '# comment\n\nSYSMON_WINDOW = 5s\n' } },
    "option '--window' is '5s' (by SYSMON_WINDOW in '/etc/test.env', line 3): expected a duration of at least 1m",
  );
  refused({ argv: ['--sever', 'x'] }, "unknown option '--sever', did you mean '--server'?: see --help");
  refused({ argv: ['-window', '2m'] }, "unknown option '-window', did you mean '--window'?: see --help");
  refused({ argv: ['--zzzzzzzzzzz'] }, "unknown option '--zzzzzzzzzzz': see --help");
  refused({ argv: ['--window'] }, "option '--window' has no value: expected DURATION");
  refused(
    { argv: ['--window', '--server'] },
    "option '--window' is followed by '--server': expected DURATION (write '--window=--server' if that is the value)",
  );
  refused(
    { argv: ['--window=1h', '--window=2h'] },
    "option '--window' is given twice, as '1h' and '2h': expected once",
  );
  refused({ argv: ['--label', 'x'] }, "option '--label' is 'x' (by the command line): expected NAME=VALUE");
  refused(
    { argv: ['--allow-plaintext=maybe'] },
    "option '--allow-plaintext' is 'maybe' (by the command line): expected true or false",
  );
});

test('a name out of Object is an option like any other: unknown', () => {
  refused({ argv: ['--constructor'] }, "unknown option '--constructor': see --help");
  refused({ argv: ['--__proto__=1'] }, "unknown option '--__proto__': see --help");
});

test('the environment file: comments, quotes, and nothing special', () => {
  const file = [
    '  # comment',
    'SYSMON_LABEL="dc= fra "',
    "SYSMON_KEY_FILE='/a b/\\d # $x'",
    'SYSMON_LOG_LEVEL=error  ',
    '',
  ].join('\r\n');
  const { values } = read({ argv: ['--config.file', 'x.env'], files: { 'x.env': file } });
  assert.deepEqual(values.labels, ['dc= fra']);
  assert.equal(values.keyFile, '/a b/\\d # $x');
  assert.equal(values.level, 'error');
});

test('the environment file: what is wrong is named with its line', () => {
  const line = (content: string) => ({ files: { '/etc/test.env': `\n${content}` } });
  refused(line('window: 2m'), "'/etc/test.env', line 2 is 'window: 2m': expected SYSMON_NAME=VALUE");
  refused(
    line('SYSMON_WINDOWS=2m'),
    "unknown option 'SYSMON_WINDOWS' in '/etc/test.env', line 2, did you mean 'SYSMON_WINDOW'?",
  );
  refused(line('SYSMON_CONFIG_FILE=x'), "unknown option 'SYSMON_CONFIG_FILE' in '/etc/test.env', line 2");
  refused(line('SYSMON_KEY_FILE="x'), `'/etc/test.env', line 2 is '"x': expected a " at its end too`);
  refused(line('SYSMON_KEY_FILE="'), `'/etc/test.env', line 2 is '"': expected a " at its end too`);
});

test('the environment file: missing where it was named is an error, unreadable always', () => {
  refused(
    { env: { SYSMON_CONFIG_FILE: 'none' } },
    "option '--config.file' is 'none' (by SYSMON_CONFIG_FILE in the environment): expected a readable file: ENOENT: no such file 'none'",
  );
  const readFile = () => {
    throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
  };
  assert.throws(
    () => readOptions(program, { argv: [], env: {}, readFile }),
    /'\/etc\/test\.env' .*: expected a readable file: the user '.*' may not read it; run 'chmod 0644 \/etc\/test\.env'/,
  );
  assert.equal(readOptions(program, { argv: ['--config.file='], env: {}, readFile }).values.configFile, undefined);
});

test('what differs from its default, for the log', () => {
  const { changed } = read({
    argv: ['--window', '30m', '--label', 'a=1', '--label', 'b=2'],
    env: { SYSMON_SERVER: 'relay:1', SYSMON_UNKNOWN: '1' },
  });
  assert.deepEqual(changed, ['server=relay:1', 'label=a=1,b=2']);
});

test('a key that stands where its file belongs is shown nowhere', () => {
  const key = 'ab'.repeat(32);
  assert.deepEqual(read({ argv: ['--key-file', key] }).changed, ['key-file=(hexadecimal digits)']);
  refused(
    { argv: ['--window', key] },
    "option '--window' is '(hexadecimal digits)' (by the command line): expected a duration such as 5s, 1m30s or 24h",
  );
  assert.throws(
    () => read({ argv: [key] }),
    (error: Error) => !error.message.includes(key),
  );
});

test('a refusal of values that contradict each other', () => {
  const options = read({ argv: ['--window', '2h'] });
  assert.equal(
    options.refuse('window', 'expected at most 45m').message,
    "option '--window' is '2h' (by the command line): expected at most 45m",
  );
  assert.equal(
    options.refuse('server', 'expected another').message,
    "option '--server' is '127.0.0.1:9732' (by its default): expected another",
  );
});

test('what is of the command line is read from nowhere else', () => {
  const filter = listOption({ name: 'only', placeholder: 'X', parse: text(), help: 'Which.', isOfCommandLine: true });
  const one = { name: 'x', summary: '', commands: [{ name: 'run', help: '' }], options: { filter } } as const;
  const only = (sources: Partial<Sources>) =>
    readOptions(one, { argv: [], env: {}, readFile: () => '', ...sources }).values.filter;
  assert.deepEqual(only({ argv: ['--only', 'a'], env: { SYSMON_ONLY: 'b' } }), ['a']);
  assert.deepEqual(only({ env: { SYSMON_ONLY: 'b' } }), []);
  const file = {
    name: 'x',
    summary: '',
    commands: one.commands,
    options: { filter, file: configFileOption('/f') },
  } as const;
  assert.throws(
    () => readOptions(file, { argv: [], env: {}, readFile: () => 'SYSMON_ONLY=b' }),
    /unknown option 'SYSMON_ONLY' in '\/f', line 1/,
  );
});

test('two programs share one environment: what the other one knows is no mistake', () => {
  assert.equal(read({ env: { SYSMON_WEB_LISTEN_ADDRESS: ':9733' } }).changed.length, 0);
});
