import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fetchCommand, installBase, likeliest, sshCommand } from '../../src/server/host-command.ts';
import { noWebConfig, type WebConfig } from '../../src/server/web/web-config-file.ts';

const archive = (architecture: string) => ({
  file: `sysmon-0.1.0-linux-${architecture}.tar.gz`,
  path: `/lib/install/sysmon-0.1.0-linux-${architecture}.tar.gz`,
  ...{ architecture, sha256: architecture.repeat(4) },
});
const both = [archive('arm64'), archive('x64')];
const any = { kind: 'tcp', address: '', port: 9733 } as const;
const tls = (clientAuth: 'NoClientCert' | 'RequireAnyClientCert'): WebConfig => ({
  ...noWebConfig,
  tls: { options: {}, clientAuth, allowedSans: [] },
});

test('the URL that hosts can fetch from', () => {
  const base = (...webListen: Parameters<typeof installBase>[0]) => installBase(webListen, noWebConfig, 's.lan');
  assert.equal(base(any), 'http://s.lan:9733');
  assert.equal(base({ ...any, address: '::' }), 'http://s.lan:9733');
  assert.equal(base({ ...any, address: '2001:db8::7' }), 'http://[2001:db8::7]:9733');
  assert.equal(base({ ...any, address: '127.0.0.1' }, { kind: 'unix', path: '/s' }), undefined);
  assert.equal(base({ ...any, address: '127.0.0.1' }, { ...any, port: 80 }), 'http://s.lan:80');
  assert.equal(installBase([any], tls('NoClientCert'), 's.lan'), 'https://s.lan:9733');
  assert.equal(installBase([any], tls('RequireAnyClientCert'), 's.lan'), undefined);
  assert.equal(installBase([any], { ...noWebConfig, users: new Map([['u', 'hash']]) }, 's.lan'), undefined);
});

test('the command names each archive with its SHA-256, and takes that of the machine', () => {
  const command = fetchCommand('http://s.lan:9733', both);
  assert.match(
    command,
    /f=sysmon-0\.1\.0-linux-\$\(uname -m \| sed 's\/x86_64\/x64\/;s\/aarch64\/arm64\/'\)\.tar\.gz;/,
  );
  for (const { file, sha256 } of both) assert.ok(command.includes(`${sha256} ${file}`));
  assert.ok(command.includes('curl -fsSO "$u" || wget -q "$u"'));
  // What is fetched is compared, so a certificate proves nothing more.
  assert.ok(fetchCommand('https://s', both).includes('curl -fsSkO "$u" || wget -q --no-check-certificate "$u"'));
  assert.ok(!command.includes('\n') && !sshCommand('a', both[0]!).includes('\n'));
});

test('the archive of a machine like this one comes first', () => {
  assert.equal(likeliest(both, 'x64')?.architecture, 'x64');
  assert.equal(likeliest(both, 'riscv64')?.architecture, 'arm64');
  assert.equal(likeliest([], 'x64'), undefined);
});
