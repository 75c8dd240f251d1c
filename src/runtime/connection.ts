import { CodedError } from './coded-error.ts';

/**
 * A stream of bytes to a peer: a TCP or TLS socket, or a virtual one in the simulation.
 *
 * `for await (const chunk of connection)` ends when the peer has closed its end, and throws a ConnectionError when the
 * connection broke. One reader only.
 */
export interface Connection extends AsyncIterable<Uint8Array> {
  /** For log lines: `192.0.2.7:51234`, an IPv6 address in brackets. */
  readonly peer: string;
  /** The peer's address without the port. */
  readonly peerAddress: string;
  /** The identity that TLS has proved, undefined on a plain connection. */
  readonly identity: string | undefined;
  /** Bytes written here that the kernel has not accepted yet. */
  readonly unsentBytes: number;
  /** Resolves when the kernel accepts more, rejects with a ConnectionError when the connection has ended. */
  write(bytes: Uint8Array): Promise<void>;
  /** Sends what was written, half-closes and waits for the peer's end, for `timeoutMs` (2 s) at most. Never rejects. */
  end(timeoutMs?: number): Promise<void>;
  /** Ends it at once: a waiting reader gets a ConnectionError with this reason. A second call does nothing. */
  destroy(reason?: Error): void;
}

export type ConnectionErrorCode =
  | 'refused'
  | 'unreachable'
  | 'timeout'
  | 'reset'
  | 'closed'
  | 'name'
  | 'tls'
  | 'not-tls'
  | 'network';

/** A connection could not be made, or broke. The message names the peer. */
export class ConnectionError extends CodedError<ConnectionErrorCode> {
  override readonly name = 'ConnectionError';
}
