import type { Recording } from '../../model/recording.ts';
import type { EpochSeq } from '../../protocol/message.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { LoadedSegment, SpoolFiles } from './mirror.ts';
import { RecordingEncoder, type SchemaChange } from './recording-encoder.ts';
import { SpoolCursor } from './replay.ts';
import { Segment, type SpoolEpoch, type SpooledFrame } from './segment.ts';

/** Why a report was given up: the spool was full, the report too old, or its file was damaged. */
export type DropReason = 'full' | 'age' | 'disk';

/** What the spool counts; the agent shows it as metrics. */
export interface SpoolCounters {
  reportsSampled: number;
  readonly reportsDropped: Record<DropReason, number>;
  /** Made and not freed by the server. */
  spoolReports: number;
  spoolBytes: number;
}

export interface SpoolBounds {
  readonly bytesMax: number;
  readonly ageMsMax: number;
}

export interface SpoolOptions {
  readonly clock: Clock;
  readonly bounds: SpoolBounds;
  readonly counters: SpoolCounters;
  readonly log: Log;
  /** Where everything is mirrored to; without it a restart loses what waits. */
  readonly files?: SpoolFiles;
}

/**
 * The reports that the server has not freed, as frames, in the order in which they were made.
 *
 *     | segment | segment | segment | open segment      |
 *       ^ freed or dropped from here        appended here ^
 *                     ^ a cursor sends from anywhere; it removes nothing
 *
 * `append` encodes at once. Only `acknowledge` frees, by whole segments. When the bounds are reached the oldest segment
 * is dropped, and what it held is counted. Memory holds everything; the files are a mirror of it.
 */
export class Spool {
  readonly #clock: Clock;
  readonly #bounds: SpoolBounds;
  readonly #counters: SpoolCounters;
  readonly #log: Log;
  readonly #files: SpoolFiles | undefined;
  readonly #encoder = new RecordingEncoder();
  readonly #listeners = new Set<() => void>();
  #epochs: SpoolEpoch[] = [];
  #segments: Segment[] = [];
  #epoch: SpoolEpoch | undefined;
  /** The segment that is appended to: the last one, or none. */
  #open: Segment | undefined;
  #serverAheadMs: number | undefined;
  #nextNumber = 1;
  #bytes = 0;
  #tooSmallToldAtMs = Number.NEGATIVE_INFINITY;
  #housekeeping: Timer | undefined;
  #appendedAtMs: number;
  /** When the first report was made that was not synced; undefined where there is none. */
  #unsyncedSinceMs: number | undefined;

  constructor(options: SpoolOptions) {
    this.#clock = options.clock;
    this.#bounds = options.bounds;
    this.#counters = options.counters;
    this.#log = options.log;
    this.#files = options.files;
    this.#appendedAtMs = options.clock.monotonicMs();
    if (this.#files !== undefined) this.#restore(this.#files.load());
    this.#planHousekeeping();
  }

  /** The running epoch, undefined before the first. */
  get epoch(): SpoolEpoch | undefined {
    return this.#epoch;
  }
  /** All epochs of which something is held, and the running one, oldest first. */
  get epochs(): readonly SpoolEpoch[] {
    return this.#epochs;
  }
  /** By how much the server was ahead of boot time when an epoch of this run was last settled by more than a guess. */
  get serverAheadMs(): number | undefined {
    return this.#serverAheadMs;
  }
  get segments(): readonly Segment[] {
    return this.#segments;
  }
  get bytes(): number {
    return this.#bytes;
  }
  /** Reports that the server has not freed. */
  get waitingCount(): number {
    return this.#counters.spoolReports;
  }
  /** The time of the oldest report that the server has not freed, undefined where none waits. */
  get oldestWaitingMs(): number | undefined {
    const segment = this.#segments.find(({ waitingCount }) => waitingCount > 0);
    return segment?.timeOf(segment.lastSeq - segment.waitingCount + 1);
  }
  /** Segments that the disk does not hold whole. 0 without files. */
  get unmirroredCount(): number {
    return this.#files?.missingCount(this.#segments) ?? 0;
  }

  /**
   * Begins an epoch: reports count from 1 again, and times are by a new clock. `baseMs` is what that clock shows at boot
   * time 0 (see epoch-clock.ts).
   */
  begin({ epoch, baseMs }: { epoch: number; baseMs: number }): void {
    this.#epoch = {
      id: epoch,
      baseMs,
      offsetMs: undefined,
      lastSeq: 0,
      lastTimeMs: Number.NEGATIVE_INFINITY,
      acknowledgedSeq: 0,
    };
    this.#epochs.push(this.#epoch);
    this.#seal();
    this.#encoder.reset();
    this.#forgetEmptyEpochs();
  }

  /** Takes a report of the running epoch. Its time is moved up where it would not be later than the one before. */
  append(recording: Recording, timeMs: number): void {
    const epoch = this.#epoch;
    if (epoch === undefined) throw new Error('spool: append before begin');
    const change = this.#encoder.change(recording);
    if (this.#open === undefined || change === 'new' || this.#isFull(this.#open)) this.#openSegment(epoch, change);
    const seq = epoch.lastSeq + 1;
    epoch.lastSeq = seq;
    epoch.lastTimeMs = Math.max(timeMs, epoch.lastTimeMs + 1);
    for (const frame of this.#encoder.encode(recording, { seq, timeMs: epoch.lastTimeMs })) this.#push(frame);
    this.#counters.reportsSampled++;
    if (this.#isSyncDue()) {
      this.#keepHouse();
    } else {
      this.#dropBeyondBounds();
      this.#files?.catchUp(this.#segments);
      this.#count();
    }
    for (const listener of this.#listeners) listener();
  }

  /** Calls after each append, until what it returns is called. */
  onAppend(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Settles what the server adds to the times of an epoch: once and for good. It is on disk when this returns, if the
   * disk can be written at all: a report that is sent again after a power cut must not get another time.
   */
  settle(epoch: SpoolEpoch, offsetMs: number, { isGuess = false } = {}): void {
    if (epoch.offsetMs !== undefined) throw new Error(`spool: the offset of epoch ${epoch.id} is settled already`);
    epoch.offsetMs = offsetMs;
    if (epoch.baseMs !== undefined && !isGuess) this.#serverAheadMs = epoch.baseMs + offsetMs;
    this.#files?.catchUp(this.#segments);
    this.#files?.sync(this.#segments);
  }

  /** Frees an epoch up to and including `seq`, and every epoch before it. An epoch that is not known frees nothing. */
  acknowledge(epoch: number, seq: number): void {
    const at = this.#epochs.findIndex(({ id }) => id === epoch);
    if (at < 0) return;
    for (const older of this.#epochs.slice(0, at)) older.acknowledgedSeq = older.lastSeq;
    const acknowledged = this.#epochs[at]!;
    acknowledged.acknowledgedSeq = Math.max(acknowledged.acknowledgedSeq, Math.min(seq, acknowledged.lastSeq));
    while (this.#segments.length > 0 && this.#segments[0] !== this.#open && this.#segments[0]!.waitingCount === 0) {
      this.#removeOldest();
    }
    this.#forgetEmptyEpochs();
    this.#count();
  }

  /** What a server that has received this much has to be sent, and then everything that comes. */
  replay(received: readonly EpochSeq[]): SpoolCursor {
    return new SpoolCursor(this, received);
  }

  /** The last bytes reach the disk; nothing is appended afterwards. */
  close(): void {
    this.#housekeeping?.cancel();
    this.#files?.catchUp(this.#segments);
    this.#files?.sync(this.#segments);
  }

  #openSegment(epoch: SpoolEpoch, change: SchemaChange): void {
    // Only a segment that was full ends without the schema or the epoch having changed. Whoever has read it to its end
    // then needs no second begin, nor the schema once more.
    const continues = this.#open !== undefined && change === 'none';
    this.#seal();
    this.#encoder.reset();
    this.#open = new Segment({ number: this.#nextNumber++, epoch, continues });
    this.#segments.push(this.#open);
  }

  #push(frame: SpooledFrame): void {
    const segment = this.#open!;
    this.#bytes -= segment.heldBytes;
    segment.push(frame, this.#clock.monotonicMs());
    this.#bytes += segment.heldBytes;
  }

  #seal(): void {
    this.#open?.seal();
    this.#open = undefined;
  }

  #isFull(segment: Segment): boolean {
    const spanMs = this.#clock.monotonicMs() - segment.oldestAtMs;
    if (spanMs > Math.max(segmentSpanMsMin, this.#bounds.ageMsMax / 16)) return true;
    const bodyBytes = segment.heldBytes - segment.headBytes;
    if (segment.heldBytes <= segmentBytesMax(this.#bounds)) return false;
    // A schema may be as big as a segment: it is to be the smaller part, as long as two segments fit.
    return bodyBytes >= segment.headBytes || segment.heldBytes > this.#bounds.bytesMax / 2;
  }

  #dropBeyondBounds(): void {
    const bornBeforeMs = this.#clock.monotonicMs() - this.#bounds.ageMsMax;
    const { length } = this.#segments;
    while (this.#segments.length > 0 && this.#segments[0]!.newestAtMs < bornBeforeMs) this.#drop('age');
    while (this.#segments.length > 0 && this.#bytes > this.#bounds.bytesMax) {
      if (this.#segments.length === 1) this.#tellTooSmall(this.#segments[0]!);
      this.#drop('full');
    }
    if (this.#segments.length < length) this.#forgetEmptyEpochs();
  }

  #drop(reason: DropReason): void {
    this.#counters.reportsDropped[reason] += this.#segments[0]!.waitingCount;
    this.#removeOldest();
  }

  #removeOldest(): void {
    const segment = this.#segments.shift()!;
    if (segment === this.#open) this.#open = undefined;
    segment.markRemoved();
    this.#bytes -= segment.heldBytes;
    this.#files?.remove(segment);
  }

  #forgetEmptyEpochs(): void {
    const held = new Set(this.#segments.map(({ epoch }) => epoch));
    this.#epochs = this.#epochs.filter((epoch) => epoch === this.#epoch || held.has(epoch));
  }

  #tellTooSmall(segment: Segment): void {
    if (this.#clock.monotonicMs() - this.#tooSmallToldAtMs < tellEveryMs) return;
    this.#tooSmallToldAtMs = this.#clock.monotonicMs();
    this.#log.warn(
      `the spool holds ${this.#bounds.bytesMax} bytes at most, and ${segment.waitingCount} reports with their schema take ` +
        `${segment.heldBytes}: dropping them; a larger --spool.max-bytes keeps them`,
    );
  }

  #count(): void {
    this.#counters.spoolBytes = this.#bytes;
    this.#counters.spoolReports = this.#segments.reduce((sum, segment) => sum + segment.waitingCount, 0);
  }

  /**
   * Whether the next report, if it comes as long after this one as this one came after the last, comes too late to sync
   * with. So a sync goes with a report, and seldom needs a timer, for which the process would be woken once more.
   */
  #isSyncDue(): boolean {
    const nowMs = this.#clock.monotonicMs();
    const nextMs = 2 * nowMs - this.#appendedAtMs;
    this.#appendedAtMs = nowMs;
    const isFirst = this.#unsyncedSinceMs === undefined;
    this.#unsyncedSinceMs ??= nowMs;
    if (nextMs + syncMarginMs >= this.#unsyncedSinceMs + syncEveryMs) return true;
    if (isFirst) this.#planHousekeeping();
    return false;
  }

  #keepHouse(): void {
    this.#dropBeyondBounds();
    this.#files?.catchUp(this.#segments);
    this.#files?.sync(this.#segments);
    this.#count();
    this.#unsyncedSinceMs = undefined;
    this.#planHousekeeping();
  }

  #planHousekeeping(): void {
    this.#housekeeping?.cancel();
    this.#housekeeping = this.#clock.after(syncEveryMs, () => this.#keepHouse());
  }

  #restore(loaded: readonly LoadedSegment[]): void {
    const epochs = new Map<number, SpoolEpoch>();
    for (const file of loaded) {
      const epoch = epochs.get(file.epoch) ?? restoredEpoch(file);
      epochs.set(file.epoch, epoch);
      this.#countLost(epoch, file);
      epoch.offsetMs ??= file.offsetMs;
      epoch.acknowledgedSeq = Math.max(epoch.acknowledgedSeq, file.acknowledgedSeq);
      const segment = new Segment({ number: file.number, epoch, continues: file.continues });
      for (const frame of file.frames) segment.push(frame, this.#madeAtMs(frame.timeMs));
      segment.seal();
      epoch.lastSeq = segment.lastSeq;
      this.#segments.push(segment);
      this.#bytes += segment.heldBytes;
      this.#files!.adopt(segment, file);
    }
    this.#epochs = [...epochs.values()];
    this.#nextNumber = this.#files!.nextNumber;
    while (this.#segments.length > 0 && this.#segments[0]!.waitingCount === 0) this.#removeOldest();
    this.#dropBeyondBounds();
    this.#count();
  }

  /** Between two files of an epoch every report is there, unless the end of the first was cut off or it is gone. */
  #countLost(epoch: SpoolEpoch, file: LoadedSegment): void {
    if (epoch.lastSeq === 0) return;
    const last = Math.max(epoch.lastSeq, epoch.acknowledgedSeq);
    this.#counters.reportsDropped.disk += Math.max(0, file.firstSeq - last - 1);
  }

  /** A report of an earlier run is as old as the wall clock says: the monotonic clock has begun anew. */
  #madeAtMs(timeMs: number): number {
    return this.#clock.monotonicMs() - Math.max(0, this.#clock.nowMs() - timeMs);
  }
}

// What a power cut may cost, and how soon what has become too old goes.
const syncEveryMs = 10_000;
// A tick may come late by this much and still be in time to sync.
const syncMarginMs = 1000;
const tellEveryMs = 60_000;
// Below it a short age would make a segment, with its schema, of every few reports.
const segmentSpanMsMin = 60_000;

/** A sixteenth of the spool is what one drop costs at most; above 1 MiB a segment saves no schema worth the name. */
function segmentBytesMax({ bytesMax }: SpoolBounds): number {
  return Math.max(65_536, Math.min(1_048_576, bytesMax / 16));
}

function restoredEpoch(file: LoadedSegment): SpoolEpoch {
  return {
    id: file.epoch,
    baseMs: undefined,
    offsetMs: undefined,
    lastSeq: 0,
    lastTimeMs: Number.NEGATIVE_INFINITY,
    acknowledgedSeq: 0,
  };
}
