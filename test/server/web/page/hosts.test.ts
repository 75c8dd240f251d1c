import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostView } from '../../../../src/server/web/page/hosts.ts';
import { HttpHarness } from '../http-harness.ts';
import { type Metrics, schemaOf } from './host-reports.ts';

/** A host that has made these reports, so far apart. */
async function hostWith(reports: readonly Metrics[], apartMs = 60_000) {
  const world = new HttpHarness();
  const agent = world.connect('a');
  agent.record.peer = '192.0.2.1:1';
  agent.maker.schema = schemaOf(reports[0]!);
  for (const metrics of reports) {
    await world.clock.advance(apartMs);
    const made = agent.maker.make(world.clock.nowMs(), Object.values(metrics), { key: true });
    world.delivery.store.receive(agent.record.host, { ...made, follows: false });
  }
  const { agents, problems } = world.view;
  return { world, agent, view: () => hostView(agents()[0]!, agent.record, problems) };
}

/** What is wrong with it, in words. */
async function problemsOf(...reports: readonly Metrics[]): Promise<string[]> {
  return (await hostWith(reports)).view().problems.map(({ text }) => text);
}

test('a host that is well has no problem; one that is down says since when, what to do, and what was seen last', async () => {
  const cpu = (idle: number, user: number): Metrics => ({
    'node_cpu_seconds_total{cpu="0",mode="idle"}': idle,
    'node_cpu_seconds_total{cpu="0",mode="user"}': user,
    ...{ node_memory_MemTotal_bytes: 100, node_memory_MemAvailable_bytes: 3, node_load1: 12.5 },
    ...fileSystem('/', 'ext4', 30),
  });
  const { world, agent, view } = await hostWith([cpu(0, 0), cpu(1, 59)]);
  assert.deepEqual(view().problems, []);
  await world.clock.advance(120_000);
  assert.deepEqual(view().problems, [
    {
      rank: 0,
      text: 'down: connected, but no report for 2 min; run sysmon-agent status there (seen last: CPU 98 %, memory 97 %, / 70 % full, load by core 12.50)',
    },
  ]);
  agent.record.peer = undefined;
  assert.match(
    view().problems[0]!.text,
    /^down: not connected, no report for 2 min; is the host on.* \(seen last: CPU/,
  );
});

test('of a host that is down, nothing but that is wrong: what was seen last is not what is', async () => {
  const { world, view } = await hostWith([{ ...fileSystem('/', 'ext4', 1) }]);
  assert.match(
    view()
      .problems.map(({ text }) => text)
      .join(),
    /^file system/,
  );
  await world.clock.advance(120_000);
  assert.deepEqual(
    view().problems.map(({ rank }) => rank),
    [0],
  );
});

test('a clock that is off: of two seconds or less nothing is said', async () => {
  const { agent, view } = await hostWith([{ node_load1: 1 }]);
  for (const [offsetMs, expected] of [
    [2000, []],
    [-90_000, ["its clock is 90 s ahead of the server's, and its timestamps are corrected: check NTP there"]],
    [90_000, ["its clock is 90 s behind the server's, and its timestamps are corrected: check NTP there"]],
  ] as const) {
    agent.record.host.offsetMs = offsetMs;
    assert.deepEqual(
      view().problems.map(({ text }) => text),
      expected,
    );
  }
});

test('collectors that fail, with the reason; one whose subject is absent has not failed', async () => {
  const collectors = {
    'node_scrape_collector_success{collector="hwmon"}': 0,
    'node_scrape_collector_success{collector="zfs"}': 0,
  };
  assert.deepEqual(await problemsOf(collectors), []);
  const reason = "'/sys/class/hwmon' cannot be listed: EACCES";
  assert.deepEqual(
    await problemsOf({ ...collectors, [`sysmon_agent_collector_failed{collector="hwmon",reason="${reason}"}`]: 1 }),
    [`collector 'hwmon' fails, and its series are absent: ${reason}`],
  );
});

const fileSystem = (mountpoint: string, fstype: string, available: number): Metrics => {
  const labels = `device="/dev${mountpoint}",fstype="${fstype}",mountpoint="${mountpoint}"`;
  return {
    [`node_filesystem_size_bytes{${labels}}`]: 100,
    [`node_filesystem_avail_bytes{${labels}}`]: available,
  };
};

test('file systems that are nearly full, but no images of disks', async () => {
  const image = fileSystem('/snap/core', 'squashfs', 0);
  const full = { ...image, ...fileSystem('/', 'ext4', 4), ...fileSystem('/srv', 'xfs', 9) };
  const [first, second, ...others] = await problemsOf({ ...full, ...fileSystem('/home', 'ext4', 50) });
  assert.match(first!, /^file system \/ is 96 % full, 4 B are left/);
  assert.match(second!, /^file system \/srv is 91 % full/);
  assert.deepEqual(others, []);
  assert.deepEqual(await problemsOf({ ...image, ...fileSystem('/', 'ext4', 50) }), []);
  assert.deepEqual(await problemsOf(fileSystem('/', 'ext4', 50)), []);
});

test('processes that were killed within the last hour, or the window; a reboot begins anew', async () => {
  const kills = (count: number): Metrics => ({ node_vmstat_oom_kill: count });
  assert.match(
    (await problemsOf(kills(0), kills(2)))[0]!,
    /^2 processes killed for want of memory within the last 60 s: journalctl/,
  );
  assert.deepEqual(await problemsOf(kills(2), kills(2)), []);
  assert.deepEqual(await problemsOf(kills(0), kills(0)), []);
  assert.deepEqual(await problemsOf(kills(2), kills(0)), []);
  // A window that is longer than an hour: the chunk before it is not counted.
  const chunk = (count: number): Metrics[] => Array.from({ length: 61 }, () => kills(count));
  const killed = async (...counts: number[]) => {
    const { view } = await hostWith(counts.flatMap(chunk), 45_000);
    return view().problems.map(({ text }) => text);
  };
  assert.deepEqual(await killed(0, 3, 3), []);
  assert.match((await killed(0, 0, 3))[0]!, /^3 processes killed .* within the last (?:4\d|5\d|60) min: /);
});

test('services that have failed', async () => {
  const unit = (name: string, value: number): Metrics => ({
    [`node_systemd_unit_state{name="${name}",state="failed",type="oneshot"}`]: value,
  });
  assert.deepEqual(await problemsOf({ ...unit('backup.service', 1), ...unit('cron.service', 0) }), [
    'backup.service has failed: systemctl status backup.service',
  ]);
  assert.deepEqual(await problemsOf(unit('cron.service', 0)), []);
});

test('a mount that has failed, and the names of units that a shell or systemctl would read as something else', async () => {
  const unit = (name: string): Metrics => ({ [`node_systemd_unit_state{name="${name}",state="failed"}`]: 1 });
  const names = ['mnt-data.mount', 'a@b:1_2.service', '-.mount', 'srv-a\\x2db.mount', "x'; reboot"];
  assert.deepEqual(await problemsOf(Object.assign({}, ...names.map(unit))), [
    'mnt-data.mount has failed: systemctl status mnt-data.mount',
    'a@b:1_2.service has failed: systemctl status a@b:1_2.service',
    '-.mount has failed: systemctl status -- -.mount',
    "srv-a\\x2db.mount has failed: systemctl status 'srv-a\\x2db.mount'",
    "x'; reboot has failed: systemctl status 'x'\\''; reboot'",
  ]);
});
