import { ageText, bytesText, durationText, isoTime, mebibytesText, plural, printable } from '../runtime/words.ts';
import type { AbsentSubject, CollectorFailure } from './collect/sampler.ts';
import type { DiskState } from './spool/disk-health.ts';
import type { LinkState } from './uplink/uplink.ts';

/** The agent as `status` shows it. Times are ISO 8601. No key is in it. */
export interface AgentStatus {
  readonly version: string;
  readonly name: string;
  readonly startedAt: string;
  readonly server: string;
  readonly link: LinkStatus;
  readonly spool: {
    /** Reports that are not acknowledged. */
    readonly reports: number;
    readonly bytes: number;
    readonly bytesMax: number;
    readonly oldestAt: string | null;
    /** Null: it is in memory only. */
    readonly folder: string | null;
    readonly disk: DiskStatus;
    /** Reports in memory that the folder lacks. */
    readonly unwrittenReports: number;
  };
  readonly reportsDropped: Readonly<Record<'full' | 'age' | 'disk', number>>;
  /** Reports that the server did not store, by reason. */
  readonly reportsRefused: readonly {
    readonly reason: string;
    readonly text: string;
    readonly count: number;
    /** The times of the oldest and the newest of them. */
    readonly firstAt: string;
    readonly lastAt: string;
  }[];
  readonly lastReportAt: string | null;
  readonly intervalSeconds: number;
  readonly series: number;
  readonly clockOffsetSeconds: number;
  readonly reconnects: number;
  readonly failures: readonly CollectorFailure[];
  /** The collectors of whose subject this host has nothing. */
  readonly absent: readonly AbsentSubject[];
}

export type LinkStatus =
  | { readonly state: 'connecting' | 'stopped' }
  | { readonly state: 'connected'; readonly peer: string; readonly since: string; readonly unsentReports: number }
  | { readonly state: 'waiting' | 'refused'; readonly reason: string; readonly retryAt: string };

export type DiskStatus =
  | { readonly state: 'none' }
  | { readonly state: 'ok' }
  | { readonly state: 'slow'; readonly since: string }
  | { readonly state: 'failing'; readonly since: string; readonly reason: string };

/** Undefined: the spool is in memory only. */
export function diskStatus(state: DiskState | undefined): DiskStatus {
  switch (state?.kind) {
    case undefined:
      return { state: 'none' };
    case 'ok':
      return { state: 'ok' };
    case 'slow':
      return { state: 'slow', since: isoTime(state.sinceMs) };
    case 'failing':
      return { state: 'failing', since: isoTime(state.sinceMs), reason: state.reason };
  }
}

export function linkStatus(state: LinkState): LinkStatus {
  switch (state.kind) {
    case 'connecting':
    case 'stopped':
      return { state: state.kind };
    case 'connected':
      return { state: 'connected', peer: state.peer, since: isoTime(state.sinceMs), unsentReports: state.unsent() };
    case 'waiting':
      return {
        state: state.isRefused ? 'refused' : 'waiting',
        reason: state.reason,
        retryAt: isoTime(state.retryAtMs),
      };
  }
}

/**
 * One line for systemd's status, which costs a process each time: so it changes only with the state. Undefined while
 * connecting, as every attempt begins so.
 */
export function linkLine(server: string, state: LinkState): string | undefined {
  switch (state.kind) {
    case 'connecting':
      return undefined;
    case 'connected':
      return `connected to ${server}`;
    case 'waiting':
      return `not connected: ${state.reason}`;
    case 'stopped':
      return 'stopped';
  }
}

/** `agent 'web-9' is connected to s:9732 (10.77.0.11)`; a second line where the agent is not called as its host is. */
export function connectedText({ name, server, link }: AgentStatus, hostName: string): string {
  const peer = link.state === 'connected' ? link.peer : server;
  const address = peer === server ? '' : ` (${peer.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')})`;
  const alias = name === hostName ? '' : `this host is '${hostName}' and reports as '${name}'\n`;
  return `${printable(`agent '${name}' is connected to ${server}${address}`)}\n${alias}`;
}

/** What `status` prints. */
export function statusText(status: AgentStatus, nowMs: number): string {
  const { spool } = status;
  const ageOf = (isoTime: string) => ageText(nowMs - Date.parse(isoTime));
  const place = spool.folder === null ? 'in memory' : `in '${spool.folder}'`;
  const rows: [string, string][] = [
    ['state', stateText(status)],
    ['agent', `'${status.name}', version ${status.version}, up for ${ageOf(status.startedAt)}`],
    ['server', `${status.server}: ${linkText(status.link, nowMs)}`],
    [
      'spool',
      `${plural(spool.reports, 'report')}${spool.oldestAt === null ? '' : ` of the last ${ageOf(spool.oldestAt)}`} to be acknowledged; ` +
        `${mebibytesText(spool.bytes)} of ${bytesText(spool.bytesMax)}, ${place}`,
    ],
    ...diskRows(spool),
    ...droppedRows(status),
    [
      'reports',
      `every ${durationText(status.intervalSeconds * 1000)}, ${plural(status.series, 'series', 'series')}, last ${status.lastReportAt === null ? 'none yet' : `${ageOf(status.lastReportAt)} ago`}`,
    ],
    [
      'clock',
      status.clockOffsetSeconds === 0
        ? 'agrees with the server'
        : `differs from the server's: timestamps are corrected by ${status.clockOffsetSeconds} s; check NTP (timedatectl)`,
    ],
    ...status.failures.map(({ name, extent, reason }): [string, string] => [
      'failing',
      `collector '${name}'${extent === 'part' ? ', in part' : ''}: ${reason}`,
    ]),
    ...absentRows(status.absent),
  ];
  return rows.map(([name, words]) => `${name.padEnd(9)} ${printable(words)}\n`).join('');
}

/** What is wrong now; what was lost has a row of its own, which stays. */
function stateText({ link, spool, clockOffsetSeconds, failures }: AgentStatus): string {
  const problems: string[] = [];
  if (link.state === 'refused') problems.push('refused by the server');
  else if (link.state !== 'connected') problems.push('not connected');
  if (spool.disk.state === 'failing' || spool.disk.state === 'slow') problems.push(`disk ${spool.disk.state}`);
  if (clockOffsetSeconds !== 0) problems.push('clock wrong here or on the server');
  if (failures.length > 0) problems.push(`${plural(failures.length, 'collector')} failing`);
  return problems.length === 0 ? 'healthy' : problems.join(', ');
}

function droppedRows({ reportsDropped, reportsRefused }: AgentStatus): [string, string][] {
  const dropped = Object.entries(reportsDropped).filter(([, count]) => count > 0);
  const here = dropped.map(([reason, count]) => `${count} (${reason})`).join(', ');
  const rows = reportsRefused.map(({ count, text, firstAt, lastAt }): [string, string] => [
    'dropped',
    `${count} at the server: ${text} (${firstAt} to ${lastAt})`,
  ]);
  if (here !== '') rows.unshift(['dropped', here]);
  return rows.length === 0 ? [['dropped', 'none']] : rows;
}

function absentRows(absent: readonly AbsentSubject[]): [string, string][] {
  if (absent.length === 0) return [];
  return [
    [
      'absent',
      `no data on this host for collector ${absent.map(({ name }) => name).join(', ')} ('sysmon-agent check' says why)`,
    ],
  ];
}

function diskRows({ disk, unwrittenReports }: AgentStatus['spool']): [string, string][] {
  if (disk.state === 'none' || disk.state === 'ok') return [];
  const reason = disk.state === 'failing' ? ` (${disk.reason})` : '';
  return [['disk', `${disk.state} since ${disk.since}${reason}; ${plural(unwrittenReports, 'report')} in memory only`]];
}

function linkText(link: LinkStatus, nowMs: number): string {
  switch (link.state) {
    case 'connected':
      return `connected for ${ageText(nowMs - Date.parse(link.since))}, ${plural(link.unsentReports, 'report')} to send`;
    case 'waiting':
    case 'refused':
      return `not connected: ${link.reason}; retrying in ${ageText(Date.parse(link.retryAt) - nowMs)}`;
    default:
      return link.state;
  }
}

/** Why the process does not wait for these reads. */
export function pendingText(paths: readonly string[]): string {
  const others = paths.length > 1 ? ` and ${plural(paths.length - 1, 'other read')}` : '';
  return `not waiting for '${paths[0]}'${others}, which ${paths.length > 1 ? 'do' : 'does'} not answer`;
}
