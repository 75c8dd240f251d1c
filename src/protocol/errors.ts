/** The peer sent what it must not. The code is fixed, the message names the field or the limit. */
abstract class PeerError<Code extends string> extends Error {
  readonly code: Code;
  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** `bad-frame`: the bytes are not what a frame may hold. `truncated`: the stream ended inside a frame; never sent. */
export type FrameErrorCode = 'bad-frame' | 'truncated';

/** Bytes that are not a frame of this wire. The connection cannot go on: where the next frame starts is unknown. */
export class FrameError extends PeerError<FrameErrorCode> {
  override readonly name = 'FrameError';
}

/** Every code that an error message may carry, and a label of the metrics that count refusals. */
export const protocolErrorCodes = [
  'bad-frame',
  'bad-message',
  'bad-label',
  'order',
  'limit',
  'schema',
  'hello-timeout',
  'silent',
  'replaced',
  'busy',
  'internal',
  'clock',
  'version',
  'name-taken',
  'revoked',
] as const;
export type ProtocolErrorCode = (typeof protocolErrorCodes)[number];

/** A frame that is well formed and refused. */
export class ProtocolError extends PeerError<ProtocolErrorCode> {
  override readonly name = 'ProtocolError';
}

/** The code of the error message that refuses it. */
export function wireCode(error: FrameError | ProtocolError): ProtocolErrorCode {
  return error instanceof FrameError ? 'bad-frame' : error.code;
}

/**
 * Whether reconnecting soon is of no use, because a person has to change something first: the agent then tries once a
 * minute. The code comes from a peer, hence any string: one that this version does not know is not permanent.
 */
export function permanent(code: string): boolean {
  return code === 'version' || code === 'name-taken' || code === 'revoked';
}

/** A peer's value in an error message: quoted, without control characters, short. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > shownCharactersMax ? `${value.slice(0, shownCharactersMax)}…` : value);
}

const shownCharactersMax = 60;
