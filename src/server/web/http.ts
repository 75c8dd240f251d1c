import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { constants, createGzip, type Gzip } from 'node:zlib';
import { agentId } from '../../model/agent-id.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { plainAddress } from '../../runtime/socket.ts';
import type { Scrape, ScrapeConnection } from '../delivery/cursors.ts';
import type { Delivery } from '../delivery/delivery.ts';
import { type Taken, takeNew, takeNewest } from '../delivery/scrape.ts';
import type { AgentRecord } from '../delivery/store.ts';
import type { AgentBatch, Exposition } from '../exposition/exposition.ts';
import type { ServerMetrics } from '../own-metrics.ts';
import { agentsStatus, type StatusSources, serverStatus } from '../status.ts';
import { pageHtml, pagePolicy } from './page/page.ts';
import { isDelivered } from './tcp-queue.ts';

export interface HttpOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly delivery: Delivery;
  readonly exposition: Exposition;
  readonly metrics: ServerMetrics;
  readonly status: StatusSources;
  readonly windowMs: number;
  /** Agents are taken without keys on an address that is not loopback: the page says so. */
  readonly plaintext: boolean;
  /** How long a connection may rest between two requests; 310 s where it is not said. */
  readonly keepAliveMs?: number;
  /** A warning that comes again and again: at most one a minute for each key. */
  warn(key: string, line: string): void;
  /** Ready: the ports are open and the state is read. */
  isReady(): boolean;
}

export interface HttpServer {
  readonly port: number;
  /** Takes no more requests and lets those under way end, for `graceMs` at the most. */
  close(graceMs: number): Promise<void>;
}

/** Opens the HTTP port. Rejects with the error of `listen`: an address in use, or not of this host. */
export async function serveHttp(
  options: HttpOptions,
  address: { host: string | undefined; port: number },
): Promise<HttpServer> {
  const connections = new Map<Socket, HttpConnection>();
  let isClosing = false;
  const server = createServer(serverLimits, (request, response) => {
    const connection = connections.get(request.socket);
    // Node reads on while answers wait: each waiting request costs a hundred times its bytes.
    if (connection === undefined || connection.waiting >= pipelinedMax) return void request.socket.destroy();
    connection.waiting++;
    // One after the other where a client sends its next request before the answer to its last.
    connection.tail = connection.tail
      .then(() => answer(options, connection, request, response))
      .finally(() => {
        connection.waiting--;
        if (isClosing || connection.isOver) sayGoodbye(connection, options.clock);
      });
  });
  server.maxConnections = connectionsMax;
  server.on('drop', () => {
    options.metrics.httpRefused();
    options.warn('http connections', `HTTP connections are refused: ${connectionsMax} are open, which is the limit`);
  });
  // A Prometheus keeps its connection for 5 min between scrapes, and had better be the first to close it.
  server.keepAliveTimeout = options.keepAliveMs ?? keepAliveMs;
  server.on('timeout', (socket) => {
    const connection = connections.get(socket);
    if (connection !== undefined) sayGoodbye(connection, options.clock);
  });
  server.on('connection', (socket) => {
    if (isClosing) return void socket.destroy();
    const connection: HttpConnection = {
      socket,
      scraper: { closed: false, socket },
      tail: Promise.resolve(),
      waiting: 0,
      isOver: false,
      isLeaving: false,
    };
    connections.set(socket, connection);
    // Called by Node after an answer that is the connection's last: "Connection: close", or HTTP/1.0.
    socket.destroySoon = () => {
      connection.isOver = true;
      sayGoodbye(connection, options.clock);
    };
    const { cursors } = options.delivery;
    // Whichever comes first: with 'close' alone, a FIN and the next connection's request could be seen in one turn.
    socket.once('end', () => cursors.closed(connection.scraper, { isAllRead: hasReadAll(connection) }));
    for (const event of ['error', 'close']) socket.once(event, () => cursors.closed(connection.scraper));
    socket.once('close', () => connections.delete(socket));
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const status = requestErrors[error.code ?? ''] ?? '400 Bad Request';
    options.metrics.request('other', Number(status.slice(0, 3)));
    // In the middle of another answer it would be taken for a part of that.
    const isAnswering = (connections.get(socket as Socket)?.waiting ?? 0) > 0;
    if (isAnswering || !socket.writable) socket.destroy();
    else socket.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, resolve);
  });
  // Of a server that listens on a TCP port, never a pipe.
  const { port } = server.address() as AddressInfo;
  return {
    port,
    async close(graceMs) {
      isClosing = true;
      for (const connection of connections.values()) sayGoodbye(connection, options.clock);
      await allClosed(connections, options.clock, graceMs);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

interface HttpConnection {
  readonly socket: Socket;
  readonly scraper: ScrapeConnection;
  tail: Promise<void>;
  /** Requests that are being answered or wait for it. */
  waiting: number;
  /** The client wants no further answer. */
  isOver: boolean;
  /** Our end of it is closed. */
  isLeaving: boolean;
}

/**
 * Ends a connection that rests, in a way that tells what became of the last answer on it: a client that has read all of it
 * sees our end of the connection close and closes its own. One that stands still, or has hung up, does not.
 */
function sayGoodbye(connection: HttpConnection, clock: Clock): void {
  const { socket, waiting, isLeaving } = connection;
  if (isLeaving || waiting > 0) return;
  connection.isLeaving = true;
  const overdue = clock.after(goodbyeMs, () => socket.destroy());
  socket.once('close', () => overdue.cancel());
  socket.end();
}

/** Of a peer that has just closed its end, after ours. Had it done so by itself, our goodbye would not be confirmed yet. */
const hasReadAll = ({ socket, isLeaving }: HttpConnection): boolean => isLeaving && isDelivered(socket);

function allClosed(connections: ReadonlyMap<Socket, unknown>, clock: Clock, graceMs: number): Promise<void> {
  const closing = [...connections.keys()].map((socket) => new Promise((resolve) => socket.once('close', resolve)));
  return new Promise((resolve) => {
    const grace = clock.after(graceMs, resolve);
    void Promise.all(closing).then(() => {
      grace.cancel();
      resolve();
    });
  });
}

const connectionsMax = 512;
const pipelinedMax = 32;
const keepAliveMs = 310_000;
const goodbyeMs = 1000;
const serverLimits = {
  headersTimeout: 10_000,
  requestTimeout: 15_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 16 * 1024,
};

// Errors of the parser that have a status of their own.
const requestErrors: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
};

interface Route {
  readonly path: string;
  answer(context: Context): Promise<void> | void;
}

interface Context {
  readonly options: HttpOptions;
  readonly connection: HttpConnection;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
}

const routes: readonly Route[] = [
  { path: '/', answer: page },
  { path: '/metrics', answer: metrics },
  { path: '/api/v1/agents', answer: agentsJson },
  { path: '/-/healthy', answer: (context) => text(context, 200, 'healthy\n') },
  {
    path: '/-/ready',
    answer: (context) =>
      context.options.isReady() ? text(context, 200, 'ready\n') : text(context, 503, 'not ready yet\n'),
  },
];

async function answer(
  options: HttpOptions,
  connection: HttpConnection,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { path, query } = target(request.url ?? '/');
  const route = routes.find((each) => each.path === path);
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.once('close', () => options.metrics.request(route?.path ?? 'other', response.statusCode));
  const context: Context = { options, connection, request, response, query };
  request.resume();
  if (route === undefined) return text(context, 404, `no such page: ${path.slice(0, 200)}\n`);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return text(context, 405, `${request.method} is not allowed here, GET is\n`);
  }
  await route.answer(context);
}

/** Path and query of a request's target, which may be a whole URL. Not by `URL`, which throws at some. */
function target(url: string): { path: string; query: URLSearchParams } {
  const [path, query] = url.replace(/^https?:\/\/[^/?]*/i, '').split(/\?(.*)/s);
  return { path: path || '/', query: new URLSearchParams(query) };
}

function text({ response }: Context, code: number, body: string, type = 'text/plain'): void {
  response.writeHead(code, { 'Content-Type': `${type}; charset=utf-8`, 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

function page(context: Context): void {
  const { status, plaintext, clock } = context.options;
  context.response.setHeader('Content-Security-Policy', pagePolicy);
  context.response.setHeader('Referrer-Policy', 'no-referrer');
  context.response.setHeader('X-Frame-Options', 'DENY');
  context.response.setHeader('Cache-Control', 'no-store');
  const body = pageHtml({
    status: serverStatus(status),
    agents: agentsStatus(status),
    plaintext,
    nowMs: clock.nowMs(),
  });
  text(context, 200, body, 'text/html');
}

function agentsJson(context: Context): void {
  const { status } = context.options;
  const body = { server: serverStatus(status), agents: agentsStatus(status) };
  context.response.setHeader('Cache-Control', 'no-store');
  text(context, 200, `${JSON.stringify(body, undefined, 2)}\n`, 'application/json');
}

/**
 * `/metrics`. A scraper that says its timeout, as every Prometheus does, is given every report that it has not had, with
 * timestamps. Any other client, and one that asks for `timestamps=0`, is given the newest values and takes nothing.
 */
async function metrics(context: Context): Promise<void> {
  const { options, query } = context;
  const agents = selectAgents(context);
  if (agents === undefined) return;
  const timeoutMs = scrapeTimeoutMs(context);
  const samplesMax = samplesMaxOf(context);
  if (samplesMax === 'wrong') return;
  const stateless = timeoutMs === undefined || query.get('timestamps') === '0' || context.request.method === 'HEAD';
  if (stateless) {
    await send(context, takeNewest(options, agents), {
      timestamps: false,
      deadlineMs: timeoutMs ?? statelessDeadlineMs,
    });
    return;
  }
  const scrape = await openScrape(context, timeoutMs);
  if (scrape === undefined) {
    await send(context, takeNewest(options, agents), { timestamps: false, deadlineMs: timeoutMs });
    return;
  }
  await scrapeNew(context, scrape, agents, samplesMax ?? scrape.samplesMax);
}

async function scrapeNew(
  context: Context,
  scrape: Scrape,
  agents: readonly AgentRecord[],
  samplesMax: number,
): Promise<void> {
  const { options } = context;
  warnOfRareScrapes(options, scrape, agents);
  let taken: Taken | undefined;
  let isSent = false;
  try {
    taken = await takeNew({ ...options, store: options.delivery.store, turn: turnOnce }, agents, scrape, samplesMax);
    isSent = await send(context, taken.batches, { timestamps: true, deadlineMs: scrape.timeoutMs + lateMs });
  } finally {
    if (isSent && taken !== undefined) {
      scrape.finish(taken);
      const { skippedReports } = taken;
      options.metrics.scraped(scrape.scraper, context.query.get('agent') ?? '', taken);
      if (skippedReports > 0) options.metrics.skipped(skippedReports);
    } else scrape.abort();
    options.metrics.scrape(isSent ? 'finished' : 'aborted');
  }
}

function openScrape({ options, connection, request, query }: Context, timeoutMs: number): Promise<Scrape | undefined> {
  const { delivery } = options;
  const address = plainAddress(request.socket.remoteAddress ?? 'unknown');
  const name = (query.get('scraper') || address).slice(0, scraperNameCharactersMax);
  const scrape = delivery.cursors.open({
    name,
    selection: query.get('agent') ?? '',
    connection: connection.scraper,
    timeoutMs,
  });
  return scrape.then((opened) => {
    if (opened === undefined) {
      options.metrics.nameRefused();
      options.warn(
        'names',
        `scraper '${name}' gets the newest values only: 32 scraper names are in use, which is the limit`,
      );
    }
    return opened;
  });
}

/** The agents that the request is about, or undefined after an answer that says what is wrong. */
function selectAgents(context: Context): readonly AgentRecord[] | undefined {
  const { store } = context.options.delivery;
  const name = context.query.get('agent');
  if (name === null) return [...store.agents.values()];
  const id = agentId(name);
  const agent = id === undefined ? undefined : store.agents.get(id);
  if (agent !== undefined) return [agent];
  text(context, 404, `no agent named '${name.slice(0, 128)}' is known\n`);
  return undefined;
}

function samplesMaxOf(context: Context): number | undefined | 'wrong' {
  const given = context.query.get('max');
  if (given === null) return undefined;
  if (/^[1-9][0-9]{0,7}$/.test(given) && Number(given) <= samplesMaxMost) return Number(given);
  const expected = `expected a whole number of samples, 1 to ${samplesMaxMost}`;
  text(context, 400, `max=${given.slice(0, 20)}: ${expected}\n`);
  return 'wrong';
}

function scrapeTimeoutMs({ request }: Context): number | undefined {
  const seconds = Number(request.headers['x-prometheus-scrape-timeout-seconds'] ?? Number.NaN);
  return seconds > 0 && seconds <= 3600 ? seconds * 1000 : undefined;
}

/** Sends the text. Resolves to whether all of it is with the operating system. */
async function send(
  context: Context,
  batches: readonly AgentBatch[],
  { timestamps, deadlineMs }: { timestamps: boolean; deadlineMs: number },
): Promise<boolean> {
  const { options, request, response } = context;
  const compress = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''));
  response.writeHead(200, {
    'Content-Type': 'text/plain; version=0.0.4; charset=utf-8',
    ...(compress ? { 'Content-Encoding': 'gzip' } : {}),
    Vary: 'Accept-Encoding',
  });
  if (request.method === 'HEAD') {
    response.end();
    return false;
  }
  const { socket } = context.connection;
  const end = endOf(response, socket);
  // A client that does not read holds this answer's memory: until its own deadline and no longer.
  const deadline = options.clock.after(deadlineMs, () => socket.destroy());
  try {
    await writeBody(context, { batches, timestamps, sink: compress ? gzipTo(response) : response, end });
    return (await end) === 'sent';
  } finally {
    deadline.cancel();
  }
}

/** How a response ends: with the operating system as a whole, or not. */
async function endOf(response: ServerResponse, socket: Socket): Promise<'sent' | 'lost'> {
  if (socket.destroyed) return 'lost';
  let lost = () => {};
  try {
    return await new Promise((resolve) => {
      lost = () => resolve('lost');
      response.once('finish', () => resolve('sent'));
      // Of the socket: a response whose turn has not come when the client goes never closes.
      socket.once('close', lost);
    });
  } finally {
    socket.removeListener('close', lost);
  }
}

function gzipTo(response: ServerResponse): Gzip {
  const gzip = createGzip({ level: constants.Z_BEST_SPEED, chunkSize: gzipChunkBytes });
  response.once('close', () => gzip.destroy());
  gzip.pipe(response);
  return gzip;
}

/**
 * Writes slice after slice, no faster than they are taken, and gives each back when it has been: a pipeline that makes
 * new ones all the time costs as much again as the rendering. Between two slices the event loop turns, so that agents
 * are heard meanwhile. Returns early when the response has ended.
 */
async function writeBody(
  { options, query, connection: { socket } }: Context,
  {
    batches,
    timestamps,
    sink,
    end,
  }: {
    readonly batches: readonly AgentBatch[];
    readonly timestamps: boolean;
    readonly sink: Writable;
    readonly end: Promise<unknown>;
  },
): Promise<void> {
  const { clock, delivery, exposition, metrics } = options;
  for (const slice of exposition.render(batches, { timestamps })) {
    if (socket.destroyed) return;
    if (slice.length === 0 || sink.write(slice, () => exposition.release(slice))) await turnOnce();
    else await Promise.race([new Promise((resolve) => sink.once('drain', resolve)), end]);
  }
  const monotonicMs = clock.monotonicMs();
  const selected = query.get('agent');
  const agents = [...delivery.store.agents.values()].filter(({ id }) => selected === null || id === selected);
  const own = await metrics.text(agents.map((agent) => ({ id: agent.id, up: agent.up(monotonicMs) })));
  if (!socket.destroyed) sink.end(own);
}

/** What is right over history is biased at "now" when scrapes are rarer than reports: say so, once a minute. */
function warnOfRareScrapes(options: HttpOptions, scrape: Scrape, agents: readonly AgentRecord[]): void {
  const sinceMs = scrape.intervalMs;
  if (sinceMs === undefined) return;
  const monotonicMs = options.clock.monotonicMs();
  for (const agent of agents) {
    if (!agent.up(monotonicMs)) continue;
    if (agent.intervalMs * 1.5 < sinceMs && sinceMs < longScrapeMs) {
      options.warn(
        `rare ${scrape.scraper}`,
        `scraper '${scrape.scraper}' comes every ${Math.round(sinceMs / 1000)} s, agent '${agent.id}' reports every ` +
          `${agent.intervalMs / 1000} s: nothing is missing later, but rules see the newest reports late; ` +
          `set scrape_interval to at most the agents' --schedule`,
      );
      return;
    }
    if (agent.intervalMs > lookbackWarningMs) {
      options.warn(
        `sparse ${agent.id}`,
        `agent '${agent.id}' reports every ${agent.intervalMs / 1000} s: Prometheus looks back 5 min for a value and ` +
          'shows gaps when a report is late; set its --schedule to 2m or less',
      );
      return;
    }
  }
}

const turnOnce = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const statelessDeadlineMs = 60_000;
// Past the scraper's own timeout it has gone; a little more, so that it is the one who hangs up.
const lateMs = 2000;
const gzipChunkBytes = 64 * 1024;
const scraperNameCharactersMax = 128;
// A gigabyte of text, and 90 MB of reports that are held while it is sent.
const samplesMaxMost = 10_000_000;
// After such a pause Prometheus was away, rather than slow.
const longScrapeMs = 5 * 60_000;
const lookbackWarningMs = 120_000;
