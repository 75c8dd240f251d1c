import { encodeMessage } from '../../protocol/codec.ts';
import { encodeFrame } from '../../protocol/frame.ts';
import type { EpochSeq } from '../../protocol/messages.ts';
import type { Receiver } from './receiver.ts';
import { frameKind, type Segment, type SpoolEpoch } from './segment.ts';

/** What a connection has to do next to be up to date. */
export type ReplayStep =
  | { readonly kind: 'send'; readonly bytes: Uint8Array; readonly reportCount: number }
  /** The receiver's offset of this epoch has to be fixed before the epoch can begin. */
  | { readonly kind: 'fix offset'; readonly epoch: SpoolEpoch }
  /** Everything has been sent: wait for the next append. */
  | { readonly kind: 'wait' };

interface Place {
  readonly segment: Segment;
  /** The report to start from: of what stands before it only the schema frames go out. */
  readonly keyIndex: number;
  /** The next frame that goes out. */
  index: number;
}

/**
 * One connection's way through the spool: for each epoch, from the oldest, what the server lacks, then what comes.
 * It removes nothing. Where the segment that it reads is freed or dropped, it goes on with the next one.
 */
export class Replay {
  readonly #segments: () => readonly Segment[];
  readonly #receiver: Receiver;
  readonly #received: ReadonlyMap<number, number>;
  #place: Place | undefined;
  /** Where the last segment was read to its end: the one that continues it needs no begin. */
  #finished: Segment | undefined;
  #segmentNumber = 0;

  /** `received`: what the server has said in its welcome. */
  constructor(options: {
    readonly segments: () => readonly Segment[];
    readonly receiver: Receiver;
    readonly received: readonly EpochSeq[];
  }) {
    this.#segments = options.segments;
    this.#receiver = options.receiver;
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
    // An epoch of an earlier run whose offset was never fixed has none: its clock is gone.
    const offsetMs = this.#receiver.offsetsMs.get(epoch.id) ?? (epoch.baseMs === undefined ? 0 : undefined);
    if (offsetMs === undefined) return { kind: 'fix offset', epoch };
    const keyIndex = segment.keyFor(this.#lastSentOf(segment) + 1);
    const continues = this.#finished !== undefined && isContinuation(this.#finished, segment);
    this.#finished = undefined;
    this.#segmentNumber = segment.number;
    this.#place = { segment, keyIndex, index: continues ? keyIndex : 0 };
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
    const to = segment.pieceEnd(from, { before: runEnd(place), bytesMax });
    place.index = to;
    return { kind: 'send', bytes: segment.piece(from, to), reportCount: reportsIn(segment, from, to) };
  }

  #lacksOf(segment: Segment): boolean {
    return segment.lastSeq > this.#lastHeldOf(segment);
  }

  /** The last report of a segment that the server has, by its welcome or its acknowledgements. */
  #lastHeldOf(segment: Segment): number {
    const received = Math.min(this.#received.get(segment.epoch.id) ?? 0, segment.lastSeq);
    return Math.max(received, this.#receiver.acknowledgedIn(segment));
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
