import { readFileSync } from 'node:fs';

/** The ports of a TCP connection; of one that is no longer open, or of a unix socket, there are none. */
export interface Ports {
  readonly localPort?: number | undefined;
  readonly remotePort?: number | undefined;
}

/** A row of the kernel's table. */
export interface TcpRow {
  /** Sent, and not acknowledged by the peer's kernel. */
  readonly bytes: number;
  /** As the kernel numbers them: 1 is established. */
  readonly state: number;
}

/**
 * What the kernel knows of a TCP connection, and Node has no call for: whether the peer's kernel has acknowledged all
 * bytes, and whether it has sent a FIN. From its table of connections (https://docs.kernel.org/networking/proc_net_tcp.html),
 * which is read once a turn of the event loop at the most, for all connections: with thousands of them it is long.
 */
export class TcpQueues {
  readonly #read: () => readonly string[];
  #rows: ReadonlyMap<string, TcpRow> | undefined;

  constructor(read = readTables) {
    this.#read = read;
  }

  /**
   * True where the table cannot be read. A connection that is not in it was reset, although Node may say that the
   * client has closed it: after a pause of this process, a close that came first hides the reset behind it.
   */
  isAcknowledged(ports: Ports): boolean {
    const key = keyOf(ports);
    if (key === undefined) return true;
    const rows = this.#table();
    return rows.size === 0 || rows.get(key)?.bytes === 0;
  }

  /** How the peer has closed: by a FIN, or not yet; `reset` also where the table cannot be read. */
  peerClose(ports: Ports): 'fin' | 'not-yet' | 'reset' {
    const key = keyOf(ports);
    const row = key === undefined ? undefined : this.#table().get(key);
    if (row === undefined) return 'reset';
    return finStates.has(row.state) ? 'fin' : 'not-yet';
  }

  #table(): ReadonlyMap<string, TcpRow> {
    if (this.#rows === undefined) {
      this.#rows = tcpRows(this.#read());
      setImmediate(() => {
        this.#rows = undefined;
      });
    }
    return this.#rows;
  }
}

/** Undefined for a connection that has no ports, of a unix socket for one. */
function keyOf({ localPort, remotePort }: Ports): string | undefined {
  return localPort === undefined || remotePort === undefined ? undefined : portsKey(localPort, remotePort);
}

// TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING: https://github.com/torvalds/linux/blob/v6.1/include/net/tcp_states.h
const finStates = new Set([6, 8, 9, 11]);

/** The rows by local and remote port, whatever the addresses: rarely more than one connection, whose bytes are added. */
export function tcpRows(tables: readonly string[]): Map<string, TcpRow> {
  const rows = new Map<string, TcpRow>();
  for (const table of tables) {
    // sl, local_address, rem_address, st, tx_queue:rx_queue, …
    for (const [, local, remote, state, queue] of table.matchAll(
      /^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:([0-9A-F]{4}) ([0-9A-F]{2}) ([0-9A-F]{8}):/gm,
    )) {
      const key = portsKey(Number.parseInt(local!, 16), Number.parseInt(remote!, 16));
      const bytes = (rows.get(key)?.bytes ?? 0) + Number.parseInt(queue!, 16);
      rows.set(key, { bytes, state: Number.parseInt(state!, 16) });
    }
  }
  return rows;
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
