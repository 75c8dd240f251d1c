import assert from 'node:assert/strict';
import { seriesValue } from '../../src/model/family.ts';
import type { Schema, SchemaBlock } from '../../src/model/schema.ts';
import type { Source } from '../../src/model/source.ts';
import { decodeAgentMessage } from '../../src/protocol/codec.ts';
import { FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { Hello, ReportMessage } from '../../src/protocol/messages.ts';
import { type DeclaredSource, SchemaTable } from '../../src/protocol/schema-table.ts';

/** Series → time in ms → value: what is in a database, or should be. */
export type Samples = Map<string, Map<number, number>>;

/** The same text for the same series, however its labels are ordered. A label without a value is no label. */
export function seriesKey(name: string, labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels)
    .filter(([, value]) => value !== '')
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return `${name}{${pairs.join(',')}}`;
}

interface Report {
  /** As Prometheus should have it: the epoch's offset is added. */
  readonly timeMs: number;
  readonly keys: readonly string[];
  /** NaN is a value; `present` says where there is none. */
  readonly values: Float64Array;
  readonly present: Uint8Array;
}

/**
 * The agents' own record: every report that they have sent, decoded from the bytes of their connections. What is sent
 * again is held against what was sent before.
 */
export class AgentsRecord {
  /** Agent → epoch → number → report. */
  readonly #agents = new Map<string, Map<number, Map<number, Report>>>();
  readonly #problems: string[] = [];
  /** Reports that were sent more than once. */
  sentAgain = 0;

  /** What reads the bytes of one connection. */
  connection(): (chunk: Uint8Array) => void {
    const decoder = new FrameDecoder({ payloadBytesMax: limits.reportFrameBytesMax });
    const reader = new ConnectionReader((read) => this.#add(read));
    let isBroken = false;
    return (chunk) => {
      if (isBroken) return;
      try {
        for (const payload of decoder.push(chunk)) reader.read(payload);
      } catch (error) {
        isBroken = true;
        this.#problems.push(String(error));
      }
    };
  }

  get agents(): string[] {
    return [...this.#agents.keys()];
  }

  epochCount(agent: string): number {
    return this.#agents.get(agent)?.size ?? 0;
  }

  reportCount(agent: string): number {
    let count = 0;
    for (const reports of this.#agents.get(agent)?.values() ?? []) count += reports.size;
    return count;
  }

  /** The times of all reports of an agent, in the order of its epochs. */
  times(agent: string): number[] {
    return [...(this.#agents.get(agent)?.values() ?? [])].flatMap((reports) =>
      [...reports].sort(([a], [b]) => a - b).map(([, { timeMs }]) => timeMs),
    );
  }

  /** Throws where an agent has broken its word: a number that is missing, a report that is not as it was. */
  check(): void {
    assert.deepEqual(this.#problems, []);
    for (const [agent, epochs] of this.#agents) {
      for (const [epoch, reports] of epochs) {
        const numbers = [...reports.keys()].sort((a, b) => a - b);
        const wanted = Array.from(numbers, (_, at) => at + 1);
        assert.deepEqual(numbers, wanted, `agent '${agent}', epoch ${epoch}: reports 1 to ${numbers.length}`);
      }
      const times = this.times(agent);
      for (const [at, timeMs] of times.entries()) {
        assert.ok(at === 0 || timeMs > times[at - 1]!, `agent '${agent}': ${timeMs} after ${times[at - 1]}`);
      }
    }
    for (const [series, values] of this.samples()) {
      if (!/^sysmon_agent_(reports_dropped|samples_refused|samples_duplicate)_total/.test(series)) continue;
      for (const value of values.values()) assert.equal(value, 0, series);
    }
  }

  samples(): Samples {
    const samples: Samples = new Map();
    for (const epochs of this.#agents.values()) {
      for (const reports of epochs.values()) {
        for (const { timeMs, keys, values, present } of reports.values()) {
          for (const [at, value] of values.entries()) {
            if (present[at] === 0) continue;
            made(samples, keys[at]!, () => new Map<number, number>()).set(timeMs, value);
          }
        }
      }
    }
    return samples;
  }

  #add({ hello, epoch, source, message, series }: ReadReport): void {
    const epochs = made(this.#agents, hello.agentName, () => new Map<number, Map<number, Report>>());
    const reports = made(epochs, epoch, () => new Map<number, Report>());
    const { sums, present } = source.state;
    const count = source.schema.seriesCount;
    const report: Report = {
      timeMs: message.timeMs + source.offsetMs,
      keys: series.keys,
      values: Float64Array.from({ length: count }, (_, at) => seriesValue(sums[at]!, series.divisors[at]!)),
      present: present.slice(0, count),
    };
    const before = reports.get(message.seq);
    if (before === undefined) {
      reports.set(message.seq, report);
      return;
    }
    this.sentAgain++;
    if (!sameReport(before, report)) {
      this.#problems.push(`agent '${hello.agentName}': report ${message.seq} is not as it was when it was sent first`);
    }
  }
}

interface ReadReport {
  readonly hello: Hello;
  readonly epoch: number;
  readonly source: DeclaredSource;
  readonly message: ReportMessage;
  readonly series: ReadSeries;
}

interface ReadSeries {
  readonly keys: string[];
  readonly divisors: number[];
}

/** What one connection has said, message after message. */
class ConnectionReader {
  readonly #onReport: (read: ReadReport) => void;
  readonly #table = new SchemaTable();
  readonly #series = new WeakMap<Schema, ReadSeries>();
  #hello: Hello | undefined;

  constructor(onReport: (read: ReadReport) => void) {
    this.#onReport = onReport;
  }

  read(payload: Uint8Array): void {
    const message = decodeAgentMessage(payload);
    switch (message.kind) {
      case 'hello':
        this.#hello = message;
        return;
      case 'begin':
        this.#table.begin(message);
        return;
      case 'schema':
        this.#table.declare(message, payload.length);
        return;
      case 'report': {
        const hello = this.#hello;
        if (hello === undefined) throw new Error('a report before the hello');
        const source = this.#table.apply(message);
        const series = this.#seriesSoFar(hello, source);
        return this.#onReport({ hello, epoch: this.#table.epoch!, source, message, series });
      }
      case 'ping':
      case 'unknown':
        return;
    }
  }

  /** The same arrays as before as long as the schema only grows. */
  #seriesSoFar(hello: Hello, source: DeclaredSource): ReadSeries {
    const { schema } = source;
    const series = made(this.#series, schema, (): ReadSeries => ({ keys: [], divisors: [] }));
    for (const block of schema.blocks) {
      if (block.firstSeries < series.keys.length) continue;
      for (let at = 0; at < block.seriesCount; at++) {
        series.keys.push(keyOf(hello, source, block, at));
        series.divisors.push(block.family.divisor);
      }
    }
    return series;
  }
}

function keyOf(hello: Hello, source: Source, block: SchemaBlock, at: number): string {
  const { family, suffix, labelNames, labelValues } = block;
  const width = labelNames.length;
  const own = labelNames.map((name, label) => [name, labelValues[at * width + label]!] as const);
  return seriesKey(family.name + suffix, {
    ...Object.fromEntries(source.labels),
    ...Object.fromEntries(own),
    agent: hello.agentName,
    ...(source.id === 0 ? {} : { source: source.name }),
  });
}

function sameReport(a: Report, b: Report): boolean {
  if (a.timeMs !== b.timeMs) return false;
  const present = (report: Report) =>
    new Map([...report.values].flatMap((value, at) => (report.present[at] === 0 ? [] : [[report.keys[at]!, value]])));
  const [ours, theirs] = [present(a), present(b)];
  return ours.size === theirs.size && [...ours].every(([key, value]) => Object.is(theirs.get(key), value));
}

/** What the map has for the key, made if there was nothing. */
function made<K, V>(map: Pick<Map<K, V>, 'get'> & { set(key: K, value: V): unknown }, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const value = make();
  map.set(key, value);
  return value;
}

/**
 * Throws unless each series has exactly these samples, at these times, with these values. A sample for which `mayLack` is
 * true may be missing. Returns how many of those are.
 */
export function assertSameSamples(
  actual: Samples,
  expected: Samples,
  where: string,
  mayLack: (timeMs: number) => boolean = () => false,
): number {
  const problems: string[] = [];
  let excused = 0;
  let missing = 0;
  let wrong = 0;
  let extra = 0;
  for (const [series, points] of expected) {
    const got = actual.get(series);
    for (const [timeMs, value] of points) {
      const found = got?.get(timeMs);
      if (found === undefined && mayLack(timeMs)) excused++;
      else if (found === undefined) {
        missing++;
        problems.push(`missing: ${series} at ${new Date(timeMs).toISOString()}`);
      } else if (found !== value && !(Number.isNaN(found) && Number.isNaN(value))) {
        wrong++;
        problems.push(`wrong: ${series} at ${new Date(timeMs).toISOString()} is ${found}, not ${value}`);
      }
    }
  }
  for (const [series, points] of actual) {
    for (const timeMs of points.keys()) {
      if (expected.get(series)?.has(timeMs) === true) continue;
      extra++;
      problems.push(`not of any agent: ${series} at ${new Date(timeMs).toISOString()}`);
    }
  }
  const head = `${where}: of ${sampleCount(expected)} samples ${missing} missing, ${wrong} wrong, ${extra} of no agent`;
  assert.ok(problems.length === 0, `${head}\n${problems.slice(0, 20).join('\n')}`);
  return excused;
}

export function sampleCount(samples: Samples): number {
  let count = 0;
  for (const points of samples.values()) count += points.size;
  return count;
}
