import { accessSync, existsSync, constants as fsConstants, lstatSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { dirname } from 'node:path';
import { constants, gzipSync } from 'node:zlib';
import { runEvery } from '../../runtime/clock.ts';
import { ListenError, listenErrorOf } from '../../runtime/listen.ts';
import { countedAddress } from '../../runtime/places.ts';
import { plainAddress } from '../../runtime/socket.ts';
import { listenAtPath, removeStaleSocket } from '../../runtime/unix-socket.ts';
import { codeOf, reasonOf } from '../../runtime/words.ts';
import { ArchiveSender } from './archives.ts';
import { Connections, type Crowd } from './connections.ts';
import { HttpSink, sendText, writeMetricsHead } from './http-sink.ts';
import { acceptsGzip, identify, type RequestFacts, withRequest } from './identify.ts';
import type { Joining } from './page/fleet.ts';
import { LiveFleet } from './page/live.ts';
import { startPasswordWorker } from './password-worker.ts';
import { Passwords, type PasswordWorker } from './passwords.ts';
import { type Reply, text } from './reply.ts';
import {
  isOurHost,
  noSuchPage,
  type Route,
  type Routed,
  type RoutesOptions,
  routed,
  routesOf,
  targetOf,
} from './routes.ts';
import { ScrapeEndpoint, type ScrapeEndpointOptions } from './scrape-endpoint.ts';
import { Secure } from './secure.ts';
import { TcpQueues } from './tcp-queue.ts';
import type { WebConfig } from './web-config-file.ts';
import type { WebConnection } from './web-connection.ts';

export interface WebOptions extends ScrapeEndpointOptions, Omit<RoutesOptions, 'agents' | 'fleet'> {
  /** Agents connect without keys on an address that is not loopback: the page warns of it. */
  readonly plaintext: boolean;
  /** How a host becomes an agent, for the page. */
  readonly joining: Joining;
  /** Names that a Host header may have, besides addresses and localhost. In lower case. */
  readonly hostNames: ReadonlySet<string>;
  /** How long a connection may be idle between two requests: 310 s for one that has scraped, 15 s for others. */
  readonly keepAliveMs?: number;
  readonly keepAliveOthersMs?: number;
  /** TLS, users and headers, as they are now. */
  readonly config: { readonly current: WebConfig };
  /** The releases that hosts can fetch. */
  readonly archiveFolder: string | undefined;
  /** Answers are compressed for those who accept it. */
  readonly compression: boolean;
  /** A thread that checks passwords; the real one where it is not said. */
  readonly startPasswordWorker?: () => PasswordWorker;
}

/** Where the web server listens. */
export type WebAddress =
  /** Empty: all addresses. */
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface WebServer {
  /** Of each address in turn; 0 for a unix socket. */
  readonly ports: readonly number[];
  /** Accepts no more requests and lets those under way end, for `graceMs` at most. */
  close(graceMs: number): Promise<void>;
}

/** Opens the HTTP ports. Rejects with a {@link ListenError}; then none of them is open. */
export async function openWeb(options: WebOptions, addresses: readonly WebAddress[]): Promise<WebServer> {
  const { clock } = options;
  const passwords = new Passwords({ clock, startWorker: options.startPasswordWorker ?? startPasswordWorker });
  const { agents } = options.delivery.store;
  const fleet = new LiveFleet({ ...options, records: agents });
  const web: Web = {
    ...{ ...options, passwords, fleet },
    routes: routesOf({ ...options, agents, fleet }),
    endpoint: new ScrapeEndpoint(options),
    archiveSender: new ArchiveSender(options.archiveFolder, clock),
  };
  const connections = connectionsOf(options);
  const servers: Server[] = [];
  const close = async () => {
    passwords.close();
    fleet.stop();
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const server of servers) server.closeAllConnections();
    await Promise.all(closed);
  };
  try {
    for (const address of addresses) {
      const server = httpServer(web, connections, { isUnix: address.kind === 'unix' });
      await listenAt(server, address);
      servers.push(server);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ports: servers.map((server) => portOf(server.address())),
    async close(graceMs) {
      await connections.close(graceMs);
      await close();
    },
  };
}

const portOf = (address: AddressInfo | string | null): number =>
  typeof address === 'object' ? (address?.port ?? 0) : 0;

function httpServer(web: Web, connections: Connections, { isUnix }: { readonly isUnix: boolean }): Server {
  const server = createServer(serverLimits);
  // A Prometheus keeps an idle connection for 5 min, and should be the one that closes it.
  server.keepAliveTimeout = web.keepAliveMs ?? keepAliveMs;
  // HTTP's own listener takes a connection from us: at once, or after a TLS handshake.
  const [begin] = server.listeners('connection');
  server.removeAllListeners('connection');
  const serve = (raw: Socket, socket: Socket, san?: string) => {
    const connection = connections.serve(raw, socket);
    if (connection === undefined) return void socket.destroy();
    connection.san = san;
    begin!.call(server, socket);
  };
  const secure = new Secure({
    clock: web.clock,
    onSecure: serve,
    onRefused(raw, reason) {
      const address = plainAddress(raw.remoteAddress ?? 'unknown');
      web.metrics.httpRefused();
      web.seldom.warn(`http tls ${countedAddress(address)}`, `no TLS with ${address} on the HTTP port: ${reason}`);
    },
  });
  server.on('connection', (raw: Socket) => {
    if (!connections.admit(raw, { isUnix })) return;
    const { tls } = web.config.current;
    if (tls === undefined) serve(raw, raw);
    else secure.begin(raw, tls);
  });
  server.on('timeout', (socket: Socket) => void connections.of(socket)?.halfClose());
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const connection = connections.of(request.socket);
    const isTaken = connection?.answer(() => respond(web, { connection, request, response }));
    if (isTaken !== true) request.socket.destroy();
    // After Node's own listener, which allows as long as for a scraper.
    response.once('finish', () => {
      if (connection?.hasScraped === false) request.socket.setTimeout(web.keepAliveOthersMs ?? keepAliveOthersMs);
    });
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const status = requestErrors[error.code ?? ''] ?? '400 Bad Request';
    web.metrics.request('other', Number(status.slice(0, 3)));
    // In the middle of another answer it would be read as a part of that.
    const isAnswering = connections.of(socket as Socket)?.isAnswering === true;
    if (isAnswering || !socket.writable) socket.destroy();
    else socket.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  });
  return server;
}

async function listenAt(server: Server, address: WebAddress): Promise<void> {
  if (address.kind === 'unix') return listenAtUnix(server, address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenErrorOf(error, address.address, address.port)));
    server.listen(address.port, address.address === '' ? undefined : address.address, resolve);
  });
  server.removeAllListeners('error');
  server.on('error', () => {}); // of accept(): the next is accepted
}

/** Whether a server could listen at the path now; nothing is made there. */
export async function tryUnixAddress(path: string): Promise<ListenError | undefined> {
  const failed = (why: string) => new ListenError('EACCES', `cannot listen on unix:${path}: ${why}`);
  try {
    accessSync(dirname(path), fsConstants.W_OK | fsConstants.X_OK);
  } catch (error) {
    return failed(codeOf(error) === 'ENOENT' ? 'its folder does not exist' : 'this user may not write to its folder');
  }
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found === undefined || found.isSocket() ? undefined : failed('it is there and is no socket');
}

async function listenAtUnix(server: Server, path: string): Promise<void> {
  const failed = (code: string, why: string, cause?: unknown) =>
    new ListenError(code, `cannot listen on unix:${path}: ${why}`, { cause });
  try {
    if (!existsSync(dirname(path))) throw failed('ENOENT', 'its folder does not exist');
    const found = await removeStaleSocket(path);
    if (found === 'in-use') throw failed('EADDRINUSE', 'another program answers there');
    if (found === 'no-socket') throw failed('EEXIST', 'it is there and is no socket');
    await listenAtPath(server, path);
    server.on('error', () => {});
  } catch (error) {
    if (error instanceof ListenError) throw error;
    const code = codeOf(error);
    const why = code === 'EACCES' ? 'this user may not write to its folder' : reasonOf(error);
    throw failed(code, why, error);
  }
}

function connectionsOf({ clock, delivery, metrics, seldom }: WebOptions): Connections {
  return new Connections({
    clock,
    ...connectionLimits,
    queues: new TcpQueues(),
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
        `an idle HTTP connection was closed for a new one from ${address}: ${limitText[reason]}; ` +
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
  readonly passwords: Passwords;
  readonly archiveSender: ArchiveSender;
  readonly fleet: LiveFleet;
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
  for (const [name, value] of Object.entries({ ...ownHeaders, ...web.config.current.headers })) {
    response.setHeader(name, value);
  }
  request.resume();
  const user = refusedHost(web, exchange) ?? (await userOf(web, exchange));
  const answer: Routed =
    'code' in user ? { route: 'other', kind: 'reply', reply: user } : routed(web.routes, { method, path, query });
  response.once('close', () => web.metrics.request(answer.route, response.statusCode));
  if (answer.kind === 'reply') sendReply(response, answer.reply, { gzip: takesGzip(web, request) });
  else if (answer.kind === 'events') sendEvents(web, exchange, answer);
  else if (answer.kind === 'archive') await archive(web, exchange, answer.file);
  else await metrics(web, exchange, { query, user: 'code' in user ? undefined : user.name });
}

const ownHeaders = { 'X-Content-Type-Options': 'nosniff' };

/** Who asks: the user whose password it has, or the name in its certificate. Everything asks for it where there are users. */
async function userOf(
  web: Web,
  { connection, request }: Exchange,
): Promise<{ readonly name: string | undefined } | Reply> {
  const { users } = web.config.current;
  if (users.size === 0) return { name: connection.san };
  const login = loginOf(request.headers.authorization);
  const { owner, address } = connection;
  const verdict = login === undefined ? 'none' : await web.passwords.check(users, { ...login, owner });
  if (verdict === 'right') return { name: login!.user };
  if (verdict === 'busy') return text(503, 'too many passwords are being checked\n');
  // Not a name that is unknown: a person may have typed a password there.
  const who = login !== undefined && users.has(login.user) ? `the password of user '${login.user}'` : 'its user';
  const why = login === undefined ? 'it names no user' : `${who} is wrong`;
  web.seldom.warn(
    `password ${owner}`,
    `HTTP request from ${address} is refused: ${why}; see basic_auth_users in --web.config.file`,
  );
  return { ...text(401, 'Unauthorized\n'), headers: { 'WWW-Authenticate': 'Basic realm="sysmon", charset="UTF-8"' } };
}

function loginOf(authorization = ''): { readonly user: string; readonly password: string } | undefined {
  const [, encoded] = /^Basic +([A-Za-z0-9+/=_-]+) *$/i.exec(authorization) ?? [];
  if (encoded === undefined) return undefined;
  const [, user, password] = /^([^:]*):(.*)$/s.exec(Buffer.from(encoded, 'base64').toString('utf8')) ?? [];
  return user === undefined || password === undefined ? undefined : { user, password };
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

async function archive(web: Web, { connection, request, response }: Exchange, file: string): Promise<void> {
  const { owner } = connection;
  const outcome = await web.archiveSender.send({ file, method: request.method ?? '', owner }, response);
  if (outcome === 404) sendReply(response, noSuchPage(`/install/${file}`));
  if (outcome === 503) {
    const reply = text(503, 'too many releases are being sent: try again in a minute\n');
    sendReply(response, { ...reply, headers: { 'Retry-After': '60' } });
  }
}

async function metrics(
  web: Web,
  { connection, request, response }: Exchange,
  { query, user }: { readonly query: string; readonly user: string | undefined },
): Promise<void> {
  const { headers, httpVersion, rawHeaders } = request;
  const facts: RequestFacts = {
    method: request.method ?? '',
    query,
    headers,
    httpVersion,
    address: connection.address,
    ...(user === undefined ? {} : { user }),
  };
  const identified = identify(facts);
  if ('wrong' in identified) return sendText(response, 400, `${identified.wrong}\n`);
  const gzip = takesGzip(web, request);
  if (request.method === 'HEAD') {
    writeMetricsHead(response, { gzip });
    return void response.end();
  }
  const nowMs = web.clock.monotonicMs();
  const headerNames = rawHeaders.filter((_, at) => at % 2 === 0);
  const { past, proxy } = withRequest(connection.past, { request: facts, headerNames, identified, nowMs });
  connection.past = past;
  connection.hasScraped ||= identified.given.kind === 'reports';
  const from = { address: connection.address, owner: connection.owner, connection: connection.scraper, proxy };
  await web.endpoint.answer(identified, from, new HttpSink(response, request.socket, { gzip }));
}

function takesGzip({ compression }: Web, { headers }: IncomingMessage): boolean {
  return compression && acceptsGzip(String(headers['accept-encoding'] ?? ''));
}

function sendReply(
  response: ServerResponse,
  { code, type, body, headers }: Reply,
  { gzip = false }: { readonly gzip?: boolean } = {},
): void {
  for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
  if (!gzip || body.length < gzipCharactersMin) return sendText(response, code, body, type);
  const compressed = gzipSync(body, { level: constants.Z_BEST_SPEED });
  response.writeHead(code, {
    ...{ 'Content-Type': `${type}; charset=utf-8`, 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' },
    'Content-Length': compressed.length,
  });
  response.end(compressed);
}

/** What changes on the fleet's page, until its browser leaves. */
function sendEvents(
  { fleet, clock }: Web,
  { request, response }: Exchange,
  asked: { readonly revision: number; readonly query: string },
): void {
  if (!fleet.hasRoom) return sendReply(response, text(503, 'too many pages are open\n'));
  response.writeHead(200, {
    ...{ 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' },
  });
  response.flushHeaders();
  if (request.method === 'HEAD') return void response.end();
  const close = fleet.open(
    {
      send(event) {
        if (response.writableLength > eventBytesMax) response.destroy();
        else response.write(event);
        return !response.destroyed;
      },
    },
    asked,
  );
  // So that the browser, and whatever is in between, sees that the connection is alive.
  const beat = runEvery(clock, beatMs, () => void response.write(': \n\n'));
  response.once('close', () => {
    beat.stop();
    close();
  });
}

// A page that does not read its events is cut off.
const eventBytesMax = 1024 * 1024;
const beatMs = 15_000;
const gzipCharactersMin = 2000;
const keepAliveMs = 310_000;
// A browser, curl, a probe: what they keep is one of the connections of all.
const keepAliveOthersMs = 15_000;
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
