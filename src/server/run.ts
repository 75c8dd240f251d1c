import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { agentId } from '../model/agent-id.ts';
import { bootClock, type Clock, type HostBoot, runEvery } from '../runtime/clock.ts';
import { type ControlHandlers, serveControl } from '../runtime/control.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import { listen } from '../runtime/listen.ts';
import type { Log } from '../runtime/log.ts';
import { addressText } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { bytesText, durationText, plural } from '../runtime/words.ts';
import { everyDay } from './daily.ts';
import { cursorsDisk } from './delivery/state-disk.ts';
import { fleetKeysText } from './ingest/keys.ts';
import { encodeRevocations, isGeneration } from './ingest/revocations.ts';
import type { ServerOptions } from './options.ts';
import { QueryApi } from './prometheus/query-api.ts';
import { type ReloadReply, reloadAll } from './reload.ts';
import { prometheusAccess, readSettings, revocationsMissing, type Settings } from './settings.ts';
import { openWeb } from './web/listener.ts';
import { WebConfigFile, webConfigText } from './web/web-config-file.ts';
import { type EventLoop, type Revoked, Server } from './wire-up.ts';

/** Serves until the signal; everything is closed in reverse order. Throws what makes it stop otherwise. */
export async function run(
  options: ServerOptions,
  parts: {
    clock: Clock;
    log: Log;
    lifecycle: Lifecycle /** The options as they would be at a start. */;
    reread: () => ServerOptions;
  },
): Promise<void> {
  const { clock, log, lifecycle } = parts;
  const settings = readSettings(options);
  const { stateDir } = settings;
  const { webConfigFile } = settings;
  const watched =
    webConfigFile === undefined ? undefined : new WebConfigFile(webConfigFile, settings.webConfig, { clock, log });
  const databases = new Map(
    settings.prometheus.map((each) => [each.scraper, new QueryApi(each.url, prometheusAccess(each))]),
  );
  const server = new Server({
    databases,
    webConfig: watched ?? { current: settings.webConfig },
    ...{ boot: bootClock(clock, uptimeMs), hostBoot: hostBoot() },
    ...{ settings, clock, log, random: Math.random, loop: nodeLoop, listen, openWeb },
    disk: stateDir === undefined ? undefined : cursorsDisk(stateDir),
  });
  server.metrics.addProcess();
  const ports = await server.start();
  const reload = () => reloadAll({ ...{ options, settings, server, watched, databases, log }, reread: parts.reread });
  const held: PortsReply = {
    ports: [ports.agentsPort, ...ports.webPorts.filter((port) => port !== 0)],
  };
  const looking = lookHandlers(server);
  const acting = { ...controlHandlers(server, reload), 'GET ports': () => held };
  const control = await serveControl(settings.controlSocket, { ...looking, ...acting }, log);
  const { statusSocket } = settings;
  const status = statusSocket === undefined ? undefined : await serveControl(statusSocket, looking, log);
  const showStatus = () => lifecycle.status(statusLine(server));
  const showing = runEvery(clock, statusEveryMs, showStatus);
  const warn = () => {
    for (const warning of standingWarnings(settings)) log.warn(warning);
  };
  const daily = everyDay(warn);
  lifecycle.onReload(() => void reload());

  log.info(startLine(settings, options.changed, ports));
  for (const notice of settings.webConfig.notices) log.info(`'${webConfigFile}': ${notice}`);
  warn();
  const missing = revocationsMissing(settings);
  if (missing !== undefined) log.warn(missing);
  lifecycle.ready();
  showStatus();
  lifecycle.watchdog(() => true);
  await lifecycle.stopped;

  watched?.stop();
  await daily.stop();
  showing.stop();
  await Promise.all([control?.close(), status?.close()]);
  const { ended } = await server.stop();
  log.info(`stopped; ${plural(ended, 'connection')} of agents ended`);
}

const uptimeMs = (): number => uptime() * 1000;

/** Undefined where the kernel has no such file: /proc is not mounted, or it is no Linux. */
function hostBoot(): HostBoot | undefined {
  try {
    return { id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(), uptimeMs };
  } catch {
    return undefined;
  }
}

/** Two passes of the event loop: what had arrived before the first has been handled after the second. */
const nodeLoop: EventLoop = {
  async turn() {
    for (let pass = 0; pass < 2; pass++) await new Promise((resolve) => setImmediate(resolve));
  },
  next: (callback) => void setImmediate(callback),
};

/** For everybody who may look. */
function lookHandlers(server: Server): ControlHandlers {
  return {
    'GET status': () => ({ server: server.status() }),
    'GET agents': () => ({ server: server.status(), agents: server.agents() }),
  };
}

/** What `GET ports` answers: where this server listens. */
export interface PortsReply {
  readonly ports: readonly number[];
}

function controlHandlers(server: Server, reload: () => ReloadReply): ControlHandlers {
  return {
    'POST reload': reload,
    'GET revocations': () => revocationsReply(server),
    'POST forget-scraper': {
      parameters: ['name'],
      answer: ({ name = '' }) => server.forgetScraper(name),
    },
    'POST revoke': {
      parameters: ['name', 'generation'],
      answer: ({ name = '', generation = '' }) => revoke(server, name, generation),
    },
  };
}

/** What `GET revocations` answers: what this server refuses, and by which fleet keys it knows agents. */
export interface RevocationsReply {
  readonly fleetKeyIds: readonly string[];
  /** The text of the file, as it should be. */
  readonly file: string;
}

function revocationsReply({ fleetKeys, revoked }: Server): RevocationsReply {
  return { fleetKeyIds: fleetKeys.map(({ id }) => id), file: encodeRevocations(revoked) };
}

/** What `POST revoke` answers. */
export interface RevokeReply extends Revoked {
  /** The text of the file, as it should be. */
  readonly file: string;
}

/** At once, and until this server ends: the command writes the file. */
function revoke(server: Server, name: string, generation: string): RevokeReply {
  const id = agentId(name);
  if (id === undefined) throw new Error(`'${name}' is no agent's name`);
  const generationMin = Number(generation);
  if (!isGeneration(generationMin)) throw new Error(`'${generation}' is no generation of a key`);
  if (server.fleetKeys.length === 0) {
    throw new Error('agents connect to this server without keys, so there is none to revoke: set --fleet-key-file');
  }
  const revoked = server.revoke(id, generationMin);
  return { ...revoked, file: encodeRevocations(server.revoked) };
}

function startLine(
  { listen: agentsAt, webListen, webConfig, fleetKeys, windowMs, memoryBytesMax }: Settings,
  changed: readonly string[],
  ports: { readonly agentsPort: number; readonly webPorts: readonly number[] },
): string {
  const webAt = webListen.map((each, index) =>
    each.kind === 'unix' ? `unix:${each.path}` : addressText(each.address, ports.webPorts[index] ?? each.port),
  );
  return (
    `version ${version}: agents on ${addressText(agentsAt.address, ports.agentsPort)} ` +
    `${fleetKeys.length > 0 ? `by TLS with keys (${fleetKeysText(fleetKeys)})` : 'without keys'}, ` +
    `HTTP on ${webAt.join(' and ')} ${webConfigText(webConfig)}, ` +
    `window ${durationText(windowMs)}, at most ${bytesText(memoryBytesMax)}` +
    `${changed.length > 0 ? `; set: ${changed.join(' ')}` : ''}`
  );
}

/** Warnings that are logged at the start and once a day. */
function standingWarnings({ plaintext }: Settings): string[] {
  if (!plaintext) return [];
  return ['agents connect without keys (--allow-plaintext): anyone who can reach the port can report under any name'];
}

function statusLine(server: Server): string {
  const { known, up } = server.status().agents;
  return `${up} of ${known} agents up`;
}

// More often nothing would reach systemd.
const statusEveryMs = 5000;
