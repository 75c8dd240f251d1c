import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { encodeMessage } from '../../src/protocol/codec.ts';
import { encodeFrame } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import { beginOf, groupOf } from '../support/groups.ts';
import { Random } from '../support/random.ts';
import { cut, input, type Level } from './inputs.ts';
import { Receiver } from './receiver.ts';

export interface FuzzResult {
  /** Inputs by how reading them ended: a code, or `taken` for those read to their end. */
  readonly outcomes: ReadonlyMap<string, number>;
  readonly levels: ReadonlyMap<Level, number>;
  readonly heapGrownBytes: number;
}

/** Reads inputs `first` to `first + count - 1` of a seed. An error names the input that does it, alone. */
export function fuzzWire(options: { seed: string; first: number; count: number }): FuzzResult {
  const outcomes = new Map<string, number>();
  const levels = new Map<Level, number>();
  const neighbour = new Neighbour();
  const heapBytesBefore = heapBytes();
  const stackTraceLimit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0; // half of the time would go into the stacks of refusals
  for (let i = options.first; i < options.first + options.count; i++) {
    const random = new Random(`${options.seed}/${i}`);
    const { reader, level, stream } = input(random);
    try {
      const outcome = new Receiver(reader).read([stream]);
      neighbour.report();
      if (i % 4 === 0) {
        // However the stream is cut, the same comes of it.
        assert.deepEqual(new Receiver(reader).read(cut(random, stream)), outcome);
        neighbour.report();
      }
      outcomes.set(outcome.code ?? 'taken', (outcomes.get(outcome.code ?? 'taken') ?? 0) + 1);
      levels.set(level, (levels.get(level) ?? 0) + 1);
    } catch (error) {
      Error.stackTraceLimit = stackTraceLimit;
      const which = `--seed ${options.seed} --first ${i} --inputs 1`;
      const bytes = Buffer.from(stream).toString('hex');
      throw new Error(`npm run fuzz -- ${which}: ${level}, read by the ${reader}: ${bytes}`, { cause: error });
    }
  }
  Error.stackTraceLimit = stackTraceLimit;
  return { outcomes, levels, heapGrownBytes: heapBytes() - heapBytesBefore };
}

/**
 * An honest connection beside the spoilt ones, in the same process: it sees each of its values, and nothing else, whatever
 * was read since its last report.
 */
class Neighbour {
  readonly #receiver = new Receiver('server');
  #seq = 0;

  constructor() {
    const family = { name: 'a', type: 'gauge', help: '', divisor: 1, labelNames: ['i'] } as const;
    this.#send({ kind: 'hello', version: 1, agentName: 'honest', hostId: 'h', software: 's' });
    this.#send(beginOf());
    this.#send({ kind: 'schema', source: 0, groups: [groupOf(family, ['0', '1', '2'])] });
  }

  report(): void {
    const key = this.#seq % limits.reportsPerKeyMax === 0;
    const seq = ++this.#seq;
    this.#send({ kind: 'report', key, source: 0, seq, timeMs: seq, pairs: key ? [0, seq, -1, null, 0, 7] : [0, 1] });
    const [source] = this.#receiver.table.sources;
    const { sums, present } = source!.state;
    assert.deepEqual([...sums, ...present], [seq, 0, 7, 1, 0, 1], 'the values of another connection have changed');
  }

  #send(message: Parameters<typeof encodeMessage>[0]): void {
    const outcome = this.#receiver.read([encodeFrame(encodeMessage(message))]);
    assert.equal(outcome.code, undefined, outcome.text);
  }
}

function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
