import type { StreamId } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import { Isolation } from './isolation.ts';
import { refusalReason } from './refusal-reason.ts';
import type { Positions, ScrapeConnection } from './scraper.ts';

/**
 * How far one scraper has read: of each stream, the time up to which all that was made is confirmed. What is newer is
 * given with the next answer, and an answer moves the position only when it is known to have been read:
 *
 *     being sent ──sent──▶ unconfirmed ──asked again, half-closed, closed at rest──▶ confirmed: the position moves
 *         │                     │
 *         └──────aborted────────┴──reset, timed out, closed at once, restart──▶ lost: it is given again
 *
 * New data always flow: what was given and never confirmed is given again, and when that is not confirmed either, it is
 * assumed to have been read, counted, and the position moves on behind it.
 *
 * Where receipts are asked for, they alone confirm: an answer carries a number, and the scraper's database says whether
 * that number is stored, which proves all that came with it. Then nothing is assumed:
 *
 *     being sent ──sent──▶ unconfirmed ──stored──▶ confirmed: the position moves, once all before it is confirmed
 *         │                     ├──not stored──▶ lost: it is given again, in smaller parts
 *         └──aborted──▶ lost ◀──┘ cut, restart: it is given again, unless it turns out to be stored
 *
 * Between two answers the number is looked for until it is there, or cannot come any more. Meanwhile what is newer waits for
 * half a minute, where the database takes only what is in order, and not at all where it takes any order. If no receipt
 * can be had, what is newer flows past the unconfirmed answers, which stay as they are, and so do the acks:
 *
 *     ── position ──▶│ unconfirmed │ stored │ lost: given next │ unconfirmed │ new: given next ──▶ now
 */

/** What confirms the answers to a scraper: what its connection does, or what its database says. */
export type ConfirmedBy = 'connection' | 'receipt';

export type AnswerState =
  | { readonly kind: 'being sent' }
  | { readonly kind: 'unconfirmed' }
  | { readonly kind: 'confirmed' }
  | { readonly kind: 'lost'; readonly how: Loss };

/**
 * Why an answer was not confirmed: it was not sent whole; its connection was cut before it can have been read, or closed at
 * once by a client that had read all of it, or it ended later; the server ended, or its clock was set; its Prometheus says that it
 * did not store it.
 */
export const losses = ['aborted', 'cut', 'at once', 'timed out', 'at rest', 'restart', 'clock', 'refused'] as const;
export type Loss = (typeof losses)[number];

/** What can happen to an answer. The first two are the server's own doing. */
export const answerEvents = [
  'sent',
  'aborted',
  /** A later request of the same scraper on the same connection. */
  'asked again',
  /** The client has answered our half-close. */
  'half-closed',
  /** The client has closed the connection after a second of rest, when every byte was acknowledged, and not to give up. */
  'closed at rest',
  /** The client has closed the connection and its kernel has not acknowledged every byte: it has gone before they came. */
  'closed too early',
  /** The connection has ended after a second of rest: an idle time-out on the way, or that of a scrape behind a proxy. */
  'ended at rest',
  /** It was reset as the scrape's time-out ended: the scraper has given up and left bytes unread, for it closes otherwise. */
  'timed out',
  /** The client has closed the connection within a second of the answer's end, its kernel having acknowledged every byte. */
  'closed at once',
  /** The connection has ended in another way within that second. */
  'reset at once',
  'restarted',
  'clock stepped',
  /** Its receipt: Prometheus has stored it, or has read it and stored nothing. */
  'stored',
  'refused',
] as const;
export type AnswerEvent = (typeof answerEvents)[number];

/** What follows from a transition, beside the state. */
export type Effect =
  /** The position moves to where the answer ended. */
  | 'advance'
  /** The scraper is known from now on: acks wait for it. */
  | 'know'
  /** The loss is counted. */
  | 'count'
  /** The next answers are larger, or smaller. */
  | 'widen'
  | 'halve';

type Row = readonly [to: Exclude<AnswerState['kind'], 'lost'> | Loss, ...effects: readonly Effect[]];

type Table = { readonly [state in AnswerState['kind']]: { readonly [event in AnswerEvent]?: Row } };

const byConnection: Table = {
  'being sent': {
    sent: ['unconfirmed', 'know'],
    aborted: ['aborted', 'count', 'halve'],
    'clock stepped': ['clock', 'count'],
  },
  unconfirmed: {
    'asked again': ['confirmed', 'advance', 'widen'],
    'half-closed': ['confirmed', 'advance', 'widen'],
    'closed at rest': ['confirmed', 'advance', 'widen'],
    'closed too early': ['cut', 'count'],
    'ended at rest': ['at rest', 'count'],
    'timed out': ['timed out', 'count', 'halve'],
    'closed at once': ['at once', 'count', 'halve'],
    'reset at once': ['cut', 'count', 'halve'],
    restarted: ['restart', 'count'],
    'clock stepped': ['clock', 'count'],
  },
  confirmed: {},
  lost: {},
};

const byReceipt: Table = {
  'being sent': {
    sent: ['unconfirmed', 'know'],
    aborted: ['aborted', 'count', 'halve'],
    'clock stepped': ['clock', 'count'],
  },
  unconfirmed: {
    'closed too early': ['cut', 'count'],
    'reset at once': ['cut', 'count', 'halve'],
    restarted: ['restart', 'count'],
    'clock stepped': ['clock', 'count'],
    stored: ['confirmed', 'advance', 'widen'],
    refused: ['refused', 'count'],
  },
  // Which of the reports it has by the new clock, nobody can tell.
  confirmed: { 'clock stepped': ['clock', 'count'] },
  lost: {
    stored: ['confirmed', 'advance', 'widen'],
    // Counted before.
    refused: ['refused'],
    'clock stepped': ['clock'],
  },
};

/** What an answer becomes. Where there is no row it stays what it is. */
export const transitions: { readonly [by in ConfirmedBy]: Table } = { connection: byConnection, receipt: byReceipt };

/** The state after an event, and what follows from it. */
export function after(
  state: AnswerState,
  event: AnswerEvent,
  by: ConfirmedBy,
): { readonly state: AnswerState; readonly effects: readonly Effect[] } {
  const row = transitions[by][state.kind][event];
  if (row === undefined) return { state, effects: [] };
  const [to, ...effects] = row;
  switch (to) {
    case 'being sent':
    case 'unconfirmed':
    case 'confirmed':
      return { state: { kind: to }, effects };
    default:
      return { state: { kind: 'lost', how: to }, effects };
  }
}

/** One answer that is not confirmed yet. */
export interface Answer {
  state: AnswerState;
  /** What carries it; undefined after a restart. */
  readonly connection: ScrapeConnection | undefined;
  /** The number of the request that it answers, over all scrapers: of two, which came first. */
  readonly request: number;
  /** When its scraper gives up, as it has said itself; on the monotonic clock. */
  readonly givesUpMs: readonly [fromMs: number, toMs: number];
  /** When all of it was sent, on the monotonic clock; -Infinity before. */
  sentAtMs: number;
  /** How many samples it has, once all of it is sent. */
  samples: number;
  /** Of each stream that it gives something of: up to when. Empty until all of it is sent, or it has a receipt. */
  until: Positions;
  receipt: Receipt | undefined;
}

/** By what the database knows an answer. */
export interface Receipt {
  /** Of the answer, or of several that are kept as one: which of them have not been seen in the database. */
  readonly unseen: Set<number>;
  /** The number of the last of them. */
  readonly number: number;
  /** Of each stream that it gives something of: after when. All before was in other answers. */
  readonly from: Positions;
  /** All streams of which it gives something, be it `sysmon_agent_up` alone. */
  readonly given: readonly StreamId[];
  readonly samples: number;
  readonly reports: number;
  /** When the last question was begun whose answer had not the number, on the monotonic clock; -Infinity: none. */
  missedAtMs: number;
}

/** When a request came, and how long its scraper waits. */
export interface AskedAt {
  readonly nowMs: number;
  readonly timeoutMs: number;
}

/** What was given and not confirmed, when its position moves on all the same. */
export interface Assumed {
  readonly stream: StreamId;
  readonly afterMs: number;
  readonly untilMs: number;
}

/**
 * How sure it is that a whole answer was read, although nothing confirms it. One that is killed by its answers closes its
 * connection at once; a line that is too slow cuts it, and its scrapes fail, which is seen there.
 */
function weight({ state, sentAtMs }: Answer, nowMs: number): number {
  switch (state.kind) {
    case 'unconfirmed':
      return nowMs - sentAtMs >= restMs ? weightRested : weightOfLost.cut;
    case 'lost':
      return weightOfLost[state.how];
    default:
      return 0;
  }
}

const weightRested = 8;
const weightOfLost: { readonly [how in Loss]: number } = {
  ...{ aborted: 0, clock: 0, cut: 1 },
  // Or a time-out of idle connections is as long as that of the scrape: then it was read.
  ...{ 'at once': 4, 'timed out': 4, restart: 4, refused: 4 },
  'at rest': weightRested,
};
// Given twice.
const weightAssumed = 2 * weightRested;
/** Prometheus stores an answer within milliseconds of reading it, */
export const restMs = 1000;
/** and one of many samples within this: on a busy machine 292 000 took 1.2 s. */
export const restMsOf = ({ samples }: Pick<Answer, 'samples'>): number => restMs + samples * restMsASample;
const restMsASample = 0.01;

export class Cursor {
  /** Names of agents with commas between them; "" for all. */
  readonly selection: string;
  positions: Map<StreamId, number>;
  /** What is not confirmed, oldest first. */
  answers: Answer[] = [];
  readonly pace = new Pace();
  /** Of the streams for which its database refuses answers. */
  readonly isolation = new Isolation();
  /** What it was last used by; undefined before the first scrape since the server's start. */
  connection: ScrapeConnection | undefined;
  address: string;
  /** When its scraper last came, on the monotonic clock. */
  seenAtMs: number;
  /** Between its last two scrapes, and the two before: one may have been missed. Undefined while unknown. */
  intervalsMs: readonly [last: number | undefined, before: number | undefined] = [undefined, undefined];
  /** An answer was sent whole: acks wait for this cursor. */
  isKnown = false;
  /** It is from before the server's start. */
  isRestored = false;
  /** The latest request whose answer was confirmed over its own connection. */
  provenRequest = -1;
  origin: Origin = { kind: 'own' };
  scrapes = 0;
  /** Streams of which a report did not fit, by the number of the scrape since which they have been waiting. */
  readonly waitingSince = new Map<StreamId, number>();

  readonly confirmedBy: ConfirmedBy;
  /** Its database takes samples of a series in any order. */
  takesAnyOrder = false;
  /** Unconfirmed answers may still be found to be refused: nothing newer of their streams is given meanwhile. */
  isHeld = false;

  readonly #agents: ReadonlySet<string> | undefined;

  constructor(
    selection: string,
    address: string,
    nowMs: number,
    positions: Positions = new Map(),
    confirmedBy: ConfirmedBy = 'connection',
  ) {
    this.selection = selection;
    this.confirmedBy = confirmedBy;
    this.#agents = selection === '' ? undefined : new Set(selection.split(','));
    this.address = address;
    this.seenAtMs = nowMs;
    this.positions = new Map(positions);
  }

  selects(agent: string): boolean {
    return this.#agents?.has(agent) ?? true;
  }

  /** How many agents it selects by their names; 0: it is for all. */
  get selectedAgents(): number {
    return this.#agents?.size ?? 0;
  }

  /** Its agents were selected for one scrape, and no second. */
  get isAskedOnce(): boolean {
    return this.#agents !== undefined && this.scrapes === 1 && !this.isRestored;
  }

  /** It was sent a whole answer and has scraped within the window, so acknowledgements wait for it. */
  holdsAcks(nowMs: number, windowMs: number): boolean {
    return this.isKnown && nowMs - this.seenAtMs <= windowMs;
  }

  /** -Infinity for a stream of which this scraper has had nothing. */
  positionMs(stream: StreamId): number {
    return this.positions.get(stream) ?? -Infinity;
  }

  /** Up to this it may have been given, in answers that were never confirmed; -Infinity: nothing. */
  sentMs(stream: StreamId): number {
    let given = -Infinity;
    for (const { until } of this.answers) given = Math.max(given, until.get(stream) ?? -Infinity);
    return given > this.positionMs(stream) ? given : -Infinity;
  }

  /** What the next answer gives of a stream: after which time, and up to which. */
  next(stream: StreamId, nowMs: number): { readonly afterMs: number; readonly untilMs: number } {
    const positionMs = this.positionMs(stream);
    if (this.confirmedBy === 'connection') return { afterMs: positionMs, untilMs: nowMs };
    const under = this.answers.flatMap(({ state, until, receipt }) => {
      const untilMs = until.get(stream);
      if (untilMs === undefined || receipt === undefined) return [];
      const isUnderWay = state.kind === 'unconfirmed' || state.kind === 'confirmed';
      return isUnderWay ? [{ kind: state.kind, fromMs: receipt.from.get(stream) ?? -Infinity, untilMs }] : [];
    });
    if (this.isHeld && under.some(({ kind }) => kind === 'unconfirmed')) {
      return { afterMs: positionMs, untilMs: positionMs };
    }
    let afterMs = positionMs;
    for (let moved = true; moved; ) {
      moved = false;
      for (const { fromMs, untilMs } of under) {
        if (fromMs > afterMs || untilMs <= afterMs) continue;
        afterMs = untilMs;
        moved = true;
      }
    }
    // A gap, where an answer was lost and later ones were not.
    const untilMs = Math.min(nowMs, ...under.map(({ fromMs }) => fromMs).filter((fromMs) => fromMs > afterMs));
    return { afterMs, untilMs };
  }

  /** Whether its newest report up to `afterMs` may be given again, so that the series does not go stale. */
  hasAll(stream: StreamId, { isWaiting, afterMs }: { readonly isWaiting: boolean; readonly afterMs: number }): boolean {
    if (this.confirmedBy === 'connection') return !isWaiting || this.sentMs(stream) <= afterMs;
    // Of what may be refused still, older reports would come after it.
    return !isWaiting && (this.takesAnyOrder || this.sentMs(stream) === -Infinity);
  }

  /** Answers of which the database may still say something. */
  get askable(): (Answer & { readonly receipt: Receipt })[] {
    return this.answers.filter((answer): answer is Answer & { readonly receipt: Receipt } => {
      const { state, receipt } = answer;
      if (receipt === undefined) return false;
      return (
        state.kind === 'unconfirmed' || (state.kind === 'lost' && state.how !== 'refused' && state.how !== 'clock')
      );
    });
  }

  /** The least time between two scrapes of late; undefined while only one is known. */
  get intervalMs(): number | undefined {
    const [last, before] = this.intervalsMs;
    return last === undefined || before === undefined ? undefined : Math.min(last, before);
  }

  /** Its scraper comes, over this connection. */
  asked(connection: ScrapeConnection, nowMs: number): void {
    // A cursor from before a restart was seen at a time, and how long a restart takes is no interval.
    const isFirst = this.scrapes++ === 0;
    this.intervalsMs = [isFirst ? undefined : nowMs - this.seenAtMs, this.intervalsMs[0]];
    this.connection = connection;
    this.address = connection.address;
    this.seenAtMs = nowMs;
  }

  /** Whether a whole answer that its own scraper has had a while to read was not confirmed. */
  hasRested(nowMs: number): boolean {
    return this.answers.some((answer) => answer.connection !== undefined && weight(answer, nowMs) === weightRested);
  }

  begin(connection: ScrapeConnection, request: number, { nowMs, timeoutMs }: AskedAt): Answer {
    const givesUpMs = [nowMs + timeoutMs * 0.8, nowMs + timeoutMs + lateMs] as const;
    const answer: Answer = {
      ...{ state: { kind: 'being sent' }, connection, request, givesUpMs },
      ...{ sentAtMs: -Infinity, samples: 0, until: new Map(), receipt: undefined },
    };
    this.answers.push(answer);
    return answer;
  }

  /** Something has happened to an answer of this cursor. Returns what follows. */
  apply(answer: Answer, event: AnswerEvent, nowMs: number): readonly Effect[] {
    const { state, effects } = after(answer.state, event, this.confirmedBy);
    answer.state = state;
    if (event === 'sent') answer.sentAtMs = nowMs;
    if (event === 'stored') this.isolation.stored(answer.receipt?.given ?? []);
    for (const effect of effects) {
      if (effect === 'advance') this.#advance(answer);
      else if (effect === 'know') this.isKnown = true;
      else if (effect === 'widen') this.pace.widen(answer.receipt?.samples);
      else if (effect === 'halve') this.pace.halve();
    }
    this.#forgetPassed();
    return effects;
  }

  /**
   * An answer was refused: what follows is smaller, or leaves out those for which it was refused. `why`: what its scrape
   * failed with; where that is not known, the next one is smaller, and only after that is one agent looked for, whose reports
   * are then given one by one. Returns the stream that is refused alone.
   */
  refuse(
    { until, receipt }: Answer,
    {
      why,
      isRepeated,
      nowMs,
    }: { readonly why: string | undefined; readonly isRepeated: boolean; readonly nowMs: number },
  ): StreamId | undefined {
    if (receipt === undefined || receipt.given.length === 0) return undefined;
    const reason = why === undefined ? undefined : refusalReason(why);
    if (reason === 'line') {
      this.pace.halve();
      return undefined;
    }
    const isSize = reason === 'size';
    if ((isSize || why === undefined) && receipt.samples > 0) this.pace.refused(receipt.samples);
    const isOfOne = until.size === 1 && receipt.reports > 1;
    const mayBeSize = why === undefined ? !isRepeated || isOfOne : isSize && receipt.reports > 1;
    return mayBeSize ? undefined : this.isolation.refused(receipt.given, nowMs);
  }

  /** Passes what is confirmed, as far as nothing before it is missing. */
  #advance({ receipt, until: confirmed }: Answer): void {
    if (receipt === undefined) {
      for (const [stream, ms] of confirmed) this.pass(stream, ms);
      return;
    }
    for (let moved = true; moved; ) {
      moved = false;
      for (const { state, until, receipt: each } of this.answers) {
        if (state.kind !== 'confirmed') continue;
        for (const [stream, ms] of until) {
          const positionMs = this.positionMs(stream);
          if (ms <= positionMs || (each?.from.get(stream) ?? -Infinity) > positionMs) continue;
          this.pass(stream, ms);
          moved = true;
        }
      }
    }
  }

  /** All up to then has been given, or never can be. */
  pass(stream: StreamId, ms: number): void {
    this.positions.set(stream, Math.max(ms, this.positionMs(stream)));
  }

  /** What has been given twice, and was not confirmed, is not given a third time: the positions move on behind it. */
  moveOn(nowMs: number): Assumed[] {
    if (this.confirmedBy === 'receipt') return [];
    let lastMs = -Infinity;
    const weighed = this.answers.map((answer) => {
      // After a pause of the server, the requests of all that gave up on it meanwhile are answered at once, for nobody.
      const isApart = answer.sentAtMs - lastMs >= restMs;
      lastMs = answer.sentAtMs;
      return { until: answer.until, weight: isApart ? weight(answer, nowMs) : 0 };
    });
    if (weighed.reduce((sum, each) => sum + each.weight, 0) < weightAssumed) return [];
    const assumed: Assumed[] = [];
    for (const stream of new Set(weighed.flatMap(({ until }) => [...until.keys()]))) {
      const afterMs = this.positionMs(stream);
      const given = weighed.filter(({ until }) => (until.get(stream) ?? -Infinity) > afterMs);
      given.sort((a, b) => b.until.get(stream)! - a.until.get(stream)!);
      let sum = 0;
      const enough = given.find((each) => {
        sum += each.weight;
        return sum >= weightAssumed;
      });
      if (enough === undefined) continue;
      const untilMs = enough.until.get(stream)!;
      assumed.push({ stream, afterMs, untilMs });
      this.pass(stream, untilMs);
    }
    this.#forgetPassed();
    return assumed;
  }

  /** As it is now, for {@link startAtOldestOf} of several that change. */
  copy(): Cursor {
    const copy = new Cursor(this.selection, this.address, this.seenAtMs, this.positions, this.confirmedBy);
    copy.answers = [...this.answers];
    return copy;
  }

  /**
   * Starts where the slowest of these is. What any of them has given may be there already, but only the answers of `own` say
   * how often: those of the others may have been another scraper's.
   */
  startAtOldestOf(cursors: readonly Cursor[], own: Cursor): void {
    const positions = new Map<StreamId, number>();
    const given = new Map<StreamId, number>();
    const all = cursors.flatMap((cursor) => [cursor.positions, ...cursor.answers.map(({ until }) => until)]);
    for (const times of all) for (const [stream, ms] of times) given.set(stream, Math.max(ms, given.get(stream) ?? ms));
    for (const stream of given.keys()) {
      const leastMs = Math.min(...cursors.map((cursor) => cursor.positionMs(stream)));
      if (leastMs !== -Infinity) positions.set(stream, leastMs);
    }
    const answers = own.answers.filter(({ until }) => until.size > 0);
    this.answers = [
      { ...givenToSome, until: given },
      ...answers.map((answer) => ({ ...answer, connection: undefined })),
    ];
    this.positions = positions;
    this.#forgetPassed();
  }

  /**
   * The server's wall clock was set, which has happened to the answers already. What was made since has an earlier time than
   * it would have had, where it went back.
   */
  clockStepped(deltaMs: number): void {
    if (deltaMs < 0) for (const stream of this.#streams()) this.#shift(stream, deltaMs);
  }

  /** The times of one stream alone are others than was known. */
  move(stream: StreamId, byMs: number): void {
    this.#shift(stream, byMs);
    // What is between two positions by the clock before may be others by the new one.
    if (this.confirmedBy === 'receipt') this.#forgetGiven(stream);
  }

  #streams(): Set<StreamId> {
    return new Set([...this.positions.keys(), ...this.answers.flatMap(({ until }) => [...until.keys()])]);
  }

  #shift(stream: StreamId, byMs: number): void {
    const moved = (times: Positions) => {
      const ms = times.get(stream);
      return ms === undefined ? times : new Map([...times, [stream, ms + byMs]]);
    };
    this.positions = new Map(moved(this.positions));
    // Where one of these is confirmed later, or assumed to have been read, the position must not pass what comes next.
    for (const answer of this.answers) answer.until = moved(answer.until);
  }

  forget(stream: StreamId): void {
    this.positions.delete(stream);
    this.waitingSince.delete(stream);
    this.isolation.forget(stream);
    this.#forgetGiven(stream);
  }

  #forgetGiven(stream: StreamId): void {
    for (const answer of this.answers) {
      if (answer.until.has(stream)) answer.until = new Map([...answer.until].filter(([each]) => each !== stream));
    }
  }

  /** What says nothing more: never whole, or with nothing in it that is not behind the positions. */
  #forgetPassed(): void {
    this.answers = this.answers.filter(({ state, connection, until, receipt }) => {
      if (state.kind === 'being sent') return true;
      // Also one that gave nothing new shows, when it is confirmed, that its scraper is there.
      if (state.kind === 'unconfirmed' && (connection !== undefined || receipt !== undefined)) return true;
      const isPassed = [...until].every(([stream, ms]) => ms <= this.positionMs(stream));
      if (this.confirmedBy === 'connection') return state.kind !== 'confirmed' && !isPassed;
      return !isPassed && !(state.kind === 'lost' && (state.how === 'refused' || state.how === 'clock'));
    });
    if (this.confirmedBy === 'receipt') this.#keepFew();
    // Where single agents are given in turn, each of many answers may be the only one with its agent.
    else this.answers.splice(0, Math.max(0, this.answers.length - answersMax));
  }

  /** While no receipt can be had, answers become many: two that follow each other are kept as one. */
  #keepFew(): void {
    while (this.answers.length > answersMax) {
      const at = this.answers.findIndex((answer, index) => followsOn(answer, this.answers[index + 1]));
      const [first, second] = at < 0 ? [] : this.answers.slice(at, at + 2);
      if (first?.receipt === undefined || second?.receipt === undefined) {
        const lost = this.answers.findIndex(({ state }) => state.kind === 'lost');
        this.answers.splice(Math.max(0, lost), 1);
        continue;
      }
      const unseen = new Set([...first.receipt.unseen, ...second.receipt.unseen]);
      const from = new Map([...second.receipt.from, ...first.receipt.from]);
      const given = [...new Set([...first.receipt.given, ...second.receipt.given])];
      const samples = first.receipt.samples + second.receipt.samples;
      const reports = first.receipt.reports + second.receipt.reports;
      const until = new Map([...first.until, ...second.until]);
      // As old as the first: questions look back as far.
      const { sentAtMs } = first;
      this.answers.splice(at, 2, {
        ...{ ...second, sentAtMs, until },
        receipt: { ...second.receipt, unseen, from, given, samples, reports },
      });
    }
  }
}

/** Whether both are unconfirmed, and one gives of each stream what comes next after the other, or nothing. */
function followsOn(first: Answer, second: Answer | undefined): boolean {
  if (second?.receipt === undefined || first.receipt === undefined) return false;
  if (first.state.kind !== 'unconfirmed' || second.state.kind !== 'unconfirmed') return false;
  return [...second.receipt.from].every(([stream, ms]) => (first.until.get(stream) ?? ms) === ms);
}

/**
 * Whether this cursor is known to be another scraper's than those beside it. One that came over a second open connection
 * may be the same scraper, whose first connection is dead without a sign.
 */
export type Origin = { readonly kind: 'own' } | { readonly kind: 'beside'; readonly sinceRequest: number };

/** Of an answer, or of one agent in it. */
export interface Amount {
  readonly samples: number;
  /** Of text, about. */
  readonly bytes: number;
  /** Of memory: a decoded report has a place for each series of its schema, also for those that are absent. */
  readonly decodedBytes: number;
}

/** How many samples an answer may have: less for a scraper that has not taken them, never less than comes in. */
export class Pace {
  samplesMax = samplesMaxDefault;
  #most = samplesMaxDefault;
  #least: number = samplesMaxLeast;
  /** The database has refused so many; Infinity: none. Then there is a limit, which may be less than what comes in. */
  #refusedSamples = Infinity;
  #bytesMost = bytesMaxDefault;
  /** Bytes of memory of the decoded reports. An answer that is smaller in this is not sent any sooner. */
  decodedBytesMax = decodedBytesMaxDefault;

  /** Bytes of text: as much more or less than usual as samples. */
  get bytesMax(): number {
    return Math.max(limits.reportTextBytesMax, (this.#bytesMost * this.samplesMax) / this.#most);
  }

  /** So many samples have been made between two scrapes, which come to so many bytes, as text and in memory. */
  arrived({ samples, bytes, decodedBytes }: Amount): void {
    this.#bytesMost = Math.max(bytesMaxDefault, 3 * bytes);
    this.decodedBytesMax = Math.max(decodedBytesMaxDefault, 3 * decodedBytes);
    this.#most = Math.max(samplesMaxDefault, 3 * samples);
    this.#least = Math.max(samplesMaxLeast, 3 * samples);
    const least = this.#refusedSamples === Infinity ? this.#least : 0;
    this.samplesMax = Math.min(this.#most, Math.max(least, this.samplesMax));
  }

  /** An answer was taken; of how many samples, where that is known. */
  widen(samples = this.samplesMax): void {
    if (this.#refusedSamples === Infinity) this.samplesMax = Math.min(this.#most, this.samplesMax * 2);
    else if (samples * 2 >= this.samplesMax) this.#widenBelowLimit();
  }

  halve(): void {
    if (this.#refusedSamples === Infinity) this.samplesMax = Math.max(this.#least, Math.floor(this.samplesMax / 2));
  }

  /**
   * The database has refused an answer of so many: of them all, for some limit of its own. Others of that size may be on
   * their way.
   */
  refused(samples: number): void {
    this.#refusedSamples = Math.min(this.#refusedSamples, samples);
    this.samplesMax = Math.max(1, Math.min(this.samplesMax, Math.floor(samples / 2)));
  }

  /** As if nothing had been refused. */
  reset(): void {
    this.#refusedSamples = Infinity;
    this.samplesMax = this.#most;
  }

  /** By twofold where that is far from what was refused, else by little. The limit may be gone, so it is tried again. */
  #widenBelowLimit(): void {
    this.#refusedSamples *= 1.02;
    const factor = this.samplesMax * 4 <= this.#refusedSamples ? 2 : 1.1;
    this.samplesMax = Math.min(this.#most, Math.ceil(this.samplesMax * factor));
    if (this.samplesMax === this.#most) this.#refusedSamples = Infinity;
  }
}

/** 29 MB of text, about a second. */
export const samplesMaxDefault = 300_000;
/** Twice that. */
export const bytesMaxDefault = 64 * 1024 * 1024;
/** Three times the samples, with 9 bytes each. */
export const decodedBytesMaxDefault = 8 * 1024 * 1024;
// 70 KB of text. A single report that is larger is given all the same.
const samplesMaxLeast = 1000;
const answersMax = 32;

/** Of an answer that nobody waits for any more. */
export const never = [Infinity, Infinity] as const;
// A client's clock begins before its request is here, and its close takes a while to come.
const lateMs = 1500;

// Counts for nothing.
const givenToSome: Omit<Answer, 'until'> = {
  ...{
    state: { kind: 'lost', how: 'aborted' },
    connection: undefined,
    request: -1,
    givesUpMs: never,
    sentAtMs: -Infinity,
    samples: 0,
    receipt: undefined,
  },
};
