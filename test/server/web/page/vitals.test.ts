import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reading } from '../../../../src/server/web/page/reading.ts';
import { cpuShare, fileSystemsOf, Since, vitalsOf } from '../../../../src/server/web/page/vitals.ts';
import { sumsOf, type Values } from '../../delivery/report-maker.ts';
import { type Metrics, readingOf, schemaOf } from './host-reports.ts';

const cpu = (idle: number, user: number): Metrics => ({
  'node_cpu_seconds_total{cpu="0",mode="idle"}': idle,
  'node_cpu_seconds_total{cpu="0",mode="user"}': user,
  'node_cpu_seconds_total{cpu="1",mode="iowait"}': idle,
  'node_cpu_seconds_total{cpu="1",mode="system"}': 0,
});

test('what a host does is the increase of its counters between two reports', () => {
  const before = readingOf({
    ...cpu(100, 50),
    'node_disk_read_bytes_total{device="sda"}': 0,
    'node_disk_read_bytes_total{device="sda1"}': 0,
    'node_disk_written_bytes_total{device="nvme0n1"}': 1000,
    'node_network_receive_bytes_total{device="eth0"}': 0,
    'node_network_receive_bytes_total{device="lo"}': 0,
    node_pressure_cpu_waiting_seconds_total: 1,
    node_pressure_io_waiting_seconds_total: 1,
  });
  const now = readingOf(
    {
      ...cpu(107, 56),
      'node_disk_read_bytes_total{device="sda"}': 5000,
      'node_disk_read_bytes_total{device="sda1"}': 5000,
      'node_disk_written_bytes_total{device="nvme0n1"}': 2000,
      'node_network_receive_bytes_total{device="eth0"}': 50_000,
      'node_network_receive_bytes_total{device="lo"}': 1e9,
      node_pressure_cpu_waiting_seconds_total: 2,
      node_pressure_io_waiting_seconds_total: 5,
      node_load1: 3,
      node_memory_MemTotal_bytes: 4000,
      node_memory_MemAvailable_bytes: 1000,
      node_boot_time_seconds: 10,
      node_time_seconds: 70,
    },
    10_000,
  );
  const vitals = vitalsOf(now, before);
  assert.equal(vitals.cpu?.toFixed(3), '0.300', 'neither idle nor iowait is work');
  assert.equal(vitals.readBytes, 500, 'a partition is part of its disk');
  assert.equal(vitals.writtenBytes, 100);
  assert.equal(vitals.receivedBytes, 5000, 'the loopback is no network');
  assert.equal(vitals.sentBytes, undefined);
  assert.deepEqual(vitals.pressure, { resource: 'io', share: 0.4 });
  assert.equal(vitals.load, 1.5);
  assert.equal(vitals.memory, 0.75);
  assert.equal(vitals.uptimeSeconds, 60);
});

test('without a report before, and after a reboot, there are no rates', () => {
  const now = readingOf(cpu(1, 1), 1000);
  assert.equal(vitalsOf(now, undefined).cpu, undefined);
  assert.equal(cpuShare(now, readingOf(cpu(100, 100))), undefined);
  assert.equal(new Since(now, readingOf(cpu(1, 1), 1000)).rate('node_cpu_seconds_total'), undefined, 'no time passed');
});

test('what is not collected is undefined, not zero', () => {
  const vitals = vitalsOf(readingOf({ node_load1: 1 }, 5000), readingOf({ node_load1: 1 }));
  assert.deepEqual(vitals, { timeMs: 5000, failedCollectors: [] });
});

test('file systems: as df counts them, each device once', () => {
  const at = (metric: string, device: string, mountpoint: string) =>
    `node_filesystem_${metric}_bytes{device="${device}",mountpoint="${mountpoint}",fstype="ext4"}`;
  const now = readingOf({
    [at('size', '/dev/sda1', '/var/lib/docker')]: 100,
    [at('free', '/dev/sda1', '/var/lib/docker')]: 20,
    [at('avail', '/dev/sda1', '/var/lib/docker')]: 15,
    [at('size', '/dev/sda1', '/')]: 100,
    [at('free', '/dev/sda1', '/')]: 20,
    [at('avail', '/dev/sda1', '/')]: 15,
    [at('size', 'tmpfs', '/run')]: 10,
    [at('avail', 'tmpfs', '/run')]: 10,
    [at('size', 'proc', '/proc')]: 0,
    [at('avail', 'proc', '/proc')]: 0,
    [at('size', '/dev/sdb', '/broken')]: 10,
  });
  assert.deepEqual(
    fileSystemsOf(now).map(({ mountpoint, used }) => [mountpoint, used]),
    [
      ['/', 80 / 95],
      ['/run', 0],
    ],
  );
  assert.equal(vitalsOf(now, undefined).disk?.mountpoint, '/');
});

test('failed units and collectors; a collector without a subject has not failed', () => {
  const vitals = vitalsOf(
    readingOf({
      'node_systemd_unit_state{name="nginx.service",state="failed"}': 1,
      'node_systemd_unit_state{name="ssh.service",state="failed"}': 0,
      'node_systemd_unit_state{name="ssh.service",state="active"}': 1,
      'node_scrape_collector_success{collector="hwmon"}': 0,
      'node_scrape_collector_success{collector="cpu"}': 1,
      'node_scrape_collector_success{collector="zfs"}': 0,
      'sysmon_agent_collector_failed{collector="hwmon",reason="EIO"}': 1,
      'node_hwmon_temp_celsius{chip="a",sensor="temp1"}': 50,
      'node_thermal_zone_temp{zone="0",type="x"}': 60,
    }),
    undefined,
  );
  assert.deepEqual(vitals.failedUnits, ['nginx.service']);
  assert.deepEqual(vitalsOf(readingOf({ 'node_systemd_units{state="failed"}': 0 }), undefined).failedUnits, []);
  assert.equal(vitalsOf(readingOf({ node_load1: 0 }), undefined).failedUnits, undefined);
  assert.deepEqual(vitals.failedCollectors, [{ name: 'hwmon', reason: 'EIO' }]);
  assert.equal(vitals.celsius, 60);
});

test('increases are the same whether two reports share a schema or not; a series that one of them lacks has none', () => {
  const names = ['a', 'b', 'c', 'd'].map((device) => `node_disk_read_bytes_total{device="${device}"}`);
  const reading = (
    values: Values,
    timeMs: number,
    schema = schemaOf(Object.fromEntries(names.map((name) => [name, 0]))),
  ) => new Reading({ ...sumsOf(values), schema, seq: 1, timeMs });
  const increases = (now: Reading, before: Reading) =>
    [...new Since(now, before).increases('node_disk_read_bytes_total')].map(({ labels, increase }) => [
      labels.get('device'),
      labels.get('other'),
      increase,
    ]);
  const schema = schemaOf(Object.fromEntries(names.map((name) => [name, 0])));
  const [before, now] = [
    [10, undefined, 30, 40],
    [15, 20, undefined, 7],
  ] as const;
  const expected = [['a', undefined, 5]];
  assert.deepEqual(increases(reading(now, 1000, schema), reading(before, 0, schema)), expected);
  assert.deepEqual(increases(reading(now, 1000), reading(before, 0)), expected);
  // The schema has grown since.
  assert.deepEqual(increases(reading(now, 1000, schema), reading([10], 0, schema)), expected);
});
