import type { Collector, CollectorContext } from '../../src/agent/collect/collectors/collector.ts';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../src/agent/collect/exposition.ts';
import { Host } from '../../src/agent/collect/proc/host.ts';
import { Recorder } from '../../src/agent/collect/recorder.ts';
import { newAgentCounters } from '../../src/agent/own-metrics.ts';
import type { Recording } from '../../src/model/recording.ts';
import { type FixtureHost, makeTree } from './fixture-proc.ts';

/** 2024-07-01 12:00:00.250 UTC. */
export const fixtureNowMs = Date.UTC(2024, 6, 1, 12) + 250;

/** What a collector is told in tests: fixed, and its options from texts. */
export function contextOf(options: ReadonlyMap<string, string> = new Map()): CollectorContext {
  return {
    clock: { nowMs: () => fixtureNowMs, monotonicMs: () => 0 },
    machine: 'x86_64',
    timeZone: undefined,
    option(row) {
      const text = options.get(row.name) ?? row.default;
      return row.toValue(text === undefined ? [] : [text]);
    },
  };
}

export function newCollector(name: string, context = contextOf()): Collector {
  const row = collectorRows.find((candidate) => candidate.name === name);
  if (row === undefined) throw new Error(`no collector '${name}'`);
  return row.create(context);
}

/** A recorder for one collector; a warning is an error. */
export class OneCollector {
  readonly #collector: Collector;
  readonly #recorder: Recorder;
  readonly #part;

  constructor(collector: Collector) {
    this.#collector = collector;
    this.#recorder = new Recorder({
      counters: newAgentCounters(),
      warn: (text) => {
        throw new Error(text);
      },
    });
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

/** The collector's families over the files of a fixture, as text. */
export function collectFixture(name: string, { files, options }: FixtureHost): string {
  const tree = makeTree(files);
  const host = new Host(tree.roots);
  try {
    return expositionOf(new OneCollector(newCollector(name, contextOf(options))).collect(host));
  } finally {
    host.close();
    tree.remove();
  }
}
