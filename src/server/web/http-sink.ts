import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { constants, createGzip } from 'node:zlib';
import type { AnswerSink } from './scrape-endpoint.ts';

/** An answer to `/metrics` over HTTP, compressed if the client accepts that. */
export class HttpSink implements AnswerSink {
  readonly ended: Promise<'sent' | 'lost'>;
  readonly #response: ServerResponse;
  readonly #socket: Socket;
  readonly #gzip: boolean;
  readonly #sentBefore: number;
  /** What the text is written to, once it has begun. */
  #body: Writable;

  constructor(response: ServerResponse, socket: Socket, { gzip }: { readonly gzip: boolean }) {
    this.#response = response;
    this.#socket = socket;
    this.#gzip = gzip;
    this.#body = response;
    this.#sentBefore = sentBytes(socket);
    this.ended = endOf(response, socket);
  }

  get isLost(): boolean {
    return this.#socket.destroyed;
  }

  get sentBytes(): number {
    return sentBytes(this.#socket) - this.#sentBefore;
  }

  refuse(code: number, text: string): void {
    sendText(this.#response, code, text);
  }

  begin(): void {
    writeMetricsHead(this.#response, { gzip: this.#gzip });
    if (!this.#gzip) return;
    const gzip = createGzip(gzipOptions);
    this.#response.once('close', () => gzip.destroy());
    gzip.pipe(this.#response);
    this.#body = gzip;
  }

  write(slice: Uint8Array, onFree: () => void): boolean {
    return this.#body.write(slice, onFree);
  }

  async drained(): Promise<void> {
    await Promise.race([new Promise((resolve) => this.#body.once('drain', resolve)), this.ended]);
  }

  finish(text: string): void {
    this.#body.end(text);
  }

  cut(): void {
    this.#socket.destroy();
  }
}

/** The head of an answer with metrics. */
export function writeMetricsHead(response: ServerResponse, { gzip }: { readonly gzip: boolean }): void {
  response.writeHead(200, {
    'Content-Type': 'text/plain; version=0.0.4; charset=utf-8',
    ...(gzip ? { 'Content-Encoding': 'gzip' } : {}),
    'Cache-Control': 'no-store',
    Vary: 'Accept-Encoding',
  });
}

export function sendText(response: ServerResponse, code: number, text: string, type = 'text/plain'): void {
  response.writeHead(code, { 'Content-Type': `${type}; charset=utf-8`, 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

/** Bytes that the operating system has accepted: `bytesWritten` also counts those that Node still buffers. */
const sentBytes = (socket: Socket): number => socket.bytesWritten - socket.writableLength;

/** How a response ends: the operating system has all of it, or not. */
async function endOf(response: ServerResponse, socket: Socket): Promise<'sent' | 'lost'> {
  if (socket.destroyed) return 'lost';
  let lost = () => {};
  try {
    return await new Promise((resolve) => {
      lost = () => resolve('lost');
      response.once('finish', () => resolve('sent'));
      // Of the socket: a response that was not begun when the client disconnects never closes.
      socket.once('close', lost);
    });
  } finally {
    socket.removeListener('close', lost);
  }
}

export const gzipOptions = { level: constants.Z_BEST_SPEED, chunkSize: 256 * 1024 };
