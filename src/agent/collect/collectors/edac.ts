// /sys/devices/system/edac/mc/mcN: ce_count, ue_count (errors that were corrected, and that could not be), ce_noinfo_count and
// ue_noinfo_count for those whose row is not known; csrowN/{ce,ue}_count; csrowN/chN_ce_count, chN_dimm_label and, of a few
// drivers, chN_ue_count.
// https://www.kernel.org/doc/html/latest/admin-guide/RAS/main.html#edac-error-detection-and-correction
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, type SampledFamily, type Samples } from './collector.ts';

export const edac: CollectorRow = {
  name: 'edac',
  enabled: 'by default',
  description: 'memory errors that were corrected or could not be, from /sys/devices/system/edac',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new Edac(),
};

interface Pair {
  readonly correctable: SampledFamily;
  readonly uncorrectable: SampledFamily;
}

const ofController = pair('', 'of a memory controller', ['controller']);
const ofRow = pair('csrow_', 'of a row of memory', ['controller', 'csrow']);
const ofChannel = pair('channel_', 'of a channel of a row of memory', ['controller', 'csrow', 'channel', 'dimm_label']);

function pair(prefix: string, what: string, labels: readonly string[]): Pair {
  const family = (kind: string, help: string) =>
    counter(`node_edac_${prefix}${kind}correctable_errors_total`, `Errors ${what} that ${help}.`, { labels });
  return { correctable: family('', 'were corrected'), uncorrectable: family('un', 'could not be corrected') };
}

const folder = 'sys/devices/system/edac/mc';

class Edac implements Collector {
  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder, /^mc\d+$/)) {
      const path = `${folder}/${name}`;
      const controller = name.slice('mc'.length);
      const files = host.attributes(path);
      const counts = { host, out, path, files };
      collectPair(counts, ofController, { before: '', labels: [controller] });
      collectPair(counts, ofRow, { before: '', noInfo: 'noinfo_', labels: [controller, 'unknown'] });
      for (const row of files) {
        if (/^csrow\d+$/.test(row)) collectRow(host, out, `${path}/${row}`, [controller, row.slice('csrow'.length)]);
      }
    }
  }
}

function collectRow(host: Host, out: Samples, path: string, labels: readonly string[]): void {
  const files = host.attributes(path);
  const counts = { host, out, path, files };
  collectPair(counts, ofRow, { before: '', labels });
  for (const file of files) {
    const channel = /^ch(\d+)_ce_count$/.exec(file)?.[1];
    if (channel === undefined) continue;
    const label = host.rareText(`${path}/ch${channel}_dimm_label`);
    const dimm = label === undefined ? 'unknown' : cleanLabel(label);
    collectPair(counts, ofChannel, { before: `ch${channel}_`, labels: [...labels, channel, dimm] });
  }
}

/** `mc#0csrow#2channel#0` → `mc0_csrow2_channel0`. */
function cleanLabel(label: string): string {
  return label.replaceAll('#', '').replaceAll('csrow', '_csrow').replaceAll('channel', '_channel');
}

/** A folder of counts. */
interface Counts {
  readonly host: Host;
  readonly out: Samples;
  readonly path: string;
  readonly files: readonly string[];
}

function collectPair(
  { host, out, path, files }: Counts,
  families: Pair,
  {
    before,
    noInfo = '',
    labels,
  }: { readonly before: string; readonly noInfo?: string; readonly labels: readonly string[] },
): void {
  const pairs = [
    [`${before}ce_${noInfo}count`, families.correctable],
    [`${before}ue_${noInfo}count`, families.uncorrectable],
  ] as const;
  for (const [file, family] of pairs) {
    const count = files.includes(file) ? host.value(`${path}/${file}`, parseCount) : undefined;
    if (count !== undefined) out.sampleLabels(family, count, labels);
  }
}

function parseCount(text: KernelText): number {
  return text.unsigned('the count');
}
