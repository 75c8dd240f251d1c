import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problemsView } from '../../../../src/server/problems.ts';
import type { AgentStatus, ServerStatus } from '../../../../src/server/status.ts';
import {
  cellsOf,
  chosen,
  type FleetHost,
  parseFleetQuery,
  problemsHtml,
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
    ...{ overBudget: [], drops: [], unscrapedReports: 0, newestAt: new Date(nowMs).toISOString() },
  };
  return { agent, state: 'up', vitals: undefined, problems: [], trend: [], ...others };
}

const serverOf = (fields: Partial<ServerStatus> = {}): ServerStatus => ({
  ...{ version: '1', startedAt: new Date(nowMs).toISOString(), agents: { known: 1, up: 1, connected: 1 } },
  ...{ windowBytes: 0, windowBytesMax: 100, windowReports: 0, windowSeconds: 1800, clock: { steps: 0 }, scrapers: [] },
  ...fields,
});

const names = (hosts: readonly FleetHost[]) => hosts.map(({ agent }) => agent.name);
const vitals = (cpu: number) => ({ timeMs: nowMs, failedCollectors: [], cpu });

test('the URL filters by text, state and label, and sorts; what is unknown comes last', () => {
  const hosts = [
    hostOf('a', { labels: { site: 'north' }, vitals: vitals(0.5) }),
    hostOf('b', { labels: { site: 'south' }, vitals: vitals(0.9), problems: [{ rank: 1, text: 'x' }] }),
    hostOf('c', { state: 'down', problems: [{ rank: 0, text: 'down' }] }),
  ];
  const by = (query: string) => names(chosen(hosts, parseFleetQuery(query)));
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

test('what is wrong: the worst on top, long lists cut with a link to the rest; nothing wrong is one line', () => {
  const words = problemsView(() => ({ nowMs, startedAtMs: nowMs }));
  const options = { words, plaintext: false };
  const scraper = serverOf({ agents: { known: 1, up: 1, connected: 1 } });
  const many = Array.from({ length: 40 }, (_, at) =>
    hostOf(`h${at}`, { problems: [{ rank: 1, text: 'its <disk> is full' }] }),
  );
  const html = problemsHtml(
    [...many, hostOf('z', { problems: [{ rank: 0, text: 'down: no report' }] })],
    scraper,
    options,
  );
  assert.match(
    html,
    /^<div class=wrong><h2>42 things are wrong<\/h2><ul><li><a href="\/agents\/z">z<\/a>: down: no report/,
  );
  assert.match(html, /its &lt;disk&gt; is full/);
  assert.match(html, /and 12 more: <a href="\/\?state=problems">/);
  const full = problemsHtml([], serverOf({ windowBytes: 95 }), { ...options, plaintext: true });
  assert.match(full, /windows take 95 % of --memory-max/);
  assert.match(full, /without keys/);
  const two = ['1', '2'].map((version) => hostOf(version));
  const mixed = two.map((host, at) => ({ ...host, agent: { ...host.agent, software: `sysmon-agent ${at}` } }));
  assert.match(problemsHtml(mixed, serverOf(), options), /agents run 2 versions: sysmon-agent 0, sysmon-agent 1/);
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
