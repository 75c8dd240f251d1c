import { escapeLabelValue } from '../../../model/text-format.ts';
import { ageText, plural } from '../../../runtime/words.ts';
import type { AgentRecord } from '../../delivery/agent-record.ts';
import type { AgentStatus } from '../../status.ts';
import type { ProblemsView } from '../api.ts';
import type { Reply } from '../reply.ts';
import { charts, chartsOf, historyOf, pointsOf, unitText } from './charts.ts';
import { ageOf, hostView } from './hosts.ts';
import { escapeHtml, optional, percentText, rateText, sizeText, tableHtml } from './html.ts';
import { page } from './layout.ts';
import { Reading } from './reading.ts';
import { lineSvg, rangeText } from './spark.ts';
import { failedCollectorsOf, fileSystemsOf, Since, type Vitals } from './vitals.ts';

export interface AgentPageOptions {
  readonly agent: AgentStatus;
  readonly record: AgentRecord;
  readonly words: ProblemsView;
  readonly nowMs: number;
  /** What its series are searched for. */
  readonly search: string;
}

/** The page of one host: whole without script. */
export function agentPage(options: AgentPageOptions): Reply {
  const { agent, record } = options;
  const { state, tables } = partsOf(options);
  const main = `<div id=state>${state}</div>
<p id=live class=soft role=status></p>
<div id=charts data-agent="${agent.name}">${chartsHtml(historyOf(record.host.window), { hasLines: true })}</div>
<div id=tables>${tables}</div>
`;
  return page({ title: `sysmon: ${agent.name}`, path: '', main, scripts: ['agent.js'], styles: ['uPlot.css'] });
}

/** All of the same page that changes while it is open, for its script. */
export function agentLive(options: AgentPageOptions): Reply {
  const history = historyOf(options.record.host.window);
  const figures = chartsHtml(history, { hasLines: false });
  const body = JSON.stringify({ parts: partsOf(options), figures, charts: chartsOf(history) });
  return { code: 200, type: 'application/json', body, headers: { 'Cache-Control': 'no-store' } };
}

/** By the id of its element. HTML. */
function partsOf(options: AgentPageOptions): { readonly state: string; readonly tables: string } {
  const { agent, record, words, search } = options;
  const { window } = record.host;
  const view = hostView(agent, record, words);
  const [oldest] = window.recent;
  const newest = window.recent.at(-1);
  const now = newest && new Reading(newest);
  const since = now === undefined || oldest === undefined ? undefined : new Since(now, new Reading(oldest));
  const problems = view.problems.map(({ text }) => `<li>${escapeHtml(text)}`);
  return {
    state: `<h1>${escapeHtml(agent.name)} <span class=${view.state === 'down' ? 'down' : view.state === 'up' ? 'up' : 'warn'}>${escapeHtml(view.state)}</span></h1>
${problems.length === 0 ? '<p class=calm>Nothing is wrong.</p>' : `<div class=wrong><ul>${problems.join('')}</ul></div>`}
${factsHtml(options)}`,
    tables:
      now === undefined
        ? '<p>There is no report in its window.</p>'
        : [
            ...[fileSystemsHtml(now), interfacesHtml(since), servicesHtml(now, since), sensorsHtml(now)],
            ...[collectorsHtml(now), seriesHtml(now, agent, search)],
          ].join(''),
  };
}

function factsHtml({ agent, nowMs }: AgentPageOptions): string {
  const ago = (iso: string) => `${ageText(nowMs - Date.parse(iso))} ago`;
  const offset = agent.clockOffsetSeconds;
  const { spoolReports } = agent;
  const facts: [string, string | undefined][] = [
    [
      'Labels',
      Object.entries(agent.labels)
        .map(([name, value]) => `${name}=${value}`)
        .join(', ') || 'none',
    ],
    [
      'Newest report',
      agent.newestAt === undefined
        ? 'none'
        : `${ageOf(agent, nowMs)} ago; one each ${agent.intervalSeconds} s, ${plural(agent.series, 'series', 'series')}`,
    ],
    [
      'Connection',
      agent.peer === undefined
        ? 'not connected'
        : `${agent.peer}${agent.connectedAt === undefined ? '' : `, since ${ago(agent.connectedAt)}`}`,
    ],
    ['Key', keyText(agent)],
    ['Program', agent.software],
    [
      'Clock',
      offset === 0
        ? 'right, as far as the server can tell'
        : `${Math.abs(offset)} s ${offset > 0 ? 'behind' : 'ahead'}: its times are corrected`,
    ],
    ['Waits in its spool', spoolReports === undefined ? undefined : plural(spoolReports, 'report')],
    ['In the window', `${plural(agent.windowReports, 'report')} in ${sizeText(agent.windowBytes)}`],
    [
      'Not scraped',
      agent.unscrapedBy.length === 0
        ? 'nobody scrapes'
        : agent.unscrapedBy.map(({ scraper, reports }) => `${plural(reports, 'report')} by ${scraper}`).join(', '),
    ],
  ];
  const lines = facts.flatMap(([name, value]) => (value === undefined ? [] : [`<dt>${name}<dd>${escapeHtml(value)}`]));
  return `<dl>${lines.join('')}</dl>
<p><a href="/api/v1/agents/${agent.name}">As JSON</a></p>`;
}

/** `NAME:GENERATION:FLEETKEYID` in words. */
function keyText({ identity }: AgentStatus): string {
  const [, generation, fleetKey] = /:(\d+):(\w+)$/.exec(identity ?? '') ?? [];
  return generation === undefined ? 'none' : `generation ${generation}, of fleet key ${fleetKey}`;
}

/** `hasLines`: drawn by the server, until a script draws them. */
function chartsHtml(history: readonly Vitals[], { hasLines }: { readonly hasLines: boolean }): string {
  const figures = charts.flatMap((chart) => {
    const points = pointsOf(history, chart);
    const text = unitText[chart.unit];
    const range = rangeText(points, text);
    const label = `${chart.title}: ${range}`;
    const svg = lineSvg(points, { width: 360, height: 80, most: chart.unit === 'share' ? 1 : 0, label });
    if (svg === '') return [];
    return `<figure data-chart=${chart.id} data-unit="${chart.unit}"><figcaption>${chart.title} <span class=soft>${escapeHtml(range)}</span></figcaption>${hasLines ? svg : ''}</figure>`;
  });
  if (figures.length === 0) return '';
  return `<h2>The window</h2><section class=charts aria-label=Charts>${figures.join('\n')}</section>`;
}

function fileSystemsHtml(now: Reading): string {
  const rows = fileSystemsOf(now)
    .sort((a, b) => b.used - a.used)
    .map(({ mountpoint, device, fstype, used, sizeBytes, availableBytes }) => [
      ...[mountpoint, device, fstype].map(escapeHtml),
      ...[percentText(used), sizeText(availableBytes), sizeText(sizeBytes)],
    ]);
  return section('File systems', 'Mounted at,Device,Type,#Used,#Available,#Size', rows);
}

function interfacesHtml(since: Since | undefined): string {
  if (since === undefined) return '';
  const rates = [
    'receive_bytes',
    'transmit_bytes',
    'receive_errs',
    'receive_drop',
    'transmit_errs',
    'transmit_drop',
  ].map((name) => since.rates(`node_network_${name}_total`, 'device'));
  const [received, sent, ...faults] = rates as [Map<string, number>, Map<string, number>, ...Map<string, number>[]];
  const rows = [...received.keys()]
    .sort()
    .map((device) => [
      escapeHtml(device),
      ...[received, sent].map((each) => rateText(each.get(device) ?? 0)),
      faults.reduce((sum, each) => sum + (each.get(device) ?? 0), 0).toFixed(1),
    ]);
  return section('Interfaces', 'Interface,#Received,#Sent,#Errors and drops a second', rows);
}

function servicesHtml(now: Reading, since: Since | undefined): string {
  const cpu = since?.rates('node_systemd_unit_cpu_seconds_total', 'name') ?? new Map<string, number>();
  const memory = new Map(
    [...now.series('node_systemd_unit_memory_current_bytes')].map(({ labels, value }) => [
      labels.get('name') ?? '',
      value,
    ]),
  );
  const names = new Set([...cpu.keys(), ...memory.keys()]);
  const numberOf = (values: ReadonlyMap<string, number>, name: string, text: (value: number) => string) => {
    const value = values.get(name);
    return optional(value === undefined ? undefined : text(value));
  };
  const rows = [...names]
    .filter((name) => !name.endsWith('.slice')) // the sum of what is in it
    .sort((a, b) => (cpu.get(b) ?? 0) - (cpu.get(a) ?? 0) || (memory.get(b) ?? 0) - (memory.get(a) ?? 0))
    .map((name) => [escapeHtml(name), numberOf(cpu, name, percentText), numberOf(memory, name, sizeText)]);
  return section('Services', 'Unit,#CPU of one core,#Memory', rows, rowsMax);
}

function sensorsHtml(now: Reading): string {
  const rows = ['node_hwmon_temp_celsius', 'node_thermal_zone_temp', 'node_hwmon_fan_rpm'].flatMap((name) =>
    [...now.series(name)].map(({ labels, value }) => [
      escapeHtml([...labels].map(([, text]) => text).join(' ')),
      name.endsWith('rpm') ? `${Math.round(value)} rpm` : `${Math.round(value)} °C`,
    ]),
  );
  return section('Sensors', 'Sensor,#Now', rows, rowsMax);
}

function collectorsHtml(now: Reading): string {
  const durations = new Map(
    [...now.series('node_scrape_collector_duration_seconds')].map(({ labels, value }) => [
      labels.get('collector') ?? '',
      value,
    ]),
  );
  const failures = new Map(failedCollectorsOf(now).map(({ name, reason }) => [name, reason]));
  const rows = [...now.series('node_scrape_collector_success')].map(({ labels, value }) => {
    const name = labels.get('collector') ?? '';
    const failure = failures.get(name);
    return [
      escapeHtml(name),
      `${((durations.get(name) ?? 0) * 1000).toFixed(2)} ms`,
      failure !== undefined
        ? `<span class=warn>fails:</span> ${escapeHtml(failure)}`
        : value === 1
          ? 'has data'
          : '<span class=soft>nothing of the kind here</span>',
    ];
  });
  return section('Collectors', 'Collector,#Duration,State', rows);
}

/** All series with their newest values, and the PromQL that selects each. */
function seriesHtml(now: Reading, agent: AgentStatus, search: string): string {
  const words = search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const rows: string[][] = [];
  let found = 0;
  for (const { name, labels, value, help } of now.all()) {
    const own = [...labels].map(([label, text]) => `${label}="${escapeLabelValue(text)}"`);
    const selector = `${name}{${[`agent="${agent.name}"`, ...own].join(',')}}`;
    const text = selector.toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    if (++found > seriesMax) continue;
    rows.push([`<code title="${escapeHtml(help)}">${escapeHtml(selector)}</code>`, String(value)]);
  }
  const more = found > seriesMax ? `, the first ${seriesMax} are shown` : '';
  return `<h2 id=series>Series</h2>
<form action="/agents/${agent.name}#series" role=search><label>Name and labels have<input name=series value="${escapeHtml(search)}"></label><button>Search</button></form>
<p class=soft>${plural(found, 'series', 'series')}${search === '' ? '' : ' found'}${more}.</p>
${rows.length === 0 ? '' : tableHtml('Series', [{ title: 'PromQL' }, { title: 'Newest value', isNumber: true }], rows)}`;
}

/** A heading and a table, where there are rows. `titles`: with commas between them, a `#` before those of numbers. */
function section(title: string, titles: string, rows: readonly (readonly string[])[], countMax = Infinity): string {
  if (rows.length === 0) return '';
  const columns = titles.split(',').map((each) => ({ title: each.replace(/^#/, ''), isNumber: each.startsWith('#') }));
  const cut =
    rows.length > countMax
      ? `<p class=soft>The first ${countMax} of ${rows.length} are shown; <a href="#series">all series</a> are below.</p>\n`
      : '';
  return `<h2>${title}</h2>\n${tableHtml(title, columns, rows.slice(0, countMax))}${cut}`;
}

const rowsMax = 50;
const seriesMax = 500;
