import { ageText, plural } from '../../../runtime/words.ts';
import type { AgentRecord } from '../../delivery/agent-record.ts';
import type { Window } from '../../delivery/window.ts';
import type { AgentStatus, ServerStatus } from '../../status.ts';
import type { ProblemsView } from '../api.ts';
import { percentText, sizeText } from './html.ts';
import { Reading } from './reading.ts';
import type { Point } from './spark.ts';
import { cpuShare, fileSystemsOf, type Vitals, vitalsOf } from './vitals.ts';

/** What the pages show of an agent: its connection and its reports, and how its host is. */
export interface HostView {
  readonly agent: AgentStatus;
  readonly state: string;
  /** Undefined where there is no report in its window. */
  readonly vitals: Vitals | undefined;
  /** Sentences, the worst first. */
  readonly problems: readonly Problem[];
}

/** Something that is wrong: a sentence with what to do. The smaller its rank, the higher it stands. */
export interface Problem {
  readonly rank: number;
  readonly text: string;
}

export function hostView(agent: AgentStatus, record: AgentRecord | undefined, words: ProblemsView): HostView {
  const window = record?.host.window;
  const recent = window?.recent ?? [];
  const newest = recent.at(-1);
  const now = newest && new Reading(newest);
  const vitals = now && vitalsOf(now, recent.length > 1 ? new Reading(recent[0]!) : undefined);
  const state = words.stateOf(agent);
  const seen = vitals === undefined ? '' : ` (seen last: ${lastSeenText(vitals)})`;
  const own = words.ofAgent(agent).map((text) => {
    return text.startsWith('down') ? { rank: 0, text: `${text}${seen}` } : { rank: 3, text };
  });
  // Of a host that is down, what was seen last is not what is.
  const problems = vitals === undefined || state === 'down' ? [] : hostProblems(now!, vitals, window!);
  return { agent, state, vitals, problems: [...own, ...problems].sort((a, b) => a.rank - b.rank) };
}

/** How a host was before it was heard of no more, which may say why. */
function lastSeenText({ cpu, memory, disk, load }: Vitals): string {
  const parts = [
    cpu === undefined ? [] : `CPU ${percentText(cpu)}`,
    memory === undefined ? [] : `memory ${percentText(memory)}`,
    disk === undefined ? [] : `${disk.mountpoint} ${percentText(disk.used)} full`,
    load === undefined ? [] : `load by core ${load.toFixed(2)}`,
  ].flat();
  return parts.length === 0 ? 'nothing of CPU, memory and disks' : parts.join(', ');
}

/** What is wrong with a host, by its newest report. */
function hostProblems(now: Reading, vitals: Vitals, window: Window): Problem[] {
  const problems: Problem[] = [];
  // Where the fullest has room, all have.
  const fileSystems = (vitals.disk?.used ?? 0) < fullShare ? [] : fileSystemsOf(now);
  for (const { mountpoint, fstype, used, availableBytes } of fileSystems) {
    if (used < fullShare || imageTypes.has(fstype)) continue;
    const text = `file system ${mountpoint} is ${percentText(used)} full, ${sizeText(availableBytes)} are left: make room (du -xh ${mountpoint} | sort -h | tail)`;
    problems.push({ rank: 1, text });
  }
  for (const name of vitals.failedUnits ?? []) {
    problems.push({ rank: 1, text: `${name} has failed: systemctl status ${unitArgument(name)}` });
  }
  const killed = oomKillsOf(vitals, window);
  if (killed.count > 0) {
    problems.push({
      rank: 1,
      text: `${plural(killed.count, 'process', 'processes')} killed for want of memory within the last ${ageText(killed.withinMs)}: journalctl -k -g oom there; add memory, or bound what takes most of it (MemoryMax=)`,
    });
  }
  for (const { name, reason } of vitals.failedCollectors) {
    problems.push({ rank: 3, text: `collector '${name}' fails, and its series are absent: ${reason}` });
  }
  return problems;
}

/** For a shell: names have `\x2d` in them, that of the root mount is `-.mount`, and what an agent sends may be anything. */
function unitArgument(name: string): string {
  const word = /^[\w.@:-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
  return name.startsWith('-') ? `-- ${word}` : word;
}

/** Within the last hour, or since the oldest report of a window that does not go back so far. */
function oomKillsOf(
  { oomKills, timeMs }: Vitals,
  window: Window,
): { readonly count: number; readonly withinMs: number } {
  const none = { count: 0, withinMs: 0 };
  if (oomKills === undefined || oomKills === 0) return none;
  for (const report of window.sparse()) {
    if (report.timeMs < timeMs - hourMs) continue;
    const before = new Reading(report).value('node_vmstat_oom_kill');
    return before === undefined || before > oomKills
      ? none
      : { count: oomKills - before, withinMs: timeMs - report.timeMs };
  }
  return none;
}

/** How much of the processors' time was used over the window, from each of its chunks to the next. */
export function cpuTrend(window: Window): Point[] {
  const points: Point[] = [];
  let before: Reading | undefined;
  for (const report of window.sparse()) {
    const now = new Reading(report);
    if (before !== undefined) points.push({ timeMs: now.timeMs, value: cpuShare(now, before) });
    before = now;
  }
  return points;
}

/** What is wrong with what: the server itself, one of its scrapers, an agent. */
export type FleetProblem = Problem &
  ({ readonly kind: 'server' } | { readonly kind: 'scraper' | 'agent'; readonly name: string });

/** All that is wrong, the worst first. */
export function fleetProblems(
  hosts: readonly HostView[],
  server: ServerStatus,
  { words, plaintext }: { readonly words: ProblemsView; readonly plaintext: boolean },
): FleetProblem[] {
  const own: Problem[] = words.ofServer(server).map((text) => ({ rank: 2, text }));
  const share = server.windowBytes / server.windowBytesMax;
  if (share > 0.9) {
    own.push({
      rank: 1,
      text: `windows take ${percentText(share)} of --memory-max: raise it, or the oldest reports are evicted`,
    });
  }
  if (plaintext) {
    own.push({
      rank: 4,
      text: 'agents connect without keys (--allow-plaintext): anyone who can reach the port can report under any name; make a fleet key (--fleet-key-file) and enroll each agent',
    });
  }
  const versions = new Map([[server.version, 'the server']]);
  for (const { agent } of hosts) {
    const version = versionOf(agent);
    if (version === undefined || versions.get(version) === 'the server') continue;
    versions.set(version, versions.has(version) ? 'agents' : agent.name);
  }
  if (versions.size > 1) {
    const each = [...versions].sort(([a], [b]) => (a < b ? -1 : 1)).map(([version, who]) => `${version} (${who})`);
    own.push({ rank: 5, text: `${versions.size} versions run at once: ${each.join(', ')}; upgrade the older ones` });
  }
  const all: FleetProblem[] = own.map((each) => ({ ...each, kind: 'server' }));
  // One that selects different agents in several jobs is several lines of the status.
  const ofScrapers = new Map<string, Set<string>>();
  for (const { scraper, problems } of server.scrapers) {
    ofScrapers.set(scraper, new Set([...(ofScrapers.get(scraper) ?? []), ...problems]));
  }
  for (const [name, texts] of ofScrapers) for (const text of texts) all.push({ rank: 2, text, kind: 'scraper', name });
  for (const { agent, problems } of hosts) {
    for (const each of problems) all.push({ ...each, kind: 'agent', name: agent.name });
  }
  return all.sort((a, b) => a.rank - b.rank);
}

/** `sysmon-agent 0.1.0` → `0.1.0`; what another program says of itself, whole. */
export const versionOf = ({ software }: AgentStatus): string | undefined => software?.replace(/^sysmon-agent /, '');

/** What an agent that is down was seen with last: its age. */
export const ageOf = ({ newestAt }: AgentStatus, nowMs: number): string =>
  newestAt === undefined ? 'none' : ageText(nowMs - Date.parse(newestAt));

const fullShare = 0.9;
// Images of disks, which are full by design.
const imageTypes = new Set(['squashfs', 'iso9660', 'udf', 'erofs', 'cramfs']);
const hourMs = 3_600_000;
