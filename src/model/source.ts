import { type AgentId, agentId } from './agent-id.ts';

/**
 * What an agent reports for, by number: the host that it runs on is source 0, and each exporter that it forwards is one
 * more. A source has a name, an interval, labels, a schema and reports of its own.
 */
export interface Source {
  readonly id: number;
  /** `host` for source 0; 1 to 64 characters of `[A-Za-z0-9._-]` for the others. */
  readonly name: string;
  readonly intervalMs: number;
  /** On every series of the source. */
  readonly labels: Labels;
}

export type Labels = readonly (readonly [name: string, value: string])[];

export function sameLabels(a: Labels, b: Labels): boolean {
  return (
    a === b || (a.length === b.length && a.every(([name, value], at) => name === b[at]![0] && value === b[at]![1]))
  );
}

export const hostSourceId = 0;
export const hostSourceName = 'host';

const pattern = /^[A-Za-z0-9._-]{1,64}$/;

/** Whether a source of this number may be called so. */
export function isSourceName(id: number, name: string): boolean {
  return id === hostSourceId ? name === hostSourceName : pattern.test(name) && name !== hostSourceName;
}

declare const brand: unique symbol;

/** A source of an agent, over all agents: `AGENT` for its host, `AGENT/SOURCE` for the others. */
export type StreamId = string & { readonly [brand]: 'StreamId' };

/** Unequal for unequal sources: neither kind of name has a '/'. */
export function streamId(agent: AgentId, sourceName: string): StreamId {
  return (sourceName === hostSourceName ? agent : `${agent}/${sourceName}`) as StreamId;
}

/** The parts of a stream's id that was written somewhere, or undefined where it is none. */
export function parseStreamId(text: string): { id: StreamId; agent: AgentId; sourceName: string } | undefined {
  const [agentName = '', sourceName = hostSourceName, ...more] = text.split('/');
  const agent = agentId(agentName);
  if (agent === undefined || more.length > 0) return undefined;
  if (text.includes('/') && !isSourceName(1, sourceName)) return undefined;
  return { id: streamId(agent, sourceName), agent, sourceName };
}
