import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Link } from './linked-connections.ts';
import { settle, VirtualClock } from './virtual-clock.ts';

function world(options: { delayMs?: number; windowBytes?: number } = {}) {
  const clock = new VirtualClock();
  const link = new Link({ clock, ...options });
  const received: string[] = [];
  const outcome = (async () => {
    for await (const chunk of link.far) received.push(Buffer.from(chunk).toString());
    return 'ended';
  })().catch((error) => error.code);
  return { clock, link, received, outcome };
}

test('bytes take their time and do not overtake', async () => {
  const { clock, link, received } = world({ delayMs: 50 });
  await link.near.write(Buffer.from('a'));
  await clock.advance(10);
  link.out.delayMs = 0;
  await link.near.write(Buffer.from('b'));
  await clock.advance(39);
  assert.deepEqual(received, []);
  await clock.advance(1);
  assert.deepEqual(received, ['a', 'b']);
  await link.near.write(Buffer.from('c'));
  await settle();
  assert.deepEqual(received, ['a', 'b', 'c']);
});

test('a cut after so many bytes, at any place', async () => {
  const { link, received, outcome } = world();
  link.out.cutAfter(5, () => link.cut());
  await link.near.write(Buffer.from('abc'));
  await settle();
  await link.near.write(Buffer.from('defg')).catch(() => {});
  await settle();
  assert.equal(link.out.deliveredBytes, 5);
  assert.ok(['abc', 'abcde'].includes(received.join('')));
  assert.equal(await outcome, 'reset');
});

test('a cut after so many bytes that only goes silent leaves the first bytes', async () => {
  const { link, received } = world();
  link.out.cutAfter(5, () => {});
  link.out.split = (bytes) => Array.from(bytes, (byte) => Uint8Array.of(byte));
  await link.near.write(Buffer.from('abcdefg'));
  await settle();
  assert.deepEqual(received, ['a', 'b', 'c', 'd', 'e']);
});

test('a silent line tells nobody, and is full in the end', async () => {
  const { clock, link, received } = world({ windowBytes: 10 });
  link.silence();
  await link.near.write(Buffer.from('abc'));
  let told = false;
  void link.near.write(Buffer.alloc(10)).then(
    () => {
      told = true;
    },
    () => {
      told = true;
    },
  );
  await clock.advance(3_600_000);
  assert.deepEqual(received, []);
  assert.equal(told, false);
  assert.equal(link.near.unsentBytes, 13);
  const ending = link.near.end(2000);
  await clock.advance(2000);
  await ending;
  await settle();
  assert.equal(told, true);
  assert.equal(clock.timers, 0);
});

test('what is seen of the other end', () => {
  const link = new Link({ clock: new VirtualClock(), identity: 'web.1', peerAddress: '192.0.2.7' });
  assert.equal(link.far.peerAddress, '192.0.2.7');
  assert.match(link.far.peer, /^192\.0\.2\.7:\d+$/);
  assert.equal(link.far.identity, 'web.1');
});
