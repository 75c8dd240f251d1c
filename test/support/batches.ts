import { type AgentId, agentId } from '../../src/model/agent-id.ts';
import type { Family } from '../../src/model/family.ts';
import { Schema } from '../../src/model/schema.ts';
import type { AgentBatch, Exposition, Run, RunReport } from '../../src/server/exposition/exposition.ts';

/** An AgentId out of a test's own text. */
export function idOf(name: string): AgentId {
  const id = agentId(name);
  if (id === undefined) throw new Error(`'${name}' is no agent's name`);
  return id;
}

/** A family of which a test says only what it is about. */
export function familyOf(name: string, rest: Partial<Family> = {}): Family {
  return { name, type: 'gauge', help: `Help of ${name}.`, unit: '', divisor: 1, labelNames: [], ...rest };
}

/** A schema of families, each with its label values, flat, series after series. */
export function schemaOf(...families: readonly (readonly [Family, ...string[]])[]): Schema {
  const schema = new Schema();
  for (const [family, ...labelValues] of families) appendTo(schema, family, ...labelValues);
  return schema;
}

export function appendTo(schema: Schema, family: Family, ...labelValues: string[]): void {
  const width = family.labelNames.length;
  schema.append(family, width === 0 ? 1 : labelValues.length / width, labelValues);
}

/** A report; undefined is an absent series. */
export function reportOf(timeMs: number, ...sums: readonly (number | undefined)[]): RunReport {
  return {
    timeMs,
    sums: Float64Array.from(sums, (sum) => sum ?? 0),
    present: Uint8Array.from(sums, (sum) => (sum === undefined ? 0 : 1)),
  };
}

export function batchOf(agent: string, runs: readonly Run[], labels: AgentBatch['labels'] = []): AgentBatch {
  return { agent: idOf(agent), labels, runs };
}

/** The whole text of a scrape. */
export function textOf(exposition: Exposition, batches: readonly AgentBatch[], timestamps = true): string {
  return Buffer.concat([...exposition.render(batches, { timestamps })]).toString('utf8');
}
