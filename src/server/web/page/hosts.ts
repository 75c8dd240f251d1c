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
  const own = words.ofAgent(agent).map((text) => ({ rank: text.startsWith('down') ? 0 : 3, text }));
  // Of a host that is down, what was seen last is not what is.
  const problems = vitals === undefined || state === 'down' ? [] : hostProblems(now!, vitals, window!);
  return { agent, state, vitals, problems: [...own, ...problems].sort((a, b) => a.rank - b.rank) };
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
    problems.push({ rank: 1, text: `${name} has failed: systemctl status ${name}` });
  }
  const killed = oomKillsOf(vitals, window);
  if (killed > 0) {
    problems.push({
      rank: 1,
      text: `${plural(killed, 'process', 'processes')} killed for want of memory within the window: journalctl -k -g oom`,
    });
  }
  for (const name of vitals.failedCollectors) {
    problems.push({ rank: 3, text: `collector '${name}' fails: 'sysmon-agent status' there says why` });
  }
  return problems;
}

/** Since the oldest report in the window, at most an hour ago. */
function oomKillsOf({ oomKills, timeMs }: Vitals, window: Window): number {
  if (oomKills === undefined || oomKills === 0) return 0;
  for (const report of window.sparse()) {
    if (report.timeMs < timeMs - hourMs) continue;
    const before = new Reading(report).value('node_vmstat_oom_kill');
    return before === undefined || before > oomKills ? 0 : oomKills - before;
  }
  return 0;
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

/** All that is wrong, the worst first; those of an agent begin with its name. */
export function fleetProblems(
  hosts: readonly HostView[],
  server: ServerStatus,
  { words, plaintext }: { readonly words: ProblemsView; readonly plaintext: boolean },
): (Problem & { readonly agent?: string })[] {
  const own = words.ofServer(server).map((text) => ({ rank: 2, text }));
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
      text: 'agents connect without keys (--allow-plaintext): anyone who can reach the port can report under any name',
    });
  }
  const versions = new Set(hosts.flatMap(({ agent }) => agent.software ?? []));
  if (versions.size > 1) {
    own.push({
      rank: 5,
      text: `agents run ${versions.size} versions: ${[...versions].sort().join(', ')}; upgrade the older ones`,
    });
  }
  const ofAgents = hosts.flatMap(({ agent, problems }) => problems.map((each) => ({ ...each, agent: agent.name })));
  return [...own, ...ofAgents].sort((a, b) => a.rank - b.rank);
}

/** What an agent that is down was seen with last: its age. */
export const ageOf = ({ newestAt }: AgentStatus, nowMs: number): string =>
  newestAt === undefined ? 'none' : ageText(nowMs - Date.parse(newestAt));

const fullShare = 0.9;
// Images of disks, which are full by design.
const imageTypes = new Set(['squashfs', 'iso9660', 'udf', 'erofs', 'cramfs']);
const hourMs = 3_600_000;
