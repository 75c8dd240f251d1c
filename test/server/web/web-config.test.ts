import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseWebConfig } from '../../../src/server/web/web-config.ts';

const hash = '$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG';

test("every key of exporter-toolkit's format that can be done here", () => {
  const config = parseWebConfig(`
tls_server_config:
  cert_file: server.crt
  key_file: /etc/ssl/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example, "2001:DB8:0::1", "spiffe://a/b"]
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences:
    - CurveP256
    - X25519
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-XSS-Protection: ""
basic_auth_users:
  alice: ${hash}
  "bob@example": ${hash}
`);
  assert.deepEqual(config.tls, {
    cert: { kind: 'file', path: 'server.crt' },
    key: { kind: 'file', path: '/etc/ssl/server.key' },
    clientAuth: 'RequireAndVerifyClientCert',
    clientCa: { kind: 'file', path: 'ca.pem' },
    allowedSans: ['prometheus.example', '2001:db8::1', 'spiffe://a/b'],
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: ['ECDHE-RSA-AES128-GCM-SHA256', 'TLS_AES_128_GCM_SHA256'],
    honorCipherOrder: false,
    curves: ['prime256v1', 'X25519'],
  });
  assert.deepEqual(config.headers, { 'Strict-Transport-Security': 'max-age=31536000', 'X-Frame-Options': 'deny' });
  assert.deepEqual([...config.users.keys()], ['alice', 'bob@example']);
  assert.equal(config.hasSecrets, true);
  assert.deepEqual(config.notices, ['http_server_config.http2 has no effect: this server speaks HTTP/1.1']);
});

test('what is left out has its default; an empty file asks for nothing', () => {
  const { tls, hasSecrets } = parseWebConfig('tls_server_config:\n  cert_file: a\n  key_file: b\n');
  assert.equal(tls?.clientAuth, 'NoClientCert');
  assert.deepEqual([tls?.minVersion, tls?.maxVersion, tls?.honorCipherOrder], ['TLSv1.2', 'TLSv1.3', true]);
  assert.deepEqual([tls?.ciphers, tls?.curves, tls?.allowedSans, tls?.clientCa], [[], [], [], undefined]);
  assert.equal(hasSecrets, false);
  for (const text of ['', '# nothing\n', '---\n', 'basic_auth_users:\n', 'http_server_config:\n  headers:\n']) {
    const config = parseWebConfig(text);
    assert.deepEqual([config.tls, config.users.size, Object.keys(config.headers)], [undefined, 0, []], text);
  }
  assert.equal(parseWebConfig('tls_server_config: {cert: PEM, key: PEM}').hasSecrets, true);
});

const pair = 'tls_server_config:\n  cert_file: a\n  key_file: b\n';

for (const [text, expected] of [
  ['tls_config: {}', /^line 1: unknown key 'tls_config'$/],
  [`${pair}  certfile: x`, /^line 4: unknown key 'tls_server_config.certfile'$/],
  ['http_server_config:\n  headers:\n    Server: x', /^line 3: unknown key 'http_server_config.headers.Server'$/],
  ['\nrate_limit:\n  interval: 1s', /^line 3: rate_limit is not supported/],
  ['tls_server_config:\n  key_file: b', /^line 2: tls_server_config needs cert_file$/],
  ['tls_server_config:\n  cert_file: b', /needs key_file$/],
  [`${pair}  cert: PEM`, /has both cert and cert_file$/],
  [`${pair}  client_auth_type: Require`, /^line 4: 'tls_server_config.client_auth_type': expected NoClientCert, /],
  [`${pair}  client_auth_type: RequireAndVerifyClientCert`, /needs client_ca_file for RequireAndVerifyClientCert$/],
  [`${pair}  client_ca_file: x`, /asks for no certificate$/],
  [`${pair}  client_allowed_sans: [x]`, /which needs RequireAnyClientCert or/],
  [`${pair}  client_allowed_sans: x`, /^line 4: .*: expected a list of texts$/],
  [`${pair}  min_version: TLS10`, /^line 4: 'tls_server_config.min_version': expected TLS12, TLS13$/],
  [`${pair}  min_version: TLS13\n  max_version: TLS12`, /has a min_version above its max_version$/],
  [`${pair}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]`, /; 'TLS_RSA_WITH_RC4_128_SHA' is not among them$/],
  [
    `${pair}  curve_preferences: [X25519MLKEM768]`,
    /^line 4: .*X25519, CurveP256.*; 'X25519MLKEM768' is not among them$/,
  ],
  [`${pair}  prefer_server_cipher_suites: 1`, /expected true or false$/],
  [`${pair}  cert_file: c`, /^line 4: Map keys must be unique$/],
  ['http_server_config:\n  http2: maybe', /^line 2: 'http_server_config.http2': expected true or false$/],
  [
    'http_server_config:\n  headers: {X-Frame-Options: all}',
    /'X-Frame-Options' is 'all': expected deny or sameorigin$/,
  ],
  ['http_server_config:\n  headers: {X-XSS-Protection: "a\\nb"}', /Invalid character in header content/],
  ['basic_auth_users:\n  alice: secret', /^line 2: basic_auth_users 'alice': expected a bcrypt hash/],
  [`basic_auth_users:\n  alice: ${hash.replace('$10$', '$18$')}`, /'alice': a cost of 18: expected 4 to 14$/],
  [`basic_auth_users:\n  "a:b": ${hash}`, /'a:b': a user has 1 to 64 characters, and no colon$/],
  ['basic_auth_users: [alice]', /^line 1: basic_auth_users expected keys and values$/],
  ['a: &x 1\nb: *x', /^line 2: an alias: write the value itself$/],
  ['a: [', /^line 1: /],
  ['hello', /^line 1: expected keys and values$/],
] as const) {
  test(`refused: ${text.replaceAll('\n', ' | ').slice(0, 90)}`, () => {
    assert.throws(() => parseWebConfig(text), { name: 'WebConfigError', message: expected });
  });
}
