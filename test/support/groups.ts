import type { Family } from '../../src/model/family.ts';
import type { Schema } from '../../src/model/schema.ts';
import type { SeriesGroup } from '../../src/model/series.ts';
import type { Begin, Ping } from '../../src/protocol/messages.ts';

/** A family whose series all have these labels, as most have. */
export interface LabelledFamily extends Family {
  readonly labelNames: readonly string[];
}

/** Series of such a family. Their label values are flat, series after series. */
export function groupOf(family: LabelledFamily, labelValues: readonly string[] = [], suffix = ''): SeriesGroup {
  const { name, type, help, divisor, labelNames } = family;
  const width = labelNames.length;
  const seriesCount = width === 0 ? 1 : labelValues.length / width;
  return { family: { name, type, help, divisor }, suffix, labelNames, seriesCount, labelValues };
}

export function addGroup(schema: Schema, family: LabelledFamily, labelValues: readonly string[] = []): void {
  schema.add(groupOf(family, labelValues));
}

/** A begin of the host, but for what is given. */
export function beginOf(fields: Partial<Begin> = {}): Begin {
  const host = { source: 0, name: 'host', intervalMs: 5000, labels: [] };
  return { kind: 'begin', epoch: 1, offsetMs: 0, ...host, ...fields };
}

export function pingOf(nonce: number): Ping {
  return { kind: 'ping', nonce, spoolReports: 0, droppedReports: 0 };
}
