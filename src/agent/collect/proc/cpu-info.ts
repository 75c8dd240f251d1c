import type { KernelText } from './text.ts';

/** What /proc/cpuinfo says of one CPU; empty where it says nothing, which differs by architecture. */
export interface CpuFacts {
  readonly processor: string;
  readonly vendor: string;
  readonly family: string;
  readonly model: string;
  readonly modelName: string;
  readonly microcode: string;
  readonly stepping: string;
  readonly cacheSize: string;
  readonly packageId: string;
  readonly coreId: string;
  /** Undefined where the architecture does not say. */
  readonly megahertz: number | undefined;
  readonly flags: readonly string[];
  readonly bugs: readonly string[];
}

/** By the name of a line: which fact it is. */
const facts: ReadonlyMap<string, keyof CpuFacts> = new Map([
  ['vendor_id', 'vendor'],
  ['vendor', 'vendor'],
  ['cpu family', 'family'],
  ['model', 'model'],
  ['model name', 'modelName'],
  // RISC-V
  ['isa', 'modelName'],
  ['hart', 'coreId'],
  ['microcode', 'microcode'],
  ['stepping', 'stepping'],
  ['cache size', 'cacheSize'],
  ['physical id', 'packageId'],
  ['core id', 'coreId'],
]);
const empty: CpuFacts = {
  ...{ processor: '', vendor: '', family: '', model: '', modelName: '', microcode: '', stepping: '', cacheSize: '' },
  ...{ packageId: '', coreId: '', megahertz: undefined, flags: [], bugs: [] },
};

/**
 * /proc/cpuinfo: `model name	: AMD EPYC`, a line a fact, and `processor	: 0` before those of each CPU.
 * https://www.kernel.org/doc/html/latest/filesystems/proc.html#kernel-data
 */
export function parseCpuInfo(text: KernelText): CpuFacts[] {
  const cpus: CpuFacts[] = [];
  let hasNumber = false;
  text.eachLine('a processor', (line) => {
    const name = line.keyIfThere()?.trimEnd();
    if (name === 'processor') {
      // Where this throws, what follows is of no CPU.
      hasNumber = false;
      cpus.push({ ...empty, processor: String(line.unsigned('the number of a CPU')) });
      hasNumber = true;
      return true;
    }
    // POWER has the machine's facts behind all CPUs, from here on: its model is none of a CPU.
    if (name === 'timebase') hasNumber = false;
    const cpu = hasNumber ? cpus.at(-1) : undefined;
    if (name === undefined || cpu === undefined) return false;
    const value = line.rest();
    const fact = facts.get(name);
    if (fact !== undefined) cpus[cpus.length - 1] = { ...cpu, [fact]: value };
    else if (name === 'flags' || name === 'Features') cpus[cpus.length - 1] = { ...cpu, flags: words(value) };
    else if (name === 'bugs') cpus[cpus.length - 1] = { ...cpu, bugs: words(value) };
    else if (name === 'cpu MHz' && /^\d{1,6}(\.\d{1,6})?$/.test(value)) {
      cpus[cpus.length - 1] = { ...cpu, megahertz: Number(value) };
    } else if (name === 'cpu MHz') {
      throw line.error(`the frequency is ${JSON.stringify(value)}, expected a number of MHz`);
    }
    return false;
  });
  return cpus;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
