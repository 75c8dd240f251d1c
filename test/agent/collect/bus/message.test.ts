import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  BusError,
  type BusMessage,
  encodeCall,
  MessageDecoder,
  messageBytesMax,
} from '../../../../src/agent/collect/bus/message.ts';
import { BusWriter, completeTypes, encodeMessage } from '../../../support/fake-bus.ts';

const decode = (bytes: Uint8Array): BusMessage[] => new MessageDecoder().push(bytes);

test('a call is the bytes of the specification', () => {
  const bytes = encodeCall({
    serial: 1,
    destination: 'a.b',
    path: '/a',
    interface: 'a.b',
    member: 'M',
    arguments: ['x', ''],
  });
  assert.equal(
    Buffer.from(bytes).toString('latin1'),
    'l\x01\0\x01' +
      '\x0d\0\0\0' +
      '\x01\0\0\0' +
      '\x48\0\0\0' +
      '\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0' +
      '\x02\x01s\0\x03\0\0\0a.b\0\0\0\0\0' +
      '\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0' +
      '\x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0' +
      '\x08\x01g\0\x02ss\0' +
      '\x01\0\0\0x\0\0\0' +
      '\0\0\0\0\0',
  );
  const [call] = decode(bytes);
  assert.deepEqual(
    { ...call },
    {
      ...{
        type: 'call',
        serial: 1,
        replySerial: undefined,
        path: '/a',
        member: 'M',
        interface: 'a.b',
        errorName: undefined,
      },
      body: ['x', ''],
    },
  );
});

const leaf = fc.oneof(
  fc.tuple(fc.constantFrom('y'), fc.nat(255)),
  fc.tuple(fc.constantFrom('n'), fc.integer({ min: -32768, max: 32767 })),
  fc.tuple(fc.constantFrom('q'), fc.nat(65535)),
  fc.tuple(fc.constantFrom('b'), fc.boolean()),
  fc.tuple(fc.constantFrom('i'), fc.integer()),
  fc.tuple(fc.constantFrom('u'), fc.nat(0xffffffff)),
  fc.tuple(fc.constantFrom('x'), fc.maxSafeInteger()),
  fc.tuple(fc.constantFrom('t'), fc.maxSafeNat()),
  fc.tuple(fc.constantFrom('d'), fc.double({ noNaN: true })),
  fc.tuple(fc.constantFrom('s'), fc.string({ unit: 'grapheme' })),
  fc.tuple(fc.constantFrom('g'), fc.constantFrom('', 's', 'a{sv}')),
);
type Value = readonly [signature: string, given: unknown, read: unknown];
const value = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf.map(([signature, given]): Value => [signature, given, given]),
    fc
      .array(tie('value'), { minLength: 1, maxLength: 3 })
      .map(
        (all): Value => [
          `(${all.map(([each]) => each).join('')})`,
          all.map(([, given]) => given),
          all.map(([, , read]) => read),
        ],
      ),
    tie('value').map(([signature, given, read]): Value => ['v', [signature, given], read]),
    fc
      .tuple(tie('value'), fc.nat(3))
      .map(
        ([[signature, given, read], count]): Value => [
          `a${signature}`,
          Array(count).fill(given),
          Array(count).fill(read),
        ],
      ),
    fc
      .tuple(fc.string(), tie('value'))
      .map(([key, [signature, given, read]]): Value => ['a{sv}', [[key, [signature, given]]], [[key, read]]]),
  ),
})).value;

test('what is written is read again, in both byte orders, wherever the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.array(value, { maxLength: 4 }), fc.boolean()), { minLength: 1, maxLength: 3 }),
      fc.array(fc.nat(), { maxLength: 5 }),
      (messages, cuts) => {
        const bytes = Buffer.concat(
          messages.map(([values, isLittle], at) =>
            encodeMessage(
              {
                type: 'return',
                replySerial: at + 1,
                signature: values.map(([type]) => type).join(''),
                body: values.map(([, given]) => given),
              },
              isLittle,
            ),
          ),
        );
        const decoder = new MessageDecoder();
        const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
        const read = places.slice(1).flatMap((end, at) => decoder.push(bytes.subarray(places[at], end)));
        assert.deepEqual(
          read.map(({ body }) => body),
          messages.map(([values]) => values.map(([, , each]) => each)),
        );
        assert.deepEqual(
          read.map(({ replySerial }) => replySerial),
          messages.map((_, at) => at + 1),
        );
        assert.equal(decoder.bufferedBytes, 0);
      },
    ),
    { numRuns: 150 },
  );
});

test('one byte at a time', () => {
  const bytes = encodeMessage({
    type: 'signal',
    path: '/a',
    interface: 'a.b',
    member: 'M',
    signature: 'as',
    body: [['x', 'y']],
  });
  const decoder = new MessageDecoder();
  const read = [...bytes].flatMap((byte) => decoder.push(Uint8Array.of(byte)));
  assert.deepEqual(
    read.map(({ member, body }) => [member, body]),
    [['M', [['x', 'y']]]],
  );
});

test('a message with changed bytes is read, waited for, or refused', () => {
  const bytes = encodeMessage({
    type: 'return',
    replySerial: 1,
    signature: 'a(ssv)a{sv}d',
    body: [[['a', 'b', ['u', 1]]], [['k', ['as', ['x']]]], 1.5],
  });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (changes) => {
        const changed = Buffer.from(bytes);
        for (const [at, byte] of changes) changed[at] = byte;
        try {
          assert.ok(decode(changed).length <= 2);
        } catch (error) {
          assert.ok(error instanceof BusError, String(error));
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('bounds, and what is no message', () => {
  const refusal = (bytes: Uint8Array) => {
    try {
      return `read ${decode(bytes).length}`;
    } catch (error) {
      assert.ok(error instanceof BusError, String(error));
      return `${error.code}: ${error.message}`;
    }
  };
  const header = (lead: number[], body: number, fields: number) => {
    const writer = new BusWriter();
    writer.raw(lead);
    for (const each of [body, 1, fields]) writer.value('u', each);
    return writer.bytes;
  };
  assert.equal(
    refusal(header([0x6c, 1, 0, 1], messageBytesMax, 0)),
    `limit: a message of ${messageBytesMax + 16} bytes, at most ${messageBytesMax} are read`,
  );
  assert.match(refusal(header([0x6c, 1, 0, 2], 0, 0)), /^format: the protocol version is 2/);
  assert.match(refusal(header([0x78, 1, 0, 1], 0, 0)), /^format: a message begins with byte 120/);
  assert.match(
    refusal(encodeMessage({ type: 'return', signature: `${'a'.repeat(100)}y`, body: [[]] })),
    /^limit: types nested deeper/,
  );
  const nested = (depth: number): unknown => (depth === 0 ? ['y', 1] : ['v', nested(depth - 1)]);
  assert.match(
    refusal(encodeMessage({ type: 'return', signature: 'v', body: [nested(40)] })),
    /^limit: values nested deeper/,
  );
  assert.match(
    refusal(encodeMessage({ type: 'return', signature: 'ay', body: [new Uint8Array(1_100_000)] })),
    /^limit: more than 1000000 values/,
  );
  assert.deepEqual(completeTypes('a(ss)a{sv}uaay'), ['a(ss)', 'a{sv}', 'u', 'aay']);
});
