/** The fleet's page: how soon it is there, how large it is, and what pages that stay open cost the server. */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { get, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { BenchRow } from './row.ts';
import { Fleet } from './support/fleet.ts';
import { cpuMsOf, inWorkshop, median, until } from './support/processes.ts';
import { fleetKeyHex, Server } from './support/server.ts';

const agentCount = 1000;
const intervalMs = 5000;
const chromiumPath = '/usr/bin/chromium';
const of = `${agentCount} agents`;

export function rows(): Promise<BenchRow[]> {
  return inWorkshop(async (workshop) => {
    const server = await Server.start(workshop);
    const fleet = await Fleet.start(workshop, {
      port: server.port,
      agentCount,
      intervalMs,
      fleetKeyHex,
      hosts: 'varied',
    });
    await fleet.report({ count: 120 });
    await fleet.connect();
    const { reportsMade } = await fleet.counts();
    await until('the reports', async () => (await server.status()).windowReports >= reportsMade);
    const loads = [];
    for (let round = 0; round < 5; round++) {
      // The next is of another revision.
      await delay(1200);
      loads.push(await load(server));
    }
    const paintMs = await firstPaintMs(server);
    await fleet.run();
    const idleShare = await cpuShare(server);
    const costs: string[] = [];
    for (const [pages, query, what] of [
      [1, '', ''],
      [20, '', ''],
      [20, 'sort=cpu', ' sorted by CPU'],
    ] as const) {
      const { close, bytes } = await openPages(server, pages, query);
      await delay(intervalMs);
      const before = bytes();
      const share = await cpuShare(server);
      const perPage = (bytes() - before) / pages / (measuredMs / 1000);
      costs.push(
        `with ${pages}${what}: ${percent(share - idleShare)} more, ${(perPage / 1000).toFixed(1)} kB/s a page`,
      );
      close();
    }
    server.close();
    const ms = median(loads.map((each) => each.ms));
    const size = loads[0]!;
    return [
      {
        what: `page, ${of}, from the request to its last byte`,
        measured: `${ms.toFixed(0)} ms; ${(size.bytes / 1000).toFixed(0)} kB sent, ${(size.text / 1000).toFixed(0)} kB of HTML`,
        target: '<= 400 kB of HTML',
        ok: size.text <= 400_000,
      },
      {
        what: 'page, first paint in Chromium',
        measured: paintMs === undefined ? `not measured: no ${chromiumPath}` : `${paintMs.toFixed(0)} ms`,
        target: '<= 1000 ms',
        ok: paintMs === undefined ? undefined : paintMs <= 1000,
      },
      {
        what: `page, CPU of one core at ${of} that report every ${intervalMs / 1000} s`,
        measured: `without a page ${percent(idleShare)}; ${costs.join('; ')}`,
        target: '',
        ok: undefined,
      },
    ];
  });
}

const measuredMs = 20_000;
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

async function cpuShare({ pid }: Server): Promise<number> {
  const before = cpuMsOf(pid);
  await delay(measuredMs);
  return (cpuMsOf(pid) - before) / measuredMs;
}

async function load({
  webPort,
}: Server): Promise<{ readonly ms: number; readonly bytes: number; readonly text: number }> {
  const startMs = performance.now();
  const compressed = await bodyOf(await request(webPort, '/', { 'Accept-Encoding': 'gzip' }));
  const ms = performance.now() - startMs;
  const plain = await bodyOf(await request(webPort, '/'));
  return { ms, bytes: compressed.length, text: plain.length };
}

async function request(port: number, path: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  const [response] = (await once(get({ port, path, headers }), 'response')) as [IncomingMessage];
  return response;
}

async function bodyOf(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Pages as a browser keeps them open: each its stream of changes. */
async function openPages(
  { webPort }: Server,
  count: number,
  query: string,
): Promise<{ close(): void; bytes(): number }> {
  let bytes = 0;
  const streams: IncomingMessage[] = [];
  for (let at = 0; at < count; at++) {
    const text = (await bodyOf(await request(webPort, `/?${query}`))).toString();
    const revision = /data-revision=(\d+)/.exec(text)![1];
    const stream = await request(webPort, `/events?${query}&revision=${revision}`);
    stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
    stream.on('error', () => {}); // its end is ours
    streams.push(stream);
  }
  return {
    close() {
      for (const stream of streams) stream.destroy();
    },
    bytes: () => bytes,
  };
}

async function firstPaintMs({ webPort }: Server): Promise<number | undefined> {
  if (!existsSync(chromiumPath)) return undefined;
  const { chromium } = await import('playwright-core');
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  const browser = await chromium.launch({ executablePath: chromiumPath, args });
  try {
    const times: number[] = [];
    for (let round = 0; round < 4; round++) {
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${webPort}/`);
      times.push(await page.evaluate<number>("performance.getEntriesByName('first-contentful-paint')[0].startTime"));
      await page.close();
    }
    // The first starts the browser's own processes.
    return median(times.slice(1));
  } finally {
    await browser.close();
  }
}
