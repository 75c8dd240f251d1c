import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import { identify } from '../src/server/web/identify.ts';
import { rootFile } from './support/files.ts';
import { skipWithout } from './support/installed.ts';
import { temporaryFolder } from './support/programs.ts';
import { prometheusPath, prometheusSkip } from './support/prometheus.ts';

// The configurations for scrapers in prometheus/: each is taken by its program, and asks for what that program keeps.

interface Job {
  readonly params: Readonly<Record<string, readonly string[]>>;
  readonly honor_timestamps: boolean;
  readonly honor_labels: boolean;
}

function jobOf(file: string): Job {
  const { scrape_configs: jobs } = parse(readFileSync(rootFile(file), 'utf8')) as { scrape_configs: Job[] };
  assert.equal(jobs.length, 1);
  return jobs[0]!;
}

const vmagent = '/usr/bin/vmagent';
const victoriaMetrics = '/usr/bin/victoria-metrics';

function taken(path: string, argv: readonly string[]): void {
  const { status, stdout, stderr } = spawnSync(path, argv, { encoding: 'utf8' });
  assert.equal(status, 0, `${path} ${argv.join(' ')}\n${stdout}${stderr}`);
}

test('promtool takes prometheus.yml', { skip: prometheusSkip }, () => {
  taken(prometheusPath.replace(/metheus$/, 'mtool'), ['check', 'config', rootFile('prometheus/prometheus.yml')]);
});

for (const [file, ...flags] of [
  ['prometheus/vmagent.yml'],
  // It has rules, which only vmalert evaluates.
  ['prometheus/prometheus.yml', '-promscrape.config.strictParse=false'],
] as const) {
  test(`vmagent takes ${file}`, { skip: skipWithout(vmagent) }, () => {
    const argv = ['-dryRun', '-remoteWrite.url=http://127.0.0.1:1', `-promscrape.config=${rootFile(file)}`];
    taken(vmagent, [...argv, ...flags]);
  });

  test(`VictoriaMetrics takes ${file}`, { skip: skipWithout(victoriaMetrics) }, (context) => {
    const data = join(temporaryFolder(context), 'data');
    taken(victoriaMetrics, ['-dryRun', `-promscrape.config=${rootFile(file)}`, `-storageDataPath=${data}`, ...flags]);
  });
}

test('each job asks for what its program keeps', () => {
  for (const [file, userAgent, scraper] of [
    ['prometheus/prometheus.yml', 'Prometheus/2.42.0', 'prometheus'],
    ['prometheus/vmagent.yml', 'vm_promscrape', 'vmagent'],
  ] as const) {
    const { params, honor_timestamps, honor_labels } = jobOf(file);
    assert.deepEqual({ honor_timestamps, honor_labels }, { honor_timestamps: true, honor_labels: true });
    const query = new URLSearchParams(
      Object.entries(params).flatMap(([name, texts]) => texts.map((text): [string, string] => [name, text])),
    );
    const request = identify({
      ...{ method: 'GET', query: query.toString(), address: '192.0.2.1', httpVersion: '1.1' },
      headers: { 'user-agent': userAgent, 'x-prometheus-scrape-timeout-seconds': '5' },
    });
    assert.ok('given' in request, JSON.stringify(request));
    assert.deepEqual(request.scraper, { space: 'param', text: scraper });
    assert.ok(request.given.kind === 'reports' && request.given.reports === 'many', request.given.why);
  }
});

test('the snippet for Alloy names its scraper, and its braces match', () => {
  const text = readFileSync(rootFile('prometheus/alloy.alloy'), 'utf8').replace(/\/\/.*$/gm, '');
  assert.match(text, /params = \{"scraper" = \["alloy"\]\}/);
  assert.match(text, /honor_timestamps = true/);
  for (const [open, close] of ['{}', '[]', '()'].map((pair) => [...pair])) {
    assert.equal(text.split(open!).length, text.split(close!).length, `${open} ${close}`);
  }
});

// https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1alpha1.ScrapeConfigSpec, and what the operator
// makes of each field in Prometheus's own configuration.
const operatorFields: Readonly<Record<string, string | Readonly<Record<string, string>>>> = {
  scrapeInterval: 'scrape_interval',
  scrapeTimeout: 'scrape_timeout',
  honorTimestamps: 'honor_timestamps',
  honorLabels: 'honor_labels',
  jobName: 'job_name',
  staticConfigs: { targets: 'targets' },
  relabelings: { targetLabel: 'target_label', replacement: 'replacement' },
  metricRelabelings: { sourceLabels: 'source_labels', regex: 'regex', targetLabel: 'target_label' },
};
const operatorLists: Readonly<Record<string, string>> = {
  staticConfigs: 'static_configs',
  relabelings: 'relabel_configs',
  metricRelabelings: 'metric_relabel_configs',
};

test("the operator's ScrapeConfig says what prometheus.yml says", { skip: prometheusSkip }, (context) => {
  const text = readFileSync(rootFile('prometheus/scrapeconfig.yml'), 'utf8');
  const resource = parse(text) as { apiVersion: string; kind: string; spec: Readonly<Record<string, unknown>> };
  assert.equal(resource.apiVersion, 'monitoring.coreos.com/v1alpha1');
  assert.equal(resource.kind, 'ScrapeConfig');
  const job: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(resource.spec)) {
    const known = operatorFields[field];
    assert.ok(known !== undefined, `the resource has no field '${field}'`);
    if (typeof known === 'string') {
      job[known] = value;
      continue;
    }
    job[operatorLists[field]!] = (value as Readonly<Record<string, unknown>>[]).map((entry) =>
      Object.fromEntries(
        Object.entries(entry).map(([name, each]) => {
          assert.ok(known[name] !== undefined, `'${field}' has no field '${name}'`);
          return [known[name], each];
        }),
      ),
    );
  }
  const file = join(temporaryFolder(context), 'prometheus.yml');
  writeFileSync(file, stringify({ scrape_configs: [job] }).replace('$(POD_NAME)', 'prometheus-main-0'));
  taken(prometheusPath.replace(/metheus$/, 'mtool'), ['check', 'config', file]);
  const { scrape_interval, scrape_timeout, static_configs, relabel_configs, ...rest } = job;
  const {
    params,
    static_configs: targets,
    ...ours
  } = jobOf('prometheus/prometheus.yml') as Job & {
    readonly static_configs: readonly unknown[];
  };
  assert.deepEqual(rest, ours);
  assert.deepEqual([scrape_interval, scrape_timeout], ['5s', '5s']);
  assert.deepEqual(params, { scraper: ['prometheus'] });
  assert.deepEqual(relabel_configs, [{ target_label: '__param_scraper', replacement: '$(POD_NAME)' }]);
  assert.equal((static_configs as unknown[]).length, targets.length);
});
