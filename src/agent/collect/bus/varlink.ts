// Varlink: JSON messages that end with a zero byte, over a unix socket. A call with `more` is answered by many.
// https://varlink.org/Method-Call
import { createConnection } from 'node:net';
import { BusError } from './message.ts';

export interface VarlinkCall {
  /** Of the socket. */
  readonly path: string;
  readonly method: string;
  /** The whole answer takes no longer. */
  readonly timeoutMs: number;
}

const messageBytesMax = 1024 * 1024;
const answerBytesMax = 64 * 1024 * 1024;

/** Gives the parameters of each answer to `take`, as they come; resolves after the last. Rejects with a BusError. */
export function callMore({ path, method, timeoutMs }: VarlinkCall, take: (parameters: unknown) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const decoder = new VarlinkDecoder();
    const end = (error?: BusError) => {
      clearTimeout(timer);
      socket.destroy();
      if (error === undefined) resolve();
      else reject(error);
    };
    const timer = setTimeout(
      () => end(new BusError('timeout', `no answer to ${method} in ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.on('connect', () => socket.write(`${JSON.stringify({ method, more: true, parameters: {} })}\0`));
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const { parameters, continues } of decoder.push(chunk)) {
          take(parameters);
          if (!continues) return end();
        }
      } catch (error) {
        if (!(error instanceof BusError)) throw error;
        end(error);
      }
    });
    socket.on('error', (error) => end(new BusError('closed', error.message, { cause: error })));
    socket.on('close', () => end(new BusError('closed', 'the other side has closed the connection')));
  });
}

export interface VarlinkReply {
  readonly parameters: unknown;
  readonly continues: boolean;
}

/** Cuts a stream into answers, wherever it was cut. After an error it is of no more use. */
export class VarlinkDecoder {
  #parts: Buffer[] = [];
  #partBytes = 0;
  #bytes = 0;

  push(chunk: Uint8Array): VarlinkReply[] {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#bytes += bytes.length;
    if (this.#bytes > answerBytesMax) throw new BusError('limit', `an answer of more than ${answerBytesMax} bytes`);
    const replies: VarlinkReply[] = [];
    let start = 0;
    for (let end = bytes.indexOf(0); end >= 0; end = bytes.indexOf(0, start)) {
      replies.push(parseReply(Buffer.concat([...this.#parts, bytes.subarray(start, end)]).toString('utf8')));
      this.#parts = [];
      this.#partBytes = 0;
      start = end + 1;
    }
    this.#parts.push(bytes.subarray(start));
    this.#partBytes += bytes.length - start;
    if (this.#partBytes > messageBytesMax)
      throw new BusError('limit', `a message of more than ${messageBytesMax} bytes`);
    return replies;
  }
}

function parseReply(text: string): VarlinkReply {
  let reply: unknown;
  try {
    reply = JSON.parse(text);
  } catch (error) {
    throw new BusError('format', `an answer is no JSON: ${JSON.stringify(text.slice(0, 80))}`, { cause: error });
  }
  if (typeof reply !== 'object' || reply === null) throw new BusError('format', 'an answer is no object');
  if ('error' in reply) {
    // Not every value of JSON can be made a string.
    const name = typeof reply.error === 'string' ? reply.error : 'an error without a name';
    throw new BusError('refused', name.slice(0, 200));
  }
  return {
    parameters: 'parameters' in reply ? reply.parameters : {},
    continues: 'continues' in reply && reply.continues === true,
  };
}
