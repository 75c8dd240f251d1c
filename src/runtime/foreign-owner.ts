import { statSync } from 'node:fs';
import { resolve } from 'node:path';

/** A user who could change what a path leads to, and its group. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Where this process is root: to whom a part of the path of a folder belongs, if it is not root. What root writes there,
 * it writes as that user, so that a link that lies there leads no further than that user can go.
 */
export function foreignOwner(folder: string): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const parts = resolve(folder).split('/');
  const ancestors = parts.map((_, at) => parts.slice(0, at + 1).join('/') || '/');
  const { uid, gid } = ancestors.map((path) => statSync(path)).find((stat) => stat.uid !== 0) ?? {};
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

/** Gives up root's rights for good. */
export function becomeUser({ uid, gid }: Owner): void {
  process.setgroups!([]);
  process.setgid!(gid);
  process.setuid!(uid);
}

/** Does something at once with the rights of another user; undefined: of this process. */
export function asUser(owner: Owner | undefined, action: () => void): void {
  if (owner === undefined) return action();
  const groups = process.getgroups!();
  process.setgroups!([]);
  process.setegid!(owner.gid);
  process.seteuid!(owner.uid);
  try {
    action();
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
    process.setgroups!(groups);
  }
}
