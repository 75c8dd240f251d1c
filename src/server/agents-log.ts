import type { AgentId } from '../model/agent-id.ts';
import type { Log } from '../runtime/log.ts';
import { ageText, plural } from '../runtime/words.ts';
import type { AgentRecord } from './delivery/agent-record.ts';
import { excessText } from './delivery/budget.ts';
import { dropText } from './delivery/drops.ts';

/**
 * Logs, every few seconds, which agents went down or came back, and whose reports were dropped, and which
 * are over a budget: one line for each, for
 * any number of connections and reports.
 */
export class AgentsLog {
  readonly #log: Pick<Log, 'warn' | 'info'>;
  readonly #bounds: { readonly windowMs: number; readonly memoryBytesMax: number };
  readonly #states = new Map<AgentId, State>();

  constructor(options: {
    readonly log: Pick<Log, 'warn' | 'info'>;
    readonly windowMs: number;
    readonly memoryBytesMax: number;
  }) {
    this.#log = options.log;
    this.#bounds = options;
  }

  look(agents: ReadonlyMap<AgentId, AgentRecord>, monotonicMs: number): void {
    const down: AgentRecord[] = [];
    for (const agent of agents.values()) {
      for (const drop of agent.drops.takeUnlogged(monotonicMs)) this.#log.warn(dropText(agent.id, drop, this.#bounds));
      for (const excess of agent.excesses.takeUnlogged(monotonicMs)) this.#log.warn(excessText(agent.id, excess));
      if (this.#follow(agent, monotonicMs)) down.push(agent);
    }
    for (const id of this.#states.keys()) if (!agents.has(id)) this.#states.delete(id);
    this.#logDown(down, monotonicMs);
  }

  /** Whether the agent has just gone down. One that has not reported since this server's start was not up. */
  #follow(agent: AgentRecord, monotonicMs: number): boolean {
    const state = this.#states.get(agent.id);
    const { reportAtMonotonicMs: atMs } = agent.host;
    if (agent.host.up(monotonicMs)) {
      if (state?.kind === 'down') {
        const reports = plural(agent.storedCount - state.storedCount, 'report');
        this.#log.info(`agent '${agent.id}' is back after ${ageText(monotonicMs - state.sinceMs)}, ${reports}`);
      }
      this.#states.set(agent.id, { kind: 'up' });
      return false;
    }
    // Refused reports have a line of their own.
    if (state?.kind !== 'up' || atMs === undefined || agent.host.isReporting(monotonicMs)) return false;
    this.#states.set(agent.id, { kind: 'down', sinceMs: atMs, storedCount: agent.storedCount });
    return true;
  }

  #logDown(down: readonly AgentRecord[], monotonicMs: number): void {
    if (down.length > linesMax) {
      const names = down.slice(0, linesMax).map(({ id }) => `'${id}'`);
      this.#log.warn(`${down.length} agents are down, none with a report of late: ${names.join(', ')}, …`);
      return;
    }
    for (const { id, host } of down) {
      this.#log.warn(`agent '${id}' is down: no report for ${ageText(monotonicMs - host.reportAtMonotonicMs!)}`);
    }
  }
}

type State =
  | { readonly kind: 'up' }
  /** Since its last report; as many reports of it had been stored by then. */
  | { readonly kind: 'down'; readonly sinceMs: number; readonly storedCount: number };

// When the line between two sites is cut, a thousand agents go down at once.
const linesMax = 5;
