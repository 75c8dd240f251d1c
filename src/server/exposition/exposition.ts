import type { AgentId } from '../../model/agent-id.ts';
import type { Schema } from '../../model/schema.ts';
import type { SeriesGroup } from '../../model/series.ts';
import { hostSourceName, type Labels } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import { type FamilyEntry, FamilyRegistry, type Layout, type OnDisagreement } from './families.ts';
import { numberBytesMax, writeQuotient } from './numbers.ts';
import {
  copySlackBytes,
  copyText,
  noOwnText,
  type OwnText,
  OwnTexts,
  ownText,
  SourceText,
  schemaBytesMax,
  type Text,
} from './series-text.ts';

/** The reports of one source in one answer, in the order of time, in runs that share a schema. */
export interface AgentBatch {
  readonly agent: AgentId;
  readonly sourceName: string;
  readonly runs: readonly Run[];
}

export interface Run {
  /** Of one source of one agent. It grows only by appending; what is cached for it is freed with it. */
  readonly schema: Schema;
  /** Those of the begin, which are on every series. One list for a schema: another one would cost new texts. */
  readonly labels: Labels;
  readonly reports: readonly RunReport[];
}

/** May be shorter than a schema that has grown since. Must not change until the answer has been rendered. */
export interface RunReport {
  /** Whole milliseconds since 1970. */
  readonly timeMs: number;
  readonly sums: Float64Array;
  readonly present: Uint8Array;
}

export interface ExpositionOptions {
  /** A schema gives a family another type than the one that is printed: called once for each such schema. */
  readonly onDisagreement: OnDisagreement;
}

/**
 * Writes agents' reports in Prometheus's text format 0.0.4. A family is contiguous over all agents: agent after agent,
 * series after series, each series oldest first (run after run, if an agent has begun a new schema).
 *
 *     # HELP node_load1 1m load average.
 *     # TYPE node_load1 gauge
 *     node_load1{agent="a"} 0.21 1732463564000
 *     node_load1{agent="a"} 0.25 1732463569000
 *     node_load1{agent="b",site="x"} 3 1732463569000
 *
 * Half a million lines a scrape: the text before the value is kept in pieces from one scrape to the next, a value is
 * written digit by digit, and no string is made for either.
 */
export class Exposition {
  readonly #families: FamilyRegistry;
  readonly #schemas = new WeakMap<Schema, KnownSchema>();
  readonly #ownTexts = new OwnTexts();
  readonly #slices = new Buffers(sliceBytes, slicesFreeMax);
  readonly #columns = new Buffers(columnBytes, columnsFreeMax);

  constructor(options: ExpositionOptions) {
    this.#families = new FamilyRegistry(options.onDisagreement);
  }

  /**
   * The text in slices of about 512 KiB, each a buffer of its own; the caller lets the event loop turn between them. An
   * empty slice only returns control, amid work that has no text yet. Without timestamps only each source's newest
   * report is written: Prometheus would refuse a series twice.
   */
  *render(batches: readonly AgentBatch[], options: { timestamps: boolean }): Generator<Uint8Array, void> {
    const { sources, sections } = yield* this.#plan(options.timestamps ? batches : batches.map(newestOf));
    const stamps = new Stamps(sources, options.timestamps);
    const body = new Body(this.#slices);
    for (const group of groupsOf(sections, sources.length)) {
      if (group.length > 1) yield* body.join(yield* writeGroup(group, sources, stamps, this.#columns), this.#columns);
      else yield* streamSection(body, group[0]!, sources, stamps);
    }
    yield* body.end();
  }

  /** Reuses a slice that the caller no longer needs. Optional; it saves a quarter of the time. */
  release(slice: Uint8Array): void {
    this.#slices.give(slice.buffer);
  }

  /** Plans the text, and updates what is cached for each schema, a little at a time. */
  *#plan(batches: readonly AgentBatch[]): Generator<Uint8Array, Plan> {
    const sources: Source[] = [];
    const layoutBytes = new Map<Layout, Float64Array>();
    const votes = new Map<Layout, number>();
    let reportCount = 0;
    let work = 0;
    for (const batch of batches) {
      for (const { schema, labels, reports } of batch.runs) {
        const known = this.#known(schema, batch, labels);
        work += runWork;
        for (let builtBytes = -1; builtBytes !== 0; work += builtBytes) {
          if (work >= workMax) {
            yield new Uint8Array(0);
            work = 0;
          }
          builtBytes = this.#nameSeries(schema, known);
        }
        this.#layOut(schema, known);
        const source = new Source(schema, known, reports, reportCount);
        addBytes(layoutBytes, source);
        sources.push(source);
        reportCount += reports.length;
      }
      const layout = sources.at(-1)?.layout;
      if (batch.runs.length > 0 && layout !== undefined) {
        votes.set(layout, (votes.get(layout) ?? 0) + (batch.sourceName === hostSourceName ? 1 : forwardedVote));
      }
    }
    this.#families.elect(votes);
    return { sources, sections: sectionsOf(layoutBytes) };
  }

  #known(schema: Schema, { agent, sourceName }: AgentBatch, labels: Labels): KnownSchema {
    let known = this.#schemas.get(schema);
    if (known === undefined || !known.text.isOf(agent, sourceName, labels)) {
      known = {
        text: new SourceText(agent, sourceName, labels),
        layout: this.#families.extend(undefined, [], agent),
        firsts: noFirsts,
        own: [],
        ownBytes: 0,
        closings: undefined,
      };
      this.#schemas.set(schema, known);
    }
    return known;
  }

  /** Caches a little of what the schema has got since. Returns about how much: 0 at the end. */
  #nameSeries({ groups }: Schema, known: KnownSchema): number {
    let work = 0;
    while (known.own.length < groups.length && work < workMax) {
      const group = groups[known.own.length]!;
      let text = this.#ownTexts.kept(group);
      work += groupWork;
      if (text === undefined && known.ownBytes < schemaBytesMax) {
        text = this.#ownTexts.make(group);
        work += text.bytes;
      }
      known.own.push(text);
      if (text !== undefined) known.ownBytes += text.bytes + ownTextBytes;
    }
    return work;
  }

  #layOut({ groups }: Schema, known: KnownSchema): void {
    const count = known.layout.declarations.length;
    if (count === groups.length) return;
    const added = groups.slice(count);
    known.layout = this.#families.extend(known.layout, added, known.text.agent);
    known.firsts = firstsOf(groups);
    for (const [at, group] of added.entries()) {
      if (!known.text.shares(group)) continue;
      known.closings ??= new Map();
      known.closings.set(count + at, known.text.keptClosing(group));
    }
  }
}

function firstsOf(groups: readonly SeriesGroup[]): Uint32Array {
  const firsts = new Uint32Array(groups.length + 1);
  for (const [at, { seriesCount }] of groups.entries()) firsts[at + 1] = firsts[at]! + seriesCount;
  return firsts;
}

// A piece of an HTTP body: 6 000 lines, about two milliseconds. Gzip's thread is given one in each turn of the event loop:
// beside an agent that keeps the processor busy, an answer takes as many turns as it has slices.
const sliceBytes = 512 * 1024;
// Some that are being sent.
const slicesFreeMax = 4;
// Of one of the families that are written side by side.
const columnBytes = 128 * 1024;
// Those of a group, one begun for each of its families: 9 MiB.
const columnsFreeMax = 72;
// Between two turns of the event loop: the names of new series in bytes, some 3 500 of them, and what a run costs
// whose names are known. Two or three milliseconds.
const workMax = 256 * 1024;
const runWork = 512;
// All the exporters that an agent forwards have less of a vote than its host.
const forwardedVote = 1 / (2 * limits.sourcesMax);
// To look up a group whose series others have, too.
const groupWork = 16;
// Objects of a text that is kept, in addition to its bytes and its ends.
const ownTextBytes = 400;

/** The cache of a schema, freed with it. */
interface KnownSchema {
  readonly text: SourceText;
  layout: Layout;
  /** The first series of each block, and the end of the last one. */
  firsts: Uint32Array;
  /** The label texts of each block's series, as far as they are kept. */
  readonly own: (OwnText | undefined)[];
  ownBytes: number;
  /** The closing of blocks that need another one than usual; undefined if it is made each time. */
  closings: Map<number, Text | undefined> | undefined;
}

const noFirsts = Uint32Array.of(0);

/** A run while it is written, and its position: the order of families is the same for all. */
class Source {
  readonly schema: Schema;
  readonly reports: readonly RunReport[];
  readonly text: SourceText;
  readonly own: readonly (OwnText | undefined)[];
  readonly #closings: ReadonlyMap<number, Text | undefined> | undefined;
  readonly layout: Layout;
  readonly firsts: Uint32Array;
  /** The place of its first report's stamp. */
  readonly stampsFirst: number;
  #at = -1;
  /** The order of the family that comes next, Infinity at the end. */
  order = Infinity;

  constructor(schema: Schema, known: KnownSchema, reports: readonly RunReport[], stampsFirst: number) {
    this.schema = schema;
    this.reports = reports;
    this.text = known.text;
    this.own = known.own;
    this.#closings = known.closings;
    this.layout = known.layout;
    this.firsts = known.firsts;
    this.stampsFirst = stampsFirst;
    this.advance();
  }

  /** The block that comes next. */
  get block(): number {
    return this.layout.blocks[this.#at]!;
  }

  /** The closing of the present block's series. */
  get closing(): Text {
    const closings = this.#closings;
    if (closings === undefined || !closings.has(this.block)) return this.text.closing;
    return closings.get(this.block) ?? this.text.closingBeside(this.schema.groups[this.block]!);
  }

  advance(): void {
    const { orders } = this.layout;
    this.#at++;
    this.order = this.#at < orders.length ? orders[this.#at]! : Infinity;
  }
}

/** Runs with reports; without timestamps the last of them. */
function newestOf({ agent, sourceName, runs }: AgentBatch): AgentBatch {
  const run = runs.findLast(({ reports }) => reports.length > 0);
  return { agent, sourceName, runs: run === undefined ? [] : [{ ...run, reports: run.reports.slice(-1) }] };
}

interface Plan {
  readonly sources: readonly Source[];
  /** All their families, in the order in which they are printed. */
  readonly sections: readonly Section[];
}

/** A family, and about how many bytes of text it has over all sources. */
interface Section {
  readonly entry: FamilyEntry;
  bytes: number;
}

function sectionsOf(layoutBytes: ReadonlyMap<Layout, Float64Array>): Section[] {
  const sections = new Map<FamilyEntry, Section>();
  for (const [{ declarations }, bytes] of layoutBytes) {
    for (const [block, { entry }] of declarations.entries()) {
      const section = sections.get(entry) ?? { entry, bytes: 0 };
      section.bytes += bytes[block]!;
      sections.set(entry, section);
    }
  }
  return [...sections.values()].sort((a, b) => a.entry.order - b.entry.order);
}

/**
 * Adds the bytes of each block of the source. Layouts are few, so the families need not be looked up for each source.
 */
function addBytes(layoutBytes: Map<Layout, Float64Array>, { layout, own, text, firsts, reports }: Source): void {
  let bytes = layoutBytes.get(layout);
  if (bytes === undefined) {
    bytes = new Float64Array(layout.declarations.length);
    layoutBytes.set(layout, bytes);
  }
  const restBytes = text.end + valueBytes + stampBytesMax;
  for (let block = 0; block < bytes.length; block++) {
    const seriesCount = firsts[block + 1]! - firsts[block]!;
    if (seriesCount === 0) continue;
    const kept = own[block];
    // The size of what is not kept is unknown, but large.
    const ownBytes = kept === undefined || kept.end < seriesCount ? groupBytesMax : kept.bytes;
    const { opening } = layout.declarations[block]!;
    bytes[block]! += (ownBytes + seriesCount * (opening.end + restBytes)) * reports.length;
  }
}

// Usual bytes of a value, with its blank.
const valueBytes = 8;

/**
 * The text is ordered by family, memory by agent: writing family by family would wait for memory at every step (a third
 * of the time for 1000 agents). So a few families at a time are written side by side, in one pass over the agents. A
 * long family has enough series of each agent to be written alone, and few agents fit into the cache.
 */
function groupsOf(sections: readonly Section[], sourceCount: number): Section[][] {
  const groups: Section[][] = [];
  let open: Section[] = [];
  let bytes = 0;
  for (const section of sections) {
    const fits = bytes + section.bytes <= groupBytesMax && open.length < groupSectionsMax;
    if (open.length === 0 || !fits || sourceCount < groupSourcesMin) {
      open = [];
      groups.push(open);
      bytes = 0;
    }
    open.push(section);
    bytes += section.bytes;
  }
  return groups;
}

// Measured: with 1 MiB rendering takes a quarter longer, with 8 MiB as long.
const groupBytesMax = 4 * 1024 * 1024;
const groupSectionsMax = 32;
// Of a group, between two turns of the event loop: some 13 000 samples, two or three milliseconds.
const turnBytesMax = 1024 * 1024;
const groupSourcesMin = 64;

/** Writes families side by side, and returns their text one after the other. Yields only to return control. */
function* writeGroup(
  group: readonly Section[],
  sources: readonly Source[],
  stamps: Stamps,
  buffers: Buffers,
): Generator<Uint8Array, Slice[]> {
  const columns = group.map(({ entry }) => new Column(entry, buffers));
  const bytes = group.reduce((sum, section) => sum + section.bytes, 0);
  const sourcesATurn = Math.ceil((sources.length * turnBytesMax) / bytes);
  for (let first = 0; first < sources.length; first += sourcesATurn) {
    if (first > 0) yield new Uint8Array(0);
    writeColumns(columns, sources.slice(first, first + sourcesATurn), stamps);
  }
  return columns.flatMap((column) => column.end());
}

/** Not part of the generator, which would be compiled to slower code. */
function writeColumns(columns: readonly Column[], sources: readonly Source[], stamps: Stamps): void {
  const orderEnd = columns.at(-1)!.order;
  for (const source of sources) {
    for (let at = 0; source.order <= orderEnd; source.advance()) {
      while (columns[at]!.order < source.order) at++;
      columns[at]!.write(source, stamps);
    }
  }
}

/** One family of a group. */
class Column {
  readonly order: number;
  readonly #buffers: Buffers;
  readonly #slices: Slice[] = [];
  readonly #progress = new Progress();
  #slice: Slice;

  constructor({ header, order }: FamilyEntry, buffers: Buffers) {
    this.order = order;
    this.#buffers = buffers;
    this.#slice = new Slice(buffers.take(header.length));
    this.#slice.append(header);
  }

  write(source: Source, stamps: Stamps): void {
    while (!writeBlock(this.#slice, source, stamps, this.#progress)) {
      this.#slices.push(this.#slice);
      this.#slice = new Slice(this.#buffers.take(this.#progress.lineBytesMax));
    }
  }

  /** The finished text; empty if there was no sample. */
  end(): Slice[] {
    if (this.#progress.wrote) return [...this.#slices, this.#slice];
    this.#buffers.give(this.#slice.text.buffer);
    return [];
  }
}

/** Writes one family straight into the body. */
function* streamSection(
  body: Body,
  { entry }: Section,
  sources: readonly Source[],
  stamps: Stamps,
): Generator<Uint8Array, void> {
  const { header, order } = entry;
  if (header.length > body.slice.roomBytes) yield body.turn(header.length);
  const start = body.slice.length;
  body.slice.append(header);
  const progress = new Progress();
  for (const source of sources) {
    for (; source.order === order; source.advance()) {
      while (!writeBlock(body.slice, source, stamps, progress)) yield body.turn(progress.lineBytesMax);
    }
  }
  // A slice is full only when there is a line to be written, so this is still the one with the header.
  if (!progress.wrote) body.slice.length = start;
}

/** The position in a family. */
class Progress {
  /** The next series of the block, -1 for the first; and the next report. */
  series = -1;
  report = 0;
  /** The label texts of series beyond those that are kept, if the block has any. */
  own: OwnText | undefined;
  /** Bytes of the next line, if it did not fit into the slice. */
  lineBytesMax = 0;
  wrote = false;
}

/** Writes the source's present block, or returns false when the slice has no room for the next line. */
function writeBlock(slice: Slice, source: Source, stamps: Stamps, progress: Progress): boolean {
  const { view } = slice;
  const { reports, block, text, closing } = source;
  const { opening, divisor, decimals } = source.layout.declarations[block]!;
  // Looked up once, not for every line.
  const { view: openingView, end: openingEnd } = opening;
  const { view: textView, nameEnd, end: textEnd } = text;
  const { view: closingView, start: closingStart, end: closingEnd } = closing;
  let own = source.own[block];
  const isWhole = own === noOwnText && closing === text.closing;
  const first = source.firsts[block]!;
  const seriesEnd = source.firsts[block + 1]!;
  const restBytesMax = openingEnd + textEnd + numberBytesMax + stampBytesMax + copySlackBytes;
  let at = slice.length;
  for (let series = progress.series < 0 ? first : progress.series; series < seriesEnd; series++) {
    if (own === undefined || series - first >= own.end) own = ownBeyond(source, block, series - first, progress);
    const place = series - first - own.first;
    const start = place === 0 ? 0 : own.ends[place - 1]!;
    const end = own.ends[place]!;
    const lineBytesMax = end - start + restBytesMax;
    for (let index = progress.report; index < reports.length; index++) {
      const { sums, present } = reports[index]!;
      if (series >= present.length || present[series] === 0) continue;
      if (at + lineBytesMax > slice.capacityBytes) {
        slice.length = at;
        progress.series = series;
        progress.report = index;
        progress.lineBytesMax = lineBytesMax;
        return false;
      }
      at = copyText(view, at, openingView, 0, openingEnd);
      if (isWhole) {
        at = copyText(view, at, textView, 0, textEnd);
      } else {
        at = copyText(view, at, textView, 0, nameEnd);
        at = copyText(view, at, own.view, start, end);
        at = copyText(view, at, closingView, closingStart, closingEnd);
      }
      at = writeQuotient(view, at, sums[series]!, divisor, decimals);
      at = stamps.copy(view, at, source.stampsFirst + index);
      progress.wrote = true;
    }
    progress.report = 0;
  }
  progress.series = -1;
  progress.own = undefined;
  slice.length = at;
  return true;
}

/** The label texts of a few series, from this one of the block on: those made last, if it is among them. */
function ownBeyond(source: Source, block: number, index: number, progress: Progress): OwnText {
  const last = progress.own;
  if (last === undefined || index >= last.end) {
    progress.own = ownText(source.schema.groups[block]!, index, columnBytes);
  }
  return progress.own!;
}

/** The body as it grows. */
class Body {
  readonly #buffers: Buffers;
  slice: Slice;

  constructor(buffers: Buffers) {
    this.#buffers = buffers;
    this.slice = new Slice(buffers.take());
  }

  /** The slice so far, and a new one with at least so much room. */
  turn(roomBytesMin = 0): Uint8Array {
    const { text } = this.slice;
    this.slice = new Slice(this.#buffers.take(roomBytesMin));
    return text;
  }

  *end(): Generator<Uint8Array, void> {
    if (this.slice.length > 0) yield this.slice.text;
    else this.#buffers.give(this.slice.text.buffer);
  }

  /** Appends what was written elsewhere, and gives its buffers back. */
  *join(slices: readonly Slice[], from: Buffers): Generator<Uint8Array, void> {
    for (const { text } of slices) {
      for (let at = 0; at < text.length; ) {
        if (this.slice.roomBytes === 0) yield this.turn();
        const to = at + Math.min(text.length - at, this.slice.roomBytes);
        this.slice.append(text.subarray(at, to));
        at = to;
      }
      from.give(text.buffer);
    }
  }
}

/** A piece of the text while it is written. */
class Slice {
  readonly #bytes: Uint8Array;
  readonly view: DataView;
  readonly capacityBytes: number;
  length = 0;

  constructor(buffer: ArrayBuffer) {
    this.#bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.capacityBytes = buffer.byteLength;
  }

  get roomBytes(): number {
    return this.capacityBytes - this.length;
  }

  get text(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  append(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }
}

/** Buffers that were released. New ones cost the kernel's zeroing and, being external memory, garbage collections. */
class Buffers {
  // A set: a buffer that is released twice must not be used twice.
  readonly #free = new Set<ArrayBufferLike>();
  readonly #bytes: number;
  readonly #freeMax: number;

  constructor(bytes: number, freeMax: number) {
    this.#bytes = bytes;
    this.#freeMax = freeMax;
  }

  take(bytesMin = 0): ArrayBuffer {
    if (bytesMin > this.#bytes) return new ArrayBuffer(bytesMin);
    for (const buffer of this.#free) {
      this.#free.delete(buffer);
      return buffer as ArrayBuffer;
    }
    return Buffer.allocUnsafeSlow(this.#bytes).buffer;
  }

  give(buffer: ArrayBufferLike): void {
    if (buffer.byteLength === this.#bytes && this.#free.size < this.#freeMax) this.#free.add(buffer);
  }
}

// A blank, up to 17 characters of a whole number of milliseconds, a newline; in whole doubles for copyText.
const stampBytesMax = 24;

/** The text after the value, ` 1732463564000\n`, for every report of every source. */
class Stamps {
  readonly #view: DataView;
  readonly #lengths: Uint8Array;

  constructor(sources: readonly Source[], timestamps: boolean) {
    const reports = sources.flatMap((source) => source.reports);
    const bytes = Buffer.alloc(reports.length * stampBytesMax + copySlackBytes);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset);
    this.#lengths = Uint8Array.from(reports, ({ timeMs }, place) =>
      bytes.write(timestamps ? ` ${timeMs}\n` : '\n', place * stampBytesMax, 'latin1'),
    );
  }

  copy(view: DataView, at: number, place: number): number {
    const start = place * stampBytesMax;
    return copyText(view, at, this.#view, start, start + this.#lengths[place]!);
  }
}
