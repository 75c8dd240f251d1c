import { type Family, metricTypes } from '../../model/family.ts';
import { suffixesOf } from '../../model/series.ts';
import { hostSourceId, type Labels } from '../../model/source.ts';
import { limits } from '../../protocol/limits.ts';
import { isLabelName, isMetricName, isReservedMetricName } from '../../protocol/names.ts';
import { labelCountOf } from '../../protocol/text-size.ts';
import type { SampledFamily } from './collectors/collector.ts';

/** Why a server would refuse the family on a host with these labels, and with it the connection; undefined if it would not. */
export function problemOf(
  { name, suffix = '', type, divisor, labelNames }: SampledFamily,
  labels: Labels,
): string | undefined {
  if (!isMetricName(name) || name.length + suffix.length > limits.nameBytesMax) return 'not a name for a metric';
  if (isReservedMetricName(name) || isReservedMetricName(name + suffix)) return 'the name is reserved';
  if (!metricTypes.includes(type)) return `its type is '${type}', expected ${metricTypes.join(', ')}`;
  const known = suffixesOf(type);
  if (!known.some((each) => each.suffix === suffix)) return `a ${type} has no series named '${name}${suffix}'`;
  for (const { suffix: each, ownLabel } of known) {
    if (ownLabel === undefined || labelNames.includes(ownLabel) === (each === suffix)) continue;
    return `'${name}${suffix}' of a ${type} ${each === suffix ? 'lacks' : 'has'} the label '${ownLabel}'`;
  }
  if (!Number.isInteger(divisor) || divisor < 1 || divisor > limits.divisorMax) return `its divisor is ${divisor}`;
  const count = labelCountOf({ id: hostSourceId, labels }, labelNames);
  if (count > limits.seriesLabelsMax) {
    return `it has ${count} labels with __name__, agent, job, instance and those of --label, at most ${limits.seriesLabelsMax} are allowed`;
  }
  for (const label of labelNames) {
    if (!isLabelName(label) || label.length > limits.nameBytesMax) return `no label may be called '${label}'`;
  }
  if (new Set(labelNames).size < labelNames.length) return 'two of its labels have one name';
  return undefined;
}

/** The family as a schema declares it. */
export function declaredFamily({ name, type, help, divisor }: SampledFamily): Family {
  return { name, type, help: cutToBytes(help, limits.stringBytesMax), divisor };
}

/** As much of the text as fits, without half a character at its end. */
export function cutToBytes(text: string, bytesMax: number): string {
  // A UTF-16 unit takes at most three bytes.
  if (text.length * 3 <= bytesMax || Buffer.byteLength(text) <= bytesMax) return text;
  const bytes = Buffer.from(text);
  let end = bytesMax;
  // 10xxxxxx is the inside of a character.
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
