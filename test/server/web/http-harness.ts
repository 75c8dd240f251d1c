import { Agent, type ClientRequest, type IncomingHttpHeaders, request } from 'node:http';
import { createConnection, type Socket } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { onceAMinute } from '../../../src/runtime/log.ts';
import type { CursorChange } from '../../../src/server/delivery/cursors.ts';
import { Exposition } from '../../../src/server/exposition/exposition.ts';
import { Registry, ServerMetrics } from '../../../src/server/own-metrics.ts';
import { problemsView } from '../../../src/server/problems.ts';
import { scraperChanged } from '../../../src/server/scraper-changes.ts';
import { agentsStatus, serverGauges, serverStatus } from '../../../src/server/status.ts';
import type { StatusView } from '../../../src/server/web/api.ts';
import { KnownScrapers } from '../../../src/server/web/known-scrapers.ts';
import { openWeb, type WebAddress, type WebServer } from '../../../src/server/web/listener.ts';
import type { Joining } from '../../../src/server/web/page/fleet.ts';
import { noWebConfig, type WebConfig } from '../../../src/server/web/web-config-file.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { timeoutMs, windowMs } from '../delivery/cursors-harness.ts';
import { DeliveryHarness, type MemoryState, type TestAgent } from '../delivery/delivery-harness.ts';
import { testSchema } from '../delivery/report-maker.ts';

/** A server's HTTP port on loopback, over a delivery without sockets and with a virtual clock. */
export class HttpHarness extends DeliveryHarness {
  readonly log = new MemoryLog();
  readonly seldom = onceAMinute(this.log, this.clock);
  readonly exposition = new Exposition({ onDisagreement: () => this.metrics.disagreement() });
  readonly metrics = new ServerMetrics(new Registry(), {
    version: '1.2.3',
    gauges: () => serverGauges({ ...this.status, keys: { isRetiring: () => false } }),
  });
  readonly scrapers = new KnownScrapers(this);
  isReady = true;
  plaintext = false;
  joining: Joining = { kind: 'without-key', isLoopback: true, port: 9732 };
  archiveFolder: string | undefined;
  compression = true;
  keepAliveMs = 310_000;
  keepAliveOthersMs = 15_000;
  readonly config: { current: WebConfig } = { current: noWebConfig };
  override onCursorChange = (change: CursorChange) => scraperChanged(change, this);
  #server: WebServer | undefined;
  readonly #clients: Client[] = [];

  get status() {
    const { clock, delivery, scrapers } = this;
    const startedAtMs = clock.nowMs();
    const serverClock = { status: { steps: 0 } };
    const memoryBytesMax = 64 * 1024 * 1024;
    return { clock, delivery, scrapers, version: '1.2.3', startedAtMs, windowMs, memoryBytesMax, serverClock };
  }

  /** What the pages are given. */
  get view(): StatusView {
    const { status, clock } = this;
    return {
      server: () => serverStatus(status),
      agents: () => agentsStatus(status),
      problems: problemsView(() => ({ nowMs: clock.nowMs(), startedAtMs: status.startedAtMs })),
    };
  }

  get warnings(): string[] {
    return this.log.lines.filter((line) => line.startsWith('warn: ')).map((line) => line.slice('warn: '.length));
  }

  get port(): number {
    return this.#server!.ports[0]!;
  }

  async listen(port = 0): Promise<WebServer> {
    this.#server = await this.openAt([{ kind: 'tcp', address: '127.0.0.1', port }]);
    return this.#server;
  }

  /** A server of its own, which the caller closes. */
  openAt(addresses: readonly WebAddress[]): Promise<WebServer> {
    const { clock, delivery, exposition, metrics, plaintext, joining, archiveFolder, compression } = this;
    const { keepAliveMs, keepAliveOthersMs, seldom, scrapers } = this;
    const options = {
      ...{ clock, seldom, delivery, exposition, metrics, plaintext, joining, archiveFolder, scrapers },
      ...{ keepAliveMs, keepAliveOthersMs, compression },
      status: this.view,
      hostNames: new Set(['sysmon.example']),
      turn: () => new Promise<void>((resolve) => setImmediate(resolve)),
      isReady: () => this.isReady,
      config: this.config,
    };
    return openWeb(options, addresses);
  }

  /** A client that keeps its one connection. */
  client(): Client {
    const client = new Client(this);
    this.#clients.push(client);
    return client;
  }

  /** Bytes, as they are. */
  raw(text = ''): Socket {
    const socket = createConnection({ port: this.port, host: '127.0.0.1' });
    socket.on('error', () => {}); // what becomes of it is what the test looks at
    socket.write(text);
    return socket;
  }

  /** The value of a sample of the server's own metrics. */
  async own(sample: string): Promise<number | undefined> {
    const line = (await this.metrics.text([])).split('\n').find((each) => each.startsWith(`${sample} `));
    return line === undefined ? undefined : Number(line.slice(sample.length + 1));
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.stop(2000);
  }

  /** The server's own end, while clients are still there; `afterMs`: what passes before the last of them lets go. */
  async stop(afterMs = 0): Promise<void> {
    const closed = this.#server?.close(2000);
    await this.clock.advance(afterMs);
    await closed;
  }
}

/** Runs with a server that is closed afterwards. */
export async function withHttp(
  run: (world: HttpHarness) => Promise<void>,
  {
    keepAliveMs,
    archiveFolder,
    compression = true,
    joining = { kind: 'without-key', isLoopback: true, port: 9732 },
    ...options
  }: {
    disk?: MemoryState | undefined;
    keepAliveMs?: number;
    archiveFolder?: string;
    compression?: boolean;
    joining?: Joining;
  } = {},
): Promise<void> {
  const world = new HttpHarness('disk' in options ? options : undefined);
  world.archiveFolder = archiveFolder;
  world.compression = compression;
  world.joining = joining;
  if (keepAliveMs !== undefined) world.keepAliveMs = keepAliveMs;
  await world.listen();
  try {
    await run(world);
  } finally {
    await world.close();
  }
}

export interface Answer {
  readonly code: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export const scrapeHeaders = {
  'X-Prometheus-Scrape-Timeout-Seconds': String(timeoutMs / 1000),
  'User-Agent': 'Prometheus/3.5.0',
};

/** A scrape as bytes. */
export const scrapeText = `GET /metrics HTTP/1.1\r\nHost: localhost\r\n${Object.entries(scrapeHeaders)
  .map(([name, value]) => `${name}: ${value}\r\n`)
  .join('')}\r\n`;

/** An agent whose reports are a megabyte of text each. */
export function bigAgent(world: HttpHarness, reports: number): TestAgent {
  const agent = world.connect('big');
  agent.maker.schema = testSchema(20_000);
  const nowMs = world.clock.nowMs();
  for (let report = reports; report > 0; report--) {
    const values = Array.from({ length: 20_000 }, (_, series) => series);
    const made = agent.maker.make(nowMs - report * 1000, values);
    world.delivery.store.receive(agent.record.host, { ...made, follows: false });
  }
  return agent;
}

export function minutes(count: number): number {
  return count * 60_000;
}

export class Client {
  readonly #world: HttpHarness;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  /** How many connections were made. */
  connections = 0;
  #socket: Socket | undefined;

  constructor(world: HttpHarness) {
    this.#world = world;
  }

  get(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const sent = this.request(path, headers, method);
      sent.on('error', reject);
      sent.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          const text = response.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes;
          resolve({ code: response.statusCode ?? 0, headers: response.headers, text: text.toString() });
        });
      });
      sent.end();
    });
  }

  /** As Prometheus does. Gives the samples of agents, without their names: ` 1 1767225600000`. */
  async scrape(query = ''): Promise<string[]> {
    const answer = await this.get(`/metrics${query}`, scrapeHeaders);
    if (answer.code !== 200) throw new Error(`${answer.code} ${answer.text}`);
    return samplesOf(answer.text);
  }

  request(path: string, headers: Record<string, string>, method = 'GET'): ClientRequest {
    const sent = request({ host: '127.0.0.1', port: this.#world.port, path, headers, method, agent: this.#agent });
    sent.on('socket', (socket) => {
      if (socket === this.#socket) return;
      this.#socket = socket;
      this.connections++;
    });
    return sent;
  }

  /** Hangs up. */
  destroy(): void {
    this.#agent.destroy();
    this.#socket?.destroy();
  }
}

/** The samples of `test_value`, each as agent, value and time. */
export function samplesOf(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('test_value{'))
    .map((line) => line.replace(/^test_value\{agent="([^"]+)",series="s0"\}/, '$1'));
}

/** Waits until it is so; the whole test's timeout is the only limit. */
export async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** All that comes on a socket until its end. */
export function readAll(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
  });
}
