import { createHmac, randomBytes } from 'node:crypto';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { PasswordAnswer, PasswordQuestion } from './password-worker.ts';

/** What checks one password after another, off the main thread: a worker. */
export interface PasswordWorker {
  postMessage(question: PasswordQuestion): void;
  on(event: 'message', listener: (answer: PasswordAnswer) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  terminate(): unknown;
}

export interface PasswordsOptions {
  readonly clock: Clock;
  startWorker(): PasswordWorker;
}

export interface Login {
  readonly user: string;
  readonly password: string;
  /** Whose question it is: an address, or its /64. */
  readonly owner: string;
}

export type Verdict = 'right' | 'wrong' | 'busy';

/**
 * Checks users and their passwords against bcrypt hashes, one at a time. What was found is remembered under a keyed hash,
 * so that a scraper's password costs its check once; who tries others waits behind himself.
 */
export class Passwords {
  readonly #options: PasswordsOptions;
  /** Of this process alone. */
  readonly #key = randomBytes(32);
  /** Verdicts by user, password and hash together; the oldest first. */
  readonly #known = new Map<string, boolean>();
  readonly #waiting: Question[] = [];
  #worker: PasswordWorker | undefined;
  #asked: Question | undefined;
  #resting: Timer | undefined;
  #ids = 0;
  #isClosed = false;

  constructor(options: PasswordsOptions) {
    this.#options = options;
  }

  async check(users: ReadonlyMap<string, string>, { user, password, owner }: Login): Promise<Verdict> {
    // An unknown user takes as long as one of the known: the check is made against the hash of one of them.
    const known = users.get(user);
    const hash = known ?? [...users.values()][this.#hash('stand-in', user).readUInt32BE(0) % users.size]!;
    const key = this.#hash(user, password, hash).toString('base64');
    const verdict = this.#known.get(key);
    const isRight = verdict ?? (await this.#ask({ key, owner, question: { id: ++this.#ids, password, hash } }));
    if (isRight === undefined) return 'busy';
    return isRight && known !== undefined ? 'right' : 'wrong';
  }

  close(): void {
    this.#isClosed = true;
    for (const { answer } of this.#waiting.splice(0)) answer(undefined);
    this.#end();
  }

  /** Undefined where too many wait already. */
  #ask(asked: Omit<Question, 'answer' | 'answered'>): Promise<boolean | undefined> {
    const all = this.#asked === undefined ? this.#waiting : [this.#asked, ...this.#waiting];
    // The same question is asked once, whoever asks.
    const same = all.find(({ key }) => key === asked.key);
    if (same !== undefined) return same.answered;
    const own = all.filter(({ owner }) => owner === asked.owner);
    if (this.#isClosed || own.length >= waitingPerOwnerMax || all.length >= waitingMax)
      return Promise.resolve(undefined);
    let answer: Question['answer'] = () => {};
    const answered = new Promise<boolean | undefined>((resolve) => {
      answer = resolve;
    });
    this.#waiting.push({ ...asked, answer, answered });
    this.#next();
    return answered;
  }

  #next(): void {
    if (this.#asked !== undefined) return;
    this.#asked = this.#waiting.shift();
    if (this.#asked === undefined) {
      this.#resting = this.#options.clock.after(workerRestMs, () => this.#end());
      return;
    }
    this.#resting?.cancel();
    this.#worker ??= this.#start();
    this.#worker.postMessage(this.#asked.question);
  }

  #start(): PasswordWorker {
    const worker = this.#options.startWorker();
    worker.on('message', ({ id, isRight }) => {
      if (this.#asked?.question.id !== id) return;
      this.#remember(this.#asked.key, isRight);
      this.#done(isRight);
    });
    worker.on('error', () => {
      // No memory for a thread, at the worst: the next question starts another.
      if (worker !== this.#worker) return;
      this.#worker = undefined;
      this.#done(undefined);
    });
    return worker;
  }

  #done(isRight: boolean | undefined): void {
    const asked = this.#asked;
    this.#asked = undefined;
    asked?.answer(isRight);
    this.#next();
  }

  #end(): void {
    this.#resting?.cancel();
    const asked = this.#asked;
    this.#asked = undefined;
    asked?.answer(undefined);
    void this.#worker?.terminate();
    this.#worker = undefined;
  }

  #remember(key: string, isRight: boolean): void {
    // Wrong ones go first: no number of them makes a scraper's own be checked again.
    if (this.#known.size >= knownMax) {
      const [first] = this.#known.keys();
      const wrong = [...this.#known].find(([, right]) => !right)?.[0];
      this.#known.delete(wrong ?? first ?? '');
    }
    this.#known.set(key, isRight);
  }

  #hash(...parts: readonly string[]): Buffer {
    const hmac = createHmac('sha256', this.#key);
    for (const part of parts) hmac.update(`${Buffer.byteLength(part)}:`).update(part);
    return hmac.digest();
  }
}

interface Question {
  readonly key: string;
  readonly owner: string;
  readonly question: PasswordQuestion;
  readonly answer: (isRight: boolean | undefined) => void;
  readonly answered: Promise<boolean | undefined>;
}

const waitingMax = 32;
const waitingPerOwnerMax = 2;
const knownMax = 256;
// The thread takes some ten MiB, and is needed again when a password is new.
const workerRestMs = 10_000;
