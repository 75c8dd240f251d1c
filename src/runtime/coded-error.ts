/**
 * What can go wrong while the program runs as it should (a peer is gone, a file is missing), as opposed to a bug. The
 * code is fixed: it is a label of a metric, or decides what follows. The message names the file, the peer or the limit.
 */
export abstract class CodedError<Code extends string> extends Error {
  readonly code: Code;
  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
