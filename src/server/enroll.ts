import { fchmodSync, fstatSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { AgentId } from '../model/agent-id.ts';
import { askControl, ControlError } from '../runtime/control.ts';
import { FileLockError } from '../runtime/files.ts';
import { UsageError } from '../runtime/options.ts';
import type { Out } from '../runtime/standard-output.ts';
import { plural } from '../runtime/words.ts';
import { fetchCommand, installBase, likeliest, sshCommand } from './host-command.ts';
import { KeyRing } from './ingest/key-ring.ts';
import {
  lockRevocations,
  noRevocations,
  parseRevocations,
  type Revocations,
  RevocationsError,
  readRevocations,
  writeRevocations,
} from './ingest/revocations.ts';
import type { ServerOptions } from './options.ts';
import { addressesText, type Network, type Reach, reachOf } from './reach.ts';
import type { RevocationsReply } from './run.ts';
import {
  commandSettings,
  nameArgument,
  type ReachSettings,
  reachSettings,
  readFleetKeys,
  webConfigAt,
} from './settings.ts';
import { archiveFolder, sha256Of } from './web/archives.ts';
import type { WebConfig } from './web/web-config-file.ts';

/** The first word of a join line; the number changes when its meaning does. */
export const joinVersion = 'sysmon-join-v1';

export interface EnrollParts {
  readonly network: Network;
  /** Of this machine, as Node calls it. */
  readonly architecture: string;
  /** A person reads the output: it says how to go on. */
  readonly isTerminal: boolean;
  readonly out: Out;
  /** A line for a person, beside the output. */
  readonly warn: Out;
}

/**
 * Prints the join line of an agent. It holds the key, so it must not be put on a command line, where `ps` shows it. At a
 * terminal, the commands with which the host joins follow; no key is in them. Makes the file of revocations where there is
 * none.
 */
export async function enroll(options: ServerOptions, parts: EnrollParts): Promise<number> {
  const { network, isTerminal, out, warn } = parts;
  const id = nameArgument(options);
  const { identity, key, makeRevocations } = await enrolled(options, id);
  const settings = reachSettings(options);
  const reach = await reachOf(settings, network);
  for (const notice of [...reach.notices, ...protectOutput()]) warn(notice);
  out(`${joinVersion} ${addressesText(reach.agents)} ${identity} ${key.toString('hex')}\n`);
  await makeRevocations(warn);
  if (isTerminal) out(await nextSteps(id, { settings, reach, architecture: parts.architecture }));
  return 0;
}

interface Enrolled {
  readonly identity: string;
  readonly key: Buffer;
  /** Makes the file of revocations where there is none. */
  makeRevocations(warn: Out): Promise<void>;
}

async function enrolled(options: ServerOptions, id: AgentId): Promise<Enrolled> {
  const { fleetKeyFile, revocationsFile, controlSocket } = commandSettings(options);
  if (fleetKeyFile === undefined || revocationsFile === undefined) {
    throw options.refuse('fleet-key-file', "expected the file of the fleet key, from which the agent's is derived");
  }
  const fleetKeys = readFleetKeys(fleetKeyFile);
  const onDisk = readRevocations(revocationsFile);
  const revoked = onDisk ?? (await revokedByServer(controlSocket, fleetKeys[0]?.id)) ?? noRevocations;
  const made = new KeyRing(fleetKeys, revoked).enroll(id);
  if (made === undefined) throw new UsageError(`--fleet-key-file '${fleetKeyFile}': expected a key`);
  return {
    ...made,
    makeRevocations: async (warn) => {
      if (onDisk === undefined) await makeRevocations(revocationsFile, revoked, warn);
    },
  };
}

/** What the running server refuses; undefined if none runs with this fleet key. */
async function revokedByServer(controlSocket: string, fleetKeyId = ''): Promise<Revocations | undefined> {
  try {
    const { fleetKeyIds, file } = (await askControl(controlSocket, 'GET revocations')) as RevocationsReply;
    return fleetKeyIds.includes(fleetKeyId) ? parseRevocations(file) : undefined;
  } catch (error) {
    if (error instanceof ControlError && (error.code === 'not-running' || error.code === 'denied')) return undefined;
    throw error;
  }
}

/** The join line has been printed: whatever happens here is a warning. */
async function makeRevocations(path: string, revoked: Revocations, warn: Out): Promise<void> {
  try {
    const file = await lockRevocations(path);
    try {
      // Another command may have made it meanwhile.
      if (readRevocations(path) !== undefined) return;
      writeRevocations(file, revoked);
    } finally {
      await file.release();
    }
  } catch (error) {
    if (!(error instanceof RevocationsError || error instanceof FileLockError || error instanceof UsageError))
      throw error;
    return warn(error.message);
  }
  warn(
    `'${path}' was missing, and was made with ${plural(revoked.size, 'revocation')}: ` +
      'if keys were revoked with this fleet key, restore the file from a backup',
  );
}

/** Standard output that is a file that others can read, as `>FILE` makes it. */
function protectOutput(): string[] {
  const stat = fstatSync(1);
  if (!stat.isFile() || (stat.mode & 0o077) === 0) return [];
  const remedy = 'it holds the key: delete it after the host has joined';
  if (stat.size > 0) return [`others can read the file that this is written to; ${remedy}`];
  fchmodSync(1, 0o600);
  return [`the file that this is written to is for you alone now (mode 0600); ${remedy}`];
}

/** How the host joins, for a person. */
async function nextSteps(
  id: AgentId,
  options: { readonly settings: ReachSettings; readonly reach: Reach; readonly architecture: string },
): Promise<string> {
  const { settings, reach, architecture } = options;
  const { archives, webListen } = settings;
  const lines = [
    '',
    `This line holds the key of '${id}'. Where sysmon-agent is installed, this command asks for it:`,
    '',
    '  sudo sysmon-agent join',
  ];
  const archive = likeliest(archives, architecture);
  if (archive === undefined) {
    const fromPackage = archiveFolder.startsWith(debianFolder) ? ', which sysmon-agent-archives brings' : '';
    const why = `there is no release archive in '${archiveFolder}'${fromPackage}, or --web.install is off`;
    return `${[...lines, '', `On a host without it, run 'sudo ./install.sh agent' of a release (${why}).`].join('\n')}\n`;
  }
  const webConfig = usableWebConfig(settings);
  // The name alone may be unknown to the host; an address that is there too is not.
  const base = webConfig && installBase(webListen, webConfig, reach.agents.at(-1)!.host);
  if (base !== undefined) {
    const offered = await Promise.all(archives.map(async (each) => ({ ...each, sha256: await sha256Of(each) })));
    lines.push(
      '',
      'On a host that has nothing, this fetches the release from this server, checks it, installs it, and asks for the line:',
      '',
      `  ${fetchCommand(base, offered)}`,
      '',
      'Where the host has neither curl nor wget, or cannot reach the HTTP port, on this host:',
    );
  } else lines.push('', 'On a host that has nothing, this installs the release and joins; run it on this host:');
  lines.push('', `  ${sshCommand(id, archive)}`);
  const others = archives.filter((each) => each !== archive).map(({ path }) => basename(path));
  if (others.length > 0)
    lines.push('', `  (for another machine with ${others.join(', ')} in '${dirname(archive.path)}')`);
  return `${lines.join('\n')}\n`;
}

/** Where the Debian package puts the program. */
const debianFolder = '/usr/lib/sysmon-server/';

/** Undefined where the server itself could not use it. */
function usableWebConfig({ webConfigFile }: ReachSettings): WebConfig | undefined {
  try {
    return webConfigAt(webConfigFile);
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}
