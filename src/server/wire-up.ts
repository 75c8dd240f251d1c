import type { AgentId } from '../model/agent-id.ts';
import { ProtocolError } from '../protocol/errors.ts';
import { type BootClock, type Clock, type HostBoot, runEvery } from '../runtime/clock.ts';
import { ListenError, type Listener, type ListenOptions } from '../runtime/listen.ts';
import { type Log, onceAMinute, type SeldomLog } from '../runtime/log.ts';
import { isLoopback } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { plural, reasonOf, secondsText } from '../runtime/words.ts';
import { AgentsLog } from './agents-log.ts';
import { Delivery, type DeliveryOptions } from './delivery/delivery.ts';
import type { ScraperDatabase } from './delivery/receipts.ts';
import { scraperNameOf, scraperText } from './delivery/scraper.ts';
import { type StateDisk, StateFileError } from './delivery/state-file.ts';
import { Exposition } from './exposition/exposition.ts';
import { Admission } from './ingest/admission.ts';
import { openIngest } from './ingest/ingest.ts';
import { KeyRing } from './ingest/key-ring.ts';
import { type FleetKey, parseIdentity } from './ingest/keys.ts';
import { noRevocations, type Revocations } from './ingest/revocations.ts';
import { FrameScheduler } from './ingest/scheduler.ts';
import { Registry, ServerMetrics } from './own-metrics.ts';
import { problemsView } from './problems.ts';
import { receiptQuestion, scraperChanged } from './scraper-changes.ts';
import { ServerClock } from './server-clock.ts';
import type { Settings } from './settings.ts';
import {
  type AgentStatus,
  agentsStatus,
  type GaugeSources,
  type ServerStatus,
  serverGauges,
  serverStatus,
} from './status.ts';
import { KnownScrapers } from './web/known-scrapers.ts';
import type { WebAddress, WebOptions, WebServer } from './web/listener.ts';

/** The parts of a server: real ones in `run`, virtual ones in the simulation. */
export interface ServerParts {
  readonly settings: Omit<
    Settings,
    'fleetKeyFile' | 'revocationsFile' | 'controlSocket' | 'statusSocket' | 'prometheus'
  >;
  readonly clock: Clock;
  readonly boot: BootClock;
  /** Undefined where the host does not tell one boot from another. */
  readonly hostBoot: HostBoot | undefined;
  readonly log: Log;
  /** 0 ≤ random() < 1. */
  readonly random: () => number;
  /** Where the cursors are kept; undefined: in memory only. */
  readonly disk: StateDisk | undefined;
  readonly loop: EventLoop;
  /** Opens the agents' port. */
  readonly listen: (options: ListenOptions) => Promise<Listener>;
  /** Opens the HTTP port. */
  readonly openWeb: (options: WebOptions, addresses: readonly WebAddress[]) => Promise<WebServer>;
  /** The databases whose receipts confirm, by the text of their scraper's name. */
  readonly databases: ReadonlyMap<string, ScraperDatabase>;
  /** The configuration of the HTTP port, as it is now. */
  readonly webConfig: WebOptions['config'];
}

/** The event loop, which is virtual in the simulation. */
export interface EventLoop {
  /** Resolves when everything that had arrived has been handled. */
  turn(): Promise<void>;
  /** Calls in the next pass. */
  next(callback: () => void): void;
}

/**
 * A running server:
 *
 *     agents ─▶ ingest ─▶ delivery (windows, cursors) ─▶ exposition ─▶ web ─▶ Prometheus
 */
export class Server {
  readonly delivery: Delivery;
  readonly metrics: ServerMetrics;
  readonly #parts: ServerParts;
  readonly #seldom: SeldomLog;
  readonly #keyRing: KeyRing;
  readonly #admission: Admission;
  readonly #sources: GaugeSources;
  readonly #scrapers: KnownScrapers;
  readonly #serverClock: ServerClock;
  readonly #agentsLog: AgentsLog;
  /** What is open, in the order in which it was opened. */
  readonly #closing: (() => Promise<void> | void)[] = [];
  #isReady = false;

  constructor(parts: ServerParts) {
    const { settings, clock, log } = parts;
    const { windowMs, memoryBytesMax } = settings;
    this.#parts = parts;
    this.#serverClock = new ServerClock(parts);
    this.#agentsLog = new AgentsLog({ log, windowMs, memoryBytesMax });
    this.#seldom = onceAMinute(log, clock);
    this.#keyRing = new KeyRing(settings.fleetKeys, settings.revoked ?? noRevocations);
    this.metrics = new ServerMetrics(new Registry(), { version, gauges: () => serverGauges(this.#sources) });
    this.#scrapers = new KnownScrapers({ clock, seldom: this.#seldom, metrics: this.metrics });
    this.delivery = newDelivery(parts, {
      ...{ metrics: this.metrics, seldom: this.#seldom, scrapers: this.#scrapers },
      lookAtClock: () => this.#lookAtClock(),
    });
    const { steppedBeforeMs } = this.delivery;
    if (steppedBeforeMs !== 0) {
      this.metrics.clockStepped();
      this.#serverClock.stepped(steppedBeforeMs);
      log.warn(
        `the clock of this host was set ${stepText(steppedBeforeMs)} while the server was not running; agents send once ` +
          'more what is not acknowledged, with times by the present clock; is NTP on? (timedatectl)',
      );
    }
    const startedAtMs = clock.nowMs();
    this.#sources = {
      ...{ clock, delivery: this.delivery, version, startedAtMs, windowMs, memoryBytesMax },
      serverClock: this.#serverClock,
      scrapers: this.#scrapers,
      keys: this.#keyRing,
    };
    this.#admission = new Admission({
      clock,
      refusal: (identity) => this.#keyRing.refusal(identity),
      onClones: () => this.metrics.clones(),
    });
  }

  /** Opens the ports. Throws if one is not available, and closes the other. */
  async start(): Promise<{ readonly agentsPort: number; readonly webPorts: readonly number[] }> {
    const { clock } = this.#parts;
    this.#closing.push(async () => {
      this.delivery.stop();
      await this.delivery.flush();
    });
    try {
      const web = await this.#openWeb();
      this.#closing.push(() => web.close(webGraceMs));
      const agents = await this.#openIngest();
      this.#closing.push(() => agents.close());
      const tidying = runEvery(clock, tidyEveryMs, () => {
        this.delivery.tidy();
        this.#agentsLog.look(this.delivery.store.agents, clock.monotonicMs());
        this.#serverClock.compare(this.delivery.store.agents.values());
      });
      this.#closing.push(() => tidying.stop());
      this.#isReady = true;
      return { agentsPort: agents.port, webPorts: web.ports };
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /**
   * Ends every connection, then writes the cursors, which the ends of connections may still move. Returns how many of agents
   * that ended.
   */
  async stop(): Promise<{ readonly ended: number }> {
    const ended = this.#admission.count;
    for (const close of this.#closing.splice(0).reverse()) await close();
    return { ended };
  }

  /** Forgets a scraper at once. Throws if there is none of this name, with the names that there are. */
  forgetScraper(text: string): ForgottenScraper {
    const forgotten = this.delivery.forgetScraper(scraperNameOf(text));
    if (forgotten === undefined) {
      const names = [...this.delivery.scrapers].map(({ name }) => `'${scraperText(name)}'`);
      const known = names.length === 0 ? 'no scraper has a cursor' : `expected one of ${names.join(', ')}`;
      throw new Error(`no scraper is named '${text}': ${known}`);
    }
    const { cursors, freedReports } = forgotten;
    this.#parts.log.info(
      `scraper '${text}' is forgotten: ${plural(cursors, 'cursor')} removed, ${plural(freedReports, 'report')} no longer held for it`,
    );
    return forgotten;
  }

  status(): ServerStatus {
    return serverStatus(this.#sources);
  }

  agents(): AgentStatus[] {
    return agentsStatus(this.#sources);
  }

  get revoked(): Revocations {
    return this.#keyRing.revoked;
  }

  get fleetKeys(): readonly FleetKey[] {
    return this.#keyRing.keys;
  }

  /**
   * Refuses the agent's present key from now on, and ends its connection. The present generation is at least
   * `generationMin`, and at least that of its last connection: a file of revocations may be older than that.
   */
  revoke(id: AgentId, generationMin: number): Revoked {
    const agent = this.delivery.store.agents.get(id);
    const isKnown = agent !== undefined || this.revoked.has(id);
    const lastGeneration = parseIdentity(agent?.identity ?? '')?.generation ?? 0;
    const generation = Math.max(this.#keyRing.generation(id), generationMin, lastGeneration);
    this.#keyRing.merge(new Map([[id, generation]]));
    const ended = this.#admission.dropRevoked();
    this.delivery.forget(id);
    this.#parts.log.info(`generation ${generation} of agent '${id}' is revoked; ${plural(ended, 'connection')} ended`);
    return { generation, ended, isKnown };
  }

  /** Replaces the keys and adds to the revocations. Returns how many connections that ended. */
  reloadKeys(keys: readonly FleetKey[], revoked: Revocations): { readonly ended: number } {
    this.#keyRing.replaceKeys(keys);
    this.#keyRing.merge(revoked);
    return { ended: this.#admission.dropRevoked() };
  }

  /**
   * Checks whether this host's clock was set. Agents still have what is not acknowledged, and their clocks were not
   * set: they measure this one again, and send those reports again with corrected timestamps.
   */
  #lookAtClock(): void {
    const stepMs = this.#serverClock.look();
    if (stepMs === 0) return;
    this.metrics.clockStepped();
    const step = stepText(stepMs);
    const error = new ProtocolError('clock', `the clock of the server was set ${step}; measure it again`);
    this.delivery.clockStepped(stepMs);
    const ended = this.#admission.refuseAll(error);
    this.#parts.log.warn(
      `the clock of this host was set ${step}; ${plural(ended, 'connection')} ended, so that agents measure it ` +
        'again and send once more what is not acknowledged; is NTP on? (timedatectl)',
    );
  }

  #openWeb(): Promise<WebServer> {
    const { clock, settings, loop, openWeb } = this.#parts;
    const { delivery, metrics } = this;
    const seldom = this.#seldom;
    const exposition = new Exposition({
      onDisagreement(family, other, shown) {
        metrics.disagreement();
        seldom.warn(
          `type ${family}`,
          `'${family}' is a ${other.type} for agent '${other.agent}', and a ${shown.type} for agent '${shown.agent}': ` +
            'the type of most agents is shown; run one version everywhere',
        );
      },
    });
    const options: WebOptions = {
      ...{ clock, seldom, delivery, exposition, metrics, scrapers: this.#scrapers },
      status: {
        server: () => this.status(),
        agents: () => this.agents(),
        problems: problemsView(() => ({ nowMs: clock.nowMs(), startedAtMs: this.#sources.startedAtMs })),
      },
      ...{ plaintext: settings.plaintext, hostNames: settings.webHosts, config: this.#parts.webConfig },
      joining: joiningOf(settings),
      archiveFolder: settings.archiveFolder,
      compression: settings.compression,
      turn: () => new Promise((resolve) => loop.next(resolve)),
      isReady: () => this.#isReady,
    };
    return openWeb(options, settings.webListen).catch((error: unknown) => {
      throw error instanceof ListenError ? withOption(error, 'web.listen-address') : error;
    });
  }

  #openIngest(): Promise<Listener> {
    const { clock, log, settings, listen, loop } = this.#parts;
    const { delivery, metrics } = this;
    const hasKeys = settings.fleetKeys.length > 0;
    return openIngest({
      ...{ clock, log, listen, delivery, metrics, seldom: this.#seldom, admission: this.#admission },
      scheduler: new FrameScheduler({ clock, nextTurn: (callback) => loop.next(callback) }),
      lookAtClock: () => this.#lookAtClock(),
      labelBounds: settings.labelBounds,
      port: {
        ...settings.listen,
        psk: hasKeys ? { keyOf: (identity) => this.#keyRing.keyOf(identity) } : undefined,
        connectionsMax: settings.connectionsMax,
        connectionsPerAddressMax: settings.connectionsPerAddressMax,
      },
    }).catch((error: unknown) => {
      throw error instanceof ListenError ? withOption(error, 'listen') : error;
    });
  }
}

/** What was removed with a scraper. */
export interface ForgottenScraper {
  readonly cursors: number;
  /** Reports that can be acknowledged, which nobody else lacks. */
  readonly freedReports: number;
}

const stepText = (stepMs: number): string => `${stepMs > 0 ? 'forwards' : 'back'} by ${secondsText(Math.abs(stepMs))}`;

/** What a revocation has done. */
export interface Revoked {
  /** This one and all before it are refused. */
  readonly generation: number;
  /** How many connections it ended. */
  readonly ended: number;
  /** An agent of this name has connected, or was revoked before. */
  readonly isKnown: boolean;
}

/** Delivery, with every event counted, and logged if a person should act on it. */
function newDelivery(
  { settings, clock, hostBoot, log, random, disk, loop, databases }: ServerParts,
  {
    metrics,
    seldom,
    scrapers,
    lookAtClock,
  }: Pick<DeliveryOptions, 'lookAtClock'> & {
    readonly metrics: ServerMetrics;
    readonly scrapers: KnownScrapers;
    readonly seldom: SeldomLog;
  },
): Delivery {
  const { stateDir, windowMs, memoryBytesMax } = settings;
  return new Delivery({
    ...{ clock, random, hostBoot, windowMs, disk, lookAtClock, databases },
    onReceiptEvent: (name, event) => receiptQuestion(name, event, { metrics, log, databases }),
    store: {
      memoryBytesMax,
      forgetAfterMs: 24 * 3_600_000,
      onReport: (outcome) => metrics.report(outcome),
      onEvict: (reason, unscraped) => metrics.evicted(reason, unscraped),
    },
    turn: () => loop.turn(),
    onCursorChange: (change) => scraperChanged(change, { metrics, log, seldom, scrapers }),
    onStateWritten: () => metrics.stateWrite('done'),
    onStateError(error) {
      if (error instanceof StateFileError) {
        const file = `'${stateDir}/cursors.json'`;
        return log.warn(
          `${file} is damaged (${error.message}): starting without it, so some samples are scraped twice`,
        );
      }
      metrics.stateWrite('failed');
      seldom.error(
        'state',
        `the cursors in '${stateDir}' cannot be written: ${reasonOf(error)}; nothing is acknowledged until they can be`,
      );
    },
  });
}

/** Names the option that sets another address. */
function withOption(error: ListenError, option: string): ListenError {
  return new ListenError(error.code, `${error.message}; choose another with --${option}`, { cause: error });
}

const tidyEveryMs = 10_000;
// A scrape under way may end; a stop takes 5 s in all.
const webGraceMs = 2000;

/** How a host joins, as the page says it. */
function joiningOf({
  fleetKeys,
  listen: { address, port },
}: Pick<Settings, 'fleetKeys' | 'listen'>): WebOptions['joining'] {
  return fleetKeys.length > 0 ? { kind: 'by-key' } : { kind: 'without-key', isLoopback: isLoopback(address), port };
}
