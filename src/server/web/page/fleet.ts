import { ageText, plural } from '../../../runtime/words.ts';
import type { AgentStatus, ServerStatus } from '../../status.ts';
import type { Reply } from '../reply.ts';
import { ageOf, type FleetProblem, fleetProblems, type HostView, versionOf } from './hosts.ts';
import { escapeHtml, optional, percentText, rateText, roundedSize } from './html.ts';
import { page } from './layout.ts';
import { lineSvg, type Point, rangeText } from './spark.ts';

/** How a host becomes an agent: with a key, or with the port of agents alone. */
export type Joining =
  | { readonly kind: 'by-key' }
  | { readonly kind: 'without-key'; readonly isLoopback: boolean; readonly port: number };

/** A host with what its line needs beside. */
export interface FleetHost extends HostView {
  readonly trend: readonly Point[];
}

/** What the URL of the page chooses. */
export interface FleetQuery {
  /** Text in the name or a label. */
  readonly text: string;
  readonly state: (typeof states)[number];
  readonly label: string;
  readonly sort: ColumnId;
  readonly order: 'asc' | 'desc';
}

const states = ['all', 'up', 'down', 'problems'] as const;

interface FleetColumn {
  readonly id: string;
  readonly title: string;
  readonly isNumber: boolean;
  /** HTML. */
  cell(host: FleetHost, nowMs: number): string;
  /** By what its rows are sorted, no finer than it is shown: rows that look the same keep their order. Undefined comes last. */
  key(host: FleetHost, nowMs: number): number | string | undefined;
}

const percentOf = (value: number | undefined): number | undefined => value && Math.round(value * 100);
const share = (value: number | undefined): string => optional(value === undefined ? undefined : percentText(value));

/** One for each thing that is shown of a host, in their order. */
const columns = [
  {
    id: 'host',
    title: 'Host',
    isNumber: false,
    cell: ({ agent: { name, labels } }) =>
      `<a href="/agents/${name}">${escapeHtml(name)}</a>${Object.entries(labels)
        .map(([label, value]) => ` <span class=soft>${escapeHtml(`${label}=${value}`)}</span>`)
        .join('')}`,
    key: ({ agent }) => agent.name,
  },
  {
    id: 'state',
    title: 'State',
    isNumber: false,
    cell({ state, agent, problems }, nowMs) {
      if (state === 'up' && problems.length === 0) return '<span class=up>up</span>';
      if (state === 'up') return `<span class=warn>up, ${plural(problems.length, 'problem')}</span>`;
      const since = agent.lastReportAt === undefined ? '' : ` for ${ageText(nowMs - Date.parse(agent.lastReportAt))}`;
      return state === 'down' ? `<span class=down>down${since}</span>` : escapeHtml(state);
    },
    key: ({ state, problems }) => (state === 'down' ? 0 : problems.length > 0 ? 1 : state === 'up' ? 3 : 2),
  },
  {
    id: 'newest',
    title: 'Newest report',
    isNumber: true,
    // Of one that keeps up it would change with every report, and say nothing.
    cell: ({ agent, state }, nowMs) =>
      state === 'up' && isFresh(agent, nowMs)
        ? 'now'
        : agent.newestAt === undefined
          ? 'none'
          : `${ageOf(agent, nowMs)} ago`,
    key({ agent, state }, nowMs) {
      if (state === 'up' && isFresh(agent, nowMs)) return -Infinity;
      return agent.newestAt === undefined ? undefined : -Date.parse(agent.newestAt);
    },
  },
  {
    id: 'cpu',
    title: 'CPU',
    isNumber: true,
    cell: ({ vitals, trend }) =>
      `${share(vitals?.cpu)}${lineSvg(trend, { width: 60, height: 16, most: 1, className: 's', label: `CPU over the window: ${rangeText(trend, percentText)}` })}`,
    key: ({ vitals }) => percentOf(vitals?.cpu),
  },
  {
    id: 'memory',
    title: 'Memory',
    isNumber: true,
    cell: ({ vitals }) => share(vitals?.memory),
    key: ({ vitals }) => percentOf(vitals?.memory),
  },
  {
    id: 'disk',
    title: 'Fullest disk',
    isNumber: true,
    cell: ({ vitals }) =>
      optional(vitals?.disk && `${escapeHtml(vitals.disk.mountpoint)} ${percentText(vitals.disk.used)}`),
    key: ({ vitals }) => percentOf(vitals?.disk?.used),
  },
  {
    id: 'io',
    title: 'Disk I/O',
    isNumber: true,
    cell: ({ vitals }) => optional(sumText(vitals?.readBytes, vitals?.writtenBytes)),
    key: ({ vitals }) => roundedSumOf(vitals?.readBytes, vitals?.writtenBytes),
  },
  {
    id: 'network',
    title: 'Network',
    isNumber: true,
    cell: ({ vitals }) => optional(sumText(vitals?.receivedBytes, vitals?.sentBytes)),
    key: ({ vitals }) => roundedSumOf(vitals?.receivedBytes, vitals?.sentBytes),
  },
  {
    id: 'load',
    title: 'Load by core',
    isNumber: true,
    cell: ({ vitals }) => optional(vitals?.load?.toFixed(2)),
    key: ({ vitals }) => percentOf(vitals?.load),
  },
  {
    id: 'pressure',
    title: 'Pressure',
    isNumber: true,
    cell: ({ vitals }) =>
      optional(vitals?.pressure && `${vitals.pressure.resource} ${percentText(vitals.pressure.share)}`),
    key: ({ vitals }) => percentOf(vitals?.pressure?.share),
  },
  {
    id: 'celsius',
    title: 'Hottest',
    isNumber: true,
    cell: ({ vitals }) => optional(vitals?.celsius === undefined ? undefined : `${Math.round(vitals.celsius)} °C`),
    key: ({ vitals }) => vitals?.celsius && Math.round(vitals.celsius),
  },
  {
    id: 'failed',
    title: 'Failed services',
    isNumber: true,
    cell: ({ vitals }) => optional(vitals?.failedUnits && String(vitals.failedUnits.length)),
    key: ({ vitals }) => vitals?.failedUnits?.length,
  },
  {
    id: 'uptime',
    title: 'Uptime',
    isNumber: true,
    cell: ({ vitals }) =>
      optional(vitals?.uptimeSeconds === undefined ? undefined : ageText(vitals.uptimeSeconds * 1000)),
    // When it was booted, which does not change from report to report.
    key: ({ vitals }) =>
      vitals?.uptimeSeconds === undefined ? undefined : Math.round(vitals.uptimeSeconds - vitals.timeMs / 1000),
  },
  {
    id: 'version',
    title: 'Version',
    isNumber: false,
    cell: ({ agent }) => escapeHtml(versionOf(agent) ?? 'unknown'),
    key: ({ agent }) => versionOf(agent),
  },
  {
    id: 'spool',
    title: 'Waits in spool',
    isNumber: true,
    cell: ({ agent: { spoolReports } }) => optional(spoolReports === undefined ? undefined : waitingText(spoolReports)),
    key: ({ agent: { spoolReports } }) => (spoolReports === undefined ? undefined : backlogOf(spoolReports)),
  },
  {
    id: 'unscraped',
    title: 'Waits in window',
    isNumber: true,
    cell: ({ agent }) => waitingHtml(agent),
    key: ({ agent: { unscrapedReports } }) => (unscrapedReports === null ? undefined : backlogOf(unscrapedReports)),
  },
] as const satisfies readonly FleetColumn[];

type ColumnId = (typeof columns)[number]['id'];

const isFresh = ({ newestAt, intervalSeconds }: AgentStatus, nowMs: number): boolean =>
  newestAt !== undefined && nowMs - Date.parse(newestAt) < 3000 * intervalSeconds + 5000;
const sumOf = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined && b === undefined ? undefined : (a ?? 0) + (b ?? 0);
const roundedSumOf = (a: number | undefined, b: number | undefined): number | undefined => {
  const sum = sumOf(a, b);
  return sum === undefined ? undefined : roundedSize(sum);
};
const sumText = (a: number | undefined, b: number | undefined): string | undefined => {
  const sum = sumOf(a, b);
  return sum === undefined ? undefined : rateText(sum);
};

/** Which scrapers have not had how many reports, where there are several. */
function waitingHtml({ unscrapedReports, unscrapedBy }: AgentStatus): string {
  if (unscrapedReports === null) return optional(undefined);
  const late = unscrapedBy.filter(({ reports }) => reports >= waitingReportsMin);
  if (late.length === 0) return '0';
  if (unscrapedBy.length === 1) return String(unscrapedReports);
  return late.map(({ scraper, reports }) => `${reports} ${escapeHtml(scraper)}`).join('<br>');
}

/** What was made since the last scrapes is no backlog. */
const backlogOf = (reports: number): number => (reports < waitingReportsMin ? 0 : reports);
const waitingText = (reports: number): string => String(backlogOf(reports));
const waitingReportsMin = 10;

/** From the query of a URL. What is not known counts as not said. */
export function parseFleetQuery(query: string): FleetQuery {
  const parameters = new URLSearchParams(query);
  const sort = columns.find(({ id }) => id === parameters.get('sort'))?.id ?? 'host';
  const isText = sort === 'host' || sort === 'version' || sort === 'state';
  const order = parameters.get('order');
  return {
    text: (parameters.get('q') ?? '').slice(0, 100),
    state: states.find((each) => each === parameters.get('state')) ?? 'all',
    label: (parameters.get('label') ?? '').slice(0, 200),
    sort,
    order: order === 'asc' || order === 'desc' ? order : isText ? 'asc' : 'desc',
  };
}

/** The same for each query that chooses the same. */
export function urlOf({ text, state, label, sort, order }: FleetQuery): string {
  const parameters = new URLSearchParams();
  if (text !== '') parameters.set('q', text);
  if (state !== 'all') parameters.set('state', state);
  if (label !== '') parameters.set('label', label);
  parameters.set('sort', sort);
  parameters.set('order', order);
  return `/?${parameters}`;
}

/** Those that the query chooses, in its order. */
export function chosen(hosts: readonly FleetHost[], query: FleetQuery, nowMs: number): FleetHost[] {
  const text = query.text.toLowerCase();
  const [labelName = '', ...labelValue] = query.label.split('=');
  const kept = hosts.filter(({ agent, state, problems }) => {
    if (text !== '') {
      const labels = Object.entries(agent.labels).map(([name, value]) => `${name}=${value}`);
      if (![agent.name, ...labels].some((each) => each.toLowerCase().includes(text))) return false;
    }
    if (query.label !== '' && (agent.labels[labelName] ?? '') !== labelValue.join('=')) return false;
    if (query.state === 'up') return state === 'up';
    if (query.state === 'down') return state === 'down';
    return query.state === 'all' || problems.length > 0;
  });
  const { key } = columns.find(({ id }) => id === query.sort)!;
  const sign = query.order === 'asc' ? 1 : -1;
  const keys = new Map(kept.map((host) => [host, key(host, nowMs)]));
  return kept.sort((a, b) => {
    const [left, right] = [keys.get(a), keys.get(b)];
    if (left === right) return a.agent.name < b.agent.name ? -1 : 1;
    if (left === undefined) return 1;
    if (right === undefined) return -1;
    return (left < right ? -1 : 1) * sign;
  });
}

/** Which hosts a page shows, in their order. */
export interface Table {
  readonly names: readonly string[];
  /** How many hosts there are. */
  readonly of: number;
}

export const tableOf = (hosts: readonly FleetHost[], query: FleetQuery, nowMs: number): Table => ({
  names: chosen(hosts, query, nowMs).map(({ agent }) => agent.name),
  of: hosts.length,
});

/** The cells of a host's line. */
export const cellsOf = (host: FleetHost, nowMs: number): string[] => columns.map(({ cell }) => cell(host, nowMs));

/** The line of a host. */
export function rowHtml(name: string, [first, ...others]: readonly string[]): string {
  const tds = others.map((cell, at) => `<td${columns[at + 1]!.isNumber ? '' : ' class=t'}>${cell}`);
  return `<tr data-host="${name}"><th scope=row>${first}${tds.join('')}\n`;
}

/** What is above the table, by the id of its element. HTML. */
export interface Parts {
  readonly headline: string;
  readonly about: string;
  readonly problems: string;
}

export function partsOf(
  hosts: readonly FleetHost[],
  server: ServerStatus,
  { nowMs, ...options }: Parameters<typeof fleetProblems>[2] & { readonly nowMs: number },
): Parts {
  return {
    headline: headline(server),
    about: `Version ${escapeHtml(server.version)}, up for ${ageText(nowMs - Date.parse(server.startedAt))}.`,
    problems: problemsHtml(hosts, server, options),
  };
}

export interface FleetPageOptions {
  /** Of all hosts. */
  readonly cells: ReadonlyMap<string, readonly string[]>;
  readonly parts: Parts;
  readonly table: Table;
  readonly query: FleetQuery;
  readonly joining: Joining;
  /** Which changes it has already. */
  readonly revision: number;
}

/** The page at `/`: whole without script. */
export function fleetPage(options: FleetPageOptions): Reply {
  const { table, query, joining, parts, revision } = options;
  const main = `<h1 id=headline>${parts.headline}</h1>
<p class=soft><span id=about>${parts.about}</span> <span id=live role=status></span></p>
<div id=problems>${parts.problems}</div>
<section id=hosts data-revision=${revision} data-of=${table.of} aria-label=Hosts>
${table.of === 0 ? `<p>No agent has reported yet. ${joiningHtml(joining)}</p>` : `${formHtml(query)}${tableHtml(options)}`}
</section>
`;
  return page({ title: parts.headline, path: '/', main, scripts: ['fleet.js'] });
}

const headline = ({ agents: { up, known } }: ServerStatus): string =>
  `sysmon: ${known === 0 ? 'no agents yet' : `${up} of ${plural(known, 'agent')} up`}`;

/** What is wrong and what to do. What is wrong with the server is never cut, of hosts the worst are shown. */
export function problemsHtml(...problems: Parameters<typeof fleetProblems>): string {
  const all = fleetProblems(...problems);
  if (all.length === 0) return '<p class=calm>Nothing is wrong.</p>';
  // By what they are of, in the order of the worst of each.
  const groups = new Map<string, [FleetProblem, ...FleetProblem[]]>();
  for (const problem of all) {
    const key = JSON.stringify(problem.kind === 'server' ? [problem.text] : [problem.kind, problem.name]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [problem]);
    else group.push(problem);
  }
  const items: string[] = [];
  let hosts = 0;
  for (const group of groups.values()) {
    if (group[0].kind === 'agent' && ++hosts > hostsShown) continue;
    items.push(`<li>${groupHtml(group)}`);
  }
  if (hosts > hostsShown) {
    const more = plural(hosts - hostsShown, 'more host');
    items.push(`<li>and ${more}: <a href="/?state=problems&amp;sort=state">all hosts with problems</a>`);
  }
  return `<div class=wrong><h2>${plural(all.length, 'thing is', 'things are')} wrong</h2><ul>${items.join('\n')}</ul></div>`;
}

/** Those of one host or scraper: the page behind its name has all. */
function groupHtml(group: readonly [FleetProblem, ...FleetProblem[]]): string {
  const [first] = group;
  if (first.kind === 'server') return escapeHtml(first.text);
  const name = escapeHtml(first.name);
  const [path, who] = first.kind === 'agent' ? [`/agents/${first.name}`, name] : ['/scrapers', `scraper '${name}'`];
  const link = `<a href="${path}">${who}</a>`;
  if (group.length === 1) return `${link}: ${escapeHtml(first.text)}`;
  const items = group.slice(0, problemsShown).map(({ text }) => `<li>${escapeHtml(text)}`);
  const more = group.length - items.length;
  if (more > 0) items.push(`<li>and ${more} more of <a href="${path}">${who}</a>`);
  return `${link}:<ul>${items.join('')}</ul>`;
}

function formHtml({ text, state, label, sort, order }: FleetQuery): string {
  const options = states.map((each) => `<option${each === state ? ' selected' : ''}>${each}`).join('');
  return `<form action="/" role=search><label>Name or label has<input name=q value="${escapeHtml(text)}"></label>
<label>State<select name=state>${options}</select></label>
<label>Label<input name=label placeholder="site=north" value="${escapeHtml(label)}"></label>
<input type=hidden name=sort value=${sort}><input type=hidden name=order value=${order}><button>Filter</button></form>
`;
}

function tableHtml({ table: { names, of }, cells, query }: FleetPageOptions): string {
  if (names.length === 0) return `<p>None of ${plural(of, 'host')} is like that. <a href="/">All hosts</a></p>`;
  const head = columns.map(({ id, title, isNumber }) => {
    const isSorted = query.sort === id;
    const order = isSorted ? (query.order === 'desc' ? 'asc' : 'desc') : isNumber ? 'desc' : 'asc';
    const sorted = isSorted ? ` aria-sort=${query.order === 'asc' ? 'ascending' : 'descending'}` : '';
    return `<th scope=col${isNumber ? ' class=n' : ''}${sorted}><a href="${escapeHtml(urlOf({ ...query, sort: id, order }))}">${title}</a>`;
  });
  const rows = names.map((name) => rowHtml(name, cells.get(name)!));
  return `<div class=wide role=region aria-label="Table of hosts" tabindex=0><table><thead><tr>${head.join('')}<tbody>
${rows.join('')}</table></div>`;
}

function joiningHtml(joining: Joining): string {
  switch (joining.kind) {
    case 'by-key':
      return 'Run <code>sudo sysmon-server enroll NAME</code> on the host of the server: it prints how the host NAME joins.';
    case 'without-key':
      return joining.isLoopback
        ? `Run <code>sysmon-agent --server 127.0.0.1:${joining.port}</code> on the host of the server: without a fleet key no other one reaches it.`
        : `Run <code>sysmon-agent --server HOST:${joining.port}</code> on a host, where HOST is the name of the server's host.`;
  }
}

const hostsShown = 30;
/** Of one host or scraper. */
const problemsShown = 3;
