import { ageText, mebibytesText, plural, printable } from '../runtime/words.ts';
import { selectionText } from './delivery/scraper.ts';
import { agentProblems, agentState, ago, type Present, serverProblems } from './problems.ts';
import type { ServerClockStatus } from './server-clock.ts';
import type { AgentStatus, ScraperStatus, ServerStatus } from './status.ts';

// What `agents` and `status` print for people: what is wrong first, then a table.

/** Which agents `agents` shows: those that meet every condition. */
export interface AgentFilter {
  readonly onlyProblems: boolean;
  /** An empty value also meets an agent without that label. */
  readonly labels: readonly (readonly [name: string, value: string])[];
}

export function isSelected(agent: AgentStatus, { onlyProblems, labels }: AgentFilter, present: Present): boolean {
  if (!labels.every(([name, value]) => (agent.labels[name] ?? '') === value)) return false;
  return !onlyProblems || agentProblems(agent, present).length > 0;
}

/** What `agents` prints: `list` is those of `known` agents that are selected. */
export function agentsText(list: readonly AgentStatus[], known: number, present: Present): string {
  if (known === 0) {
    return "no agent is known yet: 'sysmon-server enroll NAME' prints the line with which a host joins\n";
  }
  if (list.length === 0) return `none of ${plural(known, 'agent')} is selected\n`;
  const all = list.map((agent) => ({ agent, problems: agentProblems(agent, present) }));
  const unwell = all.filter(({ problems }) => problems.length > 0);
  const well = all.filter(({ problems }) => problems.length === 0);
  const sentences = unwell.flatMap(({ agent, problems }) => problems.map((text) => `${agent.name}: ${text}`));
  const rows = [...unwell, ...well].map(({ agent }) => [
    agent.name,
    agentState(agent, present),
    agent.newestAt === undefined ? 'none' : ago(agent.newestAt, present.nowMs),
    versionOf(agent),
    Object.entries(agent.labels)
      .map(([name, value]) => `${name}=${value}`)
      .join(',') || '-',
    // Without the name, which it begins with.
    agent.identity?.slice(agent.name.length + 1) ?? '-',
    agent.peer ?? 'not connected',
    `${agent.intervalSeconds} s`,
    String(agent.series),
  ]);
  const header = ['NAME', 'STATE', 'NEWEST REPORT', 'VERSION', 'LABELS', 'KEY', 'CONNECTION', 'EVERY', 'SERIES'];
  return [
    `${summary(list, known, unwell.length)}\n`,
    ...sentences.map((text) => `  ${printable(text)}\n`),
    '\n',
    table([header, ...rows]),
  ].join('');
}

/** `3 of 14 agents, 1 with problems:`, and the versions where there are several. */
function summary(list: readonly AgentStatus[], known: number, unwell: number): string {
  const counts = new Map<string, number>();
  for (const agent of list) counts.set(versionOf(agent), (counts.get(versionOf(agent)) ?? 0) + 1);
  const versions = [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([version, count]) => `${version} (${count})`);
  const what = list.length === known ? plural(known, 'agent') : `${list.length} of ${plural(known, 'agent')}`;
  const mixed = versions.length < 2 ? '' : `, versions ${versions.join(', ')}`;
  return printable(`${what}${mixed}, ${unwell === 0 ? 'none with problems' : `${unwell} with problems:`}`);
}

/** `0.1.0` for `sysmon-agent 0.1.0`; `unknown` where an agent has not connected since the server's start. */
function versionOf({ software }: AgentStatus): string {
  return software?.replace(/^sysmon-agent /, '') ?? 'unknown';
}

/** What `status` prints. */
export function statusText(server: ServerStatus, agents: readonly AgentStatus[], present: Present): string {
  const { agents: counts, scrapers } = server;
  const unwell = agents.filter((agent) => agentProblems(agent, present).length > 0).length;
  const problems = serverProblems(server, present);
  if (unwell > 0) {
    problems.unshift(`${unwell} of ${plural(agents.length, 'agent')} with problems: sysmon-server agents --problems`);
  }
  const lines = [
    `state     ${problems.length === 0 ? 'healthy' : plural(problems.length, 'problem')}`,
    ...problems.map((text) => `          ${printable(text)}`),
    `version   ${server.version}, up for ${ageText(present.nowMs - present.startedAtMs)}`,
    `agents    ${counts.up} of ${counts.known} up, ${counts.connected} connected`,
    `windows   ${plural(server.windowReports, 'report')} in ${mebibytesText(server.windowBytes)} of ${mebibytesText(server.windowBytesMax)}, ` +
      `kept for ${Math.round(server.windowSeconds / 60)} min`,
    `clock     ${clockText(server.clock, present)}`,
  ];
  return `${lines.join('\n')}\n${scrapers.length === 0 ? '' : `\n${scrapersTable(scrapers, present)}`}`;
}

function clockText({ steps, lastStep, aheadOfAgents }: ServerClockStatus, { nowMs }: Present): string {
  if (aheadOfAgents !== undefined) return 'probably wrong';
  if (lastStep === undefined) return 'right, as far as agents show';
  return `set ${plural(steps, 'time')} since the start, last by ${lastStep.seconds} s ${ago(lastStep.at, nowMs)}`;
}

function scrapersTable(scrapers: readonly ScraperStatus[], { nowMs }: Present): string {
  const rows = scrapers.map((scraper) => [
    scraper.scraper,
    `${scraper.program || 'not seen yet'} ${scraper.version}`.trim(),
    scraper.address,
    selectionText(scraper.selection) || 'all agents',
    ago(scraper.lastScrapeAt, nowMs),
    confirmations[scraper.confirmedBy],
    behindText(scraper),
    scraper.known ? 'yes' : 'no',
  ]);
  const header = ['SCRAPER', 'PROGRAM', 'ADDRESS', 'SELECTS', 'LAST SCRAPE', 'CONFIRMED BY', 'BEHIND', 'HOLDS ACKS'];
  return table([header, ...rows]);
}

/** What it was given last is confirmed by its next scrape: so much is no backlog. */
function behindText({ confirmedBy, behind, lagSeconds, backlogReports }: ScraperStatus): string {
  if (confirmedBy === 'none') return '-';
  return behind ? `${ageText(lagSeconds * 1000)}, ${plural(backlogReports, 'report')}` : 'no';
}

const confirmations: { readonly [by in ScraperStatus['confirmedBy']]: string } = {
  connection: 'connection',
  receipt: 'receipt',
  none: 'nothing',
};

function table(rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map(printable));
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const lines = cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  '));
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`;
}
