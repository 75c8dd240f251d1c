// /sys/class/power_supply/SUPPLY: one attribute a file; voltages, currents, charges, energies and powers in millionths,
// temperatures in tenths of a degree.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  gauge,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
} from './collector.ts';

const ignored = patternOption(
  'powersupply.ignored-supplies',
  '^$',
  'Power supplies to leave out, by the name of their folder.',
);

export const powersupplyclass: CollectorRow = {
  name: 'powersupplyclass',
  enabled: 'by default',
  description: 'batteries and other power supplies, from /sys/class/power_supply',
  options: [ignored],
  lane: 'slow',
  successWithoutData: 1,
  create: (context) => new PowerSupplyClass(new NameFilter(undefined, context.option(ignored))),
};

const folder = 'sys/class/power_supply';
const millionths = 1_000_000;

/** File → family. */
const families: ReadonlyMap<string, SampledFamily> = new Map([
  ...[
    one('authentic', 'authentic', 1, 'Whether the battery is genuine: 1, or 0.'),
    one('calibrate', 'calibrate', 1, 'Whether the battery is being calibrated: 1, or 0.'),
    one('capacity', 'capacity', 1, 'Charge of the battery, in percent.'),
    one('capacity_alert_max', 'capacity_alert_max', 1, 'Charge above which the battery raises an alert, in percent.'),
    one('capacity_alert_min', 'capacity_alert_min', 1, 'Charge below which the battery raises an alert, in percent.'),
    one('cycle_count', 'cyclecount', 1, 'How often the battery was charged and discharged.'),
    one('online', 'online', 1, 'Whether the supply gives power: 1, 2 where its voltage can be set, or 0.'),
    one('present', 'present', 1, 'Whether the battery is there: 1, or 0.'),
    one('time_to_empty_now', 'time_to_empty_seconds', 1, 'Time until the battery is empty, in seconds.'),
    one('time_to_full_now', 'time_to_full_seconds', 1, 'Time until the battery is full, in seconds.'),
  ],
  ...[
    one(
      'charge_control_limit',
      'charge_control_limit',
      millionths,
      'Limit of the charging current, as the driver counts it, in millionths.',
    ),
    one(
      'charge_control_limit_max',
      'charge_control_limit_max',
      millionths,
      'Largest value of node_power_supply_charge_control_limit.',
    ),
    one(
      'charge_counter',
      'charge_counter',
      millionths,
      'Charge that went into the battery and out of it, in ampere hours.',
    ),
    one('charge_empty', 'charge_empty', millionths, 'Charge at which the battery counts as empty, in ampere hours.'),
    one(
      'charge_empty_design',
      'charge_empty_design',
      millionths,
      'Charge at which a new battery counts as empty, in ampere hours.',
    ),
    one('charge_full', 'charge_full', millionths, 'Charge of the full battery, in ampere hours.'),
    one(
      'charge_full_design',
      'charge_full_design',
      millionths,
      'Charge of the full battery when it was new, in ampere hours.',
    ),
    one('charge_now', 'charge_ampere', millionths, 'Charge of the battery, in ampere hours.'),
    one('charge_term_current', 'charge_term_current', millionths, 'Current at which charging ends, in amperes.'),
    one('constant_charge_current', 'constant_charge_current', millionths, 'Charging current, in amperes.'),
    one(
      'constant_charge_current_max',
      'constant_charge_current_max',
      millionths,
      'Largest charging current, in amperes.',
    ),
    one('constant_charge_voltage', 'constant_charge_voltage', millionths, 'Charging voltage, in volts.'),
    one(
      'constant_charge_voltage_max',
      'constant_charge_voltage_max',
      millionths,
      'Largest charging voltage, in volts.',
    ),
    one('current_boot', 'current_boot', millionths, 'Current when the host was started, in amperes.'),
    one('current_max', 'current_max', millionths, 'Largest current, in amperes.'),
    one('current_now', 'current_ampere', millionths, 'Current, in amperes; negative where the battery gives it.'),
    one('energy_empty', 'energy_empty', millionths, 'Energy at which the battery counts as empty, in watt hours.'),
    one(
      'energy_empty_design',
      'energy_empty_design',
      millionths,
      'Energy at which a new battery counts as empty, in watt hours.',
    ),
    one('energy_full', 'energy_full', millionths, 'Energy of the full battery, in watt hours.'),
    one(
      'energy_full_design',
      'energy_full_design',
      millionths,
      'Energy of the full battery when it was new, in watt hours.',
    ),
    one('energy_now', 'energy_watthour', millionths, 'Energy of the battery, in watt hours.'),
    one('input_current_limit', 'input_current_limit', millionths, 'Limit of the current that is taken, in amperes.'),
    one('power_now', 'power_watt', millionths, 'Power, in watts.'),
    one(
      'precharge_current',
      'precharge_current',
      millionths,
      'Current with which an empty battery is charged at first, in amperes.',
    ),
    one('voltage_boot', 'voltage_boot', millionths, 'Voltage when the host was started, in volts.'),
    one('voltage_max', 'voltage_max', millionths, 'Largest voltage, in volts.'),
    one('voltage_max_design', 'voltage_max_design', millionths, 'Largest voltage by design, in volts.'),
    one('voltage_min', 'voltage_min', millionths, 'Smallest voltage, in volts.'),
    one('voltage_min_design', 'voltage_min_design', millionths, 'Smallest voltage by design, in volts.'),
    one('voltage_now', 'voltage_volt', millionths, 'Voltage, in volts.'),
    one('voltage_ocv', 'voltage_ocv', millionths, 'Voltage without a load, in volts.'),
  ],
  ...[
    one('temp', 'temp_celsius', 10, 'Temperature, in degrees Celsius.'),
    one(
      'temp_alert_max',
      'temp_alert_max_celsius',
      10,
      'Temperature above which there is an alert, in degrees Celsius.',
    ),
    one(
      'temp_alert_min',
      'temp_alert_min_celsius',
      10,
      'Temperature below which there is an alert, in degrees Celsius.',
    ),
    one('temp_ambient', 'temp_ambient_celsius', 10, 'Temperature around the supply, in degrees Celsius.'),
    one(
      'temp_ambient_max',
      'temp_ambient_max_celsius',
      10,
      'Temperature around the supply above which there is an alert, in degrees Celsius.',
    ),
    one(
      'temp_ambient_min',
      'temp_ambient_min_celsius',
      10,
      'Temperature around the supply below which there is an alert, in degrees Celsius.',
    ),
    one('temp_max', 'temp_max_celsius', 10, 'Highest temperature that the supply may have, in degrees Celsius.'),
    one('temp_min', 'temp_min_celsius', 10, 'Lowest temperature that the supply may have, in degrees Celsius.'),
  ],
]);

function one(file: string, name: string, divisor: number, help: string): readonly [string, SampledFamily] {
  return [file, gauge(`node_power_supply_${name}`, help, { labels: ['power_supply'], divisor })];
}

/** Files, and labels. A label of which the driver says nothing is empty, which is none to Prometheus. */
const texts = [
  ...['capacity_level', 'charge_type', 'health', 'manufacturer', 'model_name', 'scope'],
  ...['serial_number', 'status', 'technology', 'type', 'usb_type'],
];
/** Of these, those that change. */
const changingTexts: ReadonlySet<string> = new Set(['capacity_level', 'charge_type', 'health', 'status', 'usb_type']);
const info = gauge('node_power_supply_info', 'Always 1; what the supply is, and how it is, as labels.', {
  labels: ['power_supply', ...texts],
});

class PowerSupplyClass implements Collector {
  readonly #filter: NameFilter;

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    for (const supply of host.devices(folder)) {
      if (!this.#filter.keeps(supply)) continue;
      const files = new Set(host.attributes(`${folder}/${supply}`));
      let hasValue = false;
      for (const [file, family] of families) {
        const value = files.has(file) ? host.value(`${folder}/${supply}/${file}`, parseNumber) : undefined;
        if (value !== undefined) out.sample(family, value, supply);
        hasValue ||= value !== undefined;
      }
      const found = texts.map((file) => (files.has(file) ? textOf(host, supply, file) : undefined));
      // One that has gone since it was listed has nothing of all this.
      if (!hasValue && found.every((text) => text === undefined)) continue;
      out.sampleLabels(info, 1, [supply, ...found.map((text) => text ?? '')]);
    }
  }
}

function textOf(host: Host, supply: string, file: string): string | undefined {
  const path = `${folder}/${supply}/${file}`;
  return changingTexts.has(file) ? host.value(path, parseText) : host.rareText(path);
}

function parseNumber(text: KernelText): number {
  return text.signed('the value');
}

function parseText(text: KernelText): string {
  return text.rest();
}
