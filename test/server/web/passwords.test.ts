import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashSync } from 'bcryptjs';
import type { PasswordAnswer, PasswordQuestion } from '../../../src/server/web/password-worker.ts';
import { startPasswordWorker } from '../../../src/server/web/password-worker.ts';
import { Passwords, type PasswordWorker } from '../../../src/server/web/passwords.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

/** Answers when it is asked to: right is the password `right`. */
class HandWorker implements PasswordWorker {
  readonly questions: PasswordQuestion[] = [];
  isTerminated = false;
  #onMessage = (_: PasswordAnswer) => {};
  #onError = (_: Error) => {};

  postMessage(question: PasswordQuestion): void {
    this.questions.push(question);
  }

  on(event: 'message' | 'error', listener: ((answer: PasswordAnswer) => void) & ((error: Error) => void)): void {
    if (event === 'message') this.#onMessage = listener;
    else this.#onError = listener;
  }

  terminate(): void {
    this.isTerminated = true;
  }

  async answer(): Promise<void> {
    const { id, password } = this.questions.shift()!;
    this.#onMessage({ id, isRight: password === 'right' });
    await settle();
  }

  async fail(): Promise<void> {
    this.#onError(new Error('no memory'));
    await settle();
  }
}

function passwordsByHand() {
  const clock = new VirtualClock();
  const workers: HandWorker[] = [];
  const startWorker = () => {
    workers.push(new HandWorker());
    return workers.at(-1)!;
  };
  const users = new Map([
    ['alice', 'hash of alice'],
    ['bob', 'hash of bob'],
  ]);
  const passwords = new Passwords({ clock, startWorker });
  const check = (user: string, password: string, owner = 'a') => passwords.check(users, { user, password, owner });
  return { clock, workers, users, passwords, check };
}

test('a password is checked once, right or wrong; another hash is another question', async () => {
  const { workers, users, check } = passwordsByHand();
  const first = check('alice', 'right');
  await settle();
  assert.equal(workers[0]!.questions[0]!.hash, 'hash of alice');
  await workers[0]!.answer();
  assert.equal(await first, 'right');
  assert.equal(await check('alice', 'right'), 'right');
  const wrong = check('alice', 'wrong');
  await settle();
  await workers[0]!.answer();
  assert.equal(await wrong, 'wrong');
  assert.equal(await check('alice', 'wrong'), 'wrong');
  assert.equal(workers[0]!.questions.length, 0);
  users.set('alice', 'a new hash');
  void check('alice', 'right');
  await settle();
  assert.equal(workers[0]!.questions[0]!.hash, 'a new hash');
});

test('an unknown user is checked against the hash of a known one, and is wrong whatever comes out', async () => {
  const { workers, users, check } = passwordsByHand();
  const hashes = new Set<string>();
  for (let user = 0; user < 20; user++) {
    const answer = check(`nobody${user}`, 'right');
    await settle();
    hashes.add(workers[0]!.questions[0]!.hash);
    await workers[0]!.answer();
    assert.equal(await answer, 'wrong');
  }
  // The costs of the users may differ: no single one of them shows who is known.
  assert.deepEqual([...hashes].sort(), [...users.values()].sort());
});

test('one check at a time, and two of an owner: whoever tries many waits behind himself', async () => {
  const { workers, check } = passwordsByHand();
  const many = Array.from({ length: 5 }, (_, attempt) => check('alice', `guess ${attempt}`, 'attacker'));
  const other = check('alice', 'right', 'prometheus');
  await settle();
  const [worker] = workers;
  assert.equal(worker!.questions.length, 1);
  assert.deepEqual(await Promise.all(many.slice(2)), ['busy', 'busy', 'busy']);
  await worker!.answer();
  await worker!.answer();
  await worker!.answer();
  assert.deepEqual(await Promise.all(many.slice(0, 2)), ['wrong', 'wrong']);
  assert.equal(await other, 'right');
  assert.equal(workers.length, 1);
});

test('the same question of many connections is asked once', async () => {
  const { workers, check } = passwordsByHand();
  const answers = Array.from({ length: 10 }, () => check('alice', 'right'));
  await settle();
  await workers[0]!.answer();
  assert.deepEqual([...new Set(await Promise.all(answers))], ['right']);
  assert.equal(workers[0]!.questions.length, 0);
});

test('wrong passwords are forgotten before right ones', async () => {
  const { workers, check } = passwordsByHand();
  const right = check('alice', 'right');
  await settle();
  await workers[0]!.answer();
  await right;
  for (let guess = 0; guess < 300; guess++) {
    const answer = check('alice', `guess ${guess}`);
    await settle();
    await workers[0]!.answer();
    await answer;
  }
  assert.equal(await check('alice', 'right'), 'right');
});

test('the thread ends when it has rested; one that fails costs its own question', async () => {
  const { clock, workers, passwords, check } = passwordsByHand();
  const first = check('alice', 'right');
  await settle();
  await workers[0]!.answer();
  await first;
  await clock.advance(9_999);
  assert.equal(workers[0]!.isTerminated, false);
  await clock.advance(1);
  assert.equal(workers[0]!.isTerminated, true);
  const failed = check('bob', 'wrong');
  await settle();
  await workers[1]!.fail();
  assert.equal(await failed, 'busy');
  const waiting = check('bob', 'right');
  await settle();
  assert.equal(workers.length, 3);
  passwords.close();
  assert.equal(await waiting, 'busy');
  assert.equal(workers[2]!.isTerminated, true);
  assert.equal(await check('bob', 'other'), 'busy');
  assert.equal(clock.timers, 0);
});

test('the real thread: hashes of bcrypt, as htpasswd writes them too', { timeout: 60_000 }, async () => {
  const clock = new VirtualClock();
  const passwords = new Passwords({ clock, startWorker: startPasswordWorker });
  const hash = hashSync('pässword', 4);
  const users = new Map([
    ['alice', hash],
    ['bob', hash.replace('$2b$', '$2y$')],
  ]);
  const check = (user: string, password: string) => passwords.check(users, { user, password, owner: 'a' });
  assert.equal(await check('alice', 'pässword'), 'right');
  assert.equal(await check('bob', 'pässword'), 'right');
  assert.equal(await check('alice', 'password'), 'wrong');
  assert.equal(await check('carol', 'pässword'), 'wrong');
  passwords.close();
});
