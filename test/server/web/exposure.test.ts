import assert from 'node:assert/strict';
import type { NetworkInterfaceInfo } from 'node:os';
import { test } from 'node:test';
import { exposureOf } from '../../../src/server/web/exposure.ts';
import type { WebAddress } from '../../../src/server/web/listener.ts';
import { noWebConfig, type WebConfig } from '../../../src/server/web/web-config-file.ts';

const all: WebAddress = { kind: 'tcp', address: '', port: 9733 };

function interfacesOf(...addresses: string[]): Record<string, NetworkInterfaceInfo[]> {
  const of = (address: string) => ({ address, internal: /^(127\.|::1$)/.test(address) }) as NetworkInterfaceInfo;
  return { eth0: addresses.map(of) };
}

const kindOf = (webListen: readonly WebAddress[], addresses: readonly string[], webConfig: WebConfig = noWebConfig) =>
  exposureOf({ webListen, webConfig }, interfacesOf(...addresses))?.kind;

test('who reaches the HTTP port: nobody, the network, the internet', () => {
  const here = ['127.0.0.1', '::1', '10.77.0.11', 'fe80::1%eth0', 'fd00::1'];
  assert.equal(kindOf([all], here), 'private');
  assert.equal(kindOf([all], [...here, '203.0.113.5']), 'public');
  assert.equal(kindOf([all], [...here, '2001:db8::5']), 'public');
  assert.equal(kindOf([{ ...all, address: '127.0.0.1' }], ['203.0.113.5']), undefined);
  assert.equal(kindOf([{ kind: 'unix', path: '/run/x' }], ['203.0.113.5']), undefined);
  assert.equal(kindOf([{ ...all, address: '192.168.1.2' }], ['203.0.113.5', '192.168.1.2']), 'private');
  for (const address of ['172.16.0.1', '172.31.255.1', '100.64.0.1', '169.254.1.1']) {
    assert.equal(kindOf([all], [address]), 'private', address);
  }
  for (const address of ['172.32.0.1', '11.0.0.1', '100.128.0.1'])
    assert.equal(kindOf([all], [address]), 'public', address);
});

test('with users nobody without a password does; the line says what closes it', () => {
  assert.equal(kindOf([all], ['203.0.113.5'], { ...noWebConfig, users: new Map([['u', 'x']]) }), undefined);
  const found = exposureOf({ webListen: [all], webConfig: noWebConfig }, interfacesOf('203.0.113.5'));
  assert.match(
    found?.text ?? '',
    /^HTTP port 9733 is open to everybody who reaches 203\.0\.113\.5, an address of the internet, without a password/,
  );
  assert.match(
    found?.text ?? '',
    /SYSMON_WEB_LISTEN_ADDRESS=127\.0\.0\.1:9733 .* closes it, SYSMON_WEB_CONFIG_FILE sets/,
  );
});
