import type { Family } from '../model/family.ts';
import { Schema, type SchemaPart } from '../model/schema.ts';
import { applyPairs, type Sums } from './delta.ts';
import { ProtocolError, shown } from './errors.ts';
import { limits } from './limits.ts';
import type { Begin, FamilyDeclaration, ReportMessage, SchemaMessage } from './message.ts';
import { isLabelName, isMetricName, isReservedMetricName } from './names.ts';

/**
 * What one connection has declared since its begin, and the sums of its last report. A report means nothing without it,
 * as a prepared statement's parameters mean nothing without the statement; it comes and goes with the connection.
 *
 *     begin   schema   key    report  report   schema   key    report
 *             a b c    a b c  · · ·   · · ·    d        a b c d …
 */
export class SchemaTable {
  readonly #share: (declaration: FamilyDeclaration) => SchemaPart;
  #schema = new Schema();
  #schemaBytes = 0;
  #epoch: number | undefined;
  #offsetMs = 0;
  #state: Sums = noSums;
  /** By family, once a family has been named again, until {@link #settle}. */
  #series: Map<string, Set<string>> | undefined;
  /** The last report since the begin. */
  #last: { readonly seq: number; readonly timeMs: number } | undefined;
  #needsKey = true;
  #reportsSinceKey = 0;
  #reportsSinceSchema = 0;

  /** `share` may give an equal one that others have: a server holds those of all its agents once. */
  constructor(share: (declaration: FamilyDeclaration) => SchemaPart = (declaration) => declaration) {
    this.#share = share;
  }

  /** Another object after each begin. */
  get schema(): Schema {
    return this.#schema;
  }

  /** Undefined until the first begin. */
  get epoch(): number | undefined {
    return this.#epoch;
  }

  get offsetMs(): number {
    return this.#offsetMs;
  }

  /** The first `schema.seriesCount` are valid, once a report has come; written in place by the next. */
  get state(): Sums {
    return this.#state;
  }

  begin(message: Begin): void {
    this.#schema = new Schema();
    this.#schemaBytes = 0;
    this.#epoch = message.epoch;
    this.#offsetMs = message.offsetMs;
    this.#state = noSums;
    this.#series = undefined;
    this.#last = undefined;
    this.#needsKey = true;
  }

  /** `payloadBytes`: of the frame that the message came in. */
  declare(message: SchemaMessage, payloadBytes: number): void {
    if (this.#epoch === undefined) throw new ProtocolError('order', 'schema: came before the first begin');
    this.#schemaBytes += payloadBytes;
    if (this.#schemaBytes > limits.schemaBytesMax) {
      const allowed = `at most ${limits.schemaBytesMax} are allowed`;
      throw new ProtocolError('limit', `schema: ${this.#schemaBytes} bytes since the begin, ${allowed}`);
    }
    for (const declaration of message.families) this.#declareFamily(declaration);
    this.#state = grown(this.#state, this.#schema.seriesCount);
    this.#needsKey = true;
    this.#reportsSinceSchema = 0;
  }

  apply(message: ReportMessage): void {
    this.#checkOrder(message);
    applyPairs(this.#state, this.#schema.seriesCount, message.key, message.pairs);
    this.#last = { seq: message.seq, timeMs: message.timeMs };
    this.#needsKey = false;
    this.#reportsSinceKey = message.key ? 0 : this.#reportsSinceKey + 1;
    this.#settle();
  }

  /**
   * Gives back what only declarations need: half of what a schema takes. Making it anew costs some 150 ns a series, which
   * is spread over so many reports that an agent gains nothing by declaring something new time after time.
   */
  #settle(): void {
    if (++this.#reportsSinceSchema * settledSeriesAReport < this.#schema.seriesCount) return;
    this.#series = undefined;
    this.#schema.settle();
  }

  #declareFamily(declaration: FamilyDeclaration): void {
    const { family, seriesCount, labelValues } = declaration;
    const known = this.#schema.family(family.name);
    if (known === undefined) checkFamily(family);
    else if (!declaresSame(known, family)) {
      throw badFamily(family, 'is named again with another type, divisor or other label names');
    }
    if (this.#schema.seriesCount + seriesCount > limits.seriesMax) {
      throw new ProtocolError('limit', `schema: more than ${limits.seriesMax} series since the begin`);
    }
    addSeries(this.#seriesOf(family.name, known !== undefined), family, labelValues, seriesCount);
    this.#schema.add(this.#share(declaration));
  }

  /**
   * Where the series of a family have to be distinct. Most schemas name each family once, so that a set for the time of
   * one declaration is enough; a schema that names one again gets sets for all of its families, which stay.
   */
  #seriesOf(familyName: string, again: boolean): Set<string> {
    if (again) this.#series ??= seriesByFamily(this.#schema);
    const known = this.#series?.get(familyName);
    if (known !== undefined) return known;
    const series = new Set<string>();
    this.#series?.set(familyName, series);
    return series;
  }

  #checkOrder({ key, seq, timeMs }: ReportMessage): void {
    if (this.#epoch === undefined) throw outOfOrder(seq, 'came before the first begin');
    if (this.#needsKey && !key) throw outOfOrder(seq, 'is no key, and is the first after a begin or a schema');
    const last = this.#last;
    if (last === undefined) return;
    if (key && seq <= last.seq) throw outOfOrder(seq, `came after ${last.seq}, expected a greater number`);
    if (!key && seq !== last.seq + 1) throw outOfOrder(seq, `came after ${last.seq}, expected ${last.seq + 1}`);
    if (!key && this.#reportsSinceKey >= limits.reportsPerKeyMax - 1) {
      throw outOfOrder(seq, `is no key, and so were the ${this.#reportsSinceKey} before it`);
    }
    if (timeMs <= last.timeMs) throw outOfOrder(seq, `has time ${timeMs}, not after ${last.timeMs}`);
  }
}

const settledSeriesAReport = 64;

const noSums: Sums = { sums: new Float64Array(0), present: new Uint8Array(0) };

/** Sums for at least `count` series; doubled, because a peer may declare one series at a time. */
function grown(state: Sums, count: number): Sums {
  const room = state.sums.length;
  if (count <= room) return state;
  const length = room === 0 ? count : Math.min(Math.max(count, 2 * room), limits.seriesMax);
  const next: Sums = { sums: new Float64Array(length), present: new Uint8Array(length) };
  next.sums.set(state.sums);
  next.present.set(state.present);
  return next;
}

function checkFamily(family: Family): void {
  if (!isMetricName(family.name)) throw badFamily(family, "is no metric name of Prometheus's");
  if (isReservedMetricName(family.name)) throw badFamily(family, "is one of the server's own names");
  const { labelNames } = family;
  for (const [at, name] of labelNames.entries()) {
    if (!isLabelName(name)) throw badFamily(family, `has a label ${shown(name)}, which is not for agents to name`);
    if (labelNames.indexOf(name) !== at) throw badFamily(family, `names its label ${shown(name)} twice`);
  }
}

function declaresSame(a: Family, b: Family): boolean {
  const sameLabels = a.labelNames.length === b.labelNames.length && a.labelNames.every((n, i) => n === b.labelNames[i]);
  return a.type === b.type && a.divisor === b.divisor && sameLabels;
}

function addSeries(series: Set<string>, family: Family, labelValues: readonly string[], count: number): void {
  const width = family.labelNames.length;
  for (let i = 0; i < count; i++) {
    const key = seriesKey(labelValues, i, width);
    if (series.has(key)) {
      const values = labelValues.slice(i * width, (i + 1) * width).map(shown);
      throw badFamily(family, `declares a series twice: {${values.join(', ')}}`);
    }
    series.add(key);
  }
}

function seriesByFamily(schema: Schema): Map<string, Set<string>> {
  const byFamily = new Map<string, Set<string>>();
  for (const { family, labelValues, seriesCount } of schema.parts) {
    const series = byFamily.get(family.name) ?? new Set();
    byFamily.set(family.name, series);
    addSeries(series, family, labelValues, seriesCount);
  }
  return byFamily;
}

/** Different for different label values, whatever stands in them: each behind its length. */
function seriesKey(labelValues: readonly string[], i: number, width: number): string {
  if (width === 0) return '';
  if (width === 1) return labelValues[i]!;
  let key = '';
  for (let at = i * width; at < (i + 1) * width; at++) key += `${labelValues[at]!.length}:${labelValues[at]}`;
  return key;
}

function badFamily(family: Family, was: string): ProtocolError {
  return new ProtocolError('schema', `schema family ${shown(family.name)}: ${was}`);
}

function outOfOrder(seq: number, was: string): ProtocolError {
  return new ProtocolError('order', `report ${seq}: ${was}`);
}
