/** `no-data`: there is nothing of the kind on this host. `unreadable`: it is there. `format`: it was read. */
export type CollectErrorCode = 'no-data' | 'unreadable' | 'format';

/** Why a collector fails at this instant. The message names the file. */
export abstract class CollectError extends Error {
  abstract readonly code: CollectErrorCode;
  readonly path: string;
  constructor(path: string, what: string, options?: ErrorOptions) {
    super(`'${path}'${what}`, options);
    this.path = path;
  }
}

/** The file is missing: the kernel or the hardware has no such thing. */
export class NoDataError extends CollectError {
  override readonly name = 'NoDataError';
  readonly code = 'no-data';
}

/** The file is there and cannot be read: no permission, too many open files, an error of the driver. */
export class UnreadableError extends CollectError {
  override readonly name = 'UnreadableError';
  readonly code = 'unreadable';
}

/** The file was read and is not in its format. */
export class FormatError extends CollectError {
  override readonly name = 'FormatError';
  readonly code = 'format';
}
