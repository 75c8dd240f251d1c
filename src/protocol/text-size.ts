import { hostSourceId, type Source } from '../model/source.ts';
import { limits } from './limits.ts';

// What series take in the text format: the server refuses a schema beyond `lineBytesMax` and `reportTextBytesMax`, so an
// agent counts the same.

// `,name="value"`
export const labelOverheadBytes = 4;
// A blank, the longest double, a blank, milliseconds, a newline.
const valueAndTimeBytes = 1 + 24 + 1 + 17 + 1;

/** What a line has beside the name and the series' own labels, at most. */
export function lineBytesOf({ id, name, labels }: Pick<Source, 'id' | 'name' | 'labels'>): number {
  let bytes = 'agent='.length + labelOverheadBytes + limits.agentNameCharactersMax + valueAndTimeBytes;
  if (id !== hostSourceId) bytes += 'source'.length + labelOverheadBytes + name.length;
  for (const [label, value] of labels) bytes += labelOverheadBytes + label.length + escapedBytes(value);
  return bytes;
}

/** How many labels a series has as a scraper counts them: with its name as `__name__`, and the two that every job adds. */
export function labelCountOf({ id, labels }: Pick<Source, 'id' | 'labels'>, labelNames: readonly string[]): number {
  const given = labelNames.length + (id === hostSourceId ? fixedLabels : fixedLabels + 1);
  return labels.reduce((count, [name]) => (labelNames.includes(name) ? count : count + 1), given);
}

// `__name__`, `agent`, `job`, `instance`; of others than the host `source`, too.
const fixedLabels = 4;

/** What a label's value takes in the text format, where `"`, `\` and a newline take two bytes. */
export function escapedBytes(value: string): number {
  let bytes = value.length;
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at);
    // Half of a surrogate pair is half of 4 bytes.
    if (code >= 0x80) bytes += code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 1 : 2;
    else if (code === 0x22 || code === 0x5c || code === 0x0a) bytes++;
  }
  return bytes;
}
