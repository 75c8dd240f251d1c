import type { Family } from '../model/family.ts';
import type { Sums } from '../model/report.ts';
import { Schema } from '../model/schema.ts';
import { type SeriesGroup, suffixesOf, textsKey } from '../model/series.ts';
import { hostSourceId, type Labels, type Source } from '../model/source.ts';
import { applyPairs } from './delta.ts';
import { ProtocolError, shown } from './errors.ts';
import { limits } from './limits.ts';
import type { Begin, ReportMessage, SchemaMessage } from './messages.ts';
import { isLabelName, isMetricName, isReservedMetricName } from './names.ts';
import { escapedBytes, labelCountOf, labelOverheadBytes, lineBytesOf } from './text-size.ts';

/**
 * What one connection has begun and declared, and the sums of the last reports. A report means nothing without it, as a
 * prepared statement's parameters mean nothing without the statement; it comes and goes with the connection.
 *
 *     source 0   begin  schema  key          report  report          schema  key      report
 *                       a b c   a b c        · · ·   · · ·           d       a b c d  · · · ·
 *     source 1                       begin schema  key         report                        report
 *     seq                       1                  2   3       4     5       6        7      8
 */
export class SchemaTable {
  readonly #share: Share;
  readonly #labelBounds: LabelBounds;
  readonly #sources = new Map<number, DeclaredSource>();
  #epoch: number | undefined;
  /** Of the last report of the epoch, whichever source it was of; 0 for none. */
  #lastSeq = 0;

  /** `share` may give an equal one that others have: a server holds those of all its agents once. */
  constructor(share: Share = (group) => group, labelBounds: LabelBounds = wireLabelBounds) {
    this.#share = share;
    this.#labelBounds = labelBounds;
  }

  /** Undefined until the first begin. */
  get epoch(): number | undefined {
    return this.#epoch;
  }

  /** Those that have been begun in this epoch. */
  get sources(): Iterable<DeclaredSource> {
    return this.#sources.values();
  }

  /** Begins the source, perhaps again. Another epoch than the present one ends all sources first. */
  begin(message: Begin): DeclaredSource {
    const { epoch, source: id, name } = message;
    if (epoch !== this.#epoch) {
      this.#sources.clear();
      this.#lastSeq = 0;
    }
    this.#epoch = epoch;
    for (const other of this.#sources.values()) {
      if (other.name === name && other.id !== id) {
        throw new ProtocolError('order', `begin ${id}: ${shown(name)} is the name of source ${other.id}`);
      }
    }
    this.#sources.delete(id);
    if (this.#sources.size >= limits.sourcesMax) {
      throw new ProtocolError('limit', `begin: more than ${limits.sourcesMax} sources`);
    }
    const source = new DeclaredSource(message, this.#share, this.#labelBounds);
    this.#sources.set(id, source);
    return source;
  }

  /** `payloadBytes`: of the frame that the message came in. */
  declare(message: SchemaMessage, payloadBytes: number): DeclaredSource {
    const source = this.#source(message.source, 'schema');
    const total: Size = { series: 0, bytes: payloadBytes, textBytes: 0 };
    for (const { size } of this.#sources.values()) {
      total.series += size.series;
      total.bytes += size.bytes;
      total.textBytes += size.textBytes;
    }
    checkTotal('bytes since the begin', total.bytes, limits.schemaBytesMax);
    source.declare(message, payloadBytes, total);
    return source;
  }

  apply(message: ReportMessage): DeclaredSource {
    const { seq, source: id } = message;
    const source = this.#source(id, `report ${seq}`);
    const lastSeq = this.#lastSeq;
    if (seq <= lastSeq) throw outOfOrder(seq, `came after ${lastSeq}, expected a greater number`);
    if (seq !== lastSeq + 1) {
      if (!message.key) throw outOfOrder(seq, `came after ${lastSeq}, expected ${lastSeq + 1}, or a key`);
      // Whatever is missing may have been of any source.
      for (const each of this.#sources.values()) each.needsKey = true;
    }
    source.apply(message);
    this.#lastSeq = seq;
    return source;
  }

  #source(id: number, what: string): DeclaredSource {
    const source = this.#sources.get(id);
    if (source !== undefined) return source;
    throw new ProtocolError('order', `${what}: came before the begin of source ${id}`);
  }
}

type Share = (group: SeriesGroup) => SeriesGroup;

/**
 * Bounds on the labels of a series as a scraper counts them: with its name as `__name__`, `agent`, `source`, the labels of
 * the host, and the two that every job adds, `job` and `instance`. For a Prometheus whose `label_limit`,
 * `label_name_length_limit` or `label_value_length_limit` is set: it refuses the whole answer for one series beyond.
 */
export interface LabelBounds {
  readonly labels: number;
  /** Bytes of a label's name, and of its value. */
  readonly nameBytes: number;
  readonly valueBytes: number;
}

/** The limits of the protocol; those of a server are no wider. */
export const wireLabelBounds: LabelBounds = {
  labels: limits.seriesLabelsMax,
  nameBytes: limits.nameBytesMax,
  valueBytes: limits.labelValueBytesMax,
};

/** What the limits count of a source, or of all of a connection together. */
interface Size {
  series: number;
  /** Payload bytes of its schema frames. */
  bytes: number;
  /** What a report of it comes to as text, when all series are present. */
  textBytes: number;
}

/** A source as a connection has begun it, with what was declared since. */
export class DeclaredSource implements Source {
  readonly id: number;
  readonly name: string;
  readonly intervalMs: number;
  readonly labels: Labels;
  readonly offsetMs: number;
  readonly schema = new Schema();
  readonly size: Size = { series: 0, bytes: 0, textBytes: 0 };
  /** Its next report has to be a key. */
  needsKey = true;
  readonly #share: Share;
  readonly #labelBounds: LabelBounds;
  /** What a line has beside the name, the series' own labels. */
  readonly #lineBytes: number;
  #state: Sums = noSums;
  /** By their names, the families whose series have suffixes, while something is being declared. */
  #suffixed: Map<string, Family> | undefined;
  /** By name, once one has been declared again: its groups, or their series once it was that name. */
  #named: Map<string, SeriesGroup[] | Set<string>> | undefined;
  #lastTimeMs = Number.NEGATIVE_INFINITY;
  #reportsSinceKey = 0;
  #reportsSinceSchema = 0;

  constructor({ source, name, intervalMs, labels, offsetMs }: Begin, share: Share, labelBounds: LabelBounds) {
    this.id = source;
    this.name = name;
    this.intervalMs = intervalMs;
    this.labels = labels;
    this.offsetMs = offsetMs;
    this.#share = share;
    this.#labelBounds = labelBounds;
    this.#lineBytes = lineBytesOf(this);
    // Those of `sysmon_agent_up`, which has no others.
    this.#checkCount('begin:', []);
    for (const [label, value] of labels) {
      this.#checkLength('begin: the name of a label', label, labelBounds.nameBytes);
      this.#checkLength(`begin: the value of label ${shown(label)}`, value, labelBounds.valueBytes);
    }
  }

  /** The first `schema.seriesCount` are valid, once a report has come; written in place by the next. */
  get state(): Sums {
    return this.#state;
  }

  /** `total`: of all sources of the connection, this one's frame included. Only for SchemaTable. */
  declare(message: SchemaMessage, payloadBytes: number, total: Size): void {
    this.size.bytes += payloadBytes;
    for (const group of message.groups) this.#declareGroup(group, total);
    this.#state = grown(this.#state, this.schema.seriesCount);
    this.needsKey = true;
    this.#reportsSinceSchema = 0;
  }

  /** Only for SchemaTable, which has looked at the number. */
  apply({ key, seq, timeMs, pairs }: ReportMessage): void {
    if (this.needsKey && !key) throw outOfOrder(seq, 'is no key, and is the first after a begin, a schema or a gap');
    if (!key && this.#reportsSinceKey >= limits.reportsPerKeyMax - 1) {
      throw outOfOrder(seq, `is no key, and so were the ${this.#reportsSinceKey} before it`);
    }
    if (timeMs <= this.#lastTimeMs) throw outOfOrder(seq, `has time ${timeMs}, not after ${this.#lastTimeMs}`);
    applyPairs(this.#state, this.schema.seriesCount, key, pairs);
    this.#lastTimeMs = timeMs;
    this.needsKey = false;
    this.#reportsSinceKey = key ? 0 : this.#reportsSinceKey + 1;
    this.#compact();
  }

  /**
   * Frees what only declarations need: half of a schema's memory. Making it again costs some 150 ns a series, spread
   * over so many reports that an agent gains nothing by declaring something new again and again.
   */
  #compact(): void {
    if (++this.#reportsSinceSchema * compactedSeriesAReport < this.schema.seriesCount) return;
    this.#suffixed = undefined;
    this.#named = undefined;
    this.schema.compact();
  }

  #declareGroup(group: SeriesGroup, total: Size): void {
    const { family, suffix, seriesCount } = group;
    const known = this.schema.family(family.name);
    if (known === undefined) checkFamilyName(family);
    else if (known.type !== family.type || known.divisor !== family.divisor) {
      throw badFamily(family, 'is named again with another type or divisor');
    }
    this.#checkLabels(group);
    checkGroup(group, this.id);
    total.series += seriesCount;
    checkTotal('series since the begin', total.series, limits.seriesMax);

    const name = family.name + suffix;
    const owner = this.#ownerOf(name);
    if (owner !== undefined && owner.name !== family.name) {
      throw badFamily(family, `has series named ${shown(name)}, as family ${shown(owner.name)} has`);
    }
    const textBytes = addSeries(this.#seriesNamed(name, owner !== undefined), group, {
      lineBytes: this.#lineBytes,
      valueBytesMax: this.#labelBounds.valueBytes,
    });
    total.textBytes += textBytes;
    checkTotal('bytes of text a report', total.textBytes, limits.reportTextBytesMax);
    if (suffix !== '') this.#suffixed?.set(name, family);
    this.size.series += seriesCount;
    this.size.textBytes += textBytes;
    const shared = this.#share(group);
    this.schema.add(shared);
    const named = this.#named?.get(name);
    if (named === undefined) this.#named?.set(name, [shared]);
    else if (Array.isArray(named)) named.push(shared);
  }

  /** By the bounds that a scraper has: the values are looked at one by one later. */
  #checkLabels({ family, suffix, labelNames }: SeriesGroup): void {
    const { nameBytes, valueBytes } = this.#labelBounds;
    const what = `schema family ${shown(family.name)}:`;
    this.#checkLength(`${what} its name, the value of __name__,`, family.name + suffix, valueBytes);
    for (const label of labelNames) this.#checkLength(`${what} the name of a label`, label, nameBytes);
    this.#checkCount(what, labelNames);
  }

  #checkCount(what: string, labelNames: readonly string[]): void {
    const { labels: labelsMax } = this.#labelBounds;
    const count = labelCountOf(this, labelNames);
    if (count <= labelsMax) return;
    const counted = `with __name__, agent, job, instance and those of the ${this.id === hostSourceId ? 'host' : 'source'}`;
    throw new ProtocolError('limit', `${what} ${count} labels ${counted}, at most ${labelsMax} are allowed here`);
  }

  #checkLength(what: string, text: string, bytesMax: number): void {
    if (text.length * 3 <= bytesMax) return;
    const bytes = Buffer.byteLength(text);
    if (bytes > bytesMax) {
      throw new ProtocolError('limit', `${what} has ${bytes} bytes, at most ${bytesMax} are allowed here`);
    }
  }

  /** The family that has series of this name, or may have them, already. */
  #ownerOf(name: string): Family | undefined {
    this.#suffixed ??= new Map(
      this.schema.groups
        .filter(({ suffix }) => suffix !== '')
        .map(({ family, suffix }) => [family.name + suffix, family]),
    );
    const owner = this.#suffixed.get(name);
    if (owner !== undefined) return owner;
    const family = this.schema.family(name);
    return family?.type === 'histogram' ? undefined : family;
  }

  /**
   * Where the series of a name have to be distinct. Most names are in one group, so that a set for the time of one
   * declaration is enough. One that comes again, as of a group that is in two frames, gets a set that stays.
   */
  #seriesNamed(name: string, again: boolean): SeriesKeys {
    if (!again) return { keys: new Set(), byValues: true };
    this.#named ??= groupsByName(this.schema);
    const named = this.#named.get(name) ?? [];
    const keys = Array.isArray(named) ? seriesKeys(named) : named;
    this.#named.set(name, keys);
    return { keys, byValues: false };
  }
}

// Of a usual host, all with its first report: a thousand agents that come at once take no more memory than they need.
const compactedSeriesAReport = 1024;

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

function checkTotal(what: string, was: number, max: number): void {
  if (was > max) throw new ProtocolError('limit', `schema: ${was} ${what}, at most ${max} are allowed`);
}

function checkFamilyName(family: Family): void {
  if (!isMetricName(family.name)) throw badFamily(family, "is no metric name of Prometheus's");
}

function checkGroup({ family, suffix, labelNames }: SeriesGroup, sourceId: number): void {
  const name = family.name + suffix;
  if (isReservedMetricName(name)) throw badFamily(family, "is one of the server's own names");
  if (name.length > limits.nameBytesMax) throw tooMuch(family, `a name of ${name.length} bytes`, limits.nameBytesMax);
  const names = labelNames.length === 0 ? noNames : new Set<string>();
  for (const label of labelNames) {
    if (!isLabelName(label) || (label === 'source' && sourceId !== hostSourceId)) {
      throw badFamily(family, `has a label ${shown(label)}, which is not for agents to name`);
    }
    if (names.has(label)) throw badFamily(family, `names its label ${shown(label)} twice`);
    names.add(label);
  }
  for (const { suffix: each, ownLabel } of suffixesOf(family.type)) {
    if (ownLabel === undefined || names.has(ownLabel) === (each === suffix)) continue;
    const was = each === suffix ? 'lacks' : 'has';
    throw badFamily(family, `${was} the label ${shown(ownLabel)} in its series ${shown(name)}`);
  }
}

const noNames = new Set<string>();

interface SeriesKeys {
  readonly keys: Set<string>;
  /** All have the same label names in one order, so that the values alone are different. */
  readonly byValues: boolean;
}

/** Adds the series of a group, each of them new. Returns what they come to as text. */
function addSeries(
  { keys, byValues }: SeriesKeys,
  group: SeriesGroup,
  { lineBytes, valueBytesMax }: { readonly lineBytes: number; readonly valueBytesMax: number },
): number {
  const { family, suffix, labelNames, labelValues, seriesCount } = group;
  const width = labelNames.length;
  // One series cannot come twice, where nothing else has its name.
  const keyOf = byValues ? (seriesCount === 1 ? undefined : keyByValues(group)) : keyByLabels(group);
  const number = numberLabelAt(group);
  let textBytes = seriesCount * (lineBytes + family.name.length + suffix.length);
  for (const name of labelNames) textBytes += seriesCount * (labelOverheadBytes + name.length);
  const restBytes = textBytes / seriesCount;
  for (let i = 0; i < seriesCount; i++) {
    let valuesBytes = 0;
    for (let at = i * width; at < (i + 1) * width; at++)
      valuesBytes += valueTextBytes(family, labelValues[at]!, valueBytesMax);
    if (restBytes + valuesBytes > limits.lineBytesMax) {
      throw tooMuch(family, `a line of ${restBytes + valuesBytes} bytes`, limits.lineBytesMax);
    }
    textBytes += valuesBytes;
    if (number >= 0 && !isNumberText(labelValues[i * width + number]!)) {
      const value = shown(labelValues[i * width + number]);
      throw badFamily(family, `has ${value} for its label ${shown(labelNames[number])}, expected a number`);
    }
    if (keyOf === undefined) continue;
    const key = keyOf(i);
    if (keys.has(key)) {
      const values = labelValues.slice(i * width, (i + 1) * width).map(shown);
      throw badFamily(family, `declares a series twice: {${values.join(', ')}}`);
    }
    keys.add(key);
  }
  return textBytes;
}

function valueTextBytes(family: Family, value: string, bytesMax: number): number {
  const bytes = escapedBytes(value);
  // Unescaped it is shorter.
  if (bytes > bytesMax && Buffer.byteLength(value) > bytesMax) {
    throw tooMuch(family, `a label value of ${Buffer.byteLength(value)} bytes`, bytesMax);
  }
  return bytes;
}

/** The place of the label whose values are numbers, -1 where there is none. */
function numberLabelAt({ family, suffix, labelNames }: SeriesGroup): number {
  if (family.type !== 'histogram' && family.type !== 'summary') return -1;
  const ownLabel = suffixesOf(family.type).find((each) => each.suffix === suffix)?.ownLabel;
  return ownLabel === undefined ? -1 : labelNames.indexOf(ownLabel);
}

function isNumberText(text: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text) || text === '+Inf';
}

function groupsByName(schema: Schema): Map<string, SeriesGroup[]> {
  const byName = new Map<string, SeriesGroup[]>();
  for (const group of schema.groups) {
    const name = group.family.name + group.suffix;
    const named = byName.get(name);
    if (named === undefined) byName.set(name, [group]);
    else named.push(group);
  }
  return byName;
}

function seriesKeys(groups: readonly SeriesGroup[]): Set<string> {
  const keys = new Set<string>();
  for (const group of groups) {
    const keyOf = keyByLabels(group);
    for (let i = 0; i < group.seriesCount; i++) keys.add(keyOf(i));
  }
  return keys;
}

/** Different for different label values. */
function keyByValues({ labelNames, labelValues }: SeriesGroup): (series: number) => string {
  const width = labelNames.length;
  if (width === 0) return () => '';
  if (width === 1) return (i) => labelValues[i]!;
  return (i) => textsKey(labelValues, i * width, (i + 1) * width);
}

/** The same for different sets of labels: in whatever order they stand, and an empty value is no label. */
function keyByLabels({ labelNames, labelValues }: SeriesGroup): (series: number) => string {
  const width = labelNames.length;
  const order = [...labelNames.keys()].sort((a, b) => (labelNames[a]! < labelNames[b]! ? -1 : 1));
  return (i) => {
    let key = '';
    for (const at of order) {
      const value = labelValues[i * width + at]!;
      if (value !== '') key += `${labelNames[at]}=${value.length}:${value}`;
    }
    return key;
  };
}

function badFamily(family: Family, was: string): ProtocolError {
  return new ProtocolError('schema', `schema family ${shown(family.name)}: ${was}`);
}

function tooMuch(family: Family, was: string, max: number): ProtocolError {
  return new ProtocolError('limit', `schema family ${shown(family.name)}: ${was}, at most ${max} are allowed`);
}

function outOfOrder(seq: number, was: string): ProtocolError {
  return new ProtocolError('order', `report ${seq}: ${was}`);
}
