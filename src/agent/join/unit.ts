import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { JoinError } from './error.ts';

/** The agent's unit, as far as joining goes. */
export interface Unit {
  /** Undefined where this host has no such unit. */
  state(): Promise<'active' | 'inactive' | undefined>;
  /** Starts it now and at every boot, again if it runs. Throws a JoinError with its last words. */
  restart(): Promise<void>;
  /** As it was before a restart that failed. */
  restore(state: 'active' | 'inactive'): Promise<void>;
}

/** A unit of systemd, by systemctl. */
export class SystemdUnit implements Unit {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async state(): Promise<'active' | 'inactive' | undefined> {
    // As sd_booted(3) does it.
    if (!existsSync('/run/systemd/system')) return undefined;
    const { out } = await run('systemctl', 'show', '-p', 'LoadState,ActiveState', `${this.#name}.service`);
    if (!/^LoadState=loaded$/m.test(out)) return undefined;
    return /^ActiveState=active$/m.test(out) ? 'active' : 'inactive';
  }

  async restart(): Promise<void> {
    const unit = `${this.#name}.service`;
    await run('systemctl', '-q', 'enable', unit);
    const { code } = await run('systemctl', 'restart', unit);
    if (code === 0) return;
    // What it wrote last may still be on its way.
    await run('journalctl', '--sync');
    const { out } = await run('journalctl', '-q', '-t', this.#name, '-n', '1', '-o', 'cat');
    throw new JoinError('unit', `${this.#name} does not start: ${out.trim() || `see 'journalctl -u ${unit}'`}`);
  }

  async restore(state: 'active' | 'inactive'): Promise<void> {
    await run('systemctl', state === 'active' ? 'restart' : 'stop', `${this.#name}.service`);
  }
}

function run(program: string, ...args: readonly string[]): Promise<{ readonly code: number; readonly out: string }> {
  return new Promise((resolve) => {
    execFile(program, args, (error, out) => resolve({ code: error === null ? 0 : 1, out }));
  });
}
