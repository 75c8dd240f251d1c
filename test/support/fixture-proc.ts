import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { HostRoots } from '../../src/agent/collect/proc/host.ts';

/** One host of a fixture file: its kernel files, and what is made of them. */
export interface FixtureHost {
  readonly title: string;
  /** `proc/stat` → its content. */
  readonly files: ReadonlyMap<string, string>;
  /** `stat.softirq` → `true`. */
  readonly options: ReadonlyMap<string, string>;
  readonly expected: string | undefined;
}

export interface Fixture {
  /** What stands before the first host: comments. */
  readonly head: string;
  readonly hosts: readonly FixtureHost[];
}

/**
 * A fixture file, a text that a person can read:
 *
 *     === Linux 5.15, two CPUs
 *     --- options
 *     stat.softirq=true
 *     --- proc/loadavg
 *     0.06 0.14 0.09 1/86 14424
 *     --- expected
 *     # HELP node_load1 …
 */
export function parseFixture(text: string): Fixture {
  const [head = '', ...parts] = text.split(/^=== /m);
  return { head, hosts: parts.map(parseHost) };
}

function parseHost(part: string): FixtureHost {
  const [title = '', ...sections] = part.split(/^--- /m);
  const files = new Map<string, string>();
  let options: ReadonlyMap<string, string> = new Map();
  let expected: string | undefined;
  for (const section of sections) {
    const end = section.indexOf('\n');
    const name = section.slice(0, end);
    const content = section.slice(end + 1);
    if (name === 'expected') expected = content;
    else if (name === 'options') options = parseOptions(content);
    else if (files.has(name)) throw new Error(`the fixture '${title.trim()}' has '${name}' twice`);
    else files.set(name, content);
  }
  return { title: title.trim(), files, options, expected };
}

function parseOptions(content: string): Map<string, string> {
  const lines = content.split('\n').filter((line) => line !== '');
  return new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

/** What `parseFixture` reads. */
export function printFixture({ head, hosts }: Fixture): string {
  return head + hosts.map(printHost).join('');
}

function printHost({ title, options, files, expected }: FixtureHost): string {
  let text = `=== ${title}\n`;
  if (options.size > 0) text += `--- options\n${[...options].map(([name, value]) => `${name}=${value}\n`).join('')}`;
  for (const [name, content] of files) text += `--- ${name}\n${content}`;
  return expected === undefined ? text : `${text}--- expected\n${expected}`;
}

export interface FixtureTree {
  readonly roots: HostRoots;
  /** Where `proc/stat` is. */
  path(file: string): string;
  write(file: string, content: string | Uint8Array): void;
  delete(file: string): void;
  /** Removes it all. */
  remove(): void;
}

/** The files in a new folder, as `--procfs`, `--sysfs`, `--rootfs` and `--udev` take them. */
export function makeTree(files: Iterable<readonly [string, string | Uint8Array]>): FixtureTree {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-fixture-'));
  const roots = {
    procfs: join(folder, 'proc'),
    sysfs: join(folder, 'sys'),
    rootfs: join(folder, 'root'),
    udev: join(folder, 'udev'),
  };
  for (const root of Object.values(roots)) mkdirSync(root);
  const tree: FixtureTree = {
    roots,
    path: (file) => join(folder, file),
    write(file, content) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), content);
    },
    delete: (file) => rmSync(join(folder, file), { recursive: true }),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
  for (const [file, content] of files) tree.write(file, content);
  return tree;
}

/** The only host of a fixture file, as a tree. */
export function treeOf(fixturePath: string): FixtureTree {
  const { hosts } = parseFixture(readFileSync(fixturePath, 'utf8'));
  const [host] = hosts;
  if (host === undefined || hosts.length > 1) throw new Error(`'${fixturePath}' should hold one host`);
  return makeTree(host.files);
}
