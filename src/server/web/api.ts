import type { AgentStatus, ServerStatus } from '../status.ts';
import { json, type Reply, text } from './reply.ts';

/** The state of the server and its agents, for the page and the API. */
export interface StatusView {
  server(): ServerStatus;
  /** In the order of their names. */
  agents(): readonly AgentStatus[];
  readonly problems: ProblemsView;
}

/** How they are at present, in words; of several problems, the worst first. */
export interface ProblemsView {
  stateOf(agent: AgentStatus): string;
  ofAgent(agent: AgentStatus): readonly string[];
  /** But for those of its scrapers, which are in their status. */
  ofServer(server: ServerStatus): readonly string[];
}

/** `/api/v1/agents`: the server, its scrapers and its agents. */
export function agentsReply(status: StatusView): Reply {
  return json({ server: status.server(), agents: status.agents() });
}

/** `/api/v1/agents/NAME` */
export function agentReply(status: StatusView, name: string): Reply {
  const agent = status.agents().find((each) => each.name === name);
  return agent === undefined ? noSuchAgent(name) : json(agent);
}

export const noSuchAgent = (name: string): Reply => text(404, `no agent named '${name.slice(0, 128)}' is known\n`);
