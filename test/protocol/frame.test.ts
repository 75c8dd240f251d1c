import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameError, ProtocolError } from '../../src/protocol/errors.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import { bytes, join } from '../support/messagepack.ts';

const payloads = [bytes(1), bytes(), bytes(2, 3, 4), new Uint8Array(3000).fill(7), bytes(5)];
const stream = join(...payloads.map(encodeFrame));
/** Where a frame ends and none has begun. */
const boundaries = new Set(payloads.map((_, i) => join(...payloads.slice(0, i + 1).map(encodeFrame)).length).concat(0));

/** Copies, because a payload may be a view that is valid until the next push. */
function cutOut(decoder: FrameDecoder, chunks: Iterable<Uint8Array>): Uint8Array[] {
  const out: Uint8Array[] = [];
  for (const chunk of chunks) for (const payload of decoder.push(chunk)) out.push(payload.slice());
  return out;
}

function newDecoder(payloadBytesMax = 4096): FrameDecoder {
  return new FrameDecoder({ payloadBytesMax });
}

test('a stream that is cut anywhere gives the same payloads, and its end inside a frame is an error', () => {
  for (let cut = 0; cut <= stream.length; cut++) {
    const decoder = newDecoder();
    const before = cutOut(decoder, [stream.slice(0, cut)]);
    if (boundaries.has(cut)) {
      assert.equal(decoder.bufferedBytes, 0);
      decoder.end();
    } else {
      assert.ok(decoder.bufferedBytes > 0);
      assert.throws(
        () => decoder.end(),
        (error) => error instanceof FrameError && error.code === 'truncated',
      );
    }
    const after = cutOut(decoder, [stream.slice(cut)]);
    assert.deepEqual([...before, ...after], payloads);
    decoder.end();
  }
});

test('a stream that comes one byte at a time gives the same payloads', () => {
  const decoder = newDecoder();
  const single = Array.from(stream, (byte) => bytes(byte));
  assert.deepEqual(cutOut(decoder, single), payloads);
  decoder.end();
});

test('property: framing survives any cutting', () => {
  const cut = fc.tuple(
    fc.array(fc.uint8Array({ maxLength: 5000 }), { maxLength: 8 }),
    fc.array(fc.nat(5000), { minLength: 1 }),
  );
  fc.assert(
    fc.property(cut, ([sent, sizes]) => {
      const all = join(...sent.map(encodeFrame));
      const chunks: Uint8Array[] = [];
      for (let at = 0, i = 0; at < all.length; i++) {
        const size = Math.max(1, sizes[i % sizes.length]!);
        chunks.push(all.slice(at, at + size));
        at += size;
      }
      const decoder = newDecoder(5000);
      assert.deepEqual(cutOut(decoder, chunks), sent);
      assert.equal(decoder.bufferedBytes, 0);
    }),
  );
});

for (const max of new Set([limits.helloBytesMax, limits.reportFrameBytesMax, limits.agentBoundFrameBytesMax])) {
  test(`a header of ${max - 1} or ${max} bytes is taken, of ${max + 1} refused before its payload has come`, () => {
    for (const length of [max - 1, max]) {
      const [payload] = cutOut(newDecoder(max), [encodeFrame(new Uint8Array(length))]);
      assert.equal(payload?.length, length);
    }
    const header = encodeFrame(new Uint8Array(max + 1)).slice(0, 4);
    assert.throws(() => cutOut(newDecoder(max), [header]), isLimit);
    assert.throws(
      () =>
        cutOut(
          newDecoder(max),
          Array.from(header, (byte) => bytes(byte)),
        ),
      isLimit,
    );
  });
}

test('a length of 4 GiB costs nothing', () => {
  const decoder = newDecoder(limits.reportFrameBytesMax);
  assert.throws(() => cutOut(decoder, [bytes(0xff, 0xff, 0xff, 0xff)]), isLimit);
  assert.equal(decoder.bufferedBytes, 4);
});

test('nothing comes out of a stream after a header that was refused', () => {
  const decoder = newDecoder(10);
  assert.throws(() => cutOut(decoder, [bytes(0, 0, 0, 11)]), isLimit);
  assert.throws(() => cutOut(decoder, [new Uint8Array(100)]), isLimit);
});

test('the bound may change between two payloads of one chunk', () => {
  const decoder = newDecoder(3);
  const out: number[] = [];
  for (const payload of decoder.push(join(encodeFrame(new Uint8Array(3)), encodeFrame(new Uint8Array(50))))) {
    out.push(payload.length);
    decoder.payloadBytesMax = 50;
  }
  assert.deepEqual(out, [3, 50]);
});

test('a chunk that was not consumed is not lost in silence', () => {
  const decoder = newDecoder();
  decoder.push(encodeFrame(bytes(1)));
  assert.throws(() => decoder.push(encodeFrame(bytes(2))), /before the last chunk was consumed/);
});

test('a frame that comes byte by byte is held in at most twice its bytes', () => {
  const decoder = newDecoder(limits.reportFrameBytesMax);
  const frame = encodeFrame(new Uint8Array(limits.reportFrameBytesMax));
  const before = process.memoryUsage().arrayBuffers;
  for (let at = 0; at < frame.length - 1; at++) {
    for (const _ of decoder.push(frame.subarray(at, at + 1))) assert.fail('no payload has come whole');
  }
  assert.equal(decoder.bufferedBytes, frame.length - 1);
  // What was outgrown may still wait for the collector: 1/2 + 1/4 + … of it.
  assert.ok(process.memoryUsage().arrayBuffers - before <= 2.1 * frame.length);
});

function isLimit(error: unknown): boolean {
  return error instanceof ProtocolError && error.code === 'limit';
}
