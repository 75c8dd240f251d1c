import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { dashboards, dashboardText } from '../../scripts/dashboards/index.ts';
import { filledAfterwards, missing } from '../../scripts/dashboards/parts.ts';
import { rootFile } from '../support/files.ts';
import { skipWithout } from '../support/installed.ts';
import { temporaryFolder } from '../support/programs.ts';
import { asked, type DashboardFile, dashboardFiles, dashboardQueries, type Panel, selectorsOf } from './queries.ts';

// The dashboards in prometheus/grafana: they are what scripts/dashboards makes, and hold the rules that
// https://github.com/grafana/dashboard-linter has for Prometheus. Each test is called after its rule.

const promtool = '/usr/bin/promtool';

test('the files are what npm run dashboards makes', () => {
  assert.deepEqual(readdirSync(rootFile('prometheus/grafana')).sort(), Object.keys(dashboards).sort());
  for (const [file, make] of Object.entries(dashboards)) {
    assert.equal(
      readFileSync(rootFile(`prometheus/grafana/${file}`), 'utf8'),
      dashboardText(make),
      'npm run dashboards',
    );
  }
  assert.deepEqual(
    dashboardFiles.map(({ file }) => file),
    Object.keys(dashboards),
  );
  assert.ok(dashboardQueries.length > 120, `${dashboardQueries.length} queries`);
});

test('panels have ids of their own, lie beside each other, and fill no more than the width', () => {
  for (const { file, panels } of dashboardFiles) {
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length, file);
    const taken = new Set<string>();
    for (const panel of panels) {
      const { x, y, w, h } = (panel as Panel & { gridPos: { x: number; y: number; w: number; h: number } }).gridPos;
      assert.ok(x + w <= 24, `${file}: ${panel.title}`);
      for (let row = y; row < y + h; row++) {
        for (let column = x; column < x + w; column++) {
          assert.ok(!taken.has(`${row} ${column}`), `${file}: ${panel.title} lies on another`);
          taken.add(`${row} ${column}`);
        }
      }
    }
  }
});

function eachPanel(check: (panel: Panel, where: string) => void): void {
  let count = 0;
  for (const { file, panels } of dashboardFiles) {
    for (const panel of panels) {
      if (panel.type === 'row') continue;
      count++;
      check(panel, `${file}: ${panel.title}`);
    }
  }
  assert.ok(count > 70, `${count} panels`);
}

function eachQuery(check: (expr: string, where: string, file: string) => void): void {
  for (const { file, panels } of dashboardFiles) {
    for (const { title, targets = [] } of panels) {
      for (const { expr } of targets) check(expr, `${file}: ${title}: ${expr}`, file);
    }
  }
}

const variable = ({ templating }: DashboardFile, name: string) => templating.list.find((each) => each.name === name);

test('template-datasource-rule', () => {
  for (const file of dashboardFiles) {
    const sources = file.templating.list.filter(({ type }) => type === 'datasource');
    assert.deepEqual(
      sources.map(({ name, label, query }) => [name, label, query]),
      [['datasource', 'Data source', 'prometheus']],
      file.file,
    );
  }
});

test('template-job-rule', () => {
  for (const file of dashboardFiles) checkTemplate(file, 'job', { isSeveral: true });
});

// `agent` instead of `instance`: every series has it, however the scrape job labels its targets. A dashboard of one host shows one.
test('template-instance-rule', () => {
  for (const file of dashboardFiles) checkTemplate(file, 'agent', { isSeveral: file.file !== 'host.json' });
});

function checkTemplate(file: DashboardFile, name: string, { isSeveral }: { isSeveral: boolean }): void {
  const found = variable(file, name);
  assert.equal(found?.type, 'query', `${file.file}: ${name}`);
  assert.equal(found.label?.toLowerCase(), name);
  assert.equal(found.datasource?.uid, `\${datasource}`);
  assert.match(found.query ?? '', /^label_values\(.+, \w+\)$/);
  assert.deepEqual([found.multi, found.includeAll], [isSeveral, isSeveral], `${file.file}: ${name}`);
  if (isSeveral) assert.equal(found.allValue, '.+');
}

test('template-label-promql-rule', { skip: skipWithout(promtool) }, (context) => {
  const exprs = dashboardFiles.flatMap(({ templating }) =>
    templating.list.flatMap(({ type, query }) =>
      type === 'query' ? [/^label_values\((.+), \w+\)$/.exec(query!)![1]!] : [],
    ),
  );
  assert.equal(exprs.length, 4);
  parsed(exprs, temporaryFolder(context));
});

test('template-on-time-change-reload-rule', () => {
  for (const { file, templating } of dashboardFiles) {
    for (const { type, name, refresh } of templating.list)
      if (type === 'query') assert.equal(refresh, 2, `${file}: ${name}`);
  }
});

test('panel-datasource-rule', () => {
  eachPanel(({ datasource, targets = [] }, where) => {
    for (const each of [datasource, ...targets.map((target) => target.datasource)]) {
      assert.equal(each?.uid, `\${datasource}`, where);
    }
  });
});

test('panel-title-description-rule', () => {
  eachPanel(({ title, description }, where) => {
    assert.match(title ?? '', /^[A-Z]/, where);
    assert.match(description ?? '', /^[A-Z0-9].*\.$/, where);
  });
});

test('panel-units-rule', () => {
  // https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
  const units = [
    'none',
    'short',
    'percentunit',
    'bytes',
    'Bps',
    'bool_yes_no',
    's',
    'ops',
    'iops',
    'pps',
    'cps',
    'celsius',
    'rotrpm',
  ];
  eachPanel(({ fieldConfig }, where) => assert.ok(units.includes(fieldConfig?.defaults.unit ?? ''), where));
});

test('panel-no-targets-rule', () => {
  eachPanel(({ targets = [] }, where) => assert.ok(targets.length > 0, where));
});

test('target-promql-rule', { skip: skipWithout(promtool) }, (context) => {
  parsed(
    dashboardQueries.map(({ expr }) => expr),
    temporaryFolder(context),
  );
});

test('target-rate-interval-rule', () => {
  eachQuery((expr, where) => {
    for (const { around, range } of selectorsOf(expr)) {
      if (around === 'rate' || around === 'irate') assert.equal(range, '$__rate_interval', where);
      else assert.ok(['', '$__rate_interval', '$__range'].includes(range), where);
    }
  });
});

test('target-job-rule', () => {
  eachQuery((expr, where) => {
    for (const { metric, matchers } of selectorsOf(expr)) {
      // An alert has the labels of its expression, which need not have a job.
      if (metric !== 'ALERTS') assert.ok(matchers.includes('job=~"$job"'), where);
    }
  });
});

// By `agent`, as above. The server's own metrics are of no agent.
test('target-instance-rule', () => {
  eachQuery((expr, where, file) => {
    const wanted = file === 'host.json' ? 'agent="$agent"' : 'agent=~"$agent"';
    for (const { metric, matchers } of selectorsOf(expr)) {
      if (!/^sysmon_server_(?!agent_)/.test(metric)) assert.ok(matchers.includes(wanted), where);
    }
  });
});

test('target-counter-agg-rule', () => {
  eachQuery((expr, where) => {
    for (const { metric, around, range } of selectorsOf(expr)) {
      // How many CPUs there are is how many series there are.
      const isCounted = around === 'count' || expr.includes(`count by (agent) (${metric}{`);
      if (!metric.endsWith('_total') || (metric === 'node_cpu_seconds_total' && isCounted && range === '')) continue;
      assert.ok(['rate', 'irate', 'increase'].includes(around) && range !== '', where);
    }
  });
});

test('uneditable-dashboard', () => {
  for (const { file, editable } of dashboardFiles) assert.equal(editable, false, file);
});

test('what is shown by rules is recorded by them', () => {
  const rules = readFileSync(rootFile('prometheus/rules/host.yml'), 'utf8');
  const recorded = dashboardQueries
    .flatMap(({ expr }) => selectorsOf(expr))
    .filter(({ metric }) => metric.includes(':'));
  assert.ok(recorded.length > 0);
  for (const { metric } of recorded) assert.ok(rules.includes(`record: ${metric}\n`), metric);
});

// A host that is cut off from minute 10 to 20 and sends its backlog afterwards; one that is down meanwhile; one whose server is
// away; and one that is well. A value each 15 s.
test('annotations: filled afterwards, down, and neither', { skip: skipWithout(promtool) }, (context) => {
  const up = { well: '1x160', cut: '1x39 0x39 1x80', down: '1x39 0x39 1x80', away: '1x39 _x40 1x80' };
  const reports = { well: '0+1x160', cut: '0+1x160', down: '0+1x39 _x40 80+1x80', away: '0+1x160' };
  const series = (name: string, values: Record<string, string>) =>
    Object.entries(values).map(([agent, each]) => ({ series: `${name}{job="sysmon",agent="${agent}"}`, values: each }));
  const at = (minute: number, filled: readonly string[], down: readonly string[]) => [
    {
      expr: `count by (agent) (${filledAfterwards('job="sysmon"')})`,
      eval_time: `${minute}m`,
      exp_samples: samples(filled),
    },
    { expr: `count by (agent) (${missing('job="sysmon"')})`, eval_time: `${minute}m`, exp_samples: samples(down) },
  ];
  const samples = (agents: readonly string[]) => agents.map((agent) => ({ labels: `{agent="${agent}"}`, value: 1 }));
  const tests = [
    {
      interval: '15s',
      input_series: [...series('sysmon_agent_up', up), ...series('sysmon_agent_reports_sampled_total', reports)],
      promql_expr_test: [
        ...at(5, [], []),
        // Its last report is less than a minute old.
        ...at(10.5, ['cut'], []),
        ...[12, 15, 18].flatMap((minute) => at(minute, ['away', 'cut'], ['down'])),
        ...at(19.5, ['away', 'cut'], ['down']),
        ...at(22, [], []),
        ...at(30, [], []),
      ],
    },
  ];
  const file = join(temporaryFolder(context), 'test.yml');
  writeFileSync(file, JSON.stringify({ evaluation_interval: '15s', tests }).replaceAll('.5m"', 'm30s"'));
  run(['test', 'rules', file]);
});

/** promtool reads them, as the expressions of rules. */
function parsed(exprs: readonly string[], folder: string): void {
  const rules = exprs.map((expr, at) => ({ record: `a${at}`, expr: asked(expr, { agent: 'a', range: '1m' }) }));
  const file = join(folder, 'rules.yml');
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'all', rules }] }));
  run(['check', 'rules', file]);
}

function run(argv: readonly string[]): void {
  const { status, stdout, stderr } = spawnSync(promtool, argv, { encoding: 'utf8' });
  assert.equal(status, 0, `promtool ${argv.slice(0, 2).join(' ')}\n${stdout}${stderr}`);
}
