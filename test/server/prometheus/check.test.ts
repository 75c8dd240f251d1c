import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkPrometheus } from '../../../src/server/prometheus/check.ts';
import { type Answers, apiAt, listen, prometheus, success } from './api-harness.ts';

const windowMs = 30 * 60_000;

/** The configuration as Prometheus prints it. */
const config = (job: string, rest = '') => `global:
  scrape_interval: 5s
scrape_configs:
- job_name: node
  honor_timestamps: false
- job_name: sysmon
  params:
    scraper:
    - a
${job}${rest}`;

const shows =
  (yaml: string | undefined, others: Answers = prometheus('1', '2')): Answers =>
  (request, response, url) => {
    if (!url.pathname.endsWith('/status/config')) return others(request, response, url);
    if (yaml === undefined) response.writeHead(404).end();
    else response.end(success({ yaml }));
  };

test('a Prometheus that suits says what it is and what it has', async (context) => {
  const { url } = await listen(context, shows(config('  honor_timestamps: true\n')));
  const checked = await checkPrometheus(apiAt(context, url), { scraper: 'a', windowMs, sendsSecret: true });
  assert.deepEqual(checked, {
    notes: ['it is Prometheus 2.42.0+ds', 'it has 2 answers of the last 5 min'],
    errors: [],
  });
});

test('what does not suit is listed, all of it', async (context) => {
  const job = '  honor_timestamps: false\n  sample_limit: 5000\n  body_size_limit: 10MB\n  label_limit: 0\n';
  const { url } = await listen(context, shows(config(job, 'storage:\n  tsdb:\n    out_of_order_time_window: 10m\n')));
  const { notes, errors } = await checkPrometheus(apiAt(context, url), { scraper: 'a', windowMs, sendsSecret: false });
  assert.deepEqual(errors, [
    'its out_of_order_time_window is 10m: set none, or at least 45m, which is --window and 15m',
    'its job sysmon ignores timestamps: set honor_timestamps: true',
  ]);
  assert.equal(
    notes.at(-1),
    'its job sysmon has sample_limit 5000 and body_size_limit 10MB, which a catch-up may exceed at first',
  );
});

test('a long window needs one; another name, another program, and one that shows nothing', async (context) => {
  const cases: readonly [Answers, scraper: string, windowMs: number, notes: RegExp, errors: RegExp][] = [
    [shows(config('')), 'a', 24 * 3_600_000, /./, /^it has no out_of_order_time_window: .* at least 1d15m$/],
    [shows(config('', 'storage: {tsdb: {}}\n    out_of_order_time_window: 2d\n')), 'a', 24 * 3_600_000, /./, /^$/],
    [shows(config('')), 'b', windowMs, /none of its jobs has params: \{scraper: \[b\]\}/, /^$/],
    [shows(undefined), 'a', windowMs, /it does not show its configuration/, /^$/],
    [
      shows(
        'scrape_configs:\n- job_name: v\n  params: {x: y}\n  params:\n    scraper: [a]\n',
        (request, response, url) => {
          response.setHeader('X-Server-Hostname', 'vm');
          prometheus()(request, response, url);
        },
      ),
      ...([
        'a',
        windowMs,
        /it is VictoriaMetrics; it has no answer of the last 5 min yet/,
        /^its job v ignores timestamps/,
      ] as const),
    ],
    [(_, response) => response.writeHead(401).end(), 'a', windowMs, /^$/, /^it refuses the request \(401\)/],
  ];
  for (const [answers, scraper, window, notes, errors] of cases) {
    const { url } = await listen(context, answers);
    const checked = await checkPrometheus(apiAt(context, url), { scraper, windowMs: window, sendsSecret: false });
    assert.match(checked.notes.join('; '), notes);
    assert.match(checked.errors.join('; '), errors);
  }
});

test('a secret that would be sent without TLS is an error, but not on this host', async (context) => {
  const { url } = await listen(context, prometheus());
  const local = await checkPrometheus(apiAt(context, url), { scraper: 'a', windowMs, sendsSecret: true });
  assert.deepEqual(
    local.errors.filter((error) => /TLS/.test(error)),
    [],
  );
  const api = apiAt(context, 'http://0.0.0.1:9');
  const remote = await checkPrometheus(api, { scraper: 'a', windowMs, sendsSecret: true });
  assert.equal(remote.errors[0], 'its token or password is sent without TLS: use https');
  assert.equal(remote.errors.length, 2);
});
