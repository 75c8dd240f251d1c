import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { rootFile } from '../support/files.ts';
import { skipWithout } from '../support/installed.ts';
import { temporaryFolder } from '../support/programs.ts';
import { type AlertCase, alertCases, type Series } from './alert-cases.ts';
import { ruleFiles, rulesOf } from './queries.ts';

// The recording rules and alerts of prometheus/rules, by promtool: each alert with series that fire it and series that must not.

const promtool = '/usr/bin/promtool';
const alerts = rulesOf(ruleFiles[1]!);
const keyOf = (alert: string, severity: string) => `${alert}, ${severity}`;

test('promtool takes the rules', { skip: skipWithout(promtool) }, () => {
  run(['check', 'rules', ...ruleFiles]);
});

test('vmalert takes them', { skip: skipWithout('/usr/bin/vmalert') }, () => {
  run(['-dryRun', ...ruleFiles.map((file) => `-rule=${file}`)], '/usr/bin/vmalert');
});

test('each alert has a summary, a description, a severity, and a section of the runbooks', () => {
  const runbooks = readFileSync(rootFile('docs/runbooks.md'), 'utf8');
  const sections = runbooks.split(/^## /m).slice(1);
  const titles = sections.map((section) => section.split('\n')[0]!);
  for (const { alert, labels, annotations } of alerts) {
    assert.ok(alert !== undefined);
    assert.match(labels?.severity ?? '', /^(info|warning|critical)$/, alert);
    const { summary, description, runbook_url: url, ...others } = annotations!;
    assert.deepEqual(others, {}, alert);
    assert.match(summary!, /^[A-Z].*\.$/, alert);
    assert.match(description!, /^\S.*\.$/, alert);
    assert.equal(url, `file:///usr/local/share/doc/sysmon/runbooks.md#${alert.toLowerCase()}`);
    assert.ok(titles.includes(alert), `docs/runbooks.md has no section '${alert}'`);
  }
  for (const section of sections) {
    const title = section.split('\n')[0]!;
    assert.ok(
      alerts.some(({ alert }) => alert === title),
      `docs/runbooks.md: no alert '${title}'`,
    );
    for (const part of ['**It means**', '**Look at**', '**Do**'])
      assert.ok(section.includes(part), `${title}: ${part}`);
  }
  assert.deepEqual(titles, [...new Set(titles)]);
});

test('each alert has a case that fires and one that does not, of the same metrics', () => {
  const wanted = [...new Set(alerts.map(({ alert, labels }) => keyOf(alert!, labels!.severity)))];
  const tested = new Set(alertCases.map(({ alert, severity }) => keyOf(alert, severity)));
  assert.deepEqual([...tested].sort(), wanted.sort());
  const metrics = (series: Series) => [...new Set(Object.keys(series).map((key) => /^\w+/.exec(key)![0]))];
  for (const { alert, fires, stays } of alertCases) {
    assert.ok(stays.length > 0, alert);
    const known = metrics(fires.series);
    for (const { why, series } of stays) {
      for (const metric of metrics(series)) assert.ok(known.includes(metric), `${alert}: ${why}: ${metric}`);
    }
  }
});

test('what an alert says has labels that the alert has', () => {
  for (const { alert, annotations, labels: own } of alerts) {
    const used = [
      ...Object.values(annotations!)
        .join(' ')
        .matchAll(/\$labels\.(\w+)/g),
    ].map(([, name]) => name!);
    const cases = alertCases.filter((each) => each.alert === alert && each.severity === own!.severity);
    for (const { fires } of cases) {
      const labels = { ...hostOf(Object.keys(fires.series)[0]!, 'a'), ...fires.labels };
      for (const name of used) {
        if (name !== 'source') assert.ok(Object.keys(labels).includes(name), `${alert}: ${name}`);
      }
    }
  }
});

test('promtool: each alert fires, and does not fire otherwise', { skip: skipWithout(promtool) }, (context) => {
  for (const every of ['1m', '5m', '1h'] as const) {
    const cases = alertCases.filter((each) => (each.every ?? '1m') === every).flatMap(expectations);
    // All hosts in one test, since each is evaluated by all rules at each instant: that takes seconds instead of minutes.
    const together = cases.filter(({ alone }) => !alone);
    const separate = cases.filter(({ alone }) => alone).map((each) => [each]);
    for (const tests of [together, ...separate]) testRules(context, every, tests);
  }
});

function expectations({
  alert,
  severity,
  fires,
  stays,
  alone = false,
}: AlertCase): (Expectation & { alone: boolean })[] {
  return [fires, ...stays.map((each) => ({ ...each, labels: undefined }))].map(({ series, at, labels }) => ({
    ...{ series, at, alone },
    query: (host) =>
      `ALERTS{alertname="${alert}",severity="${severity}",alertstate="firing",${alone ? '' : host.query}}`,
    expected: (host) => {
      if (series !== fires.series) return undefined;
      const all = { alertname: alert, severity, alertstate: 'firing', ...host.labels, ...labels };
      return { labels: `ALERTS{${labelsText(all)}}`, value: 1 };
    },
  }));
}

test('promtool: a server that is not scraped at all is down', { skip: skipWithout(promtool) }, (context) => {
  const labels = { alertname: 'SysmonServerDown', alertstate: 'firing', job: 'sysmon', severity: 'critical' };
  testRules(context, '1m', [
    {
      ...{ series: { node_load1: '1x20' }, at: '10m' },
      query: () => 'ALERTS{alertname="SysmonServerDown",alertstate="firing"}',
      expected: () => ({ labels: `ALERTS{${labelsText(labels)}}`, value: 1 }),
    },
  ]);
});

test('promtool: what is recorded', { skip: skipWithout(promtool) }, (context) => {
  const rows: [record: string, labels: string, value: number, series: Series][] = [
    ['instance:node_num_cpu:sum', '', 2, { ...cpus('idle', 30), ...cpus('user', 30) }],
    [
      'instance:node_cpu_utilisation:rate5m',
      '',
      0.25,
      { ...cpus('idle', 30), ...cpus('iowait', 15), ...cpus('user', 15) },
    ],
    ['instance:node_load1_per_cpu:ratio', '', 1.5, { node_load1: '3x20', ...cpus('idle', 30) }],
    [
      ...(['instance:node_memory_utilisation:ratio', '', 0.75] as const),
      { node_memory_MemAvailable_bytes: '25x20', node_memory_MemTotal_bytes: '100x20' },
    ],
    [
      ...(['instance:node_memory_utilisation:ratio', '', 0.5] as const),
      {
        node_memory_MemFree_bytes: '20x20',
        node_memory_Buffers_bytes: '5x20',
        node_memory_Cached_bytes: '15x20',
        node_memory_Slab_bytes: '10x20',
        node_memory_MemTotal_bytes: '100x20',
      },
    ],
    ['instance:node_vmstat_pgmajfault:rate5m', '', 2, { node_vmstat_pgmajfault: '0+120x20' }],
    [
      ...(['instance_device:node_disk_io_time_seconds:rate5m', 'device="sda"', 0.5] as const),
      { 'node_disk_io_time_seconds_total{device="sda"}': '0+30x20' },
    ],
    [
      ...(['instance_device:node_disk_io_time_weighted_seconds:rate5m', 'device="sda"', 2] as const),
      { 'node_disk_io_time_weighted_seconds_total{device="sda"}': '0+120x20' },
    ],
    ...['receive_bytes', 'transmit_bytes', 'receive_drop', 'transmit_drop'].flatMap((what): typeof rows => {
      const of = (device: string, step: number) => ({
        [`node_network_${what}_total{device="${device}"}`]: `0+${step}x20`,
      });
      const series = { ...of('eth0', 60), ...of('veth1', 120), ...of('lo', 600) };
      return [
        [`instance:node_network_${what}_excluding_lo:rate5m`, '', 3, series],
        [`instance:node_network_${what}_physical:rate5m`, '', 1, series],
      ];
    }),
    [
      'agent_chip_sensor:node_hwmon_names:info',
      'chip="c",chip_name="k10temp",label="Tctl",sensor="temp1"',
      1,
      {
        'node_hwmon_sensor_label{chip="c",sensor="temp1",label="Tctl"}': '1x20',
        'node_hwmon_chip_names{chip="c",chip_name="k10temp"}': '1x20',
      },
    ],
    ...['temp_celsius', 'fan_rpm', 'in_volts'].flatMap((what): typeof rows => {
      const record = `agent_chip_sensor:node_hwmon_${what}:named`;
      const sensor = { [`node_hwmon_${what}{chip="c",sensor="s1"}`]: '40x20' };
      const chip = { 'node_hwmon_chip_names{chip="c",chip_name="nct"}': '1x20' };
      const label = { 'node_hwmon_sensor_label{chip="c",sensor="s1",label="CPU"}': '1x20' };
      return [
        [record, 'chip="c",chip_name="nct",label="CPU",sensor="s1"', 40, { ...sensor, ...chip, ...label }],
        [record, 'chip="c",chip_name="nct",sensor="s1"', 40, { ...sensor, ...chip }],
        [record, 'chip="c",sensor="s1"', 40, sensor],
      ];
    }),
  ];
  const recorded = rulesOf(ruleFiles[0]!).map(({ record }) => record);
  assert.deepEqual([...new Set(rows.map(([record]) => record))].sort(), recorded.sort());
  testRules(
    context,
    '1m',
    rows.map(([record, labels, value, series]) => ({
      ...{ series, at: '10m' },
      query: (host) => `${record}{${host.query}}`,
      expected: (host) => ({
        labels: `${record}{${[labelsText(host.labels), labels].filter((text) => text !== '').join()}}`,
        value,
      }),
    })),
  );
});

// Series of one report each 5 s, at which the newest reports have not been scraped yet: of the last 11 s at the intervals of
// prometheus.yml, of the last 20 s where it scrapes every 15 s. A counter that rises by 1 a second is asked for its rate.
test('promtool: a rate over reports that are late', { skip: skipWithout(promtool) }, (context) => {
  const late = (reports: number) => `0+5x${120 - reports} ${'_ '.repeat(reports)}`;
  const rows = [
    { reports: 1, expr: 'rate(x[5m])', value: 1, why: 'none is late by more than the extrapolation of rate()' },
    { reports: 2, expr: 'rate(x[5m])', value: 0.975, why: '10 s: 2.5 % low' },
    { reports: 4, expr: 'round(rate(x[5m]), 0.001)', value: 0.942, why: '20 s: 5.8 % low' },
    {
      reports: 2,
      expr: 'round(rate(x[1m]), 0.001)',
      value: 0.875,
      why: '10 s: 12.5 % low over a minute, so no rule has such a range',
    },
    { reports: 2, expr: 'rate(x[5m] offset 15s)', value: 1, why: 'rule_query_offset: exact' },
    { reports: 4, expr: 'rate(x[5m] offset 30s)', value: 1, why: 'rule_query_offset: exact' },
  ];
  const file = join(temporaryFolder(context), 'late.yml');
  const tests = rows.map(({ reports, expr, value }) => ({
    interval: '5s',
    input_series: [{ series: 'x', values: late(reports) }],
    promql_expr_test: [{ expr, eval_time: '10m', exp_samples: [{ labels: '{}', value }] }],
  }));
  writeFileSync(file, JSON.stringify({ evaluation_interval: '1m', tests }));
  run(['test', 'rules', file]);
  for (const rule of [...alerts, ...rulesOf(ruleFiles[0]!)]) {
    for (const [, range] of rule.expr.matchAll(/\[(\d+[smhd])\]/g)) {
      assert.ok(['5m', '15m', '1h', '6h', '1d'].includes(range!), `${rule.expr}: [${range}]`);
    }
  }
});

// An agent with a report a second whose newest 200 are on their way: of the last 5 minutes a third is there.
test('promtool: how many seconds of reports are in a spool, though reports are late', {
  skip: skipWithout(promtool),
}, (context) => {
  const { expr } = alerts.find(({ alert }) => alert === 'SysmonAgentBacklogGrows')!;
  const [seconds] = expr.split(' > 300');
  const file = join(temporaryFolder(context), 'spool.yml');
  const late = {
    interval: '1s',
    input_series: [
      { series: 'sysmon_agent_spool_reports', values: '118x400' },
      { series: 'sysmon_agent_reports_sampled_total', values: '1000+1x400' },
    ],
    promql_expr_test: [{ expr: seconds, eval_time: '600s', exp_samples: [{ labels: '{}', value: 118 }] }],
  };
  writeFileSync(file, JSON.stringify({ evaluation_interval: '1m', tests: [late] }));
  run(['test', 'rules', file]);
});

interface TestHost {
  readonly labels: Readonly<Record<string, string>>;
  /** A matcher that selects what has these labels. */
  readonly query: string;
}

interface Expectation {
  readonly series: Series;
  readonly at: string;
  readonly query: (host: TestHost) => string;
  /** undefined: no sample. */
  readonly expected: (host: TestHost) => { readonly labels: string; readonly value: number } | undefined;
}

/** One test of promtool, in which the series of each expectation are of a host of its own. */
function testRules(context: TestContext, every: string, expectations: readonly Expectation[]): void {
  const input_series: { series: string; values: string }[] = [];
  const promql_expr_test: object[] = [];
  expectations.forEach(({ series, at, query, expected }, index) => {
    const id = `host-${index}`;
    for (const [key, values] of Object.entries(series)) input_series.push({ series: withHost(key, id), values });
    const labels = hostOf(Object.keys(series)[0]!, id);
    const host = { labels, query: `instance="${id}"` };
    const sample = expected(host);
    promql_expr_test.push({ expr: query(host), eval_time: at, exp_samples: sample === undefined ? [] : [sample] });
  });
  const file = join(temporaryFolder(context), 'test.yml');
  const tests = [{ interval: every, input_series, promql_expr_test }];
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ rule_files: ruleFiles, evaluation_interval: every, tests }));
  run(['test', 'rules', file]);
}

function run(argv: readonly string[], program = promtool): void {
  const { status, stdout, stderr } = spawnSync(program, argv, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
  assert.equal(status, 0, `${program} ${argv.slice(0, 2).join(' ')}\n${stdout}${stderr}`);
}

function cpus(mode: string, step: number): Series {
  return Object.fromEntries(
    ['0', '1'].map((cpu) => [`node_cpu_seconds_total{cpu="${cpu}",mode="${mode}"}`, `0+${step}x20`]),
  );
}

/** The labels that a series has besides its own: of an agent, with one of --label, as prometheus.yml makes them; or of the server. */
function hostOf(key: string, id: string): Record<string, string> {
  const isHost = /^(?:node_|apt_|sysmon_agent_|sysmon_server_agent_)/.test(key);
  return { ...(isHost && { agent: id, rack: '7' }), instance: id, job: 'sysmon' };
}

function withHost(key: string, id: string): string {
  const [, name, own = ''] = /^(\w+)(?:\{(.*)\})?$/.exec(key)!;
  const names = new Set([...own.matchAll(/(\w+)="/g)].map(([, label]) => label));
  const others = Object.entries(hostOf(key, id)).filter(([label]) => !names.has(label));
  return `${name}{${[own, labelsText(Object.fromEntries(others))].filter((text) => text !== '').join()}}`;
}

function labelsText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `${name}="${value}"`)
    .join();
}
