import type { Socket } from 'node:net';
import { plainAddress } from './socket.ts';

export interface PlacesOptions {
  readonly connectionsMax: number;
  /** An IPv6 peer counts as its /64, all of whose addresses one host can have. */
  readonly connectionsPerAddressMax: number;
}

/** Why a connection has no place: there is none, none for its address, or another one needed it first. */
export type NoPlace = 'full' | 'full-address' | 'crowded-out';

/**
 * The open sockets of a port, within their limits. Those whose peers have not said yet who they are have a place as long
 * as nobody else needs it: then the oldest goes, of the address that has most of them. So silent connections from a few
 * addresses keep nobody out.
 */
export class Places {
  readonly #options: PlacesOptions;
  readonly #open = new Map<Socket, string>();
  readonly #countByAddress = new Map<string, number>();
  /** By address, oldest first. */
  readonly #waiting = new Map<string, Set<Socket>>();

  constructor(options: PlacesOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#open.size;
  }

  /** Gives the socket a place. Whatever has none now, this socket or another, goes to `refuse`, which destroys it. */
  admit(socket: Socket, refuse: (socket: Socket, reason: NoPlace) => void): boolean {
    // A peer that disconnected before it was accepted has no address.
    if (socket.remoteAddress === undefined) {
      socket.destroy();
      return false;
    }
    const key = countedAddress(plainAddress(socket.remoteAddress));
    const { connectionsMax, connectionsPerAddressMax } = this.#options;
    const isFullForAddress = (this.#countByAddress.get(key) ?? 0) >= connectionsPerAddressMax;
    if (isFullForAddress || this.#open.size >= connectionsMax) {
      const other = isFullForAddress ? this.#waiting.get(key) : this.#mostWaiting();
      const [oldest] = other ?? [];
      if (oldest === undefined) {
        refuse(socket, isFullForAddress ? 'full-address' : 'full');
        return false;
      }
      this.#remove(oldest);
      refuse(oldest, 'crowded-out');
    }
    this.#open.set(socket, key);
    this.#countByAddress.set(key, (this.#countByAddress.get(key) ?? 0) + 1);
    this.#waiting.set(key, (this.#waiting.get(key) ?? new Set()).add(socket));
    socket.on('error', () => {}); // until there is another listener: a reset in the middle of a handshake is no bug
    socket.once('close', () => this.#remove(socket));
    return true;
  }

  /** Its peer has said who it is: the place is its own. */
  keep(socket: Socket): void {
    const key = this.#open.get(socket);
    if (key !== undefined) this.#stopWaiting(socket, key);
  }

  destroyAll(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #mostWaiting(): ReadonlySet<Socket> | undefined {
    let most: ReadonlySet<Socket> | undefined;
    for (const sockets of this.#waiting.values()) if (sockets.size > (most?.size ?? 0)) most = sockets;
    return most;
  }

  #remove(socket: Socket): void {
    const key = this.#open.get(socket);
    if (key === undefined) return;
    this.#open.delete(socket);
    this.#stopWaiting(socket, key);
    const count = (this.#countByAddress.get(key) ?? 1) - 1;
    if (count === 0) this.#countByAddress.delete(key);
    else this.#countByAddress.set(key, count);
  }

  #stopWaiting(socket: Socket, key: string): void {
    const waiting = this.#waiting.get(key);
    waiting?.delete(socket);
    if (waiting?.size === 0) this.#waiting.delete(key);
  }
}

/** An IPv4 address as it is, an IPv6 address as its /64. */
export function countedAddress(address: string): string {
  if (!address.includes(':')) return address;
  const [left = '', right] = address.replace(/%.*$/, '').split('::');
  const head = left === '' ? [] : left.split(':');
  const tail = right === undefined || right === '' ? [] : right.split(':');
  const zeros = right === undefined ? 0 : Math.max(0, 8 - head.length - tail.length);
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...tail];
  return `${groups.slice(0, 4).join(':')}::/64`;
}
