import type { EpochSeq } from '../../protocol/messages.ts';

/** What to do about the first report that the server lacks. */
export type Treatment =
  | { readonly kind: 'send' }
  /** The server has ended two connections because of it. */
  | { readonly kind: 'suspect'; readonly report: EpochSeq; readonly code: PoisonCode }
  /** It was sent three times, and each time the connection ended because of it: it is dropped. */
  | { readonly kind: 'drop'; readonly report: EpochSeq; readonly code: PoisonCode };

/**
 * Errors with which a server ends a connection because of one report: a bug of its own, or a time ahead of its clock.
 */
export const poisonCodes = ['internal', 'clock'] as const;
export type PoisonCode = (typeof poisonCodes)[number];

/**
 * Reports that a server cannot process: because of a bug of its own, or because their times are ahead of its clock
 * although both ends agree on it. Each would be sent for ever, and later reports would never arrive.
 */
export class PoisonReports {
  readonly #dropped: EpochSeq[] = [];
  #state: State = { kind: 'none' };

  /** What is not sent any more. */
  get dropped(): readonly EpochSeq[] {
    return this.#dropped;
  }

  /** A connection has ended with this code. One on which no report was sent says nothing of reports. */
  ended(code: string, hasSentReports: boolean): void {
    if (!hasSentReports) return;
    const poisonCode = poisonCodes.find((each) => each === code);
    this.#state =
      poisonCode === undefined
        ? { kind: 'none' }
        : { kind: 'ended', code: poisonCode, suspect: suspectOf(this.#state) };
  }

  /** The server's clock was set: that is why the last connection ended. */
  clockStepped(): void {
    this.#state = { kind: 'none' };
  }

  /** A connection begins: this is the first report that the server lacks. */
  begins(first: EpochSeq | undefined): Treatment {
    if (this.#state.kind !== 'ended' || first === undefined) return { kind: 'send' };
    const { code, suspect } = this.#state;
    const isSame = suspect?.report.epoch === first.epoch && suspect.report.seq === first.seq;
    const times = isSame ? suspect.times + 1 : 1;
    if (times < timesMax) {
      this.#state = { kind: 'suspected', suspect: { report: first, times } };
      return times === timesMax - 1 ? { kind: 'suspect', report: first, code } : { kind: 'send' };
    }
    this.#state = { kind: 'none' };
    this.#dropped.push(first);
    if (this.#dropped.length > droppedMax) this.#dropped.shift();
    return { kind: 'drop', report: first, code };
  }
}

interface Suspect {
  readonly report: EpochSeq;
  /** Connections in a row that have ended because of it. */
  readonly times: number;
}

type State =
  | { readonly kind: 'none' }
  /** The last connection has ended because of a report: the first that the server will be found to lack. */
  | { readonly kind: 'ended'; readonly code: PoisonCode; readonly suspect: Suspect | undefined }
  /** This one was the first that the server lacked. */
  | { readonly kind: 'suspected'; readonly suspect: Suspect };

function suspectOf(state: State): Suspect | undefined {
  return state.kind === 'none' ? undefined : state.suspect;
}

const timesMax = 3;
// Each is acknowledged with the next report that the server takes.
const droppedMax = 100;
