import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { rootFile } from '../support/files.ts';
import { atTerminal, type PtyResult } from '../support/pty.ts';

/** What a command in the lab gave. */
export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/**
 * Real hosts with systemd, on a network of their own; test/lab/host does the work. `down` must be called at the end, and
 * is, also when this process is told to end.
 */
export class Lab {
  readonly folder = mkdtempSync('/tmp/sysmon-lab-');
  readonly #children = new Set<ChildProcess>();

  constructor() {
    assert.equal(process.getuid?.(), 0, 'the lab boots hosts, and needs root');
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => {
        this.#killChildren();
        spawnSync(hostScript, ['down'], { env: this.#env() });
        process.exit(1);
      });
    }
  }

  /**
   * `bare`: a Debian with systemd and nothing else. `suite`: `trixie` is Debian 13. `nat`: behind a router that hides its
   * address, and lets nothing out but connections to the server's ports.
   */
  async boot(name: string, { bare = false, nat = false, suite = 'bookworm' } = {}): Promise<void> {
    const env = { LAB_SUITE: suite, ...(bare ? { LAB_BARE: '1' } : {}), ...(nat ? { LAB_NAT: '1' } : {}) };
    // Debian 13's systemd knows version 2 of control groups alone.
    await this.#host(['start', name], { env: suite === 'bookworm' ? env : { ...env, LAB_CGROUP: 'v2' } });
  }

  /** `cut` the cable and `mend` it; `drop` all packets and `undrop`; `stop` a host, or `kill` it as a power cut does. */
  async act(action: 'cut' | 'mend' | 'drop' | 'undrop' | 'stop' | 'kill', name: string): Promise<void> {
    await this.#host([action, name]);
  }

  async copy(name: string, from: string, to: string): Promise<void> {
    await this.#host(['cp', name, from, to]);
  }

  /** Runs a line of shell as root in a host, whatever it gives. */
  try(name: string, script: string, input = ''): Promise<Result> {
    return run(hostScript, ['exec', name, '--', 'sh', '-c', script], { env: this.#env(), input });
  }

  /** The same; a failure is one. The output without the space at its end. */
  async sh(name: string, script: string, input = ''): Promise<string> {
    const { code, out, err } = await this.try(name, script, input);
    assert.equal(code, 0, `'${script}' on ${name}: ${err}${out}`);
    return out.trimEnd();
  }

  /** Runs a line of shell as root in a host at a terminal, and types: see {@link atTerminal}. */
  atTerminal(
    name: string,
    script: string,
    steps: readonly (readonly [shown: string, typed: string])[] = [],
  ): Promise<PtyResult> {
    return atTerminal([hostScript, 'exec', name, '--', 'sh', '-c', script], steps, this.#env());
  }

  /** Runs a line of shell in a host, with what another one prints in another host as its input. */
  pipe(from: readonly [name: string, script: string], to: readonly [name: string, script: string]): Promise<Result> {
    const script = '"$0" exec "$1" -- sh -c "$2" | "$0" exec "$3" -- sh -c "$4"';
    return run('sh', ['-c', script, hostScript, ...from, ...to], { env: this.#env(), input: '' });
  }

  /** Starts a program of this machine in the hosts' network; it is ended with the lab. */
  spawnInNet(program: string, args: readonly string[]): ChildProcess {
    const child = spawn(hostScript, ['net', '--', program, ...args], {
      env: this.#env(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    return child;
  }

  /** The body of an HTTP answer of 200, asked for from the hosts' network. */
  async get(url: string): Promise<string> {
    const script = `fetch(process.argv[1], { signal: AbortSignal.timeout(30_000) }).then(async (answer) => {
      process.stdout.write(await answer.text(), () => process.exit(answer.ok ? 0 : 1));
    }, (error) => { console.error(String(error.cause ?? error)); process.exit(1); });`;
    const args = ['net', '--', process.execPath, '-e', script, url];
    const { code, out, err } = await run(hostScript, args, { env: this.#env(), input: '' });
    assert.equal(code, 0, `${url}: ${err}${out.slice(0, 2000)}`);
    return out;
  }

  async address(name: string): Promise<string> {
    return (await this.#host(['ip', name])).trim();
  }

  /** A path of a host as this machine sees it: what is mounted there while it is up, its disk while it is down. */
  path(name: string, path: string): string {
    const [pid] = readIfThere(join(this.folder, name, 'pid')).split(' ');
    const live = `/proc/${pid}/root`;
    return pid !== '' && existsSync(live) ? live + path : join(this.folder, name, 'upper', path);
  }

  async down(): Promise<void> {
    this.#killChildren();
    await this.#host(['down']);
  }

  #killChildren(): void {
    for (const child of this.#children) child.kill('SIGKILL');
  }

  async #host(args: readonly string[], { env = {} }: { env?: Record<string, string> } = {}): Promise<string> {
    const { code, out, err } = await run(hostScript, args, { env: { ...this.#env(), ...env }, input: '' });
    assert.equal(code, 0, `host ${args.join(' ')}: ${err}`);
    return out;
  }

  #env(): NodeJS.ProcessEnv {
    // Where the machine has its memory controller in version 1, MemoryMax= bites there alone.
    const v1 = /^\S+ \S+ cgroup \S*\bmemory\b/m.test(readFileSync('/proc/mounts', 'utf8'));
    return { ...process.env, LAB: this.folder, LAB_CGROUP: v1 ? 'v1' : 'v2' };
  }
}

/** Asks until it is so. Fails with `what` and the last answer, or the last error, after `seconds`. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined | false>, seconds = 60): Promise<T> {
  const endMs = performance.now() + seconds * 1000;
  let last: unknown;
  while (performance.now() < endMs) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    await delay(250);
  }
  throw new Error(`not within ${seconds} s: ${what}; the last was ${String(last)}`, { cause: last });
}

const hostScript = rootFile('test/lab/host');

function run(
  program: string,
  args: readonly string[],
  { env, input }: { env: NodeJS.ProcessEnv; input: string },
): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { env, maxBuffer: 256 * 1024 * 1024 }, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, out, err });
    });
    // Who does not read it may have ended before it is written.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
