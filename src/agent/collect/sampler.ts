import type { Recording } from '../../model/recording.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { counter, gauge, type Samples } from './collectors/collector.ts';
import type { NamedCollector } from './collectors/index.ts';
import { CollectError, NoDataError, UnreadableError } from './proc/errors.ts';
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
  readonly log: Pick<Log, 'warn' | 'info' | 'debug'>;
  readonly budget?: SeriesBudget;
}

/** A collector that failed the last time, wholly or in part, with the first reason. */
export interface CollectorFailure {
  readonly name: string;
  readonly extent: 'whole' | 'part';
  readonly reason: string;
}

/** A collector of whose subject this host has nothing, with the reason. */
export interface AbsentSubject {
  readonly name: string;
  readonly reason: string;
}

/**
 * Runs every collector at one instant. A collector that fails takes only its own series away, and its failure is
 * counted. One that finds nothing of its kind on this host is not asked again for a minute.
 */
export class Sampler {
  readonly #host: Host;
  readonly #self: SamplerOptions['self'];
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #log: SamplerOptions['log'];
  readonly #recorder: Recorder;
  readonly #entries: readonly Entry[];
  readonly #ownPart: Part;
  /** Those to ask at this instant: not those whose subject was absent less than a minute ago. */
  #asked: readonly Entry[] = [];
  /** Of these, those that prepare, and the others. */
  #preparing: readonly Entry[] = [];
  #reading: readonly Entry[] = [];
  /** When one of the others is to be asked again. */
  #lookMs = Number.NEGATIVE_INFINITY;
  #instantMs = 0;

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
    this.#entries = options.collectors.map(({ name, collector, successWithoutData }) => ({
      name,
      collector,
      successWithoutData: successWithoutData ?? 0,
      part: this.#recorder.part(name),
      preparedMs: 0,
      durationMs: 0,
      state: works,
      logged: works,
      hasLoggedAbsence: false,
      hasLoggedData: false,
      problem: undefined,
      parseErrors: 0,
      unreadable: 0,
      loggedErrors: new Set(),
    }));
    this.#ownPart = this.#recorder.part('self', { isOwn: true });
  }

  /** The collectors that failed the last time, wholly or in part. */
  get failures(): readonly CollectorFailure[] {
    return this.#entries.flatMap(({ name, state, problem }): CollectorFailure[] => {
      if (state.kind === 'failed') return [{ name, extent: 'whole', reason: state.reason }];
      return problem === undefined ? [] : [{ name, extent: 'part', reason: problem.message }];
    });
  }

  /** The collectors of whose subject this host has nothing. */
  get absent(): readonly AbsentSubject[] {
    return this.#entries.flatMap(({ name, state }) =>
      state.kind === 'absent' ? [{ name, reason: state.reason }] : [],
    );
  }

  /**
   * A recording of this instant, valid until the next call, which must wait for this one. What is read at once has been
   * read when this returns its promise, however long the others prepare.
   */
  async sample(): Promise<Recording> {
    this.#host.beginInstant();
    this.#instantMs = this.#clock.monotonicMs();
    if (this.#instantMs >= this.#lookMs) this.#chooseAsked();
    for (const entry of this.#asked) {
      entry.state = works;
      entry.problem = undefined;
    }
    const prepared = this.#preparing.map((entry) => this.#prepare(entry));
    this.#recorder.begin();
    let startMs = this.#clock.monotonicMs();
    for (const entry of this.#reading) startMs = this.#collect(entry, startMs);
    if (prepared.length > 0) {
      await Promise.all(prepared);
      startMs = this.#clock.monotonicMs();
      for (const entry of this.#preparing) startMs = this.#collect(entry, startMs);
    }
    this.#sampleSelf();
    this.#logChanges();
    if (this.#asked.some(({ state }) => state.kind === 'absent')) this.#chooseAsked();
    return this.#recorder.end();
  }

  #chooseAsked(): void {
    const lookMsOf = ({ state }: Entry) => (state.kind === 'absent' ? state.lookMs : Number.NEGATIVE_INFINITY);
    this.#asked = this.#entries.filter((entry) => lookMsOf(entry) <= this.#instantMs);
    this.#preparing = this.#asked.filter(({ collector }) => collector.prepare !== undefined);
    this.#reading = this.#asked.filter(({ collector }) => collector.prepare === undefined);
    const waitingMs = this.#entries.map(lookMsOf).filter((lookMs) => lookMs > this.#instantMs);
    this.#lookMs = Math.min(Number.POSITIVE_INFINITY, ...waitingMs);
  }

  async #prepare(entry: Entry): Promise<void> {
    const startMs = this.#clock.monotonicMs();
    try {
      await entry.collector.prepare!(this.#host);
    } catch (error) {
      entry.state = this.#stateAfter(error);
    }
    entry.preparedMs = this.#clock.monotonicMs() - startMs;
  }

  /** Returns the time of its end, at which the next one starts. */
  #collect(entry: Entry, startMs: number): number {
    this.#recorder.enter(entry.part);
    try {
      if (entry.state.kind === 'works') {
        entry.collector.collect(this.#host, this.#recorder);
        this.#recorder.leave();
      }
    } catch (error) {
      entry.state = this.#stateAfter(error);
    }
    if (entry.state.kind !== 'works') this.#recorder.abandon();
    for (const error of this.#host.takeErrors()) this.#countError(entry, error);
    const endMs = this.#clock.monotonicMs();
    entry.durationMs = endMs - startMs + entry.preparedMs;
    return endMs;
  }

  #stateAfter(error: unknown): State {
    if (!(error instanceof NoDataError)) return failureOf(error);
    return { kind: 'absent', reason: error.message, lookMs: this.#instantMs + lookAgainMs };
  }

  #countError(entry: Entry, error: CollectError): void {
    const isUnreadable = error instanceof UnreadableError;
    if (isUnreadable) entry.unreadable++;
    else entry.parseErrors++;
    const isUsual = isUnreadable && error.isUsual;
    if (!isUsual) entry.problem ??= error;
    const kind = kindOf(error);
    if (entry.loggedErrors.has(kind) || entry.loggedErrors.size >= loggedErrorsMax) return;
    entry.loggedErrors.add(kind);
    const text = `collector '${entry.name}' could not read everything: ${error.message}; only the series of that line or file are absent`;
    if (isUsual) this.#log.debug(text);
    else this.#log.warn(text);
  }

  #sampleSelf(): void {
    const out = this.#recorder;
    out.enter(this.#ownPart);
    for (const { name, durationMs } of this.#entries) out.sample(duration, Math.round(durationMs * 1000), name);
    for (const entry of this.#entries) out.sample(success, successOf(entry), entry.name);
    for (const { name, state, parseErrors } of this.#entries) {
      if (state.kind !== 'absent' || parseErrors > 0) out.sample(parseErrorsTotal, parseErrors, name);
    }
    for (const { name, state, unreadable } of this.#entries) {
      if (state.kind !== 'absent' || unreadable > 0) out.sample(unreadableTotal, unreadable, name);
    }
    for (const { name, state, logged } of this.#entries) {
      if (state.kind !== 'failed') continue;
      // The reason that was logged: one with other numbers each time would be a new series each time.
      const isLogged = logged.kind === 'failed' && logged.errorKind === state.errorKind;
      out.sample(failedCollector, 1, name, shortReason(isLogged ? logged.reason : state.reason));
    }
    this.#self.collect(out);
    out.leave();
  }

  /**
   * A collector may fail at each tick for days: only a change is logged. Not every host has the subjects of all
   * collectors: that is said once, of all together.
   */
  #logChanges(): void {
    const absent: string[] = [];
    for (const entry of this.#asked) {
      const { name, state, logged } = entry;
      if (kindOfState(state) === kindOfState(logged)) continue;
      entry.logged = state;
      if (state.kind === 'failed') {
        this.#log.warn(`collector '${name}' failed: ${state.reason}; its series are absent until it works again`);
      } else if (state.kind === 'works') {
        if (logged.kind === 'failed') this.#log.info(`collector '${name}' works again`);
        else if (!entry.hasLoggedData) this.#log.info(`collector '${name}' has found data`);
        entry.hasLoggedData ||= logged.kind === 'absent';
      } else if (!entry.hasLoggedAbsence) {
        entry.hasLoggedAbsence = true;
        absent.push(`'${name}'`);
      }
    }
    if (absent.length === 0) return;
    this.#log.info(
      `no data on this host for collector ${absent.join(', ')}; looking again once a minute ('sysmon-agent check' says why)`,
    );
  }
}

interface Entry {
  readonly name: string;
  readonly collector: NamedCollector['collector'];
  readonly successWithoutData: 0 | 1;
  readonly part: Part;
  /** How long it prepared, others at the same time; and how long it took, with that. */
  preparedMs: number;
  durationMs: number;
  state: State;
  /** The state that was logged last. */
  logged: State;
  hasLoggedAbsence: boolean;
  hasLoggedData: boolean;
  /** The first of this instant that cost a part, but for what drivers usually answer. */
  problem: CollectError | undefined;
  /** Since the start. */
  parseErrors: number;
  unreadable: number;
  /** The kinds that were logged. */
  readonly loggedErrors: Set<string>;
}

type State =
  | { readonly kind: 'works' }
  /** `errorKind` is equal for errors that are logged once: the reason may hold a number that changes each time. */
  | { readonly kind: 'failed'; readonly reason: string; readonly errorKind: string }
  /** This host has nothing of the kind. `lookMs`: when to look again. */
  | { readonly kind: 'absent'; readonly reason: string; readonly lookMs: number };

const works: State = { kind: 'works' };

function successOf({ state, successWithoutData }: Entry): 0 | 1 {
  switch (state.kind) {
    case 'works':
      return 1;
    case 'failed':
      return 0;
    case 'absent':
      return successWithoutData;
  }
}

function kindOfState(state: State): string {
  return state.kind === 'failed' ? state.errorKind : state.kind;
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
const unreadableTotal = counter(
  'sysmon_agent_attributes_unreadable_total',
  'Attributes of devices, and other files of one value, that were there and gave none: the driver had no value, the ' +
    'device was just removed, or the agent may not read it. Only their own series are missing; the log says which they ' +
    'are, for usual answers of drivers at --log.level=debug.',
  { labels: ['collector'] },
);
const failedCollector = gauge(
  'sysmon_agent_collector_failed',
  'A collector that failed as a whole, with the reason that is in the log; always 1. There is none for one that works, ' +
    'or of whose subject the host has nothing.',
  { labels: ['collector', 'reason'] },
);

/** Its first line, as long as a label may well be. */
const shortReason = (reason: string): string => reason.split('\n', 1)[0]!.slice(0, reasonCharactersMax);
const reasonCharactersMax = 200;

// A device with another name each time must not fill the memory.
const loggedErrorsMax = 100;
// One failed look costs some 20 µs, and a device that is plugged in is seen soon enough.
const lookAgainMs = 60_000;

/**
 * Equal for errors that are logged once: the file, and the reason without its numbers; of an attribute that devices have,
 * its name and the error, whatever the device.
 */
function kindOf(error: CollectError): string {
  const { code, path, message } = error;
  if (error instanceof UnreadableError) return `${error.errno} ${path.slice(path.lastIndexOf('/') + 1)}`;
  return `${code} ${path} ${message.slice(path.length + 2).replaceAll(/"[^"]*"|\d+/g, '')}`;
}

/**
 * A CollectError is about the files of the host; anything else is a bug of the collector. A bug does not end the others
 * either: a future kernel prints what nobody has thought of.
 */
function failureOf(error: unknown): State {
  if (error instanceof CollectError) {
    return { kind: 'failed', reason: error.message, errorKind: `${error.code} ${error.path}` };
  }
  if (error instanceof SeriesBudgetError) return { kind: 'failed', reason: error.message, errorKind: error.code };
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: 'failed', reason: `a bug of this program, please report it: ${stack}`, errorKind: 'bug' };
}
