/**
 * Whether a scraper's database keeps several samples of a series from one answer, each at its own time: two samples of a
 * series of its own, which is asked for with the receipt of the answer that had them. A job may ignore timestamps, and a
 * database may drop what it takes for duplicates; neither shows in a request.
 *
 *     unknown ──first answer: the probe alone──▶ all · one · none ──▶ probed again after a day, or some minutes
 */

/** What it keeps of a series: all samples at their times, one of them, or none at its time. */
export type Keeps = 'all' | 'one' | 'none';

/** What an answer may give: reports, one of each agent, the newest values without timestamps, or nothing but the probe. */
export type Gives = 'reports' | 'one report' | 'newest' | 'probe';

export class Probe {
  /** Undefined until it is known. */
  keeps: Keeps | undefined;
  #knownAtMs = -Infinity;
  #firstSentAtMs = Infinity;
  /** Whether it had been given reports before the first probe. */
  #isTrusted: boolean | undefined;
  #sent: { readonly number: number; readonly timesMs: readonly number[]; readonly sentAtMs: number } | undefined;

  /** When the probe was sent of which the database may still say something; undefined: none. */
  get sentAtMs(): number | undefined {
    return this.#sent?.sentAtMs;
  }

  /**
   * `isKnown`: the scraper has been given reports before. It goes on being given them until more is known; another one is given
   * them then, or when the database has said nothing for a while.
   */
  gives({
    isKnown,
    isFailing,
    nowMs,
  }: {
    readonly isKnown: boolean;
    readonly isFailing: boolean;
    readonly nowMs: number;
  }): Gives {
    this.#isTrusted ??= isKnown;
    if (this.keeps === 'none') return 'newest';
    if (this.keeps === 'one') return 'one report';
    const isLate = isFailing || nowMs - this.#firstSentAtMs >= unknownMsMax;
    return this.keeps === 'all' || this.#isTrusted || isLate ? 'reports' : 'probe';
  }

  /** The times of two samples that the answer of this number should have; undefined: none is due. */
  due(
    number: number,
    { nowMs, wallMs }: { readonly nowMs: number; readonly wallMs: number },
  ): readonly number[] | undefined {
    const sinceMs = this.#sent?.sentAtMs ?? this.#knownAtMs;
    const isUnknown = this.#sent !== undefined || this.keeps !== 'all';
    if (nowMs - sinceMs < (isUnknown ? againMs : daily)) return undefined;
    const timesMs = [wallMs - 2000, wallMs - 1000];
    this.#sent = { number, timesMs, sentAtMs: nowMs };
    this.#firstSentAtMs = Math.min(nowMs, this.#firstSentAtMs);
    return timesMs;
  }

  /**
   * The database has the answers of these numbers, and of each probe samples of these times. One that shows samples late may
   * show a part of them first. Returns what it keeps, if that is news.
   */
  stored(
    numbers: ReadonlySet<number>,
    probes: ReadonlyMap<number, ReadonlySet<number>>,
    { nowMs, showsAfterMs }: { readonly nowMs: number; readonly showsAfterMs: number },
  ): Keeps | undefined {
    const sent = this.#sent;
    if (sent === undefined || !numbers.has(sent.number)) return undefined;
    const found = probes.get(sent.number);
    const count = sent.timesMs.filter((ms) => found?.has(ms)).length;
    if (count < 2 && nowMs - sent.sentAtMs < showsAfterMs) return undefined;
    const before = this.keeps;
    this.keeps = count === 2 ? 'all' : count === 1 ? 'one' : 'none';
    this.#knownAtMs = nowMs;
    this.#sent = undefined;
    return this.keeps === before ? undefined : this.keeps;
  }
}

const unknownMsMax = 30_000;
const againMs = 5 * 60_000;
const daily = 24 * 3_600_000;
