import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentId } from '../../../src/model/agent-id.ts';
import { pingOf } from '../../support/groups.ts';
import { settle } from '../../support/virtual-clock.ts';
import { ConnectionHarness } from './connection-harness.ts';

const a = agentId('a')!;

test('the newer connection of the same host takes the place of the older, which is told', async () => {
  const world = new ConnectionHarness();
  const older = await world.welcomed({}, { peerAddress: '192.0.2.1' });
  const newer = await world.welcomed({}, { peerAddress: '192.0.2.2' });
  assert.equal(older.error, 'replaced');
  assert.equal(older.closed, 'ended');
  assert.equal(newer.closed, 'no');
  assert.equal(world.delivery.store.agents.get(a)?.peer, '192.0.2.2:40000');
  assert.deepEqual(world.ended, ['replaced']);
  assert.deepEqual(world.warnings, [], 'that is what happens when a line has gone');
});

test('acks go to the connection that has taken over, also when the older is slow to go', async () => {
  const world = new ConnectionHarness();
  await world.clock.advance(45_000);
  const older = await world.welcomed();
  older.link.silence();
  const newer = await world.welcomed();
  newer.begin();
  newer.schema(['s0']);
  newer.key(1, world.clock.nowMs(), 1);
  await settle();
  await world.clock.advance(3000);
  newer.key(2, world.clock.nowMs(), 1);
  await settle();
  assert.deepEqual(
    newer.ofKind('ack').map(({ seq }) => seq),
    [1, 2],
  );
  assert.equal(world.running, 1);
});

test('another host under a live name is refused, and the live one stays', async () => {
  const world = new ConnectionHarness();
  const live = await world.welcomed({ hostId: 'one' });
  const other = await world.welcomed({ hostId: 'two' }, { peerAddress: '192.0.2.2' });
  assert.equal(other.error, 'name-taken');
  assert.match(other.ofKind('error')[0]!.text, /'a' is connected from another host, 192\.0\.2\.1:40000; give one of/);
  assert.equal(live.closed, 'no');
  live.link.cut();
  await settle();
  assert.equal((await world.welcomed({ hostId: 'two' })).error, undefined);
});

test('the name of the hello has to be that of the key', async () => {
  const world = new ConnectionHarness();
  const right = await world.welcomed({ agentName: 'a' }, { identity: 'a:1:01234567' });
  const wrong = await world.welcomed({ agentName: 'b' }, { identity: 'c:1:01234567' });
  assert.equal(right.error, undefined);
  assert.equal(wrong.error, 'bad-message');
  assert.equal(wrong.ofKind('error')[0]?.text, "hello: the name 'b' is not that of the key, 'c:1:01234567'");
  assert.equal(world.delivery.store.agents.has(agentId('b')!), false);
});

test('a revoked generation stays out, the next comes in', async () => {
  const world = new ConnectionHarness();
  world.revoked.add('a:1:01234567');
  assert.equal((await world.welcomed({}, { identity: 'a:1:01234567' })).error, 'revoked');
  assert.equal((await world.welcomed({}, { identity: 'a:2:01234567' })).error, undefined);
});

test('a revocation ends the live connection at once, and its name is free', async () => {
  const world = new ConnectionHarness();
  const live = await world.welcomed({}, { identity: 'a:1:01234567' });
  const other = await world.welcomed({ agentName: 'b' }, { identity: 'b:1:01234567' });
  const plain = await world.welcomed({ agentName: 'c' });
  world.revoked.add('a:1:01234567');
  assert.equal(world.admission.dropRevoked(), 1);
  world.delivery.forget(a);
  live.begin();
  await settle();
  assert.equal(live.error, 'revoked');
  assert.equal(live.closed, 'ended');
  assert.equal(other.closed, 'no');
  assert.equal(plain.closed, 'no');
  assert.equal(world.delivery.store.agents.has(a), false);
  assert.equal(world.admission.dropRevoked(), 0);
});

test('three takeovers in a minute are reported as two hosts with one identity; two are not', async () => {
  const world = new ConnectionHarness();
  for (const address of [1, 2, 3]) {
    const client = await world.welcomed({}, { peerAddress: `192.0.2.${address}` });
    await world.clock.advance(20_000);
    client.send(pingOf(1));
    await world.clock.advance(20_000);
  }
  await world.welcomed();
  assert.deepEqual(world.clones, [], 'two takeovers are within the last minute');
  await world.welcomed({}, { peerAddress: '192.0.2.8' });
  assert.deepEqual(world.clones, ['a']);
  assert.match(world.log.lines.find((line) => line.startsWith('warn'))!, /last from 192\.0\.2\.8:40000 after 192/);
  await world.welcomed();
  await world.welcomed();
  assert.deepEqual(world.clones, ['a'], 'counted anew');
  await world.welcomed();
  assert.deepEqual(world.clones, ['a', 'a']);
});
