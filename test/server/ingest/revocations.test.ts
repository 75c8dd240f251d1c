import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { encodeRevocations, parseRevocations, readRevocations } from '../../../src/server/ingest/revocations.ts';
import { temporaryFolder } from '../../support/programs.ts';

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

test('a damaged file: where it is, why, how to mend it, and what would be without it', (context) => {
  const folder = temporaryFolder(context);
  const path = join(folder, 'revoked.json');
  writeFileSync(path, '{"version":1,"revoked":{"web-1"');
  assert.throws(() => readRevocations(path), {
    message:
      /^'\/.*\/revoked\.json' is damaged \(.+\): restore it from a backup; without it revoked keys are accepted again$/,
  });
});
