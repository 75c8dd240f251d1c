/**
 * Printing a scrape: our writer and prom-client, the same values, in the same process. 200 agents, or the 1000 that the
 * targets are about with SYSMON_BENCH_FULL=1. CPU of the process with its threads, the best of some rounds: on a shared
 * machine the others measure the neighbours.
 */
import { promisify } from 'node:util';
import { constants, createGzip, gzip } from 'node:zlib';
import { Counter, Gauge, Registry } from 'prom-client';
import { type AgentBatch, Exposition } from '../src/server/exposition/exposition.ts';
import { gzipOptions } from '../src/server/web/http-sink.ts';
import type { BenchRow } from './row.ts';
import { cpuMsOfWork, floorsOf } from './support/floors.ts';
import { hostBatches, hostGroups, hostSeriesCount, moveOn } from './support/host.ts';

const agentCount = process.env.SYSMON_BENCH_FULL === '1' ? 1000 : 200;
const rounds = 12;

export async function rows(): Promise<BenchRow[]> {
  const batches = hostBatches(agentCount);
  const seriesCount = agentCount * hostSeriesCount;
  const perSeries = (cpuMs: number) => (cpuMs * 1e6) / seriesCount;
  const exposition = new Exposition({ onDisagreement: () => {} });

  const before = rssBytes();
  const first = await cpuMsOfWork(() => render(exposition, batches));
  let slowestMs = 0;
  const rendering = await bestCpuMsOf(batches, async () => {
    slowestMs = await render(exposition, batches);
  });
  const keptBytes = rssBytes() - before;
  const compressing = await bestCpuMsOf(batches, () => renderCompressed(exposition, batches));

  const floors = await floorsOf(batches, rounds);
  const registry = await promClientRegistry(batches);
  const theirs = await bestCpuMsOf(undefined, () => registry.metrics());
  const compressBuffer = promisify(gzip);
  const theirsCompressed = await bestCpuMsOf(undefined, async () =>
    compressBuffer(await registry.metrics(), { level: constants.Z_BEST_SPEED }),
  );

  const of = `${agentCount} agents × ${hostSeriesCount} series`;
  const ns = (cpuMs: number) => `${perSeries(cpuMs).toFixed(0)} ns a series`;
  const overCopy = perSeries(rendering) / floors.copyNs;
  const overTheirs = rendering / theirs;
  const overBoth = perSeries(compressing) / (1.3 * floors.copyNs + floors.gzipNs);
  return [
    {
      what: `floors of this machine, ${of}: copy the finished texts; gzip them`,
      measured: `${floors.copyNs.toFixed(0)} ns a series; ${floors.gzipNs.toFixed(0)} ns`,
      target: '',
      ok: undefined,
    },
    {
      what: `server, rendering with timestamps, ${of}`,
      measured:
        `${ns(rendering)}: ${overCopy.toFixed(2)} x copy, ${overTheirs.toFixed(3)} x prom-client without timestamps ` +
        `(${ns(theirs)})`,
      target: '<= 1.3 x copy, <= 0.08 x prom-client',
      ok: overCopy <= 1.3 && overTheirs <= 0.08,
    },
    {
      what: "server, the same, gzip'd",
      measured: `${ns(compressing)}: ${overBoth.toFixed(2)} x (1.3 x copy + gzip) (prom-client: ${ns(theirsCompressed)})`,
      target: '<= 1.15 x (1.3 x copy + gzip)',
      ok: overBoth <= 1.15,
    },
    { what: 'server, the first rendering, which builds the names', measured: ns(first), target: '', ok: undefined },
    {
      what: 'server, longest time between two slices of a rendering',
      measured: `${slowestMs.toFixed(1)} ms`,
      target: '',
      ok: undefined,
    },
    {
      what: 'server, RSS that rendering adds and keeps',
      measured: `${(keptBytes / 2 ** 20).toFixed(0)} MiB, ${(keptBytes / seriesCount).toFixed(0)} bytes a series`,
      target: '',
      ok: undefined,
    },
  ];
}

/** Returns the longest time in ms that the event loop could not have turned. */
async function render(exposition: Exposition, batches: readonly AgentBatch[]): Promise<number> {
  let longestMs = 0;
  let atMs = performance.now();
  for (const slice of exposition.render(batches, { timestamps: true })) {
    exposition.release(slice);
    longestMs = Math.max(longestMs, performance.now() - atMs);
    atMs = performance.now();
  }
  return longestMs;
}

async function renderCompressed(exposition: Exposition, batches: readonly AgentBatch[]): Promise<void> {
  const compressor = createGzip(gzipOptions);
  compressor.resume();
  for (const slice of exposition.render(batches, { timestamps: true })) {
    const taken = compressor.write(slice, () => exposition.release(slice));
    if (!taken) await new Promise((resolve) => compressor.once('drain', resolve));
  }
  await new Promise((resolve) => compressor.on('end', resolve).end());
}

/** With batches, their values move on from round to round. */
async function bestCpuMsOf(batches: readonly AgentBatch[] | undefined, work: () => Promise<unknown>): Promise<number> {
  let bestMs = Infinity;
  for (let round = 0; round < rounds; round++) {
    for (const { runs } of batches ?? []) {
      for (const { reports } of runs) for (const { sums } of reports) moveOn(sums, round);
    }
    bestMs = Math.min(bestMs, await cpuMsOfWork(work));
  }
  return bestMs;
}

function rssBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

async function promClientRegistry(batches: readonly AgentBatch[]): Promise<Registry> {
  const registry = new Registry();
  let first = 0;
  for (const { family, labelNames, seriesCount, labelValues } of hostGroups) {
    const { name, help, divisor } = family;
    const options = { name, help, labelNames: ['agent', ...labelNames], registers: [registry] };
    const metric = family.type === 'gauge' ? new Gauge(options) : new Counter(options);
    for (const { agent, runs } of batches) {
      const { sums } = runs[0]!.reports[0]!;
      for (let series = 0; series < seriesCount; series++) {
        const own = labelNames.map((label, index) => [label, labelValues[series * labelNames.length + index]!]);
        metric.inc({ agent, ...Object.fromEntries(own) }, sums[first + series]! / divisor);
      }
    }
    first += seriesCount;
  }
  return registry;
}
