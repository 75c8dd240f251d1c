import assert from 'node:assert/strict';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { FrameError, ProtocolError } from '../../src/protocol/errors.ts';
import { FrameDecoder, frameHeaderBytes } from '../../src/protocol/frame.ts';
import { guard } from '../../src/protocol/guard.ts';
import { limits } from '../../src/protocol/limits.ts';
import { type AgentMessage, agentTable, type ServerMessage, serverTable } from '../../src/protocol/messages.ts';
import { SchemaTable } from '../../src/protocol/schema-table.ts';

/** How reading a stream ended. */
export interface Outcome {
  /** What was taken, a line each. */
  readonly taken: readonly string[];
  /** The code of the refusal, or undefined where the stream was read to its end. */
  readonly code: string | undefined;
  readonly text: string | undefined;
}

/**
 * Reads a stream as the server or the agent does, and holds what may be held after each step: that is what a fuzzer can
 * see go wrong. Anything thrown but a refusal comes out.
 */
export class Receiver {
  readonly #side: 'server' | 'agent';
  readonly table = new SchemaTable();
  readonly #decoder: FrameDecoder;
  readonly #taken: string[] = [];
  #bytes = 0;

  constructor(side: 'server' | 'agent') {
    this.#side = side;
    const payloadBytesMax = side === 'server' ? limits.helloBytesMax : limits.agentBoundFrameBytesMax;
    this.#decoder = new FrameDecoder({ payloadBytesMax });
  }

  read(chunks: readonly Uint8Array[]): Outcome {
    try {
      for (const chunk of chunks) {
        this.#bytes += chunk.length;
        for (const payload of this.#decoder.push(chunk)) this.#receive(payload);
        assert.ok(this.#decoder.bufferedBytes <= frameHeaderBytes + this.#decoder.payloadBytesMax);
      }
      this.#decoder.end();
      return { taken: this.#taken, code: undefined, text: undefined };
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof ProtocolError)) throw error;
      assert.ok(error.message.length < 500, 'an error message that is longer than a log line');
      return { taken: this.#taken, code: error.code, text: error.message };
    }
  }

  #receive(payload: Uint8Array): void {
    const message = this.#decode(payload);
    assertTravels(this.#side, message);
    if (message.kind === 'hello') this.#decoder.payloadBytesMax = limits.reportFrameBytesMax;
    else if (message.kind === 'begin') this.table.begin(message);
    else if (message.kind === 'schema') this.table.declare(message, payload.length);
    else if (message.kind === 'report') this.table.apply(message);
    this.#taken.push(message.kind);
    this.#assertBounded();
  }

  /** The guard looks at no byte twice, whether it lets the payload by or not. */
  #decode(payload: Uint8Array): AgentMessage | ServerMessage {
    let reads = 0;
    const counting = new Proxy(payload, {
      get(target, property) {
        if (typeof property === 'string' && property.charCodeAt(0) <= 0x39) reads++;
        return Reflect.get(target, property, target);
      },
    });
    try {
      guard(counting, this.#side === 'server' ? agentTable : serverTable);
    } finally {
      assert.ok(reads <= payload.length, `${reads} reads of ${payload.length} bytes`);
    }
    return this.#side === 'server' ? decodeAgentMessage(payload) : decodeServerMessage(payload);
  }

  #assertBounded(): void {
    const sources = [...this.table.sources];
    assert.ok(sources.length <= limits.sourcesMax);
    let seriesCount = 0;
    let roomCount = 0;
    for (const { schema, state } of sources) {
      seriesCount += schema.seriesCount;
      roomCount += state.sums.length;
      assert.ok(state.sums.length <= limits.seriesMax);
      assert.equal(state.sums.length, state.present.length);
    }
    assert.ok(seriesCount <= limits.seriesMax);
    // A series is two bytes of schema at least, and room is made for twice as many.
    assert.ok(roomCount <= 2 * Math.max(1, this.#bytes));
  }
}

/** What was taken can be sent on, and is then the same. */
function assertTravels(side: 'server' | 'agent', message: AgentMessage | ServerMessage): void {
  if (message.kind === 'error' && message.text.length > 1000) return; // cut when it is sent
  const payload = encodeMessage(message);
  const again = side === 'server' ? decodeAgentMessage(payload) : decodeServerMessage(payload);
  // The sign of zero is not kept, also in a message.
  const plain =
    message.kind !== 'report' ? message : { ...message, pairs: message.pairs.map((n) => (n === 0 ? 0 : n)) };
  assert.deepEqual(again, plain);
}
