import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { chronyPortsOwn } from '../../src/agent/collect/bus/chrony.ts';
import { rootFile } from '../support/files.ts';
import { nodeExporterPath, nodeExporterSkip, parseMetrics } from '../support/node-exporter.ts';
import { eventually, Lab } from './lab.ts';
import { archiveOf, unpack } from './release.ts';

describe('a host with systemd, as an agent without privileges sees it', () => {
  const lab = new Lab();
  const scope = `docker-${'0123456789abcdef'.repeat(4)}.scope`;

  before(async () => {
    await lab.boot('u1', { suite: 'trixie' });
    await lab.copy('u1', unpack(archiveOf(), lab.folder), '/opt/release');
    await lab.sh('u1', 'chmod -R a+rX /opt/release');
  });
  after(() => lab.down());

  /** One collection by a user that may do nothing. */
  async function collect(options = ''): Promise<ReadonlyMap<string, number>> {
    const program = '$(find /opt/release -name sysmon-agent.cjs)';
    return parseMetrics(await lab.sh('u1', `runuser -u nobody -- node ${program} collect ${options}`)).values;
  }

  test('a service that fails and is restarted until systemd gives up', async () => {
    await lab.sh(
      'u1',
      'systemd-run -q --unit=flapping -p Restart=on-failure -p RestartSec=100ms -p StartLimitBurst=3 false',
    );
    await eventually(
      'it has failed',
      async () => (await lab.sh('u1', 'systemctl is-failed flapping || :')) === 'failed',
    );
    const restarts = Number(await lab.sh('u1', 'systemctl show -P NRestarts flapping'));
    assert.ok(restarts > 0);
    const values = await collect();
    assert.equal(values.get('node_systemd_service_restart_total{name="flapping.service"}'), restarts);
    assert.equal(values.get('node_systemd_unit_state{name="flapping.service",state="failed",type="simple"}'), 1);
    const failed = (await lab.sh('u1', 'systemctl list-units --failed --no-legend --plain')).split('\n').length;
    assert.equal(values.get('node_systemd_units{state="failed"}'), failed);
    assert.equal(values.get('node_systemd_system_running{}'), 0);
    assert.equal(values.get('node_systemd_system_state{state="degraded"}'), 1);
    const version = await lab.sh('u1', 'systemctl show -P Version');
    assert.equal(values.get(`node_systemd_version{version="${version}"}`), Number(/\d{3,}(\.\d+)?/.exec(version)![0]));
  });

  test('a mount that fails, and a service that has failed and whose file is gone', async () => {
    await lab.sh(
      'u1',
      "printf '[Mount]\\nWhat=/dev/missing\\nWhere=/mnt/no-data\\nType=ext4\\n' > '/run/systemd/system/mnt-no\\x2ddata.mount'; " +
        "printf '[Service]\\nExecStart=/bin/false\\n' > /run/systemd/system/gone.service; systemctl daemon-reload; " +
        "systemctl start 'mnt-no\\x2ddata.mount' gone.service || :",
    );
    await eventually(
      'it has failed',
      async () => (await lab.sh('u1', 'systemctl is-failed gone.service || :')) === 'failed',
    );
    await lab.sh('u1', 'rm /run/systemd/system/gone.service; systemctl daemon-reload');
    assert.equal(await lab.sh('u1', 'systemctl show -P LoadState gone.service'), 'not-found');
    const values = await collect();
    const state = (name: string, type: string) => `node_systemd_unit_state{name="${name}",state="failed"${type}}`;
    assert.equal(values.get(state('mnt-no\\\\x2ddata.mount', ',type="ext4"')), 1);
    assert.equal(values.get(state('gone.service', '')), 1);
    const failed = [...values.keys()].filter((series) => series.startsWith('node_systemd_unit_state{'));
    assert.equal(values.get('node_systemd_units{state="failed"}'), failed.length, 'each that is counted is named');
  });

  test('beside node_exporter: the same units in the same states', { skip: nodeExporterSkip }, async () => {
    await lab.copy('u1', nodeExporterPath, '/opt/node-exporter');
    // Debian's default is another than that of node_exporter itself, and neither has mounts.
    const exclude = "'.+\\.(automount|device|scope|slice)'";
    await lab.sh(
      'u1',
      'systemd-run -q --unit=node-exporter /opt/node-exporter --web.listen-address=127.0.0.1:9100 ' +
        '--collector.disable-defaults --collector.systemd --collector.systemd.enable-restarts-metrics ' +
        `--collector.systemd.unit-exclude=${exclude}`,
    );
    const of =
      /^node_systemd_(?:units|unit_state|service_restart_total|timer_last_trigger_seconds|system_running|version)\b/;
    const theirs = async () => {
      const text = await lab.sh(
        'u1',
        'node -e "fetch(\'http://127.0.0.1:9100/metrics\').then((r) => r.text()).then((t) => process.stdout.write(t))"',
      );
      return new Map([...parseMetrics(text).values].filter(([series]) => of.test(series)));
    };
    await eventually('it answers', async () => (await theirs().catch(() => new Map())).size > 0);
    await eventually('both say the same', async () => {
      const expected = await theirs();
      const ours = await collect(`--systemd.unit-state --systemd.unit-exclude ${exclude}`);
      // What moved meanwhile is not compared.
      assert.deepEqual(await theirs(), expected);
      for (const [series, value] of expected) {
        // Here only those that run or were restarted.
        if (series.startsWith('node_systemd_service_restart_total') && value === 0 && !ours.has(series)) continue;
        assert.equal(ours.get(series), value, series);
      }
      // A unit that has failed and has no file is left out there.
      const more = [...ours.keys()].filter((series) => of.test(series) && !expected.has(series));
      assert.ok(more.length >= 1);
      for (const series of more) assert.match(series, /^node_systemd_unit_state\{.*state="failed"/);
      return true;
    });
  });

  test('a timer that has triggered', async () => {
    await lab.sh(
      'u1',
      'systemd-run -q --unit=often --on-active=1s --on-unit-inactive=1h --timer-property=AccuracySec=100ms true',
    );
    const shown = async () => {
      const time = await lab.sh('u1', 'systemctl show -P LastTriggerUSec often.timer');
      return time === '' || time === 'n/a' ? 0 : Number(await lab.sh('u1', `date +%s -d '${time}'`));
    };
    await eventually('it has triggered', async () => (await shown()) > 0);
    const value = (await collect()).get('node_systemd_timer_last_trigger_seconds{name="often.timer"}');
    assert.equal(Math.floor(value ?? 0), await shown());
  });

  test('a scope as a container engine makes it has the CPU time of its control group', async () => {
    await lab.sh(
      'u1',
      `systemd-run -q --scope --slice=system.slice --unit=${scope} sh -c 'timeout 1 sh -c "while :; do :; done"; sleep 60' >/dev/null 2>&1 &`,
    );
    const stat = `/sys/fs/cgroup/system.slice/${scope}/cpu.stat`;
    const user = async () => Number(await lab.sh('u1', `sed -n 's/^user_usec //p' ${stat}`)) / 1e6;
    await eventually('it runs', async () => (await user()) > 0.2);
    await lab.sh('u1', 'sleep 1.5');
    const values = await collect();
    assert.equal(values.get(`node_systemd_unit_cpu_seconds_total{mode="user",name="${scope}"}`), await user());
    assert.equal(values.get('sysmon_agent_systemd_units_left_out{}'), 0);
  });

  test('a service whose process the OOM killer has ended', async (context) => {
    const controllers = (await lab.sh('u1', 'cat /sys/fs/cgroup/cgroup.controllers')).split(' ');
    if (!controllers.includes('memory')) {
      return context.skip(
        'the kernel of this machine has its memory controller in cgroup v1, which has no memory.events',
      );
    }
    await lab.sh(
      'u1',
      "systemd-run -q --unit=greedy -p MemoryMax=16M -p MemorySwapMax=0 -p OOMPolicy=continue sh -c 'tail /dev/zero; exec sleep 600'",
    );
    const events = '/sys/fs/cgroup/system.slice/greedy.service/memory.events';
    const kills = async () => Number(await lab.sh('u1', `sed -n 's/^oom_kill //p' ${events}`));
    await eventually('it is killed', async () => (await kills()) > 0);
    const values = await collect();
    assert.equal(values.get('node_systemd_unit_oom_kills_total{name="greedy.service"}'), await kills());
    assert.ok((values.get('node_vmstat_oom_kill{}') ?? 0) >= 1);
    assert.ok((values.get('node_systemd_unit_memory_current_bytes{name="greedy.service"}') ?? 0) <= 16 * 2 ** 20);
  });

  test('the ports that the unit lets the agent bind, and no others', async (context) => {
    const unit = readFileSync(rootFile('systemd/sysmon-agent.service'), 'utf8');
    const rules = unit.match(/^SocketBind\w+=.*$/gm)!.map((rule) => `-p ${rule}`);
    const script =
      "require('dgram').createSocket('udp4').on('error', (e) => console.log(e.code))" +
      ".bind(+process.argv[1], '127.0.0.1', function () { console.log('bound'); this.close(); })";
    const bind = (port: number) =>
      lab.sh('u1', `systemd-run -q --pipe --wait ${rules.join(' ')} $(command -v node) -e "${script}" ${port}`);
    if ((await bind(0)) === 'bound') {
      return context.skip('systemd cannot enforce SocketBindDeny= here: the kernel has no BPF of control groups');
    }
    const { first, count } = chronyPortsOwn;
    assert.deepEqual(
      [await bind(first - 1), await bind(first), await bind(first + count - 1), await bind(first + count)],
      ['EPERM', 'bound', 'bound', 'EPERM'],
    );
  });

  test('text files of root', async () => {
    await lab.sh(
      'u1',
      "mkdir -p /var/lib/prometheus/node-exporter; echo 'node_reboot_required 1' > /var/lib/prometheus/node-exporter/reboot.prom",
    );
    assert.equal((await collect()).get('node_reboot_required{}'), 1);
  });
});
