import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameScheduler, type Quota } from '../../../src/server/ingest/scheduler.ts';
import { settle } from '../../support/virtual-clock.ts';

/** Time that passes when work is done, and an event loop that turns when it is told to. */
class Loop {
  nowMs = 0;
  readonly log: string[] = [];
  readonly scheduler = new FrameScheduler({
    clock: { monotonicMs: () => this.nowMs },
    nextTurn: (callback) => this.#callbacks.push(callback),
  });
  #callbacks: (() => void)[] = [];
  /** What was done in each turn. */
  readonly turnsMs = [0];

  get isIdle(): boolean {
    return this.#callbacks.length === 0;
  }

  async turn(): Promise<void> {
    const callbacks = this.#callbacks;
    this.#callbacks = [];
    this.turnsMs.push(0);
    for (const callback of callbacks) callback();
    await settle();
  }

  /** What a connection does with a chunk of frames that take so long each. */
  async chunk(name: string, quota: Quota, framesMs: readonly number[]): Promise<void> {
    const turn = quota.enter();
    if (turn !== undefined) await turn;
    try {
      for (const ms of framesMs) {
        if (Number.isNaN(ms)) throw new Error('a bad frame');
        this.nowMs += ms;
        this.turnsMs[this.turnsMs.length - 1]! += ms;
        this.log.push(name);
        if (quota.isOver()) await quota.again();
      }
    } finally {
      quota.leave();
    }
  }
}

const frames = (count: number, ms: number): number[] => Array.from({ length: count }, () => ms);

test('who is alone goes on until the turn is over, and then in the next', async () => {
  const loop = new Loop();
  const quota = loop.scheduler.join();
  void loop.chunk('a', quota, frames(12, 1));
  await settle();
  assert.equal(loop.log.length, 5);
  await loop.turn();
  await loop.turn();
  assert.equal(loop.log.length, 12);
  assert.deepEqual(loop.turnsMs, [5, 5, 2]);
  await loop.turn();
  assert.equal(loop.isIdle, true);
});

test('several take turns, a millisecond each', async () => {
  const loop = new Loop();
  const [a, b, c] = [loop.scheduler.join(), loop.scheduler.join(), loop.scheduler.join()];
  void loop.chunk('a', a, frames(20, 0.5));
  void loop.chunk('b', b, frames(4, 0.5));
  void loop.chunk('c', c, frames(4, 0.5));
  await settle();
  assert.equal(loop.log.join(''), 'a'.repeat(10));
  await loop.turn();
  assert.equal(loop.log.join('').slice(10), 'aabbccaabb');
  await loop.turn();
  assert.equal(loop.log.join('').slice(20), 'ccaaaaaa');
});

test('who has had much of late comes after those who have not, and a second later no more', async () => {
  const loop = new Loop();
  const [greedy, modest] = [loop.scheduler.join(), loop.scheduler.join()];
  void loop.chunk('g', greedy, frames(30, 1));
  for (let turn = 0; turn < 3; turn++) await loop.turn();
  void loop.chunk('m', modest, frames(5, 1));
  const { length } = loop.log;
  await loop.turn();
  assert.equal(loop.log.slice(length).join(''), 'mmmmm');
  while (!loop.isIdle) await loop.turn();

  loop.nowMs += 1000;
  loop.log.length = 0;
  void loop.chunk('x', loop.scheduler.join(), frames(6, 1));
  void loop.chunk('g', greedy, frames(2, 1));
  void loop.chunk('m', modest, frames(2, 1));
  await loop.turn();
  assert.equal(loop.log.slice(5).join(''), 'xgmgm');
});

test('a connection that fails, or that has nothing to do any more, holds up nobody', async () => {
  const loop = new Loop();
  const quotas = Array.from({ length: 4 }, () => loop.scheduler.join());
  void loop.chunk('a', quotas[0]!, frames(7, 1));
  const failing = loop.chunk('b', quotas[1]!, [0.1, Number.NaN]);
  void loop.chunk('c', quotas[2]!, []);
  void loop.chunk('d', quotas[3]!, frames(1, 1));
  const failed = assert.rejects(failing, /bad frame/);
  await loop.turn();
  await failed;
  assert.equal(loop.log.join(''), 'aaaaaabda');
});

test('whatever they send, all of it is done, no turn takes much longer than it may, and none waits for ever', async () => {
  const frameMs = fc.double({ min: 0, max: 3, noNaN: true });
  const connection = fc.array(fc.array(frameMs, { maxLength: 20 }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.array(connection, { minLength: 1, maxLength: 6 }), async (connections) => {
      const loop = new Loop();
      let running = connections.length;
      for (const [at, chunks] of connections.entries()) {
        const quota = loop.scheduler.join();
        const run = async () => {
          for (const chunk of chunks) await loop.chunk(String(at), quota, chunk);
          running--;
        };
        void run();
      }
      const all = connections.flat(2);
      const totalMs = all.reduce((sum, ms) => sum + ms, 0);
      await settle();
      for (let turn = 0; turn < totalMs + 5 && running > 0; turn++) await loop.turn();
      assert.equal(running, 0);
      assert.equal(loop.log.length, all.length);
      // What was begun is ended: one frame of up to 3 ms more.
      for (const ms of loop.turnsMs) assert.ok(ms <= 8 + 1e-6, `${ms} ms`);
    }),
    { numRuns: 200 },
  );
});
