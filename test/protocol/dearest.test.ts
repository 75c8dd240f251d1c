import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Labels } from '../../src/model/source.ts';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { limits } from '../../src/protocol/limits.ts';
import { agentKinds, serverKinds } from '../../src/protocol/messages.ts';
import { SchemaTable } from '../../src/protocol/schema-table.ts';
import { beginOf, groupOf } from '../support/groups.ts';
import { type Packable, pack } from '../support/messagepack.ts';

// What the dearest frames of each kind cost the one who reads them: printed, held to 10 ms, and to grow with their size
// alone. A frame that costs its square costs sixteen times as much at four times the size; these may cost eight times as
// much.

interface Frame {
  readonly of: string;
  /** The largest `size` that the limits allow. */
  readonly sizeMax: number;
  /** For each round, what reads such a frame of this size, in a connection that is ready for it. */
  prepare(size: number): () => () => void;
}

/** By what costs most in it: strings, values, lookups, growth. */
const frames: readonly Frame[] = [
  agentFrame('hello', 'of text in fields of a later version', 900, (size) => [1, 1, 'a', 'h', 's', ...texts(size / 2)]),
  agentFrame('begin', 'of labels', limits.labelsMax, (size) => begin(...labels(size))),
  agentFrame('begin', 'of text in fields of a later version', 4000, (size) => [...begin(), ...texts(size / 2)]),
  agentFrame('ping', 'of text in fields of a later version', 4000, (size) => [6, 1, 0, 0, ...texts(size / 2)]),
  agentFrame('unknown', 'of short strings', 260_000, (size) => [99, ...texts(size / 2)]),
  agentFrame('unknown', 'of arrays', 260_000, (size) => [99, ...Array<Packable>(size).fill([])]),
  schemaFrame('of many series', (size) => [
    family('a', ['', ['l'], size, Array.from({ length: size }, (_, i) => i.toString(36).padStart(4, '-'))]),
  ]),
  schemaFrame('of many label values', (size) => [
    family('a', [
      '',
      Array.from({ length: 60 }, (_, i) => `l${i}`),
      size,
      Array.from({ length: size }, (_, i) => [i.toString(36), ...Array<string>(59).fill('')]).flat(),
    ]),
  ]),
  schemaFrame('of many families', (size) =>
    Array.from({ length: size }, (_, i) => family(`a${i.toString(36)}`, ['', [], 1, []])),
  ),
  schemaFrame(
    'of many labels beside those of the host',
    (size) => {
      const names = Array.from({ length: 28 }, (_, i) => `b${i}`);
      return Array.from({ length: size }, (_, i) => family(`a${i.toString(36)}`, ['', names, 1, names]));
    },
    Array.from({ length: limits.labelsMax }, (_, i) => [`a${i}`, 'x']),
  ),
  schemaFrame('of one family again and again', (size) =>
    Array.from({ length: size }, (_, i) => family('a', ['', ['l'], 1, [i.toString(36)]])),
  ),
  schemaFrame('of one family with ever other labels', (size) => [
    family('a', ...Array.from({ length: size }, (_, i) => ['', [`l${i.toString(36)}`], 1, ['x']])),
  ]),
  schemaFrame('of a histogram', (size) => [
    [...['a', 'histogram', '', 1], ['_bucket', ['le'], size, Array.from({ length: size }, (_, i) => `${i}e9`)]],
  ]),
  reportFrame('of doubles', (size) => Array.from({ length: size }, (_, i) => [-1, i + 0.5]).flat()),
  reportFrame('of large steps', (size) => Array.from({ length: size }, (_, i) => [0, 2 ** 40 + i]).flat()),
  reportFrame('of absent series', (size) => Array.from({ length: size }, () => [-1, null]).flat()),
  serverFrame('welcome', 'of epochs', 1900, (size) => [1, 1, Array(size - (size % 2)).fill(1), 1]),
  serverFrame('ack', 'of text in fields of a later version', 4000, (size) => [2, 1, 1, ...texts(size / 2)]),
  serverFrame('error', 'of text', 4000, (size) => [3, 'x', 'x'.repeat(size)]),
  serverFrame('pong', 'of text in fields of a later version', 4000, (size) => [4, 1, 1, ...texts(size / 2)]),
  serverFrame('refused', 'of text', 4000, (size) => [5, 'x', 1, 1, 1, 'x'.repeat(size)]),
];

test('every kind has its dearest frame here', () => {
  const kinds = new Set(frames.map(({ of }) => of.split(' ')[0]));
  for (const kind of [...Object.keys(agentKinds), ...Object.keys(serverKinds)]) assert.ok(kinds.has(kind), kind);
});

for (const { of, sizeMax, prepare } of frames) {
  test(`the cost of a frame grows with its size alone: ${of}`, (t) => {
    const [quarterMs, wholeMs] = costs([prepare(Math.floor(sizeMax / 4)), prepare(sizeMax)]);
    t.diagnostic(`${of}: ${wholeMs.toFixed(2)} ms, a quarter of it ${quarterMs.toFixed(2)} ms`);
    assert.ok(isCheap([quarterMs, wholeMs]), `${wholeMs} ms, ${quarterMs} ms for a quarter`);
  });
}

/** Below half a millisecond it is the measurement that costs. */
function isCheap([quarterMs, wholeMs]: readonly [number, number]): boolean {
  return wholeMs <= mostMs && wholeMs < 8 * Math.max(quarterMs, 0.1);
}

const rounds = 7;
// On a machine that is busy with something else.
const roundsMost = 60;
const mostMs = 10;

/** CPU milliseconds of each, the least of some rounds taken in turn: others run on this machine too. */
function costs(prepared: readonly [() => () => void, () => () => void]): [number, number] {
  const least: [number, number] = [Infinity, Infinity];
  for (let round = 0; round < (isCheap(least) ? rounds : roundsMost); round++) {
    for (const at of [0, 1] as const) {
      const read = prepared[at]();
      const start = process.cpuUsage();
      read();
      const { user, system } = process.cpuUsage(start);
      least[at] = Math.min(least[at], (user + system) / 1000);
    }
  }
  return least;
}

function agentFrame(kind: string, of: string, sizeMax: number, fields: (size: number) => readonly Packable[]): Frame {
  return {
    of: `${kind} ${of}`,
    sizeMax,
    prepare(size) {
      const payload = pack(fields(size));
      return () => () => assert.equal(decodeAgentMessage(payload).kind, kind);
    },
  };
}

function serverFrame(kind: string, of: string, sizeMax: number, fields: (size: number) => readonly Packable[]): Frame {
  return {
    of: `${kind} ${of}`,
    sizeMax,
    prepare(size) {
      const payload = pack(fields(size));
      return () => () => assert.equal(decodeServerMessage(payload).kind, kind);
    },
  };
}

function schemaFrame(of: string, families: (size: number) => readonly Packable[], hostLabels: Labels = []): Frame {
  const payloadOf = (size: number) => pack([3, 0, ...families(size)]);
  // Nearly as many as fit, by what some more of them come to.
  const [few, more] = [payloadOf(512).length, payloadOf(1024).length];
  const sizeMax = Math.floor(512 + ((limits.schemaFrameBytesMax * 0.85 - few) / (more - few)) * 512);
  return {
    of: `schema ${of}`,
    sizeMax,
    prepare(size) {
      const payload = payloadOf(size);
      assert.ok(size < sizeMax || payload.length > limits.schemaFrameBytesMax * 0.75, `${payload.length} bytes`);
      return () => () => {
        const table = new SchemaTable();
        table.begin(beginOf({ labels: hostLabels }));
        const message = decodeAgentMessage(payload);
        assert.ok(message.kind === 'schema');
        table.declare(message, payload.length);
      };
    },
  };
}

function reportFrame(of: string, pairs: (size: number) => (number | null)[]): Frame {
  return {
    of: `report ${of}`,
    sizeMax: limits.seriesMax,
    prepare(size) {
      const table = new SchemaTable();
      table.begin(beginOf());
      const values = Array.from({ length: size }, (_, i) => i.toString(36));
      const group = groupOf({ name: 'a', type: 'gauge', help: '', divisor: 1, labelNames: ['l'] }, values);
      table.declare({ kind: 'schema', source: 0, groups: [group] }, 0);
      const every = pairs(size);
      let seq = 0;
      return () => {
        seq++;
        const payload = encodeMessage({ kind: 'report', key: true, source: 0, seq, timeMs: seq, pairs: every });
        return () => {
          const message = decodeAgentMessage(payload);
          assert.ok(message.kind === 'report');
          table.apply(message);
        };
      };
    },
  };
}

function begin(...flat: string[]): Packable[] {
  return [2, 1, 0, 'host', 5000, flat, 0];
}

function labels(count: number): string[] {
  return Array.from({ length: count }, (_, i) => [`l${i}`, 'x'.repeat(25)]).flat();
}

function texts(count: number): string[] {
  return Array<string>(Math.floor(count)).fill('x');
}

function family(name: string, ...groups: readonly Packable[]): Packable {
  return [name, 'gauge', '', 1, ...groups];
}
