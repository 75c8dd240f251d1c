import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import fc from 'fast-check';
import { Unpackr } from 'msgpackr/pack';
import { decodeAgentMessage, decodeServerMessage } from '../../src/protocol/codec.ts';
import { FrameError, ProtocolError, wireCode } from '../../src/protocol/errors.ts';
import { guard } from '../../src/protocol/guard.ts';
import { limits } from '../../src/protocol/limits.ts';
import { agentTable, type KindTable, serverTable } from '../../src/protocol/messages.ts';
import { pingOf } from '../support/groups.ts';
import {
  array32,
  bytes,
  float64,
  hex,
  integerForms,
  join,
  longString,
  pack,
  repeat,
  uint64,
} from '../support/messagepack.ts';

/** A payload that counts how often the guard looks at a byte. */
function counted(payload: Uint8Array): { proxy: Uint8Array; reads: () => number } {
  let reads = 0;
  const proxy = new Proxy(payload, {
    get(target, property) {
      if (typeof property === 'string' && /^\d+$/.test(property)) reads++;
      return Reflect.get(target, property, target);
    },
  });
  return { proxy, reads: () => reads };
}

const unpack = mock.method(Unpackr.prototype, 'unpack');

/** Refused with this code by the guard itself: no decoder was called, and no byte was looked at twice. */
function assertRefused(payload: Uint8Array, code: string, bounds: KindTable = agentTable): void {
  const { proxy, reads } = counted(payload);
  assert.throws(() => guard(proxy, bounds), isRefusal(code));
  assert.ok(reads() <= payload.length, `${reads()} reads of ${payload.length} bytes`);

  const callsBefore = unpack.mock.callCount();
  const decode = bounds === agentTable ? decodeAgentMessage : decodeServerMessage;
  assert.throws(() => decode(payload), isRefusal(code));
  assert.equal(unpack.mock.callCount(), callsBefore);
}

function assertPasses(payload: Uint8Array, bounds: KindTable = agentTable): void {
  const { proxy, reads } = counted(payload);
  guard(proxy, bounds);
  assert.ok(reads() <= payload.length, `${reads()} reads of ${payload.length} bytes`);
}

function isRefusal(code: string): (error: unknown) => boolean {
  return (error) => (error instanceof FrameError || error instanceof ProtocolError) && wireCode(error) === code;
}

test('the spy sees the decoder where a payload passes', () => {
  const callsBefore = unpack.mock.callCount();
  decodeAgentMessage(pack([6, 1, 0, 0]));
  assert.equal(unpack.mock.callCount(), callsBefore + 1);
});

// Integers that land in one bucket of an unseeded hash table of 2^16: what makes a Map or a Set quadratic.
const colliding = join(
  ...Array.from({ length: 50_000 }, (_, i) => join(bytes(0xce), uint64(BigInt((i << 16) >>> 0)).slice(5))),
);

/** What made msgpackr hang, overflow, allocate or run code, each as it would stand in a message or by itself. */
const hostile: [what: string, bytes: Uint8Array][] = [
  ['an array header of 2^32-1', hex('dd ffffffff')],
  ['a map header of 2^32-1', hex('df ffffffff')],
  ['fifty nested arrays of 2^20', repeat(hex('dd 00100000'), 50)],
  ['a graph of references of 505 bytes', repeat(hex('d6 69 00000001 92 d6 70 00000001 d6 70 00000001'), 28)],
  ['bin of 1 MiB', join(hex('c6 000ffff0'), new Uint8Array(0xffff0))],
  ['bin of 3 bytes', hex('c4 03 010203')],
  ['bin 16', hex('c5 0001 01')],
  ['a map of 50 000 colliding keys', join(hex('df 0000c350'), colliding)],
  ['a set of 50 000 colliding integers', join(hex('d4 73 00 dd 0000c350'), colliding)],
  ['2000 record definitions', repeat(hex('d4 72 40 91 a1 61 c0'), 2000)],
  ['a record of two bytes', hex('d5 72 40 01 91 a1 61 c0')],
  ['a record without keys, used a million times', join(hex('d4 72 40 90'), repeat(bytes(0x40), 1e6))],
  ['a MiB of empty maps', repeat(bytes(0x80), 2 ** 20)],
  ['a MiB of empty arrays', join(array32(2 ** 20 - 10), repeat(bytes(0x90), 2 ** 20 - 10))],
  ['5000 arrays in each other', join(repeat(bytes(0x91), 5000), bytes(0xc0))],
  ['a regular expression', hex('d4 78 00 92 a1 28 a0')],
  ['an error', hex('d4 65 00 93 a5 4572726f72 a1 78 c0')],
  ['a date', hex('d6 ff 00000000')],
  ['a date of 8 bytes', hex('d7 ff 0000000000000000')],
  ['a typed array', hex('c7 04 74 0201 0203')],
  ['a big integer', hex('c7 03 42 0102')],
  ['an extension of 1 byte', hex('d4 01 00')],
  ['an extension of 2 bytes', hex('d5 01 0000')],
  ['an extension of 16 bytes', join(hex('d8 01'), new Uint8Array(16))],
  ['ext 16', hex('c8 0001 01 00')],
  ['ext 32', hex('c9 00000001 01 00')],
  ['bundled strings', hex('d6 62 00000000')],
  ['the unused 0xc1', hex('c1')],
  ['a float32', hex('ca 3f800000')],
  ['a key __proto__', hex('81 a9 5f5f70726f746f5f5f 80')],
  ['a key constructor', hex('81 ab 636f6e7374727563746f72 01')],
  ['an empty map', hex('80')],
  ['map 16', hex('de 0001 01 01')],
];
for (const [what, value] of hostile) {
  test(`refused before the decoder sees it: ${what}`, () => {
    for (const around of [
      hex('91'),
      hex('92 04'),
      hex('94 05 01 01'),
      hex('94 01 01 a1 61'),
      hex('92 03'),
      hex('92 07'),
    ]) {
      const payload = join(around, value);
      const { proxy, reads } = counted(payload);
      const callsBefore = unpack.mock.callCount();
      assert.throws(() => decodeAgentMessage(payload), isFromPeer);
      assert.throws(() => decodeServerMessage(payload), isFromPeer);
      assert.throws(() => guard(proxy, agentTable), isFromPeer);
      assert.equal(unpack.mock.callCount(), callsBefore);
      assert.ok(reads() <= payload.length);
    }
    assertRefusedAlone(value);
  });
}

function isFromPeer(error: unknown): boolean {
  return error instanceof FrameError || error instanceof ProtocolError;
}

function assertRefusedAlone(value: Uint8Array): void {
  const callsBefore = unpack.mock.callCount();
  assert.throws(() => decodeAgentMessage(value), isFromPeer);
  assert.equal(unpack.mock.callCount(), callsBefore);
}

test('60 000 strings that are not UTF-8 are refused at the first', () => {
  const string = join(bytes(0xaf), new Uint8Array(15).fill(0xff));
  assertRefused(join(bytes(0x92), pack(7), array32(60_000), repeat(string, 60_000)), 'limit');
  assertRefused(join(bytes(0x92), pack(7), array32(16_000), repeat(string, 16_000)), 'bad-frame');
});

test('an end that is not exact', () => {
  const message = pack([4, 1, 2, 300, 0, 0.5]);
  assertPasses(message);
  for (let cut = 0; cut < message.length; cut++) assertRefused(message.slice(0, cut), 'bad-frame');
  assertRefused(join(message, bytes(0)), 'bad-frame');
  // The decoder writes what it has read into its error message: half a second for a payload that is one byte too long.
  assertRefused(join(bytes(0x92), pack(7), repeat(bytes(0x90), 2), bytes(0)), 'bad-frame');
});

const schemaPayload = pack([
  3,
  0,
  ['a_b', 'gauge', 'Some help, ünïcödé 🙂.', 1, ['', ['x'], 2, ['1', 'y'.repeat(300)]]],
]);
test('a schema that is cut at any byte', () => {
  assertPasses(schemaPayload);
  for (let cut = 0; cut < schemaPayload.length; cut++) assertRefused(schemaPayload.slice(0, cut), 'bad-frame');
});

test('a payload that is no array, or begins with no kind', () => {
  for (const value of [null, true, 1, 'text', 1.5]) assertRefused(pack(value), 'bad-frame');
  assertRefused(pack([]), 'bad-message');
  for (const kind of [null, true, 'text', [1], 1.5, Number.NaN]) assertRefused(pack([kind, 1]), 'bad-message');
  for (const kind of [0, -1]) {
    // A kind like any other for the guard; the parser refuses it.
    assertPasses(pack([kind]));
    assert.throws(() => decodeAgentMessage(pack([kind])), isRefusal('bad-message'));
  }
});

test('a kind in any form of its integer', () => {
  for (const form of integerForms(6)) {
    assert.deepEqual(decodeAgentMessage(join(bytes(0x94), form, pack(5), bytes(0, 0))), pingOf(5));
    assert.deepEqual(decodeAgentMessage(join(array32(4), form, pack(5), bytes(0, 0))), pingOf(5));
  }
  for (const form of integerForms(70_000)) {
    assert.deepEqual(decodeAgentMessage(join(bytes(0x91), form)), { kind: 'unknown', number: 70_000 });
  }
  assertRefused(join(bytes(0x91), uint64(2n ** 53n)), 'bad-message');
  assertRefused(join(bytes(0x91), float64(2 ** 53)), 'bad-message');
});

// One below, at, one above. A name and a payload for each size.
type Sized = (size: number) => Uint8Array;
const sizes: [what: string, max: number, payload: Sized, bounds: KindTable][] = [
  ['bytes of a hello', limits.helloBytesMax, withText(1), agentTable],
  ['bytes of a begin', limits.smallFrameBytesMax, withTexts(2), agentTable],
  ['bytes of a schema', limits.schemaFrameBytesMax, withTexts(3), agentTable],
  ['bytes of a report', limits.reportFrameBytesMax, withNumbers(4), agentTable],
  ['bytes of a key report', limits.reportFrameBytesMax, withNumbers(5), agentTable],
  ['bytes of a ping', limits.smallFrameBytesMax, withTexts(6), agentTable],
  ['bytes of an unknown kind', limits.unknownFrameBytesMax, withTexts(7), agentTable],
  ['bytes of a welcome', limits.agentBoundFrameBytesMax, withNumbers(1), serverTable],
  ['bytes of an ack', limits.agentBoundFrameBytesMax, withNumbers(2), serverTable],
  ['bytes of an error', limits.agentBoundFrameBytesMax, withText(3), serverTable],
  ['bytes of a refused', limits.agentBoundFrameBytesMax, withTexts(5), serverTable],
  ['bytes of an unknown kind to an agent', limits.agentBoundFrameBytesMax, withTexts(6), serverTable],
  ['bytes of a string in a schema', limits.stringBytesMax, (size) => pack([3, 'x'.repeat(size)]), agentTable],
  ['bytes of a string in an unknown kind', limits.stringBytesMax, (n) => pack([9, 'x'.repeat(n)]), agentTable],
  ['values in a report', limits.frameValuesMax, values(4), agentTable],
  ['values in a key report', limits.frameValuesMax, values(5), agentTable],
  ['values in a report, arrays counted', limits.frameValuesMax, values(4, true), agentTable],
  // A schema and an unknown kind reach their bytes first.
  ['depth', limits.depthMax, nested(3), agentTable],
  ['depth of an unknown kind', limits.depthMax, nested(7), agentTable],
  ['depth to an agent', limits.depthMax, nested(1), serverTable],
];
for (const [what, max, payload, bounds] of sizes) {
  test(`${what}: ${max - 1} and ${max} pass, ${max + 1} are refused`, () => {
    assertPasses(payload(max - 1), bounds);
    assertPasses(payload(max), bounds);
    assertRefused(payload(max + 1), 'limit', bounds);
  });
}

/** One string that fills the payload. */
function withText(kind: number): Sized {
  return (size) => join(bytes(0x92, kind), longString(new Uint8Array(size - 5).fill(0x61), 2));
}

/** Strings of 64 bytes, and a last one that fills the payload. */
function withTexts(kind: number): Sized {
  return (size) => {
    const head = join(array32(Math.floor((size - 100) / 64) + 2), bytes(kind));
    const strings = repeat(longString(new Uint8Array(62).fill(0x61), 1), Math.floor((size - 100) / 64));
    const rest = size - head.length - strings.length - 3;
    return join(head, strings, longString(new Uint8Array(rest).fill(0x61), 2));
  };
}

/** Doubles, and single bytes that fill the payload. */
function withNumbers(kind: number): Sized {
  return (size) => {
    const doubles = Math.floor((size - 6) / 9);
    const single = size - 6 - doubles * 9;
    return join(array32(1 + doubles + single), bytes(kind), repeat(float64(0.5), doubles), repeat(bytes(0), single));
  };
}

/** The message is one value, its kind another. */
function values(kind: number, inner = false): Sized {
  return (size) => {
    if (!inner) return join(array32(size - 1), bytes(kind), repeat(bytes(0), size - 2));
    return join(bytes(0x92, kind), array32(size - 3), repeat(bytes(0x90), size - 3));
  };
}

/** The message is depth 1. */
function nested(kind: number): Sized {
  return (size) => join(bytes(0x92, kind), repeat(bytes(0x91), size - 2), bytes(0x90));
}

test('a report has no strings, not even empty ones', () => {
  for (const kind of [4, 5]) {
    assertRefused(pack([kind, 1, 2, '']), 'bad-frame');
    assertRefused(pack([kind, 1, 2, 'x']), 'bad-frame');
  }
});

test('a whole array is counted when it is announced', () => {
  const { proxy, reads } = counted(join(bytes(0x92, 4), array32(limits.frameValuesMax), repeat(bytes(0), 300_000)));
  assert.throws(() => guard(proxy, agentTable), isRefusal('limit'));
  assert.ok(reads() < 10);
});

test('property: UTF-8 passes exactly where the standard decoder takes it', () => {
  const strict = new TextDecoder('utf-8', { fatal: true });
  const near = fc.array(
    fc.oneof(
      fc.constantFrom(
        0x7f,
        0x80,
        0x8f,
        0x90,
        0x9f,
        0xa0,
        0xbf,
        0xc0,
        0xc1,
        0xc2,
        0xdf,
        0xe0,
        0xe1,
        0xec,
        0xed,
        0xee,
        0xef,
      ),
      fc.constantFrom(0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff, 0xbb, 0xbf),
      fc.nat(255),
    ),
    { maxLength: 6 },
  );
  const valid = fc.string({ unit: 'binary', maxLength: 6 }).map((text) => [...Buffer.from(text)]);
  fc.assert(
    fc.property(fc.array(fc.oneof(near, valid), { maxLength: 4 }), (parts) => {
      const content = Uint8Array.from(parts.flat());
      const payload = join(bytes(0x92, 7), longString(content, 1));
      let standard = true;
      try {
        strict.decode(content);
      } catch {
        standard = false;
      }
      if (standard) assertPasses(payload);
      else assertRefused(payload, 'bad-frame');
    }),
    { numRuns: 3000 },
  );
});

test('each two-byte start of UTF-8, followed by what completes it', () => {
  const strict = new TextDecoder('utf-8', { fatal: true });
  for (let first = 0x80; first < 0x100; first++) {
    for (let second = 0; second < 0x100; second++) {
      const more = first >= 0xf0 ? 2 : first >= 0xe0 ? 1 : 0;
      const content = bytes(first, second, ...[0xbf, 0xbf].slice(0, more));
      let passed = true;
      try {
        guard(join(bytes(0x92, 7), longString(content, 1)), agentTable);
      } catch {
        passed = false;
      }
      let standard = true;
      try {
        strict.decode(content);
      } catch {
        standard = false;
      }
      assert.equal(passed, standard, Buffer.from(content).toString('hex'));
    }
  }
});
