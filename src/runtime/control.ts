import { chmodSync, existsSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Log } from './log.ts';

/** A question to a running program: one JSON object on one line. */
export interface ControlRequest {
  readonly command: string;
  readonly [field: string]: unknown;
}

/** Answers by command. What a handler throws goes to the one who asked. */
export type ControlHandlers = Readonly<Record<string, (request: ControlRequest) => unknown>>;

export type ControlErrorCode = 'not-running' | 'denied' | 'refused' | 'failed';

/** The running program could not be asked, or has refused; the words name the socket. */
export class ControlError extends Error {
  override readonly name = 'ControlError';
  readonly code: ControlErrorCode;
  constructor(code: ControlErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Answers on a unix socket: one line of JSON in, one line out, `{"ok":…}` or `{"error":"…"}`. Only the program's user and
 * group may connect. Undefined where the socket's folder does not exist; an error where another program answers there.
 */
export async function serveControl(
  path: string,
  handlers: ControlHandlers,
  log: Log,
): Promise<{ close(): Promise<void> } | undefined> {
  if (!existsSync(dirname(path))) {
    log.debug(`no control socket: the folder of '${path}' does not exist`);
    return undefined;
  }
  await removeStale(path);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    serveOne(socket, handlers);
  });
  try {
    await listening(server, path);
  } catch (error) {
    log.warn(`no control socket '${path}': ${(error as Error).message}; status cannot be asked for`);
    return undefined;
  }
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Asks the program that serves this socket. Throws a ControlError. */
export function askControl(path: string, request: ControlRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error(`no answer within ${answerTimeoutMs / 1000} s`)));
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    socket.once('error', (error) => reject(askError(path, error)));
    socket.once('close', () => {
      try {
        const answer = JSON.parse(text) as { ok?: unknown; error?: string };
        if (typeof answer.error === 'string') reject(new ControlError('refused', answer.error));
        else resolve(answer.ok);
      } catch (error) {
        reject(new ControlError('failed', `control socket '${path}': the answer was cut off`, { cause: error }));
      }
    });
  });
}

function askError(path: string, error: NodeJS.ErrnoException): ControlError {
  const options = { cause: error };
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new ControlError('not-running', `nothing answers at '${path}': the program is not running`, options);
    case 'EACCES':
    case 'EPERM':
      return new ControlError('denied', `control socket '${path}': not allowed; run it with sudo`, options);
    default:
      return new ControlError('failed', `control socket '${path}': ${error.message}`, options);
  }
}

function serveOne(socket: Socket, handlers: ControlHandlers): void {
  let text = '';
  socket.setEncoding('utf8');
  socket.setTimeout(answerTimeoutMs, () => socket.destroy());
  socket.on('error', () => {
    // Whoever asked has gone.
  });
  socket.on('data', (chunk: string) => {
    text += chunk;
    const end = text.indexOf('\n');
    if (end >= 0) {
      socket.pause();
      socket.end(`${JSON.stringify(answerTo(text.slice(0, end), handlers))}\n`);
    } else if (text.length > requestCharactersMax) socket.destroy();
  });
}

function answerTo(line: string, handlers: ControlHandlers): { ok: unknown } | { error: string } {
  try {
    const request = JSON.parse(line) as ControlRequest;
    const handler = Object.hasOwn(handlers, request.command) ? handlers[request.command] : undefined;
    if (handler === undefined) {
      return { error: `'${String(request.command)}' is not understood: expected ${Object.keys(handlers).join(', ')}` };
    }
    return { ok: handler(request) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/** A socket that a killed program has left behind is in the way of the next one. */
async function removeStale(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
  if (answers) throw new ControlError('refused', `control socket '${path}': another program answers there already`);
  unlinkSync(path);
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      chmodSync(path, 0o660);
      resolve();
    });
  });
}

const answerTimeoutMs = 5000;
const requestCharactersMax = 4096;
