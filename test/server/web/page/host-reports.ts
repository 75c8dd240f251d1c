import { Schema } from '../../../../src/model/schema.ts';
import type { StampedReport } from '../../../../src/server/delivery/window.ts';
import { Reading } from '../../../../src/server/web/page/reading.ts';
import { addGroup } from '../../../support/groups.ts';
import { sumsOf } from '../../delivery/report-maker.ts';

/** Values by series as Prometheus writes them: `node_load1`, `node_cpu_seconds_total{cpu="0",mode="idle"}`. */
export type Metrics = Readonly<Record<string, number>>;

/** A schema with these series, each a gauge. */
export function schemaOf(metrics: Metrics): Schema {
  const schema = new Schema();
  for (const text of Object.keys(metrics)) {
    const [, name, labelText = ''] = /^([^{]+)(?:\{(.*)\})?$/.exec(text) ?? [];
    const labels = [...labelText.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => [label!, value!] as const);
    const family = {
      name: name!,
      type: 'gauge',
      help: 'A value.',
      divisor: 1,
      labelNames: labels.map(([label]) => label),
    } as const;
    addGroup(
      schema,
      schema.family(name!) === undefined ? family : { ...family, ...schema.family(name!) },
      labels.map(([, value]) => value),
    );
  }
  return schema;
}

export function reportOf(metrics: Metrics, timeMs: number): StampedReport {
  return { ...sumsOf(Object.values(metrics)), schema: schemaOf(metrics), seq: 1, timeMs };
}

export const readingOf = (metrics: Metrics, timeMs = 0): Reading => new Reading(reportOf(metrics, timeMs));
