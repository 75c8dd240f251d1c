import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type Connection, ConnectionError } from './connection.ts';
import { addressText } from './option-parsers.ts';
import { connectionErrorOf, socketConnection } from './socket.ts';
import { type Psk, tlsParameters } from './tls.ts';

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  /** For all of it: name, connection, TLS. */
  readonly timeoutMs: number;
  /** With it TLS, without it plain TCP. */
  readonly psk?: Psk | undefined;
  readonly signal: AbortSignal;
}

/** A connection to a host whose key, if there is one, has been proved; or a ConnectionError. */
export function dial(options: DialOptions): Promise<Connection> {
  const peer = addressText(options.host, options.port);
  if (options.signal.aborted) return Promise.reject(stopped(peer));
  return options.psk ? dialTls(options, options.psk, peer) : dialPlain(options, peer);
}

function dialPlain(options: DialOptions, peer: string): Promise<Connection> {
  const socket = connectPlain({ host: options.host, port: options.port });
  return settled(socket, 'connect', options, peer, () => socketConnection(socket));
}

function dialTls(options: DialOptions, psk: Psk, peer: string): Promise<Connection> {
  let asked = false;
  const socket: TLSSocket = connectTls({
    ...tlsParameters,
    host: options.host,
    port: options.port,
    pskCallback: () => {
      asked = true;
      return { identity: psk.identity, psk: psk.key };
    },
    // A server without the key may show a certificate instead, and Node would take one that this host trusts. So
    // nothing is trusted, and no name is ever the right one.
    ca: [],
    checkServerIdentity: () =>
      new ConnectionError('tls', `no TLS with ${peer}: the server showed a certificate instead of the key`),
    rejectUnauthorized: true,
  });
  const connected = settled(socket, 'secureConnect', options, peer, () => {
    // In TLS 1.3 a handshake by key counts as a resumption, the only one here: we keep no session.
    if (!asked || !socket.isSessionReused()) {
      throw new ConnectionError('tls', `no TLS with ${peer}: the server did not use the key`);
    }
    return socketConnection(socket, psk.identity);
  });
  return connected.catch((error: ConnectionError) => {
    // Its alert, which each version of OpenSSL words differently, comes after our key has been seen.
    const isAnswer = asked && error.code === 'tls' && /alert/i.test(error.message);
    throw isAnswer ? keyRefused(peer, psk.identity, error) : error;
  });
}

function keyRefused(peer: string, identity: string, cause: ConnectionError): ConnectionError {
  return new ConnectionError('tls', `${peer} does not know the key of '${identity}': enrol this host anew`, { cause });
}

/** The connection at the event, or the error, the deadline, the signal: whichever comes first, and no listener stays. */
function settled(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  { timeoutMs, signal }: DialOptions,
  peer: string,
  connection: () => Connection,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(deadline);
      signal.removeEventListener('abort', abort);
      socket.off(event, connected);
      socket.off('error', failed);
      socket.off('close', closed);
    };
    const failed = (error: Error) => {
      done();
      socket.on('error', () => {}); // the rejection says it already
      socket.destroy();
      reject(connectionErrorOf(error, peer));
    };
    const connected = () => {
      done();
      try {
        resolve(connection());
      } catch (error) {
        failed(error as Error); // connection() throws nothing else
      }
    };
    const closed = () => failed(new ConnectionError('reset', `${peer} broke the connection off`));
    const abort = () => failed(stopped(peer));
    const deadline = setTimeout(
      () => failed(new ConnectionError('timeout', `${peer} did not answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    signal.addEventListener('abort', abort, { once: true });
    socket.once(event, connected);
    socket.once('error', failed);
    socket.once('close', closed);
  });
}

function stopped(peer: string): ConnectionError {
  return new ConnectionError('closed', `dialling ${peer} was stopped`);
}
