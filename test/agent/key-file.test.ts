import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseKeyFile, readKeyFile } from '../../src/agent/key-file.ts';
import { SecretFileError } from '../../src/runtime/secret-file.ts';
import { keyFileText } from '../support/key-file.ts';

const root = mkdtempSync(join(tmpdir(), 'sysmon-key-'));
after(() => rmSync(root, { recursive: true, force: true }));

const key = Buffer.alloc(32, 0xa7);
const text = keyFileText('web-1.example:3:5c9e0b3a', key);

test('what is written is read: identity, name and key', () => {
  assert.deepEqual(parseKeyFile(text), { identity: 'web-1.example:3:5c9e0b3a', agentName: 'web-1.example', key });
});

test('anything else is refused, and the message does not say what was there', () => {
  const path = join(root, 'wrong.key');
  const wrong = [
    '',
    'sysmon-key-v1',
    text.replace('v1', 'v2'),
    text.replace('sysmon-key-v1', 'sysmon-join-v1 server:9732'),
    text.replace(':3:5c9e0b3a', ''),
    text.replace('a7', ''),
    text.replace('a7', 'x7'),
    `${text}${text}`,
    ` ${text}`,
    `${key.toString('hex')}\n`,
  ];
  for (const each of wrong) {
    assert.equal(parseKeyFile(each), undefined, each);
    writeFileSync(path, each, { mode: 0o440 });
    chmodSync(path, 0o640);
    assert.throws(
      () => readKeyFile(path),
      (error) => error instanceof SecretFileError && error.message.includes(path) && !/a7a7/.test(error.message),
    );
  }
});

test('a key that others can read or change is refused with the chmod to run', () => {
  const path = join(root, 'agent.key');
  writeFileSync(path, text);
  for (const mode of [0o444, 0o644, 0o460, 0o441, 0o666]) {
    chmodSync(path, mode);
    assert.throws(() => readKeyFile(path), { name: 'SecretFileError', message: /chmod 0440/ });
  }
  for (const mode of [0o400, 0o440, 0o600, 0o640]) {
    chmodSync(path, mode);
    assert.equal(readKeyFile(path).agentName, 'web-1.example');
  }
  assert.throws(() => readKeyFile(join(root, 'missing')), {
    name: 'SecretFileError',
    message: /missing': there is no such file/,
  });
});
