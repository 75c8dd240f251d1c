import { accessSync, constants, existsSync } from 'node:fs';
import type { Clock } from '../runtime/clock.ts';
import { askControl, askToLook, ControlError, type LookSockets } from '../runtime/control.ts';
import type { Log } from '../runtime/log.ts';
import { memoryLimitBytes } from '../runtime/memory-limit.ts';
import { optionHelp } from '../runtime/option-help.ts';
import { Problems, UsageError } from '../runtime/options.ts';
import type { Out } from '../runtime/standard-output.ts';
import type { UnitFacts } from '../runtime/unit.ts';
import { version } from '../runtime/version.ts';
import { printable } from '../runtime/words.ts';
import type { CollectorRow } from './collect/collectors/collector.ts';
import { collectorRows } from './collect/collectors/index.ts';
import { expositionOf } from './collect/exposition.ts';
import { JoinError } from './join/error.ts';
import { ask, isPipe, type JoinInput, readJoinFile, readPipe } from './join/input.ts';
import { join as joinHost } from './join/join.ts';
import { probe, tryServer } from './join/probe.ts';
import { SystemdUnit } from './join/unit.ts';
import type { AgentOptions } from './options.ts';
import { newAgentCounters } from './own-metrics.ts';
import type { ReloadReply } from './run.ts';
import {
  isListOnly,
  isOffline,
  joinSettings,
  readSettings,
  type Settings,
  spoolSettings,
  statusSettings,
} from './settings.ts';
import { checkSpoolAccess, SpoolFolderError } from './spool/folder.ts';
import { spoolMemoryWarning } from './spool/spool.ts';
import { type AgentStatus, connectedText, pendingText, statusText } from './status.ts';
import { knownHostId } from './uplink/host-id.ts';
import { type HostSampler, newSampler, readsEnd } from './wire-up.ts';

// The commands beside `run`: each prints to `out` and returns the exit code.

/** Ends the process now, for this reason, though a system call hangs. */
export type Leave = (reason: string) => void;

/** One collection as Prometheus would read it; with --list the collectors and their options. */
export async function collect(
  options: AgentOptions,
  parts: { clock: Clock; log: Log; out: Out; leave: Leave },
): Promise<number> {
  if (isListOnly(options)) {
    parts.out(collectorRows.map(collectorText).join(''));
    return 0;
  }
  const sampler = newSampler(options, { ...parts, counters: newAgentCounters() });
  parts.out(expositionOf(await sampler.sample()));
  await end(sampler, parts);
  return 0;
}

/** Closes the sampler. Its reads that hang would keep the process for ever. */
async function end(
  sampler: HostSampler,
  { clock, leave }: { readonly clock: Clock; readonly leave: Leave },
): Promise<void> {
  sampler.close();
  if (!(await readsEnd(sampler, clock))) leave(pendingText(sampler.pendingReads));
}

function collectorText({ name, enabled, description, options }: CollectorRow): string {
  const lines = [`${name} (${enabled === 'by default' ? 'on' : 'off'} by default): ${description}`];
  return [...lines, ...options.flatMap((row) => optionHelp(row))].map((line) => `${line}\n`).join('');
}

/**
 * Reports all that a start would find wrong, and writes nothing. Returns 3 where the server does not answer, or does not take
 * the key: the agent would start, and keep its reports.
 */
export async function check(
  options: AgentOptions,
  parts: {
    clock: Clock;
    hostName: string;
    /** As whose user it looks. */
    unit: UnitFacts | undefined;
    out: Out;
    leave: Leave;
  },
): Promise<number> {
  const { clock, hostName, unit, out } = parts;
  const problems = new Problems();
  const read = await problems.attemptAsync(() => readSettings(options, hostName));
  problems.attempt(() => checkSpool(options));
  problems.throwAny();
  const settings = read!;
  const silent: Log = { error() {}, warn() {}, info() {}, debug() {} };
  const sampler = newSampler(options, { clock, log: silent, counters: newAgentCounters() });
  const { schema } = await sampler.sample();
  out(
    `the options are valid: agent '${settings.agentName}' to ${settings.address} ${settings.key ? 'by TLS with its key' : 'without a key'}, ` +
      `${schema.seriesCount} series, spool ${settings.spoolDir === undefined ? 'in memory' : `in '${settings.spoolDir}'`}\n`,
  );
  const memoryWarning = spoolMemoryWarning(settings.bounds, unit?.memoryBytesMax ?? memoryLimitBytes());
  if (memoryWarning !== undefined) out(`${memoryWarning}\n`);
  for (const { name, extent, reason } of sampler.failures) {
    out(`collector '${name}' fails${extent === 'part' ? ' in part' : ''}: ${reason}\n`);
  }
  for (const { name, reason } of sampler.absent) out(`no data on this host for collector '${name}': ${reason}\n`);
  const code = isOffline(options) ? 0 : await checkServer(settings, out);
  await end(sampler, parts);
  return code;
}

/** 3 where the server does not answer, or does not take the key. */
async function checkServer(settings: Settings, out: Out): Promise<0 | 3> {
  const error = await tryServer(settings);
  out(
    error === undefined
      ? `the server answers at ${settings.address}\n`
      : `server ${settings.address}: error: ${error}\n`,
  );
  return error === undefined ? 0 : 3;
}

/** Throws a UsageError where the folder of the spool cannot be used. */
function checkSpool(options: AgentOptions): void {
  const { spoolDir } = spoolSettings(options);
  if (spoolDir === undefined) return;
  try {
    checkSpoolAccess(spoolDir);
  } catch (error) {
    if (!(error instanceof SpoolFolderError)) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

/** Has the running agent reload its files. A ControlError has the reason where it refuses them. */
export async function reload(options: AgentOptions, out: Out): Promise<number> {
  const { text, notices } = (await askControl(statusSettings(options).controlSocket, 'POST reload')) as ReloadReply;
  for (const line of [text, ...notices]) out(`${printable(line)}\n`);
  return 0;
}

/** Asks the running agent. */
export async function status(
  options: AgentOptions,
  parts: { clock: Clock; hostName: string; out: Out },
): Promise<number> {
  const { json, wait, ...sockets } = statusSettings(options);
  const { out } = parts;
  if (wait) {
    out(await connected(sockets, parts));
    return 0;
  }
  const agent = await askStatus(sockets);
  out(json ? `${JSON.stringify(agent, undefined, 2)}\n` : statusText(agent, parts.clock.nowMs()));
  return 0;
}

/** Makes this host an agent of a server, by a join line. */
export async function join(
  options: AgentOptions,
  parts: { clock: Clock; hostName: string; out: Out; warn: Out },
): Promise<number> {
  const { hostName, out, warn } = parts;
  const { joinFile, mode, offline, envFile, keyFile, rootfs, spoolDir, isServerSet, isServersHost } =
    joinSettings(options);
  const sockets = statusSettings(options);
  const mayBeNone = mode === 'check' && (existsSync(keyFile) || isServerSet || isServersHost);
  const hostId = knownHostId({ rootfs, spoolDir });
  await joinHost({
    ...{ hostName, mode, mayBeNone, print: out, warn },
    places: { keyFile, envFile, group: unitName },
    readInput: () => joinInput(joinFile, { hostName, mayBeNone, warn }),
    canWrite,
    probe: offline ? undefined : (line) => probe(line, { hostName, hostId, software: `sysmon-agent ${version}` }),
    unit: new SystemdUnit(unitName),
    connected: offline ? undefined : () => connected(sockets, parts),
  });
  return 0;
}

async function joinInput(
  joinFile: string | undefined,
  { hostName, mayBeNone, warn }: { readonly hostName: string; readonly mayBeNone: boolean; readonly warn: Out },
): Promise<JoinInput> {
  const { stdin } = process;
  if (joinFile !== undefined && joinFile !== '-') return readJoinFile(joinFile);
  if (stdin.isTTY) {
    const question = `The line that 'sudo sysmon-server enroll ${hostName}' prints on the server (it is not shown): `;
    return { text: await ask(stdin, question, (text) => void process.stderr.write(text)), notices: [] };
  }
  if (joinFile === '-' || !mayBeNone || !isPipe(0)) return { text: await readPipe(stdin), notices: [] };
  const soon = setTimeout(
    () => warn(`waiting ${lineMsMax / 1000} s for a join line on standard input; '</dev/null' says that there is none`),
    1000,
  );
  try {
    return { text: await readPipe(stdin, { waitMs: lineMsMax }), notices: [] };
  } finally {
    clearTimeout(soon);
  }
}

function canWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false; // for whatever reason: what follows says it
  }
}

async function askStatus(sockets: LookSockets): Promise<AgentStatus> {
  const answer = (await askToLook(sockets, 'GET status')) as { agent: AgentStatus };
  return answer.agent;
}

/**
 * To which server the running agent is connected, as soon as it is; a JoinError `not-connected` when the server refuses
 * it, or after as long as a server that restarts may need.
 */
async function connected(
  sockets: LookSockets,
  { clock, hostName }: { readonly clock: Clock; readonly hostName: string },
): Promise<string> {
  const endMs = clock.monotonicMs() + connectedMsMax;
  let reason = 'there is no answer from it yet';
  for (;;) {
    try {
      const agent = await askStatus(sockets);
      const { link } = agent;
      if (link.state === 'connected') return connectedText(agent, hostName);
      // A try that is under way says nothing of the one before.
      if (link.state === 'waiting' || link.state === 'refused') reason = link.reason;
      if (link.state === 'refused') break;
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      reason = error.message;
    }
    if (clock.monotonicMs() > endMs) break;
    await clock.sleep(askEveryMs);
  }
  throw new JoinError(
    'not-connected',
    `the agent runs and keeps its reports, but is not connected: ${printable(reason)}; see 'sysmon-agent status' and ` +
      "'journalctl -u sysmon-agent', and that the server's port (9732/tcp) is open to this host",
  );
}

/** Of the unit, its user and its group. */
const unitName = 'sysmon-agent';
const lineMsMax = 10_000;
const connectedMsMax = 15_000;
const askEveryMs = 200;
