import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DatabaseError } from '../../../src/server/delivery/receipts.ts';
import { certificate } from '../../support/certificates.ts';
import { type Answers, apiAt, listen, matrix, prometheus, success } from './api-harness.ts';

// The API over real HTTP, as programs speak it, and as none should.

const question = { scraper: 'prometheus-a', serverId: '0123456789abcdef', backMs: 60_500, hasProbe: false };

test('a Prometheus is asked for the numbers of the time since, and says what it is', async (context) => {
  const { url, requests } = await listen(context, prometheus('4711', '4712', '1.764316194004e+12'));
  const api = apiAt(context, url);
  assert.deepEqual(await api.ask(question), {
    ...{
      numbers: new Set([4711, 4712, 1_764_316_194_004]),
      probes: new Map(),
      program: 'Prometheus',
      version: '2.42.0+ds',
      showsAfterMs: 0,
    },
  });
  await api.ask(question);
  assert.deepEqual(
    requests.map(({ path }) => path),
    ['/api/v1/status/buildinfo', '/api/v1/query', '/api/v1/query'],
  );
  assert.deepEqual(requests[1]!.query, {
    query: 'sysmon_server_answer{scraper="prometheus-a",server_id="0123456789abcdef"}[61s]',
    ...{ latency_offset: '1ms', nocache: '1' },
  });
});

test('a probe is asked for with the numbers, and read by its own', async (context) => {
  const { url, requests } = await listen(context, (request, response, where) => {
    if (!where.pathname.endsWith('/query')) return prometheus()(request, response, where);
    const series = (name: string, labels: object, ...values: [number, string][]) => ({
      ...{ metric: { __name__: name, ...labels }, values },
    });
    const result = [
      series('sysmon_server_answer', {}, [1_700_000_000, '7']),
      series('sysmon_server_probe', { answer: '7' }, [1_699_999_998.123, '1'], [1_699_999_999.12, '2']),
      series('sysmon_server_probe', { answer: 'x' }, [1_699_999_998, '1']),
    ];
    response.end(success({ resultType: 'matrix', result }));
  });
  const { numbers, probes } = await apiAt(context, url).ask({ ...question, hasProbe: true });
  assert.deepEqual([...numbers], [7]);
  assert.deepEqual(probes, new Map([[7, new Set([1_699_999_998_123, 1_699_999_999_120])]]));
  assert.equal(
    requests.at(-1)!.query['query'],
    '{__name__=~"sysmon_server_answer|sysmon_server_probe",scraper="prometheus-a",server_id="0123456789abcdef"}[61s]',
  );
});

test('a path before the API is kept, and credentials go with each question; new ones from then on', async (context) => {
  const { url, requests } = await listen(context, prometheus());
  const api = apiAt(context, `${url}/select/0/prometheus`, { authorization: 'Bearer abc', ca: undefined });
  await api.ask(question);
  api.access = { authorization: 'Basic dXNlcjp4', ca: undefined };
  await api.ask(question);
  assert.deepEqual(
    requests.map(({ path, authorization }) => [path, authorization]),
    [
      ['/select/0/prometheus/api/v1/status/buildinfo', 'Bearer abc'],
      ['/select/0/prometheus/api/v1/query', 'Bearer abc'],
      ['/select/0/prometheus/api/v1/query', 'Basic dXNlcjp4'],
    ],
  );
});

test('a VictoriaMetrics, and what is neither, may show a number late', async (context) => {
  for (const [program, headers, code, body] of [
    ['VictoriaMetrics', { 'X-Server-Hostname': 'vm' }, 200, success({})],
    ['VictoriaMetrics', { 'X-Server-Hostname': 'vm' }, 200, success({ version: '2.24.0' })],
    ['Grafana Mimir', {}, 200, success({ application: 'Grafana Mimir', version: '2.10', goVersion: 'go1.21' })],
    ['', {}, 404, 'no such page'],
  ] as const) {
    const { url } = await listen(context, (_, response, { pathname }) => {
      if (!pathname.endsWith('buildinfo')) return void response.end(matrix('7'));
      response.writeHead(code, headers).end(body);
    });
    const answer = await apiAt(context, url).ask(question);
    assert.equal(answer.program, program);
    assert.equal(answer.showsAfterMs, 15_000);
    assert.deepEqual(answer.numbers, new Set([7]));
  }
});

test('with TLS, the authority of the file is believed and no other', async (context) => {
  const signed = certificate(context);
  if (signed === undefined) return;
  const { cert, key } = signed;
  const { url } = await listen(context, prometheus('1'), { cert, key });
  const ca = readFileSync(signed.authorityFile, 'utf8');
  const api = apiAt(context, url, { authorization: undefined, ca });
  assert.equal((await api.ask(question)).numbers.size, 1);
  await assert.rejects(apiAt(context, url).ask(question), (error: DatabaseError) => error.code === 'unreachable');
});

test('what does not answer, or not as the API does, is one kind of error that names no secret', async (context) => {
  const cases: readonly [name: string, Answers, RegExp][] = [
    [
      'a redirect',
      (_, response) => response.writeHead(302, { Location: 'http://u:geheim@192.0.2.1/x' }).end(),
      /redirects to 'http:\/\/192.0.2.1\/x'/,
    ],
    [
      'no access',
      (_, response) => response.writeHead(401).end('geheim'),
      /refuses the request \(401\): check its token/,
    ],
    ['no JSON', (_, response) => response.end('<html>geheim'), /its answer \(200\) is no JSON/],
    ['no object', (_, response) => response.end('[]'), /is no object/],
    [
      'an error',
      (_, response) => response.writeHead(422).end(JSON.stringify({ status: 'error', error: 'bad\u001b[31m data' })),
      /answers 422: bad\\x1b\[31m data/,
    ],
    [
      'no matrix',
      (_, response, { pathname }) =>
        response.end(pathname.endsWith('buildinfo') ? success({}) : success({ resultType: 'vector', result: [] })),
      /no matrix/,
    ],
    [
      'samples that are none',
      (_, response, { pathname }) =>
        response.end(
          pathname.endsWith('buildinfo')
            ? success({})
            : success({ resultType: 'matrix', result: [{ metric: {}, values: [7] }] }),
        ),
      /sample of its answer is no list/,
    ],
    [
      'a cut',
      (_, response) => {
        response.writeHead(200, { 'Content-Length': '1000' }).write('{');
        setTimeout(() => response.destroy(), 5);
      },
      /./,
    ],
    [
      'too much',
      (_, response) => {
        const part = Buffer.alloc(1024 * 1024, 32);
        const more = () => {
          if (!response.destroyed) response.write(part, more);
        };
        more();
      },
      /longer than 16777216 bytes/,
    ],
  ];
  for (const [name, answers, reason] of cases) {
    const { url } = await listen(context, answers);
    await assert.rejects(
      apiAt(context, url, { authorization: 'Bearer geheim', ca: undefined }).ask(question),
      (error: unknown) => {
        assert.ok(error instanceof DatabaseError, `${name}: ${error}`);
        assert.match(error.message, reason, name);
        assert.doesNotMatch(error.message, /geheim/, name);
        return true;
      },
    );
  }
  await assert.rejects(apiAt(context, 'http://127.0.0.1:1').ask(question), DatabaseError);
});

test('one that never ends its answer is left after some seconds', async (context) => {
  const { url } = await listen(context, (_, response) => {
    response.write('{');
    const drip = setInterval(() => response.write(' '), 100);
    response.on('close', () => clearInterval(drip));
  });
  await assert.rejects(apiAt(context, url).ask(question), /no answer within 5 s/);
});

test('numbers that are none prove nothing', async (context) => {
  const { url } = await listen(context, prometheus('NaN', '+Inf', '-7', '1.5', '1e300', '', '7'));
  assert.deepEqual((await apiAt(context, url).ask(question)).numbers, new Set([7]));
});

test('the reason of a failed scrape is that of the target with this name and these agents', async (context) => {
  const target = (scrapeUrl: string, lastError: string) => ({ scrapeUrl, lastError });
  const { url, requests } = await listen(context, (_, response) =>
    response.end(
      success({
        activeTargets: [
          target('http://h/metrics?scraper=b', 'another'),
          target('http://h/metrics?agent=x&scraper=a', 'of x\n'),
          target('http://h/metrics?scraper=a', 'Get "http://u:geheim@h/metrics": sample limit exceeded'),
          target('http://h/metrics?agent=y&agent=x&scraper=a', ''),
        ],
      }),
    ),
  );
  const api = apiAt(context, url);
  assert.equal(await api.lastError('a', ''), 'Get "http://h/metrics": sample limit exceeded');
  assert.equal(await api.lastError('a', 'x'), 'of x\\n');
  assert.equal(await api.lastError('a', 'x,y'), undefined);
  assert.equal(await api.lastError('c', ''), undefined);
  assert.deepEqual(requests[0]!.query, { state: 'active' });
  assert.equal(await apiAt(context, 'http://127.0.0.1:1').lastError('a', ''), undefined, 'not known');
});

test('a scraper without a name in its URL is known by the labels with which its answers were stored', async (context) => {
  const target = (job: string, instance: string, scrapeUrl: string, lastError: string) => ({
    ...{ labels: { job, instance }, scrapeUrl, lastError },
  });
  let stored = [{ job: 'sysmon', instance: 'h:9733' }];
  const targets = [
    target('node', 'h:9100', 'http://h:9100/metrics', 'connection refused'),
    target('sysmon', 'other:9733', 'http://other:9733/metrics', 'unexpected EOF'),
    target('sysmon', 'h:9733', 'http://h:9733/metrics?scraper=a', 'of a'),
    target('sysmon', 'h:9733', 'http://h:9733/metrics?agent=x', 'of x'),
    target('sysmon', 'h:9733', 'http://h:9733/metrics', 'sample limit exceeded'),
  ];
  const { url } = await listen(context, (request, response, where) => {
    if (where.pathname.endsWith('/targets')) return void response.end(success({ activeTargets: targets }));
    if (!where.pathname.endsWith('/query')) return prometheus()(request, response, where);
    const result = stored.map((metric) => ({ metric, values: [[1_700_000_000, '7']] }));
    response.end(success({ resultType: 'matrix', result }));
  });
  for (const scraper of ['addr/192.0.2.1', 'user/bob']) {
    const api = apiAt(context, url);
    assert.equal(await api.lastError(undefined, ''), undefined, 'nothing is stored yet: it may be any');
    await api.ask({ ...question, scraper });
    assert.equal(await api.lastError(undefined, ''), 'sample limit exceeded');
    assert.equal(await api.lastError(undefined, 'x'), 'of x');
    stored = [];
    await api.ask({ ...question, scraper });
    assert.equal(await api.lastError(undefined, ''), 'sample limit exceeded', 'where the last ones came from');
    stored = [{ job: 'sysmon', instance: 'h:9733' }];
  }
});

test('of two targets with one name, the reason is that of the one whose answers are stored', async (context) => {
  const target = (instance: string, lastError: string) => ({
    ...{ labels: { job: 'sysmon', instance }, scrapeUrl: `http://${instance}/metrics?scraper=a`, lastError },
  });
  const { url } = await listen(context, (request, response, where) => {
    if (where.pathname.endsWith('/targets')) {
      return void response.end(success({ activeTargets: [target('one', 'of the other'), target('two', 'its own')] }));
    }
    if (!where.pathname.endsWith('/query')) return prometheus()(request, response, where);
    const result = [{ metric: { job: 'sysmon', instance: 'two' }, values: [[1_700_000_000, '7']] }];
    response.end(success({ resultType: 'matrix', result }));
  });
  const api = apiAt(context, url);
  assert.equal(await api.lastError('a', ''), undefined);
  await api.ask({ ...question, scraper: 'a' });
  assert.equal(await api.lastError('a', ''), 'its own');
});
