import { addressText, type HostPort } from '../../runtime/options.ts';
import { checkWritable, type JoinPlaces, joinFiles } from './files.ts';
import type { JoinInput } from './input.ts';
import { type JoinLine, joinLineText, noJoinLine, parseJoinLine } from './line.ts';
import type { Unit } from './unit.ts';

export interface JoinOptions {
  readonly hostName: string;
  readonly places: JoinPlaces;
  /** What is done with the line. */
  readonly mode: JoinMode;
  /** No line is no error: this host has joined before, or will be enrolled by its own server. */
  readonly mayBeNone: boolean;
  /** The line, from wherever it comes. */
  readInput(): Promise<JoinInput>;
  canWrite(path: string): boolean;
  /** The address that works; throws a JoinError. Undefined: the first of the line counts, and nobody is asked. */
  readonly probe: ((line: JoinLine) => Promise<HostPort>) | undefined;
  readonly unit: Unit;
  /** Waits until the running agent is connected, and says to whom; throws a JoinError. Undefined: nobody waits. */
  readonly connected: (() => Promise<string>) | undefined;
  print(text: string): void;
  warn(text: string): void;
}

export type JoinMode =
  /** Files, unit, connection. */
  | 'join'
  /** Nothing is changed; the line is printed, with the one address that works. A host that has joined needs none. */
  | 'check'
  /** The files alone. */
  | 'files';

/** Makes this host an agent of the server that a join line names, or a new one. The same line changes nothing. */
export async function join(options: JoinOptions): Promise<void> {
  const { hostName, places, mode, canWrite, mayBeNone, print, warn } = options;
  checkWritable(places, canWrite);
  const { text, notices } = await options.readInput();
  if (text.trim() === '' && mayBeNone) return;
  if (text.trim() === '') throw noJoinLine(hostName);
  const line = parseJoinLine(text, hostName);
  for (const notice of notices) warn(notice);
  const known = await alreadyJoined(options, line);
  const server = known ?? (await options.probe?.(line)) ?? line.servers[0]!;
  if (mode === 'check') return print(joinLineText(addressText(server.host, server.port), line.key));
  const files = joinFiles(places, server, line.key);
  const undo = files.write();
  if (mode === 'files') return;
  const { agentName } = line.key;
  const unit = known === undefined ? await restarted(options, undo) : 'running';
  for (const notice of renamed(files.nameBefore, agentName)) warn(notice);
  if (!files.changed) print(`nothing to change: this host has joined as '${agentName}'\n`);
  if (unit === 'none') print(`this host has joined as '${agentName}': start the agent with 'sysmon-agent run'\n`);
  else if (options.connected !== undefined) print(await options.connected());
}

/** The server's address that this host uses already with this key, while its agent runs. */
async function alreadyJoined({ places, unit }: JoinOptions, { servers, key }: JoinLine): Promise<HostPort | undefined> {
  const same = [...servers, ...loopbacks(servers)].find((server) => !joinFiles(places, server, key).changed);
  return same !== undefined && (await unit.state()) === 'active' ? same : undefined;
}

const loopbacks = (servers: readonly HostPort[]): HostPort[] =>
  servers.map(({ port }) => ({ host: '127.0.0.1', port }));

async function restarted({ unit }: JoinOptions, undo: () => void): Promise<'running' | 'none'> {
  const before = await unit.state();
  if (before === undefined) return 'none';
  try {
    await unit.restart();
    return 'running';
  } catch (error) {
    undo();
    await unit.restore(before);
    throw error;
  }
}

function renamed(before: string | undefined, agentName: string): string[] {
  if (before === undefined || before === agentName) return [];
  return [`this host was '${before}' before: 'sudo sysmon-server revoke ${before}' on the server forgets that name`];
}
