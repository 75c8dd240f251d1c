import { encodeFrame } from '../../src/protocol/frame.ts';
import { bytes, float64, integerForms, join, longString, type Packable, pack, uint64 } from '../support/messagepack.ts';
import type { Random } from '../support/random.ts';

/** A message as the tree that it is packed from. */
type Message = Packable[];

export interface Input {
  /** Who would read it. */
  readonly reader: 'server' | 'agent';
  readonly level: Level;
  readonly stream: Uint8Array;
}

export const levels = ['framing', 'guard', 'schema', 'report', 'to an agent'] as const;
export type Level = (typeof levels)[number];

/** One input: a connection as it might really be, spoilt at one of the levels, or bytes out of nowhere. */
export function input(random: Random): Input {
  const level = random.pick(levels);
  switch (level) {
    case 'framing':
      return { reader: 'server', level, stream: spoiltBytes(random, streamOf(connection(random))) };
    case 'guard':
      return { reader: 'server', level, stream: spoiltPayload(random, connection(random)) };
    case 'schema':
      return { reader: 'server', level, stream: streamOf(spoiltTree(random, connection(random), isDeclaration)) };
    case 'report':
      return { reader: 'server', level, stream: streamOf(spoiltTree(random, connection(random), isReport)) };
    case 'to an agent': {
      const messages = fromServer(random);
      const how = random.pick([
        () => spoiltBytes(random, streamOf(messages)),
        () => spoiltPayload(random, messages),
        () => streamOf(spoiltTree(random, messages, () => true)),
      ]);
      return { reader: 'agent', level, stream: how() };
    }
  }
}

/** The same stream in chunks of other sizes. */
export function cut(random: Random, stream: Uint8Array): Uint8Array[] {
  const most = random.pick([1, 3, 20, 1500]);
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < stream.length; ) {
    const size = random.whole(1, most);
    chunks.push(stream.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

function streamOf(messages: readonly Message[]): Uint8Array {
  return join(...messages.map((message) => encodeFrame(pack(message))));
}

/** What an agent might send, from its hello on. */
function connection(random: Random): Message[] {
  const messages: Message[] = [[1, 1, 'web-1', 'host', 'sysmon-agent 1']];
  let [seq, families] = [random.whole(1, 50), 0];
  let epoch = random.whole(0, 2 ** 50);
  for (let segment = random.pick([1, 1, 1, 2]); segment > 0; segment--) {
    const source = random.pick([0, 0, 0, 1, random.whole(2, 100)]);
    const name = source === 0 ? 'host' : `exporter-${source}`;
    messages.push([2, epoch, source, name, random.pick([5000, 15_000]), ['rack', 'b7'], random.whole(-5000, 5000)]);
    let seriesCount = 0;
    for (let run = random.pick([1, 1, 1, 2]); run > 0; run--) {
      const width = random.whole(0, 2);
      const added = width === 0 ? 1 : random.whole(1, 6);
      if (random.chance(0.3)) {
        messages.push([3, source, histogram(`node_${families++}_seconds`, added)]);
        seriesCount += added + 2;
      } else {
        messages.push([3, source, family(random, `node_${families++}_total`, width, added)]);
        seriesCount += added;
      }
      for (let report = 0; report < random.whole(1, 2); report++) {
        messages.push([report === 0 ? 5 : 4, source, seq, 1.764e12 + seq * 5000, ...pairs(random, seriesCount)]);
        seq++;
      }
    }
    if (random.chance(0.3)) epoch = random.whole(0, 2 ** 50);
    if (random.chance(0.3)) messages.push([6, random.whole(0, 2 ** 31), 3, random.whole(0, 2 ** 31)]);
    if (random.chance(0.2)) messages.push([random.whole(7, 200), 'later', [1, null]]);
  }
  return messages;
}

function family(random: Random, name: string, width: number, seriesCount: number): Packable {
  const labelNames = ['cpu', 'mode'].slice(0, width);
  const values = Array.from({ length: width * seriesCount }, (_, i) => `${Math.floor(i / Math.max(1, width))}`);
  return [name, random.pick(['counter', 'gauge', 'untyped']), 'Help.', 100, ['', labelNames, seriesCount, values]];
}

function histogram(name: string, buckets: number): Packable {
  const bounds = Array.from({ length: buckets }, (_, i) => (i === 0 ? '+Inf' : `${i / 10}`));
  return [
    name,
    'histogram',
    'Help.',
    1,
    ['_bucket', ['le'], buckets, bounds],
    ['_sum', [], 1, []],
    ['_count', [], 1, []],
  ];
}

function pairs(random: Random, seriesCount: number): Packable[] {
  const elements: Packable[] = [];
  for (let at = 0; at < seriesCount; at++) {
    const skip = random.whole(0, 3);
    if (at + skip >= seriesCount) break;
    at += skip;
    if (random.chance(0.3)) elements.push(-skip - 1, random.pick([null, 0.5, Number.NaN, 2 ** 64]));
    else elements.push(skip, random.whole(-1000, 1e6));
  }
  return elements;
}

/** What a server might send. */
function fromServer(random: Random): Message[] {
  const messages: Message[] = [[1, 1, [random.whole(0, 2 ** 50), random.whole(0, 1e6)], 1.764e12]];
  for (let count = random.whole(0, 4); count > 0; count--) {
    messages.push(
      random.pick<Message>([
        [2, random.whole(0, 2 ** 50), random.whole(1, 1e6)],
        [4, random.whole(0, 1e6), 1.764e12],
        [5, 'too_old', random.whole(1, 1000), 1.764e12, 1.764e12 + 5000],
        [random.whole(6, 200), 'later'],
        [3, 'busy', 'no room at present'],
      ]),
    );
  }
  return messages;
}

/** A hello, a begin or a schema: what says what the reports are of. */
function isDeclaration(message: Message): boolean {
  return message[0] === 1 || message[0] === 2 || message[0] === 3;
}

function isReport(message: Message): boolean {
  return message[0] === 4 || message[0] === 5;
}

/** Bytes changed without regard to what they are; now and then nothing but chance. */
function spoiltBytes(random: Random, stream: Uint8Array): Uint8Array {
  if (random.chance(0.05)) return Uint8Array.from({ length: random.whole(0, 200) }, () => random.whole(0, 255));
  let spoilt = stream;
  for (let count = random.whole(1, 4); count > 0; count--) spoilt = spoiltOnce(random, spoilt);
  return spoilt;
}

function spoiltOnce(random: Random, stream: Uint8Array): Uint8Array {
  const at = random.whole(0, stream.length);
  const to = Math.min(stream.length, at + random.whole(1, 12));
  const [before, range, after] = [stream.slice(0, at), stream.slice(at, to), stream.slice(to)];
  switch (random.whole(0, 6)) {
    case 0: // a bit
      return join(before, flipped(random, range), after);
    case 1: // bytes that begin something
      return join(before, bytes(random.pick(tokens)), stream.slice(at + 1));
    case 2: // chance
      return join(
        before,
        range.map(() => random.whole(0, 255)),
        after,
      );
    case 3: // too few
      return join(before, after);
    case 4: // too many
      return join(before, range, range, after);
    case 5: // the end is missing
      return before;
    default: // something from elsewhere
      return join(before, stream.slice(random.whole(0, stream.length)), after);
  }
}

function flipped(random: Random, range: Uint8Array): Uint8Array {
  const at = random.whole(0, Math.max(0, range.length - 1));
  return range.map((byte, i) => (i === at ? byte ^ (1 << random.whole(0, 7)) : byte));
}

// One of each format, the refused ones too, with the lengths at their ends.
const tokens = [
  0x00, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x91, 0x9f, 0xa0, 0xa1, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
  0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
  0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xff,
];

/** One payload spoilt and framed rightly, so that what reads it is the guard. */
function spoiltPayload(random: Random, messages: readonly Message[]): Uint8Array {
  const which = random.whole(0, messages.length - 1);
  const payloads = messages.map((message) => pack(message));
  return join(...payloads.map((payload, i) => encodeFrame(i === which ? spoiltBytes(random, payload) : payload)));
}

/** A message whose fields are wrong though its bytes are right, or messages in another order. */
function spoiltTree(random: Random, messages: readonly Message[], wanted: (message: Message) => boolean): Message[] {
  const spoilt = [...messages];
  if (random.chance(0.2)) {
    const at = random.whole(1, spoilt.length);
    const from = random.whole(1, spoilt.length) - 1;
    if (random.chance(0.5)) spoilt.splice(at, 0, spoilt[from]!);
    else spoilt.splice(from, 1);
  }
  const places = spoilt.flatMap((message, i) => (wanted(message) ? [i] : []));
  if (places.length === 0) return spoilt;
  const place = random.pick(places);
  let message = spoilt[place]!;
  for (let count = random.whole(1, 2); count > 0; count--) message = spoiltArray(random, message);
  spoilt[place] = message;
  return spoilt;
}

function spoiltArray(random: Random, fields: readonly Packable[]): Packable[] {
  const at = random.whole(0, Math.max(0, fields.length - 1));
  const field = fields[at];
  const copy = [...fields];
  if (Array.isArray(field) && random.chance(0.8)) copy[at] = spoiltArray(random, field as readonly Packable[]);
  else if (random.chance(0.6)) copy[at] = odd(random, field);
  else if (random.chance(0.4)) copy.splice(at, 1);
  else if (random.chance(0.5)) copy.splice(at, 0, random.pick([null, ...fields]));
  else copy.push(odd(random, field));
  return copy;
}

/** A value that is of the wrong type, at a bound, or in an unusual form. */
function odd(random: Random, field: Packable | undefined): Packable {
  if (typeof field === 'number' && Number.isSafeInteger(field) && random.chance(0.5)) {
    return random.pick([...integerForms(field), pack(field + 1), pack(field - 1), pack(-field - 1)]);
  }
  if (typeof field === 'string' && random.chance(0.5)) {
    const content = new Uint8Array(Buffer.from(field));
    return random.pick<Packable>([longString(content, 2), longString(content, 4), `${field}é`, `\ufeff${field}`, '']);
  }
  return random.pick<Packable>([
    null,
    true,
    '',
    'x',
    'agent',
    'source',
    'le',
    '__name__',
    'up',
    '\ufeff'.padEnd(80, '-'),
    'x'.repeat(random.pick([31, 32, 255, 256, 1024, 1025])),
    [],
    [[[[]]]],
    random.pick([
      0,
      -1,
      1,
      127,
      128,
      255,
      256,
      65_535,
      65_536,
      2 ** 31,
      2 ** 32,
      2 ** 53 - 1,
      2 ** 53,
      2 ** 64,
      -(2 ** 53),
    ]),
    random.pick([0.5, Number.NaN, Infinity, -Infinity, 1e308, -0]),
    random.pick([uint64(2n ** 64n - 1n), uint64(2n ** 53n), float64(-0), float64(5)]),
    Array(random.pick([1, 2, 100])).fill(random.pick<Packable>([null, 'x', 1])),
  ]);
}
