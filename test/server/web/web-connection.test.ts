import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebConnection } from '../../../src/server/web/web-connection.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

/** A connection over nothing, what it does to it, and what it says of its end. */
class Bench {
  readonly clock = new VirtualClock();
  readonly events: string[] = [];
  isAcknowledged = true;
  looks = 0;
  readonly connection = new WebConnection(
    {
      end: () => this.events.push('end'),
      destroy: () => {
        this.events.push('destroy');
        this.connection.closed();
      },
      isAcknowledged: () => {
        this.looks++;
        return this.isAcknowledged;
      },
    },
    {
      clock: this.clock,
      address: '192.0.2.1',
      owner: '192.0.2.1',
      onEnd: (_, how) => this.events.push(how.kind === 'fin' ? `fin ${how.isAcknowledged}` : how.kind),
    },
  );

  constructor({ hasScraped = true } = {}) {
    this.connection.hasScraped = hasScraped;
  }

  /** A request, and what ends its answer. */
  request(name: string): () => Promise<void> {
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    this.connection.answer(async () => {
      this.events.push(name);
      await finished;
    });
    return async () => {
      finish();
      await settle();
    };
  }
}

test('a client that closes by itself: said with whether it had acknowledged all, once', () => {
  for (const isAcknowledged of [true, false]) {
    const { connection, events } = Object.assign(new Bench(), { isAcknowledged });
    connection.clientClosed();
    connection.closed();
    assert.deepEqual(events, [`fin ${isAcknowledged}`]);
  }
});

test('of a connection that has never scraped the kernel is not asked', async () => {
  const closed = new Bench({ hasScraped: false });
  closed.connection.clientClosed();
  const halfClosed = new Bench({ hasScraped: false });
  void halfClosed.connection.halfClose();
  halfClosed.connection.clientClosed();
  await settle();
  assert.deepEqual([closed.events, closed.looks], [['fin true'], 0]);
  assert.deepEqual([halfClosed.events, halfClosed.looks], [['end', 'half-closed'], 0]);
  const scraped = new Bench();
  scraped.connection.clientClosed();
  assert.equal(scraped.looks, 1);
});

test('a connection that only breaks off is a reset', () => {
  const { connection, events } = new Bench();
  connection.closed();
  connection.clientClosed();
  assert.deepEqual(events, ['reset']);
});

test('after our half-close the client closes its end, too: it has read all, if its kernel has it', async () => {
  for (const isAcknowledged of [true, false]) {
    const { connection, events, clock } = Object.assign(new Bench(), { isAcknowledged });
    let isOver = false;
    void connection.halfClose().then(() => {
      isOver = true;
    });
    await settle();
    assert.deepEqual([events, isOver, clock.timers], [['end'], false, 1]);
    connection.clientClosed();
    await settle();
    assert.deepEqual([events, isOver, clock.timers], [['end', isAcknowledged ? 'half-closed' : 'reset'], true, 1]);
    connection.closed();
    assert.equal(clock.timers, 0);
  }
});

test('a client that does not close its end within a second is cut off', async () => {
  const { connection, events, clock } = new Bench();
  void connection.halfClose();
  void connection.halfClose();
  await clock.advance(999);
  assert.deepEqual(events, ['end']);
  await clock.advance(1);
  assert.deepEqual(events, ['end', 'destroy', 'reset']);
  assert.equal(clock.timers, 0);
});

test('one that closes its end and does not read the rest is cut off, too', async () => {
  const { connection, events, clock } = Object.assign(new Bench(), { isAcknowledged: false });
  void connection.halfClose();
  connection.clientClosed();
  await clock.advance(1000);
  assert.deepEqual(events, ['end', 'reset', 'destroy']);
});

test('requests are answered one after another; our end closes after the last, and takes no more', async () => {
  const bench = new Bench();
  const { connection, events, clock } = bench;
  await clock.advance(5);
  assert.equal(connection.restingSinceMs, 0);
  const first = bench.request('first');
  const second = bench.request('second');
  await settle();
  assert.deepEqual(events, ['first']);
  assert.equal(connection.restingSinceMs, undefined);
  void connection.halfClose();
  await first();
  assert.deepEqual(events, ['first', 'second']);
  assert.equal(connection.isHalfClosed, false);
  await second();
  assert.deepEqual(events, ['first', 'second', 'end']);
  assert.equal(connection.isHalfClosed, true);
  bench.request('late');
  await settle();
  assert.deepEqual(events, ['first', 'second', 'end'], 'its client asks again elsewhere');
});

test('it rests from the end of its last answer on', async () => {
  const bench = new Bench();
  const finish = bench.request('request');
  await bench.clock.advance(700);
  await finish();
  assert.equal(bench.connection.restingSinceMs, 700);
});
