// /sys/devices/system/cpu/cpuN/cpufreq: one attribute a file, frequencies in kHz, cpuinfo_cur_freq for root alone,
// cpuinfo_avg_freq since Linux 6.14. To read scaling_cur_freq can take 20 ms, by design. A CPU that is offline has what those
// have that share its clock; `offline` is a list of such CPUs: `2-3,5`.
// https://www.kernel.org/doc/html/latest/admin-guide/pm/cpufreq.html#policy-interface-in-sysfs
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';
import { frequency } from './cpu.ts';

export const cpufreq: CollectorRow = {
  name: 'cpufreq',
  enabled: 'by default',
  description:
    'frequencies and governors of CPUs, from /sys/devices/system/cpu/cpu*/cpufreq (node_cpu_frequency_hertz for root alone)',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new Cpufreq(),
};

const labels = ['cpu'];
const current: SampledFamily = { ...frequency, labelNames: labels };
const average = gauge('node_cpu_frequency_avg_hertz', 'Average frequency at which the CPU has run of late.', {
  labels,
});
const min = gauge('node_cpu_frequency_min_hertz', 'Lowest frequency that the CPU can have.', { labels });
const max = gauge('node_cpu_frequency_max_hertz', 'Highest frequency that the CPU can have.', { labels });
const scaling = gauge('node_cpu_scaling_frequency_hertz', 'Frequency of the CPU as the kernel has set it.', { labels });
const scalingMin = gauge('node_cpu_scaling_frequency_min_hertz', 'Lowest frequency that the kernel may set.', {
  labels,
});
const scalingMax = gauge('node_cpu_scaling_frequency_max_hertz', 'Highest frequency that the kernel may set.', {
  labels,
});
const governor = gauge('node_cpu_scaling_governor', 'Whether this governor sets the frequency: 1, or 0.', {
  labels: ['cpu', 'governor'],
});

const folder = 'sys/devices/system/cpu';
const rare = [
  ['cpuinfo_min_freq', min],
  ['cpuinfo_max_freq', max],
  ['scaling_min_freq', scalingMin],
  ['scaling_max_freq', scalingMax],
] as const;

class Cpufreq implements Collector {
  collect(host: Host, out: Samples): void {
    const cpus = host
      .devices(folder, /^cpu\d+$/)
      .map((name) => name.slice('cpu'.length))
      .filter((cpu) => host.attributes(pathOf(cpu)).length > 0);
    if (cpus.length === 0) throw new NoDataError(host.path(`${folder}/cpu0/cpufreq`), ' does not exist');
    const offline = new Set((host.rareText(`${folder}/offline`) ?? '').split(',').flatMap(cpusOf));
    for (const cpu of cpus) if (!offline.has(cpu)) collectCpu(host, out, cpu);
  }
}

function collectCpu(host: Host, out: Samples, cpu: string): void {
  const path = pathOf(cpu);
  const files = host.attributes(path);
  if (files.includes('cpuinfo_cur_freq')) {
    const hardware = host.privateValue(`${path}/cpuinfo_cur_freq`, parseKilohertz);
    if (hardware !== undefined) out.sample(current, hardware, cpu);
  }
  if (files.includes('cpuinfo_avg_freq')) {
    const averaged = host.value(`${path}/cpuinfo_avg_freq`, parseKilohertz);
    if (averaged !== undefined) out.sample(average, averaged, cpu);
  }
  const set = host.value(`${path}/scaling_cur_freq`, parseKilohertz);
  if (set !== undefined) out.sample(scaling, set, cpu);
  for (const [file, family] of rare) {
    const hertz = host.rareValue(`${path}/${file}`, parseKilohertz);
    if (hertz !== undefined) out.sample(family, hertz, cpu);
  }
  const chosen = host.rareText(`${path}/scaling_governor`);
  if (chosen === undefined || chosen === '') return;
  const available = (host.rareText(`${path}/scaling_available_governors`) ?? '')
    .split(/\s+/)
    .filter((name) => name !== '');
  for (const name of available) out.sample(governor, name === chosen ? 1 : 0, cpu, name);
}

function pathOf(cpu: string): string {
  return `${folder}/cpu${cpu}/cpufreq`;
}

/** `2-5` or `7`; nothing for what is neither. */
function cpusOf(range: string): string[] {
  const [first = Number.NaN, last = first] = range.split('-').map((text) => Number.parseInt(text, 10));
  const count = last - first + 1;
  return count > 0 && count <= cpusMax ? Array.from({ length: count }, (_, at) => String(first + at)) : [];
}

// Linux has at most 8192, on any machine.
const cpusMax = 8192;

function parseKilohertz(text: KernelText): number {
  return text.unsigned('the frequency') * 1000;
}
