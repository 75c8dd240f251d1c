import { mkdirSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { askControl } from '../../src/runtime/control.ts';
import type { AgentStatus, ServerStatus } from '../../src/server/status.ts';
import { dist, freePort, unitFlags, until, type Workshop } from './processes.ts';

export const fleetKeyHex = '5a'.repeat(32);

/** The bundle as the unit runs it, with a fleet key, on the loopback. */
export class Server {
  readonly pid: number;
  readonly port: number;
  readonly webPort: number;
  readonly #controlSocket: string;
  /** One connection, kept between scrapes, as Prometheus does it. */
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  private constructor(parts: { pid: number; port: number; webPort: number; controlSocket: string }) {
    this.pid = parts.pid;
    this.port = parts.port;
    this.webPort = parts.webPort;
    this.#controlSocket = parts.controlSocket;
  }

  static async start(workshop: Workshop, options: { readonly plain?: boolean } = {}): Promise<Server> {
    const [port, webPort] = [await freePort(), await freePort()];
    const folder = join(workshop.folder, `server-${port}`);
    mkdirSync(join(folder, 'state'), { recursive: true });
    const controlSocket = join(folder, 'control.sock');
    const keyFile = join(folder, 'fleet.key');
    writeFileSync(keyFile, `${fleetKeyHex}\n`, { mode: 0o400 });
    const pid = workshop.start(process.execPath, [
      ...unitFlags('sysmon-server'),
      join(dist, 'sysmon-server.cjs'),
      'run',
      '--config.file=/dev/null',
      '--log.level=error',
      `--listen=127.0.0.1:${port}`,
      `--web.listen-address=127.0.0.1:${webPort}`,
      `--state-dir=${join(folder, 'state')}`,
      `--control-socket=${controlSocket}`,
      // All come from one address here, and floods are to get as far as they can.
      '--connections-max=20000',
      '--connections-per-address-max=20000',
      ...(options.plain === true ? [] : [`--fleet-key-file=${keyFile}`]),
    ]);
    const server = new Server({ pid, port, webPort, controlSocket });
    await until('the server', async () => (await fetch(`http://127.0.0.1:${webPort}/-/ready`)).ok);
    return server;
  }

  /** A scrape as Prometheus does it: every report that this name has not had, compressed. Rejects when it is cut off or too late. */
  scrape(
    options: {
      readonly timeoutSeconds?: number;
      readonly onText?: (text: string) => void;
      readonly gzip?: boolean;
    } = {},
  ): Promise<Scrape> {
    const { timeoutSeconds = 10, onText, gzip = true } = options;
    const startMs = performance.now();
    return new Promise((resolve, reject) => {
      const headers = {
        ...(gzip && { 'Accept-Encoding': 'gzip' }),
        'X-Prometheus-Scrape-Timeout-Seconds': String(timeoutSeconds),
        'User-Agent': 'Prometheus/3.5.0',
      };
      const signal = AbortSignal.timeout(timeoutSeconds * 1000);
      const options = { port: this.webPort, path: '/metrics', agent: this.#agent, headers, signal };
      const request = get(options, (response) => {
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
        });
        const tail = new Tail();
        const text = gzip ? createGunzip() : new PassThrough();
        text.setEncoding('utf8');
        // What was cut off is no whole gzip: it says so also after the pipeline has ended.
        text.on('error', () => {});
        text.on('data', (piece: string) => {
          tail.push(piece);
          onText?.(piece);
        });
        pipeline(response, text).then(
          () => resolve({ wallMs: performance.now() - startMs, bytes, own: tail.metrics() }),
          reject,
        );
      });
      request.on('error', reject);
    });
  }

  /** What it says of itself; no cursor moves. Cheap, so that it can be asked again and again. */
  async status(): Promise<ServerStatus> {
    const answer = await askControl(this.#controlSocket, 'GET status');
    return (answer as { server: ServerStatus }).server;
  }

  async agents(): Promise<readonly AgentStatus[]> {
    const answer = await askControl(this.#controlSocket, 'GET agents');
    return (answer as { agents: AgentStatus[] }).agents;
  }

  close(): void {
    this.#agent.destroy();
  }
}

export interface Scrape {
  readonly wallMs: number;
  /** As sent. */
  readonly bytes: number;
  readonly own: OwnMetrics;
}

/** `sysmon_server_window_bytes` → number; series with labels under their whole text. */
export type OwnMetrics = ReadonlyMap<string, number>;

/** The end of a text, where the server's own metrics stand. */
class Tail {
  /** The last two stretches of `tailCharacters`, or a little more: what a piece costs does not depend on what is kept. */
  #before = '';
  #text = '';

  push(piece: string): void {
    if (this.#text.length >= tailCharacters) {
      this.#before = this.#text;
      this.#text = '';
    }
    this.#text += piece;
  }

  metrics(): OwnMetrics {
    const found = new Map<string, number>();
    for (const line of (this.#before + this.#text).split('\n')) {
      const match = /^(sysmon_server_\S+(?:{.*})?) (\S+)$/.exec(line);
      if (match !== null) found.set(match[1]!, Number(match[2]));
    }
    return found;
  }
}

// The server's own metrics are some 20 KB.
const tailCharacters = 256 * 1024;
