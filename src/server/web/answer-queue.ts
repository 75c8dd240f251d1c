/** What the queue needs to know of an answer. */
export interface Need {
  /** Who requests it: an address, or a network of one owner. */
  readonly owner: string;
  /** The most memory that the answer takes while it is sent. */
  readonly bytes: number;
}

/** A place among the answers that are made now. */
export interface Turn {
  /** The memory that it really takes, once that is known. */
  holds(bytes: number): void;
  /** The reader is slow: another answer may be made meanwhile. The memory of this one still counts. */
  wait(): void;
  /** The answer has ended. May be called twice. */
  end(): void;
}

export interface AnswerQueueOptions {
  /** Answers that are made at the same time, and of one owner. */
  readonly turnsMax: number;
  readonly turnsPerOwnerMax: number;
  /** Memory of all answers, and of those of one owner. A single answer may always be made. */
  readonly bytesMax: number;
  readonly bytesPerOwnerMax: number;
}

/**
 * Answers are made a few at a time, and take a bounded number of bytes together. Waiting requests are served by owner
 * in turn: an owner with a hundred requests delays only itself.
 */
export class AnswerQueue {
  readonly #options: AnswerQueueOptions;
  /** Waiting requests by owner, the owner that has waited longest first. */
  readonly #waiting = new Map<string, Waiting[]>();
  readonly #byOwner = new Map<string, Held>();
  readonly #all: Held = { answers: 0, turns: 0, bytes: 0 };

  constructor(options: AnswerQueueOptions) {
    this.#options = options;
  }

  get heldBytes(): number {
    return this.#all.bytes;
  }

  /** Resolves when its turn has come, or to undefined when `givenUp` resolves before that. */
  enter(need: Need, givenUp: Promise<unknown>): Promise<Turn | undefined> {
    if (!this.#waiting.has(need.owner) && this.#fits(need)) return Promise.resolve(this.#begin(need));
    return new Promise((resolve) => {
      const waiting: Waiting = { need, begin: () => resolve(this.#begin(need)) };
      const queue = this.#waiting.get(need.owner);
      if (queue === undefined) this.#waiting.set(need.owner, [waiting]);
      else queue.push(waiting);
      void givenUp.then(() => {
        this.#remove(waiting);
        resolve(undefined); // changes nothing where its turn has come
      });
    });
  }

  #fits({ owner, bytes }: Need): boolean {
    const { turnsMax, turnsPerOwnerMax, bytesMax, bytesPerOwnerMax } = this.#options;
    if (this.#all.answers === 0) return true;
    if (this.#all.turns >= turnsMax || this.#all.bytes + bytes > bytesMax) return false;
    const held = this.#byOwner.get(owner);
    return held === undefined || (held.turns < turnsPerOwnerMax && held.bytes + bytes <= bytesPerOwnerMax);
  }

  #begin({ owner, bytes }: Need): Turn {
    let own = this.#byOwner.get(owner);
    if (own === undefined) {
      own = { answers: 0, turns: 0, bytes: 0 };
      this.#byOwner.set(owner, own);
    }
    const held = [own, this.#all];
    return new HeldTurn(held, bytes, () => {
      if (own.answers === 0) this.#byOwner.delete(owner);
      this.#next();
    });
  }

  /** The next request: one of the first owner, which then goes to the end. */
  #next(): void {
    for (let began = true; began; ) {
      began = false;
      for (const [owner, queue] of this.#waiting) {
        const [first] = queue;
        if (first === undefined || !this.#fits(first.need)) continue;
        this.#remove(first);
        if (queue.length > 0) {
          this.#waiting.delete(owner);
          this.#waiting.set(owner, queue);
        }
        first.begin();
        began = true;
        break;
      }
    }
  }

  #remove(waiting: Waiting): void {
    const { owner } = waiting.need;
    const queue = this.#waiting.get(owner);
    const index = queue?.indexOf(waiting) ?? -1;
    if (queue === undefined || index < 0) return;
    queue.splice(index, 1);
    if (queue.length === 0) this.#waiting.delete(owner);
  }
}

interface Waiting {
  readonly need: Need;
  begin(): void;
}

/** Answers and their memory. */
interface Held {
  answers: number;
  turns: number;
  bytes: number;
}

class HeldTurn implements Turn {
  readonly #held: readonly Held[];
  readonly #onChange: () => void;
  #state: 'made' | 'waits' | 'ended' = 'made';
  #bytes: number;

  constructor(held: readonly Held[], bytes: number, onChange: () => void) {
    this.#held = held;
    this.#bytes = bytes;
    this.#onChange = onChange;
    this.#add({ answers: 1, turns: 1, bytes });
  }

  holds(bytes: number): void {
    if (this.#state === 'ended') return;
    this.#add({ answers: 0, turns: 0, bytes: bytes - this.#bytes });
    this.#bytes = bytes;
    this.#onChange();
  }

  wait(): void {
    if (this.#state !== 'made') return;
    this.#state = 'waits';
    this.#add({ answers: 0, turns: -1, bytes: 0 });
    this.#onChange();
  }

  end(): void {
    if (this.#state === 'ended') return;
    this.#add({ answers: -1, turns: this.#state === 'made' ? -1 : 0, bytes: -this.#bytes });
    this.#state = 'ended';
    this.#onChange();
  }

  #add({ answers, turns, bytes }: Held): void {
    for (const held of this.#held) {
      held.answers += answers;
      held.turns += turns;
      held.bytes += bytes;
    }
  }
}
