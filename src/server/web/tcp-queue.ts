import { readFileSync } from 'node:fs';

/**
 * Whether the peer's kernel has confirmed all bytes that were written to a TCP connection. Node has no call for that, the
 * kernel's table of connections does: `tx_queue` counts bytes not yet acknowledged
 * (https://docs.kernel.org/networking/proc_net_tcp.html). True where the table cannot be read or has no such connection.
 */
export function isDelivered(socket: {
  readonly localPort?: number | undefined;
  readonly remotePort?: number | undefined;
}): boolean {
  const { localPort, remotePort } = socket;
  if (localPort === undefined || remotePort === undefined) return true;
  return tables.every((path) => {
    try {
      return unconfirmedBytes(readFileSync(path, 'latin1'), localPort, remotePort) === 0;
    } catch {
      // No IPv6, or a /proc that does not show it: then this cannot be told.
      return true;
    }
  });
}

/** The bytes in `tx_queue` of the connections between these ports, whatever their addresses: rarely more than one. */
export function unconfirmedBytes(table: string, localPort: number, remotePort: number): number {
  const local = `:${hexPort(localPort)} `;
  const remote = `:${hexPort(remotePort)} `;
  let bytes = 0;
  for (const line of table.split('\n')) {
    if (!line.includes(local) || !line.includes(remote)) continue;
    const fields = line.trim().split(/\s+/);
    // sl, local_address, rem_address, st, tx_queue:rx_queue, …
    if (!`${fields[1]} `.endsWith(local) || !`${fields[2]} `.endsWith(remote)) continue;
    bytes += Number.parseInt(fields[4]?.split(':')[0] ?? '0', 16);
  }
  return bytes;
}

const tables = ['/proc/net/tcp', '/proc/net/tcp6'];
const hexPort = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0');
