import { type AgentNode, agentLosses, type SampledReport } from './agent-node.ts';
import { epochMs } from './machine.ts';
import type { ScraperNode } from './scraper-node.ts';
import type { Answer } from './server-node.ts';
import { nameOf, type World } from './world.ts';

/**
 * What a history came to, when everything has been put right and there was time to deliver: each report that was made is
 * in each database, or there is a reason, of the few that there may be, why it is not. A reason puts the history beyond
 * the stated bounds; a report without one is a bug.
 */
export function judge(world: World): { missing: Map<string, number>; counts: Record<string, number> } {
  const missing = new Map<string, number>();
  judgeClocks(world);
  for (const scraper of world.scrapers) {
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

/** What is within the bounds, and missing all the same. */
export const statedLosses: ReadonlySet<string> = new Set([beforeFirstScrape, failedThreeTimes, ...agentLosses]);

/** When the server's time of a report is not what it ought to be, no promise holds. */
function judgeClocks(world: World): void {
  const serverAheadMs = world.plan.server.wallAheadMs;
  if (Math.abs(serverAheadMs) > serverAheadMsMax) world.beyond("a server's clock that is far off");
  for (const agent of world.agents) {
    let newestMs = Number.NEGATIVE_INFINITY;
    for (const report of agent.reports) {
      const { serverMs, atMs, epoch } = report;
      if (serverMs === undefined) continue;
      const errorMs = serverMs - (epochMs + atMs + world.server.host.wallAheadMs);
      if (Math.abs(errorMs) > clockErrorMsMax && !agent.hasOffset(epoch)) {
        world.beyond('an epoch whose clock was never compared, in an agent that was restarted');
      } else if (Math.abs(errorMs) > clockErrorMsMax) {
        // The measurement gave up: only where answers were slow.
        const isSlow = world.plan.faults.some(({ kind }) => /line (?:slow|cut|narrow)|paused|power/.test(kind));
        if (!isSlow && !world.hasSteppedServer)
          world.violated(`the time of ${nameOf(report)} is wrong by ${errorMs} ms`);
        world.beyond('a clock that could not be compared');
      }
      if (serverMs <= newestMs) world.beyond("an agent's times that go back");
      newestMs = Math.max(newestMs, serverMs);
    }
  }
}

function isTimeWrong({ server }: World, { serverMs, atMs }: SampledReport): boolean {
  return serverMs !== undefined && Math.abs(serverMs - (epochMs + atMs + server.host.wallAheadMs)) > clockErrorMsMax;
}

/** Whether a report that was made before it has a later time. */
function isPassed({ agent, atMs, serverMs }: SampledReport): boolean {
  return agent.reports.some((other) => other.atMs < atMs && (other.serverMs ?? 0) >= (serverMs ?? 0));
}

/** The series of a report that are not there. One that is there with another value is a violation. */
function compare(world: World, { database, plan }: ScraperNode, report: SampledReport): string[] {
  const { serverMs, outcome } = report;
  // What the server refused may have the time of another.
  if (serverMs === undefined || outcome !== 'stored') return [...report.values.keys()];
  const lacks: string[] = [];
  for (const [series, value] of report.values) {
    const stored = database.series.get(series)?.samples.get(serverMs);
    if (stored === undefined) lacks.push(series);
    else if (!Object.is(stored, value)) {
      world.violated(`${plan.name} has ${stored} for ${series} of ${nameOf(report)}, expected ${value}`);
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
  if (report.lostWith !== undefined && outcome !== 'stored') return report.lostWith;
  if (isBeforeFirst(world, cursor, report)) return beforeFirstScrape;
  if (wentToNamesake(world, cursor, report))
    return 'an answer to another of the same name, before both were seen at work';
  if (serverMs === undefined && agent.gaveUp(report)) return failedThreeTimes;
  if (serverMs === undefined) return isTight(agent) && agent.droppedReports > 0 ? 'a small spool' : undefined;
  const isOff = isTimeWrong(world, report) || world.hasSteppedServer;
  if (refusedAs === 'not_newer' ? isPassed(report) : refusedAs !== undefined && isOff) {
    return `a time that the server refuses as ${refusedAs}`;
  }
  const nowMs = epochMs + world.timeline.nowMs + server.host.wallAheadMs;
  if (world.hasSteppedServer && serverMs > nowMs - scrapedWithinMs)
    return "a step of the server's clock, after which the time has not come yet";
  if (server.plan.windowMs < windowMsUsual) return 'a small window';
  if (server.plan.memoryBytesMax < memoryBytesUsual) return 'little memory for windows';
  const refusal = lacks.map((series) => world.refusalOf(cursor.scraper, series, serverMs)).find((reason) => reason);
  if (refusal !== undefined) return `Prometheus refuses it: ${refusal}`;
  let lostAnswers = 0;
  for (const answer of cursor.answers) {
    const given = answer.given.get(agent.plan.name);
    if (given === undefined || !(given[0] < serverMs && serverMs <= given[1])) continue;
    const isFarOff = Math.abs(server.plan.wallAheadMs) > serverAheadMsMax || world.hasSteppedServer;
    if (answer.isRefusedWhole && isFarOff) return 'times so far off that Prometheus refuses whole scrapes';
    const excuse = excuseOf(answer);
    if (excuse !== undefined) return excuse;
    if (answer.finishedMs !== undefined && answer.storedMs === undefined) lostAnswers++;
  }
  if (server.assumptions > 0 && lostAnswers >= givenBeforeAssumed) return 'answers that were lost again and again';
  if (report.lostWith !== undefined) return report.lostWith;
  // Also one that this Prometheus had after it: it refuses what is older, or is never given it.
  if (isPassed(report)) return "an agent's times that go back";
  if (isTight(agent) && agent.droppedReports > 0 && world.serverEnds.some((ms) => ms > atMs)) return 'a small spool';
  return undefined;
}

function isBeforeFirst(world: World, cursor: CursorHistory, { atMs, serverMs }: SampledReport): boolean {
  const sharesName = world.scrapers.some(
    ({ plan }) => plan !== cursor.scraper.plan && plan.scraper === cursor.scraper.plan.scraper,
  );
  // What has a wrong time is as old as that says.
  const toldMs = serverMs === undefined ? atMs : serverMs - epochMs - world.server.host.wallAheadMs;
  if (Math.min(atMs, toldMs) <= cursor.firstMs - (sharesName ? 0 : neverSeenBackMs)) return true;
  return atMs <= cursor.knownMs && world.serverEnds.some((ms) => ms <= cursor.knownMs);
}

/** While one of two under one name is away, the other takes its place, unless both have been seen at work. */
function wentToNamesake(
  { server }: World,
  { scraper, answers }: CursorHistory,
  { agent, atMs, serverMs }: SampledReport,
): boolean {
  if (serverMs === undefined || atMs > server.sharedSinceMs) return false;
  return answers.some(({ from, storedMs, given }) => {
    const [afterMs, untilMs] = given.get(agent.plan.name) ?? [0, 0];
    return from !== scraper.plan.name && storedMs !== undefined && afterMs < serverMs && serverMs <= untilMs;
  });
}

/** An answer that its Prometheus never stored, of a kind that the server cannot tell from one that was. */
function excuseOf(answer: Answer): string | undefined {
  const { storedMs, isConfirmedByEnd } = answer;
  return isConfirmedByEnd && storedMs === undefined
    ? 'an orderly end of a connection while its scraper ended'
    : undefined;
}

/** Nothing is there that was not sampled. */
function judgeRest(world: World, { database, plan }: ScraperNode, found: number): void {
  let stored = 0;
  for (const [series, { samples }] of database.series) if (series.startsWith('sim_')) stored += samples.size;
  if (stored === found) return;
  const expected = new Map<string, Set<number>>();
  for (const { reports } of world.agents) {
    for (const { values, serverMs } of reports) {
      if (serverMs === undefined) continue;
      for (const series of values.keys()) {
        const times = expected.get(series) ?? new Set();
        expected.set(series, times);
        times.add(serverMs);
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
  // A clock that was set back has reports in its future, which wait until their time has come.
  if (world.hasSteppedServer) return;
  if (new Set(world.scrapers.map(({ plan }) => plan.scraper)).size < world.scrapers.length) return;
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
    'not newer': server.outcomes.get('not_newer') ?? 0,
    'too far ahead': server.outcomes.get('too_far_ahead') ?? 0,
    'too old': server.outcomes.get('too_old') ?? 0,
  };
  const internal = world.ends.get('internal') ?? 0;
  if (internal !== server.bugsMet) {
    world.violated(`${server.bugsMet} bugs have ended ${internal} connections`);
  }
  for (const agent of agents) if (isTight(agent) && agent.droppedReports > 0) world.beyond('a small spool');
  const left = server.unscrapedEvictions + server.skippedReports + lost['too old'];
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

const isTight = ({ plan }: AgentNode): boolean =>
  plan.bounds.bytesMax < spoolBytesUsual || plan.bounds.ageMsMax < spoolAgeMsUsual;

const spoolBytesUsual = 2 ** 20;
const spoolAgeMsUsual = 3_600_000;
const windowMsUsual = 15 * 60_000;
const memoryBytesUsual = 2 ** 20;
// Prometheus takes what is up to 10 min ahead of it.
const serverAheadMsMax = 9 * 60_000;
// What is ignored of an offset, what a step may move unnoticed, half a round trip at either end, and a step of the server.
const clockErrorMsMax = 7000;
// The longest interval between two scrapes, and a timeout.
const scrapedWithinMs = 30_000;
// Of cursor.ts: given twice.
const givenBeforeAssumed = 2;
// Of delivery.ts.
const neverSeenBackMs = 5 * 60_000;
