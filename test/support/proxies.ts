import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { InstalledProgram } from './installed.ts';
import { eventually, freePort, isTaken, Program, type Scope, temporaryFolder } from './programs.ts';

/** A real proxy on a free port of 127.0.0.1, with its own configuration. It can be killed, and started again. */
export class ProxyProgram {
  readonly port: number;
  readonly #path: InstalledProgram;
  readonly #argv: readonly string[];
  #run: Program | undefined;

  private constructor(scope: Scope, port: number, { path, argv }: { path: InstalledProgram; argv: readonly string[] }) {
    this.port = port;
    this.#path = path;
    this.#argv = argv;
    scope.after(async () => {
      await this.#run?.kill('SIGKILL');
    });
  }

  /**
   * nginx as it comes (HTTP/1.0 to the server, a connection for each request), or with an upstream that keeps idle connections
   * for so long.
   */
  static async nginx(scope: Scope, { to, keepAlive }: { readonly to: number; readonly keepAlive?: string }) {
    const folder = temporaryFolder(scope);
    const port = await freePort();
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (name) => `${name}_temp_path ${join(folder, name)};`,
    );
    const upstream =
      keepAlive === undefined
        ? [`server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${to}; } }`]
        : [
            `upstream sysmon { server 127.0.0.1:${to}; keepalive 8; keepalive_timeout ${keepAlive}; }`,
            `server { listen 127.0.0.1:${port}; location / {`,
            '  proxy_pass http://sysmon; proxy_http_version 1.1; proxy_set_header Connection "";',
            // Its default is the name of the upstream, which is none of the server's.
            '  proxy_set_header Host $http_host;',
            '} }',
          ];
    const lines = [
      // One process, of this user.
      `daemon off; master_process off; pid ${join(folder, 'pid')}; error_log stderr warn; events {}`,
      `http { access_log off; ${temporary.join(' ')}`,
      ...upstream,
      '}',
    ];
    const file = join(folder, 'nginx.conf');
    writeFileSync(file, `${lines.join('\n')}\n`);
    const argv = ['-p', folder, '-e', 'stderr', '-c', file];
    return ProxyProgram.#start(scope, port, { path: '/usr/sbin/nginx', argv });
  }

  /** `server`: more words of its line of the server; `backend`, `defaults`: more lines there. */
  static async haproxy(
    scope: Scope,
    options: {
      readonly to: number;
      readonly mode: 'http' | 'tcp';
      readonly clientTimeout?: string;
      readonly server?: string;
      readonly backend?: string;
    },
  ) {
    const { to, mode, clientTimeout = '60s', server = '', backend = '' } = options;
    const folder = temporaryFolder(scope);
    const port = await freePort();
    const lines = [
      'defaults',
      `  mode ${mode}`,
      '  timeout connect 5s',
      `  timeout client ${clientTimeout}`,
      '  timeout server 60s',
      'frontend scrapers',
      `  bind 127.0.0.1:${port}`,
      '  default_backend sysmon',
      'backend sysmon',
      `  ${backend}`,
      `  server sysmon 127.0.0.1:${to} ${server}`,
    ];
    const file = join(folder, 'haproxy.cfg');
    writeFileSync(file, `${lines.join('\n')}\n`);
    return ProxyProgram.#start(scope, port, { path: '/usr/sbin/haproxy', argv: ['-db', '-f', file] });
  }

  static async #start(scope: Scope, port: number, program: { path: InstalledProgram; argv: readonly string[] }) {
    const proxy = new ProxyProgram(scope, port, program);
    await proxy.start();
    return proxy;
  }

  async start(): Promise<void> {
    const run = new Program(this.#path, this.#path, this.#argv);
    this.#run = run;
    await Promise.race([
      eventually(10_000, async () => {
        if (!(await isTaken(this.port))) throw new Error(`${this.#path} does not listen:\n${run.lines.join('\n')}`);
      }),
      run.ended.then(() => {
        if (this.#run === run) throw new Error(`${this.#path} has ended:\n${run.lines.join('\n')}`);
      }),
    ]);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const run = this.#run;
    this.#run = undefined;
    await run?.kill(signal);
  }
}
