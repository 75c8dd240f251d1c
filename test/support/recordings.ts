import type { Replay } from '../../src/agent/spool/replay.ts';
import type { SpoolEpoch } from '../../src/agent/spool/segment.ts';
import type { Recording } from '../../src/model/recording.ts';
import { Schema } from '../../src/model/schema.ts';
import type { Source } from '../../src/model/source.ts';
import { decodeAgentMessage } from '../../src/protocol/codec.ts';
import { FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, EpochSeq, ReportMessage } from '../../src/protocol/messages.ts';
import { type DeclaredSource, SchemaTable } from '../../src/protocol/schema-table.ts';
import { addGroup, type LabelledFamily } from './groups.ts';

/** A report as somebody who reads it sees it. */
export interface ReadReport {
  readonly epoch: number;
  readonly seq: number;
  readonly timeMs: number;
  /** By series; absent ones are not there. */
  readonly values: ReadonlyMap<string, number>;
}

/** Makes recordings: one family of gauges with a label, which can grow, be begun anew, and be partly absent. */
export class RecordingMaker {
  #schema = new Schema();
  #names = 0;

  constructor(series = 3) {
    this.grow(series);
  }

  get seriesCount(): number {
    return this.#schema.seriesCount;
  }

  grow(series: number): void {
    const labelValues = Array.from({ length: series }, () => `s${this.#names++}`);
    addGroup(this.#schema, family, labelValues);
  }

  beginAnew(series: number): void {
    this.#schema = new Schema();
    this.grow(series);
  }

  /** `undefined` stands for an absent series; what is missing at the end is 0. */
  make(values: readonly (number | undefined)[]): Recording {
    const sums = new Float64Array(this.#schema.seriesCount);
    const present = new Uint8Array(this.#schema.seriesCount).fill(1);
    for (let series = 0; series < Math.min(values.length, sums.length); series++) {
      const value = values[series];
      if (value === undefined) present[series] = 0;
      else sums[series] = value;
    }
    return { schema: this.#schema, sums, present };
  }
}

export const family: LabelledFamily = {
  name: 'test_value',
  type: 'gauge',
  help: 'A value.',
  divisor: 1,
  labelNames: ['series'],
};

/** What a recording says, by series. */
export function valuesOf({ schema, sums, present }: Recording): Map<string, number> {
  const values = new Map<string, number>();
  for (const block of schema.blocks) {
    for (let index = 0; index < block.seriesCount; index++) {
      const series = block.firstSeries + index;
      const width = block.labelNames.length;
      const labels = block.labelValues.slice(index * width, (index + 1) * width);
      if (present[series] === 1) values.set(labels.join(), sums[series]!);
    }
  }
  return values;
}

/** A server as far as the wire is concerned: reads all, keeps a report only if it is newer than the last of its epoch. */
export class Receiver {
  readonly received: ReadReport[] = [];
  readonly begins: { epoch: number; offsetMs: number }[] = [];
  readonly last = new Map<number, number>();
  schemaBytes = 0;
  duplicates = 0;
  /** Looks at each report before it is read; what it throws is thrown by `push`. */
  onReport: (report: EpochSeq) => void = () => {};
  #decoder = new FrameDecoder({ payloadBytesMax: limits.reportFrameBytesMax });
  #table = new SchemaTable();

  get known(): EpochSeq[] {
    return [...this.last].map(([epoch, seq]) => ({ epoch, seq }));
  }

  /** The connection is another one: what was declared on the last is gone. */
  reconnect(): void {
    this.#decoder = new FrameDecoder({ payloadBytesMax: limits.reportFrameBytesMax });
    this.#table = new SchemaTable();
  }

  /** Reads bytes as they come on one connection, cut anywhere. */
  push(bytes: Uint8Array): AgentMessage[] {
    const messages: AgentMessage[] = [];
    for (const payload of this.#decoder.push(bytes)) {
      const message = decodeAgentMessage(payload);
      messages.push(message);
      this.#take(message, payload.length);
    }
    return messages;
  }

  #take(message: AgentMessage, payloadBytes: number): void {
    if (message.kind === 'begin') {
      this.#table.begin(message);
      this.begins.push({ epoch: message.epoch, offsetMs: message.offsetMs });
    } else if (message.kind === 'schema') {
      this.#table.declare(message, payloadBytes);
      this.schemaBytes += payloadBytes;
    } else if (message.kind === 'report') {
      this.onReport({ epoch: this.#table.epoch!, seq: message.seq });
      this.#keep(message, this.#table.apply(message));
    }
  }

  #keep({ seq, timeMs }: ReportMessage, { schema, state, offsetMs }: DeclaredSource): void {
    const epoch = this.#table.epoch!;
    if (seq <= (this.last.get(epoch) ?? 0)) {
      this.duplicates++;
      return;
    }
    this.last.set(epoch, seq);
    this.received.push({ epoch, seq, timeMs: timeMs + offsetMs, values: valuesOf({ schema, ...state }) });
  }
}

/** Everything that a replay has at present, as one connection would send it. */
export function drain(replay: Replay, fixOffset: (epoch: SpoolEpoch) => void = refuse, bytesMax = 65_536): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const step = replay.next(bytesMax);
    if (step.kind === 'wait') return Buffer.concat(pieces);
    if (step.kind === 'fix offset') fixOffset(step.epoch);
    else pieces.push(step.bytes);
  }
}

function refuse({ id }: SpoolEpoch): never {
  throw new Error(`epoch ${id} has no offset`);
}

/** What a test's reports are sampled under. */
export const hostSource: Source = { id: 0, name: 'host', intervalMs: 5000, labels: [['rack', '7']] };
