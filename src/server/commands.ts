import { hostname } from 'node:os';
import { askControl, ControlError } from '../runtime/control.ts';
import type { Out } from '../runtime/standard-output.ts';
import { plural, printable } from '../runtime/words.ts';
import { fleetKeysText } from './ingest/keys.ts';
import {
  checkWritable,
  mergeRevocations,
  noRevocations,
  parseRevocations,
  RevocationsError,
  readRevocations,
  writeRevocations,
} from './ingest/revocations.ts';
import type { ServerOptions } from './options.ts';
import { checkPrometheus } from './prometheus/check.ts';
import { QueryApi } from './prometheus/query-api.ts';
import { addressesText, reachOf, realNetwork } from './reach.ts';
import type { RevokeReply } from './run.ts';
import {
  commandSettings,
  nameArgument,
  prometheusAccess,
  reachSettings,
  readSettings,
  revocationsMissing,
} from './settings.ts';
import type { AgentStatus, ServerStatus } from './status.ts';
import { agentsText, isSelected, statusText } from './status-text.ts';
import type { WebAddress } from './web/listener.ts';
import { webConfigText } from './web/web-config-file.ts';
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
  const onDisk = readRevocations(revocationsFile) ?? noRevocations;
  const generationMin = (onDisk.get(id) ?? 0) + 1;
  const reply = await revokeAtServer(controlSocket, { name: id, generation: String(generationMin) });
  const inMemory = reply === undefined ? new Map([[id, generationMin]]) : parseRevocations(reply.file);
  try {
    writeRevocations(revocationsFile, mergeRevocations(onDisk, inMemory));
  } catch (error) {
    if (!(error instanceof RevocationsError) || reply === undefined) throw error;
    const till = `the key of agent '${id}' is refused until the server's next start; revoke it again`;
    throw new RevocationsError('unwritten', `${error.message}; ${till}`, { cause: error });
  }
  const isKnown = reply?.isKnown ?? onDisk.has(id);
  out(
    `the key of generation ${reply?.generation ?? generationMin} of agent '${id}' is revoked; ` +
      `${reply === undefined ? 'the server is not running, and will refuse it once it is' : `${plural(reply.ended, 'connection')} ended`}\n` +
      (isKnown ? '' : `no agent named '${id}' is known: check the name with 'sysmon-server agents'\n`),
  );
  return 0;
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
  const { controlSocket } = commandSettings(options);
  return (await askControl(controlSocket, 'GET agents')) as { server: ServerStatus; agents: AgentStatus[] };
}

/**
 * Reports what a start would find wrong, and what the databases of scrapers say. Opens no port and writes nothing. Returns
 * 3 where one of them has to be corrected: the server would start, and hold what it scrapes.
 */
export async function check(options: ServerOptions, out: Out): Promise<number> {
  const settings = readSettings(options);
  const { agents: addresses } = await reachOf(reachSettings(options), realNetwork(hostname()));
  out(
    `the options are valid: agents connect to port ${settings.listen.port} of ${settings.listen.address || 'all addresses'} ` +
      `${settings.fleetKeys.length === 0 ? 'without keys' : `with keys of ${fleetKeysText(settings.fleetKeys)}, and their join lines say '${addressesText(addresses)}'`}, ` +
      `Prometheus to ${settings.webListen.map(webAddressText).join(' and ')} ${webConfigText(settings.webConfig)}, ` +
      `${settings.stateDir === undefined ? 'cursors in memory' : `cursors in '${settings.stateDir}'`}\n`,
  );
  for (const notice of settings.webConfig.notices) out(`'${settings.webConfigFile}': ${notice}\n`);
  const missing = revocationsMissing(settings);
  if (missing !== undefined) out(`${missing}\n`);
  let hasErrors = false;
  for (const each of settings.prometheus) {
    const { scraper, url } = each;
    const access = prometheusAccess(each);
    const api = new QueryApi(url, access);
    const sendsSecret = access.authorization !== undefined;
    const { notes, errors } = await checkPrometheus(api, { scraper, windowMs: settings.windowMs, sendsSecret });
    api.stop();
    if (notes.length > 0) out(`Prometheus '${scraper}' at ${url}: ${notes.join('; ')}\n`);
    for (const error of errors) out(`Prometheus '${scraper}' at ${url}: error: ${error}\n`);
    hasErrors ||= errors.length > 0;
  }
  return hasErrors ? 3 : 0;
}

function webAddressText(address: WebAddress): string {
  if (address.kind === 'unix') return `the socket '${address.path}'`;
  return `port ${address.port} of ${address.address || 'all addresses'}`;
}
