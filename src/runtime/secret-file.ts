import { closeSync, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs';
import { CodedError } from './coded-error.ts';
import { deniedText, userName } from './denied.ts';
import { codeOf, reasonOf, withoutKeys } from './words.ts';

/** A file of secrets that cannot be used; the message names it and the command that corrects it. */
export class SecretFileError extends CodedError<'unreadable' | 'mode' | 'owner' | 'format'> {
  override readonly name = 'SecretFileError';

  constructor(code: SecretFileError['code'], message: string, options?: ErrorOptions) {
    super(code, withoutKeys(message), options);
  }
}

/**
 * The text of a key file. As with ssh, one that others than its owner and group can read or change is refused, and one
 * whose owner or group is not ours; the message has the command to run.
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
    check(path, fstatSync(fd));
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

function check(path: string, { mode, uid, gid }: Stats): void {
  const us = process.geteuid!();
  const isOurGroup = us === 0 || [0, process.getegid!(), ...process.getgroups!()].includes(gid);
  if ((mode & 0o027) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    // Of root and another group, it could not be read after the chmod alone.
    const isReadableThen = us === 0 || uid === us || (isOurGroup && gid !== 0);
    const remedy = isReadableThen ? `chmod 0440 ${path}` : giveToUs(path);
    throw new SecretFileError(
      'mode',
      `key file '${path}': its mode is ${octal}, so others can read or change it; run '${remedy}'`,
    );
  }
  if (uid !== 0 && uid !== us) {
    throw new SecretFileError(
      'owner',
      `key file '${path}': it belongs to user ${uid}, who can change it; run 'chown root ${path}'`,
    );
  }
  // Root cannot know which group a unit runs with; the unit itself can.
  if ((mode & 0o040) === 0 || isOurGroup) return;
  throw new SecretFileError(
    'owner',
    `key file '${path}': group ${gid} can read it; run 'chgrp ${userName()} ${path}', or 'chmod g-r ${path}'`,
  );
}

/** The group of a service's user has its name. */
const giveToUs = (path: string): string => `chown root:${userName()} ${path} && chmod 0440 ${path}`;

function openReason(path: string, error: unknown): string {
  switch (codeOf(error)) {
    case 'ENOENT':
      return 'there is no such file';
    case 'EACCES': {
      const username = userName();
      if (!isForPerson(path)) return deniedText(path, { mode: '0440', group: username });
      return `the user '${username}' may not read it, only root and its group may; run this as root`;
    }
    default:
      return reasonOf(error);
  }
}

// The users that distributions give to services are below it: UID_MIN of login.defs(5).
const personUidMin = 1000;

/** A person reads a service's key: it is not the file that is wrong. A service whose key has another group must be given it. */
function isForPerson(path: string): boolean {
  if (process.geteuid!() < personUidMin) return false;
  try {
    const { uid, gid, mode } = statSync(path);
    return uid === 0 && gid !== 0 && (mode & 0o040) !== 0;
  } catch {
    return false; // a folder on its way may not be entered
  }
}
