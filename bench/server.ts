/**
 * What a fleet costs its server: first parts of it in this process, then the bundle as the unit runs it, with agents that
 * speak TLS from a process of their own. SYSMON_BENCH_FULL=1 takes longer and has windows of 30 min in the memory.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Gauge, Registry } from 'prom-client';
import { agentId } from '../src/model/agent-id.ts';
import type { Sums } from '../src/model/report.ts';
import { decodeAgentMessage, encodeMessage } from '../src/protocol/codec.ts';
import { encodeDelta, encodeKey } from '../src/protocol/delta.ts';
import { limits } from '../src/protocol/limits.ts';
import type { ReportMessage } from '../src/protocol/messages.ts';
import { SchemaTable } from '../src/protocol/schema-table.ts';
import { Store } from '../src/server/delivery/store.ts';
import { beginOf } from '../test/support/groups.ts';
import type { BenchRow } from './row.ts';
import { Fleet } from './support/fleet.ts';
import { floorsOf } from './support/floors.ts';
import { firstSums, hostBatches, hostGroups, hostSeriesCount, moveOn } from './support/host.ts';
import { cpuMsOf, inWorkshop, median, memoryOf, peakMiBOf, until } from './support/processes.ts';
import { fleetKeyHex, type OwnMetrics, type Scrape, Server } from './support/server.ts';

const isFull = process.env.SYSMON_BENCH_FULL === '1';
const intervalMs = 5000;

export async function rows(): Promise<BenchRow[]> {
  return [...ingestRows(), ...(await fleetRows()), ...(await catchUpRows())];
}

// Half an hour at 5 s.
const windowReports = 360;
const ingestAgents = 20;

/** One half hour of an agent, as its messages. */
function halfHour(at: number): ReportMessage[] {
  const sums = firstSums(at);
  const present = new Uint8Array(sums.length).fill(1);
  let before: Sums | undefined;
  const startMs = Date.now() - windowReports * intervalMs + 1000;
  return Array.from({ length: windowReports }, (_, round) => {
    moveOn(sums, round);
    const key = before === undefined || round % limits.reportsPerKeyMax === 0;
    const next = { sums: sums.slice(), present };
    const pairs = key ? encodeKey(next) : encodeDelta(before!, next);
    before = next;
    return { kind: 'report', key, source: 0, seq: round + 1, timeMs: startMs + round * intervalMs, pairs };
  });
}

/** From a decoded report to the window; and what a window then holds. */
function ingestRows(): BenchRow[] {
  const store = new Store({
    clock: { nowMs: () => Date.now(), monotonicMs: () => performance.now() } as never,
    windowMs: 30 * 60_000,
    memoryBytesMax: 2 ** 40,
    forgetAfterMs: 86_400_000,
    unscrapedAfterMs: () => 0,
    scrapersWithout: () => [],
    onReport() {},
    onEvict() {},
    onReceived() {},
  });
  const samplesEach = windowReports * hostSeriesCount;
  let bestNs = Infinity;
  let bytes = 0;
  for (let at = 0; at < ingestAgents; at++) {
    const agent = store.agent(agentId(`web-${at}`)!);
    const table = new SchemaTable();
    const source = table.begin(beginOf());
    table.declare({ kind: 'schema', source: 0, groups: hostGroups }, 0);
    const payloads = halfHour(at).map(encodeMessage);
    const messages = payloads.map((payload) => decodeAgentMessage(payload) as ReportMessage);
    const { labels } = source;
    const start = process.cpuUsage();
    let follows = false;
    for (const [i, message] of messages.entries()) {
      table.apply(message);
      const { schema } = source;
      const { sums, present } = source.state;
      const { key, seq, timeMs } = message;
      const outcome = store.receive(agent.host, {
        ...{ schema, labels, epoch: 1, seq, timeMs, key, payload: payloads[i]!, sums, present, follows },
      });
      follows = outcome === 'stored';
    }
    const { user, system } = process.cpuUsage(start);
    bestNs = Math.min(bestNs, ((user + system) * 1000) / samplesEach);
    if (agent.host.window.reportCount !== windowReports) throw new Error('the window has not taken every report');
    bytes += agent.host.window.bytes;
  }
  const theirsNs = promClientNs();
  const perSample = bytes / (ingestAgents * samplesEach);
  return [
    {
      what: `server, ingest after decoding, ${hostSeriesCount} series a report`,
      measured: `${bestNs.toFixed(0)} ns a series (prom-client's set(): ${theirsNs.toFixed(0)})`,
      target: '<= 100 ns a series',
      ok: bestNs <= 100,
    },
    {
      what: 'server, window of 30 min at 5 s, its bookkeeping included',
      measured: `${perSample.toFixed(2)} bytes a sample`,
      target: '<= 1.5 bytes a sample',
      ok: perSample <= 1.5,
    },
  ];
}

/** The same work by gauges with labels: a set() for each series of each report. */
function promClientNs(): number {
  const registry = new Registry();
  const gauges = hostGroups.map(({ family, labelNames, seriesCount, labelValues }) => ({
    gauge: new Gauge({
      name: family.name,
      help: family.help,
      labelNames: ['agent', ...labelNames],
      registers: [registry],
    }),
    labels: Array.from({ length: seriesCount }, (_, series) =>
      Object.fromEntries(labelNames.map((name, i) => [name, labelValues[series * labelNames.length + i]!])),
    ),
  }));
  let bestNs = Infinity;
  for (let round = 0; round < 5; round++) {
    const start = process.cpuUsage();
    for (let at = 0; at < ingestAgents; at++) {
      for (const { gauge, labels } of gauges)
        for (const own of labels) gauge.set({ agent: `web-${at}`, ...own }, round);
    }
    const { user, system } = process.cpuUsage(start);
    bestNs = Math.min(bestNs, ((user + system) * 1000) / (ingestAgents * hostSeriesCount));
  }
  return bestNs;
}

const fleetAgents = 1000;
// A schema lets half of itself go after eight reports of such a host.
const rounds = isFull ? 30 : 12;
const plainRounds = 6;

/** A thousand agents: what the process takes, and what a whole scrape takes of it. */
function fleetRows(): Promise<BenchRow[]> {
  return inWorkshop(async (workshop) => {
    const server = await Server.start(workshop);
    const plan = { port: server.port, agentCount: fleetAgents, intervalMs, fleetKeyHex };
    await server.scrape();
    await delay(1000);
    const empty = memoryOf(server.pid);
    const fleet = await Fleet.start(workshop, plan);
    // Backwards in time where windows are to be full: what lies before the newest is then sent as a backlog.
    await fleet.report({ count: isFull ? windowReports - rounds : 1 });
    await fleet.connect();
    const scrapesOf = async (count: number, options: { readonly gzip: boolean }) => {
      const made: { readonly scrape: Scrape; readonly cpuMs: number }[] = [];
      for (let round = 0; round < count; round++) {
        if (round > 0 || !options.gzip) await fleet.report();
        await arrived(server, fleet);
        const beforeMs = cpuMsOf(server.pid);
        const scrape = await server.scrape(options);
        made.push({ scrape, cpuMs: cpuMsOf(server.pid) - beforeMs });
      }
      return made;
    };
    const scrapes = await scrapesOf(rounds, { gzip: true });
    const { rssMiB } = memoryOf(server.pid);
    const plain = await scrapesOf(plainRounds, { gzip: false });
    const agents = await server.agents();
    const windowBytes = agents.reduce((bytes, agent) => bytes + agent.windowBytes, 0);
    server.close();
    // The first builds the names; with full windows it is also a backlog.
    const steady = scrapes.slice(2);
    const seriesCount = fleetAgents * hostSeriesCount;
    const best = (list: typeof scrapes) => Math.min(...list.map(({ cpuMs }) => (cpuMs * 1e6) / seriesCount));
    const bestNs = best(steady);
    const plainNs = best(plain);
    const { copyNs, gzipNs } = await floorsOf(hostBatches(fleetAgents), 6);
    const overBoth = bestNs / (1.3 * copyNs + gzipNs);
    const aboveMiB = rssMiB - empty.rssMiB - windowBytes / 2 ** 20;
    const of = `${fleetAgents} agents × ${hostSeriesCount} series`;
    return [
      {
        what: `server, whole gzip'd scrape over HTTP, ${of}`,
        measured:
          `${bestNs.toFixed(0)} ns of CPU a series, ${overBoth.toFixed(2)} x (1.3 x copy + gzip: ${copyNs.toFixed(0)} and ` +
          `${gzipNs.toFixed(0)} ns); ${median(steady.map(({ scrape }) => scrape.wallMs)).toFixed(0)} ms, ` +
          `${(scrapes.at(-1)!.scrape.bytes / 1e6).toFixed(1)} MB`,
        target: '<= 1.15 x (1.3 x copy + gzip)',
        ok: overBoth <= 1.15,
      },
      {
        what: 'server, the same without gzip',
        measured: `${plainNs.toFixed(0)} ns of CPU a series, ${(plainNs / copyNs).toFixed(2)} x copy`,
        target: '<= 1.6 x copy',
        ok: plainNs <= 1.6 * copyNs,
      },
      {
        what: `server, RSS above an empty process, windows not counted, over TLS, ${of}`,
        measured:
          `${aboveMiB.toFixed(0)} MiB (empty ${empty.rssMiB.toFixed(0)}, now ${rssMiB.toFixed(0)}, peak ` +
          `${peakMiBOf(server.pid).toFixed(0)}; windows ${(windowBytes / 2 ** 20).toFixed(0)})`,
        target: '<= 150 MiB',
        ok: aboveMiB <= 150,
      },
    ];
  });
}

/** Every report that was made is in a window. */
async function arrived(server: Server, fleet: Fleet): Promise<void> {
  const { reportsMade } = await fleet.counts();
  await until('the reports', async () => (await server.status()).windowReports >= reportsMade);
}

const awayAgents = 100;
// The last report before is within the 5 min that a new scraper begins with.
const awayReports = 59;

/** Agents whose line was down for five minutes, and a Prometheus at 5 s. */
function catchUpRows(): Promise<BenchRow[]> {
  return inWorkshop(async (workshop) => {
    const server = await Server.start(workshop);
    const fleet = await Fleet.start(workshop, { port: server.port, agentCount: awayAgents, intervalMs, fleetKeyHex });
    // What the scraper has before, so that it is known.
    await fleet.report({ agoMs: awayReports * intervalMs + 2000 });
    await fleet.connect();
    await arrived(server, fleet);
    const before = [await server.scrape(), await server.scrape(), await server.scrape()];
    await fleet.cut();
    await fleet.report({ count: awayReports });
    await fleet.run();
    await fleet.connect();
    const startMs = performance.now();
    const scrapes: Scrape[] = [];
    do {
      await delay(intervalMs - ((performance.now() - startMs) % intervalMs));
      scrapes.push(await server.scrape({ timeoutSeconds: 5 }));
    } while (sum(scrapes.at(-1)!.own, 'scrape_backlog_reports') > 0 || scrapes.length < 3);
    const seconds = (performance.now() - startMs) / 1000;
    const { reportsDropped } = await fleet.counts();
    server.close();
    if (reportsDropped > 0) throw new Error(`${reportsDropped} reports were dropped by the agents`);
    const lagMs = (name: string) => (scrape: Scrape) => sum(scrape.own, `nodejs_eventloop_lag_${name}_seconds`) * 1000;
    const worst = (of: (scrape: Scrape) => number, list = scrapes) => Math.max(...list.map(of));
    const samples = awayAgents * awayReports * hostSeriesCount;
    return [
      {
        what: `server, ${awayAgents} agents × ${hostSeriesCount} series back after 5 min, scraped every 5 s`,
        measured:
          `caught up after ${seconds.toFixed(0)} s, ${scrapes.length} scrapes (${(samples / 1e6).toFixed(1)} M samples); ` +
          `longest scrape ${worst(({ wallMs }) => wallMs).toFixed(0)} ms`,
        target: 'no scrape over 5 s',
        ok: worst(({ wallMs }) => wallMs) < 5000,
      },
      {
        what: 'server, event loop meanwhile, as Node measures it in steps of 10 ms',
        measured:
          `p99 ${worst(lagMs('p99')).toFixed(0)} ms, max ${worst(lagMs('max')).toFixed(0)} ms ` +
          `(before: max ${worst(lagMs('max'), before).toFixed(0)} ms)`,
        target: '',
        ok: undefined,
      },
    ];
  });
}

/** Of all series of a metric. */
function sum(own: OwnMetrics, name: string): number {
  let total = 0;
  for (const [series, value] of own) {
    if (series === `sysmon_server_${name}` || series.startsWith(`sysmon_server_${name}{`)) total += value;
  }
  return total;
}
