import { counter, gauge } from '../../src/agent/collect/collectors/collector.ts';
import { Recorder } from '../../src/agent/collect/recorder.ts';
import { seriesValue } from '../../src/model/family.ts';
import type { Recording } from '../../src/model/recording.ts';
import type { Schema } from '../../src/model/schema.ts';
import type { LabelledFamily } from '../support/groups.ts';
import type { Random } from '../support/random.ts';

/**
 * What an agent measures: a few series of every kind, coming and going, with the values that are hard to carry. It
 * belongs to the host, so that its counters go on when the agent is restarted, or begin again when the host is.
 */
export class SyntheticHost {
  readonly #random: Random;
  readonly #mixed: LabelledFamily;
  #ticks = 0;
  #counts: number[] = [];
  #devices: string[] = [];
  #deviceNumber = 0;

  constructor(random: Random) {
    this.#random = random;
    // The same family has another divisor on another host, as an agent of another version may have it.
    this.#mixed = gauge('sim_mixed', 'Whatever a double can be.', {
      labels: ['kind'],
      divisor: random.pick([1, 1, 1000]),
    });
    this.#addDevices(random.whole(1, 4));
    this.reboot();
  }

  /** Counters begin again. */
  reboot(): void {
    this.#counts = [0, 0, 0];
  }

  /** A recorder of one run of the agent. Each call of what it returns is one instant. */
  sampler(): () => Recording {
    const counters = { samplesDuplicate: 0, samplesRefused: 0, labelsCut: 0, schemasBegun: 0 };
    const recorder = new Recorder({ counters, warn: (text) => failed(`the recorder warns: ${text}`) });
    const parts = [recorder.part('cpu'), recorder.part('devices'), recorder.part('mixed')];
    return () => {
      this.#pass();
      recorder.begin();
      recorder.enter(parts[0]!);
      recorder.sample(ticksTotal, this.#ticks);
      for (const [at, count] of this.#counts.entries()) recorder.sample(cpuSeconds, count, String(at), modes[at]!);
      recorder.leave();
      recorder.enter(parts[1]!);
      for (const device of this.#devices) {
        recorder.sample(deviceBytes, this.#counts[0]! * 4096 + device.length, device);
        // Now and then one has no answer: absent at this instant, and there again at the next.
        if (!this.#random.chance(0.05)) recorder.sample(deviceUp, this.#random.whole(0, 1), device);
      }
      recorder.leave();
      recorder.enter(parts[2]!);
      for (const kind of kinds) recorder.sample(this.#mixed, this.#random.pick(hardValues), kind);
      if (this.#random.chance(0.05)) recorder.abandon();
      else recorder.leave();
      return recorder.end();
    };
  }

  #pass(): void {
    const random = this.#random;
    this.#ticks++;
    for (let at = 0; at < this.#counts.length; at++) {
      // Mostly small steps; a jump; a counter that starts again while its host is up.
      const step = random.chance(0.02) ? 2 ** 40 : random.whole(0, 500);
      this.#counts[at] = random.chance(0.005) ? 0 : this.#counts[at]! + step;
    }
    if (random.chance(0.02)) this.#addDevices(1);
    if (random.chance(0.02) && this.#devices.length > 0)
      this.#devices.splice(random.whole(0, this.#devices.length - 1), 1);
    if (random.chance(0.003)) {
      this.#devices = [];
      this.#addDevices(random.whole(1, 6));
    }
    if (random.chance(0.02)) this.#devices = random.shuffled(this.#devices);
  }

  #addDevices(count: number): void {
    for (let at = 0; at < count && this.#devices.length < devicesMax; at++) {
      this.#devices.push(`${this.#random.pick(deviceNames)}${this.#deviceNumber++}`);
    }
  }
}

const ticksTotal = counter('sim_ticks_total', 'Instants since the start of this history.');
const cpuSeconds = counter('sim_cpu_seconds_total', 'Time spent.', {
  labels: ['cpu', 'mode'],
  divisor: 100,
});
const deviceBytes = counter('sim_device_bytes_total', 'Bytes of a device\\line "two"\nof its help.', {
  labels: ['device'],
});
const deviceUp = gauge('sim_device_up', 'Whether the device answers.', { labels: ['device'] });

const modes = ['user', 'system', 'idle'];
const kinds = ['a', 'b'];
const devicesMax = 8;
const deviceNames = ['eth', 'sd', 'quote"', 'back\\slash', 'line\n', '{brace} ', 'größe-', '🙂 '];
const hardValues = [
  ...[0, -0, 1, -1, 0.1, 1 / 3, 2 ** 53, 2 ** 53 + 2, 2 ** 64, -(2 ** 31), 1e-9, 1e300, 5e-324, Number.MAX_VALUE],
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 123456789.125, 1e15, 1e16, 1e21, 1e-7],
];

/** What one instant said: the series that were present, by the names that Prometheus gives them. */
export type Instant = ReadonlyMap<string, number>;

/** The values of a recording under the names of the series in Prometheus. */
export class SeriesNames {
  readonly #agent: string;
  readonly #labels: readonly (readonly [string, string])[];
  readonly #names = new WeakMap<Schema, { readonly name: string; readonly divisor: number }[]>();

  constructor(agent: string, labels: readonly (readonly [string, string])[]) {
    this.#agent = agent;
    this.#labels = labels;
  }

  instant({ schema, sums, present }: Recording): Instant {
    const names = this.#namesOf(schema);
    const values = new Map<string, number>();
    for (let at = 0; at < sums.length; at++) {
      const { name, divisor } = names[at]!;
      // The sign of zero is not kept: -0 + 0 is 0.
      if (present[at] === 1) values.set(name, seriesValue(sums[at]!, divisor) + 0);
    }
    return values;
  }

  #namesOf(schema: Schema): { readonly name: string; readonly divisor: number }[] {
    const names = this.#names.get(schema) ?? [];
    this.#names.set(schema, names);
    for (const { family, suffix, labelNames, firstSeries, seriesCount, labelValues } of schema.blocks) {
      const width = labelNames.length;
      for (let at = Math.max(0, names.length - firstSeries); at < seriesCount; at++) {
        const own = labelNames.map((label, i) => [label, labelValues[at * width + i]!] as const);
        const foreign = this.#labels.filter(([label]) => !labelNames.includes(label));
        const name = seriesName(family.name + suffix, [['agent', this.#agent], ...own, ...foreign]);
        names.push({ name, divisor: family.divisor });
      }
    }
    return names;
  }
}

/** One text for one series, whatever order its labels come in. An empty value is no label. */
export function seriesName(metric: string, labels: readonly (readonly [string, string])[]): string {
  const sorted = labels.filter(([, value]) => value !== '').sort(([a], [b]) => (a < b ? -1 : 1));
  return `${metric}${JSON.stringify(sorted)}`;
}

function failed(words: string): never {
  throw new Error(words);
}
