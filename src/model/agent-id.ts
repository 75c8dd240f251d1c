declare const brand: unique symbol;

/** An agent's name: 1 to 128 characters of `[A-Za-z0-9._-]`. Made by {@link agentId} alone. */
export type AgentId = string & { readonly [brand]: 'AgentId' };

const pattern = /^[A-Za-z0-9._-]{1,128}$/;
/** The same in words, for messages. */
export const agentIdRule = '1 to 128 characters of A-Z a-z 0-9 . _ -';

/** The name as an AgentId, or undefined where it is not one. */
export function agentId(name: string): AgentId | undefined {
  // The one place where the brand is put on: the pattern has just been checked.
  return pattern.test(name) ? (name as AgentId) : undefined;
}
