import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../../src/runtime/options.ts';
import { program } from '../../src/server/options.ts';
import { agentProblems, agentState } from '../../src/server/problems.ts';
import { commandSettings } from '../../src/server/settings.ts';
import type { AgentStatus, ScraperStatus, ServerStatus } from '../../src/server/status.ts';
import { agentsText, isSelected, statusText } from '../../src/server/status-text.ts';

const nowMs = Date.UTC(2026, 0, 2);
const present = { nowMs, startedAtMs: nowMs - 3 * 86_400_000 };
const before = (seconds: number): string => new Date(nowMs - seconds * 1000).toISOString();

const well: AgentStatus = {
  ...{ name: 'web-1', up: true, connected: true, peer: '192.0.2.7:34722', connectedAt: before(86_400) },
  ...{ identity: 'web-1:1:d3088595', software: 'sysmon-agent 0.1.0', lastReportAt: before(3), newestAt: before(4) },
  ...{ labels: { site: 'north', rack: 'r8' }, intervalSeconds: 5, clockOffsetSeconds: 0, series: 216, sources: [] },
  ...{ windowReports: 360, windowBytes: 1000, memoryBytes: 1000, memoryShareBytes: 1_000_000, newSeries: 0 },
  ...{
    framesSeconds: 0.5,
    overBudget: [],
    unscrapedReports: 1,
    unscrapedBy: [],
    drops: [],
    spoolReports: 2,
    droppedByAgent: 0,
  },
};

const { peer: _, connectedAt: __, ...lost } = well;
const away: AgentStatus = { ...lost, name: 'db-1', connected: false, up: false, identity: 'db-1:2:d3088595' };

const list = (agents: readonly AgentStatus[], known = agents.length) => agentsText(agents, known, present);

test('a healthy fleet reads as healthy, in one line and a table', () => {
  assert.equal(
    list([well]),
    `1 agent, none with problems

NAME   STATE  NEWEST REPORT  VERSION  LABELS              KEY         CONNECTION       EVERY  SERIES
web-1  up     4 s ago        0.1.0    site=north,rack=r8  1:d3088595  192.0.2.7:34722  5 s    216
`,
  );
});

test('what is wrong comes first, in sentences and in the table; of several versions it says which', () => {
  const old = { ...well, name: 'web-2', software: 'sysmon-agent 0.0.9', labels: {} };
  const down = { ...away, lastReportAt: before(720), newestAt: before(721), labels: { site: 'south' } };
  const { software: ___, identity: ____, ...unseen } = { ...away, name: 'x\u001b[2J' };
  const text = list([down, old, well, { ...unseen, lastReportAt: before(3600) }], 14);
  assert.equal(
    text,
    `4 of 14 agents, versions 0.0.9 (1), 0.1.0 (2), unknown (1), 2 with problems:
  db-1: down: not connected, no report for 12 min; is the host on, and its sysmon-agent running?
  x\\x1b[2J: down: not connected, no report for 60 min; is the host on, and its sysmon-agent running?

NAME      STATE  NEWEST REPORT  VERSION  LABELS              KEY         CONNECTION       EVERY  SERIES
db-1      down   12 min ago     0.1.0    site=south          2:d3088595  not connected    5 s    216
x\\x1b[2J  down   4 s ago        unknown  site=north,rack=r8  -           not connected    5 s    216
web-2     up     4 s ago        0.0.9    -                   1:d3088595  192.0.2.7:34722  5 s    216
web-1     up     4 s ago        0.1.0    site=north,rack=r8  1:d3088595  192.0.2.7:34722  5 s    216
`,
  );
});

test('no agent, and none that is selected', () => {
  assert.match(list([]), /^no agent is known yet: 'sysmon-server enroll NAME' prints/);
  assert.equal(list([], 3), 'none of 3 agents is selected\n');
});

test('filters: with problems only, by labels, an empty value for none', () => {
  const selected = (...argv: string[]) => {
    const options = readOptions(program, {
      argv: ['agents', ...argv],
      env: { SYSMON_LABEL: 'a=b' },
      readFile: () => '',
    });
    const { filter } = commandSettings(options);
    return [well, { ...away, labels: { site: 'south' } }]
      .filter((agent) => isSelected(agent, filter, present))
      .map(({ name }) => name);
  };
  assert.deepEqual(selected(), ['web-1', 'db-1'], "the agent's own variable is none of this");
  assert.deepEqual(selected('--problems'), ['db-1']);
  assert.deepEqual(selected('--label', 'site=north'), ['web-1']);
  assert.deepEqual(selected('--label', 'site=north', '--label', 'rack=r7'), []);
  assert.deepEqual(selected('--label', 'rack='), ['db-1']);
  assert.deepEqual(selected('--label', 'site=north', '--problems'), []);
  assert.throws(
    () => selected('--label', 'site'),
    /'--label' is 'site' .*: expected the name of a label, = and its value/,
  );
});

test('each problem of an agent has its sentence', () => {
  const problems = (change: Partial<AgentStatus>, agent = well) => agentProblems({ ...agent, ...change }, present);
  assert.deepEqual(problems({}), []);
  assert.deepEqual(problems({ lastReportAt: before(60) }, { ...well, up: false }), [
    'down: connected, but no report for 60 s; run sysmon-agent status there',
  ]);
  assert.deepEqual(problems({ up: false }), [
    'down: it reports, and its reports are not stored; journalctl -u sysmon-server says why',
  ]);
  const backlog = (waiting: string) => [
    `it sends its backlog: the newest report here is of 35 min ago${waiting}; if it does not catch up, its line is too slow: give it ` +
      'a longer --schedule or fewer collectors',
  ];
  assert.deepEqual(
    problems({ newestAt: before(2100), spoolReports: 420, spoolReportsAt: before(12) }),
    backlog(', its spool had 420 reports 12 s ago'),
  );
  const { spoolReports: _, ...unknown } = well;
  assert.deepEqual(problems({ newestAt: before(2100) }, unknown), backlog(''), 'how many wait is not known');
  assert.deepEqual(problems({ sources: [{ name: 'db', up: false, intervalSeconds: 5, series: 3 }] }), [
    "its source 'db' is down",
  ]);
  assert.deepEqual(problems({ clockOffsetSeconds: -3600 }), [
    "its clock is 60 min ahead of the server's, and its timestamps are corrected: check NTP there",
  ]);
  assert.deepEqual(problems({ clockOffsetSeconds: 1.9 }), []);
  const drop = {
    reason: 'too_old',
    count: 369,
    firstAt: before(9000),
    lastAt: before(7200),
    droppedAt: before(3600),
  } as const;
  assert.deepEqual(problems({ drops: [drop] }), [
    '369 reports lost, refused as older than --window: raise it to take a longer backlog; the last 60 min ago',
  ]);
  assert.deepEqual(problems({ drops: [{ ...drop, droppedAt: before(86_401) }] }), [], 'a day later it is history');
  assert.deepEqual(problems({ droppedByAgent: 12, droppedByAgentAt: before(60) }), [
    '12 reports lost, dropped by its spool since its start; the last 60 s ago',
  ]);
  const excess = { budget: 'memory', count: 3, lastAt: before(30), text: 'it takes 9 MiB' } as const;
  assert.deepEqual(problems({ overBudget: [excess] }), ['over its budget of memory, last 30 s ago: it takes 9 MiB']);
});

test('who has only just connected, or lost its connection, or is awaited after a restart, is no problem yet', () => {
  const { lastReportAt: _last, ...silent } = { ...well, up: false };
  const at = (agent: AgentStatus, startedSecondsAgo = 600) => {
    const there = { nowMs, startedAtMs: nowMs - startedSecondsAgo * 1000 };
    return [agentState(agent, there), agentProblems(agent, there).length];
  };
  assert.deepEqual(at({ ...lost, connected: false }), ['reconnecting', 0]);
  assert.deepEqual(at({ ...silent, connectedAt: before(10) }), ['awaited', 0]);
  assert.deepEqual(at({ ...silent, connectedAt: before(21) }), ['down', 1]);
  const { lastReportAt: _before, ...unseen } = away;
  assert.deepEqual(at(unseen, 30), ['awaited', 0]);
  assert.deepEqual(at(unseen, 61), ['down', 1]);
  assert.deepEqual(agentProblems(unseen, present), [
    "down: not connected, no report since the server's start; is the host on, and its sysmon-agent running?",
  ]);
  assert.deepEqual(at(away, 30), ['down', 1], 'it has reported since the start');
});

const scraper: ScraperStatus = {
  ...{ scraper: 'addr/192.0.2.1', selection: '', program: 'Prometheus', version: '2.42.0', address: '192.0.2.1' },
  ...{ confirmedBy: 'connection', connections: 1, conflicts: 0, lastScrapeAt: before(2), known: true },
  ...{ backlogReports: 2, lagSeconds: 6, behind: false, problems: [] },
};
const server: ServerStatus = {
  ...{ version: '0.1.0', startedAt: new Date(present.startedAtMs).toISOString() },
  ...{ agents: { known: 1, up: 1, connected: 1 }, windowBytes: 2 ** 20, windowBytesMax: 512 * 2 ** 20 },
  ...{ windowReports: 360, windowSeconds: 1800, clock: { steps: 0 }, scrapers: [scraper] },
};

test("a healthy server's status reads as healthy", () => {
  assert.equal(
    statusText(server, [well], present),
    `state     healthy
version   0.1.0, up for 3 d
agents    1 of 1 up, 1 connected
windows   360 reports in 1.0 MiB of 512.0 MiB, kept for 30 min
clock     right, as far as agents show

SCRAPER         PROGRAM            ADDRESS    SELECTS     LAST SCRAPE  CONFIRMED BY  BEHIND  HOLDS ACKS
addr/192.0.2.1  Prometheus 2.42.0  192.0.2.1  all agents  2 s ago      connection    no      yes
`,
  );
});

test('what is wrong with the server, its scrapers and its agents comes first, each once', () => {
  const slow = {
    ...scraper,
    behind: true,
    lagSeconds: 1860,
    backlogReports: 1077,
    problems: ['it has not scraped for 31 min'],
  };
  const clock = {
    ...{ steps: 1, lastStep: { at: before(120), seconds: -3600 } },
    aheadOfAgents: { seconds: 3600, agents: 12, of: 14 },
  };
  const text = statusText({ ...server, clock, scrapers: [slow, slow] }, [well, away], present);
  assert.match(
    text,
    /^state {5}3 problems\n {10}1 of 2 agents with problems: sysmon-server agents --problems\n {10}the clock is 3600 s ahead of 12 of 14 agents: check NTP \(timedatectl\)\n {10}scraper 'addr\/192\.0\.2\.1': it has not scraped for 31 min\nversion/,
  );
  assert.match(text, /^clock {5}probably wrong$/m);
  assert.match(text, / 31 min, 1077 reports {2}yes$/m);
  const fresh = statusText({ ...server, agents: { known: 0, up: 0, connected: 0 }, scrapers: [] }, [], present);
  assert.match(
    fresh,
    /^state {5}2 problems\n {10}no agent is known: .*\n {10}no Prometheus has scraped yet: .*\nversion/,
  );
  assert.match(fresh, /as far as agents show\n$/);
  const set = statusText(
    { ...server, clock: { steps: 2, lastStep: { at: before(120), seconds: 60 } } },
    [well],
    present,
  );
  assert.match(set, /^ {10}the clock was set by 60 s 2 min ago: check NTP/m);
  assert.match(set, /^clock {5}set 2 times since the start, last by 60 s 2 min ago$/m);
});
