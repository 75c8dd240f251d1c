import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  encodeReceiver,
  isReceiverFileName,
  parseReceiver,
  receiverFileName,
} from '../../../src/agent/spool/receiver.ts';

const servers = [
  'relay.example:9732',
  'relay_example:9732',
  'relay.example:97320',
  '[2001:db8::1]:9732',
  '[2001:db8::2]:9732',
  '../../etc/passwd:1',
  `${'x'.repeat(250)}:1`,
  `${'x'.repeat(250)}:2`,
];

test("a receiver's file is named by its server: each has another one, and none leaves the folder", () => {
  const names = servers.map(receiverFileName);
  assert.equal(new Set(names).size, servers.length);
  for (const name of names) {
    assert.ok(isReceiverFileName(name));
    assert.match(name, /^receiver-[A-Za-z0-9._-]+\.json$/);
    assert.ok(name.length < 100);
  }
  assert.equal(receiverFileName('relay.example:9732'), names[0]);
  assert.match(names[0]!, /relay\.example/, 'a person sees whose it is');
});

test('what is kept of a receiver is written and read', () => {
  for (const server of servers) {
    for (const acknowledged of [undefined, { epoch: 2 ** 53 - 1, seq: 7 }]) {
      const state = { server, acknowledged, offsetsMs: new Map([[2 ** 53 - 1, -86_400_000.5]]) };
      assert.deepEqual(parseReceiver(encodeReceiver(state)), state);
    }
  }
});
