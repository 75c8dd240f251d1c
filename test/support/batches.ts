import { type AgentId, agentId } from '../../src/model/agent-id.ts';
import { Schema } from '../../src/model/schema.ts';
import type { Labels } from '../../src/model/source.ts';
import type { AgentBatch, Exposition, Run, RunReport } from '../../src/server/exposition/exposition.ts';
import { addGroup, type LabelledFamily } from './groups.ts';

/** An AgentId out of a test's own text. */
export function idOf(name: string): AgentId {
  const id = agentId(name);
  if (id === undefined) throw new Error(`'${name}' is no agent's name`);
  return id;
}

/** A family of which a test says only what it is about. */
export function familyOf(name: string, rest: Partial<LabelledFamily> = {}): LabelledFamily {
  return { name, type: 'gauge', help: `Help of ${name}.`, divisor: 1, labelNames: [], ...rest };
}

/** A schema of families, each with its label values, flat, series after series. */
export function schemaOf(...families: readonly (readonly [LabelledFamily, ...string[]])[]): Schema {
  const schema = new Schema();
  for (const [family, ...labelValues] of families) appendTo(schema, family, ...labelValues);
  return schema;
}

export function appendTo(schema: Schema, family: LabelledFamily, ...labelValues: string[]): void {
  addGroup(schema, family, labelValues);
}

/** A report; undefined is an absent series. */
export function reportOf(timeMs: number, ...sums: readonly (number | undefined)[]): RunReport {
  return {
    timeMs,
    sums: Float64Array.from(sums, (sum) => sum ?? 0),
    present: Uint8Array.from(sums, (sum) => (sum === undefined ? 0 : 1)),
  };
}

export function batchOf(agent: string, runs: readonly Omit<Run, 'labels'>[], labels: Labels = []): AgentBatch {
  return { agent: idOf(agent), sourceName: 'host', runs: runs.map((run) => ({ ...run, labels })) };
}

/** The whole text of a scrape. */
export function textOf(exposition: Exposition, batches: readonly AgentBatch[], timestamps = true): string {
  return Buffer.concat([...exposition.render(batches, { timestamps })]).toString('utf8');
}
