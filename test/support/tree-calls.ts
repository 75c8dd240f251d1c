import { closeSync, openSync, readdirSync, readSync, realpathSync } from 'node:fs';
import type { Done, SlowCalls } from '../../src/agent/collect/slow-lane.ts';
import type { FixtureTree } from './fixture-proc.ts';

/** The calls of a tree: each returns at once, but for the paths that hang. */
export class TreeCalls implements SlowCalls {
  readonly hanging = new Set<string>();
  /** Which error a file gives: EACCES when it is opened, any other when it is read. */
  readonly failing = new Map<string, string>();
  /** Whether it works again after that. */
  failsOnce = false;
  /** What has not returned. */
  readonly pending = new Map<string, () => void>();
  /** Every call, as `open sys/class/things`. */
  readonly made: string[] = [];
  readonly #tree: FixtureTree;
  readonly #paths = new Map<number, string>();

  constructor(tree: FixtureTree) {
    this.#tree = tree;
  }

  get openCount(): number {
    return this.#paths.size;
  }

  count(call: string): number {
    return this.made.filter((each) => each === call).length;
  }

  /** It answers from now on, also what it was asked before. */
  release(path: string): void {
    this.hanging.delete(path);
    for (const [call, answer] of [...this.pending]) {
      if (!call.endsWith(` ${path}`)) continue;
      this.pending.delete(call);
      answer();
    }
  }

  open(path: string, done: Done<number>): void {
    this.#call('open', path, done, () => {
      this.#fail(path, (code) => code === 'EACCES');
      const fd = openSync(path, 'r');
      this.#paths.set(fd, path);
      return fd;
    });
  }

  read(fd: number, into: Uint8Array, done: Done<number>): void {
    const path = this.#paths.get(fd)!;
    this.#call('read', path, done, () => {
      this.#fail(path, (code) => code !== 'EACCES');
      return readSync(fd, into, 0, into.length, 0);
    });
  }

  close(fd: number, done: Done<void>): void {
    const path = this.#paths.get(fd)!;
    this.#paths.delete(fd);
    this.#call('close', path, done, () => closeSync(fd));
  }

  names(path: string, done: Done<string[]>): void {
    this.#call('names', path, done, () => readdirSync(path).sort());
  }

  resolved(path: string, done: Done<string>): void {
    this.#call('resolved', path, done, () => realpathSync(path));
  }

  size(path: string, done: Done<never>): void {
    const size = { bsize: 4096, blocks: 100, bfree: 50, bavail: 40, files: 10, ffree: 5 };
    this.#call('size', path, done, () => size as never);
  }

  #fail(path: string, isNow: (code: string) => boolean): void {
    const name = path.slice(this.#tree.folder.length + 1);
    const code = this.failing.get(name);
    if (code === undefined || !isNow(code)) return;
    if (this.failsOnce) this.failing.delete(name);
    throw Object.assign(new Error(`${code}: a driver's, '${path}'`), { code });
  }

  #call<T>(what: string, real: string, done: Done<T>, make: () => T): void {
    const path = real.slice(this.#tree.folder.length + 1);
    const answer = () => {
      try {
        done(null, make());
      } catch (error) {
        done(error as Error, undefined as T);
      }
    };
    this.made.push(`${what} ${path}`);
    if (this.hanging.has(path)) this.pending.set(`${what} ${path}`, answer);
    else answer();
  }
}
