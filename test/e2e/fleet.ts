import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { AgentProgram, bundleOf, command, ServerProgram, temporaryFolder } from '../support/programs.ts';

/** A server with a fleet key, and what its operator does. */
export class Fleet {
  readonly folder: string;
  readonly server: ServerProgram;
  readonly #context: TestContext;
  readonly #options: readonly string[];

  private constructor(context: TestContext, folder: string, server: ServerProgram, options: readonly string[]) {
    this.folder = folder;
    this.server = server;
    this.#context = context;
    this.#options = options;
  }

  /** `configFile`: the text of its file of options, if it has one. */
  static async start(context: TestContext, { configFile }: { readonly configFile?: string } = {}): Promise<Fleet> {
    const folder = temporaryFolder(context);
    const fleetKeyFile = join(folder, 'fleet.key');
    writeFileSync(fleetKeyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o400 });
    if (configFile !== undefined) writeFileSync(configFileIn(folder), configFile);
    const named = configFile === undefined ? [] : ['--config.file', configFileIn(folder)];
    const server = await ServerProgram.start(context, ['--fleet-key-file', fleetKeyFile, ...named]);
    const options = ['--fleet-key-file', fleetKeyFile, '--control-socket', server.controlSocket];
    return new Fleet(context, folder, server, options);
  }

  get keyFile(): string {
    return join(this.folder, 'fleet.key');
  }

  get configFile(): string {
    return configFileIn(this.folder);
  }

  /** The revocations. */
  get file(): string {
    return join(this.folder, 'revoked.json');
  }

  get revoked(): unknown {
    return (JSON.parse(readFileSync(this.file, 'utf8')) as { revoked: unknown }).revoked;
  }

  /** A key file, and the identity that it proves. */
  async enroll(name: string): Promise<{ readonly identity: string; readonly keyFile: string }> {
    const line = await command('server', 'enroll', name, ...this.#options);
    const [, , identity = '', key = ''] = line.trim().split(' ');
    const keyFile = join(this.folder, `${identity}.key`);
    writeFileSync(keyFile, `sysmon-key-v1 ${identity} ${key}\n`, { mode: 0o600 });
    return { identity, keyFile };
  }

  revoke(name: string, ...more: string[]): Promise<string> {
    return command('server', 'revoke', name, ...this.#options, ...more);
  }

  /** A command of the server on its files and its socket. */
  command(...argv: readonly string[]): Promise<string> {
    return command('server', ...argv, ...this.#options);
  }

  /** The same, to run it in another way. */
  argv(...argv: readonly string[]): string[] {
    return [process.execPath, bundleOf('server'), ...argv, ...this.#options, '--config.file', '/dev/null'];
  }

  async connect(name: string, keyFile: string): Promise<AgentProgram> {
    const flags = ['--key-file', keyFile];
    const agent = await AgentProgram.start(this.#context, { name, port: this.server.port, schedule: '500ms', flags });
    await agent.run.line(/connected to|refused this agent/);
    return agent;
  }

  async isConnected(name: string): Promise<boolean> {
    return (await this.server.agents()).agents.some((agent) => agent.name === name && agent.connected);
  }

  reloadByCommand(): Promise<string> {
    return command('server', 'reload', '--control-socket', this.server.controlSocket);
  }

  /** Reloads, and returns the line that says what was reloaded. */
  async reload(): Promise<string> {
    const { lines } = this.server.run;
    lines.length = 0;
    process.kill(this.server.run.pid, 'SIGHUP');
    return await this.server.run.line(/: reloaded: /);
  }
}

const configFileIn = (folder: string): string => join(folder, 'server.env');
