import { decodeServerMessage, encodeMessage } from '../../../src/protocol/codec.ts';
import { encodeFrame, FrameDecoder } from '../../../src/protocol/frame.ts';
import { limits } from '../../../src/protocol/limits.ts';
import type { AgentMessage, Begin, Hello, ServerMessage } from '../../../src/protocol/messages.ts';
import { type LabelBounds, wireLabelBounds } from '../../../src/protocol/schema-table.ts';
import { Admission } from '../../../src/server/ingest/admission.ts';
import { AgentConnection } from '../../../src/server/ingest/connection.ts';
import { FrameScheduler } from '../../../src/server/ingest/scheduler.ts';
import { beginOf, groupOf } from '../../support/groups.ts';
import { Link, type LinkOptions } from '../../support/linked-connections.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { settle } from '../../support/virtual-clock.ts';
import { DeliveryHarness } from '../delivery/delivery-harness.ts';
import { testFamily } from '../delivery/report-maker.ts';

/** A server's connections over lines in memory. */
export class ConnectionHarness extends DeliveryHarness {
  readonly log = new MemoryLog();
  readonly revoked = new Set<string>();
  /** Why connections were ended, unknown kinds, warnings by key, clones. */
  readonly ended: string[] = [];
  readonly unknown: number[] = [];
  readonly warnings: [key: string, line: string][] = [];
  readonly clones: string[] = [];
  readonly admission = new Admission({
    clock: this.clock,
    refusal: (identity) => (this.revoked.has(identity) ? 'revoked' : undefined),
    onClones: (id) => this.clones.push(id),
  });
  /** On a virtual clock nothing takes time, so nobody waits. */
  readonly scheduler = new FrameScheduler({
    clock: this.clock,
    nextTurn: (callback) => void this.clock.after(0, callback),
  });
  readonly bugs: [who: string, error: unknown][] = [];
  lookAtClock = (): void => {};
  labelBounds: LabelBounds = wireLabelBounds;
  running = 0;

  dial(options: Omit<LinkOptions, 'clock'> = {}): Client {
    const link = new Link({ ...options, clock: this.clock });
    const agent = new AgentConnection(link.far, {
      clock: this.clock,
      log: this.log,
      delivery: this.delivery,
      admission: this.admission,
      scheduler: this.scheduler,
      labelBounds: this.labelBounds,
      warn: (key, line) => this.warnings.push([key, line]),
      info: (_, line) => this.log.info(line),
      onEnd: (reason) => this.ended.push(reason),
      onUnknown: (kind) => this.unknown.push(kind),
      onBug: (who, error) => this.bugs.push([who, error]),
      lookAtClock: () => this.lookAtClock(),
    });
    this.running++;
    void agent.run().then(() => this.running--);
    return new Client(link);
  }

  /** An agent that has been welcomed. */
  async welcomed(hello: Partial<Hello> = {}, options: Omit<LinkOptions, 'clock'> = {}): Promise<Client> {
    const client = this.dial(options);
    client.hello(hello);
    await settle();
    return client;
  }
}

/** The agent's end. Everything that comes is kept; nothing is answered. */
export class Client {
  readonly link: Link;
  readonly received: ServerMessage[] = [];
  /** The server has closed, in good order or not. */
  closed: 'no' | 'ended' | 'broken' = 'no';

  constructor(link: Link) {
    this.link = link;
    void this.#read();
  }

  send(...messages: readonly AgentMessage[]): void {
    for (const message of messages) this.bytes(encodeFrame(encodeMessage(message)));
  }

  bytes(bytes: Uint8Array): void {
    this.link.near.write(bytes).catch(() => {}); // the server has hung up, which `closed` tells
  }

  hello(fields: Partial<Hello> = {}): void {
    const hello = { version: 1, agentName: 'a', hostId: 'host-a', software: 'test 1' };
    this.send({ kind: 'hello', ...hello, ...fields });
  }

  begin(epoch = 1, offsetMs = 0, more: Partial<Begin> = {}): void {
    this.send(beginOf({ epoch, offsetMs, ...more }));
  }

  /** A family `name` with series `s0`, … unless other label values are given. */
  schema(labelValues: readonly string[], name?: string): void {
    this.send({ kind: 'schema', source: 0, groups: [groupOf(testFamily(name), labelValues)] });
  }

  /** A key report of as many series as there are values. */
  key(seq: number, timeMs: number, ...values: (number | null)[]): void {
    const pairs = values.flatMap((value) => (value === null ? [-1, null] : [0, value]));
    this.send({ kind: 'report', key: true, source: 0, seq, timeMs, pairs });
  }

  /** A report that adds to the first series. */
  delta(seq: number, timeMs: number, ...pairs: (number | null)[]): void {
    this.send({ kind: 'report', key: false, source: 0, seq, timeMs, pairs });
  }

  ofKind<K extends ServerMessage['kind']>(kind: K): Extract<ServerMessage, { kind: K }>[] {
    return this.received.filter((message): message is Extract<ServerMessage, { kind: K }> => message.kind === kind);
  }

  get error(): string | undefined {
    return this.ofKind('error')[0]?.code;
  }

  async #read(): Promise<void> {
    const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
    try {
      for await (const chunk of this.link.near) {
        for (const payload of decoder.push(chunk)) this.received.push(decodeServerMessage(payload));
      }
      this.closed = 'ended';
    } catch {
      this.closed = 'broken';
    }
    this.link.near.destroy();
  }
}
