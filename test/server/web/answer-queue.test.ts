import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AnswerQueue, type Turn } from '../../../src/server/web/answer-queue.ts';
import { settle } from '../../support/virtual-clock.ts';

const limits = { turnsMax: 3, turnsPerOwnerMax: 2, bytesMax: 100, bytesPerOwnerMax: 60 };
const never = new Promise<never>(() => {});

/** A queue, and who has had a turn so far. */
class Line {
  readonly queue = new AnswerQueue(limits);
  readonly turns = new Map<string, Turn>();

  /** `a1` is the first of owner `a`. */
  enter(name: string, bytes = 1, givenUp: Promise<unknown> = never): void {
    void this.queue.enter({ owner: name[0]!, bytes }, givenUp).then((turn) => {
      if (turn !== undefined) this.turns.set(name, turn);
    });
  }

  async names(): Promise<string> {
    await settle();
    return [...this.turns.keys()].join(' ');
  }

  end(name: string): void {
    this.turns.get(name)!.end();
    this.turns.delete(name);
  }
}

test('three answers are made at a time, two of one owner; the others wait, in turns by owner', async () => {
  const line = new Line();
  for (const name of ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1']) line.enter(name);
  assert.equal(await line.names(), 'a1 a2 b1');
  line.end('a1');
  assert.equal(await line.names(), 'a2 b1 a3');
  // a has had its turn: it stands behind b and c.
  line.end('a2');
  assert.equal(await line.names(), 'b1 a3 b2');
  line.end('b1');
  assert.equal(await line.names(), 'a3 b2 c1');
  for (const name of ['a3', 'b2', 'c1']) line.end(name);
  assert.equal(await line.names(), 'a4');
});

test('what all answers hold is bounded, and what those of one owner hold; one alone may hold more', async () => {
  const line = new Line();
  line.enter('a1', 500);
  line.enter('b1', 1);
  assert.equal(await line.names(), 'a1');
  line.turns.get('a1')!.holds(50);
  assert.equal(await line.names(), 'a1 b1');
  line.enter('a2', 11);
  line.enter('c1', 49);
  assert.equal(await line.names(), 'a1 b1 c1');
  line.end('b1');
  line.end('c1');
  assert.equal(await line.names(), 'a1', 'beyond the bytes of one owner');
  line.end('a1');
  assert.equal(await line.names(), 'a2');
  assert.equal(line.queue.heldBytes, 11);
  line.end('a2');
  assert.equal(line.queue.heldBytes, 0);
});

test('an answer whose reader is slow lets another be made; what it holds counts on', async () => {
  const line = new Line();
  line.enter('a1', 30);
  line.enter('a2', 20);
  line.enter('a3', 10);
  line.enter('a4', 10);
  assert.equal(await line.names(), 'a1 a2');
  line.turns.get('a1')!.wait();
  assert.equal(await line.names(), 'a1 a2 a3');
  line.turns.get('a2')!.wait();
  assert.equal(await line.names(), 'a1 a2 a3', '60 bytes are held by a');
  line.end('a1');
  assert.equal(await line.names(), 'a2 a3 a4');
});

test('who gives up has no turn, and holds up nobody', async () => {
  const line = new Line();
  for (const name of ['a1', 'a2']) line.enter(name);
  let giveUp = () => {};
  line.enter(
    'a3',
    1,
    new Promise<void>((resolve) => {
      giveUp = resolve;
    }),
  );
  line.enter('a4');
  giveUp();
  await settle();
  line.end('a1');
  assert.equal(await line.names(), 'a2 a4');
  line.turns.get('a2')!.end();
  line.turns.get('a2')!.end();
  line.end('a4');
  line.enter('b1', 100);
  line.enter('c1', 1);
  assert.equal(await line.names(), 'a2 b1', 'an end counts once');
});
