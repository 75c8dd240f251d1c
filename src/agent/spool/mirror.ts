import { crc32 } from 'node:zlib';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { reasonOf } from '../../runtime/words.ts';
import { type FrameKind, frameKind, type Segment, type SpooledFrame } from './segment.ts';

/**
 * A folder of files, as the spool needs it; every call throws where it fails. The simulation has one that is full, torn,
 * or loses what was not synced.
 */
export interface SpoolDisk {
  /** For messages. */
  readonly path: string;
  list(): readonly string[];
  read(name: string): Uint8Array;
  /** Writes all of it at this position, or throws. Makes the file where there is none. */
  write(name: string, position: number, bytes: Uint8Array): void;
  truncate(name: string, bytes: number): void;
  /** What the file holds, and that it exists, survives a power cut. */
  sync(name: string): void;
  remove(name: string): void;
}

export interface SpoolFileCounters {
  /** Reading, writing, syncing or removing that failed, and files that were torn or damaged. */
  spoolDiskErrors: number;
}

/** A segment as it was found on disk. `frames` holds at least one report. */
export interface LoadedSegment {
  readonly name: string;
  readonly number: number;
  readonly epoch: number;
  readonly offsetMs: number | undefined;
  readonly continues: boolean;
  readonly acknowledgedSeq: number;
  readonly firstSeq: number;
  readonly frames: readonly SpooledFrame[];
  /** Up to here the file is good. */
  readonly goodBytes: number;
}

/**
 * The spool's mirror on disk: a file for each segment, named by its number.
 *
 *     file    = record record …              the first record is a header
 *     record  = u32 length of the payload | u32 CRC-32 of the payload | payload      all numbers big-endian
 *     payload = u8 kind | …
 *       0  header        the 12 bytes `sysmon spool`, then JSON {version, epoch, offsetMs or null, continues}
 *       1  schema        f64 0   | f64 0      | the frame's payload, as it goes out
 *       2  key report    f64 seq | f64 timeMs | likewise
 *       3  report        f64 seq | f64 timeMs | likewise
 *       4  offset        f64 offsetMs: settled after the header was written
 *       5  acknowledged  f64 seq
 *
 * Records are only ever added, at a position that is known: a write that failed halfway is written over by the next try.
 * A process that is killed loses nothing of what was written; a power cut loses what was not synced. A record that is
 * not whole ends its file.
 */
export class SpoolFiles {
  readonly #disk: SpoolDisk;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #counters: SpoolFileCounters;
  readonly #files = new Map<Segment, SegmentFile>();
  /** Files of segments that are gone, which could not be removed. */
  readonly #left = new Set<string>();
  #nextNumber = 1;
  #failing = false;
  #retryAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: { disk: SpoolDisk; clock: Clock; log: Log; counters: SpoolFileCounters }) {
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#counters = options.counters;
  }

  /** The disk takes nothing at present: memory alone holds what is new. */
  get failing(): boolean {
    return this.#failing;
  }

  /** Higher than the number of any file that was found, ours or not. */
  get nextNumber(): number {
    return this.#nextNumber;
  }

  /** Segments of which the disk lacks something. */
  missingCount(segments: readonly Segment[]): number {
    return segments.filter((segment) => (this.#files.get(segment)?.frameCount ?? 0) < segment.frameCount).length;
  }

  /** Everything that can be read, in the order in which it was made. What cannot is cut off, or left alone and named. */
  load(): LoadedSegment[] {
    const loaded: LoadedSegment[] = [];
    const foreign: string[] = [];
    for (const name of [...this.#disk.list()].sort()) {
      const number = segmentNumber(name);
      if (number === undefined) {
        if (!ownNames.has(name) && !isLockName(name)) foreign.push(name);
        continue;
      }
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
      const file = this.#loadFile(name, number);
      if (file === 'foreign') foreign.push(name);
      else if (file !== undefined) loaded.push(file);
    }
    if (foreign.length > 0) {
      const names = foreign.slice(0, foreignNamesMax).map((name) => `'${name}'`);
      const more = foreign.length > foreignNamesMax ? ` and ${foreign.length - foreignNamesMax} more` : '';
      this.#log.warn(
        `spool in '${this.#disk.path}': leaving alone what this version did not write: ${names.join(', ')}${more}`,
      );
    }
    return loaded;
  }

  /** From here on the file of this segment is kept up. */
  adopt(segment: Segment, file: LoadedSegment): void {
    this.#files.set(segment, {
      name: file.name,
      bytes: file.goodBytes,
      frameCount: file.frames.length,
      offsetWritten: file.offsetMs !== undefined,
      acknowledgedSeq: file.acknowledgedSeq,
      // Whoever wrote it may have been killed before it was.
      synced: false,
    });
  }

  /** Brings the files up to what memory holds. It never throws: what fails is told, and tried again after a while. */
  catchUp(segments: readonly Segment[]): void {
    this.#attempt(() => {
      try {
        for (const segment of segments) this.#write(segment);
      } finally {
        // Each on its own: a file that cannot be removed must not keep the others from being written, nor a full disk
        // from being emptied.
        this.#removeLeft();
      }
    });
  }

  /** Makes what was written survive a power cut. */
  sync(segments: readonly Segment[]): void {
    this.#attempt(() => {
      for (const segment of segments) {
        const file = this.#files.get(segment);
        if (file === undefined) continue;
        this.#writeAcknowledged(segment, file);
        if (!file.synced) this.#sync(file);
      }
      // Not before: a disk that takes writes and cannot sync them would come and go in the log.
      if (this.#failing)
        this.#log.info(`spool in '${this.#disk.path}': it can be written again, and holds all that waits`);
      this.#failing = false;
    });
  }

  /** The segment is freed or dropped. */
  remove(segment: Segment): void {
    const file = this.#files.get(segment);
    if (file === undefined) return;
    this.#files.delete(segment);
    this.#left.add(file.name);
    // Also while the disk takes nothing: removing is what makes room.
    this.#attempt(() => this.#removeLeft(), { evenIfFailing: true });
  }

  #removeLeft(): void {
    for (const name of this.#left) {
      this.#disk.remove(name);
      this.#left.delete(name);
    }
  }

  #write(segment: Segment): void {
    const file = this.#files.get(segment) ?? newFile(segment);
    const records: Uint8Array[] = [];
    if (file.bytes === 0) records.push(headerRecord(segment));
    const { offsetMs } = segment.epoch;
    const offsetWritten = file.offsetWritten || offsetMs !== undefined;
    if (file.bytes > 0 && offsetWritten && !file.offsetWritten)
      records.push(numberRecord(recordKind.offset, offsetMs!));
    while (file.frameCount < segment.frameCount || records.length > 0) {
      let bytes = 0;
      let { frameCount } = file;
      for (; frameCount < segment.frameCount && bytes < writeBytesMax; frameCount++) {
        const record = frameRecord(segment.frame(frameCount));
        bytes += record.length;
        records.push(record);
      }
      this.#append(file, records.length === 1 ? records[0]! : Buffer.concat(records));
      // Only now: what has failed is written again.
      file.frameCount = frameCount;
      file.offsetWritten = offsetWritten;
      this.#files.set(segment, file);
      records.length = 0;
    }
  }

  #writeAcknowledged(segment: Segment, file: SegmentFile): void {
    const { acknowledgedSeq } = segment.epoch;
    if (acknowledgedSeq <= file.acknowledgedSeq || acknowledgedSeq < segment.firstSeq) return;
    if (acknowledgedSeq > segment.lastSeq) return;
    this.#append(file, numberRecord(recordKind.acknowledged, acknowledgedSeq));
    file.acknowledgedSeq = acknowledgedSeq;
  }

  #append(file: SegmentFile, bytes: Uint8Array): void {
    file.synced = false;
    this.#disk.write(file.name, file.bytes, bytes);
    file.bytes += bytes.length;
  }

  #sync(file: SegmentFile): void {
    try {
      this.#disk.sync(file.name);
      file.synced = true;
    } catch (error) {
      // After a sync that failed nobody knows which pages are on disk: all of it is written once more, in place.
      Object.assign(file, { bytes: 0, frameCount: 0, offsetWritten: false, acknowledgedSeq: 0 });
      throw error;
    }
  }

  #attempt(work: () => void, { evenIfFailing = false } = {}): void {
    const now = this.#clock.monotonicMs();
    if (now < this.#retryAtMs && !evenIfFailing) return;
    try {
      work();
    } catch (error) {
      this.#counters.spoolDiskErrors++;
      this.#retryAtMs = now + retryMs;
      if (!this.#failing)
        this.#log.warn(`${this.#words(error)}: keeping reports in memory alone, trying again every 10 s`);
      this.#failing = true;
    }
  }

  #loadFile(name: string, number: number): LoadedSegment | 'foreign' | undefined {
    let bytes: Uint8Array;
    try {
      bytes = this.#disk.read(name);
    } catch (error) {
      this.#counters.spoolDiskErrors++;
      this.#log.warn(`${this.#words(error)}: leaving the file '${name}' alone`);
      return undefined;
    }
    const parsed = parseSegmentFile(bytes);
    if (parsed === 'foreign') return 'foreign';
    if (parsed.goodBytes < bytes.length) this.#cut(name, { goodBytes: parsed.goodBytes, foundBytes: bytes.length });
    if (parsed.contents === undefined) {
      this.#left.add(name);
      this.#attempt(() => this.#removeLeft());
      return undefined;
    }
    return { name, number, goodBytes: parsed.goodBytes, ...parsed.contents };
  }

  #cut(name: string, { goodBytes, foundBytes }: { goodBytes: number; foundBytes: number }): void {
    this.#counters.spoolDiskErrors++;
    this.#log.warn(
      `spool in '${this.#disk.path}': '${name}' is torn or damaged at byte ${goodBytes} of ${foundBytes}: ` +
        'keeping what stands before it',
    );
    this.#attempt(() => this.#disk.truncate(name, goodBytes));
  }

  #words(error: unknown): string {
    return `spool in '${this.#disk.path}': ${reasonOf(error)}`;
  }
}

interface SegmentFile {
  readonly name: string;
  /** Up to here it is good; the next record goes there. */
  bytes: number;
  frameCount: number;
  offsetWritten: boolean;
  acknowledgedSeq: number;
  synced: boolean;
}

const retryMs = 10_000;
const foreignNamesMax = 5;
// A segment that is written once more, after a full disk, in pieces of about this much.
const writeBytesMax = 262_144;

/** What else is in the folder and ours, or every folder's. */
const ownNames = new Set(['host-id', 'control.sock', 'lost+found']);

/** The files by which an agent holds its folder (spool-folder.ts). */
export function isLockName(name: string): boolean {
  return /^lock\.\d{1,9}$/.test(name);
}

/** Twelve digits, so that the order of the names is that of the numbers. */
function segmentName(number: number): string {
  return `${String(number).padStart(12, '0')}.spool`;
}

function segmentNumber(name: string): number | undefined {
  return /^\d{12}\.spool$/.test(name) ? Number.parseInt(name, 10) : undefined;
}

function newFile(segment: Segment): SegmentFile {
  return {
    name: segmentName(segment.number),
    bytes: 0,
    frameCount: 0,
    offsetWritten: false,
    acknowledgedSeq: 0,
    synced: false,
  };
}

const recordKind = { header: 0, ...frameKind, offset: 4, acknowledged: 5 } as const;
const recordHeaderBytes = 8;
const fileVersion = 1;
const magic = Buffer.from('sysmon spool');

function record(payload: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(recordHeaderBytes + payload.length);
  bytes.set(payload, recordHeaderBytes);
  return withHeader(bytes);
}

/** Writes the header of a record whose payload is there already. */
function withHeader(bytes: Buffer): Uint8Array {
  bytes.writeUInt32BE(bytes.length - recordHeaderBytes, 0);
  bytes.writeUInt32BE(crc32(bytes.subarray(recordHeaderBytes)), 4);
  return bytes;
}

function headerRecord({ epoch, continues }: Segment): Uint8Array {
  const fields = { version: fileVersion, epoch: epoch.id, offsetMs: epoch.offsetMs ?? null, continues };
  return record(Buffer.concat([Buffer.of(recordKind.header), magic, Buffer.from(JSON.stringify(fields))]));
}

function frameRecord({ kind, seq, timeMs, payload }: SpooledFrame): Uint8Array {
  const bytes = Buffer.allocUnsafe(recordHeaderBytes + framePrefixBytes + payload.length);
  bytes.writeUInt8(kind, recordHeaderBytes);
  bytes.writeDoubleBE(seq, recordHeaderBytes + 1);
  bytes.writeDoubleBE(timeMs, recordHeaderBytes + 9);
  bytes.set(payload, recordHeaderBytes + framePrefixBytes);
  return withHeader(bytes);
}

const framePrefixBytes = 17;

function numberRecord(kind: number, value: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(9);
  bytes.writeUInt8(kind, 0);
  bytes.writeDoubleBE(value, 1);
  return record(bytes);
}

type Contents = Omit<LoadedSegment, 'name' | 'number' | 'goodBytes'>;

interface ParsedFile {
  /** What stands behind it is torn or damaged. */
  readonly goodBytes: number;
  /** Undefined where no report is left. */
  readonly contents: Contents | undefined;
}

/** What a file says, up to the first record that is not whole; or that somebody else, or a later version, wrote it. */
export function parseSegmentFile(bytes: Uint8Array): ParsedFile | 'foreign' {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const headerPayload = payloadAt(file, 0);
  if (headerPayload === undefined) return isTornHeader(file) ? { goodBytes: 0, contents: undefined } : 'foreign';
  const header = parseHeader(headerPayload);
  if (header === undefined) return 'foreign';

  const contents = { ...header, acknowledgedSeq: 0, firstSeq: 0, frames: [] as SpooledFrame[] };
  let goodBytes = recordHeaderBytes + headerPayload.length;
  let lastSeq = 0;
  for (;;) {
    const payload = payloadAt(file, goodBytes);
    if (payload === undefined) break;
    const kind = payload[0]!;
    if (isFrameKind(kind)) {
      const frame = parseFrame(kind, payload);
      if (frame === undefined || !follows(frame, lastSeq)) break;
      contents.frames.push(frame);
      if (kind !== frameKind.schema) lastSeq = frame.seq;
      if (contents.firstSeq === 0) contents.firstSeq = lastSeq;
    } else if (kind === recordKind.offset && payload.length === 9) {
      contents.offsetMs ??= payload.readDoubleBE(1);
    } else if (kind === recordKind.acknowledged && payload.length === 9) {
      contents.acknowledgedSeq = Math.max(contents.acknowledgedSeq, payload.readDoubleBE(1));
    } else {
      break;
    }
    goodBytes += recordHeaderBytes + payload.length;
  }
  return { goodBytes, contents: lastSeq === 0 ? undefined : contents };
}

/** The payload of the record at this position, or undefined where no whole record is. */
function payloadAt(file: Buffer, position: number): Buffer | undefined {
  if (position + recordHeaderBytes > file.length) return undefined;
  const start = position + recordHeaderBytes;
  const length = file.readUInt32BE(position);
  // A length of 0 would make records of a run of zeros, which is what a power cut can leave: their CRC is 0 too.
  if (length === 0 || start + length > file.length) return undefined;
  const payload = file.subarray(start, start + length);
  return crc32(payload) === file.readUInt32BE(position + 4) ? payload : undefined;
}

/** Whether a file that has no whole header was begun by us: zeros, or our magic as far as it goes. */
function isTornHeader(file: Buffer): boolean {
  const start = recordHeaderBytes + 1;
  if (file.every((byte) => byte === 0)) return true;
  const there = file.subarray(start, start + magic.length);
  return there.equals(magic.subarray(0, there.length));
}

function parseHeader(
  payload: Buffer,
): (Pick<Contents, 'epoch' | 'continues'> & { offsetMs: number | undefined }) | undefined {
  if (payload[0] !== recordKind.header || !payload.subarray(1, 1 + magic.length).equals(magic)) return undefined;
  let fields: unknown;
  try {
    fields = JSON.parse(payload.toString('utf8', 1 + magic.length));
  } catch {
    // Its CRC is right, so it is whole: another version's, in a form that this one does not know.
    return undefined;
  }
  if (typeof fields !== 'object' || fields === null) return undefined;
  const { version, epoch, offsetMs, continues } = fields as Record<string, unknown>;
  if (version !== fileVersion || !Number.isSafeInteger(epoch) || typeof continues !== 'boolean') return undefined;
  if (offsetMs !== null && typeof offsetMs !== 'number') return undefined;
  return { epoch: epoch as number, offsetMs: offsetMs ?? undefined, continues };
}

function parseFrame(kind: FrameKind, payload: Buffer): SpooledFrame | undefined {
  if (payload.length <= framePrefixBytes) return undefined;
  // A copy of its own is made when the segment takes it.
  return {
    kind,
    seq: payload.readDoubleBE(1),
    timeMs: payload.readDoubleBE(9),
    payload: payload.subarray(framePrefixBytes),
  };
}

function isFrameKind(kind: number): kind is FrameKind {
  return kind === frameKind.schema || kind === frameKind.key || kind === frameKind.delta;
}

/** The first report of a file is a key; each one after it counts one more. */
function follows({ kind, seq }: SpooledFrame, lastSeq: number): boolean {
  if (kind === frameKind.schema) return seq === 0;
  if (lastSeq === 0) return kind === frameKind.key && Number.isSafeInteger(seq) && seq > 0;
  return seq === lastSeq + 1;
}
