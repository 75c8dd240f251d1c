import { FrameError, ProtocolError } from './errors.ts';

/** A frame is a payload behind its length in bytes, 32 bits, big-endian. */
export const frameHeaderBytes = 4;

/** Header and payload in one new array. */
export function encodeFrame(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(frameHeaderBytes + payload.length);
  new DataView(frame.buffer).setUint32(0, payload.length);
  frame.set(payload, frameHeaderBytes);
  return frame;
}

/**
 * Cuts payloads out of a stream, however it was cut into chunks. It knows nothing of a frame but its header.
 *
 *     chunks   |....hhhhpppppp|pppp|pphhhhpp…
 *     payloads          pppppp pppp pp     held until the rest comes
 */
export class FrameDecoder {
  /**
   * The longest payload that is taken. It may be set between two payloads, also of one chunk: a header is judged when the
   * payload before it has been consumed.
   */
  payloadBytesMax: number;
  #chunk: Uint8Array = empty;
  #at = 0;
  // The length so far, of headerBytes bytes; complete at frameHeaderBytes.
  #payloadBytes = 0;
  #headerBytes = 0;
  // What has come of a payload that no chunk holds whole, in a buffer that doubles. A list of the chunks themselves would
  // cost a hundred bytes and more for each, and a peer may send each byte by itself.
  #held: Uint8Array = empty;
  #heldBytes = 0;

  constructor(options: { payloadBytesMax: number }) {
    this.payloadBytesMax = options.payloadBytesMax;
  }

  /** Bytes of a frame that has not come whole, its header included; what came behind it in the last chunk is not counted. */
  get bufferedBytes(): number {
    return this.#headerBytes + this.#heldBytes;
  }

  /**
   * The payloads that end in this chunk. Consume them all before the next push. A payload may be a view into the chunk:
   * it is valid until then.
   */
  push(chunk: Uint8Array): IterableIterator<Uint8Array> {
    if (this.#at < this.#chunk.length) throw new Error('frame decoder: pushed before the last chunk was consumed');
    this.#chunk = chunk;
    this.#at = 0;
    return this.#payloads();
  }

  /** Throws if the stream has ended inside a frame. */
  end(): void {
    if (this.bufferedBytes === 0) return;
    const of = this.#headerBytes < frameHeaderBytes ? 'its header' : `${this.#payloadBytes} bytes of payload`;
    throw new FrameError(
      'truncated',
      `the stream ended inside a frame: ${this.bufferedBytes} bytes of it came, of ${of}`,
    );
  }

  *#payloads(): IterableIterator<Uint8Array> {
    while (this.#readHeader()) {
      const payload = this.#readPayload();
      if (payload === undefined) return;
      this.#headerBytes = 0;
      this.#payloadBytes = 0;
      yield payload;
    }
  }

  /** Whether a whole header has been read, now or before. */
  #readHeader(): boolean {
    while (this.#headerBytes < frameHeaderBytes) {
      if (this.#at === this.#chunk.length) return false;
      this.#payloadBytes = this.#payloadBytes * 256 + this.#chunk[this.#at++]!;
      this.#headerBytes++;
    }
    // Also for a header that was refused before: nothing more comes out of such a stream.
    if (this.#payloadBytes > this.payloadBytesMax) {
      const bytes = this.#payloadBytes;
      throw new ProtocolError(
        'limit',
        `frame: a payload of ${bytes} bytes, at most ${this.payloadBytesMax} are allowed`,
      );
    }
    return true;
  }

  #readPayload(): Uint8Array | undefined {
    const comeBytes = Math.min(this.#payloadBytes - this.#heldBytes, this.#chunk.length - this.#at);
    const come = this.#chunk.subarray(this.#at, this.#at + comeBytes);
    this.#at += comeBytes;
    if (come.length === this.#payloadBytes) return come;
    this.#hold(come);
    if (this.#heldBytes < this.#payloadBytes) return undefined;
    const payload = this.#held.subarray(0, this.#payloadBytes);
    this.#held = empty;
    this.#heldBytes = 0;
    return payload;
  }

  #hold(bytes: Uint8Array): void {
    const neededBytes = this.#heldBytes + bytes.length;
    if (neededBytes > this.#held.length) {
      const doubled = Math.max(neededBytes, 2 * this.#held.length, heldBytesMin);
      const held = new Uint8Array(Math.min(doubled, this.#payloadBytes));
      held.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = held;
    }
    this.#held.set(bytes, this.#heldBytes);
    this.#heldBytes = neededBytes;
  }
}

const empty = new Uint8Array(0);

// One small report: most frames that are cut need no second buffer.
const heldBytesMin = 1024;
