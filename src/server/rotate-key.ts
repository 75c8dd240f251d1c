import { randomBytes } from 'node:crypto';
import { realpathSync, statSync } from 'node:fs';
import { CodedError } from '../runtime/coded-error.ts';
import { askControl, ControlError } from '../runtime/control.ts';
import { FileLockError, type LockedFile, lockFile } from '../runtime/files.ts';
import { UsageError } from '../runtime/options.ts';
import { readSecretFile } from '../runtime/secret-file.ts';
import type { Out } from '../runtime/standard-output.ts';
import { plural, printable, reasonOf } from '../runtime/words.ts';
import { type FleetKey, fleetKeysText, keyBytes, parseIdentity } from './ingest/keys.ts';
import type { ServerOptions } from './options.ts';
import { askReload } from './reload.ts';
import type { RevocationsReply } from './run.ts';
import { readFleetKeys, rotateSettings } from './settings.ts';
import type { AgentStatus, ServerStatus } from './status.ts';

/** The fleet key was not replaced; the message says why, and what to do. */
export class RotateError extends CodedError<'under-way' | 'not-begun' | 'not-loaded' | 'unwritten'> {
  override readonly name = 'RotateError';
}

export interface RotateParts {
  readonly out: Out;
  /** Asks a person; undefined where nobody is there to answer. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
}

/**
 * Replaces the fleet key in two halves. The first puts a new key before the present one: keys of both are accepted, and
 * `enroll` makes keys of the new one. The second removes the old one, and says before who would be refused.
 */
export async function rotateKey(options: ServerOptions, parts: RotateParts): Promise<number> {
  const { finish, fleetKeyFile, yes, controlSocket } = rotateSettings(options);
  if (fleetKeyFile === undefined) throw options.refuse('fleet-key-file', 'expected the file of the fleet key');
  if (yes && !finish) throw options.refuse('yes', 'expected with --finish, which asks');
  readFleetKeys(fleetKeyFile); // so that what is wrong with it is said before anything else
  const locked = await lock(realpathSync(fleetKeyFile));
  try {
    const file = { locked, keys: readFleetKeys(locked.path) };
    return finish
      ? await finishRotation(file, { ...parts, yes, controlSocket })
      : await beginRotation(file, { ...parts, controlSocket });
  } finally {
    await locked.release();
  }
}

async function lock(path: string): Promise<LockedFile> {
  try {
    return await lockFile(path);
  } catch (error) {
    if (error instanceof FileLockError) throw error;
    throw unwritten(path, error);
  }
}

interface KeyFile {
  readonly locked: LockedFile;
  /** The present one first. */
  readonly keys: readonly FleetKey[];
}

async function beginRotation(
  file: KeyFile,
  { out, controlSocket }: RotateParts & { readonly controlSocket: string },
): Promise<number> {
  const { locked, keys } = file;
  const { path } = locked;
  const [present, retiring] = keys;
  if (retiring !== undefined) {
    throw new RotateError(
      'under-way',
      `'${path}' has two keys already: finish that rotation first, with 'sysmon-server rotate-key --finish'`,
    );
  }
  const isRunning = await checkLoaded(file, controlSocket);
  const before = readSecretFile(path);
  write(locked, `${randomBytes(keyBytes).toString('hex')}\n${before}`);
  const [made] = readFleetKeys(path);
  await reloadOrUndo({ locked, before, isRunning, controlSocket });
  const agents = isRunning ? (await askAgents(controlSocket)).agents : [];
  const holders = holdersOf(present!, agents);
  out(
    `the fleet key is ${made!.id} from now on; agents' keys of ${present!.id} are still accepted` +
      `${isRunning ? '' : ' (once the server runs: it does not run now)'}\n` +
      `${holdersText(holders, present!)}\n` +
      'each of them joins again with a key of the new one:\n\n' +
      '  sudo sysmon-server enroll NAME | ssh NAME sudo sysmon-agent join\n\n' +
      `then 'sudo sysmon-server rotate-key --finish' ends the rotation; until then '${path}' has both keys: back it up\n`,
  );
  return 0;
}

async function finishRotation(
  file: KeyFile,
  { out, ask, yes, controlSocket }: RotateParts & { readonly yes: boolean; readonly controlSocket: string },
): Promise<number> {
  const { locked, keys } = file;
  const { path } = locked;
  const [present, retiring] = keys;
  if (retiring === undefined) {
    throw new RotateError(
      'not-begun',
      `'${path}' has one key, so there is no rotation to finish: 'sysmon-server rotate-key' begins one`,
    );
  }
  const isRunning = await checkLoaded(file, controlSocket);
  const who = isRunning
    ? await remaining(retiring, controlSocket)
    : 'the server is not running, so it cannot say which agents have a key of it';
  if (!yes) {
    const warning = `${who}; without the fleet key ${retiring.id} they are refused until they join again`;
    if (ask === undefined) throw new UsageError(`${warning}: add --yes`);
    if ((await ask(`${warning}. Go on? (yes or no) `)).trim() !== 'yes') throw new UsageError('nothing is changed');
  } else out(`${who}\n`);
  const before = readSecretFile(path);
  write(locked, withoutKey(before, retiring));
  const ended = await reloadOrUndo({ locked, before, isRunning, controlSocket });
  out(
    `the fleet key ${retiring.id} is retired, ${present!.id} is the only one; ` +
      `${ended === undefined ? 'the server is not running' : `${plural(ended, 'connection')} ended`}\n` +
      `back up '${path}'\n`,
  );
  return 0;
}

/** Whether the server runs; if so, it must have the keys of the file. */
async function checkLoaded({ locked: { path }, keys }: KeyFile, controlSocket: string): Promise<boolean> {
  let reply: RevocationsReply;
  try {
    reply = (await askControl(controlSocket, 'GET revocations')) as RevocationsReply;
  } catch (error) {
    if (error instanceof ControlError && error.code === 'not-running') return false;
    throw error;
  }
  const ids = keys.map(({ id }) => id);
  if (reply.fleetKeyIds.join() === ids.join()) return true;
  throw new RotateError(
    'not-loaded',
    `'${path}' has ${fleetKeysText(keys)}, and the running server ${reply.fleetKeyIds.join(', ') || 'none'}: ` +
      "run 'systemctl reload sysmon-server' first",
  );
}

interface AgentsReply {
  readonly server: ServerStatus;
  readonly agents: readonly AgentStatus[];
}

async function askAgents(controlSocket: string): Promise<AgentsReply> {
  return (await askControl(controlSocket, 'GET agents')) as AgentsReply;
}

/** The agents whose last connection was by a key of this one. */
function holdersOf({ id }: FleetKey, agents: readonly AgentStatus[]): readonly AgentStatus[] {
  return agents.filter(({ identity }) => parseIdentity(identity ?? '')?.fleetKeyId === id);
}

function holdersText(holders: readonly AgentStatus[], { id }: FleetKey): string {
  if (holders.length === 0) return `no agent that the server knows has a key of ${id}`;
  const names = holders.map(({ name, connected }) => (connected ? name : `${name} (not connected)`));
  const shown = names.slice(0, namesShownMax).join(', ');
  const more = names.length > namesShownMax ? ` and ${names.length - namesShownMax} more` : '';
  return printable(`${plural(holders.length, 'agent has a key', 'agents have keys')} of ${id}: ${shown}${more}`);
}

async function remaining(retiring: FleetKey, controlSocket: string): Promise<string> {
  const { agents, server } = await askAgents(controlSocket);
  const text = holdersText(holdersOf(retiring, agents), retiring);
  return `${text}; agents that were away since ${server.startedAt}, when the server was started, are not known`;
}

/** The running server takes the file, or it is as it was before. How many connections that ended; undefined if none runs. */
async function reloadOrUndo({
  locked,
  before,
  isRunning,
  controlSocket,
}: {
  readonly locked: LockedFile;
  readonly before: string;
  readonly isRunning: boolean;
  readonly controlSocket: string;
}): Promise<number | undefined> {
  if (!isRunning) return undefined;
  try {
    return (await askReload(controlSocket)).ended;
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    write(locked, before);
    throw new RotateError('not-loaded', `the server does not reload: ${error.message}; '${locked.path}' is as it was`, {
      cause: error,
    });
  }
}

/** With the owner, group and mode that it has. */
function write(file: LockedFile, text: string): void {
  const { mode, gid } = statSync(file.path);
  try {
    file.replace(text, { mode: mode & 0o777, gid });
  } catch (error) {
    throw unwritten(file.path, error);
  }
}

function unwritten(path: string, cause: unknown): RotateError {
  return new RotateError('unwritten', `'${path}' cannot be written: ${reasonOf(cause)}; run this as root`, { cause });
}

/** The text of a key file without the line of one key; comments stay. */
function withoutKey(text: string, key: FleetKey): string {
  const hex = key.bytes.toString('hex');
  return text
    .split('\n')
    .filter((line) => line.trim().toLowerCase() !== hex)
    .join('\n');
}

const namesShownMax = 20;
