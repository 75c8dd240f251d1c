import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problemsView } from '../../../../src/server/problems.ts';
import type { AgentStatus, ScraperStatus, ServerStatus } from '../../../../src/server/status.ts';
import {
  cellsOf,
  chosen,
  type FleetHost,
  fleetPage,
  parseFleetQuery,
  problemsHtml,
  tableOf,
} from '../../../../src/server/web/page/fleet.ts';
import { percentText, rateText } from '../../../../src/server/web/page/html.ts';
import { lineSvg, rangeText } from '../../../../src/server/web/page/spark.ts';

const nowMs = 1_700_000_000_000;

function hostOf(
  name: string,
  fields: Partial<FleetHost> & { readonly labels?: Record<string, string> } = {},
): FleetHost {
  const { labels = {}, ...others } = fields;
  const agent: AgentStatus = {
    ...{ name, labels, up: true, connected: true, intervalSeconds: 5, clockOffsetSeconds: 0, series: 1, sources: [] },
    ...{ windowReports: 0, windowBytes: 0, memoryBytes: 0, memoryShareBytes: 0, newSeries: 0, framesSeconds: 0 },
    ...{ overBudget: [], drops: [], unscrapedReports: 0, unscrapedBy: [], newestAt: new Date(nowMs).toISOString() },
  };
  return { agent, state: 'up', vitals: undefined, problems: [], trend: [], ...others };
}

const serverOf = (fields: Partial<ServerStatus> = {}): ServerStatus => ({
  ...{ version: '1', startedAt: new Date(nowMs).toISOString(), agents: { known: 1, up: 1, connected: 1 } },
  ...{ windowBytes: 0, windowBytesMax: 100, windowReports: 0, windowSeconds: 1800, clock: { steps: 0 }, scrapers: [] },
  ...fields,
});

const fleetPageOf = (hosts: readonly FleetHost[], queryText = ''): string => {
  const query = parseFleetQuery(queryText);
  const parts = { headline: '', about: '', problems: '' };
  return fleetPage({
    ...{ cells: new Map(hosts.map((host) => [host.agent.name, cellsOf(host, nowMs)])), parts },
    ...{ query, table: tableOf(hosts, query, nowMs), joining: { kind: 'by-key' }, revision: 1 },
  }).body;
};
const names = (hosts: readonly FleetHost[]) => hosts.map(({ agent }) => agent.name);
const vitals = (cpu: number) => ({ timeMs: nowMs, failedCollectors: [], cpu });

test('the URL filters by text, state and label, and sorts; what is unknown comes last', () => {
  const hosts = [
    hostOf('a', { labels: { site: 'north' }, vitals: vitals(0.5) }),
    hostOf('b', { labels: { site: 'south' }, vitals: vitals(0.9), problems: [{ rank: 1, text: 'x' }] }),
    hostOf('c', { state: 'down', problems: [{ rank: 0, text: 'down' }] }),
  ];
  const by = (query: string) => names(chosen(hosts, parseFleetQuery(query), nowMs));
  assert.deepEqual(by(''), ['a', 'b', 'c']);
  assert.deepEqual(by('q=NORTH'), ['a']);
  assert.deepEqual(by('q=b'), ['b']);
  assert.deepEqual(by('label=site%3Dsouth'), ['b']);
  assert.deepEqual(by('label=site'), ['c'], 'an empty value is that of a host without the label');
  assert.deepEqual(by('state=down'), ['c']);
  assert.deepEqual(by('state=problems'), ['b', 'c']);
  assert.deepEqual(by('sort=cpu'), ['b', 'a', 'c']);
  assert.deepEqual(by('sort=cpu&order=asc'), ['a', 'b', 'c']);
  assert.deepEqual(by('sort=state'), ['c', 'b', 'a'], 'the worst first');
  assert.deepEqual(by('sort=none&order=up&state=x&%=%'), ['a', 'b', 'c'], 'what is no query is none');
});

test('every cell is escaped', () => {
  const evil = `<img src=x onerror="alert('1')">`;
  const disk = { mountpoint: evil, device: evil, fstype: evil, sizeBytes: 1, availableBytes: 1, used: 1 };
  const host = hostOf('a', { labels: { [evil]: evil }, state: evil, vitals: { ...vitals(1), disk } });
  const html = cellsOf({ ...host, agent: { ...host.agent, software: evil } }, nowMs).join('');
  assert.doesNotMatch(html, /<img/);
});

/** What the page says that is wrong: items and their text, those of a list in a list with what it is of before them. */
function itemsOf(html: string): string[] {
  let of = '';
  return html
    .split('<li>')
    .slice(1)
    .flatMap((item) => {
      const text = item.replace(/<[^>]+>/g, '').trim();
      const said = of === '' ? text : `${of} ${text}`;
      if (item.includes('</ul>')) of = '';
      if (!item.includes(':<ul>')) return [said];
      of = text;
      return [];
    });
}

test('what is wrong: the worst on top, long lists cut with a link to the rest; nothing wrong is one line', () => {
  const words = problemsView(() => ({ nowMs, startedAtMs: nowMs }));
  const many = Array.from({ length: 40 }, (_, at) =>
    hostOf(`h${at}`, { problems: [{ rank: 1, text: 'its <disk> is full' }] }),
  );
  const html = problemsHtml(
    [...many, hostOf('z', { problems: [{ rank: 0, text: 'down: no report' }] })],
    serverOf({ scrapers: [scraper] }),
    { words, plaintext: false },
  );
  assert.match(
    html,
    /^<div class=wrong><h2>41 things are wrong<\/h2><ul><li><a href="\/agents\/z">z<\/a>: down: no report/,
  );
  assert.match(html, /its &lt;disk&gt; is full/);
  assert.match(html, /and 11 more hosts: <a href="\/\?state=problems&amp;sort=state">/);
});

test('what is wrong with the fleet is said, however much is wrong with its hosts', () => {
  const words = problemsView(() => ({ nowMs, startedAtMs: nowMs }));
  const units = Array.from({ length: 31 }, (_, at) => ({ rank: 1, text: `unit ${at} has failed` }));
  const full = hostOf('web-1', { problems: [...units, { rank: 3, text: 'a collector fails' }] });
  const [old] = [hostOf('old')].map((host) => ({ ...host, agent: { ...host.agent, software: 'sysmon-agent 0' } }));
  const blocked = Array.from({ length: 9 }, (_, at) => `it does not store reports of 'h${at}'`);
  // A scraper that selects different agents in two jobs is two lines of the status, with the same problems.
  const scrapers = [1, 2].map(() => ({ ...scraper, problems: blocked }));
  const downs = Array.from({ length: 50 }, (_, at) => hostOf(`h${at}`, { problems: [{ rank: 0, text: 'down' }] }));
  const htmlOf = (server: Partial<ServerStatus>, ...hosts: FleetHost[]) =>
    problemsHtml(hosts, serverOf(server), { words, plaintext: true });
  const problemsOf = (...of: Parameters<typeof htmlOf>) => itemsOf(htmlOf(...of));
  assert.match(htmlOf({ scrapers }, full), /<h2>42 things are wrong<\/h2>/, '32, 9, and that there are no keys');
  assert.deepEqual(problemsOf({ windowBytes: 95 }, full, old!), [
    'windows take 95 % of --memory-max: raise it, or the oldest reports are evicted',
    ...[0, 1, 2].map((at) => `web-1: unit ${at} has failed`),
    'web-1: and 29 more of web-1',
    'no Prometheus has scraped yet: reports are acknowledged as they arrive',
    'agents connect without keys (--allow-plaintext): anyone who can reach the port can report under any name; make a fleet key (--fleet-key-file) and enroll each agent',
    '2 versions run at once: 0 (old), 1 (the server); upgrade the older ones',
  ]);
  const stormy = problemsOf({ scrapers }, ...downs, full, old!);
  assert.deepEqual(
    stormy.slice(0, 30),
    downs.slice(0, 30).map(({ agent }) => `${agent.name}: down`),
  );
  assert.deepEqual(stormy.slice(30), [
    ...[0, 1, 2].map((at) => `scraper 'prometheus': it does not store reports of &#39;h${at}&#39;`),
    "scraper 'prometheus': and 6 more of scraper 'prometheus'",
    stormy.find((text) => text.startsWith('agents connect without keys'))!,
    '2 versions run at once: 0 (old), 1 (the server); upgrade the older ones',
    'and 21 more hosts: all hosts with problems',
  ]);
});

const scraper: ScraperStatus = {
  ...{ scraper: 'prometheus', selection: '', program: 'Prometheus', version: '3.5.0', address: '192.0.2.9' },
  ...{ confirmedBy: 'connection', connections: 1, conflicts: 0, lastScrapeAt: new Date(nowMs).toISOString() },
  ...{ known: true, backlogReports: 0, lagSeconds: 0, behind: false, problems: [] },
};

test('what is wrong with the server, and nothing where it is not', () => {
  const words = problemsView(() => ({ nowMs, startedAtMs: nowMs }));
  const calm = '<p class=calm>Nothing is wrong.</p>';
  const html = (
    server: Partial<ServerStatus> = {},
    { plaintext = false, versions = ['1'] }: { plaintext?: boolean; versions?: readonly string[] } = {},
  ) => {
    const hosts = versions.map((version, at) => {
      const host = hostOf(`h${at}`);
      return { ...host, agent: { ...host.agent, software: `sysmon-agent ${version}` } };
    });
    return problemsHtml(hosts, serverOf({ scrapers: [scraper], ...server }), { words, plaintext });
  };
  assert.equal(html(), calm);
  assert.equal(html({ windowBytes: 90 }), calm);
  assert.match(html({ windowBytes: 91 }), /windows take 91 % of --memory-max: raise it, or/);
  assert.match(html({}, { plaintext: true }), /agents connect without keys .*; make a fleet key/);
  assert.match(
    html({}, { versions: ['1', '0'] }),
    /2 versions run at once: 0 \(h1\), 1 \(the server\); upgrade the older/,
  );
  assert.match(html({}, { versions: ['2', '2'] }), /2 versions run at once: 1 \(the server\), 2 \(agents\); upgrade/);
  assert.match(html({ scrapers: [] }), /no Prometheus has scraped yet/);
  assert.match(
    html({ scrapers: [{ ...scraper, problems: ['it is <b>'] }] }),
    /<a href="\/scrapers">scraper 'prometheus'<\/a>: it is &lt;b&gt;/,
  );
  const step = { at: new Date(nowMs - 60_000).toISOString(), seconds: 5 };
  assert.match(html({ clock: { steps: 1, lastStep: step } }), /the clock was set by 5 s 60 s ago/);
});

test('each column of the line of a host', () => {
  const whole: FleetHost = {
    ...hostOf('web-1', {
      labels: { site: 'north' },
      trend: [0.1, 0.5].map((value, at) => ({ timeMs: at * 1000, value })),
      vitals: {
        ...{ timeMs: nowMs, failedCollectors: [], cpu: 0.42, memory: 0.5, load: 1.234, celsius: 61.4, oomKills: 0 },
        disk: {
          ...{ mountpoint: '/srv', device: '/dev/sda', fstype: 'xfs' },
          sizeBytes: 9,
          availableBytes: 1,
          used: 0.91,
        },
        ...{ readBytes: 1000, writtenBytes: 500, receivedBytes: 2e6, sentBytes: 1e6, uptimeSeconds: 90_000 },
        ...{ pressure: { resource: 'io', share: 0.25 }, failedUnits: ['a.service', 'b.service'] },
      },
    }),
  };
  const { agent } = whole;
  const cellsBy = (change: Partial<typeof agent>, host: Partial<FleetHost> = {}) => {
    const cells = cellsOf({ ...whole, ...host, agent: { ...agent, software: 'sysmon-agent 0.1.0', ...change } }, nowMs);
    return cells.map((cell) => cell.replace(/<br>/g, ', ').replace(/<[^>]+>/g, ''));
  };
  assert.deepEqual(cellsBy({ spoolReports: 72 }), [
    ...['web-1 site=north', 'up', 'now', '42 %', '50 %', '/srv 91 %', '1.5 kB/s', '3.0 MB/s', '1.23', 'io 25 %'],
    ...['61 °C', '2', '25 h', '0.1.0', '72', '0'],
  ]);
  assert.match(cellsOf(whole, nowMs).join(), /aria-label="CPU over the window: 10 % to 50 %"/);
  const ago = (seconds: number) => new Date(nowMs - seconds * 1000).toISOString();
  const down = cellsBy({ newestAt: ago(100), lastReportAt: ago(90), unscrapedReports: null }, { state: 'down' });
  assert.deepEqual([down[1], down[2], down.at(-1)], ['down for 90 s', '100 s ago', '–']);
  const unknown = cellsBy({}, { vitals: { timeMs: nowMs, failedCollectors: [] }, trend: [] });
  assert.deepEqual(
    unknown.slice(3, 13),
    Array.from({ length: 10 }, () => '–'),
  );
  const spool = (spoolReports?: number) => cellsBy(spoolReports === undefined ? {} : { spoolReports }).at(-2);
  assert.deepEqual([spool(), spool(0), spool(3), spool(40)], ['–', '0', '0', '40']);
  // Which scraper lacks how much; what was made since the last scrape is no backlog.
  const waiting = (...reports: number[]) => {
    const unscrapedBy = reports.map((count, at) => ({ scraper: `p${at}`, reports: count }));
    return cellsBy({ unscrapedReports: Math.max(...reports), unscrapedBy }).at(-1);
  };
  assert.equal(waiting(9, 3), '0');
  assert.equal(waiting(360), '360');
  assert.equal(waiting(3, 360), '360 p1');
  assert.equal(waiting(40, 360), '40 p0, 360 p1');
});

test('every column sorts both ways', () => {
  const [a, b] = [1, 2].map((value) => {
    const used = value / 10;
    const host = hostOf(`h${value}`, {
      state: value === 1 ? 'down' : 'up',
      vitals: {
        ...{ timeMs: nowMs, failedCollectors: [], cpu: used, memory: used, load: used, celsius: value, oomKills: 0 },
        ...{ disk: { mountpoint: '/', device: 'a', fstype: 'xfs', sizeBytes: 9, availableBytes: 1, used } },
        ...{ readBytes: value, sentBytes: value, uptimeSeconds: value, pressure: { resource: 'io', share: used } },
        failedUnits: Array.from({ length: value }, () => 'a.service'),
      },
    });
    const newestAt = new Date(nowMs - value * 100_000).toISOString();
    const waiting = {
      spoolReports: 10 * value,
      unscrapedReports: 10 * value,
      software: `sysmon-agent ${value}`,
      newestAt,
    };
    return { ...host, agent: { ...host.agent, ...waiting } };
  }) as [FleetHost, FleetHost];
  const ids = [...fleetPageOf([a, b]).matchAll(/<th scope=col[^>]*><a href="\/\?[^"]*sort=(\w+)/g)].map(
    ([, id]) => id!,
  );
  assert.equal(ids.length, 16);
  for (const id of ids) {
    const order = (way: string) => names(chosen([a, b], parseFleetQuery(`sort=${id}&order=${way}`), nowMs));
    assert.deepEqual(order('asc'), ['h1', 'h2'], id);
    assert.deepEqual(order('desc'), ['h2', 'h1'], id);
  }
});

test('rows that look the same keep their order, by name, whatever their last digits do', () => {
  const boundary = 0.004;
  const hostWith = (name: string, more: number) =>
    hostOf(name, {
      vitals: {
        ...{ timeMs: nowMs + more * 1e6, failedCollectors: [], cpu: 0.5 + more, memory: 0.5 + more, load: 1 + more },
        ...{ celsius: 50 + more, readBytes: 1e6 * (1.2 + more), sentBytes: 345.1e3 + more, oomKills: 0 },
        ...{ uptimeSeconds: 90_000 + more * 1000, pressure: { resource: 'io', share: 0.5 + more } },
        disk: { mountpoint: '/', device: 'a', fstype: 'xfs', sizeBytes: 9, availableBytes: 1, used: 0.5 + more },
      },
    });
  const [a, b] = [0, boundary].map((more, at) => {
    const host = hostWith(`h${at}`, more);
    const newestAt = new Date(nowMs - at * 3000).toISOString();
    return { ...host, agent: { ...host.agent, newestAt, unscrapedReports: 3 * at, spoolReports: 3 * at } };
  }) as [FleetHost, FleetHost];
  assert.deepEqual(cellsOf(a, nowMs).slice(1), cellsOf(b, nowMs).slice(1));
  const ids = [...fleetPageOf([a, b]).matchAll(/[?;]sort=(\w+)/g)].map(([, id]) => id!).filter((id) => id !== 'host');
  assert.equal(ids.length, 15);
  for (const id of ids) {
    for (const order of ['asc', 'desc'] as const) {
      for (const hosts of [
        [a, b],
        [b, a],
      ]) {
        const query = parseFleetQuery(`sort=${id}&order=${order}`);
        assert.deepEqual(names(chosen(hosts, query, nowMs)), ['h0', 'h1'], `${id} ${order}`);
      }
    }
  }
});

test('a line is drawn of two points or more, with gaps, and says its range in words', () => {
  const points = [0, 1, undefined, 0.5, 0.25].map((value, at) => ({ timeMs: at * 1000, value }));
  const svg = lineSvg(points, { width: 40, height: 11, most: 1, label: rangeText(points, percentText) });
  assert.match(svg, /d="M0 10.5L10 0.5M30 5.5L40 8"/);
  assert.match(svg, /aria-label="0 % to 100 %"/);
  assert.equal(lineSvg(points.slice(0, 1), { width: 40, height: 11, most: 1, label: '' }), '');
  assert.equal(rangeText([], percentText), 'unknown');
});

test('rates are of powers of a thousand', () => {
  assert.deepEqual([0, 999, 1234, 45_678, 1.5e9].map(rateText), [
    '0 B/s',
    '999 B/s',
    '1.2 kB/s',
    '46 kB/s',
    '1.5 GB/s',
  ]);
});
