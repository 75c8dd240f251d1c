import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scraperText } from '../../../src/server/delivery/scraper.ts';
import {
  acceptsGzip,
  type Identified,
  identify,
  nothingPast,
  type RequestFacts,
  withRequest,
} from '../../../src/server/web/identify.ts';

const timeout = { 'x-prometheus-scrape-timeout-seconds': '10' };

function facts(given: Partial<RequestFacts> = {}): RequestFacts {
  return { method: 'GET', query: '', headers: {}, address: '192.0.2.1', httpVersion: '1.1', ...given };
}

function identified(given: Partial<RequestFacts>): Identified {
  const result = identify(facts(given));
  if ('wrong' in result) throw new Error(result.wrong);
  return result;
}

const scrapeBy = (userAgent: string, query = '') =>
  identified({ query, headers: { ...timeout, 'user-agent': userAgent } });

const what = ({ given }: Identified) => (given.kind === 'newest' ? 'newest' : given.reports);

for (const [userAgent, program, version, plain, withTimestamps] of [
  ['Prometheus/2.53.3+ds1', 'Prometheus', '2.53.3+ds1', 'many', 'many'],
  ['Prometheus/3.5.0', 'Prometheus', '3.5.0', 'many', 'many'],
  ['Prometheus/2.42.0', 'Prometheus', '2.42.0', 'many', 'many'],
  ['Prometheus/2.51.2', 'Prometheus', '2.51.2', 'many', 'many'],
  ['Prometheus/2.52.0', 'Prometheus', '2.52.0', 'newest', 'one'],
  ['Prometheus/2.52.1', 'Prometheus', '2.52.1', 'newest', 'one'],
  ['Prometheus/2.53.0-rc.1', 'Prometheus', '2.53.0-rc.1', 'newest', 'one'],
  ['Prometheus/2.53.2', 'Prometheus', '2.53.2', 'newest', 'one'],
  ['Prometheus/2.54.0', 'Prometheus', '2.54.0', 'newest', 'one'],
  ['Prometheus/2.54.1', 'Prometheus', '2.54.1', 'many', 'many'],
  ['Prometheus/', 'Prometheus', '', 'newest', 'one'],
  ['Alloy/v1.5.1 (linux; docker)', 'Alloy', 'v1.5.1', 'many', 'many'],
  ['GrafanaAgent/v0.40.0 (static; linux)', 'GrafanaAgent', 'v0.40.0', 'many', 'many'],
  ['vm_promscrape', 'vm_promscrape', '', 'newest', 'one'],
  ['otelcol-contrib/0.98.0', 'otelcol', '0.98.0', 'newest', 'one'],
  ['otelcol/0.98.0 (linux/amd64)', 'otelcol', '0.98.0', 'newest', 'one'],
  ['curl/8.5.0', 'curl', '8.5.0', 'newest', 'one'],
  ['Mozilla/5.0 (X11; Linux x86_64)', 'Mozilla', '5.0', 'newest', 'one'],
  ['<b>"\u001b[2J', 'unknown', '', 'newest', 'one'],
  ['', 'unknown', '', 'newest', 'one'],
] as const) {
  test(`'${userAgent}' is given ${plain}, with timestamps=1 ${withTimestamps}`, () => {
    const scrape = scrapeBy(userAgent);
    assert.deepEqual(scrape.program, { name: program, version });
    assert.equal(what(scrape), plain);
    assert.notEqual(scrape.given.why, '');
    assert.equal(what(scrapeBy(userAgent, 'timestamps=1')), withTimestamps);
    assert.equal(what(scrapeBy(userAgent, 'timestamps=1&reports=many')), 'many');
    assert.equal(what(scrapeBy(userAgent, 'timestamps=1&reports=one')), 'one');
    assert.equal(what(scrapeBy(userAgent, 'timestamps=0&reports=many')), 'newest');
  });
}

test('without the time-out header, and for HEAD, the newest values are given, whoever asks', () => {
  const headers = { 'user-agent': 'Prometheus/3.5.0' };
  assert.equal(what(identified({ headers, query: 'timestamps=1&reports=many' })), 'newest');
  assert.equal(what(identified({ headers: { ...headers, ...timeout }, method: 'HEAD' })), 'newest');
  for (const seconds of ['', '0', '-1', 'x', 'NaN', '3601', 'Infinity']) {
    const scrape = identified({ headers: { ...headers, 'x-prometheus-scrape-timeout-seconds': seconds } });
    assert.deepEqual([what(scrape), scrape.timeoutMs], ['newest', undefined], seconds);
  }
  assert.equal(scrapeBy('Prometheus/3.5.0').timeoutMs, 10_000);
});

test('a scraper is named by the URL, by whom it has proved to be, or by its address, in that order', () => {
  const name = (given: Partial<RequestFacts>) => scraperText(identified(given).scraper);
  assert.equal(name({}), 'addr/192.0.2.1');
  assert.equal(name({ user: 'bob' }), 'user/bob');
  assert.equal(name({ user: 'bob', query: 'scraper=p:1' }), 'p:1');
  // None of these is another's.
  const names = [name({ query: 'scraper=192.0.2.1' }), name({}), name({ user: '192.0.2.1' })];
  assert.equal(new Set(names).size, 3);
});

test('parameters', () => {
  const all = identified({ query: 'scraper=x&agent=b&agent=a&agent=b&max=700&max-bytes=1000000' });
  assert.deepEqual(all.agents, ['a', 'b']);
  assert.deepEqual([all.samplesMax, all.textBytesMax], [700, 1_000_000]);
  const none = scrapeBy('Prometheus/3.5.0');
  assert.deepEqual([none.agents, none.samplesMax, none.textBytesMax], [[], undefined, undefined]);
  assert.equal(scrapeBy('vm_promscrape').textBytesMax, 12 * 1024 * 1024);
  assert.equal(scrapeBy('vm_promscrape', 'max-bytes=65536').textBytesMax, 65_536);
  assert.equal(scrapeBy('Go-http-client/1.1').textBytesMax, 12 * 1024 * 1024);
});

const takes = '/metrics takes scraper, agent, timestamps, reports, max, max-bytes; only agent may be repeated';

for (const [query, words] of [
  ['agents=web-1', `unknown parameter 'agents': ${takes}`],
  ['Scraper=x', `unknown parameter 'Scraper': ${takes}`],
  ['__proto__=x', `unknown parameter '__proto__': ${takes}`],
  ['toString=x', `unknown parameter 'toString': ${takes}`],
  ['=x', `unknown parameter '': ${takes}`],
  ['x', `unknown parameter 'x': ${takes}`],
  [`${'x'.repeat(500)}=1`, `unknown parameter '${'x'.repeat(40)}': ${takes}`],
  ['max=1&max=1', `max is given twice: ${takes}`],
  ['scraper=a&scraper=b', `scraper is given twice: ${takes}`],
  ['timestamps=false', 'timestamps=false: expected 0 or 1'],
  ['timestamps=', 'timestamps=: expected 0 or 1'],
  ['reports=two', 'reports=two: expected many or one'],
  ['agent=', "agent=: expected an agent's name"],
  ['agent=a%20b', "agent=a b: expected an agent's name"],
  ['scraper=', 'scraper=: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -'],
  ['scraper=a/b', 'scraper=a/b: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -'],
  [`scraper=${'x'.repeat(65)}`, `scraper=${'x'.repeat(40)}: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -`],
  ['scraper=%1b%5b2J', 'scraper=\u001b[2J: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -'],
  ...['0', '-1', '1.5', '', 'x', '01', '1e3', '10000001', '100000000000'].map(
    (max) => [`max=${max}`, `max=${max}: expected a whole number of samples, 1 to 10000000`] as const,
  ),
  ['max-bytes=0', 'max-bytes=0: expected a whole number of bytes of text, 1 to 1073741824'],
  ['max-bytes=1073741825', 'max-bytes=1073741825: expected a whole number of bytes of text, 1 to 1073741824'],
] as const) {
  test(`'${query.slice(0, 40)}' is refused in words`, () => {
    assert.deepEqual(identify(facts({ query })), { wrong: words });
  });
}

test('a name is right up to 64 characters', () => {
  assert.equal(identified({ query: `scraper=${'x'.repeat(64)}` }).scraper.text.length, 64);
});

/** What says of each request in turn, on one connection, that a proxy stands between. */
class OneConnection {
  past = nothingPast;
  nowMs = 0;

  next(given: Partial<RequestFacts>, afterMs = 60_000, headerNames: readonly string[] = ['User-Agent']) {
    this.nowMs += afterMs;
    const request = { request: facts(given), headerNames, identified: identified(given), nowMs: this.nowMs };
    const { past, proxy } = withRequest(this.past, request);
    this.past = past;
    return proxy;
  }
}

test('what says that a proxy stands between', () => {
  const prometheus = { 'user-agent': 'Prometheus/3.5.0' };
  const sign = (given: Partial<RequestFacts>) => new OneConnection().next(given);
  assert.equal(sign({ headers: prometheus }), undefined);
  assert.equal(sign({ headers: { ...prometheus, via: '1.1 proxy' } }), 'a header Via');
  assert.equal(sign({ headers: { 'x-forwarded-for': '192.0.2.9' } }), 'a header X-Forwarded-For');
  assert.equal(sign({ headers: { forwarded: 'for=192.0.2.9' } }), 'a header Forwarded');
  assert.equal(sign({ headers: prometheus, httpVersion: '1.0' }), 'HTTP/1.0 from a Prometheus');
  assert.equal(sign({ httpVersion: '1.0' }), undefined, 'a script may speak that');
  const inLowerCase = (headers: RequestFacts['headers']) => new OneConnection().next({ headers }, 0, ['user-agent']);
  assert.equal(inLowerCase(prometheus), 'names of headers in lower case from a Prometheus');
  assert.equal(inLowerCase({ 'user-agent': 'node' }), undefined, 'others may write them so');
});

test('two programs, or two names in turns, come over one connection through a proxy alone', () => {
  const connection = new OneConnection();
  const next = (userAgent: string, scraper: string) =>
    connection.next({ headers: { 'user-agent': userAgent }, query: `scraper=${scraper}` });
  const one = 'Prometheus/3.5.0';
  assert.equal(next(one, 'a'), undefined);
  assert.equal(next(one, 'a'), undefined);
  assert.equal(next(one, 'b'), undefined, 'its configuration may have changed');
  assert.equal(next(one, 'b'), undefined);
  assert.equal(next(one, 'a'), 'two names in turns on one connection');
  assert.equal(next('Prometheus/2.42.0', 'a'), 'two programs on one connection');
  for (let name = 0; name < 100; name++) next(`x/${name}`, `x${name}`);
  const { past } = connection;
  assert.ok(past.scrapers.length < 10 && past.userAgents.size < 10 && past.asked.size < 10, 'what is kept is bounded');
});

test('two of one name come over one connection more often than their time-out allows one', () => {
  const headers = { 'user-agent': 'Prometheus/3.5.0', ...timeout };
  const several = 'more scrapes on one connection than their time-out allows one Prometheus';
  // Each every 15 s, and 10 s are the time-out of each.
  const both = new OneConnection();
  const signs = Array.from({ length: 12 }, (_, at) => both.next({ headers }, at % 2 === 0 ? 4000 : 11_000));
  assert.deepEqual(signs.slice(0, 8), Array(8).fill(undefined));
  assert.deepEqual(signs.slice(8), Array(4).fill(several));
  const one = new OneConnection();
  for (let scrape = 0; scrape < 100; scrape++) {
    assert.equal(one.next({ headers }, scrape % 20 === 0 ? 500 : 9990), undefined, 'it is reloaded now and then');
  }
  const targets = new OneConnection();
  for (let scrape = 0; scrape < 100; scrape++) {
    assert.equal(targets.next({ headers, query: `agent=web-${scrape % 4}` }, 2500), undefined, 'several targets');
  }
});

for (const [header, isAccepted] of [
  ['gzip', true],
  ['GZIP', true],
  ['br, gzip', true],
  ['gzip;q=1.0, deflate;q=0.8', true],
  ['deflate, gzip ; q=0.5', true],
  ['*', true],
  ['br, *;q=0.1', true],
  ['', false],
  ['identity', false],
  ['gzip;q=0', false],
  ['gzip;q=0.000', false],
  ['gzip; q=0, *', false],
  ['*;q=0', false],
  ['xgzip', false],
  ['gzip-x', false],
] as const) {
  test(`Accept-Encoding '${header}' ${isAccepted ? 'takes' : 'takes no'} gzip`, () => {
    assert.equal(acceptsGzip(header), isAccepted);
  });
}
