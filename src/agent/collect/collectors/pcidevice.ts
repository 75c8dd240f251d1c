// /sys/bus/pci/devices/SEGMENT:BUS:DEVICE.FUNCTION: a link to the device, in the folder of the bridge that it is behind, or of
// the root (pci0000:00). class, vendor, device, subsystem_vendor, subsystem_device, revision: hexadecimal. current_link_speed
// and max_link_speed: `8.0 GT/s PCIe`, `8 GT/s` before Linux 5.7, `Unknown`. sriov_*: of devices that can be several.
// A read of the link's state may wake a device that sleeps: that is done once a minute.
// https://www.kernel.org/doc/html/latest/PCI/sysfs-pci.html
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci
// pci.ids: a line a vendor (`8086  Intel Corporation`), below it devices with a tab before, below those subsystems with two; at
// its end classes (`C 02  Network controller`) with subclasses and programming interfaces.
// https://pci-ids.ucw.cz
import { basename, dirname } from 'node:path';
import { optional, path } from '../../../runtime/options.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
  switchOption,
} from './collector.ts';

const usualFiles = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids'];

const idsFile = optional({
  name: 'pcidevice.idsfile',
  placeholder: 'FILE',
  parse: path,
  defaultHelp: usualFiles.join(' or '),
  help: 'File with the names of PCI devices, below --rootfs.',
});
const withNames = switchOption('pcidevice.names', 'false', 'Add the names of vendor, device and class, from pci.ids.');

export const pcidevice: CollectorRow = {
  name: 'pcidevice',
  enabled: 'on request',
  description:
    'PCI devices: what they are, the speed of their links, power, virtual functions, from /sys/bus/pci/devices',
  options: [idsFile, withNames],
  lane: 'slow',
  create: (context) => {
    const file = context.option(idsFile);
    const files = file === undefined ? usualFiles : [file];
    return new PciDevices(context.option(withNames) ? new PciNames(files.map((each) => `root${each}`)) : undefined);
  },
};

const labels = ['segment', 'bus', 'device', 'function'];
const infoLabels = [
  ...labels,
  ...labels.map((label) => `parent_${label}`),
  ...['class_id', 'vendor_id', 'device_id', 'subsystem_vendor_id', 'subsystem_device_id', 'revision'],
];
const nameLabels = ['vendor_name', 'device_name', 'subsystem_vendor_name', 'subsystem_device_name', 'class_name'];
const powerState = gauge('node_pcidevice_power_state', '1 for the power state that a device is in, 0 for the others.', {
  labels: [...labels, 'state'],
});
const powerStates = ['D0', 'D1', 'D2', 'D3hot', 'D3cold', 'unknown', 'error'];

/** By the name of the file. */
const numbers: readonly (readonly [file: string, SampledFamily, (text: KernelText) => number | undefined])[] = [
  [
    'max_link_speed',
    now('max_link_transfers_per_second', 'Fastest link of the device, in transfers a second.'),
    parseSpeed,
  ],
  ['max_link_width', now('max_link_width', 'Most lanes that the device can use.'), parseNumber],
  [
    'current_link_speed',
    now('current_link_transfers_per_second', 'Speed of the link, in transfers a second.'),
    parseSpeed,
  ],
  ['current_link_width', now('current_link_width', 'Lanes of the link.'), parseNumber],
  ['d3cold_allowed', now('d3cold_allowed', 'Whether the device may be switched off: 1, or 0.'), parseNumber],
  [
    'sriov_drivers_autoprobe',
    now('sriov_drivers_autoprobe', 'Whether drivers are found for new virtual functions: 1, or 0.'),
    parseNumber,
  ],
  ['sriov_numvfs', now('sriov_numvfs', 'Virtual functions of the device that are on.'), parseNumber],
  ['sriov_totalvfs', now('sriov_totalvfs', 'Virtual functions that the device can have.'), parseNumber],
  ['sriov_vf_total_msix', now('sriov_vf_total_msix', 'Interrupts (MSI-X) for all virtual functions.'), parseNumber],
  ['numa_node', now('numa_node', 'NUMA node of the device.'), parseNode],
];

function now(name: string, help: string): SampledFamily {
  return gauge(`node_pcidevice_${name}`, help, { labels });
}

const folder = 'sys/bus/pci/devices';
const place = /^([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f])$/;
/** Of a device behind no bridge, as node_exporter has it. */
const noParent = ['*', '*', '*', '*'];

class PciDevices implements Collector {
  readonly #names: PciNames | undefined;
  readonly #info: SampledFamily;
  readonly #labels = new LabelLists();

  constructor(names: PciNames | undefined) {
    this.#names = names;
    this.#info = gauge('node_pcidevice_info', 'Always 1; what a PCI device is, and its bridge, as labels.', {
      labels: names === undefined ? infoLabels : [...infoLabels, ...nameLabels],
    });
  }

  collect(host: Host, out: Samples): void {
    const devices = host.devices(folder, place).map((name) => ({ name, ids: readIds(host, name) }));
    const present = devices.flatMap(({ ids }) => (ids.vendor === '' ? [] : [ids]));
    this.#names?.learn(host, present);
    for (const { name, ids } of devices) {
      const at = this.#labels.of(...place.exec(name)!.slice(1));
      // One that has gone since it was listed has nothing of all this.
      if (ids.vendor !== '') this.#giveInfo(host, out, { name, at, ids });
      for (const [file, family, parse] of numbers) {
        const value = host.rareValue(`${folder}/${name}/${file}`, parse);
        if (value !== undefined) out.sampleLabels(family, value, at);
      }
      const state = host.value(`${folder}/${name}/power_state`, parseText);
      if (state === undefined) continue;
      for (const each of powerStates) {
        out.sampleLabels(powerState, each === state ? 1 : 0, this.#labels.of(...at, each));
      }
    }
    this.#labels.endCollection();
  }

  #giveInfo(
    host: Host,
    out: Samples,
    { name, at, ids }: { readonly name: string; readonly at: readonly string[]; readonly ids: Ids },
  ): void {
    const real = host.realPath(`${folder}/${name}`);
    const parent = real === undefined ? null : place.exec(basename(dirname(real)));
    const hex = [ids.class, ids.vendor, ids.device, ids.subVendor, ids.subDevice, ids.revision];
    const texts = [...at, ...(parent?.slice(1) ?? noParent), ...hex.map((id) => (id === '' ? '' : `0x${id}`))];
    out.sampleLabels(this.#info, 1, this.#labels.of(...texts, ...(this.#names?.of(ids) ?? [])));
  }
}

/** In hexadecimal digits; '' where a file cannot be read. */
interface Ids {
  readonly class: string;
  readonly vendor: string;
  readonly device: string;
  readonly subVendor: string;
  readonly subDevice: string;
  readonly revision: string;
}

function readIds(host: Host, name: string): Ids {
  const read = (file: string, digits: number) => {
    const id = host.rareValue(`${folder}/${name}/${file}`, parseHexadecimal);
    return id === undefined ? '' : id.toString(16).padStart(digits, '0');
  };
  return {
    class: read('class', 6),
    vendor: read('vendor', 4),
    device: read('device', 4),
    subVendor: read('subsystem_vendor', 4),
    subDevice: read('subsystem_device', 4),
    revision: read('revision', 2),
  };
}

/** The names of those devices that there are; the file has tens of thousands. */
class PciNames {
  readonly #files: readonly string[];
  /** By what leads to a name in the file, '' where it is not there: `8086 1533`, `C 02 00`. */
  #names: ReadonlyMap<string, string> = new Map();

  constructor(files: readonly string[]) {
    this.#files = files;
  }

  /** Reads the file if there is something new. Where it cannot be read, it is tried again. */
  learn(host: Host, devices: readonly Ids[]): void {
    const wanted = new Set(devices.flatMap((ids) => Object.values(keysOf(ids)).flat()));
    if ([...wanted].every((key) => this.#names.has(key))) return;
    for (const file of this.#files) {
      const found = host.rareValue(file, (text) => namesIn(text, wanted));
      if (found === undefined) continue;
      this.#names = found;
      return;
    }
  }

  /** Of vendor, device, the subsystem's vendor, the subsystem, the class; the number where there is none. */
  of(ids: Ids): string[] {
    const keys = keysOf(ids);
    const className = keys.class.map((key) => this.#names.get(key)).find((name) => name !== undefined && name !== '');
    return [
      this.#names.get(keys.vendor) || ids.vendor,
      this.#names.get(keys.device) || ids.device,
      this.#names.get(keys.subVendor) || ids.subVendor,
      this.#names.get(keys.subsystem) || ids.subDevice,
      className ?? `Unknown class (${ids.class})`,
    ];
  }
}

function keysOf(ids: Ids) {
  const base = `C ${ids.class.slice(0, 2)}`;
  const subclass = `${base} ${ids.class.slice(2, 4)}`;
  return {
    vendor: ids.vendor,
    device: `${ids.vendor} ${ids.device}`,
    subVendor: ids.subVendor,
    subsystem: `${ids.vendor} ${ids.device} ${ids.subVendor} ${ids.subDevice}`,
    /** The closest first. */
    class: [`${subclass} ${ids.class.slice(4)}`, subclass, base],
  };
}

/** Of these keys, each with its name. */
function namesIn(text: KernelText, wanted: ReadonlySet<string>): ReadonlyMap<string, string> {
  const lines = Buffer.from(text.content()).toString().split('\n');
  const names = new Map([...wanted].map((key) => [key, '']));
  /** The keys of the lines that the present one is below. */
  const above: string[] = [];
  for (const line of lines) {
    const match = /^(\t{0,2})(C [0-9a-f]{2}|[0-9a-f]{2,4}(?: [0-9a-f]{4})?) {2}(.*\S)/.exec(line);
    if (match === null) continue;
    const [, tabs = '', id = '', name = ''] = match;
    const key = tabs === '' ? id : `${above[tabs.length - 1]} ${id}`;
    above[tabs.length] = key;
    if (wanted.has(key)) names.set(key, name);
  }
  return names;
}

function parseHexadecimal(text: KernelText): number {
  text.skip('0x');
  return text.hexadecimal('the number');
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}

/** Undefined where it is not known, which is -1. */
function parseNode(text: KernelText): number | undefined {
  const node = text.signed('the node');
  return node < 0 ? undefined : node;
}

/** In transfers a second; undefined where it is not known. */
function parseSpeed(text: KernelText): number | undefined {
  const line = text.rest();
  if (line.startsWith('Unknown')) return undefined;
  const match = /^(\d{1,4})(?:\.(\d))? GT\/s/.exec(line);
  if (match === null) throw text.error(`the speed is ${JSON.stringify(line)}, expected GT/s`);
  const [, whole = '', tenths = '0'] = match;
  return (text.wholeNumber(whole, 'the speed') * 10 + text.wholeNumber(tenths, 'the speed')) * 100_000_000;
}

function parseText(text: KernelText): string {
  return text.rest();
}
