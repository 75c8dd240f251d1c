// /sys/class/hwmon/hwmonN: `name`, a link `device` to the device that the chip is or belongs to, and attributes TYPE[N][_PROPERTY]:
// temp1_input, temp1_label, in0_min, pwm2. Older drivers have them in the folder of the device. Temperatures, voltages and
// currents are in thousandths, powers and energies in millionths. Which properties there are differs from driver to driver; all
// are taken that are numbers. https://www.kernel.org/doc/html/latest/hwmon/sysfs-interface.html
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  counter,
  type FamilyOptions,
  gauge,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
} from './collector.ts';

const chipInclude = patternOption(
  'hwmon.chip-include',
  '',
  'Chips to collect, by the label chip, such as platform_coretemp_0. Empty: all.',
);
const chipExclude = patternOption('hwmon.chip-exclude', '', 'Chips to leave out, by the label chip. Empty: none.');
const sensorInclude = patternOption(
  'hwmon.sensor-include',
  '',
  'Sensors to collect, by chip and sensor: platform_coretemp_0;temp3. Empty: all.',
);
const sensorExclude = patternOption(
  'hwmon.sensor-exclude',
  '',
  'Sensors to leave out, by chip and sensor: platform_coretemp_0;temp3. Empty: none.',
);

export const hwmon: CollectorRow = {
  name: 'hwmon',
  enabled: 'by default',
  description:
    'temperatures, fans, voltages, currents and powers of sensor chips, from /sys/class/hwmon; limits and settings once a minute',
  options: [chipInclude, chipExclude, sensorInclude, sensorExclude],
  lane: 'slow',
  successWithoutData: 1,
  create: (context) =>
    new Hwmon({
      chips: new NameFilter(context.option(chipInclude), context.option(chipExclude)),
      sensors: new NameFilter(context.option(sensorInclude), context.option(sensorExclude)),
    }),
};

const chipNames = gauge('node_hwmon_chip_names', 'Always 1; the label chip_name is what the driver calls the chip.', {
  labels: ['chip', 'chip_name'],
});
const sensorLabel = gauge('node_hwmon_sensor_label', 'Always 1; what the driver says that a sensor measures.', {
  labels: ['chip', 'sensor', 'label'],
});

const folder = 'sys/class/hwmon';

/** The folder of a chip, and of its device. */
interface Chip {
  /** hwmonN */
  readonly id: string;
  readonly path: string;
  readonly files: readonly string[];
  readonly deviceFiles: readonly string[];
  /** What it is called by its device, its name or its number; two may have one. */
  readonly base: string;
  /** What the driver calls it; undefined where it does not say. */
  readonly named: string | undefined;
}

class Hwmon implements Collector {
  readonly #chips: NameFilter;
  readonly #sensors: NameFilter;

  constructor({ chips, sensors }: { readonly chips: NameFilter; readonly sensors: NameFilter }) {
    this.#chips = chips;
    this.#sensors = sensors;
  }

  collect(host: Host, out: Samples): void {
    const chips = host.devices(folder).flatMap((id) => chipOf(host, id) ?? []);
    for (const chip of chips) {
      const label = chipLabel(chip, chips);
      if (!this.#chips.keeps(label)) continue;
      const named = cleanName(chip.named ?? '');
      if (named !== '') out.sample(chipNames, 1, label, named);
      for (const file of chip.files) {
        if (!chip.deviceFiles.includes(file)) this.#collect(host, out, { chip, label, path: chip.path, file });
      }
      for (const file of chip.deviceFiles) {
        this.#collect(host, out, { chip, label, path: `${chip.path}/device`, file });
      }
    }
  }

  #collect(
    host: Host,
    out: Samples,
    at: { readonly chip: Chip; readonly label: string; readonly path: string; readonly file: string },
  ): void {
    const { chip, label, path, file } = at;
    const attribute = attributeOf(file);
    if (attribute === undefined || !this.#sensors.keeps(`${label};${attribute.sensor}`)) return;
    switch (attribute.kind) {
      case 'label': {
        const text = host.rareValue(`${path}/${file}`, parseLabel);
        if (text !== undefined) out.sampleLabels(sensorLabel, 1, [label, attribute.sensor, text]);
        return;
      }
      case 'clock': {
        const text = host.rareValue(`${path}/${file}`, parseLabel);
        if (text === undefined) return;
        out.sampleLabels(sensorLabel, 1, [label, attribute.sensor, text]);
        const hertz = host.value(`${path}/${attribute.sensor}_input`, parseReading);
        if (hertz !== undefined) out.sample(frequency, hertz, label, cleanName(text));
        return;
      }
      case 'beep': {
        const mask = host.rareValue(`${path}/${file}`, parseMask);
        if (mask !== undefined) out.sample(attribute.family, mask === 1 ? 1 : 0, label, attribute.sensor);
        return;
      }
      case 'reading': {
        const value = host.value(`${path}/${file}`, parseReading);
        const isBeside = hasBare(chip, attribute.sensor);
        if (value !== undefined) {
          out.sample(isBeside ? attribute.besideBare : attribute.family, value, label, attribute.sensor);
        }
        return;
      }
      case 'property': {
        const value = attribute.isRare
          ? host.rareValue(`${path}/${file}`, parseProperty)
          : host.value(`${path}/${file}`, parseProperty);
        if (value !== undefined) out.sample(attribute.family, value, label, attribute.sensor);
      }
    }
  }
}

/** Undefined for what is no chip, or has just gone, or does not answer. */
function chipOf(host: Host, id: string): Chip | undefined {
  const path = `${folder}/${id}`;
  const files = host.attributes(path);
  if (files.length === 0) return undefined;
  const hasDevice = files.includes('device');
  const devicePath = hasDevice ? host.realPath(`${path}/device`) : undefined;
  if (hasDevice && devicePath === undefined) return undefined;
  const deviceFiles = hasDevice ? host.attributes(`${path}/device`) : [];
  const named = files.includes('name') ? host.rareText(`${path}/name`) : undefined;
  const base = deviceName(devicePath) || cleanName(named ?? '') || id;
  return { id, path, files, deviceFiles, base, named };
}

/** `/sys/devices/platform/coretemp.0` is platform_coretemp_0. The path of a device stays, hwmonN does not. */
function deviceName(path: string | undefined): string {
  const [type = '', name = ''] = path?.split('/').slice(-2).map(cleanName) ?? [];
  return type !== '' && name !== '' ? `${type}_${name}` : name;
}

/** What may stand in a metric's name; a PCI address keeps its colons. */
function cleanName(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9:_]/g, '_')
    .replaceAll(/^_+|_+$/g, '');
}

/** Chips of one device are distinguished by their names, or by their numbers. */
function chipLabel({ id, base, named }: Chip, chips: readonly Chip[]): string {
  const namesakes = chips.filter((other) => other.base === base);
  if (namesakes.length === 1) return base;
  const isAlone = namesakes.filter((other) => other.named === named).length === 1;
  const suffix = isAlone ? cleanName(named ?? '') : '';
  return `${base}_${suffix === '' ? cleanName(id) : suffix}`;
}

/** Whether the sensor has a file that is called as itself, such as pwm1. */
function hasBare({ files, deviceFiles }: Chip, sensor: string): boolean {
  return files.includes(sensor) || deviceFiles.includes(sensor);
}

/** What a file of a chip is, by its name. The sensor is its type and number: temp1. */
type Attribute = { readonly sensor: string } & (
  | { readonly kind: 'label' }
  /** The label of a clock, whose frequency is known by it alone. */
  | { readonly kind: 'clock' }
  | { readonly kind: 'beep'; readonly family: SampledFamily }
  /** What the sensor measures. `besideBare`: where `hasBare`, the bare name is another number's. */
  | { readonly kind: 'reading'; readonly family: SampledFamily; readonly besideBare: SampledFamily }
  /** `isRare`: it is a setting, such as a limit, and read once a minute. */
  | { readonly kind: 'property'; readonly family: SampledFamily; readonly isRare: boolean }
);

const types: ReadonlySet<string> = new Set([
  ...['vrm', 'beep_enable', 'update_interval', 'in', 'cpu', 'fan', 'pwm', 'temp', 'curr', 'power', 'energy'],
  ...['humidity', 'intrusion', 'freq'],
]);
/** Each device has this folder: what it says is of its power management. */
const powerManagement = 'power';
const measured = /^(input|average|output|target|alarm|fault|status|)$|_alarm$/;

/** By the name of a file: undefined for one that is no sensor's. */
const attributes = new Map<string, Attribute | undefined>();
// Far more than the chips of a host have.
const attributesMax = 10_000;

function attributeOf(file: string): Attribute | undefined {
  if (attributes.has(file)) return attributes.get(file);
  if (attributes.size >= attributesMax) attributes.clear();
  const attribute = parseName(file);
  attributes.set(file, attribute);
  return attribute;
}

function parseName(file: string): Attribute | undefined {
  const { type = '', number = '', property = '' } = pattern.exec(file)?.groups ?? {};
  if (!types.has(type) || file === powerManagement) return undefined;
  const sensor = `${type}${Number(number)}`;
  const chipWide = chipWideFamilies.get(type);
  if (chipWide !== undefined) {
    if (property !== '') return undefined;
    if (type === 'beep_enable') return { kind: 'beep', sensor, family: chipWide };
    return { kind: 'property', sensor, family: chipWide, isRare: true };
  }
  if (property === 'label') return { kind: type === 'freq' ? 'clock' : 'label', sensor };
  if (property === 'input') {
    if (type === 'freq') return undefined;
    const name = `node_hwmon_${type}`;
    const of = { type, property };
    return { kind: 'reading', sensor, family: familyOf(name, of), besideBare: familyOf(`${name}_input`, of) };
  }
  const name = `node_hwmon_${type}${property === '' ? '' : `_${cleanName(property)}`}`;
  return { kind: 'property', sensor, family: familyOf(name, { type, property }), isRare: !measured.test(property) };
}

const pattern = /^(?<type>[^0-9]+)(?<number>[0-9]{1,9})?(?:_(?<property>.+))?$/;

const frequency = sensorGauge(
  'node_hwmon_freq_freq_mhz',
  'Frequency of a clock, in MHz; the label sensor is its name.',
  {
    divisor: 1_000_000,
  },
);
const chipWideFamilies: ReadonlyMap<string, SampledFamily> = new Map([
  ['beep_enable', sensorGauge('node_hwmon_beep_enabled', 'Whether the chip may beep: 1, or 0.')],
  [
    'vrm',
    sensorGauge('node_hwmon_voltage_regulator_version', "Version of the voltage regulator's standard, times 10."),
  ],
  [
    'update_interval',
    sensorGauge('node_hwmon_update_interval_seconds', 'How often the chip measures, in seconds.', { divisor: 1000 }),
  ],
]);

function sensorGauge(name: string, help: string, options: FamilyOptions = {}): SampledFamily {
  return gauge(name, help, { labels: ['chip', 'sensor'], ...options });
}

interface Unit {
  readonly suffix: string;
  readonly divisor: number;
  /** For HELP. */
  readonly in: string;
}

const asItIs: Unit = { suffix: '', divisor: 1, in: 'as the driver gives it' };
const volts: Unit = { suffix: '_volts', divisor: 1000, in: 'in volts' };
const units: ReadonlyMap<string, Unit> = new Map([
  ['in', volts],
  ['cpu', volts],
  ['temp', { suffix: '_celsius', divisor: 1000, in: 'in degrees Celsius' }],
  ['curr', { suffix: '_amps', divisor: 1000, in: 'in amperes' }],
  ['energy', { suffix: '_joule_total', divisor: 1_000_000, in: 'in joules' }],
  ['power', { suffix: '_watt', divisor: 1_000_000, in: 'in watts' }],
  // The kernel gives thousandths of a percent; node_exporter divides them by this, and dashboards were built on that.
  ['humidity', { suffix: '', divisor: 1_000_000, in: 'as node_exporter gives it, a tenth of the ratio' }],
]);
const revolutions: Unit = { suffix: '_rpm', divisor: 1, in: 'in revolutions per minute' };
const seconds: Unit = { suffix: '_seconds', divisor: 1000, in: 'in seconds' };
const whats: ReadonlyMap<string, string> = new Map([
  ['in', 'Voltage'],
  ['cpu', 'Voltage of a CPU'],
  ['fan', 'Speed of a fan'],
  ['pwm', 'Control of a fan'],
  ['temp', 'Temperature'],
  ['curr', 'Current'],
  ['power', 'Power'],
  ['energy', 'Energy used'],
  ['humidity', 'Humidity'],
  ['intrusion', 'Opening of the case'],
  ['freq', 'Clock'],
]);

interface Property {
  readonly type: string;
  readonly property: string;
}

/**
 * node_exporter gives fault, alarm and beep without a unit, but no other property that is none of the measure: also
 * temp1_crit_alarm, which is 0 or 1, is in degrees there, and so here.
 */
function familyOf(name: string, { type, property }: Property): SampledFamily {
  const what = whats.get(type);
  switch (property) {
    case 'fault':
      return sensorGauge(name, `${what}: whether the sensor is broken, 1 or 0.`);
    case 'alarm':
      return sensorGauge(name, `${what}: whether there is an alarm, 1 or 0.`);
    case 'beep':
      return sensorGauge(`${name}_enabled`, `${what}: whether an alarm beeps, 1 or 0.`);
    default: {
      const unit = unitOf({ type, property });
      const family = type === 'energy' ? counter : gauge;
      const which = property === 'input' || property === '' ? '' : `: the driver's ${property}`;
      const options = { labels: ['chip', 'sensor'], divisor: unit.divisor };
      return family(`${name}${unit.suffix}`, `${what}${which}, ${unit.in}.`, options);
    }
  }
}

function unitOf({ type, property }: Property): Unit {
  if (type === 'temp' && property === 'type') return asItIs;
  if (type === 'fan') return /^(input|min|max|target)$/.test(property) ? revolutions : asItIs;
  if (type === 'power' && property === 'accuracy') return { suffix: '', divisor: 1_000_000, in: 'as a ratio' };
  if (type === 'power' && /^average_interval(_min|_max)?$/.test(property)) return seconds;
  return units.get(type) ?? asItIs;
}

function parseLabel(text: KernelText): string {
  return text.restWithSpaces();
}

function parseMask(text: KernelText): number {
  return text.unsigned('the mask');
}

function parseReading(text: KernelText): number {
  return text.signed('the value');
}

/** Undefined where a driver has a text: the accuracy of a power meter is `97.5%`, its model a name. */
function parseProperty(text: KernelText): number | undefined {
  const word = text.rest();
  return /^-?\d{1,19}$/.test(word) ? Number(word) : undefined;
}
