import { randomBytes } from 'node:crypto';
import { hostname, uptime } from 'node:os';
import { bootClock, type Clock } from '../runtime/clock.ts';
import { serveControl } from '../runtime/control.ts';
import { dial, dialLastGood } from '../runtime/dial.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import type { Log } from '../runtime/log.ts';
import { memoryLimitBytes } from '../runtime/memory-limit.ts';
import { changedOptions, isLoopback } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { durationText, plural } from '../runtime/words.ts';
import type { AgentOptions } from './options.ts';
import { readKey, readSettings, type Settings } from './settings.ts';
import { openSpoolFolder, type SpoolFolder, SpoolFolderError } from './spool/folder.ts';
import { spoolMemoryWarning } from './spool/spool.ts';
import { linkLine, pendingText } from './status.ts';
import { hostId } from './uplink/host-id.ts';
import { Agent, newSampler, readsEnd } from './wire-up.ts';

/** Collects and sends until the signal; everything is closed in reverse order. Throws what makes it stop otherwise. */
export async function run(
  options: AgentOptions,
  parts: {
    clock: Clock;
    log: Log;
    lifecycle: Lifecycle;
    /** The options as they would be at a start. */
    reread: () => AgentOptions;
  },
): Promise<void> {
  const { clock, log, lifecycle } = parts;
  const settings = await readSettings(options, hostname());
  const { server, address, spoolDir } = settings;
  let key = settings.key;
  const folder = spoolDir === undefined ? undefined : await openFolder(spoolDir, { clock, log });
  const usable = { ...settings, spoolDir: folder && spoolDir };
  const agent = new Agent({
    ...{ settings: usable, clock, log, random: Math.random },
    boot: bootClock(clock, () => uptime() * 1000),
    disk: folder?.disk,
    dial: dialLastGood((options) => dial({ ...server, ...options, psk: key, timeoutMs: dialTimeoutMs })),
    hostId: hostId({ ...usable, randomBytes }),
    newSampler: (counters) => newSampler(options, { clock, log, counters }),
    onState(state) {
      const line = linkLine(address, state);
      if (line !== undefined) lifecycle.status(line);
    },
  });
  const { failed } = await agent.start();
  const reload = async (): Promise<ReloadReply> => {
    const next = parts.reread();
    await readSettings(next, hostname());
    key = keyOfSameAgent(settings);
    agent.refresh();
    const text = `reloaded${key === undefined ? '' : `: the key is '${key.identity}'`}`;
    const notices = changedOptions(options.changed, next.changed).map(
      (name) => `${name} has changed since the start: a restart applies it ('systemctl restart sysmon-agent')`,
    );
    log.info(text);
    for (const notice of notices) log.warn(notice);
    return { text, notices };
  };
  lifecycle.onReload(async () => void (await reload()));
  const looking = { 'GET status': () => ({ agent: agent.status() }) };
  const control = await serveControl(settings.controlSocket, { ...looking, 'POST reload': reload }, log);
  const { statusSocket } = settings;
  const status = statusSocket === undefined ? undefined : await serveControl(statusSocket, looking, log);

  const waiting = agent.spool.waitingCount;
  log.info(startLine(settings, options.changed, { series: agent.series, waiting }));
  if (settings.key === undefined && !isLoopback(server.host)) {
    log.warn(`reports are sent to ${address} without a key: anyone on the way can read and change them`);
  }
  const memoryWarning = spoolMemoryWarning(settings.bounds, memoryLimitBytes());
  if (memoryWarning !== undefined) log.warn(memoryWarning);
  lifecycle.ready();
  lifecycle.watchdog(() => agent.isAlive);
  await Promise.race([lifecycle.stopped, failed]);

  const { unwrittenReports, isIdle } = await agent.stop();
  await Promise.all([control?.close(), status?.close()]);
  // What hangs there already would hang here too. Without the process nobody holds the folder.
  if (isIdle) await folder?.close();
  const { waitingCount } = agent.spool;
  log.info(`stopped; ${plural(waitingCount, 'unacknowledged report')}${folder === undefined ? '' : ' in the spool'}`);
  if (unwrittenReports > 0) {
    const { diskState } = agent.spool;
    log.warn(
      `the disk is ${diskState?.kind} and lacks ${plural(unwrittenReports, 'report')}: lost, unless the server has them`,
    );
  }
  if (!(await readsEnd(agent, clock))) lifecycle.leave(pendingText(agent.pendingReads));
}

/** What `POST reload` answers. */
export interface ReloadReply {
  readonly text: string;
  readonly notices: readonly string[];
}

/** Undefined where the disk does not answer: the agent runs without it. */
async function openFolder(
  path: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<SpoolFolder | undefined> {
  try {
    return await openSpoolFolder(path, clock);
  } catch (error) {
    if (!(error instanceof SpoolFolderError) || error.code !== 'timeout') throw error;
    log.warn(`${error.message}: keeping reports in memory only until the next start`);
    return undefined;
  }
}

function keyOfSameAgent({ keyFile, agentName }: Settings): Settings['key'] {
  const key = readKey(keyFile);
  if (key === undefined || key.agentName === agentName) return key;
  throw new Error(
    `--key-file: it is now the key of '${key.agentName}', expected one of '${agentName}'; restart to change the name`,
  );
}

function startLine(
  settings: Settings,
  changed: readonly string[],
  { series, waiting }: { series: number; waiting: number },
): string {
  const { address, agentName, key, schedule, spoolDir } = settings;
  return (
    `version ${version}: agent '${agentName}' to ${address} ${key === undefined ? 'without a key' : 'by TLS with its key'}, ` +
    `${plural(series, 'series', 'series')} every ${durationText(schedule.intervalMs)}, ` +
    `spool ${spoolDir === undefined ? 'in memory' : `in '${spoolDir}'`}, ${plural(waiting, 'report')} waiting` +
    `${changed.length > 0 ? `; set: ${changed.join(' ')}` : ''}`
  );
}

// For the name and all of its addresses; two of them have 10 s each.
const dialTimeoutMs = 20_000;
