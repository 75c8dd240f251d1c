import { askControl } from '../runtime/control.ts';
import type { Log } from '../runtime/log.ts';
import { changedOptions } from '../runtime/options.ts';
import type { Out } from '../runtime/standard-output.ts';
import { plural, printable } from '../runtime/words.ts';
import { fleetKeysText } from './ingest/keys.ts';
import { noRevocations, readRevocations } from './ingest/revocations.ts';
import type { ServerOptions } from './options.ts';
import type { QueryApi } from './prometheus/query-api.ts';
import { commandSettings, prometheusAccess, readFleetKeys, readSettings, type Settings } from './settings.ts';
import type { WebConfigFile } from './web/web-config-file.ts';
import type { Server } from './wire-up.ts';

/** What `POST reload` answers. */
export interface ReloadReply {
  readonly text: string;
  readonly notices: readonly string[];
  /** Connections whose key is no longer valid. */
  readonly ended: number;
}

export interface ReloadParts {
  readonly options: ServerOptions;
  readonly settings: Settings;
  readonly server: Server;
  readonly watched: WebConfigFile | undefined;
  readonly databases: ReadonlyMap<string, QueryApi>;
  readonly log: Log;
  readonly reread: () => ServerOptions;
}

/**
 * The keys, revocations and other files as they are on disk now. Throws where something is wrong, also with what only a
 * start would use; nothing is changed then. What has been revoked stays so, whatever becomes of the file.
 */
export function reloadAll({ options, settings, server, watched, databases, log, reread }: ReloadParts): ReloadReply {
  const { fleetKeyFile, revocationsFile } = settings;
  const next = reread();
  readSettings(next);
  const keys = readFleetKeys(fleetKeyFile);
  const revoked = revocationsFile === undefined ? undefined : readRevocations(revocationsFile);
  const accesses = settings.prometheus.map((each) => ({ scraper: each.scraper, access: prometheusAccess(each) }));

  watched?.reload();
  for (const { scraper, access } of accesses) databases.get(scraper)!.access = access;
  const { ended } = server.reloadKeys(keys, revoked ?? noRevocations);
  const count = server.revoked.size;
  const text = `reloaded: ${fleetKeysText(keys)}, ${plural(count, 'revocation')}; ${plural(ended, 'connection')} ended`;
  const notices = changedOptions(options.changed, next.changed).map(
    (name) => `${name} has changed since the start: a restart applies it ('systemctl restart sysmon-server')`,
  );
  if (revocationsFile !== undefined && revoked === undefined) {
    notices.push(
      `'${revocationsFile}' is missing: keeping the ${plural(count, 'revocation')} in memory; ` +
        "restore it from a backup, or 'sysmon-server enroll' writes them again",
    );
  }
  log.info(text);
  for (const notice of notices) log.warn(notice);
  return { text, notices, ended };
}

/** Has the running server reload its files. A ControlError has the reason where it refuses them. */
export async function reload(options: ServerOptions, out: Out): Promise<number> {
  const { text, notices } = await askReload(commandSettings(options).controlSocket);
  for (const line of [text, ...notices]) out(`${printable(line)}\n`);
  return 0;
}

export async function askReload(controlSocket: string): Promise<ReloadReply> {
  return (await askControl(controlSocket, 'POST reload')) as ReloadReply;
}
