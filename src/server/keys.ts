import { hkdfSync } from 'node:crypto';

/** What a key belongs to: an agent's name and a generation, `web-1:1`. A name has no colon. */
export function identityOf(name: string, generation: number): string {
  return `${name}:${generation}`;
}

/** The name in an identity: all of it where there is no generation. */
export function identityName(identity: string): string {
  const colon = identity.lastIndexOf(':');
  return colon < 0 ? identity : identity.slice(0, colon);
}

/** The generation in an identity, from 1; undefined where there is none. */
export function identityGeneration(identity: string): number | undefined {
  const match = /:([1-9][0-9]{0,8})$/.exec(identity);
  return match === null ? undefined : Number(match[1]);
}

/** Bytes of a fleet key and of an agent's key. */
export const keyBytes = 32;

/**
 * An agent's key, derived from the fleet's: the server stores nothing per agent. HKDF-SHA256 without salt, RFC 5869
 * (https://www.rfc-editor.org/rfc/rfc5869); the info names the program and the identity.
 */
export function agentKey(fleetKey: Uint8Array, identity: string): Buffer {
  return Buffer.from(hkdfSync('sha256', fleetKey, Buffer.alloc(0), `sysmon agent ${identity}`, keyBytes));
}
