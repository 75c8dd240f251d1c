import type { Recording } from '../../model/recording.ts';
import type { Source } from '../../model/source.ts';
import type { EpochSeq } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import { bytesText, durationText, isoTime, mebibytesText, plural } from '../../runtime/words.ts';
import type { DiskState } from './disk-health.ts';
import type { LoadedSegment, Mirror, MirrorClosed } from './mirror.ts';
import { Receiver, type ReceiverState } from './receiver.ts';
import { RecordingEncoder, type SchemaChange } from './recording-encoder.ts';
import { Replay } from './replay.ts';
import { Segment, type SpoolEpoch, type SpooledFrame } from './segment.ts';

/** Why reports were dropped: the spool was full, they were too old, or their file was damaged. */
export type DropReason = 'full' | 'age' | 'disk';

/** Reports that were dropped, and the times of the first and the last of them, by this host's clock. */
export interface Drop {
  readonly reason: DropReason;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
}

/** One line for the log, with what keeps it from happening again. */
export function dropText({ reason, count, firstMs, lastMs }: Drop, { bytesMax, ageMsMax }: SpoolBounds): string {
  const remedies: Record<DropReason, string> = {
    full: `the spool is full (${bytesText(bytesMax)}); a larger --spool.max-bytes keeps more`,
    age: `older than ${durationText(ageMsMax)}; a larger --spool.max-age keeps them`,
    disk: 'their file was damaged; look at the disk',
  };
  return `dropped ${plural(count, 'report')} of ${isoTime(firstMs)} to ${isoTime(lastMs)}: ${remedies[reason]}`;
}

/** A warning if a spool of this size does not fit into the memory that the process may have. */
export function spoolMemoryWarning({ bytesMax }: SpoolBounds, limitBytes: number | undefined): string | undefined {
  // Measured, from 1 to 200 MiB: what an agent takes without a spool, and each byte with what it costs to keep it.
  const neededBytes = 70 * 1024 ** 2 + 1.1 * bytesMax;
  if (limitBytes === undefined || limitBytes >= neededBytes) return undefined;
  return (
    `--spool.max-bytes: with a full spool of ${bytesText(bytesMax)} the agent takes ${mebibytesText(neededBytes)} of memory, ` +
    `and the limit is ${mebibytesText(limitBytes)}: raise MemoryMax= of its unit`
  );
}

/** What the spool counts; the agent shows it as metrics. */
export interface SpoolCounters {
  reportsSampled: number;
  readonly reportsDropped: Record<DropReason, number>;
  /** Made, and not acknowledged by every receiver. */
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
  /** The source of the reports of this run. */
  readonly source: Source;
  /** The addresses of the servers that get the reports: a receiver each. */
  readonly servers: readonly string[];
  /** The disk mirror; without it a restart loses the spool. */
  readonly mirror?: Mirror;
}

/**
 * The reports that some receiver has not acknowledged, as frames, in the order in which they were made.
 *
 *     | segment | segment | segment | open segment      |
 *       ^ freed or dropped from here        appended here ^
 *                     ^ a replay sends from anywhere; it removes nothing
 *
 * `append` encodes at once. `acknowledge` frees whole segments that every receiver has acknowledged. When a bound is
 * reached the oldest segment is dropped, and its reports are counted. Memory holds everything; the disk is a mirror of
 * it, for which nothing waits.
 */
export class Spool {
  readonly #clock: Clock;
  readonly #bounds: SpoolBounds;
  readonly #counters: SpoolCounters;
  readonly #source: Source;
  readonly #mirror: Mirror | undefined;
  readonly #encoder = new RecordingEncoder();
  readonly #receivers = new Map<string, Receiver>();
  #epochs: SpoolEpoch[] = [];
  #segments: Segment[] = [];
  #epoch: SpoolEpoch | undefined;
  /** The segment that is appended to: the last one, or none. */
  #open: Segment | undefined;
  #nextNumber = 1;
  #bytes = 0;

  constructor(options: SpoolOptions) {
    this.#clock = options.clock;
    this.#bounds = options.bounds;
    this.#counters = options.counters;
    this.#source = options.source;
    this.#mirror = options.mirror;
    for (const server of options.servers) {
      const receiver = new Receiver(server);
      this.#receivers.set(server, receiver);
      this.#mirror?.addReceiver(receiver);
    }
  }

  /** The running epoch, undefined before the first. */
  get epoch(): SpoolEpoch | undefined {
    return this.#epoch;
  }
  /** All epochs of which there are reports, and the running one, oldest first. */
  get epochs(): readonly SpoolEpoch[] {
    return this.#epochs;
  }
  /** The source of the reports of this run. */
  get source(): Source {
    return this.#source;
  }
  get segments(): readonly Segment[] {
    return this.#segments;
  }
  get bytes(): number {
    return this.#bytes;
  }
  /** Reports that were dropped since the start, for whatever reason. */
  get droppedCount(): number {
    return Object.values(this.#counters.reportsDropped).reduce((sum, count) => sum + count, 0);
  }
  /** Reports that some receiver has not acknowledged. */
  get waitingCount(): number {
    return this.#counters.spoolReports;
  }
  /** The time of the oldest of them, undefined where there is none. */
  get oldestWaitingMs(): number | undefined {
    const segment = this.#segments.find((each) => this.#waitingIn(each) > 0);
    return segment?.timeOf(this.#acknowledgedIn(segment) + 1);
  }
  /** The state of the disk; undefined without one. */
  get diskState(): DiskState | undefined {
    return this.#mirror?.state;
  }
  /** Reports in memory that the disk lacks. */
  get unwrittenCount(): number {
    return this.#mirror?.unwrittenCount ?? 0;
  }

  /** The receiver of one of the servers. */
  receiver(server: string): Receiver {
    const receiver = this.#receivers.get(server);
    if (receiver === undefined) throw new Error(`spool: there is no receiver '${server}'`);
    return receiver;
  }

  /** Reads what the disk holds, before the first epoch begins. Returns what had to be dropped of it. */
  async load(): Promise<Drop[]> {
    const drops: Drop[] = [];
    for await (const file of this.#mirror?.load() ?? []) {
      if (file.kind === 'receivers') this.#restoreReceivers(file.states);
      else drops.push(...this.#restoreSegment(file));
    }
    this.#free();
    this.#forgetEmptyEpochs();
    return drops;
  }

  /**
   * Begins an epoch: reports count from 1 again, and times are by a new clock. `baseMs` is what that clock shows at
   * boot time 0 (see epoch-clock.ts).
   */
  begin({ epoch, baseMs }: { epoch: number; baseMs: number }): void {
    this.#epoch = { id: epoch, baseMs, lastSeq: 0, lastTimeMs: Number.NEGATIVE_INFINITY };
    this.#epochs.push(this.#epoch);
    this.#seal();
    this.#encoder.reset();
    this.#forgetEmptyEpochs();
    for (const receiver of this.#receivers.values()) receiver.forgetOffsets(this.#epochs);
  }

  /**
   * Appends a report of the running epoch. Its time is moved forward if it is not later than the one before. Returns
   * what had to be dropped for it, usually nothing.
   */
  append(recording: Recording, timeMs: number): readonly Drop[] {
    const epoch = this.#epoch;
    if (epoch === undefined) throw new Error('spool: append before begin');
    const nowMs = this.#clock.monotonicMs();
    const change = this.#encoder.change(recording);
    if (this.#open === undefined || change === 'new' || this.#isFull(this.#open, nowMs)) {
      this.#openSegment(epoch, change);
    }
    const seq = epoch.lastSeq + 1;
    epoch.lastSeq = seq;
    epoch.lastTimeMs = Math.max(timeMs, epoch.lastTimeMs + 1);
    for (const frame of this.#encoder.encode(recording, { seq, timeMs: epoch.lastTimeMs })) {
      this.#push(this.#open!, frame, nowMs);
    }
    this.#counters.reportsSampled++;
    const drops = this.#dropBeyondBounds();
    this.#count();
    this.#mirror?.appended();
    return drops;
  }

  /**
   * Fixes what this receiver adds to the times of an epoch. Resolves when that is on disk, or at once where the disk is
   * not ok: a report that is sent again after a power cut does not get another time, unless the disk stalled before.
   */
  async fixOffset(receiver: Receiver, epoch: SpoolEpoch, offsetMs: number): Promise<void> {
    receiver.fixOffset(epoch, offsetMs);
    this.#mirror?.offsetFixed();
    await this.#mirror?.offsetsSaved(receiver);
  }

  /**
   * A receiver has everything up to this report. What every receiver has is freed. Returns how many reports that are.
   * An epoch that is not known frees nothing.
   */
  acknowledge(receiver: Receiver, { epoch, seq }: EpochSeq): number {
    const segment = this.#segmentOf(epoch, seq);
    if (segment === undefined) return 0;
    receiver.acknowledge(segment, Math.min(seq, segment.lastSeq));
    return this.#free();
  }

  /** The segment of this report; where the spool lacks it, the one before, or the first of the epoch. */
  #segmentOf(epoch: number, seq: number): Segment | undefined {
    let found: Segment | undefined;
    for (let at = this.#segments.length - 1; at >= 0; at--) {
      const segment = this.#segments[at]!;
      if (segment.epoch.id !== epoch) continue;
      found = segment;
      if (segment.firstSeq <= seq) break;
    }
    return found;
  }

  /** The reports that a server lacks that has received this much, then all that come. */
  replay(receiver: Receiver, received: readonly EpochSeq[], skipped: readonly EpochSeq[] = []): Replay {
    return new Replay({ segments: () => this.#segments, receiver, received, skipped });
  }

  /** Nothing is appended afterwards. Writes and syncs what the disk lacks, for `msMax` at most. */
  async close(msMax: number): Promise<MirrorClosed> {
    return this.#mirror?.close(msMax) ?? { unwrittenReports: 0, isIdle: true };
  }

  #openSegment(epoch: SpoolEpoch, change: SchemaChange): void {
    // Only a full segment ends without a change of schema or epoch. A server that has read it to its end needs neither
    // a second begin nor the schema again.
    const continues = this.#open !== undefined && change === 'none';
    this.#seal();
    this.#encoder.reset();
    this.#open = new Segment({ number: this.#nextNumber++, epoch, source: this.#source, continues });
    this.#segments.push(this.#open);
    this.#mirror?.add(this.#open);
  }

  #push(segment: Segment, frame: SpooledFrame, madeAtMs: number): void {
    this.#bytes -= segment.heldBytes;
    segment.push(frame, madeAtMs);
    this.#bytes += segment.heldBytes;
  }

  #seal(): void {
    this.#open?.seal();
    this.#open = undefined;
  }

  #isFull(segment: Segment, nowMs: number): boolean {
    const spanMs = nowMs - segment.oldestAtMs;
    if (spanMs > Math.max(segmentSpanMsMin, this.#bounds.ageMsMax / 16)) return true;
    const bodyBytes = segment.heldBytes - segment.headBytes;
    if (segment.heldBytes <= segmentBytesMax(this.#bounds)) return false;
    // A schema may be as large as a segment: it should be the smaller part of it, as long as two segments fit.
    return bodyBytes >= segment.headBytes || segment.heldBytes > this.#bounds.bytesMax / 2;
  }

  #dropBeyondBounds(): Drop[] {
    const drops: Drop[] = [];
    const bornBeforeMs = this.#clock.monotonicMs() - this.#bounds.ageMsMax;
    while (this.#segments.length > 0 && this.#segments[0]!.newestAtMs < bornBeforeMs) drops.push(this.#drop('age'));
    while (this.#segments.length > 0 && this.#bytes > this.#bounds.bytesMax) drops.push(this.#drop('full'));
    if (drops.length > 0) this.#forgetEmptyEpochs();
    return drops.filter(({ count }) => count > 0);
  }

  #drop(reason: DropReason): Drop {
    const segment = this.#segments[0]!;
    const count = this.#waitingIn(segment);
    const firstMs = segment.timeOf(segment.lastSeq - Math.max(0, count - 1));
    this.#counters.reportsDropped[reason] += count;
    this.#removeOldest();
    return { reason, count, firstMs, lastMs: segment.timeOf(segment.lastSeq) };
  }

  /** Frees what every receiver has acknowledged, and returns how many reports have become so. */
  #free(): number {
    const waitingBefore = this.waitingCount;
    const { length } = this.#segments;
    while (this.#segments[0] !== this.#open && this.#waitingIn(this.#segments[0]!) === 0) this.#removeOldest();
    if (this.#segments.length < length) this.#forgetEmptyEpochs();
    this.#count();
    return waitingBefore - this.waitingCount;
  }

  #removeOldest(): void {
    const segment = this.#segments.shift()!;
    if (segment === this.#open) this.#open = undefined;
    segment.markRemoved();
    this.#bytes -= segment.heldBytes;
    this.#mirror?.remove(segment);
  }

  #forgetEmptyEpochs(): void {
    const held = new Set(this.#segments.map(({ epoch }) => epoch));
    this.#epochs = this.#epochs.filter((epoch) => epoch === this.#epoch || held.has(epoch));
  }

  /** Up to here every receiver has acknowledged a segment; without receivers nothing is acknowledged. */
  #acknowledgedIn(segment: Segment): number {
    if (this.#receivers.size === 0) return segment.firstSeq - 1;
    let least = segment.lastSeq;
    for (const receiver of this.#receivers.values()) least = Math.min(least, receiver.acknowledgedIn(segment));
    return least;
  }

  #waitingIn(segment: Segment): number {
    return segment.lastSeq - this.#acknowledgedIn(segment);
  }

  #count(): void {
    this.#counters.spoolBytes = this.#bytes;
    this.#counters.spoolReports = this.#segments.reduce((sum, segment) => sum + this.#waitingIn(segment), 0);
  }

  #restoreReceivers(states: readonly ReceiverState[]): void {
    const moved = states.filter(({ server }) => !this.#receivers.has(server));
    const isNew = (receiver: Receiver) => !states.some(({ server }) => server === receiver.server);
    const added = [...this.#receivers.values()].filter(isNew);
    for (const state of states) this.#receivers.get(state.server)?.restore(state);
    // The address has changed: acknowledged reports need not be sent again, and the epochs' offsets are still right.
    if (moved.length === 1 && added.length === 1) added[0]!.takeOver(moved[0]!);
    for (const { server } of moved) this.#mirror!.removeReceiverOf(server);
  }

  /** Returns what is known to be lost, between the file before and this one, or by the bounds. */
  #restoreSegment(file: LoadedSegment): Drop[] {
    const { contents } = file;
    const epoch = this.#epochs.find(({ id }) => id === contents.epoch) ?? restoredEpoch(contents.epoch);
    if (!this.#epochs.includes(epoch)) this.#epochs.push(epoch);
    const { continues, source } = contents;
    const segment = new Segment({ number: this.#nextNumber++, epoch, source, continues });
    for (const frame of contents.frames) this.#push(segment, frame, this.#madeAtMs(frame.timeMs));
    segment.seal();
    this.#segments.push(segment);
    this.#mirror!.adopt(segment, file);
    const lost = this.#lostBefore(segment);
    epoch.lastSeq = segment.lastSeq;
    epoch.lastTimeMs = segment.timeOf(segment.lastSeq);
    for (const receiver of this.#receivers.values()) receiver.locate(segment);
    return [...(lost === undefined ? [] : [lost]), ...this.#dropBeyondBounds()];
  }

  /** Between two files of an epoch every report is there, unless the end of the first was cut off or it is gone. */
  #lostBefore(segment: Segment): Drop | undefined {
    const { id, lastSeq, lastTimeMs } = segment.epoch;
    if (lastSeq === 0) return undefined;
    const positions = [...this.#receivers.values()].map(({ acknowledged }) => acknowledged);
    const acknowledgedSeq = Math.min(...positions.map((each) => (each?.epoch === id ? each.seq : 0)));
    const count = segment.firstSeq - 1 - Math.max(lastSeq, acknowledgedSeq);
    if (count <= 0) return undefined;
    this.#counters.reportsDropped.disk += count;
    return { reason: 'disk', count, firstMs: lastTimeMs, lastMs: segment.timeOf(segment.firstSeq) };
  }

  /** A report of an earlier run is as old as the wall clock says: the monotonic clock has started again. */
  #madeAtMs(timeMs: number): number {
    return this.#clock.monotonicMs() - Math.max(0, this.#clock.nowMs() - timeMs);
  }
}

// With less, a short maximum age would make a segment, with its schema, of every few reports.
const segmentSpanMsMin = 60_000;

/** One drop costs at most a sixteenth of the spool; segments of over 1 MiB would save hardly any schemas. */
function segmentBytesMax({ bytesMax }: SpoolBounds): number {
  return Math.max(65_536, Math.min(1_048_576, bytesMax / 16));
}

function restoredEpoch(id: number): SpoolEpoch {
  return { id, baseMs: undefined, lastSeq: 0, lastTimeMs: Number.NEGATIVE_INFINITY };
}
