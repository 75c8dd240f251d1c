import { lookup } from 'node:dns/promises';
import { connect as connectPlain, isIPv6, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type Clock, realClock } from './clock.ts';
import { type Connection, ConnectionError, type ConnectionErrorCode } from './connection.ts';
import { addressText } from './option-parsers.ts';
import { connectionErrorOf, socketConnection } from './socket.ts';
import { type Psk, tlsParameters } from './tls.ts';
import { secondsText } from './words.ts';

export interface DialInTurnOptions {
  readonly host: string;
  readonly port: number;
  /** For all of it: the name, and every address with its connection and TLS. */
  readonly timeoutMs: number;
  /** For one address at most; less where there are many. 10 s unless a test says otherwise. */
  readonly addressTimeoutMs?: number;
  /** Which address is tried first, if the name has it still: the one of the last good connection. */
  readonly firstAddress?: string | undefined;
  readonly signal: AbortSignal;
  /** The addresses of a name, in the order of the system; by getaddrinfo unless a test says otherwise. */
  readonly resolve?: (host: string) => Promise<readonly string[]>;
  readonly clock: Clock;
  /** A connection to one address, or a ConnectionError. */
  readonly connect: (attempt: Attempt) => Promise<Connection>;
}

/** One address. */
export interface Attempt {
  /** The address with its port, for words. */
  readonly peer: string;
  readonly address: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface DialOptions extends Omit<DialInTurnOptions, 'clock' | 'connect'> {
  /** With it TLS, without it plain TCP. */
  readonly psk?: Psk | undefined;
}

/** A connection to a host whose key, if there is one, has been proved; or a ConnectionError. */
export function dial(options: DialOptions): Promise<Connection> {
  const { psk } = options;
  return dialInTurn({
    ...options,
    clock: realClock,
    connect: (attempt) => (psk === undefined ? dialPlain(attempt) : dialTls(attempt, psk)),
  });
}

/** Dials again and again: the address of the last good connection comes first. */
export function dialLastGood(
  dialOnce: (options: {
    readonly firstAddress: string | undefined;
    readonly signal: AbortSignal;
  }) => Promise<Connection>,
): (signal: AbortSignal) => Promise<Connection> {
  let firstAddress: string | undefined;
  return async (signal) => {
    const connection = await dialOnce({ firstAddress, signal });
    firstAddress = connection.peerAddress;
    return connection;
  };
}

/**
 * The addresses of a name are tried one after another, each for seconds: Node's own way gives each but the last a quarter
 * of one, which is less than a handshake by satellite takes (https://github.com/nodejs/node/issues/54359).
 */
export async function dialInTurn(options: DialInTurnOptions): Promise<Connection> {
  const { host, port, timeoutMs, signal, clock } = options;
  const peer = addressText(host, port);
  const endMs = clock.monotonicMs() + timeoutMs;
  const addresses = tryingOrder(await addressesOf(options, peer), options.firstAddress);
  const errors: ConnectionError[] = [];
  for (const [index, address] of addresses.entries()) {
    const shareMs = (endMs - clock.monotonicMs()) / (addresses.length - index);
    const attempt = {
      peer: addressText(address, port),
      address,
      port,
      timeoutMs: Math.max(1, Math.min(shareMs, options.addressTimeoutMs ?? addressTimeoutMsMax)),
      signal,
    };
    try {
      return await options.connect(attempt);
    } catch (error) {
      if (signal.aborted) throw stopped(peer);
      errors.push(error as ConnectionError); // connect() throws nothing else
    }
  }
  throw errorOfAll(errors);
}

// The first packet of a connection is sent again after 1, 3 and 7 s.
const addressTimeoutMsMax = 10_000;

/** Ends with the deadline or the signal, although a query of the system cannot be ended. */
async function addressesOf(options: DialInTurnOptions, peer: string): Promise<readonly string[]> {
  const { host, timeoutMs, signal, clock, resolve = systemAddresses } = options;
  const canceller = new AbortController();
  const overdue = clock.after(timeoutMs, () =>
    canceller.abort(
      new ConnectionError('name', `the name of ${peer} was not resolved within ${secondsText(timeoutMs)}`),
    ),
  );
  const stop = () => canceller.abort(stopped(peer));
  signal.addEventListener('abort', stop, { once: true });
  const ended = new Promise<never>((_, reject) => {
    canceller.signal.addEventListener('abort', () => reject(canceller.signal.reason), { once: true });
  });
  if (signal.aborted) stop();
  try {
    return await Promise.race([ended, resolve(host)]);
  } catch (error) {
    throw connectionErrorOf(error as Error, peer); // getaddrinfo fails with Errors
  } finally {
    overdue.cancel();
    signal.removeEventListener('abort', stop);
  }
}

async function systemAddresses(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true, verbatim: true });
  return found.map(({ address }) => address);
}

/** As the system orders them, but the two families in turn, and the last good one before all. */
export function tryingOrder(addresses: readonly string[], firstAddress?: string): string[] {
  const left = [...new Set(addresses)];
  const ordered: string[] = [];
  while (left.length > 0) {
    const before = ordered.at(-1);
    const other = before === undefined ? 0 : left.findIndex((address) => isIPv6(address) !== isIPv6(before));
    ordered.push(...left.splice(Math.max(0, other), 1));
  }
  if (firstAddress === undefined || !ordered.includes(firstAddress)) return ordered;
  return [firstAddress, ...ordered.filter((address) => address !== firstAddress)];
}

/** One error for all addresses: each with its reason, and the code of the one that came furthest. */
export function errorOfAll(errors: readonly ConnectionError[]): ConnectionError {
  const [only] = errors;
  if (only !== undefined && errors.length === 1) return only;
  const furthest = errors.reduce((a, b) => (codeOrder.indexOf(b.code) > codeOrder.indexOf(a.code) ? b : a));
  return new ConnectionError(furthest.code, errors.map(({ message }) => message).join('; '), { cause: furthest });
}

const codeOrder: readonly ConnectionErrorCode[] = [
  'name',
  'network',
  'unreachable',
  'timeout',
  'refused',
  'closed',
  'reset',
  'not-tls',
  'tls',
];

function dialPlain(attempt: Attempt): Promise<Connection> {
  const socket = connectPlain({ host: attempt.address, port: attempt.port });
  return connected(socket, 'connect', attempt, () => socketConnection(socket));
}

function dialTls(attempt: Attempt, psk: Psk): Promise<Connection> {
  const { address, port, peer } = attempt;
  let asked = false;
  const socket: TLSSocket = connectTls({
    ...tlsParameters,
    host: address,
    port,
    pskCallback: () => {
      asked = true;
      return { identity: psk.identity, psk: psk.key };
    },
    // A server without the key may show a certificate instead, and Node would accept one that this host trusts. So no
    // authority is trusted, and no name matches.
    ca: [],
    checkServerIdentity: () =>
      new ConnectionError('tls', `no TLS with ${peer}: the server showed a certificate instead of the key`),
    rejectUnauthorized: true,
  });
  const dialled = connected(socket, 'secureConnect', attempt, () => {
    // In TLS 1.3 a handshake by key counts as a resumption, the only one here: we keep no session.
    if (!asked || !socket.isSessionReused()) {
      throw new ConnectionError('tls', `no TLS with ${peer}: the server did not use the key`);
    }
    return socketConnection(socket, psk.identity);
  });
  return dialled.catch((error: ConnectionError) => {
    // The server's alert, which each version of OpenSSL words differently, comes after the key was asked for.
    const isAnswer = asked && error.code === 'tls' && /alert/i.test(error.message);
    throw isAnswer ? keyRefused(peer, psk.identity, error) : error;
  });
}

function keyRefused(peer: string, identity: string, cause: ConnectionError): ConnectionError {
  return new ConnectionError('tls', `${peer} does not know the key of '${identity}': enrol this host again`, { cause });
}

/** The connection at the event, or the error, the deadline, the signal: whichever comes first, and no listener stays. */
function connected(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  { timeoutMs, signal, peer }: Attempt,
  connection: () => Connection,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(deadline);
      signal.removeEventListener('abort', abort);
      socket.off(event, succeeded);
      socket.off('error', failed);
      socket.off('close', closed);
    };
    const failed = (error: Error) => {
      done();
      socket.on('error', () => {}); // the rejection has the reason already
      socket.destroy();
      reject(connectionErrorOf(error, peer));
    };
    const succeeded = () => {
      done();
      try {
        resolve(connection());
      } catch (error) {
        failed(error as Error); // connection() throws nothing else
      }
    };
    const closed = () => failed(new ConnectionError('reset', `${peer} reset the connection`));
    const abort = () => failed(stopped(peer));
    const deadline = setTimeout(
      () => failed(new ConnectionError('timeout', `${peer} did not answer within ${secondsText(timeoutMs)}`)),
      timeoutMs,
    );
    signal.addEventListener('abort', abort, { once: true });
    socket.once(event, succeeded);
    socket.once('error', failed);
    socket.once('close', closed);
  });
}

function stopped(peer: string): ConnectionError {
  return new ConnectionError('closed', `connecting to ${peer} was stopped`);
}
