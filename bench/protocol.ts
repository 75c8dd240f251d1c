import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Sums } from '../src/model/report.ts';
import type { SeriesGroup } from '../src/model/series.ts';
import { decodeAgentMessage, encodeMessage, encodeSchema } from '../src/protocol/codec.ts';
import { encodeDelta, encodeKey } from '../src/protocol/delta.ts';
import { frameHeaderBytes } from '../src/protocol/frame.ts';
import { limits } from '../src/protocol/limits.ts';
import { SchemaTable } from '../src/protocol/schema-table.ts';
import { beginOf, groupOf } from '../test/support/groups.ts';
import type { BenchRow } from './row.ts';

/**
 * What a report costs on the line and in the processor, on series of this very host: some 800 out of /proc, read every
 * few seconds for a while, then replayed many times over. Once as the host is, and once made to change as a busy one does.
 */
export async function rows(): Promise<BenchRow[]> {
  const intervalMs = Number(process.env['SYSMON_BENCH_INTERVAL_MS'] ?? 5000);
  const recording = await record({ intervalMs, reportCount: Number(process.env['SYSMON_BENCH_REPORTS'] ?? 7) });
  const seconds = intervalMs / 1000;
  return [...rowsOf(recording, `this host at ${seconds} s`), ...rowsOf(busy(recording), 'as on a busy host')];
}

function rowsOf(recording: Recording, source: string): BenchRow[] {
  const frames = encoded(recording);
  const seriesCount = recording.reports[0]!.sums.length;
  const { perSample, schemaPerSeries } = lineBytes(frames, seriesCount);
  const encodeUs = medianUs(() => encodeAll(recording), recording.reports.length - 1);
  const decodeUs = medianUs(decodeAll(frames), frames.reports.length);
  const series = `${seriesCount} series, ${Math.round(100 * shareChanged(recording))} % changing, ${source}`;
  const schema = `schema once: ${Math.round(schemaPerSeries)} a series`;
  return [
    {
      what: `line, bytes a sample: ${series}`,
      measured: `${perSample.toFixed(2)} (${schema})`,
      target: '<= 1.0',
      ok: perSample <= 1,
    },
    {
      what: `encode a report: ${series}`,
      measured: `${encodeUs.toFixed(1)} us`,
      target: '<= 40 us',
      ok: encodeUs <= 40,
    },
    {
      what: `guard, decode, apply a report: ${series}`,
      measured: `${decodeUs.toFixed(1)} us`,
      target: '<= 20 us',
      ok: decodeUs <= 20,
    },
  ];
}

interface Recording {
  readonly families: readonly SeriesGroup[];
  readonly reports: readonly Sums[];
}

/** Series from /proc, those of the first reading; what a later one lacks is absent there. */
async function record(options: { intervalMs: number; reportCount: number }): Promise<Recording> {
  const readings: Map<string, number>[] = [];
  for (let i = 0; i < options.reportCount; i++) {
    if (i > 0) await delay(options.intervalMs);
    readings.push(readProc());
  }
  const names = [...readings[0]!.keys()].sort();
  return { families: declarations(names), reports: readings.map((reading) => sumsOf(names, reading)) };
}

/** The same series; in each report every seventh goes up besides, by tens, thousands or hundreds of thousands in turn. */
function busy({ families, reports }: Recording): Recording {
  const raised = reports.map(({ sums, present }, at) => ({
    sums: sums.map(
      (sum, i) => sum + (present[i] === 0 || i % 7 !== 0 ? 0 : at * (((i * 37) % 90) + 10) ** (1 + (i % 3))),
    ),
    present,
  }));
  return { families, reports: raised };
}

function sumsOf(names: readonly string[], reading: ReadonlyMap<string, number>): Sums {
  return {
    sums: Float64Array.from(names, (name) => reading.get(name) ?? 0),
    present: Uint8Array.from(names, (name) => (reading.has(name) ? 1 : 0)),
  };
}

/** `family|labels` to the kernel's whole number. */
function readProc(): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of linesOf('stat')) {
    const [name = '', ...fields] = line.split(/\s+/);
    if (name === 'intr') values.set('intr|', Number(fields[0]));
    else
      for (const [i, field] of fields.entries())
        values.set(`stat_${name.replace(/\d+$/, '')}|${name} ${i}`, Number(field));
  }
  for (const file of ['meminfo', 'vmstat']) {
    for (const line of linesOf(file)) {
      const [name = '', value] = line.split(/:?\s+/);
      values.set(`${file}_${name.replaceAll(/\W/g, '_')}|`, Number(value) * (file === 'meminfo' ? 1024 : 1));
    }
  }
  for (const line of linesOf('net/dev')) {
    const colon = line.lastIndexOf(':');
    if (colon < 0) continue;
    const device = line.slice(0, colon).trim();
    for (const [i, field] of line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .entries()) {
      values.set(`net_dev_${i}|${device}`, Number(field));
    }
  }
  for (const file of ['interrupts', 'softirqs']) {
    for (const line of linesOf(file)) {
      const [name = '', ...fields] = line.trim().split(/\s+/);
      for (const [cpu, field] of fields.entries()) {
        if (name.endsWith(':') && /^\d+$/.test(field)) values.set(`${file}|${name.slice(0, -1)} ${cpu}`, Number(field));
      }
    }
  }
  for (const file of ['net/snmp', 'net/netstat']) {
    const lines = linesOf(file);
    for (let i = 0; i + 1 < lines.length; i += 2) {
      const names = lines[i]!.split(/\s+/);
      for (const [at, field] of lines[i + 1]!.split(/\s+/).entries()) {
        if (at > 0) values.set(`netstat_${names[0]!.slice(0, -1)}_${names[at]}|`, Number(field));
      }
    }
  }
  for (const line of linesOf('diskstats')) {
    const [, , device = '', ...fields] = line.trim().split(/\s+/);
    for (const [i, field] of fields.entries()) values.set(`disk_${i}|${device}`, Number(field));
  }
  for (const [i, field] of linesOf('loadavg')[0]!.split(' ').entries()) {
    if (i < 3) values.set(`load${i}|`, Math.round(Number(field) * 100));
  }
  return values;
}

function linesOf(file: string): string[] {
  return readFileSync(`/proc/${file}`, 'utf8').trimEnd().split('\n');
}

function declarations(names: readonly string[]): SeriesGroup[] {
  const labelValues = new Map<string, string[]>();
  for (const name of names) {
    const [family = '', label = ''] = name.split('|');
    labelValues.set(family, [...(labelValues.get(family) ?? []), label]);
  }
  return [...labelValues].map(([name, values]) => {
    const labelNames = values.length === 1 && values[0] === '' ? [] : ['label'];
    const help = `Help of ${name}, about as long as such texts are.`;
    const family = { name: `node_${name}_total`, type: 'counter' as const, help, divisor: 1, labelNames };
    return groupOf(family, labelNames.length === 0 ? [] : values);
  });
}

interface Frames {
  readonly schema: readonly Uint8Array[];
  readonly key: Uint8Array;
  readonly reports: readonly Uint8Array[];
}

function encoded({ families, reports }: Recording): Frames {
  const [first, ...rest] = reports;
  return {
    schema: encodeSchema(0, families),
    key: encodeReport(1, encodeKey(first!), true),
    reports: rest.map((report, i) => encodeReport(2 + i, encodeDelta(reports[i]!, report), false)),
  };
}

function encodeReport(seq: number, pairs: (number | null)[], key: boolean): Uint8Array {
  return encodeMessage({ kind: 'report', key, source: 0, seq, timeMs: 1.764e12 + 5000 * seq, pairs });
}

function lineBytes(frames: Frames, seriesCount: number): { perSample: number; schemaPerSeries: number } {
  const sum = (payloads: readonly Uint8Array[]) =>
    payloads.reduce((bytes, p) => bytes + frameHeaderBytes + p.length, 0);
  const reportBytes = sum(frames.reports) / frames.reports.length;
  const cycleBytes = sum([frames.key]) + (limits.reportsPerKeyMax - 1) * reportBytes;
  return {
    perSample: cycleBytes / limits.reportsPerKeyMax / seriesCount,
    schemaPerSeries: sum(frames.schema) / seriesCount,
  };
}

/** The share of series that change from one report to the next. */
function shareChanged({ reports }: Recording): number {
  const pairs = reports.slice(1).map((report, i) => encodeDelta(reports[i]!, report).length / 2);
  return pairs.reduce((sum, count) => sum + count, 0) / pairs.length / reports[0]!.sums.length;
}

function encodeAll({ reports }: Recording): undefined {
  for (let i = 1; i < reports.length; i++) encodeReport(i, encodeDelta(reports[i - 1]!, reports[i]!), false);
}

/** The reports after a key, as a server reads them; the key is not counted. */
function decodeAll(frames: Frames): () => number {
  return () => {
    const table = new SchemaTable();
    table.begin(beginOf());
    for (const payload of [...frames.schema, frames.key]) receive(table, payload);
    const startMs = performance.now();
    for (const payload of frames.reports) receive(table, payload);
    return performance.now() - startMs;
  };
}

function receive(table: SchemaTable, payload: Uint8Array): void {
  const message = decodeAgentMessage(payload);
  if (message.kind === 'schema') table.declare(message, payload.length);
  else if (message.kind === 'report') table.apply(message);
}

/** Microseconds a report: the median of many rounds. A round may say itself how many milliseconds of it count. */
function medianUs(round: () => number | undefined, reportCount: number): number {
  const times: number[] = [];
  for (let i = 0; i < roundCount; i++) {
    const startMs = performance.now();
    const ownMs = round();
    times.push(((ownMs ?? performance.now() - startMs) / reportCount) * 1000);
  }
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

const roundCount = 500;
