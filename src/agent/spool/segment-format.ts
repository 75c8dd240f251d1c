import { crc32 } from 'node:zlib';
import type { Source } from '../../model/source.ts';
import { type FrameKind, frameKind, type Segment, type SpooledFrame } from './segment.ts';

/**
 * A segment's file: bytes ↔ records.
 *
 *     file    = record record …              the first record is a header
 *     record  = u32 length of the payload | u32 CRC-32 of the payload | payload      all numbers big-endian
 *     payload = u8 kind | …
 *       0  header        the 12 bytes `sysmon spool`, then JSON {version, epoch, continues, source: {id, name, intervalMs, labels}}
 *       1  schema        f64 0   | f64 0      | the frame's payload, as it goes out
 *       2  key report    f64 seq | f64 timeMs | likewise
 *       3  report        f64 seq | f64 timeMs | likewise
 *
 * `continues`: the schema at its start is the one at the end of the file before it. Records are only ever added, so a
 * record that is not whole ends its file.
 */
export interface SegmentContents {
  readonly epoch: number;
  readonly continues: boolean;
  readonly source: Source;
  /** Hold at least one report. Their payloads are views of the file's bytes. */
  readonly frames: readonly SpooledFrame[];
  readonly firstSeq: number;
}

export interface ParsedSegment {
  /** What follows is torn or damaged. */
  readonly goodBytes: number;
  /** Undefined where no report is left. */
  readonly contents: SegmentContents | undefined;
}

/** Frames `from` to before `to` as they stand in the file; from the first on, with the header before them. */
export function encodeRecords(segment: Segment, from: number, to: number): Uint8Array {
  const header = from === 0 ? headerRecord(segment) : undefined;
  let length = header?.length ?? 0;
  for (let index = from; index < to; index++) {
    length += recordHeaderBytes + framePrefixBytes + segment.payloadBytes(index);
  }
  const bytes = Buffer.allocUnsafe(length);
  if (header !== undefined) bytes.set(header);
  let at = header?.length ?? 0;
  for (let index = from; index < to; index++) at = writeFrame(bytes, at, segment.frame(index));
  return bytes;
}

/**
 * The content of a file, up to the first record that is not whole; or that another program or a later version wrote it.
 */
export function parseSegment(bytes: Uint8Array): ParsedSegment | 'foreign' {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const headerPayload = payloadAt(file, 0);
  if (headerPayload === undefined) return isTornHeader(file) ? { goodBytes: 0, contents: undefined } : 'foreign';
  const header = parseHeader(headerPayload);
  if (header === undefined) return 'foreign';

  const frames: SpooledFrame[] = [];
  let goodBytes = recordHeaderBytes + headerPayload.length;
  let firstSeq = 0;
  let lastSeq = 0;
  for (;;) {
    const payload = payloadAt(file, goodBytes);
    const frame = payload && parseFrame(payload);
    if (payload === undefined || frame === undefined || !follows(frame, lastSeq)) break;
    frames.push(frame);
    if (frame.kind !== frameKind.schema) lastSeq = frame.seq;
    if (firstSeq === 0) firstSeq = lastSeq;
    goodBytes += recordHeaderBytes + payload.length;
  }
  return { goodBytes, contents: lastSeq === 0 ? undefined : { ...header, frames, firstSeq } };
}

const headerKind = 0;
const recordHeaderBytes = 8;
const framePrefixBytes = 17;
const fileVersion = 1;
const magic = Buffer.from('sysmon spool');

function headerRecord({ epoch, continues, source }: Segment): Uint8Array {
  const { id, name, intervalMs, labels } = source;
  const fields = { version: fileVersion, epoch: epoch.id, continues, source: { id, name, intervalMs, labels } };
  const json = Buffer.from(JSON.stringify(fields));
  const bytes = Buffer.concat([Buffer.alloc(recordHeaderBytes), Buffer.of(headerKind), magic, json]);
  writeHeader(bytes, 0, bytes.length);
  return bytes;
}

/** Returns the end of the record. */
function writeFrame(bytes: Buffer, at: number, { kind, seq, timeMs, payload }: SpooledFrame): number {
  const start = at + recordHeaderBytes;
  const end = start + framePrefixBytes + payload.length;
  bytes[start] = kind;
  bytes.writeDoubleBE(seq, start + 1);
  bytes.writeDoubleBE(timeMs, start + 9);
  bytes.set(payload, start + framePrefixBytes);
  writeHeader(bytes, at, end);
  return end;
}

/** Writes the header of a record whose payload is there already. */
function writeHeader(bytes: Buffer, at: number, end: number): void {
  const start = at + recordHeaderBytes;
  bytes.writeUInt32BE(end - start, at);
  bytes.writeUInt32BE(crc32(bytes.subarray(start, end)), at + 4);
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

/** Whether an agent began a file without a whole header: it is zeros, or the beginning of our magic. */
function isTornHeader(file: Buffer): boolean {
  const start = recordHeaderBytes + 1;
  if (file.every((byte) => byte === 0)) return true;
  const there = file.subarray(start, start + magic.length);
  return there.equals(magic.subarray(0, there.length));
}

function parseHeader(payload: Buffer): Pick<SegmentContents, 'epoch' | 'continues' | 'source'> | undefined {
  if (payload[0] !== headerKind || !payload.subarray(1, 1 + magic.length).equals(magic)) return undefined;
  let fields: unknown;
  try {
    fields = JSON.parse(payload.toString('utf8', 1 + magic.length));
  } catch {
    // Its CRC is right, so it is whole: another version's, in a form that this one does not know.
    return undefined;
  }
  if (typeof fields !== 'object' || fields === null) return undefined;
  const { version, epoch, continues, source } = fields as Record<string, unknown>;
  if (version !== fileVersion || !Number.isSafeInteger(epoch) || typeof continues !== 'boolean') return undefined;
  if (!isSource(source)) return undefined;
  return { epoch: epoch as number, continues, source };
}

function isSource(value: unknown): value is Source {
  if (typeof value !== 'object' || value === null) return false;
  const { id, name, intervalMs, labels } = value as Record<string, unknown>;
  if (!Number.isSafeInteger(id) || typeof name !== 'string' || !Number.isSafeInteger(intervalMs)) return false;
  return Array.isArray(labels) && labels.every(isLabel);
}

function isLabel(value: unknown): boolean {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === 'string');
}

function parseFrame(payload: Buffer): SpooledFrame | undefined {
  const kind = payload[0]!;
  if (!isFrameKind(kind) || payload.length <= framePrefixBytes) return undefined;
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
