import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AgentStatus,
  connectedText,
  type DiskStatus,
  diskStatus,
  linkLine,
  linkStatus,
  statusText,
} from '../../src/agent/status.ts';
import type { LinkState } from '../../src/agent/uplink/uplink.ts';

const nowMs = Date.UTC(2026, 0, 1);
const states: Record<string, LinkState> = {
  connecting: { kind: 'connecting', sinceMs: nowMs },
  connected: { kind: 'connected', peer: '192.0.2.7:9732', sinceMs: nowMs, unsent: () => 3 },
  waiting: { kind: 'waiting', reason: 'it refused', isRefused: false, retryAtMs: nowMs + 60_000 },
  refused: { kind: 'waiting', reason: 'it refused this agent (revoked)', isRefused: true, retryAtMs: nowMs + 60_000 },
  stopped: { kind: 'stopped' },
};

const status: AgentStatus = {
  version: '1.2.3',
  name: 'web-1',
  startedAt: '2026-01-01T00:00:00.000Z',
  server: 'relay:9732',
  link: linkStatus(states['connected']!),
  spool: {
    reports: 12,
    bytes: 3_000_000,
    bytesMax: 64 * 1024 ** 2,
    oldestAt: null,
    folder: '/spool',
    disk: { state: 'ok' },
    unwrittenReports: 0,
  },
  reportsDropped: { full: 0, age: 0, disk: 0 },
  reportsRefused: [],
  lastReportAt: null,
  intervalSeconds: 5,
  series: 808,
  clockOffsetSeconds: 0,
  reconnects: 0,
  failures: [],
  absent: [],
};

test('to whom it is connected, with the address of a name, and under which name where the host has another', () => {
  assert.equal(connectedText(status, 'web-1'), "agent 'web-1' is connected to relay:9732 (192.0.2.7)\n");
  assert.equal(
    connectedText({ ...status, server: '192.0.2.7:9732' }, 'web-2'),
    "agent 'web-1' is connected to 192.0.2.7:9732\nthis host is 'web-2' and reports as 'web-1'\n",
  );
  const link = linkStatus({ ...states['connected']!, peer: '[2001:db8::7]:9732' } as LinkState);
  assert.match(connectedText({ ...status, link }, 'web-1'), /relay:9732 \(2001:db8::7\)\n$/);
});

test('each state of the link has its words, for machines, for people and for systemd', () => {
  const texts = Object.entries(states).map(([name, state]) => {
    assert.equal(linkStatus(state).state, name);
    const text = statusText({ ...status, link: linkStatus(state) }, nowMs + 40_000);
    return [...text.split('\n').filter((row) => /^(?:state|server) /.test(row)), linkLine('relay:9732', state)];
  });
  assert.deepEqual(texts, [
    ['state     not connected', 'server    relay:9732: connecting', undefined],
    ['state     healthy', 'server    relay:9732: connected for 40 s, 3 reports to send', 'connected to relay:9732'],
    [
      'state     not connected',
      'server    relay:9732: not connected: it refused; retrying in 20 s',
      'not connected: it refused',
    ],
    [
      'state     refused by the server',
      'server    relay:9732: not connected: it refused this agent (revoked); retrying in 20 s',
      'not connected: it refused this agent (revoked)',
    ],
    ['state     not connected', 'server    relay:9732: stopped', 'stopped'],
  ]);
});

test('a slow disk has a row of its own; one that is in order, or that is not used, has none', () => {
  const row = (disk: DiskStatus) =>
    /^disk .*$/m.exec(statusText({ ...status, spool: { ...status.spool, disk } }, nowMs))?.[0];
  const slow = diskStatus({ kind: 'slow', sinceMs: nowMs });
  assert.equal(row(slow), 'disk      slow since 2026-01-01T00:00:00.000Z; 0 reports in memory only');
  assert.equal(row(diskStatus({ kind: 'ok' })), undefined);
  assert.equal(row(diskStatus(undefined)), undefined);
});

test('what is wrong is said: a disk, drops, a clock, collectors', () => {
  const unwell: AgentStatus = {
    ...status,
    spool: {
      ...status.spool,
      oldestAt: '2026-01-01T00:00:00.000Z',
      disk: diskStatus({ kind: 'failing', sinceMs: nowMs, reason: 'ENOSPC: no space left on device' }),
      unwrittenReports: 5,
    },
    reportsDropped: { full: 7, age: 0, disk: 2 },
    reportsRefused: [
      {
        ...{ reason: 'too_old', text: 'older than the window of 30m', count: 369 },
        ...{ firstAt: '2026-01-01T00:00:00.000Z', lastAt: '2026-01-01T00:30:40.000Z' },
      },
    ],
    clockOffsetSeconds: -3600,
    absent: [
      { name: 'mdadm', reason: "'/proc/mdstat' does not exist" },
      { name: 'zfs', reason: "'/proc/spl/kstat/zfs' does not exist" },
    ],
    failures: [
      { name: 'cpu', extent: 'whole', reason: "'/proc/stat' is \u001b[2Jempty" },
      { name: 'meminfo', extent: 'part', reason: "'/proc/meminfo', line 5: Cached is not in kB" },
    ],
  };
  const text = statusText(unwell, nowMs + 300_000);
  assert.match(text, /^state +disk failing, clock wrong here or on the server, 2 collectors failing$/m);
  assert.match(text, /12 reports of the last 5 min to be acknowledged; 2.9 MiB of 64MiB, in '\/spool'$/m);
  assert.match(
    text,
    /^disk +failing since 2026-01-01T00:00:00.000Z \(ENOSPC: no space left on device\); 5 reports in memory only$/m,
  );
  assert.match(text, /^dropped +7 \(full\), 2 \(disk\)$/m);
  assert.match(
    text,
    /^dropped +369 at the server: older than the window of 30m \(2026-01-01T00:00:00.000Z to 2026-01-01T00:30:40.000Z\)$/m,
  );
  assert.match(text, /^clock +differs from the server's: timestamps are corrected by -3600 s; check NTP/m);
  assert.match(text, /^failing +collector 'cpu': '\/proc\/stat' is \\x1b\[2Jempty$/m);
  assert.match(text, /^failing +collector 'meminfo', in part: '\/proc\/meminfo', line 5: Cached is not in kB$/m);
  assert.match(text, /^absent +no data on this host for collector mdadm, zfs \('sysmon-agent check' says why\)$/m);
  assert.match(statusText({ ...status, spool: { ...status.spool, folder: null } }, nowMs), /in memory$/m);
});
