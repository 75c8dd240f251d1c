import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { agentId } from '../model/agent-id.ts';
import { hostSourceId, hostSourceName, type Labels, type Source } from '../model/source.ts';
import { limits } from '../protocol/limits.ts';
import type { Hello } from '../protocol/messages.ts';
import type { LookSockets } from '../runtime/control.ts';
import type { LogLevel } from '../runtime/log.ts';
import { addressText, type HostPort, Problems, UsageError } from '../runtime/options.ts';
import { SecretFileError } from '../runtime/secret-file.ts';
import { version } from '../runtime/version.ts';
import { reasonOf } from '../runtime/words.ts';
import type { CollectorRow } from './collect/collectors/collector.ts';
import { selectCollectors } from './collect/collectors/index.ts';
import type { HostRoots } from './collect/proc/host.ts';
import { loadSchedule, type Schedule } from './collect/schedule.ts';
import type { JoinMode } from './join/join.ts';
import { type AgentKey, readKeyFile } from './key-file.ts';
import type { AgentOptions } from './options.ts';
import type { SpoolBounds } from './spool/spool.ts';

/** The options of an agent, and what depends on several of them or on files that they name. */
export interface Settings {
  readonly server: HostPort;
  /** The same for log lines. */
  readonly address: string;
  readonly key: AgentKey | undefined;
  readonly schedule: Schedule;
  readonly agentName: string;
  readonly labels: Labels;
  readonly keyFile: string | undefined;
  readonly rootfs: string;
  readonly spoolDir: string | undefined;
  readonly controlSocket: string;
  /** For those who may only look; undefined: none. */
  readonly statusSocket: string | undefined;
  readonly bounds: SpoolBounds;
}

/** What `status` needs: it reads no files. */
export function statusSettings({ values }: AgentOptions): StatusSettings {
  return {
    controlSocket: values.controlSocket,
    statusSocket: values.statusSocket,
    json: values.json,
    wait: values.wait,
  };
}

export interface StatusSettings extends LookSockets {
  readonly json: boolean;
  readonly wait: boolean;
}

/** What `join` needs. */
export function joinSettings(options: AgentOptions): JoinSettings {
  const { values } = options;
  const { joinFile, checkOnly, noRestart, offline, configFile, rootfs, spoolDir } = values;
  if (configFile === undefined)
    throw options.refuse('config.file', 'expected the file that the agent reads its options from');
  if (checkOnly && offline) throw options.refuse('offline', 'expected without --check-only, which asks the server');
  return {
    ...{ joinFile, offline, rootfs, spoolDir },
    mode: checkOnly ? 'check' : noRestart ? 'files' : 'join',
    envFile: resolve(configFile),
    keyFile: resolve(values.keyFile ?? join(dirname(configFile), 'agent.key')),
    isServersHost: existsSync(join(dirname(configFile), 'fleet.key')),
    isServerSet: options.changed.some((each) => each.startsWith('server=')),
  };
}

export interface JoinSettings {
  /** `-`: standard input. */
  readonly joinFile: string | undefined;
  readonly mode: JoinMode;
  /** The server is not asked. */
  readonly offline: boolean;
  readonly envFile: string;
  readonly keyFile: string;
  readonly rootfs: string;
  readonly spoolDir: string | undefined;
  /** The server runs on this host too, and can enrol it. */
  readonly isServersHost: boolean;
  /** The options name a server. */
  readonly isServerSet: boolean;
}

/** Where the spool is kept, whatever is wrong with other options. */
export function spoolSettings({ values }: AgentOptions): Pick<Settings, 'spoolDir'> {
  return { spoolDir: values.spoolDir };
}

/** Whether `check` leaves the server alone. */
export function isOffline({ values }: AgentOptions): boolean {
  return values.offline;
}

export function logLevelOf({ values }: AgentOptions): LogLevel {
  return values.logLevel;
}

/** Reads the files that the options name. Throws a UsageError that names the option, and what was expected. */
export async function readSettings(options: AgentOptions, hostName: string): Promise<Settings> {
  const { values } = options;
  const problems = new Problems();
  const key = problems.attempt(() => readKey(values.keyFile));
  const schedule = await problems.attemptAsync(() => readSchedule(options));
  const agentName = problems.attempt(() => nameOf(options, key, hostName));
  const labels = problems.attempt(() => labelsOf(options));
  problems.throwAny();
  return {
    server: values.server,
    address: addressText(values.server.host, values.server.port),
    key,
    schedule: schedule!,
    agentName: agentName!,
    labels: labels!,
    keyFile: values.keyFile,
    rootfs: values.rootfs,
    spoolDir: values.spoolDir,
    controlSocket: values.controlSocket,
    statusSocket: values.statusSocket,
    bounds: { bytesMax: values.spoolBytesMax, ageMsMax: values.spoolAgeMax },
  };
}

/** The hello of an agent with these settings, on this host. */
export function helloOf({ agentName }: Pick<Settings, 'agentName'>, hostId: string): Omit<Hello, 'kind' | 'version'> {
  return { agentName, hostId, software: `sysmon-agent ${version}` };
}

/** The host as a source of reports. */
export function hostSourceOf({ labels, schedule }: Pick<Settings, 'labels' | 'schedule'>): Source {
  return { id: hostSourceId, name: hostSourceName, intervalMs: schedule.intervalMs, labels };
}

/** The key that the option names, undefined where it names none. */
export function readKey(path: string | undefined): AgentKey | undefined {
  if (path === undefined) return undefined;
  try {
    return readKeyFile(path);
  } catch (error) {
    if (error instanceof SecretFileError) throw new UsageError(`--key-file: ${error.message}`, { cause: error });
    throw error;
  }
}

export function rootsOf({ values }: AgentOptions): HostRoots {
  return { procfs: values.procfs, sysfs: values.sysfs, rootfs: values.rootfs, udev: values.udev };
}

export function collectorsOf(options: AgentOptions): CollectorRow[] {
  const rows = selectCollectors({ enable: options.values.enable, disable: options.values.disable });
  if (rows.length === 0) throw options.refuse('disable', 'expected at least one collector to be left');
  return rows;
}

/** Whether `collect` should show what there is to collect. */
export function isListOnly({ values }: AgentOptions): boolean {
  return values.list;
}

/** The value of a collector's option: all are in the program's table under their own names, so it has the row's type. */
export function collectorOption(options: AgentOptions, name: string): never {
  return (options.values as Record<string, unknown>)[name] as never;
}

async function readSchedule(options: AgentOptions): Promise<Schedule> {
  try {
    return await loadSchedule(options.values.schedule);
  } catch (error) {
    throw options.refuse('schedule', reasonOf(error));
  }
}

function nameOf(options: AgentOptions, key: AgentKey | undefined, hostName: string): string {
  const given = options.values.name;
  if (key !== undefined) {
    if (given === undefined || given === key.agentName) return key.agentName;
    throw options.refuse(
      'name',
      `expected '${key.agentName}', the name that the key in --key-file was made for, or none`,
    );
  }
  if (given !== undefined) return given;
  if (agentId(hostName) !== undefined) return hostName;
  throw options.refuse('name', `expected a name, since that of this host, '${hostName}', cannot be one`);
}

export function labelsOf(options: AgentOptions): Labels {
  const { label: labels } = options.values;
  const names = new Set(labels.map(([name]) => name));
  if (names.size < labels.length) throw options.refuse('label', 'expected each name once');
  if (labels.length > limits.labelsMax) throw options.refuse('label', `expected at most ${limits.labelsMax} labels`);
  const bytes = labels.flat().reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  if (bytes > limits.labelsBytesMax) {
    const excess = bytes - limits.labelsBytesMax;
    throw options.refuse('label', `expected labels that are ${excess} bytes shorter, all together`);
  }
  for (const [name, value] of labels) {
    if (name.length > limits.nameBytesMax) {
      throw options.refuse(
        'label',
        `expected names of at most ${limits.nameBytesMax} bytes, '${name}' has ${name.length}`,
      );
    }
    const valueBytes = Buffer.byteLength(value);
    if (valueBytes <= limits.labelValueBytesMax) continue;
    const most = `expected values of at most ${limits.labelValueBytesMax} bytes`;
    throw options.refuse('label', `${most}, that of '${name}' has ${valueBytes}`);
  }
  return labels;
}
