import type { AgentId } from '../../model/agent-id.ts';
import { agentKey, type FleetKey, identityText, parseIdentity } from './keys.ts';
import { mergeRevocations, type Revocations } from './revocations.ts';

/** The fleet keys and the revocations: which identities are valid. */
export class KeyRing {
  #keys: readonly FleetKey[];
  #revoked: Revocations;

  /** The first key is the present one. Without keys, agents connect without TLS. */
  constructor(keys: readonly FleetKey[], revoked: Revocations) {
    this.#keys = keys;
    this.#revoked = revoked;
  }

  get keys(): readonly FleetKey[] {
    return this.#keys;
  }

  get revoked(): Revocations {
    return this.#revoked;
  }

  /** The keys as they are now: after a reload. */
  replaceKeys(keys: readonly FleetKey[]): void {
    this.#keys = keys;
  }

  /** Refuses what these refuse too. A revocation is never forgotten, whatever becomes of its file. */
  merge(revoked: Revocations): void {
    this.#revoked = mergeRevocations(this.#revoked, revoked);
  }

  /** The key that proves an identity, undefined for that of another server. A revoked one has a key: a frame refuses it. */
  keyOf(identity: string): Buffer | undefined {
    const parsed = parseIdentity(identity);
    const key = this.#keys.find(({ id }) => id === parsed?.fleetKeyId);
    return key === undefined ? undefined : agentKey(key, identity);
  }

  /** Whether the identity is valid only until a rotation is finished: its fleet key is in the file, and is not the first. */
  isRetiring(identity: string): boolean {
    const fleetKeyId = parseIdentity(identity)?.fleetKeyId;
    return this.#keys.slice(1).some(({ id }) => id === fleetKeyId);
  }

  /** Why the identity is refused, undefined if it is valid. */
  refusal(identity: string): string | undefined {
    const parsed = parseIdentity(identity);
    if (parsed === undefined) return `'${identity}' is not an identity of this server`;
    if (!this.#keys.some(({ id }) => id === parsed.fleetKeyId)) {
      return `the fleet key ${parsed.fleetKeyId} is retired; enrol the agent again`;
    }
    const isRevoked = parsed.generation <= (this.#revoked.get(parsed.name) ?? 0);
    return isRevoked ? `the key '${identity}' has been revoked; enrol the agent again` : undefined;
  }

  /** The identity and key of an agent that joins now; undefined without a fleet key. */
  enroll(id: AgentId): { readonly identity: string; readonly key: Buffer } | undefined {
    const [key] = this.#keys;
    if (key === undefined) return undefined;
    const identity = identityText({ name: id, generation: this.generation(id), fleetKeyId: key.id });
    return { identity, key: agentKey(key, identity) };
  }

  /** The generation of the next enrolment. */
  generation(id: AgentId): number {
    return (this.#revoked.get(id) ?? 0) + 1;
  }
}
