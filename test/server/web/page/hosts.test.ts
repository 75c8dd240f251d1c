import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostView } from '../../../../src/server/web/page/hosts.ts';
import { HttpHarness } from '../http-harness.ts';
import { type Metrics, schemaOf } from './host-reports.ts';

/** What is wrong with a host that has made these reports, a minute apart. */
async function problemsOf(...reports: readonly Metrics[]): Promise<string[]> {
  const world = new HttpHarness();
  const agent = world.connect('a');
  agent.maker.schema = schemaOf(reports[0]!);
  for (const metrics of reports) {
    await world.clock.advance(60_000);
    const made = agent.maker.make(world.clock.nowMs(), Object.values(metrics), { key: true });
    world.delivery.store.receive(agent.record.host, { ...made, follows: false });
  }
  const { agents, problems } = world.view;
  const own = hostView(agents()[0]!, agent.record, problems).problems;
  return own.filter(({ rank }) => rank === 1).map(({ text }) => text);
}

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

test('processes that were killed within the window, not before it; a reboot begins anew', async () => {
  const kills = (count: number): Metrics => ({ node_vmstat_oom_kill: count });
  assert.match((await problemsOf(kills(0), kills(2)))[0]!, /^2 processes killed for want of memory within the window/);
  assert.deepEqual(await problemsOf(kills(2), kills(2)), []);
  assert.deepEqual(await problemsOf(kills(0), kills(0)), []);
  assert.deepEqual(await problemsOf(kills(2), kills(0)), []);
});

test('services that have failed', async () => {
  const unit = (name: string, value: number): Metrics => ({
    [`node_systemd_unit_state{name="${name}",state="failed",type="oneshot"}`]: value,
  });
  assert.deepEqual(await problemsOf({ ...unit('backup.service', 1), ...unit('cron.service', 0) }), [
    'backup.service has failed: systemctl status backup.service',
  ]);
});
