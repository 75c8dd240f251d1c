import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootFile } from '../support/files.ts';
import { eventually, type Lab } from './lab.ts';
import { type Stored, seriesName } from './record.ts';

/** A Prometheus in the hosts' network, with the project's own configuration at one scrape a second, or more rarely. */
export class Prometheus {
  readonly #lab: Lab;
  readonly #child: ChildProcess;
  readonly #url: string;
  readonly #file: string;
  #log = '';

  private constructor(lab: Lab, child: ChildProcess, { url, file }: { readonly url: string; readonly file: string }) {
    this.#url = url;
    this.#file = file;
    this.#lab = lab;
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
  }

  /** `scraper`: its name at the server. */
  static async start(
    lab: Lab,
    server: string,
    { scraper = 'prometheus', port = 9090, intervalSeconds = 1 } = {},
  ): Promise<Prometheus> {
    const url = `http://10.77.0.1:${port}`;
    const folder = join(lab.folder, `${scraper}-data`);
    mkdirSync(folder);
    const config = readFileSync(rootFile('prometheus/prometheus.yml'), 'utf8')
      .replaceAll('127.0.0.1:9733', `${server}:9733`)
      .replace('scraper: [prometheus]', `scraper: [${scraper}]`)
      .replace('scrape_interval: 5s', `scrape_interval: ${intervalSeconds}s`)
      .replace('scrape_timeout: 5s', `scrape_timeout: ${intervalSeconds}s`);
    const file = join(folder, 'prometheus.yml');
    writeFileSync(file, config);
    const child = lab.spawnInNet('prometheus', [
      `--config.file=${file}`,
      `--storage.tsdb.path=${folder}/data`,
      `--web.listen-address=${url.slice('http://'.length)}`,
    ]);
    const prometheus = new Prometheus(lab, child, { url, file });
    await eventually('Prometheus is ready', () => lab.get(`${url}/-/ready`));
    return prometheus;
  }

  /** It scrapes another server from now on. */
  moveTo(server: string): void {
    writeFileSync(this.#file, readFileSync(this.#file, 'utf8').replaceAll(/[\d.]+:9733/g, `${server}:9733`));
    this.#child.kill('SIGHUP');
  }

  stop(): void {
    this.#child.kill('SIGTERM');
  }

  /** Nothing is scraped until `resume`. */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  /** What it found wrong with what it scraped. */
  get warnings(): string[] {
    return this.#log
      .split('\n')
      .filter((line) => /level=(warn|error)/.test(line) && /scrape|append|sample/i.test(line));
  }

  /** The value of an expression that gives one, or none. */
  async value(expression: string): Promise<number | undefined> {
    const [first] = (await this.#query(expression)) as { value: [number, string] }[];
    return first === undefined ? undefined : Number(first.value[1]);
  }

  /** All that it has of one agent, without the labels that it and the server add. */
  async samplesOf(agent: string, range = '30m'): Promise<Stored> {
    const rows = (await this.#query(`{agent="${agent}",__name__!~"sysmon_agent_up|sysmon_server_.*"}[${range}]`)) as {
      metric: Record<string, string>;
      values: [number, string][];
    }[];
    return new Map(
      rows.map(({ metric, values }) => {
        const { agent: _, instance: __, job: ___, ...labels } = metric;
        return [
          seriesName(labels),
          new Map(values.map(([seconds, text]) => [Math.round(seconds * 1000), Number(text)])),
        ];
      }),
    );
  }

  async #query(expression: string): Promise<unknown[]> {
    const answer = JSON.parse(
      await this.#lab.get(`${this.#url}/api/v1/query?query=${encodeURIComponent(expression)}`),
    ) as {
      data: { result: unknown[] };
    };
    return answer.data.result;
  }
}
