import type { Clock, Timer } from '../../runtime/clock.ts';
import { CodedError } from '../../runtime/coded-error.ts';
import { type ScraperName, scraperText } from './scraper.ts';

/**
 * The database behind a scraper: a Prometheus, or what answers its API. `prometheus/` has the real one; a test or the
 * simulation has its own.
 */
export interface ScraperDatabase {
  /** Its API's address, as it may be logged. */
  readonly url: string;
  /** Rejects with a {@link DatabaseError} when it does not answer, in bounded time. */
  ask(question: StoredQuestion): Promise<StoredAnswers>;
  /**
   * Why the last scrape of these agents failed; undefined if it did not, or that is not known. `urlName`: `scraper=NAME` of the
   * URL; undefined where it has none, for the scraper's user or its address is its name. Never rejects.
   */
  lastError(urlName: string | undefined, selection: string): Promise<string | undefined>;
  stop(): void;
}

export interface StoredQuestion {
  /** The label of the numbers. */
  readonly scraper: string;
  /** The other label: whose answers; undefined: those of any server. */
  readonly serverId: string | undefined;
  /** How far the question looks back. */
  readonly backMs: number;
  /** Whether probes are asked for as well. */
  readonly hasProbe: boolean;
}

/** What is stored of a scraper's answers. */
export interface StoredAnswers {
  readonly numbers: ReadonlySet<number>;
  /** Of each answer that had a probe, by its number: the times of the samples of it that are there. */
  readonly probes: ReadonlyMap<number, ReadonlySet<number>>;
  /** What the database is: `Prometheus`, `VictoriaMetrics`; "" where it does not say. */
  readonly program: string;
  readonly version: string;
  /** How long after an answer its number may still be missing; 0: it is there before the scraper's next request. */
  readonly showsAfterMs: number;
}

/** The database does not answer, or not as its API does. The words name no secret. */
export class DatabaseError extends CodedError<'unreachable' | 'refused' | 'malformed'> {
  override readonly name = 'DatabaseError';
}

/** What happens to the questions about one scraper, to be counted, and logged if a person should act on it. */
export type ReceiptEvent =
  /** `wasLogged`: before, it had not answered for long enough that it was due to be logged. */
  | { readonly kind: 'answered'; readonly wasLogged: boolean }
  /** `isDue`: for so long that it is due to be logged, once more. */
  | { readonly kind: 'unanswered'; readonly why: string; readonly forMs: number; readonly isDue: boolean };

export interface ReceiptsOptions {
  readonly clock: Clock;
  /** By the text of the scraper's name. */
  readonly databases: ReadonlyMap<string, ScraperDatabase>;
  serverId(): string;
  /** When the oldest answer was sent of which the database may still say something; undefined: none. On the monotonic clock. */
  oldestUnknownMs(name: ScraperName): number | undefined;
  /** Whether the database may still say something of a probe. */
  hasProbe(name: ScraperName): boolean;
  /** A question that was begun then has been answered. */
  onStored(name: ScraperName, stored: StoredAnswers, askedAtMs: number): void;
  onEvent(name: ScraperName, event: ReceiptEvent): void;
}

/** Asks the databases for the numbers of answers, soon after each answer, then again and again until nothing is unknown. */
export class Receipts {
  readonly #options: ReceiptsOptions;
  readonly #inquiries = new Map<string, Inquiry>();

  constructor(options: ReceiptsOptions) {
    this.#options = options;
  }

  /** Whether receipts confirm what this scraper is given. */
  has(name: ScraperName): boolean {
    return this.#options.databases.has(scraperText(name));
  }

  of(name: ScraperName): Inquiry | undefined {
    const text = scraperText(name);
    const database = this.#options.databases.get(text);
    if (database === undefined) return undefined;
    const inquiry = this.#inquiries.get(text) ?? new Inquiry(name, database, this.#options);
    this.#inquiries.set(text, inquiry);
    return inquiry;
  }

  stop(): void {
    for (const inquiry of this.#inquiries.values()) inquiry.stop();
    for (const database of this.#options.databases.values()) database.stop();
  }
}

/** How a database has answered of late. */
export type DatabaseHealth =
  | { readonly kind: 'not asked' }
  | { readonly kind: 'answers'; readonly last: StoredAnswers }
  | {
      readonly kind: 'fails';
      readonly sinceMs: number;
      /** How often it was due to be logged. */
      readonly dues: number;
      readonly why: string;
      readonly last: StoredAnswers | undefined;
    };

/** The questions about one scraper: one at a time. */
export class Inquiry {
  readonly name: ScraperName;
  readonly database: ScraperDatabase;
  health: DatabaseHealth = { kind: 'not asked' };
  readonly #options: ReceiptsOptions;
  #asking: Promise<void> | undefined;
  #timer: Timer | undefined;
  /** Questions since the last answer was sent. */
  #attempts = 0;
  #isStopped = false;

  constructor(name: ScraperName, database: ScraperDatabase, options: ReceiptsOptions) {
    this.name = name;
    this.database = database;
    this.#options = options;
  }

  /** It has not answered for longer than a moment: nobody waits for it. */
  get isFailing(): boolean {
    return this.health.kind === 'fails' && this.#options.clock.monotonicMs() - this.health.sinceMs >= momentMs;
  }

  /** The last answer of the database; undefined before the first. */
  get last(): StoredAnswers | undefined {
    return this.health.kind === 'not asked' ? undefined : this.health.last;
  }

  /** An answer was sent, or the server has started. */
  sent(): void {
    if (this.isFailing && this.#timer !== undefined) return;
    this.#attempts = 0;
    this.#schedule();
  }

  /** Before a scraper is answered: asks for what is unknown, for `waitMs` at most. */
  async beforeAnswer(selection: string, waitMs: number): Promise<{ readonly lastError: string | undefined }> {
    const nothing = { lastError: undefined };
    if (this.#oldestMs === undefined) return nothing;
    if (this.isFailing) return nothing;
    const look = async () => {
      // One under way was begun before the request.
      await this.#asking;
      if (this.#oldestMs !== undefined) await this.#ask();
      if (this.#oldestMs === undefined || this.health.kind === 'fails') return nothing;
      const { space, text } = this.name;
      return { lastError: await this.database.lastError(space === 'param' ? text : undefined, selection) };
    };
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const deadline = clock.after(waitMs, () => resolve(nothing));
      void look().then((found) => {
        deadline.cancel();
        resolve(found);
      });
    });
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  get #oldestMs(): number | undefined {
    return this.#options.oldestUnknownMs(this.name);
  }

  #schedule(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#isStopped || this.#oldestMs === undefined) return;
    const ms = askAgainMs[Math.min(this.#attempts, askAgainMs.length - 1)]!;
    this.#timer = this.#options.clock.after(ms, () => {
      this.#timer = undefined;
      void this.#ask();
    });
  }

  #ask(): Promise<void> {
    this.#asking ??= this.#question().finally(() => {
      this.#asking = undefined;
      this.#schedule();
    });
    return this.#asking;
  }

  async #question(): Promise<void> {
    const { clock, serverId, hasProbe, onStored, onEvent } = this.#options;
    const oldestMs = this.#oldestMs;
    if (this.#isStopped || oldestMs === undefined) return;
    this.#attempts++;
    const askedAtMs = clock.monotonicMs();
    const backMs = Math.min(backMsMax, Math.max(0, askedAtMs - oldestMs) + backMarginMs);
    try {
      const stored = await this.database.ask({
        scraper: scraperText(this.name),
        serverId: serverId(),
        backMs,
        hasProbe: hasProbe(this.name),
      });
      if (this.#isStopped) return;
      const wasLogged = this.health.kind === 'fails' && this.health.dues > 0;
      this.health = { kind: 'answers', last: stored };
      onEvent(this.name, { kind: 'answered', wasLogged });
      onStored(this.name, stored, askedAtMs);
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      if (this.#isStopped) return;
      const { health } = this;
      const nowMs = clock.monotonicMs();
      const { sinceMs, dues } = health.kind === 'fails' ? health : { sinceMs: nowMs, dues: 0 };
      const forMs = nowMs - sinceMs;
      const isDue = health.kind === 'fails' && forMs >= dueAfterMs(dues);
      this.health = { kind: 'fails', sinceMs, dues: dues + (isDue ? 1 : 0), why: error.message, last: this.last };
      onEvent(this.name, { kind: 'unanswered', why: error.message, forMs, isDue });
    }
  }
}

/** At the second time at once, after ten minutes, then each hour. */
const dueAfterMs = (dues: number): number => (dues === 0 ? 0 : dues === 1 ? 600_000 : (dues - 1) * 3_600_000);

// Prometheus shows an answer 10 to 100 ms after it was sent, VictoriaMetrics 1 to 5 s.
const askAgainMs = [100, 300, 600, 1000, 2000, 4000, 8000, 16_000, 30_000];
// Its sample has the time of the scrape's beginning, by a clock that may be another.
const backMarginMs = 60_000;
const backMsMax = 24 * 3_600_000;
const momentMs = 10_000;
