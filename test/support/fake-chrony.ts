import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { ChronyTracking } from '../../src/agent/collect/bus/chrony.ts';
import type { Scope } from './programs.ts';

/** Who answers in place of chronyd, on a free port of the loopback. */
export class FakeChrony {
  readonly #socket: Socket;
  /** Undefined: it says nothing. */
  tracking: ChronyTracking | undefined;
  /** What it says before each answer. */
  before: Uint8Array[] = [];
  questions = 0;
  port = 0;
  #isClosed = false;

  private constructor(socket: Socket, tracking: ChronyTracking | undefined) {
    this.#socket = socket;
    this.tracking = tracking;
    socket.on('message', (question, { port }) => {
      this.questions++;
      for (const bytes of this.before) socket.send(bytes, port, '127.0.0.1');
      if (this.tracking !== undefined) socket.send(answerTo(question, this.tracking), port, '127.0.0.1');
    });
  }

  static async listen(scope: Scope, tracking: ChronyTracking | undefined, port = 0): Promise<FakeChrony> {
    const socket = createSocket('udp4');
    const chrony = new FakeChrony(socket, tracking);
    socket.bind(port, '127.0.0.1');
    await once(socket, 'listening');
    chrony.port = socket.address().port;
    scope.after(() => chrony.close());
    return chrony;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}

/** As chronyd answers this question. */
export function answerTo(question: Uint8Array, tracking: ChronyTracking): Uint8Array {
  const answer = Buffer.alloc(104);
  answer.set([6, 2]);
  answer.writeUInt16BE(33, 4);
  answer.writeUInt16BE(5, 6);
  answer.set(question.subarray(8, 12), 16);
  answer.writeUInt16BE(tracking.isSynchronized ? 0 : 3, 54);
  answer.writeInt32BE(floatBits(tracking.offset), 68);
  answer.writeInt32BE(floatBits(tracking.rootMeanSquare), 76);
  answer.writeInt32BE(floatBits(tracking.rootDelay), 92);
  answer.writeInt32BE(floatBits(tracking.rootDispersion), 96);
  return answer;
}

/** chronyd's number: the coefficient has 24 bits and a sign, the exponent 6 and one. */
export function floatBits(value: number): number {
  if (value === 0) return 0;
  const exponent = Math.max(-64, Math.ceil(Math.log2(Math.abs(value))) + 2);
  const coefficient = Math.round(value * 2 ** (25 - exponent));
  return (exponent << 25) | (coefficient & 0x01ff_ffff);
}
