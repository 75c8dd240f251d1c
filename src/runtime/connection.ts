import { CodedError } from './coded-error.ts';

/**
 * A stream of bytes to a peer: a TCP or TLS socket, or a virtual one in the simulation.
 *
 * `for await (const chunk of connection)` ends when the peer has closed in good order and throws a ConnectionError when
 * the connection broke. One reader only.
 */
export interface Connection extends AsyncIterable<Uint8Array> {
  /** For log lines: `192.0.2.7:51234`, an IPv6 address in brackets. */
  readonly peer: string;
  /** The peer's address without the port: what limits per address count. */
  readonly peerAddress: string;
  /** The identity that TLS has proved, undefined on a plain connection. */
  readonly identity: string | undefined;
  /** Bytes written here that the kernel has not taken yet. */
  readonly unsentBytes: number;
  /** Resolves when the kernel may take more, rejects with a ConnectionError when the connection has ended. */
  write(bytes: Uint8Array): Promise<void>;
  /** Sends what was written, says goodbye, closes; after `timeoutMs` (2 s) it is destroyed. Never rejects. */
  end(timeoutMs?: number): Promise<void>;
  /** Ends it at once: a reader that waits gets a ConnectionError with this reason. Twice is once. */
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
  | 'network';

/** A connection could not be made, or broke. The words name the peer. */
export class ConnectionError extends CodedError<ConnectionErrorCode> {
  override readonly name = 'ConnectionError';
}
