import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { encodeRevocations, parseRevocations } from '../../../src/server/ingest/revocations.ts';

test('revocations are written and read; what is damaged is refused', () => {
  const odd = agentId('__proto__')!;
  const revoked = new Map([
    [agentId('web-1')!, 2],
    [odd, 7],
  ]);
  assert.deepEqual(parseRevocations(encodeRevocations(revoked)), revoked);
  for (const text of [
    '',
    '[]',
    'null',
    '{}',
    '{"version":2,"revoked":{}}',
    '{"version":1,"revoked":[]}',
    '{"version":1,"revoked":{"a b":1}}',
    '{"version":1,"revoked":{"a":0}}',
    '{"version":1,"revoked":{"a":1.5}}',
    '{"version":1,"revoked":{"a":"1"}}',
  ]) {
    assert.throws(() => parseRevocations(text), Error, text);
  }
});
