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

/** A connection that stores a report of each of these epochs, one after another. */
async function delivers(world: ConnectionHarness, address: number, ...epochs: number[]) {
  const client = await world.welcomed({}, { peerAddress: `192.0.2.${address}`, identity: 'a:1:01234567' });
  if (client.error !== undefined) return client;
  for (const epoch of epochs) {
    await world.clock.advance(1000);
    client.begin(epoch);
    client.schema(['s0']);
    client.key(nextSeq++, world.clock.nowMs(), 1);
    await settle();
  }
  return client;
}
let nextSeq = 1;

test('two cloned machines: after three takeovers by turns the newer is refused, and the other stays', async () => {
  const world = new ConnectionHarness();
  const [one, other] = [11, 22];
  await delivers(world, 1, one);
  await delivers(world, 2, other);
  await delivers(world, 1, one);
  const live = await delivers(world, 2, other);
  assert.equal(live.error, undefined);
  for (let minute = 0; minute < 10; minute++) {
    const refused = await delivers(world, 1, one);
    assert.equal(refused.error, 'name-taken');
    assert.equal(
      refused.ofKind('error')[0]!.text,
      "two hosts run as 'a' and have one machine-id, as cloned machines do; the other is connected from 192.0.2.2:40000; " +
        "enrol one of them under another name: 'sysmon-server enroll NAME'",
    );
    for (let second = 0; second < 6; second++) {
      await world.clock.advance(10_000);
      live.send(pingOf(second));
      await settle();
    }
  }
  assert.equal(live.closed, 'no');
  assert.equal(world.clones.length, 10);
  assert.deepEqual(new Set(world.warnings.map(([key]) => key)), new Set(['name-taken a']), 'one line a minute');

  // One of them has a name of its own by now, or is switched off: the other comes and goes as it likes.
  live.link.cut();
  await settle();
  assert.equal((await delivers(world, 1, one)).error, undefined);
});

test('a host on a bad line is no clone, also if its agent was restarted and delivers two epochs each time', async () => {
  const world = new ConnectionHarness();
  const [before, present] = [11, 22];
  assert.equal((await delivers(world, 1, before)).error, undefined);
  for (let time = 0; time < 20; time++) {
    const client = await delivers(world, 1, present);
    assert.equal(client.error, undefined, `takeover ${time}`);
    // What the server has already is sent again, because it was not acknowledged.
    client.begin(before);
    client.schema(['s0']);
    client.key(1, world.clock.nowMs(), 1);
    client.begin(present);
    await settle();
  }
  assert.deepEqual(world.clones, []);
  assert.deepEqual(world.warnings, []);
});
