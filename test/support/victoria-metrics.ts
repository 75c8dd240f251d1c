import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Samples, seriesKey } from './agents-record.ts';
import { rootFile } from './files.ts';
import type { InstalledProgram } from './installed.ts';
import { eventually, freePort, Program, type Scope, temporaryFolder } from './programs.ts';

export interface VictoriaMetricsOptions {
  /** A port of its own that is known before; a free one by default. */
  readonly port?: number;
  /** The port that it scrapes itself, with prometheus/vmagent.yml; undefined: it scrapes nothing. */
  readonly target?: number;
  readonly scrapeInterval?: string;
  readonly flags?: readonly string[];
}

export interface VmagentOptions extends VictoriaMetricsOptions {
  readonly target: number;
  /** Where it writes what it has scraped. */
  readonly to: VictoriaMetrics;
}

/** A program of VictoriaMetrics on a free port, with its data in a temporary folder. It can be stopped, and started again. */
class VictoriaProgram {
  readonly port: number;
  readonly #path: InstalledProgram;
  readonly #argv: readonly string[];
  #run: Program | undefined;

  protected constructor(scope: Scope, { path, port, argv }: { path: InstalledProgram; port: number; argv: string[] }) {
    this.port = port;
    this.#path = path;
    this.#argv = [...argv, `-httpListenAddr=127.0.0.1:${port}`, '-loggerFormat=default'];
    scope.after(async () => {
      await this.#run?.kill('SIGKILL');
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const run = new Program(this.#path, this.#path, this.#argv);
    this.#run = run;
    await eventually(30_000, async () => {
      const { status } = await fetch(`${this.url}/health`);
      if (status !== 200) throw new Error(`${this.#path} is not ready:\n${run.lines.join('\n')}`);
    });
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const run = this.#run;
    this.#run = undefined;
    await run?.kill(signal);
  }

  /** It stands still, until {@link thaw}. */
  freeze(): void {
    process.kill(this.#running.pid, 'SIGSTOP');
  }

  thaw(): void {
    process.kill(this.#running.pid, 'SIGCONT');
  }

  /** What it has printed in this run. */
  get lines(): readonly string[] {
    return this.#running.lines;
  }

  get #running(): Program {
    if (this.#run === undefined) throw new Error(`${this.#path} is not running`);
    return this.#run;
  }
}

export class VictoriaMetrics extends VictoriaProgram {
  static async start(scope: Scope, options: VictoriaMetricsOptions = {}): Promise<VictoriaMetrics> {
    const folder = temporaryFolder(scope);
    const { port = await freePort(), target, flags = [] } = options;
    const argv = [`-storageDataPath=${join(folder, 'data')}`, '-retentionPeriod=1d', ...flags];
    if (target !== undefined) argv.push(`-promscrape.config=${configured(folder, { ...options, target })}`);
    const program = new VictoriaMetrics(scope, { path: '/usr/bin/victoria-metrics', port, argv });
    await program.start();
    return program;
  }

  /** The values of an instant query, now, of everything that it has been given. */
  async values(query: string): Promise<number[]> {
    const parameters = new URLSearchParams({ query, nocache: '1', latency_offset: '1ms' });
    const response = await fetch(`${this.url}/api/v1/query?${parameters}`);
    const body = (await response.json()) as { data: { result: readonly { value: readonly [number, string] }[] } };
    return body.data.result.map(({ value: [, text] }) => Number(text));
  }

  /** Every sample of the agents that carries its own time; and how many are stored more than once. */
  async agentSamples(): Promise<Samples> {
    return (await this.stored()).samples;
  }

  async stored(): Promise<{ readonly samples: Samples; readonly repeated: number }> {
    const parameters = new URLSearchParams({ 'match[]': '{agent!="",__name__!~"sysmon_agent_up|sysmon_server_.*"}' });
    const text = await (await fetch(`${this.url}/api/v1/export?${parameters}`)).text();
    const samples: Samples = new Map();
    let repeated = 0;
    for (const line of text.split('\n').filter((each) => each !== '')) {
      // The mark of a series' end is null, and as the first value of a line it is NaN, which is no JSON.
      const json = line.replace(/"values":\[[^\]]*/, (text) => text.replaceAll('NaN', 'null'));
      const { metric, values, timestamps } = JSON.parse(json) as {
        readonly metric: Readonly<Record<string, string>>;
        readonly values: readonly (number | null)[];
        readonly timestamps: readonly number[];
      };
      const { __name__: name = '', job: _job, instance, ...labels } = metric;
      if (instance !== labels['agent']) throw new Error(`${name}: instance '${instance}' of '${labels['agent']}'`);
      const key = seriesKey(name, labels);
      const points = samples.get(key) ?? new Map<number, number>();
      samples.set(key, points);
      for (const [at, value] of values.entries()) {
        if (value === null) continue;
        if (points.has(timestamps[at]!)) repeated++;
        points.set(timestamps[at]!, value);
      }
    }
    return { samples, repeated };
  }
}

export class Vmagent extends VictoriaProgram {
  static async start(scope: Scope, options: VmagentOptions): Promise<Vmagent> {
    const folder = temporaryFolder(scope);
    const { port = await freePort(), to, flags = [] } = options;
    const argv = [
      `-promscrape.config=${configured(folder, options)}`,
      `-remoteWrite.url=${to.url}/api/v1/write`,
      `-remoteWrite.tmpDataPath=${join(folder, 'queue')}`,
      ...flags,
    ];
    const program = new Vmagent(scope, { path: '/usr/bin/vmagent', port, argv });
    await program.start();
    return program;
  }
}

/** The configuration that is shipped, for this server. */
function configured(
  folder: string,
  { target, scrapeInterval = '5s' }: { target: number; scrapeInterval?: string },
): string {
  let text = readFileSync(rootFile('prometheus/vmagent.yml'), 'utf8');
  for (const [from, to] of [
    ['127.0.0.1:9733', `127.0.0.1:${target}`],
    ['scrape_interval: 5s', `scrape_interval: ${scrapeInterval}`],
    ['scrape_timeout: 5s', `scrape_timeout: ${scrapeInterval}`],
  ] as const) {
    if (!text.includes(from)) throw new Error(`vmagent.yml: '${from}' is not in it`);
    text = text.replace(from, to);
  }
  const file = join(folder, 'vmagent.yml');
  writeFileSync(file, text);
  return file;
}
