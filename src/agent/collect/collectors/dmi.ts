// /sys/class/dmi/id: a file of one line for each thing that the firmware says of the machine (SMBIOS). Serial numbers and the UUID may be
// read by root alone. https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-dmi-id
import { NoDataError, UnreadableError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type Samples } from './collector.ts';

export const dmi: CollectorRow = {
  name: 'dmi',
  enabled: 'by default',
  description: 'vendor, product and firmware of the machine, from /sys/class/dmi/id',
  options: [],
  create: () => new Dmi(),
};

const labels = [
  ...['bios_date', 'bios_release', 'bios_vendor', 'bios_version'],
  ...['board_asset_tag', 'board_name', 'board_serial', 'board_vendor', 'board_version'],
  ...['chassis_asset_tag', 'chassis_serial', 'chassis_vendor', 'chassis_version'],
  ...['product_family', 'product_name', 'product_serial', 'product_sku', 'product_uuid', 'product_version'],
  'system_vendor',
];
const info = gauge('node_dmi_info', 'Always 1; the labels are what the firmware says of the machine.', { labels });

const folder = 'sys/class/dmi/id';

class Dmi implements Collector {
  /** Read once: the machine does not change while the host runs. */
  #values: readonly string[] | undefined;

  collect(host: Host, out: Samples): void {
    this.#values ??= readValues(host);
    if (this.#values.some((value) => value !== '')) out.sampleLabels(info, 1, this.#values);
  }
}

function readValues(host: Host): string[] {
  if (!host.exists(folder)) throw new NoDataError(host.path(folder), ' does not exist');
  return labels.map((label) => readValue(host, `${folder}/${label === 'system_vendor' ? 'sys_vendor' : label}`));
}

/** Empty where there is no such file, or where it is root's: that is how the kernel has it, and no fault. */
function readValue(host: Host, path: string): string {
  try {
    host.readIfThere(path);
  } catch (error) {
    if (!(error instanceof UnreadableError && (error.errno === 'EACCES' || error.errno === 'EPERM'))) {
      host.passOver(error);
    }
    return '';
  }
  return host.value(path, parseText) ?? '';
}

function parseText(text: KernelText): string {
  return text.rest();
}
