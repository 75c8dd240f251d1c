import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type Family, seriesValue } from '../../src/model/family.ts';
import type { Sums } from '../../src/model/report.ts';
import { decodeServerMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeDelta, encodeKey } from '../../src/protocol/delta.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, ServerMessage } from '../../src/protocol/messages.ts';
import { type Samples, seriesKey } from './agents-record.ts';
import { beginOf, groupOf, type LabelledFamily, pingOf } from './groups.ts';

// The numbers of a counter's ticks are divided by 100, as those of /proc/stat are.
const counter: LabelledFamily = {
  ...{ name: 'simulated_seconds_total', type: 'counter', help: 'Rises.', divisor: 100 },
  labelNames: ['series'],
};
const gauge: LabelledFamily = {
  ...{ name: 'simulated_bytes', type: 'gauge', help: 'Goes up and down.', divisor: 1 },
  labelNames: ['series'],
};

export interface SimulatedAgentOptions {
  readonly name: string;
  /** Makes its values different from those of others. */
  readonly number: number;
  readonly port: number;
  readonly seriesCount: number;
  readonly intervalMs: number;
}

/**
 * An agent of the wire alone: it has no host, no spool and no clock. Its reports are of whatever time they are told, and
 * its values follow from that time, so that a week of them can be sent in a minute, and looked up afterwards.
 */
export class SimulatedAgent {
  readonly options: SimulatedAgentOptions;
  readonly #epoch: number;
  /** The times of all reports that were sent. */
  readonly times: number[] = [];
  #socket: Socket | undefined;
  #state: Sums | undefined;
  #reportsSinceKey = 0;
  #ackedSeq = 0;
  /** Who waits for a welcome or a pong. */
  #answered: ((message: ServerMessage) => void) | undefined;
  #nonce = 0;
  #failure: Error | undefined;

  constructor(options: SimulatedAgentOptions) {
    this.options = options;
    this.#epoch = Math.floor(Math.random() * 2 ** 53);
  }

  /** Reports that the server has freed. */
  get ackedCount(): number {
    return this.#ackedSeq;
  }

  async connect(): Promise<void> {
    const { name, port, seriesCount, intervalMs } = this.options;
    const socket = connect(port, '127.0.0.1');
    this.#socket = socket;
    this.#failure = undefined;
    const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
    socket.on('data', (chunk: Uint8Array) => {
      for (const payload of decoder.push(chunk)) this.#receive(decodeServerMessage(payload));
    });
    socket.on('error', (error) => this.#fail(error));
    await once(socket, 'connect');
    await this.#ask({ kind: 'hello', version: 1, agentName: name, hostId: name, software: 'simulated' });
    this.#state = undefined;
    await this.#send(beginOf({ epoch: this.#epoch, intervalMs }));
    const declare = (family: LabelledFamily, count: number) =>
      groupOf(
        family,
        Array.from({ length: count }, (_, at) => String(at)),
      );
    const half = Math.floor(seriesCount / 2);
    const payloads = encodeSchema(0, [declare(counter, half), declare(gauge, seriesCount - half)]);
    for (const payload of payloads) await this.#write(payload);
  }

  /** Sends a report of this instant. Resolves when the kernel has room for more. */
  async report(timeMs: number): Promise<void> {
    this.times.push(timeMs);
    await this.#report(timeMs, this.times.length);
  }

  /** After the server's end: connects again, and sends what is not acknowledged. */
  async connectAgain(): Promise<void> {
    await this.connect();
    for (let seq = this.#ackedSeq + 1; seq <= this.times.length; seq++) await this.#report(this.times[seq - 1]!, seq);
  }

  async #report(timeMs: number, seq: number): Promise<void> {
    const { seriesCount } = this.options;
    const next: Sums = {
      sums: Float64Array.from({ length: seriesCount }, (_, series) => this.#sum(series, timeMs)),
      present: new Uint8Array(seriesCount).fill(1),
    };
    const isKey = this.#state === undefined || this.#reportsSinceKey >= limits.reportsPerKeyMax - 1;
    const pairs = isKey || this.#state === undefined ? encodeKey(next) : encodeDelta(this.#state, next);
    this.#reportsSinceKey = isKey ? 0 : this.#reportsSinceKey + 1;
    this.#state = next;
    await this.#send({ kind: 'report', key: isKey, source: 0, seq, timeMs, pairs });
  }

  /** Resolves when the server has read everything that was sent. Throws when it has ended the connection. */
  async ping(): Promise<void> {
    await this.#ask(pingOf(++this.#nonce));
  }

  close(): void {
    this.#fail(new Error(`agent '${this.options.name}' was closed`));
  }

  /** What Prometheus should have of the reports of these times. */
  samples(times: readonly number[] = this.times): Samples {
    const { name, seriesCount } = this.options;
    const samples: Samples = new Map();
    for (let series = 0; series < seriesCount; series++) {
      const { family, label } = this.#series(series);
      const points = times.map((ms) => [ms, seriesValue(this.#sum(series, ms), family.divisor)] as const);
      samples.set(seriesKey(family.name, { agent: name, series: label }), new Map(points));
    }
    return samples;
  }

  #series(series: number): { readonly family: Family; readonly label: string } {
    const half = Math.floor(this.options.seriesCount / 2);
    return series < half ? { family: counter, label: String(series) } : { family: gauge, label: String(series - half) };
  }

  /** Counters rise by a number of their own each second; a third of the gauges stands still, the others jump about. */
  #sum(series: number, timeMs: number): number {
    const { number, seriesCount } = this.options;
    const seconds = Math.floor(timeMs / 1000);
    if (series < Math.floor(seriesCount / 2)) return (seconds % 10_000_000) * ((series % 7) + 1) + number;
    return series % 3 === 0 ? number * 1000 + series : (seconds * (series + 13) + number) % 1_000_003;
  }

  #receive(message: ServerMessage): void {
    if (message.kind === 'ack' && message.epoch === this.#epoch) this.#ackedSeq = message.seq;
    else if (message.kind === 'error')
      this.#fail(new Error(`the server refused this agent (${message.code}): ${message.text}`));
    else if (message.kind === 'welcome' || message.kind === 'pong') this.#answered?.(message);
  }

  #ask(message: AgentMessage): Promise<ServerMessage> {
    return new Promise((resolve, reject) => {
      const socket = this.#socket!;
      const lost = () => reject(this.#failure ?? new Error(`agent '${this.options.name}': the connection has ended`));
      socket.once('close', lost);
      this.#answered = (answer) => {
        socket.off('close', lost);
        resolve(answer);
      };
      this.#send(message).catch(reject);
    });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#socket?.destroy();
  }

  #send(message: AgentMessage): Promise<void> {
    return this.#write(encodeMessage(message));
  }

  #write(payload: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      // The kernel has taken it, or the connection has ended.
      this.#socket!.write(encodeFrame(payload), (error) => (error == null ? resolve() : reject(error)));
    });
  }
}
