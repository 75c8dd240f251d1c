// /sys/class/drm/cardN/device of the driver amdgpu: gpu_busy_percent, mem_info_* in bytes, power_dpm_force_performance_level,
// unique_id; its `uevent` has a line DRIVER=amdgpu. Beside the cards are their connectors, cardN-DP-1. An integrated card
// has no memory of its own, or says nothing of its load.
// https://www.kernel.org/doc/html/latest/gpu/amdgpu/driver-misc.html
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';

export const drm: CollectorRow = {
  name: 'drm',
  enabled: 'by default',
  description: 'load and memory of AMD graphics cards, from /sys/class/drm',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new Drm(),
};

const info = gauge('node_drm_card_info', 'Always 1; what the card is as labels.', {
  labels: ['card', 'memory_vendor', 'power_performance_level', 'unique_id', 'vendor'],
});
const numbers: readonly (readonly [file: string, family: SampledFamily])[] = [
  one('gpu_busy_percent', 'gpu_busy_percent', 'How busy the card is, in percent.'),
  one('mem_info_gtt_total', 'memory_gtt_size_bytes', "Size of the host's memory that the card can use, in bytes."),
  one('mem_info_gtt_used', 'memory_gtt_used_bytes', "How much of the host's memory the card uses, in bytes."),
  one(
    'mem_info_vis_vram_total',
    'memory_vis_vram_size_bytes',
    "Size of the card's memory that the host can see, in bytes.",
  ),
  one(
    'mem_info_vis_vram_used',
    'memory_vis_vram_used_bytes',
    "How much of the card's memory that the host can see is used, in bytes.",
  ),
  one('mem_info_vram_total', 'memory_vram_size_bytes', "Size of the card's memory, in bytes."),
  one('mem_info_vram_used', 'memory_vram_used_bytes', "How much of the card's memory is used, in bytes."),
];

function one(file: string, name: string, help: string): readonly [string, SampledFamily] {
  return [file, gauge(`node_drm_${name}`, help, { labels: ['card'] })];
}

class Drm implements Collector {
  collect(host: Host, out: Samples): void {
    let found = 0;
    for (const card of host.devices('sys/class/drm', /^card\d+$/)) {
      const folder = `sys/class/drm/${card}/device`;
      if (host.rareValue(`${folder}/uevent`, isAmdgpu) !== true) continue;
      found++;
      const vendor = host.rareText(`${folder}/mem_info_vram_vendor`) ?? '';
      const level = host.value(`${folder}/power_dpm_force_performance_level`, parseText) ?? '';
      const id = host.rareText(`${folder}/unique_id`) ?? '';
      out.sampleLabels(info, 1, [card, vendor, level, id, 'amd']);
      const files = host.attributes(folder);
      for (const [file, family] of numbers) {
        const value = files.includes(file) ? host.value(`${folder}/${file}`, parseNumber) : undefined;
        if (value !== undefined) out.sample(family, value, card);
      }
    }
    if (found === 0) throw new NoDataError(host.path('sys/class/drm'), ' has no card of the driver amdgpu');
  }
}

function isAmdgpu(text: KernelText): boolean {
  do if (text.rest() === 'DRIVER=amdgpu') return true;
  while (text.nextLine());
  return false;
}

function parseText(text: KernelText): string {
  return text.rest();
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}
