import { readFileSync } from 'node:fs';
import type { CollectorRow } from '../../src/agent/collect/collectors/collector.ts';
import { collectorRows } from '../../src/agent/collect/collectors/index.ts';
import type { OptionRow } from '../../src/runtime/options.ts';
import { askedHost, fixtureHosts } from './collect-fixture.ts';
import { fixtureFile } from './files.ts';

/** A family that some fixture of a collector gives. */
interface DocumentedFamily {
  readonly type: string;
  readonly labels: ReadonlySet<string>;
}

/** The families of a collector, by name: of all its fixtures together. */
export function familiesOf(name: string): ReadonlyMap<string, DocumentedFamily> {
  const families = new Map<string, { type: string; labels: Set<string> }>();
  for (const { expected = '' } of [...fixtureHosts(name), ...[askedHost(name) ?? []].flat()]) {
    for (const line of expected.split('\n')) {
      const type = /^# TYPE (\S+) (\S+)$/.exec(line);
      if (type !== null && !families.has(type[1]!)) families.set(type[1]!, { type: type[2]!, labels: new Set() });
      const series = /^([a-zA-Z_:][\w:]*)\{(.*)\} \S+$/.exec(line);
      if (series === null) continue;
      const labels = [...series[2]!.matchAll(/(?:^|",)([a-zA-Z_]\w*)="/g)].map(([, label]) => label!);
      for (const label of labels) families.get(series[1]!)?.labels.add(label);
    }
  }
  return new Map([...families].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** node_exporter's families, by collector. */
export function nodeExporterFamilies(): ReadonlyMap<string, readonly string[]> {
  const families = new Map<string, string[]>();
  for (const line of readFileSync(fixtureFile('node-exporter/families.txt'), 'utf8').trim().split('\n')) {
    const [collector = '', family = ''] = line.split(' ');
    families.set(collector, [...(families.get(collector) ?? []), family]);
  }
  return families;
}

/** Collectors of node_exporter that this agent does not have, with the reason. */
export const collectorsLeftOut: Readonly<Record<string, string>> = {
  ethtool: 'needs the ioctl SIOCETHTOOL, which only native code can call',
  logind: 'sessions of users; off by default in node_exporter, too',
  ntp: 'deprecated in node_exporter; timex has the offset of the clock, and every agent its own to the server',
  perf: 'needs the system call perf_event_open, which only native code can make',
  qdisc: 'needs netlink, which only native code can speak',
  runit: 'deprecated in node_exporter',
  supervisord: 'deprecated in node_exporter',
};

/** Whether a row says why it does not give this family. */
export function isMissingKnown(row: CollectorRow, family: string): boolean {
  return (row.missing ?? []).some(({ families }) =>
    families.some((name) => (name.endsWith('*') ? family.startsWith(name.slice(0, -1)) : name === family)),
  );
}

/** docs/collectors.md, out of the rows and the fixtures. */
export function collectorsDocument(): string {
  const byDefault = collectorRows.filter(({ enabled }) => enabled === 'by default').length;
  const slow = collectorRows.filter(({ lane }) => lane === 'slow').map(({ name }) => name);
  return `# Collectors

What an agent collects: families, options, and what is missing, with the reason. Names, types, labels, options and defaults are those of
node_exporter ${nodeExporterVersion}; there an option's name begins with \`collector.\`. This file is made from the code and its tests:
\`UPDATE=1 npm test -- --only docs-collectors\`.

${collectorRows.length} collectors, of which ${byDefault} are on by default. \`--enable NAME\` and \`--disable NAME\` change that, \`sysmon-agent collect --list\` shows them with their
options, and \`sysmon-agent collect --enable NAME\` what one gives on this host. A collector that finds nothing of its kind
is asked again once a minute and costs nothing between; \`node_scrape_collector_success\` is 0 for it, unless it says 1 below.
\`sysmon-agent check\` says what is absent, and which file is missing. Absent is not zero: what the kernel does not say gives no series. Of a name that is no UTF-8, a label shows each foreign byte as U+FFFD.

A device that never answers costs its own series and delays nothing. What can hang, attributes of devices and the sizes of file systems, is
read off the main thread, with a deadline: by ${slow.slice(0, -1).join(', ')} and ${slow.at(-1)}. The others read what the kernel has in
memory. \`sysmon_agent_reads_late\` counts what is late; what does not answer for 5 s is named in the log
([how a collector is written](developing.md#what-can-block-the-slow-lane)).

| collector | default | families | what |
| --------- | ------- | -------- | ---- |
${collectorRows.map(summaryOf).join('')}
${collectorRows.map(sectionOf).join('\n')}
## What node_exporter has and this agent has not

| collector | why |
| --------- | --- |
${Object.entries(collectorsLeftOut)
  .map(([name, reason]) => `| ${name} | ${reason} |\n`)
  .join('')}`;
}

const nodeExporterVersion = '1.12.1';

function summaryOf({ name, enabled, description }: CollectorRow): string {
  const isOn = enabled === 'by default';
  return `| [${name}](#${name}) | ${isOn ? 'on' : 'off'} | ${familiesOf(name).size} | ${cell(description)} |\n`;
}

function sectionOf(row: CollectorRow): string {
  const { name, enabled, description, options, missing = [], successWithoutData } = row;
  const state = enabled === 'by default' ? 'on by default' : `off by default, on by \`--enable ${name}\``;
  const lines = [`## ${name}`, '', `${capital(description)}; ${state}.`, ''];
  if (successWithoutData === 1) lines.push('On a host without it `node_scrape_collector_success` is 1.', '');
  if (options.length > 0) lines.push(...options.map(optionLine), '');
  const families = [...familiesOf(name)];
  for (const type of ['counter', 'gauge', 'histogram', 'summary', 'untyped']) {
    const ofType = families.filter(([, family]) => family.type === type);
    if (ofType.length > 0) lines.push(`${capital(type)}: ${ofType.map(familyText).join(', ')}.`, '');
  }
  for (const { families: names, reason } of missing) {
    lines.push(`Missing: ${names.map((family) => `\`${family}\``).join(', ')}: ${reason}.`, '');
  }
  return `${lines.join('\n')}`;
}

function familyText([name, { labels }]: readonly [string, DocumentedFamily]): string {
  return `\`${name}${labels.size === 0 ? '' : `{${[...labels].sort().join(',')}}`}\``;
}

function optionLine({ name, placeholder, default: value, defaultHelp, help }: OptionRow<unknown>): string {
  const given = defaultHelp ?? (value === undefined || value === '' ? undefined : `\`${value}\``);
  const flag = `--${name}${placeholder === undefined ? '' : `=${placeholder}`}`;
  return `- \`${flag}\`: ${help}${given === undefined ? '' : ` Default: ${given}`}`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
