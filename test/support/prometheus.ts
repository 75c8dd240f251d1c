import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Samples, seriesKey } from './agents-record.ts';
import { rootFile } from './files.ts';
import { type Ending, eventually, freePort, Program, type Scope, sampleIn, temporaryFolder } from './programs.ts';

export const prometheusPath = '/usr/bin/prometheus';

/** A reason to skip a test that needs Prometheus; none where it must be there. */
export const prometheusSkip =
  !existsSync(prometheusPath) && process.env['CI'] !== 'true' && `no ${prometheusPath}: apt-get install prometheus`;

/** Each Prometheus that is tested, where its test may be repeated: Debian's, and a 3.x. */
export const prometheusPrograms: readonly { name: string; path: string; skip: string | false }[] = [
  { name: 'Prometheus of Debian', path: prometheusPath, skip: prometheusSkip },
  {
    name: 'Prometheus 3',
    path: process.env['PROMETHEUS3'] ?? '',
    skip:
      process.env['PROMETHEUS3'] === undefined &&
      'PROMETHEUS3 names no program: unpack a 3.x of https://prometheus.io/download/ and give the path of its prometheus',
  },
];

export interface PrometheusOptions {
  /** The port that it scrapes. */
  readonly target: number;
  /** Its name among scrapers, as it is shipped by default; empty: none in its URL. */
  readonly scraper?: string;
  /** More lines of the job: TLS, a user, limits. */
  readonly job?: string;
  /** A target for each of these agents, instead of one for all. */
  readonly agents?: readonly string[];
  /** A port of its own that is known before; a free one by default. */
  readonly port?: number;
  /** Another Prometheus than Debian's. */
  readonly path?: string;
  readonly scrapeInterval?: string;
  readonly scrapeTimeout?: string;
  readonly outOfOrder?: string;
  /** Where it writes what it scrapes, in agent mode: it has no database of its own. */
  readonly agentTo?: string;
  /** It evaluates the rules that are shipped, so often. */
  readonly rulesEvery?: string;
  /** It evaluates them as of so long ago, which Prometheus 2.53 and newer can. */
  readonly rulesOffset?: string;
}

/** A real Prometheus on a free port, with its data in a temporary folder. It can be stopped, and started again on both. */
export class Prometheus {
  readonly #port: number;
  readonly #path: string;
  readonly #argv: readonly string[];
  readonly #file: string;
  #run: Program | undefined;
  /** What it has logged, in all of its runs but the one under way. */
  readonly #linesBefore: string[] = [];

  private constructor(
    scope: Scope,
    { port, path, file, argv }: { port: number; path: string; file: string; argv: readonly string[] },
  ) {
    this.#port = port;
    this.#file = file;
    this.#path = path;
    this.#argv = argv;
    scope.after(async () => {
      await this.#run?.kill('SIGKILL');
    });
  }

  static async start(scope: Scope, options: PrometheusOptions): Promise<Prometheus> {
    const folder = temporaryFolder(scope);
    const file = join(folder, 'prometheus.yml');
    writeFileSync(file, configuration(options));
    const port = options.port ?? (await freePort());
    const { path = prometheusPath, agentTo } = options;
    const data = join(folder, 'data');
    const storage =
      agentTo === undefined ? [`--storage.tsdb.path=${data}`] : [agentFlag(path), `--storage.agent.path=${data}`];
    const argv = [`--config.file=${file}`, ...storage, `--web.listen-address=127.0.0.1:${port}`];
    const prometheus = new Prometheus(scope, { port, path, file, argv });
    await prometheus.start();
    return prometheus;
  }

  async start(): Promise<void> {
    this.#run = new Program('prometheus', this.#path, this.#argv);
    await this.#run.line(/Server is ready to receive web requests/);
    await eventually(30_000, async () => {
      const response = await fetch(`http://127.0.0.1:${this.#port}/-/ready`);
      const text = await response.text();
      if (response.status !== 200) throw new Error(`Prometheus is not ready: ${text}`);
    });
  }

  /** It goes on with another configuration. */
  async reload(options: PrometheusOptions): Promise<void> {
    writeFileSync(this.#file, configuration(options));
    const before = await this.metric('prometheus_config_last_reload_success_timestamp_seconds');
    await new Promise((resolve) => setTimeout(resolve, 1000)); // the metric counts whole seconds
    process.kill(this.#running.pid, 'SIGHUP');
    await eventually(30_000, async () => {
      const now = await this.metric('prometheus_config_last_reload_success_timestamp_seconds');
      if (now <= before) throw new Error(`Prometheus has not reloaded:\n${this.warnings.join('\n')}`);
    });
  }

  async stop(signal: NodeJS.Signals): Promise<Ending | undefined> {
    const run = this.#run;
    const ending = await run?.kill(signal);
    this.#linesBefore.push(...(run?.lines ?? []));
    this.#run = undefined;
    return ending;
  }

  /** It stands still, until {@link thaw}: its kernel goes on without it. */
  freeze(): void {
    process.kill(this.#running.pid, 'SIGSTOP');
  }

  thaw(): void {
    process.kill(this.#running.pid, 'SIGCONT');
  }

  /** The first line of the present run that matches, printed already or to come. */
  line(pattern: RegExp): Promise<string> {
    return this.#running.line(pattern);
  }

  get #running(): Program {
    if (this.#run === undefined) throw new Error('Prometheus is not running');
    return this.#run;
  }

  /** What it has warned of. */
  get warnings(): string[] {
    return [...this.#linesBefore, ...(this.#run?.lines ?? [])].filter((line) => /level=(?:warn|error)/i.test(line));
  }

  /** An answer of its API. */
  async api<T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    const response = await fetch(`http://127.0.0.1:${this.#port}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const body = (await response.json()) as { status: string; data: T; error?: string };
    if (body.status !== 'success') throw new Error(`Prometheus, ${path}: ${body.error}`);
    return body.data;
  }

  /** Its own metric. */
  async metric(name: string): Promise<number> {
    return sampleIn(await (await fetch(`http://127.0.0.1:${this.#port}/metrics`)).text(), name);
  }

  /** The values of an instant query, now. */
  async values(query: string): Promise<number[]> {
    const { result } = await this.api<Vector>('query', { query });
    return result.map(({ value: [, text] }) => numberOf(text));
  }

  /** Every sample that it has of the series, as it was stored. */
  async raw(selector: string, range = '1h', atMs = Date.now() + 60_000): Promise<Samples> {
    const { result } = await this.api<Matrix>('query', { query: `${selector}[${range}]`, time: String(atMs / 1000) });
    return samplesOf(result);
  }

  /** Every sample of the agents that carries its own time. */
  agentSamples(range = '1h', atMs = Date.now() + 60_000): Promise<Samples> {
    return this.raw('{agent!="",__name__!~"sysmon_agent_up|sysmon_server_.*"}', range, atMs);
  }

  async range(query: string, span: { fromMs: number; toMs: number; stepMs: number }): Promise<Samples> {
    const { result } = await this.api<Matrix>('query_range', {
      query,
      start: String(span.fromMs / 1000),
      end: String(span.toMs / 1000),
      step: String(span.stepMs / 1000),
    });
    return samplesOf(result);
  }
}

interface Vector {
  readonly result: readonly { readonly value: readonly [seconds: number, value: string] }[];
}

interface Matrix {
  readonly result: readonly {
    readonly metric: Readonly<Record<string, string>>;
    readonly values: readonly (readonly [seconds: number, value: string])[];
  }[];
}

/** `instance` is taken off: it has to be the agent's name, as the configuration says. */
function samplesOf(result: Matrix['result']): Samples {
  const samples: Samples = new Map();
  for (const { metric, values } of result) {
    const { __name__: name = '', job: _job, instance, ...labels } = metric;
    if (instance !== labels['agent']) throw new Error(`${name}: instance '${instance}' of agent '${labels['agent']}'`);
    samples.set(
      seriesKey(name, labels),
      new Map(values.map(([seconds, value]) => [Math.round(seconds * 1000), numberOf(value)])),
    );
  }
  return samples;
}

function numberOf(text: string): number {
  return text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
}

/** Since 3.0 it is no feature that has to be enabled. */
function agentFlag(path: string): string {
  const { stdout, stderr } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  return /version 2\./.test(stdout + stderr) ? '--enable-feature=agent' : '--agent';
}

/** The configuration that is shipped, for this server and these intervals. */
function configuration(options: PrometheusOptions): string {
  const {
    target,
    scraper,
    job = '',
    agents = [],
    scrapeInterval = '5s',
    scrapeTimeout = scrapeInterval,
    outOfOrder,
    agentTo,
    rulesEvery,
    rulesOffset,
  } = options;
  let text = readFileSync(rootFile('prometheus/prometheus.yml'), 'utf8');
  const replace = (from: string, to: string) => {
    if (!text.includes(from)) throw new Error(`prometheus.yml: '${from}' is not in it`);
    text = text.replace(from, to);
  };
  if (agents.length > 0) {
    const targets = agents.map((agent) => `        labels: {__param_agent: ${agent}}\n`);
    replace(
      '      - targets: ["127.0.0.1:9733"]\n',
      targets.map((labels) => `      - targets: ["127.0.0.1:${target}"]\n${labels}`).join(''),
    );
  } else replace('127.0.0.1:9733', `127.0.0.1:${target}`);
  replace('scrape_interval: 5s', `scrape_interval: ${scrapeInterval}`);
  replace('scrape_timeout: 5s', `scrape_timeout: ${scrapeTimeout}`);
  if (scraper === '') replace('    params:\n      scraper: [prometheus]\n', '');
  else if (scraper !== undefined) replace('scraper: [prometheus]', `scraper: [${scraper}]`);
  replace('    static_configs:', `${job}    static_configs:`);
  if (agentTo !== undefined) {
    // It evaluates nothing, and refuses a file with rules.
    replace('rule_files:\n  - rules/*.yml\n', '');
    return `${text}\nremote_write: [{url: "${agentTo}"}]\n`;
  }
  if (rulesEvery !== undefined) {
    replace('evaluation_interval: 15s', `evaluation_interval: ${rulesEvery}`);
    replace('  - rules/*.yml', `  - ${rootFile('prometheus/rules')}/*.yml`);
    if (rulesOffset !== undefined) replace('# rule_query_offset: 15s', `rule_query_offset: ${rulesOffset}`);
  }
  return outOfOrder === undefined ? text : `${text}\nstorage: {tsdb: {out_of_order_time_window: ${outOfOrder}}}\n`;
}
