// What a connection may rely on holds for sockets and for the connections in memory that stand for them in tests.
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { realClock } from '../../src/runtime/clock.ts';
import { type Connection, ConnectionError } from '../../src/runtime/connection.ts';
import { socketConnection } from '../../src/runtime/socket.ts';
import { Link } from '../support/linked-connections.ts';
import { socketPair, until } from '../support/sockets.ts';

interface Pair {
  readonly near: Connection;
  readonly far: Connection;
  /** As a reset from the network. */
  cut(): void;
}

const kinds: Readonly<Record<string, (context: TestContext) => Promise<Pair>>> = {
  async sockets(context) {
    const [near, far] = await socketPair(context);
    return { near: socketConnection(near), far: socketConnection(far), cut: () => far.resetAndDestroy() };
  },
  async 'linked connections'() {
    const link = new Link({ clock: realClock });
    return { near: link.near, far: link.far, cut: () => link.cut() };
  },
};

for (const [kind, pairOf] of Object.entries(kinds)) {
  describe(kind, () => {
    test('bytes in order, then a goodbye that is answered', async (context) => {
      const { near, far } = await pairOf(context);
      const reading = readAll(far);
      for (const text of ['one ', 'two ', 'three']) await near.write(Buffer.from(text));
      await near.end();
      assert.equal(await reading, 'one two three');
      await rejects(near.write(Buffer.from('x')), 'closed');
      await far.end();
    });

    test('both ends say goodbye at once', async (context) => {
      const { near, far } = await pairOf(context);
      await near.write(Buffer.from('x'));
      await far.write(Buffer.from('y'));
      await Promise.all([near.end(), far.end()]);
    });

    test('an end gives the reader of the same side its end', async (context) => {
      const { near, far } = await pairOf(context);
      const reading = readAll(near);
      const other = readAll(far);
      await near.end();
      assert.equal(await reading, '');
      assert.equal(await other, '');
    });

    test('after the goodbye of the peer there is nobody to write to', async (context) => {
      const { near, far } = await pairOf(context);
      const ending = far.end();
      assert.equal(await readAll(near), '');
      await rejects(near.write(Buffer.from('x')), 'closed');
      await ending;
    });

    test('a destroy: our reader has the reason, the peer sees an end', async (context) => {
      const { near, far } = await pairOf(context);
      const reading = readAll(near);
      const other = readAll(far);
      const failed = rejects(reading, 'closed', /too slow/);
      near.destroy(new Error('too slow'));
      near.destroy();
      await failed;
      await rejects(near.write(Buffer.from('x')), 'closed', /too slow/);
      assert.equal(await other, '');
      await near.end();
    });

    test('a destroy with bytes unread is a reset for the peer', async (context) => {
      const { near, far } = await pairOf(context);
      for (let count = 0; count < 30; count++) void near.write(Buffer.alloc(65_536)).catch(() => {});
      const iterator = far[Symbol.asyncIterator]();
      await iterator.next();
      far.destroy();
      await assert.rejects(readAll(near), ConnectionError);
    });

    test('writing to one that was destroyed ends in an error', async (context) => {
      const { near, far } = await pairOf(context);
      far.destroy();
      await assert.rejects(async () => {
        for (;;) {
          await near.write(Buffer.alloc(10_000));
          await new Promise((resolve) => setImmediate(resolve));
        }
      }, ConnectionError);
    });

    test('a cut: reader and writer are told', async (context) => {
      const { near, far, cut } = await pairOf(context);
      const reading = readAll(near);
      const failed = rejects(reading, 'reset');
      void far.write(Buffer.alloc(0));
      cut();
      await failed;
      await rejects(near.write(Buffer.from('x')), 'reset');
      await near.end();
    });

    test('a write that waits is told of a cut', async (context) => {
      const { near, cut } = await pairOf(context);
      const writes: Promise<unknown>[] = [];
      for (let count = 0; count < 100; count++) {
        writes.push(
          near.write(Buffer.alloc(1_000_000)).then(
            () => 'written',
            (error) => error.code,
          ),
        );
      }
      assert.ok(near.unsentBytes > 0);
      cut();
      const outcomes = await Promise.all(writes);
      assert.ok(outcomes.includes('reset'), String(new Set(outcomes)));
    });

    test('a write goes on when the peer reads', async (context) => {
      const { near, far } = await pairOf(context);
      const total = 40_000_000;
      const writing = (async () => {
        for (let sent = 0; sent < total; sent += 1_000_000) await near.write(Buffer.alloc(1_000_000));
        await near.end();
      })();
      await until(() => near.unsentBytes > 0);
      let received = 0;
      for await (const chunk of far) received += chunk.length;
      assert.equal(received, total);
      await writing;
    });

    test('an end sends what waits, and the write that waited is told it is done', async (context) => {
      const { near, far } = await pairOf(context);
      const writes = Promise.all(Array.from({ length: 20 }, () => near.write(Buffer.alloc(1_000_000, 'x'))));
      const ending = near.end();
      assert.equal((await readAll(far)).length, 20_000_000);
      await Promise.all([writes, ending]);
    });

    test('an end is not held up for ever by a peer that does not read', async (context) => {
      const { near } = await pairOf(context);
      const write = near.write(Buffer.alloc(30_000_000));
      const failed = assert.rejects(write, ConnectionError);
      await near.end(20);
      await failed;
    });

    test('one reader only', async (context) => {
      const { near } = await pairOf(context);
      near[Symbol.asyncIterator]();
      assert.throws(() => near[Symbol.asyncIterator](), /has a reader already/);
    });
  });
}

async function readAll(connection: Connection): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of connection) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function rejects(promise: Promise<unknown>, code: string, words = /./): Promise<void> {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof ConnectionError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  });
}
