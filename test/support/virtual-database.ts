import type { Clock } from '../../src/runtime/clock.ts';
import {
  DatabaseError,
  type ScraperDatabase,
  type StoredAnswers,
  type StoredQuestion,
} from '../../src/server/delivery/receipts.ts';

/** The query API of a scraper's database, on a clock: receipts are early, late or lost, as a test says. */
export class VirtualDatabase implements ScraperDatabase {
  readonly url = 'http://192.0.2.9:9090';
  /** How long it takes to answer. */
  answerMs = 2;
  /** How long after a scrape its number is shown. */
  showsMs = 0;
  /** What it says of that. */
  showsAfterMs = 0;
  /** It does not answer. */
  isDown = false;
  /** What the last scrape of a selection failed with. */
  readonly lastErrors = new Map<string, string>();
  questions: StoredQuestion[] = [];
  isStopped = false;
  readonly #clock: Clock;
  readonly #stored: { readonly number: number; readonly atMs: number; readonly probe: readonly number[] }[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A scrape has been stored, with the number that it carried, and what is kept of the times of its probe. */
  store(number: number | undefined, probe: readonly number[] = []): void {
    if (number === undefined) throw new Error('the answer has no number');
    this.#stored.push({ number, atMs: this.#clock.monotonicMs(), probe });
  }

  async ask(question: StoredQuestion): Promise<StoredAnswers> {
    this.questions.push(question);
    const askedMs = this.#clock.monotonicMs();
    if (this.answerMs > 0) await this.#clock.sleep(this.answerMs);
    if (this.isDown) throw new DatabaseError('unreachable', 'connect ECONNREFUSED');
    const shown = this.#stored.filter(
      ({ atMs }) => atMs >= askedMs - question.backMs && atMs <= askedMs - this.showsMs,
    );
    const { showsAfterMs } = this;
    return {
      numbers: new Set(shown.map(({ number }) => number)),
      probes: new Map(shown.map(({ number, probe }) => [number, new Set(probe)])),
      program: 'Prometheus',
      version: '3.5.0',
      showsAfterMs,
    };
  }

  async lastError(_name: string | undefined, selection: string): Promise<string | undefined> {
    if (this.answerMs > 0) await this.#clock.sleep(this.answerMs);
    return this.isDown ? undefined : this.lastErrors.get(selection);
  }

  stop(): void {
    this.isStopped = true;
  }
}
