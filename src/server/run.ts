import { type AgentId, agentId } from '../model/agent-id.ts';
import { limits } from '../protocol/limits.ts';
import type { Clock } from '../runtime/clock.ts';
import { addressText, bytesText, durationText } from '../runtime/config.ts';
import { serveControl } from '../runtime/control.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import { ListenError, listen, listenErrorOf } from '../runtime/listen.ts';
import { type Log, onceAMinute } from '../runtime/log.ts';
import { version } from '../runtime/version.ts';
import { Admission } from './admission.ts';
import { Delivery } from './delivery.ts';
import { Exposition } from './exposition.ts';
import { Fleet } from './fleet.ts';
import { keepHouse } from './housekeeping.ts';
import { serveHttp } from './http.ts';
import type { ServerOptions } from './options.ts';
import { Registry, ServerMetrics } from './self.ts';
import { Session } from './session.ts';
import { readFleetKeys, readSettings } from './settings.ts';
import { cursorsDisk, readRevocations, writeRevocations } from './state-disk.ts';
import { agentsStatus, type StatusSources, serverStatus } from './status.ts';
import { isDelivered } from './tcp-queue.ts';

/** Serves until the signal: opens what is needed in order, and closes it in reverse. Throws what stops it. */
export async function run(
  options: ServerOptions,
  parts: { clock: Clock; log: Log; lifecycle: Lifecycle },
): Promise<void> {
  const { clock, log, lifecycle } = parts;
  const settings = readSettings(options);
  const { listen: agentsAt, webListen, stateDir, windowMs, memoryBytesMax } = settings;
  const seldom = onceAMinute(log, clock);
  const startedAtMs = clock.nowMs();
  let ready = false;

  const metrics = new ServerMetrics(new Registry(), { version, gauges: () => gauges() });
  const fleet = new Fleet(settings.fleetKeys, settings.revoked);
  const exposition = new Exposition({
    onDisagreement(family, agent) {
      metrics.disagreement();
      seldom.warn(
        `type ${family}`,
        `agent '${agent}' gives '${family}' another type than the one that is shown: run one version`,
      );
    },
  });
  const delivery = new Delivery({
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
        const advice = reason === 'age' ? 'raise --window' : 'raise --memory-max';
        seldom.warn(
          `lost ${reason}`,
          `reports leave the window before every scraper has had them; ${advice}, or scrape`,
        );
      },
    },
    cursors: {
      // Two passes of the event loop: whatever had arrived when the first began has been reported after the second.
      turn: async () => {
        await new Promise((resolve) => setImmediate(resolve));
        await new Promise((resolve) => setImmediate(resolve));
      },
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
      onAssumed({ name }, agent) {
        metrics.assumedScraped();
        seldom.warn(
          `assumed ${name}`,
          `scraper '${name}' hung up after an answer and came back after more than 5 min: samples of agent '${agent}' ` +
            'in that answer are not sent again; if they did not arrive there is a gap',
        );
      },
    },
    onStateWritten: () => metrics.stateWrite('done'),
    onStateError(error) {
      metrics.stateWrite('failed');
      seldom.error('state', `cursors in '${stateDir}': ${reasonOf(error)}; agents keep their reports until it works`);
    },
  });
  const status: StatusSources = { clock, delivery, version, startedAtMs, windowMs, memoryBytesMax };
  const admission = new Admission({
    clock,
    log,
    isRevoked: (identity) => fleet.isRevoked(identity),
    onClones: () => metrics.clones(),
  });
  const gauges = () => {
    const server = serverStatus(status);
    return {
      agentsUp: server.agents.up,
      agentsDown: server.agents.known - server.agents.up,
      agentsConnected: server.agents.connected,
      windowBytes: server.windowBytes,
      windowBytesMax: memoryBytesMax,
      windowReports: server.windowReports,
    };
  };

  const http = await serveHttp(
    {
      clock,
      log,
      delivery,
      exposition,
      metrics,
      status,
      windowMs,
      plaintext: settings.plaintext,
      warn: seldom.warn,
      isReady: () => ready,
    },
    { host: webListen.address === '' ? undefined : webListen.address, port: webListen.port },
  ).catch((error: Error) => {
    throw withOption(listenErrorOf(error, webListen.address, webListen.port), 'web.listen-address');
  });
  const sessions = new Set<Promise<void>>();
  const agents = await listen({
    ...agentsAt,
    psk: settings.fleetKeys.length === 0 ? undefined : { keyOf: (identity) => fleet.keyOf(identity) },
    connectionsMax: options.values.connectionsMax,
    connectionsPerAddressMax: options.values.connectionsPerAddressMax,
    handshakeTimeoutMs: limits.tlsHandshakeTimeoutMs,
    onConnection(connection) {
      metrics.connection();
      const session = new Session(connection, {
        clock,
        log,
        delivery,
        admission,
        warn: seldom.warn,
        onEnd: (reason) => metrics.ended(reason),
        onUnknown: () => metrics.unknownFrame(),
      });
      const running = session.run().finally(() => sessions.delete(running));
      sessions.add(running);
    },
    onRefused(reason, peer, error, identity) {
      metrics.refused(reason);
      const claim = identity === undefined ? '' : ` (says it is '${identity}')`;
      seldom.warn(
        `${reason} ${peer.replace(/:\d+$/, '')}`,
        `peer ${peer}${claim} is refused: ${error?.message ?? refusals[reason]}`,
      );
    },
  }).catch((error: unknown) => {
    throw error instanceof ListenError ? withOption(error, 'listen') : error;
  });
  const control = await serveControl(
    options.values.controlSocket,
    {
      status: () => ({ server: serverStatus(status) }),
      agents: () => ({ agents: agentsStatus(status) }),
      revoke: ({ name }) => {
        const id = agentId(String(name));
        if (id === undefined) throw new Error(`'${String(name)}' is no agent's name`);
        return revoke(id);
      },
    },
    log,
  );
  const house = keepHouse(() => {
    delivery.tidy();
    tellStatus();
  });

  const revoke = (id: AgentId): { generation: number } => {
    const generation = fleet.generation(id);
    const revoked = fleet.revoke(id);
    if (stateDir !== undefined) writeRevocations(stateDir, revoked);
    const dropped = admission.dropRevoked();
    delivery.forget(id);
    log.info(`generation ${generation} of agent '${id}' is revoked; ${dropped} connections ended`);
    return { generation };
  };
  lifecycle.onReload(() => {
    fleet.replace(readFleetKeys(options.values.fleetKeyFile), readRevocations(stateDir));
    const dropped = admission.dropRevoked();
    log.info(
      `reloaded: ${fleet.keys.length} fleet keys, ${fleet.revoked.size} revocations; ${dropped} connections ended`,
    );
  });

  ready = true;
  log.info(
    `sysmon-server ${version}: agents on ${addressText(agentsAt.address, agents.port)} ` +
      `${settings.fleetKeys.length > 0 ? 'by TLS with keys' : 'without keys'}, HTTP on ${addressText(webListen.address, http.port)}, ` +
      `window ${durationText(windowMs)}, at most ${bytesText(memoryBytesMax)}` +
      `${options.changed.length > 0 ? `; set: ${options.changed.join(' ')}` : ''}`,
  );
  if (settings.plaintext) {
    log.warn('agents are taken without keys (--allow-plaintext): whoever reaches the port can report under any name');
  }
  lifecycle.ready();
  const tellStatus = () => {
    const { known, up } = serverStatus(status).agents;
    lifecycle.status(`${up} of ${known} agents up`);
  };
  tellStatus();
  lifecycle.watchdog(() => true);
  await lifecycle.stopped;

  log.info('stopping: closing the ports, writing the cursors');
  await house.stop();
  await control?.close();
  await delivery.cursors.settle();
  await http.close(httpGraceMs);
  await agents.close();
  await Promise.all(sessions);
  await delivery.flush();
  log.info('stopped');
}

const refusals = {
  full: 'as many connections as --connections-max allows',
  'full-address': 'as many connections from its address as --connections-per-address-max allows',
  tls: 'no key was proved',
  'handshake-timeout': 'its handshake took too long',
} as const;

// A scrape under way may end; the unit gives 5 s in all.
const httpGraceMs = 2000;

/** An address that cannot be had is mended by an option. */
function withOption(error: ListenError, option: string): ListenError {
  return new ListenError(error.code, `${error.message}; choose another with --${option}`, { cause: error });
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
