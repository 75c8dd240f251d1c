import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { journalCursor, journalLines } from './journal.ts';
import { eventually, Lab } from './lab.ts';
import { Prometheus } from './prometheus.ts';
import { SpoolRecord } from './record.ts';
import { archiveOf, unpack } from './release.ts';

// Each fault ends in a working system, with every sample in Prometheus and the right lines in the journal. What was
// sampled is read from the agents' own spools.
describe('what happens to hosts', () => {
  const lab = new Lab();
  const agents = ['f1', 'f2'];
  const records = agents.map((agent) => new SpoolRecord(agent));
  let prometheus: Prometheus;

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    for (const name of ['s1', ...agents]) {
      await lab.boot(name);
      await lab.copy(name, release, '/root/release');
    }
    await lab.sh('s1', '/root/release/install.sh server');
    for (const name of agents) {
      await lab.sh(name, '/root/release/install.sh agent', await lab.sh('s1', `sysmon-server enroll ${name}`));
      await lab.sh(name, `sed -i 's/^#SYSMON_SCHEDULE=.*/SYSMON_SCHEDULE=1s/' /etc/sysmon/agent.env`);
      await lab.sh(name, 'systemctl restart sysmon-agent');
    }
    prometheus = await Prometheus.start(lab, await lab.address('s1'));
    await eventually('all agents are up', async () => (await prometheus.value('count(sysmon_agent_up == 1)')) === 2);
  });
  after(() => lab.down());
  // One that failed while Prometheus was away must not take the others along.
  afterEach(() => prometheus.resume());

  test('a cable is pulled, and a line loses every packet while it stays up', async () => {
    const cursors = await Promise.all(agents.map((name) => journalCursor(lab, name)));
    await lab.act('cut', 'f1');
    await lab.act('drop', 'f2');
    for (const [index, name] of agents.entries()) {
      await eventually(`${name} notices`, async () => /lost 's1:9732'/.test(await journal(name, cursors[index]!)), 45);
    }
    await eventually('both are down', async () => (await prometheus.value('count(sysmon_agent_up == 0)')) === 2);
    read();
    await lab.act('mend', 'f1');
    await lab.act('undrop', 'f2');
    for (const [index, name] of agents.entries()) {
      await eventually(`${name} is back`, async () =>
        /lost [\s\S]* connected to 's1:9732'|lost [\s\S]*connected to 's1:9732'/.test(
          await journal(name, cursors[index]!),
        ),
      );
    }
    await expectAllStored();
  });

  test("the power of the server's host is cut", async () => {
    await lab.act('kill', 's1');
    const before = records.map(count);
    await eventually('the agents go on', async () => {
      read();
      return records.every((record, index) => count(record) >= before[index]! + 8);
    });
    await lab.boot('s1');
    await expectAllStored();
    assert.equal(await lab.sh('s1', 'systemctl is-active sysmon-server'), 'active');
  });

  test('a host is rebooted, and the power of another is cut, while Prometheus is away', async () => {
    prometheus.pause();
    const before = records.map(count);
    await eventually('there is something to lose', async () => {
      read();
      return records.every((record, index) => count(record) >= before[index]! + 5);
    });
    await lab.act('kill', 'f2');
    await lab.act('stop', 'f1');
    read();
    for (const name of agents) await lab.boot(name);
    prometheus.resume();
    await expectAllStored();
    for (const name of agents) {
      await eventually(`${name} samples again`, async () => {
        const status = JSON.parse(await lab.sh(name, 'sysmon-agent status --json')) as { lastReportAt: string | null };
        return status.lastReportAt !== null;
      });
    }
  });

  test("the disk of an agent's spool is full: it goes on in memory, and on disk again when there is room", async () => {
    const spool = '/var/lib/sysmon-agent';
    read();
    await lab.sh('f1', `systemctl stop sysmon-agent && mount -t tmpfs -o size=1M,mode=750 tmpfs ${spool}`);
    read();
    await lab.sh('f1', `chown sysmon-agent: ${spool} && systemctl start sysmon-agent`);
    const cursor = await journalCursor(lab, 'f1');
    await eventually('it is sampling', async () => (await mirrored('f1')) === true);
    prometheus.pause();
    await lab.sh('f1', `dd if=/dev/zero of=${spool}/lost+found bs=4k 2>/dev/null || true`);
    await eventually('it notices', async () => (await mirrored('f1')) === false);
    await eventually('a warning', async () =>
      /^4 sysmon-agent: .*(ENOSPC|no space)/im.test(await journal('f1', cursor)),
    );
    const before = (await status('f1')).spool.reports;
    await eventually('it goes on in memory', async () => (await status('f1')).spool.reports >= before + 5);
    await lab.sh('f1', `rm ${spool}/lost+found`);
    await eventually('it is on disk again', async () => (await mirrored('f1')) === true);
    prometheus.resume();
    await expectAllStored();
    await lab.sh('f1', `systemctl stop sysmon-agent`);
    read();
    await expectAllStored();
    await lab.sh('f1', `umount ${spool} && systemctl start sysmon-agent`);
  });

  test("the kernel kills an agent that its unit's memory limit leaves no room", async () => {
    const cursor = await journalCursor(lab, 'f2');
    const before = await lab.sh('f2', 'systemctl show -p MainPID --value sysmon-agent');
    read();
    // A neighbour in the unit's own group takes the memory, and the agent is whom the kernel prefers to kill.
    await lab.sh('f2', `echo 1000 >/proc/${before}/oom_score_adj`);
    await lab.sh(
      'f2',
      `for dir in /sys/fs/cgroup/memory /sys/fs/cgroup; do [ ! -e $dir/system.slice/sysmon-agent.service ] || break; done
      systemd-run -q --unit=hog sh -c "echo 0 >$dir/system.slice/sysmon-agent.service/cgroup.procs
        exec node -e 'const held = []; setInterval(() => held.push(Buffer.alloc(8 << 20, 1)), 10)'"`,
    );
    await eventually('it was killed and started again', async () =>
      /sysmon-agent\.service: Main process exited, code=killed, status=9\/KILL[\s\S]*Started sysmon-agent/.test(
        await journal('f2', cursor),
      ),
    );
    await lab.sh('f2', 'systemctl stop hog 2>/dev/null; systemctl is-active sysmon-agent');
    assert.notEqual(await lab.sh('f2', 'systemctl show -p MainPID --value sysmon-agent'), before);
    await expectAllStored();
  });

  test('programs that are stopped are ended and started by the watchdog', async () => {
    const cursors = new Map<string, string>();
    for (const [host, unit] of units) {
      // The unit's three minutes are long for a test; the programs ask what it is.
      await lab.sh(host, `mkdir -p /run/systemd/system/${unit}.service.d`);
      await lab.sh(host, `cat >/run/systemd/system/${unit}.service.d/test.conf`, '[Service]\nWatchdogSec=6\n');
      await lab.sh(host, `systemctl daemon-reload && systemctl restart ${unit}`);
      cursors.set(host, await journalCursor(lab, host));
    }
    await eventually('it is sampling', async () => (await mirrored('f2')) === true);
    // Longer than the limit: who is alive is left alone.
    const pids = await Promise.all(
      units.map(([host, unit]) => lab.sh(host, `systemctl show -p MainPID --value ${unit}`)),
    );
    const begun = Math.max(...records[1]!.reports.keys());
    await eventually('ten seconds pass', async () => {
      read();
      return Math.max(...records[1]!.reports.keys()) >= begun + 12_000;
    });
    for (const [index, [host, unit]] of units.entries()) {
      assert.equal(await lab.sh(host, `systemctl show -p MainPID --value ${unit}`), pids[index]);
      await lab.sh(host, `kill -STOP ${pids[index]}`);
    }
    for (const [host, unit] of units) {
      await eventually(`${unit} is started again`, async () =>
        /Watchdog timeout[\s\S]*Started sysmon-/.test(await journal(host, cursors.get(host)!)),
      );
    }
    await expectAllStored();
  });

  test('a network file system hangs: sampling goes on, and the agent can be stopped', async () => {
    read();
    const before = count(records[0]!);
    // A FUSE whose program never answers: whoever asks it for anything waits for ever.
    await lab.sh(
      'f1',
      `mknod -m 600 /dev/fuse c 10 229; mkdir -p /mnt/hung
      exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung /mnt/hung
      sleep infinity <&3 >/dev/null 2>&1 & echo $! >/run/holder`,
    );
    const { code } = await lab.try('f1', 'timeout 2 stat -f /mnt/hung');
    assert.equal(code, 124, 'the file system does not hang');
    await eventually('it samples on', async () => {
      read();
      return count(records[0]!) >= before + 6;
    });
    await lab.sh('f1', 'systemctl restart sysmon-agent');
    await eventually('it is connected again', async () => (await status('f1')).link.state === 'connected');
    await lab.sh('f1', 'kill "$(cat /run/holder)"; umount -l /mnt/hung');
    await expectAllStored();
  });

  test('after all of it: everything is running, nothing was dropped, Prometheus complains of nothing but what came twice', async () => {
    for (const [host, unit] of [...units, ['f1', 'sysmon-agent'] as const]) {
      assert.equal(await lab.sh(host, `systemctl is-active ${unit}`), 'active');
    }
    for (const name of agents) {
      assert.deepEqual((await status(name)).reportsDropped, { full: 0, age: 0, disk: 0 });
    }
    assert.equal(await prometheus.value('sum(sysmon_server_unscraped_reports_lost_total)'), 0);
    // A server that was killed gives again what nobody had confirmed.
    assert.deepEqual(
      prometheus.warnings.filter((line) => !line.includes('Error on ingesting out-of-order samples')),
      [],
    );
    for (const record of records) assert.ok(count(record) > 60, `${record.agent}: ${count(record)} reports`);
  });

  const units = [
    ['f2', 'sysmon-agent'],
    ['s1', 'sysmon-server'],
  ] as const;

  const read = () => {
    for (const record of records) record.read(lab);
  };
  const count = (record: SpoolRecord): number => record.reports.size;

  async function expectAllStored(): Promise<void> {
    read();
    for (const record of records) {
      const last = Math.max(...record.reports.keys());
      await eventually(`the last report of ${record.agent} is scraped`, async () => {
        const stored = await prometheus.samplesOf(record.agent);
        return [...stored.values()].some((samples) => samples.has(last));
      });
      record.expectStored(await prometheus.samplesOf(record.agent));
    }
  }

  interface Status {
    readonly link: { readonly state: string };
    readonly spool: { readonly reports: number; readonly disk: { readonly state: string } };
    readonly reportsDropped: unknown;
  }
  const status = async (host: string): Promise<Status> => JSON.parse(await lab.sh(host, 'sysmon-agent status --json'));
  const mirrored = async (host: string): Promise<boolean> => (await status(host)).spool.disk.state === 'ok';

  /** What came after the cursor, a line each as `priority program: message`. */
  const journal = async (host: string, cursor: string): Promise<string> =>
    (await journalLines(lab, host, cursor))
      .map(({ program, priority, text }) => `${priority} ${program}: ${text}`)
      .join('\n');
});
