import { createHash, hkdfSync } from 'node:crypto';
import { type AgentId, agentId } from '../../model/agent-id.ts';

/** 32 random bytes that only the server has; every agent's key is derived from them. */
export interface FleetKey {
  /** The first 8 hex digits of its SHA-256: identifies the key without revealing anything of it. */
  readonly id: string;
  readonly bytes: Buffer;
}

/**
 * The identity of an agent's key: name, generation from 1, and the fleet key that it was derived from. In TLS and in
 * key files it is the text `web-1:1:5c9e0b3a`.
 */
export interface Identity {
  readonly name: AgentId;
  readonly generation: number;
  readonly fleetKeyId: string;
}

/** Bytes of a fleet key and of an agent's key. */
export const keyBytes = 32;

export function fleetKey(bytes: Buffer): FleetKey {
  return { id: createHash('sha256').update(bytes).digest('hex').slice(0, 8), bytes };
}

/**
 * The keys in a fleet key file: a line of 64 hex digits each, the present one first, then one that is being retired.
 */
export function parseFleetKeys(text: string): FleetKey[] {
  const lines = text.split('\n').map((line) => line.trim());
  const keys = lines.filter((line) => line !== '' && !line.startsWith('#'));
  if (keys.length < 1 || keys.length > 2 || !keys.every((line) => /^[0-9a-fA-F]{64}$/.test(line))) {
    throw new Error('expected one or two lines of 64 hex digits, as `openssl rand -hex 32` prints them');
  }
  if (keys.some((line) => /^0+$/.test(line)))
    throw new Error('a key of zeros is no secret: run `openssl rand -hex 32`');
  const [present, retired] = keys.map((line) => fleetKey(Buffer.from(line, 'hex')));
  if (retired === undefined) return [present!];
  if (retired.bytes.equals(present!.bytes))
    throw new Error('both lines have the same key: a new one is the first line');
  return [present!, retired];
}

/** `fleet key 5c9e0b3a`: by their ids, as agents' identities have them. */
export function fleetKeysText(keys: readonly FleetKey[]): string {
  return `fleet key${keys.length === 1 ? '' : 's'} ${keys.map(({ id }) => id).join(', ') || 'none'}`;
}

export function identityText({ name, generation, fleetKeyId }: Identity): string {
  return `${name}:${generation}:${fleetKeyId}`;
}

/** Undefined if the text is no identity. */
export function parseIdentity(text: string): Identity | undefined {
  const [, given = '', generation = '', fleetKeyId = ''] = /^([^:]+):([1-9][0-9]{0,8}):([0-9a-f]{8})$/.exec(text) ?? [];
  const name = agentId(given);
  return name && { name, generation: Number(generation), fleetKeyId };
}

/**
 * An agent's key: the server derives it for each connection, and stores nothing per agent. HKDF-SHA256 without salt
 * (RFC 5869, https://www.rfc-editor.org/rfc/rfc5869); the info names the program and the identity.
 */
export function agentKey(key: FleetKey, identity: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key.bytes, Buffer.alloc(0), `sysmon agent ${identity}`, keyBytes));
}
