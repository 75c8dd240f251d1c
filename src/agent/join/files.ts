import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { readIfThere } from '../../runtime/files.ts';
import { addressText, type HostPort, UsageError } from '../../runtime/options.ts';
import { codeOf, reasonOf } from '../../runtime/words.ts';
import { type AgentKey, encodeKeyFile, parseKeyFile } from '../key-file.ts';
import { JoinError } from './error.ts';

/** Where an agent that joins keeps what it is given. */
export interface JoinPlaces {
  readonly keyFile: string;
  /** Its options: the file of `--config.file`. */
  readonly envFile: string;
  /** The group of the unit's user, which reads the key. */
  readonly group: string;
}

/** Changes to files, none of which has been made yet. */
export interface JoinFiles {
  readonly changed: boolean;
  /** The name under which this host has joined before, if any. */
  readonly nameBefore: string | undefined;
  /** Each file is whole at every moment. Returns how to undo it. Throws a JoinError if one cannot be written. */
  write(): () => void;
}

/** What has to be written for an agent with this key and this server. */
export function joinFiles(places: JoinPlaces, server: HostPort, key: AgentKey): JoinFiles {
  const { keyFile, envFile } = places;
  const env = realPath(envFile);
  const envBefore = readIfThere(env);
  const changes = [
    keyChange(places, encodeKeyFile(key.identity, key.key.toString('hex'))),
    textChange(
      env,
      envBefore,
      withOptions(envBefore ?? '', {
        SYSMON_SERVER: addressText(server.host, server.port),
        SYSMON_NAME: key.agentName,
        SYSMON_KEY_FILE: keyFile,
      }),
    ),
  ].filter((change) => change !== undefined);
  return {
    changed: changes.length > 0,
    nameBefore: parseKeyFile(readIfThere(keyFile) ?? '')?.agentName,
    write: () => writeAll(changes),
  };
}

/** Whether this user can write both. Throws a UsageError that says how, before anybody is asked for a key. */
export function checkWritable({ keyFile, envFile }: JoinPlaces, canWrite: (path: string) => boolean): void {
  for (const folder of new Set([dirname(keyFile), dirname(realPath(envFile))])) {
    if (statSync(folder, { throwIfNoEntry: false }) !== undefined && !canWrite(folder)) {
      throw new UsageError(`you may not write to '${folder}': run 'sudo sysmon-agent join'`);
    }
  }
}

/**
 * Sets options in the text of a file of options: each in the place of the line that sets it, or that documents it. A line
 * further down that sets it again would win, and goes.
 */
export function withOptions(text: string, values: Readonly<Record<string, string>>): string {
  const lines = text === '' ? [] : text.replace(/\n$/, '').split('\n');
  for (const [name, value] of Object.entries(values)) {
    const setting = new RegExp(`^\\s*${name}\\s*=`);
    const set = lines.flatMap((line, index) => (setting.test(line) ? [index] : []));
    const documented = lines.findIndex((line) => line.startsWith(`#${name}=`));
    const place = set[0] ?? (documented === -1 ? lines.length : documented);
    // One that says the same already stays as it is written.
    const last = lines[set.at(-1) ?? -1]?.replace(setting, '').trim();
    if (last !== value) lines[place] = `${name}=${value}`;
    else if (set.length > 1) lines[place] = lines[set.at(-1)!]!;
    for (const index of set.slice(1).reverse()) lines.splice(index, 1);
  }
  return `${lines.join('\n')}\n`;
}

interface Change {
  readonly path: string;
  readonly text: string;
  readonly mode: number;
  /** Undefined: those of who writes it. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
}

/** For root and the group of the unit's user; without such a user for who joins. */
function keyChange({ keyFile, group }: JoinPlaces, text: string): Change | undefined {
  const gid = process.getuid?.() === 0 ? groupId(group) : undefined;
  const owner = gid === undefined ? undefined : { uid: 0, gid };
  const mode = gid === undefined ? 0o400 : 0o440;
  const stat = statSync(keyFile, { throwIfNoEntry: false });
  const isSame =
    stat !== undefined &&
    (stat.mode & 0o777) === mode &&
    (owner === undefined || (stat.uid === owner.uid && stat.gid === owner.gid)) &&
    readFileSync(keyFile, 'utf8') === text;
  return isSame ? undefined : { path: keyFile, text, mode, owner };
}

function textChange(path: string, before: string | undefined, text: string): Change | undefined {
  if (before === text) return undefined;
  const stat = statSync(path, { throwIfNoEntry: false });
  return { path, text, mode: stat === undefined ? 0o644 : stat.mode & 0o777, owner: ownerOf(stat) };
}

const ownerOf = (stat: Stats | undefined): Change['owner'] =>
  stat === undefined || process.getuid?.() !== 0 ? undefined : { uid: stat.uid, gid: stat.gid };

function writeAll(changes: readonly Change[]): () => void {
  const undone: (() => void)[] = [];
  const undo = () => {
    for (const each of undone.splice(0).reverse()) each();
  };
  for (const change of changes) {
    try {
      undone.push(replace(change));
    } catch (error) {
      undo();
      throw new JoinError('files', `'${change.path}' cannot be written: ${reasonOf(error)}`, { cause: error });
    }
  }
  return undo;
}

/** Written beside, renamed when it is on disk, and at no moment readable for others. What was there is kept until then. */
function replace({ path, text, mode, owner }: Change): () => void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const stat = statSync(path, { throwIfNoEntry: false });
  const before = stat === undefined ? undefined : readFileSync(path, 'utf8');
  const beside = `${path}.part`;
  rmSync(beside, { force: true });
  writeFileSync(beside, text, { mode: 0o400, flush: true, flag: 'wx' });
  if (owner !== undefined) chownSync(beside, owner.uid, owner.gid);
  chmodSync(beside, mode);
  renameSync(beside, path);
  if (stat === undefined || before === undefined) return () => rmSync(path, { force: true });
  return () => void replace({ path, text: before, mode: stat.mode & 0o777, owner: ownerOf(stat) });
}

/** Of a group in /etc/group, where systemd-sysusers and Debian's packages make those of services. */
function groupId(name: string): number | undefined {
  const line = readIfThere('/etc/group')
    ?.split('\n')
    .find((each) => each.startsWith(`${name}:`));
  return line === undefined ? undefined : Number(line.split(':')[2]);
}

/** A link stays one. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return path;
    throw error;
  }
}
