import { seriesValue } from '../../model/family.ts';
import type { Recording } from '../../model/recording.ts';
import type { SchemaBlock } from '../../model/schema.ts';
import { escapeHelp, escapeLabelValue, numberText } from '../../model/text-format.ts';

/**
 * A recording in Prometheus's text format, families by name: what `sysmon-agent collect` prints.
 * https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */
export function expositionOf(recording: Recording): string {
  const families = new Map<string, SchemaBlock[]>();
  for (const block of recording.schema.blocks) {
    const blocks = families.get(block.family.name);
    if (blocks === undefined) families.set(block.family.name, [block]);
    else blocks.push(block);
  }
  const names = [...families.keys()].sort();
  return names.map((name) => familyText(recording, families.get(name)!)).join('');
}

function familyText(recording: Recording, blocks: readonly SchemaBlock[]): string {
  const lines = blocks.flatMap((block) => seriesLines(recording, block));
  if (lines.length === 0) return '';
  const { name, help, type } = blocks[0]!.family;
  return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

function seriesLines({ sums, present }: Recording, block: SchemaBlock): string[] {
  const { labelNames, suffix } = block;
  const { name, divisor } = block.family;
  const lines: string[] = [];
  for (let index = 0; index < block.seriesCount; index++) {
    const id = block.firstSeries + index;
    if (present[id] === 0) continue;
    const labels = labelNames
      .map((label, at) => [label, block.labelValues[index * labelNames.length + at]!] as const)
      .filter(([, value]) => value !== '')
      .map(([label, value]) => `${label}="${escapeLabelValue(value)}"`);
    const set = labels.length === 0 ? '' : `{${labels.join(',')}}`;
    lines.push(`${name}${suffix}${set} ${numberText(seriesValue(sums[id]!, divisor))}\n`);
  }
  return lines;
}
