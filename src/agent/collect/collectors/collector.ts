import type { Family, MetricType } from '../../../model/family.ts';
import type { Clock } from '../../../runtime/clock.ts';
import { boolean, type OptionRow, option, optional, regexp } from '../../../runtime/options.ts';
import type { Host } from '../proc/host.ts';
import { shownOf } from '../proc/names.ts';

/**
 * Where a collector puts its samples of this instant, series after series. The same order as the last time is fastest.
 * The value that Prometheus sees is `sum / family.divisor`, so pass the kernel's own whole number. Up to two label
 * values are passed one by one, in the order of `family.labelNames`; more as an array, which must not change afterwards
 * and is best the same object each time.
 */
export interface Samples {
  sample(family: SampledFamily, sum: number, label1?: string, label2?: string): void;
  sampleLabels(family: SampledFamily, sum: number, labelValues: readonly string[]): void;
}

/**
 * One subject of the host. It may keep state between two collections. A line, an attribute or a device that cannot be
 * read costs only its own series, by `KernelText.eachLine` and `Host.value`. A collector fails by throwing NoDataError,
 * UnreadableError or FormatError, which name the file, or by having more series than its budget. Then all its series
 * are absent at this instant, also those that it delivered before it threw. After a NoDataError it is called again a
 * minute later: until then a host that has nothing of the kind pays nothing for it.
 */
export interface Collector {
  collect(host: Host, out: Samples): void;
  /**
   * Reads what can hang (a device, a network file system, another program) and so must not be read synchronously. Runs
   * before `collect`, at the same time as the others' `prepare`, and must end within a deadline of its own. Those that
   * need not prepare collect meanwhile.
   */
  prepare?(host: Host): Promise<void>;
  /** Closes what it keeps open; the next collection opens it again. */
  close?(): void;
}

export interface CollectorContext {
  readonly clock: Pick<Clock, 'nowMs' | 'monotonicMs'>;
  /** The value of an option of the row. */
  option<T>(row: OptionRow<T>): T;
}

/**
 * Series of a family that have the same label names. The kernel's families have no suffix; a histogram of a text file is
 * three of these, and so is a summary.
 */
export interface SampledFamily extends Family {
  readonly labelNames: readonly string[];
  /** Behind the name: one of `suffixesOf` the type. */
  readonly suffix?: string;
}

/** A row of the table in `index.ts`. */
export interface CollectorRow {
  readonly name: string;
  readonly enabled: 'by default' | 'on request';
  readonly description: string;
  /** Named after the collector: `netdev.device-exclude`. */
  readonly options: readonly OptionRow<unknown>[];
  /**
   * What `node_scrape_collector_success` is on a host that has nothing of the kind (NoDataError): 0 by default; 1 for
   * those that succeed in node_exporter then.
   */
  readonly successWithoutData?: 1;
  /**
   * Families of node_exporter's collector that this one does not give, with the reason, for docs/collectors.md. A name may
   * end with `*`.
   */
  readonly missing?: readonly { readonly families: readonly string[]; readonly reason: string }[];
  /**
   * slow: its files are attributes of devices or file systems, which can block. They are read off the main thread, in the
   * slow lane (`SlowCollector` says what that asks of the collector).
   */
  readonly lane?: 'slow';
  create(context: CollectorContext): Collector;
}

export interface FamilyOptions {
  readonly labels?: readonly string[];
  readonly divisor?: number;
}

/** A family whose values only rise, except at restarts. */
export function counter(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return family('counter', name, help, options);
}

/** A family whose values rise and fall. */
export function gauge(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return family('gauge', name, help, options);
}

/**
 * A family that node_exporter gives without a type, because the kernel does not document which of its values are
 * counters.
 */
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
 * A pattern for `NameFilter`, undefined where it is empty. It is JavaScript's, in node_exporter RE2's: common syntax
 * has the same meaning; only RE2 has `(?i)` and `\z`, only JavaScript has look-ahead and look-behind.
 */
export function patternOption(name: string, defaultText: string, help: string): OptionRow<RegExp | undefined> {
  return optional({ name, placeholder: 'REGEXP', parse: regexp, default: defaultText, help });
}

/** The same pattern for a whole name: what node_exporter makes of patterns of units. */
export function whole(pattern: RegExp | undefined): RegExp | undefined {
  return pattern && new RegExp(`^(?:${pattern.source})$`, pattern.flags);
}

/** A switch, on or off by default; on where it is given without a value. */
export function switchOption(name: string, defaultText: 'true' | 'false', help: string): OptionRow<boolean> {
  return option({ name, placeholder: 'BOOLEAN', parse: boolean, default: defaultText, bare: 'true', help });
}

/**
 * Lists of more than two label values, for `Samples.sampleLabels`: the same values are the same array at each collection,
 * as long as something asks for them.
 */
export class LabelLists {
  #before = new Map<string, readonly string[]>();
  #now = new Map<string, readonly string[]>();

  of(...labels: readonly string[]): readonly string[] {
    const key = labels.join('\n');
    const known = this.#now.get(key) ?? this.#before.get(key) ?? labels;
    this.#now.set(key, known);
    return known;
  }

  /** Ends a collection: what it did not ask for is forgotten. */
  endCollection(): void {
    this.#before = this.#now;
    this.#now = new Map();
  }
}

/**
 * node_exporter's filter: names that `exclude` matches are left out, and those that `include`, if set, does not match.
 */
export class NameFilter {
  readonly #include: RegExp | undefined;
  readonly #exclude: RegExp | undefined;

  constructor(include: RegExp | undefined, exclude: RegExp | undefined) {
    this.#include = include;
    this.#exclude = exclude;
  }

  /** As a label would show it. */
  keeps(name: string): boolean {
    const shown = shownOf(name);
    return !(this.#exclude?.test(shown) ?? false) && (this.#include?.test(shown) ?? true);
  }
}
