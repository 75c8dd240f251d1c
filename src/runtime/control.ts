/**
 * A Unix socket for questions to a running program: one line of JSON in, one line of JSON out, then it closes. Who may
 * ask is who may write to the socket: its owner and group.
 */
import { statSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { CodedError } from './coded-error.ts';
import type { Log } from './log.ts';
import { reasonOf } from './words.ts';

export interface ControlRequest {
  readonly command: string;
  readonly [field: string]: unknown;
}

/** Answers by command. What a handler throws goes to the one who asked. */
export type ControlHandlers = Readonly<Record<string, (request: ControlRequest) => unknown>>;

export interface ControlServer {
  /** Takes no more questions and removes the socket. */
  close(): Promise<void>;
}

export type ControlErrorCode = 'not-running' | 'denied' | 'refused' | 'failed';

/** The running program could not be asked, or has refused; the words name the socket. */
export class ControlError extends CodedError<ControlErrorCode> {
  override readonly name = 'ControlError';
}

// A question is a name or two.
const requestBytesMax = 64 * 1024;
const requestMsMax = 5000;
const askersMax = 16;
// The state of a thousand agents in JSON is some hundred KiB.
const answerBytesMax = 64 * 1024 * 1024;
// sun_path has 108 bytes and an end: https://man7.org/linux/man-pages/man7/unix.7.html
const pathBytesMax = 107;

/**
 * Answers at the path. A socket that a killed program left behind is replaced; where another program answers, or
 * something else lies there, that is an error. Undefined, with a line in the log, where no socket can be made: the
 * program can do without.
 */
export async function serveControl(
  path: string,
  handlers: ControlHandlers,
  log: Log,
): Promise<ControlServer | undefined> {
  if (!statSync(dirname(path), { throwIfNoEntry: false })?.isDirectory()) {
    log.debug(`no control socket: the folder of '${path}' does not exist`);
    return undefined;
  }
  if (Buffer.byteLength(path) > pathBytesMax) {
    throw new ControlError('failed', `the control socket '${path}' has too long a path: at most ${pathBytesMax} bytes`);
  }
  await removeStale(path);
  const askers = new Set<Socket>();
  const server = createServer((socket) => {
    askers.add(socket);
    socket.once('close', () => askers.delete(socket));
    answer(socket, handlers, log);
  });
  server.maxConnections = askersMax;
  try {
    await listenPrivately(server, path);
  } catch (error) {
    log.warn(`no control socket '${path}': ${reasonOf(error)}; status cannot be asked for`);
    return undefined;
  }
  server.on('error', (error) => log.warn(`the control socket '${path}' failed: ${error.message}`));
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve()); // removes the socket, too
        for (const socket of askers) socket.destroy();
      }),
  };
}

async function removeStale(path: string): Promise<void> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new ControlError('refused', `'${path}' is there and is no socket`);
  const alive = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
  if (alive) throw new ControlError('refused', `another program answers at the control socket '${path}'`);
  unlinkSync(path);
}

function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // bind() is done when listen() returns, so that there is no moment in which others could connect.
    const before = process.umask(0o117);
    try {
      server.listen(path, () => {
        server.removeAllListeners('error');
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}

function answer(socket: Socket, handlers: ControlHandlers, log: Log): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const deadline = setTimeout(() => socket.destroy(), requestMsMax);
  socket.once('close', () => clearTimeout(deadline));
  socket.on('error', () => {}); // whoever asked has gone: nobody to tell
  const take = (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > requestBytesMax) return void socket.destroy();
    if (!chunk.includes(0x0a)) return;
    socket.off('data', take);
    socket.resume();
    const [line = ''] = Buffer.concat(chunks).toString('utf8').split('\n', 1);
    void reply(line, handlers, log).then((text) => socket.end(`${text}\n`));
  };
  socket.on('data', take);
}

async function reply(line: string, handlers: ControlHandlers, log: Log): Promise<string> {
  try {
    const request = parseRequest(line);
    const handler = Object.hasOwn(handlers, request.command) ? handlers[request.command] : undefined;
    if (handler === undefined) {
      throw new Error(`unknown command '${request.command}': expected ${Object.keys(handlers).join(', ')}`);
    }
    return JSON.stringify({ ok: (await handler(request)) ?? null });
  } catch (error) {
    log.debug(`a question at the control socket was refused: ${reasonOf(error)}`);
    return JSON.stringify({ error: reasonOf(error) });
  }
}

function parseRequest(line: string): ControlRequest {
  const request: unknown = JSON.parse(line);
  if (
    typeof request !== 'object' ||
    request === null ||
    !('command' in request) ||
    typeof request.command !== 'string'
  ) {
    throw new Error('expected an object with a command');
  }
  return { ...request, command: request.command };
}

/** Asks the program at the path; its answer, or a ControlError that says what to do. */
export function askControl(path: string, request: ControlRequest, timeoutMs = 10_000): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const chunks: Buffer[] = [];
    let bytes = 0;
    const fail = (error: ControlError) => {
      clearTimeout(deadline);
      socket.destroy();
      reject(error);
    };
    const deadline = setTimeout(
      () => fail(new ControlError('failed', `no answer at the control socket '${path}' within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > answerBytesMax) fail(new ControlError('failed', `the answer at '${path}' is too long`));
    });
    socket.once('error', (error) => fail(askErrorOf(error, path)));
    socket.once('end', () => {
      clearTimeout(deadline);
      try {
        resolve(parseAnswer(Buffer.concat(chunks).toString('utf8'), path));
      } catch (error) {
        reject(error);
      }
    });
  });
}

function parseAnswer(text: string, path: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (error) {
    throw new ControlError('failed', `the answer at '${path}' is cut off or no JSON`, { cause: error });
  }
  if (typeof answer === 'object' && answer !== null) {
    if ('ok' in answer) return answer.ok;
    if ('error' in answer) throw new ControlError('refused', String(answer.error));
  }
  throw new ControlError('failed', `the answer at '${path}' is neither a result nor an error`);
}

function askErrorOf(error: NodeJS.ErrnoException, path: string): ControlError {
  const options = { cause: error };
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new ControlError(
        'not-running',
        `nothing runs here: nobody answers at the control socket '${path}'`,
        options,
      );
    case 'EACCES':
      return new ControlError('denied', `you may not use the control socket '${path}': try as root`, options);
    default:
      return new ControlError('failed', `the control socket '${path}' failed: ${error.message}`, options);
  }
}
