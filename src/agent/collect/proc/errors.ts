import { shownOf } from './names.ts';

/** `no-data`: there is nothing of the kind on this host. `unreadable`: it is there. `format`: it was read. */
export type CollectErrorCode = 'no-data' | 'unreadable' | 'format';

/** Why a collector fails at this instant. The message names the file. */
export abstract class CollectError extends Error {
  abstract readonly code: CollectErrorCode;
  readonly path: string;
  constructor(path: string, what: string, options?: ErrorOptions) {
    super(shownOf(`'${path}'${what}`), options);
    this.path = shownOf(path);
  }
}

/** The file is missing, or the folder has no device: the kernel or the hardware has no such thing. */
export class NoDataError extends CollectError {
  override readonly name = 'NoDataError';
  readonly code = 'no-data';
}

/** The file is there and cannot be read: no permission, too many open files, an error of the driver, no value. */
export class UnreadableError extends CollectError {
  override readonly name = 'UnreadableError';
  readonly code = 'unreadable';
  /**
   * The name of the system call's error, such as `EINVAL`; `empty` and `unknown` where the kernel gave that; `late` where
   * it does not answer.
   */
  readonly errno: string;

  constructor(path: string, { errno, reason, cause }: { errno: string; reason: string; cause?: unknown }) {
    super(path, reason, cause === undefined ? {} : { cause });
    this.errno = errno;
  }

  /**
   * Whether a driver answers so in good health: it has no value at present, such as the speed of an interface that is
   * down, or its device is just going. Anything else may be worth a look: no permission, a device that is broken.
   */
  get isUsual(): boolean {
    return usualErrnos.has(this.errno);
  }
}

const usualErrnos: ReadonlySet<string> = new Set([
  ...['empty', 'unknown', 'late', 'ENODATA', 'EINVAL', 'EAGAIN', 'EBUSY', 'EOPNOTSUPP', 'ENOTSUP', 'ENODEV', 'ENXIO'],
  'ENOMEDIUM',
  'ESRCH',
]);

/** The file was read and is not in its format. */
export class FormatError extends CollectError {
  override readonly name = 'FormatError';
  readonly code = 'format';
}
