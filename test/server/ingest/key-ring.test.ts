import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { KeyRing } from '../../../src/server/ingest/key-ring.ts';
import { agentKey, fleetKey, keyBytes } from '../../../src/server/ingest/keys.ts';

const present = fleetKey(Buffer.alloc(keyBytes, 1));
const retired = fleetKey(Buffer.alloc(keyBytes, 2));
const web = agentId('web-1')!;

test('an enrolled identity has its key, and nothing about it is stored', () => {
  const keyRing = new KeyRing([present], new Map());
  const enrolled = keyRing.enroll(web)!;
  assert.equal(enrolled.identity, `web-1:1:${present.id}`);
  assert.deepEqual(enrolled.key, agentKey(present, enrolled.identity));
  assert.deepEqual(new KeyRing([present], new Map()).keyOf(enrolled.identity), enrolled.key);
  assert.equal(keyRing.refusal(enrolled.identity), undefined);
  assert.equal(keyRing.keyOf('web-1'), undefined);
  assert.equal(keyRing.keyOf(`web-1:1:${retired.id}`), undefined);
  assert.equal(new KeyRing([], new Map()).enroll(web), undefined);
});

test('a revocation refuses the present generation and those before it; the next enrolment gives the next', () => {
  const keyRing = new KeyRing([present], new Map());
  const first = keyRing.enroll(web)!.identity;
  keyRing.merge(new Map([[web, keyRing.generation(web)]]));
  const second = keyRing.enroll(web)!.identity;
  assert.equal(second, `web-1:2:${present.id}`);
  assert.equal(keyRing.refusal(first), `the key '${first}' has been revoked; enrol the agent again`);
  assert.equal(keyRing.refusal(second), undefined);
  keyRing.merge(new Map([[web, keyRing.generation(web)]]));
  assert.deepEqual([...keyRing.revoked], [['web-1', 2]]);
  assert.match(keyRing.refusal(second)!, /has been revoked/);
  assert.equal(keyRing.refusal(`other:1:${present.id}`), undefined);
  assert.match(keyRing.refusal('no identity')!, /is not an identity of this server/);
  assert.notEqual(keyRing.keyOf(second), undefined, 'its handshake passes, so that it can be told');
});

test('two fleet keys are valid at once; taking one out refuses what was enrolled with it', () => {
  const keyRing = new KeyRing([retired], new Map());
  const old = keyRing.enroll(web)!.identity;
  keyRing.replaceKeys([present, retired]);
  assert.equal(keyRing.refusal(old), undefined);
  assert.notEqual(keyRing.keyOf(old), undefined);
  assert.equal(keyRing.enroll(web)!.identity, `web-1:1:${present.id}`);
  assert.deepEqual(
    [old, `web-1:1:${present.id}`, 'web-1'].map((identity) => keyRing.isRetiring(identity)),
    [true, false, false],
  );
  keyRing.replaceKeys([present]);
  assert.equal(keyRing.isRetiring(old), false);
  assert.equal(keyRing.refusal(old), `the fleet key ${retired.id} is retired; enrol the agent again`);
  assert.equal(keyRing.keyOf(old), undefined);
});

test('a revocation is never forgotten: merging takes the higher generation of each name', () => {
  const other = agentId('db-1')!;
  const keyRing = new KeyRing([present], new Map([[web, 3]]));
  keyRing.merge(new Map());
  keyRing.merge(
    new Map([
      [web, 1],
      [other, 2],
    ]),
  );
  assert.deepEqual(
    [...keyRing.revoked],
    [
      ['web-1', 3],
      ['db-1', 2],
    ],
  );
  keyRing.replaceKeys([present, retired]);
  assert.equal(keyRing.enroll(web)!.identity, `web-1:4:${present.id}`);
});
