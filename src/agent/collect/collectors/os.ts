// /etc/os-release, or /usr/lib/os-release where there is none: `VERSION_ID="12"`, a line a field, in the syntax of a shell.
// https://www.freedesktop.org/software/systemd/man/latest/os-release.html
import { NoDataError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorContext, type CollectorRow, gauge, type Samples } from './collector.ts';

export const os: CollectorRow = {
  name: 'os',
  enabled: 'by default',
  description: 'name and version of the distribution, from /etc/os-release',
  options: [],
  create: (context) => new Os(context),
};

const infoLabels = [
  ...['build_id', 'id', 'id_like', 'image_id', 'image_version', 'name', 'pretty_name', 'variant', 'variant_id'],
  ...['version', 'version_codename', 'version_id'],
];
const info = gauge('node_os_info', 'Always 1; the labels are the fields of os-release.', { labels: infoLabels });
const versionLabels = ['id', 'id_like', 'name'];
const version = gauge('node_os_version', 'Version of the distribution, its first two numbers.', {
  labels: versionLabels,
});
const supportEnd = gauge(
  'node_os_support_end_timestamp_seconds',
  'When support of the distribution ends, in seconds since 1970.',
);

const paths = ['root/etc/os-release', 'root/usr/lib/os-release'];
// It changes by an upgrade of the distribution.
const lookAgainMs = 60_000;

interface Release {
  readonly info: readonly string[];
  readonly versionLabels: readonly string[];
  /** Undefined for a distribution without versions. */
  readonly version: number | undefined;
  readonly supportEndSeconds: number | undefined;
}

class Os implements Collector {
  readonly #clock: CollectorContext['clock'];
  #lookedMs = Number.NEGATIVE_INFINITY;
  #release: Release | undefined;

  constructor({ clock }: CollectorContext) {
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#release === undefined || nowMs - this.#lookedMs >= lookAgainMs) {
      this.#lookedMs = nowMs;
      this.#release = readRelease(host);
    }
    const release = this.#release;
    out.sampleLabels(info, 1, release.info);
    if (release.version !== undefined) out.sampleLabels(version, release.version, release.versionLabels);
    if (release.supportEndSeconds !== undefined) out.sample(supportEnd, release.supportEndSeconds);
  }
}

function readRelease(host: Host): Release {
  const path = paths.find((each) => host.exists(each));
  if (path === undefined) throw new NoDataError(host.path(paths[0]!), ' does not exist');
  const fields = parseFields(host.read(path));
  const of = (label: string) => fields.get(label.toUpperCase()) ?? '';
  const number = /^\d{1,15}(?:\.\d{1,9})?/.exec(of('version_id'))?.[0];
  const end = of('support_end');
  const endMs = /^\d{4}-\d\d-\d\d$/.test(end) ? Date.parse(end) : Number.NaN;
  return {
    info: infoLabels.map(of),
    versionLabels: versionLabels.map(of),
    version: number === undefined ? undefined : Number(number),
    supportEndSeconds: Number.isNaN(endMs) ? undefined : endMs / 1000,
  };
}

function parseFields(text: KernelText): Map<string, string> {
  const fields = new Map<string, string>();
  text.eachLine('a field', (line) => {
    const entry = line.rest();
    if (entry.startsWith('#')) return false;
    const match = /^([A-Z][A-Z0-9_]*)=(.*)$/.exec(entry);
    if (match === null) return false;
    fields.set(match[1]!, unquoted(match[2]!));
    return true;
  });
  return fields;
}

/** `"a \"b\""`, `'a'` or a bare word. */
function unquoted(value: string): string {
  const quote = value.at(0);
  if ((quote !== '"' && quote !== "'") || value.length < 2 || value.at(-1) !== quote) return value;
  const inner = value.slice(1, -1);
  return quote === "'" ? inner : inner.replaceAll(/\\([\\"$`])/g, '$1');
}
