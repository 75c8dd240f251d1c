import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import {
  agentKey,
  fleetKey,
  identityText,
  keyBytes,
  parseFleetKeys,
  parseIdentity,
} from '../../../src/server/ingest/keys.ts';

const sevens = fleetKey(Buffer.alloc(keyBytes, 7));

test('an identity is a name, a generation and the fleet key it belongs to', () => {
  const identity = { name: agentId('web-1')!, generation: 3, fleetKeyId: sevens.id };
  assert.equal(identityText(identity), `web-1:3:${sevens.id}`);
  assert.deepEqual(parseIdentity(identityText(identity)), identity);
  for (const text of [
    '',
    'web-1',
    'web-1:3',
    `web-1:0:${sevens.id}`,
    `web-1:03:${sevens.id}`,
    `web-1:-1:${sevens.id}`,
    `web-1:1234567890:${sevens.id}`,
    `web 1:3:${sevens.id}`,
    `a:b:3:${sevens.id}`,
    `web-1:3:${sevens.id}0`,
    `web-1:3:${sevens.id.toUpperCase().replace(/[0-9]/g, 'A')}`,
    `web-1:3:${sevens.id}\n`,
  ]) {
    assert.equal(parseIdentity(text), undefined, JSON.stringify(text));
  }
});

test('an agent key is HKDF-SHA256 of the fleet key and the identity', () => {
  // RFC 5869 by hand: extract with a salt of zeros, expand to one block.
  const secret = createHmac('sha256', Buffer.alloc(32)).update(sevens.bytes).digest();
  const info = Buffer.concat([Buffer.from('sysmon agent web-1:1:x'), Buffer.of(1)]);
  assert.deepEqual(agentKey(sevens, 'web-1:1:x'), createHmac('sha256', secret).update(info).digest());
  assert.notDeepEqual(agentKey(sevens, 'web-1:2:x'), agentKey(sevens, 'web-1:1:x'));
  assert.notDeepEqual(agentKey(fleetKey(Buffer.alloc(keyBytes, 8)), 'web-1:1:x'), agentKey(sevens, 'web-1:1:x'));
});

test('a fleet key is told by the start of its hash', () => {
  assert.equal(sevens.id, createHash('sha256').update(Buffer.alloc(keyBytes, 7)).digest('hex').slice(0, 8));
});

test('a fleet key file has one key or two, in hex, with blank lines and comments', () => {
  const hex = '07'.repeat(keyBytes);
  const other = 'Ab'.repeat(keyBytes);
  assert.deepEqual(parseFleetKeys(`# present\n${hex}\n\n  # retired\r\n ${other}\r\n`), [
    sevens,
    fleetKey(Buffer.alloc(keyBytes, 0xab)),
  ]);
  for (const text of [
    '',
    '\n# nothing\n',
    hex.slice(1),
    `${hex}0`,
    `${hex.slice(2)}zz`,
    `${hex}\n${hex}\n${hex}`,
    'no key',
  ]) {
    assert.throws(() => parseFleetKeys(text), /^Error: expected one or two lines of 64 hex digits/);
  }
});

test('a fleet key of zeros is refused, and the same key twice', () => {
  const hex = 'aB'.repeat(keyBytes);
  assert.throws(() => parseFleetKeys('0'.repeat(64)), /a key of zeros is no secret/);
  assert.throws(() => parseFleetKeys(`${hex}\n${'0'.repeat(64)}\n`), /a key of zeros is no secret/);
  assert.throws(() => parseFleetKeys(`${hex}\n${hex.toLowerCase()}\n`), /both lines have the same key/);
});

test('the words about a bad fleet key file do not hold the key', () => {
  const hex = '07'.repeat(keyBytes - 1);
  assert.throws(
    () => parseFleetKeys(hex),
    (error: Error) => !String(error).includes(hex.slice(0, 8)),
  );
});
