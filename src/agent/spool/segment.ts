import type { Source } from '../../model/source.ts';
import { frameHeaderBytes } from '../../protocol/frame.ts';

/** One run of the agent on one clock. The spool alone changes it. */
export interface SpoolEpoch {
  readonly id: number;
  /** The epoch's clock at boot time 0, undefined for an epoch of an earlier run. */
  readonly baseMs: number | undefined;
  /** The last report made, 0 for none. */
  lastSeq: number;
  /** The time of that report. */
  lastTimeMs: number;
}

/** The kind of a frame in the spool, a byte on disk, whose meaning never changes. */
export const frameKind = { schema: 1, key: 2, delta: 3 } as const;
export type FrameKind = (typeof frameKind)[keyof typeof frameKind];

/** One frame: its payload is sent as it is, after its length. */
export interface SpooledFrame {
  readonly kind: FrameKind;
  /** 0 for a schema frame. */
  readonly seq: number;
  /** 0 for a schema frame. */
  readonly timeMs: number;
  readonly payload: Uint8Array;
}

/** What a frame costs beside its own bytes, in the index here and in the record's header on disk. */
export const frameOverheadBytes = 32;

/**
 * A run of frames that can be read on its own: every schema frame that it needs, a key report, and what followed.
 *
 *     | schema … schema | key | delta … delta | schema | key | delta … |
 *     '---- head -------'
 *
 * The frames lie one after another in one array, each behind its length, exactly as they go out on the line: a replay
 * sends pieces of it as they are. Bytes once written never change, so a piece handed out stays valid.
 */
export class Segment {
  /** Its place in the spool's order: each new segment has a higher one. */
  readonly number: number;
  readonly epoch: SpoolEpoch;
  /** The source of its reports, with the labels of then: a restart with other labels does not change them. */
  readonly source: Source;
  /** The schema at its start is the one at the end of the segment before it, which was full. */
  readonly continues: boolean;
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #ends: number[] = [];
  readonly #kinds: FrameKind[] = [];
  readonly #seqs: number[] = [];
  readonly #timesMs: number[] = [];
  #firstSeq = 0;
  #lastSeq = 0;
  #headBytes = 0;
  #oldestAtMs = 0;
  #newestAtMs = 0;
  #removed = false;

  constructor(options: { number: number; epoch: SpoolEpoch; source: Source; continues: boolean }) {
    this.number = options.number;
    this.epoch = options.epoch;
    this.source = options.source;
    this.continues = options.continues;
  }

  get frameCount(): number {
    return this.#ends.length;
  }
  /** What it costs, in memory as on disk. */
  get heldBytes(): number {
    return this.#frameBytes + this.#ends.length * frameOverheadBytes;
  }
  /** The part of `heldBytes` before the first report. */
  get headBytes(): number {
    return this.#headBytes;
  }
  /** 0 while it holds no report. */
  get firstSeq(): number {
    return this.#firstSeq;
  }
  get lastSeq(): number {
    return this.#lastSeq;
  }
  /** When the oldest report was made, on the monotonic clock. */
  get oldestAtMs(): number {
    return this.#oldestAtMs;
  }
  /** When the newest report was made, on the monotonic clock. */
  get newestAtMs(): number {
    return this.#newestAtMs;
  }
  /** Freed or dropped: a reader goes on with the next. */
  get removed(): boolean {
    return this.#removed;
  }
  push(frame: SpooledFrame, madeAtMs: number): void {
    this.#makeRoom(frameHeaderBytes + frame.payload.length);
    const start = this.#frameBytes;
    const { length } = frame.payload;
    this.#bytes[start] = length >>> 24;
    this.#bytes[start + 1] = length >>> 16;
    this.#bytes[start + 2] = length >>> 8;
    this.#bytes[start + 3] = length;
    this.#bytes.set(frame.payload, start + frameHeaderBytes);
    this.#ends.push(start + frameHeaderBytes + length);
    this.#kinds.push(frame.kind);
    this.#seqs.push(frame.seq);
    this.#timesMs.push(frame.timeMs);
    if (frame.kind === frameKind.schema) {
      if (this.#lastSeq === 0) this.#headBytes = this.heldBytes;
      return;
    }
    if (this.#firstSeq === 0) {
      this.#firstSeq = frame.seq;
      this.#oldestAtMs = madeAtMs;
    }
    this.#lastSeq = frame.seq;
    this.#newestAtMs = madeAtMs;
  }

  frame(index: number): SpooledFrame {
    return {
      kind: this.#kinds[index]!,
      seq: this.#seqs[index]!,
      timeMs: this.#timesMs[index]!,
      payload: this.#bytes.subarray(this.#start(index) + frameHeaderBytes, this.#ends[index]),
    };
  }

  payloadBytes(index: number): number {
    return this.#ends[index]! - this.#start(index) - frameHeaderBytes;
  }

  kind(index: number): FrameKind {
    return this.#kinds[index]!;
  }

  seq(index: number): number {
    return this.#seqs[index]!;
  }

  /** The time of a report of this segment, by the clock of its epoch. */
  timeOf(seq: number): number {
    return this.#timesMs[this.#seqs.indexOf(seq)]!;
  }

  /** How many reports are at frame `index` and after it. */
  reportsFrom(index: number): number {
    let count = 0;
    for (let at = index; at < this.frameCount; at++) if (this.#kinds[at] !== frameKind.schema) count++;
    return count;
  }

  /** The frames from `from` to before `to` as they go out, in one piece. */
  piece(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(this.#start(from), this.#start(to));
  }

  /**
   * Where a piece from `from` that stays before `before` and is at most `bytesMax` long ends: one frame at the least.
   */
  pieceEnd(from: number, { before, bytesMax }: { before: number; bytesMax: number }): number {
    let to = from + 1;
    const start = this.#start(from);
    while (to < before && this.#ends[to]! - start <= bytesMax) to++;
    return to;
  }

  /** The index of the last key at or before report `seq`, or of the first key where all are later. */
  keyFor(seq: number): number {
    let found = -1;
    for (let index = 0; index < this.frameCount; index++) {
      if (this.#kinds[index] !== frameKind.key) continue;
      if (found >= 0 && this.#seqs[index]! > seq) break;
      found = index;
    }
    return found;
  }

  /** The segment is complete: frees what was allocated ahead. */
  seal(): void {
    if (this.#bytes.length > this.#frameBytes) this.#bytes = this.#bytes.slice(0, this.#frameBytes);
  }

  markRemoved(): void {
    this.#removed = true;
  }

  get #frameBytes(): number {
    return this.#ends.at(-1) ?? 0;
  }

  #start(index: number): number {
    return index === 0 ? 0 : this.#ends[index - 1]!;
  }

  #makeRoom(bytes: number): void {
    const needed = this.#frameBytes + bytes;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length + growthBytes));
    grown.set(this.#bytes.subarray(0, this.#frameBytes));
    this.#bytes = grown;
  }
}

// Some 90 reports of 800 series. Doubling would hold up to half a segment of nothing; a segment of 1 MiB is copied 16
// times in its life of two hours.
const growthBytes = 65_536;
