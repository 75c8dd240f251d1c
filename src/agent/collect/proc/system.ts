import { hostname, machine, release, type, version } from 'node:os';

/** What is in no file of the host, and uname(2) for sandboxes that lack its files. */
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
