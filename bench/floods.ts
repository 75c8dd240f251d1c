/**
 * A server under a flood of peers that are nobody, and under the attacks of one agent or one client of the HTTP port, beside
 * honest agents: what they and the scraper notice of it. Agents, attackers and server share the processors of this machine.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type Attack, attacks, beginAttack } from '../test/support/attacks.ts';
import type { BenchRow } from './row.ts';
import { Fleet } from './support/fleet.ts';
import { Flood } from './support/flood.ts';
import { hostSeriesCount, reportNumberName } from './support/host.ts';
import { cpuMsOf, inWorkshop, median, peakMiBOf, waitedMsOf } from './support/processes.ts';
import { fleetKeyHex, Server } from './support/server.ts';

const agentCount = 100;
const intervalMs = 1000;
const wanted = { idle: 5000, slow: 1000, mute: 200 };
const quietScrapes = 8;
const floodScrapes = process.env.SYSMON_BENCH_FULL === '1' ? 120 : 20;
const bystanders = 20;
const attackScrapes = 8;
const triesMax = 20;
/** Of a scrape: after it Prometheus gives up, and the target is down. */
const timeoutMs = 5000;
/** Of the server's time: where something else has the processors for longer, the time of a scrape says nothing of the server. */
const waitedPercentMax = 25;

export async function rows(): Promise<BenchRow[]> {
  return [...(await floodRows()), ...(await attackRows())];
}

/** Each on a server of its own, beside twenty agents, after a while without it. */
async function attackRows(): Promise<BenchRow[]> {
  const list: BenchRow[] = [];
  for (const attack of attacks) {
    const { quiet, under, reportsMade, missing } = await withAttack(attack);
    const isBelow = under.failed === 0 && under.longestMs < timeoutMs;
    const isJudged = isBelow || missing > 0 || under.waitedPercent <= waitedPercentMax;
    list.push({
      what: `server under attack: ${attack.what}`,
      measured:
        `scrape median ${ms(under.medianMs)}, longest ${ms(under.longestMs)} (without: ${ms(quiet.medianMs)}, ` +
        `${ms(quiet.longestMs)}), ${under.failed} of ${under.scrapes} failed; RSS at most ${under.rssMiB.toFixed(0)} MiB ` +
        `(${quiet.rssMiB.toFixed(0)}), ${under.cpuPercent.toFixed(0)} % of a processor (${quiet.cpuPercent.toFixed(0)}), ` +
        `${under.waitedPercent.toFixed(0)} % of the time waiting for one (${quiet.waitedPercent.toFixed(0)}); ` +
        `${missing} of ${reportsMade} reports of others missing`,
      target: `scrapes below ${timeoutMs / 1000} s, none missing${isJudged ? '' : ': the machine is too busy'}`,
      ok: isJudged ? isBelow && missing === 0 : undefined,
    });
  }
  return list;
}

function withAttack(attack: Attack) {
  return inWorkshop(async (workshop) => {
    const server = await Server.start(workshop, { plain: true });
    const { port, webPort } = server;
    const fleet = await Fleet.start(workshop, { port, agentCount: bystanders, intervalMs, fleetKeyHex: undefined });
    const record = new Arrivals();
    await fleet.run();
    await fleet.connect();
    await scrapes(server, record, 2);
    const quiet = await phase(server, record, quietScrapes);
    const attacker = workshop.adopt(await beginAttack(attack, { port, webPort }));
    const under = await phase(server, record, attackScrapes);
    const ended = once(attacker, 'exit');
    attacker.kill('SIGKILL');
    await ended;
    await fleet.rest();
    const { reportsMade } = await fleet.counts();
    // What the attacker has left may come first.
    await scrapeAll(server, record, reportsMade);
    server.close();
    return { quiet, under, reportsMade, missing: reportsMade - record.count };
  });
}

function floodRows(): Promise<BenchRow[]> {
  return inWorkshop(async (workshop) => {
    const counts = withinLimit(wanted);
    const server = await Server.start(workshop);
    const fleet = await Fleet.start(workshop, { port: server.port, agentCount, intervalMs, fleetKeyHex });
    const record = new Arrivals();
    await fleet.run();
    await fleet.connect();
    await scrapes(server, record, 3);
    const quiet = await phase(server, record, quietScrapes);
    const flood = new Flood(workshop, { port: server.port, fleetKeyHex, ...counts });
    await delay(2000);
    const flooded = await phase(server, record, floodScrapes, async () => (await flood.counts()).open);
    const { made } = await flood.counts();
    flood.end();
    await fleet.rest();
    const { reportsMade, reportsDropped, connects } = await fleet.counts();
    await scrapeAll(server, record, reportsMade);
    server.close();
    const missing = reportsMade - record.count;
    const of = `${counts.idle} idle, ${counts.slow} with a byte a second, ${counts.mute} that never read`;
    return [
      {
        what: `server under a flood: ${of}`,
        measured:
          `${missing} of ${reportsMade} reports of ${agentCount} agents missing, ${reportsDropped} dropped, ` +
          `${connects - agentCount} reconnects; ${made} connections meanwhile, ${flooded.openMost} at once`,
        target: 'nothing lost',
        ok: missing === 0 && reportsDropped === 0,
      },
      {
        what: `server under a flood: scrape of ${agentCount} agents × ${hostSeriesCount} series`,
        measured:
          `median ${ms(flooded.medianMs)}, longest ${ms(flooded.longestMs)} (quiet: ${ms(quiet.medianMs)}, ${ms(quiet.longestMs)}), ` +
          `${flooded.failed} of ${flooded.scrapes} failed`,
        target: '',
        ok: undefined,
      },
      {
        what: 'server under a flood: memory and processor',
        measured:
          `${flooded.rssMiB.toFixed(0)} MiB, ${flooded.cpuPercent.toFixed(0)} % of a processor ` +
          `(quiet: ${quiet.rssMiB.toFixed(0)} MiB, ${quiet.cpuPercent.toFixed(0)} %)`,
        target: '',
        ok: undefined,
      },
    ];
  });
}

const ms = (value: number): string => `${value.toFixed(0)} ms`;

interface Phase {
  readonly scrapes: number;
  /** Cut off, or refused. */
  readonly failed: number;
  /** Failed ones count with the time after which they failed. */
  readonly medianMs: number;
  readonly longestMs: number;
  /** The most since the server's start. */
  readonly rssMiB: number;
  readonly cpuPercent: number;
  /** See {@link waitedPercentMax}. */
  readonly waitedPercent: number;
  readonly openMost: number;
}

/** A scrape a second. */
async function phase(
  server: Server,
  record: Arrivals,
  count: number,
  openNow: () => Promise<number> = async () => 0,
): Promise<Phase> {
  const wallMs: number[] = [];
  let failed = 0;
  let openMost = 0;
  const before = { cpuMs: cpuMsOf(server.pid), waitedMs: waitedMsOf(server.pid), atMs: performance.now() };
  for (let at = 0; at < count; at++) {
    const [scrape] = await scrapes(server, record, 1);
    wallMs.push(scrape!.wallMs);
    if (!scrape!.isWhole) failed++;
    openMost = Math.max(openMost, await openNow());
  }
  const percent = (ms: number) => (100 * ms) / (performance.now() - before.atMs);
  const cpuPercent = percent(cpuMsOf(server.pid) - before.cpuMs);
  const waitedPercent = percent(waitedMsOf(server.pid) - before.waitedMs);
  return {
    ...{ scrapes: count, failed, cpuPercent, waitedPercent, openMost, rssMiB: peakMiBOf(server.pid) },
    ...{ medianMs: median(wallMs), longestMs: Math.max(...wallMs) },
  };
}

interface Attempt {
  readonly wallMs: number;
  readonly isWhole: boolean;
}

async function scrapes(server: Server, record: Arrivals, count: number): Promise<Attempt[]> {
  const list: Attempt[] = [];
  for (let at = 0; at < count; at++) {
    const startMs = performance.now();
    const options = { timeoutSeconds: timeoutMs / 1000, onText: (text: string) => record.push(text) };
    const isWhole = await server.scrape(options).then(
      () => true,
      () => false,
    );
    record.end();
    list.push({ wallMs: performance.now() - startMs, isWhole });
    await delay(Math.max(0, startMs + intervalMs - performance.now()));
  }
  return list;
}

/** Until all of them have come, or do not come. */
async function scrapeAll(server: Server, record: Arrivals, reports: number): Promise<void> {
  for (let tries = 0; tries < triesMax && record.count < reports; tries++) await scrapes(server, record, 1);
}

/** Which reports a scraper has had, by a series that counts them. */
class Arrivals {
  readonly #seen = new Set<string>();
  #rest = '';

  get count(): number {
    return this.#seen.size;
  }

  /** An answer has ended, and its last line may lack its end. */
  end(): void {
    this.#rest = '';
  }

  push(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    // Name, agent and number; not the time, which is another when the newest is given again.
    for (const line of lines) if (line.startsWith(`${reportNumberName}{`)) this.#seen.add(line.replace(/ \d+$/, ''));
  }
}

/** Each connection takes a descriptor on either side, and Node has raised its soft limit to the hard one. */
function withinLimit(counts: typeof wanted): typeof wanted {
  const text = readFileSync('/proc/self/limits', 'utf8');
  const [, hard = '0'] = /^Max open files +\S+ +(\S+)/m.exec(text) ?? [];
  const room = hard === 'unlimited' ? Infinity : Number(hard) - 500;
  const total = counts.idle + counts.slow + counts.mute;
  if (total <= room) return counts;
  console.error(`'ulimit -Hn' is ${hard}: the flood is smaller than the ${total} connections that it should have`);
  const share = (count: number) => Math.floor((count * Math.max(0, room)) / total);
  return { idle: share(counts.idle), slow: share(counts.slow), mute: share(counts.mute) };
}
