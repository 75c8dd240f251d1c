import type { AgentId } from '../model/agent-id.ts';
import type { Family } from '../model/family.ts';
import type { Schema, SchemaBlock } from '../model/schema.ts';

/**
 * What stands before the value on a series' line: `node_load1{agent="web-1",site="x"} `. Built once for a schema, kept
 * one behind the other in one buffer, appended when the schema grows. It names no agent but its own, and holds nothing
 * that keeps its schema alive.
 */
export class SeriesText {
  readonly agent: AgentId;
  readonly labels: Labels;
  /** The series whose prefixes are kept: from 0 up to what {@link prefixBytesMax} allows. */
  kept: Prefixes = { view: new DataView(new ArrayBuffer(copySlackBytes)), ends: new Uint32Array(0), first: 0, end: 0 };
  /** How many of the schema's blocks are dealt with, kept or beyond the bound. */
  #blockCount = 0;

  constructor(agent: AgentId, labels: Labels) {
    this.agent = agent;
    this.labels = labels;
  }

  isOf(agent: AgentId, labels: Labels): boolean {
    return this.agent === agent && (this.labels === labels || sameLabels(this.labels, labels));
  }

  /** Takes in what has come to the schema, about `bytesMax` of text at most. Returns how much: 0 when that was all. */
  extend(schema: Schema, bytesMax: number): number {
    const room = prefixBytesMax - keptBytes(this.kept);
    if (room <= 0 || this.#blockCount === schema.blocks.length) return 0;
    const builder = new PrefixBuilder(this.kept.end);
    while (this.#blockCount < schema.blocks.length) {
      const block = schema.blocks[this.#blockCount]!;
      const from = Math.max(block.firstSeries, builder.end);
      builder.append(block, this, from, Math.min(room, bytesMax));
      if (builder.end < block.firstSeries + block.seriesCount) break;
      this.#blockCount++;
      if (builder.bytes >= bytesMax) break;
    }
    this.kept = joined(this.kept, builder.prefixes());
    return builder.bytes;
  }

  /** Prefixes of series that are not kept, from this series of the block on: one or more, about `bytesMax`. */
  prefixes(block: SchemaBlock, series: number, bytesMax: number): Prefixes {
    const builder = new PrefixBuilder(series);
    builder.append(block, this, series, bytesMax);
    return builder.prefixes();
  }
}

export type Labels = readonly (readonly [name: string, value: string])[];

function sameLabels(a: Labels, b: Labels): boolean {
  return a.length === b.length && a.every(([name, value], at) => name === b[at]![0] && value === b[at]![1]);
}

/** The prefixes of series `first` up to `end`. */
export interface Prefixes {
  /** UTF-8, one behind the other, and {@link copySlackBytes} at the end. */
  readonly view: DataView;
  /** Where the prefix of series `first + i` ends. */
  readonly ends: Uint32Array;
  readonly first: number;
  readonly end: number;
}

/** {@link copyText} reads and writes so much beyond the end. */
export const copySlackBytes = 8;

/**
 * Copies text from one buffer into another, eight bytes at a time, and returns where the copy ends. The fastest of what was
 * measured: `set()` wants a view for every copy and took 1.35 times as long, a loop over the bytes 1.5 to 2 times, and
 * `copyWithin()`, no faster, would have the prefixes of all agents in one buffer. A double carries any bits but those of a
 * NaN, and UTF-8 has no such bytes: they would be 0xff, or 0x7f behind one of 0xf0 and above.
 */
export function copyText(to: DataView, at: number, from: DataView, start: number, end: number): number {
  let target = at;
  for (let source = start; source < end; source += 8) {
    to.setFloat64(target, from.getFloat64(source, true), true);
    target += 8;
  }
  return at + end - start;
}

/**
 * A schema of ordinary names keeps all its prefixes: a host of 36 000 series has 4 MiB. The longest names and labels that
 * the wire allows would come to 600 MiB; what is beyond the bound is built anew for every scrape.
 */
export const prefixBytesMax = 8 * 1024 * 1024;

const keptBytes = (prefixes: Prefixes): number => prefixes.ends.at(-1) ?? 0;

function joined(a: Prefixes, b: Prefixes): Prefixes {
  if (a.end === 0) return b;
  const aBytes = keptBytes(a);
  const bytes = new Uint8Array(aBytes + keptBytes(b) + copySlackBytes);
  bytes.set(new Uint8Array(a.view.buffer, 0, aBytes));
  bytes.set(new Uint8Array(b.view.buffer, 0, keptBytes(b)), aBytes);
  const ends = new Uint32Array(b.end);
  ends.set(a.ends);
  for (let index = 0; index < b.ends.length; index++) ends[a.end + index] = aBytes + b.ends[index]!;
  return { view: new DataView(bytes.buffer), ends, first: 0, end: b.end };
}

class PrefixBuilder {
  readonly #first: number;
  readonly #ends: number[] = [];
  #text = scratch;
  bytes = 0;

  constructor(first: number) {
    this.#first = first;
  }

  /** The series after the last one that was appended. */
  get end(): number {
    return this.#first + this.#ends.length;
  }

  /** Appends the block's series from `from` on, until it has `bytesMax` or more. */
  append(block: SchemaBlock, { agent, labels }: SeriesText, from: number, bytesMax: number): void {
    const { family, labelValues, firstSeries, seriesCount } = block;
    const open = `${family.name}{agent="${agent}"`;
    const own = ownLabels(family);
    const close = `${agentLabels(labels, family).join('')}} `;
    const width = family.labelNames.length;
    for (let series = from; series < firstSeries + seriesCount && this.bytes < bytesMax; series++) {
      let text = open;
      const values = (series - firstSeries) * width;
      for (const { name, index } of own) text += label(name, labelValues[values + index]!);
      this.#write(text + close);
    }
  }

  #write(text: string): void {
    const bytesMax = this.bytes + text.length * 3;
    if (bytesMax > this.#text.length) {
      const grown = Buffer.allocUnsafeSlow(bytesMax * 2);
      this.#text.copy(grown, 0, 0, this.bytes);
      this.#text = grown;
    }
    this.bytes += this.#text.write(text, this.bytes, 'utf8');
    this.#ends.push(this.bytes);
  }

  prefixes(): Prefixes {
    const bytes = new Uint8Array(this.bytes + copySlackBytes);
    bytes.set(this.#text.subarray(0, this.bytes));
    return { view: new DataView(bytes.buffer), ends: Uint32Array.from(this.#ends), first: this.#first, end: this.end };
  }
}

// Where prefixes are put together before their length is known. Nothing stays in it from one call to the next.
const scratch = Buffer.allocUnsafeSlow(256 * 1024);

/** The family's labels with their places. A name twice, or `agent`, would have Prometheus refuse the scrape. */
function ownLabels(family: Family): { name: string; index: number }[] {
  return family.labelNames
    .map((name, index) => ({ name, index }))
    .filter(({ name, index }) => name !== 'agent' && family.labelNames.indexOf(name) === index);
}

/** The agent's own labels: the family's win over them, even where they are empty. */
function agentLabels(labels: Labels, family: Family): string[] {
  return labels
    .filter(([name], at) => name !== 'agent' && labels.findIndex((other) => other[0] === name) === at)
    .map(([name, value]) => (family.labelNames.includes(name) ? '' : label(name, value)));
}

/** An empty value is no label, to Prometheus as well. */
function label(name: string, value: string): string {
  return value === '' ? '' : `,${name}="${escapeLabelValue(value)}"`;
}

/** https://prometheus.io/docs/instrumenting/exposition_formats/#comments-help-text-and-type-information */
export function escapeLabelValue(value: string): string {
  return /[\\"\n]/.test(value) ? value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n') : value;
}

export function escapeHelp(help: string): string {
  return help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
