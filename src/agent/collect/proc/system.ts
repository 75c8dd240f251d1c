import { hostname, machine, release, type, version } from 'node:os';

/** What no file of the host says, and what uname(2) says where a sandbox has no such file. */
export interface HostSystem {
  /** The environment's TZ, undefined where it is not set. */
  timeZone(): string | undefined;
  type(): string;
  release(): string;
  version(): string;
  machine(): string;
  hostname(): string;
}

export const nodeSystem: HostSystem = { timeZone: () => process.env['TZ'], type, release, version, machine, hostname };
