import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Host, type HostRoots } from '../../src/agent/collect/proc/host.ts';
import type { FileSystemSize, HostSystem } from '../../src/agent/collect/proc/system.ts';

/** One host of a fixture file: its kernel files, and what is made of them. */
export interface FixtureHost {
  readonly title: string;
  /** `proc/stat` → its content. */
  readonly files: ReadonlyMap<string, string>;
  /** Symbolic links: `sys/class/hwmon/hwmon0/device` → `../../../devices/platform/coretemp.0`. */
  readonly links: ReadonlyMap<string, string>;
  /** `stat.softirq` → `true`. */
  readonly options: ReadonlyMap<string, string>;
  /** What no file says: `machine` → `aarch64`, `TZ` → `Asia/Tokyo`. */
  readonly system: ReadonlyMap<string, string>;
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
 *     --- system
 *     machine=aarch64
 *     --- options
 *     stat.softirq=true
 *     --- sys/class/net/eth0/master -> ../bond0
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
  const links = new Map<string, string>();
  let options: ReadonlyMap<string, string> = new Map();
  let system: ReadonlyMap<string, string> = new Map();
  let expected: string | undefined;
  for (const section of sections) {
    const end = section.indexOf('\n');
    const name = section.slice(0, end);
    const content = section.slice(end + 1);
    const [path = '', target] = name.split(' -> ');
    if (name === 'expected') expected = content;
    else if (name === 'options') options = parsePairs(content);
    else if (name === 'system') system = parsePairs(content);
    else if (files.has(path) || links.has(path)) throw new Error(`the fixture '${title.trim()}' has '${path}' twice`);
    else if (target !== undefined) links.set(path, target);
    else files.set(name, content);
  }
  return { title: title.trim(), files, links, options, system, expected };
}

/** A name that comes again has another value: they are lines of one text. */
function parsePairs(content: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const line of content.split('\n').filter((each) => each !== '')) {
    const name = line.slice(0, line.indexOf('='));
    const value = line.slice(line.indexOf('=') + 1);
    pairs.set(name, pairs.has(name) ? `${pairs.get(name)}\n${value}` : value);
  }
  return pairs;
}

/** What `parseFixture` reads. */
export function printFixture({ head, hosts }: Fixture): string {
  return head + hosts.map(printHost).join('');
}

function printHost({ title, options, system, files, links, expected }: FixtureHost): string {
  let text = `=== ${title}\n${printPairs('options', options)}${printPairs('system', system)}`;
  for (const [name, target] of links) text += `--- ${name} -> ${target}\n`;
  for (const [name, content] of files) text += `--- ${name}\n${content}`;
  return expected === undefined ? text : `${text}--- expected\n${expected}`;
}

function printPairs(section: string, pairs: ReadonlyMap<string, string>): string {
  if (pairs.size === 0) return '';
  const lines = [...pairs].flatMap(([name, values]) => values.split('\n').map((value) => `${name}=${value}\n`));
  return `--- ${section}\n${lines.join('')}`;
}

/** What uname(2) and the environment say on a fixture's host. */
export function systemOf(pairs: ReadonlyMap<string, string> = new Map()): HostSystem {
  const saysOf = (name: string, otherwise: string) => () => pairs.get(name) ?? otherwise;
  return {
    timeZone: () => pairs.get('TZ'),
    type: saysOf('type', 'Linux'),
    release: saysOf('release', '1.2.3'),
    version: saysOf('version', '#1'),
    machine: saysOf('machine', 'x86_64'),
    hostname: saysOf('hostname', 'fixture'),
    networkInterfaces: () => JSON.parse(pairs.get('addresses') ?? '{}'),
    pageSize: () => Number(pairs.get('page-size') ?? 4096),
    fileSystem: (path) => sizeOf(pairs, path),
  };
}

/** `statfs /home=4096 1000 500 400 64 32`: of 4096 bytes 1000 blocks, 500 free, 400 available; files. Or an error's code. */
function sizeOf(pairs: ReadonlyMap<string, string>, path: string): FileSystemSize {
  const answer = pairs.get(`statfs ${path.slice(path.indexOf('/root') + '/root'.length) || '/'}`) ?? 'ENOENT';
  const [bsize = 0, blocks = 0, bfree = 0, bavail = 0, files = 0, ffree = 0] = answer.split(' ').map(Number);
  if (Number.isNaN(bsize)) throw Object.assign(new Error(`${answer}: no size, statfs '${path}'`), { code: answer });
  return { bsize, blocks, bfree, bavail, files, ffree };
}

/** A host over the tree of a fixture. */
export function hostOf(tree: FixtureTree, { system }: Pick<FixtureHost, 'system'>): Host {
  return new Host(tree.roots, systemOf(system));
}

export interface FixtureTree {
  readonly folder: string;
  readonly roots: HostRoots;
  /** Where `proc/stat` is. */
  path(file: string): string;
  write(file: string, content: string | Uint8Array): void;
  /** A symbolic link, to a path relative to its folder. */
  link(link: string, target: string): void;
  delete(file: string): void;
  /** Removes it all. */
  remove(): void;
}

/** Where the trees of a fixture are in its folder. */
export function rootsBelow(folder: string): HostRoots {
  return {
    procfs: join(folder, 'proc'),
    sysfs: join(folder, 'sys'),
    rootfs: join(folder, 'root'),
    udev: join(folder, 'udev'),
  };
}

/** When the files of a fixture were last written. */
const writtenAtSeconds = Date.UTC(2024, 6, 1, 11, 30) / 1000;

/** As /proc is; on a disk, making and removing thousands of files takes most of a test's time. */
const inMemory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** The files in a new folder, as `--procfs`, `--sysfs`, `--rootfs` and `--udev` take them, and the symbolic links. */
export function makeTree(
  files: Iterable<readonly [string, string | Uint8Array]>,
  links: Iterable<readonly [string, string]> = [],
): FixtureTree {
  const folder = mkdtempSync(join(inMemory, 'sysmon-fixture-'));
  const roots = rootsBelow(folder);
  for (const root of Object.values(roots)) mkdirSync(root);
  const tree: FixtureTree = {
    folder,
    roots,
    path: (file) => join(folder, file),
    write(file, content) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), content);
      utimesSync(join(folder, file), writtenAtSeconds, writtenAtSeconds);
    },
    link(link, target) {
      mkdirSync(dirname(join(folder, link)), { recursive: true });
      symlinkSync(target, join(folder, link));
    },
    delete: (file) => rmSync(join(folder, file), { recursive: true }),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
  for (const [file, content] of files) tree.write(file, content);
  for (const [link, target] of links) tree.link(link, target);
  return tree;
}
