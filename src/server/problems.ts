import { ageText, plural } from '../runtime/words.ts';
import { awaitedMs } from './delivery/agent-record.ts';
import type { DropReason } from './delivery/drops.ts';
import { type AgentStatus, ofLateMs, type ServerStatus } from './status.ts';
import type { ProblemsView } from './web/api.ts';

// What a person should act on, in words: for `agents` and `status`, and for the pages.

export interface Present {
  readonly nowMs: number;
  /** When the server was started. */
  readonly startedAtMs: number;
}

/** For the pages. */
export const problemsView = (present: () => Present): ProblemsView => ({
  stateOf: (agent) => agentState(agent, present()),
  ofAgent: (agent) => agentProblems(agent, present()),
  ofServer: (server) => ownProblems(server, present()),
});

/** How an agent is, in a word or two. */
export function agentState(agent: AgentStatus, present: Present): string {
  if (agent.up) return agent.connected ? 'up' : 'reconnecting';
  return isAwaited(agent, present) ? 'awaited' : 'down';
}

/** A sentence for each thing that is wrong with an agent, the worst first. Empty if it is well. */
export function agentProblems(agent: AgentStatus, present: Present): string[] {
  const { nowMs } = present;
  const problems: string[] = [];
  if (!agent.up && !isAwaited(agent, present)) problems.push(downText(agent, nowMs));
  const behindMs = agent.newestAt === undefined ? 0 : nowMs - Date.parse(agent.newestAt);
  if (agent.up && agent.connected && behindMs > silenceMs(agent)) {
    const { spoolReports, spoolReportsAt } = agent;
    const waiting =
      spoolReports === undefined || spoolReportsAt === undefined
        ? ''
        : `, its spool had ${plural(spoolReports, 'report')} ${ago(spoolReportsAt, nowMs)}`;
    problems.push(
      `it sends its backlog: the newest report here is of ${ageText(behindMs)} ago${waiting}; if it does not catch up, its line is ` +
        'too slow: give it a longer --schedule or fewer collectors',
    );
  }
  for (const { name, up } of agent.sources) if (agent.up && !up) problems.push(`its source '${name}' is down`);
  if (Math.abs(agent.clockOffsetSeconds) > clockOffsetSecondsMax) {
    const by = `${ageText(Math.abs(agent.clockOffsetSeconds) * 1000)} ${agent.clockOffsetSeconds > 0 ? 'behind' : 'ahead of'}`;
    problems.push(`its clock is ${by} the server's, and its timestamps are corrected: check NTP there`);
  }
  for (const { reason, count, droppedAt } of agent.drops) {
    if (isOfLate(droppedAt, nowMs)) {
      problems.push(`${plural(count, 'report')} lost, ${dropWords[reason]}; the last ${ago(droppedAt, nowMs)}`);
    }
  }
  const { droppedByAgent, droppedByAgentAt } = agent;
  if (droppedByAgent !== undefined && droppedByAgentAt !== undefined && isOfLate(droppedByAgentAt, nowMs)) {
    const last = ago(droppedByAgentAt, nowMs);
    problems.push(`${plural(droppedByAgent, 'report')} lost, dropped by its spool since its start; the last ${last}`);
  }
  for (const { budget, text, lastAt } of agent.overBudget) {
    if (isOfLate(lastAt, nowMs)) problems.push(`over its budget of ${budget}, last ${ago(lastAt, nowMs)}: ${text}`);
  }
  return problems;
}

/** The same of the server itself and its scrapers. */
export function serverProblems(server: ServerStatus, present: Present): string[] {
  const ofScrapers = server.scrapers.flatMap(({ scraper, problems }) =>
    problems.map((text) => `scraper '${scraper}': ${text}`),
  );
  return [...ownProblems(server, present), ...new Set(ofScrapers)];
}

function ownProblems({ agents, clock, scrapers }: ServerStatus, { nowMs }: Present): string[] {
  const problems: string[] = [];
  if (agents.known === 0) problems.push("no agent is known: 'sysmon-server enroll NAME' prints how a host joins");
  const { aheadOfAgents, lastStep } = clock;
  if (aheadOfAgents !== undefined) {
    const { seconds, agents: count, of } = aheadOfAgents;
    const way = seconds > 0 ? 'ahead of' : 'behind';
    problems.push(`the clock is ${Math.abs(seconds)} s ${way} ${count} of ${of} agents: check NTP (timedatectl)`);
  } else if (lastStep !== undefined && isOfLate(lastStep.at, nowMs)) {
    problems.push(`the clock was set by ${lastStep.seconds} s ${ago(lastStep.at, nowMs)}: check NTP (timedatectl)`);
  }
  if (scrapers.length === 0) problems.push('no Prometheus has scraped yet: reports are acknowledged as they arrive');
  return problems;
}

/** `12 s ago` */
export function ago(isoTime: string, nowMs: number): string {
  return `${ageText(nowMs - Date.parse(isoTime))} ago`;
}

/** It has only just connected, or the server has only just been started: nothing is wrong yet. */
function isAwaited(agent: AgentStatus, { nowMs, startedAtMs }: Present): boolean {
  if (agent.lastReportAt !== undefined && Date.parse(agent.lastReportAt) > startedAtMs && !agent.connected)
    return false;
  if (agent.connectedAt === undefined) return nowMs - startedAtMs < awaitedMs;
  return !reportsOfLate(agent, nowMs) && nowMs - Date.parse(agent.connectedAt) < silenceMs(agent);
}

function downText(agent: AgentStatus, nowMs: number): string {
  const { connected, lastReportAt } = agent;
  if (connected && reportsOfLate(agent, nowMs)) {
    return 'down: it reports, and its reports are not stored; journalctl -u sysmon-server says why';
  }
  const since =
    lastReportAt === undefined ? "since the server's start" : `for ${ageText(nowMs - Date.parse(lastReportAt))}`;
  return connected
    ? `down: connected, but no report ${since}; run sysmon-agent status there`
    : `down: not connected, no report ${since}; is the host on, and its sysmon-agent running?`;
}

function reportsOfLate(agent: AgentStatus, nowMs: number): boolean {
  return agent.lastReportAt !== undefined && nowMs - Date.parse(agent.lastReportAt) <= silenceMs(agent);
}

/** As long as an agent may be silent and is still up. */
function silenceMs({ intervalSeconds }: AgentStatus): number {
  return 3 * intervalSeconds * 1000 + 5000;
}

function isOfLate(isoTime: string, nowMs: number): boolean {
  return nowMs - Date.parse(isoTime) < ofLateMs;
}

const dropWords: { readonly [reason in DropReason]: string } = {
  not_newer: 'refused as not newer than what is stored: do two hosts run under this name? Check its clock',
  too_old: 'refused as older than --window: raise it to take a longer backlog',
  too_many: 'refused as too many a second: set its --schedule to 100ms or more',
  age: 'older than --window before every scraper had them: raise it, or scrape more often',
  memory: 'evicted before every scraper had them, for --memory-max: raise it, or scrape more often',
};

// What is measured of a clock is right to a second or so.
const clockOffsetSecondsMax = 2;
