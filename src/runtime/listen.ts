import assert from 'node:assert/strict';
import { createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { CodedError } from './coded-error.ts';
import { type Connection, ConnectionError } from './connection.ts';
import { addressText } from './option-parsers.ts';
import { connectionErrorOf, peerText, plainAddress, socketConnection } from './socket.ts';
import { tlsParameters } from './tls.ts';
import { codeOf } from './words.ts';

export interface ListenOptions {
  /** Empty: all addresses. */
  readonly address: string;
  /** 0: the kernel chooses one. */
  readonly port: number;
  readonly onConnection: (connection: Connection) => void;
  /** With it TLS, without it plain TCP. `keyOf` is called at each handshake; undefined refuses it. */
  readonly psk?: { readonly keyOf: (identity: string) => Buffer | undefined } | undefined;
  readonly connectionsMax: number;
  /** An IPv6 peer counts as its /64, all of whose addresses one host can have. */
  readonly connectionsPerAddressMax: number;
  readonly handshakeTimeoutMs: number;
  /** `identity` is what the peer claimed before its key was found wrong, so it proves nothing. */
  readonly onRefused: (reason: RefusedReason, peer: string, error?: Error, identity?: string) => void;
}

export type RefusedReason = 'full' | 'full-address' | 'tls' | 'handshake-timeout';

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
  const sockets = new Sockets(options);
  const secure = options.psk && tlsServer(options, options.psk);
  const server = createPlainServer((socket) => {
    if (!sockets.admit(socket)) return;
    if (secure) secure(socket);
    else options.onConnection(socketConnection(socket));
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(listenErrorOf(error, address, port)));
    server.listen({ port, host: address === '' ? undefined : address }, () => {
      server.removeAllListeners('error');
      server.on('error', () => {}); // of accept(): the peer has disconnected, or there are too few descriptors; the next is accepted
      resolve({
        port: boundPort(server),
        get connections() {
          return sockets.count;
        },
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            sockets.destroyAll();
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

/** The open sockets, within their limits. */
class Sockets {
  readonly #options: ListenOptions;
  readonly #open = new Set<Socket>();
  readonly #countByAddress = new Map<string, number>();

  constructor(options: ListenOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#open.size;
  }

  admit(socket: Socket): boolean {
    // A peer that disconnected before it was accepted has no address.
    if (socket.remoteAddress === undefined) {
      socket.destroy();
      return false;
    }
    const key = countedAddress(plainAddress(socket.remoteAddress));
    const count = this.#countByAddress.get(key) ?? 0;
    const { connectionsMax, connectionsPerAddressMax } = this.#options;
    const reason =
      this.#open.size >= connectionsMax ? 'full' : count >= connectionsPerAddressMax ? 'full-address' : undefined;
    if (reason !== undefined) {
      const peer = peerText(socket);
      socket.destroy();
      this.#options.onRefused(reason, peer);
      return false;
    }
    this.#open.add(socket);
    this.#countByAddress.set(key, count + 1);
    socket.on('error', () => {}); // until there is another listener: a reset in the middle of a handshake is no bug
    socket.once('close', () => this.#remove(socket, key));
    return true;
  }

  destroyAll(): void {
    for (const socket of this.#open) socket.destroy();
  }

  #remove(socket: Socket, key: string): void {
    this.#open.delete(socket);
    const count = (this.#countByAddress.get(key) ?? 1) - 1;
    if (count === 0) this.#countByAddress.delete(key);
    else this.#countByAddress.set(key, count);
  }
}

/** An IPv4 address as it is, an IPv6 address as its /64. */
export function countedAddress(address: string): string {
  if (!address.includes(':')) return address;
  const [left = '', right] = address.replace(/%.*$/, '').split('::');
  const head = left === '' ? [] : left.split(':');
  const tail = right === undefined || right === '' ? [] : right.split(':');
  const zeros = right === undefined ? 0 : Math.max(0, 8 - head.length - tail.length);
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...tail];
  return `${groups.slice(0, 4).join(':')}::/64`;
}

/**
 * The TLS side: it gets sockets by `emit('connection', socket)`, which Node documents. The limits are checked before, and
 * a handshake begins only when the peer has sent something.
 *
 * Waiting for that also saves memory for the whole life of a connection. Node allocates for each a buffer for encrypted
 * bytes, as long as its first read: 64 KiB where it reads from the network itself, as libuv offers that, but 1 KiB for a
 * client's hello that has been read already, and 16 KiB more with the first longer frame. See TryAllocateForWrite in
 * https://github.com/nodejs/node/blob/v20.x/src/crypto/crypto_bio.cc
 */
function tlsServer(options: ListenOptions, { keyOf }: NonNullable<ListenOptions['psk']>): (socket: Socket) => void {
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
    options.onConnection(socketConnection(socket, identity));
  });
  server.on('tlsClientError', (error, socket) => {
    const handshake = handshakes.get(socketBelow(socket));
    handshake?.finish();
    socket.destroy();
    if (handshake === undefined) return;
    const { peer } = handshake;
    if (handshake.overdue) refuseOverdue(peer, claimed.get(socket));
    else options.onRefused('tls', peer, connectionErrorOf(error, peer), claimed.get(socket));
  });
  const refuseOverdue = (peer: string, identity?: string) => {
    const error = new ConnectionError('timeout', `no TLS with ${peer} in time`);
    options.onRefused('handshake-timeout', peer, error, identity);
  };
  return (socket) => {
    const handshake = new Handshake(socket, options.handshakeTimeoutMs);
    handshakes.set(socket, handshake);
    let hasSpoken = false;
    socket.once('readable', () => {
      // Ended before its first byte: a health check of the port, for one.
      if (socket.readableLength === 0) return void socket.destroy();
      hasSpoken = true;
      server.emit('connection', socket);
    });
    socket.once('close', () => {
      handshake.finish();
      if (handshake.overdue && !hasSpoken) refuseOverdue(handshake.peer);
    });
  };
}

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
  readonly #deadline: NodeJS.Timeout;
  overdue = false;

  constructor(socket: Socket, timeoutMs: number) {
    this.peer = peerText(socket);
    this.#deadline = setTimeout(() => {
      this.overdue = true;
      socket.destroy();
    }, timeoutMs);
  }

  finish(): void {
    clearTimeout(this.#deadline);
  }
}
