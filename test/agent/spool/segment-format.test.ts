import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { frameKind, Segment, type SpoolEpoch, type SpooledFrame } from '../../../src/agent/spool/segment.ts';
import { encodeRecords, parseSegment } from '../../../src/agent/spool/segment-format.ts';
import { hostSource } from '../../support/recordings.ts';

const epoch: SpoolEpoch = { id: 2 ** 53 - 1, baseMs: 0, lastSeq: 0, lastTimeMs: 0 };
const frames: readonly SpooledFrame[] = [
  { kind: frameKind.schema, seq: 0, timeMs: 0, payload: Buffer.from('a schema') },
  { kind: frameKind.key, seq: 41, timeMs: 1_767_225_600_000, payload: Buffer.from('a key') },
  { kind: frameKind.delta, seq: 42, timeMs: 1_767_225_605_000, payload: Buffer.from([0]) },
  { kind: frameKind.schema, seq: 0, timeMs: 0, payload: Buffer.from('more of the schema') },
  { kind: frameKind.key, seq: 43, timeMs: 1_767_225_610_000, payload: Buffer.from('another') },
];

function segmentOf(held: readonly SpooledFrame[] = frames): Segment {
  const segment = new Segment({ number: 1, epoch, source: hostSource, continues: true });
  for (const frame of held) segment.push(frame, 0);
  return segment;
}

function parsed(bytes: Uint8Array) {
  const result = parseSegment(bytes);
  assert.ok(result !== 'foreign');
  return result;
}

test('what is written is read, in whatever pieces it was written', () => {
  const segment = segmentOf();
  const whole = encodeRecords(segment, 0, frames.length);
  const pieces = frames.map((_, at) => encodeRecords(segment, at, at + 1));
  assert.deepEqual(Buffer.concat(pieces), Buffer.from(whole));
  const { goodBytes, contents } = parsed(whole);
  assert.equal(goodBytes, whole.length);
  assert.ok(contents !== undefined);
  const { frames: read, ...rest } = contents;
  assert.deepEqual(
    read.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) })),
    frames,
  );
  assert.deepEqual(rest, { epoch: epoch.id, continues: true, source: hostSource, firstSeq: 41 });
});

test('a file of which no report is left holds nothing', () => {
  const bytes = encodeRecords(segmentOf(), 0, 1);
  assert.deepEqual(parsed(bytes), { goodBytes: bytes.length, contents: undefined });
  assert.deepEqual(parsed(new Uint8Array(0)), { goodBytes: 0, contents: undefined });
  assert.deepEqual(parsed(new Uint8Array(4096)), { goodBytes: 0, contents: undefined });
});

test('records that are whole, and not in an order in which a segment is written, end it', () => {
  const [schema, key, delta, , later] = frames as [
    SpooledFrame,
    SpooledFrame,
    SpooledFrame,
    SpooledFrame,
    SpooledFrame,
  ];
  const keptOf = (...held: SpooledFrame[]) =>
    parsed(encodeRecords(segmentOf(held), 0, held.length)).contents?.frames.length;
  assert.equal(keptOf(schema, delta), undefined, 'a first report that is no key');
  assert.equal(keptOf(schema, key, later), 2, 'a number that is left out');
  assert.equal(keptOf(schema, key, key), 2, 'a number that comes again');
  assert.equal(keptOf(schema, { ...key, seq: 0 }), undefined, 'a number that none has');
  assert.equal(keptOf(schema, key, { ...schema, seq: 42 }), 2, 'a schema with a number');
});

test('a header of another version or of another form is foreign', () => {
  const whole = Buffer.from(encodeRecords(segmentOf(), 0, frames.length));
  const length = whole.readUInt32BE(0);
  const start = 8 + 1 + 'sysmon spool'.length;
  const fields = JSON.parse(whole.toString('utf8', start, 8 + length));
  const withHeader = (text: string): Buffer => {
    const payload = Buffer.concat([whole.subarray(8, start), Buffer.from(text)]);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(payload.length, 0);
    head.writeUInt32BE(crc32(payload), 4);
    return Buffer.concat([head, payload, whole.subarray(8 + length)]);
  };
  assert.notEqual(parseSegment(withHeader(JSON.stringify(fields))), 'foreign');
  assert.notEqual(parseSegment(withHeader(JSON.stringify({ ...fields, more: 1 }))), 'foreign', 'a field more');
  const { source } = fields;
  for (const other of [
    { ...fields, version: 2 },
    { ...fields, epoch: 1.5 },
    { ...fields, epoch: '7' },
    { ...fields, continues: 1 },
    { ...fields, source: null },
    { ...fields, source: { ...source, id: '0' } },
    { ...fields, source: { ...source, name: 7 } },
    { ...fields, source: { ...source, intervalMs: null } },
    { ...fields, source: { ...source, labels: {} } },
    { ...fields, source: { ...source, labels: [['rack']] } },
    { ...fields, source: { ...source, labels: [['rack', 7]] } },
    null,
    [],
    7,
  ]) {
    assert.equal(parseSegment(withHeader(JSON.stringify(other))), 'foreign', JSON.stringify(other));
  }
  assert.equal(parseSegment(withHeader('no JSON')), 'foreign');
  assert.equal(parseSegment(Buffer.from('somebody wrote this by hand')), 'foreign');
});
