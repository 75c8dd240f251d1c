import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Connections, type Crowd } from './connections.ts';
import { HttpSink, sendText, writeMetricsHead } from './http-sink.ts';
import { acceptsGzip, identify, pastWith, proxySign, type RequestFacts, scraperText } from './identify.ts';
import { type Reply, text } from './reply.ts';
import { isOurHost, type Route, type Routed, type RoutesOptions, routed, routesOf, targetOf } from './routes.ts';
import { ScrapeEndpoint, type ScrapeEndpointOptions } from './scrape-endpoint.ts';
import { TcpQueues } from './tcp-queue.ts';
import type { WebConnection } from './web-connection.ts';

export interface WebOptions extends ScrapeEndpointOptions, RoutesOptions {
  /** Names that a Host header may have, besides addresses and localhost. In lower case. */
  readonly hostNames: ReadonlySet<string>;
  /** How long a connection may be idle between two requests; 310 s by default. */
  readonly keepAliveMs?: number;
}

/** Where the web server listens. */
export interface WebAddress {
  /** Undefined: all addresses. */
  readonly host: string | undefined;
  readonly port: number;
}

export interface WebServer {
  readonly port: number;
  /** Accepts no more requests and lets those under way end, for `graceMs` at most. */
  close(graceMs: number): Promise<void>;
}

/** Opens the HTTP port. Rejects with the error of `listen`: an address in use, or not of this host. */
export async function openWeb(options: WebOptions, address: WebAddress): Promise<WebServer> {
  const web: Web = { ...options, routes: routesOf(options), endpoint: new ScrapeEndpoint(options) };
  const connections = connectionsOf(options);
  const server = await serverAt(address, (made) => {
    // A Prometheus keeps an idle connection for 5 min, and should be the one that closes it.
    made.keepAliveTimeout = options.keepAliveMs ?? keepAliveMs;
    made.on('connection', (socket: Socket) => connections.admit(socket));
    made.on('timeout', (socket: Socket) => void connections.of(socket)?.halfClose());
    made.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const connection = connections.of(request.socket);
      const isTaken = connection?.answer(() => respond(web, { connection, request, response }));
      if (isTaken !== true) request.socket.destroy();
    });
    made.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      const status = requestErrors[error.code ?? ''] ?? '400 Bad Request';
      options.metrics.request('other', Number(status.slice(0, 3)));
      // In the middle of another answer it would be read as a part of that.
      const isAnswering = connections.of(socket as Socket)?.isAnswering === true;
      if (isAnswering || !socket.writable) socket.destroy();
      else socket.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    });
  });
  return {
    // Of a server that listens on a TCP port, never a pipe.
    port: (server.address() as AddressInfo).port,
    async close(graceMs) {
      await connections.close(graceMs);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** A server that listens on an address. Only this knows what kinds of addresses there are. */
async function serverAt({ host, port }: WebAddress, prepare: (server: Server) => void): Promise<Server> {
  const server = createServer(serverLimits);
  prepare(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return server;
}

function connectionsOf({ clock, delivery, metrics, seldom }: WebOptions): Connections {
  const queues = new TcpQueues();
  return new Connections({
    clock,
    ...connectionLimits,
    isAcknowledged: (socket) => queues.isAcknowledged(socket),
    onEnd: (connection, how) => delivery.connectionEvent(connection, how),
    onRefused(address, reason) {
      metrics.httpRefused();
      seldom.warn(
        `http ${reason}`,
        `HTTP connection from ${address} is refused: ${limitText[reason]}, and all are in use`,
      );
    },
    onCrowded(address, reason) {
      seldom.warn(
        `http crowded ${reason}`,
        `an HTTP connection that rested was closed for a new one from ${address}: ${limitText[reason]}; ` +
          'let clients close theirs, or keep fewer',
      );
    },
  });
}

const connectionLimits = { connectionsMax: 512, connectionsPerAddressMax: 64 };
const limitText: Readonly<Record<Crowd, string>> = {
  all: `${connectionLimits.connectionsMax} are open, which is the limit`,
  address: `${connectionLimits.connectionsPerAddressMax} are open from there, which is the limit of an address`,
};

interface Web extends WebOptions {
  readonly routes: readonly Route[];
  readonly endpoint: ScrapeEndpoint;
}

interface Exchange {
  readonly connection: WebConnection;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

async function respond(web: Web, exchange: Exchange): Promise<void> {
  const { request, response } = exchange;
  const { path, query } = targetOf(request.url ?? '/');
  const method = request.method ?? '';
  response.setHeader('X-Content-Type-Options', 'nosniff');
  request.resume();
  const refusal = refusedHost(web, exchange);
  const answer: Routed =
    refusal === undefined ? routed(web.routes, { method, path }) : { route: 'other', kind: 'reply', reply: refusal };
  response.once('close', () => web.metrics.request(answer.route, response.statusCode));
  if (answer.kind === 'reply') sendReply(response, answer.reply);
  else await metrics(web, exchange, query);
}

/** A request for another host: from a page that tries to read this server through its visitor's browser. */
function refusedHost({ hostNames, seldom }: Web, { connection, request }: Exchange): Reply | undefined {
  const { host } = request.headers;
  if (host === undefined || isOurHost(host, hostNames)) return undefined;
  const name = host.slice(0, 100);
  seldom.warn(
    `host ${connection.owner}`,
    `HTTP request of ${connection.address} for host '${name}' is refused: give that name with --web.host if it is this server's`,
  );
  return text(
    421,
    `'${name}' is not a name of this server: it takes its addresses, localhost, its host name, and --web.host\n`,
  );
}

async function metrics(web: Web, { connection, request, response }: Exchange, query: string): Promise<void> {
  const { headers, httpVersion } = request;
  const facts: RequestFacts = {
    method: request.method ?? '',
    query,
    headers,
    httpVersion,
    address: connection.address,
  };
  const identified = identify(facts);
  if ('wrong' in identified) return sendText(response, 400, `${identified.wrong}\n`);
  const gzip = acceptsGzip(String(headers['accept-encoding'] ?? ''));
  if (request.method === 'HEAD') {
    writeMetricsHead(response, { gzip });
    return void response.end();
  }
  const name = scraperText(identified.scraper);
  const proxy = proxySign(facts, connection.past, name);
  connection.past = pastWith(connection.past, facts, name);
  connection.hasScraped ||= identified.given.kind === 'reports';
  const from = { address: connection.address, owner: connection.owner, connection: connection.scraper, proxy };
  await web.endpoint.answer(identified, from, new HttpSink(response, request.socket, { gzip }));
}

function sendReply(response: ServerResponse, { code, type, body, headers }: Reply): void {
  for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
  sendText(response, code, body, type);
}

const keepAliveMs = 310_000;
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
