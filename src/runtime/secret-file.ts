import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { CodedError } from './coded-error.ts';
import { codeOf, reasonOf } from './words.ts';

/** A file of secrets that cannot be used; the message names it and the command that corrects it. */
export class SecretFileError extends CodedError<'unreadable' | 'mode' | 'format'> {
  override readonly name = 'SecretFileError';
}

/**
 * The text of a key file. As with ssh, one that others than its owner and group can read or change is refused; the
 * message has the chmod to run.
 */
export function readSecretFile(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new SecretFileError('unreadable', `key file '${path}': ${openReason(path, error)}`, { cause: error });
  }
  try {
    // Of the open file, so that it cannot be replaced in between.
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

function openReason(path: string, error: unknown): string {
  switch (codeOf(error)) {
    case 'ENOENT':
      return 'there is no such file';
    case 'EACCES': {
      // The group of a service's user has its name.
      const user = userInfo().username;
      return `the user '${user}' may not read it; run 'chown root:${user} ${path} && chmod 0440 ${path}'`;
    }
    default:
      return reasonOf(error);
  }
}
