// /sys/class/powercap/ZONE: name (`package-0`, `core`, `dram`) and energy_uj, in millionths of a joule, which root alone may
// read since Linux 5.10. A control type (`intel-rapl`) is a folder beside those of its zones and has no name; a zone of dtpm
// has a power, but no energy.
// https://www.kernel.org/doc/html/latest/power/powercap/powercap.html
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  type SampledFamily,
  type Samples,
  switchOption,
} from './collector.ts';

const zoneLabel = switchOption(
  'rapl.enable-zone-label',
  'false',
  'Give one family for all zones, node_rapl_joules_total, with the zone as a label.',
);

export const rapl: CollectorRow = {
  name: 'rapl',
  enabled: 'by default',
  description: 'energy that CPUs and memory have used, from /sys/class/powercap (for root alone since Linux 5.10)',
  options: [zoneLabel],
  lane: 'slow',
  create: (context) => new Rapl(context.option(zoneLabel)),
};

const divisor = 1_000_000;
const allZones = counter('node_rapl_joules_total', 'Energy that a zone has used, in joules.', {
  labels: ['index', 'path', 'rapl_zone'],
  divisor,
});

const folder = 'sys/class/powercap';

class Rapl implements Collector {
  readonly #hasZoneLabel: boolean;
  /** By zone. */
  readonly #families = new Map<string, SampledFamily>();

  constructor(hasZoneLabel: boolean) {
    this.#hasZoneLabel = hasZoneLabel;
  }

  collect(host: Host, out: Samples): void {
    const counts = new Map<string, number>();
    let zones = 0;
    for (const zone of host.devices(folder)) {
      const named = host.rareText(`${folder}/${zone}/name`);
      if (named === undefined || named === '') continue;
      // Some names end with an index; others, such as `dram`, are there several times.
      const [, name = named, number] = /^([^-]+)-(\d{1,9})$/.exec(named) ?? [];
      const index = number === undefined ? (counts.get(name) ?? 0) : Number(number);
      counts.set(name, index + 1);
      const energy = host.privateValue(`${folder}/${zone}/energy_uj`, parseEnergy);
      if (energy === undefined) continue;
      zones++;
      const path = host.path(`${folder}/${zone}`);
      if (this.#hasZoneLabel) out.sampleLabels(allZones, energy, [String(index), path, name]);
      else out.sample(this.#familyOf(name), energy, String(index), path);
    }
    if (zones === 0) throw new NoDataError(host.path(folder), ' has no zone whose energy may be read');
  }

  #familyOf(zone: string): SampledFamily {
    let family = this.#families.get(zone);
    if (family === undefined) {
      // As node_exporter makes a part of a name of it.
      const name = `node_rapl_${zone.replaceAll(/_*[^0-9A-Za-z_]+_*/g, '_')}_joules_total`;
      family = counter(name, `Energy that the zone ${zone} has used, in joules.`, {
        labels: ['index', 'path'],
        divisor,
      });
      this.#families.set(zone, family);
    }
    return family;
  }
}

function parseEnergy(text: KernelText): number {
  return text.unsigned('the energy');
}
