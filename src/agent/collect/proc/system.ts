import { readFileSync, type StatsFs, statfsSync } from 'node:fs';
import { hostname, machine, networkInterfaces, release, type, version } from 'node:os';
import { pathOf } from './names.ts';

export interface NetworkAddress {
  readonly address: string;
  /** `192.0.2.7/24`; null where the netmask has gaps. */
  readonly cidr: string | null;
}

/** In blocks of `bsize` bytes. https://man7.org/linux/man-pages/man2/statfs.2.html */
export type FileSystemSize = Pick<StatsFs, 'bsize' | 'blocks' | 'bfree' | 'bavail' | 'files' | 'ffree'>;

/** What is in no file of the host, and uname(2) for sandboxes that lack its files. */
export interface HostSystem {
  /** The environment's TZ, undefined where it is not set. */
  timeZone(): string | undefined;
  type(): string;
  release(): string;
  version(): string;
  machine(): string;
  hostname(): string;
  /** The addresses of the network's devices that are up. */
  networkInterfaces(): NodeJS.Dict<readonly NetworkAddress[]>;
  /** Bytes of a page of memory. */
  pageSize(): number;
  /** By statfs(2). Throws its error. */
  fileSystem(path: string): FileSystemSize;
}

export const nodeSystem: HostSystem = {
  timeZone: () => process.env['TZ'],
  ...{ type, release, version, machine, hostname, networkInterfaces, pageSize },
  fileSystem: (path) => statfsSync(pathOf(path)),
};

/**
 * From what the kernel hands to every program: pairs of numbers of the machine's width and byte order, of which number 6
 * is AT_PAGESZ. https://man7.org/linux/man-pages/man3/getauxval.3.html
 */
function pageSize(): number {
  try {
    const auxiliary = readFileSync('/proc/self/auxv');
    const pairs = new BigUint64Array(
      auxiliary.buffer.slice(auxiliary.byteOffset, auxiliary.byteOffset + auxiliary.length),
    );
    for (let at = 0; at + 1 < pairs.length; at += 2) if (pairs[at] === 6n) return Number(pairs[at + 1]);
  } catch {
    // A sandbox without the file has pages as nearly every host.
  }
  return 4096;
}
