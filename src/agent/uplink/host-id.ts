import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where a host's identity is looked for. */
export interface HostIdOptions {
  readonly rootfs: string;
  /** Where a random one is kept. */
  readonly spoolDir: string | undefined;
  readonly randomBytes: (count: number) => Buffer;
}

/**
 * Distinguishes two hosts with one name. It is made from the machine-id, which must not leave the host as it is
 * (https://www.freedesktop.org/software/systemd/man/latest/machine-id.html): a hash of it is sent. A host without one
 * gets a random one, kept in the spool's folder; without such a folder it is another after each start.
 */
export function hostId({ randomBytes, ...places }: HostIdOptions): string {
  const known = knownHostId(places);
  if (known !== undefined) return known;
  const made = randomBytes(16).toString('hex');
  if (places.spoolDir === undefined) return made;
  try {
    writeFileSync(keptIn(places.spoolDir), `${made}\n`, { mode: 0o600 });
  } catch {
    // A full disk: it is valid for this run, and the next run makes another.
  }
  return made;
}

/** The host's identity as the agent has it or will make it; undefined where that will be a random one. */
export function knownHostId({ rootfs, spoolDir }: Omit<HostIdOptions, 'randomBytes'>): string | undefined {
  const machineId = readId(join(rootfs, 'etc/machine-id'), /^[0-9a-f]{32}$/);
  if (machineId !== undefined)
    return createHash('sha256').update(`sysmon host ${machineId}`).digest('hex').slice(0, 32);
  return spoolDir === undefined ? undefined : readId(keptIn(spoolDir), /^[0-9a-f]{32}$/);
}

const keptIn = (spoolDir: string): string => join(spoolDir, 'host-id');

function readId(path: string, pattern: RegExp): string | undefined {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return pattern.test(text) ? text : undefined;
  } catch {
    // Missing or unreadable: there is no such identity.
    return undefined;
  }
}
