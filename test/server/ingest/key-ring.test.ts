import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { Fleet } from '../../../src/server/ingest/key-ring.ts';
import { agentKey, fleetKey, keyBytes } from '../../../src/server/ingest/keys.ts';

const present = fleetKey(Buffer.alloc(keyBytes, 1));
const retired = fleetKey(Buffer.alloc(keyBytes, 2));
const web = agentId('web-1')!;

test('an enrolled identity has its key, and nothing about it is stored', () => {
  const fleet = new Fleet([present], new Map());
  const enrolled = fleet.enroll(web)!;
  assert.equal(enrolled.identity, `web-1:1:${present.id}`);
  assert.deepEqual(enrolled.key, agentKey(present, enrolled.identity));
  assert.deepEqual(new Fleet([present], new Map()).keyOf(enrolled.identity), enrolled.key);
  assert.equal(fleet.isRevoked(enrolled.identity), false);
  assert.equal(fleet.keyOf('web-1'), undefined);
  assert.equal(fleet.keyOf(`web-1:1:${retired.id}`), undefined);
  assert.equal(new Fleet([], new Map()).enroll(web), undefined);
});

test('a revocation refuses the present generation and those before it; the next enrolment gives the next', () => {
  const fleet = new Fleet([present], new Map());
  const first = fleet.enroll(web)!.identity;
  fleet.revoke(web);
  const second = fleet.enroll(web)!.identity;
  assert.equal(second, `web-1:2:${present.id}`);
  assert.equal(fleet.isRevoked(first), true);
  assert.equal(fleet.isRevoked(second), false);
  assert.deepEqual([...fleet.revoke(web)], [['web-1', 2]]);
  assert.equal(fleet.isRevoked(second), true);
  assert.equal(fleet.isRevoked(`other:1:${present.id}`), false);
  assert.equal(fleet.isRevoked('no identity'), true);
  assert.notEqual(fleet.keyOf(second), undefined, 'its handshake passes, so that it can be told');
});

test('two fleet keys are valid at once; taking one out refuses what was enrolled with it', () => {
  const fleet = new Fleet([retired], new Map());
  const old = fleet.enroll(web)!.identity;
  fleet.replace([present, retired], fleet.revoked);
  assert.equal(fleet.isRevoked(old), false);
  assert.notEqual(fleet.keyOf(old), undefined);
  assert.equal(fleet.enroll(web)!.identity, `web-1:1:${present.id}`);
  fleet.replace([present], fleet.revoked);
  assert.equal(fleet.isRevoked(old), true);
  assert.equal(fleet.keyOf(old), undefined);
});
