import { readFileSync } from 'node:fs';
import type { Collector, CollectorContext } from '../../src/agent/collect/collectors/collector.ts';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../src/agent/collect/exposition.ts';
import { CollectError } from '../../src/agent/collect/proc/errors.ts';
import type { Host } from '../../src/agent/collect/proc/host.ts';
import { Recorder } from '../../src/agent/collect/recorder.ts';
import { newAgentCounters } from '../../src/agent/own-metrics.ts';
import type { Recording } from '../../src/model/recording.ts';
import { fixtureFile } from './files.ts';
import { type FixtureHost, type FixtureTree, hostOf, makeTree, parseFixture } from './fixture-proc.ts';

/** 2024-07-01 12:00:00.250 UTC. */
export const fixtureNowMs = Date.UTC(2024, 6, 1, 12) + 250;

/** Files that are empty in good health. */
export const mayBeEmpty =
  /\/(btrfs\/[^/]+\/label|bcachefs\/[^/]+\/(errors|dev-\d+\/label)|nvme-subsys\d+\/\w+|fc_host\/host\d+\/\w+|net\/([^/]+\/(bonding\/slaves|ifalias)|bonding_masters))$/;

/** What a collector is given in tests: a clock that stands still, and its options from texts. */
export function contextOf(options: ReadonlyMap<string, string> = new Map()): CollectorContext {
  return {
    clock: { nowMs: () => fixtureNowMs, monotonicMs: () => 0 },
    option(row) {
      const text = options.get(row.name) ?? row.default;
      return row.toValue(text === undefined ? [] : row.repeatable ? text.split('\n') : [text]);
    },
  };
}

export function newCollector(name: string, context = contextOf()): Collector {
  const row = collectorRows.find((candidate) => candidate.name === name);
  if (row === undefined) throw new Error(`no collector '${name}'`);
  return row.create(context);
}

/** A recorder for one collector; a warning is an error, unless somebody takes it. */
export class OneCollector {
  readonly #collector: Collector;
  readonly #recorder: Recorder;
  readonly #part;

  constructor(collector: Collector, warn: (text: string) => void = refuse) {
    this.#collector = collector;
    this.#recorder = new Recorder({ counters: newAgentCounters(), warn });
    this.#part = this.#recorder.part('collector');
  }

  /** One collection; what the collector throws comes out. */
  collect(host: Host): Recording {
    host.beginInstant();
    this.#recorder.begin();
    this.#recorder.enter(this.#part);
    try {
      this.#collector.collect(host, this.#recorder);
    } catch (error) {
      this.#recorder.abandon();
      throw error;
    }
    this.#recorder.leave();
    return this.#recorder.end();
  }
}

function refuse(warning: string): never {
  throw new Error(warning);
}

export interface Collected {
  /** The collector's families as text. */
  readonly text: string;
  /** Of which lines and files it could make nothing. */
  readonly parseErrors: readonly CollectError[];
}

/** What a new collector makes of the host. */
export function collectOn(
  name: string,
  host: Host,
  options?: ReadonlyMap<string, string>,
  warn?: (text: string) => void,
): Collected {
  const text = expositionOf(new OneCollector(newCollector(name, contextOf(options)), warn).collect(host));
  return { text, parseErrors: host.takeErrors() };
}

/** What a fixture expects of its collector: the families, and what could not be read, with the paths of a real host. */
export function expectedOf(name: string, fixture: FixtureHost): string {
  const tree = makeTree(fixture.files, fixture.links);
  const host = hostOf(tree, fixture);
  const asComment = (what: string, { message }: Error) => `# ${what}: ${message.replaceAll(tree.folder, '')}\n`;
  try {
    const { text, parseErrors } = collectOn(name, host, fixture.options);
    return text.replaceAll(tree.folder, '') + parseErrors.map((error) => asComment('parse error', error)).join('');
  } catch (error) {
    if (!(error instanceof CollectError)) throw error;
    return asComment('failure', error);
  } finally {
    host.close();
    tree.remove();
  }
}

/** The hosts of a collector's fixture that are files. */
export function fixtureHosts(name: string): readonly FixtureHost[] {
  return allHosts(name).filter(({ title }) => !isAsked(title));
}

/** What a collector gives that asks other programs over a socket, as its own test holds it; undefined for others. */
export function askedHost(name: string): FixtureHost | undefined {
  return allHosts(name).find(({ title }) => isAsked(title));
}

export function isAsked(title: string): boolean {
  return title.startsWith('asked');
}

function allHosts(name: string): readonly FixtureHost[] {
  return parseFixture(readFileSync(fixtureFile(`collectors/${name}.txt`), 'utf8')).hosts;
}

/**
 * A whole host with this kernel, such as `Linux 6.12`: of each collector the fixture of that kernel, or of the newest
 * before it, because a file stays as it is until a kernel changes it. Two collectors that read one file must have the same.
 */
export function wholeHost(kernel: string): FixtureTree {
  const files = new Map<string, { readonly content: string; readonly collector: string }>();
  const links = new Map<string, string>();
  for (const { name } of collectorRows) {
    const before = hostBefore(name, kernel);
    for (const [link, target] of before?.links ?? []) {
      if ((links.get(link) ?? target) !== target)
        throw new Error(`two fixtures have another link '${link}' for ${kernel}`);
      links.set(link, target);
    }
    for (const [path, content] of before?.files ?? []) {
      const other = files.get(path);
      if (other !== undefined && other.content !== content) {
        throw new Error(`the fixtures of '${name}' and '${other.collector}' have another '${path}' for ${kernel}`);
      }
      files.set(path, { content, collector: name });
    }
  }
  return makeTree(
    [...files].map(([path, { content }]) => [path, content]),
    links,
  );
}

/** Whether a whole host with this kernel has files for the collector. */
export function isOnWholeHost(name: string, kernel: string): boolean {
  return hostBefore(name, kernel) !== undefined;
}

function hostBefore(name: string, kernel: string): FixtureHost | undefined {
  const wanted = versionOf(kernel)!;
  const hosts = fixtureHosts(name)
    .map((host) => ({ host, version: versionOf(host.title) }))
    .filter((each) => each.version !== undefined && each.version <= wanted);
  return hosts.sort((a, b) => b.version! - a.version!)[0]?.host;
}

/** `Linux 5.15, two CPUs` → 5015; undefined where the title does not begin with a kernel. */
function versionOf(title: string): number | undefined {
  const match = /^Linux (\d+)\.(\d+)/.exec(title);
  return match === null ? undefined : Number(match[1]) * 1000 + Number(match[2]);
}
