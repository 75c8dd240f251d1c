import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { type AgentId, agentId, agentIdRule } from '../model/agent-id.ts';
import { type LabelBounds, wireLabelBounds } from '../protocol/schema-table.ts';
import type { LogLevel } from '../runtime/log.ts';
import { type HostPort, isLoopback, type ListenAddress, Problems, UsageError } from '../runtime/options.ts';
import { readSecretFile, SecretFileError } from '../runtime/secret-file.ts';
import { durationText, reasonOf } from '../runtime/words.ts';
import { checkStateDir } from './delivery/state-disk.ts';
import { type FleetKey, parseFleetKeys } from './ingest/keys.ts';
import { type Revocations, readRevocations } from './ingest/revocations.ts';
import { defaultPort, type ServerOptions } from './options.ts';
import { AccessError, type PrometheusSettings, readAccess } from './prometheus/access.ts';
import type { Access } from './prometheus/bounded-get.ts';
import type { AgentFilter } from './status-text.ts';
import { type Archive, archiveFolder, archivesIn } from './web/archives.ts';
import type { WebAddress } from './web/listener.ts';
import { WebConfigError } from './web/web-config.ts';
import { noWebConfig, readWebConfig, type WebConfig } from './web/web-config-file.ts';

/** The options of a server, and what depends on several of them at once. */
export interface Settings {
  readonly listen: ListenAddress;
  readonly webListen: readonly WebAddress[];
  readonly webConfigFile: string | undefined;
  readonly webConfig: WebConfig;
  /** Names that a Host header may have, besides addresses and localhost. In lower case. */
  readonly webHosts: ReadonlySet<string>;
  /** Of the releases that hosts can fetch over HTTP; undefined: they can fetch none. */
  readonly archiveFolder: string | undefined;
  /** Answers are compressed for those who accept it. */
  readonly compression: boolean;
  readonly fleetKeyFile: string | undefined;
  readonly fleetKeys: readonly FleetKey[];
  /** Where the revocations are kept; undefined without a fleet key. */
  readonly revocationsFile: string | undefined;
  /** Undefined: there is no such file. */
  readonly revoked: Revocations | undefined;
  readonly stateDir: string | undefined;
  readonly controlSocket: string;
  /** For those who may only look; undefined: none. */
  readonly statusSocket: string | undefined;
  readonly windowMs: number;
  readonly memoryBytesMax: number;
  /** What a scrape job allows, where that is less than the protocol. */
  readonly labelBounds: LabelBounds;
  readonly connectionsMax: number;
  readonly connectionsPerAddressMax: number;
  /** Agents connect without keys, on an address that others can reach. */
  readonly plaintext: boolean;
  /** The databases whose receipts confirm. */
  readonly prometheus: readonly PrometheusSettings[];
}

/** The settings of the commands that ask the running server or make keys. */
export function commandSettings({ values }: ServerOptions): CommandSettings {
  const { controlSocket, statusSocket, json, fleetKeyFile, problems, label } = values;
  const filter = { onlyProblems: problems, labels: label };
  return { controlSocket, statusSocket, json, filter, fleetKeyFile, revocationsFile: revocationsFileOf(values) };
}

/** The settings of `rotate-key`. */
export function rotateSettings(
  options: ServerOptions,
): CommandSettings & { readonly finish: boolean; readonly yes: boolean } {
  return { ...commandSettings(options), finish: options.values.finish, yes: options.values.yes };
}

/** The agent's name that follows the command. */
export function nameArgument(options: ServerOptions): AgentId {
  const [name = ''] = options.arguments;
  const id = agentId(name);
  if (id === undefined) throw new UsageError(`'${name}' is no agent's name: expected ${agentIdRule}`);
  return id;
}

export interface CommandSettings {
  readonly controlSocket: string;
  readonly statusSocket: string | undefined;
  readonly json: boolean;
  readonly filter: AgentFilter;
  readonly fleetKeyFile: string | undefined;
  readonly revocationsFile: string | undefined;
}

/** Beside the fleet key, so that one backup has both. */
function revocationsFileOf({
  revocationsFile,
  fleetKeyFile,
}: Pick<ServerOptions['values'], 'revocationsFile' | 'fleetKeyFile'>): string | undefined {
  if (revocationsFile !== undefined || fleetKeyFile === undefined) return revocationsFile;
  return join(dirname(fleetKeyFile), 'revoked.json');
}

/** A warning where the file of revocations is not there, as after a fleet key was restored alone. */
export function revocationsMissing({
  fleetKeys,
  revocationsFile,
  revoked,
}: Pick<Settings, 'fleetKeys' | 'revocationsFile' | 'revoked'>): string | undefined {
  if (fleetKeys.length === 0 || revocationsFile === undefined || revoked !== undefined) return undefined;
  return (
    `'${revocationsFile}' is missing, so no key is refused: if keys were revoked with this fleet key, restore the file ` +
    "from a backup and reload, else 'sysmon-server enroll' makes an empty one"
  );
}

export function logLevelOf({ values }: ServerOptions): LogLevel {
  return values.logLevel;
}

/** Reads the files that the options name. Throws a UsageError that names each wrong option, and what was expected. */
export function readSettings(options: ServerOptions): Settings {
  const { values } = options;
  const problems = new Problems();
  const fleetKeys = problems.attempt(() => readFleetKeys(values.fleetKeyFile));
  const hasKey = values.fleetKeyFile !== undefined;
  const listen = values.listen ?? { address: hasKey ? '' : '127.0.0.1', port: defaultPort };
  const webListenUsual = { kind: 'tcp', address: hasKey ? '' : '127.0.0.1', port: defaultPort + 1 } as const;
  const plaintext = !hasKey && !isLoopback(listen.address);
  problems.attempt(() => checkPlaintext(options, plaintext));
  problems.attempt(() => checkWindow(options));
  problems.attempt(() => values.stateDir !== undefined && checkStateDir(values.stateDir));
  const revocationsFile = revocationsFileOf(values);
  const revoked = problems.attempt(() =>
    revocationsFile === undefined ? undefined : readRevocations(revocationsFile),
  );
  const webConfig = problems.attempt(() => webConfigAt(values.webConfigFile));
  const prometheus = problems.attempt(() => prometheusSettings(options));
  problems.throwAny();
  return {
    listen,
    webListen: values.webListenAddress.length > 0 ? values.webListenAddress : [webListenUsual],
    webConfigFile: values.webConfigFile,
    webConfig: webConfig!,
    webHosts: hostNames([...values.webHost, ...(values.advertise === undefined ? [] : [values.advertise.host])]),
    archiveFolder: values.webInstall ? archiveFolder : undefined,
    compression: values.webCompression,
    fleetKeyFile: values.fleetKeyFile,
    fleetKeys: fleetKeys!,
    revocationsFile,
    revoked,
    stateDir: values.stateDir,
    controlSocket: values.controlSocket,
    statusSocket: values.statusSocket,
    windowMs: values.window,
    memoryBytesMax: values.memoryMax,
    labelBounds: {
      labels: Math.min(values.labelLimit ?? Infinity, wireLabelBounds.labels),
      nameBytes: Math.min(values.labelNameLengthLimit ?? Infinity, wireLabelBounds.nameBytes),
      valueBytes: Math.min(values.labelValueLengthLimit ?? Infinity, wireLabelBounds.valueBytes),
    },
    connectionsMax: values.connectionsMax,
    connectionsPerAddressMax: values.connectionsPerAddressMax,
    plaintext,
    prometheus: prometheus!,
  };
}

function checkPlaintext(options: ServerOptions, plaintext: boolean): void {
  if (!plaintext || options.values.allowPlaintext) return;
  throw options.refuse(
    'listen',
    'expected a loopback address, or --fleet-key-file so that agents prove who they are, or --allow-plaintext to do without',
  );
}

function checkWindow(options: ServerOptions): void {
  const { window: windowMs, prometheusOutOfOrder: outOfOrderMs = 0 } = options.values;
  const leastMs = windowMs + outOfOrderMarginMs;
  if (windowMs <= windowMsWithoutOutOfOrder || outOfOrderMs >= leastMs) return;
  throw options.refuse(
    'window',
    `expected at most ${durationText(windowMsWithoutOutOfOrder)}, or --prometheus-out-of-order of at least ${durationText(leastMs)}, ` +
      'which is the window and 15 minutes: Prometheus refuses a whole scrape for one sample that is older than its ' +
      'newest minus out_of_order_time_window, and its newest may be of another target, and up to 10 minutes ahead',
  );
}

/** A row for each `--prometheus`, with the options of the same name. */
function prometheusSettings(options: ServerOptions): PrometheusSettings[] {
  const { values } = options;
  const rows = new Map<string, PrometheusSettings>();
  for (const { scraper, value: url } of values.prometheus) {
    if (rows.has(scraper)) throw options.refuse('prometheus', `expected '${scraper}' once`);
    rows.set(scraper, {
      ...{ scraper, url },
      ...{ tokenFile: undefined, user: undefined, passwordFile: undefined, caFile: undefined },
    });
  }
  const add = (
    option: string,
    given: readonly { readonly scraper: string; readonly value: string }[],
    field: 'tokenFile' | 'user' | 'passwordFile' | 'caFile',
  ) => {
    for (const { scraper, value } of given) {
      const row = rows.get(scraper);
      if (row === undefined) throw options.refuse(option, `expected a name of --prometheus, which has no '${scraper}'`);
      if (row[field] !== undefined) throw options.refuse(option, `expected '${scraper}' once`);
      rows.set(scraper, { ...row, [field]: value });
    }
  };
  add('prometheus-token-file', values.prometheusTokenFile, 'tokenFile');
  add('prometheus-user', values.prometheusUser, 'user');
  add('prometheus-password-file', values.prometheusPasswordFile, 'passwordFile');
  add('prometheus-ca-file', values.prometheusCaFile, 'caFile');
  for (const { scraper, url, tokenFile, user, passwordFile, caFile } of rows.values()) {
    const both = tokenFile !== undefined && user !== undefined;
    if (both) throw options.refuse('prometheus-user', `expected a token or a user for '${scraper}', not both`);
    if ((user === undefined) !== (passwordFile === undefined)) {
      throw options.refuse('prometheus-user', `expected a user and a password file for '${scraper}'`);
    }
    if (caFile !== undefined && !url.startsWith('https:')) {
      throw options.refuse('prometheus-ca-file', `expected an https URL for '${scraper}'`);
    }
  }
  return [...rows.values()];
}

/** What the files of a --prometheus hold now. Throws a UsageError that names the option's scraper and the file. */
export function prometheusAccess(settings: PrometheusSettings): Access {
  try {
    return readAccess(settings);
  } catch (error) {
    if (!(error instanceof AccessError)) throw error;
    throw new UsageError(`--prometheus '${settings.scraper}': ${error.message}`);
  }
}

/** This host's name, with and without its domain, and the configured ones. */
function hostNames(given: readonly string[]): Set<string> {
  const own = hostname();
  return new Set([own, own.replace(/\..*$/, ''), ...given].map((name) => name.toLowerCase()));
}

/** The keys of the file; none without a file. */
export function readFleetKeys(path: string | undefined): FleetKey[] {
  if (path === undefined) return [];
  try {
    return parseFleetKeys(readSecretFile(path));
  } catch (error) {
    if (error instanceof SecretFileError) throw new UsageError(`--fleet-key-file: ${error.message}`);
    throw new UsageError(`--fleet-key-file '${path}': ${reasonOf(error)}`);
  }
}

export function webConfigAt(path: string | undefined): WebConfig {
  if (path === undefined) return noWebConfig;
  try {
    return readWebConfig(path);
  } catch (error) {
    if (!(error instanceof WebConfigError || error instanceof SecretFileError)) throw error;
    throw new UsageError(`--web.config.file: ${error.message}`);
  }
}

/** What `enroll` needs to say how a host reaches this server. */
export function reachSettings({ values }: ServerOptions): ReachSettings {
  const { advertise, listen, webListenAddress, webInstall, webConfigFile } = values;
  return {
    ...{
      advertise,
      webListen: webListenAddress.length > 0 ? webListenAddress : [{ kind: 'tcp', address: '', port: defaultPort + 1 }],
    },
    listen: listen ?? { address: '', port: defaultPort },
    archives: webInstall ? archivesIn(archiveFolder) : [],
    webConfigFile,
  };
}

/** Of a server with a fleet key. */
export interface ReachSettings {
  readonly advertise: HostPort | undefined;
  readonly listen: ListenAddress;
  readonly webListen: readonly WebAddress[];
  readonly archives: readonly Archive[];
  readonly webConfigFile: string | undefined;
}

// Prometheus without an out-of-order window refuses what is older than an hour before its newest, which may be that of
// another target, and 10 min ahead.
const windowMsWithoutOutOfOrder = 30 * 60_000;
// Those 10 min, and what passes between an answer's first byte and its samples being stored.
const outOfOrderMarginMs = 15 * 60_000;
