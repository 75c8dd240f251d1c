/** `bad-frame`: the bytes are not what a frame may hold. `truncated`: the stream ended inside a frame; never sent. */
export type FrameErrorCode = 'bad-frame' | 'truncated';

/** Bytes that are not a frame of this wire. The connection cannot go on: where the next frame starts is unknown. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
  readonly code: FrameErrorCode;
  constructor(code: FrameErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
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

/** A frame that is well formed and must not be obeyed. The words name the field or the limit. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly code: ProtocolErrorCode;
  constructor(code: ProtocolErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The code under which a refusal goes over the wire. */
export function wireCode(error: FrameError | ProtocolError): ProtocolErrorCode {
  return error instanceof FrameError ? 'bad-frame' : error.code;
}

/**
 * Whether dialling again soon is of no use: a person has to change something first. Such an agent dials once a minute.
 * The code comes from a peer, hence any string: a code that this version does not know is not permanent.
 */
export function permanent(code: string): boolean {
  return code === 'version' || code === 'name-taken' || code === 'revoked';
}

/** A peer's value as an error message may show it: quoted, without control characters, short. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > shownCharactersMax ? `${value.slice(0, shownCharactersMax)}…` : value);
}

const shownCharactersMax = 60;
