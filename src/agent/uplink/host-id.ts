import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where a host's own identity may be found. */
export interface HostIdOptions {
  readonly rootfs: string;
  /** Where one that was made up is kept. */
  readonly spoolDir: string | undefined;
  readonly randomBytes: (count: number) => Buffer;
}

/**
 * What tells two hosts with one name apart. It comes from the machine-id, which must not leave the host as it is
 * (https://www.freedesktop.org/software/systemd/man/latest/machine-id.html): a hash goes out. A host without one gets a
 * random one, kept in the spool's folder; without such a folder it is another after each start.
 */
export function hostId({ rootfs, spoolDir, randomBytes }: HostIdOptions): string {
  const machineId = readId(join(rootfs, 'etc/machine-id'), /^[0-9a-f]{32}$/);
  if (machineId !== undefined)
    return createHash('sha256').update(`sysmon host ${machineId}`).digest('hex').slice(0, 32);
  const made = randomBytes(16).toString('hex');
  if (spoolDir === undefined) return made;
  const path = join(spoolDir, 'host-id');
  const kept = readId(path, /^[0-9a-f]{32}$/);
  if (kept !== undefined) return kept;
  try {
    writeFileSync(path, `${made}\n`, { mode: 0o600 });
  } catch {
    // A full disk: it serves for this run, and the next one makes another.
  }
  return made;
}

function readId(path: string, pattern: RegExp): string | undefined {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return pattern.test(text) ? text : undefined;
  } catch {
    // Missing or unreadable is the same here: there is no such identity.
    return undefined;
  }
}
