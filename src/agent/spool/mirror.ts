import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { durationText, reasonOf } from '../../runtime/words.ts';
import { DiskHealth, type DiskState, diskRetryMs } from './disk-health.ts';
import {
  encodeReceiver,
  isReceiverFileName,
  parseReceiver,
  type Receiver,
  type ReceiverState,
  receiverFileName,
} from './receiver.ts';
import type { Segment } from './segment.ts';
import { encodeRecords, parseSegment, type SegmentContents } from './segment-format.ts';

/**
 * A folder of files, as the spool needs it. Every call may take any time, and rejects if it fails. The simulation has
 * one that is slow, full, torn, or loses what was not synced.
 */
export interface SpoolDisk {
  /** For messages. */
  readonly path: string;
  list(): Promise<readonly string[]>;
  read(name: string): Promise<Uint8Array>;
  /** Writes all of it at this position. Creates the file if there is none. */
  write(name: string, position: number, bytes: Uint8Array): Promise<void>;
  /** The same; and these bytes, not what was written before, survive a power cut. */
  writeSynced(name: string, position: number, bytes: Uint8Array): Promise<void>;
  truncate(name: string, bytes: number): Promise<void>;
  /** What the file holds, and that it exists, survives a power cut. */
  sync(name: string): Promise<void>;
  /** Makes these the file's bytes; a power cut leaves either these or those before. */
  replace(name: string, bytes: Uint8Array): Promise<void>;
  /** Does nothing where there is no such file. */
  remove(name: string): Promise<void>;
}

export interface MirrorCounters {
  /** Operations that failed, and files that were torn or damaged. */
  spoolDiskErrors: number;
  spoolDiskState: DiskState['kind'];
  /** Reports that are in memory only. */
  spoolUnwrittenReports: number;
}

export interface MirrorClosed {
  /** They are lost with the process. */
  readonly unwrittenReports: number;
  /** False: an operation has not returned, and any other in this folder might not return either. */
  readonly isIdle: boolean;
}

/** A segment as it was found on disk. */
export interface LoadedSegment {
  readonly kind: 'segment';
  readonly name: string;
  readonly contents: SegmentContents;
  /** Up to here the file is good. */
  readonly goodBytes: number;
  /** New records are written after its good bytes. */
  readonly isTorn: boolean;
}

export interface LoadedReceivers {
  readonly kind: 'receivers';
  readonly states: readonly ReceiverState[];
}

/**
 * The spool's mirror on disk: a file for each segment, numbered in their order, and one for each receiver. Nothing
 * waits for it. It knows how far each file is written, and catches up with memory, one operation at a time:
 *
 *     receivers with a new offset ▶ removing what is gone ▶ frames not written ▶ every 10 s: syncing, receivers that changed
 *
 * Each operation costs a thread's turn and a wake-up of the process, more than a report's bytes. So a report that comes
 * when a sync is due is written and synced in one, and with it again what was written since the last sync.
 *
 * A disk that stalls costs no memory, because the spool holds what is to be written. A process that is killed loses
 * what was not written, on a healthy disk at most the report of that moment. A power cut loses what was not synced.
 */
export class Mirror {
  readonly #disk: SpoolDisk;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #health: DiskHealth;
  readonly #counters: MirrorCounters;
  readonly #segments = new Map<Segment, SegmentFile>();
  readonly #receivers = new Map<Receiver, ReceiverFile>();
  /** Files to remove. */
  readonly #gone = new Set<GoneFile>();
  /** Files whose last operation failed: not touched until the retry. */
  readonly #failed = new Set<object>();
  #retry: Timer | undefined;
  #phase: 'loading' | 'running' | 'closed' = 'loading';
  /** One operation is under way. */
  #isBusy = false;
  /** Undefined until the folder was listed: a number might be taken. */
  #nextNumber: number | undefined;
  /** How far the disk has to catch up with memory. */
  #goal: 'nothing' | 'written' | 'synced' = 'nothing';
  /** When the oldest change that is not synced was made, and the timer that syncs it if no report comes in time. */
  #unsynced: { readonly sinceMs: number; readonly timer: Timer } | undefined;
  #appendedAtMs: number;
  /** Called when an operation has ended or the disk's state has changed. */
  readonly #waiting: (() => void)[] = [];

  constructor(options: { disk: SpoolDisk; clock: Clock; log: Log; counters: MirrorCounters }) {
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#health = new DiskHealth({ ...options, path: options.disk.path, onChanged: () => this.#wake() });
    this.#counters = options.counters;
    this.#appendedAtMs = options.clock.monotonicMs();
  }

  get state(): DiskState {
    return this.#health.state;
  }

  /** Reports that are in memory only. */
  get unwrittenCount(): number {
    let count = 0;
    for (const [segment, file] of this.#segments) {
      const { frameCount } = file.written;
      if (frameCount < segment.frameCount) count += segment.reportsFrom(frameCount);
    }
    return count;
  }

  /**
   * Reads the receivers, then the segments in the order in which they were made. A torn end is cut off; a file that
   * cannot be read is logged and not touched. After `loadMsMax` the agent starts without the rest, which the next start
   * reads.
   */
  async *load(): AsyncGenerator<LoadedReceivers | LoadedSegment> {
    const late = new AbortController();
    const timer = this.#clock.after(loadMsMax, () => late.abort());
    try {
      let names: readonly string[] = [];
      await unless(late.signal, this.#run(this.#listing((found) => (names = found))));
      if (this.#nextNumber === undefined) this.#warn('cannot be read: starting without the reports that it holds');
      const foreign = names.filter((name) => !isOurs(name));
      const states: ReceiverState[] = [];
      for (const name of names.filter(isReceiverFileName)) {
        if (late.signal.aborted) break;
        const bytes = await unless(late.signal, this.#read(name));
        const state = bytes && this.#parseReceiver(name, bytes);
        if (state !== undefined) states.push(state);
      }
      yield { kind: 'receivers', states };
      for (const name of names.filter((each) => segmentNumber(each) !== undefined).sort()) {
        if (late.signal.aborted) break;
        const bytes = await unless(late.signal, this.#read(name));
        const loaded = bytes && this.#parseSegment(name, bytes);
        if (loaded === 'foreign') foreign.push(name);
        else if (loaded !== undefined) yield loaded;
      }
      if (late.signal.aborted && names.length > 0) {
        this.#warn(`it was not read whole within ${durationText(loadMsMax)}: starting without the rest`);
      }
      if (foreign.length > 0) this.#warnForeign(foreign);
    } finally {
      timer.cancel();
      if (this.#phase === 'loading') this.#phase = 'running';
      this.#changed();
      this.#catchUp('written');
    }
  }

  /** The file of this segment is kept up to date from now on. */
  adopt(segment: Segment, { name, contents, goodBytes, isTorn }: LoadedSegment): void {
    const written = { bytes: goodBytes, frameCount: contents.frames.length };
    // Not synced: the process that wrote it may have been killed before it was.
    this.#segments.set(segment, { name, written, synced: fileStart, isTorn });
  }

  /** A new segment, behind all others. */
  add(segment: Segment): void {
    this.#segments.set(segment, { name: undefined, written: fileStart, synced: fileStart, isTorn: false });
  }

  /** The segment is freed or dropped. */
  remove(segment: Segment): void {
    const name = this.#segments.get(segment)?.name;
    this.#segments.delete(segment);
    if (name !== undefined) this.#removeFile(name);
  }

  /** The file of this receiver is kept up to date from now on. */
  addReceiver(receiver: Receiver): void {
    const name = receiverFileName(receiver.server);
    const savedAtMs = this.#clock.monotonicMs();
    this.#receivers.set(receiver, { name, changeCount: 0, offsetChangeCount: 0, savedAtMs });
  }

  removeReceiverOf(server: string): void {
    this.#removeFile(receiverFileName(server));
  }

  #removeFile(name: string): void {
    this.#gone.add({ name });
    this.#work();
  }

  /**
   * A report was appended. It is synced at once if the next one, expected after the same interval, would be too late:
   * so a sync seldom needs a timer, which would wake the process once more.
   * Until then it is at least written: an agent and a server that are killed together lose nothing.
   */
  appended(): void {
    const nowMs = this.#clock.monotonicMs();
    const nextMs = 2 * nowMs - this.#appendedAtMs;
    this.#appendedAtMs = nowMs;
    const { sinceMs } = this.#changed(nowMs);
    if (nextMs + syncMarginMs >= sinceMs + syncEveryMs) this.#catchUp('synced');
    else this.#catchUp('written');
  }

  /** A receiver has a new offset: it is written at once. Acknowledgements are written with the sync of a later report. */
  offsetFixed(): void {
    this.#work();
  }

  /** Resolves when the receiver's offsets are on disk; at once if the disk is not ok. */
  async offsetsSaved(receiver: Receiver): Promise<void> {
    for (;;) {
      const file = this.#receivers.get(receiver);
      if (file === undefined || file.offsetChangeCount === receiver.offsetChangeCount) return;
      if (this.state.kind !== 'ok' || this.#phase === 'closed') return;
      const timer = this.#health.lookLater();
      await this.#progress();
      timer.cancel();
    }
  }

  /** Writes and syncs the rest, for `msMax` at most. */
  async close(msMax: number): Promise<MirrorClosed> {
    this.#failed.clear();
    for (const file of this.#receivers.values()) file.savedAtMs = Number.NEGATIVE_INFINITY;
    this.#catchUp('synced');
    const late = new AbortController();
    const timer = this.#clock.after(msMax, () => late.abort());
    while (this.#isBusy && !late.signal.aborted) await unless(late.signal, this.#progress());
    timer.cancel();
    this.#phase = 'closed';
    this.#retry?.cancel();
    this.#unsynced?.timer.cancel();
    return { unwrittenReports: this.unwrittenCount, isIdle: !this.#isBusy };
  }

  /** There is something to be written and synced. */
  #changed(nowMs = this.#clock.monotonicMs()): { readonly sinceMs: number } {
    this.#health.look();
    this.#count();
    this.#unsynced ??= { sinceMs: nowMs, timer: this.#clock.after(syncEveryMs, () => this.#syncDue()) };
    return this.#unsynced;
  }

  #syncDue(): void {
    this.#health.look();
    this.#catchUp('synced');
  }

  #catchUp(goal: 'written' | 'synced'): void {
    if (this.#goal !== 'synced') this.#goal = goal;
    this.#work();
  }

  /** Starts the next operation, unless one is under way, which starts the next at its end. */
  #work(): void {
    if (this.#isBusy || this.#phase !== 'running') return;
    const next = this.#next();
    if (next !== undefined) void this.#run(next);
    else this.#reachGoal();
  }

  /** What is to be done next, in the order in which it matters. */
  #next(): Operation | undefined {
    const isReady = (file: object) => !this.#failed.has(file);
    if (this.#nextNumber === undefined) return isReady(this.#disk) ? this.#listing() : undefined;
    for (const [receiver, file] of this.#receivers) {
      if (file.offsetChangeCount < receiver.offsetChangeCount && isReady(file)) return this.#saving(receiver, file);
    }
    // Before writing: it makes room.
    for (const file of this.#gone) if (isReady(file)) return this.#removing(file);
    if (this.#goal === 'nothing') return undefined;
    for (const [segment, file] of this.#segments) {
      if (!isReady(file)) continue;
      if (file.isTorn) return this.#cutting(file);
      if (file.written.frameCount < segment.frameCount) return this.#writing(segment, file);
    }
    if (this.#goal === 'written') return undefined;
    for (const file of this.#segments.values()) {
      if (file.synced.frameCount < file.written.frameCount && isReady(file)) return this.#syncing(file);
    }
    const savedBeforeMs = this.#clock.monotonicMs() - receiversSavedEveryMs;
    for (const [receiver, file] of this.#receivers) {
      if (file.changeCount === receiver.changeCount || file.savedAtMs > savedBeforeMs) continue;
      if (isReady(file)) return this.#saving(receiver, file);
    }
    return undefined;
  }

  async #run(operation: Operation): Promise<void> {
    const { file, what, isRoutine, call, done, failed } = operation;
    this.#isBusy = true;
    const outcome = await this.#health.operate(what, call, isRoutine);
    this.#isBusy = false;
    if (outcome.kind === 'done') {
      done();
    } else {
      failed?.();
      this.#fail(file, outcome.error);
    }
    this.#count();
    this.#wake();
    this.#work();
  }

  #listing(found: (names: readonly string[]) => void = () => {}): Operation {
    let names: readonly string[] = [];
    return {
      file: this.#disk,
      what: 'listing it',
      call: async () => {
        names = await this.#disk.list();
      },
      done: () => {
        this.#nextNumber = 1 + Math.max(0, ...names.map((name) => segmentNumber(name) ?? 0));
        found(names);
      },
    };
  }

  #removing(file: GoneFile): Operation {
    return {
      file,
      what: `removing '${file.name}'`,
      call: () => this.#disk.remove(file.name),
      done: () => this.#gone.delete(file),
    };
  }

  #saving(receiver: Receiver, file: ReceiverFile): Operation {
    const { changeCount, offsetChangeCount } = receiver;
    const bytes = encodeReceiver(receiver);
    return {
      file,
      what: `replacing '${file.name}'`,
      call: () => this.#disk.replace(file.name, bytes),
      done: () => Object.assign(file, { changeCount, offsetChangeCount, savedAtMs: this.#clock.monotonicMs() }),
    };
  }

  #cutting(file: SegmentFile): Operation {
    const name = this.#nameOf(file);
    return {
      file,
      what: `truncating '${name}'`,
      call: () => this.#disk.truncate(name, file.written.bytes),
      done: () => {
        file.isTorn = false;
      },
    };
  }

  /** The next frames that the file lacks, and no more than `writeBytesMax` of them: a copy is made of these alone. */
  #writing(segment: Segment, file: SegmentFile): Operation {
    if (this.#goal === 'synced' && pieceAfter(segment, file.synced) === segment.frameCount) {
      return this.#writingSynced(segment, file);
    }
    const name = this.#nameOf(file);
    const { written: before } = file;
    const { bytes, after } = recordsAfter(segment, before, pieceAfter(segment, before));
    return {
      file,
      what: `writing '${name}'`,
      isRoutine: true,
      call: () => this.#disk.write(name, before.bytes, bytes),
      // Only now: what has failed is written again, in the same place.
      done: () => {
        file.written = after;
      },
    };
  }

  /** The frames that the file lacks, and those before them that are not synced. */
  #writingSynced(segment: Segment, file: SegmentFile): Operation {
    const name = this.#nameOf(file);
    const { synced: before } = file;
    const { bytes, after } = recordsAfter(segment, before, segment.frameCount);
    return {
      file,
      what: `a synced write of '${name}'`,
      isRoutine: true,
      call: () => this.#disk.writeSynced(name, before.bytes, bytes),
      done: () => {
        file.written = file.synced = after;
        this.#health.synced();
      },
      // As after a sync that failed, but what was synced before is on disk.
      failed: () => {
        file.written = before;
      },
    };
  }

  #syncing(file: SegmentFile): Operation {
    const name = this.#nameOf(file);
    const { written } = file;
    return {
      file,
      what: `fdatasync of '${name}'`,
      isRoutine: true,
      call: () => this.#disk.sync(name),
      done: () => {
        file.synced = written;
        this.#health.synced();
      },
      // It is unknown which pages are on disk, and the kernel has marked all of them clean: they are written again.
      failed: () => {
        file.written = file.synced = fileStart;
      },
    };
  }

  /** Numbers follow the order of the segments, because these are written for the first time in that order. */
  #nameOf(file: SegmentFile): string {
    file.name ??= segmentName(this.#nextNumber!++);
    return file.name;
  }

  #reachGoal(): void {
    const goal = this.#goal;
    this.#goal = 'nothing';
    if (goal !== 'synced') return;
    this.#unsynced?.timer.cancel();
    this.#unsynced = undefined;
    this.#health.endRound({ isWhole: this.#failed.size === 0 });
  }

  #fail(file: object, error: unknown): void {
    this.#health.failed(error);
    this.#failed.add(file);
    if (this.#phase === 'closed') return;
    this.#retry ??= this.#clock.after(diskRetryMs, () => {
      this.#retry = undefined;
      this.#failed.clear();
      this.#catchUp('synced');
    });
  }

  #count(): void {
    const count = this.unwrittenCount;
    this.#counters.spoolUnwrittenReports = count;
    this.#health.unwritten(count);
  }

  #progress(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    if (this.#waiting.length > 0) for (const wake of this.#waiting.splice(0)) wake();
  }

  async #read(name: string): Promise<Uint8Array | undefined> {
    this.#isBusy = true;
    const outcome = await this.#health.operate(`reading '${name}'`, () => this.#disk.read(name));
    this.#isBusy = false;
    // Where nobody waits for it any more.
    this.#work();
    if (outcome.kind === 'done') return outcome.value;
    this.#counters.spoolDiskErrors++;
    this.#warn(`${reasonOf(outcome.error)}: leaving the file '${name}' alone`);
    return undefined;
  }

  #parseReceiver(name: string, bytes: Uint8Array): ReceiverState | undefined {
    const state = parseReceiver(bytes);
    if (state === undefined) {
      this.#counters.spoolDiskErrors++;
      this.#warn(`'${name}' is damaged or of a later version: its server is sent what it has once more`);
    }
    return state;
  }

  #parseSegment(name: string, bytes: Uint8Array): LoadedSegment | 'foreign' | undefined {
    const parsed = parseSegment(bytes);
    if (parsed === 'foreign') return 'foreign';
    const { goodBytes, contents } = parsed;
    const isTorn = goodBytes < bytes.length;
    if (isTorn) {
      this.#counters.spoolDiskErrors++;
      this.#warn(`'${name}' is torn or damaged at byte ${goodBytes} of ${bytes.length}: keeping what stands before it`);
    }
    if (contents !== undefined) return { kind: 'segment', name, contents, goodBytes, isTorn };
    this.#removeFile(name);
    return undefined;
  }

  #warnForeign(foreign: readonly string[]): void {
    const names = foreign.slice(0, foreignNamesMax).map((name) => `'${name}'`);
    const more = foreign.length > foreignNamesMax ? ` and ${foreign.length - foreignNamesMax} more` : '';
    this.#warn(`leaving alone what this version did not write: ${names.join(', ')}${more}`);
  }

  #warn(text: string): void {
    this.#log.warn(`spool in '${this.#disk.path}': ${text}`);
  }
}

interface SegmentFile {
  /** Undefined until it is written for the first time. */
  name: string | undefined;
  /** Up to here the process's end leaves it; the next record goes there. */
  written: FilePlace;
  /** Up to here a power cut leaves it. */
  synced: FilePlace;
  /** New records are written after its good bytes. */
  isTorn: boolean;
}

/** A place in a segment's file, after so many frames. */
interface FilePlace {
  readonly bytes: number;
  readonly frameCount: number;
}

const fileStart: FilePlace = { bytes: 0, frameCount: 0 };

/** The end of the piece of a segment that is written next after this place. */
function pieceAfter(segment: Segment, { frameCount }: FilePlace): number {
  return segment.pieceEnd(frameCount, { before: segment.frameCount, bytesMax: writeBytesMax });
}

/** The records from this place to before frame `to`, and the place after them. */
function recordsAfter(segment: Segment, place: FilePlace, to: number): { bytes: Uint8Array; after: FilePlace } {
  const bytes = encodeRecords(segment, place.frameCount, to);
  return { bytes, after: { bytes: place.bytes + bytes.length, frameCount: to } };
}

interface ReceiverFile {
  readonly name: string;
  /** What of the receiver is on disk. */
  changeCount: number;
  offsetChangeCount: number;
  savedAtMs: number;
}

interface GoneFile {
  readonly name: string;
}

interface Operation {
  /** What is not touched until the retry if it fails. */
  readonly file: object;
  /** For the log. */
  readonly what: string;
  /** It is done with the reports. */
  readonly isRoutine?: true;
  readonly call: () => Promise<void>;
  readonly done: () => void;
  readonly failed?: () => void;
}

/** Undefined where the signal aborts first. */
export function unless<T>(signal: AbortSignal, promise: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const abort = () => resolve(undefined);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

// What a power cut may cost.
const syncEveryMs = 10_000;
// A report may be late by this much and still be in time to sync.
const syncMarginMs = 1000;
// If a restart does not know an acknowledgement, a few reports are sent again, which the server recognises: not worth
// replacing a file, which takes as much CPU as two reports, and two syncs.
const receiversSavedEveryMs = 300_000;
// Well below the 90 s that systemd gives a start.
const loadMsMax = 20_000;
const foreignNamesMax = 5;
// A segment that is written again, after a full disk, is written in pieces of about this size.
const writeBytesMax = 262_144;

/** Whether a file in the folder is ours, or every folder's. */
function isOurs(name: string): boolean {
  if (segmentNumber(name) !== undefined || isLockName(name) || ownNames.has(name)) return true;
  return isReceiverFileName(name.replace(/\.new$/, ''));
}

const ownNames = new Set(['host-id', 'control.sock', 'lost+found']);

/** The files by which an agent holds its folder (runtime/lock.ts). */
function isLockName(name: string): boolean {
  return /^lock\.\d{1,9}$/.test(name);
}

/** Twelve digits, so that the order of the names is that of the numbers. */
function segmentName(number: number): string {
  return `${String(number).padStart(12, '0')}.spool`;
}

function segmentNumber(name: string): number | undefined {
  return /^\d{12}\.spool$/.test(name) ? Number.parseInt(name, 10) : undefined;
}
