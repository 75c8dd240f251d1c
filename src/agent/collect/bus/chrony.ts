// chronyd's command port: a datagram for a question, one for the answer, numbers in network order. Everybody on the host may
// ask how well the clock is kept (`chronyc tracking`). Version 6 of the protocol is that of chrony 1.27 to the present one.
// https://gitlab.com/chrony/chrony/-/blob/master/candm.h
//     question    version, type 1, 2 reserved, command u16, attempt u16, sequence u32, 8 bytes of padding; not shorter than the
//                 answer, so that nobody can make chronyd send more than he does
//     answer      version, type 2, 2 reserved, command u16, reply u16, status u16, 6 reserved, sequence u32, 8 reserved;
//                 reference u32, address 20, stratum u16, leap u16, time 12, then floats: correction, last offset, root mean
//                 square of offsets, frequency, residual and skew of it, root delay, root dispersion, interval
//     float       7 bits of exponent, 25 of coefficient, both with a sign: coefficient * 2 ** (exponent - 25)
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { BusError } from './message.ts';

/** How well chronyd keeps the clock. Seconds. */
export interface ChronyTracking {
  readonly isSynchronized: boolean;
  /** What the clock of the time servers is ahead of this one. */
  readonly offset: number;
  /** Of the offsets that were measured. */
  readonly rootMeanSquare: number;
  readonly rootDelay: number;
  readonly rootDispersion: number;
}

export interface ChronyQuestion {
  /** Of the loopback. */
  readonly port: number;
  readonly timeoutMs: number;
  /** From one of these it is asked. */
  readonly ownPorts?: OwnPorts;
}

export interface OwnPorts {
  readonly first: number;
  readonly count: number;
}

/**
 * Node binds a socket before it sends, and the unit lets the agent bind these alone (SocketBindAllow=). They are below those
 * that the kernel hands out.
 */
export const chronyPortsOwn: OwnPorts = { first: 19_323, count: 8 };

/** Undefined where nothing answers there; rejects with a BusError where something else does. */
export async function askChrony(question: ChronyQuestion): Promise<ChronyTracking | undefined> {
  const { first, count } = question.ownPorts ?? chronyPortsOwn;
  const start = randomInt(count);
  for (let tries = 0; tries < count; tries++) {
    const answer = await askFrom(first + ((start + tries) % count), question);
    if (answer !== 'taken') return answer;
  }
  throw new BusError('closed', `UDP ports ${first} to ${first + count - 1} are all in use: chronyd cannot be asked`);
}

function askFrom(ownPort: number, { port, timeoutMs }: ChronyQuestion): Promise<ChronyTracking | undefined | 'taken'> {
  return new Promise((resolve, reject) => {
    const sequence = randomBytes(4).readUInt32BE();
    const socket = createSocket('udp4');
    const end = (then: () => void) => {
      clearTimeout(timer);
      socket.removeAllListeners();
      // After the end nobody waits for the socket: what it says then is of no matter.
      socket.on('error', () => {});
      socket.close();
      then();
    };
    const timer = setTimeout(() => end(() => resolve(undefined)), timeoutMs);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') end(() => resolve('taken'));
      // Nobody listens.
      else if (error.code === 'ECONNREFUSED') end(() => resolve(undefined));
      else end(() => reject(new BusError('closed', error.message, { cause: error })));
    });
    // Only what comes from there: the kernel drops the rest.
    socket.on('connect', () => socket.send(trackingQuestion(sequence)));
    socket.on('message', (bytes) => {
      try {
        const answer = parseTracking(bytes, sequence);
        if (answer !== undefined) end(() => resolve(answer));
      } catch (error) {
        if (!(error instanceof BusError)) throw error;
        end(() => reject(error));
      }
    });
    socket.bind({ port: ownPort, address: '127.0.0.1', exclusive: true }, () => socket.connect(port, '127.0.0.1'));
  });
}

const version = 6;
const typeQuestion = 1;
const typeAnswer = 2;
const commandTracking = 33;
const replyTracking = 5;
const leapUnsynchronized = 3;
const headerBytes = 28;
const answerBytes = 104;

export function trackingQuestion(sequence: number): Uint8Array {
  const question = Buffer.alloc(answerBytes);
  question[0] = version;
  question[1] = typeQuestion;
  question.writeUInt16BE(commandTracking, 4);
  question.writeUInt32BE(sequence, 8);
  return question;
}

/** Undefined where it is the answer to another question. Throws a BusError. */
export function parseTracking(bytes: Uint8Array, sequence: number): ChronyTracking | undefined {
  const answer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (answer.length < headerBytes || answer[0] !== version || answer[1] !== typeAnswer) {
    throw new BusError('format', 'what answers is not chronyd, or speaks another version of its protocol');
  }
  if (answer.readUInt32BE(16) !== sequence) return undefined;
  const status = answer.readUInt16BE(8);
  if (status !== 0) throw new BusError('refused', `chronyd refuses to say how it keeps the clock: status ${status}`);
  if (answer.readUInt16BE(6) !== replyTracking || answer.length < answerBytes) {
    throw new BusError('format', `chronyd's answer has ${answer.length} bytes, expected ${answerBytes} of tracking`);
  }
  return {
    isSynchronized: answer.readUInt16BE(54) !== leapUnsynchronized,
    offset: floatAt(answer, 68),
    rootMeanSquare: floatAt(answer, 76),
    rootDelay: floatAt(answer, 92),
    rootDispersion: floatAt(answer, 96),
  };
}

function floatAt(bytes: Buffer, at: number): number {
  const word = bytes.readInt32BE(at);
  // The upper bits with their sign, and the lower ones with theirs.
  return ((word << 7) >> 7) * 2 ** ((word >> 25) - 25);
}
