// /proc/sys: a file a setting of the kernel, one or more numbers or words in a line. Which are wanted is said by options.
// https://www.kernel.org/doc/html/latest/admin-guide/sysctl/index.html
import { listOption, text as textOption } from '../../../runtime/options.ts';
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  gauge,
  LabelLists,
  type SampledFamily,
  type Samples,
  untyped,
} from './collector.ts';

const wanted = textOption(
  /^\w[\w.:/-]*(:\w+(,\w+)*)?$/,
  'a setting such as vm.swappiness, or with a name for each of its numbers: fs.file-nr:total,current,max',
);
const include = listOption({
  name: 'sysctl.include',
  placeholder: 'NAME[:KEY,…]',
  parse: wanted,
  help: 'Setting of the kernel to collect as a number, or as one for each key.',
});
const includeInfo = listOption({
  name: 'sysctl.include-info',
  placeholder: 'NAME',
  parse: wanted,
  help: 'Setting of the kernel to collect as a text, in a label.',
});

export const sysctl: CollectorRow = {
  name: 'sysctl',
  enabled: 'on request',
  description: 'settings of the kernel that --sysctl.include and --sysctl.include-info name',
  options: [include, includeInfo],
  create: (context) =>
    new Sysctl({ numbers: context.option(include).map(settingOf), texts: context.option(includeInfo).map(settingOf) }),
};

const info = gauge('node_sysctl_info', 'A setting of the kernel that is a text: 1.', {
  labels: ['name', 'value', 'index'],
});

interface Setting {
  readonly name: string;
  readonly path: string;
  /** Names of its numbers; undefined where they are numbered. */
  readonly keys: readonly string[] | undefined;
}

function settingOf(given: string): Setting {
  const [name = '', keys] = given.split(':');
  return { name, path: `proc/sys/${name.replaceAll('.', '/')}`, keys: keys?.split(',') };
}

class Sysctl implements Collector {
  readonly #numbers: readonly Setting[];
  readonly #texts: readonly Setting[];
  readonly #families = new Map<string, SampledFamily>();
  readonly #labels = new LabelLists();

  constructor(settings: { readonly numbers: readonly Setting[]; readonly texts: readonly Setting[] }) {
    this.#numbers = settings.numbers;
    this.#texts = settings.texts;
  }

  collect(host: Host, out: Samples): void {
    let missing: Setting | undefined;
    let found = 0;
    for (const setting of [...this.#numbers, ...this.#texts]) {
      if (host.exists(setting.path)) found++;
      else missing ??= setting;
    }
    if (found === 0 && missing !== undefined) throw new NoDataError(host.path(missing.path), ' does not exist');
    for (const setting of this.#numbers)
      this.#giveNumbers(out, setting, host.value(setting.path, parseNumbers(setting)));
    for (const { name, path } of this.#texts) {
      const words = host.value(path, parseWords) ?? [];
      for (const [at, word] of words.entries()) out.sampleLabels(info, 1, this.#labels.of(name, word, String(at)));
    }
    this.#labels.endCollection();
  }

  #giveNumbers(out: Samples, { name, keys }: Setting, numbers: readonly number[] | undefined): void {
    if (numbers === undefined) return;
    if (numbers.length === 1) return out.sample(this.#familyOf(name, 'one'), numbers[0]!);
    for (const [at, number] of numbers.entries()) {
      if (keys === undefined) out.sample(this.#familyOf(name, 'indexed'), number, String(at));
      else out.sample(this.#familyOf(`${name}_${keys[at]}`, 'one'), number);
    }
  }

  #familyOf(name: string, kind: 'one' | 'indexed'): SampledFamily {
    const key = `${name} ${kind}`;
    let family = this.#families.get(key);
    if (family === undefined) {
      const metric = `node_sysctl_${name.replaceAll(/_*[^0-9A-Za-z_]+_*/g, '_')}`;
      family = untyped(metric, `Setting ${name} of the kernel.`, { labels: kind === 'one' ? [] : ['index'] });
      this.#families.set(key, family);
    }
    return family;
  }
}

function parseNumbers({ keys }: Setting): (line: KernelText) => number[] {
  return (line) => {
    const numbers: number[] = [];
    while (line.more()) numbers.push(line.signed(`number ${numbers.length}`));
    const expected = keys?.length ?? Math.max(1, numbers.length);
    if (numbers.length !== expected) throw line.error(`it has ${numbers.length} numbers, expected ${expected}`);
    return numbers;
  };
}

function parseWords(line: KernelText): string[] {
  const words: string[] = [];
  while (line.more()) words.push(line.word('a word'));
  if (words.length === 0) throw line.error('it is empty');
  return words;
}
