import type { AgentId } from '../../model/agent-id.ts';
import { type SeriesGroup, sameTexts } from '../../model/series.ts';
import { hostSourceName, type Labels, sameLabels } from '../../model/source.ts';
import { escapeLabelValue } from '../../model/text-format.ts';

/*
 * The text before the value on a series' line has four pieces. Agents that declare the same share the first and the
 * third; whole lines of a thousand agents of 500 series would take 28 MB.
 *
 *     node_disk_reads_completed_total{agent="   web-1"   ,device="sda"   ,site="x"}
 *     opening: the group's                      source's series' own     closing: the labels of the begin
 */

/** Some bytes of UTF-8, with {@link copySlackBytes} or more behind them. */
export interface Text {
  readonly view: DataView;
  readonly start: number;
  readonly end: number;
}

/** {@link copyText} reads and writes so much beyond the end. */
export const copySlackBytes = 8;

export const openingOf = (seriesName: string): Text => textOf(`${seriesName}{agent="`);

/** The two pieces of an agent's source, with the labels of a begin. */
export class SourceText {
  readonly agent: AgentId;
  readonly sourceName: string;
  readonly labels: Labels;
  /** The names of agent and source, up to `nameEnd`, then the closing. */
  readonly view: DataView;
  readonly nameEnd: number;
  readonly end: number;
  /** For families without a label of the same name, which are most. */
  readonly closing: Text;
  /** Others, by the names that they leave out. */
  readonly #closings = new Map<string, Text>();

  constructor(agent: AgentId, sourceName: string, labels: Labels) {
    this.agent = agent;
    this.sourceName = sourceName;
    this.labels = labels;
    const name = sourceName === hostSourceName ? `${agent}"` : `${agent}",source="${sourceName}"`;
    const { view, end } = textOf(`${name}${closingOf(labels)}`);
    this.view = view;
    this.nameEnd = name.length; // of A-Z a-z 0-9 . _ -
    this.end = end;
    this.closing = { view, start: name.length, end };
  }

  isOf(agent: AgentId, sourceName: string, labels: Labels): boolean {
    return this.agent === agent && this.sourceName === sourceName && sameLabels(this.labels, labels);
  }

  /** Whether the series have a label of the same name, which takes precedence even if it is empty. */
  shares({ labelNames }: SeriesGroup): boolean {
    return this.labels.some(([name]) => labelNames.includes(name));
  }

  /** The closing for series that share a name. */
  closingBeside({ labelNames }: SeriesGroup): Text {
    return textOf(closingOf(this.labels.filter(([name]) => !labelNames.includes(name))));
  }

  /**
   * The same, one for all series that share the same names; undefined where there are too many ways to keep them all.
   */
  keptClosing(group: SeriesGroup): Text | undefined {
    const shared = this.labels.filter(([name]) => group.labelNames.includes(name));
    const key = shared.map(([name]) => name).join();
    const known = this.#closings.get(key);
    if (known !== undefined || this.#closings.size >= closingsMax) return known;
    const closing = this.closingBeside(group);
    this.#closings.set(key, closing);
    return closing;
  }
}

// An agent has a label or two that some families have, too.
const closingsMax = 16;

/** Prometheus refuses a scrape with a label name twice. */
function closingOf(labels: Labels): string {
  const printed = labels.filter(
    ([name], at) => name !== 'agent' && labels.findIndex((other) => other[0] === name) === at,
  );
  return `${printed.map(([name, value]) => label(name, value)).join('')}} `;
}

/** The own labels of a group's series `first` up to `end`, as they are printed. */
export interface OwnText {
  /** One behind the other, and {@link copySlackBytes} at the end. */
  readonly view: DataView;
  /** Where those of series `first + i` end. */
  readonly ends: Uint32Array;
  readonly first: number;
  readonly end: number;
  readonly bytes: number;
}

/**
 * The texts of label values are shared like the values: made once, and kept as long as a schema has the values. All
 * series of a collector, and of all agents with the same devices, have one text.
 */
export class OwnTexts {
  readonly #known = new WeakMap<readonly string[], NamedText[]>();

  /** The text that is kept for this group, at most {@link ownBytesMax} of it; undefined if it was not made yet. */
  kept({ labelNames, labelValues }: SeriesGroup): OwnText | undefined {
    if (labelValues.length === 0) return noOwnText;
    return this.#known.get(labelValues)?.find((named) => sameTexts(named.labelNames, labelNames))?.text;
  }

  /** Makes the text to keep. */
  make(group: SeriesGroup): OwnText {
    const text = ownText(group, 0, ownBytesMax);
    const { labelNames, labelValues } = group;
    const named: NamedText = { labelNames, text };
    const known = this.#known.get(labelValues);
    // An agent that uses one list with many names only achieves that not all of them are kept.
    if (known === undefined || known.length >= namesMax) this.#known.set(labelValues, [named]);
    else known.push(named);
    return text;
  }
}

interface NamedText {
  readonly labelNames: readonly string[];
  readonly text: OwnText;
}

const namesMax = 8;

export const noOwnText: OwnText = {
  view: new DataView(new ArrayBuffer(copySlackBytes)),
  ends: Uint32Array.of(0),
  first: 0,
  end: 1,
  bytes: 0,
};

/**
 * Of one group: two or three milliseconds of work, some 3 500 series. What a group has beyond it is made for every
 * scrape, as is everything that a schema has beyond {@link schemaBytesMax}: a host of 36 000 series stays well below,
 * but the longest names and labels that the wire allows would come to 600 MiB.
 */
export const ownBytesMax = 256 * 1024;
export const schemaBytesMax = 8 * 1024 * 1024;

/** The own labels of a group's series, from this one on, until they are `bytesMax` or more. */
export function ownText(
  { labelNames, seriesCount, labelValues }: SeriesGroup,
  first: number,
  bytesMax: number,
): OwnText {
  const own = ownLabels(labelNames);
  const width = labelNames.length;
  const ends: number[] = [];
  let bytes = 0;
  for (let series = first; series < seriesCount && bytes < bytesMax; series++) {
    let text = '';
    for (const { name, index } of own) text += label(name, labelValues[series * width + index]!);
    const room = bytes + text.length * 3;
    if (room > scratch.length) scratch = grown(scratch, room * 2);
    bytes += scratch.write(text, bytes, 'utf8');
    ends.push(bytes);
  }
  const copy = new Uint8Array(bytes + copySlackBytes);
  copy.set(scratch.subarray(0, bytes));
  if (scratch.length > scratchBytesMax) scratch = Buffer.allocUnsafeSlow(scratchBytesMax);
  return { view: new DataView(copy.buffer), ends: Uint32Array.from(ends), first, end: first + ends.length, bytes };
}

// Where text is put together before its length is known. Nothing stays in it from one call to the next.
const scratchBytesMax = ownBytesMax;
let scratch = Buffer.allocUnsafeSlow(scratchBytesMax);

function grown(buffer: Buffer, bytes: number): Buffer<ArrayBuffer> {
  const next = Buffer.allocUnsafeSlow(bytes);
  buffer.copy(next);
  return next;
}

/** The labels with their places. A name twice, or `agent`, would have Prometheus refuse the scrape. */
function ownLabels(labelNames: readonly string[]): { name: string; index: number }[] {
  return labelNames
    .map((name, index) => ({ name, index }))
    .filter(({ name, index }) => name !== 'agent' && labelNames.indexOf(name) === index);
}

/** An empty value is no label, to Prometheus as well. */
function label(name: string, value: string): string {
  return value === '' ? '' : `,${name}="${escapeLabelValue(value)}"`;
}

function textOf(text: string): Text {
  const bytes = Buffer.byteLength(text);
  const buffer = Buffer.alloc(bytes + copySlackBytes);
  buffer.write(text);
  return { view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length), start: 0, end: bytes };
}

/**
 * Copies text from one buffer into another, eight bytes at a time, and returns where the copy ends. The fastest of what
 * was measured: `set()` wants a view for every copy and took 1.35 times as long, a loop over the bytes 1.5 to 2 times,
 * and `copyWithin()`, no faster, would have all texts in one buffer. A double carries any bits but those of a NaN, and
 * UTF-8 has no such bytes: they would be 0xff, or 0x7f behind one of 0xf0 and above.
 */
export function copyText(to: DataView, at: number, from: DataView, start: number, end: number): number {
  let target = at;
  for (let source = start; source < end; source += 8) {
    to.setFloat64(target, from.getFloat64(source, true), true);
    target += 8;
  }
  return at + end - start;
}
