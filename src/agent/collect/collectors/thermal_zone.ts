// /sys/class/thermal: thermal_zoneN/{type,temp}, where temp is in thousandths of a degree, and
// cooling_deviceN/{type,cur_state,max_state}. A driver may fail to read its sensor, or take seconds for it; cur_state of
// intel_powerclamp is -1 while it idles nothing.
// https://www.kernel.org/doc/html/latest/driver-api/thermal/sysfs-api.html
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const thermal_zone: CollectorRow = {
  name: 'thermal_zone',
  enabled: 'by default',
  description: 'temperatures of thermal zones and states of cooling devices, from /sys/class/thermal',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new ThermalZone(),
};

const temperature = gauge('node_thermal_zone_temp', 'Temperature of a thermal zone, in degrees Celsius.', {
  labels: ['zone', 'type'],
  divisor: 1000,
});
const currentState = gauge(
  'node_cooling_device_cur_state',
  'How much a cooling device cools at present, in its steps.',
  {
    labels: ['name', 'type'],
  },
);
const maxState = gauge('node_cooling_device_max_state', 'How much a cooling device can cool, in its steps.', {
  labels: ['name', 'type'],
});

const folder = 'sys/class/thermal';

class ThermalZone implements Collector {
  collect(host: Host, out: Samples): void {
    const zones = host.devicesIfThere(folder, /^thermal_zone\d+$/);
    const devices = host.devicesIfThere(folder, /^cooling_device\d+$/);
    if (zones.length + devices.length === 0) throw new NoDataError(host.path(folder), ' has no such device');
    for (const name of zones) {
      const type = host.rareValue(`${folder}/${name}/type`, parseType);
      const temp = host.value(`${folder}/${name}/temp`, parseNumber);
      // Upstream gave a zone that cannot be read as 0 degrees.
      if (type !== undefined && temp !== undefined) {
        out.sample(temperature, temp, name.slice('thermal_zone'.length), type);
      }
    }
    for (const name of devices) {
      const type = host.rareValue(`${folder}/${name}/type`, parseType);
      const current = host.value(`${folder}/${name}/cur_state`, parseNumber);
      const max = host.rareValue(`${folder}/${name}/max_state`, parseNumber);
      const number = name.slice('cooling_device'.length);
      if (type === undefined) continue;
      if (current !== undefined) out.sample(currentState, current, number, type);
      if (max !== undefined) out.sample(maxState, max, number, type);
    }
  }
}

function parseType(text: KernelText): string {
  return text.rest();
}

function parseNumber(text: KernelText): number {
  return text.signed('the number');
}
