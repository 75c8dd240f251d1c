import { crc32 } from 'node:zlib';
import type { EpochSeq } from '../../protocol/messages.ts';
import type { Segment, SpoolEpoch } from './segment.ts';

/** What is kept about one server across a restart. */
export interface ReceiverState {
  /** The server's address, as it is configured. */
  readonly server: string;
  /** The server has everything up to this report, undefined where it has nothing. */
  readonly acknowledged: EpochSeq | undefined;
  /** What the server adds to the times of an epoch, by epoch. */
  readonly offsetsMs: ReadonlyMap<number, number>;
}

/**
 * One server, as the spool sees it: how much of the spool's queue it has acknowledged, and by how much its clock
 * differs from that of each epoch. Segments hold neither, so each server has its own.
 */
export class Receiver implements ReceiverState {
  readonly server: string;
  /** By how much the server was ahead of boot time when an offset of this run was last measured. */
  serverAheadMs: number | undefined;
  #acknowledged: EpochSeq | undefined;
  readonly #offsetsMs = new Map<number, number>();
  /** The queue up to here is acknowledged: all segments before this one, and of this one the reports up to `seq`. */
  #position = { segmentNumber: 0, seq: 0 };
  #changeCount = 0;
  #offsetChangeCount = 0;

  constructor(server: string) {
    this.server = server;
  }

  get acknowledged(): EpochSeq | undefined {
    return this.#acknowledged;
  }
  get offsetsMs(): ReadonlyMap<number, number> {
    return this.#offsetsMs;
  }
  /** The mirror compares these with what it has written. */
  get changeCount(): number {
    return this.#changeCount;
  }
  get offsetChangeCount(): number {
    return this.#offsetChangeCount;
  }

  /** The last report of a segment that is acknowledged; the one before its first where none is. */
  acknowledgedIn({ number, firstSeq, lastSeq }: Segment): number {
    const { segmentNumber, seq } = this.#position;
    if (number < segmentNumber) return lastSeq;
    if (number > segmentNumber) return firstSeq - 1;
    return Math.max(firstSeq - 1, Math.min(seq, lastSeq));
  }

  /** The queue is acknowledged up to report `seq` of this segment. An older acknowledgement changes nothing. */
  acknowledge({ number, epoch }: Segment, seq: number): void {
    const { segmentNumber } = this.#position;
    if (number < segmentNumber || (number === segmentNumber && seq <= this.#position.seq)) return;
    this.#position = { segmentNumber: number, seq };
    this.#acknowledged = { epoch: epoch.id, seq };
    this.#changeCount++;
  }

  /** The content of its file. */
  restore({ acknowledged, offsetsMs }: Omit<ReceiverState, 'server'>): void {
    this.#acknowledged = acknowledged;
    for (const [epoch, offsetMs] of offsetsMs) this.#offsetsMs.set(epoch, offsetMs);
  }

  /** Its server was known by another address: what was kept for that one is kept for this one. */
  takeOver(state: ReceiverState): void {
    this.restore(state);
    this.#changeCount++;
    this.#offsetChangeCount++;
  }

  /** A segment was loaded: the acknowledged position may lie in it. */
  locate({ number, epoch, firstSeq }: Segment): void {
    const acknowledged = this.#acknowledged;
    if (acknowledged?.epoch !== epoch.id || firstSeq > acknowledged.seq) return;
    this.#position = { segmentNumber: number, seq: acknowledged.seq };
  }

  /** What the server adds to the times of an epoch. It may be fixed again, if one of the clocks was wrong. */
  fixOffset({ id, baseMs }: SpoolEpoch, offsetMs: number): void {
    if (baseMs !== undefined) this.serverAheadMs = baseMs + offsetMs;
    this.#offsetsMs.set(id, offsetMs);
    this.#changeCount++;
    this.#offsetChangeCount++;
  }

  /**
   * Forgets the offsets of epochs of which nothing is held, once there are many: a file that could not be read at this
   * start may need its own at the next.
   */
  forgetOffsets(held: readonly SpoolEpoch[]): void {
    if (this.#offsetsMs.size <= offsetsKept) return;
    const ids = new Set(held.map(({ id }) => id));
    for (const id of this.#offsetsMs.keys()) if (!ids.has(id)) this.#offsetsMs.delete(id);
  }
}

const offsetsKept = 100;

/** `receiver-` and the address: readable, safe as a file's name, and another one for each address. */
export function receiverFileName(server: string): string {
  const words = server.replace(/[^A-Za-z0-9.-]/g, '_').slice(0, 64);
  return `receiver-${words}-${crc32(server).toString(16).padStart(8, '0')}.json`;
}

export function isReceiverFileName(name: string): boolean {
  return /^receiver-.+\.json$/.test(name);
}

/**
 * `{"version":1,"server":"HOST:PORT","acknowledged":[epoch,seq],"offsetsMs":[[epoch,ms],…]}`; nothing acknowledged:
 * null.
 */
export function encodeReceiver({ server, acknowledged, offsetsMs }: ReceiverState): Uint8Array {
  const position = acknowledged === undefined ? null : [acknowledged.epoch, acknowledged.seq];
  return Buffer.from(
    `${JSON.stringify({ version: fileVersion, server, acknowledged: position, offsetsMs: [...offsetsMs] })}\n`,
  );
}

/** Undefined where the bytes are damaged, or a later version's. */
export function parseReceiver(bytes: Uint8Array): ReceiverState | undefined {
  let file: unknown;
  try {
    file = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'));
  } catch {
    // Not whole.
    return undefined;
  }
  if (typeof file !== 'object' || file === null) return undefined;
  const { version, server, acknowledged, offsetsMs } = file as Record<string, unknown>;
  if (version !== fileVersion || typeof server !== 'string' || !Array.isArray(offsetsMs)) return undefined;
  if (!offsetsMs.every(isNumberPair)) return undefined;
  if (acknowledged !== null && !isNumberPair(acknowledged)) return undefined;
  return {
    server,
    acknowledged: acknowledged === null ? undefined : { epoch: acknowledged[0], seq: acknowledged[1] },
    offsetsMs: new Map(offsetsMs),
  };
}

const fileVersion = 1;

function isNumberPair(value: unknown): value is [number, number] {
  return Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);
}
