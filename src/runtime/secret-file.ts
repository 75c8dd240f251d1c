import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { CodedError } from './coded-error.ts';

/** A file of secrets that cannot be used; the words name it and say what to run. */
export class SecretFileError extends CodedError<'unreadable' | 'mode' | 'format'> {
  override readonly name = 'SecretFileError';
}

/**
 * The text of a key file. Refused, as ssh does, where others than its owner and group can read or change it: the words
 * say which chmod to run.
 */
export function readSecretFile(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code; // what openSync throws
    const reason =
      code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'it may not be read' : String(error);
    throw new SecretFileError('unreadable', `key file '${path}': ${reason}`, { cause: error });
  }
  try {
    // Of the file that is open: nobody can put another one there in between.
    const mode = fstatSync(fd).mode & 0o777;
    if ((mode & 0o027) !== 0) {
      const octal = mode.toString(8).padStart(4, '0');
      throw new SecretFileError(
        'mode',
        `key file '${path}': its mode is ${octal}, so others can read or change it; run 'chmod 0440 ${path}'`,
      );
    }
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
