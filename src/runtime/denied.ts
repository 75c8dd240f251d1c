import { accessSync, constants } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, resolve } from 'node:path';
import { codeOf } from './words.ts';

/**
 * Who may not read a file, and the command that corrects it: for the folder on its way that this user may not enter, else
 * for the file, which is given to a group if one is named.
 */
export function deniedText(path: string, { mode, group }: { readonly mode: string; readonly group?: string }): string {
  const username = userName();
  const folder = closedFolder(resolve(path));
  if (folder !== undefined) return `the user '${username}' may not enter '${folder}'; run 'chmod 0755 ${folder}'`;
  const give = group === undefined ? '' : `chown root:${group} ${path} && `;
  return `the user '${username}' may not read it; run '${give}chmod ${mode} ${path}'`;
}

/** The name of the user as whom this process runs; its number where it has none, as in a container. */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.geteuid!());
  }
}

/** The first folder on the way to the path that this user may not enter. */
function closedFolder(path: string): string | undefined {
  const folders: string[] = [];
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) folders.unshift(folder);
  return folders.find((folder) => {
    try {
      accessSync(folder, constants.X_OK);
      return false;
    } catch (error) {
      return codeOf(error) === 'EACCES';
    }
  });
}
