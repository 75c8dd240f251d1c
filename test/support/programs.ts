import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import type { AgentStatus } from '../../src/agent/status.ts';
import { rootFile } from './files.ts';

/** Whatever calls back when it is over: a test, or one of its parts. */
export type Scope = Pick<TestContext, 'after'>;

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A program that runs, and the lines that it has printed. */
export class Program {
  readonly name: string;
  readonly lines: string[] = [];
  readonly ended: Promise<Ending>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #ending: Ending | undefined;

  constructor(
    name: string,
    file: string,
    argv: readonly string[],
    options: { readonly env?: NodeJS.ProcessEnv; readonly cwd?: string; readonly ownGroup?: boolean } = {},
  ) {
    this.name = name;
    this.#child = spawn(file, argv, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: options.ownGroup === true,
      ...(options.env && { env: options.env }),
      ...(options.cwd && { cwd: options.cwd }),
    });
    running.add(this.#child);
    const printed = [this.#child.stdout!, this.#child.stderr!].map(
      (input) =>
        new Promise<void>((resolve) => {
          createInterface({ input })
            .on('line', (line) => {
              this.lines.push(line);
              for (const look of this.#waiting) look();
            })
            .once('close', resolve);
        }),
    );
    this.ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', async (code, signal) => {
        running.delete(this.#child);
        await Promise.all(printed);
        this.#ending = { code, signal };
        resolve(this.#ending);
        for (const look of this.#waiting) look();
      });
    });
    // Whoever waits for the end is told; nobody has to.
    this.ended.catch(() => {});
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.name} was not started`);
    return this.#child.pid;
  }

  /** The first line that matches, printed already or to come. Rejects when the program ends without it. */
  line(pattern: RegExp): Promise<string> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.lines.find((line) => pattern.test(line));
        if (found !== undefined) resolve(found);
        else if (this.#ending !== undefined) {
          const { code, signal } = this.#ending;
          reject(new Error(`${this.name} ended with ${signal ?? code} before ${pattern}:\n${this.lines.join('\n')}`));
        } else return;
        this.#waiting.delete(look);
      };
      this.#waiting.add(look);
      look();
    });
  }

  kill(signal: NodeJS.Signals): Promise<Ending> {
    this.#child.kill(signal);
    return this.ended;
  }

  /** As a terminal does on Ctrl-C: to every process of the group. Only with `ownGroup`. */
  killGroup(signal: NodeJS.Signals): Promise<Ending> {
    process.kill(-this.pid, signal);
    return this.ended;
  }
}

const running = new Set<ChildProcess>();
// A test that fails, or runs out of time, leaves nothing behind either.
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
process.once('SIGTERM', () => process.exit(143));

/** A temporary folder that goes with the scope. */
export function temporaryFolder(scope: Scope): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-e2e-'));
  const remove = () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  scope.after(() => {
    try {
      remove();
    } catch {
      // A program of this scope that is ended after this still writes there.
      process.once('exit', remove);
    }
  });
  return folder;
}

/**
 * A port of 127.0.0.1 that was free a moment ago, for a program that is started on it again and again. Below the ports
 * that the kernel gives to connections: one of those might be taken while the program is down, even by a dial to it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    // fetch() refuses 10080, and lower ones: https://fetch.spec.whatwg.org/#port-blocking
    const port = 10_100 + Math.floor(Math.random() * 22_000);
    if (!handedOut.has(port) && (await isFree(port))) {
      handedOut.add(port);
      return port;
    }
  }
}

const handedOut = new Set<number>();

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Whether somebody listens there. */
export function isTaken(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Looks again and again until it returns without throwing; then gives what it returned. The last error after `ms`. */
export async function eventually<T>(ms: number, look: () => Promise<T> | T): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A sample of a text for Prometheus, by its name and labels as they are printed. Throws where there is none. */
export function sampleIn(text: string, series: string): number {
  const line = text.split('\n').find((each) => each.startsWith(`${series} `));
  if (line === undefined) throw new Error(`no sample of ${series}`);
  return Number(line.slice(series.length + 1));
}

/** No option of this machine. */
const bareEnv: NodeJS.ProcessEnv = { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' };

export const bundleOf = (program: 'agent' | 'server'): string => rootFile(`dist/sysmon-${program}.cjs`);

/** A bundle's command to its end: what it printed. Rejects where it does not end with 0. */
export function command(program: 'agent' | 'server', ...argv: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [bundleOf(program), ...argv], { env: bareEnv }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(error);
    });
  });
}

/** A server's or an agent's program, that can be killed and started again with the same options. */
class Restartable {
  readonly #argv: readonly string[];
  readonly #program: 'agent' | 'server';
  readonly #bundle: string;
  readonly #started: RegExp;
  /** Beside what every program has. */
  readonly #env: NodeJS.ProcessEnv;
  /** Of all its runs. */
  readonly lines: string[] = [];
  #run: Program | undefined;

  constructor(
    scope: Scope,
    program: 'agent' | 'server',
    argv: readonly string[],
    {
      started,
      env = {},
      bundle = bundleOf(program),
    }: { readonly started: RegExp; readonly env?: NodeJS.ProcessEnv; readonly bundle?: string | undefined },
  ) {
    this.#bundle = bundle;
    this.#program = program;
    this.#argv = argv;
    this.#started = started;
    this.#env = env;
    scope.after(async () => {
      await this.#run?.kill('SIGKILL');
    });
  }

  get run(): Program {
    if (this.#run === undefined) throw new Error(`sysmon-${this.#program} has not been started`);
    return this.#run;
  }

  async start(): Promise<void> {
    this.#run = new Program(`sysmon-${this.#program}`, process.execPath, [this.#bundle, 'run', ...this.#argv], {
      env: { ...bareEnv, ...this.#env },
    });
    await this.#run.line(this.#started);
  }

  async kill(signal: NodeJS.Signals): Promise<Ending> {
    const ending = await this.run.kill(signal);
    this.lines.push(...this.run.lines);
    return ending;
  }
}

export interface ServerAgentsReply {
  readonly server: {
    readonly scrapers: readonly {
      readonly scraper: string;
      readonly selection: string;
      readonly known: boolean;
      readonly backlogReports: number;
      readonly connections: number;
    }[];
  };
  readonly agents: readonly {
    readonly name: string;
    readonly up: boolean;
    readonly connected: boolean;
    readonly windowReports: number;
    readonly newestAt?: string;
    readonly series: number;
  }[];
}

/** `dist/sysmon-server.cjs` on ports of its own, with its state in a temporary folder. */
export class ServerProgram extends Restartable {
  readonly port: number;
  readonly webPort: number;
  readonly controlSocket: string;
  /** Where it keeps its cursors. */
  readonly stateFile: string;

  private constructor(
    scope: Scope,
    {
      port,
      webPort,
      folder,
      flags,
      bundle,
    }: { port: number; webPort: number; folder: string; flags: readonly string[]; bundle: string | undefined },
  ) {
    const controlSocket = join(folder, 'server.sock');
    const argv = [
      ...['--listen', `127.0.0.1:${port}`, '--web.listen-address', `127.0.0.1:${webPort}`],
      ...['--state-dir', folder, '--control-socket', controlSocket, ...flags],
    ];
    super(scope, 'server', argv, { started: /: agents on /, bundle });
    this.port = port;
    this.webPort = webPort;
    this.controlSocket = controlSocket;
    this.stateFile = join(folder, 'cursors.json');
  }

  /** `bundle`: a copy of the program that lies elsewhere. */
  static async start(
    scope: Scope,
    flags: readonly string[] = [],
    { bundle }: { readonly bundle?: string } = {},
  ): Promise<ServerProgram> {
    const [port, webPort] = [await freePort(), await freePort()];
    const server = new ServerProgram(scope, { port, webPort, folder: temporaryFolder(scope), flags, bundle });
    await server.start();
    return server;
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.webPort}${path}`, { headers: { ...headers, connection: 'close' } });
  }

  async agents(): Promise<ServerAgentsReply> {
    // What our own server answers is as its source says.
    return (await (await this.get('/api/v1/agents')).json()) as ServerAgentsReply;
  }

  /** A sample of its own metrics, by its name and labels as they are printed. */
  async metric(series: string): Promise<number> {
    return sampleIn(await (await this.get('/metrics')).text(), series);
  }
}

/** `dist/sysmon-agent.cjs` with its spool in a temporary folder. */
export class AgentProgram extends Restartable {
  readonly name: string;
  readonly #controlSocket: string;

  private constructor(
    scope: Scope,
    { name, folder, argv, env }: { name: string; folder: string; argv: readonly string[]; env: NodeJS.ProcessEnv },
  ) {
    const controlSocket = join(folder, 'agent.sock');
    const started = /: agent '.*' to 127\.0\.0\.1:/;
    super(scope, 'agent', [...argv, '--control-socket', controlSocket], { started, env });
    this.name = name;
    this.#controlSocket = controlSocket;
  }

  static async start(
    scope: Scope,
    options: {
      readonly name: string;
      readonly port: number;
      readonly schedule: string;
      readonly flags?: readonly string[];
      readonly env?: NodeJS.ProcessEnv;
    },
  ): Promise<AgentProgram> {
    const { name, port, schedule, flags = [], env = {} } = options;
    const folder = temporaryFolder(scope);
    const argv = [
      '--name',
      name,
      '--server',
      `127.0.0.1:${port}`,
      '--schedule',
      schedule,
      '--spool-dir',
      join(folder, 'spool'),
    ];
    const agent = new AgentProgram(scope, { name, folder, argv: [...argv, ...flags], env });
    await agent.start();
    return agent;
  }

  /** What the command `status` prints. */
  status(...argv: string[]): Promise<string> {
    return command('agent', 'status', '--control-socket', this.#controlSocket, ...argv);
  }

  reload(): Promise<string> {
    return command('agent', 'reload', '--control-socket', this.#controlSocket);
  }

  /** What `status --json` prints. */
  async statusJson(): Promise<AgentStatus> {
    return JSON.parse(await this.status('--json')) as AgentStatus;
  }

  /** The time of the newest report, on the agent's own clock. */
  async lastReportMs(): Promise<number> {
    return Date.parse((await this.statusJson()).lastReportAt!);
  }
}
