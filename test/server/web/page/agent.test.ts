import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentLive, agentPage } from '../../../../src/server/web/page/agent.ts';
import { HttpHarness } from '../http-harness.ts';
import { type Metrics, schemaOf } from './host-reports.ts';
import { cellsOf } from './table.ts';

const metricsAt = (seconds: number): Metrics => ({
  'node_cpu_seconds_total{cpu="0",mode="idle"}': seconds / 2,
  'node_cpu_seconds_total{cpu="0",mode="user"}': seconds / 2,
  'node_filesystem_size_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 4e9,
  'node_filesystem_avail_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 3e9,
  'node_network_receive_bytes_total{device="eth0"}': 2000 * seconds,
  'node_network_transmit_bytes_total{device="eth0"}': 1000 * seconds,
  'node_network_receive_errs_total{device="eth0"}': seconds,
  'node_systemd_unit_cpu_seconds_total{name="nginx.service"}': seconds / 4,
  'node_systemd_unit_cpu_seconds_total{name="cron.service"}': 0,
  'node_systemd_unit_cpu_seconds_total{name="system.slice"}': seconds / 2,
  'node_systemd_unit_cpu_seconds_total{name="docker-1.scope"}': seconds / 8,
  'node_systemd_unit_memory_current_bytes{name="nginx.service"}': 5e6,
  'node_systemd_unit_memory_current_bytes{name="cron.service"}': 9e6,
  'node_hwmon_temp_celsius{chip="coretemp",sensor="temp1"}': 51,
  'node_hwmon_fan_rpm{chip="nct",sensor="fan1"}': 900,
  'node_scrape_collector_duration_seconds{collector="cpu"}': 0.00125,
  'node_scrape_collector_success{collector="cpu"}': 1,
  'node_scrape_collector_success{collector="hwmon"}': 0,
  'node_scrape_collector_success{collector="zfs"}': 0,
  'sysmon_agent_collector_failed{collector="hwmon",reason="<EIO>"}': 1,
  sysmon_agent_spool_reports: 3,
});

/** The page of a host with three reports, and its tables as text: rows with bars between the cells. */
async function pageOf({ search = '', metrics = {} }: { search?: string; metrics?: Metrics } = {}) {
  const world = new HttpHarness();
  const agent = world.connect('web-1');
  const { record } = agent;
  record.peer = '192.0.2.1:4711';
  record.connectedAtMs = world.clock.nowMs();
  record.identity = 'web-1:3:60bf07c4';
  record.software = 'sysmon-agent 1.2.3';
  record.host.labels = [['site', 'north']];
  agent.maker.schema = schemaOf({ ...metricsAt(0), ...metrics });
  for (const seconds of [60, 120, 180]) {
    await world.clock.advance(60_000);
    const made = agent.maker.make(world.clock.nowMs(), Object.values({ ...metricsAt(seconds), ...metrics }), {
      key: true,
    });
    world.delivery.store.receive(record.host, { ...made, follows: false });
  }
  await world.scrapeAll({ name: 'p' });
  record.host.offsetMs = 3000;
  const options = {
    ...{ agent: world.view.agents()[0]!, record, words: world.view.problems, nowMs: world.clock.nowMs(), search },
  };
  const { body } = agentPage(options);
  const tables = new Map(
    [...body.matchAll(/aria-label="([^"]+)" tabindex=0><table>.*?<tbody>\n(.*?)<\/table>/gs)].map(([, title, rows]) => [
      title!,
      cellsOf(rows!).map((cells) => cells.join(' | ')),
    ]),
  );
  const facts = new Map([...body.matchAll(/<dt>([^<]+)<dd>([^<]*)/g)].map(([, name, value]) => [name!, value!]));
  return { body, tables, facts, live: JSON.parse(agentLive(options).body) };
}

test("a host's page has its labels, connection, key, clock and what waits where", async () => {
  const { facts, body } = await pageOf();
  assert.deepEqual(Object.fromEntries(facts), {
    Labels: 'site=north',
    'Newest report': '0 s ago; one each 5 s, 21 series',
    Connection: '192.0.2.1:4711, since 3 min ago',
    Key: 'generation 3, of fleet key 60bf07c4',
    Program: 'sysmon-agent 1.2.3',
    Clock: '3 s behind: its times are corrected',
    'Waits in its spool': '3 reports',
    'In the window': facts.get('In the window'),
    'Not scraped': '0 reports by p',
  });
  assert.match(facts.get('In the window')!, /^3 reports in [\d.]+ k?B$/);
  assert.match(body, /<div class=wrong><ul><li>its clock is 3 s behind .*<li>collector &#39;hwmon&#39; fails/);
});

test("a host's page has its file systems, interfaces, services, sensors and collectors", async () => {
  const { tables } = await pageOf();
  assert.deepEqual(tables.get('File systems'), ['/ | /dev/sda1 | ext4 | 25 % | 3.0 GB | 4.0 GB']);
  assert.deepEqual(tables.get('Interfaces'), ['eth0 | 2.0 kB/s | 1.0 kB/s | 1.0']);
  // By CPU, and those that use none by memory. A slice is the sum of what is in it; this scope has no memory controller.
  assert.deepEqual(tables.get('Services'), [
    'nginx.service | 25 % | 5.0 MB',
    'docker-1.scope | 13 % | –',
    'cron.service | 0 % | 9.0 MB',
  ]);
  assert.deepEqual(tables.get('Sensors'), ['coretemp temp1 | 51 °C', 'nct fan1 | 900 rpm']);
  assert.deepEqual(tables.get('Collectors'), [
    'cpu | 1.25 ms | has data',
    'hwmon | 0.00 ms | fails: &lt;EIO&gt;',
    'zfs | 0.00 ms | nothing of the kind here',
  ]);
});

test('a long table is cut, and says so', async () => {
  const units = Array.from({ length: 60 }, (_, at): [string, number] => [
    `node_systemd_unit_memory_current_bytes{name="u${at}.service"}`,
    60 - at,
  ]);
  const { tables, body } = await pageOf({ metrics: Object.fromEntries(units) });
  assert.equal(tables.get('Services')!.length, 50);
  assert.match(body, /The first 50 of 63 are shown; <a href="#series">all series<\/a> are below\./);
  assert.doesNotMatch((await pageOf()).body, /The first 50/);
});

test('its charts are drawn by the server, with a text for those who do not see them', async () => {
  const { body } = await pageOf();
  assert.match(
    body,
    /<figure data-chart=cpu data-unit="share"><figcaption>CPU <span class=soft>50 %<\/span><\/figcaption><svg [^>]*aria-label="CPU: 50 %">/,
  );
});

test('all series are searched by name and labels, each with its newest value and the PromQL that selects it', async () => {
  const all = await pageOf();
  assert.equal(all.tables.get('Series')!.length, 21);
  const found = await pageOf({ search: 'FILESYSTEM avail' });
  assert.deepEqual(found.tables.get('Series'), [
    'node_filesystem_avail_bytes{agent=&quot;web-1&quot;,device=&quot;/dev/sda1&quot;,mountpoint=&quot;/&quot;,fstype=&quot;ext4&quot;} | 3000000000',
  ]);
  assert.match(found.body, /1 series found/);
  const none = await pageOf({ search: '"><script>' });
  assert.equal(none.tables.get('Series'), undefined);
  assert.doesNotMatch(none.body, /<script>/);
});

test('what changes on the page is what is on it, but for the lines, whose points are there', async () => {
  const { body, live } = await pageOf({ search: 'filesystem' });
  const { state, tables, ...others } = live.parts;
  assert.deepEqual(others, {});
  assert.ok(body.includes(`<div id=state>${state}</div>`));
  assert.ok(body.includes(`<div id=tables>${tables}</div>`));
  assert.match(tables, /2 series found/);
  assert.ok(body.replace(/<svg.*?<\/svg>/g, '').includes(live.figures));
  const drawn = [...live.figures.matchAll(/data-chart=(\w+)/g)].map(([, name]) => name!);
  assert.deepEqual(drawn, ['cpu', 'received', 'sent', 'celsius']);
  for (const name of drawn) assert.equal(live.charts.values[name].length, live.charts.times.length, name);
});
