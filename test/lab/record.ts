import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isReceiverFileName, parseReceiver } from '../../src/agent/spool/receiver.ts';
import { parseSegment } from '../../src/agent/spool/segment-format.ts';
import { decodeAgentMessage } from '../../src/protocol/codec.ts';
import { type DeclaredSource, SchemaTable } from '../../src/protocol/schema-table.ts';
import type { Lab } from './lab.ts';

/** Samples by series and time, in milliseconds. */
export type Stored = ReadonlyMap<string, ReadonlyMap<number, number>>;

/**
 * What agents have sampled, by their own account: the spool's files, which hold a report for a while also after it has
 * been freed. Read as often as one likes, and at any rate before an agent is started again.
 */
export class SpoolRecord {
  readonly agent: string;
  /** By time, the values by series. */
  readonly reports = new Map<number, ReadonlyMap<string, number>>();

  constructor(agent: string) {
    this.agent = agent;
  }

  read(lab: Lab, host = this.agent): void {
    const folder = lab.path(host, '/var/lib/sysmon-agent');
    const names = readdirSync(folder);
    const receivers = names.filter(isReceiverFileName).map((name) => parseReceiver(readFileSync(join(folder, name))));
    const offsetsMs = new Map(receivers.flatMap((receiver) => [...(receiver?.offsetsMs ?? [])]));
    for (const name of names.filter((file) => file.endsWith('.spool'))) {
      this.#readFile(readFileSync(join(folder, name)), offsetsMs);
    }
  }

  /** Every value of every report stands in the database, at its time and exact. The number of samples. */
  expectStored(stored: Stored): number {
    let count = 0;
    const missing: string[] = [];
    for (const [timeMs, values] of this.reports) {
      for (const [series, value] of values) {
        const found = stored.get(series)?.get(timeMs);
        if (found === value) count++;
        else missing.push(`${series} at ${new Date(timeMs).toISOString()}: ${value}, stored ${found}`);
      }
    }
    assert.equal(
      missing.length,
      0,
      `${missing.length} of ${count + missing.length} samples of '${this.agent}' are not stored, such as\n` +
        missing.slice(0, 5).join('\n'),
    );
    return count;
  }

  /** And nothing that it did not sample is in the database, between the first and the last report read. */
  expectNothingElse(stored: Stored): void {
    const times = [...this.reports.keys()].sort((a, b) => a - b);
    for (const [series, samples] of stored) {
      for (const timeMs of samples.keys()) {
        if (timeMs < times[0]! || timeMs > times.at(-1)!) continue;
        assert.ok(this.reports.get(timeMs)?.has(series), `${series} of '${this.agent}' at ${timeMs} was never sampled`);
      }
    }
  }

  #readFile(bytes: Uint8Array, offsetsMs: ReadonlyMap<number, number>): void {
    const parsed = parseSegment(bytes);
    assert.notEqual(parsed, 'foreign');
    if (parsed === 'foreign' || parsed.contents === undefined) return;
    const { epoch, source, frames } = parsed.contents;
    const offsetMs = offsetsMs.get(epoch) ?? 0;
    const table = new SchemaTable();
    table.begin({ kind: 'begin', epoch, ...source, source: source.id, offsetMs });
    for (const { payload } of frames) {
      const message = decodeAgentMessage(payload);
      if (message.kind === 'schema') table.declare(message, payload.length);
      if (message.kind !== 'report') continue;
      this.reports.set(message.timeMs + offsetMs, valuesOf(table.apply(message)));
    }
  }
}

/** `name{label="value",…}` as Prometheus names it, labels in order; absent series are not there. */
export function seriesName(labels: Readonly<Record<string, string>>): string {
  const { __name__: name = '', ...rest } = labels;
  const pairs = Object.entries(rest)
    .filter(([, value]) => value !== '')
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `${name}{${pairs.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(',')}}`;
}

function valuesOf({ schema, state }: DeclaredSource): Map<string, number> {
  const values = new Map<string, number>();
  for (const { family, suffix, labelNames, firstSeries, seriesCount, labelValues } of schema.blocks) {
    for (let index = 0; index < seriesCount; index++) {
      if (state.present[firstSeries + index] !== 1) continue;
      const labels = labelNames.map((label, column): [string, string] => {
        return [label, labelValues[index * labelNames.length + column]!];
      });
      const name = seriesName(Object.fromEntries([['__name__', family.name + suffix], ...labels]));
      values.set(name, state.sums[firstSeries + index]! / family.divisor);
    }
  }
  return values;
}
