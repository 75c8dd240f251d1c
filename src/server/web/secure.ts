import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { plainSan } from './web-config.ts';
import type { WebTls } from './web-config-file.ts';

export interface SecureOptions {
  readonly clock: Clock;
  /** The handshake is done, and the client's certificate is one that is wanted. */
  onSecure(raw: Socket, secure: TLSSocket, san: string | undefined): void;
  /** The connection has been broken off. */
  onRefused(raw: Socket, reason: string): void;
}

/** TLS between a connection and HTTP. Each handshake is made by the configuration that counts when it begins. */
export class Secure {
  readonly #options: SecureOptions;
  /** Documented: a server takes connections that others have accepted by its event. */
  #server: { readonly tls: WebTls; readonly server: Server } | undefined;
  readonly #handshakes = new WeakMap<Socket, Handshake>();

  constructor(options: SecureOptions) {
    this.#options = options;
  }

  begin(raw: Socket, tls: WebTls): void {
    if (this.#server?.tls !== tls) this.#server = { tls, server: this.#serverFor(tls) };
    const { server } = this.#server;
    // Node's own time-out begins again with every byte.
    const deadline = this.#options.clock.after(handshakeMs, () => this.#refuse(raw, 'it took too long'));
    this.#handshakes.set(raw, { deadline });
    raw.once('close', () => deadline.cancel());
    // A client that closes in the handshake is gone; behind it each end is closed by itself.
    raw.allowHalfOpen = false;
    server.emit('connection', raw);
  }

  #serverFor(tls: WebTls): Server {
    const server = createServer(tls.options);
    server.on('secureConnection', (secure) => {
      const raw = socketBelow(secure);
      if (!this.#isUnderWay(raw)) return;
      const client = clientOf(secure, tls);
      if ('wrong' in client) return this.#refuse(raw, client.wrong);
      this.#done(raw);
      secure.allowHalfOpen = true;
      this.#options.onSecure(raw, secure, client.san);
    });
    server.on('tlsClientError', (error, secure) => {
      const raw = socketBelow(secure);
      secure.destroy();
      if (!this.#isUnderWay(raw)) return;
      // Ended before its first byte: a health check of the port, for one.
      if (raw.bytesRead === 0) this.#done(raw);
      else this.#refuse(raw, tlsReason(error));
    });
    return server;
  }

  #isUnderWay(raw: Socket): boolean {
    return this.#handshakes.has(raw);
  }

  #done(raw: Socket): void {
    this.#handshakes.get(raw)?.deadline.cancel();
    this.#handshakes.delete(raw);
  }

  #refuse(raw: Socket, reason: string): void {
    this.#done(raw);
    // Before it is destroyed: it then has no address.
    this.#options.onRefused(raw, reason);
    raw.destroy();
  }
}

interface Handshake {
  readonly deadline: Timer;
}

/** Not in Node's documentation, but there since its first TLS; the tests fail at once where it is not. */
function socketBelow(secure: TLSSocket): Socket {
  const { _parent: below } = secure as unknown as { _parent?: Socket };
  if (below === undefined) throw new Error('a TLS socket without the socket below it');
  return below;
}

/** The name that the client's certificate proves, if any, or why the client is not wanted. */
function clientOf(
  secure: TLSSocket,
  { options, clientAuth, allowedSans }: WebTls,
): { readonly san: string | undefined } | { readonly wrong: string } {
  if (clientAuth === 'NoClientCert') return { san: undefined };
  const certificate = secure.getPeerX509Certificate();
  if (certificate === undefined) {
    return clientAuth.startsWith('Require') ? { wrong: 'it has no client certificate' } : { san: undefined };
  }
  if (clientAuth === 'VerifyClientCertIfGiven' && !secure.authorized) {
    return { wrong: `its client certificate is not valid: ${String(secure.authorizationError)}` };
  }
  const sans = sansOf(certificate.subjectAltName ?? '');
  const allowed = allowedSans.find((san) => sans.includes(san));
  if (allowedSans.length > 0 && allowed === undefined) {
    return { wrong: 'no name of its client certificate is one of client_allowed_sans' };
  }
  const [first] = allowedSans.length > 0 ? [allowed] : sans;
  // Only what an authority of client_ca_file has signed proves anything: without that file any public one would do. A name
  // is a label.
  const isProved = options.ca !== undefined && secure.authorized;
  const isName = first !== undefined && isProved && sanPattern.test(first);
  return { san: isName ? first : undefined };
}

/** `DNS:a.example, IP Address:127.0.0.1, URI:"x, y"`: the names of the kinds that can be allowed. */
export function sansOf(subjectAltName: string): string[] {
  const found = subjectAltName.matchAll(/(?:^|, )([^:,"]+):("(?:[^"\\]|\\.)*"|[^,]*)/g);
  return [...found]
    .filter(([, kind]) => ['DNS', 'IP Address', 'URI', 'email'].includes(kind!))
    .map(([, , value]) => plainSan(value!.startsWith('"') ? (JSON.parse(value!) as string) : value!));
}

function tlsReason(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'ERR_SSL_HTTP_REQUEST':
      return 'it speaks HTTP without TLS: its URL needs https';
    case 'ECONNRESET':
      return 'it closed the connection in the handshake: it may not trust the certificate';
    case 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE':
      return 'it has no client certificate';
    default:
      return error.message.replace(/^[0-9A-F]+:error:[^:]*:/, '').trim();
  }
}

const sanPattern = /^[^\p{C}]{1,128}$/u;
const handshakeMs = 10_000;
