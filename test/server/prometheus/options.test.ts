import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readOptions, UsageError } from '../../../src/runtime/options.ts';
import { program } from '../../../src/server/options.ts';
import type { PrometheusSettings } from '../../../src/server/prometheus/access.ts';
import { prometheusAccess, readSettings } from '../../../src/server/settings.ts';

function settingsOf(...argv: string[]): readonly PrometheusSettings[] {
  const sources = { argv: ['run', '--config.file', '/dev/null', ...argv], env: {}, readFile: () => '' };
  return readSettings(readOptions(program, sources)).prometheus;
}

const none = { tokenFile: undefined, user: undefined, passwordFile: undefined, caFile: undefined };

test('each --prometheus is a row, with the options of its name', () => {
  assert.deepEqual(settingsOf(), []);
  assert.deepEqual(
    settingsOf(
      ...['--prometheus', 'a=http://127.0.0.1:9090', '--prometheus', 'user/b=https://h/select/0/prometheus/'],
      ...[
        '--prometheus-token-file',
        'a=/t',
        '--prometheus-user',
        'user/b=u',
        '--prometheus-password-file',
        'user/b=/p',
      ],
      ...['--prometheus-ca-file', 'user/b=/ca'],
    ),
    [
      { ...none, scraper: 'a', url: 'http://127.0.0.1:9090', tokenFile: '/t' },
      {
        scraper: 'user/b',
        url: 'https://h/select/0/prometheus',
        tokenFile: undefined,
        user: 'u',
        passwordFile: '/p',
        caFile: '/ca',
      },
    ],
  );
});

test('what does not fit together is refused, by the name of the option', () => {
  const a = ['--prometheus', 'a=https://h'];
  const cases: readonly [argv: string[], RegExp][] = [
    [['--prometheus', 'http://h'], /'--prometheus' is 'http:\/\/h' .*expected a scraper's name, = and a value/],
    [['--prometheus', 'a=ftp://h'], /expected a URL such as/],
    [['--prometheus', 'a=http://h?x=1'], /expected a URL such as .* without \? and #/],
    [['--prometheus', 'a=nonsense'], /expected a URL such as/],
    [[...a, ...a], /expected 'a' once/],
    [
      ['--prometheus-token-file', 'a=/t'],
      /'--prometheus-token-file' .*expected a name of --prometheus, which has no 'a'/,
    ],
    [[...a, '--prometheus-user', 'a=u'], /expected a user and a password file for 'a'/],
    [[...a, '--prometheus-password-file', 'a=/p'], /expected a user and a password file for 'a'/],
    [
      [...a, '--prometheus-user', 'a=u', '--prometheus-password-file', 'a=/p', '--prometheus-token-file', 'a=/t'],
      /expected a token or a user for 'a', not both/,
    ],
    [['--prometheus', 'a=http://h', '--prometheus-ca-file', 'a=/ca'], /expected an https URL for 'a'/],
    [[...a, '--prometheus-user', 'a=u:v'], /without a colon/],
  ];
  for (const [argv, expected] of cases)
    assert.throws(() => settingsOf(...argv), { name: 'UsageError', message: expected });
});

test('a user or a password in the URL is refused, and not shown', () => {
  for (const userinfo of ['user:geheim', 'geheim', ':geheim', 'a%40b:geheim']) {
    assert.throws(
      () => settingsOf('--prometheus', `a=https://${userinfo}@h:9090`),
      (error: UsageError) => {
        assert.match(error.message, /without user and password: give them with --prometheus-user/);
        assert.doesNotMatch(error.message, /geheim/);
        return error instanceof UsageError;
      },
    );
  }
});

test('files hold one line each, are read anew, and wrong ones are named', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-settings-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = (name: string, text: string, mode = 0o400) => {
    const path = join(folder, name);
    rmSync(path, { force: true });
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };
  const token = { ...none, scraper: 'a', url: 'https://h', tokenFile: file('token', 'abc\n') };
  assert.deepEqual(prometheusAccess(token), { authorization: 'Bearer abc', ca: undefined });
  file('token', 'def');
  assert.equal(prometheusAccess(token).authorization, 'Bearer def');
  const passwordFile = file('password', 'p w\n');
  assert.equal(
    prometheusAccess({ ...none, scraper: 'a', url: 'https://h', user: 'u', passwordFile }).authorization,
    `Basic ${Buffer.from('u:p w').toString('base64')}`,
  );
  const cases: readonly [tokenFile: string, RegExp][] = [
    [file('two', 'a\nb\n'), /^--prometheus 'a': '.*two': expected one line/],
    [file('empty', '\n'), /expected one line/],
    [file('open', 'abc', 0o444), /its mode is 0444, so others can read or change it/],
    [join(folder, 'missing'), /there is no such file/],
  ];
  for (const [tokenFile, expected] of cases) {
    assert.throws(() => prometheusAccess({ ...token, tokenFile }), { name: 'UsageError', message: expected });
  }
  for (const text of ['', 'no certificate', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n']) {
    const caFile = file('ca', text, 0o444);
    assert.throws(
      () => prometheusAccess({ ...none, scraper: 'a', url: 'https://h', caFile }),
      /expected certificates in PEM/,
    );
  }
});
