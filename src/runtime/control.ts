/**
 * A Unix socket for questions to a running program, in HTTP: `curl --unix-socket PATH http://localhost/api/v1/status`.
 * Who may ask is who may write to the socket: its owner and group.
 */
import { statSync } from 'node:fs';
import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { CodedError } from './coded-error.ts';
import { userName } from './denied.ts';
import type { Log } from './log.ts';
import { listenAtPath, removeStaleSocket, socketPathBytesMax } from './unix-socket.ts';
import { reasonOf } from './words.ts';

/** `GET status` is asked for at /api/v1/status. */
export type ControlQuestion = `${'GET' | 'POST'} ${string}`;

/** What answers each question; what it returns is sent as JSON. What it throws goes to the one who asked. */
export type ControlHandlers = Readonly<Record<ControlQuestion, ControlHandler>>;

/** Without parameters a function; else each of them must be there once, and no other. */
export type ControlHandler =
  | (() => unknown)
  | { readonly parameters: readonly string[]; answer(values: Readonly<Record<string, string>>): unknown };

export interface ControlServer {
  /** Takes no more questions and removes the socket. */
  close(): Promise<void>;
}

export type ControlErrorCode = 'not-running' | 'denied' | 'refused' | 'failed';

/** The running program could not be asked, or has refused; the words name the socket. */
export class ControlError extends CodedError<ControlErrorCode> {
  override readonly name = 'ControlError';
}

const root = '/api/v1/';
const askersMax = 16;
// A connection without a request ends after this, to make room for others.
const askMsMax = 5000;
// Node would look for those by a timer that wakes an idle process: here each connection has its own deadline.
const limits = { headersTimeout: 0, requestTimeout: 0, connectionsCheckingInterval: 2 ** 31 - 1, keepAliveTimeout: 1 };
// The state of a thousand agents in JSON is some hundred KiB.
const answerBytesMax = 64 * 1024 * 1024;

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
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    throw new ControlError(
      'failed',
      `the control socket '${path}' has too long a path: at most ${socketPathBytesMax} bytes`,
    );
  }
  await makeRoom(path);
  const overdue = new WeakMap<Socket, NodeJS.Timeout>();
  let http: Promise<HttpServer> | undefined;
  // An agent that nobody asks does without Node's HTTP, which takes 150 KiB: it is loaded for the first question.
  const serveHttp = async (): Promise<HttpServer> => {
    const { createServer } = await import('node:http');
    return createServer(limits, (question, response) => {
      clearTimeout(overdue.get(question.socket));
      question.resume();
      void reply(handlers, question, response, log);
    });
  };
  const sockets = new Set<Socket>();
  // As Node's own HTTP server does it: a client may end its side before it has the answer.
  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), askMsMax);
    overdue.set(socket, timer);
    socket.once('close', () => {
      clearTimeout(timer);
      sockets.delete(socket);
    });
    http ??= serveHttp();
    const answering = await http;
    if (!socket.destroyed) answering.emit('connection', socket);
  });
  server.maxConnections = askersMax;
  try {
    await listenAtPath(server, path);
  } catch (error) {
    log.warn(`no control socket '${path}': ${reasonOf(error)}; status cannot be asked for`);
    return undefined;
  }
  server.on('error', (error) => log.warn(`the control socket '${path}' failed: ${error.message}`));
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve()); // removes the socket, too
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function makeRoom(path: string): Promise<void> {
  const found = await removeStaleSocket(path);
  if (found === 'no-socket') throw new ControlError('refused', `'${path}' is there and is no socket`);
  if (found === 'in-use') throw new ControlError('refused', `another program answers at the control socket '${path}'`);
}

async function reply(
  handlers: ControlHandlers,
  { method = '', url = '' }: IncomingMessage,
  response: ServerResponse,
  log: Log,
): Promise<void> {
  const [pathname = '', query] = url.split('?', 2);
  const question = `${method} ${pathname.slice(root.length)}` as ControlQuestion;
  const handler = pathname.startsWith(root) && Object.hasOwn(handlers, question) ? handlers[question] : undefined;
  if (handler === undefined) {
    const known = Object.keys(handlers).map((each) => each.replace(' ', ` ${root}`));
    return send(response, 404, { error: `unknown question '${method} ${pathname}': expected ${known.join(', ')}` });
  }
  const { parameters, answer } = typeof handler === 'function' ? { parameters: [], answer: handler } : handler;
  const given = [...new URLSearchParams(query)];
  const names = given.map(([name]) => name);
  if (names.length !== parameters.length || !parameters.every((name) => names.includes(name))) {
    const expected = parameters.length === 0 ? 'none' : `${parameters.join(', ')}, each once`;
    return send(response, 400, { error: `parameters of '${method} ${pathname}': expected ${expected}` });
  }
  try {
    send(response, 200, (await answer(Object.fromEntries(given))) ?? null);
  } catch (error) {
    log.debug(`a question at the control socket was refused: ${reasonOf(error)}`);
    send(response, 409, { error: reasonOf(error) });
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'Content-Type': 'application/json', Connection: 'close' });
  response.end(`${JSON.stringify(body)}\n`);
}

/** Asks the program at the path; its answer, or a ControlError that says what to do. */
export async function askControl(
  path: string,
  question: ControlQuestion,
  { parameters = {}, timeoutMs = 10_000 }: { parameters?: Readonly<Record<string, string>>; timeoutMs?: number } = {},
): Promise<unknown> {
  const [method, name] = question.split(' ', 2) as [string, string];
  const query = new URLSearchParams(parameters).toString();
  const { request } = await import('node:http');
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath: path, method, path: `${root}${name}${query && `?${query}`}` }, (response) => {
      readAnswer(response, path).then(resolve, reject);
    });
    const overdue = () => asking.destroy(new ControlError('failed', `no answer at ${at(path)} within ${timeoutMs} ms`));
    const deadline = setTimeout(overdue, timeoutMs);
    asking.once('error', (error) => reject(askErrorOf(error, path)));
    asking.once('close', () => clearTimeout(deadline));
    asking.end();
  });
}

/** Asks at the control socket, or where this user may not use that, at the socket for those who may only look. */
export async function askToLook(
  { controlSocket, statusSocket }: LookSockets,
  question: `GET ${string}`,
): Promise<unknown> {
  try {
    return await askControl(controlSocket, question);
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'denied' || statusSocket === undefined) throw error;
  }
  try {
    return await askControl(statusSocket, question);
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'denied') throw error;
    const username = userName();
    throw new ControlError(
      'denied',
      `only root and members of the group '${lookersGroup}' may ask: 'sudo usermod -aG ${lookersGroup} ${username}', and a new login`,
      { cause: error },
    );
  }
}

export interface LookSockets {
  readonly controlSocket: string;
  readonly statusSocket: string | undefined;
}

/** Who may see `status`, and no key. */
const lookersGroup = 'sysmon';

async function readAnswer(response: IncomingMessage, path: string): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > answerBytesMax) throw new ControlError('failed', `the answer at ${at(path)} is too long`);
    }
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    if (response.statusCode === 200) return body;
    throw new ControlError('refused', String((body as { error?: unknown } | null)?.error));
  } catch (error) {
    if (error instanceof ControlError) throw error;
    throw new ControlError('failed', `the answer at ${at(path)} is cut off or no JSON`, { cause: error });
  }
}

function askErrorOf(error: NodeJS.ErrnoException, path: string): ControlError {
  if (error instanceof ControlError) return error;
  const options = { cause: error };
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new ControlError('not-running', notRunningText(path), options);
    case 'EACCES':
      return new ControlError('denied', `you may not use ${at(path)}: try as root`, options);
    default:
      return new ControlError('failed', `${at(path)} failed: ${error.message}`, options);
  }
}

function notRunningText(path: string): string {
  const [, unit] = unitSocket.exec(path) ?? [];
  if (unit === undefined) return `nothing answers at ${at(path)}: start the program, or name its --control-socket`;
  return (
    `${unit} is not running (nothing answers at '${path}'): 'sudo systemctl start ${unit}' starts it, ` +
    `'sudo journalctl -u ${unit}' shows why it ended`
  );
}

/** In the RuntimeDirectory= of a unit, which is named after it. */
const unitSocket = /^\/run\/(sysmon-agent|sysmon-server)\//;

const at = (path: string): string => `the control socket '${path}'`;
