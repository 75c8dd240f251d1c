import { hostSourceId, hostSourceName, type Labels } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import { escapedBytes, labelOverheadBytes, lineBytesOf } from '../../protocol/text-size.ts';
import type { SampledFamily } from './collectors/collector.ts';

/** What series cost in terms of the protocol's limits on a schema. */
export interface SeriesCost {
  readonly count: number;
  /** Of their declaration. */
  readonly schemaBytes: number;
  /** As text, when all are present. */
  readonly textBytes: number;
}

export const noCost: SeriesCost = { count: 0, schemaBytes: 0, textBytes: 0 };

/** A collector has more series than its budget, and fails. */
export class SeriesBudgetError extends Error {
  override readonly name = 'SeriesBudgetError';
  readonly code = 'series-budget';
}

const wireLimits: SeriesCost = {
  count: limits.seriesMax,
  schemaBytes: limits.schemaBytesMax,
  textBytes: limits.reportTextBytesMax,
};
// For the agent's own metrics: 1024 series.
const ownShare = 1 / 64;
// One collector leaves the others at least a quarter.
const collectorShare = 3 / 4;

const measures = [
  { field: 'count', what: 'series' },
  { field: 'schemaBytes', what: 'bytes of names and labels' },
  { field: 'textBytes', what: 'bytes of text a report' },
] as const;

export interface SeriesBudgetOptions {
  /** The host's labels, which are on every line of text. */
  readonly labels?: Labels;
  /** Smaller in tests. */
  readonly wire?: SeriesCost;
}

/**
 * How many series the collectors may have at one instant: one collector three quarters of what the protocol allows, all
 * together nearly all of it.
 */
export class SeriesBudget {
  readonly wire: SeriesCost;
  readonly labels: Labels;
  readonly #lineBytes: number;
  readonly #allMax: SeriesCost;
  readonly #oneMax: SeriesCost;
  #used = noCost;

  constructor({ labels = [], wire = wireLimits }: SeriesBudgetOptions = {}) {
    this.wire = wire;
    this.labels = labels;
    this.#lineBytes = lineBytesOf({ id: hostSourceId, name: hostSourceName, labels });
    this.#allMax = scaleCost(wire, 1 - ownShare);
    this.#oneMax = scaleCost(wire, collectorShare);
  }

  /** Starts an instant. */
  begin(): void {
    this.#used = noCost;
  }

  /** For a collector that delivers series without end: it is stopped at the first that is too many. */
  checkCount(count: number): void {
    if (count > this.#oneMax.count || count + this.#used.count > this.#allMax.count)
      throw this.#tooMuch({ ...noCost, count });
  }

  /** All series of a collector at this instant. */
  add(cost: SeriesCost): void {
    const used = addCost(this.#used, cost);
    if (!fitsInto(this.#oneMax, cost) || !fitsInto(this.#allMax, used)) throw this.#tooMuch(cost);
    this.#used = used;
  }

  /** Bytes of a series as a line of text. */
  textBytesOf({ name, suffix = '', labelNames }: SampledFamily, labels: readonly string[]): number {
    let bytes = this.#lineBytes + name.length + suffix.length;
    for (let at = 0; at < labels.length; at++) {
      bytes += labelOverheadBytes + labelNames[at]!.length + escapedBytes(labels[at]!);
    }
    return bytes;
  }

  #tooMuch(cost: SeriesCost): SeriesBudgetError {
    const isAlone = !fitsInto(this.#oneMax, cost);
    const max = isAlone ? this.#oneMax : this.#allMax;
    const total = isAlone ? cost : addCost(this.#used, cost);
    const { field, what } = measures.find((measure) => total[measure.field] > max[measure.field])!;
    return new SeriesBudgetError(
      `${isAlone ? 'it has' : 'with it the collectors have'} more than ${max[field]} ${what}; ` +
        "filter by its options ('sysmon-agent collect --list') or --disable it",
    );
  }
}

export interface CostedSeries {
  readonly family: SampledFamily;
  /** By `labelBytesOf`, and by `textBytesOf` of the budget: once, because they do not change. */
  readonly labelBytes: number;
  readonly textBytes: number;
}

/** At most: each family is counted once. */
export function costOf(series: readonly CostedSeries[]): SeriesCost {
  const families = new Set<SampledFamily>();
  let schemaBytes = 0;
  let textBytes = 0;
  for (const one of series) {
    schemaBytes += one.labelBytes;
    textBytes += one.textBytes;
    if (families.has(one.family)) continue;
    families.add(one.family);
    schemaBytes += familyBytesOf(one.family);
  }
  return { count: series.length, schemaBytes, textBytes };
}

export function fitsInto(max: SeriesCost, cost: SeriesCost): boolean {
  return cost.count <= max.count && cost.schemaBytes <= max.schemaBytes && cost.textBytes <= max.textBytes;
}

export function addCost(a: SeriesCost, b: SeriesCost): SeriesCost {
  return {
    count: a.count + b.count,
    schemaBytes: a.schemaBytes + b.schemaBytes,
    textBytes: a.textBytes + b.textBytes,
  };
}

function scaleCost({ count, schemaBytes, textBytes }: SeriesCost, factor: number): SeriesCost {
  return {
    count: Math.floor(count * factor),
    schemaBytes: Math.floor(schemaBytes * factor),
    textBytes: Math.floor(textBytes * factor),
  };
}

// MessagePack puts 1 to 5 bytes before a string or an array, and a number takes up to 9.
const headerBytes = 5;
const numberBytes = 9;

/** Of the declaration of these labels. */
export function labelBytesOf(labels: readonly string[]): number {
  let bytes = 0;
  for (const label of labels) bytes += headerBytes + Buffer.byteLength(label);
  return bytes;
}

/** With its one group: the suffix, the label names, how many series. */
function familyBytesOf({ name, suffix = '', type, help, labelNames }: SampledFamily): number {
  return 2 * numberBytes + 4 * headerBytes + labelBytesOf([name, type, help, suffix, ...labelNames]);
}
