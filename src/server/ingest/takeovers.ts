/**
 * Takes note of how connections of one name and one host replace each other, and tells cloned machines, which have one
 * machine-id and one key, from a host on a bad line.
 *
 * An agent delivers one epoch after another: once a report of its next epoch is stored, no report of an earlier one is
 * new. Two agents that replace each other in turns give new reports of a, b and then a again. Times are monotonic.
 */
export class Takeovers {
  /** Within the span. */
  #takeoverMs: number[] = [];
  /** In the order in which a report of each was last stored. */
  #epochs: number[] = [];
  #returned = false;
  #contestedUntilMs = -Infinity;

  /** A report of this epoch was stored. */
  stored(epoch: number): void {
    if (this.#epochs.at(-1) === epoch) return;
    if (this.#epochs.includes(epoch)) this.#returned = true;
    this.#epochs = [...this.#epochs.filter((each) => each !== epoch), epoch].slice(-epochsKept);
  }

  /**
   * Whether another connection may take the place of the present one: not if two hosts have done so by turns three times
   * in a minute, nor as long as one of them keeps trying.
   */
  isAllowed(nowMs: number): boolean {
    this.#takeoverMs = this.#takeoverMs.filter((ms) => nowMs - ms < spanMs);
    const isContested = nowMs < this.#contestedUntilMs || (this.#returned && this.#takeoverMs.length >= takeoversMax);
    if (isContested) this.#contestedUntilMs = nowMs + contestMs;
    else this.#takeoverMs.push(nowMs);
    return !isContested;
  }
}

const takeoversMax = 3;
const spanMs = 60_000;
const epochsKept = 8;
// The agent that is refused tries once a minute.
const contestMs = 300_000;
