import { decodeAgentMessage, encodeMessage } from '../../protocol/codec.ts';
import { applyPairs, encodeKey } from '../../protocol/delta.ts';
import { encodeFrame } from '../../protocol/frame.ts';
import type { EpochSeq } from '../../protocol/messages.ts';
import type { Receiver } from './receiver.ts';
import { frameKind, type Segment, type SpoolEpoch } from './segment.ts';

/** What a connection has to do next. */
export type ReplayStep =
  | { readonly kind: 'send'; readonly bytes: Uint8Array; readonly reportCount: number }
  /** The receiver's offset of this epoch has to be fixed before the epoch can begin. */
  | { readonly kind: 'fix offset'; readonly epoch: SpoolEpoch }
  /** Everything has been sent: wait for the next append. */
  | { readonly kind: 'wait' };

interface Place {
  readonly segment: Segment;
  /** The report to start from: of the frames before it only schema frames are sent. */
  readonly keyIndex: number;
  /** That report as a key, if the report that it builds on is not sent. */
  readonly key: Uint8Array | undefined;
  /** The next frame to send. */
  index: number;
}

/**
 * One connection's position in the spool: for each epoch, from the oldest, it gives what the server lacks, then new
 * reports. It removes nothing. If the segment that it reads is freed or dropped, it continues with the next one.
 */
export class Replay {
  readonly #segments: () => readonly Segment[];
  readonly #receiver: Receiver;
  readonly #received: ReadonlyMap<number, number>;
  readonly #skipped: readonly EpochSeq[];
  #place: Place | undefined;
  /** Where the last segment was read to its end: the one that continues it needs no begin. */
  #finished: Segment | undefined;
  #segmentNumber = 0;

  /** `received`: what the server has said in its welcome. `skipped`: reports that are not sent. */
  constructor(options: {
    readonly segments: () => readonly Segment[];
    readonly receiver: Receiver;
    readonly received: readonly EpochSeq[];
    readonly skipped?: readonly EpochSeq[];
  }) {
    this.#segments = options.segments;
    this.#receiver = options.receiver;
    this.#skipped = options.skipped ?? [];
    this.#received = new Map(options.received.map(({ epoch, seq }) => [epoch, seq]));
  }

  /** Reports that have not been sent. */
  get unsentCount(): number {
    let count = 0;
    for (const segment of this.#segments()) {
      const left = segment.number <= this.#segmentNumber && segment !== this.#place?.segment;
      if (!left && segment.lastSeq > 0) count += segment.lastSeq - this.#lastSentOf(segment);
    }
    return count;
  }

  /** The first report that the server lacks, and its time; undefined where it lacks none. */
  get first(): (EpochSeq & { readonly timeMs: number }) | undefined {
    const segment = this.#segments().find((each) => this.#lacksOf(each));
    if (segment === undefined) return undefined;
    const seq = this.#lastHeldOf(segment) + 1;
    return { epoch: segment.epoch.id, seq, timeMs: segment.timeOf(seq) };
  }

  /** The next step. A piece to send is at most `bytesMax` long, or a single frame. */
  next(bytesMax: number): ReplayStep {
    const place = this.#place;
    if (place === undefined) return this.#enter(bytesMax);
    const { segment } = place;
    const atEnd = place.index === segment.frameCount;
    if (atEnd && !segment.removed && segment === this.#segments().at(-1)) return { kind: 'wait' };
    if (atEnd || segment.removed) {
      this.#finished = atEnd ? segment : undefined;
      this.#place = undefined;
      return this.#enter(bytesMax);
    }
    return this.#send(place, bytesMax);
  }

  /** The next segment of which the server lacks something: its begin, or, where it continues one, its first key. */
  #enter(bytesMax: number): ReplayStep {
    const segment = this.#segments().find((each) => each.number > this.#segmentNumber && this.#lacksOf(each));
    if (segment === undefined) return { kind: 'wait' };
    const { epoch } = segment;
    const offsetMs = this.#receiver.offsetsMs.get(epoch.id);
    if (offsetMs === undefined) return { kind: 'fix offset', epoch };
    const { keyIndex, key } = this.#startIn(segment);
    const continues = this.#finished !== undefined && isContinuation(this.#finished, segment);
    this.#finished = undefined;
    this.#segmentNumber = segment.number;
    this.#place = { segment, keyIndex, key, index: continues ? segment.keyFor(segment.firstSeq) : 0 };
    if (continues) return this.#send(this.#place, bytesMax);
    const { id: source, name, intervalMs, labels } = segment.source;
    const begin = encodeFrame(
      encodeMessage({ kind: 'begin', epoch: epoch.id, source, name, intervalMs, labels, offsetMs }),
    );
    return { kind: 'send', bytes: begin, reportCount: 0 };
  }

  #send(place: Place, bytesMax: number): ReplayStep {
    const { segment, keyIndex } = place;
    while (place.index < keyIndex && segment.kind(place.index) !== frameKind.schema) place.index++;
    const from = place.index;
    if (from === keyIndex && place.key !== undefined) {
      place.index++;
      return { kind: 'send', bytes: place.key, reportCount: 1 };
    }
    const to = segment.pieceEnd(from, { before: runEnd(place), bytesMax });
    place.index = to;
    return { kind: 'send', bytes: segment.piece(from, to), reportCount: reportsIn(segment, from, to) };
  }

  /**
   * The report from which a segment is sent: the last key before what the server lacks, unless a skipped one is
   * between.
   */
  #startIn(segment: Segment): Pick<Place, 'keyIndex' | 'key'> {
    const first = this.#lastSentOf(segment) + 1;
    const keyIndex = segment.keyFor(first);
    const from = segment.seq(keyIndex);
    const isInTheWay = ({ epoch, seq }: EpochSeq) => epoch === segment.epoch.id && seq >= from && seq < first;
    if (!this.#skipped.some(isInTheWay)) return { keyIndex, key: undefined };
    let index = keyIndex;
    while (segment.kind(index) === frameKind.schema || segment.seq(index) < first) index++;
    return { keyIndex: index, key: asKey(segment, keyIndex, index) };
  }

  #lacksOf(segment: Segment): boolean {
    return segment.lastSeq > this.#lastHeldOf(segment);
  }

  /** The last report of a segment that the server has, by its welcome or its acknowledgements. */
  #lastHeldOf(segment: Segment): number {
    const received = Math.min(this.#received.get(segment.epoch.id) ?? 0, segment.lastSeq);
    let seq = Math.max(received, this.#receiver.acknowledgedIn(segment));
    while (this.#skipped.some((skipped) => skipped.epoch === segment.epoch.id && skipped.seq === seq + 1)) seq++;
    return seq;
  }

  /** The last report of a segment that needs not be sent (again). */
  #lastSentOf(segment: Segment): number {
    const before = this.#lastHeldOf(segment);
    if (this.#place?.segment !== segment) return before;
    for (let index = this.#place.index - 1; index >= this.#place.keyIndex; index--) {
      if (segment.kind(index) !== frameKind.schema) return Math.max(before, segment.seq(index));
    }
    return before;
  }
}

/** The report of a frame as a key, by way of those from the key at `keyIndex` on. */
function asKey(segment: Segment, keyIndex: number, index: number): Uint8Array {
  const state = { sums: new Float64Array(0), present: new Uint8Array(0) };
  for (let at = 0; at <= index; at++) {
    if (at < keyIndex && segment.kind(at) !== frameKind.schema) continue;
    const message = decodeAgentMessage(segment.frame(at).payload);
    if (message.kind === 'schema') {
      const count = message.groups.reduce((sum, { seriesCount }) => sum + seriesCount, state.sums.length);
      state.sums = resized(state.sums, new Float64Array(count));
      state.present = resized(state.present, new Uint8Array(count));
    } else if (message.kind === 'report') {
      applyPairs(state, state.sums.length, message.key, message.pairs);
      if (at === index) return encodeFrame(encodeMessage({ ...message, key: true, pairs: encodeKey(state) }));
    }
  }
  throw new Error(`spool: frame ${index} of segment ${segment.number} is no report`);
}

function resized<T extends Float64Array | Uint8Array>(before: T, after: T): T {
  after.set(before);
  return after;
}

/** Whether a server that has read `before` to its end can read `next` from its first key on, without a begin. */
function isContinuation(before: Segment, next: Segment): boolean {
  return next.continues && next.epoch === before.epoch && next.firstSeq === before.lastSeq + 1;
}

/** The end of the run of frames that go out one after another: up to the key these are schema frames. */
function runEnd({ segment, keyIndex, index }: Place): number {
  if (index >= keyIndex) return segment.frameCount;
  let end = index + 1;
  while (end < keyIndex && segment.kind(end) === frameKind.schema) end++;
  return end;
}

function reportsIn(segment: Segment, from: number, to: number): number {
  let count = 0;
  for (let index = from; index < to; index++) if (segment.kind(index) !== frameKind.schema) count++;
  return count;
}
