import { type AgentNode, agentLosses, nameOf, type SampledReport, type StoredTime } from './agent-node.ts';
import { epochMs } from './machine.ts';
import type { ScraperNode } from './scraper-node.ts';
import type { Answer, ServerNode } from './server-node.ts';
import type { Timeline } from './timeline.ts';

/** A history that has ended. */
interface World {
  readonly timeline: Timeline;
  readonly agents: readonly AgentNode[];
  readonly server: ServerNode;
  readonly scrapers: readonly ScraperNode[];
  /** When the server's state was written, and when it ended. */
  readonly stateWrites: readonly number[];
  readonly serverEnds: readonly number[];
  /** Connections that the server ended, by reason. */
  readonly ends: ReadonlyMap<string, number>;
  readonly isClockUnsure: boolean;
  readonly isWithin: boolean;
  refusalOf(scraper: ScraperNode, series: string, timeMs: number): string | undefined;
  beyond(why: string): void;
  violated(what: string): void;
}

/**
 * What a history came to, when everything has been put right and there was time to deliver: each report that was made is
 * in each database, or there is a reason, of the few that there may be, why it is not. A reason puts the history beyond
 * the stated bounds; a report without one is a bug.
 */
export function judge(world: World): { missing: Map<string, number>; counts: Record<string, number> } {
  const missing = new Map<string, number>();
  judgeClocks(world);
  if (isFarOff(world)) world.beyond("a server's clock that is far off");
  for (const scraper of world.scrapers) {
    if (scraper.plan.kind.kind === 'keeps the first') {
      judgeNewest(world, scraper);
      continue;
    }
    let found = 0;
    for (const agent of world.agents) {
      const key = scraper.keyFor(agent.plan.name);
      if (key === undefined) continue;
      const cursor = new CursorHistory(world, scraper, key);
      for (const report of agent.reports) {
        const lacks = compare(world, scraper, report);
        found += report.values.size - lacks.length;
        if (lacks.length === 0) continue;
        const why = explain(world, cursor, report, lacks) ?? 'NOTHING';
        missing.set(why, (missing.get(why) ?? 0) + 1);
        if (why === 'NOTHING') {
          const { outcome, receivedMs, atMs } = report;
          world.violated(
            `${scraper.plan.name} lacks ${lacks.length} of ${report.values.size} values of ${nameOf(report)}, made at ` +
              `${(atMs / 1000).toFixed(3)} s, received at ${((receivedMs ?? Number.NaN) / 1000).toFixed(3)} s (${outcome})`,
          );
        } else if (!statedLosses.has(why)) world.beyond(why);
      }
    }
    judgeRest(world, scraper, found);
  }
  judgeQueues(world);
  return { missing, counts: judgeCounters(world) };
}

/** A scraper that was never seen starts five minutes back. */
const beforeFirstScrape = 'before it was known to scrape';

/** The agent drops it, and counts and logs that. */
const failedThreeTimes = 'a bug of the server that it met three times';

/** What an earlier run has left is sent with the offset that it had. */
const restartedAndSet = "an agent that was restarted, while the server's clock was set";

/** An offset is measured anew where the old one is wrong by over 2 s: what is made within as long as that is not newer. */
const smallCorrection = 'a correction of the clock by a few seconds';

/** What is within the bounds, and missing all the same. */
export const statedLosses: ReadonlySet<string> = new Set([
  ...[beforeFirstScrape, smallCorrection, failedThreeTimes],
  ...agentLosses,
]);

/** By the server's clock, as it was at some moment between the report's making and its storing. */
function judgeClocks(world: World): void {
  for (const agent of world.agents) {
    let newestMs = Number.NEGATIVE_INFINITY;
    for (const report of agent.reports) {
      for (const stored of timesOf(report)) {
        const errorMs = errorOf(world, report, stored);
        if (Math.abs(errorMs) <= clockErrorMsMax) continue;
        if (!agent.hasOffset(report.epoch)) {
          world.beyond('an epoch whose clock was never compared, in an agent that was restarted');
        } else {
          // The measurement gave up: only where answers were slow.
          if (!world.isClockUnsure) world.violated(`the time of ${nameOf(report)} is wrong by ${errorMs} ms`);
          world.beyond('a clock that could not be compared');
        }
      }
      const { serverMs } = report.stored.at(-1) ?? report;
      if (serverMs === undefined) continue;
      const isBack = serverMs <= newestMs && newestMs - serverMs > correctionMsMax;
      if (isBack && !isSetBack(world, timesOf(report).at(-1)!.atMs)) world.beyond("an agent's times that go back");
      newestMs = Math.max(newestMs, serverMs);
    }
  }
}

/** The times by which a report was stored, or that by which it was refused. */
function timesOf({ stored, serverMs, receivedMs, run }: SampledReport): readonly StoredTime[] {
  if (stored.length > 0 || serverMs === undefined) return stored;
  return [{ serverMs, atMs: receivedMs!, run }];
}

/** By how much the time of a report is wrong, at the least: by the server's clock as it was at any time since `fromMs`. */
function errorOf({ server }: World, { atMs }: SampledReport, stored: StoredTime, fromMs = atMs): number {
  const errors = server.host
    .wallAheadBetween(fromMs, stored.atMs)
    .map((aheadMs) => stored.serverMs - (epochMs + atMs + aheadMs));
  return errors.reduce((least, error) => (Math.abs(error) < Math.abs(least) ? error : least));
}

function isTimeWrong(world: World, report: SampledReport): boolean {
  return timesOf(report).some((stored) => Math.abs(errorOf(world, report, stored)) > clockErrorMsMax);
}

/** Whether the server's clock was set back by then: times before it may be later than those after it. */
function isSetBack({ server }: World, ms: number): boolean {
  const ahead = server.host.wallAheadBetween(0, ms);
  return ahead.some((aheadMs, at) => aheadMs < (ahead[at - 1] ?? Number.NEGATIVE_INFINITY));
}

/** By how much a report that was made before it has a later time; negative where none has. */
function passedByMs({ agent, atMs, serverMs }: SampledReport): number {
  let mostMs = Number.NEGATIVE_INFINITY;
  for (const other of agent.reports) {
    if (other.atMs >= atMs) break;
    for (const time of timesOf(other)) mostMs = Math.max(mostMs, time.serverMs);
  }
  return mostMs - (serverMs ?? 0);
}

/** Whether it was passed by one that was never right, by whatever the server's clock has shown. */
function isPassedByWrong(world: World, { agent, atMs, serverMs }: SampledReport): boolean {
  return agent.reports.some(
    (other) =>
      other.atMs < atMs &&
      (isTimeWrong(world, other) || !agent.hasOffset(other.epoch)) &&
      timesOf(other).some((time) => time.serverMs >= (serverMs ?? 0)),
  );
}

/**
 * Whether it was passed by one of an earlier run of the agent, which has the offset of that run, although the server's clock
 * was set since: the boot of that run is not known.
 */
function isPassedByEarlierRun(world: World, { agent, atMs, serverMs }: SampledReport): boolean {
  return agent.reports.some(
    (other) =>
      other.atMs < atMs &&
      timesOf(other).some(
        (time) =>
          time.run > other.run &&
          time.serverMs >= (serverMs ?? 0) &&
          Math.abs(errorOf(world, other, time, time.atMs)) > clockErrorMsMax,
      ),
  );
}

/** So little that no clock was set. */
function isPassedByLittle(report: SampledReport): boolean {
  const ms = passedByMs(report);
  return ms >= 0 && ms <= correctionMsMax;
}

/** The series of a report that are not there, by none of its times. One with another value is a violation. */
function compare(world: World, { database, plan }: ScraperNode, report: SampledReport): string[] {
  const lacks: string[] = [];
  for (const [series, value] of report.values) {
    const { samples } = database.series.get(series) ?? { samples: new Map<number, number>() };
    const found = report.stored.flatMap(({ serverMs }) => samples.get(serverMs) ?? []);
    if (found.length === 0) lacks.push(series);
    else if (!found.some((each) => Object.is(each, value))) {
      world.violated(`${plan.name} has ${found[0]} for ${series} of ${nameOf(report)}, expected ${value}`);
    }
  }
  return lacks;
}

/** What one cursor of the server went through, as far as it excuses a gap. */
class CursorHistory {
  readonly scraper: ScraperNode;
  readonly answers: readonly Answer[];
  /** True time from which on the server's disk knew that this scraper exists. */
  readonly knownMs: number;
  readonly firstMs: number;

  constructor(world: World, scraper: ScraperNode, key: string) {
    this.scraper = scraper;
    this.answers = world.server.answers.filter((answer) => answer.key === key);
    this.firstMs = this.answers.find(({ from }) => from === scraper.plan.name)?.startedMs ?? Number.POSITIVE_INFINITY;
    const wholeMs = this.answers.find(
      ({ finishedMs, from }) => finishedMs !== undefined && from === scraper.plan.name,
    )?.finishedMs;
    this.knownMs =
      world.stateWrites.find((ms) => ms >= (wholeMs ?? Number.POSITIVE_INFINITY)) ?? Number.POSITIVE_INFINITY;
  }
}

/** Why a report may be missing from a database; undefined: it may not. */
function explain(
  world: World,
  cursor: CursorHistory,
  report: SampledReport,
  lacks: readonly string[],
): string | undefined {
  const { agent, atMs, serverMs, outcome, refusedAs } = report;
  const { server } = world;
  const { kind, receipts } = cursor.scraper.plan;
  if (report.lostWith !== undefined && outcome !== 'stored') return report.lostWith;
  if (isBeforeFirst(world, cursor, report)) return beforeFirstScrape;
  if (wentToNamesake(cursor, report)) return 'an answer to another of the same name and address';
  if (agent.gaveUp(report)) return failedThreeTimes;
  if (cursor.scraper.hasNewest) return 'times so far off that Prometheus keeps none';
  // Refused whole, an answer is given again and again where its receipt would confirm it; what is newer waits.
  const isWaiting = receipts !== undefined && cursor.answers.some(({ isRefusedWhole }) => isRefusedWhole);
  if (isWaiting && isFarOff(world)) return 'times so far off that Prometheus refuses whole scrapes';
  if (serverMs === undefined) return isTight(agent) && agent.droppedReports > 0 ? 'a small spool' : undefined;
  if (isPassedByLittle(report)) return smallCorrection;
  const isStored = outcome === 'stored';
  const isWrong = isTimeWrong(world, report) || (refusedAs === 'not_newer' && isPassedByWrong(world, report));
  if (!isStored && isWrong) {
    return `a time that the server refuses as ${refusedAs}`;
  }
  if (!isStored && refusedAs === 'not_newer' && isPassedByEarlierRun(world, report)) return restartedAndSet;
  if (server.plan.windowMs < windowMsUsual) return 'a small window';
  if (server.plan.memoryBytesMax < memoryBytesUsual) return 'little memory for windows';
  const times = timesOf(report).map((time) => time.serverMs);
  const refusal = lacks
    .flatMap((series) => times.map((ms) => world.refusalOf(cursor.scraper, series, ms)))
    .find((reason) => reason);
  if (refusal !== undefined) return `Prometheus refuses it: ${refusal}`;
  let lostAnswers = 0;
  for (const answer of cursor.answers) {
    const given = answer.given.get(agent.plan.name);
    if (given === undefined || !times.some((ms) => given[0] < ms && ms <= given[1])) continue;
    if (answer.isRefusedWhole && isFarOff(world)) return 'times so far off that Prometheus refuses whole scrapes';
    // Then only what is stored is confirmed.
    if (receipts !== undefined) continue;
    if (answer.isRefusedBySize) return 'a limit of its job';
    if (kind.kind === 'behind a proxy' && answer.finishedMs !== undefined && answer.storedMs === undefined) {
      return 'a proxy that has read what its client has not';
    }
    const excuse = excuseOf(answer);
    if (excuse !== undefined) return excuse;
    if (answer.finishedMs !== undefined && answer.storedMs === undefined) lostAnswers++;
  }
  if (server.assumptions > 0 && lostAnswers >= givenBeforeAssumed) return 'answers that were lost again and again';
  if (report.lostWith !== undefined) return report.lostWith;
  // Also one that this Prometheus had after it: it refuses what is older, or is never given it.
  if (isPassedByWrong(world, report)) return "an agent's times that go back";
  // What a server forgets when it ends, or when its clock is set, is in no spool any more that dropped it.
  const isForgotten =
    world.serverEnds.some((ms) => ms > atMs) || server.host.wallAheadBetween(atMs, world.timeline.nowMs).length > 1;
  if (isTight(agent) && agent.droppedReports > 0 && isForgotten) return 'a small spool';
  return undefined;
}

/** Prometheus takes what is up to 10 min ahead of it, or an hour behind. */
export function isFarOff({ server, timeline }: World): boolean {
  return server.host.wallAheadBetween(0, timeline.nowMs).some((aheadMs) => Math.abs(aheadMs) > serverAheadMsMax);
}

function isBeforeFirst(world: World, cursor: CursorHistory, { atMs, serverMs }: SampledReport): boolean {
  const sharesName = world.scrapers.some(
    ({ plan }) => plan !== cursor.scraper.plan && plan.scraper === cursor.scraper.plan.scraper,
  );
  // What has a wrong time is as old as that says.
  const [aheadMs = 0] = world.server.host.wallAheadBetween(cursor.firstMs, cursor.firstMs);
  const toldMs = serverMs === undefined ? atMs : serverMs - epochMs - aheadMs;
  if (Math.min(atMs, toldMs) <= cursor.firstMs - (sharesName ? 0 : neverSeenBackMs)) return true;
  // Acknowledged before, it was in memory alone, and by the clock as it was then.
  const isClockSet = world.server.host.wallAheadBetween(atMs, cursor.knownMs).length > 1;
  return atMs <= cursor.knownMs && (isClockSet || world.serverEnds.some((ms) => ms > atMs));
}

/** Which of two under one name and one address comes over a new connection, nobody can tell. */
function wentToNamesake({ scraper, answers }: CursorHistory, report: SampledReport): boolean {
  const times = timesOf(report).map((time) => time.serverMs);
  return answers.some(({ from, storedMs, given }) => {
    const [afterMs, untilMs] = given.get(report.agent.plan.name) ?? [0, 0];
    const isGiven = times.some((ms) => afterMs < ms && ms <= untilMs);
    return from !== scraper.plan.name && storedMs !== undefined && isGiven;
  });
}

/** An answer that its Prometheus never stored, of a kind that the server cannot tell from one that was. */
function excuseOf(answer: Answer): string | undefined {
  const { storedMs, isConfirmedByEnd } = answer;
  return isConfirmedByEnd && storedMs === undefined
    ? 'an orderly end of a connection while its scraper ended'
    : undefined;
}

/** It is given the newest values, without times: each is one that was sampled before. */
function judgeNewest(world: World, { database, plan }: ScraperNode): void {
  const sampled = new Map<string, Set<number>>();
  for (const { values } of world.agents.flatMap(({ reports }) => reports)) {
    for (const [series, value] of values) sampled.set(series, (sampled.get(series) ?? new Set()).add(value));
  }
  for (const [series, { samples }] of database.series) {
    if (!series.startsWith('sim_')) continue;
    for (const value of samples.values()) {
      if (sampled.get(series)?.has(value) !== true) world.violated(`${plan.name} has ${value} for ${series}`);
    }
  }
  const names = [...(world.server.delivery?.scrapers ?? [])].map(({ name }) => name.text);
  if (names.includes(plan.scraper)) world.violated(`${plan.name} has a cursor, and gets the newest values`);
}

/** Nothing is there that was not sampled. */
function judgeRest(world: World, { database, plan, hasNewest }: ScraperNode, found: number): void {
  let stored = 0;
  for (const [series, { samples }] of database.series) if (series.startsWith('sim_')) stored += samples.size;
  if (stored === found || hasNewest) return;
  const expected = new Map<string, Set<number>>();
  for (const { reports } of world.agents) {
    for (const { values, stored: times } of reports) {
      for (const series of values.keys()) {
        const all = expected.get(series) ?? new Set();
        expected.set(series, all);
        for (const { serverMs } of times) all.add(serverMs);
      }
    }
  }
  for (const [series, { samples }] of database.series) {
    if (!series.startsWith('sim_')) continue;
    for (const timeMs of samples.keys()) {
      if (expected.get(series)?.has(timeMs) !== true) {
        world.violated(`${plan.name} has ${series} at ${timeMs}, which nobody sampled`);
        return;
      }
    }
  }
}

/**
 * Everything has been delivered, so nothing waits any more. Of two that share a name the server cannot know whether one
 * that was there has gone for good: acks wait for it as long as the window.
 */
function judgeQueues(world: World): void {
  if (new Set(world.scrapers.map(({ plan }) => plan.scraper)).size < world.scrapers.length) return;
  // Nor whether a connection whose end it never saw was another scraper's.
  for (const { groups } of world.server.delivery?.scrapers ?? []) {
    for (const { cursors } of groups.values()) if (cursors.length > 1) return;
  }
  // What a Prometheus refuses is given again and again where its receipt would confirm it.
  if (isFarOff(world) && world.scrapers.some(({ plan }) => plan.receipts !== undefined)) return;
  for (const { spool, plan } of world.agents) {
    if (spool === undefined) world.violated(`${plan.name} is not running at the end`);
    else if (spool.waitingCount > 0) world.violated(`${plan.name}: ${spool.waitingCount} reports wait at the end`);
  }
}

/** Within the bounds nothing is dropped. */
function judgeCounters(world: World): Record<string, number> {
  const { server, agents, scrapers } = world;
  const lost = {
    'dropped by a spool': agents.reduce((sum, agent) => sum + agent.droppedReports, 0),
    'evicted unscraped': server.unscrapedEvictions,
    'skipped at the end of a window': server.skippedReports,
  };
  const internal = world.ends.get('internal') ?? 0;
  if (internal !== server.bugsMet) {
    world.violated(`${server.bugsMet} bugs have ended ${internal} connections`);
  }
  for (const agent of agents) if (isTight(agent) && agent.droppedReports > 0) world.beyond('a small spool');
  const left = server.unscrapedEvictions + server.skippedReports + refusedAs(world, 'too_old');
  if (server.plan.windowMs < windowMsUsual && left > 0) world.beyond('a small window');
  if (server.plan.memoryBytesMax < memoryBytesUsual && server.unscrapedEvictions > 0)
    world.beyond('little memory for windows');
  if (world.isWithin) {
    for (const [what, count] of Object.entries(lost)) {
      if (count > 0) world.violated(`${count} reports ${what}, in a history within the bounds`);
    }
  }
  const refused = scrapers.reduce((sum, scraper) => sum + [...scraper.refused.values()].reduce((a, b) => a + b, 0), 0);
  return {
    ...lost,
    'not newer': refusedAs(world, 'not_newer'),
    'too far ahead': refusedAs(world, 'too_far_ahead'),
    'too old': refusedAs(world, 'too_old'),
    'refused by Prometheus': refused,
    scrapes: scrapers.reduce((sum, scraper) => sum + scraper.scrapes, 0),
    'failed scrapes': scrapers.reduce((sum, scraper) => sum + scraper.failures, 0),
    'rolled back': server.outcomes.get('rollback') ?? 0,
    conflicts: server.conflicts,
    'counted as read': server.assumptions,
    duplicates: server.outcomes.get('duplicate') ?? 0,
    'server ends': world.serverEnds.length,
    'bugs met': server.bugsMet,
    'late ticks': agents.reduce((sum, agent) => sum + agent.lateTicks, 0),
  };
}

/** Reports that the server did not store in the end, for this reason. */
function refusedAs({ agents }: World, outcome: string): number {
  return agents.reduce((sum, { reports }) => sum + reports.filter((report) => report.outcome === outcome).length, 0);
}

const isTight = ({ plan }: AgentNode): boolean =>
  plan.bounds.bytesMax < spoolBytesUsual || plan.bounds.ageMsMax < spoolAgeMsUsual;

const spoolBytesUsual = 2 ** 20;
const spoolAgeMsUsual = 3_600_000;
const windowMsUsual = 15 * 60_000;
const memoryBytesUsual = 2 ** 20;
// Twice what is ignored of an offset.
const correctionMsMax = 4000;
// Prometheus takes what is up to 10 min ahead of it.
const serverAheadMsMax = 9 * 60_000;
// What is ignored of an offset, what a step may move unnoticed, half a round trip at either end, and a step of the server.
const clockErrorMsMax = 7000;
// Of cursor.ts: given twice.
const givenBeforeAssumed = 2;
// Of delivery.ts.
const neverSeenBackMs = 5 * 60_000;
