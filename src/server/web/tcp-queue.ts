import { readFileSync } from 'node:fs';

/** The ports of a TCP connection; of one that is no longer open, or of a unix socket, there are none. */
export interface Ports {
  readonly localPort?: number | undefined;
  readonly remotePort?: number | undefined;
}

/**
 * Whether the peer's kernel has acknowledged all bytes that were written to a TCP connection. Node has no call for
 * that, the kernel's table of connections does: `tx_queue` counts bytes not yet acknowledged
 * (https://docs.kernel.org/networking/proc_net_tcp.html). It is read at most once in a turn of the event loop, for all
 * connections: with thousands of them it is long.
 */
export class TcpQueues {
  readonly #read: () => readonly string[];
  #bytes: ReadonlyMap<string, number> | undefined;

  constructor(read = readTables) {
    this.#read = read;
  }

  /**
   * True where the table cannot be read. A connection that is not in it was reset, although Node may say that the
   * client has closed it: after a pause of this process, a close that came first hides the reset behind it.
   */
  isAcknowledged({ localPort, remotePort }: Ports): boolean {
    if (localPort === undefined || remotePort === undefined) return true;
    if (this.#bytes === undefined) {
      this.#bytes = unacknowledgedBytes(this.#read());
      setImmediate(() => {
        this.#bytes = undefined;
      });
    }
    return this.#bytes.size === 0 || this.#bytes.get(portsKey(localPort, remotePort)) === 0;
  }
}

/** The bytes in `tx_queue` by local and remote port, whatever the addresses: rarely more than one connection. */
export function unacknowledgedBytes(tables: readonly string[]): Map<string, number> {
  const bytes = new Map<string, number>();
  for (const table of tables) {
    // sl, local_address, rem_address, st, tx_queue:rx_queue, …
    for (const [, local, remote, queue] of table.matchAll(
      /^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]{2} ([0-9A-F]{8}):/gm,
    )) {
      const key = portsKey(Number.parseInt(local!, 16), Number.parseInt(remote!, 16));
      bytes.set(key, (bytes.get(key) ?? 0) + Number.parseInt(queue!, 16));
    }
  }
  return bytes;
}

export const portsKey = (localPort: number, remotePort: number): string => `${localPort} ${remotePort}`;

function readTables(): string[] {
  return ['/proc/net/tcp', '/proc/net/tcp6'].map((path) => {
    try {
      return readFileSync(path, 'latin1');
    } catch {
      return ''; // no IPv6, or a /proc without it: then it is unknown
    }
  });
}
