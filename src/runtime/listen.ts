import assert from 'node:assert/strict';
import { createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { realClock } from './clock.ts';
import { CodedError } from './coded-error.ts';
import { type Connection, ConnectionError } from './connection.ts';
import { addressText } from './option-parsers.ts';
import { countedAddress, type NoPlace, Places, type PlacesOptions } from './places.ts';
import { connectionErrorOf, peerText, plainAddress, socketConnection } from './socket.ts';
import { tlsParameters } from './tls.ts';
import { Turns } from './turns.ts';
import { codeOf } from './words.ts';

export interface ListenOptions extends PlacesOptions {
  /** Empty: all addresses. */
  readonly address: string;
  /** 0: the kernel chooses one. */
  readonly port: number;
  /** Until the promise resolves, the connection gives way to others: its peer has not said yet who it is. */
  readonly onConnection: (connection: Connection) => Promise<void> | undefined;
  /** With it TLS, without it plain TCP. `keyOf` is called at each handshake; undefined refuses it. */
  readonly psk?: { readonly keyOf: (identity: string) => Buffer | undefined } | undefined;
  readonly handshakeTimeoutMs: number;
  /** `identity` is what the peer claimed before its key was found wrong, so it proves nothing. */
  readonly onRefused: (reason: RefusedReason, peer: string, error?: Error, identity?: string) => void;
}

export type RefusedReason = NoPlace | 'tls' | 'handshake-timeout';

export interface Listener {
  readonly port: number;
  /** Open connections, also those in their handshake. */
  readonly connections: number;
  /** Accepts no more, and ends the open ones at once. */
  close(): Promise<void>;
}

/** The address or port is not available; the message names both. */
export class ListenError extends CodedError<string> {
  override readonly name = 'ListenError';
}

export function listen(options: ListenOptions): Promise<Listener> {
  const { address, port } = options;
  const places = new Places(options);
  const refused = new WeakSet<Socket>();
  const refuse = (socket: Socket, reason: NoPlace) => {
    const peer = peerText(socket);
    refused.add(socket);
    socket.destroy();
    options.onRefused(reason, peer);
  };
  /** Of the socket that has the place, below TLS. */
  const handOver = (connection: Connection, socket: Socket) => {
    const known = options.onConnection(connection);
    if (known === undefined) places.keep(socket);
    else void known.then(() => places.keep(socket));
  };
  const secure = options.psk && tlsServer(options, { ...options.psk, handOver, refused });
  const server = createPlainServer((socket) => {
    if (!places.admit(socket, refuse)) return;
    if (secure) secure(socket);
    else handOver(socketConnection(socket), socket);
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(listenErrorOf(error, address, port)));
    server.listen({ port, host: address === '' ? undefined : address }, () => {
      server.removeAllListeners('error');
      server.on('error', () => {}); // of accept(): the peer has disconnected, or there are too few descriptors; the next is accepted
      resolve({
        port: boundPort(server),
        get connections() {
          return places.count;
        },
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            places.destroyAll();
          }),
      });
    });
  });
}

function boundPort(server: Server): number {
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('a TCP server without a port');
  return bound.port;
}

/** Whether a server could listen there now: opens the port for a moment. The error names it. */
export function tryPort({
  address,
  port,
}: {
  readonly address: string;
  readonly port: number;
}): Promise<ListenError | undefined> {
  return new Promise((resolve) => {
    const server = createPlainServer((socket) => socket.destroy());
    server.once('error', (error) => resolve(listenErrorOf(error, address, port)));
    server.listen({ port, host: address === '' ? undefined : address }, () => server.close(() => resolve(undefined)));
  });
}

/** Why a server cannot listen, naming address and port. */
export function listenErrorOf(error: Error, address: string, port: number): ListenError {
  const code = codeOf(error) || 'unknown';
  const reason = listenReasons[code] ?? error.message;
  return new ListenError(code, `cannot listen on ${addressText(address, port)}: ${reason}`, { cause: error });
}

const listenReasons: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program uses the port',
  EADDRNOTAVAIL: 'this host does not have the address',
  EACCES: 'a port below 1024 needs privileges',
  ENOTFOUND: 'the name is unknown',
  EAI_AGAIN: 'the name cannot be resolved now',
};

/**
 * The TLS side: it gets sockets by `emit('connection', socket)`, which Node documents. The limits are checked before, and
 * a handshake begins only when the peer has sent something.
 *
 * Waiting for that also saves memory for the whole life of a connection. Node allocates for each a buffer for encrypted
 * bytes, as long as its first read: 64 KiB where it reads from the network itself, as libuv offers that, but 1 KiB for a
 * client's hello that has been read already, and 16 KiB more with the first longer frame. See TryAllocateForWrite in
 * https://github.com/nodejs/node/blob/v20.x/src/crypto/crypto_bio.cc
 */
function tlsServer(
  options: ListenOptions,
  {
    keyOf,
    handOver,
    refused,
  }: NonNullable<ListenOptions['psk']> & {
    readonly handOver: (connection: Connection, socket: Socket) => void;
    /** What fails with them has been reported. */
    readonly refused: WeakSet<Socket>;
  },
): (socket: Socket) => void {
  const proved = new WeakMap<TLSSocket, string>();
  const claimed = new WeakMap<TLSSocket, string>();
  const handshakes = new WeakMap<Socket, Handshake>();
  const server = createTlsServer({
    ...tlsParameters,
    pskCallback: (socket, identity) => {
      const key = keyOf(identity);
      claimed.set(socket, identity);
      // Called for each key that a peer offers; OpenSSL uses the first that is known.
      if (key !== undefined) proved.set(socket, identity);
      return key ?? null;
    },
  });
  server.on('secureConnection', (socket) => {
    handshakes.get(socketBelow(socket))?.finish();
    const identity = proved.get(socket);
    if (identity === undefined) {
      // The handshake was not by a key. tlsParameters rule that out; this is a second check.
      const peer = peerText(socket);
      socket.destroy();
      options.onRefused('tls', peer, new ConnectionError('tls', `no TLS with ${peer}: it did not use a key`));
      return;
    }
    handOver(socketConnection(socket, identity), socketBelow(socket));
  });
  server.on('tlsClientError', (error, socket) => {
    const handshake = handshakes.get(socketBelow(socket));
    handshake?.finish();
    socket.destroy();
    if (handshake === undefined || refused.has(socketBelow(socket))) return;
    const { peer } = handshake;
    if (handshake.overdue) refuseOverdue(peer, claimed.get(socket));
    else options.onRefused('tls', peer, connectionErrorOf(error, peer), claimed.get(socket));
  });
  const refuseOverdue = (peer: string, identity?: string) => {
    const error = new ConnectionError('timeout', `no TLS with ${peer} in time`);
    options.onRefused('handshake-timeout', peer, error, identity);
  };
  const turns = new Turns({ clock: realClock, ...handshakeRate });
  return (socket) => {
    const handshake = new Handshake(socket, options.handshakeTimeoutMs);
    handshakes.set(socket, handshake);
    let hasSpoken = false;
    socket.once('readable', () => {
      // Ended before its first byte: a health check of the port, for one.
      if (socket.readableLength === 0) return void socket.destroy();
      hasSpoken = true;
      handshake.finish();
      turns.take(countedAddress(plainAddress(socket.remoteAddress ?? '')), () => {
        if (socket.destroyed) return;
        handshake.start();
        server.emit('connection', socket);
      });
    });
    socket.once('close', () => {
      handshake.finish();
      if (handshake.overdue && !hasSpoken) refuseOverdue(handshake.peer);
    });
  };
}

// 0.4 to 1 ms of CPU each. A thousand agents that come back at once are in after 3 s, and a flood leaves the CPU to others.
const handshakeRate = { perSecond: 300, burst: 100 };

/** Not in Node's documentation, but there since its first TLS; the tests fail at once where it is not. */
function socketBelow(socket: TLSSocket): Socket {
  const { _parent: below } = socket as unknown as { _parent?: Socket };
  assert(below !== undefined, 'a TLS socket without the socket below it');
  return below;
}

/**
 * The deadline of a handshake. Node's own `handshakeTimeout` starts again with every byte, so that a peer could take as
 * long as it likes.
 */
class Handshake {
  /** Kept, because a socket that was closed has forgotten it. */
  readonly peer: string;
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  #deadline: NodeJS.Timeout | undefined;
  overdue = false;

  constructor(socket: Socket, timeoutMs: number) {
    this.peer = peerText(socket);
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    this.start();
  }

  start(): void {
    this.#deadline = setTimeout(() => {
      this.overdue = true;
      this.#socket.destroy();
    }, this.#timeoutMs);
  }

  finish(): void {
    clearTimeout(this.#deadline);
  }
}
