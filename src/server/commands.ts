import type { AgentId } from '../model/agent-id.ts';
import { askControl, askToLook, ControlError } from '../runtime/control.ts';
import type { LockedFile } from '../runtime/files.ts';
import type { Out } from '../runtime/standard-output.ts';
import { plural, printable } from '../runtime/words.ts';
import {
  checkWritable,
  lockRevocations,
  mergeRevocations,
  noRevocations,
  parseRevocations,
  RevocationsError,
  readRevocations,
  writeRevocations,
} from './ingest/revocations.ts';
import type { ServerOptions } from './options.ts';
import type { RevokeReply } from './run.ts';
import { commandSettings, nameArgument } from './settings.ts';
import type { AgentStatus, ServerStatus } from './status.ts';
import { agentsText, isSelected, statusText } from './status-text.ts';
import type { ForgottenScraper } from './wire-up.ts';

// The commands beside `run`: each prints to `out` and returns the exit code.

/**
 * Refuses an agent's present key: at once where the server runs, else from its next start on. The file is written here, by
 * whoever may write beside the fleet key: the server has no right to.
 */
export async function revoke(options: ServerOptions, out: Out): Promise<number> {
  const id = nameArgument(options);
  const { controlSocket, revocationsFile } = commandSettings(options);
  if (revocationsFile === undefined) {
    throw options.refuse('fleet-key-file', 'expected the file of the fleet key, beside which the revocations are kept');
  }
  checkWritable(revocationsFile);
  const file = await lockRevocations(revocationsFile);
  try {
    out(await revokeIn(file, { id, controlSocket }));
  } finally {
    await file.release();
  }
  return 0;
}

/** Returns what was done. */
async function revokeIn(
  file: LockedFile,
  { id, controlSocket }: { readonly id: AgentId; readonly controlSocket: string },
): Promise<string> {
  const onDisk = readRevocations(file.path) ?? noRevocations;
  const generationMin = (onDisk.get(id) ?? 0) + 1;
  const reply = await revokeAtServer(controlSocket, { name: id, generation: String(generationMin) });
  const inMemory = reply === undefined ? new Map([[id, generationMin]]) : parseRevocations(reply.file);
  try {
    writeRevocations(file, mergeRevocations(onDisk, inMemory));
  } catch (error) {
    if (!(error instanceof RevocationsError) || reply === undefined) throw error;
    const till = `the key of agent '${id}' is refused until the server's next start; revoke it again`;
    throw new RevocationsError('unwritten', `${error.message}; ${till}`, { cause: error });
  }
  const isKnown = reply?.isKnown ?? onDisk.has(id);
  return (
    `the key of generation ${reply?.generation ?? generationMin} of agent '${id}' is revoked; ` +
    `${reply === undefined ? 'the server is not running, and will refuse it once it is' : `${plural(reply.ended, 'connection')} ended`}\n` +
    (isKnown ? '' : `no agent named '${id}' is known: check the name with 'sysmon-server agents'\n`)
  );
}

/** Undefined if it does not run. */
async function revokeAtServer(
  controlSocket: string,
  parameters: Readonly<Record<'name' | 'generation', string>>,
): Promise<RevokeReply | undefined> {
  try {
    return (await askControl(controlSocket, 'POST revoke', { parameters })) as RevokeReply;
  } catch (error) {
    if (error instanceof ControlError && error.code === 'not-running') return undefined;
    throw error;
  }
}

/** Forgets a scraper that does not come back, so that agents' reports are no longer held for it. */
export async function forgetScraper(options: ServerOptions, out: Out): Promise<number> {
  const [name = ''] = options.arguments;
  const { controlSocket } = commandSettings(options);
  const reply = await askControl(controlSocket, 'POST forget-scraper', { parameters: { name } });
  const { cursors, freedReports } = reply as ForgottenScraper;
  out(
    `scraper '${printable(name)}' is forgotten: ${plural(cursors, 'cursor')} removed, ` +
      `${plural(freedReports, 'report')} no longer held for it\n`,
  );
  return 0;
}

export async function agents(options: ServerOptions, parts: { readonly nowMs: number; out: Out }): Promise<number> {
  const { json, filter } = commandSettings(options);
  const { server, agents: all } = await askAgents(options);
  const present = { nowMs: parts.nowMs, startedAtMs: Date.parse(server.startedAt) };
  const selected = all.filter((agent) => isSelected(agent, filter, present));
  parts.out(json ? `${JSON.stringify(selected, undefined, 2)}\n` : agentsText(selected, all.length, present));
  return 0;
}

export async function status(options: ServerOptions, parts: { readonly nowMs: number; out: Out }): Promise<number> {
  const { json } = commandSettings(options);
  const { server, agents: all } = await askAgents(options);
  const present = { nowMs: parts.nowMs, startedAtMs: Date.parse(server.startedAt) };
  parts.out(json ? `${JSON.stringify(server, undefined, 2)}\n` : statusText(server, all, present));
  return 0;
}

async function askAgents(options: ServerOptions) {
  return (await askToLook(commandSettings(options), 'GET agents')) as { server: ServerStatus; agents: AgentStatus[] };
}
