import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

/** A query, and what is shown beside its line. */
export type Query = readonly [expr: string, legend: string];

export interface Shown {
  readonly title: string;
  readonly description: string;
  /** One of Grafana's: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts */
  readonly unit: string;
  readonly queries: readonly Query[];
  /** Of 24; 8 by default. */
  readonly width?: number;
}

export interface GraphOptions extends Shown {
  readonly stacked?: true;
  readonly min?: number;
  readonly max?: number;
}

export interface StatOptions extends Shown {
  /** From which value on it is yellow, and red. */
  readonly thresholds?: readonly [yellow: number, red: number];
}

const source: common.DataSourceRef = { type: 'prometheus', uid: `\${datasource}` };

/** Lines over time. */
export function graph(options: GraphOptions): Builder<dashboard.Panel> {
  const panel = new timeseries.PanelBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(source)
    .unit(options.unit)
    .span(options.width ?? 8)
    .height(8)
    .lineWidth(1)
    .fillOpacity(options.stacked ? 30 : 5)
    .showPoints(common.VisibilityMode.Never)
    .min(options.min ?? 0)
    .legend(
      new common.VizLegendOptionsBuilder()
        .showLegend(true)
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom),
    )
    .tooltip(
      new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending),
    )
    .targets(options.queries.map(([expr, legend], at) => target(expr, at).legendFormat(legend).range()));
  if (options.max !== undefined) panel.max(options.max);
  if (options.stacked) panel.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
  return panel;
}

/** The newest value, as a large number. */
export function number(options: StatOptions): Builder<dashboard.Panel> {
  const [yellow, red] = options.thresholds ?? [];
  const steps = [{ value: null, color: 'green' } as unknown as dashboard.Threshold];
  if (yellow !== undefined) steps.push({ value: yellow, color: 'yellow' });
  if (red !== undefined) steps.push({ value: red, color: 'red' });
  return new stat.PanelBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(source)
    .unit(options.unit)
    .span(options.width ?? 4)
    .height(4)
    .thresholds(new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps))
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']))
    .graphMode(common.BigValueGraphMode.None)
    .targets(options.queries.map(([expr, legend], at) => target(expr, at).legendFormat(legend).instant()));
}

export interface Column {
  readonly title: string;
  readonly unit: string;
  readonly expr: string;
}

/** A line for each `by`, with the newest values. `link`: where a click on it leads. */
export function lines(options: {
  readonly title: string;
  readonly description: string;
  readonly by: readonly string[];
  readonly columns: readonly Column[];
  readonly link?: string;
  readonly height?: number;
}): Builder<dashboard.Panel> {
  const { by, columns, link } = options;
  const panel = new table.PanelBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(source)
    .unit('none')
    .span(24)
    .height(options.height ?? 8)
    .targets(columns.map(({ expr }, at) => target(expr, at).instant().format(prometheus.PromQueryFormat.Table)))
    .transformations([
      { id: 'merge', options: {} },
      {
        id: 'organize',
        options: {
          excludeByName: { Time: true },
          indexByName: Object.fromEntries(
            [...by, ...columns.map((_, at) => columnOf(at))].map((name, at) => [name, at]),
          ),
          renameByName: Object.fromEntries(columns.map(({ title }, at) => [columnOf(at), title])),
        },
      },
    ]);
  for (const { title, unit } of columns) panel.overrideByName(title, [{ id: 'unit', value: unit }]);
  if (link !== undefined) panel.overrideByName(by[0]!, [{ id: 'links', value: [{ title: 'Open', url: link }] }]);
  return panel;
}

function target(expr: string, at: number) {
  return new prometheus.DataqueryBuilder().refId(refId(at)).expr(expr).datasource(source);
}

function refId(at: number): string {
  return String.fromCharCode('A'.charCodeAt(0) + at);
}

/** The name of a column of values, when several queries are merged. */
function columnOf(at: number): string {
  return `Value #${refId(at)}`;
}

export interface DashboardOptions {
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  /** Whether $agent may be several hosts. */
  readonly agents: 'one' | 'several';
  readonly rows: readonly { readonly title: string; readonly panels: readonly Builder<dashboard.Panel>[] }[];
}

/** A dashboard with the variables and annotations that all of ours have. */
export function dashboardOf({ uid, title, description, agents, rows }: DashboardOptions): dashboard.Dashboard {
  const agent = agents === 'one' ? 'agent="$agent"' : 'agent=~"$agent"';
  const agentVariable = queryVariable('agent', 'Agent', 'label_values(sysmon_agent_up{job=~"$job"}, agent)');
  const builder = new dashboard.DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['sysmon'])
    .readonly()
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .time({ from: 'now-3h', to: 'now' })
    .refresh('30s')
    .link(
      new dashboard.DashboardLinkBuilder('sysmon')
        .type(dashboard.DashboardLinkType.Dashboards)
        .tags(['sysmon'])
        .keepTime(true),
    )
    .withVariable(new dashboard.DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'))
    .withVariable(everything(queryVariable('job', 'Job', 'label_values(sysmon_agent_up, job)')))
    .withVariable(agents === 'one' ? agentVariable : everything(agentVariable))
    // By any label, such as those of --label: Grafana adds it to each query.
    .withVariable(new dashboard.AdHocVariableBuilder('filters').label('Labels').datasource(source))
    .annotation(annotation('Filled afterwards', { color: 'blue', expr: filledAfterwards(`job=~"$job",${agent}`) }))
    .annotation(annotation('Down', { color: 'red', expr: missing(`job=~"$job",${agent}`) }))
    .annotation(annotation('Alerts', { color: 'orange', expr: `ALERTS{alertstate="firing",${agent}}` }));
  for (const row of rows) {
    builder.withRow(new dashboard.RowBuilder(row.title));
    for (const panel of row.panels) builder.withPanel(panel);
  }
  const built = builder.build();
  // The builder gives none to panels, and the same one to all rows.
  built.panels?.forEach((panel, at) => {
    panel.id = at + 1;
  });
  return built;
}

function queryVariable(name: string, label: string, query: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name)
    .label(label)
    .query(query)
    .datasource(source)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc);
}

function everything(variable: dashboard.QueryVariableBuilder): dashboard.QueryVariableBuilder {
  return variable.multi(true).includeAll(true).allValue('.+').current({ text: 'All', value: '$__all' });
}

function annotation(name: string, { color, expr }: { color: string; expr: string }): dashboard.AnnotationQueryBuilder {
  return new dashboard.AnnotationQueryBuilder()
    .name(name)
    .enable(true)
    .iconColor(color)
    .datasource(source)
    .expr(expr)
    .step('30s')
    .titleFormat(name === 'Alerts' ? '{{alertname}}' : name)
    .textFormat('{{agent}}')
    .tagKeys('agent,severity');
}

/**
 * When the reports of an agent did not arrive, and are there nevertheless. `sysmon_agent_up` is as of the scrape, and keeps
 * saying that there was none; the reports have the times at which they were made. Where the server itself was not scraped
 * there is no `sysmon_agent_up`. A report just before and one just after are asked for, since around a host that was down
 * there is only one of them.
 */
export function filledAfterwards(selector: string): string {
  const reports = `sysmon_agent_reports_sampled_total{${selector}}`;
  const there = `(count_over_time(${reports}[1m]) and on (agent) count_over_time(${reports}[1m] offset -1m))`;
  const up = `sysmon_agent_up{${selector},source=""}`;
  return `${there} and on (agent) (${up} == 0) or ${there} unless on (agent) count_over_time(${up}[1m])`;
}

/** When an agent was down and made no reports, or none that have arrived yet. */
export function missing(selector: string): string {
  const reports = `sysmon_agent_reports_sampled_total{${selector}}`;
  return `sysmon_agent_up{${selector},source=""} == 0 unless on (agent) count_over_time(${reports}[1m])`;
}
