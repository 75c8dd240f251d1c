import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { rootFile } from '../support/files.ts';
import { journalCursor, journalLines, ofPrograms } from './journal.ts';
import { eventually, Lab } from './lab.ts';
import { listing } from './listing.ts';
import { Prometheus } from './prometheus.ts';
import { SpoolRecord } from './record.ts';
import { archiveOf, releaseVersion, unpack, variant } from './release.ts';

const home = '/root/release';
const installer = `${home}/install.sh`;
const connected = /^sysmon: agent \S+ is connected to /m;

describe('a fleet that is installed from the release', () => {
  const lab = new Lab();
  const records = ['s1', 'a1', 'a2', 'b1'].map((agent) => new SpoolRecord(agent));
  let release: string;
  const archive = archiveOf();
  let prometheus: Prometheus;
  let joinLine: (name: string) => Promise<string>;

  before(async () => {
    release = unpack(archive, lab.folder);
    for (const name of ['s1', 'a1', 'a2']) {
      await lab.boot(name);
      await lab.copy(name, release, home);
    }
    await lab.boot('b1', { bare: true });
    await lab.sh('a2', 'rm /usr/bin/node');
    const server = await lab.address('s1');
    // The bare host has no names, so the address it is.
    joinLine = async (name) => (await lab.sh('s1', `sysmon-server enroll ${name}`)).replace(' s1:', ` ${server}:`);
  });
  after(() => lab.down());

  test('the server: two lines say what was made and how to go on, the program answers', async () => {
    const out = await lab.sh('s1', `${installer} server`);
    assert.match(out, /made the user sysmon-server/);
    assert.match(out, /made the fleet key \/etc\/sysmon\/fleet\.key/);
    assert.match(out, /9732\/tcp for agents, 9733\/tcp for Prometheus/);
    assert.match(
      out,
      /agents connect to port 9732 of all addresses with keys of .*, and their join lines say 's1:9732,/,
    );
    assert.match(
      out,
      /under another name or address than join lines say, set SYSMON_ADVERTISE=ADDRESS:9732 in \/etc\/sysmon/,
    );
    assert.equal(await lab.sh('s1', 'sysmon-server --version'), `sysmon-server ${releaseVersion}`);
    assert.equal(await lab.sh('s1', 'stat -c "%U:%G %a" /etc/sysmon/fleet.key'), 'root:sysmon-server 440');
    assert.match(await lab.sh('s1', 'cat /etc/sysmon/fleet.key'), /^[0-9a-f]{64}$/);
    assert.equal(await lab.sh('s1', 'systemctl is-enabled sysmon-server'), 'enabled');
  });

  test('what is wrong is said in a line, and changes nothing', async () => {
    const before = await listing(lab, 'a1');
    const right = await joinLine('a1');
    for (const [input, expected] of [
      ['', /no join line was given: run 'sudo sysmon-server enroll a1' on the server/],
      ['sysmon-join-v1 s1:9732\n', /has 2 words: expected the 4/],
      [right.replace(/ \S+:9732 /, ' s1 '), /the server in the join line is 's1': expected HOST:PORT/],
      [right.slice(0, -1), /the key in the join line is not whole/],
    ] as const) {
      const { code, err } = await lab.try('a1', `${installer} agent`, input);
      assert.equal(code, 2, err);
      assert.match(err, expected);
      assert.doesNotMatch(err, /[0-9a-f]{32}/, 'it shows the key');
    }
    await lab.sh('a1', `cp ${installer} /tmp/`);
    const { code, err } = await lab.try('a1', 'runuser -u nobody -- /tmp/install.sh server');
    assert.equal(code, 1);
    assert.match(err, /not root: run 'sudo \/tmp\/install\.sh server'/);
    assert.equal(await listing(lab, 'a1'), before);
  });

  test('a line of another key, or of a server that is not there: said, and nothing is installed', async () => {
    const before = await listing(lab, 'a1');
    const right = await joinLine('a1');
    const wrongKey = right.replace(/[0-9a-f]{64}$/, 'ab'.repeat(32));
    const wrong = await lab.try('a1', `${installer} agent`, wrongKey);
    assert.equal(wrong.code, 1, wrong.err);
    assert.match(wrong.err, /does not know the key of 'a1:1:\w+': .*sysmon-server enroll a1/);
    const away = await lab.try(
      'a1',
      `${installer} agent --join-file -`,
      right.replace(/ \S+:9732 /, ' 10.77.0.99:9732 '),
    );
    assert.equal(away.code, 1, away.err);
    assert.match(away.err, /10\.77\.0\.99:9732 .*9732\/tcp/);
    assert.equal(await listing(lab, 'a1'), before);
  });

  test('agents: by standard input, by a file where there is no Node, and on a bare Debian from the archive', async () => {
    assert.match(await lab.sh('a1', `${installer} agent --join-file -`, await joinLine('a1')), connected);

    await lab.sh('a2', 'umask 077; cat >/root/join', await joinLine('a2'));
    assert.match(await lab.sh('a2', `${installer} agent --join-file /root/join`), connected);
    assert.match(await lab.sh('a2', 'readlink -f /usr/local/lib/sysmon/current/node'), /^\/usr\/local\/lib\/sysmon\//);

    await lab.copy('b1', archive, '/root/release.tar.gz');
    await lab.sh('b1', `cd /root && tar xzf release.tar.gz && mv sysmon-* release`);
    assert.match(await lab.sh('b1', `${installer} agent`, await joinLine('b1')), connected);

    for (const host of ['a1', 'a2', 'b1']) {
      assert.equal(await lab.sh(host, 'stat -c "%U:%G %a" /etc/sysmon/agent.key'), 'root:sysmon-agent 440');
      assert.equal(
        await lab.sh(
          host,
          `grep -r "$(cut -d' ' -f3 /etc/sysmon/agent.key)" /var/log /etc/sysmon/agent.env /run/log 2>/dev/null || echo none`,
        ),
        'none',
      );
    }
  });

  test("the agent of the server's own host enrols by itself", async () => {
    assert.match(await lab.sh('s1', `${installer} agent`), /agent 's1' is connected to 127\.0\.0\.1:9732/);
  });

  test('a second run changes nothing, and says so', async () => {
    for (const [host, role] of [
      ['s1', 'server'],
      ['s1', 'agent'],
      ['a2', 'agent'],
      ['b1', 'agent'],
    ] as const) {
      const before = (await listing(lab, host)) + (await invocations(host));
      const out = await lab.sh(host, `${installer} ${role}`);
      assert.match(out, /^sysmon: nothing to change: /m);
      assert.equal((await listing(lab, host)) + (await invocations(host)), before);
    }
  });

  test('the units: verified, as closed as Node allows, and told to systemd', async () => {
    assert.equal(await lab.sh('s1', 'systemd-analyze verify sysmon-agent.service sysmon-server.service 2>&1'), '');
    for (const [unit, exposureMax] of [
      ['sysmon-agent', 1.5],
      ['sysmon-server', 1.3],
    ] as const) {
      const out = await lab.sh('s1', `systemd-analyze security ${unit} --no-pager`);
      const [, exposure] = /Overall exposure level for \S+: ([0-9.]+)/.exec(out) ?? [];
      assert.ok(Number(exposure) <= exposureMax, `${unit}: ${exposure}`);
    }
    assert.match(await lab.sh('s1', 'systemctl show -p StatusText sysmon-agent'), /connected to 127\.0\.0\.1:9732/);
    assert.match(await lab.sh('s1', 'systemctl show -p StatusText sysmon-server'), /4 of 4 agents up/);
  });

  test('Prometheus sees all of them, sample by sample', async () => {
    for (const { agent } of records) {
      await lab.sh(
        agent,
        `sed -i 's/^#SYSMON_SCHEDULE=.*/SYSMON_SCHEDULE=1s/' /etc/sysmon/agent.env && systemctl restart sysmon-agent`,
      );
    }
    prometheus = await Prometheus.start(lab, await lab.address('s1'));
    await eventually('all agents are up', async () => (await prometheus.value('count(sysmon_agent_up == 1)')) === 4);
    // Something to deliver later, too.
    prometheus.pause();
    for (const record of records)
      await eventually(`${record.agent} has sampled`, async () => {
        record.read(lab);
        return record.reports.size >= 15;
      });
    prometheus.resume();
    await expectAllStored();
  });

  test('reload: the same process, the same connection, a line in the journal', async () => {
    const before = await lab.sh('s1', 'systemctl show -p MainPID sysmon-agent sysmon-server');
    const { out } = await lab.try('a1', 'sysmon-agent status --json');
    const since = await journalCursor(lab, 's1');
    await lab.sh('s1', 'systemctl reload sysmon-agent sysmon-server');
    await lab.sh('a1', 'systemctl reload sysmon-agent');
    await eventually('both say so', async () => {
      const lines = ofPrograms(await journalLines(lab, 's1', since));
      return new Set(lines.filter(({ text }) => text.startsWith('reloaded')).map(({ program }) => program)).size === 2;
    });
    assert.equal(await lab.sh('s1', 'systemctl show -p MainPID sysmon-agent sysmon-server'), before);
    const link = (text: string) => (JSON.parse(text) as { link: { state: string; since: string } }).link;
    assert.equal(link((await lab.try('a1', 'sysmon-agent status --json')).out).state, 'connected');
    assert.equal(link((await lab.try('a1', 'sysmon-agent status --json')).out).since, link(out).since);
    assert.equal(await lab.sh('s1', 'systemctl is-active sysmon-server sysmon-agent'), 'active\nactive');
  });

  test('the upgrade of a server restarts what changed and keeps the rest; the downgrade brings the old one back', async () => {
    const later = variant(release, join(lab.folder, 'later'), {
      VERSION: () => '0.2.0\n',
      'dist/sysmon-server.cjs': (text) => text.replace(`"${releaseVersion}"`, '"0.2.0"'),
      'systemd/server.env': (text) => `${text}\n# How it is new.\n#SYSMON_NEW=\n`,
    });
    await lab.copy('s1', later, '/root/later');
    const before = await listing(lab, 's1');
    const agent = await lab.sh('s1', 'systemctl show -p MainPID sysmon-agent');
    const out = await lab.sh('s1', '/root/later/install.sh server');
    assert.match(out, /sysmon-server 0\.2\.0 is installed/);
    assert.match(out, /server\.env is kept; .* server\.env\.new beside it/);
    assert.match(await lab.sh('s1', 'cat /etc/sysmon/server.env.new'), /SYSMON_NEW/);
    assert.equal(await lab.sh('s1', 'sysmon-server --version'), 'sysmon-server 0.2.0');
    assert.match(await lab.sh('s1', 'sysmon-server status'), /version +0\.2\.0/);
    assert.equal(await lab.sh('s1', 'systemctl show -p MainPID sysmon-agent'), agent, 'the agent was restarted');
    assert.match(await lab.sh('s1', '/root/later/install.sh server'), /nothing to change/);

    assert.match(
      await lab.sh('s1', `${installer} server --downgrade`),
      new RegExp(`sysmon-server ${releaseVersion} is installed`),
    );
    await lab.sh('s1', 'rm /etc/sysmon/server.env.new');
    assert.equal(await listing(lab, 's1'), before);
  });

  test('an upgrade that does not start leaves the old version running, and the files as they were', async () => {
    const broken = variant(release, join(lab.folder, 'broken'), {
      VERSION: () => '0.3.0\n',
      // It can be asked for everything but to run.
      'dist/sysmon-agent.cjs': (text) =>
        text.replace(
          '\n',
          '\nif (process.argv[2] === "run") { console.error("sysmon-agent: broken on purpose"); process.exit(2); }\n',
        ),
    });
    await lab.copy('a2', broken, '/root/broken');
    const before = await listing(lab, 'a2');
    const { code, err } = await lab.try('a2', '/root/broken/install.sh agent');
    assert.equal(code, 1);
    assert.match(err, /sysmon-agent does not start: broken on purpose/);
    assert.match(err, /the old version runs/);
    assert.equal(await listing(lab, 'a2'), before);
    assert.equal(await lab.sh('a2', 'systemctl is-active sysmon-agent'), 'active');
  });

  test('options that the new version would refuse are found before anything is touched', async () => {
    await lab.sh('a2', 'echo SYSMON_SCHEDULE=sometimes >>/etc/sysmon/agent.env');
    const before = (await listing(lab, 'a2')) + (await invocations('a2'));
    const { code, err } = await lab.try('a2', `/root/broken/install.sh agent`);
    assert.equal(code, 1);
    assert.match(
      err,
      /the options of \/etc\/sysmon\/agent\.env are refused, nothing was changed in what runs: .*sometimes/,
    );
    assert.equal((await listing(lab, 'a2')) + (await invocations('a2')), before);
    await lab.sh('a2', `sed -i '$d' /etc/sysmon/agent.env`);
  });

  test('through all of this no sample was lost', async () => {
    for (const record of records) record.read(lab);
    await expectAllStored();
    for (const { agent } of records)
      assert.equal(await prometheus.value(`sum(sysmon_agent_reports_dropped_total{agent="${agent}"})`), 0);
    assert.deepEqual(prometheus.warnings, []);
  });

  test('the journal: what a start is made of, priorities, and no line per report', async () => {
    const lines = ofPrograms(await journalLines(lab, 's1'));
    const server = lines.find(({ program }) => program === 'sysmon-server');
    assert.match(server?.text ?? '', new RegExp(`^version ${releaseVersion}: .*:9732 .*:9733 .*set: fleet-key-file=`));
    assert.equal(server?.priority, 6);
    // A hundred reports and more came meanwhile; each host that is down and back is two lines.
    assert.ok(lines.length < 90, `${lines.length} lines`);
    for (const { text } of lines) assert.doesNotMatch(text, /^<\d>|[0-9a-f]{64}/);
    const warned = lines.filter(({ priority }) => priority <= 4).map(({ text }) => text);
    assert.ok(
      // Of the wrong key, the agents that were restarted, the Prometheus that paused, and a disk that many hosts share.
      warned.every((text) =>
        /is refused|(is|are) down|^lost |^cannot connect |^scraper |^an answer to |: disk slow since /.test(text),
      ),
      warned.join('\n'),
    );
  });

  test('uninstalled, it is gone but for configuration, keys, state and users; installed again it goes on', async () => {
    const kept = await listing(lab, 'a1', '/etc/sysmon');
    const user = await lab.sh('a1', 'getent passwd sysmon-agent');
    assert.match(
      await lab.sh('a1', '/usr/local/lib/sysmon/current/install.sh uninstall'),
      /kept: \/etc\/sysmon\/agent\.env \/etc\/sysmon\/agent\.key \/var\/lib\/sysmon-agent;/,
    );
    assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
    assert.equal(await lab.sh('a1', 'getent passwd sysmon-agent'), user);
    assert.equal(
      await lab.sh('a1', 'find / -xdev -path /root -prune -o -name "*sysmon*" -print | sort'),
      '/etc/sysmon\n/var/lib/sysmon-agent',
    );
    assert.equal(
      await lab.sh(
        'a1',
        'systemctl list-unit-files --no-legend "sysmon*"; systemctl list-units --all --no-legend "sysmon*"',
      ),
      '',
    );
    assert.match(await lab.sh('a1', `${installer} agent`), connected);
  });

  test('from a clone it builds, as the user who called sudo', async () => {
    const clone = '/home/dev/sysmon';
    await lab.sh(
      'a1',
      'useradd --create-home --shell /bin/sh dev && echo "dev ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/dev',
    );
    await lab.sh('a1', `mkdir ${clone}`);
    for (const part of [
      'package.json',
      'package-lock.json',
      'tsconfig.base.json',
      'install.sh',
      ...['LICENSE', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'examples', 'prometheus'],
      'scripts',
      'src',
      'systemd',
      'docs',
      'node_modules',
    ]) {
      await lab.copy('a1', rootFile(part), `${clone}/${part}`);
    }
    await lab.sh('a1', `chown -R dev: ${clone}`);
    const before = await lab.sh('a1', 'readlink /usr/local/lib/sysmon/current');
    const out = await lab.sh('a1', `runuser -u dev -- sh -c 'cd ${clone} && sudo ./install.sh agent'`);
    assert.match(out, connected);
    assert.equal(await lab.sh('a1', `find ${clone} ! -user dev`), '');
    assert.equal(await lab.sh('a1', `stat -c %U ${clone}/dist/sysmon-agent.cjs`), 'dev');
    // Of the Node.js for hosts that have none, only what was fetched before is there without a network.
    await lab.sh('a1', `mkdir -p ${clone}/var/cache`);
    const runtime = readdirSync(rootFile('var/cache')).find((file) => file.startsWith(`node-linux-${process.arch}-`));
    assert.ok(runtime !== undefined);
    await lab.copy('a1', rootFile(`var/cache/${runtime}`), `${clone}/var/cache/${runtime}`);
    await lab.sh('a1', `chown -R dev: ${clone}/var`);
    const server = await lab.try('a1', `runuser -u dev -- sh -c 'cd ${clone} && sudo ./install.sh server'`);
    assert.equal(server.code, 0, server.err);
    assert.match(server.err, /there is no release archive for (arm64|x64): /);
    assert.match(
      await lab.sh('a1', 'ls /usr/local/lib/sysmon/current/install'),
      new RegExp(`^sysmon-${releaseVersion}-linux-${process.arch}\\.tar\\.gz$`),
      server.err,
    );
    assert.equal(await lab.sh('a1', `find ${clone} ! -user dev`), '');
    await lab.sh('a1', `${clone}/install.sh uninstall server --purge --yes`);
    // The same files as from the release, to the byte.
    assert.equal(await lab.sh('a1', 'readlink /usr/local/lib/sysmon/current'), before);
    assert.equal(
      await lab.sh('a1', `cmp ${clone}/dist/sysmon-agent.cjs ${home}/dist/sysmon-agent.cjs && echo same`),
      'same',
    );
  });

  test('purged, the host is as it was', async () => {
    await lab.boot('p1', { bare: true });
    await lab.copy('p1', release, home);
    const before = await listing(lab, 'p1');
    await lab.sh('p1', `${installer} server && ${installer} agent`);
    assert.notEqual(await listing(lab, 'p1'), before);
    assert.match(await lab.sh('p1', `${installer} uninstall --purge --yes`), /sysmon is removed/);
    assert.equal(await listing(lab, 'p1'), before);
    assert.match(await lab.sh('p1', `${installer} uninstall --purge`), /nothing to remove/);
  });

  test('a port that is taken: the line says which; freed, the same command installs', async () => {
    const node = `${home}/runtime/node`;
    const before = await listing(lab, 'p1', '/usr/local');
    await lab.sh('p1', `systemd-run -q --unit=squatter ${node} -e 'net.createServer().listen(9733)'`);
    await eventually(
      'the port is taken',
      async () =>
        (
          await lab.try(
            'p1',
            `${node} -e 'net.connect(9733, () => process.exit(0)).on("error", () => process.exit(1))'`,
          )
        ).code === 0,
    );
    const { code, err } = await lab.try('p1', `${installer} server`);
    assert.equal(code, 1);
    assert.match(err, /nothing was changed in what runs: cannot listen on :9733: .*--web\.listen-address/);
    assert.equal(await listing(lab, 'p1', '/usr/local'), before);
    assert.equal(await lab.sh('p1', 'systemctl list-units --all --no-legend "sysmon*"'), '');
    await lab.sh('p1', 'systemctl stop squatter');
    assert.match(await lab.sh('p1', `${installer} server`), /sysmon-server \S+ is installed/);
  });

  async function expectAllStored(): Promise<void> {
    for (const record of records) {
      const last = Math.max(...record.reports.keys());
      await eventually(`the last report of ${record.agent} is scraped`, async () => {
        const stored = await prometheus.samplesOf(record.agent);
        return [...stored.values()].some((samples) => samples.has(last));
      });
      const stored = await prometheus.samplesOf(record.agent);
      assert.ok(record.expectStored(stored) > 0);
    }
  }

  const invocations = (host: string) => lab.sh(host, 'systemctl show -p InvocationID sysmon-agent sysmon-server');
});
