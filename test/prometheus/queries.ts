import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { rootFile } from '../support/files.ts';

// What is asked of Prometheus by what prometheus/ ships: dashboards, rules, alerts.

export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title?: string;
  readonly description?: string;
  readonly datasource?: { readonly type: string; readonly uid: string };
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

export interface Variable {
  readonly type: string;
  readonly name: string;
  readonly label?: string;
  readonly query?: string;
  readonly datasource?: { readonly uid: string };
  readonly multi?: boolean;
  readonly includeAll?: boolean;
  readonly allValue?: string;
  readonly refresh?: number;
}

export interface DashboardFile {
  readonly file: string;
  readonly uid: string;
  readonly title: string;
  readonly editable: boolean;
  readonly templating: { readonly list: readonly Variable[] };
  readonly annotations: { readonly list: readonly { readonly name: string; readonly expr: string }[] };
  readonly panels: readonly Panel[];
}

export const dashboardFiles: readonly DashboardFile[] = ['fleet.json', 'host.json'].map((file) => ({
  ...(JSON.parse(readFileSync(rootFile(`prometheus/grafana/${file}`), 'utf8')) as Omit<DashboardFile, 'file'>),
  file,
}));

export interface Asked {
  /** Which panel, annotation or rule. */
  readonly where: string;
  readonly expr: string;
}

/** Of both dashboards, as they are there: with Grafana's variables. */
export const dashboardQueries: readonly Asked[] = dashboardFiles.flatMap(({ file, panels, annotations }) => [
  ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ where: `${file}: ${title}`, expr }))),
  ...annotations.list.map(({ name, expr }) => ({ where: `${file}: annotation ${name}`, expr })),
]);

interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly labels?: { readonly severity: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

export const ruleFiles = ['prometheus/rules/host.yml', 'prometheus/rules/alerts.yml'].map(rootFile);

export const rulesOf = (file: string): readonly Rule[] =>
  (parse(readFileSync(file, 'utf8')) as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules);

/** As Grafana asks it. */
export function asked(expr: string, { agent, range }: { readonly agent: string; readonly range: string }): string {
  return expr
    .replaceAll('$__rate_interval', range)
    .replaceAll('$__range', range)
    .replaceAll('$job', '.+')
    .replaceAll('$agent', agent);
}

/** Each selector in an expression: the metric, its matchers, and the function and range around it, if there are. */
export function selectorsOf(
  expr: string,
): { readonly metric: string; readonly matchers: string; readonly around: string; readonly range: string }[] {
  return [
    ...expr.matchAll(
      /(?:(\w+)\(\s*)?\b((?:node_|sysmon_|instance|agent_chip_sensor|apt_|ALERTS|up\b)[\w:]*)(?:\{([^}]*)\})?(?:\[([^\]]+)\])?/g,
    ),
  ].map(([, around = '', metric, matchers = '', range = '']) => ({ metric: metric!, matchers, around, range }));
}
