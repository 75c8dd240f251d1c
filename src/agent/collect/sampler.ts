import type { Recording } from '../../model/recording.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { counter, gauge, type Samples } from './collectors/collector.ts';
import type { NamedCollector } from './collectors/index.ts';
import { CollectError, NoDataError } from './proc/errors.ts';
import type { Host } from './proc/host.ts';
import { type Part, Recorder, type RecorderCounters } from './recorder.ts';
import { type SeriesBudget, SeriesBudgetError } from './series-budget.ts';

export interface SamplerOptions {
  readonly host: Host;
  readonly collectors: readonly NamedCollector[];
  /** The agent's own families, which come after the collectors'. */
  readonly self: { collect(out: Samples): void };
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly counters: RecorderCounters;
  readonly log: Pick<Log, 'warn' | 'info'>;
  readonly budget?: SeriesBudget;
}

/** A collector that failed the last time, wholly or in part, with the first reason. */
export interface CollectorFailure {
  readonly name: string;
  readonly extent: 'whole' | 'part';
  readonly reason: string;
}

/**
 * Runs every collector at one instant. A collector that fails takes only its own series away, and its failure is
 * counted.
 */
export class Sampler {
  readonly #host: Host;
  readonly #self: SamplerOptions['self'];
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #log: Pick<Log, 'warn' | 'info'>;
  readonly #recorder: Recorder;
  readonly #entries: readonly Entry[];
  readonly #preparing: readonly Entry[];
  readonly #ownPart: Part;

  constructor(options: SamplerOptions) {
    this.#host = options.host;
    this.#self = options.self;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#recorder = new Recorder({
      counters: options.counters,
      warn: (text) => options.log.warn(text),
      ...(options.budget && { budget: options.budget }),
    });
    this.#entries = options.collectors.map(({ name, collector }) => ({
      name,
      collector,
      part: this.#recorder.part(name),
      durationMs: 0,
      failure: undefined,
      loggedFailure: undefined,
      parseError: undefined,
      parseErrors: 0,
      loggedErrors: new Set(),
    }));
    this.#preparing = this.#entries.filter(({ collector }) => collector.prepare !== undefined);
    this.#ownPart = this.#recorder.part('self', { isOwn: true });
  }

  /** The collectors that failed the last time, wholly or in part. */
  get failures(): readonly CollectorFailure[] {
    return this.#entries.flatMap(({ name, failure, parseError }): CollectorFailure[] => {
      if (failure !== undefined) return [{ name, extent: 'whole', reason: failure.reason }];
      return parseError === undefined ? [] : [{ name, extent: 'part', reason: parseError.message }];
    });
  }

  /**
   * A recording of this instant, valid until the next call, which must wait for this one. If no collector has to
   * prepare, everything has been read when this returns its promise.
   */
  async sample(): Promise<Recording> {
    this.#host.beginInstant();
    for (const entry of this.#entries) {
      entry.failure = undefined;
      entry.parseError = undefined;
    }
    if (this.#preparing.length > 0) await Promise.all(this.#preparing.map((entry) => this.#prepare(entry)));
    this.#recorder.begin();
    let startMs = this.#clock.monotonicMs();
    for (const entry of this.#entries) startMs = this.#collect(entry, startMs);
    this.#sampleSelf();
    for (const entry of this.#entries) this.#logChange(entry);
    return this.#recorder.end();
  }

  async #prepare(entry: Entry): Promise<void> {
    try {
      await entry.collector.prepare!(this.#host);
    } catch (error) {
      entry.failure = failureOf(error);
    }
  }

  /** Returns the time of its end, at which the next one starts. */
  #collect(entry: Entry, startMs: number): number {
    this.#recorder.enter(entry.part);
    try {
      if (entry.failure === undefined) {
        entry.collector.collect(this.#host, this.#recorder);
        this.#recorder.leave();
      }
    } catch (error) {
      entry.failure = failureOf(error);
    }
    if (entry.failure !== undefined) this.#recorder.abandon();
    for (const error of this.#host.takeParseErrors()) this.#countParseError(entry, error);
    const endMs = this.#clock.monotonicMs();
    entry.durationMs = endMs - startMs;
    return endMs;
  }

  #countParseError(entry: Entry, error: CollectError): void {
    entry.parseErrors++;
    entry.parseError ??= error;
    const kind = kindOf(error);
    if (entry.loggedErrors.has(kind) || entry.loggedErrors.size >= loggedErrorsMax) return;
    entry.loggedErrors.add(kind);
    this.#log.warn(
      `collector '${entry.name}' could not read everything: ${error.message}; only the series of that line or file are absent`,
    );
  }

  #sampleSelf(): void {
    const out = this.#recorder;
    out.enter(this.#ownPart);
    for (const { name, durationMs } of this.#entries) out.sample(duration, Math.round(durationMs * 1000), name);
    for (const { name, failure } of this.#entries) out.sample(success, failure === undefined ? 1 : 0, name);
    for (const { name, parseErrors } of this.#entries) out.sample(parseErrorsTotal, parseErrors, name);
    this.#self.collect(out);
    out.leave();
  }

  /** A collector may fail at each tick for days: only a change is logged. */
  #logChange(entry: Entry): void {
    const { name, failure, loggedFailure } = entry;
    if (failure?.kind === loggedFailure?.kind) return;
    entry.loggedFailure = failure;
    if (failure === undefined) {
      this.#log.info(`collector '${name}' works again`);
      return;
    }
    const line = `collector '${name}' failed: ${failure.reason}; its series are absent until it works again`;
    // Not every host has the files of every collector.
    if (failure.isNoData) this.#log.info(line);
    else this.#log.warn(line);
  }
}

interface Entry {
  readonly name: string;
  readonly collector: NamedCollector['collector'];
  readonly part: Part;
  durationMs: number;
  failure: Failure | undefined;
  loggedFailure: Failure | undefined;
  /** The first of this instant. */
  parseError: CollectError | undefined;
  /** Since the start. */
  parseErrors: number;
  /** The kinds that were logged. */
  readonly loggedErrors: Set<string>;
}

interface Failure {
  readonly reason: string;
  readonly isNoData: boolean;
  /** Equal for errors that are logged once: the reason may hold a number that changes each time. */
  readonly kind: string;
}

const duration = gauge('node_scrape_collector_duration_seconds', 'How long a collector took.', {
  labels: ['collector'],
  divisor: 1_000_000,
});
const success = gauge('node_scrape_collector_success', 'Whether a collector found what it looks for: 1, or 0.', {
  labels: ['collector'],
});

const parseErrorsTotal = counter(
  'sysmon_agent_parse_errors_total',
  'Lines and files of the kernel that a collector could not read or parse. Only their own series are missing; the log ' +
    'says which they are.',
  { labels: ['collector'] },
);
// A device with another name each time must not fill the memory.
const loggedErrorsMax = 100;

/** Equal for errors that are logged once: the file, and the reason without its numbers. */
function kindOf({ code, path, message }: CollectError): string {
  return `${code} ${path} ${message.slice(path.length + 2).replaceAll(/"[^"]*"|\d+/g, '')}`;
}

/**
 * A CollectError is about the files of the host; anything else is a bug of the collector. A bug does not end the others
 * either: a future kernel prints what nobody has thought of.
 */
function failureOf(error: unknown): Failure {
  if (error instanceof CollectError) {
    const { message: reason, code, path } = error;
    return { reason, isNoData: error instanceof NoDataError, kind: `${code} ${path}` };
  }
  if (error instanceof SeriesBudgetError) return { reason: error.message, isNoData: false, kind: error.code };
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { reason: `a bug of this program, please report it: ${stack}`, isNoData: false, kind: 'bug' };
}
