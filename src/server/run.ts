import { type AgentId, agentId } from '../model/agent-id.ts';
import { limits } from '../protocol/limits.ts';
import type { Clock } from '../runtime/clock.ts';
import { type ControlRequest, serveControl } from '../runtime/control.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import { ListenError, type Listener, listen, listenErrorOf } from '../runtime/listen.ts';
import { type Log, onceAMinute, type SeldomLog } from '../runtime/log.ts';
import { addressText } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { bytesText, durationText, plural, reasonOf } from '../runtime/words.ts';
import { Delivery } from './delivery/delivery.ts';
import { cursorsDisk } from './delivery/state-disk.ts';
import { Exposition } from './exposition/exposition.ts';
import { keepHouse } from './housekeeping.ts';
import { Admission } from './ingest/admission.ts';
import { AgentConnection } from './ingest/connection.ts';
import { Fleet } from './ingest/key-ring.ts';
import { fleetKeysText } from './ingest/keys.ts';
import { readRevocations, writeRevocations } from './ingest/revocations.ts';
import { FairShare } from './ingest/scheduler.ts';
import type { ServerOptions } from './options.ts';
import { Registry, ServerMetrics } from './own-metrics.ts';
import { readFleetKeys, readSettings, type Settings } from './settings.ts';
import { agentsStatus, type StatusSources, serverGauges, serverStatus } from './status.ts';
import { type HttpOptions, type HttpServer, serveHttp } from './web/http.ts';
import { isDelivered } from './web/tcp-queue.ts';

/** Serves until the signal: opens what is needed in order, and closes it in reverse. Throws what stops it. */
export async function run(
  options: ServerOptions,
  parts: { clock: Clock; log: Log; lifecycle: Lifecycle },
): Promise<void> {
  const { clock, log, lifecycle } = parts;
  const settings = readSettings(options);
  const server = assemble(settings, clock, log);
  const closing: (() => Promise<void> | undefined)[] = [() => server.delivery.flush()];
  try {
    const http = await openHttp(server);
    closing.push(() => http.close(httpGraceMs));
    const agents = await openAgents(server, options.values);
    closing.push(() => agents.close());
    const control = await serveControl(options.values.controlSocket, controlHandlers(server), log);
    closing.push(() => control?.close());
    const house = keepHouse(() => {
      server.delivery.tidy();
      lifecycle.status(statusLine(server.status));
    });
    closing.push(() => house.stop());
    lifecycle.onReload(() => reload(server, options.values.fleetKeyFile));

    server.isReady = true;
    log.info(startLine(server, options, { agents, http }));
    if (settings.plaintext) {
      log.warn('agents are taken without keys (--allow-plaintext): whoever reaches the port can report under any name');
    }
    lifecycle.ready();
    lifecycle.status(statusLine(server.status));
    lifecycle.watchdog(() => true);
    await lifecycle.stopped;
  } finally {
    for (const close of closing.reverse()) await close();
  }
  log.info('stopped: the ports are closed, the cursors written');
}

/** The parts that know each other for as long as the program runs. */
interface Server {
  readonly clock: Clock;
  readonly log: Log;
  readonly seldom: SeldomLog;
  readonly settings: Settings;
  readonly metrics: ServerMetrics;
  readonly fleet: Fleet;
  readonly delivery: Delivery;
  readonly admission: Admission;
  readonly fairShare: FairShare;
  readonly status: StatusSources;
  isReady: boolean;
}

function assemble(settings: Settings, clock: Clock, log: Log): Server {
  const { windowMs, memoryBytesMax } = settings;
  const seldom = onceAMinute(log, clock);
  const fleet = new Fleet(settings.fleetKeys, settings.revoked);
  const metrics: ServerMetrics = new ServerMetrics(new Registry(), { version, gauges: () => serverGauges(status) });
  const delivery = openDelivery(settings, { clock, metrics, seldom });
  const status: StatusSources = {
    clock,
    delivery,
    version,
    startedAtMs: clock.nowMs(),
    windowMs,
    memoryBytesMax,
  };
  const admission = new Admission({
    clock,
    log,
    isRevoked: (identity) => fleet.isRevoked(identity),
    onClones: () => metrics.clones(),
  });
  const fairShare = new FairShare({ clock, nextTurn: (callback) => void setImmediate(callback) });
  return { clock, log, seldom, settings, metrics, fleet, delivery, admission, fairShare, status, isReady: false };
}

/** Delivery, with every event counted, and told to the log where a person should do something. */
function openDelivery(
  { stateDir, windowMs, memoryBytesMax }: Settings,
  { clock, metrics, seldom }: { clock: Clock; metrics: ServerMetrics; seldom: SeldomLog },
): Delivery {
  return new Delivery({
    clock,
    windowMs,
    disk: stateDir === undefined ? undefined : cursorsDisk(stateDir),
    store: {
      memoryBytesMax,
      forgetAfterMs: 24 * 3_600_000,
      onReport: (outcome) => metrics.report(outcome),
      onEvict(reason, unscraped) {
        metrics.evicted(reason, unscraped);
        if (!unscraped) return;
        const advice = reason === 'age' ? '--window' : '--memory-max';
        seldom.warn(
          `lost ${reason}`,
          `reports left the window before every scraper had them: scrape, or raise ${advice}`,
        );
      },
    },
    cursors: {
      turn: wholeTurn,
      delivered: ({ socket }) => socket === undefined || isDelivered(socket),
      onCommitted: () => {},
      onRollBack: (_scraper, kind) => metrics.rollback(kind),
      onConflict({ name }) {
        metrics.conflict(name);
        seldom.warn(
          `conflict ${name}`,
          `two connections scrape as '${name}' at once; each is given everything, some samples come twice: ` +
            'give each Prometheus or job a name of its own with ?scraper=NAME (params: {scraper: [NAME]})',
        );
      },
      onForgotten: ({ name, selection }) => metrics.forgetScraper(name, selection),
    },
    onStateWritten: () => metrics.stateWrite('done'),
    onStateError(error) {
      metrics.stateWrite('failed');
      seldom.error('state', `cursors in '${stateDir}': ${reasonOf(error)}; agents keep their reports until it works`);
    },
  });
}

function openHttp(server: Server): Promise<HttpServer> {
  const { clock, log, delivery, metrics, status, settings, seldom } = server;
  const { address, port } = settings.webListen;
  const exposition = new Exposition({
    onDisagreement(family, agent) {
      metrics.disagreement();
      seldom.warn(
        `type ${family}`,
        `agent '${agent}' gives '${family}' another type than the one that is shown: run one version everywhere`,
      );
    },
  });
  const options: HttpOptions = {
    clock,
    log,
    delivery,
    exposition,
    metrics,
    status,
    windowMs: settings.windowMs,
    plaintext: settings.plaintext,
    warn: seldom.warn,
    isReady: () => server.isReady,
  };
  return serveHttp(options, { host: address === '' ? undefined : address, port }).catch((error: Error) => {
    throw withOption(listenErrorOf(error, address, port), 'web.listen-address');
  });
}

/** The agents' port. Closing it waits for the connections, so that what they knew goes into the cursors' file. */
async function openAgents(server: Server, values: ServerOptions['values']): Promise<Listener> {
  const { settings, fleet, metrics, seldom } = server;
  const running = new Set<Promise<void>>();
  const listener = await listen({
    ...settings.listen,
    psk: settings.fleetKeys.length === 0 ? undefined : { keyOf: (identity) => fleet.keyOf(identity) },
    connectionsMax: values.connectionsMax,
    connectionsPerAddressMax: values.connectionsPerAddressMax,
    handshakeTimeoutMs: limits.tlsHandshakeTimeoutMs,
    onConnection(connection) {
      metrics.connection();
      const agent = new AgentConnection(connection, {
        ...server,
        warn: seldom.warn,
        onEnd: (reason) => metrics.ended(reason),
        onUnknown: () => metrics.unknownFrame(),
      });
      const ended = agent.run().finally(() => running.delete(ended));
      running.add(ended);
    },
    onRefused(reason, peer, error, identity) {
      metrics.refused(reason);
      const claim = identity === undefined ? '' : ` (says it is '${identity}')`;
      const address = peer.replace(/:\d+$/, '');
      seldom.warn(`${reason} ${address}`, `peer ${peer}${claim} is refused: ${error?.message ?? refusals[reason]}`);
    },
  }).catch((error: unknown) => {
    throw error instanceof ListenError ? withOption(error, 'listen') : error;
  });
  return {
    port: listener.port,
    get connections() {
      return listener.connections;
    },
    async close() {
      await listener.close();
      await Promise.all(running);
    },
  };
}

const refusals = {
  full: 'as many connections as --connections-max allows',
  'full-address': 'as many connections from its address as --connections-per-address-max allows',
  tls: 'no key was proved',
  'handshake-timeout': 'its handshake took too long',
} as const;

function controlHandlers(server: Server) {
  const { status } = server;
  return {
    status: () => ({ server: serverStatus(status) }),
    agents: () => ({ agents: agentsStatus(status) }),
    revoke({ name }: ControlRequest) {
      const id = agentId(String(name));
      if (id === undefined) throw new Error(`'${String(name)}' is no agent's name`);
      return revoke(server, id);
    },
  };
}

/** Refuses the agent's present key from now on, and ends its connection. */
function revoke({ fleet, settings, admission, delivery, log }: Server, id: AgentId): { generation: number } {
  if (fleet.keys.length === 0) {
    throw new Error('this server takes agents without keys, so that none can be refused; give it a --fleet-key-file');
  }
  const generation = fleet.generation(id);
  const revoked = fleet.revoke(id);
  const ended = admission.dropRevoked();
  delivery.forget(id);
  log.info(`generation ${generation} of agent '${id}' is revoked; ${plural(ended, 'connection')} ended`);
  try {
    if (settings.stateDir !== undefined) writeRevocations(settings.stateDir, revoked);
  } catch (error) {
    throw new Error(`generation ${generation} of '${id}' is refused, but only until this server ends: ${error}`);
  }
  return { generation };
}

/** SIGHUP: keys and revocations as they are on disk now. */
function reload({ fleet, settings, admission, log }: Server, fleetKeyFile: string | undefined): void {
  // Without a folder, those of this run are all there are.
  const revoked = settings.stateDir === undefined ? fleet.revoked : readRevocations(settings.stateDir);
  fleet.replace(readFleetKeys(fleetKeyFile), revoked);
  const ended = admission.dropRevoked();
  log.info(
    `reloaded: ${fleetKeysText(fleet.keys)}, ${plural(revoked.size, 'revocation')}; ${plural(ended, 'connection')} ended`,
  );
}

function startLine(
  { settings }: Server,
  options: ServerOptions,
  ports: { readonly agents: Listener; readonly http: HttpServer },
): string {
  const { listen: agentsAt, webListen, fleetKeys, windowMs, memoryBytesMax } = settings;
  const changed = options.changed.length > 0 ? `; set: ${options.changed.join(' ')}` : '';
  return (
    `sysmon-server ${version}: agents on ${addressText(agentsAt.address, ports.agents.port)} ` +
    `${fleetKeys.length > 0 ? `by TLS with keys (${fleetKeysText(fleetKeys)})` : 'without keys'}, ` +
    `HTTP on ${addressText(webListen.address, ports.http.port)}, ` +
    `window ${durationText(windowMs)}, at most ${bytesText(memoryBytesMax)}${changed}`
  );
}

function statusLine(sources: StatusSources): string {
  const { known, up } = serverStatus(sources).agents;
  return `${up} of ${known} agents up`;
}

/** An address that cannot be had is mended by an option. */
function withOption(error: ListenError, option: string): ListenError {
  return new ListenError(error.code, `${error.message}; choose another with --${option}`, { cause: error });
}

/** Two passes of the event loop: whatever had arrived when the first began has been reported after the second. */
async function wholeTurn(): Promise<void> {
  for (let pass = 0; pass < 2; pass++) await new Promise((resolve) => setImmediate(resolve));
}

// A scrape under way may end; the unit gives 5 s in all.
const httpGraceMs = 2000;
