import type { Clock } from '../runtime/clock.ts';
import { ageText, isoTime, plural } from '../runtime/words.ts';
import type { AgentRecord } from './delivery/agent-record.ts';
import type { Budget } from './delivery/budget.ts';
import type { ConfirmedBy, Cursor } from './delivery/cursor.ts';
import type { Scraper } from './delivery/cursors.ts';
import type { Delivery } from './delivery/delivery.ts';
import type { DropReason } from './delivery/drops.ts';
import { scraperText } from './delivery/scraper.ts';
import type { KeyRing } from './ingest/key-ring.ts';
import type { ServerGauges } from './own-metrics.ts';
import type { ServerClockStatus } from './server-clock.ts';
import type { KnownScraper, KnownScrapers } from './web/known-scrapers.ts';
import { Reading } from './web/page/reading.ts';

/** One agent as `/api/v1/agents`, `sysmon-server agents --json` and the page show it. Times are ISO 8601. */
export interface AgentStatus {
  readonly name: string;
  readonly up: boolean;
  readonly connected: boolean;
  /** Address and port of the live connection. */
  readonly peer?: string;
  readonly connectedAt?: string;
  /** The identity of its last connection: name, generation, fleet key. */
  readonly identity?: string;
  /** Name and version of its program, by its last connection since the server's start. */
  readonly software?: string;
  readonly lastReportAt?: string;
  /** The time of its newest report. */
  readonly newestAt?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly intervalSeconds: number;
  /** The correction of the timestamps of its epoch, because its clock was wrong. */
  readonly clockOffsetSeconds: number;
  /** Of all its sources. */
  readonly series: number;
  /** The exporters that it forwards. */
  readonly sources: readonly SourceStatus[];
  readonly windowReports: number;
  readonly windowBytes: number;
  /** Of its windows and schemas; beyond its share its own oldest reports are evicted first when memory is short. */
  readonly memoryBytes: number;
  readonly memoryShareBytes: number;
  /** New series within half an hour. */
  readonly newSeries: number;
  /** The processor's time that its frames have taken since the server's start. */
  readonly framesSeconds: number;
  /** What it had more of than one agent may, since the server's start. */
  readonly overBudget: readonly ExcessStatus[];
  /** Reports that some known scraper has not had; null if nobody scrapes. */
  readonly unscrapedReports: number | null;
  /** The same for each of these scrapers. */
  readonly unscrapedBy: readonly { readonly scraper: string; readonly reports: number }[];
  /** Reports that were refused, or evicted before every scraper had them, since the server's start. */
  readonly drops: readonly DropStatus[];
  /** Reports in its spool, by its newest report or a later ping. Missing where neither is known. */
  readonly spoolReports?: number;
  /** When there were so many. */
  readonly spoolReportsAt?: string;
  /** By its last ping: those that it has dropped since its start. */
  readonly droppedByAgent?: number;
  /** When the ping came with which that number had grown. */
  readonly droppedByAgentAt?: string;
}

export interface SourceStatus {
  readonly name: string;
  readonly up: boolean;
  readonly intervalSeconds: number;
  readonly series: number;
}

export interface ExcessStatus {
  readonly budget: Budget;
  readonly count: number;
  readonly lastAt: string;
  readonly text: string;
}

export interface DropStatus {
  readonly reason: DropReason;
  readonly count: number;
  /** The times of the oldest and the newest of them. */
  readonly firstAt: string;
  readonly lastAt: string;
  /** When the last of them was refused or evicted. */
  readonly droppedAt: string;
}

export interface ScraperStatus {
  readonly scraper: string;
  /** The agents it selects, with commas between them, or "" for all. */
  readonly selection: string;
  /** By its last request since the server's start; "" before. */
  readonly program: string;
  readonly version: string;
  readonly address: string;
  /** What confirms that it has an answer; `none`: it gets the newest values only, and nothing is held for it. */
  readonly confirmedBy: ConfirmedBy | 'none';
  /** Connections that read for it, each with a position of its own: usually one. */
  readonly connections: number;
  /** How often two of them read under its name at once, since the server's start. */
  readonly conflicts: number;
  readonly lastScrapeAt: string;
  /** It was sent a whole answer and has scraped within the window, so acknowledgements wait for it. */
  readonly known: boolean;
  readonly backlogReports: number;
  /** How long ago the oldest report came that it has not had; 0 if it has all. */
  readonly lagSeconds: number;
  /** By more than what it was given last, which its next scrape confirms. */
  readonly behind: boolean;
  /** The last that was sent whole since the server's start. `samples` is missing for the newest values. */
  readonly lastAnswer?: { readonly samples?: number; readonly bytes: number; readonly seconds: number };
  /** What is wrong with it, a sentence each, with what to do. */
  readonly problems: readonly string[];
}

export interface ServerStatus {
  readonly version: string;
  readonly startedAt: string;
  readonly agents: { readonly known: number; readonly up: number; readonly connected: number };
  readonly windowBytes: number;
  readonly windowBytesMax: number;
  readonly windowReports: number;
  readonly windowSeconds: number;
  readonly clock: ServerClockStatus;
  readonly scrapers: readonly ScraperStatus[];
}

export interface StatusSources {
  readonly clock: Clock;
  readonly delivery: Delivery;
  readonly version: string;
  readonly startedAtMs: number;
  readonly windowMs: number;
  readonly memoryBytesMax: number;
  readonly serverClock: { readonly status: ServerClockStatus };
  readonly scrapers: Pick<KnownScrapers, 'all'>;
}

export interface GaugeSources extends StatusSources {
  readonly keys: Pick<KeyRing, 'isRetiring'>;
}

export function agentsStatus({ clock, delivery }: StatusSources): AgentStatus[] {
  const monotonicMs = clock.monotonicMs();
  return [...delivery.store.agents.values()]
    .map((agent) => agentStatus(agent, monotonicMs, delivery))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function agentStatus(agent: AgentRecord, monotonicMs: number, delivery: Delivery): AgentStatus {
  const { host } = agent;
  const streams = [...agent.streams];
  const unscraped = streams.map((stream) => delivery.unscrapedReports(stream));
  const isScraped = unscraped.every(({ size }) => size > 0);
  return {
    name: agent.id,
    up: host.up(monotonicMs),
    connected: agent.peer !== undefined,
    ...(agent.peer === undefined ? {} : { peer: agent.peer }),
    ...(agent.connectedAtMs === undefined ? {} : { connectedAt: isoTime(agent.connectedAtMs) }),
    ...(agent.identity === undefined ? {} : { identity: agent.identity }),
    ...(agent.software === '' ? {} : { software: agent.software }),
    ...(agent.received === undefined ? {} : { lastReportAt: isoTime(agent.reportAtMs) }),
    ...(Number.isFinite(host.newestMs) ? { newestAt: isoTime(host.newestMs) } : {}),
    labels: Object.fromEntries(host.labels),
    intervalSeconds: host.intervalMs / 1000,
    clockOffsetSeconds: host.offsetMs / 1000,
    series: sum(streams.map(({ schema }) => schema?.seriesCount ?? 0)),
    sources: streams
      .filter((stream) => stream !== host)
      .map((stream) => ({
        name: stream.sourceName,
        up: stream.up(monotonicMs),
        intervalSeconds: stream.intervalMs / 1000,
        series: stream.schema?.seriesCount ?? 0,
      })),
    windowReports: sum(streams.map(({ window }) => window.reportCount)),
    windowBytes: sum(streams.map(({ window }) => window.bytes)),
    memoryBytes: agent.bytes,
    memoryShareBytes: Math.floor(delivery.store.shareBytes),
    newSeries: agent.churn.series,
    framesSeconds: Math.round(agent.frames.totalMs) / 1000,
    overBudget: agent.excesses.all.map(({ budget, count, lastMs, text }) => ({
      ...{ budget, count, lastAt: isoTime(lastMs), text },
    })),
    unscrapedReports: isScraped ? sum(unscraped.map((counts) => Math.max(...counts.values()))) : null,
    unscrapedBy: sumsByScraper(unscraped),
    drops: agent.drops.all.map(({ reason, count, firstMs, lastMs, droppedMs }) => ({
      ...{ reason, count, firstAt: isoTime(firstMs), lastAt: isoTime(lastMs), droppedAt: isoTime(droppedMs) },
    })),
    ...spoolOf(agent),
    ...(agent.droppedReports === undefined ? {} : { droppedByAgent: agent.droppedReports }),
    ...(agent.droppedReportsAtMs === undefined ? {} : { droppedByAgentAt: isoTime(agent.droppedReportsAtMs) }),
  };
}

/** Agents that are busy, or whose reports are acknowledged at once, send hardly any ping; the reports of a backlog are old. */
function spoolOf(agent: AgentRecord): Pick<AgentStatus, 'spoolReports' | 'spoolReportsAt'> {
  const newest = agent.host.window.recent.at(-1);
  const byReport = newest && new Reading(newest).value('sysmon_agent_spool_reports');
  const { spoolReports: byPing, spoolReportsAtMs: pingedMs = -Infinity } = agent;
  if (byReport !== undefined && newest!.timeMs >= pingedMs) {
    return { spoolReports: byReport, spoolReportsAt: isoTime(newest!.timeMs) };
  }
  return byPing === undefined ? {} : { spoolReports: byPing, spoolReportsAt: isoTime(pingedMs) };
}

/** Over all streams of an agent. */
function sumsByScraper(streams: readonly ReadonlyMap<string, number>[]): AgentStatus['unscrapedBy'] {
  const sums = new Map<string, number>();
  for (const counts of streams) {
    for (const [scraper, reports] of counts) sums.set(scraper, (sums.get(scraper) ?? 0) + reports);
  }
  return [...sums].map(([scraper, reports]) => ({ scraper, reports }));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

export function serverStatus(sources: StatusSources): ServerStatus {
  const { version, startedAtMs, windowMs, memoryBytesMax } = sources;
  return {
    version,
    startedAt: isoTime(startedAtMs),
    ...fleetStatus(sources),
    windowBytesMax: memoryBytesMax,
    windowSeconds: windowMs / 1000,
    clock: sources.serverClock.status,
    scrapers: scrapersStatus(sources),
  };
}

function fleetStatus({
  clock,
  delivery: { store },
}: Pick<StatusSources, 'clock' | 'delivery'>): Pick<ServerStatus, 'agents' | 'windowBytes' | 'windowReports'> {
  const monotonicMs = clock.monotonicMs();
  let up = 0;
  let connected = 0;
  let windowReports = 0;
  for (const { host, peer, streams } of store.agents.values()) {
    if (host.up(monotonicMs)) up++;
    if (peer !== undefined) connected++;
    for (const { window } of streams) windowReports += window.reportCount;
  }
  return { agents: { known: store.agents.size, up, connected }, windowBytes: store.windowBytes, windowReports };
}

/** For the server's own metrics, at each scrape. */
export function serverGauges(sources: GaugeSources): ServerGauges {
  const { agents, windowBytes, windowReports } = fleetStatus(sources);
  return {
    agentsUp: agents.up,
    agentsDown: agents.known - agents.up,
    agentsConnected: agents.connected,
    agentsRetiringKey: [...sources.delivery.store.agents.values()].filter(
      ({ identity }) => identity !== undefined && sources.keys.isRetiring(identity),
    ).length,
    windowBytes,
    windowBytesMax: sources.memoryBytesMax,
    windowReports,
    drops: [...sources.delivery.store.agents.values()].flatMap(({ id, drops }) =>
      drops.all.map(({ reason, count }) => ({ agent: id, reason, count })),
    ),
    excesses: [...sources.delivery.store.agents.values()].flatMap(({ id, excesses }) =>
      excesses.all.map(({ budget, count }) => ({ agent: id, budget, count })),
    ),
  };
}

function scrapersStatus(sources: StatusSources): ScraperStatus[] {
  const { clock, delivery, scrapers } = sources;
  const nowMs = clock.nowMs();
  const monotonicMs = clock.monotonicMs();
  const statuses: ScraperStatus[] = [];
  const withCursors = new Set<string>();
  for (const scraper of delivery.scrapers) {
    const { name, groups, conflicts } = scraper;
    const text = scraperText(name);
    withCursors.add(text);
    const known = scrapers.all.get(text);
    const { name: program, version } = known?.program ?? { name: '', version: '' };
    for (const [selection, { cursors }] of groups) {
      let backlogReports = 0;
      let oldestMs = nowMs;
      const getsReports = scraper.probe.keeps !== 'none';
      for (const agent of delivery.store.agents.values()) {
        if (!getsReports || cursors[0]?.selects(agent.id) !== true) continue;
        for (const { id, window } of agent.streams) {
          const afterMs = Math.min(...cursors.map((cursor) => cursor.positionMs(id)));
          backlogReports += window.countAfter(afterMs, nowMs);
          // Not its own time: that an agent sends it late is no fault of a scraper.
          oldestMs = Math.min(oldestMs, window.cameAfter(afterMs) ?? nowMs);
        }
      }
      const seenAtMs = Math.max(...cursors.map((cursor) => cursor.seenAtMs));
      const last = cursors.find((cursor) => cursor.seenAtMs === seenAtMs) ?? cursors[0]!;
      const lagMs = nowMs - oldestMs;
      const behind = lagMs > 2 * (last.intervalMs ?? intervalMsUnknown) + confirmingMs;
      statuses.push({
        ...{ scraper: text, selection, program, version, address: last.address },
        confirmedBy: known?.confirmedBy === 'none' ? 'none' : last.confirmedBy,
        ...{ connections: cursors.length, conflicts: conflicts.count, backlogReports, lagSeconds: lagMs / 1000 },
        behind,
        lastScrapeAt: isoTime(nowMs - (monotonicMs - seenAtMs)),
        known: getsReports && cursors.some((cursor) => cursor.holdsAcks(monotonicMs, sources.windowMs)),
        ...lastAnswerOf(known),
        problems: scraperProblems(sources, scraper, { last, known, lagMs: behind ? lagMs : 0 }),
      });
    }
  }
  for (const [text, known] of scrapers.all) {
    if (withCursors.has(text) || known.confirmedBy !== 'none' || monotonicMs - known.seenAtMs > statelessShownMs)
      continue;
    const { program, address, seenAtMs, newestWhy } = known;
    statuses.push({
      ...{
        scraper: text,
        selection: '',
        program: program.name,
        version: program.version,
        address,
        confirmedBy: 'none',
      },
      ...{ connections: 0, conflicts: 0, backlogReports: 0, lagSeconds: 0, behind: false, known: false },
      lastScrapeAt: isoTime(nowMs - (monotonicMs - seenAtMs)),
      ...lastAnswerOf(known),
      problems: [`it gets the newest values only: ${newestWhy}`],
    });
  }
  return statuses;
}

function lastAnswerOf(known: KnownScraper | undefined): Pick<ScraperStatus, 'lastAnswer'> {
  if (known?.lastAnswer === undefined) return {};
  const { samples, bytes, ms } = known.lastAnswer;
  return { lastAnswer: { ...(samples === undefined ? {} : { samples }), bytes, seconds: ms / 1000 } };
}

/** What a person should act on, of one cursor of a scraper. */
function scraperProblems(
  { clock, delivery, windowMs }: StatusSources,
  scraper: Scraper,
  { last, known, lagMs }: { readonly last: Cursor; readonly known: KnownScraper | undefined; readonly lagMs: number },
): string[] {
  const monotonicMs = clock.monotonicMs();
  const problems: string[] = [];
  const awayMs = monotonicMs - last.seenAtMs;
  if (awayMs > Math.max(awayMsMin, 3 * (last.intervalMs ?? 0))) {
    const held = awayMs > windowMs ? 'nothing is held for it any more' : 'agents keep reports for it';
    problems.push(
      `it has not scraped for ${ageText(awayMs)}, and ${held}; if it is gone for good: ` +
        `sysmon-server forget-scraper ${scraperText(scraper.name)}`,
    );
  } else if (lagMs > lagMsMin) {
    problems.push(
      `the oldest report that it has not had came ${ageText(lagMs)} ago: it catches up after an outage; if it does not, scrape more ` +
        'often, or raise max and max-bytes of its job',
    );
  }
  if (known?.newestWhy !== undefined) problems.push(`it gets the newest values only: ${known.newestWhy}`);
  const ofLate = (lastMs: number | undefined): string | undefined =>
    lastMs === undefined || monotonicMs - lastMs >= ofLateMs ? undefined : `${ageText(monotonicMs - lastMs)} ago`;
  const proxied = ofLate(known?.proxy?.seenAtMs);
  if (proxied !== undefined && last.confirmedBy === 'connection') {
    problems.push(
      `an HTTP proxy is in between (${known!.proxy!.sign}, the last time ${proxied}), whose reading counts as scraped: connect directly, or use --prometheus`,
    );
  }
  const { conflicts, assumedAnswers } = scraper;
  const conflicted = ofLate(conflicts.lastMs);
  if (conflicted !== undefined) {
    problems.push(
      `two connections scraped under its name at once, the last time ${conflicted}: give each Prometheus a scraper=NAME of its own`,
    );
  }
  const assumed = ofLate(assumedAnswers.lastMs);
  if (assumed !== undefined) {
    problems.push(
      `${plural(assumedAnswers.count, 'time')} it did not confirm what was sent twice, the last ${assumed}: raise the idle time-outs of ` +
        'its connections, or use --prometheus',
    );
  }
  const inquiry = delivery.receipts.of(scraper.name);
  if (inquiry === undefined) return problems;
  const { health, database } = inquiry;
  if (health.kind === 'fails') {
    problems.push(
      `its Prometheus at ${database.url} has not answered for ${ageText(monotonicMs - health.sinceMs)} (${health.why}): nothing is confirmed`,
    );
  } else if (scraper.areReceiptsMissing || (scraper.receipts.kind === 'none yet' && last.askable.length > 1)) {
    problems.push(
      `its Prometheus at ${database.url} has no sysmon_server_answer of its last answers: is it the one that scrapes, and does it drop that series?`,
    );
  }
  for (const stream of last.isolation.blocked) {
    problems.push(
      `it does not store reports of '${stream}', which alone wait, and are tried again every few minutes: raise that limit of its job, or ` +
        'change what the agent reports, or its labels',
    );
  }
  const { lastRefusal } = scraper;
  if (lastRefusal !== undefined && monotonicMs - lastRefusal.atMs < refusalShownMs) {
    problems.push(
      `${ageText(monotonicMs - lastRefusal.atMs)} ago it did not store answer ${lastRefusal.number}: ${lastRefusal.why ?? 'it does not say why'}; ` +
        `it is given at most ${plural(last.pace.samplesMax, 'sample')} at once`,
    );
  }
  return problems;
}

/**
 * What has happened is shown for as long: somebody who looks in the morning is to see what the night has cost; what was put right
 * does not stay a problem for ever.
 */
export const ofLateMs = 24 * 3_600_000;
// A scraper that keeps no cursor is shown for as long after its last request.
const statelessShownMs = 3_600_000;
const refusalShownMs = 3_600_000;
// Before its second scrape: that of Prometheus where none is set.
const intervalMsUnknown = 60_000;
// What the way to it, and the question for a receipt, may take.
const confirmingMs = 10_000;
const awayMsMin = 60_000;
// A short outage is caught up with before anybody reads of it.
const lagMsMin = 120_000;
