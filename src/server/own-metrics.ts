import { Counter, collectDefaultMetrics, Gauge, type Registry } from 'prom-client';
import { hostSourceName } from '../model/source.ts';
import { escapeLabelValue } from '../model/text-format.ts';
import { type Outcome, outcomes } from './delivery/agent-record.ts';
import { selectionText } from './delivery/scraper.ts';
import type { ScraperInfo, SourceUp, WebMetrics } from './web/metrics.ts';

/**
 * The server's own metrics, `sysmon_server_*`, and `sysmon_agent_up`. Kept by prom-client, without timestamps: they are
 * as of the scrape. A HELP text says what a number means, and what to do about it.
 */
export class ServerMetrics implements WebMetrics {
  readonly #registry: Registry;
  readonly #reports: Counter<'outcome'>;
  readonly #evicted: Counter<'reason'>;
  readonly #lost: Counter<'reason'>;
  readonly #connections: Counter;
  readonly #refused: Counter<'reason'>;
  readonly #ended: Counter<'reason'>;
  readonly #unknownFrames: Counter;
  readonly #bugs: Counter;
  readonly #clockSteps: Counter;
  readonly #clones: Counter;
  readonly #scrapes: Counter<'outcome'>;
  readonly #rollbacks: Counter<'kind'>;
  readonly #assumed: Counter<'scraper'>;
  readonly #conflicts: Counter<'scraper'>;
  readonly #receipts: Counter<'scraper' | 'outcome'>;
  readonly #namesRefused: Counter;
  readonly #backlog: Gauge<'scraper' | 'selection'>;
  readonly #samples: Gauge<'scraper' | 'selection'>;
  readonly #scraperInfo: Gauge<keyof ScraperInfo>;
  /** The labels of each, to remove them. */
  readonly #scraperInfos = new Map<string, ScraperInfo>();
  readonly #disagreements: Counter;
  readonly #stateWrites: Counter<'outcome'>;
  readonly #requests: Counter<'route' | 'code'>;
  readonly #httpRefused: Counter;

  constructor(registry: Registry, options: { readonly version: string; readonly gauges: () => ServerGauges }) {
    this.#registry = registry;
    const registers = [registry];
    const counter = <L extends string = never>(name: string, help: string, ...labelNames: L[]): Counter<L> =>
      new Counter({ name: `sysmon_server_${name}`, help, labelNames, registers });
    const gauge = <L extends string = never>(name: string, help: string, ...labelNames: L[]): Gauge<L> =>
      new Gauge({ name: `sysmon_server_${name}`, help, labelNames, registers });

    this.#reports = counter(
      'reports_total',
      'Reports received from agents. Only "stored" ones reach a scraper; "duplicate" is normal after a reconnect, all others are lost.',
      'outcome',
    );
    this.#evicted = counter(
      'reports_evicted_total',
      'Reports evicted from a window, by age (normal) or because the windows had reached --memory-max.',
      'reason',
    );
    this.#lost = counter(
      'unscraped_reports_lost_total',
      'Reports evicted before every known scraper had them: a gap in that Prometheus. Raise --window or --memory-max.',
      'reason',
    );
    this.#connections = counter('connections_total', 'Connections accepted on the port for agents.');
    this.#refused = counter(
      'connections_refused_total',
      'Connections closed before a hello, because of a limit, a wrong key or a missed deadline.',
      'reason',
    );
    this.#ended = counter(
      'connections_ended_total',
      'Connections of agents ended by the server, by the error code that it sent; "slow": the agent did not read.',
      'reason',
    );
    this.#unknownFrames = counter(
      'unknown_frames_total',
      'Frames of a kind that this version does not know and skips: from newer agents.',
    );
    this.#bugs = counter(
      'bugs_total',
      'Connections of agents that a bug of the server ended. The log has the stack, once a minute: please report it.',
    );
    this.#clockSteps = counter(
      'clock_steps_total',
      'Times that the clock of this host was set by more than 2 s. Agents send again what was not acknowledged, with corrected timestamps. Check NTP.',
    );
    this.#clones = counter(
      'cloned_identities_total',
      'Connections that were refused because two hosts run under one name and machine-id, as cloned machines do. Enrol one of them under another name.',
    );
    this.#scrapes = counter('scrapes_total', 'Answers to /metrics that were sent completely, or aborted.', 'outcome');
    this.#rollbacks = counter(
      'scrape_rollbacks_total',
      'Answers whose samples are sent again: the answer was "aborted", or sent completely and not confirmed when its connection ' +
        'closed ("unconfirmed"), the server ended ("restart") or its clock was set ("clock"), or it was read and not stored ' +
        '("refused"). Prometheus warns of samples that it had already.',
      'kind',
    );
    this.#assumed = counter(
      'answers_assumed_total',
      'Answers that were sent twice and never confirmed, and count as scraped: a gap in that Prometheus if it has not read ' +
        'them. Raise the idle time-out of its connections above its scrape interval.',
      'scraper',
    );
    this.#conflicts = counter(
      'scraper_conflicts_total',
      'Times that two connections scraped under one name at once: two Prometheus servers or jobs need a scraper=NAME each.',
      'scraper',
    );
    this.#receipts = counter(
      'receipts_total',
      'What the database of a scraper with --prometheus says of answers: "confirmed", it is stored; "refused", it is not, and ' +
        'given again; "unanswered", a question to which it gave no answer. The log says why.',
      'scraper',
      'outcome',
    );
    this.#namesRefused = counter(
      'scraper_names_refused_total',
      'Scrapes answered with the newest values only, because 32 scraper names, or too many selections of agents, were in use.',
    );
    this.#backlog = gauge(
      'scrape_backlog_reports',
      "Reports that this scraper's last answer left for the next: over 0 while it catches up.",
      'scraper',
      'selection',
    );
    this.#samples = gauge('scrape_samples', 'Samples of agents in the last answer.', 'scraper', 'selection');
    this.#scraperInfo = gauge(
      'scraper_info',
      'A scraper, always 1: its program and version, whether an HTTP proxy is in between ("via"), and what confirms its ' +
        'answers: its "connection", a "receipt" of its database (--prometheus), or "none" where it gets the newest values only.',
      'scraper',
      'program',
      'version',
      'via',
      'confirmed_by',
    );
    this.#disagreements = counter(
      'family_disagreements_total',
      'Schemas in which a family has another type than the one that is exposed: agents of different versions.',
    );
    this.#stateWrites = counter(
      'state_writes_total',
      'Writes of the cursors to the state folder. While they fail, nothing is acknowledged and agents keep their reports.',
      'outcome',
    );
    this.#requests = counter('http_requests_total', 'HTTP requests by route and status code.', 'route', 'code');

    this.#httpRefused = counter(
      'http_connections_refused_total',
      'HTTP connections refused: the limit was reached, usually by clients that leave theirs open, or TLS failed.',
    );

    const agents = gauge('agents', 'Agents known, by whether they are up.', 'state');
    const connected = gauge('agents_connected', 'Agents with an open connection.');
    const retiringKey = gauge(
      'agents_retiring_key',
      'Agents whose last connection was by a key of a fleet key that is being rotated out: they are refused as soon as it is removed. Enrol them again.',
    );
    const windowBytes = gauge('window_bytes', 'Memory of the windows. At --memory-max the oldest reports are evicted.');
    const windowBytesMax = gauge('window_max_bytes', 'The option --memory-max.');
    const windowReports = gauge('window_reports', 'Reports in all windows.');
    const dropped = counter(
      'agent_reports_dropped_total',
      'Reports of an agent that were refused (too_old, not_newer, too_many), or evicted before every known scraper had them (age, memory). The log has the remedy.',
      'agent',
      'reason',
    );
    const excesses = counter(
      'agent_over_budget_total',
      'What an agent had more of than one agent may: messages or schemas beyond a limit, new series, reports a second, memory, its share of an answer, the time of the processor. Only that agent suffers; the log has the remedy.',
      'agent',
      'budget',
    );
    gauge('build_info', 'Version of the server and of its Node.js, as labels; always 1.', 'version', 'nodejs').set(
      { version: options.version, nodejs: process.versions.node },
      1,
    );
    // One gauge's collect serves all of them: prom-client calls it once a scrape.
    Object.assign(agents, {
      collect: () => {
        const now = options.gauges();
        agents.set({ state: 'up' }, now.agentsUp);
        agents.set({ state: 'down' }, now.agentsDown);
        connected.set(now.agentsConnected);
        retiringKey.set(now.agentsRetiringKey);
        windowBytes.set(now.windowBytes);
        windowBytesMax.set(now.windowBytesMax);
        windowReports.set(now.windowReports);
        // They are counted where they are dropped, for as long as the agent is known.
        dropped.reset();
        for (const { agent, reason, count } of now.drops) dropped.inc({ agent, reason }, count);
        excesses.reset();
        for (const { agent, budget, count } of now.excesses) excesses.inc({ agent, budget }, count);
      },
    });
    for (const outcome of outcomes) this.#reports.inc({ outcome }, 0);
    for (const reason of ['age', 'memory'] as const) {
      this.#evicted.inc({ reason }, 0);
      this.#lost.inc({ reason }, 0);
    }
    for (const outcome of ['finished', 'aborted']) this.#scrapes.inc({ outcome }, 0);
    for (const outcome of ['done', 'failed']) this.#stateWrites.inc({ outcome }, 0);
    for (const kind of rollBacks) this.#rollbacks.inc({ kind }, 0);
  }

  /** And those of this process: CPU, memory, event loop. */
  addProcess(): void {
    collectDefaultMetrics({ register: this.#registry, prefix: 'sysmon_server_' });
  }

  report(outcome: Outcome): void {
    this.#reports.inc({ outcome });
  }
  evicted(reason: 'age' | 'memory', unscraped: boolean): void {
    this.#evicted.inc({ reason });
    if (unscraped) this.#lost.inc({ reason });
  }
  /** At the old end of the window when it was scraped: too old to be sent. */
  skipped(reports: number): void {
    this.#lost.inc({ reason: 'age' }, reports);
  }
  connection(): void {
    this.#connections.inc();
  }
  refused(reason: string): void {
    this.#refused.inc({ reason });
  }
  ended(reason: string): void {
    this.#ended.inc({ reason });
  }
  bug(): void {
    this.#bugs.inc();
  }

  clockStepped(): void {
    this.#clockSteps.inc();
  }

  unknownFrame(): void {
    this.#unknownFrames.inc();
  }
  clones(): void {
    this.#clones.inc();
  }
  scrape(outcome: 'finished' | 'aborted'): void {
    this.#scrapes.inc({ outcome });
  }
  rollback(kind: RollBack): void {
    this.#rollbacks.inc({ kind });
  }
  answerAssumed(scraper: string): void {
    this.#assumed.inc({ scraper });
  }
  conflict(scraper: string): void {
    this.#conflicts.inc({ scraper });
  }
  receipt(scraper: string, outcome: 'confirmed' | 'refused' | 'unanswered'): void {
    this.#receipts.inc({ scraper, outcome });
  }
  nameRefused(): void {
    this.#namesRefused.inc();
  }
  scraped(
    scraper: string,
    selection: string,
    given: { readonly samples: number; readonly backlogReports: number },
  ): void {
    const labels = { scraper, selection: selectionText(selection) };
    this.#samples.set(labels, given.samples);
    this.#backlog.set(labels, given.backlogReports);
  }
  /** Removes the series of a selection that is forgotten; with the last one those of its scraper. */
  forgetScraper(scraper: string, selection: string, isLast: boolean): void {
    for (const gauge of [this.#samples, this.#backlog]) gauge.remove({ scraper, selection: selectionText(selection) });
    if (!isLast) return;
    for (const counter of [this.#assumed, this.#conflicts]) counter.remove({ scraper });
    for (const outcome of ['confirmed', 'refused', 'unanswered']) this.#receipts.remove({ scraper, outcome });
    this.forgetScraperInfo(scraper);
  }
  scraperInfo(info: ScraperInfo): void {
    this.forgetScraperInfo(info.scraper);
    this.#scraperInfo.set({ ...info }, 1);
    this.#scraperInfos.set(info.scraper, info);
  }
  forgetScraperInfo(scraper: string): void {
    const info = this.#scraperInfos.get(scraper);
    if (info !== undefined) this.#scraperInfo.remove({ ...info });
    this.#scraperInfos.delete(scraper);
  }
  disagreement(): void {
    this.#disagreements.inc();
  }
  stateWrite(outcome: 'done' | 'failed'): void {
    this.#stateWrites.inc({ outcome });
  }
  request(route: string, code: number): void {
    this.#requests.inc({ route, code });
  }

  httpRefused(): void {
    this.#httpRefused.inc();
  }

  /** The text of all metrics, with those of these sources of agents. */
  async text(sources: readonly SourceUp[]): Promise<string> {
    return sourcesText(sources) + (await this.#registry.metrics());
  }
}

/** Not by prom-client, because each agent has label names of its own. */
function sourcesText(sources: readonly SourceUp[]): string {
  const ups: string[] = [];
  const lags: string[] = [];
  for (const { stream, up } of sources) {
    const { agent, sourceName, labels, lagMs } = stream;
    const names = sourceName === hostSourceName ? [] : [['source', sourceName] as const];
    const pairs = [['agent', agent.id] as const, ...names, ...labels].filter(([, value]) => value !== '');
    const text = pairs.map(([name, value]) => `${name}="${escapeLabelValue(value)}"`).join();
    ups.push(`sysmon_agent_up{${text}} ${up ? 1 : 0}\n`);
    // What came last before it was down says nothing of now.
    if (up && lagMs !== undefined) lags.push(`${lagName}{${text}} ${Math.round(lagMs / 100) / 10}\n`);
  }
  return familyText('sysmon_agent_up', upHelp, ups) + familyText(lagName, lagHelp, lags);
}

function familyText(name: string, help: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${lines.join('')}`;
}

const upHelp =
  '1 while reports arrive (one within three intervals and 5 s) and the newest was stored, else 0. As of the scrape. Absent ' +
  'for at most a minute after a start of the server, until the agent is back.';
const lagName = 'sysmon_server_agent_lag_seconds';
const lagHelp =
  'How old the newest report of an agent was when it came, to a tenth of a second. Absent while the agent is down. Over a few ' +
  'seconds it sends a backlog; if that lasts, its line is too slow.';

/** Why samples are sent again. */
export const rollBacks = ['aborted', 'unconfirmed', 'restart', 'clock', 'refused'] as const;
export type RollBack = (typeof rollBacks)[number];

export interface ServerGauges {
  readonly agentsUp: number;
  readonly agentsDown: number;
  readonly agentsConnected: number;
  /** Those whose key is of a fleet key that is not the present one. */
  readonly agentsRetiringKey: number;
  readonly windowBytes: number;
  readonly windowBytesMax: number;
  readonly windowReports: number;
  /** Of agents of which reports were dropped. */
  readonly drops: readonly { readonly agent: string; readonly reason: string; readonly count: number }[];
  /** Of agents that were over a budget. */
  readonly excesses: readonly { readonly agent: string; readonly budget: string; readonly count: number }[];
}

export { Registry } from 'prom-client';
