import type { Family, MetricType } from '../../../model/family.ts';
import type { Clock } from '../../../runtime/clock.ts';
import { boolean, type OptionRow, option, optional, regexp } from '../../../runtime/options.ts';
import type { Host } from '../proc/host.ts';

/**
 * Takes what a collector has found at this instant, series after series, best in the same order each time: a series that
 * comes where it came the last time costs next to nothing. The value that Prometheus sees is `sum / family.divisor`, so
 * give the kernel's own whole number. Up to two label values are passed one by one, in the order of `family.labelNames`;
 * more as an array, which must not change afterwards and is best the same object each time.
 */
export interface Samples {
  sample(family: SampledFamily, sum: number, label1?: string, label2?: string): void;
  sampleLabels(family: SampledFamily, sum: number, labelValues: readonly string[]): void;
}

/**
 * One subject of the host. It may keep what it likes between two collections. A line, an attribute or a device that cannot
 * be read costs its own series alone: `KernelText.eachLine` and `Host.value` see to that. A collector fails by throwing
 * NoDataError, UnreadableError or FormatError, which name the file, or because it gives more series than it may have. Then
 * all its series are absent at this instant, those too that it gave before it threw.
 */
export interface Collector {
  collect(host: Host, out: Samples): void;
  /**
   * For what may not be read synchronously because it can hang (a network file system): runs before `collect`, together
   * with the others' `prepare`. It must end by itself before a deadline of its own.
   */
  prepare?(host: Host): Promise<void>;
}

export interface CollectorContext {
  readonly clock: Pick<Clock, 'nowMs' | 'monotonicMs'>;
  /** What an option of the row is set to. */
  option<T>(row: OptionRow<T>): T;
}

/** A family of a collector: its series all have the same labels, and no suffix. */
export interface SampledFamily extends Family {
  readonly labelNames: readonly string[];
}

/** A row of the table in `index.ts`. */
export interface CollectorRow {
  readonly name: string;
  readonly enabled: 'by default' | 'on request';
  readonly description: string;
  /** Named after the collector: `netdev.device-exclude`. */
  readonly options: readonly OptionRow<unknown>[];
  create(context: CollectorContext): Collector;
}

export interface FamilyOptions {
  readonly labels?: readonly string[];
  readonly divisor?: number;
}

/** A family whose values only rise, but for restarts. */
export function counter(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return family('counter', name, help, options);
}

/** A family whose values rise and fall. */
export function gauge(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return family('gauge', name, help, options);
}

/** A family of which node_exporter does not say whether it is a counter: its values come from a list of the kernel's. */
export function untyped(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return family('untyped', name, help, options);
}

function family(type: MetricType, name: string, help: string, options: FamilyOptions): SampledFamily {
  return {
    name,
    type,
    help,
    divisor: options.divisor ?? 1,
    labelNames: options.labels ?? [],
  };
}

/**
 * A pattern for `NameFilter`, undefined where it is empty. It is JavaScript's, where node_exporter has RE2's: what both
 * know means the same; RE2 alone has `(?i)` and `\z`, JavaScript alone looks ahead and behind.
 */
export function patternOption(name: string, defaultText: string, help: string): OptionRow<RegExp | undefined> {
  return optional({ name, placeholder: 'REGEXP', parse: regexp, default: defaultText, help });
}

/** A switch, on or off by default. */
export function switchOption(name: string, defaultText: 'true' | 'false', help: string): OptionRow<boolean> {
  return option({ name, placeholder: 'BOOLEAN', parse: boolean, default: defaultText, help });
}

/** node_exporter's filter: what `exclude` finds is left out, and what `include`, where it is set, does not find. */
export class NameFilter {
  readonly #include: RegExp | undefined;
  readonly #exclude: RegExp | undefined;

  constructor(include: RegExp | undefined, exclude: RegExp | undefined) {
    this.#include = include;
    this.#exclude = exclude;
  }

  keeps(name: string): boolean {
    return !(this.#exclude?.test(name) ?? false) && (this.#include?.test(name) ?? true);
  }
}
